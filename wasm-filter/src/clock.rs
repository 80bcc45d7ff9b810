//! Time as the filter counts it: milliseconds since the VM was configured, advanced by Envoy's ticks alone, so that a
//! warm stream asks the host for no time.
//!
//! Only the wall clock can be had from the host. A jump forward (or a suspended machine) ends entries early, which is
//! safe; a jump back is answered by the tick's own period, so that time never stands still.

/// How often the filter asks Envoy to be called, in milliseconds.
pub const TICK_MS: u32 = 200;

/// The filter's time.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    now_ms: u64,
    wall_ms: u64,
}

impl Clock {
    /// Starts at 0.
    #[must_use]
    pub const fn new(wall_ms: u64) -> Self {
        Self { now_ms: 0, wall_ms }
    }

    /// A tick came, at this time of the wall clock.
    pub fn tick(&mut self, wall_ms: u64) {
        self.now_ms += wall_ms.saturating_sub(self.wall_ms).max(u64::from(TICK_MS));
        self.wall_ms = wall_ms;
    }

    /// Milliseconds since the start, as of the last tick.
    #[must_use]
    pub const fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// When something that begins now and may last `ttl_ms` ends, at the latest: one tick is taken off for the part of
    /// it that has passed unseen. `None` if nothing is left.
    #[must_use]
    pub fn deadline(&self, ttl_ms: u32) -> Option<u64> {
        let left = ttl_ms.checked_sub(TICK_MS).filter(|left| *left > 0)?;
        Some(self.now_ms + u64::from(left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_ticks_count_in_full_and_jumps_back_still_advance() {
        let mut clock = Clock::new(1_000_000);
        clock.tick(1_000_200);
        assert_eq!(clock.now_ms(), 200);
        clock.tick(1_005_200);
        assert_eq!(clock.now_ms(), 5_200);
        clock.tick(0);
        assert_eq!(clock.now_ms(), 5_400);
        clock.tick(200);
        assert_eq!(clock.now_ms(), 5_600);
    }

    #[test]
    fn a_deadline_is_never_late() {
        let clock = Clock::new(0);
        assert_eq!(clock.deadline(1_000), Some(800));
        assert_eq!(clock.deadline(TICK_MS), None);
        assert_eq!(clock.deadline(0), None);
    }
}
