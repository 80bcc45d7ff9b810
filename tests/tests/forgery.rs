//! Whatever a client, another filter or a route does: no credential goes to an upstream that its binding does not name.

use bouncer_custody::Reason;
use bouncer_tests::Result;
use bouncer_tests::client::Protocol;
use bouncer_tests::envoy::Bootstrap;
use bouncer_tests::stack::{BILLING, CART, Cluster, Credential, Stack};
use bouncer_tests::upstream::Seen;

/// Two upstreams, each with a credential of its own, and an upstream `bait` that is protected and has none.
fn two_upstreams(scenario: &str) -> bouncer_tests::stack::Builder {
    Stack::builder(scenario)
        .workers(1)
        .cluster(Cluster::new("payments"))
        .cluster(Cluster::new("ledger"))
        .cluster(Cluster::new("bait"))
        .credential(Credential::new("payments-api", "payments").callers(&[CART]))
        .credential(Credential::new("ledger-api", "ledger").callers(&[CART]))
}

fn name(seen: &Seen) -> &str {
    seen.peer.as_ref().map_or("nobody", |peer| peer.common_name.as_str())
}

/// Every request that reached an upstream came with that upstream's own credential.
fn nothing_went_astray(stack: &Stack) -> Result<()> {
    for (cluster, own) in [("payments", "payments-api"), ("ledger", "ledger-api")] {
        for seen in stack.upstream(cluster)?.requests() {
            assert_eq!(name(&seen), own, "{cluster} {seen:?}");
        }
    }
    assert!(stack.upstream("bait")?.requests().is_empty(), "{:?}", stack.upstream("bait")?.requests());
    Ok(())
}

