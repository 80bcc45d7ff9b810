//! Real SPIRE: a server and an agent of one scenario, and the identities that they give to our programs.
//!
//! The programs of a scenario run as one user, so the agent tells them apart by their path (`unix:path`); only one that
//! has a user of its own is known by its uid.

use crate::pki::Identity;
use crate::process::Process;
use crate::scratch::{Scratch, free_port};
use crate::{Fault, Result, TRUST_DOMAIN, fault::Doing as _, tools};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const START: Duration = Duration::from_secs(30);

/// A program, and the identity that it is to get.
pub struct Entry<'a> {
    /// The identity.
    pub spiffe_id: &'a str,
    /// How the agent knows the program.
    pub known_by: Selector<'a>,
}

/// How the agent knows a program.
#[derive(Clone, Copy)]
pub enum Selector<'a> {
    /// By its file.
    Path(&'a Path),
    /// By its user.
    Uid(u32),
}

impl Selector<'_> {
    /// As the agent's `unix` attestor has it.
    fn value(self) -> Result<String> {
        Ok(match self {
            // The agent sees a process by the file that it really is.
            Self::Path(program) => format!("path:{}", program.canonicalize().doing(program.display())?.display()),
            Self::Uid(uid) => format!("uid:{uid}"),
        })
    }
}

/// A running SPIRE server and agent.
pub struct Spire {
    server_program: PathBuf,
    server_socket: PathBuf,
    agent_socket: PathBuf,
    agent: Process,
    server: Process,
    minted: PathBuf,
}

impl Spire {
    /// Starts both, attests the agent by a join token, and registers the entries. They reach the agent some seconds
    /// later; a program that asks earlier is told that it has no identity, and asks again.
    ///
    /// # Errors
    /// If SPIRE is not installed or does not start.
    pub async fn start(scratch: &Scratch, entries: &[Entry<'_>]) -> Result<Self> {
        let (server_program, agent_program) = (tools::tool("spire-server")?, tools::tool("spire-agent")?);
        let folder = scratch.folder("spire")?;
        let (server_socket, agent_socket) = (folder.join("server.sock"), folder.join("agent.sock"));
        let port = free_port()?;

        let config = scratch.write("spire/server.conf", server_config(&folder, port))?;
        let mut command = Command::new(&server_program);
        command.arg("run").arg("-config").arg(config);
        let server = Process::spawn("spire-server", scratch, command)?;
        let healthy = |program: &Path, socket: &Path| {
            let mut command = Command::new(program);
            command.arg("healthcheck").arg("-socketPath").arg(socket);
            async move { run(command).ok() }
        };
        server.until("is healthy", START, || healthy(&server_program, &server_socket)).await?;

        let ask = |arguments: &[&str]| {
            let mut command = Command::new(&server_program);
            command.args(arguments).arg("-socketPath").arg(&server_socket);
            run(command)
        };
        // Entries first: the agent's first synchronisation then brings them.
        let agent_id = format!("spiffe://{TRUST_DOMAIN}/agent");
        for entry in entries {
            let selector = format!("unix:{}", entry.known_by.value()?);
            ask(&["entry", "create", "-parentID", &agent_id, "-spiffeID", entry.spiffe_id, "-selector", &selector])?;
        }
        let answer = ask(&["token", "generate", "-spiffeID", &agent_id])?;
        let token = answer.split_whitespace().last().ok_or_else(|| Fault::new("no join token"))?;

        let bundle = scratch.write("spire/bundle.pem", ask(&["bundle", "show"])?)?;
        let config = scratch.write("spire/agent.conf", agent_config(&folder, port, &bundle))?;
        let mut command = Command::new(&agent_program);
        command.arg("run").arg("-config").arg(config).arg("-joinToken").arg(token);
        let agent = Process::spawn("spire-agent", scratch, command)?;
        agent.until("is healthy", START, || healthy(&agent_program, &agent_socket)).await?;

        let minted = scratch.folder("spire/minted")?;
        Ok(Self { server_program, server_socket, agent_socket, agent, server, minted })
    }

    /// The Workload API's address, as `SPIFFE_ENDPOINT_SOCKET` has it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.agent_socket.display())
    }

    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &Process {
        &self.agent
    }

