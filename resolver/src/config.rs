//! `resolver.toml`: read once, parsed whole, and every fault named at once.
//!
//! [`Config::load`] is the only way in. What it returns can't be malformed; what weakens security (plain HTTP,
//! loopback backends) is in it only under `--dev`.

mod iam;
mod kms;
mod raw;
mod sds_key;
mod telemetry;
mod vault;

use bouncer_custody::{BouncerName, ClusterName, ClusterRail, Environment, KmsKeyArn, Malformed, SpiffeId};
pub use iam::IamLogin;
pub use kms::{AwsCredentials, KmsConfig};
use raw::Faults;
pub use sds_key::SdsKey;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
pub use telemetry::TelemetryConfig;
pub use vault::{PkiRail, VaultConfig, VaultLogin, VaultLoginMethod, VaultMountRail};

/// Everything the resolver is told, parsed.
#[derive(Debug)]
pub struct Config {
    /// This bouncer's name.
    pub bouncer: BouncerName,
    /// This resolver's environment, compared with the AAD's `env=`.
    pub environment: Option<Environment>,
    /// Where snapshot, grants and audit spool are kept.
    pub state_dir: PathBuf,
    /// `--dev` was given: plain HTTP and loopback backends are allowed, and everyone is told.
    pub dev: bool,
    /// Where the SPIFFE Workload API is; `None` for a resolver that enrols by its IAM role.
    pub workload_api: Option<String>,
    /// The operator's socket, if there is to be one.
    pub admin: Option<SocketConfig>,
    /// The socket of the filter's questions.
    pub intercept: SocketConfig,
    /// Whose identity a stream's caller is.
    pub caller: CallerSource,
    /// The socket of SDS.
    pub sds: SocketConfig,
    /// What makes an SDS name a capability.
    pub sds_key: SdsKey,
    /// The control plane.
    pub bridge: BridgeConfig,
    /// AWS; `None` where no `[kms]` is configured.
    pub kms: Option<KmsConfig>,
    /// Vault; `None` where no `[vault]` is configured.
    pub vault: Option<VaultConfig>,
    /// Where traces go; `None` for nowhere.
    pub telemetry: Option<TelemetryConfig>,
    /// Health and metrics.
    pub http: SocketAddr,
    /// How the process is confined.
    pub sandbox: Sandbox,
    /// Limits.
    pub limits: Limits,
    /// The rails.
    pub rails: Rails,
}

/// One Unix socket, and who may use it.
#[derive(Debug)]
pub struct SocketConfig {
    /// Its path.
    pub path: PathBuf,
    /// Its mode, such as 0o660.
    pub mode: u32,
    /// The group it is given to, by number.
    pub group: Option<u32>,
    /// Which uids may connect; never empty.
    pub allowed_uids: Vec<u32>,
}

/// Whose identity a stream's caller is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallerSource {
    /// The client's, from its verified certificate.
    Peer,
    /// The pod's own: a sidecar whose application uses no client certificate.
    OwnSvid,
}

/// Where the control plane is, and who it must be.
#[derive(Debug)]
pub struct BridgeConfig {
    /// host:port, of one control plane's fronts each; at least one.
    pub addresses: Vec<String>,
    /// Who is who.
    pub login: BridgeLogin,
    /// How long a snapshot stays good after the last word from the control plane.
    pub snapshot_max_age: Duration,
}

/// How the control plane and this resolver know each other.
#[derive(Debug)]
pub enum BridgeLogin {
    /// By SVIDs: this is the SPIFFE ID that the control plane's must carry.
    Svid(SpiffeId),
    /// The control plane by CA and name, this resolver by its IAM role.
    Iam(IamLogin),
}

impl BridgeLogin {
    /// By what this resolver is known.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Svid(_) => "SVID",
            Self::Iam(_) => "IAM role",
        }
    }
}

impl Config {
    /// Whether AWS's default credential chain is used, for KMS or to enrol.
    #[must_use]
    pub fn uses_default_chain(&self) -> bool {
        let kms = self.kms.as_ref().is_some_and(|kms| kms.credentials == AwsCredentials::DefaultChain);
        kms || matches!(self.bridge.login, BridgeLogin::Iam(_))
    }
}

/// How the process is confined; see [`crate::harden`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sandbox {
    /// Wholly, or it does not start.
    Enforce,
    /// As far as the kernel can.
    BestEffort,
    /// Not at all; only under `--dev`.
    Off,
}

