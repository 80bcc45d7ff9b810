//! The audit, told to others as it comes in: decisions and administrative changes, to syslog receivers. Run by
//! [`crate::serve`], once for each outlet.
//!
//! At least once, in order. Syslog acknowledges nothing, so what was written last is taken for received only once the
//! connection has lived on for a while; if it breaks before, that is written again. Of several control planes on one
//! database one serves an outlet at a time.

mod connection;
pub mod syslog;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::model::Position;
use crate::store::{Store, StoreError};
use connection::{Connection, ConnectionError};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use connection::{Receiver, ReceiverFault};

/// How long an outlet is held without a word.
const LEASE: Duration = Duration::from_secs(15);
/// How often it is held on to.
const RENEWAL: Duration = Duration::from_secs(5);
/// How often it is looked for what is new.
const LOOK: Duration = Duration::from_secs(1);
/// For so long a connection must live on before what was written on it is taken for received.
const SETTLED: Duration = Duration::from_secs(10);
/// Records of each kind written at once.
const BATCH: u16 = 500;
/// The pauses after faults.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// One outlet.
#[derive(Debug, Clone)]
pub struct Outlet {
    /// Under which name the database notes how far it has come: 1 to 32 small letters, digits and dashes.
    pub name: String,
    /// Who is told.
    pub receiver: Receiver,
}

#[derive(Debug, thiserror::Error)]
enum Fault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    #[error("a record cannot be written as JSON")]
    Json(#[from] serde_json::Error),
}

/// Whether there may be more at once.
enum Step {
    More,
    Idle,
    /// Another control plane serves it.
    Elsewhere,
}

/// Tells everything, until told to stop.
pub async fn keep(
    outlet: Outlet,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) {
    let name = outlet.name.clone();
    let mut forward = Forward { outlet, store, clock, metrics, holder: Uuid::now_v7(), renewal: None, line: None };
    let mut pause = PAUSES.0;
    let mut away = false;
    loop {
        let step = stop.run_until_cancelled(forward.step()).await;
        let wait = match step {
            None => break,
            Some(Ok(step)) => {
                if std::mem::take(&mut away) {
                    tracing::info!(outlet = name, "the audit goes out again");
                }
                pause = PAUSES.0;
                match step {
                    Step::More => continue,
                    Step::Idle => LOOK,
                    Step::Elsewhere => RENEWAL,
                }
            }
            Some(Err(fault)) => {
                if !std::mem::replace(&mut away, true) {
                    tracing::warn!(outlet = name, why = %fault, "the audit does not go out; trying again");
                }
                forward.hang_up();
                let jittered = pause.mul_f64(rand::random_range(0.5..1.0));
                pause = (pause * 2).min(PAUSES.1);
                jittered
            }
        };
        if stop.run_until_cancelled(forward.wait(wait)).await.is_none() {
            break;
        }
    }
    forward.end().await;
}

struct Forward {
    outlet: Outlet,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    holder: Uuid,
    /// When the outlet is to be held on to again; `None` while it is not held.
    renewal: Option<Instant>,
    line: Option<Line>,
}

/// A connection, and what was written on it.
struct Line {
    connection: Connection,
    /// Everything up to here was written.
    written: Position,
    /// Everything up to here is taken for received.
    received: Position,
    last: Instant,
}

impl Forward {
    async fn step(&mut self) -> Result<Step, Fault> {
        // Where it stands is known only with the outlet in hand.
        if self.line.is_none() || self.renewal.is_none_or(|at| at <= Instant::now()) {
            let held = self.store.lease_outlet(&self.outlet.name, self.holder, LEASE).await?;
            let Some(position) = held else {
                self.hang_up();
                self.renewal = None;
                return Ok(Step::Elsewhere);
            };
            self.renewal = Some(Instant::now() + RENEWAL);
            if self.line.is_none() {
                self.connect(position).await?;
            }
        }
        let Some(line) = &mut self.line else { return Ok(Step::Idle) };
        let decisions = self.store.decisions_behind(line.written.decisions, BATCH).await?;
        let changes = self.store.changes_behind(line.written.changes, BATCH).await?;
        let oldest = decisions.first().map(|record| record.received).into_iter();
        self.metrics.forward_lag(&self.outlet.name, lag(oldest.chain(changes.first().map(|one| one.at)), &*self.clock));
        if decisions.is_empty() && changes.is_empty() {
            if line.received != line.written && line.last.elapsed() >= SETTLED {
                self.settle().await?;
            }
            return Ok(Step::Idle);
        }
        let (told, more) = (decisions.len() + changes.len(), decisions.len().max(changes.len()) == usize::from(BATCH));
        let next = Position {
            decisions: decisions.last().map_or(line.written.decisions, |record| record.seq),
            changes: changes.last().map_or(line.written.changes, |record| record.seq),
        };
        let mut frames = Vec::new();
        for record in changes {
            syslog::change(&mut frames, record)?;
        }
        for record in decisions {
            syslog::decision(&mut frames, record)?;
        }
        line.connection.write(&frames).await?;
        // The batch in front of it has been received if this one could be written: a syslog receiver reads in order.
        let before = std::mem::replace(&mut line.written, next);
        (line.received, line.last) = (before, Instant::now());
        self.metrics.forwarded(&self.outlet.name, told as u64);
        self.note(before).await?;
        Ok(if more { Step::More } else { Step::Idle })
    }

    async fn connect(&mut self, from: Position) -> Result<(), Fault> {
        let connection = Connection::open(&self.outlet.receiver).await?;
        self.metrics.forward_connected(&self.outlet.name, true);
        self.line = Some(Line { connection, written: from, received: from, last: Instant::now() });
        Ok(())
    }

    async fn settle(&mut self) -> Result<(), Fault> {
        let Some(line) = &mut self.line else { return Ok(()) };
        line.received = line.written;
        let to = line.written;
        self.note(to).await
    }

    /// Notes how far it has come; if the outlet is another's by now, so is the rest.
    async fn note(&mut self, to: Position) -> Result<(), Fault> {
        if !self.store.advance_outlet(&self.outlet.name, self.holder, to).await? {
            self.hang_up();
            self.renewal = None;
        }
        Ok(())
    }

    /// Waits, and notices a receiver that goes meanwhile.
    async fn wait(&mut self, wait: Duration) {
        match &mut self.line {
            None => tokio::time::sleep(wait).await,
            Some(line) => {
                if let Ok(()) = tokio::time::timeout(wait, line.connection.ended()).await {
                    self.hang_up();
                }
            }
        }
    }

    fn hang_up(&mut self) {
        self.line = None;
        self.metrics.forward_connected(&self.outlet.name, false);
    }

    /// Closes the connection in order, and leaves the outlet to the next.
    async fn end(mut self) {
        if let Some(line) = &mut self.line {
            line.connection.close().await;
        }
        if self.renewal.is_some()
            && let Err(error) = self.store.release_outlet(&self.outlet.name, self.holder).await
        {
            tracing::debug!(%error, outlet = self.outlet.name, "the outlet is left to its lease");
        }
    }
}

/// Seconds since the oldest of these came in; 0 without any.
fn lag(waiting: impl Iterator<Item = Timestamp>, clock: &dyn Clock) -> i64 {
    waiting.min().map_or(0, |oldest| clock.now().as_second().saturating_sub(oldest.as_second()).max(0))
}
