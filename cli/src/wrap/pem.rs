//! PEM bundles: one private key and its chain, taken apart and put together again without anything else that may stand
//! in such a file (bag attributes, notes, curve parameters).

use super::CredentialError;
use base64::Engine as _;
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::{Zeroize as _, Zeroizing};

/// A private key as it stood in the bundle. Neither `Clone` nor `Debug`; wiped at its end.
pub(crate) struct PrivateKey {
    label: &'static str,
    der: PrivateKeyDer<'static>,
}

impl Drop for PrivateKey {
    fn drop(&mut self) {
        self.der.zeroize();
    }
}

impl PrivateKey {
    fn new(kind: SectionKind, der: Vec<u8>) -> Option<Self> {
        let (label, der) = match kind {
            SectionKind::PrivateKey => ("PRIVATE KEY", PrivateKeyDer::Pkcs8(der.into())),
            SectionKind::RsaPrivateKey => ("RSA PRIVATE KEY", PrivateKeyDer::Pkcs1(der.into())),
            SectionKind::EcPrivateKey => ("EC PRIVATE KEY", PrivateKeyDer::Sec1(der.into())),
            _ => return None,
        };
        Some(Self { label, der })
    }

    /// Its public half as a DER `SubjectPublicKeyInfo`.
    ///
    /// # Errors
    /// [`CredentialError::UnusableKey`] if no TLS stack of ours takes the key.
    pub(crate) fn public_key(&self) -> Result<Vec<u8>, CredentialError> {
        let key =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&self.der).map_err(|_| CredentialError::UnusableKey)?;
        key.public_key().map(|public| public.as_ref().to_vec()).ok_or(CredentialError::UnusableKey)
    }

    /// The key as PEM.
    pub(crate) fn to_pem(&self) -> Zeroizing<Vec<u8>> {
        encode(self.label, self.der.secret_der())
    }
}

/// Takes a bundle apart: the key, if there is one, and the certificates in their order.
///
/// # Errors
/// Not PEM, an encrypted key, or more than one key.
pub(crate) fn parse(text: &str) -> Result<(Option<PrivateKey>, Vec<CertificateDer<'static>>), CredentialError> {
    if text.contains("-----BEGIN ENCRYPTED PRIVATE KEY-----") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(CredentialError::EncryptedKey);
    }
    let (mut key, mut chain) = (None, Vec::new());
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text.as_bytes()) {
        let (kind, der) = section.map_err(|_| CredentialError::NotPem)?;
        if kind == SectionKind::Certificate {
            chain.push(CertificateDer::from(der));
        } else if let Some(found) = PrivateKey::new(kind, der) {
            if key.replace(found).is_some() {
                return Err(CredentialError::TwoKeys);
            }
        } else {
            return Err(CredentialError::ForeignSection);
        }
    }
    Ok((key, chain))
}

/// The certificates as PEM.
pub(crate) fn chain_to_pem(chain: &[CertificateDer<'_>]) -> String {
    let pem: Vec<u8> = chain.iter().flat_map(|der| encode("CERTIFICATE", der).to_vec()).collect();
    String::from_utf8(pem).unwrap_or_default()
}

/// RFC 7468: lines of 64.
fn encode(label: &str, der: &[u8]) -> Zeroizing<Vec<u8>> {
    let body = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut pem = Zeroizing::new(Vec::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40));
    pem.extend_from_slice(format!("-----BEGIN {label}-----\n").as_bytes());
    for line in body.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(format!("-----END {label}-----\n").as_bytes());
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_is_what_was_taken_apart() {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let noisy = format!(
            "Bag Attributes\n  friendlyName: x\n{pem}-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        );
        let (key, chain) = parse(&noisy).unwrap();
        assert_eq!(*key.unwrap().to_pem(), pem.replace("\r\n", "\n").as_bytes());
        assert!(chain.is_empty());
    }

    #[test]
    fn one_key_is_meant() {
        let pem = rcgen::KeyPair::generate().unwrap().serialize_pem();
        assert!(matches!(parse(&format!("{pem}{pem}")), Err(CredentialError::TwoKeys)));
        let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
        assert!(matches!(parse(encrypted), Err(CredentialError::EncryptedKey)));
        assert!(matches!(parse(&pem.replace("-----END", "-----FIN")), Err(CredentialError::NotPem)));
    }
}
