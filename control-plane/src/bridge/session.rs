//! One resolver's session: policy down at every change, audit up, each acknowledged once stored.

use super::editions::{self, Edition, Latest, Need, Place};
use super::ingest;
use super::service::{Bridge, Outbox, Peer, unavailable};
use crate::metrics::BridgeRefusal;
use crate::model::{AuditEvent, Bouncer, Divergence, Received, Sighting};
use bouncer_proto::bridge::v1::{
    Ack, AuditAck, AuditBatch, ControlMessage, Hello, KeepAlive, PolicyDelta, ResolverMessage, control_message,
    resolver_message,
};
use bouncer_proto::{ContentDigest, DeltaFault, Parted as _};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};
use tonic::{Code, Status, Streaming};

/// How long a resolver may take to make room for a message.
const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a snapshot in one message.
const PART: usize = 256 * 1_024;
/// Most events in a batch.
const BATCH_LIMIT: usize = 10_000;

/// What a resolver hears whose bouncer went, or has another identity now.
fn unregistered() -> Status {
    Status::permission_denied("the bouncer is no longer registered for this identity")
}

/// One open session.
pub(super) struct Session<'a> {
    bridge: &'a Bridge,
    bouncer: Bouncer,
    peer: Peer,
    version: String,
    outbox: &'a Outbox,
    id: u64,
    place: Arc<Place>,
    need: Need,
    /// What the resolver holds: by its hello, then by what it was sent.
    held: Option<(u64, ContentDigest)>,
    /// What it was sent in this session.
    sent: Option<Arc<Edition>>,
    /// It counts content as we do.
    digests: bool,
    /// It understands deltas, and has not asked for the whole.
    deltas: bool,
    epoch_sent: u64,
    epoch_acked: u64,
    last_sequence: Option<u64>,
    dev: bool,
    /// When it was last noted in the store that the resolver is here, and at which epoch.
    remembered: (Instant, u64),
}

impl<'a> Session<'a> {
    pub(super) fn new(bridge: &'a Bridge, bouncer: Bouncer, peer: Peer, hello: Hello, outbox: &'a Outbox) -> Self {
        let version = ingest::bounded(hello.version, 64);
        let id = bridge.live.open(&bouncer.name, version.clone(), bridge.clock.now());
        bridge.metrics.session_opened();
        tracing::info!(bouncer = %bouncer.name, peer = %peer.id, version, "a resolver connected");
        let place = bridge.editions.open(&bouncer.name);
        // Digests of a form that we don't know say nothing.
        let digests = hello.delta_form == ContentDigest::FORM;
        let held = ContentDigest::read(&hello.digest).filter(|_| digests).map(|digest| (hello.epoch, digest));
        Self {
            bridge,
            bouncer,
            peer,
            version,
            outbox,
            id,
            place,
            need: Need { changes: 0, epoch: 0 },
            held,
            sent: None,
            digests,
            deltas: digests,
            epoch_sent: 0,
            // What it holds it has taken, in an earlier session.
            epoch_acked: hello.epoch,
            last_sequence: None,
            dev: false,
            remembered: (Instant::now(), hello.epoch),
        }
    }

    /// Runs until the resolver goes, the process stops, or something is wrong.
    pub(super) async fn run(mut self, messages: &mut Streaming<ResolverMessage>) -> Result<(), Status> {
        let ended = self.serve(messages).await;
        // What was taken since the last note. Of a bouncer that is another's by now, its former resolver notes nothing.
        let is_its_own = ended.as_ref().err().is_none_or(|status| status.code() != Code::PermissionDenied);
        if is_its_own && self.epoch_acked != self.remembered.1 {
            self.remember().await;
        }
        ended
    }

