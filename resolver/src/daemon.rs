//! The daemon's life: configuration → state → sockets → tasks → signal → drain. It only wires.

use crate::admin::AdminSocket;
use crate::arena::Arena;
use crate::audit::Spool;
use crate::cache::Cache;
use crate::config::{Config, SocketConfig};
use crate::engine::{Engine, Parts};
use crate::grants::Grants;
use crate::harden::Confinement;
use crate::identity::Identity;
use crate::intercept::InterceptService;
use crate::kms::Kms;
use crate::metrics::{Layer, Metrics};
use crate::policy::PolicyStore;
use crate::sds::SdsService;
use crate::socket::{self, Incoming, Unlink};
use crate::trace::Tracer;
use crate::unwrap::Providers;
use crate::vault::{Vault, VaultError};
use crate::{admin, bridge, http};
use bouncer_proto::intercept::v1::intercept_server::InterceptServer;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Router;

/// Streams in hand get this long to end.
const DRAIN: Duration = Duration::from_secs(5);
/// A grant ends after this time without a decision that renews it: longer than any decision may be reused.
const GRANT_IDLE: Duration = Duration::from_secs(600);
/// How often counted denials are recorded and idle grants ended.
const CHORES: Duration = Duration::from_secs(5);

/// How often it is looked for newer generations that are to be tried again.
const RETRIES: Duration = Duration::from_secs(1);

/// Why the daemon could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state folder can't be used.
    #[error("the state folder {path} can't be used: {source}. It must be writable by this user")]
    State {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A socket can't be bound.
    #[error("the socket {path} can't be bound: {source}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The health and metrics address can't be bound.
    #[error("http.listen {address} can't be bound: {source}")]
    Http {
        /// The address.
        address: std::net::SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No TLS client can be made for Vault.
    #[error("vault.ca_file can't be used: {0}")]
    Vault(VaultError),
    /// No client can be made for the collector of traces.
    #[error("telemetry.otlp_endpoint can't be used: {0}")]
    Telemetry(tonic::transport::Error),
    /// Signals can't be handled.
    #[error("signals can't be handled: {0}")]
    Signal(io::Error),
}

/// Makes the state folder where there is none. Before [`crate::harden::confine`], which can allow only what is there.
///
/// # Errors
/// [`StartError::State`].
pub fn make_state_folder(config: &Config) -> Result<(), StartError> {
    let path = &config.state_dir;
    std::fs::create_dir_all(path).map_err(|source| StartError::State { path: path.clone(), source })
}

/// Runs until SIGTERM or SIGINT, then drains. How the process is confined is only told on.
///
/// # Errors
/// [`StartError`]; after the start nothing ends the daemon but a signal.
pub async fn run(config: Config, confinement: Confinement) -> Result<(), StartError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signal)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signal)?;
    let engine = build(Arc::new(config)).await?;
    let config = Arc::clone(&engine.config);
    if config.dev {
        tracing::warn!("--dev: plain HTTP and loopback backends are allowed. Never use this with real credentials");
    }
    for (layer, level) in [("landlock", confinement.landlock), ("seccomp", confinement.seccomp)] {
        engine.metrics.sandbox.get_or_create(&Layer { layer, state: level.code() }).set(1);
    }
    let stop = engine.stop.clone();
    let mut tasks = JoinSet::new();
    let _sockets = (Unlink(config.intercept.path.clone()), Unlink(config.sds.path.clone()));
    let lost = engine.metrics.spans_lost.clone();
    let tracer = config.telemetry.as_ref().map(|telemetry| Tracer::start(telemetry, config.bouncer.as_str(), lost));
    let tracer = tracer.transpose().map_err(StartError::Telemetry)?;
    let intercept = server().add_service(
        InterceptServer::new(InterceptService::new(Arc::clone(&engine), tracer)).max_decoding_message_size(1 << 20),
    );
    serve(&engine, &config.intercept, intercept, &stop, &mut tasks)?;
    let sds = server().add_service(SdsService::new(Arc::clone(&engine)));
    serve(&engine, &config.sds, sds, &stop, &mut tasks)?;
    let _admin = config.admin.as_ref().map(|admin| Unlink(admin.path.clone()));
    if let Some(admin) = &config.admin {
        let socket = AdminSocket(listen(&engine, admin)?);
        let (router, stopped) = (admin::router(Arc::clone(&engine)), stop.clone());
        tasks.spawn(async move {
            let _ = axum::serve(socket, router).with_graceful_shutdown(stopped.cancelled_owned()).await;
        });
    }
    let address = config.http;
    let listener = TcpListener::bind(address).await.map_err(|source| StartError::Http { address, source })?;
    let (router, stopped) = (http::router(Arc::clone(&engine), confinement), stop.clone());
    tasks.spawn(async move {
        let _ = axum::serve(listener, router).with_graceful_shutdown(stopped.cancelled_owned()).await;
    });
    let identity = Arc::clone(&engine.identity);
    let (bridge_engine, stopped) = (Arc::clone(&engine), stop.clone());
    tasks.spawn(async move {
        tokio::select! {
            () = identity.obtain() => bridge::run(bridge_engine, stopped).await,
            () = stopped.cancelled() => {}
        }
    });
    tasks.spawn(chores(Arc::clone(&engine), stop.clone()));
    tasks.spawn(rotations(Arc::clone(&engine), stop.clone()));
    tracing::info!(bouncer = %config.bouncer, http = %config.http, "the resolver runs");

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining");
    stop.cancel();
    let drained = tokio::time::timeout(DRAIN, async { while tasks.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::info!("streams were still open after 5 s and were cut; Envoy reconnects to the next resolver");
    }
    engine.flush_denials();
    Ok(())
}

