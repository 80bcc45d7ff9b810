//! The customer's private key is in Envoy's and the resolver's memory, and nowhere else.

use bouncer_tests::client::Protocol;
use bouncer_tests::leak::Needles;
use bouncer_tests::operator::run;
use bouncer_tests::stack::{AAD, CART, Credential, Stack};
use bouncer_tests::{Fault, Result};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_private_key_is_found_nowhere_that_it_may_not_be() -> Result<()> {
    let stack = Stack::builder("leaks").start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    for _ in 0..5 {
        assert_eq!(client.get_with("/", &[("x-canary", "marker-in-a-request")]).await?.status, 200);
    }
    stack.audited("the injection", |event| event["outcome"] == "inject").await?;
    let needles = Needles::of(&stack.credential("payments-api")?.private_scalar()?)?;

    // Every file of the scenario: database, audit spool, snapshot, grants, logs of all programs, configurations.
    let hits = needles.search_files(stack.scratch.path())?;
    assert!(hits.is_empty(), "{hits:?}");

    let api = stack.api()?;
    for path in [
        "/v1/crypto/settings",
        "/v1/crypto/envelope-secrets",
        "/v1/protected-resources",
        "/v1/bouncers",
        "/v1/bootstrap/status",
        "/v1/audit/events",
        "/v1/policy-bridge/health",
        "/metrics",
    ] {
        let answer = api.get(path).await?;
        assert!(answer.status.is_success(), "{path} {}", answer.status);
        assert!(needles.search(answer.text.as_bytes(), path).is_empty(), "{path}");
    }
    let (_, metrics) = stack.resolver()?.get("/metrics").await?;
    assert!(needles.search(metrics.as_bytes(), "metrics").is_empty());
    let stats = stack.envoy()?.admin("/stats").await?;
    assert!(needles.search(stats.as_bytes(), "stats").is_empty());

    let control_plane = stack.control_plane.as_ref().ok_or_else(|| Fault::new("no control plane"))?;
    let hits = needles.search_memory(control_plane.process().pid())?;
    assert!(hits.is_empty(), "{hits:?}");
    let hits = needles.search_wasm_memory(stack.envoy()?.process().pid(), b"upstream-tls@1.")?;
    assert!(hits.is_empty(), "{hits:?}");

    // The controls: the same searches find the key where it is, and where it was planted.
    assert!(!needles.search_memory(stack.envoy()?.process().pid())?.is_empty(), "Envoy holds the key");
    stack.scratch.write("planted.log", &stack.credential("payments-api")?.key_der)?;
    assert_eq!(needles.search_files(stack.scratch.path())?.len(), 1);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_an_envelope_shows_nowhere_on_its_way() -> Result<()> {
    let mut credential = Credential::new("payments-api", "payments");
    credential.with_envelope = false;
    let path = credential.logical_path.clone();
    let stack = Stack::builder("leaks-envelope").credential(credential).start().await?;
    let identity = stack.credential("payments-api")?;
    let needles = Needles::of(&identity.private_scalar()?)?;
    let endpoint = stack.kms.endpoint();
    let wrap = [
        "wrap",
        "--key-arn",
        &stack.key_arn,
        "--aad",
        AAD,
        "--in",
        "-",
        "--form",
        "envelope",
        "--kms-endpoint",
        &endpoint,
        "--dev",
        "--register",
        &path,
        "--json",
    ];
    let wrapped = run(&stack, &wrap, identity.bundle().as_bytes()).await?;
    wrapped.json()?;
    assert!(needles.search(&wrapped.out, "what wrap prints").is_empty());
    assert!(needles.search(wrapped.err.as_bytes(), "what wrap warns of").is_empty());
    let client = stack.client(CART, Protocol::Http1)?;
    let serves = || async { (client.get("/").await.ok()?.status == 200).then_some(()) };
    stack.until("service", Duration::from_secs(10), serves).await?;

    let hits = needles.search_files(stack.scratch.path())?;
    assert!(hits.is_empty(), "{hits:?}");
    for call in stack.kms.proxy().calls() {
        assert!(needles.search(&call.body, &call.operation).is_empty(), "KMS is sent no plaintext");
    }
    let control_plane = stack.control_plane.as_ref().ok_or_else(|| Fault::new("no control plane"))?;
    assert_eq!(needles.search_memory(control_plane.process().pid())?, []);

    // The control: the same search finds it where it must be.
    assert!(!needles.search_memory(stack.resolver()?.process().pid())?.is_empty(), "the resolver holds the key");
    Ok(())
}
