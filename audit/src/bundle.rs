//! Archived trust bundles: whom each trust domain vouched for, at a time that may be long past.

use crate::checkpoint::CheckpointError;
use bouncer_custody::SpiffeId;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::collections::BTreeMap;
use std::time::Duration;
use webpki::{EndEntityCert, KeyUsage};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// Why a bundle can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// No PEM certificates.
    #[error("it holds no PEM certificate")]
    NoCertificate,
    /// A certificate that can be no authority.
    #[error("it holds a certificate that can be no authority")]
    NotAnAuthority,
    /// The trust domain is not said, and the certificates don't say it either.
    #[error("its certificates do not name their trust domain")]
    NoTrustDomain,
}

/// The authorities of each trust domain. A domain's authorities vouch for its own SPIFFE IDs and for no others.
#[derive(Debug, Clone, Default)]
pub struct Bundles {
    domains: BTreeMap<String, Vec<TrustAnchor<'static>>>,
}

impl Bundles {
    /// Adds the certificates of a PEM text; several may be added for one domain, old ones and new. Without `domain`, each
    /// certificate must name it by a URI SAN, as SPIRE's do.
    ///
    /// # Errors
    /// [`BundleError`]; nothing is added then.
    pub fn add(&mut self, domain: Option<&str>, pem: &[u8]) -> Result<(), BundleError> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let certificates = certificates.ok().filter(|all| !all.is_empty()).ok_or(BundleError::NoCertificate)?;
        let mut anchors = Vec::new();
        for certificate in &certificates {
            let anchor = webpki::anchor_from_trusted_cert(certificate).map_err(|_| BundleError::NotAnAuthority)?;
            let domain = match domain {
                Some(domain) => domain.to_owned(),
                None => named(certificate).ok_or(BundleError::NoTrustDomain)?,
            };
            anchors.push((domain, anchor.to_owned()));
        }
        for (domain, anchor) in anchors {
            self.domains.entry(domain).or_default().push(anchor);
        }
        Ok(())
    }

    /// The trust domains that there are bundles for.
    pub fn domains(&self) -> impl Iterator<Item = &str> {
        self.domains.keys().map(String::as_str)
    }

    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        id: &SpiffeId,
        time_ms: i64,
    ) -> Result<(), CheckpointError> {
        let anchors = self.domains.get(id.trust_domain()).ok_or(CheckpointError::NoBundle)?;
        let certificate = EndEntityCert::try_from(leaf).map_err(|_| CheckpointError::Certificates)?;
        let time = u64::try_from(time_ms).map_err(|_| CheckpointError::NotValidThen)?;
        let time = UnixTime::since_unix_epoch(Duration::from_millis(time));
        let algorithms = webpki::ALL_VERIFICATION_ALGS;
        let usage = KeyUsage::client_auth();
        let verified =
            certificate.verify_for_usage(algorithms, anchors, intermediates, time, usage, None, None).map(|_| ());
        verified.map_err(|error| match error {
            webpki::Error::CertExpired { .. } | webpki::Error::CertNotValidYet { .. } => CheckpointError::NotValidThen,
            _ => CheckpointError::Untrusted,
        })
    }
}

/// The trust domain in an authority's URI SAN (X509-SVID, section 2).
fn named(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (uri, None) = (uris.next()?, uris.next()) else { return None };
    let domain = uri.strip_prefix("spiffe://")?.split('/').next()?;
    (!domain.is_empty()).then(|| domain.to_owned())
}
