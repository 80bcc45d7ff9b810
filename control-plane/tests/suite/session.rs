//! Sessions of browsers: signing in and out, and what another site cannot do with a cookie.

use crate::binary::free_address;
use crate::harness::{Answer, ControlPlane, FLAG};
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bouncer_control_plane::access::{Role, Scope};
use bouncer_control_plane::api::limits::PeerAddress;
use bouncer_control_plane::oidc::{ConsoleConfig, OidcConfig, RoleRule};
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

/// An identity provider on this machine that nobody runs.
fn provider() -> OidcConfig {
    let rule = RoleRule { value: "admins".to_owned(), role: Role::Admin, scope: Scope::default() };
    let console = ConsoleConfig {
        name: "Ops".to_owned(),
        client_id: "console".to_owned(),
        client_secret_file: None,
        public_url: "http://127.0.0.1:1".to_owned(),
        scopes: Vec::new(),
    };
    OidcConfig {
        issuer: format!("http://{}", free_address()),
        audience: "bouncer".to_owned(),
        ca_file: None,
        roles_claim: "groups".to_owned(),
        roles: vec![rule],
        console: Some(console),
    }
}

#[tokio::test]
async fn whoever_has_an_unreachable_provider_asked_again_and_again_is_held_up() {
    let plane = ControlPlane::new().await.limited_by(1, Some(provider()));
    let from = async |address: [u8; 4], path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(path).extension(PeerAddress(address.into()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        plane.send(request.body(Body::empty()).unwrap()).await
    };
    let token = format!("Bearer {}.e30.AAAA", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"unknown"}"#));
    let bearer = ("authorization", token.as_str());
    let cookie = ("cookie", "bouncer-oidc=bnc_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let callback = "/v1/session/oidc/callback?code=a&state=b";
    for (n, path, header, first) in
        [(1, "/v1/bouncers", bearer, 503), (2, "/v1/session/oidc/start", cookie, 503), (3, callback, cookie, 303)]
    {
        let address = [192, 0, 2, n];
        let mut answer = from(address, path, &[header]).await;
        assert_eq!(answer.status, first, "{path}: {}", answer.text);
        for _ in 0..1_000 {
            answer = from(address, path, &[header]).await;
            if answer.status == 429 {
                break;
            }
        }
        assert_eq!(answer.code(), "too_many_requests", "{path}");
        assert!(answer.headers.contains_key(header::RETRY_AFTER));
        assert_eq!(from([192, 0, 2, 100 + n], path, &[header]).await.status, first, "another address is not");
        assert_eq!(from(address, "/v1/session/methods", &[]).await.status, 200, "nor what asks nobody");
    }
    assert_eq!(plane.get("/v1/session").await.status, 200, "nor a token of our own");
}
