//! The watch: what the resolver takes back, and how current a reply must be to be used.
//!
//! It is a long poll: the resolver answers a call once there is something to say, and each answer is a short stream of
//! events. This module says when to call. It holds where the last stream ended; where the resolver can't go on from
//! there, every cached decision is void. It must never let a reply be kept that an invalidation may have overtaken
//! unseen.

use crate::host::Token;
use bouncer_proto::intercept::v1::{Invalidate, WatchEvent, WatchRequest, watch_event};
use prost::Message as _;

/// The first pause before the stream is opened again, in milliseconds. It doubles up to [`RETRY_MAX_MS`].
pub const RETRY_MIN_MS: u64 = 100;

/// The longest pause, in milliseconds.
pub const RETRY_MAX_MS: u64 = 700;

/// What a reply is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// To be used and kept.
    Keep,
    /// To be used by those who wait for it.
    UseOnce,
    /// An invalidation came in between: ask again.
    Stale,
}

/// What an event demands.
#[derive(Debug, PartialEq)]
pub enum Change {
    /// Nothing.
    None,
    /// Drop every cached decision.
    Flush,
    /// Drop these.
    Drop(Invalidate),
    /// Drop every cached decision, and reset the streams of these.
    FlushAnd(Invalidate),
}

/// The stream and what is known from it.
#[derive(Debug, Default)]
pub struct Watch {
    stream: State,
    /// From where a new stream goes on.
    position: Option<Position>,
    /// The newest epoch of `position.boot` that was seen anywhere on the stream.
    newest: u64,
    /// The run of the resolver before `position.boot`.
    left: Option<String>,
    /// Whether a reply was kept of which `position` knows nothing.
    kept_unknown: bool,
    /// Whether the last answer came well, and the call that followed it is out or just was.
    established: bool,
    failures: u32,
    retry_ms: u64,
    ends_ms: u64,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    /// Asked for; no event yet.
    Opening(Token),
    /// The first event came.
    Up(Token),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Position {
    boot: String,
    epoch: u64,
}

impl Watch {
    /// Whether the stream should be opened now.
    #[must_use]
    pub fn is_due(&self, now_ms: u64) -> bool {
        self.stream == State::Closed && self.retry_ms <= now_ms
    }

    /// What to say first on it.
    #[must_use]
    pub fn request(&self) -> WatchRequest {
        match &self.position {
            Some(position) => WatchRequest { boot: position.boot.clone(), epoch: position.epoch, carried: Vec::new() },
            None => WatchRequest::default(),
        }
    }

    /// It was called under this token, and ends at `ends_ms` even if the host never says so.
    pub const fn opened(&mut self, token: Token, ends_ms: u64) {
        self.stream = State::Opening(token);
        self.ends_ms = ends_ms;
    }

    /// Whether it should have ended by now. The host may have dropped the call with the plugin that made it.
    #[must_use]
    pub fn is_overdue(&self, now_ms: u64) -> bool {
        self.stream != State::Closed && self.ends_ms <= now_ms
    }

    /// It could not be opened, or has ended. `random` spreads the VMs of one Envoy.
    pub fn closed(&mut self, now_ms: u64, random: u64) {
        let longest = (RETRY_MIN_MS << self.failures.min(10)).min(RETRY_MAX_MS);
        self.failures = self.failures.saturating_add(1);
        self.retry_ms = now_ms + longest / 2 + random % (longest / 2 + 1);
        self.stream = State::Closed;
        self.established = false;
    }

    /// It ended well. `true` if it said something, and the next one may follow at once.
    #[must_use]
    pub fn ended(&mut self) -> bool {
        let said_something = matches!(self.stream, State::Up(_));
        if said_something {
            self.stream = State::Closed;
        }
        said_something
    }

    /// It is gone without a word, with the plugin that held it: to be opened again at once.
    pub fn lost(&mut self) {
        self.stream = State::Closed;
        self.established = false;
        self.retry_ms = 0;
    }

    /// Whether the token is that of the stream.
    #[must_use]
    pub fn is(&self, token: Token) -> bool {
        matches!(self.stream, State::Opening(own) | State::Up(own) if own == token)
    }

