//! The Policy Bridge's client: policy down, audit up, over mTLS with SVIDs on both sides, or with a key of its own and the
//! IAM role that it [`enrol`]s with.
//!
//! It holds the stream open for the daemon's life, reconnects with backoff, and moves to another of the control plane's
//! addresses when one goes. What comes down is not trusted: the [`crate::policy`] parses it, the rails bound it.

mod arriving;
mod connect;
mod enrol;
mod fronts;
mod sight;

use crate::audit::{Checkpoints, Cursor};
use crate::config::BridgeLogin;
use crate::engine::Engine;
use crate::metrics::Front;
use crate::policy::{Changes, Policy, Refused};
use arriving::{Arriving, TooLarge};
use bouncer_custody::Link;
use bouncer_proto::bridge::v1 as wire;
use bouncer_proto::bridge::v1::control_message::Body as Down;
use bouncer_proto::bridge::v1::policy_bridge_client::PolicyBridgeClient;
use bouncer_proto::bridge::v1::resolver_message::Body as Up;
use bouncer_proto::{ContentDigest, DeltaFault};
use connect::{Afterwards, BridgeError, STEP};
use enrol::Enroller;
use fronts::Fronts;
pub use sight::{Sight, Verdict, verdict};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

/// Without a word for this long the control plane is taken for gone; it sends something each 10 s.
const SILENCE: Duration = Duration::from_secs(30);
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

