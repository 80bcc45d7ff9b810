//! What goes wrong on the node itself: the Workload API, the disk's room, the limit on open files.

use bouncer_custody::Reason;
use bouncer_tests::client::{Client, Protocol};
use bouncer_tests::control_plane::ControlPlane;
use bouncer_tests::intercept::Decider;
use bouncer_tests::stack::{CART, Credential, Identities, STRANGER, Stack, caller};
use bouncer_tests::sts::{self, Trust};
use bouncer_tests::traffic::Traffic;
use bouncer_tests::workload_api::{Behaviour, TrustDomain, WorkloadApi};
use bouncer_tests::{Fault, Result};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use std::time::{Duration, SystemTime};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;

const SOON: Duration = Duration::from_secs(20);

/// Our own Workload APIs: the control plane's and the resolver's.
fn workload_apis(stack: &Stack) -> Result<[&WorkloadApi; 2]> {
    match &stack.identities {
        Identities::Own { control_plane, resolver, .. } => Ok([control_plane, resolver]),
        Identities::Spire(_) => Err(Fault::new("SPIRE does not fail on demand")),
    }
}

/// Waits until the client's stream ends so: with this reason, or well.
async fn ends(stack: &Stack, client: &Client, reason: Option<Reason>) -> Result<()> {
    let ends = || async {
        match reason {
            Some(reason) => client.denies(reason).await,
            None => client.serves().await,
        }
    };
    stack.until(format!("a stream that ends with {reason:?}"), SOON, ends).await
}

/// When the resolver's SVID ends, in Unix seconds, by its metrics.
async fn svid_ends(stack: &Stack) -> Result<u64> {
    let ends = stack.resolver()?.metric("bouncer_resolver_svid_not_after_timestamp_seconds").await?;
    ends.ok_or_else(|| Fault::new("no metric of the SVID's end"))
}

