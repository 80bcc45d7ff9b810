//! Revocation reaches what is under way, and nothing of before comes back. Credentials are revoked again and again while
//! requests come, end and are given up at every moment, and Envoy survives it.
//!
//! For a moment after a stream's end Envoy still finds it by its number, and crashes over a filter that resumes, answers
//! or resets it then. Nothing but a good many tries finds a filter that does.

mod support;

use bouncer_custody::Reason;
use bouncer_proto::bridge::v1::{AuditEvent, Snapshot};
use bouncer_tests::client::{Client, ENVOY_NAME, Protocol};
use bouncer_tests::envoy::{Bootstrap, Version, at};
use bouncer_tests::intercept::Decider;
use bouncer_tests::resolver::Setup;
use bouncer_tests::stack::{CART, Cluster, Credential, Stack};
use bouncer_tests::{Fault, Result, operator, tools};
use futures::future::join_all;
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use support::Raw;

/// So many at least, and then more until enough happened, however slow the machine is.
const ROUNDS: usize = 20;
const ENOUGH: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(20);
const DEADLINE: Duration = Duration::from_secs(60);

/// How many requests were answered with 200, and how many with 503, and how many were not.
#[derive(Debug, Default)]
struct Tally {
    served: AtomicUsize,
    denied: AtomicUsize,
    cut_off: AtomicUsize,
}

impl Tally {
    fn is_enough(&self) -> bool {
        let more = |of: &AtomicUsize, than| of.load(Ordering::Relaxed) > than;
        more(&self.served, 300) && more(&self.denied, 300) && more(&self.cut_off, 200)
    }
}

