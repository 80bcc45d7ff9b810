//! Traffic that goes on while a scenario changes things under it, and what became of it.

use crate::client::Client;
use crate::stack::Stack;
use crate::{Fault, Result};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Requests of one client, one after the other, until it is stopped.
pub struct Traffic {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<()>,
}

/// Statuses and reasons, counted. A request without an answer has the status 0.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<(u16, Option<String>), usize>);

impl Traffic {
    /// Starts it.
    #[must_use]
    pub fn start(client: Client) -> Self {
        let (tally, stop) = (Arc::new(Mutex::new(Tally::default())), Arc::new(AtomicBool::new(false)));
        let (count, ended) = (Arc::clone(&tally), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            while !ended.load(Ordering::Relaxed) {
                let key = match client.get("/").await {
                    Ok(reply) => (reply.status.as_u16(), reply.reason().map(str::to_owned)),
                    Err(fault) => (0, Some(fault.what().to_owned())),
                };
                *count.lock().unwrap_or_else(PoisonError::into_inner).0.entry(key).or_default() += 1;
            }
        });
        Self { tally, stop, task }
    }

    /// How many requests were answered so far, or not.
    #[must_use]
    pub fn count(&self) -> usize {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).0.values().sum()
    }

    /// Stops it, and says what became of it.
    ///
    /// # Errors
    /// If it panicked.
    pub async fn end(self) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await?;
        Ok(std::mem::take(&mut *self.tally.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

impl Tally {
    /// Sees to it that there were requests, and that every one ended well.
    ///
    /// # Errors
    /// With all that there was, and the ends of the logs.
    pub fn only_good(self, stack: &Stack) -> Result<()> {
        if self.0.len() == 1 && self.0.contains_key(&(200, None)) {
            return Ok(());
        }
        Err(Fault::new(format!("the traffic saw {:?}", self.0)).with_evidence(stack.scratch.log_tails()))
    }
}
