//! Who makes a call, and whether they may: the inner layer of every call.
//!
//! A call carries a bearer token, or the cookie of a session. What comes by cookie must also come from our own pages.

use super::limits::PeerAddress;
use super::permission::{self, Needs};
use super::problem::ApiError;
use super::{Api, second_person, session};
use crate::access::Principal;
use crate::edit::{Edit, Expects};
use crate::model::Flag;
use crate::oidc::code_flow::CALLBACK;
use crate::oidc::{Oidc, OidcError};
use crate::proposal::Approval;
use crate::token::{self, TokenHash};
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bouncer_custody::LogicalPath;
use http::request::Parts;
use http::{HeaderMap, Method, header};

/// All that may be asked by anybody.
pub(super) const PUBLIC: [&str; 7] =
    ["/healthz", "/readyz", "/metrics", "/openapi.json", "/v1/session/methods", "/v1/session/oidc/start", CALLBACK];
/// The public calls that may ask the identity provider.
const BY_PROVIDER: &str = "/v1/session/oidc/";
/// What a token that is good for one use may be used for.
const EXCHANGES: [(Method, &str); 2] = [(Method::POST, "/v1/tokens"), (Method::POST, "/v1/session")];
/// The largest number of revisions that a condition may name.
const CONDITIONS: usize = 16;

/// The inner layer: nothing but the public paths without a principal, nothing that the principal may not, nothing below
/// `/v1/crypto` while the flag is off.
pub(super) async fn guard(State(api): State<Api>, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let peer: Option<PeerAddress> = request.extensions().get().copied();
    if PUBLIC.contains(&request.uri().path()) {
        if let Some(PeerAddress(address)) = peer.filter(|_| request.uri().path().starts_with(BY_PROVIDER)) {
            api.limits.sign_in(address).map_err(ApiError::TooMany)?;
        }
        return Ok(next.run(request).await);
    }
    let principal = authenticate(&api, peer, request.method(), request.headers()).await?;
    api.limits.call(principal.actor.as_str()).map_err(ApiError::TooMany)?;
    if let Some(route) = request.extensions().get::<MatchedPath>() {
        permit(&principal, request.method(), route.as_str())?;
        let rule = second_person::rule(request.method(), route.as_str());
        if api.second_person && rule.is_none() && known(request.method(), route.as_str()) {
            // Nobody decided whether it changes a binding.
            return Err(ApiError::Forbidden);
        }
    } else if principal.single_use {
        return Err(ApiError::SingleUse);
    }
    open(&api, request.uri().path()).await?;
    request.extensions_mut().insert(principal);
    Ok(next.run(request).await)
}

/// Nothing below `/v1/crypto` while the flag is off.
async fn open(api: &Api, path: &str) -> Result<(), ApiError> {
    let below_crypto = path.strip_prefix("/v1/crypto");
    if below_crypto.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
        let flag = Flag::DualCustodyIntercept;
        if !api.store.flag(flag).await?.enabled {
            return Err(ApiError::FeatureDisabled(flag));
        }
    }
    Ok(())
}

/// Whether they may make this call now, by all that the layer looks at.
pub(super) async fn admit(
    api: &Api,
    principal: &Principal,
    method: &Method,
    route: &str,
    path: &str,
) -> Result<(), ApiError> {
    permit(principal, method, route)?;
    open(api, path).await
}

fn permit(principal: &Principal, method: &Method, route: &str) -> Result<(), ApiError> {
    if principal.single_use && !EXCHANGES.iter().any(|exchange| (&exchange.0, exchange.1) == (method, route)) {
        return Err(ApiError::SingleUse);
    }
    let Some(Needs { permission, unlimited }) = permission::needed(method, route) else {
        // The method is not one of the route's, and the router says so; or it was forgotten, and nobody may.
        return if known(method, route) { Err(ApiError::Forbidden) } else { Ok(()) };
    };
    if !principal.may(permission) {
        return Err(ApiError::Forbidden);
    }
    if unlimited && !principal.scope.is_everything() {
        return Err(ApiError::OutOfScope);
    }
    Ok(())
}

/// Whether the API describes such a call.
fn known(method: &Method, route: &str) -> bool {
    let document = super::description();
    let Some(item) = document.paths.paths.get(route) else { return true };
    let operation = match method.as_str() {
        "GET" | "HEAD" => &item.get,
        "PUT" => &item.put,
        "POST" => &item.post,
        "DELETE" => &item.delete,
        "PATCH" => &item.patch,
        _ => &None,
    };
    operation.is_some()
}

