//! What an unwrapped envelope holds, parsed and checked before anyone is served.
//!
//! Called by the [`crate::cache`] with the provider's plaintext, which it wipes afterwards. Private bytes go to the
//! arena; what is public (the chain) is ordinary memory.

use crate::arena::{Arena, Secret};
use bouncer_custody::{Hex, Reason};
use rustls_pki_types::pem::{PemObject as _, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::{Zeroize as _, Zeroizing};

/// A client certificate with its private key, ready for SDS.
#[derive(Debug)]
pub struct ClientCertificate {
    /// The chain, leaf first, PEM. Public.
    pub chain: Box<[u8]>,
    /// The private key, PEM.
    pub key: Secret,
    /// When the first certificate of the chain ends, unix seconds.
    pub not_after: i64,
}

/// The JSON form of a plaintext, wiped when dropped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Json {
    kind: String,
    #[serde(default)]
    certificate_chain: String,
    #[serde(default)]
    private_key: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    value: String,
}

impl Drop for Json {
    fn drop(&mut self) {
        self.private_key.zeroize();
        self.value.zeroize();
    }
}

impl ClientCertificate {
    /// Parses a PEM bundle (a key, with or without its chain) or the JSON form; `beside` is the public chain that
    /// travels with the ciphertext, used where the plaintext has none.
    ///
    /// # Errors
    /// A [`Reason`]: malformed, another kind of credential, a key that does not match, dates that do not hold at `now`
    /// (unix seconds).
    pub fn parse(plaintext: &[u8], beside: &str, now: i64, arena: &Arc<Arena>) -> Result<Self, Reason> {
        if plaintext.trim_ascii_start().first() == Some(&b'{') {
            let json: Json = serde_json::from_slice(plaintext).map_err(|_| Reason::CredentialMalformed)?;
            let foreign = !(json.name.is_empty() && json.prefix.is_empty() && json.value.is_empty());
            return match json.kind.as_str() {
                "client_certificate" if !foreign => {
                    let mut bundle = Zeroizing::new(Vec::with_capacity(plaintext.len()));
                    bundle.extend_from_slice(json.private_key.as_bytes());
                    bundle.push(b'\n');
                    bundle.extend_from_slice(json.certificate_chain.as_bytes());
                    Self::parse_pem(&bundle, beside, now, arena)
                }
                "header" => Err(Reason::CredentialKindUnsupported),
                _ => Err(Reason::CredentialMalformed),
            };
        }
        Self::parse_pem(plaintext, beside, now, arena)
    }

    /// A digest of the public chain, lower-case hex.
    #[must_use]
    pub fn chain_sha256(&self) -> String {
        Hex(&Sha256::digest(&self.chain)).to_string()
    }

    /// A self-signed certificate that nobody trusts, to take the place of a revoked one.
    ///
    /// # Errors
    /// [`Reason::Internal`] if no key could be made.
    pub fn throwaway() -> Result<Self, Reason> {
        let make = || {
            let key = rcgen::KeyPair::generate()?;
            let certificate = rcgen::CertificateParams::new(vec!["revoked.invalid".to_owned()])?.self_signed(&key)?;
            Ok::<_, rcgen::Error>((key, certificate))
        };
        let (key, certificate) = make().map_err(|_| Reason::Internal)?;
        let key = Zeroizing::new(key.serialize_pem());
        let key = Arena::new().store(key.as_bytes()).map_err(|_| Reason::Internal)?;
        Ok(Self { chain: certificate.pem().into_bytes().into(), key, not_after: i64::MAX })
    }

    fn parse_pem(bundle: &[u8], beside: &str, now: i64, arena: &Arc<Arena>) -> Result<Self, Reason> {
        let mut key = None;
        let mut chain = Vec::new();
        for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(bundle) {
            let (kind, der) = section.map_err(|_| Reason::CredentialMalformed)?;
            match kind {
                SectionKind::Certificate => chain.push(CertificateDer::from(der)),
                SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey if key.is_none() => {
                    key = Some((kind, Zeroizing::new(der)));
                }
                _ => return Err(Reason::CredentialMalformed),
            }
        }
        let (kind, key) = key.ok_or(Reason::CredentialMalformed)?;
        if chain.is_empty() {
            for certificate in CertificateDer::pem_slice_iter(beside.as_bytes()) {
                chain.push(certificate.map_err(|_| Reason::CredentialMalformed)?);
            }
        }
        let not_after = check_chain(&chain, now)?;
        check_key(kind, &key, &chain)?;
        let mut pem = encode_pem(label(kind), &key);
        let stored = arena.store(pem.as_bytes()).map_err(|_| Reason::CredentialMalformed);
        pem.zeroize();
        let chain: String = chain.iter().map(|der| encode_pem("CERTIFICATE", der).as_str().to_owned()).collect();
        Ok(Self { chain: chain.into_bytes().into(), key: stored?, not_after })
    }
}

const fn label(kind: SectionKind) -> &'static str {
    match kind {
        SectionKind::RsaPrivateKey => "RSA PRIVATE KEY",
        SectionKind::EcPrivateKey => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    }
}

