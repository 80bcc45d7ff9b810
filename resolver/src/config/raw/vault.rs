//! `[vault]` and the mounts in the rails, as they are written.

use super::Faults;
use crate::config::{FaultKind, PkiRail, VaultConfig, VaultLogin, VaultLoginMethod, VaultMountRail};
use bouncer_custody::{SpiffeId, VaultEngine, VaultMount};
use serde::Deserialize;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Vault {
    addresses: Vec<String>,
    ca_file: Option<PathBuf>,
    login: String,
    mount: Option<String>,
    role: String,
    audience: Option<String>,
    namespace: Option<String>,
    deadline_ms: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mount {
    namespace: String,
    mount: String,
    engine: VaultEngine,
    #[serde(default)]
    dedicated: bool,
    role: Option<String>,
    names: Option<Vec<String>>,
    max_life_s: Option<u64>,
}

/// A cluster's choice among the mounts.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Choice {
    namespace: String,
    mount: String,
}

impl Vault {
    /// `None` only together with a fault.
    pub(super) fn parse(self, dev: bool, decide_ms: u64, faults: &mut Faults) -> Option<VaultConfig> {
        let Self { addresses, ca_file, login, mount, role, audience, namespace, deadline_ms } = self;
        if addresses.is_empty() {
            faults.rule("vault.addresses", "must name at least one server");
        }
        let mut servers = Vec::new();
        for (i, text) in addresses.iter().enumerate() {
            match address(text, dev) {
                Ok(address) => servers.push(address),
                Err(rule) => faults.rule(format!("vault.addresses[{i}]"), rule),
            }
        }
        let method = parse_method(&login, audience, faults);
        let mount = faults.text("vault.mount", mount.as_deref().unwrap_or(&login));
        let role = faults.text("vault.role", &role);
        let namespace = namespace.map(|text| faults.text("vault.namespace", &text));
        let deadline = faults.bounded(
            "vault.deadline_ms",
            deadline_ms.unwrap_or(400.min(decide_ms / 2)),
            10..=decide_ms.saturating_sub(1),
            "must be 10 or more, and less than limits.decide_deadline_ms",
        );
        let ca = parse_ca(ca_file, &servers, faults);
        let login = VaultLogin { method: method?, mount: mount?, role: role?, namespace: namespace.flatten() };
        Some(VaultConfig { addresses: servers, ca: ca?, login, deadline: Duration::from_millis(deadline) })
    }
}

fn parse_method(login: &str, audience: Option<String>, faults: &mut Faults) -> Option<VaultLoginMethod> {
    match (login, audience) {
        ("jwt", Some(audience)) if !audience.is_empty() => return Some(VaultLoginMethod::Jwt { audience }),
        ("jwt", _) => {
            faults.rule("vault.audience", "must be the audience that Vault's role wants, for login = \"jwt\"")
        }
        ("cert", None) => return Some(VaultLoginMethod::Cert),
        ("cert", Some(_)) => faults.rule("vault.audience", "has no meaning with login = \"cert\"; leave it out"),
        _ => faults.rule("vault.login", "must be \"jwt\" or \"cert\""),
    }
    None
}

fn parse_ca(file: Option<PathBuf>, servers: &[String], faults: &mut Faults) -> Option<Vec<u8>> {
    match file {
        Some(path) => super::read_ca(&path, "vault", faults),
        None if servers.iter().all(|address| address.starts_with("http://")) => Some(Vec::new()),
        None => {
            faults.rule("vault.ca_file", "must name the CA certificates of the servers; the system's are not used");
            None
        }
    }
}

/// Scheme, host and port only, without a slash at the end.
fn address(text: &str, dev: bool) -> Result<String, &'static str> {
    const FORM: &str = "must be https://host:port, without a path";
    let uri: http::Uri = text.parse().map_err(|_| FORM)?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(FORM)?;
    if uri.path_and_query().is_some_and(|path| path.as_str() != "/") {
        return Err(FORM);
    }
    match uri.scheme_str() {
        Some("https") => Ok(format!("https://{authority}")),
        Some("http") if dev => Ok(format!("http://{authority}")),
        _ => Err("must begin with https:// (plain http works only under --dev)"),
    }
}

impl Mount {
    /// `None` only together with a fault.
    pub(super) fn parse(self, key: &str, faults: &mut Faults) -> Option<VaultMountRail> {
        let namespace = faults.text(&format!("{key}.namespace"), &self.namespace);
        let name = faults.text(&format!("{key}.mount"), &self.mount);
        let pki = match (self.engine, self.role, self.names) {
            (VaultEngine::Pki, Some(role), Some(names)) if !names.is_empty() => {
                parse_names(key, &names, faults);
                let life = self.max_life_s.unwrap_or(3_600);
                let life = faults.bounded(&format!("{key}.max_life_s"), life, 60..=2_592_000, "must be 60 to 2592000");
                let role = faults.text(&format!("{key}.role"), &role);
                Some(PkiRail { role: role?, names, max_life: Duration::from_secs(life) })
            }
            (VaultEngine::Pki, ..) => {
                faults.rule(key, "needs role and names: what a certificate issuer may be asked for");
                None
            }
            (_, None, None) if self.max_life_s.is_none() => None,
            _ => {
                faults.rule(key, "role, names and max_life_s have a meaning only with engine = \"pki\"");
                None
            }
        };
        let mount = VaultMount { namespace: namespace?, name: name?, engine: self.engine };
        Some(VaultMountRail { mount, dedicated: self.dedicated, pki })
    }
}

fn parse_names(key: &str, names: &[String], faults: &mut Faults) {
    for (i, name) in names.iter().enumerate() {
        let key = format!("{key}.names[{i}]");
        if name.starts_with("spiffe://") {
            if let Err(error) = name.parse::<SpiffeId>() {
                faults.add(key, FaultKind::Malformed(error));
            } else if i == 0 {
                faults.rule(key, "is the common name, and must be a DNS name");
            }
        } else if rustls_pki_types::DnsName::try_from(name.as_str()).is_err() {
            faults.rule(key, "must be a DNS name without wildcard, or a SPIFFE ID");
        }
    }
}

impl Choice {
    /// The mounts of the rails that it names.
    pub(super) fn parse(&self, key: &str, mounts: &[VaultMountRail], faults: &mut Faults) -> Vec<VaultMount> {
        let same =
            |mount: &&VaultMount| mount.namespace.as_str() == self.namespace && mount.name.as_str() == self.mount;
        let chosen: Vec<VaultMount> = mounts.iter().map(|rail| &rail.mount).filter(same).cloned().collect();
        if chosen.is_empty() {
            faults.rule(key, "must stand in rails.vault_mounts too");
        }
        chosen
    }
}
