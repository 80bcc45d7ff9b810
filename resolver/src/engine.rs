//! The decision: may this stream have a credential, and which. The one place where policy, rails, binding, unwrapping,
//! audit and grants come together, in that order.
//!
//! [`crate::intercept`] asks it for streams, [`crate::sds`] for names, [`crate::bridge`] tells it what changed.

mod history;

use crate::audit::{Denials, Event, Spool};
use crate::cache::Cache;
use crate::config::{CallerSource, Cluster, Config, Mode};
use crate::credential::ClientCertificate;
use crate::grants::{Grants, Peer};
use crate::identity::Identity;
use crate::metrics::{Metrics, Outcome};
use crate::policy::{Changes, Envelope, Policy, PolicyStore};
use crate::revocations::{Revocation, Revocations};
use crate::rotation::Rotation;
use crate::sds::{Cooling, SdsHub};
use crate::watch::WatchHub;
use bouncer_custody::{Binding, ClusterName, Generation, KeyId, LogicalPath, Reason, SpiffeId, StreamFacts, Tag};
use bouncer_proto::bridge::v1::SecretStatus;
use bouncer_proto::intercept::v1::Invalidate;
use futures::{StreamExt as _, stream};
use history::History;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// How long a denial by a rule may be reused. A change of policy ends it sooner.
const DENIAL_TTL: Duration = Duration::from_secs(1);

/// So many newer generations are tried at once.
const TRIALS: usize = 8;

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

/// A stream that may go on, before it is recorded.
struct Allowed<'a> {
    tag: Tag,
    cluster: &'a Cluster,
    credential: Arc<ClientCertificate>,
}

