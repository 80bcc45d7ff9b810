//! `[rails]`, as it is written.

use super::{Faults, read_ca, vault};
use crate::config::{Cluster, Mode, Rails, ServerName, VaultMountRail};
use bouncer_custody::{ClusterName, ClusterRail, Hex, KmsKeyArn, PathPattern};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
pub(super) struct RawRails {
    #[serde(default)]
    kms_keys: Vec<String>,
    #[serde(default)]
    dedicated_keys: Vec<String>,
    #[serde(default)]
    vault_mounts: Vec<vault::Mount>,
    #[serde(default)]
    required_pairs: Vec<String>,
    #[serde(default)]
    cluster: Vec<RawCluster>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCluster {
    name: String,
    upstream: String,
    mode: Option<String>,
    drain_s: Option<u64>,
    ca_file: PathBuf,
    server_names: Vec<String>,
    #[serde(default)]
    callers: Vec<String>,
    #[serde(default)]
    logical_paths: Vec<String>,
    #[serde(default)]
    kms_keys: Vec<String>,
    #[serde(default)]
    vault_mounts: Vec<vault::Choice>,
}

impl RawRails {
    pub(super) fn parse(self, faults: &mut Faults) -> Rails {
        let kms_keys: Vec<KmsKeyArn> = faults.texts("rails.kms_keys", &self.kms_keys);
        let dedicated_keys: Vec<KmsKeyArn> = faults.texts("rails.dedicated_keys", &self.dedicated_keys);
        if dedicated_keys.iter().any(|key| !kms_keys.contains(key)) {
            faults.rule("rails.dedicated_keys", "must each stand in rails.kms_keys too");
        }
        let mut vault_mounts = Vec::new();
        for (i, mount) in self.vault_mounts.into_iter().enumerate() {
            let key = format!("rails.vault_mounts[{i}]");
            let Some(rail) = mount.parse(&key, faults) else { continue };
            // Which of two rails holds must not depend on their order.
            if vault_mounts.iter().any(|other: &VaultMountRail| other.mount.is_same_place(&rail.mount)) {
                faults.rule(key, "names a mount that stands there already");
            }
            vault_mounts.push(rail);
        }
        let mut required_pairs = Vec::new();
        for (i, pair) in self.required_pairs.iter().enumerate() {
            match pair.split_once('=') {
                Some((key, value)) if !key.is_empty() && !value.is_empty() => {
                    required_pairs.push((key.to_owned(), value.to_owned()));
                }
                _ => faults.rule(format!("rails.required_pairs[{i}]"), "must be key=value"),
            }
        }
        let mut clusters = BTreeMap::new();
        for (i, cluster) in self.cluster.into_iter().enumerate() {
            let key = format!("rails.cluster[{i}]");
            let Some((name, cluster)) = cluster.parse(&key, &kms_keys, &vault_mounts, faults) else { continue };
            if clusters.insert(name, cluster).is_some() {
                faults.rule(format!("{key}.name"), "stands there twice");
            }
        }
        Rails { kms_keys, dedicated_keys, vault_mounts, required_pairs, clusters }
    }
}

impl RawCluster {
    fn parse(
        self,
        key: &str,
        kms_keys: &[KmsKeyArn],
        mounts: &[VaultMountRail],
        faults: &mut Faults,
    ) -> Option<(ClusterName, Cluster)> {
        let name = faults.text(&format!("{key}.name"), &self.name);
        let upstream = faults.text(&format!("{key}.upstream"), &self.upstream);
        let callers = faults.texts(&format!("{key}.callers"), &self.callers);
        let mut logical_paths = Vec::new();
        for (i, text) in self.logical_paths.iter().enumerate() {
            match PathPattern::try_from(text.clone()) {
                Ok(pattern) => logical_paths.push(pattern),
                Err(error) => faults.add(format!("{key}.logical_paths[{i}]"), error),
            }
        }
        let own_keys: Vec<KmsKeyArn> = faults.texts(&format!("{key}.kms_keys"), &self.kms_keys);
        if own_keys.iter().any(|own| !kms_keys.contains(own)) {
            faults.rule(format!("{key}.kms_keys"), "must each stand in rails.kms_keys too");
        }
        let mut own_mounts = Vec::new();
        for (i, choice) in self.vault_mounts.iter().enumerate() {
            own_mounts.extend(choice.parse(&format!("{key}.vault_mounts[{i}]"), mounts, faults));
        }
        let mode = match self.mode.as_deref() {
            None | Some("on_demand") => Mode::OnDemand,
            Some("named") => Mode::Named,
            Some(_) => {
                faults.rule(format!("{key}.mode"), "must be \"on_demand\" or \"named\"");
                Mode::OnDemand
            }
        };
        // Above the idle timeout of the shipped clusters, which is 60 s.
        let drain = Duration::from_secs(self.drain_s.unwrap_or(65));
        if self.drain_s.is_some_and(|seconds| mode != Mode::Named || seconds > 3_600) {
            faults.rule(format!("{key}.drain_s"), "must be at most 3600, and is for mode \"named\" only");
        }
        let server_names = self.parse_server_names(key, faults);
        let ca = read_ca(&self.ca_file, key, faults);
        let (kms_keys, vault_mounts) = (own_keys, own_mounts);
        let rail = ClusterRail { upstream: upstream?, callers, logical_paths, kms_keys, vault_mounts };
        let ca = ca?;
        let trust_version = trust_version(&ca, &server_names);
        Some((name?, Cluster { rail, mode, drain, ca, server_names, trust_version }))
    }

    fn parse_server_names(&self, key: &str, faults: &mut Faults) -> Vec<ServerName> {
        if self.server_names.is_empty() {
            faults.rule(format!("{key}.server_names"), "must name at least one name of the upstream's certificate");
        }
        let mut names = Vec::new();
        for (i, name) in self.server_names.iter().enumerate() {
            let key = format!("{key}.server_names[{i}]");
            if name.starts_with("spiffe://") {
                names.extend(faults.text(&key, name).map(ServerName::Spiffe));
            } else if rustls_pki_types::DnsName::try_from(name.as_str()).is_ok() {
                names.push(ServerName::Dns(name.clone()));
            } else {
                faults.rule(key, "must be a DNS name without wildcard, or a SPIFFE ID");
            }
        }
        names
    }
}

fn trust_version(ca: &[u8], names: &[ServerName]) -> String {
    let mut hash = Sha256::new_with_prefix(ca);
    hash.update(format!("{names:?}"));
    Hex(&hash.finalize()[..8]).to_string()
}
