//! One trace from Envoy's span over the resolver's decision to the call of KMS, at a real collector.

use bouncer_tests::client::Protocol;
use bouncer_tests::collector::{Collector, attribute};
use bouncer_tests::envoy::Bootstrap;
use bouncer_tests::leak::Needles;
use bouncer_tests::pki::{Ca, Leaf};
use bouncer_tests::stack::{BILLING, CART, Credential, Stack};
use bouncer_tests::{Fault, Result};
use std::net::SocketAddr;
use std::time::Duration;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENTS_SPAN: &str = "b7ad6b7169203331";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Envoy traces too, to the same collector.
fn trace_envoy(bootstrap: &mut Bootstrap, collector: SocketAddr) -> Result<()> {
    bootstrap.add_cluster("collector", collector)?;
    let cluster = bootstrap.cluster("collector")?;
    // By plain HTTP/2.
    cluster.as_mapping_mut().map(|cluster| cluster.remove("transport_socket"));
    cluster["typed_extension_protocol_options"] = serde_norway::from_str(
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
  '@type': type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
  explicit_http_config: { http2_protocol_options: {} }",
    )?;
    bootstrap.connection_manager()?["tracing"] = serde_norway::from_str(
        "random_sampling: { value: 100 }
provider:
  name: envoy.tracers.opentelemetry
  typed_config:
    '@type': type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig
    service_name: envoy
    grpc_service: { envoy_grpc: { cluster_name: collector } }",
    )?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_joins_envoys_span_the_decision_and_the_call_of_kms() -> Result<()> {
    let (collector, address) = Collector::start().await?;
    let stack = Stack::builder("traces")
        .resolver(move |setup| setup.set("telemetry.otlp_endpoint", format!("http://{address}")))
        .bootstrap(move |bootstrap| trace_envoy(bootstrap, address))
        .start()
        .await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let parent = format!("00-{TRACE}-{CLIENTS_SPAN}-01");
    let headers =
        [("traceparent", parent.as_str()), ("x-bouncer-trace", "forged"), ("authorization", "mine-alone-0123456789")];
    let reply = client.get_with("/", &headers).await?;
    assert_eq!(reply.status, 200);
    assert!(!reply.seen()?.headers.keys().any(|name| name == "x-bouncer-trace"), "it is not for the upstream");
    let audited = stack.audited("the injection", |event| event["outcome"] == "inject").await?;
    let (decide, kms) = stack
        .until("both spans", Duration::from_secs(15), || async {
            Some((collector.spans("decide").pop()?, collector.spans("kms.Decrypt").pop()?))
        })
        .await?;
    assert_eq!((hex(&decide.trace_id), hex(&kms.trace_id)), (TRACE.to_owned(), TRACE.to_owned()));
    assert_eq!(kms.parent_span_id, decide.span_id);
    stack
        .until("Envoy's span, whose child the decision is", Duration::from_secs(15), || async {
            let spans = collector.all();
            let envoys = spans.iter().find(|span| span.span_id == decide.parent_span_id)?;
            (hex(&envoys.parent_span_id) == CLIENTS_SPAN).then_some(())
        })
        .await?;
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
