//! Snapshots and deltas on their way, in parts: small messages need small buffers, which connections keep.

use prost::Message;

/// What comes in parts, each with all fields and some of the entries.
pub trait Parted: Message + Sized {
    /// In bytes, as it is sent.
    fn length(&self) -> usize {
        self.encoded_len()
    }

    /// Another part follows.
    fn more(&self) -> bool;

    /// Whether `part` belongs to the same whole.
    fn goes_on_with(&self, part: &Self) -> bool;

    /// Adds the part that follows.
    fn absorb(&mut self, part: Self);

    /// The whole in parts of about so many bytes, to be sent in this order.
    #[must_use]
    fn into_parts(self, bytes: usize) -> Vec<Self>;
}

/// Which part an entry goes into.
pub(crate) struct Allotment {
    limit: usize,
    size: usize,
    part: usize,
}

impl Allotment {
    pub(crate) const fn new(limit: usize) -> Self {
        Self { limit, size: 0, part: 0 }
    }

    /// The part for the next entry, which has so many bytes.
    pub(crate) const fn next(&mut self, length: usize) -> usize {
        if self.size > 0 && self.size + length > self.limit {
            self.part += 1;
            self.size = 0;
        }
        self.size += length;
        self.part
    }

    /// How many parts there are.
    pub(crate) const fn count(&self) -> usize {
        self.part + 1
    }

    /// The parts of all entries.
    pub(crate) fn of<T>(&mut self, entries: Vec<T>, length: impl Fn(&T) -> usize) -> Vec<(usize, T)> {
        entries.into_iter().map(|entry| (self.next(length(&entry)), entry)).collect()
    }
}
