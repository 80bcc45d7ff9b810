//! Tokens: those that their callers made, of which only the hash is sent, so that a call whose answer was lost can be sent
//! again; and what can be revoked.

use crate::harness::{ControlPlane, operator};
use axum::body::Body;
use bouncer_control_plane::access::{NewToken, Role, Scope};
use bouncer_control_plane::store::{Conflict, StoreError};
use bouncer_control_plane::token::Token;
use bouncer_custody::Hex;
use http::{Method, Request, header};
use jiff::SignedDuration;
use serde_json::{Value, json};

const TOKENS: &str = "/v1/tokens";

/// A token that a caller made, and the call that has its hash stored.
fn made(name: &str, role: &str) -> (Token, Value) {
    let token = Token::generate().unwrap();
    let body = json!({"name": name, "role": role, "token_sha256": Hex(token.hash().as_bytes()).to_string()});
    (token, body)
}

async fn created(plane: &ControlPlane, name: &str) -> usize {
    let changes = plane.get("/v1/audit/admin-events").await.ok();
    let of_it = |event: &&Value| event["action"] == "token.created" && event["subject"] == name;
    changes["items"].as_array().unwrap().iter().filter(of_it).count()
}

#[tokio::test]
async fn an_answer_that_was_lost_costs_no_token_and_the_one_of_bootstrap_stays_spent() {
    let plane = ControlPlane::unclaimed().await;
    let (token, body) = made("alice", "admin");
    assert_eq!(plane.get("/v1/bouncers").await.code(), "single_use_token", "the control: it was good for something");
    let first = plane.post(TOKENS, &body).await;
    assert_eq!((first.status.as_u16(), first.json.get("token")), (201, None), "{}", first.text);
    // Whoever did not hear that knows it by the token.
    let alice = plane.with_token(token.reveal().to_owned());
    let who = alice.get("/v1/session").await.ok();
    assert_eq!((&who["actor"], &who["token_id"]), (&json!("token:alice"), &first.json["id"]));

    // Its bearer gets nothing any more: neither the same again, nor another, nor a session, nor any other call.
    for (method, path, body) in [
        (Method::POST, TOKENS, body.to_string()),
        (Method::POST, TOKENS, made("eve", "admin").1.to_string()),
        (Method::POST, TOKENS, json!({"name": "eve", "role": "admin"}).to_string()),
        (Method::POST, "/v1/session", String::new()),
        (Method::GET, "/v1/session", String::new()),
        (Method::GET, "/v1/bouncers", String::new()),
    ] {
        assert_eq!(plane.raw(method.clone(), path, body).await.code(), "unauthenticated", "{method} {path}");
    }
    let changes = alice.get("/v1/audit/admin-events").await.ok();
    let actions: Vec<_> = changes["items"].as_array().unwrap().iter().map(|event| event["action"].clone()).collect();
    assert_eq!(actions, ["token.created", "token.spent", "token.created"]);
    // Neither the token nor a hint of it is kept; its hash is.
    let disk = plane.bytes_on_disk();
    let holds = |bytes: &[u8]| disk.windows(bytes.len()).any(|window| window == bytes);
    assert!(!holds(token.reveal().as_bytes()) && !holds(&token.reveal().as_bytes()[4..24]));
    assert!(disk.windows(5).any(|window| window == b"alice"), "the control");
}