    async fn serve(&mut self, messages: &mut Streaming<ResolverMessage>) -> Result<(), Status> {
        // Subscribed before the first read, so that no change falls between.
        let mut changes = self.bridge.store.changes();
        self.need.changes = *changes.borrow_and_update();
        self.push().await?;
        self.remember().await;

        let period = self.bridge.timing.keep_alive;
        let mut tick = tokio::time::interval_at(Instant::now() + period, period);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard = Instant::now();
        loop {
            tokio::select! {
                () = self.bridge.stop.cancelled() => {
                    return Err(Status::unavailable("the control plane is shutting down; connect again"));
                }
                changed = changes.changed() => {
                    if changed.is_err() {
                        return Err(Status::unavailable("the control plane is shutting down; connect again"));
                    }
                    self.need.changes = *changes.borrow_and_update();
                    self.push().await?;
                    tick.reset();
                }
                _ = tick.tick() => {
                    self.check_time(heard)?;
                    self.push_or_keep_alive().await?;
                    self.remember().await;
                }
                message = messages.message() => {
                    heard = Instant::now();
                    self.bridge.live.seen(&self.bouncer.name, self.id, self.bridge.clock.now());
                    match message? {
                        Some(message) => self.handle(message).await?,
                        None => return Ok(()),
                    }
                }
            }
        }
    }

    fn check_time(&self, heard: Instant) -> Result<(), Status> {
        if heard.elapsed() > self.bridge.timing.silence {
            return Err(Status::deadline_exceeded("nothing was heard from the resolver for too long; connect again"));
        }
        if self.bridge.clock.now() >= self.peer.not_after {
            return Err(Status::unauthenticated("the connection's SVID has ended; connect again with the current one"));
        }
        Ok(())
    }

    /// Sends what the bouncer may know now, or what of it differs. It must still be registered for the connection's
    /// identity.
    async fn push(&mut self) -> Result<(), Status> {
        let mut latest = self.latest().await?;
        if self.sent.is_none()
            && let Some((epoch, digest)) = self.held
            && epoch == latest.edition.epoch
            && digest != latest.edition.digest
        {
            // It holds this epoch with other content: the database was restored, and counts on from an earlier epoch.
            self.need.epoch = self.bridge.raise(&self.bouncer, epoch).await?;
            latest = self.latest().await?;
        }
        if latest.edition.epoch <= self.epoch_sent {
            return Ok(());
        }
        let held = self.held.filter(|_| self.deltas);
        let at_hand = held.and_then(|(epoch, digest)| latest.delta_from(epoch, digest, &self.bouncer.name));
        let edition = match at_hand {
            Some(delta) => {
                self.send_delta(delta).await?;
                latest.edition
            }
            None => self.push_whole(held.is_some()).await?,
        };
        self.epoch_sent = edition.epoch;
        self.held = Some((edition.epoch, edition.digest));
        self.bridge.live.sent(&self.bouncer.name, self.id, edition.epoch);
        self.sent = Some(edition);
        Ok(())
    }

    async fn latest(&self) -> Result<Latest, Status> {
        let latest = self.place.latest(self.bridge, &self.bouncer.name, self.need).await;
        let latest = latest.map_err(|error| unavailable(&error))?;
        latest.filter(|latest| latest.edition.identity == self.peer.id).ok_or_else(unregistered)
    }

    /// Reads the policy for this stream alone: it has just begun, or has slept through a change.
    async fn push_whole(&self, deltas: bool) -> Result<Arc<Edition>, Status> {
        let whole = editions::whole(self.bridge, &self.bouncer.name).await;
        let whole = whole.map_err(|error| unavailable(&error))?;
        let (edition, snapshot) =
            whole.filter(|(edition, _)| edition.identity == self.peer.id).ok_or_else(unregistered)?;
        if deltas
            && let Some(before) = &self.sent
            && let Some(delta) = before.delta(snapshot.clone(), &edition)
        {
            self.send_delta(delta).await?;
            return Ok(edition);
        }
        for part in snapshot.into_parts(PART) {
            self.send(control_message::Body::Snapshot(part)).await?;
        }
        self.bridge.metrics.snapshot_sent(edition.epoch);
        Ok(edition)
    }

