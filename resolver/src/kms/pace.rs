//! Keeps to what KMS gives when it throttles: a token bucket whose rate follows KMS's answers.
//!
//! Called by the [`super::gate`], which holds one for each region and endpoint. As long as KMS throttles nothing, there
//! is no limit. Then the rate is a little below what KMS last gave, and rises with each answer; so nearly every call that
//! goes out is one that KMS takes, and the rest of its quota stays for others. A call that would have to wait only a
//! little gets its turn, the others are refused. While nothing comes through at all, calls go out ever more rarely. Knows
//! no clock: every call brings its time.

use super::gate::Seen;
use std::time::{Duration, Instant};

/// What a throttled call leaves of the rate.
const CUT: f64 = 0.7;
/// What an answer adds to it: a cycle of cut and rise has some 36 answers for one refusal.
const RISE: f64 = 1.01;
/// What KMS is taken to give at least until it shows less, calls per second.
const GUESS: f64 = 5.0;
/// The least, calls per second.
const LEAST: f64 = 0.2;
/// How long no call goes out after a throttled one; doubled for each that follows without an answer between.
const PAUSE: Duration = Duration::from_millis(100);
/// How long at most.
const LONGEST: Duration = Duration::from_secs(4);
/// How long a call may wait for its turn: a stream is answered within 0.9 s, and an attempt takes its time too.
const PATIENCE: Duration = Duration::from_millis(300);
/// Without a throttled call for so long, there is no limit any more.
const QUIET: Duration = Duration::from_secs(60);

/// The pace of calls to one KMS.
#[derive(Debug)]
pub(super) struct Pace {
    limit: Option<Limit>,
    given: Given,
    /// How often KMS has throttled: turns that were given out before are void after it.
    throttled: u64,
}

#[derive(Debug)]
struct Limit {
    /// Calls per second.
    rate: f64,
    /// The next call's turn. In the past, it is one token; none is saved up beside it.
    turn: Instant,
    /// No call before.
    pause_until: Instant,
    throttled_at: Instant,
    /// Throttled ones since the last answer.
    run: u32,
}

/// When a call may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// Not before.
    pub at: Instant,
    /// How often KMS had throttled by then.
    throttled: u64,
}

/// How many answers KMS gave within about the last second.
#[derive(Debug)]
struct Given {
    since: Instant,
    now: f64,
    before: f64,
}

impl Given {
    fn turn(&mut self, now: Instant) {
        let seconds = now.duration_since(self.since).as_secs();
        if seconds > 0 {
            self.before = if seconds == 1 { self.now } else { 0.0 };
            self.now = 0.0;
            self.since += Duration::from_secs(seconds);
        }
    }

    fn per_second(&mut self, now: Instant) -> f64 {
        self.turn(now);
        self.now + self.before * (1.0 - now.duration_since(self.since).as_secs_f64())
    }
}

impl Pace {
    /// Without a limit.
    pub(super) const fn new(now: Instant) -> Self {
        Self { limit: None, given: Given { since: now, now: 0.0, before: 0.0 }, throttled: 0 }
    }

    /// When a call may go out: at once, or in its turn within a moment. `None` if it may not.
    pub(super) fn admit(&mut self, now: Instant) -> Option<Turn> {
        let throttled = self.throttled;
        let Some(limit) = &mut self.limit else { return Some(Turn { at: now, throttled }) };
        if now.duration_since(limit.throttled_at) > QUIET {
            self.limit = None;
            return Some(Turn { at: now, throttled });
        }
        let at = limit.turn.max(now);
        if at > now + PATIENCE {
            return None;
        }
        limit.turn = at + Duration::from_secs_f64(1.0 / limit.rate);
        Some(Turn { at, throttled })
    }

    /// Whether a call whose turn has come may still go out: KMS may have throttled while it waited.
    pub(super) const fn is_still_on(&self, turn: Turn) -> bool {
        turn.throttled == self.throttled
    }

    /// Takes in what came of a call. `jitter` stretches a pause.
    pub(super) fn seen(&mut self, seen: Seen, now: Instant, jitter: f64) {
        match seen {
            Seen::Answer => {
                self.given.turn(now);
                self.given.now += 1.0;
                if let Some(limit) = &mut self.limit {
                    limit.rate *= RISE;
                    limit.run = 0;
                }
            }
            Seen::Throttled => self.throttled(now, jitter),
            Seen::Fault => {}
        }
    }

