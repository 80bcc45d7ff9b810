//! Stops asking a KMS that is down: after a run of faults calls are refused at once, and from time to time one of them
//! tries whether it is back.
//!
//! Called by the [`super::gate`], which holds one for each region and endpoint. Knows no clock: every call brings its
//! time, so that tests bring theirs.

use super::gate::Seen;
use std::time::{Duration, Instant};

/// So many faults in a row, and no more calls go out.
const RUN: u32 = 5;
/// For how long at first.
const FIRST: Duration = Duration::from_secs(1);
/// For how long at most: what a recovery may go unnoticed.
const LONGEST: Duration = Duration::from_secs(5);

/// The state of one KMS, as its answers show it.
#[derive(Debug)]
pub(super) enum Breaker {
    /// Calls go out; this many faults came in a row.
    Closed(u32),
    /// None goes out until then.
    Open { until: Instant, pause: Duration },
    /// One is out to see.
    Trying { pause: Duration },
}

/// A call that may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admitted {
    /// As always.
    Call,
    /// To see whether KMS is back: its outcome decides for all.
    Trial,
}

impl Breaker {
    /// Whether a call may go out.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Admitted> {
        match *self {
            Self::Closed(_) => Some(Admitted::Call),
            Self::Open { until, pause } if now >= until => {
                *self = Self::Trying { pause };
                Some(Admitted::Trial)
            }
            Self::Open { .. } | Self::Trying { .. } => None,
        }
    }

    /// Takes in what came of a call. `jitter` stretches a pause, so that not all resolvers try in the same instant.
    pub(super) fn seen(&mut self, call: Admitted, seen: Seen, now: Instant, jitter: f64) {
        let open = |pause: Duration| Self::Open { until: now + pause.mul_f64(jitter), pause };
        match (&*self, call, seen) {
            (Self::Closed(run), _, Seen::Fault) if run + 1 < RUN => *self = Self::Closed(run + 1),
            (Self::Closed(_), _, Seen::Fault) => *self = open(FIRST),
            // KMS answers, whatever it says.
            (Self::Closed(_), _, Seen::Answer | Seen::Throttled)
            | (Self::Trying { .. }, Admitted::Trial, Seen::Answer | Seen::Throttled) => *self = Self::Closed(0),
            (Self::Trying { pause }, Admitted::Trial, Seen::Fault) => *self = open((*pause * 2).min(LONGEST)),
            // Of calls that went out before: they say nothing about now.
            (Self::Open { .. }, ..) | (Self::Trying { .. }, Admitted::Call, _) => {}
        }
    }

    /// Whether calls are refused.
    pub(super) const fn is_open(&self) -> bool {
        !matches!(self, Self::Closed(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A minute of a KMS that is down from `from` on and back at `to`, asked ten times a second; the times of the calls
    /// that went out.
    fn outage(from: u64, to: u64) -> Vec<u64> {
        let (mut breaker, start) = (Breaker::Closed(0), Instant::now());
        let mut calls = Vec::new();
        for tick in (0..60_000).step_by(100) {
            let now = start + Duration::from_millis(tick);
            if let Some(call) = breaker.admit(now) {
                calls.push(tick);
                let seen = if (from..to).contains(&tick) { Seen::Fault } else { Seen::Answer };
                breaker.seen(call, seen, now, 1.0);
            }
        }
        calls
    }

    #[test]
    fn a_kms_that_is_down_is_asked_a_few_times_and_found_again() {
        let calls = outage(10_000, 40_000);
        let during = calls.iter().filter(|at| (10_000..40_000).contains(*at)).count();
        assert!((5..=14).contains(&during), "{during}");
        let back = calls.iter().find(|at| **at >= 40_000).unwrap();
        assert!(*back <= 45_000, "{back}");
        assert_eq!(calls.iter().filter(|at| **at >= *back).count() as u64, (60_000 - back) / 100, "all of them again");
        assert_eq!(outage(0, 0).len(), 600);
    }

    #[test]
    fn only_a_run_of_faults_counts() {
        let (mut breaker, now) = (Breaker::Closed(0), Instant::now());
        for round in 0..100 {
            let call = breaker.admit(now).expect("it never opens");
            let seen = [Seen::Fault, Seen::Fault, Seen::Fault, Seen::Fault, Seen::Answer][round % 5];
            breaker.seen(call, seen, now, 1.0);
        }
    }

    #[test]
    fn one_trial_at_a_time_and_no_straggler_decides_it() {
        let (mut breaker, now) = (Breaker::Open { until: Instant::now(), pause: FIRST }, Instant::now());
        let trial = breaker.admit(now).unwrap();
        assert_eq!((trial, breaker.admit(now)), (Admitted::Trial, None));
        breaker.seen(Admitted::Call, Seen::Fault, now, 1.0);
        breaker.seen(Admitted::Call, Seen::Answer, now, 1.0);
        assert_eq!(breaker.admit(now), None, "the trial is still out");
        breaker.seen(trial, Seen::Throttled, now, 1.0);
        assert_eq!(breaker.admit(now), Some(Admitted::Call), "who throttles is alive");
    }
}
