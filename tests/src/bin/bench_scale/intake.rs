//! Audit as bouncers send it, chained and with signed checkpoints, over the Policy Bridge with mTLS, until it is acknowledged,
//! against the same events inserted into the same schema by the database's own client: over one connection where there is
//! one writer, else over as many as there are bouncers. That stores nothing else: no checkpoints, no totals.

use crate::database::{Connection, Databases};
use crate::plane::Plane;
use crate::streams::{Stream, message};
use crate::{Sizes, progress};
use bouncer_audit::{ChainPoint, Checkpoint, Owner, Signer};
use bouncer_proto::bridge::v1 as wire;
use bouncer_tests::stats::Spread;
use bouncer_tests::{Fault, Result};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use wire::control_message::Body as Down;
use wire::resolver_message::Body as Up;

/// A resolver sends a checkpoint when it has sent so many events since the last.
const SIGNED: u64 = 1_000;

/// What contradicts a chain, by its kind.
const DIVERGENCES: &str = "bouncer_control_plane_audit_divergences_total";

/// What was measured, in events in a second.
#[derive(Debug, Serialize)]
pub(crate) struct Intake {
    /// Bouncers that send at the same time.
    pub senders: u32,
    /// Events of a batch.
    pub batch: u32,
    /// Events in a round, of each.
    pub events: u32,
    /// Rounds.
    pub rounds: u32,
    /// Connections that the database's own client has.
    pub connections: usize,
    /// Stored and acknowledged by the control plane.
    pub bridge: Spread,
    /// Inserted and committed by the database's own client, in batches as large.
    pub database: Spread,
    /// The ratio in the same round.
    pub ratio: Spread,
}

/// One bouncer, where its chain is, and its last checkpoint.
struct Sender {
    bouncer: String,
    stream: Stream,
    at: ChainPoint,
    signer: Signer,
    /// The last checkpoint's number, and the event that it ends with.
    signed: (u64, u64),
}

impl Sender {
    async fn open(plane: &Plane, number: u32) -> Result<Self> {
        let bouncer = format!("sender-{number}");
        let id = format!("spiffe://example.org/bouncer/{bouncer}");
        plane.control_plane.api()?.register_bouncer(&bouncer, &id).await?;
        let address = plane.control_plane.setup().bridge().parse()?;
        let svid = plane.domain.svid(&id)?;
        let stream = Stream::open(address, &svid, &bouncer).await?;
        let chain = uuid::Uuid::now_v7().to_string().parse()?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(svid.key_der));
        let signer = Signer::new(&key, vec![svid.cert.to_vec()])?;
        let at = ChainPoint::origin(chain, &Owner::Bouncer(bouncer.clone()), 0);
        Ok(Self { at, bouncer, stream, signer, signed: (0, 0) })
    }

    /// The next events, as a resolver makes them, with a checkpoint where one is due.
    fn batch(&mut self, count: u32) -> Result<wire::AuditBatch> {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
        let events = self.events(count, now);
        let (number, last) = self.signed;
        let due = number == 0 || self.at.sequence - last >= SIGNED;
        let checkpoint = if due { Some(self.checkpoint(number + 1, now)?) } else { None };
        Ok(wire::AuditBatch { events, checkpoint })
    }

    fn checkpoint(&mut self, number: u64, time_ms: i64) -> Result<wire::Checkpoint> {
        let ChainPoint { chain, sequence, head } = self.at.clone();
        let owner = Owner::Bouncer(self.bouncer.clone());
        let signed = self.signer.sign(Checkpoint { chain, owner, number, sequence, head, time_ms })?;
        self.signed = (number, sequence);
        Ok(wire::Checkpoint {
            chain: signed.checkpoint.chain.to_string(),
            bouncer: self.bouncer.clone(),
            number,
            sequence,
            head: signed.checkpoint.head.as_bytes().to_vec(),
            time_ms,
            algorithm: signed.algorithm.as_str().to_owned(),
            signature: signed.signature,
            certificates: signed.certificates,
        })
    }

    fn events(&mut self, count: u32, now: i64) -> Vec<wire::AuditEvent> {
        let mut next = || {
            let sequence = self.at.sequence + 1;
            let denied = sequence.is_multiple_of(10);
            let mut event = wire::AuditEvent {
                id: uuid::Uuid::now_v7().to_string(),
                sequence,
                time_ms: now,
                caller: format!("spiffe://example.org/ns/shop/sa/cart-{}", sequence % 100),
                resource: "payments-api".to_owned(),
                logical_path: "protected-resources/payments-api/upstream-tls".to_owned(),
                generation: 3,
                key_id: "arn:aws:kms:ca-central-1:123456789012:key/5e2c4a0d-9d1f-4b8e-8a55-0c9d1c7d2b11".to_owned(),
                aad_sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
                cluster: "outbound|8443||payments.internal".to_owned(),
                destination: "payments.internal:8443".to_owned(),
                outcome: if denied { "deny" } else { "inject" }.to_owned(),
                reason: if denied { "caller_not_allowed" } else { "" }.to_owned(),
                backend_request_id: uuid::Uuid::now_v7().to_string(),
                count: 1,
                decision_id: uuid::Uuid::now_v7().to_string(),
                authority: "payments.internal:8443".to_owned(),
                ..wire::AuditEvent::default()
            };
            let leaf = bouncer_audit::decision!(event, self.bouncer.as_str()).leaf();
            self.at = ChainPoint { sequence, head: self.at.head_with(&leaf), ..self.at.clone() };
            event.chain = self.at.chain.to_string();
            event.head = self.at.head.as_bytes().to_vec();
            event
        };
        (0..count).map(|_| next()).collect()
    }

    /// Sends batches, and waits until the last is acknowledged.
    async fn send(&mut self, batches: Vec<wire::AuditBatch>) -> Result<()> {
        let last = batches.last().and_then(|batch| batch.events.last()).map_or(0, |event| event.sequence);
        let up = self.stream.up.clone();
        let send = async move {
            for batch in batches {
                let sent = up.send(message(Up::Audit(batch))).await;
                sent.map_err(|_| Fault::new("a stream takes no more"))?;
            }
            Ok::<_, Fault>(())
        };
        let acknowledged = async {
            loop {
                match self.stream.next().await? {
                    Some(Down::AuditAck(ack)) if ack.sequence >= last => return Ok::<_, Fault>(()),
                    Some(_) => {}
                    None => return Err(Fault::new("a stream ended")),
                }
            }
        };
        tokio::try_join!(send, acknowledged).map(drop)
    }
}

