//! Grants: which tag Envoy may fetch, for which cluster, in which Envoy, until when.
//!
//! A decision makes one; SDS serves nothing without. They are kept on disk, without secret bytes, so that a restarted
//! resolver still knows what a running Envoy was granted.

use crate::state_file::{self, unix_ms};
use bouncer_custody::{ClusterName, Tag};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

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

/// All live grants.
#[derive(Debug)]
pub struct Grants {
    file: PathBuf,
    idle: Duration,
    live: Mutex<HashMap<Key, Instant>>,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    tag: String,
    cluster: ClusterName,
    peer: Peer,
    expires_ms: u64,
}

impl Grants {
    /// Takes up what a former run granted and what has not yet expired. A grant ends after `idle` without a decision
    /// that renews it.
    #[must_use]
    pub fn open(state_dir: &Path, idle: Duration) -> Self {
        let file = state_dir.join("grants");
        let saved: Vec<Saved> = state_file::load(&file)
            .unwrap_or_else(|error| {
                tracing::warn!(%error, "the grants of the former run can't be read; Envoy's secrets are granted anew by the next decisions");
                None
            })
            .unwrap_or_default();
        let (now, now_ms) = (Instant::now(), unix_ms());
        let live = saved.into_iter().filter_map(|saved| {
            let left = Duration::from_millis(saved.expires_ms.checked_sub(now_ms)?).min(idle);
            Some((Key { tag: saved.tag.parse().ok()?, cluster: saved.cluster, peer: saved.peer }, now + left))
        });
        let live = Mutex::new(live.collect());
        Self { file, idle, live }
    }

    /// Grants or renews. Returns whether the grant is new, and then it is on disk already.
    pub fn grant(&self, tag: &Tag, cluster: &ClusterName, peer: Peer) -> bool {
        let key = Key { tag: tag.clone(), cluster: cluster.clone(), peer };
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let new = live.insert(key, Instant::now() + self.idle).is_none();
        if new {
            self.save(&live);
        }
        new
    }

    /// Whether this Envoy may fetch the tag for this cluster now.
    #[must_use]
    pub fn allows(&self, tag: &Tag, cluster: &ClusterName, peer: Peer) -> bool {
        let key = Key { tag: tag.clone(), cluster: cluster.clone(), peer };
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(&key).is_some_and(|expires| *expires > Instant::now())
    }

    /// Whether anyone is granted the tag, in whichever version.
    #[must_use]
    pub fn any(&self, tag: &Tag) -> bool {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).keys().any(|key| key.tag.is_of(tag))
    }

    /// All tags that somebody is granted.
    #[must_use]
    pub fn tags(&self) -> HashSet<Tag> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).keys().map(|key| key.tag.clone()).collect()
    }

    /// Whether anyone is granted just this version of the tag.
    #[must_use]
    pub fn any_version(&self, tag: &Tag) -> bool {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).keys().any(|key| key.tag == *tag)
    }

    /// Ends every grant of such tags. Returns those that were granted, and the clusters that each was granted for.
    pub fn revoke(&self, which: impl Fn(&Tag) -> bool) -> HashMap<Tag, HashSet<ClusterName>> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut ended: HashMap<Tag, HashSet<ClusterName>> = HashMap::new();
        live.retain(|key, _| {
            let ends = which(&key.tag);
            if ends {
                ended.entry(key.tag.clone()).or_default().insert(key.cluster.clone());
            }
            !ends
        });
        if !ended.is_empty() {
            self.save(&live);
        }
        ended
    }

    /// Ends what has expired; returns the tags that nobody is granted any more. Called once in a while, and writes
    /// renewed expiries to disk.
    pub fn expire(&self) -> Vec<Tag> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let (kept, ended): (HashMap<_, _>, HashMap<_, _>) = live.drain().partition(|(_, expires)| *expires > now);
        *live = kept;
        self.save(&live);
        let mut tags: Vec<Tag> = ended.into_keys().map(|key| key.tag).collect();
        tags.retain(|tag| !live.keys().any(|key| key.tag == *tag));
        tags
    }

    /// How many grants are live.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is live.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn save(&self, live: &HashMap<Key, Instant>) {
        let (now, now_ms) = (Instant::now(), unix_ms());
        let left = |expires: &Instant| u64::try_from(expires.saturating_duration_since(now).as_millis()).unwrap_or(0);
        let saved: Vec<Saved> = live
            .iter()
            .map(|(key, expires)| Saved {
                tag: key.tag.to_string(),
                cluster: key.cluster.clone(),
                peer: key.peer,
                expires_ms: now_ms + left(expires),
            })
            .collect();
        if let Err(error) = state_file::store(&self.file, &saved) {
            tracing::warn!(%error, "grants could not be saved; after a restart Envoy's secrets are granted anew by the next decisions");
        }
    }
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
