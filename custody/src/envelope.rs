//! The envelope for a plaintext of more than KMS's 4,096 bytes: its framing, byte by byte, and nothing of its
//! cryptography.
//!
//! `bouncerctl` makes envelopes, the resolver opens them, and the control plane looks whether one could be opened at
//! all. A data key of 32 bytes, made by KMS for this one payload and wrapped under the encryption context, encrypts the
//! payload by AES-256-GCM. All numbers are big-endian:
//!
//! ```text
//! offset  length  what
//!      0       4  magic: BC 42 4E 43 (no KMS blob begins so)
//!      4       1  version: 1
//!      5       1  algorithm: 1, AES-256-GCM with a nonce of 96 and a tag of 128 bits
//!      6       4  n, the payload's length: 1 to 65,536
//!     10      12  nonce, random
//!     22       2  w, the wrapped key's length: 1 to 6,144
//!     24       w  wrapped key: the KMS ciphertext blob of the data key
//!   24+w    n+16  the encrypted payload, then its tag
//! ```
//!
//! Nothing may follow. `ciphertext_ref` is the standard base64 of the whole, so each begins with `vEJOQwEB`.
//!
//! The tag also covers, as GCM's associated data, bytes 0 to 21 and after them the encryption context in one canonical
//! form: the number of pairs (2 bytes), then for each pair, ordered by the bytes of its key: length of the key (2), key,
//! length of the value (2), value. Two things are left out of it on purpose, since KMS `ReEncrypt` moves a data key to
//! another KMS key without anyone seeing it, and must not break the tag:
//! - the wrapped key and its length. The data key that comes out of it decides over the tag, as it must;
//! - the pair `generation=`, which is another number for each registration. KMS proves it all the same, since the data
//!   key is wrapped under the whole context; and a data key is used for one payload only, so that no payload can be put
//!   under another's wrapped key.

use crate::malformed::{Malformed, Problem};
use crate::{EncryptionContext, Reserved};

const WHAT: &str = "ciphertext_ref";
const MAGIC: [u8; 4] = [0xBC, b'B', b'N', b'C'];
const VERSION: u8 = 1;
const AES_256_GCM: u8 = 1;
const HEADER: usize = 22;

/// The longest ciphertext blob that KMS takes and gives, in bytes.
pub(crate) const MAX_KMS_BLOB: usize = 6_144;

/// A framed envelope: every length holds, nothing is decrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedEnvelope {
    header: EnvelopeHeader,
    wrapped_key: Box<[u8]>,
    sealed: Box<[u8]>,
}

/// The part of an envelope that its tag covers as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EnvelopeHeader {
    payload: u32,
    nonce: [u8; 12],
}

impl EnvelopeHeader {
    /// The longest payload, in bytes.
    pub const MAX_PAYLOAD: usize = 64 * 1024;
    /// The data key's length, in bytes.
    pub const KEY: usize = 32;
    /// The tag's length, in bytes.
    pub const TAG: usize = 16;

    /// For a payload of so many bytes, and a nonce that the data key was never used with.
    ///
    /// # Errors
    /// [`Malformed`] for an empty payload, and one of more than [`Self::MAX_PAYLOAD`] bytes.
    pub fn new(payload: usize, nonce: [u8; 12]) -> Result<Self, Malformed> {
        match u32::try_from(payload) {
            Ok(length) if (1..=Self::MAX_PAYLOAD).contains(&payload) => Ok(Self { payload: length, nonce }),
            _ => Err(Problem::Form("for a payload of 1 to 65,536 bytes").of(WHAT)),
        }
    }

    /// The nonce.
    #[must_use]
    pub const fn nonce(&self) -> [u8; 12] {
        self.nonce
    }

    fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4] = VERSION;
        bytes[5] = AES_256_GCM;
        bytes[6..10].copy_from_slice(&self.payload.to_be_bytes());
        bytes[10..].copy_from_slice(&self.nonce);
        bytes
    }

    /// GCM's associated data: this header, then the canonical context without `generation=`.
    #[must_use]
    pub fn associated_data(&self, context: Option<&EncryptionContext>) -> Vec<u8> {
        let pairs = context.into_iter().flat_map(EncryptionContext::pairs);
        let mut pairs: Vec<_> = pairs.filter(|(key, _)| *key != Reserved::Generation.as_str()).collect();
        pairs.sort_unstable();
        let mut bytes = self.bytes().to_vec();
        // A context has at most 8,192 bytes, so that no number here is too large for its two.
        let put = |bytes: &mut Vec<u8>, number: usize| {
            bytes.extend_from_slice(&u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes());
        };
        put(&mut bytes, pairs.len());
        for part in pairs.into_iter().flat_map(|(key, value)| [key, value]) {
            put(&mut bytes, part.len());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

impl SealedEnvelope {
    /// The longest envelope, in bytes.
    pub const MAX: usize = HEADER + 2 + MAX_KMS_BLOB + EnvelopeHeader::MAX_PAYLOAD + EnvelopeHeader::TAG;

    /// Puts an envelope together; `sealed` is the encrypted payload with its tag.
    ///
    /// # Errors
    /// [`Malformed`] if a length is out of its bounds, or not the header's.
    pub fn new(header: EnvelopeHeader, wrapped_key: &[u8], sealed: &[u8]) -> Result<Self, Malformed> {
        let bounds = 1..=MAX_KMS_BLOB;
        if !bounds.contains(&wrapped_key.len()) || sealed.len() != header.payload as usize + EnvelopeHeader::TAG {
            return Err(Problem::Form("an envelope whose lengths agree").of(WHAT));
        }
        Ok(Self { header, wrapped_key: wrapped_key.into(), sealed: sealed.into() })
    }

    /// Whether these bytes are meant to be an envelope, of whatever version.
    #[must_use]
    pub fn is_meant_by(bytes: &[u8]) -> bool {
        bytes.starts_with(&MAGIC)
    }

    /// Takes an envelope apart.
    ///
    /// # Errors
    /// [`Malformed`]: another version or algorithm, a length out of its bounds, cut off, or followed by something.
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let form = |form| Problem::Form(form).of(WHAT);
        let cut_off = || form("a whole envelope");
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let (kind, rest) = rest.split_first_chunk::<2>().ok_or_else(cut_off)?;
        if *magic != MAGIC || *kind != [VERSION, AES_256_GCM] {
            return Err(form("an envelope of version 1 by AES-256-GCM"));
        }
        let (payload, rest) = rest.split_first_chunk::<4>().ok_or_else(cut_off)?;
        let (nonce, rest) = rest.split_first_chunk::<12>().ok_or_else(cut_off)?;
        let (wrapped, rest) = rest.split_first_chunk::<2>().ok_or_else(cut_off)?;
        let header = EnvelopeHeader::new(u32::from_be_bytes(*payload) as usize, *nonce)?;
        let wrapped = usize::from(u16::from_be_bytes(*wrapped));
        let (wrapped_key, sealed) = rest.split_at_checked(wrapped).ok_or_else(cut_off)?;
        Self::new(header, wrapped_key, sealed)
    }

    /// The bytes, as [`Self::parse`] reads them.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let wrapped = u16::try_from(self.wrapped_key.len()).unwrap_or(u16::MAX);
        [&self.header.bytes()[..], &wrapped.to_be_bytes(), &self.wrapped_key, &self.sealed].concat()
    }

    /// The same payload, with its data key wrapped otherwise.
    ///
    /// # Errors
    /// [`Malformed`] if that is no KMS blob by its length.
    pub fn with_wrapped_key(&self, wrapped_key: &[u8]) -> Result<Self, Malformed> {
        Self::new(self.header, wrapped_key, &self.sealed)
    }

    /// The part that the tag covers.
    #[must_use]
    pub const fn header(&self) -> &EnvelopeHeader {
        &self.header
    }

    /// The data key, wrapped: what KMS decrypts.
    #[must_use]
    pub fn wrapped_key(&self) -> &[u8] {
        &self.wrapped_key
    }

    /// The encrypted payload and its tag.
    #[must_use]
    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CiphertextRef, Wrapped};
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    }

    /// The published vectors, as far as the framing goes. The resolver's tests open them.
    #[test]
    fn the_published_vectors_frame_as_they_say() {
        let file: serde_json::Value =
            serde_json::from_str(include_str!("../vectors/envelope-v1.json")).expect("the vectors are JSON");
        let vectors = file["vectors"].as_array().expect("a list of vectors");
        assert!(vectors.len() > 20);
        for vector in vectors {
            let text = |name: &str| vector[name].as_str().unwrap_or_else(|| panic!("{name} of {}", vector["name"]));
            let wrapped = text("ciphertext_ref").parse::<CiphertextRef>().map(|reference| reference.kms());
            match text("result") {
                "malformed" => assert!(!matches!(wrapped, Ok(Ok(_))), "{}", vector["name"]),
                "direct" => assert!(matches!(wrapped, Ok(Ok(Wrapped::Direct(_)))), "{}", vector["name"]),
                result => {
                    let Ok(Ok(Wrapped::Envelope(envelope))) = wrapped else { panic!("{} parses", vector["name"]) };
                    assert_eq!(envelope.wrapped_key(), hex(text("wrapped_key")), "{}", vector["name"]);
                    if result == "opens" {
                        let context = vector["context"].as_str().map(|context| context.parse().unwrap());
                        let associated = envelope.header().associated_data(context.as_ref());
                        assert_eq!(associated, hex(text("associated_data")), "{}", vector["name"]);
                    }
                }
            }
        }
    }

    #[test]
    fn the_order_of_pairs_means_nothing_and_the_generation_is_left_out() {
        let header = EnvelopeHeader::new(1, [7; 12]).unwrap();
        let of = |text: &str| header.associated_data(Some(&text.parse().unwrap()));
        assert_eq!(of("a=1,b=2"), of("b=2,a=1"));
        assert_eq!(of("a=1,generation=1"), of("generation=2,a=1"));
        assert_ne!(of("a=1"), of("a=2"));
        assert_ne!(of("a=b=c"), of("a=b"));
        assert_ne!(of("a=1"), header.associated_data(None));
        assert_eq!(of("generation=3"), header.associated_data(None));
    }

    #[test]
    fn lengths_out_of_bounds_are_refused() {
        let header = EnvelopeHeader::new(4, [0; 12]).unwrap();
        assert!(SealedEnvelope::new(header, &[1], &[0; 20]).is_ok());
        assert!(SealedEnvelope::new(header, &[1], &[0; 19]).is_err());
        assert!(SealedEnvelope::new(header, &[], &[0; 20]).is_err());
        assert!(SealedEnvelope::new(header, &[0; 6_145], &[0; 20]).is_err());
        assert!(EnvelopeHeader::new(0, [0; 12]).is_err());
        assert!(EnvelopeHeader::new(65_536, [0; 12]).is_ok());
        assert!(EnvelopeHeader::new(65_537, [0; 12]).is_err());
    }

    proptest! {
        #[test]
        fn whatever_parses_is_written_as_it_was(bytes in proptest::collection::vec(any::<u8>(), 0..80), good in any::<bool>()) {
            let mut bytes = bytes;
            if good {
                bytes.splice(..bytes.len().min(6), [0xBC, b'B', b'N', b'C', 1, 1]);
            }
            if let Ok(envelope) = SealedEnvelope::parse(&bytes) {
                prop_assert_eq!(envelope.to_bytes(), bytes);
            }
        }

        #[test]
        fn what_is_put_together_parses(payload in 1_usize..300, key in 1_usize..300, nonce in any::<[u8; 12]>()) {
            let header = EnvelopeHeader::new(payload, nonce).unwrap();
            let envelope = SealedEnvelope::new(header, &vec![1; key], &vec![2; payload + 16]).unwrap();
            let mut bytes = envelope.to_bytes();
            prop_assert_eq!(&SealedEnvelope::parse(&bytes), &Ok(envelope.clone()));
            let moved = envelope.with_wrapped_key(&[9; 200]).unwrap();
            prop_assert_eq!(moved.header().associated_data(None), envelope.header().associated_data(None));
            bytes.push(0);
            prop_assert!(SealedEnvelope::parse(&bytes).is_err());
            bytes.truncate(bytes.len() - 2);
            prop_assert!(SealedEnvelope::parse(&bytes).is_err());
        }
    }
}
