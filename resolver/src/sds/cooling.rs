//! Clusters in mode `named` whose credential was just taken back. Envoy keeps idle connections with it for a while, and
//! would use them again; so for that long no stream is let onto the cluster, whatever is enabled again.
//!
//! [`crate::engine`] starts it at a revocation and asks at each decision. Kept on disk, since Envoy's connections survive
//! a restart of ours.

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
    /// Unix milliseconds. The wall clock, since the monotonic one does not survive a restart; a clock that is set back
    /// makes it longer.
    until_ms: Mutex<BTreeMap<ClusterName, u64>>,
}

impl Cooling {
    /// Those of a former run. A record that can't be read is none: it bounds seconds, and the log says so.
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        let file = state_dir.join("cooling");
        let until_ms = state_file::load(&file).unwrap_or_else(|error| {
            tracing::warn!(%error, "the record of clusters whose credential was taken back can't be read");
            None
        });
        Self { file, until_ms: Mutex::new(until_ms.unwrap_or_default()) }
    }

    /// The cluster's credential was taken back now.
    pub fn start(&self, cluster: &ClusterName, time: Duration) {
        let now = unix_ms();
        let mut all = self.until_ms.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, until| *until > now);
        all.insert(cluster.clone(), now.saturating_add(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)));
        if let Err(error) = state_file::store(&self.file, &*all) {
            tracing::warn!(%error, "which clusters' credentials were just taken back could not be saved");
        }
    }

    /// Whether Envoy may still hold connections with what was taken back.
    #[must_use]
    pub fn holds(&self, cluster: &ClusterName) -> bool {
        let all = self.until_ms.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(cluster).is_some_and(|until| *until > unix_ms())
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
}
