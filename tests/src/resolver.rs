//! The resolver's own binary, with its configuration.

use crate::process::Process;
use crate::scratch::{Scratch, free_port};
use crate::{Fault, Result, fault::Doing as _, openbao, tools};
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A user that owns nothing and may do nothing.
pub const NOBODY: u32 = 65_532;

/// The configuration of one resolver, as a TOML tree that a scenario may change.
#[derive(Clone)]
pub struct Setup {
    /// `resolver.toml`.
    pub config: toml::Table,
    /// The socket for decisions.
    pub intercept_socket: PathBuf,
    /// The socket for secrets.
    pub sds_socket: PathBuf,
    /// The SDS key, 64 hex digits.
    pub sds_key: String,
    /// Port of health and metrics.
    pub http_port: u16,
    /// `--dev`, which plain HTTP to the KMS server needs.
    pub dev: bool,
    /// CA certificates for HTTPS in the place of the system's.
    pub https_roots: Option<PathBuf>,
    /// More variables of its environment.
    pub environment: BTreeMap<String, String>,
    /// Another user than the scenario's, to run it.
    user: Option<u32>,
}

/// What a resolver is told of its surroundings.
pub struct Surroundings<'a> {
    /// This bouncer's name.
    pub bouncer: &'a str,
    /// Its Workload API.
    pub workload_api: &'a str,
    /// The Policy Bridge.
    pub bridge: &'a str,
    /// The control plane's identity.
    pub bridge_id: &'a str,
    /// KMS and STS.
    pub kms_endpoint: &'a str,
    /// The role to assume.
    pub role_arn: &'a str,
    /// The keys that it may use.
    pub kms_keys: &'a [String],
}

impl Setup {
    /// A resolver that allows nothing yet: the rails have no cluster.
    ///
    /// # Errors
    /// If its files can't be written.
    pub fn new(scratch: &Scratch, at: &Surroundings<'_>) -> Result<Self> {
        let state = scratch.folder("resolver")?;
        let (intercept_socket, sds_socket) = (scratch.file("intercept.sock"), scratch.file("sds.sock"));
        let sds_key = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        let key_file = scratch.write("sds.key", &sds_key)?;
        let http_port = free_port()?;
        let config = toml::toml! {
            bouncer = ""
            environment = "production"
            state_dir = ""

            [identity]
            workload_api = ""

            [intercept]
            socket = ""
            mode = "0660"
            caller = "peer"

            [sds]
            socket = ""
            mode = "0660"
            key_file = ""

            [bridge]
            address = ""
            server_id = ""
            snapshot_max_age_s = 3600

            [kms]
            credentials = "spiffe"
            audience = "sts.amazonaws.com"

            [http]
            listen = ""

            [rails]
            required_pairs = []
            cluster = []
        };
        let (dev, https_roots, environment, user) = (true, None, BTreeMap::new(), None);
        let mut setup =
            Self { config, intercept_socket, sds_socket, sds_key, http_port, dev, https_roots, environment, user };
        let path = |path: &Path| path.display().to_string();
        setup.set("bouncer", at.bouncer);
        setup.set("state_dir", path(&state));
        setup.set("identity.workload_api", at.workload_api);
        setup.set("intercept.socket", path(&setup.intercept_socket));
        setup.set("sds.socket", path(&setup.sds_socket));
        setup.set("sds.key_file", path(&key_file));
        setup.set("bridge.address", at.bridge);
        setup.set("bridge.server_id", at.bridge_id);
        setup.set("kms.role_arn", at.role_arn);
        setup.set("kms.kms_endpoint", at.kms_endpoint);
        setup.set("kms.sts_endpoint", at.kms_endpoint);
        setup.set("http.listen", format!("127.0.0.1:{http_port}"));
        setup.set("rails.kms_keys", at.kms_keys.to_vec());
        Ok(setup)
    }

    /// Sets a value at a dotted path; tables on the way are made.
    pub fn set(&mut self, path: &str, value: impl Into<toml::Value>) {
        let mut table = &mut self.config;
        let mut steps = path.split('.').peekable();
        while let Some(step) = steps.next() {
            if steps.peek().is_none() {
                table.insert(step.to_owned(), value.into());
                return;
            }
            let entry = table.entry(step).or_insert_with(|| toml::Table::new().into());
            match entry {
                toml::Value::Table(next) => table = next,
                other => {
                    *other = toml::Table::new().into();
                    let toml::Value::Table(next) = other else { return };
                    table = next;
                }
            }
        }
    }

    /// Uses a Vault, whose mounts are those that [`crate::openbao`] makes.
    pub fn set_vault(&mut self, address: &str, ca_file: &Path, by_certificate: bool) {
        self.set("vault.addresses", vec![address.to_owned()]);
        self.set("vault.ca_file", ca_file.display().to_string());
        self.set("vault.login", if by_certificate { "cert" } else { "jwt" });
        self.set("vault.role", openbao::ROLE);
        if !by_certificate {
            self.set("vault.audience", openbao::AUDIENCE);
        }
        let mut mounts = vec![];
        for namespace in ["root", openbao::TEAM] {
            for (mount, engine) in [("secret", "kv2"), ("old", "kv1"), ("transit", "transit"), ("pki", "pki")] {
                let mut rail = toml::Table::new();
                rail.insert("namespace".into(), namespace.into());
                rail.insert("mount".into(), mount.into());
                rail.insert("engine".into(), engine.into());
                // Nothing beside these two binds a bouncer.
                rail.insert("dedicated".into(), ["kv1", "pki"].contains(&engine).into());
                if engine == "pki" {
                    rail.insert("role".into(), "client".into());
                    rail.insert("names".into(), vec![openbao::CLIENT_NAME.to_owned()].into());
                    rail.insert("max_life_s".into(), i64::try_from(openbao::CLIENT_LIFE).unwrap_or(i64::MAX).into());
                }
                mounts.push(toml::Value::from(rail));
            }
        }
        self.set("rails.vault_mounts", mounts);
    }