/// Keeps the bridge up until told to stop.
pub async fn run(engine: Arc<Engine>, stop: CancellationToken) {
    let mut checkpoints = Checkpoints::open(&engine.config.state_dir, &engine.config.bouncer);
    let mut fronts = Fronts::new(&engine.config.bridge.addresses);
    let enroller = match &engine.config.bridge.login {
        BridgeLogin::Iam(login) => Some(Enroller::new(login).await),
        BridgeLogin::Svid(_) => None,
    };
    loop {
        let before = Instant::now();
        let address = fronts.current().to_owned();
        let farewell = async {
            stop.cancelled().await;
            tokio::time::sleep(FAREWELL).await;
        };
        let afterwards = Afterwards::default();
        let ended = tokio::select! {
            ended = session(&engine, (&address, enroller.as_ref()), &afterwards, &mut checkpoints, &stop) => ended,
            () = farewell => return,
        };
        if stop.is_cancelled() {
            return;
        }
        engine.metrics.bridge_connected.set(0);
        engine.metrics.bridge_front.get_or_create(&Front { address: address.clone() }).set(0);
        let mut served = false;
        if let Err(error) = ended.map_err(|error| afterwards.explain(error)) {
            engine.sight.down(&address, &error);
            served = error.is_end_of_svid();
            let link = error.link().code();
            tracing::warn!(%error, link, address, "the control plane is away; the last policy stays in use until its age cap");
        }
        tokio::select! {
            () = tokio::time::sleep(fronts.ended(before.elapsed(), served)) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn session(
    engine: &Arc<Engine>,
    (address, enroller): (&str, Option<&Enroller>),
    afterwards: &Afterwards,
    checkpoints: &mut Checkpoints,
    stop: &CancellationToken,
) -> Result<(), BridgeError> {
    let mut connection = connect::connect(engine, &engine.config.bridge, address, afterwards, enroller).await?;
    connection.enrol(&engine.metrics).await?;
    let (up, outgoing) = mpsc::channel(16);
    let held = engine.policy.held();
    let hello = wire::Hello {
        bouncer: engine.config.bouncer.to_string(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: held.map_or(0, |(epoch, _)| epoch),
        digest: held.map(|(_, content)| content.to_vec()).unwrap_or_default(),
        delta_form: ContentDigest::FORM,
    };
    send(&up, Up::Hello(hello)).await?;
    let mut client = PolicyBridgeClient::new(connection.channel.clone());
    let answer = tokio::time::timeout(STEP, client.sync(ReceiverStream::new(outgoing))).await;
    let mut down = answer.map_err(|_| BridgeError::Silent)??.into_inner();
    let sent = Sent::default();
    let audit = audit(engine, up.clone(), &sent, checkpoints, stop);
    let status = status(Arc::clone(engine), up.clone());
    let receive = async {
        let mut inbox = Inbox::default();
        loop {
            let message = tokio::time::timeout(SILENCE, down.message()).await.map_err(|_| BridgeError::Silent)??;
            let message = message.ok_or(BridgeError::Ended)?;
            if engine.metrics.bridge_connected.set(1) == 0 {
                tracing::info!(address, "the Policy Bridge is up");
                engine.metrics.bridge_front.get_or_create(&Front { address: address.to_owned() }).set(1);
                engine.sight.up(address);
            }
            inbox.take(engine, message, &up, &sent).await?;
        }
    };
    tokio::select! {
        ended = receive => ended,
        ended = audit => ended,
        ended = status => ended,
        ended = connection.stay_enrolled(&engine.metrics) => ended,
    }?;
    // The audit has ended well. The control plane ends its side once it has taken all of ours.
    drop(up);
    while down.message().await?.is_some() {}
    Ok(())
}

/// The audit events that went up on one stream.
#[derive(Default)]
struct Sent {
    /// The last one's sequence.
    last: AtomicU64,
    /// Told when some of them are stored.
    acked: Notify,
}

async fn send(up: &mpsc::Sender<wire::ResolverMessage>, body: Up) -> Result<(), BridgeError> {
    up.send(wire::ResolverMessage { body: Some(body) }).await.map_err(|_| BridgeError::Ended)
}

/// What comes down on one stream.
#[derive(Default)]
struct Inbox {
    snapshot: Arriving<wire::Snapshot>,
    delta: Arriving<wire::PolicyDelta>,
    /// The whole was asked for, which is good once.
    asked: bool,
}

impl Inbox {
    async fn take(
        &mut self,
        engine: &Arc<Engine>,
        message: wire::ControlMessage,
        up: &mpsc::Sender<wire::ResolverMessage>,
        sent: &Sent,
    ) -> Result<(), BridgeError> {
        match message.body {
            Some(Down::Snapshot(part)) => {
                engine.sight.told(part.epoch, part.issued_ms);
                let Some(snapshot) = self.snapshot.add(part).map_err(|TooLarge| BridgeError::TooLarge)? else {
                    return Ok(());
                };
                let epoch = snapshot.epoch;
                let ack = answer(engine, epoch, engine.policy.install(snapshot));
                send(up, Up::Ack(ack)).await
            }
            Some(Down::Delta(part)) => {
                engine.sight.told(part.epoch, part.issued_ms);
                let Some(delta) = self.delta.add(part).map_err(|TooLarge| BridgeError::TooLarge)? else {
                    return Ok(());
                };
                let epoch = delta.epoch;
                let ack = answer(engine, epoch, engine.policy.update(delta));
                let refused = !ack.refused.is_empty();
                send(up, Up::Ack(ack)).await?;
                if refused && !std::mem::replace(&mut self.asked, true) {
                    send(up, Up::Resync(wire::Resync { epoch: engine.policy.epoch() })).await?;
                }
                Ok(())
            }
            Some(Down::AuditAck(ack)) => {
                let (told, last) = (Arc::clone(engine), sent.last.load(Ordering::Acquire));
                let _ = tokio::task::spawn_blocking(move || told.spool.acknowledge(ack.sequence, last)).await;
                sent.acked.notify_one();
                Ok(())
            }
            Some(Down::KeepAlive(keep_alive)) => {
                engine.sight.told(keep_alive.epoch, keep_alive.time_ms);
                if keep_alive.epoch == engine.policy.epoch() {
                    engine.policy.heard();
                }
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// Puts what came in use, or keeps what is; says which.
fn answer(engine: &Arc<Engine>, epoch: u64, installed: Result<(Arc<Policy>, Changes), Refused>) -> wire::Ack {
    let mut ack = wire::Ack { epoch, ..Default::default() };
    match installed {
        Ok((policy, changes)) => {
            tracing::info!(epoch, enabled = policy.enabled, "the policy of this epoch is in use");
            let problem = |(subject, reason): &(String, bouncer_custody::Reason)| wire::Problem {
                subject: subject.clone(),
                reason: reason.code().to_owned(),
            };
            ack.problems = policy.problems.iter().map(problem).collect();
            engine.apply(&policy, &changes);
            engine.sight.took();
            if policy.enabled {
                let cache = Arc::clone(&engine.cache);
                tokio::spawn(async move { cache.prepare().await });
            }
        }
        Err(refused) => {
            tracing::error!(%refused, epoch, "a policy was refused; the one in use stays");
            let diverged = refused == Refused::Delta(DeltaFault::Diverged);
            engine.sight.refused(if diverged { Link::Divergence } else { Link::Lag }, format!("refused: {refused}"));
            ack.refused = refused.to_string();
        }
    }
    ack.digest = engine.policy.held().map(|(_, content)| content.to_vec()).unwrap_or_default();
    ack
}

/// Sends what is in the spool, batch by batch, each after the last was acknowledged, and checkpoints over it. Ends well
/// once the daemon is told to stop and everything was sent and signed.
async fn audit(
    engine: &Arc<Engine>,
    up: mpsc::Sender<wire::ResolverMessage>,
    sent: &Sent,
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
    let mut sent_to = Some(engine.spool.at()).filter(|at| at.sequence == cursor.sequence() && at.sequence > 0);
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
            sent_to = last.point();
            sent.last.store(last.sequence, Ordering::Release);
        }
        let checkpoint = checkpoint(engine, checkpoints, sent_to.as_ref(), ending || chain_ends.is_some());
        if events.is_empty() {
            if let Some(checkpoint) = checkpoint {
                send(&up, Up::Audit(wire::AuditBatch { events: Vec::new(), checkpoint: Some(checkpoint) })).await?;
            } else if ending {
                return Ok(());
            } else {
                let signs = engine.config.workload_api.is_some();
                let unsigned = signs && sent_to.as_ref().is_some_and(|at| checkpoints.behind(at));
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
        if tokio::time::timeout(SILENCE, sent.acked.notified()).await.is_err() {
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
