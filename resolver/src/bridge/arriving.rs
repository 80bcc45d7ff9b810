//! What comes down in parts, until it is whole. The other side is not trusted: size and number of the parts are bounded.

use crate::policy::LARGEST;
use bouncer_proto::Parted;

/// The most parts of one whole: at a quarter of a megabyte each, four times what [`LARGEST`] takes.
const PARTS: usize = 1_024;

/// The parts are too large together, or too many.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// A whole of which parts are still to come.
#[derive(Debug)]
pub(super) struct Arriving<T> {
    begun: Option<T>,
    bytes: usize,
    parts: usize,
}

impl<T> Default for Arriving<T> {
    fn default() -> Self {
        Self { begun: None, bytes: 0, parts: 0 }
    }
}

impl<T: Parted> Arriving<T> {
    /// The whole, once it is there. A part of another one begins anew.
    pub(super) fn add(&mut self, part: T) -> Result<Option<T>, TooLarge> {
        let length = part.length();
        let whole = match self.begun.take().filter(|begun| begun.goes_on_with(&part)) {
            Some(mut begun) => {
                begun.absorb(part);
                begun
            }
            None => {
                (self.bytes, self.parts) = (0, 0);
                part
            }
        };
        self.bytes += length;
        self.parts += 1;
        if self.bytes > LARGEST || self.parts > PARTS {
            return Err(TooLarge);
        }
        if !whole.more() {
            return Ok(Some(whole));
        }
        self.begun = Some(whole);
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bouncer_proto::bridge::v1 as wire;

    fn part(epoch: u64, paths: &[&str], more: bool) -> wire::Snapshot {
        let envelope = |path: &&str| wire::Envelope { logical_path: (*path).to_owned(), ..Default::default() };
        wire::Snapshot { epoch, envelopes: paths.iter().map(envelope).collect(), more, ..Default::default() }
    }

    #[test]
    fn parts_of_one_epoch_make_a_snapshot_and_those_of_another_begin_anew() {
        let mut arriving = Arriving::default();
        assert_eq!(arriving.add(part(1, &["a"], false)).unwrap(), Some(part(1, &["a"], false)));
        assert_eq!(arriving.add(part(2, &["a"], true)).unwrap(), None);
        assert_eq!(arriving.add(part(3, &["b"], true)).unwrap(), None);
        assert_eq!(arriving.add(part(3, &[], true)).unwrap(), None);
        assert_eq!(arriving.add(part(3, &["c"], false)).unwrap(), Some(part(3, &["b", "c"], false)));
        assert_eq!(arriving.add(part(4, &["d"], false)).unwrap(), Some(part(4, &["d"], false)));
    }

    #[test]
    fn what_never_becomes_whole_is_given_up() {
        let mut arriving = Arriving::default();
        let long = "x".repeat(1 << 20);
        let large = (1..80).find(|_| arriving.add(part(1, &[&long], true)).is_err());
        assert_eq!(large, Some(64), "64 parts of a megabyte and their heads");
        let mut arriving = Arriving::default();
        assert_eq!((1..=PARTS + 1).find(|_| arriving.add(part(1, &[], true)).is_err()), Some(PARTS + 1));
        let delta = || wire::PolicyDelta { from_epoch: 1, epoch: 2, more: true, ..Default::default() };
        let mut arriving = Arriving::default();
        assert_eq!((1..=PARTS + 1).find(|_| arriving.add(delta()).is_err()), Some(PARTS + 1));
    }
}