#[tokio::test]
async fn the_same_token_again_is_no_change_and_any_other_call_with_its_hash_is_refused() {
    let plane = ControlPlane::new().await;
    let (token, body) = made("bob", "operator");
    let (one, other) = tokio::join!(plane.post(TOKENS, &body), plane.post(TOKENS, &body));
    let (one, other) = (one.ok(), other.ok());
    assert_eq!(one, other);
    assert_eq!(plane.post(TOKENS, &body).await.ok(), one);
    assert_eq!(created(&plane, "bob").await, 1);
    let bob = plane.with_token(token.reveal().to_owned());
    let role = async || bob.get("/v1/session").await.json["role"].clone();
    assert_eq!(role().await, "operator");

    // On other terms, or by somebody else, it is not this token.
    let with = |field: &str, value: Value| {
        let mut other = body.clone();
        other[field] = value;
        other
    };
    let eve = plane.with_token(plane.token_of("admin", &[]).await);
    for (who, body) in [
        (&plane, with("name", json!("eve"))),
        (&plane, with("role", json!("admin"))),
        (&plane, with("path_prefixes", json!(["a/*"]))),
        (&plane, with("expires_in_days", json!(366))),
        (&eve, body.clone()),
        (&eve, with("role", json!("admin"))),
    ] {
        let answer = who.post(TOKENS, &body).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (409, "token_taken"), "{body}");
        assert!(!answer.text.contains("bob"), "{}", answer.text);
    }
    assert_eq!((role().await, created(&plane, "bob").await, created(&plane, "eve").await), (json!("operator"), 1, 0));

    // What was revoked never comes back, whoever asks for it; a fresh one of that name does.
    let id = one["id"].as_str().unwrap();
    assert_eq!(plane.delete(&format!("{TOKENS}/{id}")).await.status, 204);
    for who in [&plane, &eve] {
        assert_eq!(who.post(TOKENS, &body).await.code(), "token_taken");
    }
    assert_eq!(bob.get("/v1/session").await.code(), "unauthenticated");
    let (fresh, body) = made("bob", "operator");
    plane.post(TOKENS, &body).await.ok();
    assert_eq!(plane.with_token(fresh.reveal().to_owned()).get("/v1/bouncers").await.status, 200, "the control");
    // Nor does a token that the server made get other terms.
    let own = Token::generate().unwrap();
    let operator = operator();
    let new = |name: &str, seconds: i64| NewToken {
        name: name.into(),
        role: Role::Viewer,
        scope: Scope::default(),
        life: Some(SignedDuration::from_secs(seconds)),
    };
    let store = &plane.store;
    store.add_token(&new("own", 60), &own.hash(), &operator).await.unwrap();
    let raised = json!({"name": "own", "role": "admin", "token_sha256": Hex(own.hash().as_bytes()).to_string()});
    assert_eq!(plane.post(TOKENS, &raised).await.code(), "token_taken");
    // One whose time is over stays over.
    let ended = Token::generate().unwrap();
    store.add_token(&new("ended", -1), &ended.hash(), &operator).await.unwrap();
    let again = store.add_token(&new("ended", -1), &ended.hash(), &operator).await;
    assert!(matches!(again, Err(StoreError::Conflict(Conflict::TokenTaken))), "{again:?}");
}

#[tokio::test]
async fn a_token_in_the_place_of_its_hash_is_refused_as_plaintext() {
    let plane = ControlPlane::new().await;
    let (token, mut body) = made("bob", "viewer");
    for wrong in ["", "abc", &"A0".repeat(32)] {
        body["token_sha256"] = json!(wrong);
        let answer = plane.post(TOKENS, &body).await;
        assert_eq!((answer.code(), &answer.json["errors"][0]["field"]), ("invalid_fields", &json!("token_sha256")));
    }
    body["token_sha256"] = json!(token.reveal());
    let answer = plane.post(TOKENS, &body).await;
    assert!(answer.code() == "plaintext_refused" && !answer.text.contains(token.reveal()), "{}", answer.text);
    assert_eq!(plane.with_token(token.reveal().to_owned()).get("/v1/session").await.code(), "unauthenticated");
}

