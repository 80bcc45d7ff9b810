//! The wasm VM dies in the middle of a request: that stream and those that follow fail closed, Envoy starts another VM, and
//! it serves again.

use bouncer_tests::Result;
use bouncer_tests::client::Protocol;
use bouncer_tests::envoy::{Version, at};
use bouncer_tests::stack::{CART, Cluster, Stack, Wants};
use bouncer_tests::tools;
use std::time::Duration;

/// A stack whose filter dies of the header `x-trap`, under the shipped policy or another one. The upstream takes what
/// comes without a certificate, and so shows it.
async fn mortal(scenario: &str, named: bool, policy: Option<&'static str>) -> Result<Stack> {
    let mut builder = Stack::builder(scenario)
        .own_bridge()
        .workers(1)
        .cluster(Cluster { wants_certificate: Wants::Optional, ..Cluster::new("payments") })
        .filter(tools::wasm("bouncer_spy.wasm")?)
        .bootstrap(move |bootstrap| {
            let config = at(bootstrap.http_filter("bouncer")?, "typed_config.config")?;
            at(config, "configuration")?["value"] = "{}".into();
            if let Some(policy) = policy {
                config["failure_policy"] = policy.into();
            }
            Ok(())
        });
    if named {
        builder = builder.named(Version::Current);
    }
    builder.start().await
}

/// Whether a request that killed the VM reached the upstream all the same.
fn trapped_went_on(stack: &Stack) -> Result<bool> {
    Ok(stack.upstream("payments")?.requests().iter().any(|seen| seen.path == "/trapped"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_vm_lets_nothing_pass_and_is_replaced() -> Result<()> {
    for named in [false, true] {
        let stack = mortal("vm-death", named, None).await?;
        let client = stack.client(CART, Protocol::Http1)?;
        assert_eq!(client.get("/before").await?.status, 200);
        for round in 0..3 {
            let reply = client.get_with("/trapped", &[("x-trap", "1")]).await?;
            assert!(reply.status.is_server_error(), "round {round}: {}", reply.status);
            let served = || async {
                let reply = client.get("/after").await.ok()?;
                assert!(reply.status == 200 || reply.status.is_server_error(), "round {round}: {}", reply.status);
                (reply.status == 200).then_some(())
            };
            stack.until(format!("another VM in round {round}"), Duration::from_secs(10), served).await?;
        }
        assert!(!trapped_went_on(&stack)?);
        assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    }
    Ok(())
}

/// In mode `named` it is the policy that keeps it closed: a VM that is stepped over lets through what it died of. In the
/// other mode the tag is missing then, and there is no secret for a stream without one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_under_fail_open_a_stream_uses_the_named_credential_undecided() -> Result<()> {
    for named in [false, true] {
        let stack = mortal("vm-death-open", named, Some("FAIL_OPEN")).await?;
        let client = stack.client(CART, Protocol::Http1)?;
        assert_eq!(client.get("/before").await?.status, 200);
        let _ = client.get_with("/trapped", &[("x-trap", "1")]).await?;
        let after = client.get_with("/trapped", &[]).await?;
        assert_eq!((trapped_went_on(&stack)?, after.status == 200), (named, named));
        assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    }
    Ok(())
}
