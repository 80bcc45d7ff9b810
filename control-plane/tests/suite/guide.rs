//! The operator guide's steps, with its bodies to the byte.

use crate::harness::{ControlPlane, FLAG, PATH, envelope};
use http::Method;
use serde_json::json;

/// As `curl -d '…'` sends it.
const SETTINGS: &str = r#"{
"provider": "kms_envelope",
"kms_key_arn": "arn:aws:kms:ca-central-1:123456789012:key/abc-123",
"notes": "Production CMK — dual custody"
}"#;
const ENVELOPE: &str = r#"{
"logical_path": "protected-resources/payments-api/upstream-tls",
"key_id": "arn:aws:kms:ca-central-1:123456789012:key/abc-123",
"ciphertext_ref": "AQICAHh...opaque-envelope-blob...",
"aad": "env=production,bouncer=payments-east",
"provider": "kms_envelope"
}"#;

#[tokio::test]
async fn the_guides_bodies_are_accepted_as_they_stand() {
    let plane = ControlPlane::enabled().await;
    let settings = plane.raw(Method::PUT, "/v1/crypto/settings", SETTINGS).await.ok();
    assert_eq!(settings["notes"], "Production CMK — dual custody");
    assert_eq!(settings["warnings"], json!([]));
    assert_eq!(plane.get("/v1/crypto/settings").await.ok(), settings);

    let registered = plane.raw(Method::POST, "/v1/crypto/envelope-secrets", ENVELOPE).await;
    assert_eq!(registered.status, 201);
    let registered = registered.ok();
    assert_eq!(registered["ciphertext_ref"], "AQICAHh...opaque-envelope-blob...");
    assert_eq!(registered["generation"], 1);

    let list = plane.get("/v1/crypto/envelope-secrets").await.ok();
    assert_eq!(list["items"], json!([registered]));
}

#[tokio::test]
async fn what_could_never_be_unwrapped_is_stored_with_a_warning_that_status_repeats() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let registered = plane.raw(Method::POST, "/v1/crypto/envelope-secrets", ENVELOPE).await.ok();
    assert_eq!(registered["warnings"][0]["code"], "ciphertext_never_unwraps");
    assert_eq!(registered["warnings"].as_array().unwrap().len(), 1);

    let status = plane.get("/v1/bootstrap/status").await.ok();
    assert_eq!(status["envelope_secrets"]["ok"], false);
    assert_eq!(status["envelope_secrets"]["warnings"][0]["logical_path"], PATH);
    assert_eq!(status["envelope_secrets"]["warnings"][0]["warnings"][0]["code"], "ciphertext_never_unwraps");

    // The control: a whole blob warns of nothing.
    let good = plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
    assert_eq!((&good["warnings"], &good["generation"]), (&json!([]), &json!(2)));
    let status = plane.get("/v1/bootstrap/status").await.ok();
    assert_eq!(
        (&status["envelope_secrets"]["ok"], &status["envelope_secrets"]["warnings"]),
        (&json!(true), &json!([]))
    );
}

#[tokio::test]
async fn while_the_flag_is_off_every_crypto_call_is_a_403_that_names_it() {
    let plane = ControlPlane::new().await;
    let id = "/v1/crypto/envelope-secrets/0199d7a0-0000-7000-8000-000000000001";
    let calls = [
        (Method::PUT, "/v1/crypto/settings", SETTINGS),
        (Method::GET, "/v1/crypto/settings", ""),
        (Method::POST, "/v1/crypto/envelope-secrets", ENVELOPE),
        (Method::GET, "/v1/crypto/envelope-secrets", ""),
        (Method::GET, id, ""),
        (Method::PATCH, id, r#"{"enabled":true}"#),
        (Method::DELETE, id, ""),
        (Method::GET, "/v1/crypto/envelope-secrets/x/history", ""),
        (Method::GET, "/v1/crypto", ""),
        (Method::GET, "/v1/crypto/", ""),
        (Method::GET, "/v1/crypto/no-such-call", ""),
    ];
    for (method, path, body) in calls.clone() {
        let answer = plane.raw(method.clone(), path, body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (403, "feature_disabled"), "{method} {path}");
        assert!(answer.json["detail"].as_str().unwrap().contains(FLAG), "{}", answer.text);
        assert!(answer.json["next"].as_str().unwrap().contains("PUT /v1/feature-flags/"), "{}", answer.text);
    }
    // The control: with the flag on, none of them is a 403; off again, all are.
    let flag = format!("/v1/feature-flags/{FLAG}");
    assert_eq!(plane.put(&flag, &json!({"enabled": true})).await.ok()["enabled"], true);
    for (method, path, body) in calls {
        assert_ne!(plane.raw(method.clone(), path, body).await.status, 403, "{method} {path}");
    }
    plane.put(&flag, &json!({"enabled": false})).await.ok();
    assert_eq!(plane.get("/v1/crypto/settings").await.code(), "feature_disabled");
}

#[tokio::test]
async fn status_leads_through_the_four_steps_in_order() {
    let plane = ControlPlane::new().await;
    let next = async || {
        let status = plane.get("/v1/bootstrap/status").await.ok();
        assert_eq!(status["ok"], false);
        let failing = status["steps"].as_array().unwrap().iter().find(|step| step["ok"] == false).unwrap().clone();
        assert_eq!(failing["next"], status["next"], "the overall advice is that of the first step that is not done");
        (failing["step"].as_u64().unwrap(), status["next"].as_str().unwrap().to_owned())
    };
    let (step, advice) = next().await;
    assert!(step == 1 && advice.contains(FLAG), "{advice}");
    plane.put(&format!("/v1/feature-flags/{FLAG}"), &json!({"enabled": true})).await.ok();
    let (step, advice) = next().await;
    assert!(step == 1 && advice.contains("/v1/crypto/settings"), "{advice}");
    plane.raw(Method::PUT, "/v1/crypto/settings", SETTINGS).await.ok();
    let (step, advice) = next().await;
    assert!(step == 2 && advice.contains("bouncerctl wrap"), "{advice}");
    plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
    let (step, advice) = next().await;
    assert!(step == 3 && advice.contains("Workload API"), "{advice}");
    plane.readiness.set_identity(true);
    let (step, advice) = next().await;
    assert!(step == 3 && advice.contains("Policy Bridge") && !advice.contains("Workload API"), "{advice}");
    let detail = plane.get("/v1/policy-bridge/health").await.ok()["detail"].clone();
    assert!(detail.as_str().is_some_and(|detail| !detail.contains("SVID")), "{detail}");
    plane.readiness.set_bridge(true);
    let (step, advice) = next().await;
    assert!(step == 3 && advice.contains("POST /v1/bouncers"), "{advice}");
    plane.register_bouncer("payments-east").await;
    let (step, advice) = next().await;
    assert!(step == 3 && advice.contains("Start its resolver"), "{advice}");
}
