//! Databases as each released schema left them: after the upgrade everything is there.

use crate::database::{MIGRATIONS, Place, WRITTEN};
use crate::harness::{ControlPlane, FLAG, KEY, PATH, spiffe_id};
use axum::body::Body;
use bouncer_control_plane::access::Scope;
use http::{Method, Request, header};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use uuid::Uuid;

/// Pairs of a field and what it must be.
fn has(found: &Value, wanted: Value) {
    for (field, value) in wanted.as_object().unwrap() {
        assert_eq!(&found[field], value, "{field} of {found}");
    }
}

#[tokio::test]
async fn every_released_schema_is_brought_up_to_date_with_all_its_data() {
    assert!(MIGRATIONS.iter().count() >= 3);
    for schema in MIGRATIONS.iter().map(|migration| migration.version) {
        let written: String = WRITTEN.iter().filter(|(since, _)| *since <= schema).map(|(_, sql)| *sql).collect();
        let wrote = |table: &str| written.contains(&format!("INSERT INTO {table} "));
        let plane = ControlPlane::on(Arc::new(Place::left_by(schema).await), String::new()).await;
        // The token "upgrade", whose hash the data has.
        let plane = plane.with_token(TOKEN.to_owned());
        assert_eq!(plane.store.epoch().await.unwrap(), 41, "schema {schema}");
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
        let by_role = written.contains("'payments-role'");
        assert_eq!(bouncers.len(), if by_role { 3 } else { 2 });
        if by_role {
            let role = "arn:aws:iam::123456789012:role/payments";
            has(&bouncers[1], json!({"name": "payments-role", "iam_role_arn": role}));
        }
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
        assert_eq!(events.len(), if wrote("audit_chains") { 3 } else { 2 });
        let changes = list("/v1/audit/admin-events").await;
        assert_eq!(changes[0]["action"], "envelope.registered", "the newest first: {changes:?}");

        if wrote("sessions") {
            let cookie = Request::get("/v1/session").header(header::COOKIE, format!("bouncer-session={TOKEN}"));
            let session = plane.send(cookie.body(Body::empty()).unwrap()).await.ok();
            has(&session, json!({"actor": "token:upgrade", "role": "operator"}));
        }
        if wrote("idempotency_keys") {
            let key = [("idempotency-key", "key-of-upgrade")];
            let again = plane.raw_with(Method::POST, "/v1/crypto/envelope-secrets", &key, CALL).await.ok();
            has(&again, json!({"id": id, "generation": 2}));
        }
        if wrote("audit_chains") {
            let export = plane.get("/v1/audit/export").await.text;
            let lines: Vec<Value> = export.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let of = |kind: &str| lines.iter().filter(|line| line["type"] == kind).collect::<Vec<_>>();
            assert_eq!((of("checkpoint").len(), of("divergence").len()), (1, 1), "{export}");
            assert_eq!(of("checkpoint")[0]["certificates"], json!(["MAA="]));
            assert!(plane.store.own_chain().await.unwrap().is_some_and(|own| own.end.sequence == 1));
        }
        if wrote("proposals") {
            let proposal = &list("/v1/proposals?state=pending").await[0];
            has(proposal, json!({"subject": FLAG, "method": "PUT", "state": "pending"}));
        }
        if wrote("audit_outlets") {
            let position = plane.store.lease_outlet("siem", Uuid::nil(), Duration::ZERO).await.unwrap().unwrap();
            assert_eq!((position.decisions, position.changes), (2, 1));
        }
        let scope = |path: &str| Scope::of(vec![path.parse().unwrap()]);
        let counted = plane.store.audit_summary(&scope("protected-resources/*")).await.unwrap();
        let chained = u64::from(wrote("audit_chains"));
        assert_eq!(
            (counted.events, counted.injected, counted.divergences),
            (2 + chained, 1 + chained, None),
            "schema {schema}"
        );
        assert_eq!(plane.store.audit_summary(&scope("else/*")).await.unwrap().events, 0);

        // What the data means has come along too: a secret that was deleted goes on counting, and what was taken back
        // before is known to bouncers that missed it.
        let again = json!({"logical_path": "gone/secret", "key_id": KEY, "ciphertext_ref": "AQICAHo=", "provider": "kms_envelope"});
        has(&plane.post("/v1/crypto/envelope-secrets", &again).await.ok(), json!({"generation": 4}));
        let policy = plane.store.policy(&"payments-east".parse().unwrap()).await.unwrap().unwrap();
        let revoked: Vec<_> = policy.envelopes.iter().map(|envelope| envelope.revoked_through).collect();
        assert_eq!(revoked, [2], "its second generation was disabled once");
        assert!(plane.store.epoch().await.unwrap() > 41);
    }
}

/// Made up; only its hash is in the data.
pub(crate) const TOKEN: &str = "bnc_upgrade-upgrade-upgrade-upgrade-upgrade-upg";
/// What was registered under a key before the upgrade, and is sent again after it.
const CALL: &str = r#"{"ciphertext_ref":"AQICAHk=","key_id":"arn:aws:kms:ca-central-1:123456789012:key/abc-123","logical_path":"protected-resources/payments-api/upstream-tls","provider":"kms_envelope"}"#;
