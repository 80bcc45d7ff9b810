//! TLS in front of a plain server of the scenario, for what must be seen as it is at a customer's.

use crate::pki::Identity;
use crate::{Result, fault::Doing as _};
use rustls::server::ServerConfig;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A running front.
pub struct TlsFront {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl TlsFront {
    /// Starts one with this certificate in front of `behind`.
    ///
    /// # Errors
    /// If the certificate can't be used or no port is free.
    pub async fn start(server: &Identity, behind: SocketAddr) -> Result<Self> {
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(server.chain(), server.key()).doing("the front's certificate")?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let acceptor = acceptor.clone();
                connections.spawn(async move {
                    let mut outside = acceptor.accept(socket).await?;
                    let mut inside = TcpStream::connect(behind).await?;
                    tokio::io::copy_bidirectional(&mut outside, &mut inside).await
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
}

impl Drop for TlsFront {
    fn drop(&mut self) {
        self.task.abort();
    }
}
