//! `[bridge.iam]`: where resolvers without an SVID enrol, and whom STS may be.

use super::TlsFiles;
use super::table::Section;
use crate::bridge::enrol::EnrolmentConfig;
use bouncer_custody::StsHost;
use std::net::SocketAddr;

/// A listener for resolvers without an SVID.
#[derive(Debug)]
pub struct IamConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its certificate and key.
    pub tls: TlsFiles,
    /// What is proved there, and to whom.
    pub enrolment: EnrolmentConfig,
}

fn endpoint(section: &mut Section<'_>, text: &str) -> Option<StsHost> {
    let host = StsHost::of_url(text).ok();
    if host.is_none() {
        section.fault("sts_endpoints", "must hold https URLs of nothing but a host, such as https://sts.internal:8443");
    }
    host
}

/// The section.
pub(super) fn iam(mut section: Section<'_>) -> Option<IamConfig> {
    let listen = section.address("listen");
    let certificate = section.path("tls_certificate_file");
    let tls = section.path("tls_key_file").and_then(|key| Some(TlsFiles { certificate: certificate?, key }));
    if let Some(files) = &tls {
        super::check(files, &mut section);
    }
    let audience = section.text("audience").and_then(|text| {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            section.fault("audience", "must be 1 to 128 letters, digits and .:/_-");
        }
        parsed
    });
    let endpoints = section.texts("sts_endpoints");
    let sts_endpoints = endpoints.iter().filter_map(|text| endpoint(&mut section, text)).collect();
    let sts_ca_file = section.optional_path("sts_ca_file");
    if sts_ca_file.as_ref().is_some_and(|path| std::fs::read(path).is_err()) {
        section.fault("sts_ca_file", "cannot be read");
    }
    section.end();
    Some(IamConfig {
        listen: listen?,
        tls: tls?,
        enrolment: EnrolmentConfig { audience: audience?, sts_endpoints, sts_ca_file },
    })
}
