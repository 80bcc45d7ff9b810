//! HTTP servers with bounds on how long and how many: the REST API's listener, plain on loopback and TLS elsewhere, and the
//! connections of the Policy Bridge. Called by [`crate::serve`] and [`crate::bridge::transport`]; knows nothing of what it
//! serves, and tells it who is at the other end.

pub(crate) mod slots;
#[cfg(test)]
mod tests;
mod turn;

use crate::api::limits::PeerAddress;
use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use slots::Slots;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use turn::{Calls, Turn};

/// Connections of the REST API at once.
pub const CONNECTIONS: u32 = 2_048;
/// And of one address, unless the configuration says otherwise.
pub const PER_ADDRESS: u32 = 256;
const STREAMS: u32 = 64;
const PING: Duration = Duration::from_secs(20);
/// Headers of one request, in bytes: a token, a path, a cursor.
const HEADER_BYTES: u32 = 16 * 1024;

/// How many connections, and how long each may wait for its peer.
#[derive(Debug, Clone)]
pub struct Bounds {
    /// Connections at once.
    pub connections: u32,
    /// How many of them one address may have; of IPv6, one /64 network.
    pub per_address: u32,
    /// How long one waits.
    pub patience: Patience,
}

/// How long a connection waits for its peer. For our own work it waits as long as that takes.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For the TLS handshake, then for the first request, for each head in HTTP/1, and for its end.
    pub opening: Duration,
    /// For another request, or until the peer takes more of an answer.
    pub quiet: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { connections: CONNECTIONS, per_address: PER_ADDRESS, patience: Patience::default() }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self { opening: Duration::from_secs(10), quiet: Duration::from_secs(60) }
    }
}

/// Serves until told to stop, then lets running calls end. Returns once the last connection is closed.
pub async fn serve(
    listener: TcpListener,
    tls: Option<ServerConfig>,
    router: Router,
    bounds: Bounds,
    stop: CancellationToken,
) {
    let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
    let slots = Slots::new("api.listen", bounds.connections, bounds.per_address);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: waiting sheds load and keeps what is connected.
                tracing::warn!(%error, "the API cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let address = slots::network(peer.ip());
        let Some(slot) = slots.take(address) else { continue };
        let (acceptor, router, patience, stop) = (acceptor.clone(), router.clone(), bounds.patience, stop.clone());
        connections.spawn(async move {
            connection(tcp, acceptor, (router, PeerAddress(address)), patience, stop).await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(
    tcp: TcpStream,
    acceptor: Option<TlsAcceptor>,
    served: (Router, PeerAddress),
    patience: Patience,
    stop: CancellationToken,
) {
    // Without it a small answer may wait for the acknowledgement of the one before.
    let _ = tcp.set_nodelay(true);
    let mut http = http(STREAMS);
    http.http1().timer(TokioTimer::new()).header_read_timeout(patience.opening).max_buf_size(HEADER_BYTES as usize * 2);
    match acceptor {
        None => speak(tcp, &http, served, patience, stop).await,
        Some(acceptor) => match tokio::time::timeout(patience.opening, acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => speak(stream, &http, served, patience, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with the API failed"),
            Err(_) => tracing::debug!("a TLS handshake with the API took too long"),
        },
    }
}

/// HTTP with so many streams on one connection, and pings that find dead peers.
pub(crate) fn http(streams: u32) -> Builder<TokioExecutor> {
    let mut http = Builder::new(TokioExecutor::new());
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams)
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    http
}

/// Serves one connection until its end, until it has waited for its peer for too long, or until told to stop. Who is at the
/// other end is attached to every request.
pub(crate) async fn speak<P: Clone + Send + Sync + 'static>(
    io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    http: &Builder<TokioExecutor>,
    (router, peer): (Router, P),
    patience: Patience,
    stop: CancellationToken,
) {
    let turn = Turn::default();
    let calls = Calls { router, peer, turn: turn.clone() };
    let connection = http.serve_connection(TokioIo::new(io), TowerToHyperService::new(calls));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = turn.waited(patience) => {
            connection.as_mut().graceful_shutdown();
            // A request that was on its way is still answered.
            turn.pass();
            tokio::select! {
                ended = &mut connection => ended,
                () = turn.waited(Patience { quiet: patience.opening, ..patience }) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}
