//! `[vault]` and `rails.vault_mounts`, parsed.

use super::Rails;
use bouncer_custody::{VaultMount, VaultName, VaultNamespace, VaultPath, VaultRef};
use std::time::Duration;

/// How Vault is reached, and how the resolver logs in.
#[derive(Debug)]
pub struct VaultConfig {
    /// The servers, such as `https://vault-0.example.org:8200`, without a slash at the end; never empty.
    pub addresses: Vec<String>,
    /// The CA certificates of the servers, PEM; empty only where all addresses are plain HTTP (`--dev`).
    pub ca: Vec<u8>,
    /// How the resolver logs in.
    pub login: VaultLogin,
    /// How long one attempt at one server may take, connection included.
    pub deadline: Duration,
}

/// A login with the resolver's own SVID.
#[derive(Debug, Clone)]
pub struct VaultLogin {
    /// With which SVID.
    pub method: VaultLoginMethod,
    /// Where the auth method is mounted, below `auth/`.
    pub mount: VaultPath,
    /// The role of the auth method.
    pub role: VaultName,
    /// The namespace of the auth method. `None`: the namespace of each secret has its own.
    pub namespace: Option<VaultNamespace>,
}

/// Which SVID the resolver logs in with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultLoginMethod {
    /// A JWT-SVID, for Vault's `jwt` method.
    Jwt {
        /// Its audience.
        audience: String,
    },
    /// The X.509-SVID, for Vault's `cert` method.
    Cert,
}

/// A mount that may be asked.
#[derive(Debug, Clone)]
pub struct VaultMountRail {
    /// Where it is, and what.
    pub mount: VaultMount,
    /// It is for this bouncer only, which binds `bouncer` without the AAD.
    pub dedicated: bool,
    /// What may be asked of it, and what may come; for engine `pki`, and only there.
    pub pki: Option<PkiRail>,
}

/// What a certificate issuer may be asked for.
#[derive(Debug, Clone)]
pub struct PkiRail {
    /// The only role.
    pub role: VaultName,
    /// DNS names and SPIFFE IDs: all are asked for, the first as common name, and no other may stand in the certificate.
    pub names: Vec<String>,
    /// The longest that a certificate may live.
    pub max_life: Duration,
}

impl Rails {
    /// The rail of the mount that the reference lies in.
    #[must_use]
    pub fn vault_mount(&self, namespace: &VaultNamespace, reference: &VaultRef) -> Option<&VaultMountRail> {
        self.vault_mounts.iter().find(|rail| rail.mount.holds(namespace, reference))
    }
}
