//! Seals a payload into an envelope under a new data key. The format: `bouncer_custody::SealedEnvelope`.
//!
//! Called by `wrap` where KMS itself would take no plaintext of that length, and for `--form envelope`. Encrypts in place and wipes the data key.

use crate::kms::{DataKey, KmsError};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bouncer_custody::{EncryptionContext, EnvelopeHeader, SealedEnvelope};
use zeroize::Zeroizing;

/// Encrypts `payload`, of at most 64 KiB, under a data key that is used for nothing else.
///
/// # Errors
/// [`KmsError::UnusableAnswer`] if the data key is none of 32 bytes.
pub(super) fn seal(
    mut payload: Zeroizing<Vec<u8>>,
    data_key: DataKey,
    aad: Option<&EncryptionContext>,
) -> Result<SealedEnvelope, KmsError> {
    let key = UnboundKey::new(&AES_256_GCM, &data_key.plaintext).map_err(|_| KmsError::UnusableAnswer)?;
    let mut nonce = [0; 12];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| KmsError::NoRandomness)?;
    let header = EnvelopeHeader::new(payload.len(), nonce).map_err(|_| KmsError::UnusableAnswer)?;
    let associated = Aad::from(header.associated_data(aad));
    LessSafeKey::new(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), associated, &mut *payload)
        .map_err(|_| KmsError::UnusableAnswer)?;
    SealedEnvelope::new(header, &data_key.wrapped, &payload).map_err(|_| KmsError::UnusableAnswer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_envelope_has_its_own_nonce_and_opens_under_its_context_only() {
        let payload = b"a payload".to_vec();
        let key = || DataKey { plaintext: vec![7; 32].into(), wrapped: vec![1, 2, 3] };
        let aad: EncryptionContext = "bouncer=a,generation=1".parse().unwrap();
        let sealed = || seal(payload.clone().into(), key(), Some(&aad)).unwrap();
        let (one, other) = (sealed(), sealed());
        assert_ne!(one.header().nonce(), other.header().nonce());
        assert_eq!(one.wrapped_key(), [1, 2, 3]);

        let open = |context: &str| {
            let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
            let nonce = Nonce::assume_unique_for_key(one.header().nonce());
            let mut bytes = one.sealed().to_vec();
            let associated = Aad::from(one.header().associated_data(Some(&context.parse().unwrap())));
            key.open_in_place(nonce, associated, &mut bytes).ok().map(|payload| payload.to_vec())
        };
        assert_eq!(open("generation=2,bouncer=a"), Some(payload.clone()));
        assert_eq!(open("bouncer=b,generation=1"), None);
    }

    #[test]
    fn only_a_key_of_32_bytes_is_one() {
        let key = DataKey { plaintext: vec![7; 16].into(), wrapped: vec![1] };
        assert!(matches!(seal(vec![1].into(), key, None), Err(KmsError::UnusableAnswer)));
    }
}
