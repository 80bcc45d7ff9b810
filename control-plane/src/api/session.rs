//! Sessions of browsers: a token is exchanged for a cookie that scripts cannot read and other sites cannot send.
//!
//! A call by cookie that changes something must carry the session's CSRF token too, which only our own pages know.

use super::Api;
use super::extract::Params;
use super::guard::Caller;
use super::problem::{ApiError, Problems};
use crate::access::{NewSession, Permission, Principal, Role, Scope};
use crate::oidc::Oidc;
use crate::oidc::code_flow::Attempt;
use crate::token::{self, Token, TokenHash};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use utoipa::ToSchema;
use uuid::Uuid;

/// How long a session lasts, if its token does.
const LIFE: SignedDuration = SignedDuration::from_hours(8);
/// The header that carries the CSRF token.
pub(super) const CSRF: &str = "x-bouncer-csrf";

/// Who is signed in.
#[derive(Serialize, ToSchema)]
pub struct SessionAnswer {
    /// As the audit names them.
    #[schema(example = "token:alice")]
    actor: String,
    /// The id of their token, or of the one that they signed in with, if that lasts.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_id: Option<Uuid>,
    role: Role,
    permissions: &'static [Permission],
    /// The logical paths that they are limited to; empty for no limit.
    #[schema(value_type = Vec<String>)]
    path_prefixes: Scope,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// Changes of binding wait for a second person here.
    second_person: bool,
    /// To be sent as `x-bouncer-csrf` with every call by cookie that changes something. Absent for a bearer token.
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf_token: Option<String>,
}

/// How one may sign in.
#[derive(Debug, Serialize, ToSchema)]
pub struct MethodsAnswer {
    /// By an API token.
    token: bool,
    /// By an identity provider, at `GET /v1/session/oidc/start`; absent where none is set up.
    #[serde(skip_serializing_if = "Option::is_none")]
    oidc: Option<OidcMethod>,
}

/// Signing in by an identity provider.
#[derive(Debug, Serialize, ToSchema)]
pub struct OidcMethod {
    /// What it is called.
    #[schema(example = "Example SSO")]
    name: String,
}

fn answer(api: &Api, principal: Principal, csrf_token: Option<String>) -> SessionAnswer {
    SessionAnswer {
        actor: principal.actor.as_str().to_owned(),
        token_id: principal.token.filter(|_| !principal.single_use),
        role: principal.role,
        permissions: principal.role.permissions(),
        path_prefixes: principal.scope,
        expires_at: principal.expires,
        second_person: api.second_person,
        csrf_token,
    }
}

/// The cookie's name. With the prefix, a browser takes it only over TLS and only from this very host.
pub(super) const fn cookie_name(tls: bool) -> &'static str {
    if tls { "__Host-bouncer-session" } else { "bouncer-session" }
}

/// The secret of that name in the cookies of a call.
fn cookie(headers: &HeaderMap, wanted: &str) -> Option<String> {
    let mut values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let ours = |pair: &str| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == wanted && token::well_formed(value)).then(|| value.to_owned())
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
    let Some(secret) = cookie(headers, cookie_name(api.tls)) else { return Ok(None) };
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

fn set_cookie(api: &Api, name: &str, secret: &str, same_site: &str, seconds: i64) -> Result<HeaderValue, ApiError> {
    let secure = if api.tls { "; Secure" } else { "" };
    let text = format!("{name}={secret}; Path=/; HttpOnly; SameSite={same_site}; Max-Age={seconds}{secure}");
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
    let opened = open(&api, principal).await?;
    Ok((StatusCode::CREATED, [(header::SET_COOKIE, opened.cookie)], Json(opened.answer)).into_response())
}

/// A session that was just opened.
struct Opened {
    cookie: HeaderValue,
    answer: SessionAnswer,
}

async fn open(api: &Api, mut principal: Principal) -> Result<Opened, ApiError> {
    let now = api.clock.now();
    let expires = principal.expires.map_or(now + LIFE, |end| end.min(now + LIFE));
    let secret = Token::generate()?;
    api.store.open_session(&NewSession { principal: principal.clone(), expires }, &secret.hash()).await?;
    principal.expires = Some(expires);
    let seconds = expires.duration_since(now).as_secs().max(0);
    let cookie = set_cookie(api, cookie_name(api.tls), secret.reveal(), "Strict", seconds)?;
    Ok(Opened { cookie, answer: answer(api, principal, Some(csrf_token(secret.reveal()))) })
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
    let secret = cookie(&headers, cookie_name(api.tls)).filter(|_| !headers.contains_key(header::AUTHORIZATION));
    Json(answer(&api, principal, secret.as_deref().map(csrf_token)))
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
    if let Some(secret) = cookie(&headers, cookie_name(api.tls)) {
        api.store.close_session(&TokenHash::of(&secret)).await?;
    }
    let gone = set_cookie(&api, cookie_name(api.tls), "", "Strict", 0)?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response())
}

