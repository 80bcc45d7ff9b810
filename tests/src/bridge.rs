//! A Policy Bridge in the scenario's own hands, in place of the control plane: pushes any snapshot or message, honest or
//! not, and keeps what the resolver says.

use crate::any_server::AnyServer;
use crate::pki::Identity;
use crate::{Fault, Result};
use bouncer_proto::Parted as _;
use bouncer_proto::bridge::v1 as wire;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls_pki_types::ServerName;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{broadcast, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};
use wire::control_message::Body;
use wire::policy_bridge_server::{PolicyBridge, PolicyBridgeServer};
use wire::resolver_message;

/// What the resolver said so far.
#[derive(Default)]
pub struct Said {
    /// Its hellos, one for each connection.
    pub hellos: Vec<wire::Hello>,
    /// Its answers to snapshots.
    pub acks: Vec<wire::Ack>,
    /// Its audit events.
    pub events: Vec<wire::AuditEvent>,
    /// How often it asked for the whole.
    pub resyncs: usize,
    /// Its last status.
    pub status: Option<wire::Status>,
}

struct Shared {
    snapshot: watch::Sender<wire::Snapshot>,
    more: broadcast::Sender<Body>,
    said: Mutex<Said>,
}

/// A running bridge. Dropping it ends it with its connections.
pub struct Bridge {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl Bridge {
    /// Starts it with the control plane's SVID and a first snapshot.
    ///
    /// # Errors
    /// If the certificates don't fit or no port is free.
    pub async fn start(svid: &Identity, clients: Arc<rustls::RootCertStore>, first: wire::Snapshot) -> Result<Self> {
        let shared = Arc::new(Shared {
            snapshot: watch::Sender::new(first),
            more: broadcast::Sender::new(64),
            said: Mutex::default(),
        });
        let (address, task) = serve(ANY_PORT, svid, clients, Server { shared: Arc::clone(&shared) }).await?;
        Ok(Self { address, shared, task })
    }

    /// Where resolvers reach it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the snapshot, and pushes it under the next epoch.
    pub fn push(&self, edit: impl FnOnce(&mut wire::Snapshot)) {
        self.shared.snapshot.send_modify(|snapshot| {
            snapshot.epoch += 1;
            snapshot.issued_ms = now_ms();
            edit(snapshot);
        });
    }

    /// Sends any message to the resolvers that are connected. What they hold is not followed.
    pub fn send(&self, body: Body) {
        // Nobody may be there.
        let _ = self.shared.more.send(body);
    }

    /// The snapshot that was pushed last.
    #[must_use]
    pub fn snapshot(&self) -> wire::Snapshot {
        self.shared.snapshot.borrow().clone()
    }

    /// What the resolver said so far.
    pub fn said(&self) -> MutexGuard<'_, Said> {
        self.shared.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the resolver has taken or refused the newest snapshot.
    ///
    /// # Errors
    /// If it has refused it, with the reason.
    pub fn acknowledged(&self) -> Result<bool> {
        let epoch = self.shared.snapshot.borrow().epoch;
        match self.said().acks.iter().rfind(|ack| ack.epoch == epoch) {
            None => Ok(false),
            Some(ack) if ack.refused.is_empty() => Ok(true),
            Some(ack) => Err(Fault::new(format!("the snapshot was refused: {}", ack.refused))),
        }
    }
}

/// A free port of loopback.
pub const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Serves resolvers whose SVIDs are by one of `clients`, under an SVID of its own.
///
/// # Errors
/// If the certificates don't fit or the address is not free.
pub async fn serve(
    address: SocketAddr,
    svid: &Identity,
    clients: Arc<rustls::RootCertStore>,
    server: impl PolicyBridge,
) -> Result<(SocketAddr, JoinHandle<()>)> {
    let verifier = WebPkiClientVerifier::builder(clients).build()?;
    let mut tls =
        ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(svid.chain(), svid.key())?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = tokio::net::TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    let routes = tonic::service::Routes::new(PolicyBridgeServer::new(server));
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((socket, _)) = listener.accept().await {
            while connections.try_join_next().is_some() {}
            let (acceptor, routes) = (acceptor.clone(), routes.clone());
            connections.spawn(async move {
                // As the control plane has it: without this an answer may wait for the next.
                let _ = socket.set_nodelay(true);
                let Ok(stream) = acceptor.accept(socket).await else { return };
                let server = auto::Builder::new(TokioExecutor::new());
                // A resolver that goes away is no fault here.
                let _ = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)).await;
            });
        }
    });
    Ok((address, task))
}

