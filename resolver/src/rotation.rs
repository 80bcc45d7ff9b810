//! Rotation: which generation of a credential is in use while a newer one is not proven.
//!
//! The control plane registers a generation; whether it is any good shows only when it has been unwrapped. So the one in
//! use stays, and [`crate::engine`] tries the next one ahead of the streams: a good one takes its place, a bad one
//! changes nothing. Only a newer generation is a rotation. What is gone from the policy, and what was enabled again, is
//! none: that ends at once, and must never be kept in use from here.
//!
//! What is in use in the place of a bad one is kept on disk, as the metadata that it is: a resolver that is started anew
//! would else know the bad one only.

use crate::policy::{Envelope, Policy};
use crate::state_file;
use bouncer_custody::{LogicalPath, Reason, Tag};
use bouncer_proto::bridge::v1 as wire;
use prost::Message as _;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// After a failed trial the next one waits this long, and twice as long each time.
const RETRY_MIN: Duration = Duration::from_secs(1);

/// No longer than this.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// The generations in use.
#[derive(Debug, Default)]
pub struct Rotation {
    /// Nothing is kept without it.
    file: Option<PathBuf>,
    in_use: Mutex<HashMap<LogicalPath, InUse>>,
    wake: Notify,
}

#[derive(Debug)]
struct InUse {
    envelope: Arc<Envelope>,
    /// The one before, which drains: for streams that were decided when it was in use.
    previous: Option<Arc<Envelope>>,
    /// The newer one that was no good, if one was tried.
    failed: Option<Failed>,
    /// Whether it is on disk: since a newer one is no good, now or when another run of this resolver ended.
    kept: bool,
}

#[derive(Debug)]
struct Failed {
    tag: Tag,
    reason: Reason,
    times: u32,
    again: Instant,
}

/// A newer generation that was tried and is no good, for status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name.
    pub tag: Tag,
    /// Why.
    pub reason: Reason,
}

impl Rotation {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<LogicalPath, InUse>> {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With what a former run had in use in the place of bad ones; `read` parses it.
    #[must_use]
    pub fn open(state_dir: &Path, read: impl Fn(&wire::Envelope) -> Option<Arc<Envelope>>) -> Self {
        let file = state_dir.join("in-use");
        let content = state_file::read(&file).unwrap_or_else(|error| {
            tracing::warn!(%error, "what was in use in the place of bad generations can't be read; those are denied until they are replaced");
            None
        });
        let kept = content.and_then(|content| wire::Snapshot::decode(&*content).ok()).unwrap_or_default().envelopes;
        let in_use = |envelope: Arc<Envelope>| {
            (envelope.path.clone(), InUse { envelope, previous: None, failed: None, kept: true })
        };
        let in_use = kept.iter().filter_map(read).map(in_use).collect();
        Self { file: Some(file), in_use: Mutex::new(in_use), wake: Notify::new() }
    }

    fn save(&self, in_use: &HashMap<LogicalPath, InUse>) {
        let Some(file) = &self.file else { return };
        let kept = in_use.values().filter(|one| one.kept).map(|one| one.envelope.to_wire()).collect();
        let content = wire::Snapshot { envelopes: kept, ..wire::Snapshot::default() }.encode_to_vec();
        if let Err(error) = state_file::write(file, &content) {
            tracing::warn!(%error, "what is in use in the place of a bad generation could not be saved; after a restart that one alone is known, and denied");
        }
    }

    /// What a stream is to use where the policy wants `wanted`: the one in use, if `wanted` is newer and not proven.
    #[must_use]
    pub fn choose(&self, wanted: &Arc<Envelope>) -> Arc<Envelope> {
        match self.lock().get(&wanted.path) {
            Some(in_use) if wanted.succeeds(&in_use.envelope) => Arc::clone(&in_use.envelope),
            _ => Arc::clone(wanted),
        }
    }

