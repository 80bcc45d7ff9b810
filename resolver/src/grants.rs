//! Grants: which tag Envoy may fetch, for which cluster, in which Envoy, until when.
//!
//! A decision makes one; SDS serves nothing without. They are kept on disk, without secret bytes, so that a restarted
//! resolver still knows what a running Envoy was granted.

use crate::clock::Instant;
use crate::journal::Journal;
use crate::state_file::unix_ms;
use bouncer_custody::{ClusterName, Tag};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The process on the other end of a socket, as the kernel names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Peer {
    /// Its user.
    pub uid: u32,
    /// Its process id; 0 where it lives in a PID namespace that this one cannot see.
    pub pid: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    tag: Tag,
    cluster: ClusterName,
    peer: Peer,
}

/// How often renewed expiries are written to disk. After a restart a grant may end so much earlier.
const SAVE: Duration = Duration::from_secs(60);

/// All live grants.
#[derive(Debug)]
pub struct Grants {
    idle: Duration,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    live: HashMap<Key, Instant>,
    journal: Journal<Saved>,
    saved: Instant,
}

#[derive(Debug, Serialize, Deserialize)]
struct Saved {
    tag: String,
    cluster: ClusterName,
    peer: Peer,
    /// 0 where it was ended before its time.
    expires_ms: u64,
}

