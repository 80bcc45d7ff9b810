//! Each link between resolver and control plane is broken for real, and both `bouncerctl probe --socket` on the node and
//! the control plane's health name that link and no other.

use bouncer_proto::bridge::v1 as wire;
use bouncer_proto::bridge::v1::control_message::Body;
use bouncer_tests::bridge::Bridge;
use bouncer_tests::bridge_relay::BridgeRelay;
use bouncer_tests::pki;
use bouncer_tests::resolver::{Resolver, Setup};
use bouncer_tests::scratch::free_port;
use bouncer_tests::stack::{BOUNCER_ID, CONTROL_PLANE_ID, Identities, Stack};
use bouncer_tests::tls_front::TlsFront;
use bouncer_tests::workload_api::{Behaviour, TrustDomain};
use bouncer_tests::{Fault, Result, operator, tools};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::TcpListener;

/// A resolver tries again each 5 s at the most.
const SOON: Duration = Duration::from_secs(25);

fn socket(stack: &Stack) -> PathBuf {
    stack.scratch.file("admin.sock")
}

async fn stack(scenario: &str, own_bridge: bool) -> Result<Stack> {
    let builder = Stack::builder(scenario).without_envoy().resolver(|setup| {
        let path = setup.sds_socket.with_file_name("admin.sock").display().to_string();
        setup.set("admin.socket", path);
    });
    if own_bridge { builder.own_bridge().start().await } else { builder.start().await }
}

/// What the resolver says of its way up; its exit code must fit.
async fn own_way(socket: &Path) -> Result<Value> {
    let mut command = tokio::process::Command::new(tools::binary("bouncerctl")?);
    command.arg("probe").arg("--socket").arg(socket).arg("--json").env_clear();
    let output = command.stdin(Stdio::null()).output().await?;
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    let expected = if answer["ok"] == true { 0 } else { 1 };
    assert_eq!(output.status.code(), Some(expected), "{answer}");
    Ok(answer)
}

/// Waits until the resolver names this link, or none.
async fn resolver_names(stack: &Stack, link: Option<&str>) -> Result<Value> {
    resolver_says(stack, link, |_| true).await
}

/// As [`resolver_names`], and until what it says is so besides.
async fn resolver_says(stack: &Stack, link: Option<&str>, so: impl Fn(&Value) -> bool) -> Result<Value> {
    let socket = socket(stack);
    let answer = stack
        .until(format!("the resolver names {link:?}"), SOON, || async {
            own_way(&socket).await.ok().filter(|answer| answer["link"].as_str() == link && so(answer))
        })
        .await?;
    assert_eq!(answer["ok"], link.is_none(), "{answer}");
    assert_eq!(answer["next"].as_str().unwrap_or_default().is_empty(), link.is_none(), "{answer}");
    Ok(answer)
}

/// Waits until the control plane names this link of the bouncer, or none; gives what it says of it.
async fn control_plane_names(stack: &Stack, link: Option<&str>) -> Result<Value> {
    control_plane_says(stack, link, |_| true).await
}

/// As [`control_plane_names`], and until what it says is so besides.
async fn control_plane_says(stack: &Stack, link: Option<&str>, so: impl Fn(&Value) -> bool) -> Result<Value> {
    stack
        .until(format!("the control plane names {link:?}"), SOON, || async {
            let ended = operator::run(stack, &["probe", "--json"], b"").await.ok()?;
            let health = ended.json().ok()?["items"][0]["bridge"].clone();
            let fits = health["link"].as_str() == link && (link.is_some() || health["ok"] == true);
            (fits && ended.code == i32::from(link.is_some()) && so(&health)).then_some(health)
        })
        .await
}

/// Starts the resolver again with another configuration, without waiting for it.
fn restarted(stack: &mut Stack, edit: impl FnOnce(&mut Setup)) -> Result<()> {
    let mut setup = stack.resolver()?.setup().clone();
    edit(&mut setup);
    stack.kill_resolver();
    stack.resolver = Some(Resolver::spawn(&stack.scratch, setup)?);
    Ok(())
}

