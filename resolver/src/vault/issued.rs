//! A certificate that `pki` issued, held against the rails before anyone may use it.

use super::answer::{self, Issued};
use crate::config::PkiRail;
use crate::unwrap::{UnwrapError, Unwrapped};
use bouncer_custody::Reason;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::time::Duration;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use zeroize::Zeroizing;

/// Vault dates a certificate back by half a minute; clocks differ by as much again.
const SLACK: Duration = Duration::from_secs(120);

/// What is asked of `pki`: all names of the rail, and its longest life.
pub(super) fn request(rail: &PkiRail) -> Result<Zeroizing<Vec<u8>>, Reason> {
    let (ids, names): (Vec<_>, Vec<_>) = rail.names.iter().map(String::as_str).partition(|name| is_id(name));
    let (common_name, others) = names.split_first().ok_or(Reason::Internal)?;
    answer::body(&[
        ("common_name", common_name),
        ("alt_names", &others.join(",")),
        ("uri_sans", &ids.join(",")),
        ("ttl", &format!("{}s", rail.max_life.as_secs())),
        ("format", "pem"),
        ("private_key_format", "pkcs8"),
    ])
}

/// What came, if the rail allows it. It is fresh for two thirds of its life.
pub(super) fn check(body: &[u8], rail: &PkiRail, now: i64) -> Result<Unwrapped, UnwrapError> {
    let (request_id, Issued { certificate, ca_chain, private_key }) = answer::issued(body)?;
    let checked = check_leaf(&certificate, rail, now);
    let left = checked.map_err(|reason| UnwrapError { reason, request_id: request_id.clone() })?;
    let chain = std::iter::once(certificate).chain(ca_chain).collect::<Vec<_>>().join("\n");
    let plaintext = answer::bundle(&private_key, &chain);
    let fresh_for = Some(left * 2 / 3);
    Ok(Unwrapped { version: Some(String::new()), fresh_for, ..Unwrapped::fixed(plaintext, request_id) })
}

/// How long the leaf holds from now on, if it is one that the rail allows.
fn check_leaf(pem: &str, rail: &PkiRail, now: i64) -> Result<Duration, Reason> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|_| Reason::CredentialMalformed)?;
    let (_, leaf) = X509Certificate::from_der(&der).map_err(|_| Reason::CredentialMalformed)?;
    let allowed = |name: &str| rail.names.iter().any(|own| own == name);
    let common_names: Vec<_> =
        leaf.subject().iter_common_name().map(|name| name.as_str().unwrap_or_default()).collect();
    let alternatives = leaf.subject_alternative_name().map_err(|_| Reason::CredentialMalformed)?;
    let named = common_names.len() == 1 && common_names.into_iter().all(allowed);
    let alternatives = alternatives.is_none_or(|names| {
        names.value.general_names.iter().all(|name| match name {
            GeneralName::DNSName(name) => allowed(name) && !is_id(name),
            GeneralName::URI(id) => allowed(id) && is_id(id),
            _ => false,
        })
    });
    let usage = leaf.extended_key_usage().map_err(|_| Reason::CredentialMalformed)?;
    let for_clients = usage.is_none_or(|usage| usage.value.client_auth || usage.value.any);
    let (from, until) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    let life = until.checked_sub(from).and_then(|life| u64::try_from(life).ok()).map(Duration::from_secs);
    let short = life.is_some_and(|life| life <= rail.max_life + SLACK);
    if !(named && alternatives && for_clients && short) || leaf.is_ca() {
        return Err(Reason::VaultCertificateNotAllowed);
    }
    let left = until.checked_sub(now).and_then(|left| u64::try_from(left).ok()).filter(|left| *left > 0);
    left.map(Duration::from_secs).ok_or(Reason::CredentialExpired)
}

fn is_id(name: &str) -> bool {
    name.starts_with("spiffe://")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};

    fn rail() -> PkiRail {
        let names = vec!["client.example.org".to_owned(), "spiffe://example.org/client".to_owned()];
        PkiRail { role: "client".parse().unwrap(), names, max_life: Duration::from_secs(3_600) }
    }

    fn checked(change: impl FnOnce(&mut CertificateParams)) -> Result<Duration, Reason> {
        let mut params = CertificateParams::new(vec!["client.example.org".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "client.example.org");
        params.subject_alt_names.push(SanType::URI("spiffe://example.org/client".try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = rcgen::date_time_ymd(2030, 1, 1);
        params.not_after = params.not_before + Duration::from_secs(3_600);
        change(&mut params);
        let now = params.not_before.unix_timestamp();
        let key = KeyPair::generate().unwrap();
        check_leaf(&params.self_signed(&key).unwrap().pem(), &rail(), now)
    }

    #[test]
    fn a_certificate_of_the_rails_names_and_life_is_allowed() {
        assert_eq!(checked(|_| {}), Ok(Duration::from_secs(3_600)));
    }

    #[test]
    fn other_names_a_longer_life_and_other_uses_are_refused() {
        let refused = Err(Reason::VaultCertificateNotAllowed);
        assert_eq!(checked(|params| params.distinguished_name.push(DnType::CommonName, "admin.example.org")), refused);
        assert_eq!(checked(|params| params.distinguished_name = rcgen::DistinguishedName::new()), refused);
        let name = |name: &str| SanType::DnsName(name.try_into().unwrap());
        assert_eq!(checked(|params| params.subject_alt_names.push(name("admin.example.org"))), refused);
        let id = || SanType::URI("spiffe://example.org/admin".try_into().unwrap());
        assert_eq!(checked(|params| params.subject_alt_names.push(id())), refused);
        assert_eq!(checked(|params| params.not_after += Duration::from_secs(3_600)), refused);
        let server = vec![ExtendedKeyUsagePurpose::ServerAuth];
        assert_eq!(checked(|params| params.extended_key_usages = server), refused);
        let ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        assert_eq!(checked(|params| params.is_ca = ca), refused);
    }
}
