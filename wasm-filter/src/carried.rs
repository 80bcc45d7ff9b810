//! The streams that were let on with a tag, so that those with a revoked one can be cut off.
//!
//! Envoy could tell the filter when a stream ends, but every such call into the VM costs a request more than all that
//! the filter does for it (about a microsecond). So the ends are found out instead: a stream that is gone is refused by
//! the host when it is looked for, which is cheap, and is done a tick later, in one go. What has lived through a look is
//! looked for again more rarely. A stream's number is given anew only after four billion others, so it cannot be
//! mistaken for a later one in between.

use crate::decision::Decision;
use crate::host::StreamId;
use std::rc::Rc;

/// More streams at once than this are refused.
pub const MAX_STREAMS: usize = 1 << 20;

/// How many ticks pass before the streams that lived through a look are looked for again.
const OLD_EVERY: u32 = 25;

/// The streams.
#[derive(Debug, Default)]
pub struct Carried {
    young: Vec<(StreamId, Rc<Decision>)>,
    old: Vec<(StreamId, Rc<Decision>)>,
    looks: u32,
}

impl Carried {
    /// One more was let on.
    pub fn add(&mut self, stream: StreamId, decision: &Rc<Decision>) {
        self.young.push((stream, Rc::clone(decision)));
    }

    /// Whether one more can be followed.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.len() < MAX_STREAMS
    }

    /// Forgets the streams that are gone. To be called at every tick.
    pub fn look(&mut self, mut lives: impl FnMut(StreamId) -> bool) {
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(OLD_EVERY) {
            self.old.retain(|(stream, _)| lives(*stream));
        }
        self.old.extend(self.young.drain(..).filter(|(stream, _)| lives(*stream)));
    }

    /// Takes the streams whose decision is `revoked`.
    pub fn take(&mut self, revoked: impl Fn(&Decision) -> bool) -> Vec<(StreamId, Rc<Decision>)> {
        let mut taken = Vec::new();
        for streams in [&mut self.young, &mut self.old] {
            taken.extend(streams.extract_if(.., |(_, decision)| revoked(decision)));
        }
        taken
    }

    /// How many are followed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Outcome;
    use std::cell::Cell;

    fn decision(tag: &str) -> Rc<Decision> {
        let outcome = Outcome::Inject(tag.into());
        Rc::new(Decision { cluster: "c".into(), id: None, outcome, uses: Cell::new(0) })
    }

    #[test]
    fn what_is_gone_is_forgotten_and_what_lives_is_not() {
        let mut carried = Carried::default();
        let decision = decision("t");
        for id in 0..100 {
            carried.add(id, &decision);
        }
        carried.look(|id| id < 10);
        assert_eq!((carried.len(), Rc::strong_count(&decision)), (10, 11));
        let mut asked = 0;
        for _ in 0..OLD_EVERY {
            carried.look(|id| {
                asked += 1;
                id < 5
            });
        }
        assert_eq!((carried.len(), asked), (5, 10), "what is old is asked after once in a while");
    }

    #[test]
    fn revoked_ones_are_found_young_and_old() {
        let mut carried = Carried::default();
        carried.add(1, &decision("a"));
        carried.add(2, &decision("b"));
        carried.look(|_| true);
        carried.add(3, &decision("a"));
        carried.add(4, &decision("b"));
        let mut taken: Vec<_> =
            carried.take(|decision| decision.tag() == Some("a")).iter().map(|(id, _)| *id).collect();
        taken.sort_unstable();
        assert_eq!((taken, carried.len()), (vec![1, 3], 2));
    }

    #[test]
    fn a_steady_flow_of_short_streams_needs_no_new_memory() {
        let mut carried = Carried::default();
        let decision = decision("t");
        let mut capacity = 0;
        for round in 0..100_u32 {
            for id in 0..1_000 {
                carried.add(round * 1_000 + id, &decision);
            }
            carried.look(|_| false);
            if round == 0 {
                capacity = carried.young.capacity();
            }
        }
        assert_eq!((carried.young.capacity(), carried.old.capacity()), (capacity, 0));
    }
}
