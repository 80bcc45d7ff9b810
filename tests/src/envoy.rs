//! Real Envoy, running the shipped bootstrap with only the documented values replaced.

use crate::process::Process;
use crate::scratch::{Scratch, free_port, listens};
use crate::{Fault, Result, fault::Doing as _, tools};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::TokioIo;
use serde_norway::Value;
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

/// The YAML of a bootstrap, as a tree.
#[derive(Clone)]
pub struct Bootstrap {
    tree: Value,
}

impl Bootstrap {
    /// `envoy/bootstrap.yaml`.
    ///
    /// # Errors
    /// If it is no YAML.
    pub fn on_demand() -> Result<Self> {
        Self::read("bootstrap.yaml")
    }

    /// `envoy/bootstrap-named.yaml`.
    ///
    /// # Errors
    /// If it is no YAML.
    pub fn named() -> Result<Self> {
        Self::read("bootstrap-named.yaml")
    }

    fn read(name: &str) -> Result<Self> {
        let path = tools::root().join("envoy").join(name);
        let text = std::fs::read_to_string(&path).doing(path.display())?;
        Ok(Self { tree: serde_norway::from_str(&text).doing(path.display())? })
    }

    /// Replaces every scalar that is exactly `literal`.
    ///
    /// # Errors
    /// If there is none any more: the shipped file and its documentation have moved apart.
    pub fn replace(&mut self, literal: impl Into<Value>, with: impl Into<Value>) -> Result<()> {
        let (literal, with) = (literal.into(), with.into());
        match replace(&mut self.tree, &literal, &with) {
            0 => Err(Fault::new(format!("the bootstrap no longer holds the documented value {literal:?}"))),
            _ => Ok(()),
        }
    }

    /// The node at a path of keys and indices, such as `static_resources.clusters.0.name`.
    ///
    /// # Errors
    /// If there is none.
    pub fn at(&mut self, path: &str) -> Result<&mut Value> {
        at(&mut self.tree, path)
    }

    /// A cluster by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn cluster(&mut self, name: &str) -> Result<&mut Value> {
        let clusters = list(self.at("static_resources.clusters")?)?;
        let named = |cluster: &&mut Value| cluster["name"].as_str() == Some(name);
        clusters.iter_mut().find(named).ok_or_else(|| Fault::new(format!("no cluster {name}")))
    }

    /// Adds a cluster that is like `payments` but for its name and its address.
    ///
    /// # Errors
    /// If the tree is not as it was.
    pub fn add_cluster(&mut self, name: &str, address: SocketAddr) -> Result<()> {
        let mut cluster = self.cluster("payments")?.clone();
        for part in ["", "ca/", "named/"] {
            replace(&mut cluster, &format!("{part}payments").into(), &format!("{part}{name}").into());
        }
        set_address(&mut cluster, address)?;
        list(self.at("static_resources.clusters")?)?.push(cluster);
        Ok(())
    }

    /// Points a cluster somewhere.
    ///
    /// # Errors
    /// If the tree is not as it was.
    pub fn point(&mut self, cluster: &str, address: SocketAddr) -> Result<()> {
        set_address(self.cluster(cluster)?, address)
    }

    /// Puts a route in front of the others.
    ///
    /// # Errors
    /// If the tree is not as it was, or `route` is no YAML.
    pub fn add_route(&mut self, route: &str) -> Result<()> {
        let route = serde_norway::from_str(route)?;
        list(at(self.connection_manager()?, "route_config.virtual_hosts.0.routes")?)?.insert(0, route);
        Ok(())
    }

    /// The HTTP filters, in order.
    ///
    /// # Errors
    /// If the tree is not as it was.
    pub fn http_filters(&mut self) -> Result<&mut Vec<Value>> {
        list(at(self.connection_manager()?, "http_filters")?)
    }

    /// Puts a filter directly in front of the one called `name`.
    ///
    /// # Errors
    /// If there is no such filter, or `filter` is no YAML.
    pub fn insert_before(&mut self, name: &str, filter: &str) -> Result<()> {
        let filter = serde_norway::from_str(filter)?;
        let filters = self.http_filters()?;
        let place = filters.iter().position(|filter| filter["name"].as_str() == Some(name));
        let place = place.ok_or_else(|| Fault::new(format!("no filter {name}")))?;
        filters.insert(place, filter);
        Ok(())
    }

    /// A filter by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn http_filter(&mut self, name: &str) -> Result<&mut Value> {
        let filters = self.http_filters()?;
        let named = |filter: &&mut Value| filter["name"].as_str() == Some(name);
        filters.iter_mut().find(named).ok_or_else(|| Fault::new(format!("no filter {name}")))
    }

    /// The listener's HTTP connection manager.
    ///
    /// # Errors
    /// If the tree is not as it was.
    pub fn connection_manager(&mut self) -> Result<&mut Value> {
        self.at("static_resources.listeners.0.filter_chains.0.filters.0.typed_config")
    }

    /// The YAML.
    ///
    /// # Errors
    /// If it can't be written as YAML.
    pub fn to_yaml(&self) -> Result<String> {
        Ok(serde_norway::to_string(&self.tree)?)
    }
}

fn replace(node: &mut Value, literal: &Value, with: &Value) -> usize {
    if node == literal {
        *node = with.clone();
        return 1;
    }
    match node {
        Value::Sequence(items) => items.iter_mut().map(|item| replace(item, literal, with)).sum(),
        Value::Mapping(entries) => entries.iter_mut().map(|(_, item)| replace(item, literal, with)).sum(),
        _ => 0,
    }
}

/// The node below `node` at a path of keys and indices.
///
/// # Errors
/// If there is none.
pub fn at<'a>(node: &'a mut Value, path: &str) -> Result<&'a mut Value> {
    path.split('.').try_fold(node, |node, step| {
        let next = match step.parse::<usize>() {
            Ok(index) => node.get_mut(index),
            Err(_) => node.get_mut(step),
        };
        next.ok_or_else(|| Fault::new(format!("the bootstrap has no {step} in {path}")))
    })
}

fn list(node: &mut Value) -> Result<&mut Vec<Value>> {
    node.as_sequence_mut().ok_or_else(|| Fault::new("not a list in the bootstrap"))
}

fn set_address(cluster: &mut Value, address: SocketAddr) -> Result<()> {
    let place = "load_assignment.endpoints.0.lb_endpoints.0.endpoint.address.socket_address";
    let socket = at(cluster, place)?;
    socket["address"] = address.ip().to_string().into();
    socket["port_value"] = address.port().into();
    Ok(())
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
