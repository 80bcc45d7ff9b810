//! How often something may happen: a token bucket (GCRA) for each key, in memory, for this process. Used for callers of the
//! API ([`crate::api::limits`]) and for addresses that enrol ([`crate::bridge::enrol`]).

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::hash::Hash;
use std::time::Duration;

/// So many keys, and those that are full again are forgotten.
const KEYS: usize = 10_000;

/// One too many; wait so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany(pub Duration);

/// The buckets, one for each key.
pub struct Buckets<K: Clone + Eq + Hash> {
    limiter: DefaultKeyedRateLimiter<K>,
    clock: DefaultClock,
}

impl<K: Clone + Eq + Hash> Buckets<K> {
    /// Buckets that all hold and refill as much.
    #[must_use]
    pub fn new(quota: Quota) -> Self {
        Self { limiter: RateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Takes one out of a key's.
    ///
    /// # Errors
    /// [`TooMany`] if it is empty.
    pub fn count(&self, key: K) -> Result<(), TooMany> {
        if self.limiter.len() > KEYS {
            self.limiter.retain_recent();
        }
        self.limiter.check_key(&key).map_err(|until| TooMany(until.wait_time_from(self.clock.now())))
    }
}
