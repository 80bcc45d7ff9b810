//! What was acknowledged is there afterwards.

use crate::harness::{ControlPlane, KEY, PATH, envelope, resource, spiffe_id};
use crate::resolver::Resolver;
use jiff::Timestamp;
use serde_json::json;
use std::sync::Arc;
use tonic::Code;

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
    // Each has its turn within the time that a caller waits for one, also where the machine is slow.
    let writers = (0..8).map(|writer| {
        let plane = Arc::clone(&plane);
        tokio::spawn(async move {
            for n in 0..5 {
                plane.post("/v1/crypto/envelope-secrets", &envelope(PATH)).await.ok();
                plane.register_bouncer(&format!("bouncer-{writer}-{n}")).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(plane.store.epoch().await.unwrap(), epoch + 80);
    assert_eq!(plane.get("/v1/crypto/envelope-secrets").await.ok()["items"][0]["generation"], 40);
    assert_eq!(plane.get("/v1/bouncers").await.ok()["items"].as_array().unwrap().len(), 40);
}

/// As a newer version leaves the database under one of before that still runs.
#[tokio::test]
async fn a_running_control_plane_says_that_a_newer_version_has_upgraded_its_database() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let readyz = async || plane.get("/readyz").await.json;
    let newer = "A newer version has upgraded the database";

    // What only adds is no reason to stop.
    let adds = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                VALUES (9998, 'adds more', TRUE, '', 0)";
    plane.place.execute(adds).await;
    assert_eq!(readyz().await["database"], true);
    plane.get("/v1/bouncers").await.ok();

    plane.place.execute("UPDATE _sqlx_migrations SET description = 'breaks bouncers' WHERE version = 9998").await;
    plane.place.execute("ALTER TABLE bouncers RENAME TO principals").await;
    let ready = readyz().await;
    assert_eq!(ready["database"], false, "{ready}");
    assert!(ready["next"][0].as_str().unwrap().starts_with(newer), "{ready}");
    let body = json!({"name": "b", "spiffe_id": "spiffe://example.org/b"});
    for answer in [plane.get("/v1/bouncers").await, plane.post("/v1/bouncers", &body).await] {
        assert_eq!((answer.status.as_u16(), answer.code()), (503, "unavailable"));
        assert!(answer.json["next"].as_str().unwrap().contains("newer version"), "{}", answer.text);
        assert!(
            !answer.text.contains("principals") && !answer.text.contains("no such table"),
            "the cause is for the log"
        );
    }

    let opened = Resolver::open(plane.bridge(), &spiffe_id("payments-east"), Timestamp::MAX).await;
    assert_eq!(opened.err().map(|status| status.code()), Some(Code::Unavailable));

    // Back on the schema that it knows, it goes on by itself.
    plane.place.execute("ALTER TABLE principals RENAME TO bouncers").await;
    plane.place.execute("DELETE FROM _sqlx_migrations WHERE version = 9998").await;
    assert_eq!(readyz().await["database"], true);
    assert_eq!(plane.get("/v1/bouncers").await.ok()["items"].as_array().unwrap().len(), 1);
}
