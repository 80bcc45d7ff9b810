//! `health`: asks a running control plane on this machine, for exec probes in images without curl.

use crate::config::{ApiConfig, TlsFault};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const PATIENCE: Duration = Duration::from_secs(5);
/// More than any probe's answer.
const ANSWER_LIMIT: u64 = 64 * 1024;

/// Why the control plane is not well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HealthError {
    /// It does not answer.
    #[error("no control plane answers on {address}: {kind}. Is it running with this configuration?", kind = source.kind())]
    Unreachable {
        /// Where it was asked.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It takes too long.
    #[error("the control plane did not answer within 5 s")]
    Slow,
    /// It says no.
    #[error("not ready: {0}")]
    NotReady(String),
    /// What answers is no control plane.
    #[error("what answers on the address of api.listen does not speak HTTP as the control plane does")]
    Foreign,
    /// The certificate cannot be read.
    #[error(transparent)]
    Tls(#[from] TlsFault),
}

/// Asks for readiness, or with `live` only for life. Returns the answer's body.
///
/// # Errors
/// [`HealthError`], if it is not well.
pub async fn ask(api: &ApiConfig, live: bool) -> Result<String, HealthError> {
    tokio::time::timeout(PATIENCE, exchange(api, live)).await.map_err(|_| HealthError::Slow)?
}

async fn exchange(api: &ApiConfig, live: bool) -> Result<String, HealthError> {
    let address = reachable(api.listen);
    let unreachable = |source| HealthError::Unreachable { address, source };
    let tcp = TcpStream::connect(address).await.map_err(unreachable)?;
    let path = if live { "/healthz" } else { "/readyz" };
    let answer = match &api.tls {
        None => get(tcp, path).await.map_err(unreachable)?,
        Some(files) => {
            let leaf = files.certificates()?.swap_remove(0);
            let connector = TlsConnector::from(Arc::new(pinned(leaf)?));
            let name = ServerName::from(address.ip());
            get(connector.connect(name, tcp).await.map_err(unreachable)?, path).await.map_err(unreachable)?
        }
    };
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(HealthError::Foreign)?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(body.to_owned()),
        Some("503") => Err(HealthError::NotReady(body.trim_end().to_owned())),
        _ => Err(HealthError::Foreign),
    }
}

/// Where a listener is reached from the machine itself.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

async fn get(mut io: impl AsyncRead + AsyncWrite + Unpin, path: &str) -> std::io::Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    match io.take(ANSWER_LIMIT).read_to_string(&mut answer).await {
        // A TLS peer that closes without saying goodbye has still answered.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !answer.is_empty() => Ok(answer),
        read => read.map(|_| answer),
    }
}

/// TLS to ourselves: the one certificate of our own file, whatever names it carries, and no other.
fn pinned(leaf: CertificateDer<'static>) -> Result<ClientConfig, HealthError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Arc::new(Pinned { leaf, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| TlsFault::Certificate("cannot be used with this TLS library"))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(config)
}

#[derive(Debug)]
struct Pinned {
    leaf: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if *end_entity == self.leaf {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(rustls::Error::InvalidCertificate(rustls::CertificateError::ApplicationVerificationFailure))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
