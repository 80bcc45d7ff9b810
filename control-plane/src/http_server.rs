//! The REST API's listener: plain on loopback, TLS elsewhere, with bounds on how long and how many. Called by
//! [`crate::serve`]; knows nothing of what it serves, and tells it who is at the other end.

use crate::api::limits::PeerAddress;
use axum::{Extension, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const HANDSHAKE: Duration = Duration::from_secs(10);
const HEADERS: Duration = Duration::from_secs(10);
const CONNECTIONS: usize = 2_048;
const STREAMS: u32 = 64;
const PING: Duration = Duration::from_secs(20);
/// Headers of one request, in bytes: a token, a path, a cursor.
const HEADER_BYTES: u32 = 16 * 1024;

/// Serves until told to stop, then lets running calls end. Returns once the last connection is closed.
pub async fn serve(listener: TcpListener, tls: Option<ServerConfig>, router: Router, stop: CancellationToken) {
    let acceptor = tls.map(|tls| TlsAcceptor::from(Arc::new(tls)));
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
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
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (acceptor, stop) = (acceptor.clone(), stop.clone());
        let router = router.clone().layer(Extension(PeerAddress(peer.ip())));
        connections.spawn(async move {
            connection(tcp, acceptor, router, stop).await;
            drop(slot);
        });
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(tcp: TcpStream, acceptor: Option<TlsAcceptor>, router: Router, stop: CancellationToken) {
    // Without it a small answer may wait for the acknowledgement of the one before.
    let _ = tcp.set_nodelay(true);
    match acceptor {
        None => speak(tcp, router, stop).await,
        Some(acceptor) => match tokio::time::timeout(HANDSHAKE, acceptor.accept(tcp)).await {
            Ok(Ok(stream)) => speak(stream, router, stop).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake with the API failed"),
            Err(_) => tracing::debug!("a TLS handshake with the API took too long"),
        },
    }
}

async fn speak(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, router: Router, stop: CancellationToken) {
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS).max_buf_size(HEADER_BYTES as usize * 2);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADER_BYTES)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING);
    let connection = builder.serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an API connection ended early");
    }
}
