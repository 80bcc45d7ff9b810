//! Sessions of browsers: signing in and out, and what another site cannot do with a cookie.

use crate::harness::{Answer, ControlPlane, FLAG};
use axum::body::Body;
use http::{Method, Request, header};
use serde_json::json;

struct Browser<'a> {
    plane: &'a ControlPlane,
    cookie: String,
    csrf: String,
}

impl<'a> Browser<'a> {
    async fn sign_in(plane: &'a ControlPlane, token: &str) -> Self {
        let answer = sign_in(plane, token).await;
        let cookie = answer.headers[header::SET_COOKIE].to_str().unwrap().to_owned();
        for attribute in ["HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
        let csrf = answer.ok()["csrf_token"].as_str().unwrap().to_owned();
        Self { plane, cookie: cookie.split(';').next().unwrap().to_owned(), csrf }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header(header::COOKIE, &self.cookie);
        request = request.header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.plane.send(request.body(Body::from(r#"{"enabled":true}"#)).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[("sec-fetch-site", "same-origin")]).await
    }
}

async fn sign_in(plane: &ControlPlane, token: &str) -> Answer {
    let request = Request::post("/v1/session").header(header::AUTHORIZATION, format!("Bearer {token}"));
    plane.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_cookie_works_from_our_own_pages_only() {
    let plane = ControlPlane::new().await;
    let browser = Browser::sign_in(&plane, &plane.token).await;
    assert_eq!(browser.get("/v1/bouncers").await.status, 200);
    let flag = format!("/v1/feature-flags/{FLAG}");
    let put = async |headers: &[(&str, &str)]| browser.send(Method::PUT, &flag, headers).await;
    let csrf = ("x-bouncer-csrf", browser.csrf.as_str());
    let none = put(&[]).await;
    assert_eq!((none.status.as_u16(), none.code()), (403, "csrf"));
    assert_eq!(put(&[("x-bouncer-csrf", "1")]).await.code(), "csrf");
    assert_eq!(put(&[("x-bouncer-csrf", &browser.cookie)]).await.code(), "csrf");
    for site in ["cross-site", "same-site"] {
        assert_eq!(put(&[csrf, ("sec-fetch-site", site)]).await.code(), "csrf", "{site}");
        assert_eq!(browser.send(Method::GET, "/v1/bouncers", &[("sec-fetch-site", site)]).await.code(), "csrf");
    }
    // Another session's token is no proof for this one.
    let other = Browser::sign_in(&plane, &plane.token).await;
    assert_eq!(put(&[("x-bouncer-csrf", &other.csrf)]).await.code(), "csrf");
    assert_eq!(plane.get("/v1/feature-flags").await.ok()["items"][0]["enabled"], false, "nothing of it happened");
    let good = put(&[csrf, ("sec-fetch-site", "same-origin")]).await.ok();
    assert_eq!((&good["enabled"], &good["updated_by"]), (&json!(true), &json!("token:admin")), "the control");
    // A bearer token needs none: no browser sends it by itself.
    assert_eq!(plane.put(&flag, &json!({"enabled": false})).await.status, 200);
}

#[tokio::test]
async fn a_session_is_its_tokens_and_ends_with_it() {
    let plane = ControlPlane::new().await;
    let token = plane.token_of("auditor", &["payments/*"]).await;
    let browser = Browser::sign_in(&plane, &token).await;
    let who = browser.get("/v1/session").await.ok();
    assert_eq!(who["role"], "auditor");
    assert_eq!(who["permissions"], json!(["read", "audit"]));
    assert_eq!(who["path_prefixes"], json!(["payments/*"]));
    assert_eq!(who["second_person"], false);
    assert_eq!(who["csrf_token"], browser.csrf.as_str());
    assert!(plane.get("/v1/session").await.ok().get("csrf_token").is_none(), "a bearer token has none");
    assert_eq!(browser.get("/v1/tokens").await.code(), "forbidden");

    let items = plane.get("/v1/tokens").await.ok()["items"].clone();
    let id = items.as_array().unwrap().iter().find(|item| item["role"] == "auditor").unwrap()["id"].clone();
    assert_eq!(plane.delete(&format!("/v1/tokens/{}", id.as_str().unwrap())).await.status, 204);
    assert_eq!(browser.get("/v1/session").await.code(), "unauthenticated");
}

#[tokio::test]
async fn signing_out_ends_the_session_and_only_a_hash_of_it_was_stored() {
    let plane = ControlPlane::new().await;
    let browser = Browser::sign_in(&plane, &plane.token).await;
    let secret = browser.cookie.split_once('=').unwrap().1;
    let disk = plane.bytes_on_disk();
    assert!(!disk.windows(secret.len()).any(|window| window == secret.as_bytes()));
    assert!(disk.windows(8).any(|window| window == b"sessions"), "the control");
    assert_eq!(browser.send(Method::DELETE, "/v1/session", &[]).await.code(), "csrf");
    let out = browser.send(Method::DELETE, "/v1/session", &[("x-bouncer-csrf", &browser.csrf)]).await;
    assert_eq!(out.status, 204);
    assert!(out.headers[header::SET_COOKIE].to_str().unwrap().contains("Max-Age=0"));
    assert_eq!(browser.get("/v1/session").await.code(), "unauthenticated");
    // A session's secret is no token, and a token no session's.
    assert_eq!(plane.with_token(secret.to_owned()).get("/v1/bouncers").await.code(), "unauthenticated");
    let forged = Browser { plane: &plane, cookie: format!("bouncer-session={}", plane.token), csrf: String::new() };
    assert_eq!(forged.get("/v1/bouncers").await.code(), "unauthenticated");
    assert_eq!(sign_in(&plane, secret).await.code(), "unauthenticated");
    assert_eq!(sign_in(&plane, "x").await.code(), "unauthenticated");
}

#[tokio::test]
async fn the_bootstrap_token_signs_in_once() {
    let plane = ControlPlane::unclaimed().await;
    assert_eq!(plane.get("/v1/session/methods").await.ok()["token"], true);
    let browser = Browser::sign_in(&plane, &plane.token).await;
    assert_eq!(sign_in(&plane, &plane.token).await.code(), "unauthenticated");
    assert_eq!(plane.post("/v1/tokens", &json!({"name": "b", "role": "admin"})).await.code(), "unauthenticated");
    assert_eq!(browser.get("/v1/tokens").await.status, 200, "the session outlives it");
}
