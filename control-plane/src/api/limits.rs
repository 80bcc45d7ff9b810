//! How often one caller may call: a token bucket (GCRA) for each principal, and one as large for each address that
//! presents tokens which are none. In memory, for this process.

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::time::Duration;

/// How many seconds' worth of calls may come at once.
const BURST: u32 = 4;
/// So many keys, and those that are full again are forgotten.
const KEYS: usize = 10_000;

/// The address at the other end of a connection. The listener attaches it to every request.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub IpAddr);

/// Too many calls; wait so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooMany(pub Duration);

/// The buckets.
pub struct Limits {
    calls: DefaultKeyedRateLimiter<String>,
    failures: DefaultKeyedRateLimiter<IpAddr>,
    clock: DefaultClock,
}

impl Limits {
    /// So many calls each second of each principal, and four times as many at once.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(BURST - 1));
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self { calls: RateLimiter::keyed(quota), failures: RateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Counts a call of a principal.
    ///
    /// # Errors
    /// [`TooMany`] if it is one too many.
    pub fn call(&self, actor: &str) -> Result<(), TooMany> {
        self.count(&self.calls, actor.to_owned())
    }

    /// Counts a token that is none.
    ///
    /// # Errors
    /// [`TooMany`] if it is one too many.
    pub fn failure(&self, peer: IpAddr) -> Result<(), TooMany> {
        self.count(&self.failures, peer)
    }

    fn count<K: Clone + Eq + Hash>(&self, buckets: &DefaultKeyedRateLimiter<K>, key: K) -> Result<(), TooMany> {
        if buckets.len() > KEYS {
            buckets.retain_recent();
        }
        buckets.check_key(&key).map_err(|until| TooMany(until.wait_time_from(self.clock.now())))
    }
}