    /// A message came on it.
    #[must_use]
    pub fn receive(&mut self, message: &[u8]) -> Change {
        let first = match self.stream {
            State::Opening(token) => {
                self.stream = State::Up(token);
                true
            }
            State::Up(_) => false,
            State::Closed => return Change::None,
        };
        let Ok(WatchEvent { boot, epoch, event: Some(event) }) = WatchEvent::decode(message) else {
            return self.lose_track();
        };
        if boot.is_empty() {
            return self.lose_track();
        }
        self.failures = 0;
        self.established = true;
        let known = self.position.as_ref().is_some_and(|position| position.boot == boot);
        let goes_on = known && (!first || (matches!(event, watch_event::Event::Resumed(_)) && !self.kept_unknown));
        if !known {
            self.left = self.position.take().map(|position| position.boot);
            self.newest = 0;
        }
        self.newest = self.newest.max(epoch);
        // `Resumed` may name the newest epoch although what was missed still follows: only what has been applied
        // moves the position, or a break in between would skip it.
        match &mut self.position {
            Some(_) if goes_on && matches!(event, watch_event::Event::Resumed(_)) => {}
            Some(position) => position.epoch = position.epoch.max(epoch),
            None => self.position = Some(Position { boot, epoch }),
        }
        self.kept_unknown &= goes_on;
        match event {
            watch_event::Event::Resumed(_) if goes_on => Change::None,
            watch_event::Event::Resumed(_) | watch_event::Event::Flush(_) => Change::Flush,
            watch_event::Event::Invalidate(invalidate) if goes_on => Change::Drop(invalidate),
            watch_event::Event::Invalidate(invalidate) => Change::FlushAnd(invalidate),
        }
    }

    /// What a reply of this run and epoch is good for.
    #[must_use]
    pub fn freshness(&mut self, boot: &str, epoch: u64) -> Freshness {
        match &self.position {
            Some(position) if position.boot == boot => {
                if epoch < self.newest {
                    Freshness::Stale
                } else {
                    Freshness::Keep
                }
            }
            Some(_) if self.left.as_deref() == Some(boot) => Freshness::Stale,
            Some(_) if self.established => Freshness::UseOnce,
            // The watch is down: its first event will say whether what is kept now can stay.
            _ => {
                self.kept_unknown = true;
                Freshness::Keep
            }
        }
    }

