//! What a program does that was told to stop: drops its work, and ends what it started with it.

use crate::Result;
use std::future::Future;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that end a program: SIGINT, SIGTERM and SIGHUP.
pub struct Stop {
    signals: [Signal; 3],
}

impl Stop {
    /// Listens to them from now on.
    ///
    /// # Errors
    /// If the system does not let it.
    pub fn new() -> Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self { signals: [interrupt?, terminate?, hangup?] })
    }

    /// Runs something until it ends, or a signal comes: then `None`, and what it held is dropped.
    pub async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            done = work => Some(done),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            _ = hangup.recv() => None,
        }
    }
}
