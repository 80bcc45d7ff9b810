//! One VM's filter: every callback of Envoy's is one method here, and everything it does goes through [`Host`].
//!
//! Called by `abi` on wasm and by the tests natively. It joins the pure parts: a stream's state, the cache, the calls
//! that are under way, the watch, the use counts. It must never let a protected stream on without the tag of a decision
//! for exactly its facts, and never wait without a deadline.

use crate::cache::Cache;
use crate::clock::{Clock, TICK_MS};
use crate::config::{Config, Faults};
use crate::decision::{Decision, Reply};
use crate::denial::Denial;
use crate::facts::Facts;
use crate::host::{Host, Method, PluginId, Refused, StreamId, Token, wire};
use crate::pending::{Call, Pending};
use crate::plugins::{Plugins, Tick};
use crate::stream::{Effect, Effects, Event, Stream};
use crate::streams::Streams;
use crate::uses::Uses;
use crate::watch::{Change, Freshness, Watch};
use bouncer_custody::Reason;
use bouncer_proto::intercept::v1::Invalidate;
use prost::Message as _;
use std::rc::Rc;

/// What the headers callback answers to Envoy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The stream goes on to the next filter.
    Continue,
    /// It stops here, for now or for good.
    Pause,
}

/// The property's value for a stream that goes on without a credential. It is no tag.
pub const NO_TAG: &str = "none";

/// How long after a call's own deadline the filter stops waiting for the host to say so, in milliseconds.
const GRACE_MS: u64 = 1_000;

/// How long a report of uses may take, in milliseconds. Nobody waits for it.
const REPORT_TIMEOUT_MS: u32 = 2_000;

/// How long a watch may go without an answer, in milliseconds: twice the time after which the resolver answers anyhow.
const WATCH_TIMEOUT_MS: u32 = 20_000;

/// A question whose answer was overtaken is asked at most so often: a rotation alone makes two invalidations, and several
/// may come at once.
const ASKS: u8 = 5;

/// So many tags are asked about in one watch.
const CARRIED: usize = 2_048;

/// The gRPC status of an answer.
const OK: u32 = 0;

/// The gRPC status of a resolver that has too much in hand.
const RESOURCE_EXHAUSTED: u32 = 8;

/// The filter of one VM.
#[derive(Debug)]
pub struct Filter {
    plugins: Plugins,
    /// The resolver's cluster.
    cluster: Box<str>,
    cache: Cache,
    streams: Streams,
    /// Those that are to be cut off, and some that have ended since.
    condemned: Vec<StreamId>,
    /// Tags that streams carried when something may have been missed, still to be asked about.
    unchecked: Vec<Box<str>>,
    /// How many of them the watch that is out asks about.
    asked: usize,
    pending: Pending,
    watch: Watch,
    uses: Uses,
    clock: Clock,
    random: u64,
}

impl Filter {
    /// The filter of a VM whose first plugin was configured at this time of the wall clock. The time also seeds the
    /// hashes, until the resolver's boot id, which no client knows, makes a better seed.
    #[must_use]
    pub fn new(plugin: PluginId, config: Config, wall_ns: u64) -> Self {
        let random = mix(wall_ns ^ u64::from(plugin).rotate_left(32));
        Self {
            cluster: config.intercept_cluster.as_str().into(),
            cache: Cache::new(config.cache_entries, random),
            streams: Streams::default(),
            condemned: Vec::new(),
            unchecked: Vec::new(),
            asked: 0,
            pending: Pending::new(mix(random)),
            plugins: Plugins::new(plugin, config),
            watch: Watch::default(),
            uses: Uses::new(),
            clock: Clock::new(wall_ns / 1_000_000),
            random,
        }
    }

    /// One more plugin was configured in the same VM, or one was configured anew.
    ///
    /// # Errors
    /// It cannot be served together with those that are there.
    pub fn join(&mut self, plugin: PluginId, config: Config) -> Result<(), Faults> {
        self.plugins.join(plugin, config)?;
        let policy = self.plugins.policy();
        self.cluster = policy.intercept_cluster.as_str().into();
        self.cache = Cache::new(policy.cache_entries, self.random);
        Ok(())
    }

