//! The issuer's keys (RFC 7517), found by OpenID Connect Discovery 1.0, and kept until a token names another.

use super::OidcError;
use crate::http_client;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// Longest answer of an issuer, in bytes.
const ANSWER_LIMIT: usize = 256 * 1024;
/// Keys are read anew after so long.
const FRESH: Duration = Duration::from_secs(600);
/// And not sooner than this after the last time, however that went and however many tokens name keys that there are not.
const PAUSE: Duration = Duration::from_secs(5);
/// How long it may take to read them. Shorter than a call may take, so that who waits for it can be told.
const READING: Duration = Duration::from_secs(5);

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

impl Discovery {
    /// This document, if it can be the issuer's.
    pub(super) fn of(self, issuer: &str) -> Result<Self, OidcError> {
        // Discovery, section 4.3: another one's document is no document.
        if self.issuer != issuer {
            return Err(OidcError::Issuer("its discovery document names another issuer"));
        }
        let all = [Some(&self.jwks_uri), self.authorization_endpoint.as_ref(), self.token_endpoint.as_ref()];
        if issuer.starts_with("https:") && !all.into_iter().flatten().all(|uri| uri.starts_with("https:")) {
            return Err(OidcError::Issuer("its discovery document leads to plain HTTP"));
        }
        Ok(self)
    }
}

pub(super) struct Keys {
    /// Looked at without waiting, whatever the issuer does.
    known: RwLock<Option<Arc<Known>>>,
    /// Held by whoever reads.
    attempt: Mutex<Option<Attempt>>,
    pause: Duration,
    reading: Duration,
}

impl Default for Keys {
    fn default() -> Self {
        Self::read_within(READING, PAUSE)
    }
}

struct Known {
    set: JwkSet,
    discovery: Discovery,
    read: Instant,
}

/// How the last reading went.
struct Attempt {
    ended: Instant,
    failed: Option<&'static str>,
}

impl Keys {
    /// None yet; a reading may take so long, and so much must be between two.
    pub(super) fn read_within(reading: Duration, pause: Duration) -> Self {
        Self { known: RwLock::default(), attempt: Mutex::default(), pause, reading }
    }

    /// The key that a token says it was signed by.
    pub(super) async fn find(
        &self,
        http: &reqwest::Client,
        issuer: &str,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<DecodingKey, OidcError> {
        let key = self.look(http, issuer, |known| choose(&known.set, kid, algorithm).map(decoding)).await?;
        key.ok_or(OidcError::Refused("the issuer has no such key"))?
    }

    /// What the issuer says of itself.
    pub(super) async fn discovery(&self, http: &reqwest::Client, issuer: &str) -> Result<Discovery, OidcError> {
        let discovery = self.look(http, issuer, |known| Some(known.discovery.clone())).await?;
        discovery.ok_or(OidcError::Issuer("it has not been read yet"))
    }

    /// Looks for something in what is known, and if it is not there, in what the issuer says now. Whoever needs the issuer
    /// waits for one reading, not each for one of their own; and nobody reads soon after another did, even if that failed.
    async fn look<T>(
        &self,
        http: &reqwest::Client,
        issuer: &str,
        find: impl Fn(&Known) -> Option<T>,
    ) -> Result<Option<T>, OidcError> {
        let fresh = || self.fresh().and_then(|known| find(&known));
        if let Some(found) = fresh() {
            return Ok(Some(found));
        }
        let mut attempt = self.attempt.lock().await;
        if let Some(found) = fresh() {
            return Ok(Some(found));
        }
        if let Some(last) = attempt.as_ref().filter(|last| last.ended.elapsed() < self.pause) {
            return last.failed.map_or(Ok(None), |why| Err(OidcError::Issuer(why)));
        }
        let read = tokio::time::timeout(self.reading, read(http, issuer)).await;
        let read = read.unwrap_or(Err(OidcError::Issuer("it does not answer in time")));
        let failed = match &read {
            Err(OidcError::Issuer(why)) => Some(*why),
            _ => None,
        };
        *attempt = Some(Attempt { ended: Instant::now(), failed });
        let known = Arc::new(read?);
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&known));
        Ok(find(&known))
    }

    fn fresh(&self) -> Option<Arc<Known>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.as_ref().filter(|known| known.read.elapsed() < FRESH).cloned()
    }
}

async fn read(http: &reqwest::Client, issuer: &str) -> Result<Known, OidcError> {
    let at = format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'));
    let discovery = get::<Discovery>(http, &at).await?.of(issuer)?;
    let set = get(http, &discovery.jwks_uri).await?;
    Ok(Known { set, discovery, read: Instant::now() })
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
