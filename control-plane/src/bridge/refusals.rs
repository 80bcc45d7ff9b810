//! Who was turned away lately, so that a bouncer which is missing can be told why. In memory, and bounded.

use bouncer_custody::{BouncerIdentity, BouncerName};
use jiff::{SignedDuration, Timestamp};
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The most that are kept.
const KEPT: usize = 256;
/// A resolver tries again each 5 s at the most; what is older no longer explains why one is missing.
const RECENT: SignedDuration = SignedDuration::from_secs(60);

/// Why a resolver was turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Why {
    /// No bouncer is registered for its identity.
    Unregistered,
    /// Its identity is registered for one bouncer, and its hello names another.
    Mismatch {
        /// By the registration.
        registered: BouncerName,
        /// By the hello; `None` where that is no name.
        named: Option<BouncerName>,
    },
    /// Its hello holds an epoch that no restored backup explains.
    Epoch {
        /// Whose it is.
        bouncer: BouncerName,
        /// By the hello.
        reported: u64,
    },
}

/// A resolver that was turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) at: Timestamp,
    pub(super) peer: BouncerIdentity,
    pub(super) why: Why,
}

/// Who was turned away, newest last.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    kept: Mutex<VecDeque<Refusal>>,
}

impl Refusals {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Refusal>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes one, in the place of an earlier one of the same peer.
    pub(super) fn note(&self, refusal: Refusal) {
        let mut kept = self.lock();
        kept.retain(|one| one.peer != refusal.peer);
        if kept.len() >= KEPT {
            kept.pop_front();
        }
        kept.push_back(refusal);
    }

    /// The newest of the last minute that may be this bouncer's.
    pub(super) fn of(&self, bouncer: &BouncerName, now: Timestamp) -> Option<Refusal> {
        let kept = self.lock();
        let mut recent = kept.iter().rev().filter(|one| now.duration_since(one.at) <= RECENT);
        let is_its = |why: &Why| match why {
            Why::Unregistered => false,
            Why::Mismatch { registered, named } => registered == bouncer || named.as_ref() == Some(bouncer),
            Why::Epoch { bouncer: refused, .. } => refused == bouncer,
        };
        recent.clone().find(|one| is_its(&one.why)).or_else(|| recent.find(|one| one.why == Why::Unregistered)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bouncers_own_refusal_comes_before_a_strangers_and_old_ones_go() {
        let refusals = Refusals::default();
        let now = Timestamp::now();
        let note = |peer: &str, why| {
            refusals.note(Refusal { at: now, peer: format!("spiffe://example.org/{peer}").parse().unwrap(), why });
        };
        let name = |name: &str| name.parse::<BouncerName>().unwrap();
        assert_eq!(refusals.of(&name("east"), now), None);
        note("east", Why::Mismatch { registered: name("east"), named: Some(name("west")) });
        note("stranger", Why::Unregistered);
        let peer = |bouncer, now| refusals.of(&name(bouncer), now).map(|one| one.peer.to_string());
        assert_eq!(peer("east", now).unwrap(), "spiffe://example.org/east");
        assert_eq!(peer("west", now).unwrap(), "spiffe://example.org/east");
        assert_eq!(peer("north", now).unwrap(), "spiffe://example.org/stranger");
        assert_eq!(peer("east", now + SignedDuration::from_secs(61)), None);
        (0..1_000).for_each(|number| note(&format!("flood-{number}"), Why::Unregistered));
        assert_eq!(refusals.lock().len(), KEPT);
    }
}