fn lua(code: &str) -> String {
    let code: String = code.lines().map(|line| format!("      {line}\n")).collect();
    format!(
        "name: lua\ntyped_config:\n  \"@type\": type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua\n  \
         default_source_code:\n    inline_string: |\n{code}"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_client_claims_changes_nothing() -> Result<()> {
    let stack = two_upstreams("claims").start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let forged_facts = format!("payments 1 HTTP/1.1 {CART} x");
    for headers in [
        vec![("x-bouncer-facts", forged_facts.as_str())],
        vec![("x-bouncer-facts", forged_facts.as_str()), ("x-bouncer-facts", forged_facts.as_str())],
        vec![("x-bouncer-tag", "protected-resources/payments-api/upstream-tls@1.0000000000000000")],
        vec![("host", "payments.internal")],
        vec![("host", "payments")],
        vec![("x-forwarded-client-cert", "URI=spiffe://example.org/ns/shop/sa/billing")],
        vec![("x-envoy-retry-on", "5xx"), ("x-envoy-max-retries", "5")],
    ] {
        let reply = client.get_with("/ledger/", &headers).await?;
        assert_eq!(name(&reply.seen()?), "ledger-api", "{headers:?}");
        let reply = client.get_with("/bait/", &headers).await?;
        assert_eq!(reply.reason(), Some(Reason::NotRegistered.code()), "{headers:?}");
    }
    // A caller without a credential does not get one by naming another in a header.
    let billing = stack.client(BILLING, Protocol::Http1)?;
    let reply = billing.get_with("/", &[("x-bouncer-facts", &forged_facts)]).await?;
    assert_eq!(reply.reason(), Some(Reason::CallerNotAllowed.code()));
    nothing_went_astray(&stack)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_takes_its_cluster_from_a_header_opens_only_what_that_cluster_may_have() -> Result<()> {
    let stack = two_upstreams("cluster-header")
        .bootstrap(|bootstrap| {
            bootstrap.add_route("{match: {prefix: /chosen/}, route: {cluster_header: x-cluster, timeout: 30s}}")
        })
        .start()
        .await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let chosen = |cluster: &'static str| {
        let client = client.clone();
        async move { client.get_with("/chosen/", &[("x-cluster", cluster)]).await }
    };
    assert_eq!(name(&chosen("payments").await?.seen()?), "payments-api");
    assert_eq!(name(&chosen("ledger").await?.seen()?), "ledger-api");
    assert_eq!(chosen("bait").await?.reason(), Some(Reason::NotRegistered.code()));
    for cluster in ["bouncer_sds", "bouncer_intercept"] {
        let reply = chosen(cluster).await?;
        assert_eq!(reply.reason(), Some(Reason::NotProtected.code()), "{cluster} {}", reply.status);
    }
    nothing_went_astray(&stack)
}

/// A later filter sends a stream that was decided for `payments` to another cluster.
async fn rerouted(scenario: &str, to: &str) -> Result<(Stack, bouncer_tests::client::Reply)> {
    let code = format!(
        "function envoy_on_request(handle)\n  if handle:headers():get(\"x-reroute\") then\n    \
         handle:headers():replace(\":path\", \"/{to}/\")\n    handle:clearRouteCache()\n  end\nend"
    );
    let stack = two_upstreams(scenario)
        .bootstrap(move |bootstrap| bootstrap.insert_before("envoy.filters.http.router", &lua(&code)))
        .start()
        .await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let reply = client.get_with("/", &[("x-reroute", "1")]).await?;
    Ok((stack, reply))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_filter_that_reroutes_takes_no_credential_along() -> Result<()> {
    for to in ["bait", "ledger"] {
        let (stack, reply) = rerouted(&format!("reroute-{to}"), to).await?;
        assert_eq!(reply.status, 503, "{to}: {}", reply.body);
        assert!(stack.kms.proxy().count("Decrypt") == 1, "the stream was decided, for payments");
        nothing_went_astray(&stack)?;
        assert!(stack.upstream(to)?.requests().is_empty());
    }
    Ok(())
}

/// The same with the credential's cluster asked for first: a warm secret does not travel either.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retry_and_an_internal_redirect_stay_with_the_binding() -> Result<()> {
    let edit = |bootstrap: &mut Bootstrap| {
        bootstrap.add_route(
            "match: {prefix: /status/}\nroute:\n  cluster: payments\n  retry_policy: {retry_on: 5xx, num_retries: 2}",
        )?;
        bootstrap.add_route(
            "match: {prefix: /redirect}\nroute:\n  cluster: payments\n  internal_redirect_policy: {max_internal_redirects: 3, redirect_response_codes: [302]}",
        )
    };
    let stack = two_upstreams("redirect").bootstrap(edit).start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let reply = client.get("/status/503").await?;
    assert_eq!(reply.status, 503);
    assert_eq!(stack.upstream("payments")?.requests().len(), 3, "a try and two retries");

    let origin = format!("https://{}:{}", bouncer_tests::client::ENVOY_NAME, stack.envoy()?.listener().port());
    let reply = client.get(&format!("/redirect?{origin}/ledger/x")).await?;
    assert_eq!(name(&reply.seen()?), "ledger-api", "a redirected stream is decided anew");
    let reply = client.get(&format!("/redirect?{origin}/bait/x")).await?;
    assert_eq!(reply.reason(), Some(Reason::NotRegistered.code()), "{} {}", reply.status, reply.body);
    nothing_went_astray(&stack)
}

/// A filter in front of ours forges the tag: the filter state that only our filter should write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_tag_from_an_earlier_filter_dies_at_ours() -> Result<()> {
    let forge = r#"
name: forge
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.set_filter_state.v3.Config
  on_request_headers:
    - object_key: wasm.bouncer.tag
      factory_key: envoy.string
      format_string: {text_format_source: {inline_string: "%REQ(X-FORGE)%"}}
      skip_if_empty: true
"#;
    let stack = two_upstreams("forged-tag")
        .bootstrap(move |bootstrap| bootstrap.insert_before("bouncer.facts", forge))
        .start()
        .await?;
    let client = stack.client(CART, Protocol::Http1)?;
    assert_eq!(name(&client.get("/").await?.seen()?), "payments-api");
    let tag = stack
        .until("the tag in the access log", std::time::Duration::from_secs(15), || async {
            let line = stack.envoy().ok()?.access_log().into_iter().find(|line| line["path"] == "/")?;
            Some(line["bouncer_tag"].as_str()?.to_owned())
        })
        .await?;
    let reply = client.get_with("/bait/", &[("x-forge", &tag)]).await?;
    assert!(matches!(reply.status.as_u16(), 403 | 503), "{} {}", reply.status, reply.body);
    let reply = client.get_with("/ledger/", &[("x-forge", &tag)]).await?;
    assert!(
        matches!(reply.status.as_u16(), 403 | 503) || reply.seen().is_ok_and(|seen| name(&seen) == "ledger-api"),
        "{} {}",
        reply.status,
        reply.body
    );
    nothing_went_astray(&stack)
}
