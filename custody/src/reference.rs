//! The opaque reference to a wrapped credential.

use crate::malformed::{Problem, bounded, checked_text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const WHAT: &str = "ciphertext_ref";
const KMS_BLOB: &str = "standard base64 of a KMS ciphertext blob of at most 6,144 bytes";

checked_text! {
    /// What the resolver hands to the provider: a base64 ciphertext blob for KMS, a path for Vault. Opaque to the
    /// control plane. At most 16,384 bytes of visible ASCII.
    CiphertextRef, |text| {
        bounded(text, WHAT, 16_384)?;
        if text.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(())
        } else {
            Err(Problem::Character("visible ASCII without spaces").of(WHAT))
        }
    }
}

impl CiphertextRef {
    /// The ciphertext blob for KMS `Decrypt`, at most 6,144 bytes (the API's own limit).
    ///
    /// # Errors
    /// [`crate::Malformed`] if this is no base64, or too long once decoded: no bouncer could ever unwrap it.
    pub fn kms_blob(&self) -> Result<Vec<u8>, crate::Malformed> {
        let blob = STANDARD.decode(&*self.0).map_err(|_| Problem::Form(KMS_BLOB).of(WHAT))?;
        if blob.is_empty() || blob.len() > 6_144 {
            return Err(Problem::Form(KMS_BLOB).of(WHAT));
        }
        Ok(blob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guides_shortened_blob_is_stored_but_never_unwrapped() {
        let reference: CiphertextRef = "AQICAHh...opaque-envelope-blob...".parse().unwrap();
        assert!(reference.kms_blob().is_err());
        let whole: CiphertextRef = "AQICAHg=".parse().unwrap();
        assert_eq!(whole.kms_blob().unwrap(), [1, 2, 2, 0, 0x78]);
    }
}
