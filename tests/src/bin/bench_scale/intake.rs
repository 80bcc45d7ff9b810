//! Audit as bouncers send it, chained, over the Policy Bridge with mTLS, until it is acknowledged, against the same rows
//! inserted into the same schema by the database's own client.

use crate::database::Databases;
use crate::plane::Plane;
use crate::streams::{Stream, message};
use crate::{Sizes, progress};
use bouncer_audit::{ChainPoint, Owner};
use bouncer_proto::bridge::v1 as wire;
use bouncer_tests::stats::Spread;
use bouncer_tests::{Fault, Result};
use serde::Serialize;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use wire::control_message::Body as Down;
use wire::resolver_message::Body as Up;

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
    /// Stored and acknowledged by the control plane.
    pub bridge: Spread,
    /// Inserted and committed by the database's own client, in batches as large.
    pub database: Spread,
    /// The ratio in the same round.
    pub ratio: Spread,
}

/// One bouncer, and where its chain is.
struct Sender {
    bouncer: String,
    stream: Stream,
    at: ChainPoint,
}

impl Sender {
    async fn open(plane: &Plane, number: u32) -> Result<Self> {
        let bouncer = format!("sender-{number}");
        let id = format!("spiffe://example.org/bouncer/{bouncer}");
        plane.control_plane.api()?.register_bouncer(&bouncer, &id).await?;
        let address = plane.control_plane.setup().bridge().parse()?;
        let stream = Stream::open(address, &plane.domain.svid(&id)?, &bouncer).await?;
        let chain = uuid::Uuid::now_v7().to_string().parse()?;
        Ok(Self { at: ChainPoint::origin(chain, &Owner::Bouncer(bouncer.clone()), 0), bouncer, stream })
    }

    /// The next events, as a resolver makes them.
    fn events(&mut self, count: u32) -> Result<Vec<wire::AuditEvent>> {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis())?;
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
        Ok((0..count).map(|_| next()).collect())
    }

    /// Sends batches, and waits until the last is acknowledged.
    async fn send(&mut self, batches: Vec<Vec<wire::AuditEvent>>) -> Result<()> {
        let last = batches.last().and_then(|batch| batch.last()).map_or(0, |event| event.sequence);
        let up = self.stream.up.clone();
        let send = async move {
            for events in batches {
                let batch = wire::AuditBatch { events, checkpoint: None };
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

/// Round by round, each first in turn.
///
/// # Errors
/// If events are not taken.
pub(crate) async fn measure(databases: &Databases, sizes: &Sizes) -> Result<Intake> {
    let plane = Plane::start("intake", databases).await?;
    // The peer's own database has the same schema, since a control plane made it.
    let peer = Plane::start("intake-peer", databases).await?;
    peer.control_plane.process().kill();
    let mut own = peer.database().await?;
    let mut senders = Vec::new();
    for number in 0..sizes.senders {
        senders.push(Sender::open(&plane, number).await?);
    }
    let events = sizes.senders * sizes.batches * sizes.batch;
    let (mut bridge, mut database, mut ratio) = (vec![], vec![], vec![]);
    // The first round opens files and prepares statements.
    for round in 0..=sizes.audit_rounds {
        let mut made = Vec::new();
        for sender in &mut senders {
            let batches = (0..sizes.batches).map(|_| sender.events(sizes.batch)).collect::<Result<Vec<_>>>()?;
            made.push(batches);
        }
        let (mut took, mut peer_took) = (0.0, 0.0);
        for turn in 0..2 {
            let start = Instant::now();
            if (turn + round) % 2 == 0 {
                let send = senders.iter_mut().zip(made.clone()).map(|(sender, batches)| sender.send(batches));
                let send: Vec<_> = send.collect();
                let start = Instant::now();
                futures::future::try_join_all(send).await?;
                took = start.elapsed().as_secs_f64();
            } else {
                for (sender, batches) in senders.iter().zip(&made) {
                    for batch in batches {
                        own.insert_audit(&sender.bouncer, batch).await?;
                    }
                }
                peer_took = start.elapsed().as_secs_f64();
            }
        }
        if round > 0 {
            bridge.push(f64::from(events) / took);
            database.push(f64::from(events) / peer_took);
            ratio.push(peer_took / took);
        }
    }
    progress(format_args!("{} rounds of {events} audit events", sizes.audit_rounds));
    Ok(Intake {
        senders: sizes.senders,
        batch: sizes.batch,
        events,
        rounds: sizes.audit_rounds,
        bridge: Spread::of(bridge),
        database: Spread::of(database),
        ratio: Spread::of(ratio),
    })
}
