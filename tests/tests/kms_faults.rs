//! KMS says no, or says nothing: a reason that names which, no call too many, and never a stream without its credential.

use bouncer_custody::Reason;
use bouncer_tests::Result;
use bouncer_tests::client::Protocol;
use bouncer_tests::kms_proxy::Behaviour;
use bouncer_tests::stack::{Credential, Stack};
use std::time::Duration;

fn caller(name: &str) -> String {
    format!("spiffe://example.org/ns/shop/sa/{name}")
}

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
        ("access", "AccessDeniedException", Reason::KmsAccessDenied),
        ("ciphertext", "InvalidCiphertextException", Reason::KmsInvalidCiphertext),
        ("key", "IncorrectKeyException", Reason::KmsIncorrectKey),
        ("disabled", "DisabledException", Reason::KmsKeyDisabled),
        ("state", "KMSInvalidStateException", Reason::KmsKeyInvalidState),
        ("missing", "NotFoundException", Reason::KmsKeyNotFound),
    ];
    let stack = with_callers("final-no", cases.iter().map(|case| case.0)).await?;
    for (name, code, reason) in cases {
        stack.kms.proxy().behave("Decrypt", Behaviour::Fail(400, code));
        stack.kms.proxy().reset();
        let client = stack.client(&caller(name), Protocol::Http1)?;
        for _ in 0..5 {
            let reply = client.get("/").await?;
            assert_eq!(reply.reason(), Some(reason.code()), "{code}");
            assert!(reply.took < Duration::from_secs(1), "{code} {:?}", reply.took);
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
        let reply = client.get("/").await?;
        let reason = reply.reason().and_then(|code| code.parse::<Reason>().ok());
        assert!(reason.is_some_and(|reason| reasons.contains(&reason)), "{name}: {} {reason:?}", reply.status);
        assert!(reply.took < Duration::from_millis(1_200), "{name} {:?}", reply.took);

        stack.kms.proxy().behave("Decrypt", Behaviour::Forward);
        let serves = || async { (client.get("/").await.ok()?.status == 200).then_some(()) };
        stack.until(format!("recovery from {name}"), Duration::from_secs(10), serves).await?;
    }
    assert_eq!(stack.upstream("payments")?.uncredentialed(), 0);
    Ok(())
}
