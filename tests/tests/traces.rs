//! One trace from Envoy's span over the resolver's decision to the call of KMS or Vault, at a real collector.

use bouncer_custody::Hex;
use bouncer_tests::client::Protocol;
use bouncer_tests::collector::{Collector, attribute};
use bouncer_tests::envoy::Bootstrap;
use bouncer_tests::leak::Needles;
use bouncer_tests::pki::{Ca, Leaf};
use bouncer_tests::stack::{BILLING, Builder, CART, Credential, Login, Stack};
use bouncer_tests::{Fault, Result};
use opentelemetry_proto::tonic::trace::v1::Span;
use std::net::SocketAddr;
use std::time::Duration;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENTS_SPAN: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    Hex(bytes).to_string()
}

/// Envoy traces too, to the same collector: so many of a hundred traces that begin in it.
fn trace_envoy(bootstrap: &mut Bootstrap, collector: SocketAddr, of_hundred: u8) -> Result<()> {
    bootstrap.add_cluster("collector", collector)?;
    let cluster = bootstrap.cluster("collector")?;
    // By plain HTTP/2.
    cluster.as_mapping_mut().map(|cluster| cluster.remove("transport_socket"));
    cluster["typed_extension_protocol_options"] = serde_norway::from_str(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
  '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
  explicit_http_config: { http2_protocol_options: {} }",
    )?;
    bootstrap.connection_manager()?["tracing"] = serde_norway::from_str(&format!(
        "random_sampling: {{ value: {of_hundred} }}
provider:
  name: envoy.tracers.opentelemetry
  typed_config:
    '@type': type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
    service_name: envoy
    grpc_service: {{ envoy_grpc: {{ cluster_name: collector }} }}",
    ))?;
    Ok(())
}

/// A stack whose resolver and Envoy trace to this collector.
fn traced(scenario: &str, collector: SocketAddr, of_hundred: u8) -> Builder {
    Stack::builder(scenario)
        .resolver(move |setup| setup.set("telemetry.otlp_endpoint", format!("http://{collector}")))
        .bootstrap(move |bootstrap| trace_envoy(bootstrap, collector, of_hundred))
}

