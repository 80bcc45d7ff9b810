//! Unwrapped credentials, by tag: one backend call per secret however many streams wait, bounded in number and time.
//!
//! The [`crate::engine`] asks, by the tag of the metadata; SDS serves what it returns, by the tag that has the backend's
//! version too. A call belongs to no stream: it runs in a task of its own, so
//! that a stream that goes away takes nothing from the others, and one that panics is replaced by the next who asks.

use crate::arena::Arena;
use crate::clock::Instant;
use crate::config::Limits;
use crate::credential::ClientCertificate;
use crate::metrics::{self, Metrics};
use crate::policy::Envelope;
use crate::trace::{self, Span};
use crate::unwrap::{Unwrap, UnwrapError, Unwrapped};
use bouncer_custody::{EncryptionContext, KeyId, Reason, Tag};
use bouncer_proto::bridge::v1::SecretStatus;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// For how long a backend's authoritative no is believed without asking again.
const PERMANENT: Duration = Duration::from_secs(10);
/// For how long a transient failure is shared with those who ask at once.
const TRANSIENT: Duration = Duration::from_millis(250);
/// A backend call may go on this long after those who waited were answered, so that the next find its result.
const CALL: Duration = Duration::from_secs(5);

/// A credential, and what its backend call was named.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// Its name towards Envoy.
    pub tag: Tag,
    /// The credential.
    pub credential: Arc<ClientCertificate>,
    /// The pairs that came with it, for [`crate::policy::Pairs::WithSecret`].
    pub pairs: Option<Arc<EncryptionContext>>,
    /// The backend's id of the call, where this request waited for one.
    pub request_id: Option<String>,
}

type Outcome = Result<Fetched, UnwrapError>;

/// All unwrapped credentials.
pub struct Cache {
    unwrap: Arc<dyn Unwrap>,
    arena: Arc<Arena>,
    recheck: Duration,
    hard_cap: Duration,
    overlap: Duration,
    capacity: usize,
    metrics: Arc<Metrics>,
    entries: Mutex<HashMap<Tag, Entry>>,
}

struct Entry {
    /// The last good result.
    good: Option<Good>,
    /// The version before that, while decisions for it may still be in use.
    former: Option<Good>,
    state: State,
    used: Instant,
}

#[derive(Clone)]
struct Good {
    tag: Tag,
    credential: Arc<ClientCertificate>,
    pairs: Option<Arc<EncryptionContext>>,
    /// When its backend is asked again.
    recheck: Instant,
    /// When it is served no more, whatever its backend's fault is.
    cap: Instant,
}

impl Good {
    /// It may be served without asking its backend.
    fn holds(&self, now: Instant) -> bool {
        now < self.cap && self.credential.not_after > jiff::Timestamp::now().as_second()
    }

    fn fetched(&self, request_id: Option<String>) -> Fetched {
        let (tag, credential) = (self.tag.clone(), Arc::clone(&self.credential));
        Fetched { tag, credential, pairs: self.pairs.clone(), request_id }
    }
}

enum State {
    Idle,
    Loading(watch::Receiver<Option<Outcome>>),
    Failed { error: UnwrapError, until: Instant },
}

enum Step {
    Done(Outcome),
    Wait(watch::Receiver<Option<Outcome>>),
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(unwrap: Arc<dyn Unwrap>, arena: Arc<Arena>, limits: &Limits, metrics: Arc<Metrics>) -> Arc<Self> {
        let (recheck, hard_cap, capacity) = (limits.recheck, limits.hard_cap, limits.max_secrets);
        // A decision in use, and the fetch that it leads to.
        let overlap = limits.decision_ttl + limits.decide_deadline;
        Arc::new(Self { unwrap, arena, recheck, hard_cap, overlap, capacity, metrics, entries: Mutex::default() })
    }

