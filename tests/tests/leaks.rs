//! The customer's private key is in Envoy's and the resolver's memory, and nowhere else; in the resolver's, in one place,
//! and not for longer than it is in use.

use bouncer_tests::client::Protocol;
use bouncer_tests::envoy::Version;
use bouncer_tests::leak::{Needles, not_checked};
use bouncer_tests::operator;
use bouncer_tests::process::Process;
use bouncer_tests::stack::{AAD, Builder, Bundle, CART, Credential, Stack, caller};
use bouncer_tests::{Fault, Result};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

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

    let control_plane = stack.control_plane()?;
    let hits = needles.search_memory(control_plane.process().pid())?;
    assert!(hits.is_empty(), "{hits:?}");
    let hits = needles.search_wasm_memory(stack.envoy()?.process().pid(), b"upstream-tls@1.")?;
    assert!(hits.is_empty(), "{hits:?}");

    // The controls: the same searches find the key where it is, and where it was planted.
    assert!(!needles.search_memory(stack.envoy()?.process().pid())?.is_empty(), "Envoy holds the key");
    stack.scratch.write("planted.log", &stack.credential("payments-api")?.key_der)?;
    assert_eq!(needles.search_files(stack.scratch.path())?.len(), 1);

    // A crash leaves no core. A program that forbids none shows whether this machine keeps any.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -c unlimited && exec sleep 60"]).current_dir(stack.scratch.folder("core")?);
    let control = Process::spawn("control", &stack.scratch, command)?;
    let name = format!("/proc/{}/comm", control.pid());
    let runs = || async { (std::fs::read_to_string(&name).ok()? == "sleep\n").then_some(()) };
    control.until("runs", Duration::from_secs(5), runs).await?;
    if !core_of(&stack, &control).await? {
        not_checked("cores, since this machine keeps none");
    }
    assert!(!core_of(&stack, stack.resolver()?.process()).await?);
    Ok(())
}

/// Crashes a process; whether that left a core.
async fn core_of(stack: &Stack, process: &Process) -> Result<bool> {
    process.signal(Signal::ABORT)?;
    let ended = stack.until("the crash", Duration::from_secs(10), || async { process.exited() }).await?;
    Ok(ended.core_dumped())
}

/// Callers, each with a credential of another kind.
fn every_kind() -> Vec<(&'static str, Bundle)> {
    vec![
        ("a", Bundle::Good),
        ("b", Bundle::Json),
        ("c", Bundle::Rsa),
        ("d", Bundle::Good),
        ("e", Bundle::Rsa),
        ("f", Bundle::Sealed),
    ]
}

/// The credentials are used, rest, and are taken back.
async fn the_arena_alone_holds_what_is_in_use(builder: Builder, callers: Vec<(&str, Bundle)>) -> Result<()> {
    let mut builder = builder.own_bridge();
    for (name, bundle) in &callers {
        let credential = Credential::new(name, "payments").callers(&[&caller(name)]);
        builder = builder.credential(credential.bundle(bundle.clone()));
    }
    let stack = builder.start().await?;
    let mut needles = Needles::default();
    for (name, bundle) in &callers {
        let identity = stack.credential(name)?;
        needles = match bundle {
            Bundle::Rsa => needles.with(identity.private_numbers()?)?,
            _ => needles.with(&identity.private_scalar()?)?,
        };
    }
    // A PEM text is found in pieces, since its lines end.
    let mut once = 0;
    for (name, _) in &callers {
        once += needles.search(stack.credential(name)?.key_pem.as_bytes(), "the PEM text").len();
    }
    let pid = stack.resolver()?.process().pid();
    if let Err(fault) = needles.search_memory(pid) {
        not_checked(&format!("the resolver's memory, which this user may not read: {fault}"));
        return Ok(());
    }
    // The resolver stands still while it is searched: the second is its own, however long a search takes.
    let within_a_second = async |what: &str, in_arena: usize| {
        let process = stack.resolver()?.process();
        let mut ran = Duration::ZERO;
        loop {
            let runs = Instant::now();
            tokio::time::sleep(Duration::from_millis(20)).await;
            process.signal(Signal::STOP)?;
            ran += runs.elapsed();
            let found = needles.search_arena_and_rest(pid);
            process.signal(Signal::CONT)?;
            let found = found?;
            if found.in_arena.len() == in_arena && found.elsewhere.is_empty() {
                return Ok(());
            }
            if ran > Duration::from_secs(1) {
                return Err(Fault::new(format!("{what}: not so after {ran:?}")).with_evidence(format!("{found:#?}")));
            }
        }
    };
    within_a_second("nothing is unwrapped before it is asked for", 0).await?;

    let ask = |name: &str| {
        let client = stack.client(&caller(name), Protocol::Http1);
        async move { Ok::<_, Fault>(client?.get("/").await?.status.as_u16()) }
    };
    for _ in 0..3 {
        for (name, _) in &callers {
            assert_eq!(ask(name).await?, 200);
        }
    }
    // At rest. That they are found in the arena is the control of the searches that find nothing.
    within_a_second("the arena alone holds the keys, each once", once).await?;

    stack.bridge()?.push(|snapshot| snapshot.envelopes.clear());
    for (name, _) in &callers {
        let refused = || async { (ask(name).await.ok()? == 503).then_some(()) };
        stack.until("the eviction", Duration::from_secs(15), refused).await?;
    }
    within_a_second("nothing holds a key", 0).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_resolver_holds_keys_in_its_arena_alone_and_forgets_them_within_a_second() -> Result<()> {
    the_arena_alone_holds_what_is_in_use(Stack::builder("arena").kms_over_tls(), every_kind()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_it_does_in_named_mode() -> Result<()> {
    the_arena_alone_holds_what_is_in_use(
        Stack::builder("arena-named").named(Version::Current),
        vec![("a", Bundle::Good)],
    )
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_an_envelope_shows_nowhere_on_its_way() -> Result<()> {
    let mut credential = Credential::new("payments-api", "payments");
    credential.with_envelope = false;
    let path = credential.logical_path.clone();
    let stack = Stack::builder("leaks-envelope").credential(credential).start().await?;
    let identity = stack.credential("payments-api")?;
    let needles = Needles::of(&identity.private_scalar()?)?;
    let wrapped = operator::wrap(&stack, "envelope", AAD, &path, &identity.bundle()).await?;
    wrapped.json()?;
    assert!(needles.search(&wrapped.out, "what wrap prints").is_empty());
    assert!(needles.search(wrapped.err.as_bytes(), "what wrap warns of").is_empty());
    let client = stack.client(CART, Protocol::Http1)?;
    let serves = || client.serves();
    stack.until("service", Duration::from_secs(10), serves).await?;

    let hits = needles.search_files(stack.scratch.path())?;
    assert!(hits.is_empty(), "{hits:?}");
    for call in stack.kms.proxy().calls() {
        assert!(needles.search(&call.body, &call.operation).is_empty(), "KMS is sent no plaintext");
    }
    let control_plane = stack.control_plane()?;
    assert_eq!(needles.search_memory(control_plane.process().pid())?, []);

    // The control: the same search finds it where it must be.
    assert!(!needles.search_memory(stack.resolver()?.process().pid())?.is_empty(), "the resolver holds the key");
    Ok(())
}