    /// A message that cannot be read may have been an invalidation: nothing is known any more.
    fn lose_track(&mut self) -> Change {
        self.left = None;
        self.position = None;
        self.newest = 0;
        self.kept_unknown = false;
        Change::Flush
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bouncer_proto::intercept::v1::{Flush, Resumed};

    fn event(boot: &str, epoch: u64, event: watch_event::Event) -> Vec<u8> {
        WatchEvent { boot: boot.into(), epoch, event: Some(event) }.encode_to_vec()
    }
    fn resumed(boot: &str, epoch: u64) -> Vec<u8> {
        event(boot, epoch, watch_event::Event::Resumed(Resumed {}))
    }
    fn flush(boot: &str, epoch: u64) -> Vec<u8> {
        event(boot, epoch, watch_event::Event::Flush(Flush {}))
    }
    fn tags() -> Invalidate {
        Invalidate { tags: vec!["t".into()], clusters: vec![], reset_streams: true }
    }
    fn invalidate(boot: &str, epoch: u64) -> Vec<u8> {
        event(boot, epoch, watch_event::Event::Invalidate(tags()))
    }
    fn up(boot: &str, epoch: u64) -> Watch {
        let mut watch = Watch::default();
        watch.opened(2, u64::MAX);
        assert_eq!(watch.receive(&flush(boot, epoch)), Change::Flush);
        watch
    }

    #[test]
    fn the_first_stream_has_nothing_to_go_on_from() {
        let mut watch = Watch::default();
        assert!(watch.is_due(0));
        assert_eq!(watch.request(), WatchRequest::default());
        assert_eq!(watch.freshness("a", 1), Freshness::Keep);
        watch.opened(2, u64::MAX);
        assert!(!watch.is_due(0) && watch.is(2) && !watch.is(4));
        assert_eq!(watch.receive(&resumed("a", 5)), Change::Flush, "what was kept before may be void");
        assert_eq!(watch.request(), WatchRequest { boot: "a".into(), epoch: 5, carried: vec![] });
    }

    #[test]
    fn an_older_reply_is_stale_and_one_of_another_run_is_not_kept() {
        let mut watch = up("a", 5);
        assert_eq!(watch.freshness("a", 5), Freshness::Keep);
        assert_eq!(watch.receive(&invalidate("a", 6)), Change::Drop(tags()));
        assert_eq!(watch.freshness("a", 5), Freshness::Stale);
        assert_eq!(watch.freshness("a", 6), Freshness::Keep);
        assert_eq!(watch.freshness("b", 0), Freshness::UseOnce);
    }

    #[test]
    fn a_stream_that_goes_on_keeps_the_cache() {
        let mut watch = up("a", 5);
        watch.closed(1_000, 0);
        assert_eq!(watch.freshness("a", 5), Freshness::Keep);
        assert!(!watch.is_due(1_000) && watch.is_due(1_000 + RETRY_MIN_MS));
        watch.opened(4, u64::MAX);
        assert_eq!(watch.receive(&resumed("a", 7)), Change::None);
        assert_eq!(watch.freshness("a", 6), Freshness::Stale, "it missed the invalidation that follows");
        assert_eq!(watch.request().epoch, 5, "what was missed has not come yet");
        assert_eq!(watch.receive(&invalidate("a", 7)), Change::Drop(tags()));
        assert_eq!(watch.request().epoch, 7);
    }

    #[test]
    fn a_restarted_resolver_voids_everything() {
        let mut watch = up("a", 5);
        watch.closed(0, 0);
        assert_eq!(watch.freshness("b", 0), Freshness::Keep, "kept until the stream says otherwise");
        watch.opened(4, u64::MAX);
        assert_eq!(watch.receive(&flush("b", 0)), Change::Flush);
        assert_eq!(watch.freshness("a", 9), Freshness::Stale, "a late reply of the run before");
        assert_eq!(watch.freshness("b", 0), Freshness::Keep);
    }

    #[test]
    fn what_another_run_decided_meanwhile_does_not_survive_a_resume() {
        let mut watch = up("a", 5);
        watch.closed(0, 0);
        assert_eq!(watch.freshness("b", 0), Freshness::Keep);
        watch.opened(4, u64::MAX);
        assert_eq!(watch.receive(&resumed("a", 5)), Change::Flush);
    }

    #[test]
    fn between_two_calls_it_counts_as_up() {
        let mut watch = up("a", 5);
        assert!(watch.ended() && watch.is_due(0));
        watch.opened(4, u64::MAX);
        assert_eq!(watch.freshness("b", 0), Freshness::UseOnce);
        assert_eq!(watch.receive(&resumed("a", 5)), Change::None);
        assert_eq!(watch.receive(&invalidate("a", 6)), Change::Drop(tags()));
        let mut silent = Watch::default();
        silent.opened(2, u64::MAX);
        assert!(!silent.ended(), "an empty answer is no answer");
    }

    #[test]
    fn what_cannot_be_read_voids_everything() {
        for message in [&[][..], &[0xff; 5], &WatchEvent { boot: "a".into(), ..WatchEvent::default() }.encode_to_vec()]
        {
            let mut watch = up("a", 5);
            assert_eq!(watch.receive(message), Change::Flush);
            assert_eq!(watch.request(), WatchRequest::default());
        }
    }

    #[test]
    fn an_invalidation_that_comes_first_or_from_another_run_voids_everything() {
        let mut watch = Watch::default();
        watch.opened(2, u64::MAX);
        assert_eq!(watch.receive(&invalidate("a", 1)), Change::FlushAnd(tags()));
        assert_eq!(watch.receive(&invalidate("b", 1)), Change::FlushAnd(tags()));
        assert_eq!(watch.receive(&invalidate("b", 2)), Change::Drop(tags()));
        watch.closed(0, 0);
        assert_eq!(watch.receive(&invalidate("b", 3)), Change::None, "a closed stream says nothing");
    }

    #[test]
    fn pauses_grow_up_to_a_bound_and_start_again_after_an_event() {
        let mut watch = Watch::default();
        let mut longest = 0;
        for random in 0..50 {
            watch.closed(0, random * 977);
            assert!(watch.retry_ms >= RETRY_MIN_MS / 2 && watch.retry_ms <= RETRY_MAX_MS);
            longest = longest.max(watch.retry_ms);
        }
        assert!(longest > RETRY_MAX_MS / 2);
        watch.opened(2, u64::MAX);
        assert_eq!(watch.receive(&flush("a", 1)), Change::Flush);
        watch.closed(0, u64::MAX);
        assert!(watch.retry_ms <= RETRY_MIN_MS);
    }
}
