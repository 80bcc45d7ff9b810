//! The next policy by what differs from the one in use.

use super::{Changes, LARGEST, Policy, PolicyStore, Refused};
use crate::clock::Instant;
use bouncer_proto::bridge::v1 as wire;
use bouncer_proto::{ContentDigest, DeltaFault};
use prost::Message as _;
use std::sync::{Arc, PoisonError};

impl PolicyStore {
    /// The epoch and content in use, whatever their age. `None` without a policy.
    #[must_use]
    pub fn held(&self) -> Option<(u64, ContentDigest)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.policy.as_ref().map(|policy| (policy.epoch, state.content))
    }

    /// Puts what a delta makes of the policy in use in its place, and says what that changes.
    ///
    /// Its base is read from the snapshot's file, which costs no memory between two deltas; the digest in memory says
    /// whether it is still what is in use. What the disk did not take is in memory.
    ///
    /// # Errors
    /// [`Refused`]. The one in use stays.
    pub fn update(&self, delta: wire::PolicyDelta) -> Result<(Arc<Policy>, Changes), Refused> {
        if delta.bouncer != self.bouncer.as_str() {
            return Err(Refused::OtherBouncer);
        }
        // A delta for an epoch that is not in use costs no look at the disk.
        let held = self.held().filter(|(epoch, _)| *epoch == delta.from_epoch).ok_or(DeltaFault::OtherBase)?;
        if is_confirmation(&delta, held) {
            return self.confirmed(held);
        }
        let base = self.base(held).ok_or(DeltaFault::OtherBase)?;
        let snapshot = delta.apply(base)?;
        if snapshot.encoded_len() > LARGEST {
            return Err(Refused::TooLarge);
        }
        self.put(snapshot, Some(held))
    }

    /// The snapshot in use, as it was kept; `None` if that is not it.
    fn base(&self, (epoch, content): (u64, ContentDigest)) -> Option<wire::Snapshot> {
        let unsaved = self.state.read().unwrap_or_else(PoisonError::into_inner).unsaved.clone();
        let snapshot = match unsaved {
            Some(encoded) => wire::Snapshot::decode(encoded.as_slice()).ok()?,
            None => self.read_file().ok()??.0,
        };
        (snapshot.epoch == epoch && ContentDigest::of(&snapshot) == content).then_some(snapshot)
    }

    /// The control plane holds just what is in use.
    fn confirmed(&self, held: (u64, ContentDigest)) -> Result<(Arc<Policy>, Changes), Refused> {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let policy = state.policy.clone().filter(|policy| (policy.epoch, state.content) == held);
        let policy = policy.ok_or(DeltaFault::OtherBase)?;
        state.contact = Some(Instant::now());
        drop(state);
        self.heard();
        Ok((policy, Changes::default()))
    }
}

/// Whether a delta says that nothing has changed, and under the same epoch.
fn is_confirmation(delta: &wire::PolicyDelta, (epoch, content): (u64, ContentDigest)) -> bool {
    let says_nothing = delta.resources.is_empty()
        && delta.envelopes.is_empty()
        && delta.removed_resources.is_empty()
        && delta.removed_envelopes.is_empty();
    says_nothing && delta.epoch == epoch && ContentDigest::read(&delta.digest) == Some(content)
}
