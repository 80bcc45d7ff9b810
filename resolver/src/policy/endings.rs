//! How often this resolver has ended each credential, so that one that comes back comes under another name: Envoy keeps
//! idle connections of the old name for a while, and must not use them for it.
//!
//! [`super::PolicyStore`] counts, and the tags of envelopes digest the count. Kept on disk; where it was lost, all names
//! change, which costs Envoy new connections and nothing else.

use crate::state_file;
use bouncer_custody::LogicalPath;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The counts.
#[derive(Debug, Default)]
pub(crate) struct Endings {
    file: Option<PathBuf>,
    counts: Counts,
}

#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Counts {
    /// Where all counts begin: 0, unless they were lost once.
    base: u64,
    paths: BTreeMap<LogicalPath, u64>,
}

impl Endings {
    /// The counts of a former run, if there was one.
    pub(super) fn open(state_dir: &Path) -> Self {
        let file = state_dir.join("endings");
        let counts = match state_file::load(&file) {
            Ok(counts) => counts.unwrap_or_default(),
            Err(_) => {
                tracing::warn!("the record of ended credentials can't be read; Envoy makes new connections for all");
                Counts { base: u64::from(rand::random::<u32>()) + 1, paths: BTreeMap::new() }
            }
        };
        Self { file: Some(file), counts }
    }

    /// How often the credential was ended.
    pub(super) fn of(&self, path: &LogicalPath) -> u64 {
        self.counts.base + self.counts.paths.get(path).copied().unwrap_or(0)
    }

    /// These are ended once more.
    pub(super) fn count<'a>(&mut self, paths: impl IntoIterator<Item = &'a LogicalPath>) {
        for path in paths {
            *self.counts.paths.entry(path.clone()).or_default() += 1;
        }
        let Some(file) = &self.file else { return };
        if let Err(error) = state_file::store(file, &self.counts) {
            tracing::warn!(%error, "the record of ended credentials could not be saved; after a restart one that is enabled again may use connections of before");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_survive_a_restart_and_a_lost_file_changes_every_name() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other): (LogicalPath, LogicalPath) = ("a/b".parse().unwrap(), "c".parse().unwrap());
        let mut endings = Endings::open(folder.path());
        assert_eq!(endings.of(&one), 0);
        endings.count([&one, &one]);
        let again = Endings::open(folder.path());
        assert_eq!((again.of(&one), again.of(&other)), (2, 0));
        std::fs::write(folder.path().join("endings"), "damaged").unwrap();
        let lost = Endings::open(folder.path());
        assert!(lost.of(&one) > 0 && lost.of(&other) > 0);
    }
}
