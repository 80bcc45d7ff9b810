//! `serve`: wires the store, the API and the Policy Bridge together, runs them until a signal, and drains.

use crate::api::limits::Limits;
use crate::api::{self, Api};
use crate::bridge::enrol::{self, Enrolment, StsError};
use crate::bridge::{Bridge, Live, Replica, Timing, transport};
use crate::clock::SystemClock;
use crate::config::{Config, IamConfig, TlsFault};
use crate::descriptors;
use crate::forward;
use crate::http_server::{self, Bounds};
use crate::metrics::Metrics;
use crate::oidc::{Oidc, OidcError};
use crate::own_chain;
use crate::readiness::Readiness;
use crate::retention;
use crate::store::StoreError;
use crate::tls;
use spiffe::{X509Source, X509SourceBuilder};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long running calls and sessions may take to end.
const DRAIN: Duration = Duration::from_secs(10);
/// Between attempts at the Workload API.
const RETRY: Duration = Duration::from_secs(1);
/// How often the SVID's validity is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Why the control plane could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The database could not be opened.
    #[error("cannot open the database: {source}{advice}")]
    Store {
        /// Why.
        #[source]
        source: StoreError,
        /// What to look at, behind that.
        advice: &'static str,
    },
    /// The API's certificate or key is wrong.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// The identity provider cannot be used.
    #[error(transparent)]
    Oidc(#[from] OidcError),
    /// STS cannot be asked.
    #[error(transparent)]
    Sts(#[from] StsError),
    /// An address could not be bound.
    #[error("cannot listen on {address}, from {key}: {kind}. Check that the address is this machine's and free",
            kind = source.kind())]
    Listen {
        /// The key in the configuration.
        key: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Signals could not be awaited.
    #[error("cannot wait for signals")]
    Signals(#[source] std::io::Error),
}

async fn bind(key: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| ServeError::Listen { key, address, source })
}

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`ServeError`], before anything is served.
pub async fn serve(config: Config) -> Result<(), ServeError> {
    let clock = Arc::new(SystemClock);
    let opened = config.database.open(clock.clone()).await;
    let failed = |source| ServeError::Store { advice: config.database.advice(&source), source };
    let store = opened.map_err(failed)?;
    let api_listener = bind("api.listen", config.api.listen).await?;
    let bridge_listener = bind("bridge.listen", config.bridge_listen).await?;
    let iam_listener = match &config.iam {
        Some(iam) => Some(bind("bridge.iam.listen", iam.listen).await?),
        None => None,
    };
    let (metrics, live, readiness) =
        (Arc::new(Metrics::default()), Arc::new(Live::default()), Arc::new(Readiness::default()));
    let oidc = config.oidc.map(Oidc::new).transpose()?.map(Arc::new);
    let stop = CancellationToken::new();
    let tls = config.api.tls.map(|files| tls::serve(files, stop.clone())).transpose()?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;

    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        api = %config.api.listen,
        tls = tls.is_some(),
        bridge = %config.bridge_listen,
        iam = config.iam.as_ref().map(|iam| iam.listen.to_string()),
        "the control plane is up"
    );
    let router = api::router(Api {
        store: store.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        live: live.clone(),
        readiness: readiness.clone(),
        limits: Arc::new(Limits::new(config.api.requests_per_second)),
        oidc,
        tls: tls.is_some(),
        second_person: config.second_person,
    });
    let bounds = Bounds { per_address: config.api.connections_per_address, ..Bounds::default() };
    let api = tokio::spawn(http_server::serve(api_listener, tls, router, bounds, stop.clone()));
    if let Some(days) = config.audit_retention_days {
        let outlets = config.outlets.iter().map(|outlet| outlet.name.clone()).collect();
        tokio::spawn(retention::keep(store.clone(), clock.clone(), metrics.clone(), (days, outlets), stop.clone()));
    }
    let forwarding = config
        .outlets
        .into_iter()
        .map(|outlet| tokio::spawn(forward::keep(outlet, store.clone(), clock.clone(), metrics.clone(), stop.clone())));
    let forwarding = futures::future::join_all(forwarding.collect::<Vec<_>>());
    let replica = store.clone().others().map(|others| Replica::new(others, live.clone()));
    let sharing = replica.map(|replica| tokio::spawn(replica.keep(stop.clone())));
    let (editions, timing) = (Arc::default(), Timing::default());
    let bridge = Bridge { store: store.clone(), clock, metrics, live, editions, timing, stop: stop.clone() };
    // Whoever reaches the one listener takes nothing from those who come by the other.
    let most = descriptors::raise() / if iam_listener.is_some() { 2 } else { 1 };
    let iam = config.iam.zip(iam_listener);
    let enrolled = iam.map(|(iam, listener)| serve_enrolled(bridge.clone(), listener, most, iam)).transpose()?;
    let bridge = tokio::spawn(serve_bridge(bridge, bridge_listener, most, config.workload_api, readiness.clone()));

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("shutting down: running calls may end, sessions are told to connect again");
    readiness.set_draining();
    stop.cancel();
    let drained = tokio::time::timeout(DRAIN, async {
        let _ = tokio::join!(
            api,
            bridge,
            forwarding,
            futures::future::OptionFuture::from(sharing),
            futures::future::OptionFuture::from(enrolled)
        );
        store.close().await;
    });
    if drained.await.is_err() {
        tracing::warn!("some calls did not end within 10 s and were cut off");
    }
    Ok(())
}

