//! The audit, told to others as it comes in: decisions and administrative changes, to syslog receivers and collectors
//! of OpenTelemetry. Run by [`crate::serve`], once for each outlet.
//!
//! At least once, in order. Syslog acknowledges nothing, so what was written last is taken for received only once the
//! connection has lived on for a while; if it breaks before, that is written again. A collector answers each batch.
//! What a receiver refuses it is told again, until it takes it. Of several control planes on one database one serves an
//! outlet at a time.

mod otlp;
mod receiver;
mod record;
mod syslog;

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::model::Position;
use crate::store::{Store, StoreError};
use crate::tls::Stamp;
use jiff::Timestamp;
use receiver::{Line, LineFault, Told};
use record::{BATCH, BYTES, Batch};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use otlp::HeadersFault;
pub use receiver::{Receiver, ReceiverFault};

/// How long an outlet is held without a word.
const LEASE: Duration = Duration::from_secs(15);
/// How often it is held on to.
const RENEWAL: Duration = Duration::from_secs(5);
/// How often it is looked for what is new.
const LOOK: Duration = Duration::from_secs(1);
/// For so long a connection must live on before what was written on it is taken for received.
const SETTLED: Duration = Duration::from_secs(10);
/// What a receiver answers to a batch that is too large for it (RFC 9110, section 15.5.14).
const CONTENT_TOO_LARGE: u16 = 413;
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
    Line(#[from] LineFault),
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
    metrics.forward_begins(&name);
    let mut forward = Forward::new(outlet, store, clock, metrics);
    let mut pause = PAUSES.0;
    let mut away = None;
    loop {
        let step = stop.run_until_cancelled(forward.step()).await;
        let ended = match step {
            None => break,
            Some(Ok(Step::Elsewhere)) => stop.run_until_cancelled(forward.wait(RENEWAL)).await,
            Some(Ok(step)) => {
                if away.take().is_some() {
                    tracing::info!(outlet = name, "the audit goes out again");
                }
                pause = PAUSES.0;
                match step {
                    Step::More => continue,
                    _ => stop.run_until_cancelled(forward.wait(LOOK)).await,
                }
            }
            Some(Err(fault)) => {
                let why = fault.to_string();
                if away.as_ref() != Some(&why) {
                    tracing::warn!(outlet = name, why, "the audit does not go out; trying again");
                    away = Some(why);
                }
                let respite = forward.failed(&fault);
                let jittered = pause.mul_f64(rand::random_range(0.5..1.0));
                pause = (pause * 2).min(PAUSES.1);
                match respite {
                    Some(respite) => stop.run_until_cancelled(forward.leave_alone(respite.max(jittered))).await,
                    None => stop.run_until_cancelled(forward.wait(jittered)).await,
                }
            }
        };
        if ended.is_none() {
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
    /// So many bytes the receiver takes at once, as far as is known.
    limit: usize,
    /// What was there to tell it by, the last time.
    stamp: Stamp,
    /// Everything up to here was told.
    told: Position,
    /// Everything up to here is taken for received.
    received: Position,
    last: Instant,
}

impl Forward {
    fn new(outlet: Outlet, store: Arc<dyn Store>, clock: Arc<dyn Clock>, metrics: Arc<Metrics>) -> Self {
        let (holder, last) = (Uuid::now_v7(), Instant::now());
        let (told, received) = (Position::default(), Position::default());
        Self {
            outlet,
            store,
            clock,
            metrics,
            holder,
            renewal: None,
            line: None,
            limit: BYTES,
            stamp: None,
            told,
            received,
            last,
        }
    }

    async fn step(&mut self) -> Result<Step, Fault> {
        // Where it stands is known only with the outlet in hand.
        if (self.line.is_none() || self.is_due()) && !self.hold().await? {
            return Ok(Step::Elsewhere);
        }
        let changes = self.store.changes_behind(self.told.changes, BATCH).await?;
        let decisions = self.store.decisions_behind(self.told.decisions, BATCH).await?;
        let oldest = decisions.first().map(|record| record.received).into_iter();
        let lag = lag(oldest.chain(changes.first().map(|one| one.at)), &*self.clock);
        self.metrics.forward_lag(&self.outlet.name, lag);
        let line = match &mut self.line {
            Some(line) => line,
            None => self.line.insert(self.outlet.receiver.open().await?),
        };
        if line.is_connection() {
            self.metrics.forward_connected(&self.outlet.name, true);
        }
        let batch = Batch::gather(&self.outlet.receiver, self.limit, self.told, changes, decisions)?;
        if batch.records.is_empty() {
            if self.received != self.told && self.last.elapsed() >= SETTLED {
                self.note(self.told).await?;
            }
            return Ok(Step::Idle);
        }
        // Before it is read: what is renewed from now on is new.
        self.stamp = self.outlet.receiver.stamp();
        let told = match line.tell(&batch.records, self.clock.now()).await {
            Err(LineFault::Refused(CONTENT_TOO_LARGE)) if batch.records.len() > 1 => {
                self.limit = batch.bytes() / 2;
                tracing::info!(outlet = self.outlet.name, bytes = self.limit, "the receiver gets smaller batches");
                return Ok(Step::More);
            }
            told => told?,
        };
        let received = match told {
            // The batch before it has been received if this one could be written: a syslog receiver reads in order.
            Told::Written => self.told,
            Told::Received { rejected } => {
                self.took(rejected);
                batch.to
            }
        };
        (self.told, self.last) = (batch.to, Instant::now());
        self.metrics.forwarded(&self.outlet.name, batch.records.len() as u64);
        self.note(received).await?;
        Ok(if batch.more { Step::More } else { Step::Idle })
    }

    /// Whether it is time to hold on to the outlet.
    fn is_due(&self) -> bool {
        self.renewal.is_none_or(|at| at <= Instant::now())
    }

    /// Takes the outlet, or holds on to it. False while another control plane has it.
    async fn hold(&mut self) -> Result<bool, StoreError> {
        let Some(position) = self.store.lease_outlet(&self.outlet.name, self.holder, LEASE).await? else {
            self.lose();
            return Ok(false);
        };
        self.renewal = Some(Instant::now() + RENEWAL);
        if self.line.is_none() {
            (self.told, self.received) = (position, position);
        }
        Ok(true)
    }

    /// The outlet is another control plane's.
    fn lose(&mut self) {
        self.hang_up();
        self.renewal = None;
        self.metrics.forward_lag(&self.outlet.name, 0);
    }

    /// Notes how far it has come; if the outlet is another's by now, so is the rest.
    async fn note(&mut self, to: Position) -> Result<(), Fault> {
        self.received = to;
        if !self.store.advance_outlet(&self.outlet.name, self.holder, to).await? {
            self.lose();
        }
        Ok(())
    }

    /// The receiver took a batch, but for some of it, which it will never take.
    fn took(&self, rejected: u64) {
        self.metrics.forward_connected(&self.outlet.name, true);
        if rejected > 0 {
            self.metrics.forward_rejected(&self.outlet.name, rejected);
            tracing::error!(
                outlet = self.outlet.name,
                rejected,
                "the receiver rejected records, and does not get them again; its own log says why"
            );
        }
    }

    /// Ends the line. Returns for how long the receiver is to be left alone, if it said so.
    fn failed(&mut self, fault: &Fault) -> Option<Duration> {
        self.hang_up();
        let Fault::Line(fault) = fault else { return None };
        self.metrics.forward_failed(&self.outlet.name, fault.failure());
        fault.respite()
    }

    /// Waits, and notices a receiver that goes meanwhile.
    async fn wait(&mut self, wait: Duration) {
        match &mut self.line {
            None => tokio::time::sleep(wait).await,
            Some(line) => {
                if let Ok(()) = tokio::time::timeout(wait, line.ended()).await {
                    self.hang_up();
                }
            }
        }
    }

    /// Waits with the outlet in hand, so that no other control plane asks what the receiver has just answered; until
    /// that may have another answer.
    async fn leave_alone(&mut self, respite: Duration) {
        let until = Instant::now() + respite;
        while Instant::now() < until && self.outlet.receiver.stamp() == self.stamp {
            tokio::time::sleep_until(until.min(Instant::now() + LOOK)).await;
            if self.is_due() && !self.hold().await.is_ok_and(|held| held) {
                return;
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
            line.close().await;
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