/// Requests, one after the other, until it is stopped. With a `patience`, each is given up after a while, between nothing
/// and so long.
async fn traffic(client: Client, patience: Option<Duration>, tally: Arc<Tally>, stop: Arc<AtomicBool>) {
    let mut step = 0;
    while !stop.load(Ordering::Relaxed) {
        let reply = match patience {
            None => client.get("/").await,
            Some(longest) => {
                step = (step + 7) % 32;
                let given_up = |_| Err(Fault::new("given up"));
                tokio::time::timeout(longest * step / 32, client.get("/")).await.unwrap_or_else(given_up)
            }
        };
        let of = match reply.map(|reply| reply.status.as_u16()) {
            Ok(200) => &tally.served,
            Ok(503) => &tally.denied,
            Ok(_) => continue,
            Err(_) => &tally.cut_off,
        };
        of.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_survives_whatever_ends_at_the_moment_of_a_revocation() -> Result<()> {
    let builder = Stack::builder("revocations").own_bridge().workers(2).cluster(Cluster::new("payments"));
    let stack = builder.credential(Credential::new("payments-api", "payments").callers(&[CART])).start().await?;
    let (tally, stop) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
    let mut running = vec![];
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Http1Once] {
        for patience in [None, None, Some(Duration::from_millis(2)), Some(Duration::from_millis(8))] {
            let client = stack.client(CART, protocol)?;
            let traffic = || traffic(client.clone(), patience, Arc::clone(&tally), Arc::clone(&stop));
            running.extend((0..4).map(|_| tokio::spawn(traffic())));
        }
    }
    let probe = stack.client(CART, Protocol::Http1)?;
    let answers = |status: u16| {
        let probe = &probe;
        async move { (probe.get("/").await.ok()?.status == status).then_some(()) }
    };
    let begun = Instant::now();
    for round in 0.. {
        if round >= ROUNDS && tally.is_enough() {
            break;
        }
        assert!(begun.elapsed() < ENOUGH, "too little happened: {tally:?} in {round} rounds");
        stack.until(format!("a credential in round {round}"), SOON, || answers(200)).await?;
        let mut taken = vec![];
        stack.bridge()?.push(|snapshot| taken = std::mem::take(&mut snapshot.envelopes));
        stack.until(format!("its end in round {round}"), SOON, || answers(503)).await?;
        stack.bridge()?.push(|snapshot| snapshot.envelopes = taken);
    }
    stack.until("the last one", SOON, || answers(200)).await?;
    stop.store(true, Ordering::Relaxed);
    for ended in join_all(running).await {
        ended?;
    }
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}

/// Takes something back, and then gives it again.
type Switch = fn(&mut Snapshot, bool);

const SWITCHES: [(&str, Switch); 4] = [
    ("the flag", |snapshot, on| snapshot.intercept_enabled = on),
    ("the resource", |snapshot, on| snapshot.resources.iter_mut().for_each(|resource| resource.enabled = on)),
    ("the caller", |snapshot, on| {
        let callers = if on { CART } else { "spiffe://example.org/ns/shop/sa/nobody" };
        snapshot.resources.iter_mut().for_each(|resource| resource.callers = vec![callers.to_owned()]);
    }),
    ("the envelope", |snapshot, on| {
        let hidden = |path: &str| path.replace("protected-resources/", "elsewhere/");
        let shown = |path: &str| path.replace("elsewhere/", "protected-resources/");
        for envelope in &mut snapshot.envelopes {
            envelope.logical_path = if on { shown(&envelope.logical_path) } else { hidden(&envelope.logical_path) };
        }
    }),
];

/// The upstream's connection that a request went over.
async fn connection(client: &Client) -> Result<u64> {
    Ok(client.get("/").await?.seen()?.connection)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_enabled_again_never_uses_a_connection_of_before() -> Result<()> {
    let mut stack = Stack::builder("revived").own_bridge().workers(1).start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    assert_eq!(connection(&client).await?, connection(&client).await?, "connections are kept");
    for (what, switch) in SWITCHES {
        let before = stack.upstream("payments")?.connections();
        stack.bridge()?.push(|snapshot| switch(snapshot, false));
        let denied = || async { client.get("/").await.ok()?.reason().map(drop) };
        stack.until(format!("{what} is off"), SOON, denied).await?;
        stack.bridge()?.push(|snapshot| switch(snapshot, true));
        let back = || async { connection(&client).await.ok() };
        let after = stack.until(format!("{what} is on again"), SOON, back).await?;
        assert!(after > before, "{what}: connection {after} of {before} is one of before");
    }
    // Nor does a resolver that was started anew in between.
    let before = stack.upstream("payments")?.connections();
    stack.bridge()?.push(|snapshot| snapshot.intercept_enabled = false);
    let denied = || async { client.get("/").await.ok()?.reason().map(drop) };
    stack.until("the flag is off", SOON, denied).await?;
    stack.restart_resolver_until_ready().await?;
    stack.bridge()?.push(|snapshot| snapshot.intercept_enabled = true);
    let back = || async { connection(&client).await.ok() };
    let after = stack.until("the flag is on again", SOON, back).await?;
    assert!(after > before, "after a restart: connection {after} of {before} is one of before");
    Ok(())
}

/// The ids of the decisions that gave a credential, until it is stopped.
async fn released(mut decider: Decider, stop: Arc<AtomicBool>) -> Result<BTreeSet<String>> {
    let mut ids = BTreeSet::new();
    while !stop.load(Ordering::Relaxed) {
        ids.extend(decider.released(CART).await?);
    }
    Ok(ids)
}

/// What is recorded as released is released, or an event of its own says that it was not: also where a revocation comes
/// between the two.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_that_a_revocation_overtakes_is_taken_back_in_the_audit() -> Result<()> {
    // A spool that waits for the disk leaves time for it.
    let builder = Stack::builder("overtaken").own_bridge().without_envoy();
    let stack = builder.resolver(|setup| setup.set("limits.spool_fsync", true)).start().await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut deciders = vec![];
    for _ in 0..4 {
        let decider = Decider::at(&stack.resolver()?.setup().intercept_socket).await?;
        deciders.push(tokio::spawn(released(decider, Arc::clone(&stop))));
    }
    let overtaken = |event: &AuditEvent| event.reason == Reason::DecisionStale.code();
    let on = AtomicBool::new(true);
    stack
        .until("a decision that a revocation overtakes", DEADLINE, || async {
            let on = !on.fetch_not(Ordering::Relaxed);
            let bridge = stack.bridge().ok()?;
            bridge.push(|snapshot| snapshot.resources.iter_mut().for_each(|resource| resource.enabled = on));
            bridge.said().events.iter().any(overtaken).then_some(())
        })
        .await?;
    stop.store(true, Ordering::Relaxed);
    let mut told = BTreeSet::new();
    for decider in deciders {
        told.extend(decider.await??);
    }
    let accounted = || async {
        let said = stack.bridge().ok()?.said();
        let of = |outcome: &'static str| said.events.iter().filter(move |event| event.outcome == outcome);
        let recorded: BTreeSet<_> = of("inject").map(|event| event.id.clone()).collect();
        let taken_back: BTreeSet<_> =
            of("deny").map(|event| event.decision_id.clone()).filter(|id| !id.is_empty()).collect();
        assert!(taken_back.is_disjoint(&told), "what was released was not taken back");
        let ids: BTreeSet<_> = said.events.iter().map(|event| &event.id).collect();
        assert_eq!(ids.len(), said.events.len(), "each event has an id of its own");
        (recorded == &told | &taken_back).then_some(())
    };
    stack.until("each release in the audit, or taken back", DEADLINE, accounted).await
}

/// A key that is disabled upstream is found at the next re-check, though no new stream asks for anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_disabled_upstream_ends_the_streams_that_use_it() -> Result<()> {
    let stack = Stack::builder("recheck")
        .own_bridge()
        .workers(1)
        .resolver(|setup| setup.set("limits.recheck_s", 1))
        .start()
        .await?;
    let held = held(&stack).await?;
    stack.audited("the injection", |event| event["outcome"] == "inject").await?;

    stack.kms.disable_key(&stack.key_arn).await?;
    let revoked = |event: &Value| event["outcome"] == "revoke" && event["reason"] == Reason::KmsKeyDisabled.code();
    stack.audited("the revocation", revoked).await?;
    cut_off(&stack, held).await?;
    let client = stack.client(CART, Protocol::Http1)?;
    assert_eq!(client.get("/").await?.reason(), Some(Reason::KmsKeyDisabled.code()));

    // Enabled again, it is used again, over a new connection.
    let before = stack.upstream("payments")?.connections();
    stack.kms.enable_key(&stack.key_arn).await?;
    let back = || async { connection(&client).await.ok() };
    let after = stack.until("the key is used again", Duration::from_secs(20), back).await?;
    assert!(after > before, "connection {after} of {before} is one of before");
    Ok(())
}

