//! The clock of everything that ends: secrets, grants, tokens, the policy's age.
//!
//! It only goes forward, whatever is done to the wall clock, and it goes on while the machine is suspended
//! (`CLOCK_BOOTTIME`, clock_gettime(2)). [`std::time::Instant`] stands still then: what ended during the sleep would still
//! be taken for good after it.

use rustix::time::{ClockId, clock_gettime};
use std::ops::Add;
use std::time::Duration;

/// A moment since the machine was booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    /// This moment.
    #[must_use]
    pub fn now() -> Self {
        let now = clock_gettime(ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(now.tv_sec), u32::try_from(now.tv_nsec));
        Self(Duration::new(seconds.unwrap_or_default(), nanos.unwrap_or_default()))
    }

    /// How long ago it was; zero for what is yet to come.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        Self::now().since(*self)
    }

    /// The time since an earlier moment; zero for a later one.
    #[must_use]
    pub const fn since(&self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// An earlier moment, unless the machine was not booted yet.
    #[must_use]
    pub fn checked_sub(&self, time: Duration) -> Option<Self> {
        self.0.checked_sub(time).map(Self)
    }
}

impl Add<Duration> for Instant {
    type Output = Self;
    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn moments_are_ordered_and_none_is_before_the_boot() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        assert!(later > now && now.since(later).is_zero());
        assert_eq!(later.since(now), Duration::from_secs(1));
        assert_eq!(now.checked_sub(now.0 + Duration::from_secs(1)), None);
        assert!(now.checked_sub(Duration::ZERO) == Some(now));
    }

    /// A machine that was suspended for a day has a boot time that is a day ahead of the monotonic clock. A time
    /// namespace looks the same.
    #[test]
    fn the_time_of_a_sleep_counts() {
        const DAY: u64 = 86_400;
        const INSIDE: &str = "BOUNCER_TEST_BOOTED_BEFORE";
        if let Ok(before) = std::env::var(INSIDE) {
            let before = Duration::from_secs(before.parse().unwrap());
            assert!(Instant::now().0 >= before + Duration::from_secs(DAY), "the sleep did not count");
            return;
        }
        let before = Instant::now().0.as_secs().to_string();
        let mut asleep = Command::new("unshare");
        // Without root it takes a user namespace, which not every machine allows.
        let root = rustix::process::geteuid().is_root();
        let user: &[_] = if root { &[] } else { &["--user", "--map-root-user"] };
        asleep.args(user).args(["--time", "--fork", "--boottime", &DAY.to_string()]);
        let own = std::env::current_exe().unwrap();
        let test = asleep.arg(own).args(["--exact", "clock::tests::the_time_of_a_sleep_counts"]).env(INSIDE, before);
        let ended = test.output().unwrap();
        let said = String::from_utf8_lossy(&ended.stderr);
        if !root && said.contains("unshare failed") {
            return;
        }
        assert!(ended.status.success(), "{said} {}", String::from_utf8_lossy(&ended.stdout));
    }
}