async fn readiness(stack: &Stack) -> Result<(u16, String)> {
    let (status, text) = stack.resolver()?.get("/readyz").await?;
    Ok((status.as_u16(), text))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_workload_api_the_svid_holds_until_its_end_and_no_longer() -> Result<()> {
    const LEFT: Duration = Duration::from_secs(12);
    let stack = Stack::builder("workload-api-down")
        .impatient()
        .credential(Credential::new("warm", "payments"))
        .credential(Credential::new("cold", "payments").callers(&[&caller("cold")]))
        .start()
        .await?;
    let (warm, cold) = (stack.client(CART, Protocol::Http1)?, stack.client(&caller("cold"), Protocol::Http1)?);
    ends(&stack, &warm, None).await?;
    let [_, workload_api] = workload_apis(&stack)?;
    let before = svid_ends(&stack).await?;
    workload_api.rotate(LEFT)?;
    let taken = || async { svid_ends(&stack).await.ok().filter(|end| ![0, before].contains(end)) };
    let end = stack.until("the resolver to have the SVID that ends soon", SOON, taken).await?;
    workload_api.behave(Behaviour::Refusing);
    // What it took before holds: for what is warm, and for a secret that nobody asked for so far.
    assert_eq!(warm.get("/").await?.status, 200);
    assert_eq!(cold.get("/").await?.status, 200);
    assert_eq!(readiness(&stack).await?.0, 200);

    ends(&stack, &warm, Some(Reason::IdentityExpired)).await?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    assert!(now >= end, "the SVID was given up at {now}, and was to hold until {end}");
    let (status, why) = readiness(&stack).await?;
    assert!(status == 503 && why.contains(Reason::IdentityExpired.code()), "{status} {why}");
    stack.kms.proxy().reset();
    for client in [&warm, &cold] {
        assert_eq!(client.get("/").await?.reason(), Some(Reason::IdentityExpired.code()));
    }
    let calls = ["Decrypt", "AssumeRoleWithWebIdentity"].map(|operation| stack.kms.proxy().count(operation));
    assert_eq!(calls, [0, 0], "nobody logs in, or asks, with an identity that has ended");

    let [_, workload_api] = workload_apis(&stack)?;
    workload_api.behave(Behaviour::Answering);
    workload_api.rotate(Duration::from_hours(1))?;
    for client in [&warm, &cold] {
        ends(&stack, client, None).await?;
    }
    assert_eq!(readiness(&stack).await?.0, 200);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn svids_and_their_authority_change_under_traffic_without_a_gap() -> Result<()> {
    let mut stack = Stack::builder("authority").impatient().start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    ends(&stack, &client, None).await?;
    let traffic = Traffic::start(client);
    let next = TrustDomain::new()?;
    stack.kms.proxy().trust(Trust::new(&next.jwks(), sts::AUDIENCE, bouncer_tests::stack::BOUNCER_ID)?);
    for workload_api in workload_apis(&stack)? {
        workload_api.change_domain(&next, true)?;
    }
    // A new connection between the two is by the new authority's SVIDs; the control: without them there is none.
    stack.restart_control_plane().await?;
    let connected = || async {
        let connected = stack.resolver().ok()?.metric("bouncer_resolver_bridge_connected").await.ok()?;
        (connected == Some(1)).then_some(())
    };
    stack.until("the bridge to be up again", SOON, connected).await?;
    let before = traffic.count();
    let more = || async { (traffic.count() > before + 50).then_some(()) };
    stack.until("more traffic", SOON, more).await?;
    stack.audited("a decision after the change", |event| event["outcome"] == "inject").await?;
    traffic.end().await?.only_good(&stack)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_spool_releases_nothing_until_it_empties() -> Result<()> {
    let mut stack =
        Stack::builder("full-spool").impatient().resolver(|setup| setup.set("limits.spool_mib", 1)).start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    ends(&stack, &client, None).await?;
    let (setup, token) = stack.kill_control_plane()?;
    let mut released = 0;
    let denied = loop {
        let reply = client.get("/").await?;
        if reply.status != 200 {
            break reply;
        }
        released += 1;
        assert!(released < 10_000, "1 MiB takes no end of events");
    };
    assert!(released > 500, "only {released} events filled it");
    assert_eq!(denied.reason(), Some(Reason::AuditUnavailable.code()));
    let connections = stack.upstream("payments")?.requests().len();
    assert_eq!(client.get("/").await?.reason(), Some(Reason::AuditUnavailable.code()));
    assert_eq!(stack.upstream("payments")?.requests().len(), connections, "nothing is released without audit");
    let (status, why) = readiness(&stack).await?;
    assert!(status == 503 && why.contains(Reason::AuditUnavailable.code()), "{status} {why}");

    stack.control_plane = Some(ControlPlane::serve(&stack.scratch, setup, token).await?);
    ends(&stack, &client, None).await?;
    assert_eq!(readiness(&stack).await?.0, 200);
    Ok(())
}

/// What is in the resolver's spool, and not acknowledged for long.
fn spooled(stack: &Stack) -> Result<Vec<Value>> {
    let mut events = vec![];
    for file in std::fs::read_dir(stack.scratch.file("resolver/audit"))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            // The last line may be half there.
            let lines = std::fs::read_to_string(path)?;
            events.extend(lines.lines().filter_map(|line| serde_json::from_str(line).ok()));
        }
    }
    Ok(events)
}

/// The audit's room is for what is released: denials of one kind are counted, and of however many kinds they leave half.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_denials_is_counted_and_leaves_room_for_what_is_released() -> Result<()> {
    const FLOOD: u64 = 2_000;
    let builder = Stack::builder("flood").without_envoy().resolver(|setup| setup.set("limits.spool_mib", 1));
    let mut stack = builder.start().await?;
    let mut decider = Decider::at(&stack.resolver()?.setup().intercept_socket).await?;
    decider.decide(CART).await?;
    let (setup, token) = stack.kill_control_plane()?;
    for _ in 0..FLOOD {
        assert!(decider.decide(STRANGER).await.is_err());
    }
    let all_counted = || async {
        let events = spooled(&stack).ok()?;
        let denials = events.iter().filter(|event| event["caller"] == STRANGER && event["outcome"] == "deny");
        let counts: Vec<u64> = denials.filter_map(|event| event["count"].as_u64()).collect();
        (counts.iter().sum::<u64>() == FLOOD).then_some(counts)
    };
    let counts = stack.until("the whole flood in the spool", SOON, all_counted).await?;
    assert!(counts.len() < 50 && counts.contains(&1), "the first by itself, the rest as counts: {counts:?}");

    // As long names as there are, each another kind.
    let long = "x".repeat(1_900);
    let resolver = stack.resolver()?;
    let metric = |name| async move { resolver.metric(name).await?.ok_or_else(|| Fault::new(name)) };
    let mut kinds = 0;
    while metric("bouncer_resolver_audit_denials_unrecorded_total").await? == 0 {
        assert!(decider.decide(&format!("{STRANGER}/{kinds}/{long}")).await.is_err());
        kinds += 1;
        assert!(kinds < 1_000, "half of 1 MiB takes no end of events");
    }
    assert!(kinds > 100, "only {kinds} denials filled it");
    let used = metric("bouncer_resolver_audit_spool_bytes").await?;
    assert!((400_000..=1 << 19).contains(&used), "{used} bytes of 1 MiB");
    decider.decide(CART).await?;
    assert!(metric("bouncer_resolver_audit_spool_bytes").await? > used, "the injection is recorded");

    stack.control_plane = Some(ControlPlane::serve(&stack.scratch, setup, token).await?);
    let both = || async {
        let released = stack.api().ok()?.audit("outcome=inject").await.ok()?;
        (released.len() == 2).then_some(())
    };
    stack.until("both injections in the audit", SOON, both).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_all_connections_leaves_the_files_that_backend_and_audit_need() -> Result<()> {
    const FILES: u64 = 96;
    let stack = Stack::builder("out-of-files")
        .workers(1)
        .credential(Credential::new("warm", "payments"))
        .credential(Credential::new("cold", "payments").callers(&[&caller("cold")]))
        .start()
        .await?;
    // From here on Envoy has its connections.
    ends(&stack, &stack.client(CART, Protocol::Http1)?, None).await?;
    let resolver = stack.resolver()?;
    let pid = i32::try_from(resolver.process().pid()).ok().and_then(Pid::from_raw);
    let few = Rlimit { current: Some(FILES), maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(pid, Resource::Nofile, few)?;
    let mut taken = vec![];
    for socket in [&resolver.setup().intercept_socket, &resolver.setup().sds_socket] {
        for _ in 0..FILES {
            taken.push(UnixStream::connect(socket).await?);
        }
    }
    let turned_away = || async {
        let count = resolver.metric("bouncer_resolver_socket_refused_total").await.ok()??;
        (count >= FILES).then_some(())
    };
    stack.until("most of them to be turned away", SOON, turned_away).await?;

    // What Envoy has open goes on, and a cold secret has all that it needs: STS, KMS, the state files, the audit.
    let cold = stack.client(&caller("cold"), Protocol::Http1)?.get("/").await?;
    assert_eq!(cold.status, 200, "{:?}", cold.reason());
    stack.audited("the decision", |event| event["caller"] == caller("cold") && event["outcome"] == "inject").await?;
    // Those that were turned away were closed, without a word.
    let mut last = taken.pop().ok_or_else(|| Fault::new("no connection"))?;
    assert_eq!(tokio::time::timeout(SOON, last.read(&mut [0])).await??, 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_control_plane_the_last_policy_holds_until_its_cap_over_a_restart_too() -> Result<()> {
    const CAP: i64 = 10;
    let mut stack = Stack::builder("no-control-plane")
        .impatient()
        .resolver(|setup| setup.set("bridge.snapshot_max_age_s", CAP))
        .start()
        .await?;
    let client = stack.client(CART, Protocol::Http1)?;
    ends(&stack, &client, None).await?;
    let (setup, token) = stack.kill_control_plane()?;
    stack.restart_resolver_until_ready().await?;
    ends(&stack, &client, None).await?;
    ends(&stack, &client, Some(Reason::PolicyStale)).await?;
    let (status, why) = readiness(&stack).await?;
    assert!(status == 503 && why.contains(Reason::PolicyStale.code()), "{status} {why}");

    // What is too old, or damaged, is not taken up by the next run either.
    let snapshot = stack.scratch.file("resolver").join("snapshot");
    let mut damaged = std::fs::read(&snapshot)?;
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    for content in [None, Some(&damaged)] {
        stack.kill_resolver();
        if let Some(content) = content {
            std::fs::write(&snapshot, content)?;
        }
        stack.restart_resolver()?;
        ends(&stack, &client, Some(Reason::PolicyMissing)).await?;
    }
    let log = stack.resolver()?.process().log();
    assert_eq!(log.matches("the last policy snapshot was not taken up").count(), 2, "each run says so");
    stack.control_plane = Some(ControlPlane::serve(&stack.scratch, setup, token).await?);
    ends(&stack, &client, None).await
}
