//! The streams that wait or go on, from their arrival to their end.
//!
//! Envoy says when a stream ends, and that is the one thing that makes it safe to act on another stream than the one
//! whose callback runs: until the event loop comes round, Envoy still finds an ended stream by its number, takes a
//! resume, an answer or a reset for it, and may crash over it. What is not in this table is therefore never touched.

use crate::decision::Decision;
use crate::host::StreamId;
use crate::stream::Stream;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::rc::Rc;

/// More streams at once than this are refused.
pub const MAX_STREAMS: usize = 1 << 20;

/// The streams, by Envoy's number. It counts them up itself, so no client can choose where one is kept.
#[derive(Debug, Default)]
pub struct Streams(HashMap<StreamId, Stream, FixedState>);

impl Streams {
    /// A stream is in this state now. One to which nothing more will happen here is not kept.
    pub fn put(&mut self, id: StreamId, stream: Stream) {
        if !matches!(stream, Stream::Arriving | Stream::Done) {
            self.0.insert(id, stream);
        }
    }

    /// Takes a stream's state, to be handled. `None` if it has ended, or is none of those that are kept.
    pub fn take(&mut self, id: StreamId) -> Option<Stream> {
        self.0.remove(&id)
    }

    /// Whether one more can be followed.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.0.len() < MAX_STREAMS
    }

    /// The streams that carry the tag of a decision that is `revoked`.
    #[must_use]
    pub fn carrying(&self, revoked: impl Fn(&Decision) -> bool) -> Vec<StreamId> {
        let carries = |stream: &Stream| matches!(stream, Stream::Carrying(decision) if revoked(decision));
        self.0.iter().filter(|(_, stream)| carries(stream)).map(|(id, _)| *id).collect()
    }

    /// Every tag that a stream carries, once.
    #[must_use]
    pub fn tags(&self) -> Vec<Box<str>> {
        let mut tags: Vec<&str> = Vec::new();
        let mut seen: Option<&Rc<Decision>> = None;
        for stream in self.0.values() {
            // Many streams share one decision, and neighbours often do.
            if let Stream::Carrying(decision) = stream
                && !seen.replace(decision).is_some_and(|before| Rc::ptr_eq(before, decision))
            {
                tags.extend(decision.tag());
            }
        }
        tags.sort_unstable();
        tags.dedup();
        tags.into_iter().map(Into::into).collect()
    }

    /// How many are followed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Outcome;
    use std::cell::Cell;

    fn carrying(tag: &str) -> Stream {
        let outcome = Outcome::Inject(tag.into());
        Stream::Carrying(Rc::new(Decision { cluster: "c".into(), id: None, outcome, uses: Cell::new(0) }))
    }

    #[test]
    fn only_what_has_a_future_is_kept_and_only_until_its_end() {
        let mut streams = Streams::default();
        for (id, stream) in
            [Stream::Arriving, Stream::Waiting, carrying("t"), Stream::Condemned, Stream::Done].into_iter().enumerate()
        {
            streams.put(u32::try_from(id).unwrap(), stream);
        }
        assert_eq!(streams.len(), 3);
        assert!(streams.take(0).is_none() && streams.take(4).is_none());
        assert!(matches!(streams.take(1), Some(Stream::Waiting)));
        assert!(streams.take(1).is_none());
    }

    #[test]
    fn the_revoked_ones_are_found_among_all() {
        let mut streams = Streams::default();
        for id in 0..100 {
            streams.put(id, if id % 10 == 3 { carrying("a") } else { carrying("b") });
        }
        streams.put(100, Stream::Waiting);
        let mut found = streams.carrying(|decision| decision.tag() == Some("a"));
        found.sort_unstable();
        assert_eq!(found, (0..10).map(|n| n * 10 + 3).collect::<Vec<_>>());
        assert_eq!(streams.tags().iter().map(AsRef::as_ref).collect::<Vec<&str>>(), ["a", "b"]);
    }
}