    /// The server.
    #[must_use]
    pub fn server(&self) -> &Process {
        &self.server
    }

    /// Registers many identities of one program at once. They reach the agent as others do.
    ///
    /// # Errors
    /// If the server says no.
    pub fn register(&self, spiffe_ids: &[String], known_by: Selector<'_>) -> Result<()> {
        let selectors = serde_json::json!([{"type": "unix", "value": known_by.value()?}]);
        let parent = format!("spiffe://{TRUST_DOMAIN}/agent");
        let entry = |id| serde_json::json!({"spiffe_id": id, "parent_id": parent, "selectors": selectors});
        let entries: Vec<_> = spiffe_ids.iter().map(entry).collect();
        let file = self.minted.join("entries.json");
        std::fs::write(&file, serde_json::json!({ "entries": entries }).to_string())?;
        let path = file.to_str().ok_or_else(|| Fault::new("a path that is no UTF-8"))?;
        self.ask(&["entry", "create", "-data", path]).map(drop)
    }

    /// The trust domain's authorities, PEM.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn bundle(&self) -> Result<String> {
        self.ask(&["bundle", "show"])
    }

    /// The keys that prove its JWT-SVIDs, as a JWK set.
    ///
    /// # Errors
    /// If the server does not answer.
    pub fn jwks(&self) -> Result<String> {
        self.ask(&["bundle", "show", "-format", "spiffe"])
    }

    /// An X.509-SVID that any caller may hold.
    ///
    /// # Errors
    /// If the server mints none.
    pub fn mint(&self, spiffe_id: &str) -> Result<Identity> {
        let folder = tempfile::tempdir_in(&self.minted)?;
        let path = folder.path().to_str().ok_or_else(|| Fault::new("a path that is no UTF-8"))?;
        self.ask(&["x509", "mint", "-spiffeID", spiffe_id, "-write", path])?;
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name));
        Identity::from_pem(&read("svid.pem")?, &read("key.pem")?)
    }

    fn ask(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.server_program);
        command.args(arguments).arg("-socketPath").arg(&self.server_socket);
        run(command)
    }
}

fn run(mut command: Command) -> Result<String> {
    let output = command.output().doing(format!("{command:?}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Fault::new(format!("{command:?}: {} {}", output.status, said.trim())))
}

fn server_config(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        r#"server {{
    bind_address = "127.0.0.1"
    bind_port = "{port}"
    socket_path = "{folder}/server.sock"
    trust_domain = "{TRUST_DOMAIN}"
    data_dir = "{folder}/server"
    log_level = "INFO"
    default_x509_svid_ttl = "1h"
    default_jwt_svid_ttl = "5m"
    ca_ttl = "24h"
    experimental {{ cache_reload_interval = "1s" }}
}}
plugins {{
    DataStore "sql" {{ plugin_data {{ database_type = "sqlite3" connection_string = "{folder}/server.sqlite3" }} }}
    KeyManager "memory" {{ plugin_data {{}} }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
}}
"#
    )
}

fn agent_config(folder: &Path, port: u16, bundle: &Path) -> String {
    let (folder, bundle) = (folder.display(), bundle.display());
    format!(
        r#"agent {{
    server_address = "127.0.0.1"
    server_port = "{port}"
    socket_path = "{folder}/agent.sock"
    trust_domain = "{TRUST_DOMAIN}"
    trust_bundle_path = "{bundle}"
    data_dir = "{folder}/agent"
    log_level = "INFO"
    x509_svid_cache_max_size = 10000
    experimental {{ sync_interval = "1s" }}
}}
plugins {{
    KeyManager "memory" {{ plugin_data {{}} }}
    NodeAttestor "join_token" {{ plugin_data {{}} }}
    WorkloadAttestor "unix" {{ plugin_data {{ discover_workload_path = true }} }}
}}
"#
    )
}
