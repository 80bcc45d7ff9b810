//! One connection to one of the control plane's addresses, and which link it failed at.

use super::enrol::{Connection, EnrolError, Enroller};
use crate::config::{BridgeConfig, BridgeLogin};
use crate::engine::Engine;
use bouncer_custody::Link;
use hyper_util::rt::TokioIo;
use rand::seq::SliceRandom as _;
use rustls_pki_types::ServerName;
use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tonic::transport::Endpoint;

/// How long one of a name's records may take to connect.
const RECORD: Duration = Duration::from_secs(2);
/// So many of them are tried, by chance.
const RECORDS: usize = 4;
/// How long a name may take to resolve, a handshake to end, and a stream to begin; each by itself, so that it is told apart.
pub(super) const STEP: Duration = Duration::from_secs(5);

/// Why a connection to the control plane ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum BridgeError {
    #[error("there is no X.509-SVID yet")]
    NoIdentity,
    #[error("there is nothing to enrol with: {0}")]
    Enrol(#[from] EnrolError),
    #[error("it refuses the enrolment: {0}")]
    Refused(tonic::Status),
    #[error("it did not answer the enrolment within 15 s")]
    SlowEnrolment,
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] spiffe_rustls::Error),
    #[error("{}: {why}", link.what())]
    Broken { link: Link, why: String },
    #[error("it can't be reached: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("it ended the stream: {0}")]
    Status(#[from] tonic::Status),
    #[error("it ended the stream")]
    Ended,
    #[error("it was silent for 30 s")]
    Silent,
    #[error("its snapshot or delta is larger than 64 MiB, or never ends")]
    TooLarge,
}

impl BridgeError {
    /// Which link is broken.
    pub(super) fn link(&self) -> Link {
        match self {
            Self::NoIdentity | Self::Enrol(_) | Self::Tls(_) => Link::Svid,
            Self::Broken { link, .. } => *link,
            Self::Connect(error) => handshake(error).unwrap_or(Link::Service),
            Self::Status(status) | Self::Refused(status) => match status.code() {
                Code::PermissionDenied => Link::Authorization,
                // The control plane names so only what is wrong with the connection's SVID, or with what it enrols by.
                Code::Unauthenticated => Link::Svid,
                // Where a TLS server refuses the client's certificate, that shows behind the handshake.
                _ => handshake(status).unwrap_or(Link::Service),
            },
            Self::Ended | Self::Silent | Self::SlowEnrolment | Self::TooLarge => Link::Service,
        }
    }

    /// The control plane served this connection well until its time was over.
    pub(super) fn is_end_of_svid(&self) -> bool {
        matches!(self, Self::Status(status) if status.code() == Code::Unauthenticated)
    }
}

/// The link that a TLS error behind an error speaks of; `None` if there is no TLS error.
fn handshake(error: &(dyn Error + 'static)) -> Option<Link> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(of_tls(tls));
        }
        // An I/O error shows what it wraps by its own door only.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn Error + 'static)),
            None => error.source(),
        };
    }
    None
}

fn of_tls(error: &rustls::Error) -> Link {
    use rustls::AlertDescription as Alert;
    match error {
        // The verifier's own words: trust, the expected SPIFFE ID, the certificate's form.
        rustls::Error::InvalidCertificate(_) | rustls::Error::Other(_) | rustls::Error::NoCertificatesPresented => {
            Link::Svid
        }
        rustls::Error::AlertReceived(
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::CertificateRequired
            | Alert::UnknownCA
            | Alert::AccessDenied
            // An authority of the same name with another key.
            | Alert::DecryptError,
        ) => Link::Svid,
        _ => Link::Tls,
    }
}

/// What TLS said after its handshake. In TLS 1.3 a server refuses the client's certificate only then, and HTTP/2 keeps
/// the words of such an error, not its kind.
#[derive(Debug, Clone, Default)]
pub(super) struct Afterwards(Arc<OnceLock<(Link, String)>>);

impl Afterwards {
    /// The error that a connection ended with, or what stands behind it.
    pub(super) fn explain(&self, error: BridgeError) -> BridgeError {
        match self.0.get() {
            Some((link, why)) => BridgeError::Broken { link: *link, why: why.clone() },
            None => error,
        }
    }
}

/// A connection that notes such an error.
struct Noting {
    stream: TlsStream<TcpStream>,
    afterwards: Afterwards,
}

impl AsyncRead for Noting {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && let Some(link) = handshake(error)
        {
            let _ = self.afterwards.0.set((link, error.to_string()));
        }
        read
    }
}

