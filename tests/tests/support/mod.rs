//! A client that says exactly what a scenario wants, byte by byte: HTTP/1.1 over TLS, with an SVID.

use bouncer_tests::any_server::AnyServer;
use bouncer_tests::client::ENVOY_NAME;
use bouncer_tests::fault::Doing as _;
use bouncer_tests::pki::{self, Identity};
use bouncer_tests::stack::Stack;
use bouncer_tests::{Fault, Result};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::{TlsConnector, client::TlsStream};

const DEADLINE: Duration = Duration::from_secs(20);

/// One connection to Envoy's listener.
pub(crate) struct Raw(TlsStream<tokio::net::TcpStream>);

impl Raw {
    /// Connects with this identity, and this name in the handshake.
    pub(crate) async fn open(stack: &Stack, identity: &Identity, server_name: &str) -> Result<Self> {
        let roots = pki::roots(stack.server_ca.pem())?;
        let mut tls = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(identity.chain(), identity.key())?;
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        if server_name != ENVOY_NAME {
            // The name is a lie here, and no certificate has it.
            tls.dangerous().set_certificate_verifier(Arc::new(AnyServer));
        }
        let socket = tokio::net::TcpStream::connect(stack.rendered.listener).await?;
        let name = server_name.to_owned().try_into().map_err(|_| Fault::new("no server name"))?;
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, socket).await.doing("the handshake")?;
        Ok(Self(stream))
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.0.write_all(bytes.as_ref()).await?;
        self.0.flush().await.doing("sending")
    }

    /// Status and everything else of an answer that ends with the connection.
    pub(crate) async fn answer(mut self) -> Result<(u16, String)> {
        let mut bytes = Vec::new();
        // A peer that closes without a TLS alert has said all that it had to say.
        let read = tokio::time::timeout(DEADLINE, self.0.read_to_end(&mut bytes)).await?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let status = text.get(9..12).and_then(|status| status.parse().ok());
        match (status, read) {
            (Some(status), _) => Ok((status, text)),
            (None, Err(error)) => Err(Fault::new(format!("no answer: {error}"))),
            (None, Ok(_)) => Err(Fault::new(format!("no answer in {text:?}"))),
        }
    }
}
