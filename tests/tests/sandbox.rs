//! The resolver does its work from start to end inside its sandbox, as root and as a user without any privilege.
//!
//! What the sandbox refuses is tried from inside, in `resolver/tests/sandbox.rs`. The other scenarios run in it too.

use bouncer_tests::client::Protocol;
use bouncer_tests::leak::not_checked;
use bouncer_tests::process::Process;
use bouncer_tests::stack::{CART, Stack};
use bouncer_tests::{Result, fault::Doing as _};
use std::collections::BTreeSet;
use std::time::Duration;

/// What each thread of the process says of a field of its status.
fn threads(process: &Process, field: &str) -> Result<(usize, BTreeSet<String>)> {
    let (mut count, mut values) = (0, BTreeSet::new());
    for thread in std::fs::read_dir(format!("/proc/{}/task", process.pid()))? {
        let status = thread?.path().join("status");
        let text = std::fs::read_to_string(&status).doing(status.display())?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        values.insert(value.unwrap_or("missing").trim().to_owned());
        count += 1;
    }
    Ok((count, values))
}

async fn works_from_start_to_end(stack: &mut Stack) -> Result<()> {
    for _ in 0..2 {
        let resolver = stack.resolver()?;
        resolver.ready().await?;
        let (count, filters) = threads(resolver.process(), "Seccomp")?;
        assert!(count > 1, "the runtime's workers run");
        assert_eq!(filters, BTreeSet::from(["2".to_owned()]), "every thread is filtered");
        assert_eq!(threads(resolver.process(), "NoNewPrivs")?.1, BTreeSet::from(["1".to_owned()]));

        let (_, ready) = resolver.get("/readyz").await?;
        let ready: serde_json::Value = serde_json::from_str(&ready)?;
        let (_, metrics) = resolver.get("/metrics").await?;
        for layer in ["landlock", "seccomp"] {
            let state = ready["sandbox"][layer].as_str().unwrap_or_default().to_owned();
            let line = format!("bouncer_resolver_sandbox{{layer=\"{layer}\",state=\"{state}\"}} 1");
            assert!(metrics.contains(&line), "{line} is missing in:\n{metrics}");
            if state != "enforced" {
                not_checked(&format!("work under {layer}, which is {state} on this kernel"));
            }
        }

        let peer = stack.client(CART, Protocol::Http1)?.get("/").await?.seen()?.peer;
        assert_eq!(peer.map(|peer| peer.common_name).as_deref(), Some("payments-api"));
        stack.restart_resolver()?;
    }
    let resolver = stack.resolver()?;
    resolver.ready().await?;
    let ended = resolver.process().terminate(Duration::from_secs(10)).await?;
    assert!(ended.success(), "{ended}");
    let setup = resolver.setup();
    assert!(!setup.intercept_socket.exists() && !setup.sds_socket.exists(), "the sockets are removed at the end");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_user_serves_restarts_and_drains_within_the_sandbox() -> Result<()> {
    works_from_start_to_end(&mut Stack::builder("sandbox").start().await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_without_privileges_serves_restarts_and_drains_within_the_sandbox() -> Result<()> {
    let mut builder = Stack::builder("sandbox-unprivileged").unprivileged();
    if rustix::process::getuid().is_root() {
        // SPIRE's agent lets every user ask.
        builder = builder.spire();
    }
    works_from_start_to_end(&mut builder.start().await?).await
}

/// The control: the same resolver without it has no filter, and says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_the_sandbox_no_thread_is_filtered_and_readiness_says_so() -> Result<()> {
    let off = |setup: &mut bouncer_tests::resolver::Setup| setup.set("process.sandbox", "off");
    let stack = Stack::builder("sandbox-off").without_envoy().resolver(off).start().await?;
    let resolver = stack.resolver()?;
    assert_eq!(threads(resolver.process(), "Seccomp")?.1, BTreeSet::from(["0".to_owned()]));
    let ready: serde_json::Value = serde_json::from_str(&resolver.get("/readyz").await?.1)?;
    assert_eq!(ready["sandbox"], serde_json::json!({"landlock": "off", "seccomp": "off"}));
    Ok(())
}