/// Runs the Policy Bridge as soon as there is an SVID, and tells readiness how it goes.
async fn serve_bridge(
    bridge: Bridge,
    listener: TcpListener,
    most: u32,
    workload_api: String,
    readiness: Arc<Readiness>,
) {
    let (stop, metrics) = (bridge.stop.clone(), bridge.metrics.clone());
    let (store, clock) = (bridge.store.clone(), bridge.clock.clone());
    let Some((source, tls)) = stop.run_until_cancelled(identity(&workload_api)).await else { return };
    tokio::spawn(watch_identity(source.clone(), readiness.clone(), stop.clone()));
    readiness.set_bridge(true);
    let signing = tokio::spawn(own_chain::keep(store, clock, source.clone(), stop.clone()));
    let connections = transport::accept(listener, tls, most, metrics, stop);
    transport::serve(bridge, connections).await;
    readiness.set_bridge(false);
    let _ = signing.await;
    source.shutdown().await;
}

/// Runs the Policy Bridge for resolvers that enrol by their IAM role. It needs no SVID of ours.
fn serve_enrolled(
    bridge: Bridge,
    listener: TcpListener,
    most: u32,
    iam: IamConfig,
) -> Result<JoinHandle<()>, ServeError> {
    let (stop, metrics) = (bridge.stop.clone(), bridge.metrics.clone());
    let tls = enrol::tls(iam.tls, stop.clone())?;
    let enrolment = Arc::new(Enrolment::new(iam.enrolment)?);
    Ok(tokio::spawn(async move {
        let connections = transport::accept_keys(listener, tls, most, metrics, stop, enrolment);
        transport::serve(bridge, connections).await;
    }))
}

/// Waits for the first SVID that can be used. The Workload API may come up later than we do.
async fn identity(workload_api: &str) -> (X509Source, rustls::ServerConfig) {
    loop {
        let builder = X509SourceBuilder::new().endpoint(workload_api).initial_sync_timeout(Duration::from_secs(10));
        match builder.build().await {
            Ok(source) => {
                let id = source.svid().ok().map(|svid| svid.spiffe_id().to_string()).unwrap_or_default();
                tracing::info!(spiffe_id = id, "got an SVID from the Workload API");
                match transport::tls(source.clone()) {
                    Ok(tls) => return (source, tls),
                    Err(error) => {
                        tracing::error!(%error, "the SVID cannot be used for the Policy Bridge; trying again")
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "no SVID from the Workload API of identity.workload_api yet; trying again");
            }
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Readiness follows the SVID's validity.
async fn watch_identity(source: X509Source, readiness: Arc<Readiness>, stop: CancellationToken) {
    loop {
        readiness.set_identity(source.state().is_usable());
        if stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_none() {
            return;
        }
    }
}
