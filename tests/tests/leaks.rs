//! The customer's private key is in Envoy's and the resolver's memory, and nowhere else; in the resolver's, in one place,
//! and not for longer than it is in use.

use bouncer_tests::client::Protocol;
use bouncer_tests::envoy::Version;
use bouncer_tests::leak::{Found, Needles, not_checked};
use bouncer_tests::stack::{Builder, CART, Stack};
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

/// The credential is used, rests, and is taken back.
async fn the_arena_alone_holds_the_key_while_it_is_in_use(builder: Builder) -> Result<()> {
    let stack = builder.own_bridge().start().await?;
    let needles = Needles::of(&stack.credential("payments-api")?.private_scalar()?)?;
    let pid = stack.resolver()?.process().pid();
    if let Err(fault) = needles.search_memory(pid) {
        not_checked(&format!("the resolver's memory, which this user may not read: {fault}"));
        return Ok(());
    }
    let client = stack.client(CART, Protocol::Http1)?;
    let search = || needles.search_arena_and_rest(pid);
    let settled = |what: &'static str, deadline, good: fn(&Found) -> bool| {
        let search = &search;
        let last = std::cell::RefCell::new(Found::default());
        let stack = &stack;
        async move {
            let found = stack.until(what, deadline, || async {
                last.replace(search().ok()?);
                good(&last.borrow()).then_some(())
            });
            let found = found.await;
            found.map_err(|fault| fault.with_evidence(format!("{:#?}", last.borrow().elsewhere)))
        }
    };

    assert!(search()?.in_arena.is_empty(), "nothing is unwrapped before it is asked for");
    for _ in 0..5 {
        assert_eq!(client.get("/").await?.status, 200);
    }
    // At rest. That it is found in the arena is the control of all searches that find nothing.
    let at_rest = |found: &Found| !found.in_arena.is_empty() && found.elsewhere.is_empty();
    settled("the arena alone holds the key", Duration::from_secs(1), at_rest).await?;

    stack.bridge()?.push(|snapshot| snapshot.envelopes.clear());
    stack
        .until("the eviction", Duration::from_secs(5), || async {
            (client.get("/").await.ok()?.status == 503).then_some(())
        })
        .await?;
    let gone = |found: &Found| found.in_arena.is_empty() && found.elsewhere.is_empty();
    settled("nothing holds the key", Duration::from_secs(1), gone).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_resolver_holds_the_key_in_its_arena_alone_and_forgets_it_within_a_second() -> Result<()> {
    the_arena_alone_holds_the_key_while_it_is_in_use(Stack::builder("arena")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_in_named_mode() -> Result<()> {
    the_arena_alone_holds_the_key_while_it_is_in_use(Stack::builder("arena-named").named(Version::Current)).await
}
