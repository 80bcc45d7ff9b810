//! One call to Vault, at whichever of the configured servers answers. Called by [`super::session`] for logins and by
//! [`super::Vault`] for secrets.
//!
//! Never follows a redirect, uses no proxy and no system CA, and reads nothing of the environment: a token goes to the
//! configured addresses and nowhere else.

use super::VaultError;
use crate::config::VaultConfig;
use crate::identity::Svid;
use bouncer_custody::Reason;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use rustls::RootCertStore;
use rustls::client::WantsClientCert;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use zeroize::Zeroizing;

/// An answer that is longer holds no credential.
const LONGEST: usize = 256 << 10;

/// The servers, and how they are reached.
#[derive(Debug)]
pub(super) struct Client {
    addresses: Vec<String>,
    /// The server that answered last.
    preferred: AtomicUsize,
    roots: Arc<RootCertStore>,
    http: reqwest::Client,
    deadline: Duration,
}

/// What is asked.
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) namespace: Option<&'a str>,
    /// Below `/v1/`, made of parsed segments only.
    pub(super) path: String,
    pub(super) body: Option<Zeroizing<Vec<u8>>>,
}

/// What a server said for itself, whether yes or no.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Zeroizing<Vec<u8>>,
    /// The rest was not read: it is longer than any credential.
    pub(super) cut: bool,
}

impl Client {
    pub(super) fn new(config: &VaultConfig) -> Result<Self, VaultError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&config.ca) {
            roots.add(certificate.map_err(|_| VaultError::Ca)?).map_err(|_| VaultError::Ca)?;
        }
        let roots = Arc::new(roots);
        let http = build(tls(&roots)?.with_no_client_auth(), config.deadline)?;
        let (addresses, deadline) = (config.addresses.clone(), config.deadline);
        Ok(Self { addresses, preferred: AtomicUsize::new(0), roots, http, deadline })
    }

    /// A client that shows the SVID, for a login by certificate. Only for this one: SVIDs rotate.
    pub(super) fn with_svid(&self, svid: Svid) -> Result<reqwest::Client, VaultError> {
        let tls = tls(&self.roots)?.with_client_auth_cert(svid.chain, svid.key).map_err(VaultError::Tls)?;
        build(tls, self.deadline)
    }

    /// Asks as a holder of `token`, one server after the other, beginning with the one that answered last.
    ///
    /// # Errors
    /// A transient [`Reason`], if none of them answers for itself.
    pub(super) async fn send(&self, call: &Call<'_>, token: Option<&str>) -> Result<Answer, Reason> {
        self.send_by(&self.http, call, token).await
    }

    pub(super) async fn send_by(
        &self,
        http: &reqwest::Client,
        call: &Call<'_>,
        token: Option<&str>,
    ) -> Result<Answer, Reason> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failed = None;
        for offset in 0..self.addresses.len() {
            let index = (first + offset) % self.addresses.len();
            let address = &self.addresses[index];
            let attempt = tokio::time::timeout(self.deadline, attempt(http, address, call, token)).await;
            let reason = match attempt {
                Ok(Ok(answer)) => match passing(&answer) {
                    None => {
                        self.preferred.store(index, Ordering::Relaxed);
                        return Ok(answer);
                    }
                    Some(reason) => {
                        tracing::warn!(address, status = answer.status.as_u16(), %reason, "this Vault server cannot serve now");
                        reason
                    }
                },
                Ok(Err(error)) => {
                    tracing::warn!(address, error = %error.without_url(), "this Vault server was not reached");
                    Reason::VaultUnavailable
                }
                Err(_) => {
                    tracing::warn!(address, "this Vault server did not answer in time");
                    Reason::VaultUnavailable
                }
            };
            // Sealed only where that is what all of them are.
            failed = Some(if failed.is_none_or(|before| before == reason) { reason } else { Reason::VaultUnavailable });
        }
        Err(failed.unwrap_or(Reason::VaultUnavailable))
    }
}

/// A state of the server that says nothing of the secret: sealed, standby, a quota, a fault. A redirect is a standby's.
fn passing(answer: &Answer) -> Option<Reason> {
    match answer.status.as_u16() {
        503 if answer.body.windows(6).any(|word| word == b"sealed") => Some(Reason::VaultSealed),
        300..=399 | 408 | 412 | 429 | 472 | 473 | 500..=599 => Some(Reason::VaultUnavailable),
        _ => None,
    }
}

async fn attempt(
    http: &reqwest::Client,
    address: &str,
    call: &Call<'_>,
    token: Option<&str>,
) -> Result<Answer, reqwest::Error> {
    let mut request = http
        .request(call.method.clone(), format!("{address}/v1/{}", call.path))
        .header("x-vault-request", "true")
        .header(ACCEPT, "application/json");
    if let Some(namespace) = call.namespace {
        request = request.header("x-vault-namespace", namespace);
    }
    if let Some(Ok(mut token)) = token.map(HeaderValue::from_str) {
        token.set_sensitive(true);
        request = request.header("x-vault-token", token);
    }
    if let Some(body) = &call.body {
        request = request.header(CONTENT_TYPE, "application/json").body(body.to_vec());
    }
    let mut answer = request.send().await?;
    let status = answer.status();
    let (mut body, mut cut) = (Zeroizing::new(Vec::with_capacity(8 << 10)), false);
    while let Some(chunk) = answer.chunk().await? {
        cut = body.len() + chunk.len() > LONGEST;
        if cut {
            break;
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status, body, cut })
}

fn tls(roots: &Arc<RootCertStore>) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, WantsClientCert>, VaultError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    Ok(builder.map_err(VaultError::Tls)?.with_root_certificates(Arc::clone(roots)))
}

fn build(tls: rustls::ClientConfig, deadline: Duration) -> Result<reqwest::Client, VaultError> {
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .referer(false)
        .http1_only()
        // An idle connection keeps the last answer in its buffers. Calls are few, so none is kept.
        .pool_max_idle_per_host(0)
        .connect_timeout(deadline)
        .build()
        .map_err(|error| VaultError::Client(error.without_url()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_itself_is_no_verdict_on_the_secret() {
        let passing = |status: u16, body: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            passing(&Answer { status, body: Zeroizing::new(body.as_bytes().to_vec()), cut: false })
        };
        for status in [301, 307, 308, 412, 429, 472, 473, 500, 502, 503] {
            assert_eq!(passing(status, ""), Some(Reason::VaultUnavailable), "{status}");
        }
        assert_eq!(passing(503, r#"{"errors":["Vault is sealed"]}"#), Some(Reason::VaultSealed));
        for status in [200, 204, 400, 403, 404] {
            assert_eq!(passing(status, "sealed"), None, "{status}");
        }
    }
}
