//! Checkpoints: how far a chain has come, signed under an X.509-SVID. The certificate travels with it, so that whoever
//! has the trust bundle of that time can verify it for good.

use crate::bundle::Bundles;
use crate::chain::{ChainId, ChainPoint, Owner, framed};
use crate::digest::Digest;
use crate::line::{base64_text, base64_texts, millis};
use bouncer_custody::SpiffeId;
use rustls::SignatureScheme;
use rustls::sign::SigningKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, SignatureVerificationAlgorithm};
use serde::{Deserialize, Serialize};
use std::str::FromStr;
use std::sync::Arc;
use webpki::EndEntityCert;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const CHECKPOINT: &[u8] = b"bouncer.audit.checkpoint.v1\0";
/// So many events a resolver lets go without a checkpoint: the batch in which there would be more brings one.
pub const CHECKPOINT_EVENTS: u64 = 1_000;
/// More than any SVID has in front of its authority.
const CERTIFICATES: usize = 8;

/// Why a checkpoint is not good, or can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// The SVID's key is of a kind that signs no checkpoints.
    #[error("the SVID's key is none that signs checkpoints: ECDSA on P-256 or P-384, RSA or Ed25519 are")]
    Key,
    /// The key refused.
    #[error("the checkpoint could not be signed")]
    Signing,
    /// No certificates, too many, or none that can be read.
    #[error("its certificates can't be read")]
    Certificates,
    /// The leaf is no X.509-SVID.
    #[error("its certificate has no single SPIFFE ID")]
    NoSpiffeId,
    /// The signature does not match.
    #[error("its signature does not match")]
    Signature,
    /// There is no bundle for the trust domain.
    #[error("no bundle is given for its trust domain")]
    NoBundle,
    /// The certificate was not valid then.
    #[error("its certificate was not valid at the checkpoint's time")]
    NotValidThen,
    /// The certificates do not lead to the bundle.
    #[error("its certificate does not lead to the trust domain's bundle")]
    Untrusted,
}

/// How a checkpoint is signed; the SVID's key decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256, ASN.1.
    EcdsaP256Sha256,
    /// ECDSA on P-384 with SHA-384, ASN.1.
    EcdsaP384Sha384,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RsaPkcs1Sha256,
    /// Ed25519.
    Ed25519,
}

impl Algorithm {
    const ALL: [(Self, SignatureScheme, &'static str); 4] = [
        (Self::EcdsaP256Sha256, SignatureScheme::ECDSA_NISTP256_SHA256, "ecdsa_p256_sha256"),
        (Self::EcdsaP384Sha384, SignatureScheme::ECDSA_NISTP384_SHA384, "ecdsa_p384_sha384"),
        (Self::RsaPkcs1Sha256, SignatureScheme::RSA_PKCS1_SHA256, "rsa_pkcs1_sha256"),
        (Self::Ed25519, SignatureScheme::ED25519, "ed25519"),
    ];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        Self::ALL.iter().find(|(algorithm, ..)| *algorithm == self).map_or("", |(_, _, name)| name)
    }

    fn verification(self) -> &'static dyn SignatureVerificationAlgorithm {
        match self {
            Self::EcdsaP256Sha256 => webpki::aws_lc_rs::ECDSA_P256_SHA256,
            Self::EcdsaP384Sha384 => webpki::aws_lc_rs::ECDSA_P384_SHA384,
            Self::RsaPkcs1Sha256 => webpki::aws_lc_rs::RSA_PKCS1_2048_8192_SHA256,
            Self::Ed25519 => webpki::aws_lc_rs::ED25519,
        }
    }
}

impl FromStr for Algorithm {
    type Err = CheckpointError;

    fn from_str(text: &str) -> Result<Self, CheckpointError> {
        let known = Self::ALL.iter().find(|(_, _, name)| *name == text);
        known.map(|(algorithm, ..)| *algorithm).ok_or(CheckpointError::Key)
    }
}

/// How far a chain has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Which chain.
    pub chain: ChainId,
    /// Whose events it holds.
    pub owner: Owner,
    /// Counts the chain's checkpoints from 1, so that none can be left out.
    pub number: u64,
    /// The last event that it covers.
    pub sequence: u64,
    /// The head behind that event.
    pub head: Digest,
    /// When it was signed, Unix milliseconds.
    #[serde(rename = "time", with = "millis")]
    pub time_ms: i64,
}

impl Checkpoint {
    /// Where in the chain.
    #[must_use]
    pub fn point(&self) -> ChainPoint {
        ChainPoint { chain: self.chain.clone(), sequence: self.sequence, head: self.head }
    }

