//! Whether the process can do its work: what `/readyz` and the `health` subcommand answer from.

use std::sync::atomic::{AtomicBool, Ordering};

/// Facts that tasks set as they learn them. The database is asked afresh each time.
#[derive(Debug, Default)]
pub struct Readiness {
    identity: AtomicBool,
    bridge: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// Whether there is an SVID that is still valid.
    pub fn set_identity(&self, present: bool) {
        self.identity.store(present, Ordering::Relaxed);
    }

    /// Whether the Policy Bridge takes connections.
    pub fn set_bridge(&self, listening: bool) {
        self.bridge.store(listening, Ordering::Relaxed);
    }

    /// The process is about to end.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// There is an SVID that is still valid.
    #[must_use]
    pub fn identity(&self) -> bool {
        self.identity.load(Ordering::Relaxed)
    }

    /// The Policy Bridge takes connections.
    #[must_use]
    pub fn bridge(&self) -> bool {
        self.bridge.load(Ordering::Relaxed)
    }

    /// The process is about to end.
    #[must_use]
    pub fn draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }
}