/// RFC 7468, lines of 64.
fn encode_pem(label: &str, der: &[u8]) -> Zeroizing<String> {
    use base64::Engine as _;
    let body = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(der));
    let mut pem = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40));
    pem.push_str("-----BEGIN ");
    pem.push_str(label);
    pem.push_str("-----\n");
    for line in body.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).unwrap_or_default());
        pem.push('\n');
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

/// The chain is not empty, each certificate names the next as its issuer, and all hold now. Returns the first end.
fn check_chain(chain: &[CertificateDer<'_>], now: i64) -> Result<i64, Reason> {
    let mut parsed = Vec::with_capacity(chain.len());
    for der in chain {
        let (rest, certificate) = X509Certificate::from_der(der).map_err(|_| Reason::CredentialMalformed)?;
        if !rest.is_empty() {
            return Err(Reason::CredentialMalformed);
        }
        parsed.push(certificate);
    }
    if parsed.windows(2).any(|pair| pair[0].issuer() != pair[1].subject()) {
        return Err(Reason::CredentialMalformed);
    }
    if parsed.iter().any(|certificate| certificate.validity().not_before.timestamp() > now) {
        return Err(Reason::CredentialNotYetValid);
    }
    let ends = parsed.iter().map(|certificate| certificate.validity().not_after.timestamp());
    let not_after = ends.min().ok_or(Reason::CredentialMalformed)?;
    if not_after <= now { Err(Reason::CredentialExpired) } else { Ok(not_after) }
}

fn check_key(kind: SectionKind, key: &[u8], chain: &[CertificateDer<'static>]) -> Result<(), Reason> {
    let key = match kind {
        SectionKind::RsaPrivateKey => PrivateKeyDer::Pkcs1(key.into()),
        SectionKind::EcPrivateKey => PrivateKeyDer::Sec1(key.into()),
        _ => PrivateKeyDer::Pkcs8(key.into()),
    };
    let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).map_err(|_| Reason::CredentialMalformed)?;
    let leaf = chain.first().ok_or(Reason::CredentialMalformed)?;
    let (_, leaf) = X509Certificate::from_der(leaf).map_err(|_| Reason::CredentialMalformed)?;
    match key.public_key() {
        Some(public) if public.as_ref() == leaf.public_key().raw => Ok(()),
        _ => Err(Reason::CredentialKeyMismatch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};

    fn now() -> i64 {
        jiff::Timestamp::now().as_second()
    }

    fn certificate(key: &KeyPair, years: std::ops::Range<i32>) -> String {
        let mut params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
        params.self_signed(key).unwrap().pem()
    }

    fn parse(plaintext: &str, beside: &str) -> Result<ClientCertificate, Reason> {
        ClientCertificate::parse(plaintext.as_bytes(), beside, now(), &Arena::new())
    }

    #[test]
    fn a_bundle_a_bare_key_and_json_are_the_same_credential() {
        let key = KeyPair::generate().unwrap();
        let certificate = certificate(&key, 2020..2100);
        let bundle = parse(&format!("{certificate}{}", key.serialize_pem()), "").unwrap();
        let bare = parse(&key.serialize_pem(), &certificate).unwrap();
        let json = serde_json::json!({"kind": "client_certificate", "certificate_chain": certificate, "private_key": key.serialize_pem()});
        let json = parse(&json.to_string(), "").unwrap();
        let key_of = |credential: &ClientCertificate| credential.key.expose(<[u8]>::to_vec);
        assert_eq!((key_of(&bundle), &bundle.chain), (key_of(&bare), &bare.chain));
        assert_eq!((key_of(&bundle), &bundle.chain), (key_of(&json), &json.chain));
        let der = PrivateKeyDer::from_pem_slice(&key_of(&bundle)).unwrap();
        assert_eq!(der.secret_der(), key.serialized_der());
    }

    #[test]
    fn what_could_not_work_is_refused_with_its_reason() {
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let bundle = |key: &KeyPair, years| format!("{}{}", key.serialize_pem(), certificate(key, years));
        let refused = |plaintext: &str| parse(plaintext, "").unwrap_err();
        assert_eq!(refused(&bundle(&key, 2000..2001)), Reason::CredentialExpired);
        assert_eq!(refused(&bundle(&key, 2100..2101)), Reason::CredentialNotYetValid);
        let mismatch = format!("{}{}", other.serialize_pem(), certificate(&key, 2020..2100));
        assert_eq!(refused(&mismatch), Reason::CredentialKeyMismatch);
        assert_eq!(refused(&key.serialize_pem()), Reason::CredentialMalformed);
        assert_eq!(refused(&certificate(&key, 2020..2100)), Reason::CredentialMalformed);
        assert_eq!(refused(""), Reason::CredentialMalformed);
        let unrelated = format!("{}{}", bundle(&key, 2020..2100), {
            let mut params = CertificateParams::new(vec!["ca.test".to_owned()]).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, "another");
            params.self_signed(&other).unwrap().pem()
        });
        assert_eq!(refused(&unrelated), Reason::CredentialMalformed);
        assert_eq!(
            refused(r#"{"kind":"header","name":"authorization","value":"x"}"#),
            Reason::CredentialKindUnsupported
        );
    }

    proptest! {
        #[test]
        fn garbage_never_parses_and_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(ClientCertificate::parse(&bytes, "", now(), &Arena::new()).is_err());
        }
    }
}
