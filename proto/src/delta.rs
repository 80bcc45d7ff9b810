//! From one policy to the next by what differs, and back to a whole that is proven by its digest.

use crate::bridge::v1::{Envelope, PolicyDelta, ProtectedResource, Snapshot};
use crate::content::{ContentDigest, Entry, Kind, Outline};
use crate::parts::{Allotment, Parted};
use prost::Message as _;
use std::collections::BTreeMap;

/// Why a delta was refused, whole. Shown as a reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeltaFault {
    /// It is for another bouncer.
    #[error("snapshot_of_another_bouncer")]
    OtherBouncer,
    /// It does not build on the epoch in use.
    #[error("delta_of_another_base")]
    OtherBase,
    /// It leads back, or changes what an epoch says.
    #[error("snapshot_replayed")]
    Replayed,
    /// It names something twice, or removes what is not there.
    #[error("delta_malformed")]
    Malformed,
    /// What it makes is not what its digest says.
    #[error("delta_diverged")]
    Diverged,
}

impl PolicyDelta {
    /// What leads from an outline, which is known under `from_epoch`, to a snapshot, whose outline is `to`. `None` where
    /// only the whole can say it.
    #[must_use]
    pub fn between(from_epoch: u64, from: &Outline, snapshot: Snapshot, to: &Outline) -> Option<Self> {
        if from.is_ambiguous() || to.is_ambiguous() {
            return None;
        }
        let gone = |kind| {
            let entries = from.entries().iter().filter(move |entry| entry.kind == kind && !to.names(kind, &entry.name));
            entries.map(|entry| entry.name.to_string()).collect()
        };
        let is_new = |entry: Entry| !from.holds(&entry);
        Some(Self {
            from_epoch,
            removed_resources: gone(Kind::Resource),
            removed_envelopes: gone(Kind::Envelope),
            resources: snapshot.resources.into_iter().filter(|one| is_new(Entry::of_resource(one))).collect(),
            envelopes: snapshot.envelopes.into_iter().filter(|one| is_new(Entry::of_envelope(one))).collect(),
            epoch: snapshot.epoch,
            bouncer: snapshot.bouncer,
            issued_ms: snapshot.issued_ms,
            intercept_enabled: snapshot.intercept_enabled,
            digest: to.digest().to_vec(),
            more: false,
        })
    }

    /// The whole that this makes of what is in use.
    ///
    /// # Errors
    /// [`DeltaFault`].
    pub fn apply(self, base: Snapshot) -> Result<Snapshot, DeltaFault> {
        if self.bouncer != base.bouncer {
            return Err(DeltaFault::OtherBouncer);
        }
        if self.from_epoch != base.epoch {
            return Err(DeltaFault::OtherBase);
        }
        if self.epoch < self.from_epoch {
            return Err(DeltaFault::Replayed);
        }
        let from = (self.epoch == self.from_epoch).then(|| ContentDigest::of(&base));
        let whole = Snapshot {
            epoch: self.epoch,
            bouncer: self.bouncer,
            issued_ms: self.issued_ms,
            intercept_enabled: self.intercept_enabled,
            resources: merged(base.resources, self.resources, self.removed_resources, |one| &one.name)?,
            envelopes: merged(base.envelopes, self.envelopes, self.removed_envelopes, |one| &one.logical_path)?,
            more: false,
        };
        let made = ContentDigest::of(&whole);
        if ContentDigest::read(&self.digest) != Some(made) {
            return Err(DeltaFault::Diverged);
        }
        if from.is_some_and(|from| from != made) {
            return Err(DeltaFault::Replayed);
        }
        Ok(whole)
    }
}

fn merged<T>(
    base: Vec<T>,
    new: Vec<T>,
    removed: Vec<String>,
    name: impl Fn(&T) -> &String,
) -> Result<Vec<T>, DeltaFault> {
    if new.is_empty() && removed.is_empty() {
        return Ok(base);
    }
    let mut all = BTreeMap::new();
    for one in base {
        if all.insert(name(&one).clone(), one).is_some() {
            return Err(DeltaFault::Malformed);
        }
    }
    for gone in &removed {
        all.remove(gone).ok_or(DeltaFault::Malformed)?;
    }
    let mut told = removed;
    told.extend(new.iter().map(|one| name(one).clone()));
    told.sort_unstable();
    if told.windows(2).any(|two| two[0] == two[1]) {
        return Err(DeltaFault::Malformed);
    }
    all.extend(new.into_iter().map(|one| (name(&one).clone(), one)));
    Ok(all.into_values().collect())
}

