//! What an operator has revoked at this resolver, whatever the control plane says.
//!
//! A revocation holds for every generation of a credential up to the one that was known then, so that a credential
//! wrapped anew can take its place; or for the path as such. It is kept on disk, and ends only by the operator's word.
//! [`crate::admin`] takes the orders, [`crate::engine`] asks here before it uses anything.

use crate::state_file;
use bouncer_custody::{Generation, LogicalPath, Reason};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// One revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// The newest generation that it ends; `None` ends every one that will ever come.
    pub through_generation: Option<Generation>,
    /// When, in Unix milliseconds.
    pub time_ms: i64,
}

/// All of them.
#[derive(Debug)]
pub struct Revocations {
    file: PathBuf,
    /// Set where the file could not be read: everything counts as revoked then.
    lost: bool,
    paths: Mutex<BTreeMap<LogicalPath, Revocation>>,
}

impl Revocations {
    /// Those of a former run.
    #[must_use]
    pub fn open(state_dir: &Path) -> Self {
        let file = state_dir.join("revocations");
        let (lost, paths) = match state_file::load(&file) {
            Ok(paths) => (false, paths.unwrap_or_default()),
            Err(_) => {
                tracing::error!(file = %file.display(), "the record of revocations can't be read; everything is denied until it is restored, or removed by who knows that nothing was revoked");
                (true, BTreeMap::new())
            }
        };
        Self { file, lost, paths: Mutex::new(paths) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<LogicalPath, Revocation>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this generation may be used, as far as the operator is concerned.
    ///
    /// # Errors
    /// [`Reason::RevokedByOperator`].
    pub fn check(&self, path: &LogicalPath, generation: Generation) -> Result<(), Reason> {
        let revoked =
            self.lock().get(path).is_some_and(|one| one.through_generation.is_none_or(|last| generation <= last));
        if revoked || self.lost { Err(Reason::RevokedByOperator) } else { Ok(()) }
    }

    /// Adds one. It holds from now on even where it could not be saved.
    ///
    /// # Errors
    /// [`io::Error`]: a restart would forget it.
    pub fn add(&self, path: LogicalPath, revocation: Revocation) -> io::Result<()> {
        let mut paths = self.lock();
        let before = paths.get(&path).map(|before| before.through_generation);
        let through_generation = match before {
            // Never less than what was revoked before.
            Some(None) => None,
            Some(before) => revocation.through_generation.map(|last| before.map_or(last, |before| before.max(last))),
            None => revocation.through_generation,
        };
        paths.insert(path, Revocation { through_generation, ..revocation });
        self.save(&paths)
    }

    /// Takes one back. `false` if there was none.
    ///
    /// # Errors
    /// [`io::Error`]: it still holds.
    pub fn lift(&self, path: &LogicalPath) -> io::Result<bool> {
        let mut paths = self.lock();
        let Some(before) = paths.remove(path) else { return Ok(false) };
        if let Err(error) = self.save(&paths) {
            paths.insert(path.clone(), before);
            return Err(error);
        }
        Ok(true)
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> BTreeMap<LogicalPath, Revocation> {
        self.lock().clone()
    }

    fn save(&self, paths: &BTreeMap<LogicalPath, Revocation>) -> io::Result<()> {
        state_file::store(&self.file, paths)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revocation(through: Option<u64>) -> Revocation {
        Revocation { through_generation: through.and_then(Generation::new), time_ms: 1 }
    }

    #[test]
    fn a_revocation_ends_what_was_known_and_lets_a_newer_one_be_used() {
        let folder = tempfile::tempdir().unwrap();
        let (path, other): (LogicalPath, LogicalPath) = ("a/b".parse().unwrap(), "c".parse().unwrap());
        let revocations = Revocations::open(folder.path());
        revocations.add(path.clone(), revocation(Some(3))).unwrap();
        revocations.add(path.clone(), revocation(Some(2))).unwrap();
        for revocations in [revocations, Revocations::open(folder.path())] {
            let allowed = |path, generation| revocations.check(path, Generation::new(generation).unwrap()).is_ok();
            assert!(!allowed(&path, 1) && !allowed(&path, 3) && allowed(&path, 4) && allowed(&other, 1));
        }
        let revocations = Revocations::open(folder.path());
        revocations.add(path.clone(), revocation(None)).unwrap();
        revocations.add(path.clone(), revocation(Some(3))).unwrap();
        assert!(revocations.check(&path, Generation::new(9).unwrap()).is_err(), "not weakened by a later one");
        assert!(revocations.lift(&path).unwrap() && !revocations.lift(&path).unwrap());
        assert!(Revocations::open(folder.path()).check(&path, Generation::FIRST).is_ok());
    }

    #[test]
    fn a_damaged_record_denies_everything() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("revocations"), "damaged").unwrap();
        assert!(Revocations::open(folder.path()).check(&"a".parse().unwrap(), Generation::FIRST).is_err());
    }
}
