//! Certificate authorities and certificates of one run: servers, callers with an SVID, and the customer's client
//! certificates, good and bad.

use crate::{Fault, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType, SerialNumber,
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

const DAY: Duration = Duration::from_hours(24);
// Clocks that differ by seconds must not decide a scenario.
const SLACK: Duration = Duration::from_mins(10);

/// A certificate authority.
pub struct Ca {
    der: CertificateDer<'static>,
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a certificate is to say.
#[derive(Clone)]
pub struct Leaf {
    common_name: String,
    names: Vec<SanType>,
    not_before: SystemTime,
    not_after: SystemTime,
    serial: u64,
    svid: bool,
}

/// A certificate with its private key.
pub struct Identity {
    /// The certificate.
    pub cert: CertificateDer<'static>,
    /// The certificate, PEM.
    pub cert_pem: String,
    /// The private key, PKCS#8 DER.
    pub key_der: Vec<u8>,
    /// The private key, PKCS#8 PEM.
    pub key_pem: String,
}

impl Leaf {
    /// A certificate that is valid today.
    #[must_use]
    pub fn new(common_name: impl Into<String>) -> Self {
        let now = SystemTime::now();
        Self {
            common_name: common_name.into(),
            names: vec![],
            not_before: now - SLACK,
            not_after: now + DAY,
            serial: uuid::Uuid::new_v4().as_u64_pair().0 >> 1,
            svid: false,
        }
    }

    /// A server's certificate, for a DNS name and 127.0.0.1.
    ///
    /// # Errors
    /// If the name is no ASCII.
    pub fn server(name: &str) -> Result<Self> {
        let mut leaf = Self::new(name);
        leaf.names = vec![SanType::DnsName(name.try_into()?), SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST))];
        Ok(leaf)
    }

    /// An X.509-SVID: one URI SAN.
    ///
    /// # Errors
    /// If the ID is no ASCII.
    pub fn svid(spiffe_id: &str) -> Result<Self> {
        let mut leaf = Self::new("workload");
        leaf.names = vec![SanType::URI(spiffe_id.try_into()?)];
        leaf.svid = true;
        Ok(leaf)
    }

    /// With a URI SAN more.
    ///
    /// # Errors
    /// If it is no ASCII.
    pub fn uri(mut self, uri: &str) -> Result<Self> {
        self.names.push(SanType::URI(uri.try_into()?));
        Ok(self)
    }

    /// With the serial number, by which a test tells certificates apart.
    #[must_use]
    pub fn serial(mut self, serial: u64) -> Self {
        self.serial = serial;
        self
    }

    /// Valid for so long from now.
    #[must_use]
    pub fn valid_for(mut self, time: Duration) -> Self {
        self.not_after = SystemTime::now() + time;
        self
    }

    /// Expired an hour ago.
    #[must_use]
    pub fn expired(mut self) -> Self {
        let now = SystemTime::now();
        (self.not_before, self.not_after) = (now - 2 * DAY, now - Duration::from_hours(1));
        self
    }

    /// Valid from tomorrow on.
    #[must_use]
    pub fn not_yet_valid(mut self) -> Self {
        let now = SystemTime::now();
        (self.not_before, self.not_after) = (now + DAY, now + 2 * DAY);
        self
    }
}

