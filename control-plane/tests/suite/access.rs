//! Who may do what: every call by every role, paths that a token is limited to, the token for one use.

use crate::harness::{ControlPlane, FLAG, envelope, operator, resource, spiffe_id};
use crate::resolver::{Resolver, event};
use bouncer_control_plane::access::{NewToken, Role, Scope};
use bouncer_control_plane::token::Token;
use bouncer_proto::bridge::v1::AuditEvent;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const ROLES: [&str; 4] = ["viewer", "auditor", "operator", "admin"];

/// Each call that needs a token, with the least role that may make it. This is the promise; the code has its own table.
const CALLS: &[(&str, &str, &str)] = &[
    ("GET", "/v1/session", "viewer"),
    ("POST", "/v1/session", "viewer"),
    ("DELETE", "/v1/session", "viewer"),
    ("GET", "/v1/bootstrap/status", "viewer"),
    ("GET", "/v1/policy-bridge/health", "viewer"),
    ("GET", "/v1/feature-flags", "viewer"),
    ("PUT", "/v1/feature-flags/{name}", "admin"),
    ("GET", "/v1/crypto/settings", "viewer"),
    ("PUT", "/v1/crypto/settings", "admin"),
    ("GET", "/v1/crypto/envelope-secrets", "viewer"),
    ("POST", "/v1/crypto/envelope-secrets", "operator"),
    ("GET", "/v1/crypto/envelope-secrets/{id}", "viewer"),
    ("PATCH", "/v1/crypto/envelope-secrets/{id}", "operator"),
    ("DELETE", "/v1/crypto/envelope-secrets/{id}", "operator"),
    ("GET", "/v1/crypto/envelope-secrets/{id}/history", "viewer"),
    ("POST", "/v1/crypto/envelope-secrets/{id}/rollback", "operator"),
    ("GET", "/v1/bouncers", "viewer"),
    ("POST", "/v1/bouncers", "operator"),
    ("GET", "/v1/bouncers/{name}", "viewer"),
    ("PUT", "/v1/bouncers/{name}", "operator"),
    ("DELETE", "/v1/bouncers/{name}", "operator"),
    ("GET", "/v1/protected-resources", "viewer"),
    ("POST", "/v1/protected-resources", "operator"),
    ("GET", "/v1/protected-resources/{name}", "viewer"),
    ("PUT", "/v1/protected-resources/{name}", "operator"),
    ("DELETE", "/v1/protected-resources/{name}", "operator"),
    ("GET", "/v1/audit/events", "auditor"),
    ("GET", "/v1/audit/histogram", "auditor"),
    ("GET", "/v1/audit/admin-events", "auditor"),
    ("GET", "/v1/audit/export", "auditor"),
    ("GET", "/v1/proposals", "viewer"),
    ("GET", "/v1/proposals/{id}", "viewer"),
    ("DELETE", "/v1/proposals/{id}", "operator"),
    ("POST", "/v1/proposals/{id}/approve", "operator"),
    ("POST", "/v1/proposals/{id}/reject", "operator"),
    ("GET", "/v1/tokens", "admin"),
    ("POST", "/v1/tokens", "admin"),
    ("GET", "/v1/tokens/{id}", "admin"),
    ("DELETE", "/v1/tokens/{id}", "admin"),
];

/// A call on the route, about something that is not there.
fn concrete(route: &str) -> String {
    route.replace("{name}", "nothing").replace("{id}", "0199d7a0-0000-7000-8000-000000000001")
}

