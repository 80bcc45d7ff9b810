//! Opens an envelope with the data key that KMS gave for it. The format: `bouncer_custody::SealedEnvelope`.
//!
//! Called by [`super::Kms`] after its one call. The payload is decrypted in place, in memory that is wiped; the data key
//! is wiped whatever comes of it.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bouncer_custody::{EncryptionContext, EnvelopeHeader, Reason, SealedEnvelope};
use zeroize::Zeroizing;

/// The payload.
///
/// # Errors
/// [`Reason::EnvelopeNotAuthentic`] if payload, header and context are not those that were sealed with this data key,
/// or if it is no data key.
pub(super) fn open(
    envelope: &SealedEnvelope,
    context: Option<&EncryptionContext>,
    data_key: Zeroizing<Vec<u8>>,
) -> Result<Zeroizing<Vec<u8>>, Reason> {
    let key = UnboundKey::new(&AES_256_GCM, &data_key).map_err(|_| Reason::EnvelopeNotAuthentic)?;
    drop(data_key);
    let header = envelope.header();
    let nonce = Nonce::assume_unique_for_key(header.nonce());
    let mut payload = Zeroizing::new(envelope.sealed().to_vec());
    LessSafeKey::new(key)
        .open_in_place(nonce, Aad::from(header.associated_data(context)), &mut payload)
        .map_err(|_| Reason::EnvelopeNotAuthentic)?;
    payload.truncate(envelope.sealed().len() - EnvelopeHeader::TAG);
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bouncer_custody::{CiphertextRef, Wrapped};

    fn hex(text: &str) -> Zeroizing<Vec<u8>> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect::<Vec<_>>()
            .into()
    }

    #[test]
    fn the_published_vectors_open_or_do_not_as_they_say() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../../../custody/vectors/envelope-v1.json")).unwrap();
        let mut read = 0;
        for vector in file["vectors"].as_array().unwrap() {
            let name = &vector["name"];
            let reference = vector["ciphertext_ref"].as_str().unwrap().parse::<CiphertextRef>();
            // The others never come this far, as the tests of the framing say.
            let Ok(Ok(Wrapped::Envelope(envelope))) = reference.map(|reference| reference.kms()) else { continue };
            let context = vector["context"].as_str().map(|text| text.parse().unwrap());
            let opened = open(&envelope, context.as_ref(), hex(vector["data_key"].as_str().unwrap()));
            match vector["result"].as_str().unwrap() {
                "opens" => assert_eq!(opened, Ok(hex(vector["payload"].as_str().unwrap())), "{name}"),
                "not_authentic" => assert_eq!(opened, Err(Reason::EnvelopeNotAuthentic), "{name}"),
                other => panic!("{name}: {other} and yet an envelope"),
            }
            read += 1;
        }
        assert!(read > 20);
    }

    #[test]
    fn the_longest_payload_opens() {
        let payload = vec![0x61; EnvelopeHeader::MAX_PAYLOAD];
        let header = EnvelopeHeader::new(payload.len(), [5; 12]).unwrap();
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).unwrap());
        let mut sealed = payload.clone();
        let nonce = Nonce::assume_unique_for_key(header.nonce());
        key.seal_in_place_append_tag(nonce, Aad::from(header.associated_data(None)), &mut sealed).unwrap();
        let envelope = SealedEnvelope::new(header, &[1; 6_144], &sealed).unwrap();
        let reference = Wrapped::Envelope(envelope.clone()).to_reference();
        assert_eq!(reference.as_str().parse::<CiphertextRef>().unwrap().kms(), Ok(Wrapped::Envelope(envelope.clone())));
        assert_eq!(*open(&envelope, None, vec![7; 32].into()).unwrap(), payload);
    }
}
