//! The questions that the resolver has not answered yet, and the streams that wait for each.
//!
//! Streams with the same facts share one call. A call is known by its facts and by the host's token; a token that is
//! not known (late, cancelled, or of another kind of call) is nobody's answer. A stream that ends while it waits is not
//! looked for here: the table of the streams does not have it any more when its answer comes. The number of calls is bounded.

use crate::host::{StreamId, Token};
use hashbrown::HashMap;
use std::rc::Rc;

/// More calls than this at once are refused.
pub const MAX_CALLS: usize = 1_024;

/// A question that is under way.
#[derive(Debug)]
pub struct Call {
    /// The facts header that it is about.
    pub key: Rc<[u8]>,
    /// The streams that wait for it, in the order of their arrival.
    pub waiting: Vec<StreamId>,
    /// How often it was asked: again where an answer was stale.
    pub asked: u8,
    /// When it was asked, by the wall clock.
    pub asked_wall_ms: u64,
    /// When it ends even if the host never says so, by the filter's clock.
    pub ends_ms: u64,
}

/// All of them.
#[derive(Debug)]
pub struct Pending {
    calls: HashMap<Token, Call, foldhash::quality::SeedableRandomState>,
    tokens: HashMap<Rc<[u8]>, Token, foldhash::quality::SeedableRandomState>,
}

impl Pending {
    /// None.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = foldhash::quality::SeedableRandomState::with_seed(seed, foldhash::SharedSeed::global_fixed());
        Self { calls: HashMap::with_hasher(state.clone()), tokens: HashMap::with_hasher(state) }
    }

    /// Lets a stream wait for the call about these facts. `false` if there is none.
    pub fn join(&mut self, key: &[u8], stream: StreamId) -> bool {
        let call = self.tokens.get(key).and_then(|token| self.calls.get_mut(token));
        call.map(|call| call.waiting.push(stream)).is_some()
    }

    /// Whether one more call may be made.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.calls.len() < MAX_CALLS
    }

    /// A call was made.
    pub fn add(&mut self, token: Token, call: Call) {
        self.tokens.insert(Rc::clone(&call.key), token);
        self.calls.insert(token, call);
    }

    /// Takes the call that this token belongs to.
    pub fn settle(&mut self, token: Token) -> Option<Call> {
        let call = self.calls.remove(&token)?;
        self.tokens.remove(&call.key);
        Some(call)
    }

    /// Takes one call that should have ended by now.
    pub fn overdue(&mut self, now_ms: u64) -> Option<Call> {
        let token = *self.calls.iter().find(|(_, call)| call.ends_ms <= now_ms)?.0;
        self.settle(token)
    }

    /// How many calls are under way.
    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(key: &str, waiting: &[StreamId], ends_ms: u64) -> Call {
        Call { key: key.as_bytes().into(), waiting: waiting.to_vec(), asked: 1, asked_wall_ms: 0, ends_ms }
    }

    #[test]
    fn streams_with_the_same_facts_share_a_call() {
        let mut pending = Pending::new(1);
        assert!(!pending.join(b"a", 1));
        pending.add(7, call("a", &[1], 100));
        assert!(pending.join(b"a", 2));
        assert!(!pending.join(b"b", 3));
        let call = pending.settle(7).unwrap();
        assert_eq!((call.waiting, &*call.key), (vec![1, 2], &b"a"[..]));
        assert!(pending.settle(7).is_none(), "a second answer is nobody's");
        assert!(!pending.join(b"a", 4), "a settled call takes no more streams");
    }

    #[test]
    fn calls_that_the_host_forgot_end_by_themselves() {
        let mut pending = Pending::new(1);
        pending.add(1, call("a", &[1], 100));
        pending.add(3, call("b", &[2], 200));
        assert!(pending.overdue(99).is_none());
        assert_eq!(pending.overdue(100).unwrap().waiting, [1]);
        assert!(pending.overdue(100).is_none());
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn there_is_a_bound() {
        let mut pending = Pending::new(1);
        for n in 0..MAX_CALLS {
            assert!(pending.has_room());
            pending.add(u32::try_from(n).unwrap(), call(&n.to_string(), &[], 1));
        }
        assert!(!pending.has_room());
    }
}
