//! HTTP clients for servers that the configuration names: no redirects, a bounded answer. Used by [`crate::oidc`],
//! [`crate::bridge::enrol`] and [`crate::forward`], which set their own deadlines.

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Response};
use std::path::Path;
use std::time::Duration;

/// A client that trusts the authorities of the file, or the system's. `None` if the file holds no readable PEM
/// certificate.
pub(crate) fn builder(ca_file: Option<&Path>) -> Option<ClientBuilder> {
    let builder = Client::builder()
        .redirect(Policy::none())
        .connect_timeout(Duration::from_secs(3))
        .user_agent(concat!("bouncer-control-plane/", env!("CARGO_PKG_VERSION")));
    let Some(path) = ca_file else { return Some(builder) };
    let roots = Certificate::from_pem_bundle(&std::fs::read(path).ok()?).ok()?;
    (!roots.is_empty()).then(|| builder.tls_certs_only(roots))
}

/// The body of an answer. `None` if it is longer.
pub(crate) async fn body(response: &mut Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > limit {
            return Ok(None);
        }
    }
    Ok(Some(body))
}