#[tokio::test]
async fn every_call_is_for_the_roles_that_the_matrix_names_and_for_no_other() {
    let plane = ControlPlane::enabled().await;
    let document = plane.get("/openapi.json").await.ok();
    let mut described = BTreeSet::new();
    for (route, item) in document["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap() {
            if call["security"].is_null() {
                described.insert((method.to_uppercase(), route.clone()));
            }
        }
    }
    let listed: BTreeSet<_> = CALLS.iter().map(|(method, route, _)| ((*method).into(), (*route).into())).collect();
    assert_eq!(described, listed, "the matrix has every call");

    for (rank, role) in ROLES.iter().enumerate() {
        let caller = plane.with_token(plane.token_of(role, &[]).await);
        for (method, route, least) in CALLS {
            let answer = caller.raw(method.parse().unwrap(), &concrete(route), "{}").await;
            let allowed = rank >= ROLES.iter().position(|role| role == least).unwrap();
            assert_eq!(answer.status != 403, allowed, "{method} {route} by {role}: {}", answer.text);
            if !allowed {
                assert_eq!(answer.code(), "forbidden");
            }
        }
        // What is read may also be asked for without its body.
        let head = caller.raw(Method::HEAD, "/v1/tokens", "").await;
        assert_eq!(head.status == 200, *role == "admin");
    }
}

#[tokio::test]
async fn a_limited_token_knows_of_its_own_paths_only() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let (ours, theirs) = ("payments/api/tls", "refunds/api/tls");
    let mut ids = Vec::new();
    for path in [ours, theirs] {
        ids.push(
            plane.post("/v1/crypto/envelope-secrets", &envelope(path)).await.ok()["id"].as_str().unwrap().to_owned(),
        );
        let name = path.split('/').next().unwrap();
        plane.post("/v1/protected-resources", &resource(name, path)).await.ok();
    }
    let team = plane.with_token(plane.token_of("operator", &["payments/*"]).await);
    let paths = async |caller: &ControlPlane, list: &str, key: &str| {
        let items = caller.get(list).await.ok()["items"].clone();
        items.as_array().unwrap().iter().map(|item| item[key].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths(&team, "/v1/crypto/envelope-secrets", "logical_path").await, [ours]);
    assert_eq!(paths(&team, "/v1/protected-resources", "name").await, ["payments"]);
    assert_eq!(paths(&plane, "/v1/protected-resources", "name").await, ["payments", "refunds"], "the control");
    let status = team.get("/v1/bootstrap/status").await;
    assert!(!status.text.contains("refunds") && status.json["envelope_secrets"]["count"] == 1, "{}", status.text);

    // What is not theirs is not there for them.
    let (own, other) =
        (format!("/v1/crypto/envelope-secrets/{}", ids[0]), format!("/v1/crypto/envelope-secrets/{}", ids[1]));
    let disable = json!({"enabled": false});
    assert_eq!(team.get(&own).await.status, 200);
    for answer in [
        team.get(&other).await,
        team.get(&format!("{other}/history")).await,
        team.patch(&other, &disable).await,
        team.post(&format!("{other}/rollback"), &json!({"generation": 1})).await,
        team.delete(&other).await,
        team.get("/v1/protected-resources/refunds").await,
        team.put("/v1/protected-resources/refunds", &resource("refunds", ours)).await,
        team.delete("/v1/protected-resources/refunds").await,
    ] {
        assert_eq!(answer.code(), "not_found", "{}", answer.text);
    }
    // Nor can they make it, or move theirs there, or touch what is everybody's.
    for answer in [
        team.post("/v1/crypto/envelope-secrets", &envelope(theirs)).await,
        team.post("/v1/protected-resources", &resource("another", theirs)).await,
        team.put("/v1/protected-resources/payments", &resource("payments", theirs)).await,
        team.post("/v1/bouncers", &json!({"name": "b", "spiffe_id": spiffe_id("b")})).await,
        team.delete("/v1/bouncers/payments-east").await,
        team.get("/v1/audit/admin-events").await,
        team.get("/v1/audit/export").await,
    ] {
        assert_eq!(answer.code(), "out_of_scope", "{}", answer.text);
    }
    assert_eq!(plane.get(&other).await.ok()["enabled"], true, "nothing of it happened");
    assert_eq!(team.patch(&own, &disable).await.ok()["enabled"], false, "the control");
    assert_eq!(team.put("/v1/protected-resources/payments", &resource("payments", "payments/b")).await.status, 200);

    // An administrator who is limited administers nothing.
    let limited = plane.with_token(plane.token_of("admin", &["payments/*"]).await);
    for answer in [
        limited.post("/v1/tokens", &json!({"name": "more", "role": "admin"})).await,
        limited.put(&format!("/v1/feature-flags/{FLAG}"), &disable).await,
        limited.put("/v1/crypto/settings", &json!({"provider": "vault_delegate", "vault_namespace": "a"})).await,
    ] {
        assert_eq!(answer.code(), "out_of_scope", "{}", answer.text);
    }
}

