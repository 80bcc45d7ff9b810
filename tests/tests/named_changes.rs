//! Mode `named`, over time: pushed once, rotated in place, and taken back by a throwaway, since Envoy ignores a removal.

use bouncer_custody::Reason;
use bouncer_tests::Result;
use bouncer_tests::client::Protocol;
use bouncer_tests::envoy::Version;
use bouncer_tests::stack::{CART, Cluster, Credential, Stack};
use std::time::Duration;

const GIVEN: &str = "bouncer_resolver_sds_answers_total{kind=\"certificate\"}";
const UPDATES: &str = "cluster.payments.client_ssl_socket_factory.ssl_context_update_by_sds";
const DEADLINE: Duration = Duration::from_secs(10);

/// How many certificates the resolver has handed to Envoy.
async fn given(stack: &Stack) -> Result<u64> {
    Ok(stack.resolver()?.metric(GIVEN).await?.unwrap_or(0))
}

/// What upstream saw of the client certificates of some requests at once, which one connection can't carry.
async fn serials(stack: &Stack) -> Result<Vec<u64>> {
    let clients = (0..8).map(|_| stack.client(CART, Protocol::Http1)).collect::<Result<Vec<_>>>()?;
    let seen = clients.iter().map(|client| async move { Ok(client.get("/").await?.peer()?.serial) });
    futures::future::try_join_all(seen).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_credential_is_pushed_once_rotated_and_taken_back() -> Result<()> {
    let cluster = Cluster { protocols: &["http/1.1"], ..Cluster::new("payments") };
    let stack = Stack::builder("named-changes").named(Version::Current).cluster(cluster).start().await?;
    assert_eq!(given(&stack).await?, 0, "withheld until a stream is allowed");
    let first = serials(&stack).await?;
    assert!(first.windows(2).all(|pair| pair[0] == pair[1]), "{first:?}");
    assert_eq!((stack.kms.proxy().count("Decrypt"), given(&stack).await?), (1, 1));

    let renewed = Credential::new("payments-api", "payments");
    let (_, renewed) = renewed.wrap(&stack.kms, &stack.key_arn, None, &stack.customer_ca).await?;
    stack.api()?.register_envelope(&renewed).await?;
    let new = |serials: Vec<u64>| serials.into_iter().find(|serial| *serial != first[0]);
    stack.until("the rotated certificate upstream", DEADLINE, || async { new(serials(&stack).await.ok()?) }).await?;

    let before = stack.envoy()?.stat(UPDATES).await?;
    stack.api()?.set_flag(false).await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let denied = || client.denies(Reason::FeatureDisabled);
    stack.until("the denial", DEADLINE, denied).await?;
    let replaced = || async { (stack.envoy().ok()?.stat(UPDATES).await.ok()? > before).then_some(()) };
    stack.until("a throwaway in the place of the revoked certificate", DEADLINE, replaced).await?;
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}
