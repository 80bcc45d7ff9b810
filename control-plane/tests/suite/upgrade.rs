//! Databases as each released schema left them: after the upgrade everything is there.

use crate::database::Place;
use crate::harness::{ControlPlane, KEY, PATH, spiffe_id};
use bouncer_control_plane::access::Scope;
use serde_json::{Value, json};
use sqlx::migrate::Migrator;
use sqlx::sqlite::SqliteConnectOptions;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the migrations are, in the order of their names.
const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite");

fn migrations() -> Vec<PathBuf> {
    let files = std::fs::read_dir(MIGRATIONS).unwrap().map(|file| file.unwrap().path());
    let mut files: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "sql")).collect();
    files.sort();
    files
}

/// One row or more in every table of the first schema, as its program wrote them.
const DATA: &str = include_str!("../upgrade/data-of-0001.sql");

/// A database by the first `count` migrations, with data that the first one's program wrote and each later one carried on.
async fn left_by(count: usize, folder: &Path) -> PathBuf {
    let database = folder.join("control-plane.db");
    let pool = sqlx::SqlitePool::connect_with(SqliteConnectOptions::new().filename(&database).create_if_missing(true))
        .await
        .unwrap();
    let source = folder.join("migrations");
    std::fs::create_dir(&source).unwrap();
    for (at, file) in migrations().iter().take(count).enumerate() {
        std::fs::copy(file, source.join(file.file_name().unwrap())).unwrap();
        Migrator::new(source.clone()).await.unwrap().run(&pool).await.unwrap();
        if at == 0 {
            sqlx::raw_sql(DATA).execute(&pool).await.unwrap();
        }
    }
    pool.close().await;
    database
}

/// Pairs of a field and what it must be.
fn has(found: &Value, wanted: Value) {
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&found[field], value, "{field} of {found}");
    }
}

#[tokio::test]
async fn every_released_schema_is_brought_up_to_date_with_all_its_data() {
    let all = migrations().len();
    assert!(all >= 3);
    for count in 1..=all {
        let folder = tempfile::tempdir().unwrap();
        let plane = ControlPlane::on(Arc::new(Place::with(&left_by(count, folder.path()).await)), String::new()).await;
        // The token "upgrade", whose hash the data has.
        let plane = plane.with_token(TOKEN.to_owned());
        assert_eq!(plane.store.epoch().await.unwrap(), 41, "schema {count}");
        let list = async |path: &str| plane.get(path).await.ok()["items"].as_array().unwrap().clone();

        let tokens = list("/v1/tokens").await;
        assert!(tokens.len() == 2 && tokens[1]["revoked_at"].is_string(), "{tokens:?}");
        has(&tokens[0], json!({"name": "upgrade", "role": "admin"}));
        let flags = plane.get("/v1/feature-flags").await.ok();
        assert!(flags.to_string().contains("\"enabled\":true"), "{flags}");
        has(
            &plane.get("/v1/crypto/settings").await.ok(),
            json!({"provider": "kms_envelope", "kms_key_arn": KEY, "notes": "ours"}),
        );
        let bouncers = list("/v1/bouncers").await;
        assert_eq!(bouncers.len(), 2);
        has(
            &bouncers[0],
            json!({"name": "payments-east", "spiffe_id": spiffe_id("payments-east"), "created_by": "token:upgrade"}),
        );
        has(&bouncers[0]["bridge"], json!({"epoch_acked": 40, "version": "0.1.0"}));
        let resources = list("/v1/protected-resources").await;
        has(
            &resources[0],
            json!({
                "name": "payments-api", "bouncer": "payments-east", "cluster": "payments", "protocol": "mtls", "logical_path": PATH,
                "upstream": "payments.internal:8443", "callers": ["spiffe://example.org/ns/shop/*"], "enabled": true,
            }),
        );
        let envelopes = list("/v1/crypto/envelope-secrets").await;
        assert_eq!(envelopes.len(), 1, "the deleted one is not shown");
        has(
            &envelopes[0],
            json!({
                "logical_path": PATH, "generation": 2, "key_id": KEY, "ciphertext_ref": "AQICAHk=", "enabled": true, "activation": 1,
                "aad": "env=production,bouncer=payments-east", "created_by": "token:upgrade",
            }),
        );
        let id = envelopes[0]["id"].as_str().unwrap();
        let history = list(&format!("/v1/crypto/envelope-secrets/{id}/history")).await;
        assert_eq!((history.len(), &history[1]["ciphertext_ref"]), (2, &json!("AQICAHg=")));
        let events = list("/v1/audit/events").await;
        has(
            &events[0],
            json!({"outcome": "inject", "logical_path": PATH, "bouncer": "payments-east", "generation": 2, "count": 3}),
        );
        let scope = |path: &str| Scope::of(vec![path.parse().unwrap()]);
        let counted = plane.store.audit_summary(&scope("protected-resources/*")).await.unwrap();
        assert_eq!((counted.events, counted.injected, counted.divergences), (2, 1, None), "schema {count}");
        assert_eq!(plane.store.audit_summary(&scope("else/*")).await.unwrap().events, 0);
        assert_eq!(
            (events.len(), list("/v1/audit/admin-events").await[0]["action"].as_str()),
            (2, Some("envelope.registered"))
        );

        // What the data means has come along too: a secret that was deleted goes on counting, and what was taken back
        // before is known to bouncers that missed it.
        let again = json!({"logical_path": "gone/secret", "key_id": KEY, "ciphertext_ref": "AQICAHo=", "provider": "kms_envelope"});
        has(&plane.post("/v1/crypto/envelope-secrets", &again).await.ok(), json!({"generation": 4}));
        let policy = plane.store.policy(&"payments-east".parse().unwrap()).await.unwrap().unwrap();
        let sent = format!("{:?}", policy.envelopes);
        assert!(sent.contains("revoked_through"), "{sent}");
        assert!(plane.store.epoch().await.unwrap() > 41);
    }
}

/// Made up; only its hash is in the data.
const TOKEN: &str = "bnc_upgrade-upgrade-upgrade-upgrade-upgrade-upg";
