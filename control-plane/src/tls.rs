//! A listener's certificate and key, from files that may be renewed while it is served: the API's, and that of
//! [`crate::bridge::enrol`].
//!
//! Files that cannot be used leave the ones before in use, and are said so once. Called by [`crate::serve`].

use crate::config::{TlsFault, TlsFiles};
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What tells that a file is another one: when it was changed, how long it is, and which it is.
pub(crate) type Stamp = Option<(i64, i64, u64, u64)>;

pub(crate) fn stamp(path: &Path) -> Stamp {
    let file = std::fs::metadata(path).ok()?;
    Some((file.mtime(), file.mtime_nsec(), file.len(), file.ino()))
}

fn stamps(files: &TlsFiles) -> [Stamp; 2] {
    [stamp(&files.certificate), stamp(&files.key)]
}

/// The certificate in use.
#[derive(Debug)]
pub struct Renewed {
    current: RwLock<Arc<CertifiedKey>>,
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Loads the files into a server's TLS configuration (HTTP/2 and HTTP/1.1, no client certificates), and renews what it
/// presents for as long as `stop` is not.
///
/// # Errors
/// [`TlsFault`], which names the key in the configuration that is wrong.
pub fn serve(files: TlsFiles, stop: CancellationToken) -> Result<ServerConfig, TlsFault> {
    let renewed = renewed("api", files, stop)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|_| TlsFault::Certificate("cannot be used with this TLS library"))?
        .with_no_client_auth()
        .with_cert_resolver(renewed);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Loads the files of a section of the configuration, and renews what is presented for as long as `stop` is not.
///
/// # Errors
/// [`TlsFault`], which names the key in the configuration that is wrong.
pub fn renewed(section: &'static str, files: TlsFiles, stop: CancellationToken) -> Result<Arc<Renewed>, TlsFault> {
    let seen = stamps(&files);
    let renewed = Arc::new(Renewed { current: RwLock::new(Arc::new(files.load()?)) });
    tokio::spawn(stop.run_until_cancelled_owned(watch(section, files, renewed.clone(), seen)));
    Ok(renewed)
}

async fn watch(section: &'static str, files: TlsFiles, renewed: Arc<Renewed>, mut seen: [Stamp; 2]) {
    let mut faulty = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let now = stamps(&files);
        // Two files are renewed one after the other: what does not fit together yet may in a moment.
        if now == seen && faulty.is_none() {
            continue;
        }
        match files.load() {
            Ok(key) => {
                *renewed.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(key);
                tracing::info!(section, "a listener presents a renewed certificate");
                faulty = None;
            }
            Err(fault) if now != seen || faulty != Some(fault) => {
                tracing::warn!(section, %fault, "a renewed certificate cannot be used; the one before stays in use");
                faulty = Some(fault);
            }
            Err(_) => {}
        }
        seen = now;
    }
}
