//! One change in the asking: by whom, on top of what, and under which key it may be asked for again.
//!
//! [`crate::api`] reads it off a call; [`crate::store`] holds it against what is there, in the change's own transaction.

use crate::model::Actor;
use crate::proposal::Approval;
use sha2::{Digest as _, Sha256};

/// Who asks for a change, and on what terms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Who.
    pub actor: Actor,
    /// What they believe to be there.
    pub expects: Expects,
    /// By which the same call is known again.
    pub key: Option<IdempotencyKey>,
    /// The approval that it is made under, which is noted in the change's own transaction.
    pub approval: Option<Approval>,
}

impl From<Actor> for Edit {
    /// On whatever is there.
    fn from(actor: Actor) -> Self {
        Self { actor, expects: Expects::Anything, key: None, approval: None }
    }
}

/// What a change is built on (RFC 9110, section 13.1.1).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Expects {
    /// Whatever is there.
    #[default]
    Anything,
    /// One of these revisions.
    OneOf(Vec<u64>),
}

impl Expects {
    /// Whether a thing of this revision is what was expected.
    #[must_use]
    pub fn holds_for(&self, revision: u64) -> bool {
        match self {
            Self::Anything => true,
            Self::OneOf(revisions) => revisions.contains(&revision),
        }
    }
}

/// A key that the caller chose, so that a call which was not answered can be sent again and happens once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// SHA-256 of the key.
    pub key: [u8; 32],
    /// SHA-256 of what was asked for.
    pub request: [u8; 32],
}

impl IdempotencyKey {
    /// Shortest and longest key, in bytes.
    pub const LENGTHS: std::ops::RangeInclusive<usize> = 8..=255;

    /// The key of a call with this method, path and body.
    #[must_use]
    pub fn of(key: &str, method: &str, path: &str, body: &[u8]) -> Self {
        let mut request = Sha256::new();
        for part in [method.as_bytes(), path.as_bytes(), body] {
            request.update((part.len() as u64).to_be_bytes());
            request.update(part);
        }
        Self { key: Sha256::digest(key).into(), request: request.finalize().into() }
    }
}

/// Why something was changed, for people: one line of at most 500 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason(Box<str>);

impl Reason {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A text that is no reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be one line of 1 to 500 bytes")]
pub struct NoReason;

impl std::str::FromStr for Reason {
    type Err = NoReason;
    fn from_str(text: &str) -> Result<Self, NoReason> {
        let good = !text.trim().is_empty() && text.len() <= 500 && !text.chars().any(char::is_control);
        if good { Ok(Self(text.into())) } else { Err(NoReason) }
    }
}
