//! The Policy Bridge's client: policy down, audit up, over mTLS with SVIDs on both sides.
//!
//! It holds the stream open for the daemon's life and reconnects with backoff. What comes down is not trusted: the
//! [`crate::policy`] parses it, the rails bound it.

use crate::audit::{Checkpoints, Cursor};
use crate::config::BridgeConfig;
use crate::engine::Engine;
use bouncer_proto::bridge::v1 as wire;
use bouncer_proto::bridge::v1::control_message::Body as Down;
use bouncer_proto::bridge::v1::policy_bridge_client::PolicyBridgeClient;
use bouncer_proto::bridge::v1::resolver_message::Body as Up;
use hyper_util::rt::TokioIo;
use prost::Message as _;
use rustls_pki_types::ServerName;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsConnector;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::Endpoint;

/// Without a word for this long the control plane is taken for gone; it sends something each 10 s.
const SILENCE: Duration = Duration::from_secs(30);
/// The largest snapshot, in bytes, all its parts together.
const SNAPSHOT: usize = 64 << 20;
/// How often the resolver's own status goes up.
const STATUS: Duration = Duration::from_secs(10);
/// Audit events in one message.
const BATCH: usize = 500;
/// How long the last events may take to go up when the daemon ends.
const FAREWELL: Duration = Duration::from_secs(3);
/// How often a checkpoint that is due and can not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// From one of those messages to the next: each is acknowledged, and each acknowledgement kept on disk.
const PACE: Duration = Duration::from_millis(50);