    async fn send_delta(&self, delta: PolicyDelta) -> Result<(), Status> {
        let delta = PolicyDelta { issued_ms: self.bridge.clock.now().as_millisecond(), ..delta };
        self.bridge.metrics.delta_sent(delta.epoch);
        for part in delta.into_parts(PART) {
            self.send(control_message::Body::Delta(part)).await?;
        }
        Ok(())
    }

    /// The resolver could not take a delta. It gets the whole, and no more deltas: should the two sides count content
    /// differently, they do not go on about it for ever.
    async fn resync(&mut self) -> Result<(), Status> {
        if !std::mem::take(&mut self.deltas) {
            return Err(self.protocol("a whole snapshot may be asked for only once"));
        }
        self.epoch_sent = 0;
        self.push().await
    }

    /// What the resolver says it made of what it was sent, beside what it should be.
    fn diverged(&self, ack: &Ack) -> Option<bool> {
        if !ack.refused.is_empty() {
            return (ack.refused == DeltaFault::Diverged.to_string()).then_some(true);
        }
        let (epoch, digest) = self.held?;
        let said = ContentDigest::read(&ack.digest).filter(|_| self.digests && ack.epoch == epoch)?;
        Some(said != digest)
    }

    /// Looks whether a change was missed, and otherwise proves that the control plane lives. A database that does not
    /// answer is no reason to end sessions, but then there is no proof either.
    async fn push_or_keep_alive(&mut self) -> Result<(), Status> {
        let Ok(epoch) = self.bridge.store.epoch().await.inspect_err(|error| {
            unavailable(error);
        }) else {
            return Ok(());
        };
        if epoch > self.epoch_sent {
            self.need.epoch = epoch;
            return self.push().await;
        }
        let time_ms = self.bridge.clock.now().as_millisecond();
        self.send(control_message::Body::KeepAlive(KeepAlive { epoch: self.epoch_sent, time_ms })).await
    }