    /// The credential of this envelope, from the cache or by one call to its backend.
    ///
    /// # Errors
    /// [`UnwrapError`]. A transient one only where no credential is left that may still be served.
    pub async fn get(self: &Arc<Self>, envelope: &Arc<Envelope>) -> Outcome {
        loop {
            let mut waiting = match self.step(envelope) {
                Step::Done(outcome) => return outcome,
                Step::Wait(waiting) => waiting,
            };
            // An error here means that the call's task is gone without a result: the next round starts another.
            let result = waiting.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
            if let Some(outcome) = result {
                return outcome;
            }
        }
    }

    /// See [`Unwrap::prepare`].
    pub async fn prepare(&self) {
        self.unwrap.prepare().await;
    }

    fn step(self: &Arc<Self>, envelope: &Arc<Envelope>) -> Step {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        self.make_room(&mut entries, &envelope.tag);
        let entry = entries.entry(envelope.tag.clone()).or_insert_with(|| Entry::new(now));
        entry.used = now;
        entry.good.take_if(|good| good.credential.not_after <= jiff::Timestamp::now().as_second());
        entry.former.take_if(|former| !former.holds(now));
        match &entry.state {
            State::Loading(waiting) if waiting.has_changed().is_ok() => return Step::Wait(waiting.clone()),
            State::Failed { error, until } if *until > now => {
                return Step::Done(entry.stale(error, now));
            }
            _ => {}
        }
        if let Some(good) = entry.good.as_ref().filter(|good| now < good.recheck) {
            return Step::Done(Ok(good.fetched(None)));
        }
        let (tell, waiting) = watch::channel(None);
        entry.state = State::Loading(waiting.clone());
        let span = trace::child(match envelope.key_id {
            KeyId::Kms(_) => "kms.Decrypt",
            KeyId::Vault(_) => "vault.read",
        });
        tokio::spawn(Arc::clone(self).load(Arc::clone(envelope), tell, span));
        Step::Wait(waiting)
    }

    async fn load(self: Arc<Self>, envelope: Arc<Envelope>, tell: watch::Sender<Option<Outcome>>, span: Option<Span>) {
        let call = tokio::time::timeout(CALL, self.unwrap.unwrap(&envelope)).await;
        let outcome = call.unwrap_or_else(|_| Err(envelope.unavailable().into()));
        let outcome = outcome.and_then(|unwrapped| self.parse(&envelope, unwrapped));
        let counted = match &outcome {
            Ok(_) => metrics::Outcome::good("unwrapped"),
            Err(error) => metrics::Outcome::bad("failed", error.reason),
        };
        self.metrics.unwraps.get_or_create(&counted).inc();
        if let Some(span) = span {
            let (outcome, reason, request_id) = match &outcome {
                Ok((_, request_id)) => ("unwrapped", None, request_id),
                Err(error) => ("failed", Some(error.reason), &error.request_id),
            };
            span.set("bouncer.backend_request_id", request_id.clone().unwrap_or_default());
            span.ended(outcome, reason);
        }
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match entries.get_mut(&envelope.tag) {
            Some(entry) => entry.settle(outcome, now, self.overlap),
            // Evicted while the call was out: revoked. What came back is not served.
            None => Err(Reason::DecisionStale.into()),
        };
        drop(entries);
        tell.send_replace(Some(outcome));
    }

    fn parse(&self, envelope: &Envelope, unwrapped: Unwrapped) -> Result<(Good, Option<String>), UnwrapError> {
        let Unwrapped { plaintext, request_id, pairs, version, fresh_for } = unwrapped;
        let now = jiff::Timestamp::now().as_second();
        let credential = ClientCertificate::parse(&plaintext, &envelope.certificate_chain, now, &self.arena)
            .map_err(|reason| UnwrapError { reason, request_id: request_id.clone() })?;
        let tag = match version {
            // The chain is public, and names the key.
            Some(version) => envelope.tag.of_version(&format!("{version} {}", credential.chain_sha256())),
            None => envelope.tag.clone(),
        };
        let fresh_for = fresh_for.unwrap_or(self.recheck);
        let recheck = Instant::now() + fresh_for;
        // From the last confirmation to the cap there are so many rechecks missed; as many for what is made to last.
        let cap = recheck + self.hard_cap.saturating_sub(self.recheck);
        let good = Good { tag, credential: Arc::new(credential), pairs: pairs.map(Arc::new), recheck, cap };
        Ok((good, request_id))
    }

