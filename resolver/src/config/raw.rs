//! The file as it is written, and how each part of it becomes a typed one. Called by [`super::Config::load`] only.

mod rails;
mod vault;

use super::iam::RawIam;
use super::kms::RawKms;
use super::{
    AwsCredentials, BridgeConfig, BridgeLogin, CallerSource, Fault, FaultKind, Limits, Sandbox, SdsKey, SocketConfig,
};
use bouncer_custody::Malformed;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The most addresses of one control plane.
const FRONTS: usize = 16;

#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn into_inner(self) -> Vec<Fault> {
        self.0
    }

    pub(super) fn add(&mut self, key: impl Into<Box<str>>, problem: impl Into<FaultKind>) {
        self.0.push(Fault { key: key.into(), problem: problem.into() });
    }

    pub(super) fn rule(&mut self, key: impl Into<Box<str>>, rule: &'static str) {
        self.add(key, FaultKind::Rule(rule));
    }

    fn text<T: FromStr<Err = Malformed>>(&mut self, key: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error| self.add(key, error)).ok()
    }

    fn texts<T: FromStr<Err = Malformed>>(&mut self, key: &str, texts: &[String]) -> Vec<T> {
        let parse = |(i, text): (usize, &String)| self.text(&format!("{key}[{i}]"), text);
        texts.iter().enumerate().filter_map(parse).collect()
    }

    fn bounded(&mut self, key: &str, value: u64, range: std::ops::RangeInclusive<u64>, rule: &'static str) -> u64 {
        if !range.contains(&value) {
            self.rule(key, rule);
        }
        value
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    bouncer: String,
    environment: Option<String>,
    state_dir: PathBuf,
    identity: Option<Identity>,
    admin: Option<Admin>,
    intercept: Intercept,
    sds: Sds,
    bridge: Bridge,
    kms: Option<RawKms>,
    vault: Option<vault::Vault>,
    telemetry: Option<super::telemetry::RawTelemetry>,
    #[serde(default)]
    http: Http,
    #[serde(default)]
    process: Process,
    #[serde(default)]
    limits: RawLimits,
    #[serde(default)]
    rails: rails::RawRails,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Identity {
    workload_api: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Intercept {
    socket: PathBuf,
    mode: Option<String>,
    group: Option<toml::Value>,
    allowed_uids: Option<Vec<u32>>,
    caller: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Admin {
    socket: PathBuf,
    mode: Option<String>,
    group: Option<toml::Value>,
    allowed_uids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sds {
    socket: PathBuf,
    mode: Option<String>,
    group: Option<toml::Value>,
    allowed_uids: Option<Vec<u32>>,
    key_file: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Bridge {
    address: Option<String>,
    addresses: Option<Vec<String>>,
    server_id: Option<String>,
    iam: Option<RawIam>,
    snapshot_max_age_s: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    listen: SocketAddr,
}

impl Default for Http {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9090)) }
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Process {
    sandbox: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct RawLimits {
    decide_deadline_ms: Option<u64>,
    decision_ttl_ms: Option<u64>,
    recheck_s: Option<u64>,
    hard_cap_s: Option<u64>,
    max_secrets: Option<u64>,
    max_decisions: Option<u64>,
    spool_mib: Option<u64>,
    spool_fsync: Option<bool>,
}

impl Config {
    /// `None` only together with a fault.
    pub(super) fn parse(self, dev: bool, faults: &mut Faults) -> Option<super::Config> {
        let bouncer = faults.text("bouncer", &self.bouncer);
        let environment = self.environment.map(|text| faults.text("environment", &text));
        if !self.state_dir.is_absolute() {
            faults.rule("state_dir", "must be an absolute path");
        }
        let workload_api = self.identity.map(|identity| identity.workload_api);
        if workload_api.as_ref().is_some_and(|address| !address.starts_with("unix:")) {
            faults
                .rule("identity.workload_api", "must be a unix: address, such as unix:///run/spire/sockets/agent.sock");
        }
        let Intercept { socket, mode, group, allowed_uids, caller } = self.intercept;
        let intercept = parse_socket("intercept", socket, mode, group, allowed_uids, faults);
        let caller = match caller.as_deref() {
            None | Some("peer") => CallerSource::Peer,
            Some("own-svid") => CallerSource::OwnSvid,
            Some(_) => {
                faults.rule("intercept.caller", "must be \"peer\" or \"own-svid\"");
                CallerSource::Peer
            }
        };
        let Sds { socket, mode, group, allowed_uids, key_file } = self.sds;
        let sds = parse_socket("sds", socket, mode, group, allowed_uids, faults);
        if let (Some(intercept), Some(sds)) = (&intercept, &sds)
            && intercept.path == sds.path
        {
            faults.rule("sds.socket", "must not be the intercept socket: SDS has a socket of its own");
        }
        let admin = self.admin.and_then(|Admin { socket, mode, group, allowed_uids }| {
            // By default for the owner alone, and for root, who is the operator on a node.
            let own = rustix::process::geteuid().as_raw();
            let (mode, uids) = (mode.or_else(|| Some("0600".to_owned())), allowed_uids.or_else(|| Some(vec![own, 0])));
            parse_socket("admin", socket, mode, group, uids, faults)
        });
        if let (Some(admin), Some(intercept), Some(sds)) = (&admin, &intercept, &sds)
            && (admin.path == intercept.path || admin.path == sds.path)
        {
            faults.rule("admin.socket", "must be a socket of its own: who may ask for decisions may not revoke");
        }
        let sds_key = parse_sds_key(key_file, faults);
        let bridge = self.bridge.parse(faults);
        let enrols = bridge.as_ref().is_some_and(|bridge| matches!(bridge.login, BridgeLogin::Iam(_)));
        let sandbox = self.process.parse(dev, faults);
        let limits = self.limits.parse(faults);
        let decide_ms = u64::try_from(limits.decide_deadline.as_millis()).unwrap_or(u64::MAX);
        let vault = self.vault.map(|vault| vault.parse(dev, decide_ms, faults));
        let telemetry = self.telemetry.and_then(|telemetry| telemetry.parse(dev, faults));
        let rails = self.rails.parse(faults);
        let kms = self.kms.map(|kms| kms.parse(dev, &rails.kms_keys, faults));
        if enrols {
            const NO_SVID: &str = "needs an SVID, which a resolver with bridge.iam has not";
            if workload_api.is_some() {
                faults.rule("identity", "must be left out where bridge.iam is set: a resolver has one identity");
            }
            if caller == CallerSource::OwnSvid {
                faults.rule("intercept.caller", NO_SVID);
            }
            if kms.as_ref().and_then(Option::as_ref).is_some_and(|kms| kms.credentials != AwsCredentials::DefaultChain)
            {
                faults.rule("kms.credentials", "must be \"default-chain\" where bridge.iam is set: there is no SVID");
            }
            if vault.is_some() {
                faults.rule("vault", NO_SVID);
            }
        } else if workload_api.is_none() {
            faults.rule("identity", "is missing: it names the SPIFFE Workload API (or set bridge.iam)");
        }
        Some(super::Config {
            bouncer: bouncer?,
            environment: environment.flatten(),
            state_dir: self.state_dir,
            dev,
            workload_api,
            admin,
            intercept: intercept?,
            caller,
            sds: sds?,
            sds_key: sds_key?,
            bridge: bridge?,
            // What is there and no good has its fault already.
            kms: kms.flatten(),
            vault: vault.flatten(),
            telemetry,
            http: self.http.listen,
            sandbox,
            limits,
            rails,
        })
    }
}

fn parse_socket(
    section: &str,
    path: PathBuf,
    mode: Option<String>,
    group: Option<toml::Value>,
    allowed_uids: Option<Vec<u32>>,
    faults: &mut Faults,
) -> Option<SocketConfig> {
    let mut good = true;
    // sun_path of unix(7) holds 108 bytes with its end.
    if !path.is_absolute() || path.as_os_str().len() > 107 {
        faults.rule(format!("{section}.socket"), "must be an absolute path of at most 107 bytes");
        good = false;
    }
    let mode = mode.map_or(Some(0o660), |text| u32::from_str_radix(&text, 8).ok()).filter(|mode| mode & !0o770 == 0);
    if mode.is_none() {
        faults.rule(format!("{section}.mode"), "must be octal, such as \"0660\", with nothing for others");
    }
    let group = match group {
        None => None,
        Some(toml::Value::Integer(number)) => {
            let number = u32::try_from(number).ok();
            if number.is_none() {
                faults.rule(format!("{section}.group"), "must be a group's name or number");
            }
            number
        }
        Some(toml::Value::String(name)) => {
            let number = name.parse().ok().or_else(|| group_number(&name));
            if number.is_none() {
                faults.rule(format!("{section}.group"), "names a group that this system does not know");
            }
            number
        }
        Some(_) => {
            faults.rule(format!("{section}.group"), "must be a group's name or number");
            None
        }
    };
    let allowed_uids = allowed_uids.unwrap_or_else(|| vec![rustix::process::geteuid().as_raw()]);
    if allowed_uids.is_empty() {
        faults.rule(format!("{section}.allowed_uids"), "must name at least one uid: Envoy's");
    }
    good.then_some(SocketConfig { path, mode: mode?, group, allowed_uids })
}

fn group_number(name: &str) -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").ok()?;
    let line = groups.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

fn parse_sds_key(file: Option<PathBuf>, faults: &mut Faults) -> Option<SdsKey> {
    const FORM: &str =
        "must hold 64 lower-case hex digits (openssl rand -hex 32), the same that Envoy gets as BOUNCER_SDS_KEY";
    let (key, text) = match file {
        Some(path) => match std::fs::read_to_string(path) {
            Ok(text) => ("sds.key_file", zeroize::Zeroizing::new(text)),
            Err(error) => {
                faults.add("sds.key_file", FaultKind::File(error));
                return None;
            }
        },
        None => match std::env::var("BOUNCER_SDS_KEY") {
            Ok(text) => ("the environment's BOUNCER_SDS_KEY", zeroize::Zeroizing::new(text)),
            Err(_) => {
                faults.rule("sds.key_file", "is missing, and the environment has no BOUNCER_SDS_KEY");
                return None;
            }
        },
    };
    let parsed = SdsKey::parse(&text);
    if parsed.is_none() {
        faults.rule(key, FORM);
    }
    parsed
}

impl Bridge {
    fn parse(self, faults: &mut Faults) -> Option<BridgeConfig> {
        let (key, addresses) = match (self.address, self.addresses) {
            (Some(address), None) => ("bridge.address", vec![address]),
            (None, Some(addresses)) => ("bridge.addresses", addresses),
            (Some(_), Some(_)) => {
                faults.rule("bridge.addresses", "takes the place of bridge.address; leave one of them out");
                return None;
            }
            (None, None) => {
                faults.rule("bridge.address", "is missing");
                return None;
            }
        };
        if addresses.is_empty() || addresses.len() > FRONTS {
            faults.rule(key, "must be 1 to 16 addresses");
        }
        for address in &addresses {
            let host_and_port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if host_and_port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none() {
                faults.rule(key, "must be host:port");
            }
        }
        let login = match (&self.server_id, self.iam) {
            (Some(id), None) => faults.text("bridge.server_id", id).map(BridgeLogin::Svid),
            (None, Some(iam)) => iam.parse(faults).map(BridgeLogin::Iam),
            (Some(_), Some(_)) => {
                faults.rule("bridge.server_id", "must be left out where bridge.iam is set: that names the server");
                None
            }
            (None, None) => {
                faults.rule("bridge.server_id", "is missing: the control plane's SPIFFE ID (or set bridge.iam)");
                None
            }
        };
        let age = self.snapshot_max_age_s.unwrap_or(3_600);
        let age = faults.bounded("bridge.snapshot_max_age_s", age, 10..=604_800, "must be 10 to 604800 (a week)");
        Some(BridgeConfig { addresses, login: login?, snapshot_max_age: Duration::from_secs(age) })
    }
}

impl Process {
    fn parse(self, dev: bool, faults: &mut Faults) -> Sandbox {
        match self.sandbox.as_deref() {
            None | Some("best-effort") => Sandbox::BestEffort,
            Some("enforce") => Sandbox::Enforce,
            Some("off") if dev => Sandbox::Off,
            Some(_) => {
                faults
                    .rule("process.sandbox", "must be \"enforce\" or \"best-effort\" (\"off\" works only under --dev)");
                Sandbox::Enforce
            }
        }
    }
}

impl RawLimits {
    fn parse(self, faults: &mut Faults) -> Limits {
        let mut get = |key, value: Option<u64>, default, range, rule| {
            faults.bounded(&format!("limits.{key}"), value.unwrap_or(default), range, rule)
        };
        let decide = get("decide_deadline_ms", self.decide_deadline_ms, 900, 50..=10_000, "must be 50 to 10000");
        let ttl = get("decision_ttl_ms", self.decision_ttl_ms, 30_000, 0..=300_000, "must be 0 to 300000");
        let recheck = get("recheck_s", self.recheck_s, 900, 1..=86_400, "must be 1 to 86400");
        let hard_cap = get("hard_cap_s", self.hard_cap_s, 3_600, 1..=604_800, "must be 1 to 604800");
        let secrets = get("max_secrets", self.max_secrets, 10_000, 1..=1_000_000, "must be 1 to 1000000");
        let decisions = get("max_decisions", self.max_decisions, 4_096, 1..=1_000_000, "must be 1 to 1000000");
        let spool = get("spool_mib", self.spool_mib, 64, 1..=65_536, "must be 1 to 65536");
        if hard_cap < recheck {
            faults.rule("limits.hard_cap_s", "must not be less than limits.recheck_s");
        }
        Limits {
            decide_deadline: Duration::from_millis(decide),
            decision_ttl: Duration::from_millis(ttl),
            recheck: Duration::from_secs(recheck),
            hard_cap: Duration::from_secs(hard_cap),
            max_secrets: usize::try_from(secrets).unwrap_or(usize::MAX),
            max_decisions: usize::try_from(decisions).unwrap_or(usize::MAX),
            spool_bytes: spool << 20,
            spool_fsync: self.spool_fsync.unwrap_or(false),
        }
    }
}

pub(super) fn read_ca(path: &std::path::Path, key: &str, faults: &mut Faults) -> Option<Vec<u8>> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    let pem = match std::fs::read(path) {
        Ok(pem) => pem,
        Err(error) => {
            faults.add(format!("{key}.ca_file"), FaultKind::File(error));
            return None;
        }
    };
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    if certificates.is_ok_and(|certificates| !certificates.is_empty()) {
        return Some(pem);
    }
    faults.rule(format!("{key}.ca_file"), "must hold the server's CA certificates in PEM");
    None
}