#[tokio::test]
async fn where_no_administrators_token_is_left_any_other_can_be_revoked() {
    let plane = ControlPlane::unclaimed().await;
    // Whoever signed in with the token for one use administers, and has no token that lasts.
    let opened = plane.post("/v1/session", &json!({})).await;
    let cookie = opened.headers[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned();
    let csrf = opened.ok()["csrf_token"].as_str().unwrap().to_owned();
    let send = async |method: Method, path: &str, body: Value| {
        let request = Request::builder().method(method).uri(path).header(header::COOKIE, &cookie);
        let request = request.header("x-bouncer-csrf", &csrf).header(header::CONTENT_TYPE, "application/json");
        plane.send(request.body(Body::from(body.to_string())).unwrap()).await
    };
    let make = async |name: &str, role: &str, paths: &[&str]| {
        let body = json!({"name": name, "role": role, "path_prefixes": paths});
        format!("{TOKENS}/{}", send(Method::POST, TOKENS, body).await.ok()["id"].as_str().unwrap())
    };
    let revoke = async |token: &str| send(Method::DELETE, token, Value::Null).await;
    let ended = NewToken {
        name: "ended".into(),
        role: Role::Admin,
        scope: Scope::default(),
        life: Some(SignedDuration::from_secs(-1)),
    };
    let operator = operator();
    let ended = plane.store.add_token(&ended, &Token::generate().unwrap().hash(), &operator).await.unwrap().id;
    for other in [
        make("ci", "viewer", &[]).await,
        make("deploy", "operator", &[]).await,
        make("limited", "admin", &["a/*"]).await,
        format!("{TOKENS}/{ended}"),
    ] {
        let answer = revoke(&other).await;
        assert_eq!(answer.status, 204, "{}", answer.text);
        assert_eq!(revoke(&other).await.code(), "not_found");
    }
    // The control: the last one of an administrator stays, until there is another.
    let last = make("alice", "admin", &[]).await;
    assert_eq!(revoke(&last).await.code(), "last_token");
    make("bob", "admin", &[]).await;
    assert_eq!(revoke(&last).await.status, 204);
}

/// Every part of a list, one after the other: the names in it, and how many parts there were.
async fn parts(plane: &ControlPlane, query: &str) -> (String, usize) {
    let (mut names, mut cursor, mut parts) = (Vec::new(), String::new(), 0);
    loop {
        let part = plane.get(&format!("{TOKENS}?{query}{cursor}")).await.ok();
        names.extend(part["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        parts += 1;
        match part["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return (names.join(" "), parts),
        }
    }
}

#[tokio::test]
async fn tokens_are_filtered_and_come_in_parts() {
    let plane = ControlPlane::new().await;
    let make = async |name: &str, role: &str| {
        let made = plane.post(TOKENS, &json!({"name": name, "role": role})).await.ok();
        format!("{TOKENS}/{}", made["id"].as_str().unwrap())
    };
    let gone = make("ci", "viewer").await;
    assert_eq!(plane.delete(&gone).await.status, 204);
    let ci = make("ci", "operator").await;
    let operator = operator();
    let life = Some(SignedDuration::from_secs(-1));
    let ended = NewToken { name: "ended".into(), role: Role::Viewer, scope: Scope::default(), life };
    plane.store.add_token(&ended, &Token::generate().unwrap().hash(), &operator).await.unwrap();
    make("deploy", "viewer").await;

    for (query, names) in [
        ("", "bootstrap admin ci ci ended deploy"),
        ("&state=live", "admin ci deploy"),
        ("&state=ended", "ended"),
        ("&state=revoked", "bootstrap ci"),
        ("&role=admin", "bootstrap admin"),
        ("&role=viewer&state=live", "deploy"),
        ("&role=viewer&state=ended", "ended"),
        ("&role=viewer&state=revoked", "ci"),
        ("&role=auditor", ""),
        ("&name=ci", "ci ci"),
        ("&name=ci&state=live", "ci"),
        ("&name=ci&state=ended", ""),
        ("&name=ci&role=viewer", "ci"),
        ("&name=nobody", ""),
    ] {
        assert_eq!(parts(&plane, &format!("limit=500{query}")).await, (names.to_owned(), 1), "{query}");
        let many = names.split_whitespace().count();
        assert_eq!(parts(&plane, &format!("limit=1{query}")).await, (names.to_owned(), many.max(1)), "{query}");
    }
    let live = plane.get(&format!("{TOKENS}?name=ci&state=live")).await.ok()["items"][0].clone();
    assert_eq!(plane.get(&ci).await.ok(), live, "one of them, by its id");
    assert!(plane.get(&gone).await.ok()["revoked_at"].is_string());
    for bad in [
        "limit=0",
        "limit=501",
        "offset=1",
        "state=gone",
        "state=",
        "role=root",
        "name=A%20B",
        "name=%00",
        "cursor=QUJD",
        "cursor=!",
    ] {
        let answer = plane.get(&format!("{TOKENS}?{bad}")).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_query"), "{bad}");
    }
}