    fn throttled(&mut self, now: Instant, jitter: f64) {
        let given = self.given.per_second(now).max(GUESS);
        let limit =
            self.limit.get_or_insert(Limit { rate: f64::MAX, turn: now, pause_until: now, throttled_at: now, run: 0 });
        limit.throttled_at = now;
        self.throttled += 1;
        // Those that went out together are refused together, which is one piece of news.
        if now < limit.pause_until {
            return;
        }
        if limit.run == 0 {
            limit.rate = (limit.rate.min(given) * CUT).max(LEAST);
        }
        let pause = (PAUSE * (1 << limit.run.min(10))).min(LONGEST);
        limit.run += 1;
        limit.pause_until = now + pause.mul_f64(jitter);
        limit.turn = limit.pause_until;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What KMS counted.
    #[derive(Debug, Default)]
    struct Counts {
        attempts: f64,
        taken: f64,
    }

    /// A KMS that takes `quota(second)` calls per second (and saves up one second's), asked `wanted` times per second
    /// for a minute.
    fn minute(quota: impl Fn(u64) -> f64, wanted: u64) -> Counts {
        let start = Instant::now();
        let (mut pace, mut counts, mut tokens) = (Pace::new(start), Counts::default(), quota(0));
        let mut waiting = std::collections::VecDeque::new();
        for tick in 0..60 * wanted {
            let into = Duration::from_nanos(1_000_000_000 * (tick % wanted) / wanted);
            let now = start + Duration::from_secs(tick / wanted) + into;
            let quota = quota(tick / wanted);
            tokens = (tokens + quota / wanted as f64).min(quota);
            waiting.extend(pace.admit(now));
            while let Some(turn) = waiting.pop_front_if(|turn: &mut Turn| turn.at <= now) {
                if !pace.is_still_on(turn) {
                    continue;
                }
                counts.attempts += 1.0;
                let taken = tokens >= 1.0;
                if taken {
                    tokens -= 1.0;
                    counts.taken += 1.0;
                }
                pace.seen(if taken { Seen::Answer } else { Seen::Throttled }, now, 1.0);
            }
        }
        counts
    }

    #[test]
    fn a_minute_of_throttling_costs_at_most_a_tenth_more_attempts_than_kms_takes() {
        for (quota, wanted) in [(5, 50), (20, 200), (20, 30), (200, 2_000), (1_000, 3_000)] {
            let counts = minute(|_| f64::from(quota), wanted);
            let ideal = 60.0 * f64::from(quota);
            assert!(counts.attempts <= 1.1 * ideal, "{quota} {wanted} {counts:?}");
            assert!(counts.attempts <= 1.1 * counts.taken, "{quota} {wanted} {counts:?}");
            assert!(counts.taken >= 0.75 * ideal, "and KMS is not left idle: {quota} {wanted} {counts:?}");
        }
    }

    #[test]
    fn where_nothing_comes_through_calls_go_out_ever_more_rarely() {
        let counts = minute(|second| if second < 1 { 1_000.0 } else { 0.0 }, 100);
        assert!(counts.attempts - counts.taken <= 25.0, "{counts:?}");
        assert!(counts.attempts <= 1.1 * counts.taken + 25.0, "{counts:?}");
    }

    #[test]
    fn a_quota_that_comes_back_is_found_within_seconds() {
        let counts = minute(|second| if (5..30).contains(&second) { 0.0 } else { 40.0 }, 40);
        assert!(counts.taken >= 0.6 * 35.0 * 40.0, "{counts:?}");
    }

    #[test]
    fn without_throttling_there_is_no_limit() {
        let counts = minute(|_| f64::MAX, 5_000);
        assert!((counts.attempts - 300_000.0).abs() < 0.5, "{counts:?}");
    }

    #[test]
    fn calls_that_were_out_together_are_cut_once() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..50 {
            pace.seen(Seen::Answer, start, 1.0);
        }
        for _ in 0..50 {
            pace.seen(Seen::Throttled, start, 1.0);
        }
        assert!(pace.limit.as_ref().is_some_and(|limit| (limit.rate - 35.0).abs() < 0.1), "{pace:?}");
        // Its turn is after the pause, and the next one's a thirty-fifth of a second later.
        let after = |turn: Turn| turn.at.duration_since(start).as_millis();
        let (one, two) = (pace.admit(start).unwrap(), pace.admit(start).unwrap());
        assert_eq!((after(one), after(two)), (100, 128));
        assert!(pace.is_still_on(two));
        // Throttled again before that: who waits goes away, and the pause is longer.
        pace.seen(Seen::Throttled, start + Duration::from_millis(110), 1.0);
        assert!(!pace.is_still_on(two));
        assert_eq!(pace.admit(start + Duration::from_millis(111)).map(after), Some(310));
        let patience: Vec<_> = (0..20).map(|_| pace.admit(start + Duration::from_millis(111))).collect();
        assert!(patience.iter().any(Option::is_none), "not everyone waits");
    }
}
