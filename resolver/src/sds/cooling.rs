//! Clusters in mode `named` whose credential was just taken back. Envoy keeps idle connections with it for a while, and
//! would use them again; so for that long no stream is let onto the cluster, whatever is enabled again.
//!
//! [`crate::engine`] starts it at a revocation and asks at each decision. Kept on disk, since Envoy's connections survive
//! a restart of ours.

use crate::clock::Instant;
use crate::state_file::{self, unix_ms};
use bouncer_custody::ClusterName;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// When each of them may be used again.
#[derive(Debug)]
pub struct Cooling {
    file: PathBuf,
    until: Mutex<Until>,
}

/// Twice, and the later end counts: a wall clock that is set makes it longer at most.
#[derive(Debug, Default)]
struct Until {
    /// Unix milliseconds, which alone survive a restart.
    wall_ms: BTreeMap<ClusterName, u64>,
    /// Of this run.
    own: BTreeMap<ClusterName, Instant>,
}

impl Cooling {
    /// Those of a former run. A record that can't be read is none: it bounds seconds, and the log says so.
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        let file = state_dir.join("cooling");
        let wall_ms = state_file::load(&file).unwrap_or_else(|error| {
            tracing::warn!(%error, "the record of clusters whose credential was taken back can't be read");
            None
        });
        let until = Until { wall_ms: wall_ms.unwrap_or_default(), own: BTreeMap::new() };
        Self { file, until: Mutex::new(until) }
    }

    /// The cluster's credential was taken back now.
    pub fn start(&self, cluster: &ClusterName, time: Duration) {
        let (now, now_ms) = (Instant::now(), unix_ms());
        let Until { wall_ms, own } = &mut *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        own.retain(|_, until| *until > now);
        own.insert(cluster.clone(), now + time);
        wall_ms.retain(|_, until| *until > now_ms);
        wall_ms.insert(cluster.clone(), now_ms.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
        if let Err(error) = state_file::store(&self.file, wall_ms) {
            tracing::warn!(%error, "which clusters' credentials were just taken back could not be saved");
        }
    }

    /// Whether Envoy may still hold connections with what was taken back.
    #[must_use]
    pub fn holds(&self, cluster: &ClusterName) -> bool {
        let until = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        let by_wall = until.wall_ms.get(cluster).is_some_and(|until| *until > unix_ms());
        by_wall || until.own.get(cluster).is_some_and(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_cools_for_its_time_also_over_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let (cluster, other): (ClusterName, ClusterName) = ("c".parse().unwrap(), "d".parse().unwrap());
        let cooling = Cooling::open(folder.path());
        cooling.start(&cluster, Duration::from_secs(60));
        for cooling in [cooling, Cooling::open(folder.path())] {
            assert!(cooling.holds(&cluster) && !cooling.holds(&other));
        }
        let cooling = Cooling::open(folder.path());
        cooling.start(&cluster, Duration::ZERO);
        assert!(!cooling.holds(&cluster));
    }

    #[test]
    fn a_wall_clock_that_jumps_ahead_makes_it_no_shorter() {
        let folder = tempfile::tempdir().unwrap();
        let cluster: ClusterName = "c".parse().unwrap();
        let cooling = Cooling::open(folder.path());
        cooling.start(&cluster, Duration::from_secs(60));
        // To the mark it is as if the clock stood two minutes further on.
        if let Some(until) = cooling.until.lock().unwrap().wall_ms.get_mut(&cluster) {
            *until -= 120_000;
        }
        assert!(cooling.holds(&cluster));
    }
}
