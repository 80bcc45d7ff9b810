//! Asks STS with a resolver's signed call: one host, no redirects, a deadline, a bounded answer.

use super::answer::{self, Caller};
use super::call::SignedCall;
use crate::http_client;
use bouncer_custody::{Audience, GetCallerIdentity};
use std::path::Path;
use std::time::Duration;

/// The largest answer, in bytes.
const ANSWER_LIMIT: usize = 16 * 1024;

/// Why STS cannot be asked at all.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StsError {
    /// The authority's file is no good.
    #[error("bridge.iam.sts_ca_file holds no readable PEM certificate")]
    Ca,
    /// No client can be made.
    #[error("the HTTP client for STS cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// Why STS vouches for nobody. Fixed texts, nothing of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum StsFault {
    /// It refused: the signature is over something else, or the credentials are none any more.
    #[error(
        "STS refuses the signature: it was made over another audience or another key, or the credentials have ended; \
         bridge.iam.audience must be the same on both sides"
    )]
    Refused,
    /// It does not answer as STS does.
    #[error("STS does not answer as it should: {0}")]
    Unavailable(&'static str),
}

pub(super) struct Sts(reqwest::Client);

impl Sts {
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, StsError> {
        let builder = http_client::builder(ca_file).ok_or(StsError::Ca)?;
        let builder = builder.https_only(true).timeout(Duration::from_secs(5));
        builder.build().map(Self).map_err(StsError::Client)
    }

    /// Whose signature this is, over this audience and this key.
    pub(super) async fn ask(&self, call: &SignedCall, audience: &Audience, key: &str) -> Result<Caller, StsFault> {
        let headers = call.headers(audience, key).ok_or(StsFault::Unavailable("it can't be asked with this"))?;
        let sent = self.0.post(call.url()).headers(headers).body(GetCallerIdentity::BODY).send().await;
        let mut response =
            sent.map_err(|_| StsFault::Unavailable("it cannot be reached, or its certificate is not trusted"))?;
        match response.status().as_u16() {
            200 => {}
            429 => return Err(StsFault::Unavailable("it throttles")),
            // Its answer says more, but repeats parts of the call.
            400..=499 => return Err(StsFault::Refused),
            300..=399 => return Err(StsFault::Unavailable("it redirects")),
            _ => return Err(StsFault::Unavailable("it has a fault")),
        }
        let body = http_client::body(&mut response, ANSWER_LIMIT).await;
        let body = body.map_err(|_| StsFault::Unavailable("its answer broke off"))?;
        let body = body.ok_or(StsFault::Unavailable("its answer is too long"))?;
        answer::read(&body).ok_or(StsFault::Unavailable("its answer is not that of GetCallerIdentity"))
    }
}