    /// The headers of a stream came, with this facts header.
    pub fn on_request_headers(&mut self, host: &mut impl Host, id: StreamId, facts: Option<&[u8]>) -> Action {
        let Some(facts) = facts else { return self.arrive(host, id, &Event::Failed(Reason::FactsMissing)) };
        if !self.streams.has_room() {
            return self.arrive(host, id, &Event::Failed(Reason::Overloaded));
        }
        if let Some(decision) = self.cache.get(facts, self.clock.now_ms()) {
            self.uses.count(decision);
            let (stream, effects) = Stream::Arriving.handle(&Event::Decided(decision), self.plugins.policy());
            return self.perform(host, id, stream, effects).unwrap_or(Action::Pause);
        }
        match self.ask(host, id, facts) {
            Ok(()) => self.arrive(host, id, &Event::Undecided),
            Err(reason) => self.arrive(host, id, &Event::Failed(reason)),
        }
    }

    /// A call was answered with this body, under this gRPC status.
    pub fn on_answer(&mut self, host: &mut impl Host, token: Token, body: &[u8], status: u32) {
        if self.watch.is(token) {
            return self.on_watch_answer(host, body, status);
        }
        let Some(call) = self.pending.settle(token) else { return };
        let mut messages = wire::frames(body);
        match (status, messages.next().flatten(), messages.next()) {
            (OK, Some(message), None) => self.decided(host, call, message),
            // One call, one message.
            (OK, ..) => self.fail(host, &call, Reason::Internal),
            (RESOURCE_EXHAUSTED, ..) => self.fail(host, &call, Reason::Overloaded),
            _ => {
                // Envoy's own deadline comes as UNAVAILABLE: only the time that passed tells it from a broken
                // connection. Its timers may be a little early by the wall clock.
                let passed_ms = host.wall_ms().saturating_sub(call.asked_wall_ms);
                let timeout_ms = u64::from(self.plugins.policy().decide_timeout_ms);
                let late = passed_ms >= timeout_ms - timeout_ms / 16;
                self.fail(host, &call, if late { Reason::ResolverTimeout } else { Reason::ResolverUnavailable });
            }
        }
    }

    fn on_watch_answer(&mut self, host: &mut impl Host, body: &[u8], status: u32) {
        let mut asked = std::mem::take(&mut self.asked);
        for message in wire::frames(body) {
            if status == OK {
                // Answered for; what is void among them follows, and a flush has all of them asked about again.
                self.unchecked.drain(..std::mem::take(&mut asked));
            }
            // One that cannot be read may have been an invalidation.
            let change = self.watch.receive(message.unwrap_or_default());
            self.apply(host, change);
        }
        // What was said is the end of one poll, and the next one goes on from there at once.
        if status == OK && self.watch.ended() { self.open_watch(host) } else { self.close_watch() }
    }

    /// The resolver's answer to a question came.
    fn decided(&mut self, host: &mut impl Host, call: Call, message: &[u8]) {
        // The facts were checked before they became a question.
        let Ok(facts) = Facts::parse(&call.key) else { return self.fail(host, &call, Reason::Internal) };
        let reply = Reply::parse(message, facts.cluster);
        match self.watch.freshness(&reply.boot, reply.epoch) {
            Freshness::Stale if call.asked >= ASKS => self.fail(host, &call, Reason::DecisionStale),
            Freshness::Stale => self.ask_again(host, call),
            fresh => self.settle(host, &call, reply, fresh == Freshness::Keep),
        }
    }

    /// Time passed for this plugin. Each one of a VM has its own ticks; those of the leading one are enough.
    pub fn on_tick(&mut self, host: &mut impl Host, plugin: PluginId) {
        match self.plugins.tick(plugin) {
            Tick::Following => return,
            Tick::Leading => {}
            // Envoy ends the calls of a plugin with it, and says nothing.
            Tick::TakenOver => self.watch.lost(),
        }
        self.clock.tick(host.wall_ms());
        let now_ms = self.clock.now_ms();
        if self.watch.is_overdue(now_ms) {
            self.close_watch();
        }
        if self.watch.is_due(now_ms) {
            self.open_watch(host);
        }
        if let Some(report) = self.uses.report(now_ms) {
            // Its answer says nothing, and a lost report is a lost count.
            let _ = host.call(Method::ReportUses, &self.cluster, &report.encode_to_vec(), REPORT_TIMEOUT_MS, None);
        }
        while let Some(call) = self.pending.overdue(now_ms) {
            self.fail(host, &call, Reason::ResolverTimeout);
        }
    }

