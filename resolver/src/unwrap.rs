//! The role of a provider: it turns an envelope's metadata into the plaintext, in the customer's own KMS or Vault.

use crate::policy::Envelope;
use bouncer_custody::Reason;
use futures::future::BoxFuture;
use zeroize::Zeroizing;

/// What the backend gave.
pub struct Unwrapped {
    /// The credential's plaintext. Parsed and wiped at once by the [`crate::cache`].
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The backend's id of the call, to join with its own audit.
    pub request_id: Option<String>,
}

/// Why there is no plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnwrapError {
    /// What to tell people.
    pub reason: Reason,
    /// The backend's id of the call, if it got that far.
    pub request_id: Option<String>,
}

impl From<Reason> for UnwrapError {
    fn from(reason: Reason) -> Self {
        Self { reason, request_id: None }
    }
}

/// A provider, or all of them.
pub trait Unwrap: Send + Sync + 'static {
    /// Makes one call to the backend.
    fn unwrap<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Unwrapped, UnwrapError>>;

    /// Sees to it that the next call finds a session, so that no stream waits for a login. Called every few seconds;
    /// failures show when a stream needs it.
    fn prepare(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
