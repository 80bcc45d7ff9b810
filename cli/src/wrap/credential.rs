//! The credential before it is wrapped: read, and held to the rules that the resolver will hold it to.

use super::header::{self, Json};
use super::pem::{self, PrivateKey};
use crate::args::Form;
use crate::failure::{Exit, Explain};
use bouncer_custody::EnvelopeHeader;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

/// The most that KMS encrypts in one call, in bytes.
const KMS_LIMIT: usize = 4_096;
/// A certificate that ends sooner than this is worth a word, in seconds.
const SOON: i64 = 30 * 24 * 3600;

/// Why something can't be wrapped. Never repeats any of it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    /// Neither PEM nor JSON.
    #[error("the credential is neither a PEM bundle nor a JSON credential")]
    NotPem,
    /// JSON, and not one of ours.
    #[error("the JSON credential is malformed, at line {line}")]
    BadJson {
        /// Where.
        line: usize,
    },
    /// The key is encrypted.
    #[error("the private key is encrypted with a passphrase")]
    EncryptedKey,
    /// More than one key.
    #[error("the bundle holds more than one private key")]
    TwoKeys,
    /// No key.
    #[error("the bundle holds no private key")]
    NoKey,
    /// A key in the chain file.
    #[error("the chain file holds a private key")]
    KeyInChain,
    /// Something else in PEM.
    #[error("the bundle holds a PEM section that is neither a private key nor a certificate")]
    ForeignSection,
    /// No certificate.
    #[error("there is no certificate for the key")]
    NoCertificate,
    /// Certificates in two places.
    #[error("there are certificates both in the bundle and in the chain file")]
    TwoChains,
    /// A key that TLS can't use.
    #[error("the private key is malformed, or of a kind that TLS can't use")]
    UnusableKey,
    /// A certificate that is none.
    #[error("certificate {position} of the chain is malformed")]
    UnusableCertificate {
        /// Counted from 1.
        position: usize,
    },
    /// Key and certificate don't match.
    #[error("the private key does not belong to the first certificate")]
    Mismatch {
        /// The certificate it does belong to, counted from 1.
        belongs_to: Option<usize>,
    },
    /// Not in order.
    #[error("certificate {position} of the chain is not issued by the next one")]
    BrokenChain {
        /// Counted from 1.
        position: usize,
    },
    /// Expired.
    #[error("certificate {position} of the chain ended at {at}")]
    Expired {
        /// Counted from 1.
        position: usize,
        /// When.
        at: String,
    },
    /// Longer than the form takes.
    #[error("the {what} is {length} bytes, and the form takes at most {limit}")]
    TooLong {
        /// What.
        what: &'static str,
        /// How long.
        length: usize,
        /// The form's limit.
        limit: usize,
    },
    /// A header that can't be sent.
    #[error("the header credential's {0} can't be used in an HTTP header")]
    BadHeader(&'static str),
    /// A chain for a header.
    #[error("a header credential has no certificate chain")]
    HeaderWithChain,
    /// A header that could go anywhere.
    #[error("a header credential must be bound to its destination")]
    HeaderWithoutUpstream,
    /// A reserved pair that can't match.
    #[error("the AAD's {key}= could never match: it must be {form}")]
    BadPair {
        /// Which.
        key: &'static str,
        /// What it should be.
        form: &'static str,
    },
}

