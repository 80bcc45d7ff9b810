//! What this resolver has already used, so that a control plane cannot roll a credential back unseen.
//!
//! Without `generation=` in the AAD this memory is the only protection; it is kept on disk, and a resolver that never
//! used the credential has none.

use crate::policy::Envelope;
use crate::state_file;
use bouncer_custody::{LogicalPath, Reason};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The newest generation used of each path, and what it held.
#[derive(Debug)]
pub(super) struct History {
    file: PathBuf,
    used: Mutex<BTreeMap<LogicalPath, (u64, String)>>,
}

impl History {
    pub(super) fn open(state_dir: &Path) -> Self {
        let file = state_dir.join("generations");
        let used = state_file::load(&file).unwrap_or_else(|error| {
            tracing::warn!(%error, "the memory of used generations can't be read; only generation= in the AAD protects against roll-back until they are used again");
            None
        });
        Self { file, used: Mutex::new(used.unwrap_or_default()) }
    }

    /// Refuses an older generation than one used before, and other content under its number.
    pub(super) fn check(&self, envelope: &Envelope) -> Result<(), Reason> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        match used.get(&envelope.path) {
            Some((generation, _)) if envelope.generation.get() < *generation => Err(Reason::RollbackRefused),
            Some((generation, content))
                if envelope.generation.get() == *generation && envelope.content.to_string() != *content =>
            {
                Err(Reason::RollbackRefused)
            }
            _ => Ok(()),
        }
    }

    /// Remembers that it was unwrapped and found good.
    pub(super) fn record(&self, envelope: &Envelope) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let now = (envelope.generation.get(), envelope.content.to_string());
        if used.get(&envelope.path) == Some(&now) {
            return;
        }
        used.insert(envelope.path.clone(), now);
        if let Err(error) = state_file::store(&self.file, &*used) {
            tracing::warn!(%error, "the memory of used generations could not be saved");
        }
    }
}