    /// It was unwrapped and found good: it is in use from now on.
    pub fn proven(&self, envelope: &Arc<Envelope>) {
        let mut in_use = self.lock();
        let before = in_use.get(&envelope.path).map(|now| Arc::clone(&now.envelope));
        // One that a stream was unwrapping meanwhile is no newer than what replaced it.
        if before.as_ref().is_some_and(|before| before.tag == envelope.tag || before.generation > envelope.generation) {
            return;
        }
        let previous = before.filter(|before| envelope.succeeds(before));
        let now = InUse { envelope: Arc::clone(envelope), previous, failed: None, kept: false };
        if in_use.insert(envelope.path.clone(), now).is_some_and(|before| before.kept) {
            self.save(&in_use);
        }
    }

    /// This tag is used no more. What it had replaced, or what replaced it, goes its own way.
    pub fn end(&self, tag: &Tag) {
        let mut in_use = self.lock();
        let Some(now) = in_use.get_mut(tag.path()) else { return };
        if tag.is_of(&now.envelope.tag) {
            let kept = now.kept;
            in_use.remove(tag.path());
            if kept {
                self.save(&in_use);
            }
        } else if now.previous.as_ref().is_some_and(|previous| tag.is_of(&previous.tag)) {
            now.previous = None;
        }
    }

    /// Nothing is in use under this path any more.
    pub fn forget(&self, path: &LogicalPath) {
        let mut in_use = self.lock();
        if in_use.remove(path).is_some_and(|before| before.kept) {
            self.save(&in_use);
        }
    }

    /// The tags in use under a path, with the one that drains.
    #[must_use]
    pub fn in_use(&self, path: &LogicalPath) -> Vec<Tag> {
        self.lock().get(path).map(InUse::tags).unwrap_or_default()
    }

    /// The envelope in use, or draining, of this tag, in whichever version of the backend's.
    #[must_use]
    pub fn of(&self, tag: &Tag) -> Option<Arc<Envelope>> {
        let in_use = self.lock();
        let InUse { envelope, previous, .. } = in_use.get(tag.path())?;
        [Some(envelope), previous.as_ref()]
            .into_iter()
            .flatten()
            .find(|envelope| tag.is_of(&envelope.tag))
            .map(Arc::clone)
    }

    /// A policy came. Forgets what it does not rotate but ends, and returns those tags.
    pub fn follow(&self, policy: &Policy) -> Vec<Tag> {
        let (mut ended, mut kept) = (Vec::new(), false);
        let mut all = self.lock();
        all.retain(|path, in_use| {
            let now = policy.envelope(path).ok().filter(|_| policy.enabled);
            let goes_on = now.is_some_and(|now| now.tag == in_use.envelope.tag || now.succeeds(&in_use.envelope));
            if !goes_on {
                ended.extend(in_use.tags());
                kept |= in_use.kept;
            }
            goes_on
        });
        if kept {
            self.save(&all);
        }
        drop(all);
        self.wake.notify_one();
        ended
    }

    /// The newer generations that are to be tried now.
    #[must_use]
    pub fn due(&self, policy: &Policy, now: Instant) -> Vec<Arc<Envelope>> {
        let in_use = self.lock();
        let due = in_use.iter().filter_map(|(path, in_use)| {
            let wanted = policy.envelope(path).ok()?;
            let waits = in_use.failed.as_ref().is_some_and(|failed| failed.tag == wanted.tag && failed.again > now);
            (wanted.succeeds(&in_use.envelope) && !waits).then(|| Arc::clone(wanted))
        });
        due.collect()
    }

    /// A trial failed: the one in use stays. `true` if that is news.
    pub fn refuse(&self, candidate: &Envelope, reason: Reason, now: Instant) -> bool {
        let mut all = self.lock();
        let Some(in_use) = all.get_mut(&candidate.path) else { return false };
        let before = in_use.failed.take().filter(|failed| failed.tag == candidate.tag);
        let times = before.as_ref().map_or(0, |before| before.times.saturating_add(1));
        let again = now + RETRY_MIN.saturating_mul(1 << times.min(10)).min(RETRY_MAX);
        in_use.failed = Some(Failed { tag: candidate.tag.clone(), reason, times, again });
        if !std::mem::replace(&mut in_use.kept, true) {
            self.save(&all);
        }
        before.is_none_or(|before| before.reason != reason)
    }

