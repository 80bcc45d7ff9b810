//! Two operators, lost answers, and going back: entity tags, idempotency keys, roll-back, filters.

use crate::harness::{Answer, ControlPlane, FLAG, KEY, PATH, envelope, resource, spiffe_id};
use http::{Method, header};
use serde_json::{Value, json};

const SECRETS: &str = "/v1/crypto/envelope-secrets";

fn tag(answer: &Answer) -> String {
    let tag = answer.headers[header::ETAG].to_str().unwrap().to_owned();
    assert_eq!(tag, format!("\"r{}\"", answer.json["revision"]));
    tag
}

async fn settled() -> ControlPlane {
    let plane = ControlPlane::enabled().await;
    plane.register_bouncer("payments-east").await;
    plane
}

#[tokio::test]
async fn two_operators_do_not_overwrite_each_other() {
    let plane = settled().await;
    plane.post("/v1/protected-resources", &resource("payments-api", PATH)).await.ok();
    plane.put("/v1/crypto/settings", &json!({"provider": "kms_envelope", "kms_key_arn": KEY})).await.ok();
    let id = plane.post(SECRETS, &envelope(PATH)).await.ok()["id"].as_str().unwrap().to_owned();
    let mut other = resource("payments-api", PATH);
    other["cluster"] = json!("elsewhere");
    let changes: [(Method, String, Value, Value); 4] = [
        (Method::PUT, "/v1/protected-resources/payments-api".into(), other, resource("payments-api", PATH)),
        (
            Method::PUT,
            "/v1/crypto/settings".into(),
            json!({"provider": "kms_envelope", "kms_key_arn": KEY, "notes": "a"}),
            json!({"provider": "kms_envelope", "kms_key_arn": KEY, "notes": "b"}),
        ),
        (Method::PATCH, format!("{SECRETS}/{id}"), json!({"enabled": false}), json!({"enabled": true})),
        (
            Method::PUT,
            "/v1/bouncers/payments-east".into(),
            json!({"spiffe_id": spiffe_id("moved")}),
            json!({"spiffe_id": spiffe_id("payments-east")}),
        ),
    ];
    for (method, path, one, two) in changes {
        let read = tag(&plane.get(&path).await);
        let send = async |tag: &str, body: &Value| {
            plane.raw_with(method.clone(), &path, &[("if-match", tag)], body.to_string()).await
        };
        let first = send(&read, &one).await;
        assert!(first.status.is_success(), "{path}: {}", first.text);
        let late = send(&read, &two).await;
        assert_eq!((late.status.as_u16(), late.code()), (412, "changed_meanwhile"), "{path}");
        let now = plane.get(&path).await;
        assert_eq!(tag(&now), tag(&first), "nothing was changed");
        assert_ne!(tag(&now), read);
        // Built on what is there now, or on anything, or on one of several, it goes through.
        assert!(send(&format!("\"r1\", {}", tag(&now)), &two).await.status.is_success());
        assert!(send("*", &one).await.status.is_success());
        assert!(plane.raw(method.clone(), &path, two.to_string()).await.status.is_success());
        assert_eq!(send("r1", &one).await.code(), "invalid_query");
    }
    for path in [
        "/v1/protected-resources/payments-api".to_owned(),
        format!("{SECRETS}/{id}"),
        "/v1/bouncers/payments-east".into(),
    ] {
        let delete = async |tag: &str| plane.raw_with(Method::DELETE, &path, &[("if-match", tag)], "").await;
        assert_eq!(delete("\"r1\"").await.code(), "changed_meanwhile", "{path}");
        let current = tag(&plane.get(&path).await);
        assert_eq!(delete(&current).await.status, 204, "{path}");
    }
}