/// Bounds in time and number.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// A `Decide` is answered within this time.
    pub decide_deadline: Duration,
    /// For how long the filter may reuse a decision.
    pub decision_ttl: Duration,
    /// After this time a cached credential is unwrapped anew.
    pub recheck: Duration,
    /// The longest that a credential is served while its backend has a transient fault.
    pub hard_cap: Duration,
    /// How many credentials are cached.
    pub max_secrets: usize,
    /// How many decisions are in hand at once.
    pub max_decisions: usize,
    /// How large the audit spool may grow, in bytes.
    pub spool_bytes: u64,
    /// Whether each audit event is synced to disk before release (slow, and survives a power cut).
    pub spool_fsync: bool,
}

/// What no control plane can lift. Empty allows nothing.
#[derive(Debug)]
pub struct Rails {
    /// The keys that may be asked.
    pub kms_keys: Vec<KmsKeyArn>,
    /// Those of them that wrap for this bouncer only, which binds `bouncer` without the AAD.
    pub dedicated_keys: Vec<KmsKeyArn>,
    /// The mounts of Vault that may be asked.
    pub vault_mounts: Vec<VaultMountRail>,
    /// Pairs that every AAD must hold.
    pub required_pairs: Vec<(String, String)>,
    /// What each of Envoy's clusters may be used for.
    pub clusters: BTreeMap<ClusterName, Cluster>,
}

/// One of Envoy's clusters.
#[derive(Debug)]
pub struct Cluster {
    /// What may be used on it, and by whom.
    pub rail: ClusterRail,
    /// How the credential gets into Envoy.
    pub mode: Mode,
    /// In mode `named`: for so long after a revocation Envoy may keep connections with the credential.
    pub drain: Duration,
    /// The upstream's CA certificates, PEM, for the validation context.
    pub ca: Vec<u8>,
    /// The DNS names (or SPIFFE IDs) that the upstream's certificate must carry one of.
    pub server_names: Vec<ServerName>,
    /// A digest of both, so that Envoy gets them anew when they change.
    pub trust_version: String,
}

/// A name that an upstream's certificate must carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerName {
    /// A DNS SAN, exactly.
    Dns(String),
    /// A URI SAN, exactly.
    Spiffe(SpiffeId),
}

/// How the credential gets into Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Chosen for each stream (Envoy 1.38 and later).
    OnDemand,
    /// One credential for the cluster, by name (any Envoy).
    Named,
}

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML, or has keys that are not known.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What, and where.
        message: Box<str>,
    },
    /// Values are wrong; all of them are listed.
    #[error("{path}: {} fault{}\n{}", faults.len(), if faults.len() == 1 { "" } else { "s" }, list(faults))]
    Faults {
        /// The file.
        path: PathBuf,
        /// Each with its key.
        faults: Vec<Fault>,
    },
}

fn list(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("  {fault}")).collect::<Vec<_>>().join("\n")
}

/// One wrong value.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {problem}")]
pub struct Fault {
    /// The key, such as `rails.cluster[0].upstream`.
    pub key: Box<str>,
    /// What is wrong, and what is wanted. Never the value.
    pub problem: FaultKind,
}

/// What is wrong with a value.
#[derive(Debug, thiserror::Error)]
pub enum FaultKind {
    /// A text type's own rule is broken.
    #[error("the {0}")]
    Malformed(#[from] Malformed),
    /// A rule of the configuration is broken; the text says what is wanted.
    #[error("{0}")]
    Rule(&'static str),
    /// A file that it names can't be used.
    #[error("the file can't be used: {0}")]
    File(std::io::Error),
}

impl Config {
    /// Reads and parses the file, and the files it names.
    ///
    /// # Errors
    /// [`ConfigError`], with every fault of the file at once.
    pub fn load(path: &Path, dev: bool) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let raw: raw::Config = toml::from_str(&text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].lines().count().max(1));
            ConfigError::Syntax { path: path.into(), message: format!("line {line}: {}", error.message()).into() }
        })?;
        let mut faults = Faults::default();
        let config = raw.parse(dev, &mut faults);
        match config {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(ConfigError::Faults { path: path.into(), faults: faults.into_inner() }),
        }
    }
}

#[cfg(test)]
mod tests;