impl Parted for PolicyDelta {
    fn more(&self) -> bool {
        self.more
    }

    fn goes_on_with(&self, part: &Self) -> bool {
        (self.from_epoch, self.epoch, &self.bouncer, self.intercept_enabled, &self.digest)
            == (part.from_epoch, part.epoch, &part.bouncer, part.intercept_enabled, &part.digest)
    }

    fn absorb(&mut self, part: Self) {
        self.more = part.more;
        self.resources.extend(part.resources);
        self.envelopes.extend(part.envelopes);
        self.removed_resources.extend(part.removed_resources);
        self.removed_envelopes.extend(part.removed_envelopes);
    }

    fn into_parts(mut self, bytes: usize) -> Vec<Self> {
        let mut allotment = Allotment::new(bytes);
        // A tag and a length more than the text.
        let text = |one: &String| one.len() + 6;
        let resources = allotment.of(std::mem::take(&mut self.resources), ProtectedResource::encoded_len);
        let envelopes = allotment.of(std::mem::take(&mut self.envelopes), Envelope::encoded_len);
        let removed_resources = allotment.of(std::mem::take(&mut self.removed_resources), text);
        let removed_envelopes = allotment.of(std::mem::take(&mut self.removed_envelopes), text);
        let head = Self { more: true, ..self };
        let mut parts = vec![head; allotment.count()];
        resources.into_iter().for_each(|(part, one)| parts[part].resources.push(one));
        envelopes.into_iter().for_each(|(part, one)| parts[part].envelopes.push(one));
        removed_resources.into_iter().for_each(|(part, one)| parts[part].removed_resources.push(one));
        removed_envelopes.into_iter().for_each(|(part, one)| parts[part].removed_envelopes.push(one));
        parts[allotment.count() - 1].more = false;
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;

    /// Small names, so that policies share some.
    fn policies() -> impl Strategy<Value = Vec<Snapshot>> {
        let resources = btree_map("[a-e]", ("[xy]", any::<bool>(), vec("[pq]", 0..3)), 0..5);
        let envelopes = btree_map("[a-e]", (0..3_u64, proptest::option::of("[kv]"), 0..2_u64), 0..5);
        let policy = (any::<bool>(), resources, envelopes).prop_map(|(intercept_enabled, resources, envelopes)| {
            let resource = |(name, (cluster, enabled, callers))| ProtectedResource {
                name,
                cluster,
                enabled,
                callers,
                ..ProtectedResource::default()
            };
            let envelope = |(logical_path, (generation, aad, activation))| Envelope {
                logical_path,
                generation,
                aad,
                activation,
                ..Envelope::default()
            };
            Snapshot {
                bouncer: "east".into(),
                intercept_enabled,
                resources: resources.into_iter().map(resource).collect(),
                envelopes: envelopes.into_iter().map(envelope).collect(),
                ..Snapshot::default()
            }
        });
        vec(policy, 2..8).prop_map(|mut policies| {
            for (epoch, policy) in (1_u64..).zip(&mut policies) {
                policy.epoch = epoch;
            }
            policies
        })
    }

    fn delta(from: &Snapshot, to: &Snapshot) -> PolicyDelta {
        PolicyDelta::between(from.epoch, &Outline::of(from), to.clone(), &Outline::of(to)).unwrap()
    }

    proptest! {
        #[test]
        fn deltas_in_any_parts_lead_where_snapshots_do(policies in policies(), bytes in 1..200_usize) {
            let mut held = policies[0].clone();
            for next in &policies[1..] {
                let mut parts = delta(&held, next).into_parts(bytes).into_iter();
                let mut whole = parts.next().unwrap();
                for part in parts {
                    prop_assert!(whole.more && whole.goes_on_with(&part));
                    whole.absorb(part);
                }
                prop_assert_eq!(&whole, &delta(&held, next));
                held = whole.apply(held).unwrap();
                prop_assert_eq!(&held, next);
            }
        }

        #[test]
        fn a_delta_says_only_what_differs(policies in policies()) {
            let (from, to) = (&policies[0], &policies[1]);
            let delta = delta(from, to);
            prop_assert!(delta.resources.iter().all(|one| to.resources.contains(one) && !from.resources.contains(one)));
            prop_assert!(delta.envelopes.iter().all(|one| to.envelopes.contains(one) && !from.envelopes.contains(one)));
        }

        /// Whatever is changed on the way: it is refused, or makes just what the digest says.
        #[test]
        fn what_was_tampered_with_never_makes_something_else(
            policies in policies(), other in policies(), drop_one in any::<bool>(), enable in any::<bool>(),
        ) {
            let (from, to) = (&policies[0], &policies[1]);
            let mut tampered = delta(from, to);
            tampered.intercept_enabled ^= enable;
            tampered.resources.extend(other[0].resources.iter().cloned());
            tampered.removed_envelopes.extend(other[0].envelopes.iter().map(|one| one.logical_path.clone()));
            if drop_one {
                tampered.envelopes.pop();
            }
            if let Ok(made) = tampered.apply(from.clone()) {
                prop_assert_eq!(ContentDigest::of(&made), ContentDigest::of(to));
            }
        }
    }

    fn held() -> Snapshot {
        let resource = |name: &str| ProtectedResource { name: name.into(), ..ProtectedResource::default() };
        let envelope = |path: &str| Envelope { logical_path: path.into(), ..Envelope::default() };
        Snapshot {
            epoch: 5,
            bouncer: "east".into(),
            resources: vec![resource("a")],
            envelopes: vec![envelope("p")],
            ..Snapshot::default()
        }
    }

    #[test]
    fn hostile_deltas_are_refused_each_for_its_reason() {
        let next = Snapshot { epoch: 6, intercept_enabled: true, ..held() };
        let good = delta(&held(), &next);
        let ends = |change: &dyn Fn(&mut PolicyDelta)| {
            let mut delta = good.clone();
            change(&mut delta);
            delta.apply(held()).map(|whole| whole.epoch)
        };
        assert_eq!(ends(&|_| {}), Ok(6), "the control");
        assert_eq!(ends(&|d| d.bouncer = "west".into()), Err(DeltaFault::OtherBouncer));
        assert_eq!(ends(&|d| d.from_epoch = 4), Err(DeltaFault::OtherBase));
        assert_eq!(ends(&|d| d.from_epoch = 6), Err(DeltaFault::OtherBase));
        assert_eq!(ends(&|d| d.epoch = 4), Err(DeltaFault::Replayed));
        assert_eq!(ends(&|d| d.epoch = 5), Err(DeltaFault::Replayed), "the same epoch with other content");
        assert_eq!(ends(&|d| d.digest[0] ^= 1), Err(DeltaFault::Diverged));
        assert_eq!(ends(&|d| d.digest.clear()), Err(DeltaFault::Diverged));
        assert_eq!(ends(&|d| d.intercept_enabled = false), Err(DeltaFault::Diverged));
        assert_eq!(ends(&|d| d.removed_resources.push("z".into())), Err(DeltaFault::Malformed));
        assert_eq!(ends(&|d| d.removed_envelopes.push("z".into())), Err(DeltaFault::Malformed));
        assert_eq!(ends(&|d| d.removed_envelopes = vec!["p".into(), "p".into()]), Err(DeltaFault::Malformed));
        assert_eq!(ends(&|d| d.resources = [held().resources, held().resources].concat()), Err(DeltaFault::Malformed));
        let both = |d: &mut PolicyDelta| (d.resources, d.removed_resources) = (held().resources, vec!["a".into()]);
        assert_eq!(ends(&both), Err(DeltaFault::Malformed));
        // One without a change confirms the same epoch.
        assert_eq!(delta(&held(), &held()).apply(held()), Ok(held()));
    }

    #[test]
    fn two_of_one_name_are_told_whole() {
        let mut twice = Snapshot { epoch: 6, ..held() };
        twice.resources.push(twice.resources[0].clone());
        let between = |from: &Snapshot, to: &Snapshot| {
            PolicyDelta::between(from.epoch, &Outline::of(from), to.clone(), &Outline::of(to))
        };
        assert!(between(&held(), &twice).is_none() && between(&twice, &held()).is_none());
    }
}
