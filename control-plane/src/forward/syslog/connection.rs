//! Connections to syslog receivers: TLS (RFC 5425), or TCP to this very machine.

use crate::forward::receiver::{LineFault, PATIENCE, ReceiverFault};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a receiver may take to agree to an end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Who is told.
#[derive(Clone)]
pub struct Receiver {
    host: String,
    port: u16,
    tls: Option<(ServerName<'static>, Arc<ClientConfig>)>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Receiver({}:{})", self.host, self.port)
    }
}

impl Receiver {
    /// The receiver at a URL, issued under the authorities in a file.
    ///
    /// # Errors
    /// [`ReceiverFault`].
    pub fn parse(url: &str, ca_file: Option<&Path>) -> Result<Self, ReceiverFault> {
        let (scheme, place) = url.split_once("://").ok_or(ReceiverFault::Form)?;
        let (host, port) = place.rsplit_once(':').ok_or(ReceiverFault::Form)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(ReceiverFault::Form)?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| ReceiverFault::Form)?;
        match scheme {
            "syslog+tcp" => {
                let here = host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
                if here { Ok(Self { host, port, tls: None }) } else { Err(ReceiverFault::Clear) }
            }
            "syslog+tls" => {
                let trusted =
                    authorities(ca_file.ok_or(ReceiverFault::NoAuthority)?).ok_or(ReceiverFault::Authority)?;
                let tls = ClientConfig::builder().with_root_certificates(trusted).with_no_client_auth();
                Ok(Self { host, port, tls: Some((name, Arc::new(tls))) })
            }
            _ => Err(ReceiverFault::Form),
        }
    }
}

fn authorities(file: &Path) -> Option<RootCertStore> {
    let mut trusted = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(file).ok()? {
        trusted.add(certificate.ok()?).ok()?;
    }
    (!trusted.is_empty()).then_some(trusted)
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// An open connection.
pub(in crate::forward) struct Connection(Box<dyn Io>);

impl Connection {
    pub(in crate::forward) async fn open(receiver: &Receiver) -> Result<Self, LineFault> {
        let open = async {
            let tcp = TcpStream::connect((receiver.host.as_str(), receiver.port)).await;
            let tcp = tcp.map_err(|error| LineFault::Reach(error.into()))?;
            let Some((name, config)) = &receiver.tls else { return Ok(Self(Box::new(tcp))) };
            let stream = TlsConnector::from(Arc::clone(config)).connect(name.clone(), tcp).await;
            Ok(Self(Box::new(stream.map_err(|error| LineFault::Tls(error.into()))?)))
        };
        tokio::time::timeout(PATIENCE, open).await.map_err(|_| LineFault::Slow)?
    }

    pub(in crate::forward) async fn write(&mut self, frames: &[u8]) -> Result<(), LineFault> {
        let write = async {
            self.0.write_all(frames).await?;
            self.0.flush().await
        };
        let written = tokio::time::timeout(PATIENCE, write).await.map_err(|_| LineFault::Slow)?;
        written.map_err(|error| LineFault::Broken(error.into()))
    }

    /// Returns when the receiver has gone. It says nothing before.
    pub(in crate::forward) async fn ended(&mut self) {
        let mut said = [0; 256];
        while self.0.read(&mut said).await.is_ok_and(|length| length > 0) {}
    }

    /// Says goodbye, and waits for the receiver's.
    pub(in crate::forward) async fn close(&mut self) {
        let farewell = async {
            if self.0.shutdown().await.is_ok() {
                self.ended().await;
            }
        };
        // Whoever takes longer hears the last batch again.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}