    /// What is signed.
    #[must_use]
    pub fn to_be_signed(&self) -> Vec<u8> {
        let mut bytes = CHECKPOINT.to_vec();
        framed(self.chain.as_str(), &mut bytes);
        framed(&self.owner.to_string(), &mut bytes);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(self.head.as_bytes());
        bytes.extend_from_slice(&self.time_ms.to_be_bytes());
        bytes
    }
}

/// A checkpoint with its signature and the SVID that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// What is signed.
    #[serde(flatten)]
    pub checkpoint: Checkpoint,
    /// How.
    pub algorithm: Algorithm,
    /// The signature; in base64 where it is text.
    #[serde(with = "base64_text")]
    pub signature: Vec<u8>,
    /// The SVID's certificates, leaf first, DER; in base64 where they are text.
    #[serde(with = "base64_texts")]
    pub certificates: Vec<Vec<u8>>,
}

impl Signed {
    /// Whether the key of the certificate that came with it made the signature. Returns the certificate's SPIFFE ID.
    /// Who vouches for that certificate is another question: [`Signed::verify`].
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn verify_signature(&self) -> Result<SpiffeId, CheckpointError> {
        let leaf = self.leaf()?;
        let id = spiffe_id(&leaf)?;
        let certificate = EndEntityCert::try_from(&leaf).map_err(|_| CheckpointError::Certificates)?;
        let message = self.checkpoint.to_be_signed();
        certificate
            .verify_signature(self.algorithm.verification(), &message, &self.signature)
            .map_err(|_| CheckpointError::Signature)?;
        Ok(id)
    }

    /// Whether it was signed under an SVID that the bundles vouch for and that was valid at its time. Returns whose.
    ///
    /// # Errors
    /// [`CheckpointError`].
    pub fn verify(&self, bundles: &Bundles) -> Result<SpiffeId, CheckpointError> {
        let id = self.verify_signature()?;
        let intermediates: Vec<_> = self.certificates.iter().skip(1).map(|der| CertificateDer::from(&**der)).collect();
        bundles.verify(&self.leaf()?, &intermediates, &id, self.checkpoint.time_ms)?;
        Ok(id)
    }

    fn leaf(&self) -> Result<CertificateDer<'_>, CheckpointError> {
        if self.certificates.len() > CERTIFICATES {
            return Err(CheckpointError::Certificates);
        }
        self.certificates.first().map(|der| CertificateDer::from(&**der)).ok_or(CheckpointError::Certificates)
    }
}

/// The identity in a leaf: exactly one URI SAN, a SPIFFE ID (X509-SVID, section 2).
fn spiffe_id(leaf: &[u8]) -> Result<SpiffeId, CheckpointError> {
    let (_, certificate) = X509Certificate::from_der(leaf).map_err(|_| CheckpointError::Certificates)?;
    let names = certificate.subject_alternative_name().ok().flatten().ok_or(CheckpointError::NoSpiffeId)?;
    let mut uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => uri.parse().map_err(|_| CheckpointError::NoSpiffeId),
        _ => Err(CheckpointError::NoSpiffeId),
    }
}

/// Signs under one SVID.
#[derive(Debug)]
pub struct Signer {
    key: Arc<dyn SigningKey>,
    certificates: Vec<Vec<u8>>,
}

impl Signer {
    /// With the SVID's key and its certificates, leaf first.
    ///
    /// # Errors
    /// [`CheckpointError::Key`].
    pub fn new(key: &PrivateKeyDer<'_>, certificates: Vec<Vec<u8>>) -> Result<Self, CheckpointError> {
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(key).map_err(|_| CheckpointError::Key)?;
        Ok(Self { key, certificates })
    }

    /// Whether a checkpoint was signed under this very SVID.
    #[must_use]
    pub fn made(&self, signed: &Signed) -> bool {
        signed.certificates.first() == self.certificates.first()
    }

    /// Signs.
    ///
    /// # Errors
    /// [`CheckpointError::Key`], [`CheckpointError::Signing`].
    pub fn sign(&self, checkpoint: Checkpoint) -> Result<Signed, CheckpointError> {
        let offered = Algorithm::ALL.map(|(_, scheme, _)| scheme);
        let signer = self.key.choose_scheme(&offered).ok_or(CheckpointError::Key)?;
        let chosen = Algorithm::ALL.iter().find(|(_, scheme, _)| *scheme == signer.scheme());
        let algorithm = chosen.map(|(algorithm, ..)| *algorithm).ok_or(CheckpointError::Key)?;
        let signature = signer.sign(&checkpoint.to_be_signed()).map_err(|_| CheckpointError::Signing)?;
        Ok(Signed { checkpoint, algorithm, signature, certificates: self.certificates.clone() })
    }
}
