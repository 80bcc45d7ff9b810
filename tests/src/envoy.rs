//! Real Envoy, running the shipped bootstrap with only the documented values replaced.

mod bootstrap;

pub use bootstrap::{Bootstrap, at};

use crate::process::Process;
use crate::scratch::{Scratch, free_port, listens};
use crate::{Fault, Result, tools};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Which Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The one that Bouncer is made for.
    Current,
    /// The oldest supported one: mode `named` only.
    Oldest,
}

impl Version {
    /// The program.
    ///
    /// # Errors
    /// If it is not installed.
    pub fn program(self) -> Result<PathBuf> {
        tools::tool(match self {
            Self::Current => "envoy",
            Self::Oldest => "envoy-1.36",
        })
    }
}

/// What the shipped bootstrap is told to use in place of its documented values.
pub struct Values<'a> {
    /// The listener's certificate chain, key, and the authority of its clients: PEM files.
    pub tls: [&'a Path; 3],
    /// The wasm filter.
    pub filter: &'a Path,
    /// The resolver's socket for decisions.
    pub intercept_socket: &'a Path,
    /// The resolver's socket for secrets.
    pub sds_socket: &'a Path,
    /// The SDS key, which mode `named` has literally.
    pub sds_key: &'a str,
}

/// A bootstrap that is ready to run, with the addresses that it got.
pub struct Rendered {
    /// The tree, for more changes.
    pub bootstrap: Bootstrap,
    /// The listener.
    pub listener: SocketAddr,
    admin: Admin,
}

#[derive(Clone)]
enum Admin {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl Rendered {
    /// Replaces every documented value.
    ///
    /// # Errors
    /// If the shipped file no longer holds one of them.
    pub fn new(mut bootstrap: Bootstrap, values: &Values<'_>, scratch: &Scratch) -> Result<Self> {
        let mut file = |literal: &str, path: &Path| bootstrap.replace(literal, path.display().to_string());
        file("/etc/bouncer/tls/server.pem", values.tls[0])?;
        file("/etc/bouncer/tls/server.key", values.tls[1])?;
        file("/etc/bouncer/tls/clients-ca.pem", values.tls[2])?;
        file("/etc/bouncer/bouncer_filter.wasm", values.filter)?;
        file("/run/bouncer/intercept.sock", values.intercept_socket)?;
        file("/run/bouncer/sds.sock", values.sds_socket)?;
        let listener = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        bootstrap.replace("0.0.0.0", "127.0.0.1")?;
        bootstrap.replace(10443, listener.port())?;
        let admin = if bootstrap.at("admin.address.pipe").is_ok() {
            let socket = scratch.file("envoy-admin.sock");
            bootstrap.replace("/run/bouncer/envoy-admin.sock", socket.display().to_string())?;
            bootstrap.replace("SET_TO_THE_SDS_KEY", values.sds_key)?;
            Admin::Unix(socket)
        } else {
            let port = free_port()?;
            bootstrap.replace(9901, port)?;
            Admin::Tcp(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        Ok(Self { bootstrap, listener, admin })
    }

    /// The admin interface's URL, where it has one.
    #[must_use]
    pub fn admin_url(&self) -> Option<String> {
        self.admin.url()
    }
}

impl Admin {
    fn url(&self) -> Option<String> {
        match self {
            Self::Tcp(address) => Some(format!("http://{address}")),
            Self::Unix(_) => None,
        }
    }
}

/// A running Envoy.
pub struct Envoy {
    process: Process,
    listener: SocketAddr,
    admin: Admin,
}

impl Envoy {
    /// Starts it and waits until its listener takes connections.
    ///
    /// # Errors
    /// If it refuses the bootstrap or does not get ready.
    pub async fn start(
        scratch: &Scratch,
        version: Version,
        rendered: &Rendered,
        sds_key: Option<&str>,
        workers: usize,
    ) -> Result<Self> {
        let config = scratch.write("envoy.yaml", rendered.bootstrap.to_yaml()?)?;
        let mut command = Command::new(version.program()?);
        // Hot restart would make Envoys of two scenarios share memory by their base id.
        command.arg("-c").arg(config).args(["--disable-hot-restart", "--concurrency", &workers.to_string()]);
        command.args(["--log-format", "%Y-%m-%dT%T.%e %l %n %v"]);
        if let Some(key) = sds_key {
            command.env("BOUNCER_SDS_KEY", key);
        }
        let process = Process::spawn("envoy", scratch, command)?;
        let envoy = Self { process, listener: rendered.listener, admin: rendered.admin.clone() };
        envoy
            .process
            .until("is ready", Duration::from_secs(30), || async {
                let live = envoy.admin("/ready").await.is_ok_and(|text| text.trim() == "LIVE");
                (live && listens(envoy.listener).await).then_some(())
            })
            .await?;
        Ok(envoy)
    }

    /// Whether Envoy accepts a bootstrap; gives what it said.
    ///
    /// # Errors
    /// If it does not, with its words.
    pub fn validate(scratch: &Scratch, version: Version, bootstrap: &Bootstrap) -> Result<String> {
        let config = scratch.write("validated.yaml", bootstrap.to_yaml()?)?;
        let mut command = Command::new(version.program()?);
        command.args(["--mode", "validate", "--disable-hot-restart", "-c"]).arg(config);
        let output = command.env("BOUNCER_SDS_KEY", "0".repeat(64)).output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            return Ok(said);
        }
        let critical: String = said.lines().filter(|line| line.contains("critical")).collect::<Vec<_>>().join("\n");
        Err(Fault::new(format!("Envoy refuses the bootstrap: {critical}")))
    }

    /// Where it listens.
    #[must_use]
    pub fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// The admin interface's URL, where it has one.
    #[must_use]
    pub fn admin_url(&self) -> Option<String> {
        self.admin.url()
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// GETs a path of the admin interface.
    ///
    /// # Errors
    /// If there is no answer, or another than 200.
    pub async fn admin(&self, path: &str) -> Result<String> {
        let stream: Box<dyn Stream> = match &self.admin {
            Admin::Tcp(address) => Box::new(tokio::net::TcpStream::connect(address).await?),
            Admin::Unix(socket) => Box::new(tokio::net::UnixStream::connect(socket).await?),
        };
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let request = http::Request::get(path).header("host", "envoy").body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        connection.abort();
        if status != http::StatusCode::OK {
            return Err(Fault::new(format!("Envoy's admin: {status} for {path}")));
        }
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    /// A counter or gauge, 0 where Envoy does not know it.
    ///
    /// # Errors
    /// If the admin interface does not answer.
    pub async fn stat(&self, name: &str) -> Result<u64> {
        let text = self.admin("/stats").await?;
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        Ok(line.map_or(Ok(0), str::parse)?)
    }

    /// The access log so far: the lines of its output that are JSON objects.
    #[must_use]
    pub fn access_log(&self) -> Vec<serde_json::Value> {
        let log = self.process.log();
        log.lines().filter(|line| line.starts_with('{')).filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

trait Stream: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send {}
impl<T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send> Stream for T {}
