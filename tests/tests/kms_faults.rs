//! KMS says no, or says nothing: a reason that names which, no call too many, and never a stream without its credential.

use bouncer_custody::Reason;
use bouncer_tests::client::Protocol;
use bouncer_tests::kms_proxy::Behaviour;
use bouncer_tests::stack::{Credential, Stack, caller};
use bouncer_tests::{Fault, Result};
use serde_json::json;
use std::time::{Duration, Instant};

/// What `limits.decide_deadline_ms` is by default.
const DEADLINE: Duration = Duration::from_millis(900);

/// A stack with a cold credential for each of the callers.
async fn with_callers(scenario: &str, names: impl Iterator<Item = &str>) -> Result<Stack> {
    let mut builder = Stack::builder(scenario);
    for name in names {
        builder = builder.credential(Credential::new(name, "payments").callers(&[&caller(name)]));
    }
    builder.start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_final_no_is_asked_for_once_and_named() -> Result<()> {
    let cases = [
        ("access", "AccessDeniedException", "", Reason::KmsAccessDenied),
        ("ciphertext", "InvalidCiphertextException", "", Reason::KmsInvalidCiphertext),
        ("key", "IncorrectKeyException", "", Reason::KmsIncorrectKey),
        ("disabled", "DisabledException", "the key is disabled.", Reason::KmsKeyDisabled),
        ("deletion", "KMSInvalidStateException", "the key is pending deletion.", Reason::KmsKeyPendingDeletion),
        ("import", "KMSInvalidStateException", "the key is pending import.", Reason::KmsKeyInvalidState),
        ("missing", "NotFoundException", "Key 'arn:aws:kms:x' does not exist", Reason::KmsKeyNotFound),
        ("region", "NotFoundException", "Invalid arn us-east-1", Reason::KmsWrongRegion),
        ("expired", "ExpiredTokenException", "", Reason::KmsCredentialsRefused),
        ("unknown", "SomethingNewException", "", Reason::KmsRefused),
    ];
    let stack = with_callers("final-no", cases.iter().map(|case| case.0)).await?;
    for (name, code, message, reason) in cases {
        stack.kms.proxy().behave("Decrypt", Behaviour::Say(400, code, message));
        stack.kms.proxy().reset();
        let client = stack.client(&caller(name), Protocol::Http1)?;
        for _ in 0..5 {
            // In time: what takes the resolver longer than limits.decide_deadline_ms is resolver_timeout.
            let reply = client.get("/").await?;
            assert_eq!(reply.reason(), Some(reason.code()), "{code}");
        }
        assert_eq!(stack.kms.proxy().count("Decrypt"), 1, "{code}");
        stack.audited(code, |event| event["reason"] == reason.code() && event["caller"] == caller(name)).await?;
    }
    assert_eq!(stack.upstream("payments")?.connections(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_that_passes_denies_in_time_and_then_serves() -> Result<()> {
    let late: &[_] = &[Reason::KmsUnavailable, Reason::ResolverTimeout];
    let cases: [(&str, Behaviour, &[Reason]); 4] = [
        ("throttled", Behaviour::Fail(400, "ThrottlingException"), &[Reason::KmsThrottled]),
        ("broken", Behaviour::Fail(500, "KMSInternalException"), &[Reason::KmsUnavailable]),
        ("gone", Behaviour::Refuse, &[Reason::KmsUnavailable]),
        ("silent", Behaviour::Hold, late),
    ];
    let stack = with_callers("passing-fault", cases.iter().map(|case| case.0)).await?;
    for (name, behaviour, reasons) in cases {
        stack.kms.proxy().behave("Decrypt", behaviour);
        let client = stack.client(&caller(name), Protocol::Http1)?;
        let before = stack.resolver()?.deciding().await?;
        let reply = client.get("/").await?;
        let took = stack.resolver()?.deciding().await? - before;
        let reason = reply.reason().and_then(|code| code.parse::<Reason>().ok());
        assert!(reason.is_some_and(|reason| reasons.contains(&reason)), "{name}: {} {reason:?}", reply.status);
        assert!(!took.is_zero() && took < DEADLINE + Duration::from_millis(300), "{name} {took:?}");

        stack.kms.proxy().behave("Decrypt", Behaviour::Forward);
        let serves = || client.serves();
        stack.until(format!("recovery from {name}"), Duration::from_secs(10), serves).await?;
    }
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kms_that_throttles_is_asked_hardly_more_often_than_it_answers() -> Result<()> {
    // Each of them needs one answer: that many calls a client would make that knew the quota.
    const IDEAL: usize = 40;
    let names: Vec<String> = (0..IDEAL).map(|n| format!("caller-{n}")).collect();
    let stack = with_callers("throttled", names.iter().map(String::as_str)).await?;
    stack.kms.proxy().behave("Decrypt", Behaviour::Quota(8));
    let begun = Instant::now();
    let asked = futures::future::try_join_all(names.chunks(IDEAL.div_ceil(3)).map(async |names| {
        let mut asked = 0;
        for name in names {
            let client = stack.client(&caller(name), Protocol::Http1)?;
            loop {
                let reply = client.get("/").await?;
                asked += 1;
                if reply.status == 200 {
                    break;
                }
                assert_eq!(reply.reason(), Some(Reason::KmsThrottled.code()));
                assert!(begun.elapsed() < Duration::from_secs(30), "{name} is still not served");
            }
        }
        Ok::<usize, Fault>(asked)
    }));
    let asked: usize = asked.await?.into_iter().sum();
    let attempts = stack.kms.proxy().count("Decrypt");
    assert!(attempts * 10 <= IDEAL * 11, "{attempts} attempts where {IDEAL} are ideal");
    // The control: streams asked more often than that, so that something held the calls back.
    assert!(asked * 10 > IDEAL * 11, "{asked} requests");
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kms_that_is_down_is_left_alone_and_found_again() -> Result<()> {
    let names: Vec<String> = (0..20).map(|n| format!("caller-{n}")).collect();
    let stack = with_callers("down", names.iter().map(String::as_str)).await?;
    let mut clients = vec![];
    for name in &names {
        clients.push(stack.client(&caller(name), Protocol::Http1)?);
    }
    stack.kms.proxy().behave("Decrypt", Behaviour::Fail(503, "ServiceUnavailableException"));
    let begun = Instant::now();
    for client in &clients {
        assert_eq!(client.get("/").await?.reason(), Some(Reason::KmsUnavailable.code()));
    }
    // Five in a row open the breaker; after that one call per pause looks, and the first pause is 0.8 s at least.
    let attempts = stack.kms.proxy().count("Decrypt");
    let trials = begun.elapsed().as_millis() / 800;
    assert!((5..=5 + trials as usize).contains(&attempts), "{attempts} attempts, {trials} trials");

    stack.kms.proxy().behave("Decrypt", Behaviour::Forward);
    for (name, client) in names.iter().zip(&clients) {
        let serves = || client.serves();
        stack.until(format!("service for {name}"), Duration::from_secs(10), serves).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_sts_that_is_late_is_told_from_one_that_says_no() -> Result<()> {
    let mut stack = with_callers("sts", ["cart"].into_iter()).await?;
    let client = stack.client(&caller("cart"), Protocol::Http1)?;
    let cases = [
        (Behaviour::Fail(400, "Throttling"), Reason::StsUnavailable),
        (Behaviour::Fail(400, "IDPCommunicationError"), Reason::StsUnavailable),
        (Behaviour::Fail(500, "InternalFailure"), Reason::StsUnavailable),
        (Behaviour::Fail(403, "AccessDenied"), Reason::StsDenied),
    ];
    for (behaviour, reason) in cases {
        stack.kms.proxy().behave("AssumeRoleWithWebIdentity", behaviour);
        // Without its session of before.
        stack.reconfigure_resolver(|_| {}).await?;
        let denied = || client.denies(reason);
        stack.until(format!("{reason} for {behaviour:?}"), Duration::from_secs(10), denied).await?;
        assert_eq!(stack.kms.proxy().count("Decrypt"), 0, "without a session KMS is not asked");
    }
    stack.kms.proxy().behave("AssumeRoleWithWebIdentity", Behaviour::Forward);
    stack.reconfigure_resolver(|_| {}).await?;
    let serves = || client.serves();
    stack.until("service", Duration::from_secs(15), serves).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_region_that_is_down_stops_no_other() -> Result<()> {
    const FAR: &str = "eu-west-1";
    let near = Credential::new("near", "payments").callers(&[&caller("near")]);
    let far = Credential::new("far", "payments").callers(&[&caller("far")]);
    let unregistered = Credential { with_envelope: false, ..far.clone() };
    let mut stack = Stack::builder("regions").credential(near).credential(unregistered).start().await?;
    let (key, proxy) = (stack.kms.create_key_in(FAR).await?, stack.kms.another_proxy().await?);
    let bundle = stack.credential("far")?.bundle();
    let body = json!({
        "logical_path": far.logical_path, "key_id": key, "aad": far.aad, "provider": "kms_envelope",
        "ciphertext_ref": stack.kms.encrypt(&key, &far.aad, bundle.as_bytes()).await?,
    });
    stack.api()?.register_envelope(&body).await?;
    let (keys, endpoint) = (vec![stack.key_arn.clone(), key], proxy.endpoint());
    let configure = |setup: &mut bouncer_tests::resolver::Setup| {
        setup.set("rails.kms_keys", keys);
        setup.set(&format!("kms.kms_endpoints.{FAR}"), endpoint);
    };
    stack.reconfigure_resolver(configure).await?;

    proxy.behave("Decrypt", Behaviour::Fail(503, "ServiceUnavailableException"));
    let (near, far) = (stack.client(&caller("near"), Protocol::Http1)?, stack.client(&caller("far"), Protocol::Http1)?);
    let fails = || async {
        let reply = far.get("/").await.ok()?;
        (reply.reason() == Some(Reason::KmsUnavailable.code()) && proxy.count("Decrypt") >= 5).then_some(())
    };
    stack.until("a breaker that is open", Duration::from_secs(15), fails).await?;
    assert_eq!(near.get("/").await?.status, 200);
    assert_eq!(stack.kms.proxy().count("Decrypt"), 1, "the far key's calls go to its own endpoint");

    proxy.behave("Decrypt", Behaviour::Forward);
    let serves = || far.serves();
    stack.until("service by the far key", Duration::from_secs(10), serves).await
}