#[tokio::test]
async fn numbers_are_of_what_a_caller_may_see_and_of_nothing_else() {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    let (ours, theirs) = ("payments/api/tls", "refunds/api/tls");
    for path in [ours, theirs] {
        plane.post("/v1/crypto/envelope-secrets", &envelope(path)).await.ok();
    }
    let mut resolver = Resolver::connect(&plane, "payments-east", 0).await;
    resolver.snapshot().await;
    let of = |sequence, outcome, path: &str| AuditEvent { logical_path: path.into(), ..event(sequence, outcome) };
    let events = vec![
        of(1, "inject", ours),
        of(2, "deny", ours),
        of(3, "deny", ours),
        of(4, "inject", theirs),
        of(5, "inject", theirs),
        of(6, "deny", ""),
    ];
    resolver.audit(events.clone()).await;
    resolver.audit_ack().await;
    // What is sent again is counted once.
    resolver.audit(events).await;
    resolver.audit_ack().await;

    let audit = async |role: &str, paths: &[&str]| {
        let caller = plane.with_token(plane.token_of(role, paths).await);
        let status = caller.get("/v1/bootstrap/status").await.ok()["audit"].clone();
        let last = caller.get("/v1/audit/events").await.json["items"][0]["time"].clone();
        assert_eq!(status.get("last_event_at").unwrap_or(&Value::Null), &last, "{role} {paths:?}");
        let ok = status["ok"].as_bool().unwrap();
        let numbers = ["count", "injected", "denied", "divergences"].map(|name| status[name].as_u64());
        (ok, numbers, status["detail"].to_string().contains(|letter: char| letter.is_ascii_digit()))
    };
    let all = [Some(6), Some(3), Some(3), Some(0)];
    assert_eq!(audit("auditor", &[]).await, (true, all, true), "the control");
    assert_eq!(audit("auditor", &["payments/*"]).await, (true, [Some(3), Some(1), Some(2), None], true));
    assert_eq!(audit("admin", &[ours, "refunds/*"]).await.1, [Some(5), Some(3), Some(2), None]);
    assert_eq!(audit("operator", &["else/*"]).await.1, [Some(0), Some(0), Some(0), None]);
    // Who may not see the audit learns whether the set-up is done.
    assert_eq!(audit("viewer", &[]).await, (true, [None; 4], false));
    assert_eq!(audit("viewer", &["else/*"]).await, (false, [None; 4], false));

    // Of the envelopes that the provider does not fit, those within a caller's paths are counted.
    let other = json!({"provider": "vault_delegate", "vault_namespace": "a"});
    assert!(plane.put("/v1/crypto/settings", &other).await.ok()["warnings"][0].to_string().contains("2 registered"));
    for (paths, counted) in [(&["payments/*"][..], "1 registered"), (&[], "2 registered")] {
        let caller = plane.with_token(plane.token_of("viewer", paths).await);
        let warnings = caller.get("/v1/crypto/settings").await.ok()["warnings"].clone();
        assert!(warnings[0].to_string().contains(counted), "{paths:?}: {warnings}");
    }
    let nobody = plane.with_token(plane.token_of("viewer", &["else/*"]).await);
    assert_eq!(nobody.get("/v1/crypto/settings").await.ok()["warnings"], json!([]));
}