    /// Has its clock go so many seconds ahead of everybody else's, or behind; what it measures goes on as it does.
    ///
    /// # Errors
    /// If libfaketime is not installed.
    pub fn set_clock(&mut self, ahead_s: i32) -> Result<()> {
        let library = format!("/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1", std::env::consts::ARCH);
        if !Path::new(&library).exists() {
            return Err(Fault::new("libfaketime is not installed. On Debian: apt-get install libfaketime"));
        }
        let offset = format!("{ahead_s:+}s");
        let faked = [("LD_PRELOAD", &*library), ("FAKETIME", &offset), ("FAKETIME_DONT_FAKE_MONOTONIC", "1")];
        self.environment.extend(faked.map(|(name, value)| (name.to_owned(), value.to_owned())));
        Ok(())
    }

    /// Runs it as this user, who gets what the resolver needs in the scenario's folder, and no more. For root only.
    ///
    /// # Errors
    /// If the files can't be given away.
    pub fn run_as(&mut self, scratch: &Scratch, uid: u32) -> Result<()> {
        // Everyone may pass through the scenario's folder, and look at nothing in it.
        std::fs::set_permissions(scratch.path(), Permissions::from_mode(0o711))?;
        let own = scratch.folder("nobody")?;
        (self.intercept_socket, self.sds_socket) = (own.join("intercept.sock"), own.join("sds.sock"));
        self.set("intercept.socket", self.intercept_socket.display().to_string());
        self.set("sds.socket", self.sds_socket.display().to_string());
        for socket in ["intercept", "sds"] {
            self.set(&format!("{socket}.allowed_uids"), vec![i64::from(rustix::process::getuid().as_raw())]);
        }
        for name in ["nobody", "resolver", "sds.key", "upstream-ca.pem"] {
            chown(scratch.file(name), Some(uid), Some(uid)).doing(name)?;
        }
        self.user = Some(uid);
        Ok(())
    }

    /// Adds a cluster to the rails.
    pub fn add_rail(&mut self, rail: toml::Table) {
        let rails = self.config.get_mut("rails").and_then(|rails| rails.get_mut("cluster"));
        if let Some(clusters) = rails.and_then(toml::Value::as_array_mut) {
            clusters.push(rail.into());
        }
    }
}

/// A running resolver.
pub struct Resolver {
    process: Process,
    setup: Setup,
    http: reqwest::Client,
}

impl Resolver {
    /// Writes the configuration and starts it, without waiting.
    ///
    /// # Errors
    /// If it is not built.
    pub fn spawn(scratch: &Scratch, setup: Setup) -> Result<Self> {
        let config = scratch.write("resolver.toml", toml::to_string(&setup.config)?)?;
        let mut program = tools::binary("bouncer-resolver")?;
        if let Some(uid) = setup.user {
            chown(&config, Some(uid), Some(uid))?;
            // The build may lie in a folder that is closed to others.
            program = scratch.file("bouncer-resolver");
            if !program.exists() {
                std::fs::copy(tools::binary("bouncer-resolver")?, &program)?;
            }
        }
        let mut command = Command::new(program);
        command.arg("--config").arg(config).env("RUST_LOG", "info").envs(&setup.environment);
        if let Some(uid) = setup.user {
            command.uid(uid).gid(uid);
        }
        if setup.dev {
            command.arg("--dev");
        }
        if let Some(roots) = &setup.https_roots {
            command.env("SSL_CERT_FILE", roots);
        }
        let process = Process::spawn("resolver", scratch, command)?;
        let http = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?;
        Ok(Self { process, setup, http })
    }

    /// Waits until it says that it is ready.
    ///
    /// # Errors
    /// If it ends or does not get ready.
    pub async fn ready(&self) -> Result<()> {
        let url = self.url("/readyz");
        self.process
            .until("is ready", Duration::from_secs(30), || async {
                let answer = self.http.get(&url).send().await.ok()?;
                answer.status().is_success().then_some(())
            })
            .await
    }

    /// A URL of its health and metrics.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.setup.http_port)
    }

    /// GETs such a URL; gives status and body.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, path: &str) -> Result<(http::StatusCode, String)> {
        let answer = self.http.get(self.url(path)).send().await.doing(path)?;
        Ok((answer.status(), answer.text().await?))
    }

    /// One of its metrics, by its name and labels; `None` where it has none such.
    ///
    /// # Errors
    /// If there is no answer, or the metric is no whole number.
    pub async fn metric(&self, name: &str) -> Result<Option<u64>> {
        let (_, metrics) = self.get("/metrics").await?;
        let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        Ok(value.map(str::parse).transpose()?)
    }

    /// How long all its decisions took so far, together, by its own clock.
    ///
    /// # Errors
    /// If there is no answer, or no such metric.
    pub async fn deciding(&self) -> Result<Duration> {
        let (_, metrics) = self.get("/metrics").await?;
        let sum = metrics.lines().find_map(|line| line.strip_prefix("bouncer_resolver_decision_seconds_sum "));
        let seconds: f64 = sum.ok_or_else(|| Fault::new("no metric of decisions"))?.parse()?;
        Ok(Duration::from_secs_f64(seconds))
    }

    /// Its configuration.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.setup
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }
}
