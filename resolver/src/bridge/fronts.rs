//! Which of the control plane's addresses comes next, and after how long.

use super::SILENCE;
use rand::seq::SliceRandom as _;
use std::time::Duration;

/// The first pause after every address has failed; doubled up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(5);

/// The control plane's addresses, in an order of this resolver's own, so that bouncers spread over them.
#[derive(Debug)]
pub(super) struct Fronts {
    order: Vec<String>,
    /// In a row, each shorter than [`SILENCE`].
    failed: usize,
    wait: Duration,
}

impl Fronts {
    pub(super) fn new(addresses: &[String]) -> Self {
        let mut order = addresses.to_vec();
        order.shuffle(&mut rand::rng());
        Self { order, failed: 0, wait: FIRST }
    }

    /// The one to try now.
    pub(super) fn current(&self) -> &str {
        self.order.first().map_or("", String::as_str)
    }

    /// The connection has ended after so long: moves on, and gives the pause before the next one is tried. It is short
    /// until every address has failed. One that `served` may come again at once: it ended the connection for its age.
    pub(super) fn ended(&mut self, lasted: Duration, served: bool) -> Duration {
        if lasted > SILENCE {
            (self.failed, self.wait) = (0, FIRST);
        }
        if self.failed == 0 {
            // The others anew by chance, so that they do not fill up one after the other.
            let from = usize::from(!served);
            self.order[from..].shuffle(&mut rand::rng());
        }
        if !served {
            self.order.rotate_left(1);
        }
        self.failed += 1;
        let pause = if self.failed.is_multiple_of(self.order.len()) {
            let wait = self.wait;
            self.wait = (wait * 2).min(LONGEST);
            wait
        } else {
            FIRST
        };
        pause.mul_f64(rand::random_range(0.5..1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const SHORT: Duration = Duration::from_millis(1);

    fn fronts(count: usize) -> Fronts {
        Fronts::new(&(0..count).map(|n| format!("cp-{n}:9443")).collect::<Vec<_>>())
    }

    #[test]
    fn every_address_is_tried_before_a_longer_pause() {
        let mut fronts = fronts(3);
        for round in 0..10_u32 {
            let mut tried = HashSet::new();
            for turn in 1..=3 {
                tried.insert(fronts.current().to_owned());
                let pause = fronts.ended(SHORT, false);
                let most = if turn == 3 { (FIRST * 2_u32.pow(round.min(10))).min(LONGEST) } else { FIRST };
                assert!(pause <= most && pause >= most / 2, "{round}, {turn}: {pause:?}");
            }
            assert_eq!(tried.len(), 3);
        }
        // A connection that lasted makes all of it good again.
        assert!(fronts.ended(SILENCE * 2, false) <= FIRST);
    }

    #[test]
    fn first_choices_spread() {
        let first: HashSet<_> = (0..200).map(|_| fronts(3).current().to_owned()).collect();
        assert_eq!(first.len(), 3);
    }

    #[test]
    fn one_that_is_gone_is_never_the_next_one() {
        for _ in 0..50 {
            let mut fronts = fronts(2);
            let gone = fronts.current().to_owned();
            fronts.ended(SILENCE * 2, false);
            assert_ne!(fronts.current(), gone);
        }
        let mut alone = fronts(1);
        alone.ended(SHORT, false);
        assert_eq!(alone.current(), "cp-0:9443");
    }
}