fn lead_to(stack: &mut Stack, address: impl ToString) -> Result<()> {
    restarted(stack, |setup| setup.set("bridge.address", address.to_string()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_broken_link_on_the_way_up_is_named() -> Result<()> {
    let mut stack = stack("probe", false).await?;
    let home = stack.control_plane()?.setup().bridge();
    // The control: nothing is broken.
    let well = resolver_names(&stack, None).await?;
    assert_eq!(well["control_plane"], json!(home));
    control_plane_names(&stack, None).await?;

    lead_to(&mut stack, "control-plane.invalid:8443")?;
    resolver_names(&stack, Some("dns")).await?;
    // All that the control plane knows is that it is gone.
    control_plane_names(&stack, Some("offline")).await?;

    lead_to(&mut stack, format!("127.0.0.1:{}", free_port()?))?;
    resolver_names(&stack, Some("tcp")).await?;

    // A server that does not speak TLS, and one that speaks it but not HTTP/2.
    let plain = TcpListener::bind("127.0.0.1:0").await?;
    lead_to(&mut stack, plain.local_addr()?)?;
    let answering = tokio::spawn(async move {
        while let Ok((mut socket, _)) = plain.accept().await {
            let _ = tokio::io::AsyncWriteExt::write_all(&mut socket, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    resolver_names(&stack, Some("tls")).await?;
    answering.abort();
    let own = stack.identities.mint(CONTROL_PLANE_ID)?;
    let without_http2 = TlsFront::start(&own, home.parse()?).await?;
    lead_to(&mut stack, without_http2.address())?;
    let tls = resolver_names(&stack, Some("tls")).await?;
    assert!(tls["detail"].as_str().unwrap_or_default().contains("HTTP/2"), "{tls}");

    // The server is someone else; its SVID is of another authority; it does not trust ours.
    restarted(&mut stack, |setup| {
        setup.set("bridge.address", home.clone());
        setup.set("bridge.server_id", "spiffe://example.org/bouncer/another");
    })?;
    let other = resolver_names(&stack, Some("svid")).await?;
    assert!(other["detail"].as_str().unwrap_or_default().contains(CONTROL_PLANE_ID), "{other}");
    restarted(&mut stack, |setup| setup.set("bridge.server_id", CONTROL_PLANE_ID))?;
    resolver_names(&stack, None).await?;
    let stranger = TrustDomain::new()?;
    let untrusted = TlsFront::start(&stranger.svid(CONTROL_PLANE_ID)?, home.parse()?).await?;
    lead_to(&mut stack, untrusted.address())?;
    resolver_names(&stack, Some("svid")).await?;
    let wary = Bridge::start(&own, pki::roots(stranger.ca().pem())?, wire::Snapshot::default()).await?;
    lead_to(&mut stack, wary.address())?;
    let wary = resolver_names(&stack, Some("svid")).await?;
    assert!(wary["detail"].as_str().unwrap_or_default().contains("alert"), "the server's own word: {wary}");

    // It has none.
    restarted(&mut stack, |setup| {
        setup.set("bridge.address", home.clone());
        setup.set("identity.workload_api", "unix:///nowhere/workload.sock");
    })?;
    resolver_names(&stack, Some("svid")).await?;
    let workload_api = stack.identities.resolver();
    restarted(&mut stack, |setup| setup.set("identity.workload_api", workload_api))?;
    resolver_names(&stack, None).await?;
    control_plane_names(&stack, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_that_ends_is_named() -> Result<()> {
    let stack = stack("probe-svid", false).await?;
    resolver_names(&stack, None).await?;
    let Identities::Own { resolver, .. } = &stack.identities else { return Err(Fault::new("no own identities")) };
    let ends = || async {
        stack.resolver().ok()?.metric("bouncer_resolver_svid_not_after_timestamp_seconds").await.ok().flatten()
    };
    let before = stack.until("the first SVID's end", SOON, ends).await?;
    resolver.rotate(Duration::from_secs(5))?;
    stack.until("the short SVID", SOON, || async { ends().await.filter(|now| *now < before) }).await?;
    resolver.behave(Behaviour::Refusing);
    resolver_names(&stack, Some("svid")).await?;
    resolver.behave(Behaviour::Answering);
    resolver.rotate(Duration::from_hours(1))?;
    resolver_names(&stack, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_control_plane_sees_is_named_by_it() -> Result<()> {
    let mut stack = stack("probe-plane", false).await?;
    control_plane_names(&stack, None).await?;
    let api = stack.api()?;

    // The bouncer is registered for another identity: ours is nobody's.
    let body = json!({"name": "payments-east", "spiffe_id": "spiffe://example.org/bouncer/another"});
    api.put("/v1/bouncers/payments-east", &body).await?.success()?;
    resolver_names(&stack, Some("authorization")).await?;
    let refused = control_plane_names(&stack, Some("authorization")).await?;
    assert!(refused["detail"].as_str().unwrap_or_default().contains(BOUNCER_ID), "{refused}");
    let body = json!({"name": "payments-east", "spiffe_id": BOUNCER_ID});
    api.put("/v1/bouncers/payments-east", &body).await?.success()?;
    resolver_names(&stack, None).await?;
    control_plane_names(&stack, None).await?;

    // Its configuration names another bouncer.
    restarted(&mut stack, |setup| setup.set("bouncer", "payments-west"))?;
    resolver_names(&stack, Some("authorization")).await?;
    let mismatch = control_plane_names(&stack, Some("authorization")).await?;
    assert!(mismatch["detail"].as_str().unwrap_or_default().contains("'payments-west'"), "{mismatch}");
    restarted(&mut stack, |setup| setup.set("bouncer", "payments-east"))?;
    control_plane_names(&stack, None).await?;

    // It does not take what it is sent, since it does nothing at all.
    stack.resolver()?.process().signal(Signal::STOP)?;
    api.set_flag(false).await?;
    let lag = control_plane_names(&stack, Some("lag")).await?;
    assert_eq!(lag["epoch_lag"], 1, "{lag}");
    stack.resolver()?.process().signal(Signal::CONT)?;
    api.set_flag(true).await?;
    control_plane_names(&stack, None).await?;

    // The file that its deltas build on is gone: it asks for the whole, and goes on.
    let before = resolver_names(&stack, None).await?["policy_epoch"].as_u64();
    std::fs::remove_file(stack.scratch.file("resolver/snapshot"))?;
    api.set_flag(false).await?;
    let taken = || async { (own_way(&socket(&stack)).await.ok()?["policy_epoch"].as_u64() > before).then_some(()) };
    stack.until("the change, whole", SOON, taken).await?;
    assert!(stack.scratch.file("resolver/snapshot").exists());
    control_plane_names(&stack, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_refused_and_a_clock_that_differs_are_named() -> Result<()> {
    let stack = stack("probe-policy", true).await?;
    let bridge = stack.bridge()?;
    resolver_names(&stack, None).await?;

    // Its time is a minute behind.
    bridge.push(|snapshot| snapshot.issued_ms -= 60_000);
    let clock = resolver_names(&stack, Some("clock")).await?;
    assert!(clock["clock_skew_ms"].as_i64() > Some(50_000), "{clock}");
    bridge.push(|_| {});
    resolver_names(&stack, None).await?;

    // A delta that makes something else than it says: refused, the policy in use stays, and the whole is asked for.
    let held = bridge.snapshot();
    let delta = wire::PolicyDelta {
        from_epoch: held.epoch,
        epoch: held.epoch + 1,
        bouncer: held.bouncer,
        intercept_enabled: true,
        issued_ms: bouncer_tests::bridge::now_ms(),
        removed_envelopes: vec![held.envelopes[0].logical_path.clone()],
        digest: vec![7; 32],
        ..wire::PolicyDelta::default()
    };
    bridge.send(Body::Delta(delta.clone()));
    let diverged = resolver_names(&stack, Some("divergence")).await?;
    assert_eq!(diverged["policy_epoch"], held.epoch, "{diverged}");
    bridge.send(Body::Delta(wire::PolicyDelta { removed_envelopes: vec![], ..delta }));
    let twice =
        || async { (bridge.said().acks.iter().filter(|ack| !ack.refused.is_empty()).count() == 2).then_some(()) };
    stack.until("two refusals", SOON, twice).await?;
    assert_eq!(bridge.said().resyncs, 1, "the whole is asked for once");
    stack.resolver()?.ready().await?;
    bridge.push(|_| {});
    resolver_names(&stack, None).await?;

    // One of another bouncer: ours stays behind.
    bridge.push(|snapshot| snapshot.bouncer = "payments-west".to_owned());
    resolver_names(&stack, Some("lag")).await?;
    bridge.push(|snapshot| snapshot.bouncer = "payments-east".to_owned());
    resolver_names(&stack, None).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resolver_whose_clock_differs_is_named_by_both_sides() -> Result<()> {
    let mut stack = stack("probe-clock", false).await?;
    control_plane_names(&stack, None).await?;
    for (ahead_s, way) in [(8, "ahead"), (-8, "behind")] {
        let mut clock = Ok(());
        restarted(&mut stack, |setup| clock = setup.set_clock(ahead_s))?;
        clock?;
        // A message takes its time, which looks like a clock that is behind: one that was held up says nothing yet.
        let near = |said: &Value| {
            let skew = said["clock_skew_ms"].as_i64().unwrap_or_default();
            (skew - i64::from(ahead_s) * 1_000).abs() < 1_500
        };
        let own = resolver_says(&stack, Some("clock"), near).await?;
        let others = control_plane_says(&stack, Some("clock"), near).await?;
        for said in [own, others] {
            assert!(said["detail"].as_str().unwrap_or_default().contains(&format!("{way} by ")), "{said}");
        }
    }
    restarted(&mut stack, |setup| setup.environment.clear())?;
    resolver_names(&stack, None).await?;
    control_plane_names(&stack, None).await.map(drop)
}

/// Turns the feature flag back on, in the whole and in what differs from it.
fn turned_on(body: &mut Body) {
    match body {
        Body::Snapshot(snapshot) => snapshot.intercept_enabled = true,
        Body::Delta(delta) => delta.intercept_enabled = true,
        Body::KeepAlive(_) | Body::AuditAck(_) => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_is_changed_on_its_way_down_is_named_by_the_control_plane() -> Result<()> {
    let mut stack = stack("probe-relay", false).await?;
    let home = stack.control_plane()?.setup().bridge().parse()?;
    let relay = BridgeRelay::start(&stack.identities, home).await?;
    lead_to(&mut stack, relay.address())?;
    // The control: an honest relay changes nothing.
    let well = resolver_names(&stack, None).await?;
    assert_eq!(well["control_plane"], json!(relay.address()));
    control_plane_names(&stack, None).await?;
    let api = stack.api()?;
    api.set_flag(false).await?;
    api.set_flag(true).await?;
    control_plane_names(&stack, None).await?;

    // The delta is refused, since it is not what its digest says; the whole, that is asked for then, has none.
    relay.change(turned_on);
    api.set_flag(false).await?;
    let diverged = control_plane_names(&stack, Some("divergence")).await?;
    assert_eq!(diverged["diverged"], true, "{diverged}");
    stack.resolver()?.process().logs("delta_diverged", SOON).await?;

    relay.change(|_| {});
    api.set_flag(true).await?;
    control_plane_names(&stack, None).await?;
    resolver_names(&stack, None).await.map(drop)
}