impl AsyncWrite for Noting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Connects to one address. A resolver that enrols has yet to do that.
pub(super) async fn connect<'a>(
    engine: &Engine,
    config: &BridgeConfig,
    address: &str,
    afterwards: &Afterwards,
    enroller: Option<&'a Enroller>,
) -> Result<Connection<'a>, BridgeError> {
    let (tls, name, enrols) = match (&config.login, enroller) {
        (BridgeLogin::Iam(login), Some(enroller)) => {
            let key = enroller.key()?;
            let digest = key.digest().to_owned();
            (key.tls, login.server_name.clone(), Some((enroller, digest)))
        }
        (BridgeLogin::Iam(_), None) => return Err(BridgeError::NoIdentity),
        (BridgeLogin::Svid(server_id), _) => {
            let source = engine.identity.source().ok_or(BridgeError::NoIdentity)?;
            let tls = spiffe_rustls::mtls_client(source)
                .authorize(spiffe_rustls::authorizer::exact([server_id.as_str()])?)
                .with_alpn_protocols([b"h2"])
                .build()?;
            // The server is known by its SPIFFE ID; its TLS name carries no meaning.
            let name = ServerName::try_from("control-plane.invalid").map_err(|error| broken(Link::Tls, error))?;
            (tls, name, None)
        }
    };
    let stream = establish(TlsConnector::from(Arc::new(tls)), name, address).await?;
    let mut stream = Some(TokioIo::new(Noting { stream, afterwards: afterwards.clone() }));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.take();
        async move { stream.ok_or_else(|| io::Error::other("the connection was used up")) }
    });
    let endpoint = Endpoint::from_static("http://control-plane.invalid")
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10));
    let channel = endpoint.connect_with_connector(connector).await?;
    Ok(Connection { channel, enrols, renewal: tokio::time::Instant::now() })
}

fn broken(link: Link, why: impl ToString) -> BridgeError {
    BridgeError::Broken { link, why: why.to_string() }
}

async fn establish(
    tls: TlsConnector,
    name: ServerName<'static>,
    address: &str,
) -> Result<TlsStream<TcpStream>, BridgeError> {
    let found = tokio::time::timeout(STEP, tokio::net::lookup_host(address)).await;
    let found = found.map_err(|_| broken(Link::Dns, "no answer within 5 s"))?;
    let found = found.map_err(|error| broken(Link::Dns, error))?;
    let tcp = dial(found.collect()).await?;
    tcp.set_nodelay(true).map_err(|error| broken(Link::Tcp, error))?;
    let stream = tokio::time::timeout(STEP, tls.connect(name, tcp)).await;
    let stream = stream.map_err(|_| broken(Link::Tls, "the handshake did not end within 5 s"))?;
    let stream = stream.map_err(|error| broken(handshake(&error).unwrap_or(Link::Tls), &error))?;
    if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
        return Err(broken(Link::Tls, "the server does not agree to HTTP/2"));
    }
    Ok(stream)
}

/// A connection to the first of a name's records that takes one.
async fn dial(mut records: Vec<SocketAddr>) -> Result<TcpStream, BridgeError> {
    // By chance, so that bouncers spread over a name's records too, and one that is dead costs only now and then.
    records.shuffle(&mut rand::rng());
    let mut last = broken(Link::Dns, "the name has no address");
    for record in records.into_iter().take(RECORDS) {
        match tokio::time::timeout(RECORD, TcpStream::connect(record)).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => last = broken(Link::Tcp, format!("{record}: {error}")),
            Err(_) => last = broken(Link::Tcp, format!("{record}: no answer within 2 s")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// An address where nobody listens.
    fn dead() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn every_record_of_a_name_is_tried() {
        let live = TcpListener::bind("127.0.0.1:0").unwrap();
        let live = live.local_addr().map(|address| (live, address)).unwrap();
        // In any order, so often that the dead ones came first.
        for _ in 0..20 {
            assert_eq!(dial(vec![dead(), live.1, dead()]).await.unwrap().peer_addr().unwrap(), live.1);
        }
        assert_eq!(dial(vec![dead(), dead()]).await.unwrap_err().link(), Link::Tcp);
        assert_eq!(dial(vec![]).await.unwrap_err().link(), Link::Dns);
    }

    #[test]
    fn an_enrolment_that_fails_names_its_link() {
        let refused = |code| BridgeError::Refused(tonic::Status::new(code, "no")).link();
        assert_eq!(refused(Code::PermissionDenied), Link::Authorization);
        assert_eq!(refused(Code::Unauthenticated), Link::Svid, "STS does not know the signature");
        assert_eq!(refused(Code::Unavailable), Link::Service);
        assert_eq!(BridgeError::from(EnrolError::NoCredentials).link(), Link::Svid);
        // Not the end of a connection that served well: the next address is tried.
        assert!(!BridgeError::Refused(tonic::Status::unauthenticated("no")).is_end_of_svid());
    }

    #[test]
    fn a_tls_error_is_found_behind_others() {
        let alert = rustls::Error::AlertReceived(rustls::AlertDescription::UnknownCA);
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, alert));
        assert_eq!(handshake(&wrapped), Some(Link::Svid));
        let odd = io::Error::new(io::ErrorKind::InvalidData, rustls::Error::DecryptError);
        assert_eq!(handshake(&odd), Some(Link::Tls));
        assert_eq!(handshake(&io::Error::other("reset")), None);
    }
}
