//! Policy as the control plane last told it: parsed whole, kept on disk, and only ever replaced by a newer one.
//!
//! The [`crate::bridge`] installs snapshots; the [`crate::engine`] reads them. A hostile control plane can send
//! anything here: what can't be parsed is kept as a reason to deny, never as something to use.

mod delta;
mod endings;
mod envelope;
mod resources;

use crate::clock::Instant;
use crate::state_file::{self, StateError, unix_ms};
use bouncer_custody::{BouncerName, ClusterName, LogicalPath, Reason, SpiffeId, Tag};
use bouncer_proto::bridge::v1 as wire;
use bouncer_proto::{ContentDigest, DeltaFault};
use endings::Endings;
pub use envelope::{Envelope, Pairs};
use prost::Message as _;
pub use resources::{Resource, Resources};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The largest policy, in bytes, and the largest snapshot or delta with all its parts.
pub const LARGEST: usize = 64 << 20;

/// One snapshot, parsed.
#[derive(Debug, Clone)]
pub struct Policy {
    /// Only goes up.
    pub epoch: u64,
    /// The flag `flags.crypto.dual_custody_intercept`.
    pub enabled: bool,
    /// What leads where. Several resources may share a cluster, for different callers.
    pub resources: HashMap<ClusterName, Resources>,
    /// What is registered, or why it can't be used.
    pub envelopes: HashMap<LogicalPath, Result<Arc<Envelope>, Reason>>,
    /// What in the snapshot can never be used, by name and reason.
    pub problems: Vec<(String, Reason)>,
}

impl Policy {
    /// Takes the snapshot apart, so that what it held is free for what is made of it.
    fn parse(raw: wire::Snapshot, endings: &Endings) -> Self {
        let mut policy = Self {
            epoch: raw.epoch,
            enabled: raw.intercept_enabled,
            resources: HashMap::new(),
            envelopes: HashMap::with_capacity(raw.envelopes.len()),
            problems: Vec::new(),
        };
        for resource in raw.resources {
            match parse_resource(&resource) {
                Some((cluster, resource)) => policy.resources.entry(cluster).or_default().push(resource),
                None => policy.problems.push((shown(&resource.name), Reason::EnvelopeMalformed)),
            }
        }
        for raw in raw.envelopes {
            let parsed = Envelope::parse(&raw, endings);
            if let Err(reason) = &parsed {
                policy.problems.push((shown(&raw.logical_path), *reason));
            }
            // Without a path nothing can ask for it; two of one path are two claims, and neither is believed.
            if let Ok(path) = raw.logical_path.parse::<LogicalPath>() {
                let twice = policy.envelopes.contains_key(&path);
                let kept = if twice { Err(Reason::EnvelopeMalformed) } else { parsed.map(Arc::new) };
                policy.envelopes.insert(path, kept);
            }
        }
        policy
    }

    /// Names the envelope of a path anew, after another ending of it.
    fn rename(&mut self, path: &LogicalPath, endings: &Endings) {
        if let Some(Ok(envelope)) = self.envelopes.get_mut(path) {
            match Envelope::parse(&envelope.to_wire(), endings) {
                Ok(renamed) => *envelope = Arc::new(renamed),
                Err(reason) => drop(self.envelopes.insert(path.clone(), Err(reason))),
            }
        }
    }

    /// The resource of `cluster` that allows `caller`.
    ///
    /// # Errors
    /// [`Reason::NotRegistered`], [`Reason::CallerNotAllowed`], [`Reason::ResourceAmbiguous`] or
    /// [`Reason::ResourceDisabled`].
    pub fn resource(&self, cluster: &ClusterName, caller: &SpiffeId) -> Result<&Resource, Reason> {
        let resources = self.resources.get(cluster).ok_or(Reason::NotRegistered)?;
        let mut allowing = resources.allowing(caller);
        let resource = allowing.next().ok_or(Reason::CallerNotAllowed)?;
        if allowing.next().is_some() {
            return Err(Reason::ResourceAmbiguous);
        }
        if resource.enabled { Ok(resource) } else { Err(Reason::ResourceDisabled) }
    }

    /// Whether all resources of `cluster` want the same credential. In mode `named` they must: Envoy holds one for the
    /// whole cluster, and would show one caller's to the upstream under another's stream.
    #[must_use]
    pub fn has_one_path(&self, cluster: &ClusterName) -> bool {
        let mut resources = self.resources.get(cluster).into_iter().flat_map(Resources::iter);
        let first = resources.next();
        resources.all(|other| first.is_some_and(|first| first.logical_path == other.logical_path))
    }