impl Ca {
    /// A new authority.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn new(common_name: &str) -> Result<Self> {
        Self::with_names(common_name, vec![])
    }

    /// The authority of a SPIFFE trust domain.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn for_trust_domain(name: &str) -> Result<Self> {
        Self::with_names(name, vec![SanType::URI(format!("spiffe://{name}").as_str().try_into()?)])
    }

    fn with_names(common_name: &str, names: Vec<SanType>) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.subject_alt_names = names;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = (SystemTime::now() - 3 * DAY).into();
        params.not_after = (SystemTime::now() + 30 * DAY).into();
        let key = KeyPair::generate()?;
        let cert = params.self_signed(&key)?;
        Ok(Self { der: cert.der().clone(), pem: cert.pem(), issuer: Issuer::new(params, key) })
    }

    /// Its own certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Its own certificate.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Issues a certificate with a new P-256 key.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn issue(&self, leaf: &Leaf) -> Result<Identity> {
        self.issue_for(leaf, &KeyPair::generate()?)
    }

    /// Issues a certificate for a key that is there already.
    ///
    /// # Errors
    /// If the key can't be used.
    pub fn issue_for(&self, leaf: &Leaf, key: &KeyPair) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, leaf.common_name.as_str());
        params.subject_alt_names.clone_from(&leaf.names);
        params.not_before = leaf.not_before.into();
        params.not_after = leaf.not_after.into();
        params.serial_number = Some(SerialNumber::from(leaf.serial));
        params.is_ca = if leaf.svid { IsCa::ExplicitNoCa } else { IsCa::NoCa };
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let cert = params.signed_by(key, &self.issuer)?;
        Ok(Identity {
            cert: cert.der().clone(),
            cert_pem: cert.pem(),
            key_der: key.serialize_der(),
            key_pem: key.serialize_pem(),
        })
    }

    /// The authority as the only root of a TLS peer.
    ///
    /// # Errors
    /// If its certificate can't be a root.
    pub fn roots(&self) -> Result<Arc<RootCertStore>> {
        roots(&self.pem)
    }
}

/// Roots from PEM.
///
/// # Errors
/// If there is none in it.
pub fn roots(pem: &str) -> Result<Arc<RootCertStore>> {
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(cert?)?;
    }
    if roots.is_empty() { Err(Fault::new("no certificate in the PEM")) } else { Ok(Arc::new(roots)) }
}

impl Identity {
    /// From PEM, such as what SPIRE mints.
    ///
    /// # Errors
    /// If it holds no certificate or no PKCS#8 key.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self> {
        use rustls_pki_types::pem::PemObject as _;
        let cert = CertificateDer::from_pem_slice(cert_pem.as_bytes())?;
        let key = PrivatePkcs8KeyDer::from_pem_slice(key_pem.as_bytes())?;
        Ok(Self {
            cert,
            cert_pem: cert_pem.to_owned(),
            key_der: key.secret_pkcs8_der().to_vec(),
            key_pem: key_pem.to_owned(),
        })
    }

    /// What a customer wraps: key and certificate, PEM.
    #[must_use]
    pub fn bundle(&self) -> String {
        format!("{}{}", self.key_pem, self.cert_pem)
    }

    /// This certificate with another one's key: a bundle that no server should take.
    #[must_use]
    pub fn with_key_of(&self, other: &Self) -> Self {
        Self {
            cert: self.cert.clone(),
            cert_pem: self.cert_pem.clone(),
            key_der: other.key_der.clone(),
            key_pem: other.key_pem.clone(),
        }
    }

    /// The certificate chain for rustls.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![self.cert.clone()]
    }

    /// The key for rustls.
    #[must_use]
    pub fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key_der.clone()))
    }

    /// The private number of a P-256 key, 32 bytes: the part of it that must never be found anywhere.
    ///
    /// # Errors
    /// If the key is not P-256 as PKCS#8 wraps it.
    pub fn private_scalar(&self) -> Result<[u8; 32]> {
        // ECPrivateKey (RFC 5915): version 1, then an OCTET STRING of 32 bytes.
        const BEFORE: [u8; 5] = [0x02, 0x01, 0x01, 0x04, 0x20];
        self.key_der
            .windows(BEFORE.len() + 32)
            .find(|window| window.starts_with(&BEFORE))
            .and_then(|window| window[BEFORE.len()..].try_into().ok())
            .ok_or_else(|| Fault::new("not a P-256 key"))
    }

    /// All private numbers of an RSA key (RFC 8017, A.1.2: what follows the public exponent), as [`Self::private_scalar`].
    ///
    /// # Errors
    /// If the key is not RSA with the usual exponent.
    pub fn private_numbers(&self) -> Result<&[u8]> {
        const EXPONENT: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];
        let at = self.key_der.windows(EXPONENT.len()).position(|window| window == EXPONENT);
        at.map(|at| &self.key_der[at + EXPONENT.len()..]).ok_or_else(|| Fault::new("not an RSA key"))
    }
}
