//! mTLS under the Policy Bridge: connections in, each with the peer's SPIFFE ID from its verified certificate, or with the
//! key of a resolver that enrols ([`super::enrol`]).

use super::enrol::{Enrolment, KeyHolder};
use super::service::{Bridge, Peer};
use crate::metrics::{BridgeRefusal, Metrics};
use bouncer_custody::BouncerIdentity;
use jiff::Timestamp;
use rustls::ServerConfig;
use spiffe::X509Source;
use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::Connected;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// HTTP/2: pings that find dead peers.
const PING: Duration = Duration::from_secs(20);
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
    _slot: Option<OwnedSemaphorePermit>,
}

impl<T, P> Identified<T, P> {
    /// Joins a connection and what its transport proved about the peer.
    pub const fn new(io: T, peer: P) -> Self {
        Self { io, peer, _slot: None }
    }
}

impl<T, P: Clone + Send + Sync + 'static> Connected for Identified<T, P> {
    type ConnectInfo = P;
    fn connect_info(&self) -> P {
        self.peer.clone()
    }
}

impl<T: AsyncRead + Unpin, P: Unpin> AsyncRead for Identified<T, P> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl<T: AsyncWrite + Unpin, P: Unpin> AsyncWrite for Identified<T, P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Serves the Policy Bridge on connections whose peers are known, until told to stop.
///
/// # Errors
/// If the HTTP/2 server cannot be set up.
pub async fn serve<T, P>(
    bridge: Bridge,
    connections: impl futures::Stream<Item = io::Result<Identified<T, P>>> + Send,
) -> Result<(), tonic::transport::Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    P: Clone + Send + Sync + Unpin + 'static,
{
    let stop = bridge.stop.clone();
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(PING))
        .http2_keepalive_timeout(Some(PING))
        .max_concurrent_streams(STREAMS)
        .add_service(bridge.clone().into_enrolment())
        .add_service(bridge.into_service())
        .serve_with_incoming_shutdown(connections, stop.cancelled_owned())
        .await
}

/// Accepts and authenticates connections until told to stop: by their SVIDs. So many at once, with those that are in their
/// handshake.
pub fn accept(
    listener: TcpListener,
    tls: ServerConfig,
    most: usize,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<Identified<TlsStream<TcpStream>>>> {
    accept_by(listener, tls, most, metrics, stop, |leaf, _| peer(leaf).ok_or(Refused::NoSpiffeId))
}

/// The same for connections of resolvers that have no SVID: by their keys, which identify nobody before they enrol.
pub fn accept_keys(
    listener: TcpListener,
    tls: ServerConfig,
    most: usize,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    enrolment: Arc<Enrolment>,
) -> ReceiverStream<io::Result<Identified<TlsStream<TcpStream>, KeyHolder>>> {
    accept_by(listener, tls, most, metrics, stop, move |leaf, address| {
        KeyHolder::of(leaf, address, Arc::clone(&enrolment)).ok_or(Refused::NoKey)
    })
}

fn accept_by<P: Send + 'static>(
    listener: TcpListener,
    tls: ServerConfig,
    most: usize,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    known: impl Fn(&[u8], IpAddr) -> Result<P, Refused> + Clone + Send + Sync + 'static,
) -> ReceiverStream<io::Result<Identified<TlsStream<TcpStream>, P>>> {
    let (ready, connections) = mpsc::channel(16);
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let slots = Arc::new(Semaphore::new(most));
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
            let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
            let (acceptor, metrics, ready, known) =
                (acceptor.clone(), Arc::clone(&metrics), ready.clone(), known.clone());
            tokio::spawn(async move {
                match identify(&acceptor, tcp, |leaf| known(leaf, address.ip())).await {
                    Ok(connection) => {
                        let connection = Identified { _slot: Some(slot), ..connection };
                        // The receiver is gone only when the server has stopped.
                        let _ = ready.send(Ok(connection)).await;
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
