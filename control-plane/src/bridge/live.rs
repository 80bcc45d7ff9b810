//! Which resolvers are connected, and what each last said: to this control plane, and by their own account to the others on
//! its database. In memory; what must outlive the process goes to the store.

use super::refusals::Refusals;
use bouncer_custody::BouncerName;
use bouncer_proto::bridge::v1::{Ack, Status};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use uuid::Uuid;

/// Most problems and secrets kept of one session: what a resolver says is bounded, whatever it says.
const KEPT: usize = 1_000;

/// A logical path or a resource, and the reason code that speaks against it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A logical path, or the name of a protected resource.
    pub subject: String,
    /// A reason code.
    pub reason: String,
}

/// How one secret is, by a resolver's account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnwrapState {
    /// Its logical path.
    pub logical_path: String,
    /// The generation in use.
    pub generation: u64,
    /// Empty while good; else a reason code.
    pub reason: String,
    /// When the credential ends; `None` where it has no end.
    pub not_after: Option<Timestamp>,
}

/// A resolver's own account of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// It can do its work.
    pub ready: bool,
    /// Why not, as reason codes.
    pub not_ready: Vec<String>,
    /// It runs with `--dev`.
    pub dev: bool,
    /// Its clock is ahead of ours by so much.
    pub clock_skew_ms: i64,
    /// Its secrets.
    pub secrets: Vec<UnwrapState>,
}

/// One resolver's session on the Policy Bridge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// The resolver's version.
    pub version: String,
    /// Since when.
    pub connected: Timestamp,
    /// When it last said anything.
    pub seen: Timestamp,
    /// The newest epoch it was sent.
    pub epoch_sent: u64,
    /// The newest epoch it has taken; 0 for none.
    pub epoch_acked: u64,
    /// Why it refused the newest snapshot; empty if it did not.
    pub refused: String,
    /// What it holds is not what it was sent, by its digest.
    pub diverged: bool,
    /// What of the newest snapshot it could never use.
    pub problems: Vec<Problem>,
    /// What it says of itself, once it has.
    pub report: Option<Report>,
    /// Audit events that its sequence skipped.
    pub audit_missing: u64,
    /// What of its audit did not fit together.
    pub audit_divergences: u64,
}

impl SessionView {
    /// What is worth telling of at once: not that the resolver was heard again.
    pub(super) fn without_times(&self) -> Self {
        let mut view = Self { seen: self.connected, ..self.clone() };
        if let Some(report) = &mut view.report {
            report.clock_skew_ms = 0;
        }
        view
    }
}

/// A session, as one control plane tells the others of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The session's own name.
    pub id: Uuid,
    /// Whose resolver.
    pub bouncer: BouncerName,
    /// What it last said.
    pub view: SessionView,
}

/// How far the connected resolvers are behind, taken together: metrics may be read without a token, so none is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Epochs that the one furthest behind has not taken.
    pub epochs: u64,
    /// Seconds since the most silent one said anything; 0 without any.
    pub silence_seconds: i64,
    /// How many refused the newest policy.
    pub refusing: u64,
}

/// A session with this control plane.
struct Own {
    id: u64,
    /// What it is called among all control planes.
    name: Uuid,
    view: SessionView,
}

#[derive(Default)]
struct Inner {
    next: u64,
    /// Oldest first; mostly one.
    sessions: HashMap<BouncerName, Vec<Own>>,
    /// Sessions with other control planes.
    elsewhere: HashMap<BouncerName, Vec<SessionView>>,
    /// The last session of each bouncer that has none now.
    gone: HashMap<BouncerName, SessionView>,
}

/// Every session, by bouncer. Several resolvers may serve one bouncer.
#[derive(Default)]
pub struct Live {
    inner: Mutex<Inner>,
    /// Who was turned away lately.
    pub(super) refusals: Refusals,
}

impl Live {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The sessions of a bouncer, with this control plane and with others, oldest first.
    #[must_use]
    pub fn sessions(&self, bouncer: &BouncerName) -> Vec<SessionView> {
        let inner = self.lock();
        let own = inner.sessions.get(bouncer).into_iter().flatten().map(|own| &own.view);
        let mut all: Vec<_> = own.chain(inner.elsewhere.get(bouncer).into_iter().flatten()).cloned().collect();
        all.sort_by_key(|view| view.connected);
        all
    }

    /// The sessions with this control plane.
    pub(super) fn own(&self) -> Vec<Told> {
        let inner = self.lock();
        let told = |(bouncer, own): (&BouncerName, &Own)| Told {
            id: own.name,
            bouncer: bouncer.clone(),
            view: own.view.clone(),
        };
        let all = inner.sessions.iter().flat_map(|(bouncer, all)| all.iter().map(move |one| (bouncer, one)));
        all.map(told).collect()
    }

    /// Takes over what other control planes tell.
    pub(super) fn hear(&self, told: Vec<Told>) {
        let mut elsewhere: HashMap<_, Vec<_>> = HashMap::new();
        for Told { bouncer, view, .. } in told {
            elsewhere.entry(bouncer).or_default().push(view);
        }
        self.lock().elsewhere = elsewhere;
    }

    /// How far the connected resolvers are behind this epoch, at this time.
    #[must_use]
    pub fn lag(&self, epoch: u64, now: Timestamp) -> Lag {
        let mut lag = Lag { epochs: 0, silence_seconds: 0, refusing: 0 };
        for Own { view, .. } in self.lock().sessions.values().flatten() {
            lag.epochs = lag.epochs.max(epoch.saturating_sub(view.epoch_acked));
            lag.silence_seconds = lag.silence_seconds.max(now.as_second().saturating_sub(view.seen.as_second()));
            lag.refusing += u64::from(!view.refused.is_empty());
        }
        lag
    }

