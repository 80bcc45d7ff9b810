//! The resolver's workload identity: its SVIDs, from the SPIFFE Workload API.
//!
//! The X.509-SVID secures the Policy Bridge, a JWT-SVID buys AWS credentials, either one a Vault token. The Workload API may come later than the
//! resolver, and go away: the SVID is kept until it ends, never longer.

use bouncer_custody::{Reason, SpiffeId};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use spiffe::{WorkloadApiClient, X509Source, X509Svid};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::Notify;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use zeroize::Zeroizing;

/// How long the Workload API may take over a JWT-SVID.
const JWT_DEADLINE: Duration = Duration::from_millis(700);

/// How long a stream waits for the first SVID.
const FIRST: Duration = Duration::from_millis(600);

/// The X.509-SVID of this moment, for a TLS client.
pub struct Svid {
    /// The chain, leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

/// The identity, once there is one.
#[derive(Debug)]
pub struct Identity {
    workload_api: Option<String>,
    source: OnceLock<X509Source>,
    obtained: Notify,
}

impl Identity {
    /// An identity that is yet to come; [`Identity::obtain`] brings it. Without a Workload API there never is one: the
    /// resolver enrols by its IAM role.
    #[must_use]
    pub fn new(workload_api: Option<String>) -> Arc<Self> {
        Arc::new(Self { workload_api, source: OnceLock::new(), obtained: Notify::new() })
    }

    /// Waits for the first SVID, however long it takes. The source keeps itself fresh afterwards.
    pub async fn obtain(&self) {
        let Some(workload_api) = &self.workload_api else { return };
        let mut wait = Duration::from_millis(100);
        loop {
            match X509Source::builder().endpoint(workload_api).build().await {
                Ok(source) => {
                    let _ = self.source.set(source);
                    self.obtained.notify_waiters();
                    tracing::info!("the Workload API gave an X.509-SVID");
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "no X.509-SVID yet; is the SPIFFE agent running, and is this workload registered there?");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(5));
                }
            }
        }
    }

    /// The source of X.509-SVIDs, once there is one.
    #[must_use]
    pub fn source(&self) -> Option<X509Source> {
        self.source.get().cloned()
    }

    /// This resolver's SPIFFE ID, while its SVID holds.
    ///
    /// # Errors
    /// [`Reason::IdentityUnavailable`] before the first SVID or after its withdrawal, [`Reason::IdentityExpired`]
    /// after its end.
    pub fn spiffe_id(&self) -> Result<SpiffeId, Reason> {
        self.current().map(|(id, _)| id)
    }

    fn current(&self) -> Result<(SpiffeId, Arc<X509Svid>), Reason> {
        let source = self.source.get().ok_or(Reason::IdentityUnavailable)?;
        let svid = source.svid().map_err(|error| match error {
            spiffe::X509SourceError::NoSuitableSvid => Reason::IdentityExpired,
            _ => Reason::IdentityUnavailable,
        })?;
        let id = svid.spiffe_id().to_string().parse().map_err(|_| Reason::IdentityUnavailable)?;
        Ok((id, svid))
    }

    /// This resolver's X.509-SVID, while it holds.
    ///
    /// # Errors
    /// As [`Identity::spiffe_id`].
    pub fn x509_svid(&self) -> Result<Svid, Reason> {
        let (_, svid) = self.current()?;
        let chain = svid.cert_chain().iter().map(|one| CertificateDer::from(one.as_bytes().to_vec())).collect();
        let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
        Ok(Svid { chain, key: PrivateKeyDer::Pkcs8(key) })
    }

    /// When this resolver's X.509-SVID ends, unix seconds.
    ///
    /// # Errors
    /// As [`Identity::spiffe_id`].
    pub fn not_after(&self) -> Result<i64, Reason> {
        let (_, svid) = self.current()?;
        let leaf = X509Certificate::from_der(svid.leaf().as_bytes()).map_err(|_| Reason::IdentityUnavailable)?;
        Ok(leaf.1.validity().not_after.timestamp())
    }

    /// As [`Identity::spiffe_id`], for a stream that comes just after the start: waits a moment for the first SVID, so
    /// that a restart under traffic denies nobody.
    ///
    /// # Errors
    /// As [`Identity::spiffe_id`].
    pub async fn settled(&self) -> Result<SpiffeId, Reason> {
        let mut obtained = std::pin::pin!(self.obtained.notified());
        obtained.as_mut().enable();
        if self.source.get().is_none() {
            let _ = tokio::time::timeout(FIRST, obtained).await;
        }
        self.spiffe_id()
    }

    /// Waits as [`Identity::settled`] does, where an SVID is to be had at all.
    ///
    /// # Errors
    /// As [`Identity::spiffe_id`].
    pub async fn present(&self) -> Result<(), Reason> {
        if self.workload_api.is_some() { self.settled().await.map(drop) } else { Ok(()) }
    }

    /// What is wrong with the SVID, where one is to be had at all.
    #[must_use]
    pub fn fault(&self) -> Option<Reason> {
        self.workload_api.as_ref().and_then(|_| self.spiffe_id().err())
    }

    /// A fresh JWT-SVID for the audience.
    ///
    /// # Errors
    /// [`Reason::IdentityUnavailable`] if the Workload API does not give one in time.
    pub async fn jwt_svid(&self, audience: &str) -> Result<Zeroizing<String>, Reason> {
        let workload_api = self.workload_api.as_ref().ok_or(Reason::IdentityUnavailable)?;
        let fetch = async {
            let client = WorkloadApiClient::connect_to(workload_api).await?;
            client.fetch_jwt_svid([audience], None).await
        };
        match tokio::time::timeout(JWT_DEADLINE, fetch).await {
            Ok(Ok(svid)) => Ok(Zeroizing::new(svid.token().to_owned())),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the Workload API gave no JWT-SVID");
                Err(Reason::IdentityUnavailable)
            }
            Err(_) => Err(Reason::IdentityUnavailable),
        }
    }
}