#[tokio::test]
async fn only_if_it_is_not_there_yet() {
    let plane = settled().await;
    let none = [("if-none-match", "*")];
    let create = async |path: &str, body: Value| plane.raw_with(Method::POST, path, &none, body.to_string()).await;
    assert_eq!(create(SECRETS, envelope(PATH)).await.status, 201);
    assert_eq!(create(SECRETS, envelope(PATH)).await.code(), "changed_meanwhile");
    assert_eq!(create("/v1/protected-resources", resource("a", PATH)).await.status, 201);
    assert_eq!(create("/v1/protected-resources", resource("a", PATH)).await.code(), "changed_meanwhile");
    let flag = format!("/v1/feature-flags/{FLAG}");
    let put = plane.raw_with(Method::PUT, &flag, &none, r#"{"enabled":false}"#).await;
    assert_eq!(put.code(), "changed_meanwhile", "it was turned on");
}

#[tokio::test]
async fn a_call_that_is_sent_again_under_its_key_happens_once() {
    let plane = settled().await;
    let key = [("idempotency-key", "3f2a5a9e-0000-4000-8000-000000000001")];
    let register = async |plane: &ControlPlane, key: &[(&str, &str)], body: &Value| {
        plane.raw_with(Method::POST, SECRETS, key, body.to_string()).await
    };
    let first = register(&plane, &key, &envelope(PATH)).await.ok();
    // Another registration in between changes nothing about it.
    assert_eq!(register(&plane, &[], &envelope(PATH)).await.ok()["generation"], 2);
    let again = register(&plane, &key, &envelope(PATH)).await;
    assert_eq!((again.status.as_u16(), &again.json["generation"]), (201, &first["generation"]));
    let mut other = envelope(PATH);
    other["ciphertext_ref"] = json!("AQICAHk=");
    let reused = register(&plane, &key, &other).await;
    assert_eq!((reused.status.as_u16(), reused.code()), (422, "idempotency_key_reused"));
    // Keys are each caller's own.
    let colleague = plane.with_token(plane.token_of("operator", &[]).await);
    assert_eq!(register(&colleague, &key, &other).await.ok()["generation"], 3);
    // They outlive a restart, and cover the other calls that register something.
    let plane = plane.restarted().await;
    assert_eq!(register(&plane, &key, &envelope(PATH)).await.ok()["generation"], 1);
    let id = first["id"].as_str().unwrap();
    let back = async || {
        let key = [("idempotency-key", "another-key")];
        plane.raw_with(Method::POST, &format!("{SECRETS}/{id}/rollback"), &key, r#"{"generation":1}"#).await.ok()
    };
    assert_eq!((&back().await["generation"], &back().await["generation"]), (&json!(4), &json!(4)));
    let bouncer = async |name: &str| {
        let body = json!({"name": name, "spiffe_id": spiffe_id(name)});
        plane.raw_with(Method::POST, "/v1/bouncers", &[("idempotency-key", "for-a-bouncer")], body.to_string()).await
    };
    assert_eq!((bouncer("b").await.status.as_u16(), bouncer("b").await.status.as_u16()), (201, 201));
    assert_eq!(bouncer("c").await.code(), "idempotency_key_reused");
    for bad in ["short", "", &"x".repeat(256)] {
        let answer = register(&plane, &[("idempotency-key", bad)], &envelope(PATH)).await;
        assert_eq!(answer.code(), "invalid_query", "{bad}");
    }
}

#[tokio::test]
async fn a_call_that_asks_for_something_new_may_be_sent_again_under_its_key() {
    let plane = settled().await;
    let bouncer = json!({"name": "b", "spiffe_id": spiffe_id("b")});
    for (path, name, body) in [("/v1/bouncers", "b", bouncer), ("/v1/protected-resources", "a", resource("a", PATH))] {
        let call = async |key: &str| {
            let key = format!("{key}-for-{name}");
            let headers = [("if-none-match", "*"), ("idempotency-key", key.as_str())];
            plane.raw_with(Method::POST, path, &headers, body.to_string()).await
        };
        let first = call("the-first-call").await;
        assert_eq!(first.status, 201, "{path}: {}", first.text);
        let again = call("the-first-call").await;
        assert_eq!((again.status.as_u16(), tag(&again)), (201, tag(&first)), "{path}: {}", again.text);
        assert_eq!(call("another-call").await.code(), "changed_meanwhile", "{path}");
        // What was removed since is not made again by a call that happened before.
        assert_eq!(plane.raw(Method::DELETE, &format!("{path}/{name}"), "").await.status, 204);
        assert_eq!(call("the-first-call").await.code(), "changed_meanwhile", "{path}");
    }
}

#[tokio::test]
async fn a_call_sent_many_times_at_once_happens_once() {
    let plane = settled().await;
    let key = [("idempotency-key", "3f2a5a9e-0000-4000-8000-000000000001")];
    let body = envelope(PATH).to_string();
    let calls = (0..8).map(|_| plane.raw_with(Method::POST, SECRETS, &key, body.clone()));
    for answer in futures::future::join_all(calls).await {
        assert_eq!(answer.ok()["generation"], 1);
    }
}

#[tokio::test]
async fn rolled_back_is_the_old_content_as_a_new_generation_with_who_when_and_why() {
    let plane = settled().await;
    let mut body = envelope(PATH);
    body["reason"] = json!("first");
    let first = plane.post(SECRETS, &body).await.ok();
    body["ciphertext_ref"] = json!("AQICAHk=");
    body["reason"] = json!("rotation");
    plane.post(SECRETS, &body).await.ok();
    let at = format!("{SECRETS}/{}", first["id"].as_str().unwrap());
    let back = plane.post(&format!("{at}/rollback"), &json!({"generation": 1, "reason": "2 is no good"})).await;
    assert_eq!(back.status, 201);
    assert_eq!((&back.json["generation"], &back.json["ciphertext_ref"]), (&json!(3), &json!("AQICAHg=")));
    assert_eq!((&back.json["reason"], &back.json["created_by"]), (&json!("2 is no good"), &json!("token:admin")));
    let history = plane.get(&format!("{at}/history")).await.ok();
    let reasons: Vec<_> = history["items"].as_array().unwrap().iter().map(|item| item["reason"].clone()).collect();
    assert_eq!(reasons, ["2 is no good", "rotation", "first"]);
    let change = plane.get("/v1/audit/admin-events?limit=1").await.ok()["items"][0].clone();
    assert_eq!(change["action"], "envelope.rolled_back");
    assert_eq!(change["detail"], "to generation 1, as generation 3: 2 is no good");

    for (body, code) in [
        (json!({"generation": 9}), "not_found"),
        (json!({"generation": 0}), "not_found"),
        (json!({"generation": 1, "reason": "two\nlines"}), "invalid_fields"),
        (json!({"generation": 1, "reason": ""}), "invalid_fields"),
    ] {
        assert_eq!(plane.post(&format!("{at}/rollback"), &body).await.code(), code, "{body}");
    }
    // Rolling back is no way around a revocation.
    plane.patch(&at, &json!({"enabled": false, "reason": "leaked"})).await.ok();
    let disabled = plane.post(&format!("{at}/rollback"), &json!({"generation": 2})).await.ok();
    assert_eq!((&disabled["generation"], &disabled["enabled"]), (&json!(4), &json!(false)));
}

#[tokio::test]
async fn content_that_names_its_generation_must_be_wrapped_again() {
    let plane = settled().await;
    let mut body = envelope(PATH);
    body["aad"] = json!("bouncer=payments-east,generation=1");
    let id = plane.post(SECRETS, &body).await.ok()["id"].as_str().unwrap().to_owned();
    plane.post(SECRETS, &envelope(PATH)).await.ok();
    let at = format!("{SECRETS}/{id}/rollback");
    let refused = plane.post(&at, &json!({"generation": 1})).await;
    assert_eq!((refused.status.as_u16(), refused.code()), (409, "bound_to_generation"));
    assert!(refused.json["next"].as_str().unwrap().contains("bouncerctl secrets rollback"));
    assert_eq!(plane.post(&at, &json!({"generation": 2})).await.ok()["generation"], 3, "the control");
}

/// A certificate that ends with a year's first day.
fn chain(year: i32) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap();
    parameters.not_after = rcgen::date_time_ymd(year, 1, 1);
    parameters.self_signed(&key).unwrap().pem()
}

#[tokio::test]
async fn lists_are_filtered() {
    let plane = settled().await;
    for (path, year) in [("payments/api/tls", Some(2090)), ("payments/db/tls", Some(2100)), ("refunds/api/tls", None)] {
        let mut body = envelope(path);
        if let Some(year) = year {
            body["certificate_chain"] = json!(chain(year));
        }
        plane.post(SECRETS, &body).await.ok();
    }
    let vault = json!({"logical_path": "vault/x", "provider": "vault_delegate", "key_id": "team-a", "ciphertext_ref": "secret/x"});
    plane.post(SECRETS, &vault).await.ok();
    let off = plane.get(&format!("{SECRETS}?q=db")).await.ok()["items"][0]["id"].as_str().unwrap().to_owned();
    plane.patch(&format!("{SECRETS}/{off}"), &json!({"enabled": false})).await.ok();
    for (name, path) in [("one", "payments/api/tls"), ("two", "refunds/api/tls")] {
        plane.post("/v1/protected-resources", &resource(name, path)).await.ok();
    }
    let cases: Vec<(String, &str, Vec<&str>)> = vec![
        (format!("{SECRETS}?q=API"), "logical_path", vec!["payments/api/tls", "refunds/api/tls"]),
        (format!("{SECRETS}?q=%25"), "logical_path", vec![]),
        (format!("{SECRETS}?provider=vault_delegate"), "logical_path", vec!["vault/x"]),
        (format!("{SECRETS}?key_id=team-a"), "logical_path", vec!["vault/x"]),
        (format!("{SECRETS}?enabled=false"), "logical_path", vec!["payments/db/tls"]),
        (format!("{SECRETS}?expires_before=2095-01-01T00:00:00Z"), "logical_path", vec!["payments/api/tls"]),
        (
            format!("{SECRETS}?expires_before=2200-01-01T00:00:00Z&enabled=true"),
            "logical_path",
            vec!["payments/api/tls"],
        ),
        ("/v1/protected-resources?q=tw".into(), "name", vec!["two"]),
        ("/v1/protected-resources?logical_path=payments/api/tls".into(), "name", vec!["one"]),
        ("/v1/protected-resources?bouncer=payments-east&enabled=true".into(), "name", vec!["one", "two"]),
        ("/v1/protected-resources?bouncer=other".into(), "name", vec![]),
        ("/v1/bouncers?q=east".into(), "name", vec!["payments-east"]),
        ("/v1/bouncers?q=west".into(), "name", vec![]),
    ];
    for (query, key, expected) in cases {
        let items = plane.get(&query).await.ok()["items"].clone();
        let found: Vec<_> = items.as_array().unwrap().iter().map(|item| item[key].as_str().unwrap()).collect();
        assert_eq!(found, expected, "{query}");
    }
    for bad in ["provider=x", "enabled=x", "expires_before=x", &format!("q={}", "x".repeat(256)), "order=x"] {
        assert_eq!(plane.get(&format!("{SECRETS}?{bad}")).await.code(), "invalid_query", "{bad}");
    }
    // A filtered list goes on where it stopped.
    let part = plane.get(&format!("{SECRETS}?q=api&limit=1")).await.ok();
    let next = part["next_cursor"].as_str().unwrap();
    let rest = plane.get(&format!("{SECRETS}?q=api&limit=1&cursor={next}")).await.ok();
    assert_eq!(rest["items"][0]["logical_path"], "refunds/api/tls");
    assert!(rest.get("next_cursor").is_none());
}
