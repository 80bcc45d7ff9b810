//! The decision: may this stream have a credential, and which. The one place where policy, rails, binding, unwrapping,
//! audit and grants come together, in that order.
//!
//! [`crate::intercept`] asks it for streams, [`crate::sds`] for names, [`crate::bridge`] tells it what changed.

mod ending;
mod history;
mod rails;
mod trial;

use crate::audit::{Denials, Event, Spool};
use crate::bridge::Sight;
use crate::cache::{Cache, Fetched};
use crate::config::{CallerSource, Cluster, Config, Mode};
use crate::credential::ClientCertificate;
use crate::grants::{Grants, Peer};
use crate::identity::Identity;
use crate::metrics::{Metrics, Outcome};
use crate::policy::{Changes, Envelope, Pairs, Policy, PolicyStore};
use crate::revocations::Revocations;
use crate::rotation::Rotation;
use crate::sds::{Cooling, SdsHub};
use crate::trace;
use crate::watch::WatchHub;
use bouncer_custody::{ClusterName, EncryptionContext, Reason, SpiffeId, Tag};
use bouncer_proto::bridge::v1::SecretStatus;
pub use ending::Revoked;
use history::History;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long a denial by a rule may be reused. A change of policy ends it sooner.
const DENIAL_TTL: Duration = Duration::from_secs(1);

/// What becomes of a stream, in words.
const INJECT: &str = "inject";
const PASS_THROUGH: &str = "pass_through";
const DENY: &str = "deny";

/// So many calls are made at once that no stream waits for.
const AT_ONCE: usize = 8;

/// Everything a decision needs.
pub struct Engine {
    /// What the operator says.
    pub config: Arc<Config>,
    /// What the control plane says.
    pub policy: PolicyStore,
    /// Who we are.
    pub identity: Arc<Identity>,
    /// What is unwrapped.
    pub cache: Arc<Cache>,
    /// Which generations are in use.
    pub rotation: Rotation,
    /// What an operator has revoked here.
    pub revocations: Revocations,
    /// What Envoy may fetch.
    pub grants: Grants,
    /// Who hears of invalidations.
    pub watch: WatchHub,
    /// Who hears of secrets.
    pub sds: SdsHub,
    /// Which clusters in mode `named` may not be used for a while.
    pub cooling: Cooling,
    /// What is recorded.
    pub spool: Spool,
    /// Denials on their way into the record.
    pub denials: Denials,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What was seen of the way to the control plane.
    pub sight: Sight,
    /// Ends the streams that have no end of their own.
    pub stop: CancellationToken,
    history: History,
    permits: Semaphore,
}

/// The facts of a stream, parsed.
#[derive(Debug)]
pub struct Question {
    /// The cluster that the route chose.
    pub cluster: ClusterName,
    /// What the client called the upstream. Audit only.
    pub authority: String,
    /// The URI SANs of the client's certificate, as Envoy joins them.
    pub caller: String,
    /// Which Envoy asks.
    pub peer: Peer,
}

/// The answer, and what joins it with audit.
#[derive(Debug)]
pub struct Decision {
    /// A UUIDv7.
    pub id: String,
    /// The newest invalidation that it already knows of.
    pub epoch: u64,
    /// The answer itself.
    pub verdict: Verdict,
}

/// What a stream may do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Go on, with this credential.
    Inject(Tag, Duration),
    /// Nothing protected is known here.
    PassThrough(Duration),
    /// Stop.
    Deny(Reason, Duration),
}

impl Verdict {
    /// As metrics, audit and traces name it, with the reason of a denial.
    #[must_use]
    pub const fn outcome(&self) -> (&'static str, Option<Reason>) {
        match self {
            Self::Inject(..) => (INJECT, None),
            Self::PassThrough(_) => (PASS_THROUGH, None),
            Self::Deny(reason, _) => (DENY, Some(*reason)),
        }
    }
}

/// A stream that may go on, before it is recorded.
struct Allowed<'a> {
    tag: Tag,
    cluster: &'a Cluster,
    credential: Arc<ClientCertificate>,
}

/// What is put together into an [`Engine`].
pub struct Parts {
    /// See [`Engine::config`].
    pub config: Arc<Config>,
    /// See [`Engine::policy`].
    pub policy: PolicyStore,
    /// See [`Engine::identity`].
    pub identity: Arc<Identity>,
    /// See [`Engine::cache`].
    pub cache: Arc<Cache>,
    /// See [`Engine::grants`].
    pub grants: Grants,
    /// See [`Engine::spool`].
    pub spool: Spool,
    /// See [`Engine::metrics`].
    pub metrics: Arc<Metrics>,
}

