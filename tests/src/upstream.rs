//! The protected upstream: a TLS server that wants the customer's client certificate, and remembers what it saw.

use crate::pki::Identity;
use crate::{Result, fault::Doing as _};
use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::RootCertStore;
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Whose certificates it wants.
#[derive(Clone)]
pub enum ClientAuth {
    /// Everyone must present one of this authority.
    Required(Arc<RootCertStore>),
    /// It asks for one and lets those pass who have none: shows an uncredentialed connection as a success.
    Optional(Arc<RootCertStore>),
    /// It asks for none.
    None,
}

/// A client certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Common name of the subject.
    pub common_name: String,
    /// Common name of the issuer.
    pub issuer: String,
    /// URI SANs.
    pub uris: Vec<String>,
    /// Serial number.
    pub serial: u64,
}

/// A request that arrived.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Seen {
    /// Counts this upstream's connections from 1.
    pub connection: u64,
    /// The connection's client certificate.
    pub peer: Option<Peer>,
    /// `HTTP/1.1` or `HTTP/2.0`.
    pub protocol: String,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The headers, names in lower case; of several with one name all, joined by commas.
    pub headers: BTreeMap<String, String>,
}

/// A TLS handshake that ended, well or not.
#[derive(Debug, Clone)]
pub struct Handshake {
    /// Counts this upstream's connections from 1.
    pub connection: u64,
    /// The client certificate, where the handshake succeeded with one.
    pub peer: Option<Peer>,
    /// The TLS error, where it failed.
    pub error: Option<String>,
}

#[derive(Default)]
struct Record {
    connections: AtomicU64,
    started: AtomicU64,
    broken: AtomicU64,
    requests: Mutex<Vec<Seen>>,
    handshakes: Mutex<Vec<Handshake>>,
}

/// A running upstream.
pub struct Upstream {
    address: SocketAddr,
    record: Arc<Record>,
    task: tokio::task::JoinHandle<()>,
}

impl Upstream {
    /// Starts one that speaks HTTP/2 and HTTP/1.1.
    ///
    /// # Errors
    /// If the certificates don't fit or no port is free.
    pub async fn start(server: &Identity, clients: &ClientAuth) -> Result<Self> {
        Self::start_with(server, clients, &["h2", "http/1.1"]).await
    }

    /// Starts one that offers the given protocols.
    ///
    /// # Errors
    /// If the certificates don't fit or no port is free.
    pub async fn start_with(server: &Identity, clients: &ClientAuth, protocols: &[&str]) -> Result<Self> {
        let config = ServerConfig::builder();
        let verifier = |roots: &Arc<RootCertStore>| WebPkiClientVerifier::builder(Arc::clone(roots));
        let config = match clients {
            ClientAuth::Required(roots) => config.with_client_cert_verifier(verifier(roots).build()?),
            ClientAuth::Optional(roots) => {
                config.with_client_cert_verifier(verifier(roots).allow_unauthenticated().build()?)
            }
            ClientAuth::None => config.with_no_client_auth(),
        };
        let mut config = config.with_single_cert(server.chain(), server.key()).doing("the upstream's certificate")?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let record = Arc::new(Record::default());
        let shared = Arc::clone(&record);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(serve(acceptor.clone(), socket, Arc::clone(&shared)));
            }
        });
        Ok(Self { address, record, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All requests so far.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.record.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All handshakes so far.
    #[must_use]
    pub fn handshakes(&self) -> Vec<Handshake> {
        self.record.handshakes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many TCP connections arrived, with or without a handshake.
    #[must_use]
    pub fn connections(&self) -> u64 {
        self.record.connections.load(Ordering::SeqCst)
    }

    /// How many requests have begun to arrive.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.record.started.load(Ordering::SeqCst)
    }

    /// How many requests broke off before their end.
    #[must_use]
    pub fn broken(&self) -> u64 {
        self.record.broken.load(Ordering::SeqCst)
    }

    /// How many requests arrived over a connection without a client certificate. Never more than 0.
    #[must_use]
    pub fn uncredentialed(&self) -> usize {
        self.requests().iter().filter(|seen| seen.peer.is_none()).count()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(acceptor: TlsAcceptor, socket: tokio::net::TcpStream, record: Arc<Record>) {
    let connection = record.connections.fetch_add(1, Ordering::SeqCst) + 1;
    let accepted = acceptor.accept(socket).await;
    let (peer, error) = match &accepted {
        Ok(stream) => {
            let certs = stream.get_ref().1.peer_certificates();
            (certs.and_then(<[_]>::first).and_then(|cert| Peer::of(cert)), None)
        }
        Err(error) => (None, Some(error.to_string())),
    };
    let handshake = Handshake { connection, peer: peer.clone(), error };
    record.handshakes.lock().unwrap_or_else(PoisonError::into_inner).push(handshake);
    let Ok(stream) = accepted else { return };
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let (record, peer) = (Arc::clone(&record), peer.clone());
        async move { answer(connection, peer, request, &record).await }
    });
    // A client that goes away is no fault here.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
}

impl Peer {
    /// What a certificate says of its holder. `None` if it is not one of the harness's.
    #[must_use]
    pub fn of(der: &[u8]) -> Option<Self> {
        let (_, cert) = X509Certificate::from_der(der).ok()?;
        let common_name = cert.subject().iter_common_name().next()?.as_str().ok()?.to_owned();
        let issuer = cert.issuer().iter_common_name().next()?.as_str().ok()?.to_owned();
        let uris = match cert.subject_alternative_name() {
            Ok(Some(names)) => names.value.general_names.iter(),
            _ => [].iter(),
        };
        let uris =
            uris.filter_map(|name| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None });
        // Wider serials lose their upper bytes: the harness issues none.
        let serial = cert.raw_serial().iter().fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
        Some(Self { common_name, issuer, uris: uris.collect(), serial })
    }
}

/// Answers with what was seen. `/status/503` and the like answer with that status, `/redirect?TO` with a redirect.
async fn answer(
    connection: u64,
    peer: Option<Peer>,
    request: Request<Incoming>,
    record: &Record,
) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let (parts, body) = request.into_parts();
    record.started.fetch_add(1, Ordering::SeqCst);
    body.collect().await.map_err(|error| {
        record.broken.fetch_add(1, Ordering::SeqCst);
        std::io::Error::other(error)
    })?;
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in &parts.headers {
        let text = headers.entry(name.to_string()).or_default();
        if !text.is_empty() {
            text.push(',');
        }
        text.push_str(&String::from_utf8_lossy(value.as_bytes()));
    }
    let path = parts.uri.path_and_query().map_or_else(String::new, ToString::to_string);
    let protocol = format!("{:?}", parts.version);
    let seen = Seen { connection, peer, protocol, method: parts.method.to_string(), path, headers };
    let body = serde_json::to_vec(&seen).map_err(std::io::Error::other)?;
    let mut response = Response::new(Full::new(Bytes::from(body)));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    if let Some(code) = seen.path.strip_prefix("/status/").and_then(|code| StatusCode::from_bytes(code.as_bytes()).ok())
    {
        *response.status_mut() = code;
    }
    if let Some(to) = seen.path.strip_prefix("/redirect?").and_then(|to| header::HeaderValue::from_str(to).ok()) {
        *response.status_mut() = StatusCode::FOUND;
        response.headers_mut().insert(header::LOCATION, to);
    }
    record.requests.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
    Ok(response)
}
