//! The role of a provider: it turns an envelope's metadata into the plaintext, in the customer's own KMS or Vault.

use crate::policy::Envelope;
use bouncer_custody::{EncryptionContext, KeyId, Reason};
use futures::future::BoxFuture;
use std::time::Duration;
use zeroize::Zeroizing;

/// What the backend gave.
pub struct Unwrapped {
    /// The credential's plaintext. Parsed and wiped at once by the [`crate::cache`].
    pub plaintext: Zeroizing<Vec<u8>>,
    /// The backend's id of the call, to join with its own audit.
    pub request_id: Option<String>,
    /// The pairs that the customer keeps beside the secret, where they come with it.
    pub pairs: Option<EncryptionContext>,
    /// Where the backend can change the secret under the same metadata: its own version of it, or empty if it names
    /// none. The public chain counts as well.
    pub version: Option<String>,
    /// When to ask again, where the backend makes a new secret of each call.
    pub fresh_for: Option<Duration>,
}

impl Unwrapped {
    /// A secret that stands for good under its metadata.
    #[must_use]
    pub const fn fixed(plaintext: Zeroizing<Vec<u8>>, request_id: Option<String>) -> Self {
        Self { plaintext, request_id, pairs: None, version: None, fresh_for: None }
    }
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

/// The providers that are configured, by what `key_id` names.
#[derive(Default)]
pub struct Providers {
    /// For `kms_envelope`.
    pub kms: Option<Box<dyn Unwrap>>,
    /// For `vault_delegate`.
    pub vault: Option<Box<dyn Unwrap>>,
}

impl Unwrap for Providers {
    fn unwrap<'a>(&'a self, envelope: &'a Envelope) -> BoxFuture<'a, Result<Unwrapped, UnwrapError>> {
        let provider = match envelope.key_id {
            KeyId::Kms(_) => &self.kms,
            KeyId::Vault(_) => &self.vault,
        };
        match provider {
            Some(provider) => provider.unwrap(envelope),
            None => Box::pin(std::future::ready(Err(Reason::ProviderUnavailable.into()))),
        }
    }

    fn prepare(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            for provider in [&self.kms, &self.vault].into_iter().flatten() {
                provider.prepare().await;
            }
        })
    }
}