impl Explain for CredentialError {
    fn why(&self) -> Option<String> {
        match self {
            Self::Mismatch { belongs_to: Some(position) } => Some(format!("it belongs to certificate {position}")),
            Self::HeaderWithoutUpstream => {
                Some("whoever receives a token can use it elsewhere, unlike a client certificate".to_owned())
            }
            Self::NoCertificate => {
                Some("the resolver serves a key only with a certificate that it belongs to".to_owned())
            }
            _ => None,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::NotPem => "Give a PEM file (openssl converts DER and PKCS#12), or JSON with a \"kind\". See bouncerctl wrap --help.",
            Self::BadJson { .. } => "Compare it with the forms in bouncerctl wrap --help. Unknown fields are refused.",
            Self::EncryptedKey => "Decrypt it first, without a file: openssl pkey -in key.pem | bouncerctl wrap --in - --chain chain.pem …",
            Self::TwoKeys => "Leave the one key that belongs to the first certificate.",
            Self::NoKey => "Give the file with the private key as --in, and the certificates as --chain.",
            Self::KeyInChain => "The chain is public and travels in clear: take the key out of that file.",
            Self::ForeignSection => "Leave only the private key and its certificates in the file.",
            Self::NoCertificate => "Put the certificate chain behind the key, or give it as --chain.",
            Self::TwoChains => "Give the chain once: in the bundle, or as --chain.",
            Self::UnusableKey => "Use an RSA, ECDSA (P-256, P-384, P-521) or Ed25519 key in PKCS#8, PKCS#1 or SEC1.",
            Self::UnusableCertificate { .. } => "Export the chain anew, as PEM.",
            Self::Mismatch { belongs_to: Some(_) } => "Put that certificate first: leaf, then each issuer.",
            Self::Mismatch { belongs_to: None } => "Find the certificate that was issued for this key, or the key for this certificate.",
            Self::BrokenChain { .. } => "Order the chain: leaf first, then each certificate's issuer. Leave out what does not belong to it.",
            Self::Expired { .. } => "Have it renewed. No bouncer would serve this one.",
            Self::TooLong { limit: KMS_LIMIT, .. } => "Leave out --form direct: what KMS can't encrypt in one call goes into an envelope.",
            Self::TooLong { .. } => "Check that the file holds one credential and nothing else.",
            Self::BadHeader(_) => "Check the field: visible ASCII, no line ends, and a header that neither frames nor routes the request.",
            Self::HeaderWithChain => "Leave --chain out.",
            Self::HeaderWithoutUpstream => "Add upstream=host:port to --aad.",
            Self::BadPair { .. } => "Correct --aad. It can't be changed once the credential is wrapped.",
        }
        .to_owned()
    }

    fn exit(&self) -> Exit {
        Exit::Refused
    }
}

/// A credential that a bouncer could use, ready to be encrypted.
pub(crate) struct Credential {
    plaintext: Zeroizing<Vec<u8>>,
    beside: Option<String>,
    enveloped: bool,
    header: bool,
    warnings: Vec<String>,
}

impl Credential {
    /// Reads a PEM bundle or a JSON credential; `chain` is the file of `--chain`, `now` in unix seconds. What goes into
    /// the plaintext depends on the form: KMS itself encrypts little, an envelope holds all of it.
    ///
    /// # Errors
    /// [`CredentialError`] for anything that the resolver would refuse to serve.
    pub(crate) fn read(text: &str, chain: Option<&str>, form: Form, now: i64) -> Result<Self, CredentialError> {
        if !text.trim_start().starts_with('{') {
            return Self::read_pem(text, chain, form, now);
        }
        match serde_json::from_str(text).map_err(|error| CredentialError::BadJson { line: error.line() })? {
            Json::ClientCertificate { private_key, certificate_chain } => {
                let mut bundle = Zeroizing::new(String::with_capacity(text.len() + 1));
                bundle.push_str(&private_key);
                bundle.push('\n');
                bundle.push_str(certificate_chain.as_deref().unwrap_or_default());
                Self::read_pem(&bundle, chain, form, now)
            }
            Json::Header { .. } if chain.is_some() => Err(CredentialError::HeaderWithChain),
            Json::Header { name, prefix, value } => {
                header::check(&name, &prefix, &value)?;
                let plaintext = Zeroizing::new(text.trim().as_bytes().to_vec());
                let enveloped = enveloped("credential", &plaintext, form)?;
                Ok(Self { plaintext, beside: None, enveloped, header: true, warnings: Vec::new() })
            }
        }
    }

    fn read_pem(bundle: &str, chain: Option<&str>, form: Form, now: i64) -> Result<Self, CredentialError> {
        let (key, mut certificates) = pem::parse(bundle)?;
        if key.is_none() && certificates.is_empty() {
            return Err(CredentialError::NotPem);
        }
        let key = key.ok_or(CredentialError::NoKey)?;
        if let Some(chain) = chain {
            let (foreign_key, beside) = pem::parse(chain)?;
            match (foreign_key, certificates.is_empty()) {
                (Some(_), _) => return Err(CredentialError::KeyInChain),
                (None, false) => return Err(CredentialError::TwoChains),
                (None, true) => certificates = beside,
            }
        }
        let warnings = check_chain(&key, &certificates, now)?;

        let mut plaintext = key.to_pem();
        let chain = pem::chain_to_pem(&certificates);
        if form != Form::Envelope && plaintext.len() + chain.len() > KMS_LIMIT {
            let enveloped = enveloped("private key alone", &plaintext, form)?;
            return Ok(Self { plaintext, beside: Some(chain), enveloped, header: false, warnings });
        }
        // Made anew with its full length, since a buffer that grows leaves a copy behind.
        let mut whole = Zeroizing::new(Vec::with_capacity(plaintext.len() + chain.len()));
        whole.append(&mut plaintext);
        whole.extend_from_slice(chain.as_bytes());
        let enveloped = enveloped("bundle", &whole, form)?;
        Ok(Self { plaintext: whole, beside: None, enveloped, header: false, warnings })
    }

