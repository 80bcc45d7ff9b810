//! How often one caller may call: a token bucket (GCRA) for each principal, one as large for each address that presents
//! tokens which are none, and a small one for each address that signs in by the identity provider, which is asked each time.

use crate::buckets::Buckets;
pub use crate::buckets::TooMany;
use governor::Quota;
use std::net::IpAddr;
use std::num::NonZeroU32;

/// How many seconds' worth of calls may come at once.
const BURST: u32 = 4;

/// Calls each second by which one address may sign in, each of which may ask the identity provider: two for one sign-in.
const SIGN_INS: NonZeroU32 = NonZeroU32::new(5).expect("not zero");
/// And how many at once.
const SIGN_INS_AT_ONCE: NonZeroU32 = NonZeroU32::new(50).expect("not zero");

/// The address at the other end of a connection, of IPv6 its /64 network. The listener attaches it to every request.
#[derive(Debug, Clone, Copy)]
pub struct PeerAddress(pub IpAddr);

/// The buckets.
pub struct Limits {
    calls: Buckets<String>,
    failures: Buckets<IpAddr>,
    sign_ins: Buckets<IpAddr>,
}

impl Limits {
    /// So many calls each second of each principal, and four times as many at once.
    #[must_use]
    pub fn new(per_second: NonZeroU32) -> Self {
        let burst = per_second.saturating_mul(NonZeroU32::MIN.saturating_add(BURST - 1));
        let quota = Quota::per_second(per_second).allow_burst(burst);
        let sign_ins = Quota::per_second(SIGN_INS).allow_burst(SIGN_INS_AT_ONCE);
        Self { calls: Buckets::new(quota), failures: Buckets::new(quota), sign_ins: Buckets::new(sign_ins) }
    }

    /// Counts a call of a principal.
    ///
    /// # Errors
    /// [`TooMany`] if it is one too many.
    pub fn call(&self, actor: &str) -> Result<(), TooMany> {
        self.calls.count(actor.to_owned())
    }

    /// Counts a call that signs in by the identity provider.
    ///
    /// # Errors
    /// [`TooMany`] if it is one too many.
    pub fn sign_in(&self, peer: IpAddr) -> Result<(), TooMany> {
        self.sign_ins.count(peer)
    }

    /// Counts a token that is none, or that nobody could be known by.
    ///
    /// # Errors
    /// [`TooMany`] if it is one too many.
    pub fn failure(&self, peer: IpAddr) -> Result<(), TooMany> {
        self.failures.count(peer)
    }
}
