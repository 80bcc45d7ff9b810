//! The issuer's keys (RFC 7517), found by OpenID Connect Discovery 1.0, and kept until a token names another.

use super::OidcError;
use crate::http_client;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Longest answer of an issuer, in bytes.
const ANSWER_LIMIT: usize = 256 * 1024;
/// Keys are read anew after so long.
const FRESH: Duration = Duration::from_secs(600);
/// And not more often than this, however many tokens name keys that there are not.
const PAUSE: Duration = Duration::from_secs(5);

/// What an issuer says of itself, as far as it is looked at.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Discovery {
    issuer: String,
    jwks_uri: String,
    /// Where browsers are sent to sign in.
    pub(super) authorization_endpoint: Option<String>,
    /// Where a code is exchanged.
    pub(super) token_endpoint: Option<String>,
}

#[derive(Default)]
pub(super) struct Keys {
    cached: Mutex<Option<Cached>>,
}

struct Cached {
    set: JwkSet,
    discovery: Discovery,
    read: Instant,
}

impl Keys {
    /// The key that a token says it was signed by. Whoever needs it waits for one reading, not each for one of their own.
    pub(super) async fn find(
        &self,
        http: &reqwest::Client,
        issuer: &str,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, OidcError> {
        let mut cached = self.cached.lock().await;
        let known = cached.as_ref().filter(|cached| cached.read.elapsed() < FRESH);
        if let Some(key) = known.and_then(|cached| choose(&cached.set, kid, algorithm)) {
            return decoding(key);
        }
        if cached.as_ref().is_some_and(|cached| cached.read.elapsed() < PAUSE) {
            return Err(OidcError::Refused("the issuer has no such key"));
        }
        let fresh = read(http, issuer).await?;
        let key = choose(&fresh.set, kid, algorithm).map(decoding);
        *cached = Some(fresh);
        key.ok_or(OidcError::Refused("the issuer has no such key"))?
    }

    /// What the issuer says of itself.
    pub(super) async fn discovery(&self, http: &reqwest::Client, issuer: &str) -> Result<Discovery, OidcError> {
        let mut cached = self.cached.lock().await;
        if let Some(cached) = cached.as_ref().filter(|cached| cached.read.elapsed() < FRESH) {
            return Ok(cached.discovery.clone());
        }
        let fresh = read(http, issuer).await?;
        let discovery = fresh.discovery.clone();
        *cached = Some(fresh);
        Ok(discovery)
    }
}

async fn read(http: &reqwest::Client, issuer: &str) -> Result<Cached, OidcError> {
    let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let discovery: Discovery = get(http, &at).await?;
    // Discovery, section 4.3: another one's document is no document.
    if discovery.issuer != issuer {
        return Err(OidcError::Issuer("its discovery document names another issuer"));
    }
    let all = [Some(&discovery.jwks_uri), discovery.authorization_endpoint.as_ref(), discovery.token_endpoint.as_ref()];
    if issuer.starts_with("https:") && !all.into_iter().flatten().all(|uri| uri.starts_with("https:")) {
        return Err(OidcError::Issuer("its discovery document leads to plain HTTP"));
    }
    let set = get(http, &discovery.jwks_uri).await?;
    Ok(Cached { set, discovery, read: Instant::now() })
}

async fn get<T: DeserializeOwned>(http: &reqwest::Client, url: &str) -> Result<T, OidcError> {
    bounded(http.get(url).send().await).await
}

/// Reads an answer of the issuer, which must be JSON of a sane length.
pub(super) async fn bounded<T: DeserializeOwned>(
    sent: Result<reqwest::Response, reqwest::Error>,
) -> Result<T, OidcError> {
    let mut response =
        sent.map_err(|_| OidcError::Issuer("it cannot be reached, or its certificate is not trusted"))?;
    if !response.status().is_success() {
        return Err(OidcError::Issuer("it refused"));
    }
    let body = http_client::body(&mut response, ANSWER_LIMIT).await;
    let body = body.map_err(|_| OidcError::Issuer("its answer broke off"))?;
    let body = body.ok_or(OidcError::Issuer("its answer is too long"))?;
    serde_json::from_slice(&body).map_err(|_| OidcError::Issuer("its answer is not the JSON of one"))
}

fn choose<'a>(set: &'a JwkSet, kid: Option<&str>, algorithm: Algorithm) -> Option<&'a Jwk> {
    let fits = |jwk: &&Jwk| {
        let common = &jwk.common;
        let signs = common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature);
        let named = kid.is_none_or(|kid| common.key_id.as_deref() == Some(kid));
        let family = common.key_algorithm.is_none_or(|known| known.to_string() == format!("{algorithm:?}"));
        signs && named && family
    };
    let mut found = set.keys.iter().filter(fits);
    let first = found.next();
    // Without a name for it, there must be only one.
    if kid.is_none() && found.next().is_some() { None } else { first }
}

fn decoding(jwk: &Jwk) -> Result<DecodingKey, OidcError> {
    DecodingKey::from_jwk(jwk).map_err(|_| OidcError::Issuer("its key is of no kind that is known"))
}