    async fn send(&self, body: control_message::Body) -> Result<(), Status> {
        let message = Ok(Box::new(ControlMessage { body: Some(body) }));
        match tokio::time::timeout(PATIENCE, self.outbox.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Status::cancelled("the resolver has gone")),
            Err(_) => Err(Status::deadline_exceeded("the resolver does not read")),
        }
    }

    async fn handle(&mut self, message: ResolverMessage) -> Result<(), Status> {
        match message.body {
            Some(resolver_message::Body::Ack(ack)) => {
                let diverged = self.diverged(&ack);
                if diverged == Some(true) {
                    self.bridge.metrics.policy_diverged();
                    tracing::warn!(bouncer = %self.bouncer.name, epoch = ack.epoch, "a bouncer's policy is not what it was sent");
                }
                if ack.refused.is_empty() {
                    self.epoch_acked = ack.epoch.min(self.epoch_sent);
                    // Not at each: a change is acknowledged by every resolver at once.
                    if self.remembered.0.elapsed() >= self.bridge.timing.keep_alive {
                        self.remember().await;
                    }
                } else {
                    let why = ingest::bounded(ack.refused.clone(), 64);
                    tracing::warn!(bouncer = %self.bouncer.name, epoch = ack.epoch, why, "a bouncer refused a policy");
                }
                self.bridge.live.acked(&self.bouncer.name, self.id, ack, diverged);
                Ok(())
            }
            Some(resolver_message::Body::Status(status)) => {
                self.dev = status.dev;
                self.bridge.live.reported(&self.bouncer.name, self.id, status, self.bridge.clock.now());
                Ok(())
            }
            Some(resolver_message::Body::Audit(batch)) => self.audit(batch).await,
            Some(resolver_message::Body::Resync(_)) => self.resync().await,
            Some(resolver_message::Body::Hello(_)) => Err(self.protocol("a hello may come only once")),
            None => Err(self.protocol("a message has no body")),
        }
    }

    fn protocol(&self, what: &'static str) -> Status {
        self.bridge.metrics.bridge_refused(BridgeRefusal::Protocol);
        tracing::warn!(bouncer = %self.bouncer.name, what, "a resolver broke the protocol");
        Status::invalid_argument(what)
    }

    /// Stores a batch, then acknowledges it. A batch that cannot be stored ends the session; the resolver still has it.
    async fn audit(&mut self, batch: AuditBatch) -> Result<(), Status> {
        if batch.events.len() > BATCH_LIMIT {
            return Err(self.protocol("an audit batch holds more than 10,000 events"));
        }
        let read = self.read(batch).map_err(|fault| {
            self.bridge.metrics.bridge_refused(BridgeRefusal::Protocol);
            tracing::warn!(bouncer = %self.bouncer.name, %fault, "a resolver sent an audit event that cannot be stored");
            Status::invalid_argument(fault.to_string())
        })?;
        let (events, checkpoint) = read;
        if events.is_empty() && checkpoint.is_none() {
            return Ok(());
        }
        let stored = self.bridge.store.append_audit(&self.bouncer.name, &events, checkpoint.as_ref()).await;
        let stored = stored.map_err(|error| unavailable(&error))?;
        self.bridge.metrics.audit(stored.new, (events.len() as u64).saturating_sub(stored.new));
        self.count_divergences(&stored.divergences);
        self.count_missing(events.iter().map(|event| event.sequence));
        let Some(last) = events.iter().map(|event| event.sequence).max() else { return Ok(()) };
        self.send(control_message::Body::AuditAck(AuditAck { sequence: last })).await
    }

    fn read(&self, batch: AuditBatch) -> Result<(Vec<AuditEvent>, Option<Received>), ingest::EventFault> {
        let name = &self.bouncer.name;
        let mut judged = ingest::Judged::default();
        let event = |event| ingest::event(event, name, self.dev, &mut judged);
        let events = batch.events.into_iter().map(event).collect::<Result<_, _>>()?;
        let checkpoint = batch.checkpoint.map(|checkpoint| ingest::checkpoint(checkpoint, name, &self.peer.id));
        Ok((events, checkpoint.transpose()?))
    }

    /// What does not fit together is stored, and must not go unseen.
    fn count_divergences(&mut self, divergences: &[Divergence]) {
        let Some(first) = divergences.first() else { return };
        tracing::error!(
            bouncer = %self.bouncer.name, kind = first.as_str(), count = divergences.len(),
            "a resolver's audit does not fit together; everything was stored, and the export shows it"
        );
        self.bridge.metrics.audit_divergences(divergences.len() as u64);
        self.bridge.live.audit_divergences(&self.bouncer.name, self.id, divergences.len() as u64);
    }

    /// Events that a resolver never sent cannot be waited for, but they must not go unseen.
    fn count_missing(&mut self, sequences: impl Iterator<Item = u64>) {
        let mut missing = 0_u64;
        for sequence in sequences {
            if let Some(last) = self.last_sequence {
                missing = missing.saturating_add(sequence.saturating_sub(last.saturating_add(1)));
            }
            self.last_sequence = self.last_sequence.max(Some(sequence));
        }
        if missing > 0 {
            tracing::warn!(bouncer = %self.bouncer.name, missing, "a resolver's audit sequence skipped events");
            self.bridge.metrics.audit_missing(missing);
            self.bridge.live.audit_missing(&self.bouncer.name, self.id, missing);
        }
    }

    /// Notes in the store that the bouncer was here. Losing such a note loses nothing else.
    async fn remember(&mut self) {
        self.remembered = (Instant::now(), self.epoch_acked);
        let sighting =
            Sighting { at: self.bridge.clock.now(), version: self.version.clone(), epoch_acked: self.epoch_acked };
        if let Err(error) = self.bridge.store.record_sighting(&self.bouncer.name, &sighting).await {
            tracing::debug!(bouncer = %self.bouncer.name, %error, "could not note when the bouncer was seen");
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.bridge.live.close(&self.bouncer.name, self.id);
        self.bridge.editions.close(&self.bouncer.name, &self.place);
        self.bridge.metrics.session_closed();
        tracing::info!(bouncer = %self.bouncer.name, peer = %self.peer.id, "a resolver disconnected");
    }
}