/// The shipped idle timeout of the cluster and the resolver's drain time, both shorter.
fn idle_soon(bootstrap: &mut Bootstrap) -> Result<()> {
    let options = at(bootstrap.cluster("payments")?, "typed_extension_protocol_options")?;
    let http = &mut options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
    http["common_http_protocol_options"]["idle_timeout"] = "1s".into();
    Ok(())
}

fn drain_soon(setup: &mut Setup) {
    let clusters = setup.config.get_mut("rails").and_then(|rails| rails.get_mut("cluster")?.as_array_mut());
    for cluster in clusters.into_iter().flatten().filter_map(toml::Value::as_table_mut) {
        cluster.insert("drain_s".into(), 8.into());
    }
}

/// In mode `named` the cluster waits until Envoy's idle connections are gone, also over a restart of the resolver.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_mode_named_what_is_enabled_again_waits_until_connections_of_before_are_gone() -> Result<()> {
    let builder = Stack::builder("revived-named").own_bridge().workers(1).named(Version::Current);
    let mut stack = builder.resolver(drain_soon).bootstrap(idle_soon).start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    for restart in [false, true] {
        connection(&client).await?;
        let before = stack.upstream("payments")?.connections();
        stack.bridge()?.push(|snapshot| snapshot.intercept_enabled = false);
        let denied = |reason: Reason| {
            let client = &client;
            client.denies(reason)
        };
        stack.until("the denial", SOON, || denied(Reason::FeatureDisabled)).await?;
        if restart {
            stack.restart_resolver_until_ready().await?;
        }
        stack.bridge()?.push(|snapshot| snapshot.intercept_enabled = true);
        let waits = || client.denies(Reason::RevokedRecently);
        stack.until("the wait", SOON, waits).await?;
        let back = || async { connection(&client).await.ok() };
        let after = stack.until("its use again", SOON, back).await?;
        assert!(after > before, "connection {after} of {before} is one of before");
    }
    Ok(())
}

const PATH: &str = "protected-resources/payments-api/upstream-tls";

/// Runs `bouncerctl revoke` with these arguments; gives its exit code and what it said.
async fn bouncerctl(args: &[&str]) -> Result<(Option<i32>, String)> {
    let mut command = tokio::process::Command::new(tools::binary("bouncerctl")?);
    let output = command.arg("revoke").args(args).output().await?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8_lossy(&said).into_owned()))
}

/// A stream that stays open upstream.
async fn held(stack: &Stack) -> Result<Raw> {
    let before = stack.upstream("payments")?.started();
    let mut held = Raw::open(stack, &stack.identities.mint(CART)?, ENVOY_NAME).await?;
    held.send("POST /held HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 2\r\n\r\n1").await?;
    let carried = || async { (stack.upstream("payments").ok()?.started() > before).then_some(()) };
    stack.until("the stream upstream", SOON, carried).await?;
    Ok(held)
}