/// What an operator's revocation did.
#[derive(Debug)]
pub struct Revoked {
    /// The newest generation that it ends; `None` for every one.
    pub through_generation: Option<Generation>,
    /// How many issues of the credential were ended.
    pub ended: usize,
    /// Whether it will be remembered after a restart.
    pub saved: std::io::Result<()>,
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
        let cooling = Cooling::open(&config.state_dir);
        let (history, revocations) = (History::open(&config.state_dir), Revocations::open(&config.state_dir));
        let (watch, sds, denials) = (WatchHub::default(), SdsHub::default(), Denials::default());
        let stop = CancellationToken::new();
        Arc::new(Self {
            config,
            policy,
            identity,
            cache,
            rotation: Rotation::default(),
            revocations,
            cooling,
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
        let verdict = match self.permits.try_acquire() {
            Ok(_permit) => match tokio::time::timeout(deadline, self.evaluate(question, &mut event)).await {
                Ok(Ok(verdict)) => verdict,
                Ok(Err(reason)) => self.deny(reason, event),
                // Recorded as released already: what follows is an event of its own.
                Err(_) if event.outcome == "inject" => {
                    event.decision_id = std::mem::replace(&mut event.id, uuid::Uuid::now_v7().to_string());
                    self.deny(Reason::SdsNotAcknowledged, event)
                }
                Err(_) => self.deny(Reason::ResolverTimeout, event),
            },
            Err(_) => self.deny(Reason::Overloaded, event),
        };
        let outcome = match &verdict {
            Verdict::Inject(..) => Outcome::good("inject"),
            Verdict::PassThrough(_) => Outcome::good("pass_through"),
            Verdict::Deny(reason, _) => Outcome::bad("deny", *reason),
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
        event.outcome = "inject".to_owned();
        self.spool.append(event.clone()).map_err(|error| {
            tracing::error!(%error, "nothing is released without audit");
            Reason::AuditUnavailable
        })?;
        self.grants.grant(&allowed.tag, &question.cluster, question.peer);
        // A revocation that came in between found no grant to end.
        if self.envelope_of(&allowed.tag).is_none() {
            self.grants.revoke(&allowed.tag);
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
        let own = self.identity.settled().await?;
        let caller = match self.config.caller {
            CallerSource::OwnSvid => own,
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
        let credential = self.fetch(envelope, event).await?;
        self.history.record(envelope);
        self.rotation.proven(envelope);
        Ok(Allowed { tag: envelope.tag.clone(), cluster, credential })
    }

    fn check_rails(&self, envelope: &Envelope, cluster: &Cluster, caller: &SpiffeId) -> Result<(), Reason> {
        let binding = self.check_general(envelope, cluster)?;
        let facts = StreamFacts { bouncer: &self.config.bouncer, env: self.config.environment.as_ref(), caller };
        binding.check(&facts, &cluster.rail)
    }

    /// As [`Engine::check_rails`], without a caller.
    fn check_place(&self, envelope: &Envelope, cluster: &Cluster) -> Result<(), Reason> {
        let binding = self.check_general(envelope, cluster)?;
        binding.check_place(&self.config.bouncer, self.config.environment.as_ref(), &cluster.rail).map(drop)
    }

    /// The rails that hold for every stream; gives the binding that is left to check.
    fn check_general<'a>(&self, envelope: &'a Envelope, cluster: &Cluster) -> Result<Binding<'a>, Reason> {
        let rails = &self.config.rails;
        let KeyId::Kms(key) = &envelope.key_id else { return Err(Reason::ProviderUnavailable) };
        let own = &cluster.rail.kms_keys;
        if !rails.kms_keys.contains(key) || !(own.is_empty() || own.contains(key)) {
            return Err(Reason::KeyNotAllowed);
        }
        let holds = |(key, value): &(String, String)| envelope.aad.as_ref().is_some_and(|aad| aad.has_pair(key, value));
        if !rails.required_pairs.iter().all(holds) {
            return Err(Reason::RequiredPairMissing);
        }
        Ok(Binding {
            path: &envelope.path,
            generation: envelope.generation,
            aad: envelope.aad.as_ref(),
            key_is_dedicated: rails.dedicated_keys.contains(key),
        })
    }

    async fn fetch(&self, envelope: &Arc<Envelope>, event: &mut Event) -> Result<Arc<ClientCertificate>, Reason> {
        match self.cache.get(envelope).await {
            Ok(fetched) => {
                event.backend_request_id = fetched.request_id.unwrap_or_default();
                Ok(fetched.credential)
            }
            Err(error) => {
                event.backend_request_id = error.request_id.unwrap_or_default();
                if !error.reason.is_transient() {
                    self.end(&envelope.tag, error.reason);
                }
                Err(error.reason)
            }
        }
    }

    fn pass_through(&self, event: &Event) -> Verdict {
        let event = Event { outcome: "pass_through".to_owned(), ..event.clone() };
        self.record_denial(event, "pass_through");
        Verdict::PassThrough(self.config.limits.decision_ttl)
    }

    fn deny(&self, reason: Reason, mut event: Event) -> Verdict {
        event.outcome = "deny".to_owned();
        event.reason = reason.code().to_owned();
        self.record_denial(event, reason.code());
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

    /// The backend said no for good: the credential ends, wherever it is.
    fn end(&self, tag: &Tag, reason: Reason) {
        self.rotation.end(tag);
        if !self.grants.any(tag) {
            return;
        }
        let Some(policy) = self.policy.latest() else { return };
        // One that drains has no way back; the one that the policy wants has, and then under another name.
        if policy.envelope_of(tag).is_some() {
            self.policy.end(tag.path());
        }
        let clusters = policy.clusters_of(tag.path()).map(ToString::to_string).collect();
        self.revoke(std::slice::from_ref(tag), clusters, Some(reason));
    }

    /// Tries the newer generations that wait for it, each ahead of the streams that are to use it.
    pub async fn rotate(&self) {
        let Ok(policy) = self.policy.current() else { return };
        let due = self.rotation.due(&policy, Instant::now());
        let trials = due.into_iter().map(|candidate| self.try_candidate(&policy, candidate));
        stream::iter(trials).buffer_unordered(TRIALS).for_each(|()| std::future::ready(())).await;
    }

    async fn try_candidate(&self, policy: &Policy, candidate: Arc<Envelope>) {
        let mut event = Event { id: uuid::Uuid::now_v7().to_string(), count: 1, ..Event::default() };
        event.logical_path = candidate.path.to_string();
        describe(&candidate, &mut event);
        let clusters: Vec<&ClusterName> = policy.clusters_of(&candidate.path).collect();
        let mut rails = clusters.iter().filter_map(|cluster| self.config.rails.clusters.get(*cluster));
        let checked = rails.try_for_each(|cluster| self.check_place(&candidate, cluster));
        let outcome = match checked.and_then(|()| self.history.check(&candidate)) {
            Ok(()) => self.cache.get(&candidate).await.map_err(|error| (error.reason, error.request_id)),
            Err(reason) => Err((reason, None)),
        };
        match outcome {
            Ok(fetched) => {
                event.backend_request_id = fetched.request_id.unwrap_or_default();
                self.rotation.proven(&candidate);
                self.metrics.rotations.get_or_create(&Outcome::good("in_use")).inc();
                tracing::info!(path = %candidate.path, generation = %candidate.generation, "a newer generation is in use");
                let clusters = clusters.into_iter().map(ToString::to_string).collect();
                self.watch.publish(Invalidate { tags: Vec::new(), clusters, reset_streams: false });
            }
            Err((reason, request_id)) => {
                self.metrics.rotations.get_or_create(&Outcome::bad("not_in_use", reason)).inc();
                if !self.rotation.refuse(&candidate, reason, Instant::now()) {
                    return;
                }
                event.backend_request_id = request_id.unwrap_or_default();
                event.reason = reason.code().to_owned();
                tracing::error!(path = %candidate.path, generation = %candidate.generation, %reason, "a newer generation is no good; the one before it stays in use");
            }
        }
        event.outcome = "rotate".to_owned();
        self.record_change(event);
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

    /// Ends these tags wherever they are, and records it; `reason` says why, where it was not the policy.
    fn revoke(&self, tags: &[Tag], clusters: Vec<String>, reason: Option<Reason>) {
        for tag in tags {
            let named = self.named_clusters(tag);
            for (cluster, drain) in &named {
                self.cooling.start(cluster, *drain);
            }
            self.grants.revoke(tag);
            self.cache.evict(tag);
            self.sds.revoke(tag, &named.into_iter().map(|(cluster, _)| cluster).collect::<Vec<_>>());
        }
        self.watch.publish(Invalidate {
            tags: tags.iter().map(ToString::to_string).collect(),
            clusters,
            reset_streams: !tags.is_empty(),
        });
        for tag in tags {
            let event = Event {
                id: uuid::Uuid::now_v7().to_string(),
                outcome: "revoke".to_owned(),
                logical_path: tag.path().to_string(),
                generation: tag.generation().get(),
                reason: reason.map_or_else(String::new, |reason| reason.code().to_owned()),
                count: 1,
                ..Event::default()
            };
            self.record_change(event);
        }
    }

    /// An operator revokes a credential at this resolver: all generations that it knows, or `forever`. `None` if it
    /// knows none.
    pub fn revoke_here(&self, path: &LogicalPath, forever: bool) -> Option<Revoked> {
        let policy = self.policy.latest();
        let registered = policy.as_ref().and_then(|policy| policy.envelope(path).ok()).map(|envelope| &envelope.tag);
        let mut tags: Vec<Tag> = self.grants.tags().into_iter().filter(|tag| tag.path() == path).collect();
        tags.extend(registered.cloned());
        tags.extend(self.rotation.in_use(path));
        tags.sort_unstable_by_key(ToString::to_string);
        tags.dedup();
        let newest = tags.iter().map(Tag::generation).max();
        if newest.is_none() && !forever {
            return None;
        }
        let through_generation = newest.filter(|_| !forever);
        let revocation = Revocation { through_generation, time_ms: jiff::Timestamp::now().as_millisecond() };
        // First of all, so that no stream is decided in between.
        let saved = self.revocations.add(path.clone(), revocation);
        self.rotation.forget(path);
        self.policy.end(path);
        let clusters = policy.map(|policy| policy.clusters_of(path).map(ToString::to_string).collect());
        self.revoke(&tags, clusters.unwrap_or_default(), Some(Reason::RevokedByOperator));
        tracing::warn!(%path, "an operator revoked a credential at this resolver");
        Some(Revoked { through_generation, ended: tags.len(), saved })
    }

    /// An operator takes a revocation back. `false` if there was none.
    ///
    /// # Errors
    /// [`std::io::Error`]: it could not be saved, and still holds.
    pub fn lift(&self, path: &LogicalPath) -> std::io::Result<bool> {
        let lifted = self.revocations.lift(path)?;
        if lifted {
            tracing::warn!(%path, "an operator lifted a revocation at this resolver");
            let clusters =
                self.policy.latest().map(|policy| policy.clusters_of(path).map(ToString::to_string).collect());
            // The filters may hold denials.
            let clusters = clusters.unwrap_or_default();
            self.watch.publish(Invalidate { tags: Vec::new(), clusters, reset_streams: false });
        }
        Ok(lifted)
    }

    /// The clusters that were given the tag by name, and how long their connections drain.
    fn named_clusters(&self, tag: &Tag) -> Vec<(ClusterName, Duration)> {
        let drains = |cluster: &ClusterName| {
            let rail = self.config.rails.clusters.get(cluster)?;
            (rail.mode == Mode::Named).then_some(rail.drain)
        };
        let granted = self.grants.clusters(tag).into_iter();
        granted.filter_map(|cluster| drains(&cluster).map(|drain| (cluster, drain))).collect()
    }

    /// Records what happened to a credential without a stream. It is done already: a spool without room does not undo it.
    fn record_change(&self, event: Event) {
        if let Err(error) = self.spool.append_denial(event) {
            tracing::warn!(%error, "what happened to a credential was not recorded");
        }
    }

    /// Asks the backends again of what Envoy may use and was not confirmed for a while. A no ends it at once, also where
    /// no new stream comes. Called every few seconds.
    pub async fn recheck(&self) {
        let granted = self.grants.tags().into_iter().filter_map(|tag| self.envelope_of(&tag));
        let calls = granted.map(|envelope| async move {
            if let Err(error) = self.cache.get(&envelope).await
                && !error.reason.is_transient()
            {
                self.end(&envelope.tag, error.reason);
            }
        });
        stream::iter(calls).buffer_unordered(TRIALS).for_each(|()| std::future::ready(())).await;
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
        self.identity.settled().await.ok()?;
        // The caller was checked when the grant was made; key, path and AAD are checked again.
        let KeyId::Kms(key) = &envelope.key_id else { return None };
        let own = &rail.rail.kms_keys;
        if !self.config.rails.kms_keys.contains(key) || !(own.is_empty() || own.contains(key)) {
            return None;
        }
        let fetched = tokio::time::timeout(self.config.limits.decide_deadline, self.cache.get(&envelope)).await;
        Some(fetched.ok()?.ok()?.credential)
    }

    /// Whether a live stream may go on with this tag: it is in use, or drains after a rotation.
    #[must_use]
    pub fn may_carry(&self, tag: &str) -> bool {
        tag.parse().is_ok_and(|tag: Tag| self.grants.any(&tag) || self.envelope_of(&tag).is_some())
    }

    /// Whether this Envoy may have the tag for this cluster.
    #[must_use]
    pub fn is_granted(&self, tag: &Tag, cluster: &ClusterName, peer: Peer) -> bool {
        self.grants.allows(tag, cluster, peer)
    }

    /// Ends what nobody has asked for in a while. Called every few seconds.
    pub fn expire(&self) {
        for tag in self.grants.expire() {
            self.sds.remove(&tag);
        }
    }

    /// Why protected streams would be denied now, whatever they are; empty when ready.
    #[must_use]
    pub fn not_ready(&self) -> Vec<Reason> {
        let mut reasons = Vec::new();
        reasons.extend(self.policy.current().err());
        reasons.extend(self.identity.spiffe_id().err());
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
    event.aad_sha256 = envelope.aad.as_ref().map(bouncer_custody::EncryptionContext::sha256_hex).unwrap_or_default();
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