    /// The clusters whose resources want this credential.
    pub fn clusters_of<'a>(&'a self, path: &'a LogicalPath) -> impl Iterator<Item = &'a ClusterName> {
        let wants = move |resources: &Resources| resources.iter().any(|resource| resource.logical_path == *path);
        self.resources.iter().filter(move |(_, resources)| wants(resources)).map(|(cluster, _)| cluster)
    }

    /// The envelope of a path.
    ///
    /// # Errors
    /// [`Reason::EnvelopeMissing`], or why it can't be used.
    pub fn envelope(&self, path: &LogicalPath) -> Result<&Arc<Envelope>, Reason> {
        match self.envelopes.get(path) {
            Some(Ok(envelope)) => Ok(envelope),
            Some(Err(reason)) => Err(*reason),
            None => Err(Reason::EnvelopeMissing),
        }
    }

    /// The envelope that the tag is of, in whichever version of the backend's, if the tag is of today.
    #[must_use]
    pub fn envelope_of(&self, tag: &Tag) -> Option<&Arc<Envelope>> {
        self.envelope(tag.path()).ok().filter(|envelope| self.enabled && tag.is_of(&envelope.tag))
    }
}

/// A name from outside, short and plain enough for a status line.
fn shown(text: &str) -> String {
    text.chars().filter(char::is_ascii_graphic).take(80).collect()
}

fn parse_resource(raw: &wire::ProtectedResource) -> Option<(ClusterName, Resource)> {
    let callers: Result<Vec<_>, _> = raw.callers.iter().map(|text| text.parse()).collect();
    let resource = Resource {
        name: raw.name.parse().ok()?,
        logical_path: raw.logical_path.parse().ok()?,
        callers: callers.ok()?,
        enabled: raw.enabled,
    };
    Some((raw.cluster.parse().ok()?, resource))
}

/// What a new snapshot makes of decisions that were made under the old one.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Clusters whose decisions may now be others.
    pub clusters: Vec<ClusterName>,
    /// Tags that must not be used any more, not even by streams that carry them.
    pub revoked: Vec<Tag>,
}

impl Changes {
    fn between(old: &Policy, new: &Policy) -> Self {
        let mut changes = Self::default();
        for (cluster, resources) in &old.resources {
            let envelopes = |policy: &Policy| -> Vec<Option<Tag>> {
                resources.iter().map(|r| policy.envelope(&r.logical_path).ok().map(|e| e.tag.clone())).collect()
            };
            let same = old.enabled == new.enabled
                && new.resources.get(cluster) == Some(resources)
                && envelopes(old) == envelopes(new);
            if !same {
                changes.clusters.push(cluster.clone());
            }
            for resource in resources.iter().filter(|resource| resource.enabled && old.enabled) {
                let Ok(envelope) = old.envelope(&resource.logical_path) else { continue };
                let after = new.resources.get(cluster).into_iter().flat_map(Resources::iter);
                let narrowed = after
                    .filter(|now| now.enabled && now.logical_path == resource.logical_path)
                    .all(|now| resource.callers.iter().any(|caller| !now.callers.contains(caller)));
                let now = new.envelope(&resource.logical_path);
                let taken_back =
                    now.is_ok_and(|now| envelope.generation.get() <= now.revoked_through && envelope.tag != now.tag);
                let gone = !new.enabled || narrowed || now.is_err() || taken_back;
                if gone && !changes.revoked.contains(&envelope.tag) {
                    changes.revoked.push(envelope.tag.clone());
                }
            }
        }
        let added = new.resources.keys().filter(|cluster| !old.resources.contains_key(*cluster));
        changes.clusters.extend(added.cloned());
        changes
    }
}

/// Why a snapshot was refused, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is for another bouncer.
    #[error("snapshot_of_another_bouncer")]
    OtherBouncer,
    /// It is older than the one in use.
    #[error("snapshot_replayed")]
    Replayed,
    /// It is a delta, and can't be taken.
    #[error(transparent)]
    Delta(#[from] DeltaFault),
    /// It would make a policy of more than 64 MiB.
    #[error("policy_too_large")]
    TooLarge,
}

/// The policy in use.
#[derive(Debug)]
pub struct PolicyStore {
    bouncer: BouncerName,
    file: PathBuf,
    max_age: Duration,
    state: RwLock<State>,
}

#[derive(Debug, Default)]
struct State {
    policy: Option<Arc<Policy>>,
    /// Of the snapshot in use.
    content: ContentDigest,
    endings: Endings,
    /// When the control plane was last heard, on the monotonic clock.
    contact: Option<Instant>,
    saved: Option<Instant>,
    /// The snapshot in use, encoded, where the disk does not have it yet.
    unsaved: Option<Vec<u8>>,
}

