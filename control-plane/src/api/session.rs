//! Sessions of browsers: a token is exchanged for a cookie that scripts cannot read and other sites cannot send.
//!
//! A call by cookie that changes something must carry the session's CSRF token too, which only our own pages know.

use super::Api;
use super::guard::Caller;
use super::problem::{ApiError, Problems};
use crate::access::{NewSession, Permission, Principal, Role};
use crate::token::{self, Token, TokenHash};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;

/// How long a session lasts, if its token does.
const LIFE: SignedDuration = SignedDuration::from_hours(8);
/// The header that carries the CSRF token.
const CSRF: &str = "x-bouncer-csrf";

/// Who is signed in.
#[derive(Serialize, ToSchema)]
pub struct SessionAnswer {
    /// As the audit names them.
    #[schema(example = "token:alice")]
    actor: String,
    role: Role,
    permissions: &'static [Permission],
    /// The logical paths that they are limited to; empty for no limit.
    path_prefixes: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// To be sent as `x-bouncer-csrf` with every call by cookie that changes something. Absent for a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
}

/// How one may sign in.
#[derive(Debug, Serialize, ToSchema)]
pub struct MethodsAnswer {
    /// By an API token.
    token: bool,
}

fn answer(principal: Principal, csrf_token: Option<String>) -> SessionAnswer {
    SessionAnswer {
        actor: principal.actor.as_str().to_owned(),
        role: principal.role,
        permissions: principal.role.permissions(),
        path_prefixes: principal.scope.patterns().iter().map(ToString::to_string).collect(),
        expires_at: principal.expires,
        csrf_token,
    }
}

/// The cookie's name. With the prefix, a browser takes it only over TLS and only from this very host.
const fn cookie_name(tls: bool) -> &'static str {
    if tls { "__Host-bouncer-session" } else { "bouncer-session" }
}

/// The session's secret in the cookies of a call.
fn cookie(api: &Api, headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let ours = |pair: &str| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == cookie_name(api.tls) && token::well_formed(value)).then(|| value.to_owned())
    };
    values.find_map(|pairs| pairs.split(';').find_map(ours))
}

/// What proves that a call comes from a page of ours. It follows from the secret, and the secret not from it.
fn csrf_token(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::new().chain_update("bouncer csrf 1\0").chain_update(secret).finalize())
}

/// Who makes a call by cookie, if it carries one that is good.
pub(super) async fn authenticate(
    api: &Api,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Option<Principal>, ApiError> {
    let Some(secret) = cookie(api, headers) else { return Ok(None) };
    let Some(principal) = api.store.session(&TokenHash::of(&secret)).await? else { return Ok(None) };
    // Browsers say where a call comes from; anything but our own pages is none of ours.
    let site = headers.get("sec-fetch-site");
    if site.is_some_and(|site| site != "same-origin" && site != "none") {
        return Err(ApiError::Csrf);
    }
    if !matches!(*method, Method::GET | Method::HEAD) {
        let sent = headers.get(CSRF).map_or(&b""[..], HeaderValue::as_bytes);
        if !bool::from(csrf_token(&secret).as_bytes().ct_eq(sent)) {
            return Err(ApiError::Csrf);
        }
    }
    Ok(Some(principal))
}

fn set_cookie(api: &Api, secret: &str, seconds: i64) -> Result<HeaderValue, ApiError> {
    let secure = if api.tls { "; Secure" } else { "" };
    let name = cookie_name(api.tls);
    let text = format!("{name}={secret}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}");
    let mut value = HeaderValue::try_from(text).map_err(|_| ApiError::Internal)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Signs in: exchanges the bearer token that the call carries for a session's cookie. The one that `bootstrap` wrote is
/// used up by it.
#[utoipa::path(
    post, path = "/v1/session", tag = "access", operation_id = "sign_in",
    responses(
        (status = 201, body = SessionAnswer),
        Problems,
    )
)]
pub(super) async fn sign_in(State(api): State<Api>, Caller(principal): Caller) -> Result<Response, ApiError> {
    open(&api, principal).await
}

/// Opens a session and answers with its cookie.
pub(super) async fn open(api: &Api, mut principal: Principal) -> Result<Response, ApiError> {
    let now = api.clock.now();
    let expires = principal.expires.map_or(now + LIFE, |end| end.min(now + LIFE));
    let secret = Token::generate()?;
    api.store.open_session(&NewSession { principal: principal.clone(), expires }, &secret.hash()).await?;
    principal.expires = Some(expires);
    let seconds = expires.duration_since(now).as_secs().max(0);
    let cookie = set_cookie(api, secret.reveal(), seconds)?;
    let body = Json(answer(principal, Some(csrf_token(secret.reveal()))));
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, cookie)], body).into_response())
}

/// Who is signed in, by cookie or by token, and what they may do.
#[utoipa::path(
    get, path = "/v1/session", tag = "access", operation_id = "get_session",
    responses(
        (status = 200, body = SessionAnswer),
        Problems,
    )
)]
pub(super) async fn get(State(api): State<Api>, Caller(principal): Caller, headers: HeaderMap) -> Json<SessionAnswer> {
    let secret = cookie(&api, &headers).filter(|_| !headers.contains_key(header::AUTHORIZATION));
    Json(answer(principal, secret.as_deref().map(csrf_token)))
}

/// Signs out: ends the session that the call carries.
#[utoipa::path(
    delete, path = "/v1/session", tag = "access", operation_id = "sign_out",
    responses(
        (status = 204),
        Problems,
    )
)]
pub(super) async fn sign_out(State(api): State<Api>, headers: HeaderMap) -> Result<Response, ApiError> {
    if let Some(secret) = cookie(&api, &headers) {
        api.store.close_session(&TokenHash::of(&secret)).await?;
    }
    let gone = set_cookie(&api, "", 0)?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response())
}

/// How one may sign in.
#[utoipa::path(
    get, path = "/v1/session/methods", tag = "access", operation_id = "sign_in_methods", security(()),
    responses((status = 200, body = MethodsAnswer))
)]
pub(super) async fn methods() -> Json<MethodsAnswer> {
    Json(MethodsAnswer { token: true })
}