    /// A stream has ended, however it did.
    pub fn on_end(&mut self, id: StreamId) {
        self.streams.take(id);
    }

    /// The next stream that is to be cut off, by [`Host::reset`]. To be asked for when a callback is done, until there
    /// is none: Envoy ends the stream within that call, and says so at once. One that is condemned within its own header
    /// callback is not among them yet: its turn comes with the next tick or answer.
    #[must_use]
    pub fn next_condemned(&mut self) -> Option<StreamId> {
        while let Some(id) = self.condemned.pop() {
            if let Some(Stream::Condemned) = self.streams.take(id) {
                return Some(id);
            }
        }
        None
    }

    /// How much is held: cached decisions, calls under way, streams that are followed.
    #[must_use]
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.cache.len(), self.pending.len(), self.streams.len())
    }

    /// Finds or makes the call that this stream will wait for.
    fn ask(&mut self, host: &mut impl Host, id: StreamId, header: &[u8]) -> Result<(), Reason> {
        let facts = Facts::parse(header).map_err(|_| Reason::FactsMissing)?;
        if self.pending.join(header, id) {
            return Ok(());
        }
        if !self.pending.has_room() {
            return Err(Reason::Overloaded);
        }
        let trace = host.trace();
        self.dispatch(host, &facts, header.into(), vec![id], 1, trace.as_deref())
            .map_err(|_| Reason::ResolverUnavailable)
    }

    /// The answer was overtaken by an invalidation: the same streams wait for another.
    fn ask_again(&mut self, host: &mut impl Host, call: Call) {
        let dispatched = match Facts::parse(&call.key) {
            Ok(facts) => {
                // The first question is in the trace already.
                self.dispatch(host, &facts, Rc::clone(&call.key), call.waiting.clone(), call.asked + 1, None).is_ok()
            }
            Err(_) => false,
        };
        if !dispatched {
            self.fail(host, &call, Reason::ResolverUnavailable);
        }
    }

    fn dispatch(
        &mut self,
        host: &mut impl Host,
        facts: &Facts<'_>,
        key: Rc<[u8]>,
        waiting: Vec<StreamId>,
        asked: u8,
        trace: Option<&str>,
    ) -> Result<(), Refused> {
        let timeout_ms = self.plugins.policy().decide_timeout_ms;
        let asked_wall_ms = host.wall_ms();
        let token = host.call(Method::Decide, &self.cluster, &facts.to_request().encode_to_vec(), timeout_ms, trace)?;
        let ends_ms = self.clock.now_ms() + u64::from(timeout_ms + TICK_MS) + GRACE_MS;
        self.pending.add(token, Call { key, waiting, asked, asked_wall_ms, ends_ms });
        Ok(())
    }

    /// Gives every stream that waited its decision, and keeps it if it may be kept.
    fn settle(&mut self, host: &mut impl Host, call: &Call, reply: Reply, keep: bool) {
        let decision = Rc::new(reply.decision);
        let ttl_ms = reply.ttl_ms.min(self.plugins.policy().max_ttl_ms);
        if let Some(ends_ms) = self.clock.deadline(ttl_ms).filter(|_| keep) {
            self.cache.insert(&call.key, Rc::clone(&decision), ends_ms, self.clock.now_ms());
        }
        let mut first = true;
        for id in &call.waiting {
            let performed = self.happen(host, *id, &Event::Decided(&decision)).is_some();
            // The first use is in the resolver's audit already.
            if performed && !std::mem::take(&mut first) {
                self.uses.count(&decision);
            }
        }
    }

    fn fail(&mut self, host: &mut impl Host, call: &Call, reason: Reason) {
        for id in &call.waiting {
            self.happen(host, *id, &Event::Failed(reason));
        }
    }

    /// Does what an event of the watch demands.
    fn apply(&mut self, host: &mut impl Host, change: Change) {
        let invalidate = match change {
            Change::None => return,
            Change::Flush => return self.flush(),
            Change::FlushAnd(invalidate) => {
                self.flush();
                invalidate
            }
            Change::Drop(invalidate) => {
                self.cache.drop_where(|decision| voids(&invalidate, decision));
                invalidate
            }
        };
        if invalidate.reset_streams {
            for id in self.streams.carrying(|decision| names(&invalidate, decision)) {
                self.happen(host, id, &Event::Revoked);
            }
        }
    }

    fn flush(&mut self) {
        let boot = self.watch.request().boot;
        let random = self.next_random();
        self.cache.flush(boot.bytes().fold(random, |seed, byte| mix(seed ^ u64::from(byte))));
        // What was missed may have been the end of a credential that streams carry.
        self.unchecked = self.streams.tags();
    }

    fn open_watch(&mut self, host: &mut impl Host) {
        let mut request = self.watch.request();
        request.carried = self.unchecked.iter().take(CARRIED).map(|tag| String::from(&**tag)).collect();
        match host.call(Method::Watch, &self.cluster, &request.encode_to_vec(), WATCH_TIMEOUT_MS, None) {
            Ok(token) => {
                self.asked = request.carried.len();
                let ends_ms = self.clock.now_ms() + u64::from(WATCH_TIMEOUT_MS + TICK_MS) + GRACE_MS;
                self.watch.opened(token, ends_ms);
            }
            Err(Refused(_)) => self.close_watch(),
        }
    }

    fn close_watch(&mut self) {
        let random = self.next_random();
        self.watch.closed(self.clock.now_ms(), random);
    }

    fn arrive(&mut self, host: &mut impl Host, id: StreamId, event: &Event<'_>) -> Action {
        let (stream, effects) = Stream::Arriving.handle(event, self.plugins.policy());
        self.perform(host, id, stream, effects).unwrap_or(Action::Pause)
    }

    /// Something happens to a stream, if it is still there. As [`Self::perform`].
    fn happen(&mut self, host: &mut impl Host, id: StreamId, event: &Event<'_>) -> Option<Action> {
        let stream = self.streams.take(id)?;
        let (stream, effects) = stream.handle(event, self.plugins.policy());
        self.perform(host, id, stream, effects)
    }

    /// Performs the effects in their order, after which the stream is `stream`. `None` if the host refused one: the
    /// stream is denied here, or cut off if even that is refused.
    fn perform(&mut self, host: &mut impl Host, id: StreamId, stream: Stream, effects: Effects) -> Option<Action> {
        let mut action = Action::Pause;
        for effect in effects {
            let done = match effect {
                Effect::Tag(decision) => host.set_tag(id, decision.tag().unwrap_or(NO_TAG), decision.id.as_deref()),
                Effect::NoTag(decision) => host.set_tag(id, NO_TAG, decision.id.as_deref()),
                Effect::Continue => {
                    action = Action::Continue;
                    Ok(())
                }
                Effect::Resume => host.resume(id),
                Effect::Hold => Ok(()),
                Effect::Deny(denial) => host.deny(id, &denial),
                Effect::Condemn => {
                    self.condemned.push(id);
                    Ok(())
                }
            };
            if done.is_err() {
                if host.deny(id, &Denial::of(Reason::Internal)).is_err() {
                    self.condemned.push(id);
                    self.streams.put(id, Stream::Condemned);
                }
                return None;
            }
        }
        self.streams.put(id, stream);
        Some(action)
    }

    fn next_random(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random
    }
}

/// Whether an invalidation names the tag of this decision.
fn names(invalidate: &Invalidate, decision: &Decision) -> bool {
    decision.tag().is_some_and(|tag| invalidate.tags.iter().any(|void| void == tag))
}

/// Whether an invalidation is about this decision.
fn voids(invalidate: &Invalidate, decision: &Decision) -> bool {
    names(invalidate, decision) || invalidate.clusters.iter().any(|cluster| **cluster == *decision.cluster)
}

/// SplitMix64: spreads seeds and retries, and guards nothing.
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