    /// What was tried and is no good.
    #[must_use]
    pub fn refused(&self) -> Vec<Refused> {
        let in_use = self.lock();
        let failed = in_use.values().filter_map(|in_use| in_use.failed.as_ref());
        failed.map(|failed| Refused { tag: failed.tag.clone(), reason: failed.reason }).collect()
    }

    /// Waits for the next policy.
    pub async fn changed(&self) {
        self.wake.notified().await;
    }
}

impl InUse {
    fn tags(&self) -> Vec<Tag> {
        [Some(&self.envelope), self.previous.as_ref()].into_iter().flatten().map(|one| one.tag.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::tests::{envelope, policy_of};

    const PATH: &str = "creds/alice";

    fn of(generation: u64, activation: u64) -> (Policy, Arc<Envelope>) {
        let policy = policy_of(envelope(PATH, generation, activation));
        let envelope = Arc::clone(policy.envelope(&PATH.parse().unwrap()).unwrap());
        (policy, envelope)
    }

    #[test]
    fn a_newer_one_is_used_once_it_is_proven_and_not_before() {
        let rotation = Rotation::default();
        let ((_, first), (policy, second)) = (of(1, 0), of(2, 0));
        assert_eq!(rotation.choose(&first).tag, first.tag, "nothing is in use yet");
        rotation.proven(&first);
        assert!(rotation.follow(&policy).is_empty());
        assert_eq!(rotation.choose(&second).tag, first.tag);
        assert_eq!(rotation.due(&policy, Instant::now()).first().map(|due| due.tag.clone()), Some(second.tag.clone()));
        rotation.proven(&second);
        assert_eq!(rotation.choose(&second).tag, second.tag);
        assert!(rotation.due(&policy, Instant::now()).is_empty());
        assert_eq!(rotation.choose(&first).tag, first.tag, "an older one is for the memory of generations to refuse");
        rotation.proven(&first);
        assert_eq!(
            rotation.in_use(&first.path),
            [second.tag.clone(), first.tag.clone()],
            "it drains, and stays replaced"
        );
        rotation.proven(&of(3, 0).1);
        assert!(rotation.of(&first.tag).is_none() && rotation.of(&second.tag).is_some());
    }

    #[test]
    fn a_bad_one_is_tried_again_ever_more_rarely_and_told_once() {
        let rotation = Rotation::default();
        let ((_, first), (policy, second)) = (of(1, 0), of(2, 0));
        rotation.proven(&first);
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for round in 0..10 {
            assert_eq!(rotation.refuse(&second, Reason::CredentialExpired, now), round == 0);
            let start = now;
            while rotation.due(&policy, now).is_empty() {
                now += Duration::from_millis(500);
            }
            pauses.push((now - start).as_secs());
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert!(rotation.refuse(&second, Reason::KmsAccessDenied, now), "another reason is news");
        assert_eq!(rotation.refused(), [Refused { tag: second.tag.clone(), reason: Reason::KmsAccessDenied }]);
        let (policy, third) = of(3, 0);
        assert_eq!(rotation.due(&policy, now).first().map(|due| due.tag.clone()), Some(third.tag.clone()), "at once");
        assert_eq!(rotation.choose(&third).tag, first.tag);
    }

    #[test]
    fn what_ended_or_was_enabled_again_is_no_rotation() {
        let (policy, first) = of(1, 0);
        let in_use = || {
            let rotation = Rotation::default();
            rotation.proven(&first);
            rotation
        };
        assert!(in_use().follow(&policy).is_empty());
        let off = {
            let mut off = of(1, 0).0;
            off.enabled = false;
            off
        };
        let gone = policy_of(envelope("creds/other", 1, 0));
        // Taken back and registered anew while this resolver was away.
        let missed = policy_of(wire::Envelope { revoked_through: 1, ..envelope(PATH, 2, 0) });
        for ends in [off, gone, missed, of(1, 1).0] {
            let rotation = in_use();
            assert_eq!(rotation.follow(&ends), std::slice::from_ref(&first.tag));
            assert!(rotation.of(&first.tag).is_none());
        }
    }
}
