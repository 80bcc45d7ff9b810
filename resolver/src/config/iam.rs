//! `[bridge] iam`: a control plane known by its CA and name, to which the resolver proves its IAM role.

use super::raw::{Faults, read_ca};
use bouncer_custody::{Audience, StsHost, is_region};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;

/// How a resolver without an SVID is known.
#[derive(Debug, Clone)]
pub struct IamLogin {
    /// Who vouches for the control plane's certificate.
    pub roots: Arc<RootCertStore>,
    /// The name in it.
    pub server_name: ServerName<'static>,
    /// The control plane's own name, which is signed.
    pub audience: Audience,
    /// The region of the signature.
    pub region: String,
    /// The STS that the control plane is to ask.
    pub sts_host: StsHost,
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawIam {
    ca_file: PathBuf,
    server_name: String,
    audience: String,
    region: String,
    sts_endpoint: Option<String>,
}

fn roots(pem: &[u8]) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        roots.add(certificate.ok()?).ok()?;
    }
    Some(roots)
}

impl RawIam {
    pub(super) fn parse(self, faults: &mut Faults) -> Option<IamLogin> {
        let roots = read_ca(&self.ca_file, "bridge.iam", faults).and_then(|pem| {
            let roots = roots(&pem);
            if roots.is_none() {
                faults.rule("bridge.iam.ca_file", "must hold the server's CA certificates in PEM");
            }
            roots
        });
        let server_name = ServerName::try_from(self.server_name).ok();
        if server_name.is_none() {
            faults.rule(
                "bridge.iam.server_name",
                "must be the DNS name or IP address in the control plane's certificate",
            );
        }
        let audience = self.audience.parse().ok();
        if audience.is_none() {
            faults.rule("bridge.iam.audience", "must be 1 to 128 letters, digits and .:/_-, as in the control plane's");
        }
        if !is_region(&self.region) {
            faults.rule("bridge.iam.region", "must be an AWS region, such as ca-central-1");
        }
        let sts_host = match &self.sts_endpoint {
            None => StsHost::of_region(&self.region).ok(),
            Some(url) => {
                let host = StsHost::of_url(url).ok();
                if host.is_none() {
                    faults.rule(
                        "bridge.iam.sts_endpoint",
                        "must be an https URL of nothing but a host, as the control plane lists",
                    );
                }
                host
            }
        };
        Some(IamLogin {
            roots: Arc::new(roots?),
            server_name: server_name?,
            audience: audience?,
            region: self.region,
            sts_host: sts_host?,
        })
    }
}
