//! How often one caller may call: a token bucket (GCRA) for each principal, and one as large for each address that
//! presents tokens which are none.

use crate::buckets::Buckets;
pub use crate::buckets::TooMany;
use governor::Quota;
use std::net::IpAddr;
use std::num::NonZeroU32;

/// How many seconds' worth of calls may come at once.
const BURST: u32 = 4;

/// The address at the other end of a connection. The listener attaches it to every request.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub IpAddr);

/// The buckets.
pub struct Limits {
    calls: Buckets<String>,
    failures: Buckets<IpAddr>,
}

impl Limits {
    /// So many calls each second of each principal, and four times as many at once.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(BURST - 1));
        let quota = Quota::per_second(per_second).allow_burst(burst);
        Self { calls: Buckets::new(quota), failures: Buckets::new(quota) }
    }

    /// Counts a call of a principal.
    ///
    /// # Errors
    /// [`TooMany`] if it is one too many.
    pub fn call(&self, actor: &str) -> Result<(), TooMany> {
        self.calls.count(actor.to_owned())
    }

    /// Counts a token that is none.
    ///
    /// # Errors
    /// [`TooMany`] if it is one too many.
    pub fn failure(&self, peer: IpAddr) -> Result<(), TooMany> {
        self.failures.count(peer)
    }
}