/// Waits for the spans of one decision, and gives them: Envoy's, the decision, and the backend call of this name, each the
/// child of the one before and all in one trace.
async fn joined(stack: &Stack, collector: &Collector, call: &str) -> Result<[Span; 3]> {
    let deadline = Duration::from_secs(15);
    let both = || async { Some((collector.spans("decide").pop()?, collector.spans(call).pop()?)) };
    let (decide, call) = stack.until(format!("decide and {call}"), deadline, both).await?;
    let parent = || async { collector.all().into_iter().find(|span| span.span_id == decide.parent_span_id) };
    let envoys = stack.until("Envoy's span, whose child the decision is", deadline, parent).await?;
    assert_eq!(call.parent_span_id, decide.span_id);
    assert_eq!((&envoys.trace_id, &call.trace_id), (&decide.trace_id, &decide.trace_id));
    Ok([envoys, decide, call])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_joins_envoys_span_the_decision_and_the_call_of_kms() -> Result<()> {
    let (collector, address) = Collector::start().await?;
    let stack = traced("traces", address, 100).start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let parent = format!("00-{TRACE}-{CLIENTS_SPAN}-01");
    let headers =
        [("traceparent", parent.as_str()), ("x-bouncer-trace", "forged"), ("authorization", "mine-alone-0123456789")];
    let reply = client.get_with("/", &headers).await?;
    assert_eq!(reply.status, 200);
    assert!(!reply.seen()?.headers.keys().any(|name| name == "x-bouncer-trace"), "it is not for the upstream");
    let audited = stack.audited("the injection", |event| event["outcome"] == "inject").await?;
    let [envoys, decide, kms] = joined(&stack, &collector, "kms.Decrypt").await?;
    assert_eq!((hex(&envoys.trace_id), hex(&envoys.parent_span_id)), (TRACE.to_owned(), CLIENTS_SPAN.to_owned()));
    assert_eq!(audited["backend_request_id"], attribute(&kms, "bouncer.backend_request_id"), "{audited}");
    assert_ne!(attribute(&kms, "bouncer.backend_request_id"), "");
    assert_eq!(attribute(&decide, "bouncer.backend_request_id"), attribute(&kms, "bouncer.backend_request_id"));
    assert_eq!(attribute(&kms, "bouncer.outcome"), "unwrapped");
    assert_eq!((attribute(&decide, "bouncer.cluster"), attribute(&decide, "bouncer.outcome")), ("payments", "inject"));
    assert_eq!(audited["id"], attribute(&decide, "bouncer.decision_id"), "{audited}");

    // Nothing secret in what the resolver told; the control is the decision's id, which must be found.
    let needles = Needles::of(stack.credential("payments-api")?.key_pem.as_bytes())?
        .and(b"mine-alone-0123456789", "the caller's token")
        .and(stack.resolver()?.setup().sds_key.as_bytes(), "the SDS key");
    let told: Vec<u8> = collector.received().iter().flat_map(prost::Message::encode_to_vec).collect();
    assert_eq!(needles.search(&told, "the collector"), []);
    let control = Needles::of(attribute(&decide, "bouncer.decision_id").as_bytes())?;
    assert_ne!(control.search(&told, "the collector"), []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_joins_envoys_span_the_decision_and_the_read_of_vault() -> Result<()> {
    let (collector, address) = Collector::start().await?;
    let credential = Credential::new("payments-api", "payments").in_vault("root", "kv2:secret/payments/upstream-tls");
    let stack = traced("traces-vault", address, 100).vault(Login::JwtByProxy).credential(credential).start().await?;
    let parent = format!("00-{TRACE}-{CLIENTS_SPAN}-01");
    let reply = stack.client(CART, Protocol::Http1)?.get_with("/", &[("traceparent", &parent)]).await?;
    assert_eq!(reply.peer()?.common_name, "payments-api");
    let [envoys, decide, read] = joined(&stack, &collector, "vault.read").await?;
    assert_eq!((hex(&envoys.trace_id), hex(&envoys.parent_span_id)), (TRACE.to_owned(), CLIENTS_SPAN.to_owned()));

    // Vault's own id of the request, by which it is found in Vault's audit too.
    let call = stack.vault_proxy()?.calls().into_iter().find(|call| call.path.starts_with("secret/data/"));
    let call = call.ok_or_else(|| Fault::new("no read"))?;
    let id = call.request_id.ok_or_else(|| Fault::new("Vault gave no request id"))?;
    assert_eq!(attribute(&read, "bouncer.backend_request_id"), id);
    assert_eq!(attribute(&decide, "bouncer.backend_request_id"), id);
    assert_eq!(attribute(&read, "bouncer.outcome"), "unwrapped");

    // Neither the token nor the key is in what was told; the control is the request's id, which must be found.
    let token = call.token.ok_or_else(|| Fault::new("no token"))?;
    let needles = Needles::of(&stack.credential("payments-api")?.private_scalar()?)?.and(token.as_bytes(), "the token");
    let told: Vec<u8> = collector.received().iter().flat_map(prost::Message::encode_to_vec).collect();
    assert_eq!(needles.search(&told, "the collector"), []);
    assert_ne!(Needles::of(id.as_bytes())?.search(&told, "the collector"), []);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_begins_in_envoy_goes_on_in_the_decision() -> Result<()> {
    let (collector, address) = Collector::start().await?;
    let stack = traced("traces-root", address, 100).start().await?;
    // The client says nothing of a trace.
    assert_eq!(stack.client(CART, Protocol::Http1)?.get("/").await?.status, 200);
    let [envoys, ..] = joined(&stack, &collector, "kms.Decrypt").await?;
    assert_eq!(hex(&envoys.parent_span_id), "", "Envoy's span is the first of its trace");
    assert_ne!(hex(&envoys.trace_id), "");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_that_envoy_begins_and_does_not_sample_has_no_span() -> Result<()> {
    let (collector, address) = Collector::start().await?;
    let credential = Credential::new("payments-api", "payments").callers(&[CART, BILLING]);
    let stack = traced("traces-unsampled", address, 0).credential(credential).start().await?;
    assert_eq!(stack.client(CART, Protocol::Http1)?.get("/").await?.status, 200);
    // The control, last: one that its client wants sampled.
    let wanted = [("x-client-trace-id", "wanted")];
    assert_eq!(stack.client(BILLING, Protocol::Http1)?.get_with("/", &wanted).await?.status, 200);
    let decides = || async { Some(collector.spans("decide")).filter(|spans| !spans.is_empty()) };
    let decides = stack.until("the control's span", Duration::from_secs(15), decides).await?;
    assert_eq!(decides.len(), 1, "{decides:?}");
    let audited = stack.audited("the control's decision", |event| event["caller"] == BILLING).await?;
    assert_eq!(audited["id"], attribute(&decides[0], "bouncer.decision_id"), "{audited}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_sampled_trace_has_no_span() -> Result<()> {
    let mut stack = Stack::builder("traces-none")
        .credential(Credential::new("payments-api", "payments").callers(&[CART, BILLING]))
        .start()
        .await?;
    let parent = format!("00-{TRACE}-{CLIENTS_SPAN}-01");
    let ask = async |stack: &Stack, caller: &str, path: &str, parent: &str| -> Result<()> {
        let reply = stack.client(caller, Protocol::Http1)?.get_with(path, &[("traceparent", parent)]).await?;
        if reply.status == 200 { Ok(()) } else { Err(Fault::new(format!("status {}", reply.status))) }
    };
    // With telemetry off.
    ask(&stack, CART, "/", &parent).await?;
    // A collector of another authority gets nothing, and that is counted.
    let stranger = Ca::new("stranger")?;
    let (unheard, strangers) = Collector::start_tls(&stranger.issue(&Leaf::server("localhost")?)?).await?;
    let trusted = stack.scratch.write("collector-ca.pem", stack.server_ca.pem())?.display().to_string();
    stack
        .reconfigure_resolver(move |setup| {
            setup.set("telemetry.otlp_endpoint", format!("https://{strangers}").replace("127.0.0.1", "localhost"));
            setup.set("telemetry.ca_file", trusted);
        })
        .await?;
    stack
        .until("a span that is lost", Duration::from_secs(30), || async {
            // Until the filter has found out about the new resolver, it uses the decision of before.
            let _ = ask(&stack, CART, "/", &parent).await;
            let lost = stack.resolver().ok()?.metric("bouncer_resolver_spans_lost_total").await.ok()??;
            (lost > 0).then_some(())
        })
        .await?;
    assert!(unheard.received().is_empty());
    let (collector, address) = Collector::start_tls(&stack.server_ca.issue(&Leaf::server("localhost")?)?).await?;
    stack
        .reconfigure_resolver(move |setup| {
            setup.set("telemetry.otlp_endpoint", format!("https://{address}").replace("127.0.0.1", "localhost"));
        })
        .await?;
    stack
        .until("the new resolver", Duration::from_secs(15), || async {
            ask(&stack, CART, "/", "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").await.ok()
        })
        .await?;
    // The control, last: by the request's own trace, since this Envoy makes none.
    ask(&stack, BILLING, "/", &parent).await?;
    let decide = stack
        .until("the control's span", Duration::from_secs(15), || async { collector.spans("decide").pop() })
        .await?;
    assert_eq!((hex(&decide.trace_id), hex(&decide.parent_span_id)), (TRACE.to_owned(), CLIENTS_SPAN.to_owned()));
    assert_eq!(collector.spans("decide").len(), 1, "the others had none");
    Ok(())
}