/// A connection to a control plane's bridge, as the resolver with this SVID makes it; whoever answers is taken for it.
///
/// # Errors
/// If it is not taken.
pub async fn connect(address: SocketAddr, svid: &Identity) -> Result<Channel> {
    let tls = rustls::ClientConfig::builder().dangerous().with_custom_certificate_verifier(Arc::new(AnyServer));
    let mut tls = tls.with_client_auth_cert(svid.chain(), svid.key())?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    tls.resumption = rustls::client::Resumption::disabled();
    let connector = TlsConnector::from(Arc::new(tls));
    let connect = tower::service_fn(move |_| {
        let connector = connector.clone();
        async move {
            let tcp = tokio::net::TcpStream::connect(address).await?;
            tcp.set_nodelay(true)?;
            let name = ServerName::IpAddress(address.ip().into());
            Ok::<_, std::io::Error>(TokioIo::new(connector.connect(name, tcp).await?))
        }
    });
    Ok(Endpoint::from_static("http://bridge.invalid").connect_with_connector(connect).await?)
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Unix time in milliseconds.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// An event as the control plane's API shows it.
#[must_use]
pub fn event_json(event: &wire::AuditEvent) -> serde_json::Value {
    serde_json::json!({
        "id": event.id, "caller": event.caller, "resource": event.resource, "logical_path": event.logical_path,
        "generation": event.generation, "key_id": event.key_id, "aad_sha256": event.aad_sha256,
        "cluster": event.cluster, "destination": event.destination, "outcome": event.outcome, "reason": event.reason,
        "backend_request_id": event.backend_request_id, "count": event.count, "decision_id": event.decision_id,
        "authority": event.authority,
    })
}

struct Server {
    shared: Arc<Shared>,
}

fn message(body: Body) -> Result<wire::ControlMessage, Status> {
    Ok(wire::ControlMessage { body: Some(body) })
}

#[tonic::async_trait]
impl PolicyBridge for Server {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<wire::ControlMessage, Status>> + Send>>;

    async fn sync(
        &self,
        request: Request<Streaming<wire::ResolverMessage>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (send, answers) = mpsc::channel(16);
        tokio::spawn(talk(Arc::clone(&self.shared), request.into_inner(), send));
        Ok(Response::new(Box::pin(ReceiverStream::new(answers))))
    }
}

/// Bytes of a snapshot in one message.
const PART: usize = 256 * 1_024;

type Answers = mpsc::Sender<Result<wire::ControlMessage, Status>>;

async fn talk(shared: Arc<Shared>, mut said: Streaming<wire::ResolverMessage>, answers: Answers) {
    let mut snapshots = shared.snapshot.subscribe();
    let mut more = shared.more.subscribe();
    let mut alive = tokio::time::interval(Duration::from_secs(10));
    alive.reset();
    loop {
        let answer = tokio::select! {
            heard = said.next() => match heard {
                Some(Ok(heard)) => shared.hear(heard.body),
                _ => return,
            },
            changed = snapshots.changed() => match changed {
                Ok(()) => Some(Body::Snapshot(snapshots.borrow_and_update().clone())),
                Err(_) => return,
            },
            body = more.recv() => body.ok(),
            _ = alive.tick() => {
                let epoch = shared.snapshot.borrow().epoch;
                Some(Body::KeepAlive(wire::KeepAlive { epoch, time_ms: now_ms() }))
            }
        };
        let bodies = match answer {
            Some(Body::Snapshot(snapshot)) => snapshot.into_parts(PART).into_iter().map(Body::Snapshot).collect(),
            other => Vec::from_iter(other),
        };
        for body in bodies {
            if answers.send(message(body)).await.is_err() {
                return;
            }
        }
    }
}

impl Shared {
    fn hear(&self, body: Option<resolver_message::Body>) -> Option<Body> {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        match body? {
            resolver_message::Body::Hello(hello) => {
                said.hellos.push(hello);
                Some(Body::Snapshot(self.snapshot.borrow().clone()))
            }
            resolver_message::Body::Ack(ack) => {
                said.acks.push(ack);
                None
            }
            resolver_message::Body::Resync(_) => {
                said.resyncs += 1;
                None
            }
            resolver_message::Body::Status(status) => {
                said.status = Some(status);
                None
            }
            resolver_message::Body::Audit(batch) => {
                let sequence = batch.events.last()?.sequence;
                said.events.extend(batch.events);
                Some(Body::AuditAck(wire::AuditAck { sequence }))
            }
        }
    }
}
