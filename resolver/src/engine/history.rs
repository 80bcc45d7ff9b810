//! What this resolver has already used, so that a control plane cannot roll a credential back unseen.
//!
//! Without `generation=` in the AAD this memory is the only protection; it is kept on disk, and a resolver that never
//! used the credential has none.

use crate::journal::Journal;
use crate::policy::Envelope;
use bouncer_custody::{LogicalPath, Reason};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The newest generation used of each path, and what it held.
#[derive(Debug)]
pub(super) struct History {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    used: BTreeMap<LogicalPath, Used>,
    journal: Journal<Used>,
    /// Whether the journal has lines that a loss of power would take.
    unsynced: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Used {
    path: LogicalPath,
    generation: u64,
    content: String,
}

impl History {
    pub(super) fn open(state_dir: &Path) -> Self {
        let (journal, used) = Journal::open(state_dir.join("generations"));
        let used = used.unwrap_or_else(|error| {
            tracing::warn!(%error, "the memory of used generations can't be read; only generation= in the AAD protects against roll-back until they are used again");
            Vec::new()
        });
        let used = used.into_iter().map(|used: Used| (used.path.clone(), used)).collect();
        Self { inner: Mutex::new(Inner { used, journal, unsynced: false }) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses an older generation than one used before, and other content under its number.
    pub(super) fn check(&self, envelope: &Envelope) -> Result<(), Reason> {
        let generation = envelope.generation.get();
        match self.lock().used.get(&envelope.path) {
            Some(used) if generation < used.generation => Err(Reason::RollbackRefused),
            Some(used) if generation == used.generation && envelope.content.to_string() != used.content => {
                Err(Reason::RollbackRefused)
            }
            _ => Ok(()),
        }
    }

    /// Remembers that it was unwrapped and found good.
    pub(super) fn record(&self, envelope: &Envelope) {
        let (path, generation) = (envelope.path.clone(), envelope.generation.get());
        let now = Used { path, generation, content: envelope.content.to_string() };
        let inner = &mut *self.lock();
        if inner.used.get(&now.path) == Some(&now) {
            return;
        }
        let mut written = inner.journal.append(&now);
        inner.used.insert(now.path.clone(), now);
        if written.is_ok() && inner.journal.is_long_for(inner.used.len()) {
            written = inner.journal.replace(inner.used.values());
        }
        inner.unsynced = true;
        if let Err(error) = written {
            tracing::warn!(%error, "the memory of used generations could not be saved");
        }
    }

    /// Makes what was recorded so far outlive a loss of power too. Waits for the disk.
    pub(super) fn sync(&self) {
        let sync = {
            let inner = &mut *self.lock();
            if !std::mem::take(&mut inner.unsynced) {
                return;
            }
            inner.journal.sync()
        };
        if let Err(error) = sync.and_then(|sync| sync()) {
            tracing::warn!(%error, "the memory of used generations could not be synced");
        }
    }
}