/// How often the time of contact is written to disk, so that a restart knows the snapshot's age.
const SAVE_CONTACT: Duration = Duration::from_secs(30);

impl PolicyStore {
    /// Takes up the last good snapshot of `state_dir`, if it is whole, of this bouncer, and within its age cap.
    /// The second value says why a snapshot that is there was not taken.
    #[must_use]
    pub fn open(bouncer: BouncerName, state_dir: &Path, max_age: Duration) -> (Self, Option<LoadError>) {
        let file = state_dir.join("snapshot");
        let store = Self { bouncer, file, max_age, state: RwLock::default() };
        let (state, problem) = store.load(Endings::open(state_dir));
        *store.state.write().unwrap_or_else(PoisonError::into_inner) = state;
        (store, problem)
    }

    fn load(&self, endings: Endings) -> (State, Option<LoadError>) {
        match self.read_file() {
            Ok(Some((mut snapshot, contact))) => {
                let content = ContentDigest::of(&snapshot);
                snapshot.issued_ms = 0;
                let policy = Some(Arc::new(Policy::parse(snapshot, &endings)));
                (State { policy, content, endings, contact: Some(contact), ..State::default() }, None)
            }
            Ok(None) => (State { endings, ..State::default() }, None),
            Err(error) => (State { endings, ..State::default() }, Some(error)),
        }
    }

    fn read_file(&self) -> Result<Option<(wire::Snapshot, Instant)>, LoadError> {
        let Some(content) = state_file::read(&self.file)? else { return Ok(None) };
        let (contact, raw) = content.split_first_chunk().ok_or(LoadError::NoSnapshot)?;
        let snapshot = wire::Snapshot::decode(raw).map_err(|_| LoadError::NoSnapshot)?;
        if snapshot.bouncer != self.bouncer.as_str() {
            return Err(LoadError::OtherBouncer);
        }
        let heard = state_file::read(&self.heard_file()).ok().flatten();
        // What was heard while another snapshot was in use says nothing of this one.
        let of_it = |heard: &[u8]| {
            let (at, of) = heard.split_first_chunk()?;
            (of == mark(snapshot.epoch, ContentDigest::of(&snapshot))).then(|| u64::from_be_bytes(*at))
        };
        let contact = u64::from_be_bytes(*contact).max(heard.as_deref().and_then(of_it).unwrap_or(0));
        // A clock that went back makes the age unknown, and an unknown age is too old.
        let contact = UNIX_EPOCH + Duration::from_millis(contact);
        let age = SystemTime::now().duration_since(contact).ok().filter(|age| *age <= self.max_age);
        let contact = age.and_then(|age| Instant::now().checked_sub(age)).ok_or(LoadError::TooOld)?;
        Ok(Some((snapshot, contact)))
    }

    /// When the control plane was heard after the snapshot came.
    fn heard_file(&self) -> PathBuf {
        self.file.with_file_name("heard")
    }