    /// The last session of a bouncer that has none now.
    #[must_use]
    pub fn last(&self, bouncer: &BouncerName) -> Option<SessionView> {
        self.lock().gone.get(bouncer).cloned()
    }

    pub(super) fn open(&self, bouncer: &BouncerName, version: String, now: Timestamp) -> u64 {
        let mut inner = self.lock();
        inner.next += 1;
        let id = inner.next;
        let view = SessionView {
            version,
            connected: now,
            seen: now,
            epoch_sent: 0,
            epoch_acked: 0,
            refused: String::new(),
            diverged: false,
            problems: Vec::new(),
            report: None,
            audit_missing: 0,
            audit_divergences: 0,
        };
        // With room for one: lists double from four.
        let sessions = inner.sessions.entry(bouncer.clone()).or_insert_with(|| Vec::with_capacity(1));
        sessions.push(Own { id, name: Uuid::now_v7(), view });
        inner.gone.remove(bouncer);
        id
    }

    pub(super) fn close(&self, bouncer: &BouncerName, id: u64) {
        let mut inner = self.lock();
        let Some(sessions) = inner.sessions.get_mut(bouncer) else { return };
        let Some(at) = sessions.iter().position(|own| own.id == id) else { return };
        let own = sessions.remove(at);
        if sessions.is_empty() {
            inner.sessions.remove(bouncer);
            inner.gone.insert(bouncer.clone(), own.view);
        }
    }

    fn update(&self, bouncer: &BouncerName, id: u64, change: impl FnOnce(&mut SessionView)) {
        let mut inner = self.lock();
        let sessions = inner.sessions.get_mut(bouncer).into_iter().flatten();
        if let Some(own) = sessions.into_iter().find(|own| own.id == id) {
            change(&mut own.view);
        }
    }

    pub(super) fn sent(&self, bouncer: &BouncerName, id: u64, epoch: u64) {
        self.update(bouncer, id, |view| view.epoch_sent = epoch);
    }

    pub(super) fn seen(&self, bouncer: &BouncerName, id: u64, now: Timestamp) {
        self.update(bouncer, id, |view| view.seen = now);
    }

    pub(super) fn audit_missing(&self, bouncer: &BouncerName, id: u64, events: u64) {
        self.update(bouncer, id, |view| view.audit_missing = view.audit_missing.saturating_add(events));
    }

    pub(super) fn audit_divergences(&self, bouncer: &BouncerName, id: u64, found: u64) {
        self.update(bouncer, id, |view| view.audit_divergences = view.audit_divergences.saturating_add(found));
    }

    pub(super) fn acked(&self, bouncer: &BouncerName, id: u64, ack: Ack, diverged: Option<bool>) {
        self.update(bouncer, id, |view| {
            view.diverged = diverged.unwrap_or(view.diverged);
            if ack.refused.is_empty() {
                view.epoch_acked = ack.epoch;
            }
            view.refused = short(ack.refused);
            let problems = ack.problems.into_iter().take(KEPT);
            view.problems = problems.map(|p| Problem { subject: short(p.subject), reason: short(p.reason) }).collect();
        });
    }

    pub(super) fn reported(&self, bouncer: &BouncerName, id: u64, status: Status, now: Timestamp) {
        let secrets = status.secrets.into_iter().take(KEPT).map(|secret| UnwrapState {
            logical_path: short(secret.logical_path),
            generation: secret.generation,
            reason: short(secret.reason),
            not_after: Timestamp::from_millisecond(secret.not_after_ms).ok().filter(|_| secret.not_after_ms != 0),
        });
        let report = Report {
            ready: status.ready,
            not_ready: status.not_ready.into_iter().take(KEPT).map(short).collect(),
            dev: status.dev,
            clock_skew_ms: status.time_ms.saturating_sub(now.as_millisecond()),
            secrets: secrets.collect(),
        };
        self.update(bouncer, id, |view| view.report = Some(report));
    }
}

/// What a resolver says, cut to a sane length and kept only if it does not look like a credential.
pub(super) fn short(text: String) -> String {
    super::ingest::bounded(text, 512)
}

#[cfg(test)]
mod tests {
    use super::{Ack, Lag, Live};
    use jiff::{SignedDuration, Timestamp};

    #[test]
    fn the_lag_is_that_of_whoever_is_furthest_behind_and_ends_with_the_session() {
        let (live, start) = (Live::default(), Timestamp::UNIX_EPOCH);
        let at = |seconds| start + SignedDuration::from_secs(seconds);
        let (east, west) = ("payments-east".parse().unwrap(), "payments-west".parse().unwrap());
        assert_eq!(live.lag(9, at(50)), Lag { epochs: 0, silence_seconds: 0, refusing: 0 });

        let [first, second] = [(&east, 5), (&west, 9)].map(|(name, epoch)| {
            let id = live.open(name, String::new(), start);
            live.acked(name, id, Ack { epoch, ..Ack::default() }, None);
            id
        });
        live.seen(&west, second, at(40));
        assert_eq!(live.lag(9, at(50)), Lag { epochs: 4, silence_seconds: 50, refusing: 0 });

        live.acked(&west, second, Ack { epoch: 10, refused: "epoch_older".to_owned(), ..Ack::default() }, None);
        assert_eq!(live.lag(10, at(50)), Lag { epochs: 5, silence_seconds: 50, refusing: 1 });
        live.close(&east, first);
        assert_eq!(live.lag(10, at(50)), Lag { epochs: 1, silence_seconds: 10, refusing: 1 });
    }
}
