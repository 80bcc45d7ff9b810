//! Rotation: a newer generation is tried ahead of the streams. A good one replaces the one in use without a failed request;
//! a bad one changes nothing, and says why.

use bouncer_custody::Reason;
use bouncer_proto::bridge::v1::Envelope;
use bouncer_tests::client::Protocol;
use bouncer_tests::stack::{Bundle, CART, Credential, Stack};
use bouncer_tests::traffic::Traffic;
use bouncer_tests::upstream::Peer;
use bouncer_tests::{Fault, Result, operator};
use serde_json::Value;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

fn payments() -> Credential {
    Credential::new("payments-api", "payments")
}

/// Wraps a credential and pushes it as the next generation; gives the generation and its certificate's serial number.
async fn next_generation(stack: &Stack, credential: &Credential) -> Result<(u64, u64)> {
    next_generation_of(stack, credential, vec![]).await
}

/// The same, of what was taken away too, without a policy in between that brings it back.
async fn next_generation_of(stack: &Stack, credential: &Credential, taken: Vec<Envelope>) -> Result<(u64, u64)> {
    let (identity, body) = credential.wrap(&stack.kms, &stack.key_arn, None, &stack.customer_ca).await?;
    let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
    let mut generation = 0;
    stack.bridge()?.push(|snapshot| {
        snapshot.envelopes.extend(taken);
        for envelope in &mut snapshot.envelopes {
            envelope.generation += 1;
            generation = envelope.generation;
            envelope.ciphertext_ref = text("ciphertext_ref");
            envelope.aad = body["aad"].as_str().map(str::to_owned);
        }
    });
    let chain = identity.chain();
    let peer = chain.first().and_then(|leaf| Peer::of(leaf)).ok_or_else(|| Fault::new("no certificate"))?;
    Ok((generation, peer.serial))
}

/// The serial number of the client certificate that upstream sees of a request.
async fn serial(client: &bouncer_tests::client::Client) -> Result<u64> {
    Ok(client.get("/").await?.peer()?.serial)
}

