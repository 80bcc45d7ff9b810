//! The section `[kms]`: where AWS credentials come from, and where KMS and STS are.

use super::raw::Faults;
use bouncer_custody::KmsKeyArn;
use serde::Deserialize;
use std::collections::BTreeMap;

/// How KMS is reached.
#[derive(Debug, Clone)]
pub struct KmsConfig {
    /// Where AWS credentials come from.
    pub credentials: AwsCredentials,
    /// An endpoint other than the region's own (VPC endpoint, FIPS).
    pub kms_endpoint: Option<String>,
    /// The same, for the keys of one region; goes before the other.
    pub kms_endpoints: BTreeMap<String, String>,
    /// As `kms_endpoint`, for STS.
    pub sts_endpoint: Option<String>,
}

/// Where AWS credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AwsCredentials {
    /// A JWT-SVID, exchanged by `AssumeRoleWithWebIdentity`.
    Spiffe {
        /// The role that KMS's key policy allows.
        role_arn: String,
        /// The JWT-SVID's audience.
        audience: String,
    },
    /// AWS's default chain: the pod's or machine's own role.
    DefaultChain,
}

impl KmsConfig {
    /// The endpoint for the keys of a region; `None` for the region's own.
    #[must_use]
    pub fn endpoint(&self, region: &str) -> Option<&str> {
        self.kms_endpoints.get(region).or(self.kms_endpoint.as_ref()).map(String::as_str)
    }
}

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawKms {
    credentials: String,
    role_arn: Option<String>,
    audience: Option<String>,
    kms_endpoint: Option<String>,
    #[serde(default)]
    kms_endpoints: BTreeMap<String, String>,
    sts_endpoint: Option<String>,
}

impl RawKms {
    pub(super) fn parse(self, dev: bool, keys: &[KmsKeyArn], faults: &mut Faults) -> Option<KmsConfig> {
        let single = [("kms.kms_endpoint", &self.kms_endpoint), ("kms.sts_endpoint", &self.sts_endpoint)];
        let single = single.into_iter().filter_map(|(key, url)| Some((key.to_owned(), url.as_deref()?)));
        let regional = self.kms_endpoints.iter().map(|(region, url)| (format!("kms.kms_endpoints.{region}"), &**url));
        for (key, url) in single.chain(regional) {
            let is_fit = url.starts_with("https://") || (dev && url.starts_with("http://"));
            if !is_fit {
                faults.rule(key, "must begin with https:// (plain http works only under --dev)");
            }
        }
        for region in self.kms_endpoints.keys() {
            if !keys.iter().any(|key| key.region() == region) {
                faults.rule(format!("kms.kms_endpoints.{region}"), "must be the region of a key in rails.kms_keys");
            }
        }
        let credentials = match (self.credentials.as_str(), self.role_arn) {
            ("spiffe", Some(role_arn)) if role_arn.starts_with("arn:") && role_arn.contains(":role/") => {
                let audience = self.audience.unwrap_or_else(|| "sts.amazonaws.com".to_owned());
                Some(AwsCredentials::Spiffe { role_arn, audience })
            }
            ("spiffe", _) => {
                faults.rule("kms.role_arn", "must be the ARN of the role to assume, for credentials = \"spiffe\"");
                None
            }
            ("default-chain", None) => Some(AwsCredentials::DefaultChain),
            ("default-chain", Some(_)) => {
                faults.rule("kms.role_arn", "has no meaning with credentials = \"default-chain\"; leave it out");
                None
            }
            _ => {
                faults.rule("kms.credentials", "must be \"spiffe\" or \"default-chain\"");
                None
            }
        };
        Some(KmsConfig {
            credentials: credentials?,
            kms_endpoint: self.kms_endpoint,
            kms_endpoints: self.kms_endpoints,
            sts_endpoint: self.sts_endpoint,
        })
    }
}