/// How one may sign in.
#[utoipa::path(
    get, path = "/v1/session/methods", tag = "access", operation_id = "sign_in_methods", security(()),
    responses((status = 200, body = MethodsAnswer))
)]
pub(super) async fn methods(State(api): State<Api>) -> Json<MethodsAnswer> {
    let console = api.oidc.as_ref().and_then(|oidc| oidc.console());
    Json(MethodsAnswer { token: true, oidc: console.map(|console| OidcMethod { name: console.name.clone() }) })
}

/// How long a sign-in at the identity provider may take.
const ATTEMPT: i64 = 600;

const fn attempt_cookie(tls: bool) -> &'static str {
    if tls { "__Host-bouncer-oidc" } else { "bouncer-oidc" }
}

/// The identity provider, if one is set up for the console.
fn console_oidc(api: &Api) -> Result<&Oidc, ApiError> {
    let oidc = api.oidc.as_deref().filter(|oidc| oidc.console().is_some());
    oidc.ok_or(ApiError::NotFound("identity provider"))
}

/// Sends a browser to the identity provider.
#[utoipa::path(
    get, path = "/v1/session/oidc/start", tag = "access", operation_id = "oidc_start", security(()),
    responses(
        (status = 303, description = "To the identity provider"),
        Problems,
    )
)]
pub(super) async fn oidc_start(State(api): State<Api>) -> Result<Response, ApiError> {
    let oidc = console_oidc(&api)?;
    let secret = Token::generate()?;
    let url = oidc.authorization_url(&Attempt(secret.reveal())).await?;
    // Lax, since the way back begins at the identity provider.
    let cookie = set_cookie(&api, attempt_cookie(api.tls), secret.reveal(), "Lax", ATTEMPT)?;
    let location = HeaderValue::try_from(url).map_err(|_| ApiError::Internal)?;
    Ok((StatusCode::SEE_OTHER, [(header::SET_COOKIE, cookie), (header::LOCATION, location)]).into_response())
}

/// What the identity provider sends along. It may send more, which is passed over.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct CallbackParams {
    /// To be exchanged for who signed in.
    code: Option<String>,
    /// As it was sent there.
    state: Option<String>,
}

/// Takes a browser back from the identity provider, and on to the console: signed in, or with `error` in the query.
#[utoipa::path(
    get, path = "/v1/session/oidc/callback", tag = "access", operation_id = "oidc_callback", security(()),
    params(CallbackParams),
    responses(
        (status = 303, description = "To the console"),
        Problems,
    )
)]
pub(super) async fn oidc_callback(
    State(api): State<Api>,
    headers: HeaderMap,
    Params(params): Params<CallbackParams>,
) -> Result<Response, ApiError> {
    let oidc = console_oidc(&api)?;
    let mut response = match came_back(&api, oidc, &headers, &params).await {
        Ok(Opened { cookie, .. }) => {
            let location = HeaderValue::from_static("/console/");
            (StatusCode::SEE_OTHER, [(header::LOCATION, location), (header::SET_COOKIE, cookie)]).into_response()
        }
        Err(error) => {
            tracing::warn!(%error, "a sign-in by the identity provider failed");
            let (_, problem) = error.problem();
            let code = problem.kind.rsplit(':').next().unwrap_or_default().to_owned();
            let location = HeaderValue::try_from(format!("/console/?error={code}")).map_err(|_| ApiError::Internal)?;
            (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
        }
    };
    let gone = set_cookie(&api, attempt_cookie(api.tls), "", "Lax", 0)?;
    response.headers_mut().append(header::SET_COOKIE, gone);
    Ok(response)
}

async fn came_back(api: &Api, oidc: &Oidc, headers: &HeaderMap, params: &CallbackParams) -> Result<Opened, ApiError> {
    let secret = cookie(headers, attempt_cookie(api.tls)).ok_or(ApiError::Csrf)?;
    let attempt = Attempt(&secret);
    if !params.state.as_deref().is_some_and(|state| attempt.is_answered_by(state)) {
        return Err(ApiError::Csrf);
    }
    let code = params.code.as_deref().ok_or(ApiError::Unauthenticated)?;
    let principal = oidc.exchange(&attempt, code).await?;
    open(api, principal).await
}
