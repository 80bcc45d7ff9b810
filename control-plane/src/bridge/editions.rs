//! What each connected bouncer may know now, without its content: enough to say what has changed. At a change it is read
//! once for all streams of a bouncer, and only for bouncers whose policy the change touched.

use super::service::Bridge;
use super::snapshot;
use crate::model::{PolicyMark, PolicyMarks};
use crate::store;
use bouncer_custody::{BouncerIdentity, BouncerName};
use bouncer_proto::bridge::v1::{PolicyDelta, Snapshot};
use bouncer_proto::{ContentDigest, Outline};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::watch;

/// A bouncer's policy at one epoch, by its outline.
#[derive(Debug, Clone)]
pub(super) struct Edition {
    pub(super) epoch: u64,
    pub(super) digest: ContentDigest,
    /// Whom it is registered for.
    pub(super) identity: BouncerIdentity,
    outline: Arc<Outline>,
}

impl Edition {
    /// What leads from this edition to a snapshot, which another edition is of.
    pub(super) fn delta(&self, snapshot: Snapshot, to: &Self) -> Option<PolicyDelta> {
        PolicyDelta::between(self.epoch, &self.outline, snapshot, &to.outline)
    }
}

/// The newest edition, and what led to it from the one before.
#[derive(Debug, Clone)]
pub(super) struct Latest {
    pub(super) edition: Arc<Edition>,
    step: Option<(ContentDigest, Arc<PolicyDelta>)>,
    /// Read after so many changes.
    changes: u64,
    /// As long as this is the same, so is the policy.
    mark: Option<PolicyMark>,
}

impl Latest {
    /// The delta from what a resolver holds, if it is at hand: nothing changed, or it holds the edition before.
    pub(super) fn delta_from(&self, epoch: u64, digest: ContentDigest, bouncer: &BouncerName) -> Option<PolicyDelta> {
        if digest == self.edition.digest {
            return Some(PolicyDelta {
                from_epoch: epoch,
                epoch: self.edition.epoch,
                bouncer: bouncer.to_string(),
                intercept_enabled: self.edition.outline.is_enabled(),
                digest: digest.to_vec(),
                ..PolicyDelta::default()
            });
        }
        let (from, step) = self.step.as_ref()?;
        (*from == digest).then(|| PolicyDelta { from_epoch: epoch, ..PolicyDelta::clone(step) })
    }
}

/// One bouncer's place.
#[derive(Debug, Default)]
pub(super) struct Place(tokio::sync::Mutex<Option<Latest>>);

/// How new an edition must be.
#[derive(Debug, Clone, Copy)]
pub(super) struct Need {
    /// Changes that the session has heard of.
    pub(super) changes: u64,
    /// The epoch that it has heard of.
    pub(super) epoch: u64,
}

impl Place {
    /// The newest edition, read anew if what is here is older than needed. `None`: the bouncer is not registered.
    pub(super) async fn latest(
        &self,
        bridge: &Bridge,
        bouncer: &BouncerName,
        need: Need,
    ) -> store::Result<Option<Latest>> {
        let mut place = self.0.lock().await;
        if let Some(latest) = place.as_ref()
            && latest.changes >= need.changes
            && latest.edition.epoch >= need.epoch
        {
            return Ok(Some(latest.clone()));
        }
        let before = place.take();
        let marks = bridge.editions.marks(bridge, need).await?;
        let mark = marks.of.marks.get(bouncer).copied();
        if let Some(latest) = &before
            && mark.is_some()
            && mark == latest.mark
            && marks.of.epoch >= latest.edition.epoch
        {
            let edition = Arc::new(Edition { epoch: marks.of.epoch, ..Edition::clone(&latest.edition) });
            let latest = Latest { edition, changes: need.changes, ..latest.clone() };
            *place = Some(latest.clone());
            return Ok(Some(latest));
        }
        let Some((edition, snapshot)) = whole(bridge, bouncer).await? else { return Ok(None) };
        let step = before.filter(|before| before.edition.digest != edition.digest).and_then(|before| {
            let delta = before.edition.delta(snapshot, &edition)?;
            Some((before.edition.digest, Arc::new(delta)))
        });
        // Of one epoch there is one content: marks that were read at this one are of this policy.
        let mark = mark.filter(|_| marks.of.epoch == edition.epoch);
        let latest = Latest { edition, step, changes: need.changes, mark };
        *place = Some(latest.clone());
        Ok(Some(latest))
    }
}

/// The bouncer's policy whole.
pub(super) async fn whole(bridge: &Bridge, bouncer: &BouncerName) -> store::Result<Option<(Arc<Edition>, Snapshot)>> {
    bridge.metrics.policy_read();
    let Some(policy) = bridge.store.policy(bouncer).await? else { return Ok(None) };
    let (epoch, identity) = (policy.epoch, policy.bouncer.identity.clone());
    let snapshot = snapshot::of(policy, bridge.clock.now());
    let outline = Outline::of(&snapshot);
    let digest = outline.digest();
    Ok(Some((Arc::new(Edition { epoch, digest, identity, outline: Arc::new(outline) }), snapshot)))
}

/// The places of all bouncers that are connected.
#[derive(Debug, Default)]
pub struct Editions {
    places: Mutex<HashMap<BouncerName, Weak<Place>>>,
    /// The newest that were read.
    marks: watch::Sender<Option<Arc<Marks>>>,
    /// Held by the one who reads newer ones.
    reading: tokio::sync::Mutex<()>,
}

/// The marks of all bouncers, read after so many changes.
#[derive(Debug)]
struct Marks {
    of: PolicyMarks,
    changes: u64,
}

impl Editions {
    fn lock(&self) -> MutexGuard<'_, HashMap<BouncerName, Weak<Place>>> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The marks, read anew by the first who needs newer ones. All others go on together once they are there.
    async fn marks(&self, bridge: &Bridge, need: Need) -> store::Result<Arc<Marks>> {
        let new_enough = |marks: &Option<Arc<Marks>>| {
            let new_enough = |marks: &&Arc<Marks>| marks.changes >= need.changes && marks.of.epoch >= need.epoch;
            marks.as_ref().filter(new_enough).cloned()
        };
        let mut newest = self.marks.subscribe();
        loop {
            if let Some(marks) = new_enough(&newest.borrow_and_update()) {
                return Ok(marks);
            }
            tokio::select! {
                biased;
                _ = newest.changed() => {}
                _turn = self.reading.lock() => {
                    if let Some(marks) = new_enough(&newest.borrow()) {
                        return Ok(marks);
                    }
                    let marks = Arc::new(Marks { of: bridge.store.policy_marks().await?, changes: need.changes });
                    self.marks.send_replace(Some(Arc::clone(&marks)));
                    return Ok(marks);
                }
            }
        }
    }

    /// A bouncer's place, the same for all of its streams.
    pub(super) fn open(&self, bouncer: &BouncerName) -> Arc<Place> {
        let mut places = self.lock();
        if let Some(place) = places.get(bouncer).and_then(Weak::upgrade) {
            return place;
        }
        let place = Arc::new(Place::default());
        places.insert(bouncer.clone(), Arc::downgrade(&place));
        place
    }

    /// Forgets the place with its last stream.
    pub(super) fn close(&self, bouncer: &BouncerName, place: &Arc<Place>) {
        let mut places = self.lock();
        if Arc::strong_count(place) == 1 && places.get(bouncer).is_some_and(|held| held.as_ptr() == Arc::as_ptr(place))
        {
            places.remove(bouncer);
        }
    }
}