    /// The tag's credential, if it is here, in that version, and may be served without asking its backend.
    #[must_use]
    pub fn peek(&self, tag: &Tag) -> Option<Arc<ClientCertificate>> {
        let now = Instant::now();
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(&tag.unversioned())?;
        let mut held = [&entry.good, &entry.former].into_iter().flatten();
        held.find(|good| good.tag == *tag && good.holds(now)).map(|good| Arc::clone(&good.credential))
    }

    /// Forgets the tag in all versions; its bytes are wiped once SDS has let go of them.
    pub fn evict(&self, tag: &Tag) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(&tag.unversioned());
    }

    /// Forgets everything that `keep` does not want, calls in flight excepted.
    pub fn retain(&self, keep: impl Fn(&Tag) -> bool) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|tag, entry| matches!(entry.state, State::Loading(_)) || keep(tag));
    }

    /// What is held and what failed, for the control plane. At most 1,000 of them.
    #[must_use]
    pub fn status(&self) -> Vec<SecretStatus> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<SecretStatus> = entries
            .iter()
            .take(1_000)
            .map(|(tag, entry)| SecretStatus {
                logical_path: tag.path().to_string(),
                generation: tag.generation().get(),
                reason: match &entry.state {
                    State::Failed { error, .. } => error.reason.code().to_owned(),
                    _ => String::new(),
                },
                not_after_ms: entry.good.as_ref().map_or(0, |good| good.credential.not_after.saturating_mul(1_000)),
            })
            .collect();
        all.sort_unstable_by(|a, b| (&a.logical_path, a.generation).cmp(&(&b.logical_path, b.generation)));
        all
    }

    /// Secret memory, for the answers of SDS.
    pub(crate) const fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// How secret memory stands.
    #[must_use]
    pub fn arena_stats(&self) -> crate::arena::ArenaStats {
        self.arena.stats()
    }

    /// How many credentials are held.
    #[must_use]
    pub fn len(&self) -> usize {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.values().filter(|entry| entry.good.is_some()).count()
    }

    /// Whether none is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Evicts the least recently used, never one whose call is out.
    fn make_room(&self, entries: &mut HashMap<Tag, Entry>, coming: &Tag) {
        while entries.len() >= self.capacity && !entries.contains_key(coming) {
            let idle = entries.iter().filter(|(_, entry)| !matches!(entry.state, State::Loading(_)));
            let Some(oldest) = idle.min_by_key(|(_, entry)| entry.used).map(|(tag, _)| tag.clone()) else { return };
            entries.remove(&oldest);
        }
    }
}

impl Entry {
    const fn new(now: Instant) -> Self {
        Self { good: None, former: None, state: State::Idle, used: now }
    }

    /// Takes a call's outcome in; returns what those who waited get.
    fn settle(
        &mut self,
        outcome: Result<(Good, Option<String>), UnwrapError>,
        now: Instant,
        overlap: Duration,
    ) -> Outcome {
        match outcome {
            Ok((good, request_id)) => {
                let fetched = good.fetched(request_id);
                if let Some(before) = self.good.replace(good).filter(|before| before.tag != fetched.tag) {
                    self.former = Some(Good { cap: before.cap.min(now + overlap), ..before });
                }
                self.state = State::Idle;
                Ok(fetched)
            }
            Err(error) => {
                let transient = error.reason.is_transient();
                if !transient {
                    (self.good, self.former) = (None, None);
                }
                let until = now + if transient { TRANSIENT } else { PERMANENT };
                let answer = self.stale(&error, now);
                self.state = State::Failed { error, until };
                answer
            }
        }
    }

    /// The last good credential, where the failure is transient and the cap allows it; else the failure.
    fn stale(&self, error: &UnwrapError, now: Instant) -> Outcome {
        match &self.good {
            Some(good) if error.reason.is_transient() && now < good.cap => Ok(good.fetched(error.request_id.clone())),
            _ => Err(error.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