/// Why a connection to the control plane ended.
#[derive(Debug, thiserror::Error)]
enum BridgeError {
    #[error("there is no X.509-SVID yet")]
    NoIdentity,
    #[error("TLS can't be set up: {0}")]
    Tls(#[from] spiffe_rustls::Error),
    #[error("it can't be reached: {0}")]
    Connect(#[from] tonic::transport::Error),
    #[error("it ended the stream: {0}")]
    Status(#[from] tonic::Status),
    #[error("it ended the stream")]
    Ended,
    #[error("it was silent for 30 s")]
    Silent,
    #[error("its snapshot is larger than 64 MiB")]
    TooLarge,
}

/// Keeps the bridge up until told to stop.
pub async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let mut wait = Duration::from_millis(100);
    let mut checkpoints = Checkpoints::open(&engine.config.state_dir, &engine.config.bouncer);
    loop {
        let before = std::time::Instant::now();
        let farewell = async {
            stop.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        let ended = tokio::select! {
            ended = session(&engine, &mut checkpoints, &stop) => ended,
            () = farewell => return,
        };
        if stop.is_cancelled() {
            return;
        }
        engine.metrics.bridge_connected.set(0);
        if let Err(error) = ended {
            let address = &engine.config.bridge.address;
            tracing::warn!(%error, address, "the control plane is away; the last policy stays in use until its age cap");
        }
        if before.elapsed() > SILENCE {
            wait = Duration::from_millis(100);
        }
        let jittered = wait.mul_f64(rand::random_range(0.5..1.0));
        tokio::select! {
            () = tokio::time::sleep(jittered) => {}
            () = stop.cancelled() => return,
        }
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

async fn session(
    engine: &Arc<Engine>,
    checkpoints: &mut Checkpoints,
    stop: &CancellationToken,
) -> Result<(), BridgeError> {
    let channel = connect(engine, &engine.config.bridge).await?;
    let (up, outgoing) = mpsc::channel(16);
    let hello = wire::Hello {
        bouncer: engine.config.bouncer.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: engine.policy.epoch(),
    };
    send(&up, Up::Hello(hello)).await?;
    let mut client = PolicyBridgeClient::new(channel);
    let mut down = client.sync(ReceiverStream::new(outgoing)).await?.into_inner();
    let acked = Arc::new(Notify::new());
    let audit = audit(engine, up.clone(), &acked, checkpoints, stop);
    let status = status(Arc::clone(engine), up.clone());
    let receive = async {
        let mut arriving = Arriving::default();
        loop {
            let message = tokio::time::timeout(SILENCE, down.message()).await.map_err(|_| BridgeError::Silent)??;
            let message = message.ok_or(BridgeError::Ended)?;
            if engine.metrics.bridge_connected.set(1) == 0 {
                tracing::info!("the Policy Bridge is up");
            }
            take(engine, message, &mut arriving, &up, &acked).await?;
        }
    };
    tokio::select! {
        ended = receive => ended,
        ended = audit => ended,
        ended = status => ended,
    }
}

async fn connect(engine: &Engine, config: &BridgeConfig) -> Result<tonic::transport::Channel, BridgeError> {
    let source = engine.identity.source().ok_or(BridgeError::NoIdentity)?;
    let tls = spiffe_rustls::mtls_client(source)
        .authorize(spiffe_rustls::authorizer::exact([config.server_id.as_str()])?)
        .with_alpn_protocols([b"h2"])
        .build()?;
    let tls = TlsConnector::from(Arc::new(tls));
    let address = config.address.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (tls, address) = (tls.clone(), address.clone());
        async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            // The server is known by its SPIFFE ID; its TLS name carries no meaning.
            let name = ServerName::try_from("control-plane.invalid").map_err(std::io::Error::other)?;
            let stream = tls.connect(name, tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://control-plane.invalid")
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10));
    Ok(endpoint.connect_with_connector(connector).await?)
}

async fn send(up: &mpsc::Sender<wire::ResolverMessage>, body: Up) -> Result<(), BridgeError> {
    up.send(wire::ResolverMessage { body: Some(body) }).await.map_err(|_| BridgeError::Ended)
}

/// A snapshot of which parts are still to come.
#[derive(Default)]
struct Arriving {
    snapshot: Option<wire::Snapshot>,
    bytes: usize,
}

impl Arriving {
    /// The snapshot, once it is whole. A part of another epoch begins it anew.
    fn add(&mut self, part: wire::Snapshot) -> Result<Option<wire::Snapshot>, BridgeError> {
        let length = part.encoded_len();
        let snapshot = match self.snapshot.take().filter(|begun| begun.epoch == part.epoch) {
            Some(mut begun) => {
                begun.absorb(part);
                begun
            }
            None => {
                self.bytes = 0;
                part
            }
        };
        self.bytes += length;
        if self.bytes > SNAPSHOT {
            return Err(BridgeError::TooLarge);
        }
        if !snapshot.more {
            return Ok(Some(snapshot));
        }
        self.snapshot = Some(snapshot);
        Ok(None)
    }
}

async fn take(
    engine: &Arc<Engine>,
    message: wire::ControlMessage,
    arriving: &mut Arriving,
    up: &mpsc::Sender<wire::ResolverMessage>,
    acked: &Notify,
) -> Result<(), BridgeError> {
    match message.body {
        Some(Down::Snapshot(part)) => {
            let Some(snapshot) = arriving.add(part)? else { return Ok(()) };
            let mut ack = wire::Ack { epoch: snapshot.epoch, ..Default::default() };
            match engine.policy.install(snapshot) {
                Ok((policy, changes)) => {
                    tracing::info!(epoch = policy.epoch, enabled = policy.enabled, "a policy snapshot is in use");
                    let problem = |(subject, reason): &(String, bouncer_custody::Reason)| wire::Problem {
                        subject: subject.clone(),
                        reason: reason.code().to_owned(),
                    };
                    ack.problems = policy.problems.iter().map(problem).collect();
                    engine.apply(&policy, &changes);
                    if policy.enabled {
                        let cache = Arc::clone(&engine.cache);
                        tokio::spawn(async move { cache.prepare().await });
                    }
                }
                Err(refused) => {
                    tracing::error!(%refused, epoch = ack.epoch, "a policy snapshot was refused; the one in use stays");
                    ack.refused = refused.to_string();
                }
            }
            send(up, Up::Ack(ack)).await
        }
        Some(Down::AuditAck(ack)) => {
            let told = Arc::clone(engine);
            let _ = tokio::task::spawn_blocking(move || told.spool.acknowledge(ack.sequence)).await;
            acked.notify_one();
            Ok(())
        }
        Some(Down::KeepAlive(keep_alive)) => {
            if keep_alive.epoch == engine.policy.epoch() {
                engine.policy.heard();
            }
            Ok(())
        }
        None => Ok(()),
    }
}

/// Sends what is in the spool, batch by batch, each after the last was acknowledged, and checkpoints over it. Ends well
/// once the daemon is told to stop and everything was sent and signed.
async fn audit(
    engine: &Arc<Engine>,
    up: mpsc::Sender<wire::ResolverMessage>,
    acked: &Notify,
    checkpoints: &mut Checkpoints,
    stop: &CancellationToken,
) -> Result<(), BridgeError> {
    if let Some(last) = checkpoints.last() {
        // The connection before may have broken over it. The control plane knows it by its number.
        send(&up, Up::Audit(wire::AuditBatch { events: Vec::new(), checkpoint: Some(last) })).await?;
    }
    let mut cursor = Cursor::behind(engine.spool.acknowledged());
    // Where the chain was behind the last event that went up.
    let mut sent = Some(engine.spool.at()).filter(|at| at.sequence == cursor.sequence() && at.sequence > 0);
    loop {
        let ending = stop.is_cancelled();
        if ending {
            engine.flush_denials();
        }
        let mut events = engine.spool.read(&mut cursor, BATCH).unwrap_or_else(|error| {
            tracing::error!(%error, "the audit spool can't be read; its events stay until it can");
            Vec::new()
        });
        // Each chain's last event is covered before another chain begins.
        let chain_ends = events.iter().position(|event| event.chain != events[0].chain);
        if let Some(at) = chain_ends {
            events.truncate(at);
            cursor = Cursor::behind(events.last().map_or(0, |event| event.sequence));
        }
        if let Some(last) = events.last() {
            sent = last.point();
        }
        let checkpoint = checkpoint(engine, checkpoints, sent.as_ref(), ending || chain_ends.is_some());
        if events.is_empty() {
            if let Some(checkpoint) = checkpoint {
                send(&up, Up::Audit(wire::AuditBatch { events: Vec::new(), checkpoint: Some(checkpoint) })).await?;
            } else if ending {
                return Ok(());
            } else {
                let unsigned = sent.as_ref().is_some_and(|at| checkpoints.behind(at));
                let wait = if unsigned { checkpoints.wait().clamp(RETRY, STATUS) } else { STATUS };
                tokio::select! {
                    () = engine.spool.appended() => {}
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => {}
                }
            }
            continue;
        }
        let next = tokio::time::Instant::now() + PACE;
        let events = events.into_iter().map(Into::into).collect();
        send(&up, Up::Audit(wire::AuditBatch { events, checkpoint })).await?;
        if tokio::time::timeout(SILENCE, acked.notified()).await.is_err() {
            return Err(BridgeError::Silent);
        }
        let stored = engine.spool.acknowledged();
        if stored < cursor.sequence() {
            cursor = Cursor::behind(stored);
        }
        tokio::time::sleep_until(next).await;
    }
}

/// A checkpoint over what was sent, where one is due or `now` is the time for it.
fn checkpoint(
    engine: &Engine,
    checkpoints: &mut Checkpoints,
    sent: Option<&bouncer_audit::ChainPoint>,
    now: bool,
) -> Option<wire::Checkpoint> {
    let at = sent.filter(|at| checkpoints.behind(at))?;
    let svid = engine.identity.x509_svid().ok()?;
    if !now && !checkpoints.due(at, &svid) {
        return None;
    }
    // A small file, each ten seconds at the most but for bursts; nothing on this thread waits for it that is in a hurry.
    tokio::task::block_in_place(|| checkpoints.make(at.clone(), &svid))
}

async fn status(engine: Arc<Engine>, up: mpsc::Sender<wire::ResolverMessage>) -> Result<(), BridgeError> {
    let mut last = None;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut since = STATUS;
    loop {
        tick.tick().await;
        since += Duration::from_secs(1);
        let not_ready: Vec<String> = engine.not_ready().iter().map(ToString::to_string).collect();
        let secrets = engine.secrets();
        let now = (not_ready, secrets);
        if since < STATUS && last.as_ref() == Some(&now) {
            continue;
        }
        since = Duration::ZERO;
        let status = wire::Status {
            ready: now.0.is_empty(),
            not_ready: now.0.clone(),
            dev: engine.config.dev,
            time_ms: jiff::Timestamp::now().as_millisecond(),
            secrets: now.1.clone(),
        };
        last = Some(now);
        send(&up, Up::Status(status)).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(epoch: u64, paths: &[&str], more: bool) -> wire::Snapshot {
        let envelope = |path: &&str| wire::Envelope { logical_path: (*path).to_owned(), ..Default::default() };
        wire::Snapshot { epoch, envelopes: paths.iter().map(envelope).collect(), more, ..Default::default() }
    }

    #[test]
    fn parts_of_one_epoch_make_a_snapshot_and_those_of_another_begin_anew() {
        let mut arriving = Arriving::default();
        assert_eq!(arriving.add(part(1, &["a"], false)).unwrap(), Some(part(1, &["a"], false)));
        assert_eq!(arriving.add(part(2, &["a"], true)).unwrap(), None);
        assert_eq!(arriving.add(part(3, &["b"], true)).unwrap(), None);
        assert_eq!(arriving.add(part(3, &[], true)).unwrap(), None);
        assert_eq!(arriving.add(part(3, &["c"], false)).unwrap(), Some(part(3, &["b", "c"], false)));
        assert_eq!(arriving.add(part(4, &["d"], false)).unwrap(), Some(part(4, &["d"], false)));
    }

    #[test]
    fn parts_without_end_end_the_connection() {
        let mut arriving = Arriving::default();
        let long = "x".repeat(1 << 20);
        let added = (0..100).try_for_each(|_| arriving.add(part(1, &[&long], true)).map(drop));
        assert!(matches!(added, Err(BridgeError::TooLarge)));
    }
}
