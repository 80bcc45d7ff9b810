//! Which calls may go out to one KMS, by region and endpoint, or to STS: a [`Breaker`] for one that is down, a [`Pace`]
//! for one that throttles.
//!
//! Called by [`super::Kms`] and its session around each attempt. A call that may not go out fails at once with a transient reason, so
//! that a stream is denied in microseconds or served from what is still held, instead of waiting for a timeout; it waits
//! only where its turn comes within a moment.

use super::breaker::{Admitted, Breaker};
use super::pace::{Pace, Turn};
use bouncer_custody::Reason;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What came of a call, as far as it matters to those that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Seen {
    /// KMS answered, with a plaintext or with a final no.
    Answer,
    /// KMS throttled.
    Throttled,
    /// A server error, no answer in time, or no connection.
    Fault,
}

impl From<Reason> for Seen {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::KmsThrottled => Self::Throttled,
            Reason::KmsUnavailable | Reason::StsUnavailable => Self::Fault,
            _ => Self::Answer,
        }
    }
}

/// The gate to one KMS, or to STS.
#[derive(Debug)]
pub(super) struct Gate {
    to: Box<str>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    breaker: Breaker,
    pace: Pace,
}

/// A call that went out. Dropped without a word, it counts as one that was not answered.
#[derive(Debug)]
pub(super) struct Call {
    gate: Arc<Gate>,
    admitted: Admitted,
    seen: Seen,
}

impl Gate {
    /// An open gate; `to` names what is behind it, for the log.
    pub(super) fn new(to: &str) -> Arc<Self> {
        let state = State { breaker: Breaker::Closed(0), pace: Pace::new(Instant::now()) };
        Arc::new(Self { to: to.into(), state: Mutex::new(state) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call out, at once or in its turn.
    ///
    /// # Errors
    /// [`Reason::KmsUnavailable`] or [`Reason::KmsThrottled`], as KMS last behaved.
    pub(super) async fn pass(self: &Arc<Self>) -> Result<Call, Reason> {
        let now = Instant::now();
        let turn = self.turn(now)?;
        // The timer has milliseconds only, and would make one of the shortest wait.
        if let Some(turn) = turn.filter(|turn| turn.at > now) {
            tokio::time::sleep_until(turn.at.into()).await;
        }
        self.admit(turn, Instant::now())
    }

    /// When the call may go out. Of a KMS that is down the breaker decides, and at once.
    fn turn(&self, now: Instant) -> Result<Option<Turn>, Reason> {
        let mut state = self.state();
        if state.breaker.is_open() {
            return Ok(None);
        }
        state.pace.admit(now).map(Some).ok_or(Reason::KmsThrottled)
    }

    /// Lets it out, its turn having come.
    fn admit(self: &Arc<Self>, turn: Option<Turn>, now: Instant) -> Result<Call, Reason> {
        let mut state = self.state();
        if turn.is_some_and(|turn| !state.pace.is_still_on(turn)) {
            return Err(Reason::KmsThrottled);
        }
        let admitted = state.breaker.admit(now).ok_or(Reason::KmsUnavailable)?;
        Ok(Call { gate: Arc::clone(self), admitted, seen: Seen::Fault })
    }

    fn seen(&self, call: Admitted, seen: Seen, now: Instant) {
        let jitter = rand::random_range(0.8..1.2);
        let mut state = self.state();
        let was_open = state.breaker.is_open();
        state.breaker.seen(call, seen, now, jitter);
        state.pace.seen(seen, now, jitter);
        let is_open = state.breaker.is_open();
        drop(state);
        match (was_open, is_open) {
            (false, true) => {
                tracing::warn!(to = &*self.to, "it is down: no calls but one from time to time, to see");
            }
            (true, false) => tracing::info!(to = &*self.to, "it answers again"),
            _ => {}
        }
    }
}

impl Call {
    /// Says what came of it.
    pub(super) fn ended(mut self, seen: Seen) {
        self.seen = seen;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.gate.seen(self.admitted, self.seen, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_call_that_is_given_up_counts_as_unanswered_and_blocks_no_trial() {
        let (gate, now) = (Gate::new("ca-central-1"), Instant::now());
        for _ in 0..5 {
            drop(gate.admit(None, now).unwrap());
        }
        assert_eq!(gate.admit(None, now).unwrap_err(), Reason::KmsUnavailable);
        let later = now + Duration::from_millis(1_300);
        drop(gate.admit(None, later).expect("a trial"));
        assert_eq!(gate.admit(None, later).unwrap_err(), Reason::KmsUnavailable);
        gate.admit(None, now + Duration::from_secs(9)).expect("another").ended(Seen::Answer);
        assert!(gate.admit(None, now + Duration::from_secs(9)).is_ok());
    }

    #[test]
    fn throttling_and_outage_have_their_own_reasons() {
        let (gate, now) = (Gate::new("ca-central-1"), Instant::now());
        gate.admit(None, now).unwrap().ended(Seen::Throttled);
        let turn = gate.turn(Instant::now()).expect("the first to come may wait").expect("a turn");
        assert!(turn.at > now + Duration::from_millis(50));
        assert_eq!(gate.turn(Instant::now()).unwrap_err(), Reason::KmsThrottled, "and the next may not");
        gate.admit(Some(turn), turn.at).unwrap().ended(Seen::Throttled);
        assert_eq!(gate.admit(Some(turn), turn.at).unwrap_err(), Reason::KmsThrottled, "a turn of before is void");
        assert_eq!(Seen::from(Reason::KmsAccessDenied), Seen::Answer);
    }
}
