//! The opaque reference to a wrapped credential.

use crate::SealedEnvelope;
use crate::envelope::MAX_KMS_BLOB;
use crate::malformed::{Malformed, Problem, bounded, checked_text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const WHAT: &str = "ciphertext_ref";
/// The longest envelope in base64.
const MAX: usize = SealedEnvelope::MAX.div_ceil(3) * 4;
const KMS_BLOB: &str = "standard base64 of a KMS ciphertext blob of at most 6,144 bytes, or of an envelope";

checked_text! {
    /// What the resolver hands to the provider: base64 for KMS, a path for Vault. Opaque to the control plane. At most
    /// 95,628 bytes of visible ASCII, the length of the longest envelope.
    CiphertextRef, |text| {
        bounded(text, WHAT, MAX)?;
        if text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(())
        } else {
            Err(Problem::Character("visible ASCII without spaces").of(WHAT))
        }
    }
}

/// What a `ciphertext_ref` for KMS holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wrapped {
    /// The credential itself as a KMS ciphertext blob.
    Direct(Vec<u8>),
    /// The credential under a data key, which is a KMS ciphertext blob.
    Envelope(SealedEnvelope),
}

impl Wrapped {
    /// What KMS `Decrypt` and `ReEncrypt` take: at most 6,144 bytes (the API's own limit).
    #[must_use]
    pub fn blob(&self) -> &[u8] {
        match self {
            Self::Direct(blob) => blob,
            Self::Envelope(envelope) => envelope.wrapped_key(),
        }
    }

    /// What KMS itself encrypted.
    ///
    /// # Errors
    /// [`Malformed`] if that is no KMS blob by its length, or begins as an envelope does, and would be read as one.
    pub fn direct(blob: Vec<u8>) -> Result<Self, Malformed> {
        if blob.is_empty() || blob.len() > MAX_KMS_BLOB || SealedEnvelope::is_meant_by(&blob) {
            return Err(Problem::Form(KMS_BLOB).of(WHAT));
        }
        Ok(Self::Direct(blob))
    }

    /// The same credential, with the blob re-encrypted.
    ///
    /// # Errors
    /// As [`Self::direct`].
    pub fn with_blob(&self, blob: &[u8]) -> Result<Self, Malformed> {
        match self {
            Self::Direct(_) => Self::direct(blob.to_vec()),
            Self::Envelope(envelope) => envelope.with_wrapped_key(blob).map(Self::Envelope),
        }
    }

    /// How it is written, `direct` or `envelope`.
    #[must_use]
    pub const fn form(&self) -> &'static str {
        match self {
            Self::Direct(_) => "direct",
            Self::Envelope(_) => "envelope",
        }
    }

    /// As a `ciphertext_ref`.
    #[must_use]
    pub fn to_reference(&self) -> CiphertextRef {
        let text = match self {
            Self::Direct(blob) => STANDARD.encode(blob),
            Self::Envelope(envelope) => STANDARD.encode(envelope.to_bytes()),
        };
        CiphertextRef(text.into())
    }
}

impl CiphertextRef {
    /// What KMS is asked to decrypt, and what is around it.
    ///
    /// # Errors
    /// [`Malformed`] if this is no base64, too long once decoded, or an envelope that is none: no bouncer could ever
    /// unwrap it.
    pub fn kms(&self) -> Result<Wrapped, Malformed> {
        let bytes = STANDARD.decode(&*self.0).map_err(|_| Problem::Form(KMS_BLOB).of(WHAT))?;
        if SealedEnvelope::is_meant_by(&bytes) {
            return SealedEnvelope::parse(&bytes).map(Wrapped::Envelope);
        }
        Wrapped::direct(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guides_shortened_blob_is_stored_but_never_unwrapped() {
        let reference: CiphertextRef = "AQICAHh...opaque-envelope-blob...".parse().unwrap();
        assert!(reference.kms().is_err());
        let whole: CiphertextRef = "AQICAHg=".parse().unwrap();
        assert_eq!(whole.kms().unwrap().blob(), [1, 2, 2, 0, 0x78]);
        assert_eq!(whole.kms().unwrap().to_reference(), whole);
    }

    #[test]
    fn a_blob_that_would_be_read_as_an_envelope_is_none() {
        assert!(Wrapped::direct(b"\xBCBNCx".to_vec()).is_err());
        let other = Wrapped::direct(b"\xBCBNx".to_vec()).unwrap();
        assert_eq!(other.to_reference().kms(), Ok(other));
    }

    #[test]
    fn a_direct_blob_keeps_kmss_own_limit() {
        let of = |length: usize| STANDARD.encode(vec![1; length]).parse::<CiphertextRef>().unwrap().kms();
        assert!(of(6_144).is_ok());
        assert!(of(6_145).is_err());
        assert!("A".repeat(MAX).parse::<CiphertextRef>().is_ok());
        assert!("A".repeat(MAX + 1).parse::<CiphertextRef>().is_err());
    }
}
