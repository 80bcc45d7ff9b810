//! The Policy Bridge's client: policy down, audit up, over mTLS with SVIDs on both sides, or with a key of its own and the
//! IAM role that it [`enrol`]s with.
//!
//! It holds the stream open for the daemon's life and reconnects with backoff. What comes down is not trusted: the
//! [`crate::policy`] parses it, the rails bound it.

mod enrol;

use crate::audit::{Checkpoints, Cursor};
use crate::config::BridgeLogin;
use crate::engine::Engine;
use bouncer_proto::bridge::v1 as wire;
use bouncer_proto::bridge::v1::control_message::Body as Down;
use bouncer_proto::bridge::v1::enrolment_client::EnrolmentClient;
use bouncer_proto::bridge::v1::policy_bridge_client::PolicyBridgeClient;
use bouncer_proto::bridge::v1::resolver_message::Body as Up;
use enrol::{EnrolError, Enroller};
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
/// How long the control plane may take over an enrolment; it asks STS.
const ENROLMENT: Duration = Duration::from_secs(15);
/// An enrolment is renewed after half of its life: not sooner than this, also after a fault,
const RENEWAL_MIN: Duration = Duration::from_secs(20);
/// and not later.
const RENEWAL_MAX: Duration = Duration::from_secs(450);
/// How often a checkpoint that is due and can not be made is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// From one of those messages to the next: each is acknowledged, and each acknowledgement kept on disk.
const PACE: Duration = Duration::from_millis(50);

/// Why a connection to the control plane ended.
#[derive(Debug, thiserror::Error)]
enum BridgeError {
    #[error("there is no X.509-SVID yet")]
    NoIdentity,
    #[error("there is nothing to enrol with: {0}")]
    Enrol(#[from] EnrolError),
    #[error("it refuses this role: {0}")]
    Refused(tonic::Status),
    #[error("it did not answer the enrolment within 15 s")]
    SlowEnrolment,
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
    let enroller = match &engine.config.bridge.login {
        BridgeLogin::Iam(login) => Some(Enroller::new(login).await),
        BridgeLogin::Svid(_) => None,
    };
    loop {
        let before = std::time::Instant::now();
        let farewell = async {
            stop.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        let ended = tokio::select! {
            ended = session(&engine, enroller.as_ref(), &mut checkpoints, &stop) => ended,
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
    enroller: Option<&Enroller>,
    checkpoints: &mut Checkpoints,
    stop: &CancellationToken,
) -> Result<(), BridgeError> {
    let mut connection = connect(engine, enroller).await?;
    connection.enrol(engine).await?;
    let (up, outgoing) = mpsc::channel(16);
    let hello = wire::Hello {
        bouncer: engine.config.bouncer.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: engine.policy.epoch(),
    };
    send(&up, Up::Hello(hello)).await?;
    let mut client = PolicyBridgeClient::new(connection.channel.clone());
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
        ended = connection.stay_enrolled(engine) => ended,
    }
}

/// A connection to the control plane.
struct Connection<'a> {
    channel: tonic::transport::Channel,
    /// Of a resolver that enrols: who signs, and the digest of the connection's key.
    enrols: Option<(&'a Enroller, String)>,
    /// When the enrolment is to be renewed.
    renewal: tokio::time::Instant,
}

impl Connection<'_> {
    /// Proves the role, where that is how this resolver is known. Sets the time by which to do it again.
    async fn enrol(&mut self, engine: &Engine) -> Result<(), BridgeError> {
        let Some((enroller, key)) = &self.enrols else { return Ok(()) };
        let request = enroller.request(key).await?;
        let mut client = EnrolmentClient::new(self.channel.clone());
        let answer = tokio::time::timeout(ENROLMENT, client.enroll(request)).await;
        let reply = answer.map_err(|_| BridgeError::SlowEnrolment)?.map_err(BridgeError::Refused)?.into_inner();
        engine.metrics.bridge_enrolment_end.set(reply.expires_ms / 1_000);
        let life = reply.expires_ms - jiff::Timestamp::now().as_millisecond();
        // The clocks may differ: never at once, and never later than the longest life allows.
        let half = Duration::from_millis(u64::try_from(life / 2).unwrap_or(0)).clamp(RENEWAL_MIN, RENEWAL_MAX);
        self.renewal = tokio::time::Instant::now() + half;
        tracing::info!(bouncer = reply.bouncer, "enrolled by the IAM role");
        Ok(())
    }

    /// Renews the enrolment ahead of its end. Ends only with a refusal; what passes is tried again, and if the enrolment
    /// ends over it, so does the connection.
    async fn stay_enrolled(&mut self, engine: &Engine) -> Result<(), BridgeError> {
        if self.enrols.is_none() {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep_until(self.renewal).await;
            match self.enrol(engine).await {
                Ok(()) => {}
                Err(BridgeError::Refused(status)) if status.code() == tonic::Code::PermissionDenied => {
                    return Err(BridgeError::Refused(status));
                }
                Err(error) => {
                    tracing::warn!(%error, "the enrolment is not renewed yet; trying again");
                    self.renewal = tokio::time::Instant::now() + RENEWAL_MIN;
                }
            }
        }
    }
}

async fn connect<'a>(engine: &Engine, enroller: Option<&'a Enroller>) -> Result<Connection<'a>, BridgeError> {
    let config = &engine.config.bridge;
    // By SPIFFE ID the server's TLS name carries no meaning.
    let nameless = || ServerName::try_from("control-plane.invalid").map_err(|_| EnrolError::Tls);
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
            (tls, nameless()?, None)
        }
    };
    let tls = TlsConnector::from(Arc::new(tls));
    let address = config.address.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let (tls, address, name) = (tls.clone(), address.clone(), name.clone());
        async move {
            let tcp = TcpStream::connect(&address).await?;
            tcp.set_nodelay(true)?;
            let stream = tls.connect(name, tcp).await?;
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    let endpoint = Endpoint::from_static("http://control-plane.invalid")
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10));
    let channel = endpoint.connect_with_connector(connector).await?;
    Ok(Connection { channel, enrols, renewal: tokio::time::Instant::now() })
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
    // Without an SVID nothing is signed, and what an earlier one signed is not this connection's.
    if let Some(last) = checkpoints.last().filter(|_| engine.config.workload_api.is_some()) {
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
                let signs = engine.config.workload_api.is_some();
                let unsigned = signs && sent.as_ref().is_some_and(|at| checkpoints.behind(at));
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
