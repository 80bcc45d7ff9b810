//! Time, as a role, so that tests can choose it. Everything that stamps or ages asks a [`Clock`].

use jiff::Timestamp;

/// Tells wall-clock time.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        // Stored times are whole milliseconds; what is answered at once must equal what is read back later.
        let now = Timestamp::now();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }
}
