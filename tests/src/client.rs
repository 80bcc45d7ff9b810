//! A client of Envoy's listener, with an SVID of its own or without one.

use crate::pki::{self, Identity};
use crate::upstream::{Peer, Seen};
use crate::{Fault, Result, fault::Doing as _};
use http::{HeaderMap, StatusCode};
use rustls::ClientConfig;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The name under which clients know Envoy; its server certificate carries it.
pub const ENVOY_NAME: &str = "envoy.internal";

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1, connections kept.
    Http1,
    /// HTTP/1.1, a connection for each request.
    Http1Once,
    /// HTTP/2.
    Http2,
}

/// A client with its connections.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: String,
    /// From the request to the end of the body.
    pub took: Duration,
}

impl Client {
    /// A client of the listener at `envoy`, whose certificate must be by one of `roots_pem`.
    ///
    /// # Errors
    /// If the identity is none.
    pub fn new(envoy: SocketAddr, roots_pem: &str, identity: Option<&Identity>, protocol: Protocol) -> Result<Self> {
        let tls = ClientConfig::builder().with_root_certificates(pki::roots(roots_pem)?);
        let mut tls = match identity {
            Some(identity) => tls.with_client_auth_cert(identity.chain(), identity.key())?,
            None => tls.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![if protocol == Protocol::Http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(20))
            .tls_backend_preconfigured(tls)
            .resolve(ENVOY_NAME, envoy);
        if protocol == Protocol::Http1Once {
            http = http.pool_max_idle_per_host(0);
        }
        Ok(Self { http: http.build()?, base: format!("https://{ENVOY_NAME}:{}", envoy.port()) })
    }

    /// A GET.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get(&self, path: &str) -> Result<Reply> {
        self.get_with(path, &[]).await
    }

    /// A GET that is to be answered within `limit`, tried three times: that is what the parts take, and now and then not
    /// what a busy machine takes.
    ///
    /// # Errors
    /// If there is no answer, or none in time.
    pub async fn get_within(&self, path: &str, limit: Duration) -> Result<Reply> {
        let mut took = vec![];
        for _ in 0..3 {
            let reply = self.get(path).await?;
            if reply.took < limit {
                return Ok(reply);
            }
            took.push(reply.took);
        }
        Err(Fault::new(format!("GET {path} took {took:?}, and was to take {limit:?}")))
    }

    /// `Some` if a GET is answered with 200: to wait for.
    pub async fn serves(&self) -> Option<()> {
        (self.get("/").await.ok()?.status == 200).then_some(())
    }

    /// `Some` if a GET is denied for this reason: to wait for.
    pub async fn denies(&self, reason: bouncer_custody::Reason) -> Option<()> {
        (self.get("/").await.ok()?.reason()? == reason.code()).then_some(())
    }

    /// A GET with headers; `host` spoofs the authority.
    ///
    /// # Errors
    /// If there is no answer.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Reply> {
        let start = Instant::now();
        let mut request = self.http.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.doing(format!("GET {path}"))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body = answer.text().await?;
        Ok(Reply { status, headers, body, took: start.elapsed() })
    }
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Why Bouncer denied it.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.header("x-bouncer-reason")
    }

    /// The decision's id, on a denial.
    #[must_use]
    pub fn decision(&self) -> Option<&str> {
        self.header("x-bouncer-decision")
    }

    /// What the upstream saw.
    ///
    /// # Errors
    /// If it was not the upstream that answered.
    pub fn seen(&self) -> Result<Seen> {
        serde_json::from_str(&self.body).doing(format!("{} {:?} {}", self.status, self.reason(), self.body))
    }

    /// Whose client certificate the upstream saw.
    ///
    /// # Errors
    /// If it was not the upstream that answered, or it saw none.
    pub fn peer(&self) -> Result<Peer> {
        self.seen()?.peer.ok_or_else(|| Fault::new("the upstream saw no client certificate"))
    }
}