async fn build(config: Arc<Config>) -> Result<Arc<Engine>, StartError> {
    let state = |source| StartError::State { path: config.state_dir.clone(), source };
    let (bytes, fsync) = (config.limits.spool_bytes, config.limits.spool_fsync);
    let spool = Spool::open(&config.state_dir, &config.bouncer, bytes, fsync).map_err(state)?;
    let (policy, problem) =
        PolicyStore::open(config.bouncer.clone(), &config.state_dir, config.bridge.snapshot_max_age);
    if let Some(problem) = problem {
        tracing::warn!(%problem, "the last policy snapshot was not taken up; protected streams are denied until the control plane sends one");
    }
    let grants = Grants::open(&config.state_dir, GRANT_IDLE);
    let identity = Identity::new(config.workload_api.clone());
    let metrics = Arc::new(Metrics::default());
    let mut providers = Providers::default();
    if let Some(kms) = &config.kms {
        providers.kms = Some(Box::new(Kms::new(kms, Arc::clone(&identity), config.rails.kms_keys.first()).await));
    }
    if let Some(vault) = &config.vault {
        let mounts = config.rails.vault_mounts.clone();
        providers.vault = Some(Box::new(Vault::new(vault, mounts, Arc::clone(&identity)).map_err(StartError::Vault)?));
    }
    let cache = Cache::new(Arc::new(providers), Arena::new(), &config.limits, Arc::clone(&metrics));
    Ok(Engine::new(Parts { config, policy, identity, cache, grants, spool, metrics }))
}

fn server() -> Server {
    Server::builder()
        // Envoy opens one stream per secret, all on one connection.
        .http2_max_pending_accept_reset_streams(Some(4_096))
        .max_concurrent_streams(Some(65_536))
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
}

fn serve(
    engine: &Arc<Engine>,
    config: &SocketConfig,
    router: Router,
    stop: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> Result<(), StartError> {
    let incoming = listen(engine, config)?;
    let stopped = stop.clone();
    tasks.spawn(async move {
        if let Err(error) = router.serve_with_incoming_shutdown(incoming, stopped.cancelled_owned()).await {
            tracing::error!(%error, "a socket's server ended");
        }
    });
    Ok(())
}

/// Binds a socket, and lets in only whom it is for.
fn listen(engine: &Engine, config: &SocketConfig) -> Result<Incoming, StartError> {
    let listener = socket::bind(config).map_err(|source| StartError::Socket { path: config.path.clone(), source })?;
    let metrics = Arc::clone(&engine.metrics);
    let refused = Arc::new(move || {
        metrics.socket_refused.inc();
    });
    Ok(socket::incoming(listener, config.allowed_uids.clone(), refused))
}

async fn chores(engine: Arc<Engine>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(CHORES);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => return,
        }
        engine.flush_denials();
        let tidied = Arc::clone(&engine);
        let _ = tokio::task::spawn_blocking(move || tidied.tidy()).await;
        if engine.not_ready().is_empty() {
            engine.cache.prepare().await;
            engine.recheck().await;
        }
    }
}

/// Tries newer generations as soon as they are registered, and again those that were no good.
async fn rotations(engine: Arc<Engine>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(RETRIES);
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            () = engine.rotation.changed() => {}
            () = stop.cancelled() => return,
        }
        engine.rotate().await;
    }
}
