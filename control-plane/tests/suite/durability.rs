//! What was acknowledged is there afterwards.

use crate::harness::{ControlPlane, KEY, PATH, envelope, resource};
use serde_json::json;
use std::sync::Arc;

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    plane.put("/v1/crypto/settings", &json!({"provider": "kms_envelope", "kms_key_arn": KEY})).await.ok();
    plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
    plane.post("/v1/protected-resources", &resource("payments-api", PATH)).await.ok();
    let lists = [
        "/v1/feature-flags",
        "/v1/crypto/settings",
        "/v1/crypto/envelope-secrets",
        "/v1/protected-resources",
        "/v1/audit/admin-events",
        "/v1/audit/export",
        "/v1/tokens",
    ];
    let mut before = Vec::new();
    for list in lists {
        before.push(plane.get(list).await.ok());
    }
    let epoch = plane.store.epoch().await.unwrap();
    let plane = plane.restarted().await;
    for (list, before) in lists.into_iter().zip(before) {
        assert_eq!(plane.get(list).await.ok(), before, "{list}");
    }
    assert_eq!(plane.store.epoch().await.unwrap(), epoch);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_changes_are_all_kept_and_each_raises_the_epoch() {
    let plane = Arc::new(ControlPlane::enabled().await);
    let epoch = plane.store.epoch().await.unwrap();
    let calls = (0..40).map(|n| {
        let plane = Arc::clone(&plane);
        tokio::spawn(async move {
            plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
            plane.register_bouncer(&format!("bouncer-{n}")).await;
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    assert_eq!(plane.store.epoch().await.unwrap(), epoch + 80);
    assert_eq!(plane.get("/v1/crypto/envelope-secrets").await.ok()["items"][0]["generation"], 40);
    assert_eq!(plane.get("/v1/bouncers").await.ok()["items"].as_array().unwrap().len(), 40);
}