/// Inserts the batches of some bouncers.
async fn insert(own: &mut Connection, bouncers: &[(String, Vec<wire::AuditBatch>)]) -> Result<()> {
    for (bouncer, batches) in bouncers {
        for batch in batches {
            own.insert_audit(bouncer, &batch.events).await?;
        }
    }
    Ok(())
}

/// Round by round, each first in turn.
///
/// # Errors
/// If events are not taken.
pub(crate) async fn measure(databases: &Databases, sizes: &Sizes) -> Result<Intake> {
    let plane = Plane::start("intake", databases).await?;
    // The peer's own database has the same schema, since a control plane made it.
    let peer = Plane::start("intake-peer", databases).await?;
    peer.control_plane.process().kill();
    let (mut senders, mut own) = (Vec::new(), Vec::new());
    for number in 0..sizes.senders {
        senders.push(Sender::open(&plane, number).await?);
    }
    for _ in 0..databases.writers(senders.len()) {
        own.push(peer.database().await?);
    }
    let events = sizes.senders * sizes.batches * sizes.batch;
    let (mut bridge, mut database, mut ratio) = (vec![], vec![], vec![]);
    // The first round opens files and prepares statements.
    for round in 0..=sizes.audit_rounds {
        let mut made = Vec::new();
        for sender in &mut senders {
            let batches = (0..sizes.batches).map(|_| sender.batch(sizes.batch)).collect::<Result<Vec<_>>>()?;
            made.push((sender.bouncer.clone(), batches));
        }
        let (mut took, mut peer_took) = (0.0, 0.0);
        for turn in 0..2 {
            let start = Instant::now();
            if (turn + round) % 2 == 0 {
                let send = senders.iter_mut().zip(made.clone()).map(|(sender, (_, batches))| sender.send(batches));
                let send: Vec<_> = send.collect();
                let start = Instant::now();
                futures::future::try_join_all(send).await?;
                took = start.elapsed().as_secs_f64();
            } else {
                let each = made.len().div_ceil(own.len());
                let inserts = own.iter_mut().zip(made.chunks(each)).map(|(own, bouncers)| insert(own, bouncers));
                futures::future::try_join_all(inserts).await?;
                peer_took = start.elapsed().as_secs_f64();
            }
        }
        if round > 0 {
            bridge.push(f64::from(events) / took);
            database.push(f64::from(events) / peer_took);
            ratio.push(peer_took / took);
        }
    }
    let metrics = plane.control_plane.api()?.get("/metrics").await?.text;
    let diverged = |line: &str| line.starts_with(DIVERGENCES) && !line.ends_with(" 0");
    if let Some(line) = metrics.lines().find(|line| diverged(line)) {
        return Err(Fault::new(format!("the control plane takes the batches for no resolver's: {line}")));
    }
    progress(format_args!("{} rounds of {events} audit events", sizes.audit_rounds));
    Ok(Intake {
        senders: sizes.senders,
        batch: sizes.batch,
        events,
        rounds: sizes.audit_rounds,
        connections: own.len(),
        bridge: Spread::of(bridge),
        database: Spread::of(database),
        ratio: Spread::of(ratio),
    })
}
