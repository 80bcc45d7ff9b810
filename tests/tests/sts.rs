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
    let denied = || client.denies(Reason::StsDenied);
    stack.until(format!("{wrong:?} is denied"), SOON, denied).await?;
    assert_eq!(stack.kms.proxy().count("Decrypt"), 0, "{wrong:?}");
    assert_eq!(stack.upstream("payments")?.connections(), 0, "{wrong:?}");
    stack.audited("the denial", |event| event["reason"] == Reason::StsDenied.code()).await?;

    // The control: with that one thing right, it is served.
    if let Identities::Own { resolver, .. } = &stack.identities {
        resolver.jwt_lifetime(Duration::from_mins(5));
    }
    stack.kms.proxy().trust(Trust::new(&stack.identities.jwks()?, AUDIENCE, BOUNCER_ID)?);
    let served = || client.serves();
    stack.until(format!("{wrong:?} set right"), SOON, served).await?;
    Ok(())
}

/// The resolver takes its AWS credentials from the environment, as a pod's service account puts them there.
async fn with_the_pods_own(stack: &mut Stack, variables: &[(&str, &str)]) -> Result<()> {
    let variables: Vec<_> = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    stack
        .reconfigure_resolver(|setup| {
            setup.environment.extend(variables);
            setup.set("kms.credentials", "default-chain");
            if let Some(kms) = setup.config.get_mut("kms").and_then(toml::Value::as_table_mut) {
                kms.remove("role_arn");
                kms.remove("audience");
            }
        })
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_chain_takes_the_role_of_the_pod_by_its_token_and_follows_when_that_is_replaced() -> Result<()> {
    let mut stack = Stack::builder("pods-role").impatient().start().await?;
    let Identities::Own { domain, .. } = &stack.identities else { return Err(Fault::new("SPIRE")) };
    let token = |audience: &str| domain.jwt_svid(BOUNCER_ID, &[audience.to_owned()], Duration::from_hours(1));
    let (bad, good) = (token("another.audience")?, token(AUDIENCE)?);
    // A projected token lies in a folder of its own, and is replaced there by another file.
    let file = stack.scratch.folder("pod")?.join("token");
    std::fs::write(&file, &bad)?;
    let (path, endpoint) = (file.display().to_string(), stack.kms.endpoint());
    stack.kms.proxy().reset();
    let variables = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", &*path),
        ("AWS_ROLE_ARN", bouncer_tests::kms::ROLE_ARN),
        ("AWS_REGION", bouncer_tests::kms::REGION),
        ("AWS_ENDPOINT_URL_STS", &endpoint),
    ];
    with_the_pods_own(&mut stack, &variables).await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let denied = || async { client.get("/").await.ok()?.reason().map(str::to_owned) };
    let reason = stack.until("a token for another audience to be denied", SOON, denied).await?;
    assert_eq!(reason, Reason::StsUnavailable.code());
    assert_eq!(stack.kms.proxy().count("Decrypt"), 0);

    std::fs::write(file.with_extension("new"), &good)?;
    std::fs::rename(file.with_extension("new"), &file)?;
    let served = || client.serves();
    stack.until("the right token to be served", SOON, served).await?;
    assert!(stack.kms.proxy().count("AssumeRoleWithWebIdentity") >= 2);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_default_chain_takes_keys_from_a_shared_file_and_says_so_where_there_are_none() -> Result<()> {
    let mut stack = Stack::builder("shared-file").impatient().start().await?;
    let file = stack.scratch.folder("aws")?.join("credentials");
    let path = file.display().to_string();
    let none = stack.scratch.file("aws/none").display().to_string();
    let variables = [
        ("AWS_SHARED_CREDENTIALS_FILE", &*path),
        ("AWS_CONFIG_FILE", &none),
        ("AWS_REGION", bouncer_tests::kms::REGION),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ];
    with_the_pods_own(&mut stack, &variables).await?;
    let client = stack.client(CART, Protocol::Http1)?;
    // In time: what takes the resolver longer than limits.decide_deadline_ms is resolver_timeout.
    let reply = client.get("/").await?;
    assert_eq!(reply.reason(), Some(Reason::StsUnavailable.code()), "nobody to be");

    std::fs::write(&file, "[default]\naws_access_key_id = AKIDSCENARIO\naws_secret_access_key = scenario\n")?;
    stack.restart_resolver_until_ready().await?;
    let served = || client.serves();
    stack.until("the shared file's keys to be used", SOON, served).await?;
    Ok(())
}
