//! Which identity buys AWS credentials: the resolver's own, for the audience that the role's trust policy names, and no
//! other. STS here checks signature, end, audience and subject of the JWT-SVID, as AWS does.

use bouncer_custody::Reason;
use bouncer_tests::client::Protocol;
use bouncer_tests::stack::{BOUNCER_ID, CART, Identities, Stack};
use bouncer_tests::sts::{AUDIENCE, Trust};
use bouncer_tests::workload_api::TrustDomain;
use bouncer_tests::{Fault, Result};
use futures::future::try_join_all;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

/// What is wrong, from the start on.
#[derive(Debug, Clone, Copy)]
enum Wrong {
    Audience,
    Expired,
    Key,
    Provider,
    Subject,
}

/// Sets it up wrong; gives what sets it right.
fn break_it(stack: &Stack, wrong: Wrong) -> Result<()> {
    let own = stack.identities.jwks()?;
    let Identities::Own { resolver, domain, .. } = &stack.identities else { return Err(Fault::new("SPIRE")) };
    let trust = match wrong {
        Wrong::Audience => Trust::new(&own, "another.audience", BOUNCER_ID)?,
        Wrong::Expired => {
            resolver.jwt_lifetime(Duration::ZERO);
            return Ok(());
        }
        // Another key under the same id: only the signature tells.
        Wrong::Key => {
            let (other, kid) = (TrustDomain::new()?, domain.key_id());
            Trust::new(&other.jwks().replace(other.key_id(), kid), AUDIENCE, BOUNCER_ID)?
        }
        Wrong::Provider => Trust::new(&TrustDomain::new()?.jwks(), AUDIENCE, BOUNCER_ID)?,
        Wrong::Subject => Trust::new(&own, AUDIENCE, "spiffe://example.org/bouncer/another")?,
    };
    stack.kms.proxy().trust(trust);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_for_another_audience_an_expired_and_a_forged_one_buy_nothing() -> Result<()> {
    let all = [Wrong::Audience, Wrong::Expired, Wrong::Key, Wrong::Provider, Wrong::Subject];
    try_join_all(all.map(denied_until_right)).await.map(drop)
}

async fn denied_until_right(wrong: Wrong) -> Result<()> {
    // STS does not answer until it is set up, so that the resolver's login ahead of the streams gets nothing either.
    let stack = Stack::builder("sts").own_bridge().workers(1).without_login().start().await?;
    break_it(&stack, wrong)?;
    stack.kms.proxy().behave("AssumeRoleWithWebIdentity", bouncer_tests::kms_proxy::Behaviour::Forward);
    let client = stack.client(CART, Protocol::Http1)?;
    let denied = || async { (client.get("/").await.ok()?.reason()? == Reason::StsDenied.code()).then_some(()) };
    stack.until(format!("{wrong:?} is denied"), SOON, denied).await?;
    assert_eq!(stack.kms.proxy().count("Decrypt"), 0, "{wrong:?}");
    assert_eq!(stack.upstream("payments")?.connections(), 0, "{wrong:?}");
    stack.audited("the denial", |event| event["reason"] == Reason::StsDenied.code()).await?;

    // The control: with that one thing right, it is served.
    if let Identities::Own { resolver, .. } = &stack.identities {
        resolver.jwt_lifetime(Duration::from_mins(5));
    }
    stack.kms.proxy().trust(Trust::new(&stack.identities.jwks()?, AUDIENCE, BOUNCER_ID)?);
    let served = || async { (client.get("/").await.ok()?.status == 200).then_some(()) };
    stack.until(format!("{wrong:?} set right"), SOON, served).await?;
    Ok(())
}