/// Sees to it that the stream ends, upstream and at the client, without an answer.
async fn cut_off(stack: &Stack, held: Raw) -> Result<()> {
    let broken = || async { (stack.upstream("payments").ok()?.broken() > 0).then_some(()) };
    stack.until("the stream's end upstream", SOON, broken).await?;
    match held.answer().await {
        Ok(answer) => Err(Fault::new(format!("an answer came: {answer:?}"))),
        Err(_) => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_revokes_at_the_resolver_with_the_control_plane_gone() -> Result<()> {
    for named in [false, true] {
        let socket = Arc::new(OnceLock::new());
        let own = Arc::clone(&socket);
        let mut builder = Stack::builder("operator").workers(1).resolver(move |setup| {
            let path = setup.sds_socket.with_file_name("admin.sock").display().to_string();
            setup.set("admin.socket", path.clone());
            let _ = own.set(path);
        });
        if named {
            builder = builder.named(Version::Current).resolver(drain_soon).bootstrap(idle_soon);
        }
        let mut stack = builder.start().await?;
        let socket = socket.get().ok_or_else(|| Fault::new("no socket"))?.as_str();
        let client = stack.client(CART, Protocol::Http1)?;
        let held = held(&stack).await?;
        assert_eq!(client.get("/").await?.status, 200);
        stack.audited("the injection", |event| event["outcome"] == "inject").await?;
        stack.kill_control_plane()?;

        let (code, said) = bouncerctl(&["protected-resources/slip/of-the-pen", "--socket", socket]).await?;
        assert!(code == Some(1) && said.contains("secrets list"), "{code:?} {said}");
        assert_eq!(client.get("/").await?.status, 200);

        let (code, said) = bouncerctl(&[PATH, "--socket", socket]).await?;
        assert!(code == Some(0) && said.contains("generation 1"), "{code:?} {said}");
        cut_off(&stack, held).await?;
        let denied = |reason: Reason| {
            let client = &client;
            client.denies(reason)
        };
        stack.until("the denial", SOON, || denied(Reason::RevokedByOperator)).await?;

        // It outlives the resolver, and ends by the operator's word.
        stack.restart_resolver()?;
        let still = || client.denies(Reason::RevokedByOperator);
        stack.until("the denial after a restart", SOON, still).await?;
        let before = stack.upstream("payments")?.connections();
        let (code, said) = bouncerctl(&[PATH, "--socket", socket, "--lift"]).await?;
        assert_eq!(code, Some(0), "{said}");
        let after = stack.until("its use again", SOON, || async { connection(&client).await.ok() }).await?;
        assert!(after > before, "connection {after} of {before} is one of before");
        assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_revokes_at_the_control_plane_for_every_bouncer() -> Result<()> {
    let stack = Stack::builder("operator-cp").workers(1).start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let held = held(&stack).await?;
    operator::run(&stack, &["revoke", PATH], b"").await?.success()?;
    cut_off(&stack, held).await?;
    let denied = || client.denies(Reason::EnvelopeMissing);
    stack.until("the denial", SOON, denied).await?;
    stack.audited("the revocation", |event| event["outcome"] == "revoke" && event["logical_path"] == PATH).await?;
    Ok(())
}

/// Registers the next generation of the credential, and says which before it were taken back.
async fn next_generation(stack: &Stack, revoked_through: u64) -> Result<()> {
    let credential = Credential::new("payments-api", "payments");
    let (_, body) = credential.wrap(&stack.kms, &stack.key_arn, None, &stack.customer_ca).await?;
    let mut generation = 0;
    stack.bridge()?.push(|snapshot| {
        for envelope in &mut snapshot.envelopes {
            envelope.generation += 1;
            generation = envelope.generation;
            envelope.ciphertext_ref = body["ciphertext_ref"].as_str().unwrap_or_default().to_owned();
            envelope.revoked_through = revoked_through;
        }
    });
    let client = stack.client(CART, Protocol::Http1)?;
    let used = |event: &Value| event["outcome"] == "inject" && event["generation"] == generation;
    let asked = || async {
        client.get("/").await.ok()?;
        stack.audit().await.ok()?.into_iter().find(used)
    };
    stack.until(format!("the use of generation {generation}"), SOON, asked).await.map(drop)
}

/// Disabled and registered anew while the resolver was away: what it then hears of is no rotation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_that_a_resolver_missed_ends_what_is_in_use() -> Result<()> {
    let stack = Stack::builder("missed").own_bridge().workers(1).start().await?;
    // The control: a rotation leaves streams alone.
    let mut drains = held(&stack).await?;
    next_generation(&stack, 0).await?;
    drains.send("2").await?;
    assert_eq!((drains.answer().await?.0, stack.upstream("payments")?.broken()), (200, 0));

    let ends = held(&stack).await?;
    next_generation(&stack, 2).await?;
    cut_off(&stack, ends).await
}