async fn authenticate(
    api: &Api,
    peer: Option<PeerAddress>,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Principal, ApiError> {
    let principal = if headers.contains_key(header::AUTHORIZATION) {
        match (bearer(headers), &api.oidc) {
            (Some(token), _) if token::well_formed(token) => {
                api.store.token(&TokenHash::of(token)).await?.map(crate::access::TokenRecord::principal)
            }
            (Some(token), Some(oidc)) if Oidc::may_be_token(token) => {
                vouched(oidc.bearer(token).await).map_err(|error| failed(api, peer, error.into()))?
            }
            _ => None,
        }
    } else {
        session::authenticate(api, method, headers).await?
    };
    principal.ok_or_else(|| {
        api.metrics.unauthenticated();
        // Who presents nothing costs nothing.
        let presented = headers.contains_key(header::AUTHORIZATION) || headers.contains_key(header::COOKIE);
        failed(api, peer.filter(|_| presented), ApiError::Unauthenticated)
    })
}

/// Counts what is presented and stands for nobody, and says so unless that was one too many.
fn failed(api: &Api, peer: Option<PeerAddress>, otherwise: ApiError) -> ApiError {
    match peer.map(|PeerAddress(address)| api.limits.failure(address)) {
        Some(Err(too_many)) => ApiError::TooMany(too_many),
        _ => otherwise,
    }
}

/// A token that the issuer would not stand by is none; an issuer that does not answer, or a caller without a role, is told.
fn vouched(principal: Result<Principal, OidcError>) -> Result<Option<Principal>, OidcError> {
    match principal {
        Ok(principal) => Ok(Some(principal)),
        Err(OidcError::Refused(why)) => {
            tracing::debug!(why, "a token of the identity provider was not taken");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The token of the one `Authorization` header (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut headers = headers.get_all(header::AUTHORIZATION).iter();
    let (only, None) = (headers.next()?, headers.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Who makes the call. Only the guard can put it there; a call that went around it is refused.
#[derive(Debug)]
pub(super) struct Caller(pub(super) Principal);

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        parts.extensions.get::<Principal>().cloned().map(Self).ok_or(ApiError::Unauthenticated)
    }
}

/// Who makes a change, and on top of what: the caller with the conditions of the call (RFC 9110, section 13.1).
#[derive(Debug)]
pub(super) struct Author {
    /// Who.
    pub(super) principal: Principal,
    /// The change's terms.
    pub(super) edit: Edit,
    /// The call.
    pub(super) call: Call,
}

/// Which call it is.
#[derive(Debug)]
pub(super) struct Call {
    /// Its method.
    pub(super) method: Method,
    /// Its route, as the template is written.
    pub(super) route: String,
    /// Its path.
    pub(super) path: String,
}

impl Author {
    /// Refuses what is about a path that the caller is not for.
    pub(super) fn require(&self, path: &LogicalPath) -> Result<(), ApiError> {
        if self.principal.scope.holds(path) { Ok(()) } else { Err(ApiError::OutOfScope) }
    }

    /// Ties the change to the revision that was found to be within the caller's paths.
    pub(super) fn pin(&mut self, revision: u64) {
        if !self.principal.scope.is_everything() && self.edit.expects.holds_for(revision) {
            self.edit.expects = Expects::OneOf(vec![revision]);
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Author {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Caller(principal) = Caller::from_request_parts(parts, state).await?;
        let mut edit = Edit::from(principal.actor.clone());
        edit.expects = expects(&parts.headers)?;
        edit.approval = parts.extensions.get::<Approval>().cloned();
        let route = parts.extensions.get::<MatchedPath>().map(|route| route.as_str().to_owned()).unwrap_or_default();
        let call = Call { method: parts.method.clone(), route, path: parts.uri.path().to_owned() };
        Ok(Self { principal, edit, call })
    }
}

const CONDITION: ApiError = ApiError::Query(
    "If-Match takes up to 16 entity tags as answers carry them, such as \"r42\", or *; If-None-Match takes * only.",
);

fn expects(headers: &HeaderMap) -> Result<Expects, ApiError> {
    let mut lists = headers.get_all(header::IF_MATCH).iter().peekable();
    if lists.peek().is_none() {
        return match headers.get(header::IF_NONE_MATCH) {
            None => Ok(Expects::Anything),
            // Nothing that exists has this revision.
            Some(any) if any == "*" => Ok(Expects::OneOf(vec![0])),
            Some(_) => Err(CONDITION),
        };
    }
    let mut revisions = Vec::new();
    for list in lists {
        for tag in list.to_str().map_err(|_| CONDITION)?.split(',').map(str::trim) {
            if tag == "*" {
                return Ok(Expects::Anything);
            }
            // Weak tags never match (section 8.8.3.2); those of others name no revision of ours.
            let revision = tag.strip_prefix("\"r").and_then(|rest| rest.strip_suffix('"')).map(str::parse::<u64>);
            revisions.extend(revision.and_then(Result::ok).filter(|revision| *revision > 0));
            if !(tag.ends_with('"') && tag.trim_start_matches("W/").starts_with('"')) || revisions.len() > CONDITIONS {
                return Err(CONDITION);
            }
        }
    }
    Ok(Expects::OneOf(revisions))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_entity_tags() {
        let read = |name: header::HeaderName, text: &str| {
            let headers = [(name, text.parse().unwrap())].into_iter().collect();
            expects(&headers).ok()
        };
        assert_eq!(read(header::ACCEPT, "x"), Some(Expects::Anything));
        assert_eq!(read(header::IF_MATCH, "*"), Some(Expects::Anything));
        assert_eq!(read(header::IF_MATCH, "\"r7\", \"r8\""), Some(Expects::OneOf(vec![7, 8])));
        assert_eq!(read(header::IF_MATCH, "W/\"r7\""), Some(Expects::OneOf(vec![])), "weak ones never match");
        assert_eq!(read(header::IF_MATCH, "\"other\", \"r0\""), Some(Expects::OneOf(vec![])));
        assert_eq!(read(header::IF_NONE_MATCH, "*"), Some(Expects::OneOf(vec![0])));
        for bad in ["r7", "", "7", "\"r7"] {
            assert_eq!(read(header::IF_MATCH, bad), None, "{bad}");
        }
        assert_eq!(read(header::IF_NONE_MATCH, "\"r7\""), None);
        assert!(!Expects::OneOf(vec![]).holds_for(7) && Expects::OneOf(vec![7]).holds_for(7));
    }
}
