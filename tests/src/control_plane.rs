//! The control plane's own binary, and an administrator's token for the first one that it writes.

use crate::api::Api;
use crate::process::Process;
use crate::scratch::{Scratch, free_port};
use crate::{Fault, Result, fault::Doing as _, tools};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

const START: Duration = Duration::from_secs(20);

/// Its configuration. The same scenario may stop it and start it again from this.
#[derive(Clone)]
pub struct Setup {
    /// Its Workload API.
    pub workload_api: String,
    /// Port of the REST API.
    pub api_port: u16,
    /// Port of the Policy Bridge.
    pub bridge_port: u16,
    /// The database's file.
    pub database: PathBuf,
    /// More of its configuration, in TOML; keys of a section that is there are added to it.
    pub more: String,
}

impl Setup {
    /// With free ports, and a new database in the folder.
    ///
    /// # Errors
    /// If no port is free.
    pub fn new(scratch: &Scratch, workload_api: String) -> Result<Self> {
        let database = scratch.folder("control-plane")?.join("control-plane.db");
        Ok(Self { workload_api, api_port: free_port()?, bridge_port: free_port()?, database, more: String::new() })
    }

    /// The configuration file's text.
    ///
    /// # Errors
    /// If it can't be TOML.
    pub fn toml(&self) -> Result<toml::Table> {
        let mut file: toml::Table = toml::from_str(&format!(
            "[api]\nlisten = \"127.0.0.1:{}\"\n[bridge]\nlisten = \"127.0.0.1:{}\"\n[identity]\nworkload_api = {:?}\n\
             [database]\npath = {:?}\n",
            self.api_port, self.bridge_port, self.workload_api, self.database
        ))?;
        for (name, more) in self.more.parse::<toml::Table>()? {
            match (file.get_mut(&name).and_then(toml::Value::as_table_mut), more) {
                (Some(section), toml::Value::Table(more)) => section.extend(more),
                (_, more) => drop(file.insert(name, more)),
            }
        }
        // It is one or the other.
        if let Some(database) = file.get_mut("database").and_then(toml::Value::as_table_mut)
            && database.contains_key("url")
        {
            database.remove("path");
        }
        Ok(file)
    }

    /// Where resolvers reach the Policy Bridge.
    #[must_use]
    pub fn bridge(&self) -> String {
        format!("127.0.0.1:{}", self.bridge_port)
    }
}

/// A running control plane.
pub struct ControlPlane {
    process: Process,
    setup: Setup,
    token: String,
}

impl ControlPlane {
    /// Lets it write its first token, starts it, and exchanges that token for one to work with.
    ///
    /// # Errors
    /// If it is not built or does not get ready.
    pub async fn start(scratch: &Scratch, setup: Setup) -> Result<Self> {
        let config = scratch.write("control-plane.toml", toml::to_string(&setup.toml()?)?)?;
        let token_file = scratch.file("control-plane/token");
        let mut command = Command::new(tools::binary("bouncer-control-plane")?);
        command.arg("bootstrap").arg("--config").arg(&config).arg("--token-file").arg(&token_file);
        let output = command.output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(Fault::new("bouncer-control-plane bootstrap failed").with_evidence(said));
        }
        let first = std::fs::read_to_string(&token_file).doing("the first token")?.trim().to_owned();
        let mut control_plane = Self::serve(scratch, setup, first).await?;
        let body = serde_json::json!({"name": "admin", "role": "admin"});
        let made = control_plane.api()?.post("/v1/tokens", &body).await?.success().doing("a token for the first")?;
        control_plane.token = made["token"].as_str().unwrap_or_default().to_owned();
        Ok(control_plane)
    }

    /// Starts it on a database that has its token already.
    ///
    /// # Errors
    /// If it does not get ready.
    pub async fn serve(scratch: &Scratch, setup: Setup, token: String) -> Result<Self> {
        let config = scratch.file("control-plane.toml");
        let mut command = Command::new(tools::binary("bouncer-control-plane")?);
        command.arg("serve").arg("--config").arg(config);
        let process = Process::spawn("control-plane", scratch, command)?;
        let control_plane = Self { process, setup, token };
        let api = control_plane.api()?;
        control_plane
            .process
            .until("is ready", START, || async { api.get("/readyz").await.ok().filter(|a| a.status.is_success()) })
            .await?;
        Ok(control_plane)
    }

    /// A client with the administrator's token.
    ///
    /// # Errors
    /// If no client can be made.
    pub fn api(&self) -> Result<Api> {
        Api::new(self.url(), Some(&self.token))
    }

    /// The REST API's base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.setup.api_port)
    }

    /// The administrator's token.
    #[must_use]
    pub fn token(&self) -> &str {
        &self.token
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
