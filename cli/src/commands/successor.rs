//! What follows a credential's newest generation: the same credential under another key, or an earlier one again.
//!
//! Called by `rewrap` and `secrets rollback`. KMS re-encrypts, this carries ciphertext only.

use super::registered::{PATH, Registered};
use super::rewrap::Unmovable;
use super::view::View;
use crate::control_plane::{ControlPlane, Expects};
use crate::failure::Failure;
use crate::kms::{Kms, KmsError, Under};
use bouncer_custody::{CiphertextRef, EncryptionContext, Generation, KeyId, KmsKeyArn, Reserved, Wrapped};
use serde_json::{Value, json};

/// What a generation holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content<'a> {
    /// Who can unwrap it.
    pub key: &'a KeyId,
    /// What is unwrapped.
    pub reference: &'a CiphertextRef,
    /// What it is bound to.
    pub aad: Option<&'a EncryptionContext>,
    /// The public chain beside it.
    pub chain: Option<&'a str>,
}

/// A re-encryption inside KMS, from what is registered to what a later generation needs.
#[derive(Debug)]
pub(super) struct Moving<'a> {
    from: &'a KmsKeyArn,
    to: &'a KmsKeyArn,
    wrapped: Wrapped,
    before: Option<&'a EncryptionContext>,
    after: Option<EncryptionContext>,
}

impl<'a> Moving<'a> {
    /// Of `old` to the key `to` (its own, if none is given) and the AAD that goes with the generation `next`.
    ///
    /// # Errors
    /// [`Unmovable`] if KMS has nothing to re-encrypt, or the AAD was never right.
    pub(super) fn new(old: &'a Registered, to: Option<&'a KmsKeyArn>, next: Generation) -> Result<Self, Unmovable> {
        let KeyId::Kms(from) = &old.key else { return Err(Unmovable::InVault) };
        let wrapped = old.reference.kms().map_err(|_| Unmovable::NoBlob)?;
        let before = old.aad.as_ref();
        let after = before.map(|aad| moved_aad(aad, old.generation, next)).transpose()?;
        Ok(Self { from, to: to.unwrap_or(from), wrapped, before, after })
    }

    fn ends(&self) -> (Under<'_>, Under<'_>) {
        (Under { key: self.from, aad: self.before }, Under { key: self.to, aad: self.after.as_ref() })
    }

    /// The AAD that it has afterwards.
    pub(super) const fn aad(&self) -> Option<&EncryptionContext> {
        self.after.as_ref()
    }

    /// Asks KMS whether it would do it.
    ///
    /// # Errors
    /// [`KmsError`] if not.
    pub(super) async fn rehearse(&self, kms: &Kms) -> Result<(), KmsError> {
        let (from, to) = self.ends();
        kms.would_re_encrypt(self.wrapped.blob(), from, to).await
    }

    /// Has KMS do it.
    ///
    /// # Errors
    /// [`KmsError`] if it does not.
    pub(super) async fn carry_out(&self, kms: &Kms) -> Result<CiphertextRef, KmsError> {
        let (from, to) = self.ends();
        let blob = kms.re_encrypt(self.wrapped.blob(), from, to).await?;
        Ok(self.wrapped.with_blob(&blob).map_err(|_| KmsError::UnusableAnswer)?.to_reference())
    }
}

/// Registers content as the generation that follows the newest one, and as no other. What is disabled stays so.
///
/// # Errors
/// [`Failure`] if somebody else changed the credential since `newest` was read.
pub(super) async fn register(
    api: &ControlPlane,
    newest: &Registered,
    content: Content<'_>,
    reason: Option<&str>,
) -> Result<Value, Failure> {
    let next = newest.generation.next();
    let mut body = json!({
        "logical_path": newest.path, "provider": content.key.provider().as_str(), "key_id": content.key.as_str(),
        "ciphertext_ref": content.reference, "generation": next, "enabled": newest.enabled,
    });
    let optional =
        [("aad", content.aad.map(EncryptionContext::as_str)), ("certificate_chain", content.chain), ("reason", reason)];
    for (name, value) in optional {
        if let Some(value) = value {
            body[name] = value.into();
        }
    }
    let answer = api.register(PATH, &body, Expects::from(newest.revision)).await?;
    match View(&answer).number("generation").and_then(Generation::new) {
        Some(generation) if generation == next => Ok(answer),
        _ => Err(Unmovable::Misnumbered.into()),
    }
}

/// The AAD that goes with the next generation.
fn moved_aad(aad: &EncryptionContext, now: Generation, next: Generation) -> Result<EncryptionContext, Unmovable> {
    match aad.get(Reserved::Generation) {
        Some(text) if text != now.to_string() => Err(Unmovable::OtherGeneration),
        _ => aad.with_generation(next).map_err(|_| Unmovable::LongAad),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generation_goes_up_with_the_registration_and_must_have_been_right() {
        let (now, next) = (Generation::new(9).unwrap(), Generation::new(10).unwrap());
        let moved = |text: &str| moved_aad(&text.parse().unwrap(), now, next).map(|aad| aad.to_string());
        assert_eq!(moved("bouncer=a,generation=9"), Ok("bouncer=a,generation=10".to_owned()));
        assert_eq!(moved("bouncer=a"), Ok("bouncer=a".to_owned()));
        assert_eq!(moved("generation=8"), Err(Unmovable::OtherGeneration));
        assert_eq!(moved("generation=09"), Err(Unmovable::OtherGeneration));
        assert_eq!(moved(&format!("generation=9,a={}", "x".repeat(8_192 - 15))), Err(Unmovable::LongAad));
    }
}