#[tokio::test]
async fn the_bootstrap_token_is_exchanged_once_and_does_nothing_else() {
    let plane = ControlPlane::unclaimed().await;
    let answer = plane.get("/v1/bouncers").await;
    assert_eq!((answer.status.as_u16(), answer.code()), (403, "single_use_token"));
    assert_eq!(plane.get("/v1/tokens").await.code(), "single_use_token");
    assert_eq!(plane.get("/v1/no-such-call").await.code(), "single_use_token");
    let body = json!({"name": "alice", "role": "admin"});
    let mut wrong = body.clone();
    wrong["role"] = json!("root");
    assert_eq!(plane.post("/v1/tokens", &wrong).await.code(), "invalid_fields", "which does not use it up");
    // Asked for twice at once, it is given once.
    let eve = json!({"name": "eve", "role": "admin"});
    let (one, other) = tokio::join!(plane.post("/v1/tokens", &body), plane.post("/v1/tokens", &eve));
    let (first, second) = if one.status == 201 { (one, other) } else { (other, one) };
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (201, 401), "{} {}", first.text, second.text);
    assert_eq!(plane.post("/v1/tokens", &body).await.status, 401);
    let alice = plane.with_token(first.json["token"].as_str().unwrap().to_owned());
    let items = alice.get("/v1/tokens").await.ok()["items"].clone();
    assert_eq!((items[0]["single_use"].clone(), items[0]["revoked_at"].is_string()), (json!(true), true));
    let changes = alice.get("/v1/audit/admin-events").await.ok();
    let actions: Vec<_> = changes["items"].as_array().unwrap().iter().map(|event| event["action"].clone()).collect();
    assert_eq!(actions, ["token.created", "token.spent", "token.created"]);
}

#[tokio::test]
async fn tokens_end_by_themselves_and_the_last_administrator_stays() {
    let plane = ControlPlane::new().await;
    let fresh = plane.post("/v1/tokens", &json!({"name": "a", "role": "viewer", "expires_in_days": 1})).await.ok();
    let end: Timestamp = fresh["expires_at"].as_str().unwrap().parse().unwrap();
    let left = end.duration_since(Timestamp::now());
    assert!(left > SignedDuration::from_hours(23) && left <= SignedDuration::from_hours(24), "{left:?}");
    for (field, value) in [
        ("expires_in_days", json!(0)),
        ("expires_in_days", json!(367)),
        ("role", json!("root")),
        ("path_prefixes[0]", json!(["a/../b"])),
        ("path_prefixes", json!(vec!["a"; 33])),
    ] {
        let mut body = json!({"name": "b", "role": "viewer"});
        body[field.split('[').next().unwrap()] = value;
        let answer = plane.post("/v1/tokens", &body).await;
        assert_eq!((answer.code(), &answer.json["errors"][0]["field"]), ("invalid_fields", &json!(field)));
    }

    let operator = operator();
    let insert = async |name: &str, seconds: i64| {
        let token = Token::generate().unwrap();
        let life = Some(SignedDuration::from_secs(seconds));
        let new = NewToken { name: name.into(), role: Role::Admin, scope: Scope::default(), life };
        plane.store.add_token(&new, &token.hash(), &operator).await.unwrap();
        plane.with_token(token.reveal().to_owned())
    };
    assert_eq!(insert("ended", -1).await.get("/v1/bouncers").await.code(), "unauthenticated");
    assert_eq!(insert("current", 60).await.get("/v1/bouncers").await.status, 200, "the control");
    // Of administrators, the one that ended counts no more, and neither does one who is limited.
    plane.token_of("admin", &["a/*"]).await;
    let id = async |name: &str| {
        let items = plane.get("/v1/tokens").await.ok()["items"].clone();
        let found = items.as_array().unwrap().iter().find(|item| item["name"] == name).unwrap()["id"].clone();
        format!("/v1/tokens/{}", found.as_str().unwrap())
    };
    assert_eq!(plane.delete(&id("current").await).await.status, 204);
    assert_eq!(plane.delete(&id("admin").await).await.code(), "last_token");
    let shown: Value = plane.get(&id("admin").await).await.ok();
    assert_eq!((&shown["role"], &shown["path_prefixes"]), (&json!("admin"), &json!([])));
    assert_eq!(plane.get("/v1/tokens/0199d7a0-0000-7000-8000-000000000001").await.code(), "not_found");
}
