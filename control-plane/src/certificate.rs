//! The public certificate chain that may travel beside an envelope. Parsed here so that nothing else, least of all a
//! private key, can be stored under its name.

use jiff::Timestamp;
use x509_parser::pem::Pem;
use x509_parser::prelude::{FromDer as _, X509Certificate};

const LIMIT: usize = 10;
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// PEM of 1 to 10 X.509 certificates, leaf first, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateChain {
    pem: Box<str>,
    not_before_ms: i64,
    not_after_ms: i64,
}

/// Why a text is no certificate chain. Never repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Something besides certificates.
    #[error("certificate chain may hold only PEM blocks of type CERTIFICATE, with nothing between them")]
    NotOnlyCertificates,
    /// No block at all, or too many.
    #[error("certificate chain must hold 1 to 10 certificates")]
    Count,
    /// A block that is no X.509 certificate.
    #[error("certificate chain holds a block that is no X.509 certificate")]
    NotX509,
}

impl CertificateChain {
    /// The PEM as it was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.pem
    }

    /// When the leaf ends.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        Timestamp::from_millisecond(self.not_after_ms).unwrap_or(Timestamp::MAX)
    }

    /// Whether the leaf is valid at `now`.
    #[must_use]
    pub fn validity_at(&self, now: Timestamp) -> Validity {
        let now = now.as_millisecond();
        if now > self.not_after_ms {
            Validity::Expired
        } else if now < self.not_before_ms {
            Validity::NotYet
        } else {
            Validity::Current
        }
    }
}

/// How a certificate's dates stand to a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Validity {
    /// Between them.
    Current,
    /// After both.
    Expired,
    /// Before both.
    NotYet,
}

impl std::str::FromStr for CertificateChain {
    type Err = ChainError;

    fn from_str(text: &str) -> Result<Self, ChainError> {
        let mut rest = text.trim_start();
        let mut leaf = None;
        let mut count = 0;
        while !rest.is_empty() {
            // The block is cut out here, since PEM readers skip over text between blocks, where anything could hide.
            if !rest.starts_with(BEGIN) {
                return Err(ChainError::NotOnlyCertificates);
            }
            let end = rest.find(END).ok_or(ChainError::NotOnlyCertificates)? + END.len();
            let (block, after) = rest.split_at(end);
            if block[BEGIN.len()..].contains("-----BEGIN") {
                return Err(ChainError::NotOnlyCertificates);
            }
            let validity = certificate_validity(block)?;
            leaf.get_or_insert(validity);
            count += 1;
            if count > LIMIT {
                return Err(ChainError::Count);
            }
            rest = after.trim_start();
        }
        let (not_before_ms, not_after_ms) = leaf.ok_or(ChainError::Count)?;
        Ok(Self { pem: text.into(), not_before_ms, not_after_ms })
    }
}

/// Parses one block whole: no PEM headers, no bytes after the certificate.
fn certificate_validity(block: &str) -> Result<(i64, i64), ChainError> {
    if block.contains(':') {
        return Err(ChainError::NotOnlyCertificates);
    }
    let (pem, _) = Pem::read(std::io::Cursor::new(block.as_bytes())).map_err(|_| ChainError::NotX509)?;
    if pem.label != "CERTIFICATE" {
        return Err(ChainError::NotOnlyCertificates);
    }
    let (rest, certificate) = X509Certificate::from_der(&pem.contents).map_err(|_| ChainError::NotX509)?;
    if !rest.is_empty() {
        return Err(ChainError::NotX509);
    }
    let validity = certificate.validity();
    Ok((validity.not_before.timestamp().saturating_mul(1_000), validity.not_after.timestamp().saturating_mul(1_000)))
}
