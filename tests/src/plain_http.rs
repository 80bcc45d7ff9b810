//! A plain HTTP server on a free port, for what stands in the place of a backend.

use crate::Result;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// A running server; dropped, it takes no more connections.
pub struct PlainHttp {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl PlainHttp {
    /// Starts it. Where `respond` fails, the connection ends without an answer.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start<S, F>(state: Arc<S>, respond: fn(Arc<S>, Request<Incoming>) -> F) -> Result<Self>
    where
        S: Send + Sync + 'static,
        F: Future<Output = Result<Response<Full<Bytes>>>> + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let state = Arc::clone(&state);
                let service = hyper::service::service_fn(move |request| {
                    let response = respond(Arc::clone(&state), request);
                    async { response.await.map_err(|fault| std::io::Error::other(fault.what().to_owned())) }
                });
                tokio::spawn(async move {
                    let server = auto::Builder::new(TokioExecutor::new());
                    // A client that goes away is no fault here.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Ok(Self { address, task })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its base URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for PlainHttp {
    fn drop(&mut self) {
        self.task.abort();
    }
}