    /// Whether it is a header and no certificate.
    pub(crate) const fn is_header(&self) -> bool {
        self.header
    }

    /// Whether it goes into an envelope, and not to KMS itself.
    pub(crate) const fn is_enveloped(&self) -> bool {
        self.enveloped
    }

    /// What is allowed and yet worth a word.
    pub(crate) fn warnings(&self) -> impl Iterator<Item = String> {
        self.warnings.iter().cloned()
    }

    /// What to encrypt, and the public chain that goes beside it.
    pub(crate) fn into_parts(self) -> (Zeroizing<Vec<u8>>, Option<String>) {
        (self.plaintext, self.beside)
    }
}

/// Whether the plaintext goes into an envelope: where it must, or where the operator wants it.
fn enveloped(what: &'static str, plaintext: &[u8], form: Form) -> Result<bool, CredentialError> {
    let length = plaintext.len();
    let enveloped = form == Form::Envelope || (form == Form::Auto && length > KMS_LIMIT);
    let limit = if enveloped { EnvelopeHeader::MAX_PAYLOAD } else { KMS_LIMIT };
    if length > limit { Err(CredentialError::TooLong { what, length, limit }) } else { Ok(enveloped) }
}

/// The rules that the resolver has too: the key belongs to the leaf, each certificate is issued by the next, and all
/// of them hold. Returns what is worth a word.
fn check_chain(key: &PrivateKey, chain: &[CertificateDer<'_>], now: i64) -> Result<Vec<String>, CredentialError> {
    let mut parsed = Vec::with_capacity(chain.len());
    for (n, der) in chain.iter().enumerate() {
        match X509Certificate::from_der(der) {
            Ok(([], certificate)) => parsed.push(certificate),
            _ => return Err(CredentialError::UnusableCertificate { position: n + 1 }),
        }
    }
    let public = key.public_key()?;
    match parsed.iter().position(|certificate| certificate.public_key().raw == public) {
        _ if parsed.is_empty() => return Err(CredentialError::NoCertificate),
        Some(0) => {}
        other => return Err(CredentialError::Mismatch { belongs_to: other.map(|n| n + 1) }),
    }
    if let Some(n) = parsed.windows(2).position(|pair| pair[0].issuer() != pair[1].subject()) {
        return Err(CredentialError::BrokenChain { position: n + 1 });
    }
    let mut warnings = Vec::new();
    for (n, certificate) in parsed.iter().enumerate() {
        let (position, validity) = (n + 1, certificate.validity());
        let (begins, ends) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        if ends <= now {
            return Err(CredentialError::Expired { position, at: date(ends) });
        }
        if begins > now {
            warnings.push(format!(
                "certificate {position} holds only from {} on: streams are denied until then",
                date(begins)
            ));
        } else if ends - now < SOON {
            warnings.push(format!("certificate {position} ends at {}: have the next one ready before", date(ends)));
        }
    }
    Ok(warnings)
}

fn date(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| "a time out of range".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair};

    const NOW: i64 = 1_800_000_000; // 2027-01-15

    fn certificate(key: &KeyPair, years: std::ops::Range<i32>, padding: usize) -> String {
        let mut params = CertificateParams::new(vec!["client.test".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.end, 1, 20);
        params.distinguished_name.push(DnType::OrganizationName, "x".repeat(padding));
        params.self_signed(key).unwrap().pem()
    }

    fn read(text: &str, chain: Option<&str>) -> Result<Credential, CredentialError> {
        Credential::read(text, chain, Form::Auto, NOW)
    }

    #[test]
    fn key_and_chain_are_wrapped_together_where_they_fit() {
        let key = KeyPair::generate().unwrap();
        let chain = certificate(&key, 2020..2100, 1);
        let bundle = read(&format!("{chain}{}", key.serialize_pem()), None).unwrap();
        let apart = read(&key.serialize_pem(), Some(&chain)).unwrap();
        let json = serde_json::json!({"kind": "client_certificate", "private_key": key.serialize_pem(), "certificate_chain": chain});
        let json = read(&json.to_string(), None).unwrap();
        assert!(bundle.beside.is_none() && bundle.warnings.is_empty());
        assert_eq!(*bundle.plaintext, *apart.plaintext);
        assert_eq!(*bundle.plaintext, *json.plaintext);
        let (found, certificates) = pem::parse(std::str::from_utf8(&bundle.plaintext).unwrap()).unwrap();
        assert!(found.is_some() && certificates.len() == 1);
    }

    #[test]
    fn a_long_chain_travels_beside_the_key() {
        let key = KeyPair::generate().unwrap();
        let chain = certificate(&key, 2020..2100, 3000);
        let credential = read(&format!("{}{chain}", key.serialize_pem()), None).unwrap();
        let beside = credential.beside.as_deref().unwrap();
        assert!(beside.starts_with("-----BEGIN CERTIFICATE-----") && !beside.contains("PRIVATE"));
        assert_eq!(*credential.plaintext, key.serialize_pem().replace("\r\n", "\n").as_bytes());
    }

    #[test]
    fn what_no_bouncer_could_use_is_refused() {
        use CredentialError as E;
        let (key, other) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let (pem, good) = (key.serialize_pem(), certificate(&key, 2020..2100, 1));
        let error = |text: &str, chain: Option<&str>| read(text, chain).err().unwrap();
        assert!(matches!(error(&format!("{}{good}", other.serialize_pem()), None), E::Mismatch { belongs_to: None }));
        let twisted = format!("{pem}{}{good}", certificate(&other, 2020..2100, 1));
        assert!(matches!(error(&twisted, None), E::Mismatch { belongs_to: Some(2) }));
        assert!(matches!(error(&format!("{pem}{}", certificate(&key, 2020..2021, 1)), None), E::Expired { .. }));
        assert!(matches!(
            error(&format!("{pem}{good}{}", certificate(&other, 2020..2100, 2)), None),
            E::BrokenChain { position: 1 }
        ));
        assert!(matches!(error(&pem, None), E::NoCertificate));
        assert!(matches!(error(&good, None), E::NoKey));
        assert!(matches!(error(&format!("{pem}{good}"), Some(&good)), E::TwoChains));
        assert!(matches!(error(&pem, Some(&format!("{pem}{good}"))), E::KeyInChain));
        assert!(matches!(error("hello", None), E::NotPem));
        assert!(matches!(error("", None), E::NotPem));
        assert!(matches!(error("{\"kind\":\"header\",\"nam\":1}", None), E::BadJson { .. }));
    }

    #[test]
    fn what_kms_can_not_encrypt_goes_into_an_envelope_unless_it_must_not() {
        let long = |length| {
            let value = "x".repeat(length);
            serde_json::json!({"kind": "header", "name": "authorization", "value": value}).to_string()
        };
        assert!(!read(&long(3_000), None).unwrap().is_enveloped());
        assert!(read(&long(5_000), None).unwrap().is_enveloped());
        let of = |text: &str, form| Credential::read(text, None, form, NOW);
        let refused = |text: &str, form| of(text, form).err().unwrap();
        let direct = refused(&long(5_000), Form::Direct);
        assert!(matches!(direct, CredentialError::TooLong { limit: KMS_LIMIT, .. }));
        assert!(direct.advice().contains("--form direct"));
        assert!(matches!(refused(&long(65_536), Form::Auto), CredentialError::TooLong { limit: 65_536, .. }));

        let key = KeyPair::generate().unwrap();
        let bundle = format!("{}{}", key.serialize_pem(), certificate(&key, 2020..2100, 3_000));
        let whole = of(&bundle, Form::Envelope).unwrap();
        assert!(whole.is_enveloped() && whole.beside.is_none() && whole.plaintext.len() > KMS_LIMIT);
    }

    #[test]
    fn dates_that_will_matter_are_told() {
        let key = KeyPair::generate().unwrap();
        let bundle = |years| format!("{}{}", key.serialize_pem(), certificate(&key, years, 1));
        assert!(read(&bundle(2099..2100), None).unwrap().warnings[0].contains("only from 2099-01-01"));
        assert!(read(&bundle(2020..2027), None).unwrap().warnings[0].contains("ends at 2027-01-20"));
    }

    #[test]
    fn no_error_repeats_the_credential() {
        let text = "{\"kind\":\"header\",\"name\":\"authorization\",\"value\":\"CANARY\",\"CANARY\":1}";
        let error = read(text, None).err().unwrap();
        assert!(!format!("{error}{error:?}{:?}{}", error.why(), error.advice()).contains("CANARY"));
    }
}