impl Grants {
    /// Takes up what a former run granted and what has not yet expired. A grant ends after `idle` without a decision
    /// that renews it.
    #[must_use]
    pub fn open(state_dir: &Path, idle: Duration) -> Self {
        let (journal, saved) = Journal::open(state_dir.join("grants"));
        let saved: Vec<Saved> = saved.unwrap_or_else(|error| {
            tracing::warn!(%error, "the grants of the former run can't be read; Envoy's secrets are granted anew by the next decisions");
            Vec::new()
        });
        let (now, now_ms) = (Instant::now(), unix_ms());
        let mut live = HashMap::new();
        for saved in saved {
            let Ok(tag) = saved.tag.parse() else { continue };
            let key = Key { tag, cluster: saved.cluster, peer: saved.peer };
            match saved.expires_ms.checked_sub(now_ms) {
                Some(left) => live.insert(key, now + Duration::from_millis(left).min(idle)),
                None => live.remove(&key),
            };
        }
        Self { idle, inner: Mutex::new(Inner { live, journal, saved: now }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Grants or renews. Returns whether the grant is new, and then it is on disk already.
    pub fn grant(&self, tag: &Tag, cluster: &ClusterName, peer: Peer) -> bool {
        let key = Key { tag: tag.clone(), cluster: cluster.clone(), peer };
        let expires = Instant::now() + self.idle;
        let inner = &mut *self.lock();
        if let Some(renewed) = inner.live.get_mut(&key) {
            *renewed = expires;
            return false;
        }
        let saved = key.saved(unix_ms() + millis(self.idle));
        inner.live.insert(key, expires);
        inner.append(&saved);
        true
    }

    /// Whether this Envoy may fetch the tag for this cluster now.
    #[must_use]
    pub fn allows(&self, tag: &Tag, cluster: &ClusterName, peer: Peer) -> bool {
        let key = Key { tag: tag.clone(), cluster: cluster.clone(), peer };
        self.lock().live.get(&key).is_some_and(|expires| *expires > Instant::now())
    }

    /// Whether anyone is granted the tag, in whichever version.
    #[must_use]
    pub fn any(&self, tag: &Tag) -> bool {
        self.lock().live.keys().any(|key| key.tag.is_of(tag))
    }

    /// All tags that somebody is granted.
    #[must_use]
    pub fn tags(&self) -> HashSet<Tag> {
        self.lock().live.keys().map(|key| key.tag.clone()).collect()
    }

    /// Whether anyone is granted just this version of the tag.
    #[must_use]
    pub fn any_version(&self, tag: &Tag) -> bool {
        self.lock().live.keys().any(|key| key.tag == *tag)
    }

    /// Ends every grant of such tags. Returns those that were granted, and the clusters that each was granted for.
    pub fn revoke(&self, which: impl Fn(&Tag) -> bool) -> HashMap<Tag, HashSet<ClusterName>> {
        let inner = &mut *self.lock();
        let ended: Vec<Key> = inner.live.keys().filter(|key| which(&key.tag)).cloned().collect();
        let mut clusters: HashMap<Tag, HashSet<ClusterName>> = HashMap::new();
        for key in ended {
            inner.live.remove(&key);
            inner.append(&key.saved(0));
            clusters.entry(key.tag).or_default().insert(key.cluster);
        }
        clusters
    }

    /// Ends what has expired; returns the tags that nobody is granted any more. Called once in a while, and writes
    /// renewed expiries to disk now and then.
    pub fn expire(&self) -> Vec<Tag> {
        let now = Instant::now();
        let inner = &mut *self.lock();
        let ended: HashSet<Tag> = inner.live.extract_if(|_, expires| *expires <= now).map(|(key, _)| key.tag).collect();
        if now.since(inner.saved) >= SAVE {
            inner.save();
        }
        let left: HashSet<&Tag> = inner.live.keys().map(|key| &key.tag).collect();
        ended.into_iter().filter(|tag| !left.contains(tag)).collect()
    }

    /// How many grants are live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().live.len()
    }

    /// Whether none is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Inner {
    fn append(&mut self, saved: &Saved) {
        if let Err(error) = self.journal.append(saved) {
            not_saved(&error);
        } else if self.journal.is_long_for(self.live.len()) {
            self.save();
        }
    }

    fn save(&mut self) {
        let (now, now_ms) = (Instant::now(), unix_ms());
        let saved = |(key, expires): (&Key, &Instant)| key.saved(now_ms + millis(expires.since(now)));
        let all: Vec<Saved> = self.live.iter().map(saved).collect();
        if let Err(error) = self.journal.replace(&all) {
            not_saved(&error);
        }
        self.saved = now;
    }
}

impl Key {
    fn saved(&self, expires_ms: u64) -> Saved {
        Saved { tag: self.tag.to_string(), cluster: self.cluster.clone(), peer: self.peer, expires_ms }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn not_saved(error: &std::io::Error) {
    tracing::warn!(%error, "grants could not be saved; after a restart Envoy's secrets are granted anew by the next decisions");
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Peer = Peer { uid: 1, pid: 2 };

    #[test]
    fn a_grant_is_for_one_tag_one_cluster_one_envoy_and_survives_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Grants::open(folder.path(), Duration::from_secs(60));
        let (tag, other): (Tag, Tag) =
            ("a@1.0123456789abcdef".parse().unwrap(), "a@2.0123456789abcdef".parse().unwrap());
        let (cluster, elsewhere): (ClusterName, ClusterName) = ("c".parse().unwrap(), "d".parse().unwrap());
        let grants = open();
        assert!(grants.grant(&tag, &cluster, PEER));
        assert!(!grants.grant(&tag, &cluster, PEER));
        for grants in [grants, open()] {
            assert!(grants.allows(&tag, &cluster, PEER));
            assert!(!grants.allows(&other, &cluster, PEER));
            assert!(!grants.allows(&tag, &elsewhere, PEER));
            assert!(!grants.allows(&tag, &cluster, Peer { pid: 3, ..PEER }));
            assert!(!grants.allows(&tag, &cluster, Peer { uid: 3, ..PEER }));
        }
        assert_eq!(open().revoke(|granted| *granted == tag).len(), 1);
        assert!(!open().allows(&tag, &cluster, PEER));
    }

    #[test]
    fn what_was_granted_and_ended_often_leaves_a_short_file() {
        let folder = tempfile::tempdir().unwrap();
        let grants = Grants::open(folder.path(), Duration::from_secs(60));
        let (tag, cluster): (Tag, ClusterName) = ("a@1.0123456789abcdef".parse().unwrap(), "c".parse().unwrap());
        for _ in 0..2_000 {
            assert!(grants.grant(&tag, &cluster, PEER));
            assert_eq!(grants.revoke(|_| true).len(), 1);
        }
        let lines = std::fs::read_to_string(folder.path().join("grants")).unwrap().lines().count();
        assert!(lines < 1_500, "{lines}");
        assert!(Grants::open(folder.path(), Duration::from_secs(60)).is_empty());
    }

    #[test]
    fn grants_end_when_idle() {
        let folder = tempfile::tempdir().unwrap();
        let grants = Grants::open(folder.path(), Duration::ZERO);
        let tag: Tag = "a@1.0123456789abcdef".parse().unwrap();
        grants.grant(&tag, &"c".parse().unwrap(), PEER);
        assert!(!grants.allows(&tag, &"c".parse().unwrap(), PEER));
        assert_eq!(grants.expire(), [tag]);
        assert!(grants.is_empty());
    }
}
