//! mTLS under the Policy Bridge: connections in, each with the peer's SPIFFE ID from its verified certificate, or with the
//! key of a resolver that enrols ([`super::enrol`]).

use super::enrol::{Enrolment, KeyHolder};
use super::service::{Bridge, Peer};
use crate::http_server::slots::{self, Slot, Slots};
use crate::http_server::{self, Patience};
use crate::metrics::{BridgeRefusal, Metrics};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use bouncer_custody::BouncerIdentity;
use futures::StreamExt as _;
use jiff::Timestamp;
use rustls::ServerConfig;
use spiffe::X509Source;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::service::Routes;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long a call may take until its answer begins. A resolver waits for less.
const ANSWER: Duration = Duration::from_secs(20);
/// One stream is all a resolver needs; a few more cover its reconnects.
const STREAMS: u32 = 8;

/// Why a connection did not come about.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the TLS handshake failed")]
    Handshake(#[source] io::Error),
    #[error("the TLS handshake took longer than 10 s")]
    Slow,
    #[error("the client's certificate has no single SPIFFE ID")]
    NoSpiffeId,
    #[error("the client's certificate has no key that can be read")]
    NoKey,
}

/// The server's half of the mTLS: our SVID, and trust in the bundles of the Workload API.
///
/// # Errors
/// If the source holds no usable SVID or bundle.
pub fn tls(source: X509Source) -> Result<ServerConfig, spiffe_rustls::Error> {
    spiffe_rustls::mtls_server(source).with_alpn_protocols([b"h2"]).build()
}

/// A connection whose peer is known: what is known of it, a [`Peer`] or a [`super::enrol::KeyHolder`], is attached to every
/// request on it.
pub struct Identified<T, P = Peer> {
    io: T,
    peer: P,
    /// Given back when the connection ends.
    slot: Option<Slot>,
}

impl<T, P> Identified<T, P> {
    /// Joins a connection and what its transport proved about the peer.
    pub const fn new(io: T, peer: P) -> Self {
        Self { io, peer, slot: None }
    }
}

/// Serves the Policy Bridge on connections whose peers are known, until told to stop. A connection without a session is
/// ended as one of the REST API is.
pub async fn serve<T, P>(bridge: Bridge, connections: impl futures::Stream<Item = Identified<T, P>> + Send)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Clone + Send + Sync + 'static,
{
    let stop = bridge.stop.clone();
    let services = Routes::new(bridge.clone().into_enrolment()).add_service(bridge.into_service());
    let router = services.into_axum_router().layer(axum::middleware::from_fn(answered));
    let http = Arc::new(http_server::http(STREAMS).http2_only());
    let running = TaskTracker::new();
    tokio::pin!(connections);
    while let Some(Some(Identified { io, peer, slot })) = stop.run_until_cancelled(connections.next()).await {
        let (http, served, stop) = (Arc::clone(&http), (router.clone(), peer), stop.clone());
        running.spawn(async move {
            http_server::speak(io, &http, served, Patience::default(), stop).await;
            drop(slot);
        });
    }
    running.close();
    running.wait().await;
}

/// Ends a call that does not get as far as an answer, as one whose message does not come to its end.
async fn answered(request: Request, next: Next) -> Response {
    let answer = tokio::time::timeout(ANSWER, next.run(request)).await;
    answer.unwrap_or_else(|_| Status::deadline_exceeded("the call was not complete within 20 s").into_http())
}

/// Accepts and authenticates connections until told to stop: by their SVIDs. So many at once, with those that are in their
/// handshake.
pub fn accept(
    listener: TcpListener,
    tls: ServerConfig,
    most: u32,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> ReceiverStream<Identified<TlsStream<TcpStream>>> {
    // Many resolvers may come from one address, and a connection is an SVID's.
    let slots = Slots::new("bridge.listen", most, most);
    accept_by(listener, tls, slots, metrics, stop, |leaf, _| peer(leaf).ok_or(Refused::NoSpiffeId))
}

/// The same for connections of resolvers that have no SVID: by their keys, which identify nobody before they enrol.
pub fn accept_keys(
    listener: TcpListener,
    tls: ServerConfig,
    most: u32,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    enrolment: Arc<Enrolment>,
) -> ReceiverStream<Identified<TlsStream<TcpStream>, KeyHolder>> {
    // Anybody may have one of these.
    let slots = Slots::new("bridge.iam.listen", most, most.div_ceil(2));
    accept_by(listener, tls, slots, metrics, stop, move |leaf, address| {
        KeyHolder::of(leaf, address, Arc::clone(&enrolment)).ok_or(Refused::NoKey)
    })
}

fn accept_by<P: Send + 'static>(
    listener: TcpListener,
    tls: ServerConfig,
    slots: Slots,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    known: impl Fn(&[u8], IpAddr) -> Result<P, Refused> + Clone + Send + Sync + 'static,
) -> ReceiverStream<Identified<TlsStream<TcpStream>, P>> {
    let (ready, connections) = mpsc::channel(16);
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    tokio::spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (tcp, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, most likely: waiting sheds load and keeps what is connected.
                    tracing::warn!(%error, "the Policy Bridge cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let network = slots::network(address.ip());
            let Some(slot) = slots.take(network) else { continue };
            let (acceptor, metrics, ready, known) =
                (acceptor.clone(), Arc::clone(&metrics), ready.clone(), known.clone());
            tokio::spawn(async move {
                match identify(&acceptor, tcp, |leaf| known(leaf, network)).await {
                    Ok(connection) => {
                        let connection = Identified { slot: Some(slot), ..connection };
                        // The receiver is gone only when the server has stopped.
                        let _ = ready.send(connection).await;
                    }
                    Err(refused) => {
                        metrics.bridge_refused(BridgeRefusal::Handshake);
                        let cause = std::error::Error::source(&refused).map(ToString::to_string);
                        let cause = cause.as_deref().unwrap_or_default();
                        tracing::warn!(%address, why = %refused, cause, "refused a Policy Bridge connection");
                    }
                }
            });
        }
    });
    ReceiverStream::new(connections)
}

async fn identify<P>(
    acceptor: &TlsAcceptor,
    tcp: TcpStream,
    known: impl FnOnce(&[u8]) -> Result<P, Refused>,
) -> Result<Identified<TlsStream<TcpStream>, P>, Refused> {
    // Small messages, answered at once; without this an ack may wait for the next.
    let _ = tcp.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp)).await;
    let stream = handshake.map_err(|_| Refused::Slow)?.map_err(Refused::Handshake)?;
    let leaf = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let peer = known(leaf.map_or(&[], |leaf| leaf))?;
    Ok(Identified::new(stream, peer))
}

/// The identity in a verified leaf: exactly one URI SAN, a SPIFFE ID (X509-SVID, section 2).
fn peer(leaf: &[u8]) -> Option<Peer> {
    let (_, certificate) = X509Certificate::from_der(leaf).ok()?;
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (uri, None) = (uris.next()?, uris.next()) else { return None };
    let id = BouncerIdentity::Spiffe(uri.parse().ok()?);
    let not_after = Timestamp::from_second(certificate.validity().not_after.timestamp()).ok()?;
    Some(Peer { id, not_after })
}
