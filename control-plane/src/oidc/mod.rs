//! OpenID Connect: who an identity provider says that a caller is (OpenID Connect Core 1.0, RFC 7519), for bearer tokens
//! and for signing in to the console by the code flow with PKCE (RFC 7636).
//!
//! Called by [`crate::api`]. It trusts one issuer, whose keys are found by Discovery and read again when a token names one
//! that is not known yet. Signatures are asymmetric ones only. No token is kept, logged or repeated in an error.

pub mod code_flow;
mod keys;
#[cfg(test)]
mod tests;

use crate::access::{Principal, Role, Scope};
use crate::http_client;
use crate::model::Actor;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, Validation};
use keys::Keys;
use serde::Deserialize;
use serde_json::Value;
use std::path::PathBuf;

/// Longest token, in bytes.
const TOKEN_LIMIT: usize = 16 * 1024;
/// How far the issuer's clock may be off, in seconds.
const LEEWAY: u64 = 30;
/// Longest subject, in bytes: OpenID Connect Core's own limit.
const SUBJECT_LIMIT: usize = 255;
/// What a token may be signed by.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// The issuer that is trusted, and for what.
#[derive(Debug, Clone)]
pub struct OidcConfig {
    /// The issuer's identifier: `iss` of its tokens, to the letter.
    pub issuer: String,
    /// `aud` of bearer tokens.
    pub audience: String,
    /// PEM certificates to trust for the issuer, in the place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The claim that says who may do what.
    pub roles_claim: String,
    /// What its values stand for. The first that fits counts.
    pub roles: Vec<RoleRule>,
    /// Signing in to the console, where that is set up.
    pub console: Option<ConsoleConfig>,
}

/// What a value of the roles claim stands for.
#[derive(Debug, Clone)]
pub struct RoleRule {
    /// The value.
    pub value: String,
    /// The role.
    pub role: Role,
    /// The logical paths that it is limited to.
    pub scope: Scope,
}

/// Signing in to the console.
#[derive(Debug, Clone)]
pub struct ConsoleConfig {
    /// What the button says.
    pub name: String,
    /// The client's identifier: `aud` of ID tokens.
    pub client_id: String,
    /// The client's secret; a public client has none, and PKCE alone.
    pub client_secret_file: Option<PathBuf>,
    /// Where browsers reach this control plane, without a path.
    pub public_url: String,
    /// What is asked for, besides `openid`.
    pub scopes: Vec<String>,
}

/// Why a token is not taken, or nobody could be asked. Fixed texts, nothing of the token.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OidcError {
    /// The client cannot be set up.
    #[error("oidc.ca_file holds no readable PEM certificate")]
    Ca,
    /// The HTTP client cannot be set up.
    #[error("the HTTP client for the issuer cannot be set up")]
    Client(#[source] reqwest::Error),
    /// The issuer does not answer, or not as it should.
    #[error("the issuer of oidc.issuer does not answer as an OpenID provider: {0}")]
    Issuer(&'static str),
    /// The token is not one of this issuer's for this audience, or has ended.
    #[error("the token is not taken: {0}")]
    Refused(&'static str),
    /// The claim names nobody who may do anything.
    #[error("no value of the roles claim stands for a role")]
    NoRole,
}

/// The claims that are looked at.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    nonce: Option<String>,
    #[serde(flatten)]
    others: serde_json::Map<String, Value>,
}

/// The trusted issuer.
pub struct Oidc {
    config: OidcConfig,
    http: reqwest::Client,
    keys: Keys,
}

impl Oidc {
    /// Sets up the client; the issuer is asked when it is needed.
    ///
    /// # Errors
    /// [`OidcError::Ca`] or [`OidcError::Client`].
    pub fn new(config: OidcConfig) -> Result<Self, OidcError> {
        let builder = http_client::builder(config.ca_file.as_deref()).ok_or(OidcError::Ca)?;
        let mut builder = builder.timeout(std::time::Duration::from_secs(5));
        if config.issuer.starts_with("http:") {
            // Loopback, by the configuration; a proxy would be another machine.
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(OidcError::Client)?;
        Ok(Self { config, http, keys: Keys::default() })
    }

    /// What signing in to the console is set up with.
    #[must_use]
    pub fn console(&self) -> Option<&ConsoleConfig> {
        self.config.console.as_ref()
    }

    /// Whether a text may be a token at all: three parts of base64url (RFC 7515, section 7.1).
    #[must_use]
    pub fn may_be_token(text: &str) -> bool {
        let part = |part: &str| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
        };
        text.len() <= TOKEN_LIMIT && text.split('.').count() == 3 && text.split('.').all(part)
    }

    /// Who bears this token.
    ///
    /// # Errors
    /// [`OidcError`]: it is not taken, or the issuer's keys cannot be had.
    pub async fn bearer(&self, token: &str) -> Result<Principal, OidcError> {
        let claims = self.verify(token, &self.config.audience).await?;
        self.principal(&claims)
    }

    async fn verify(&self, token: &str, audience: &str) -> Result<Claims, OidcError> {
        if !Self::may_be_token(token) {
            return Err(OidcError::Refused("it is no JSON Web Token"));
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| OidcError::Refused("its header is none"))?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(OidcError::Refused("its algorithm is not one of a public key"));
        }
        let key = self.keys.find(&self.http, &self.config.issuer, header.kid.as_deref(), header.alg).await?;
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[audience]);
        let decoded = jsonwebtoken::decode::<Claims>(token, &key, &validation).map_err(|error| {
            use jsonwebtoken::errors::ErrorKind;
            OidcError::Refused(match error.kind() {
                ErrorKind::InvalidSignature => "its signature is not the issuer's",
                ErrorKind::ExpiredSignature => "it has ended",
                ErrorKind::ImmatureSignature => "it is not valid yet",
                ErrorKind::InvalidIssuer => "its issuer is another one",
                ErrorKind::InvalidAudience => "its audience is another one",
                _ => "it lacks a claim, or has one of another form",
            })
        })?;
        Ok(decoded.claims)
    }

    fn principal(&self, claims: &Claims) -> Result<Principal, OidcError> {
        let sub = &claims.sub;
        if sub.is_empty() || sub.len() > SUBJECT_LIMIT || sub.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(OidcError::Refused("its subject is none that can be named"));
        }
        let values: Vec<&str> = match claims.others.get(&self.config.roles_claim) {
            Some(Value::String(text)) => text.split(' ').collect(),
            Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let rule = self.config.roles.iter().find(|rule| values.contains(&rule.value.as_str()));
        let rule = rule.ok_or(OidcError::NoRole)?;
        Ok(Principal {
            actor: Actor::oidc(sub),
            role: rule.role,
            scope: rule.scope.clone(),
            expires: Timestamp::from_second(claims.exp).ok(),
            token: None,
            single_use: false,
        })
    }
}