    /// The policy, if there is one and the control plane was heard within the age cap.
    ///
    /// # Errors
    /// [`Reason::PolicyMissing`] or [`Reason::PolicyStale`].
    pub fn current(&self) -> Result<Arc<Policy>, Reason> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let policy = state.policy.as_ref().ok_or(Reason::PolicyMissing)?;
        match state.contact {
            Some(contact) if contact.elapsed() <= self.max_age => Ok(Arc::clone(policy)),
            _ => Err(Reason::PolicyStale),
        }
    }

    /// The newest policy that is known, whatever its age. To take away by, never to give.
    #[must_use]
    pub fn latest(&self) -> Option<Arc<Policy>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).policy.clone()
    }

    /// The epoch in use, whatever its age; 0 for none.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.policy.as_ref().map_or(0, |policy| policy.epoch)
    }

    /// How long ago the control plane was heard.
    #[must_use]
    pub fn age(&self) -> Option<Duration> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).contact.map(|contact| contact.elapsed())
    }

    /// Puts a snapshot in use, and says what it changes.
    ///
    /// # Errors
    /// [`Refused`]: it is another bouncer's, or older than the one in use. The one in use stays.
    pub fn install(&self, snapshot: wire::Snapshot) -> Result<(Arc<Policy>, Changes), Refused> {
        self.put(snapshot, None)
    }

    /// As [`Self::install`]; only in the place of what was held, where that is said.
    fn put(
        &self,
        mut snapshot: wire::Snapshot,
        held: Option<(u64, ContentDigest)>,
    ) -> Result<(Arc<Policy>, Changes), Refused> {
        if snapshot.bouncer != self.bouncer.as_str() {
            return Err(Refused::OtherBouncer);
        }
        let content = ContentDigest::of(&snapshot);
        let state = &mut *self.state.write().unwrap_or_else(PoisonError::into_inner);
        if held.is_some() && held != state.policy.as_ref().map(|old| (old.epoch, state.content)) {
            return Err(DeltaFault::OtherBase.into());
        }
        let encoded = encode(&mut snapshot);
        if let Some(old) = &state.policy {
            // The same epoch may come again after a reconnect, but only with the same content.
            let same = snapshot.epoch == old.epoch && content == state.content;
            if snapshot.epoch < old.epoch || (snapshot.epoch == old.epoch && !same) {
                return Err(Refused::Replayed);
            }
        }
        let mut policy = Policy::parse(snapshot, &state.endings);
        let changes = match &state.policy {
            Some(old) => Changes::between(old, &policy),
            None => Changes { clusters: policy.resources.keys().cloned().collect(), revoked: vec![] },
        };
        if !changes.revoked.is_empty() {
            state.endings.count(changes.revoked.iter().map(Tag::path));
            changes.revoked.iter().for_each(|tag| policy.rename(tag.path(), &state.endings));
        }
        let policy = Arc::new(policy);
        state.policy = Some(Arc::clone(&policy));
        state.content = content;
        state.contact = Some(Instant::now());
        state.unsaved = Some(encoded);
        self.save(state);
        Ok((policy, changes))
    }

    /// An envelope that was kept apart from the snapshot, under the name that it has now.
    #[must_use]
    pub fn read(&self, kept: &wire::Envelope) -> Option<Arc<Envelope>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Envelope::parse(kept, &state.endings).ok().map(Arc::new)
    }

    /// The credential was ended here: should it come back, it comes under another tag.
    pub fn end(&self, path: &LogicalPath) {
        let state = &mut *self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.endings.count([path]);
        if let Some(policy) = &mut state.policy {
            Arc::make_mut(policy).rename(path, &state.endings);
        }
    }

    /// The control plane was heard; the snapshot's age restarts.
    pub fn heard(&self) {
        let state = &mut *self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.contact = Some(Instant::now());
        self.save(state);
    }

    /// Brings to disk what it lacks: the snapshot in use, or from time to time when the control plane was heard.
    fn save(&self, state: &mut State) {
        let Some(policy) = &state.policy else { return };
        let now = unix_ms().to_be_bytes();
        let written = if let Some(snapshot) = &state.unsaved {
            state_file::write(&self.file, &[&now[..], snapshot].concat()).inspect_err(|error| self.forget(error))
        } else if state.saved.is_none_or(|saved| saved.elapsed() >= SAVE_CONTACT) {
            let heard = [&now[..], &mark(policy.epoch, state.content)].concat();
            state_file::write(&self.heard_file(), &heard).inspect_err(|error| {
                tracing::warn!(%error, "could not save when the control plane was heard; after a restart the policy is taken for older than it is");
            })
        } else {
            return;
        };
        if written.is_ok() {
            (state.saved, state.unsaved) = (Some(Instant::now()), None);
        }
    }

    /// A disk that can't be written costs the snapshot after a restart, not service now. The one before it may grant what
    /// the one in use does not, so it goes.
    fn forget(&self, error: &std::io::Error) {
        match state_file::remove(&self.file) {
            Ok(()) => {
                tracing::warn!(%error, "the policy snapshot could not be saved, and is tried again; until then a restart will have none until the control plane answers");
            }
            Err(still_there) => {
                tracing::error!(%error, %still_there, "the policy snapshot could not be saved, and is tried again; until then a restart takes up the one before it, up to its age cap");
            }
        }
    }
}

/// Which snapshot it is that the control plane was heard under.
fn mark(epoch: u64, content: ContentDigest) -> Vec<u8> {
    [&epoch.to_be_bytes()[..], &content.to_vec()].concat()
}

/// As it is kept on disk: without when it was issued.
fn encode(snapshot: &mut wire::Snapshot) -> Vec<u8> {
    snapshot.issued_ms = 0;
    snapshot.encode_to_vec()
}

/// Why the snapshot on disk was not taken up. It is fetched anew.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It could not be read, or is damaged.
    #[error(transparent)]
    State(#[from] StateError),
    /// It is whole, and yet no snapshot.
    #[error("the file holds no snapshot")]
    NoSnapshot,
    /// It belongs to another bouncer.
    #[error("the snapshot is of another bouncer")]
    OtherBouncer,
    /// It is older than `bridge.snapshot_max_age_s`, or the clock went back.
    #[error("the snapshot is too old")]
    TooOld,
}

#[cfg(test)]
pub(crate) mod tests;