fn rotation(generation: u64, reason: &str) -> impl Fn(&Value) -> bool {
    let reason = reason.to_owned();
    move |event| event["outcome"] == "rotate" && event["generation"] == generation && event["reason"] == *reason
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_under_traffic_fails_no_request() -> Result<()> {
    let stack = Stack::builder("rotation").own_bridge().credential(payments()).start().await?;
    let mut traffic = vec![];
    for protocol in [Protocol::Http1, Protocol::Http1Once, Protocol::Http2] {
        traffic.push(Traffic::start(stack.client(CART, protocol)?));
    }
    let probe = stack.client(CART, Protocol::Http1)?;
    serial(&probe).await?;
    for round in 0..5 {
        let (generation, fresh) = next_generation(&stack, &payments()).await?;
        let used = || async { (serial(&probe).await.ok()? == fresh).then_some(()) };
        stack.until(format!("generation {generation} upstream"), SOON, used).await?;
        stack.audited(&format!("rotation {round}"), rotation(generation, "")).await?;
        // From here on no request goes with an older one: the filters' caches were told.
        for _ in 0..20 {
            assert_eq!(serial(&probe).await?, fresh);
        }
    }
    for part in traffic {
        part.end().await?.only_good(&stack)?;
    }
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_generation_leaves_the_one_in_use_and_says_why() -> Result<()> {
    let mut stack = Stack::builder("bad-rotation").own_bridge().credential(payments()).start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    let first = serial(&client).await?;
    let traffic = Traffic::start(stack.client(CART, Protocol::Http2)?);
    let bad = [
        (Credential { tampered: true, ..payments() }, Reason::KmsInvalidCiphertext),
        (payments().bundle(Bundle::Expired), Reason::CredentialExpired),
        (payments().bundle(Bundle::KeyMismatch), Reason::CredentialKeyMismatch),
        (payments().aad("env=production,bouncer=payments-west"), Reason::BindingBouncer),
        (payments().aad("env=production,bouncer=payments-east,generation=1"), Reason::BindingGeneration),
    ];
    for (credential, reason) in bad {
        let (generation, _) = next_generation(&stack, &credential).await?;
        stack.audited(reason.code(), rotation(generation, reason.code())).await?;
        for _ in 0..5 {
            assert_eq!(serial(&client).await?, first, "{reason}");
        }
        let told = || async {
            let said = stack.bridge().ok()?.said();
            let secrets = &said.status.as_ref()?.secrets;
            secrets.iter().any(|one| one.generation == generation && one.reason == reason.code()).then_some(())
        };
        stack.until(format!("status says {reason}"), SOON, told).await?;
        let (_, metrics) = stack.resolver()?.get("/metrics").await?;
        let counted = format!("rotations_total{{outcome=\"not_in_use\",reason=\"{}\"}}", reason.code());
        assert!(metrics.contains(&counted), "{metrics}");
    }
    traffic.end().await?.only_good(&stack)?;
    // A resolver that is started anew still knows it.
    stack.restart_resolver_until_ready().await?;
    let kept = || async { (serial(&client).await.ok()? == first).then_some(()) };
    stack.until("the older one after a restart", SOON, kept).await?;

    // The control: it was the older one that served. Who never used that has none, and the bad one alone is a denial.
    stack.kill_resolver();
    std::fs::remove_dir_all(stack.scratch.file("resolver"))?;
    stack.restart_resolver_until_ready().await?;
    let denied = || client.denies(Reason::BindingGeneration);
    stack.until("a denial by a resolver without memory", SOON, denied).await?;

    let (_, good) = next_generation(&stack, &payments()).await?;
    let used = || async { (serial(&client).await.ok()? == good).then_some(()) };
    stack.until("a good one after the bad ones", SOON, used).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_generation_is_taken_up_when_the_one_before_ends() -> Result<()> {
    let stack = Stack::builder("rotation-end").own_bridge().credential(payments()).start().await?;
    let client = stack.client(CART, Protocol::Http1)?;
    serial(&client).await?;
    // Deleted in between: the one that was in use ends at once, and a bad one does not bring it back.
    let mut taken = vec![];
    stack.bridge()?.push(|snapshot| taken = std::mem::take(&mut snapshot.envelopes));
    let denied = |reason: Reason| {
        let client = &client;
        client.denies(reason)
    };
    stack.until("the denial", SOON, || denied(Reason::EnvelopeMissing)).await?;
    next_generation_of(&stack, &payments().bundle(Bundle::Expired), taken).await?;
    stack.until("a denial, not the older one", SOON, || denied(Reason::CredentialExpired)).await
}

/// An alert needs to know when a certificate ends, and `bouncerctl status` says it in words.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_certificate_shows_in_metrics_and_in_status() -> Result<()> {
    let stack = Stack::builder("expiry").workers(1).credential(payments().bundle(Bundle::EndsSoon)).start().await?;
    serial(&stack.client(CART, Protocol::Http1)?).await?;
    let (_, metrics) = stack.resolver()?.get("/metrics").await?;
    let name = "bouncer_resolver_credential_not_after_timestamp_seconds{logical_path=\"protected-resources/payments-api/upstream-tls\",generation=\"1\"} ";
    let end = metrics.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| Fault::new(metrics.clone()))?;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let hours = (end.parse::<u64>()? - now) / 3_600;
    assert!((1..24).contains(&hours), "{hours} h");

    let status = || async {
        let said = String::from_utf8(operator::run(&stack, &["status"], b"").await.ok()?.out).ok()?;
        said.lines().any(|line| line.starts_with("URGENT: protected-resources/payments-api/upstream-tls")).then_some(())
    };
    stack.until("the warning in bouncerctl status", SOON, status).await
}
