//! The seed guide's steps against the real control plane: its bodies as they stand, its flag, its status.

use bouncer_custody::Reason;
use bouncer_tests::api::FLAG;
use bouncer_tests::client::Protocol;
use bouncer_tests::stack::{BOUNCER, CART, Stack};
use bouncer_tests::{Fault, Result};
use serde_json::{Value, json};
use std::time::Duration;

const GUIDE_KEY: &str = "arn:aws:kms:ca-central-1:123456789012:key/abc-123";

fn guides_envelope() -> Value {
    json!({
        "logical_path": "protected-resources/payments-api/upstream-tls",
        "key_id": GUIDE_KEY,
        "ciphertext_ref": "AQICAHh...opaque-envelope-blob...",
        "aad": "env=production,bouncer=payments-east",
        "provider": "kms_envelope",
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stack_that_followed_the_guide_says_so_in_its_status() -> Result<()> {
    let stack = Stack::builder("guide").start().await?;
    let api = stack.api()?;
    assert_eq!(stack.client(CART, Protocol::Http1)?.get("/").await?.status, 200);
    stack.audited("the injection", |event| event["outcome"] == "inject").await?;
    let status = stack
        .until("every step done", Duration::from_secs(15), || async {
            let status = api.get("/v1/bootstrap/status").await.ok()?.success().ok()?;
            (status["ok"] == true).then_some(status)
        })
        .await?;
    let steps = status["steps"].as_array().ok_or_else(|| Fault::new("no steps"))?;
    assert_eq!(steps.len(), 4);
    assert_eq!(status["dev_mode"], true, "a stack of tests runs with --dev, and status says so");
    let health = api.get("/v1/policy-bridge/health").await?.success()?;
    assert_eq!((&health["ok"], &health["items"][0]["name"]), (&json!(true), &json!(BOUNCER)), "{health}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_guides_bodies_are_taken_as_they_stand_and_what_can_never_work_is_said() -> Result<()> {
    let stack = Stack::builder("guide-bodies").without_envoy().start().await?;
    let api = stack.api()?;
    let settings = json!({
        "provider": "kms_envelope", "kms_key_arn": GUIDE_KEY, "notes": "Production CMK — dual custody",
    });
    api.put("/v1/crypto/settings", &settings).await?.success()?;
    let registered = api.register_envelope(&guides_envelope()).await?;
    assert!(registered["warnings"].as_array().is_some_and(|warnings| !warnings.is_empty()), "{registered}");
    assert_eq!(registered["generation"], 2, "the same path again is a new generation");
    let listed = api.get("/v1/crypto/envelope-secrets").await?.success()?;
    assert_eq!(listed["items"][0]["ciphertext_ref"], "AQICAHh...opaque-envelope-blob...");
    let status = api.get("/v1/bootstrap/status").await?.success()?;
    assert_ne!(status["envelope_secrets"]["warnings"], json!([]), "{status}");

    // Plaintext is neither stored nor repeated.
    let key = &stack.credential("payments-api")?.key_pem;
    for field in ["ciphertext_ref", "aad", "logical_path", "key_id"] {
        let mut body = guides_envelope();
        body[field] = key.as_str().into();
        let answer = api.post("/v1/crypto/envelope-secrets", &body).await?;
        assert_eq!(answer.status, 422, "{field}: {}", answer.text);
        assert!(!answer.text.contains("PRIVATE KEY"), "{field}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_flag_is_off_crypto_is_refused_by_name_and_streams_are_denied() -> Result<()> {
    let stack = Stack::builder("flag-off").flag_off().start().await?;
    let api = stack.api()?;
    for answer in [
        api.get("/v1/crypto/settings").await?,
        api.get("/v1/crypto/envelope-secrets").await?,
        api.post("/v1/crypto/envelope-secrets", &guides_envelope()).await?,
    ] {
        assert_eq!(answer.status, 403);
        assert!(answer.text.contains(FLAG), "{}", answer.text);
    }
    let client = stack.client(CART, Protocol::Http1)?;
    assert_eq!(client.get("/").await?.reason(), Some(Reason::FeatureDisabled.code()));
    assert_eq!(stack.upstream("payments")?.connections(), 0);

    api.set_flag(true).await?;
    let serves = || client.serves();
    stack.until("service after the flag was turned on", Duration::from_secs(5), serves).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_token_the_api_answers_nothing() -> Result<()> {
    let stack = Stack::builder("token").without_envoy().start().await?;
    let control_plane = stack.control_plane()?;
    for token in [None, Some("wrong"), Some("")] {
        let api = bouncer_tests::api::Api::new(control_plane.url(), token)?;
        for path in ["/v1/crypto/settings", "/v1/audit/events", "/v1/bootstrap/status", "/v1/feature-flags"] {
            assert_eq!(api.get(path).await?.status, 401, "{path} {token:?}");
        }
    }
    Ok(())
}