impl Engine {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts { config, policy, identity, cache, grants, spool, metrics } = parts;
        let permits = Semaphore::new(config.limits.max_decisions);
        let rotation = Rotation::open(&config.state_dir, |kept| policy.read(kept));
        let cooling = Cooling::open(&config.state_dir);
        let (history, revocations) = (History::open(&config.state_dir), Revocations::open(&config.state_dir));
        let (watch, sds, denials) = (WatchHub::default(), SdsHub::default(), Denials::default());
        let stop = CancellationToken::new();
        Arc::new(Self {
            config,
            policy,
            identity,
            cache,
            rotation,
            revocations,
            cooling,
            sight: Sight::default(),
            grants,
            watch,
            sds,
            spool,
            denials,
            metrics,
            stop,
            history,
            permits,
        })
    }

    /// Decides one stream, within the configured deadline, and records it before it answers.
    pub async fn decide(&self, question: &Question) -> Decision {
        let started = Instant::now();
        // Before anything is looked at: an invalidation from here on makes this decision too old.
        let epoch = self.watch.epoch();
        let id = uuid::Uuid::now_v7().to_string();
        let mut event = Event {
            id: id.clone(),
            cluster: question.cluster.to_string(),
            authority: question.authority.clone(),
            count: 1,
            ..Event::default()
        };
        let deadline = self.config.limits.decide_deadline;
        let decided = match self.permits.try_acquire() {
            Ok(_permit) => tokio::time::timeout(deadline, self.evaluate(question, &mut event)).await,
            Err(_) => Ok(Err(Reason::Overloaded)),
        };
        let verdict = match decided {
            Ok(Ok(verdict)) => verdict,
            Ok(Err(reason)) => self.deny(reason, event),
            Err(_) if event.outcome == INJECT => self.deny(Reason::SdsNotAcknowledged, event),
            Err(_) => self.deny(Reason::ResolverTimeout, event),
        };
        let outcome = match verdict.outcome() {
            (outcome, None) => Outcome::good(outcome),
            (outcome, Some(reason)) => Outcome::bad(outcome, reason),
        };
        self.metrics.decisions.get_or_create(&outcome).inc();
        self.metrics.decision_seconds.observe(started.elapsed().as_secs_f64());
        Decision { id, epoch, verdict }
    }

    async fn evaluate(&self, question: &Question, event: &mut Event) -> Result<Verdict, Reason> {
        let policy = self.policy.current();
        let known = policy.as_ref().is_ok_and(|policy| policy.resources.contains_key(&question.cluster));
        if !known && !self.config.rails.clusters.contains_key(&question.cluster) {
            return Ok(self.pass_through(event));
        }
        let allowed = self.allow(question, event).await?;
        event.outcome = INJECT.to_owned();
        self.spool.append(event.clone()).map_err(|error| {
            tracing::error!(%error, "nothing is released without audit");
            Reason::AuditUnavailable
        })?;
        self.grants.grant(&allowed.tag, &question.cluster, question.peer);
        // A revocation that came in between found no grant to end.
        if self.envelope_of(&allowed.tag).is_none() {
            self.grants.revoke(|granted| granted.is_of(&allowed.tag));
            return Err(Reason::DecisionStale);
        }
        if allowed.cluster.mode == Mode::Named {
            self.sds.push_named(&question.cluster, question.peer, &allowed.tag, &allowed.credential).await;
        }
        Ok(Verdict::Inject(allowed.tag, self.config.limits.decision_ttl))
    }

    async fn allow<'a>(&'a self, question: &Question, event: &mut Event) -> Result<Allowed<'a>, Reason> {
        let policy = self.policy.current()?;
        if !policy.enabled {
            return Err(Reason::FeatureDisabled);
        }
        self.identity.present().await?;
        let caller = match self.config.caller {
            CallerSource::OwnSvid => self.identity.spiffe_id()?,
            CallerSource::Peer => verified_caller(&question.caller)?,
        };
        event.caller = caller.to_string();
        let resource = policy.resource(&question.cluster, &caller)?;
        event.resource = resource.name.to_string();
        event.logical_path = resource.logical_path.to_string();
        let cluster = self.config.rails.clusters.get(&question.cluster).ok_or(Reason::DestinationNotAllowed)?;
        event.destination = cluster.rail.upstream.to_string();
        if cluster.mode == Mode::Named && !policy.has_one_path(&question.cluster) {
            return Err(Reason::ResourceAmbiguous);
        }
        if self.cooling.holds(&question.cluster) {
            return Err(Reason::RevokedRecently);
        }
        let wanted = policy.envelope(&resource.logical_path)?;
        let in_use = self.rotation.choose(wanted);
        match self.use_envelope(&in_use, cluster, &caller, event).await {
            // The one in use is at its end, so what was to follow it follows now, proven or not.
            Err(_) if in_use.tag != wanted.tag && self.rotation.of(&in_use.tag).is_none() => {
                self.use_envelope(wanted, cluster, &caller, event).await
            }
            allowed => allowed,
        }
    }

    async fn use_envelope<'a>(
        &self,
        envelope: &Arc<Envelope>,
        cluster: &'a Cluster,
        caller: &SpiffeId,
        event: &mut Event,
    ) -> Result<Allowed<'a>, Reason> {
        describe(envelope, event);
        self.revocations.check(&envelope.path, envelope.generation)?;
        self.check_rails(envelope, cluster, caller)?;
        self.history.check(envelope)?;
        let fetched = self.fetch(envelope, event).await?;
        if envelope.pairs() == Pairs::WithSecret {
            let pairs = fetched.pairs.as_deref();
            event.aad_sha256 = digest(pairs);
            self.check_pairs(envelope, pairs, cluster, caller).inspect_err(|_| self.end_former(&fetched.tag))?;
        }
        self.history.record(envelope);
        self.rotation.proven(envelope);
        Ok(Allowed { tag: fetched.tag, cluster, credential: fetched.credential })
    }

    async fn fetch(&self, envelope: &Arc<Envelope>, event: &mut Event) -> Result<Fetched, Reason> {
        match self.cache.get(envelope).await {
            Ok(fetched) => {
                event.backend_request_id = fetched.request_id.clone().unwrap_or_default();
                // Also of a call that another decision began, whose span is in another trace.
                trace::note("bouncer.backend_request_id", &event.backend_request_id);
                Ok(fetched)
            }
            Err(error) => {
                event.backend_request_id = error.request_id.unwrap_or_default();
                trace::note("bouncer.backend_request_id", &event.backend_request_id);
                if !error.reason.is_transient() {
                    self.end(&envelope.tag, error.reason);
                }
                Err(error.reason)
            }
        }
    }

    fn pass_through(&self, event: &Event) -> Verdict {
        let event = Event { outcome: PASS_THROUGH.to_owned(), ..event.clone() };
        self.record_denial(event, PASS_THROUGH);
        Verdict::PassThrough(self.config.limits.decision_ttl)
    }

    fn deny(&self, reason: Reason, mut event: Event) -> Verdict {
        let recorded = event.outcome == INJECT;
        event.outcome = DENY.to_owned();
        event.reason = reason.code().to_owned();
        if recorded {
            // The audit has it as released: that this very one was not is an event of its own, never one of a count.
            event.decision_id = std::mem::replace(&mut event.id, uuid::Uuid::now_v7().to_string());
            self.append_denial(event);
        } else {
            self.record_denial(event, reason.code());
        }
        Verdict::Deny(reason, if reason.is_transient() { Duration::ZERO } else { DENIAL_TTL })
    }

    fn record_denial(&self, event: Event, kind: &'static str) {
        if let Some(event) = self.denials.count(event, kind) {
            self.append_denial(event);
        }
    }

    fn append_denial(&self, event: Event) {
        let count = event.count;
        if let Err(error) = self.spool.append_denial(event) {
            self.metrics.denials_unrecorded.inc_by(count);
            tracing::warn!(%error, "a denial was not recorded; the stream was denied all the same");
        }
    }

    /// Records the denials that were counted since the last time. Called every few seconds and at the end.
    pub fn flush_denials(&self) {
        for event in self.denials.flush() {
            self.append_denial(event);
        }
    }

    /// Records how often a decision was used again.
    pub fn record_uses(&self, decision_id: &uuid::Uuid, count: u64) {
        self.metrics.uses.inc_by(count);
        let event = Event {
            id: uuid::Uuid::now_v7().to_string(),
            outcome: "uses".to_owned(),
            decision_id: decision_id.to_string(),
            count,
            ..Event::default()
        };
        // What the sandbox reports may fill no more of the spool than denials may.
        if let Err(error) = self.spool.append_denial(event) {
            self.metrics.uses_unrecorded.inc_by(count);
            tracing::warn!(%error, "uses of a decision were not recorded");
        }
    }

    /// Puts what a new snapshot changes into effect: for cached decisions, for SDS, and for live streams.
    pub fn apply(&self, policy: &Policy, changes: &Changes) {
        let mut revoked = changes.revoked.clone();
        // A resource may have lost a generation that was never used, while an older one is in use.
        for path in changes.revoked.iter().map(Tag::path) {
            revoked.extend(self.rotation.in_use(path));
        }
        revoked.extend(self.rotation.follow(policy));
        revoked.sort_unstable_by_key(ToString::to_string);
        revoked.dedup();
        if !changes.clusters.is_empty() || !revoked.is_empty() {
            self.revoke(&revoked, changes.clusters.iter().map(ToString::to_string).collect(), None);
        }
        self.cache.retain(|tag| self.envelope_of(tag).is_some() || self.grants.any(tag));
    }

    /// The envelope of a tag that may be used today: the one that the policy wants, or an older one that is still in use
    /// in its place.
    fn envelope_of(&self, tag: &Tag) -> Option<Arc<Envelope>> {
        let policy = self.policy.current().ok()?;
        if let Some(envelope) = policy.envelope_of(tag) {
            return Some(Arc::clone(envelope));
        }
        let replaced = policy.enabled && policy.envelope(tag.path()).is_ok();
        self.rotation.of(tag).filter(|_| replaced)
    }

    /// What is held, what failed, and which newer generations are no good, for the control plane.
    #[must_use]
    pub fn secrets(&self) -> Vec<SecretStatus> {
        let mut all = self.cache.status();
        for refused in self.rotation.refused() {
            let (path, generation) = (refused.tag.path().to_string(), refused.tag.generation().get());
            if !all.iter().any(|one| one.logical_path == path && one.generation == generation) {
                let reason = refused.reason.code().to_owned();
                all.push(SecretStatus { logical_path: path, generation, reason, not_after_ms: 0 });
            }
        }
        all
    }

    /// Records what happened to a credential without a stream. It is done already: a spool without room does not undo it.
    fn record_change(&self, event: Event) {
        if let Err(error) = self.spool.append_denial(event) {
            tracing::warn!(%error, "what happened to a credential was not recorded");
        }
    }

    /// The credential that SDS may serve under a tag: granted to this Envoy for this cluster, and still of today, or
    /// held from before a rotation.
    pub async fn granted(&self, tag: &Tag, cluster: &ClusterName, peer: Peer) -> Option<Arc<ClientCertificate>> {
        if !self.is_granted(tag, cluster, peer) {
            return None;
        }
        if let Some(credential) = self.cache.peek(tag) {
            return Some(credential);
        }
        let envelope = self.envelope_of(tag)?;
        let rail = self.config.rails.clusters.get(cluster)?;
        self.identity.present().await.ok()?;
        // Caller and pairs were checked when the grant was made, and the tag names this very secret with its pairs: what
        // its backend holds now under another version is not served for it. The rails may be others since a restart.
        self.check_key(&envelope, rail).ok()?;
        let fetched = tokio::time::timeout(self.config.limits.decide_deadline, self.cache.get(&envelope)).await;
        let fetched = fetched.ok()?.ok()?;
        (fetched.tag == *tag).then_some(fetched.credential)
    }

    /// Whether a live stream may go on with this tag: it is in use, or drains after a rotation.
    #[must_use]
    pub fn may_carry(&self, tag: &str) -> bool {
        tag.parse().is_ok_and(|tag: Tag| {
            self.grants.any_version(&tag) || self.envelope_of(&tag).is_some_and(|envelope| envelope.tag == tag)
        })
    }

    /// Whether this Envoy may have the tag for this cluster.
    #[must_use]
    pub fn is_granted(&self, tag: &Tag, cluster: &ClusterName, peer: Peer) -> bool {
        self.grants.allows(tag, cluster, peer)
    }

    /// Ends what nobody has asked for in a while, and has the disk keep what this resolver must not forget. Called every
    /// few seconds; waits for the disk.
    pub fn tidy(&self) {
        for tag in self.grants.expire() {
            self.sds.remove(&tag);
        }
        self.history.sync();
    }

    /// Why protected streams would be denied now, whatever they are; empty when ready.
    #[must_use]
    pub fn not_ready(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        reasons.extend(self.policy.current().err());
        reasons.extend(self.identity.fault());
        if !self.spool.is_writable() {
            reasons.push(Reason::AuditUnavailable);
        }
        reasons
    }
}

/// What an event says of the envelope that it is about.
fn describe(envelope: &Envelope, event: &mut Event) {
    event.generation = envelope.generation.get();
    event.key_id = envelope.key_id.as_str().to_owned();
    event.aad_sha256 = digest(envelope.aad.as_ref());
}

fn digest(pairs: Option<&EncryptionContext>) -> String {
    pairs.map(EncryptionContext::sha256_hex).unwrap_or_default()
}

/// Exactly one SPIFFE ID of a verified chain, or none.
fn verified_caller(sans: &str) -> Result<SpiffeId, Reason> {
    // Envoy joins several SANs with commas, which no SPIFFE ID may hold: two of them parse as none.
    sans.parse().map_err(|_| Reason::CallerUnverified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_exactly_one_spiffe_id() {
        assert!(verified_caller("spiffe://example.org/alice").is_ok());
        for bad in [
            "",
            "-",
            "spiffe://example.org/a,spiffe://example.org/b",
            "https://example.org",
            "spiffe://example.org/a,https://x",
        ] {
            assert_eq!(verified_caller(bad), Err(Reason::CallerUnverified), "{bad}");
        }
    }
}
