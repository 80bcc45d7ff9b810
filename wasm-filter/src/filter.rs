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
use crate::host::{Host, Method, PluginId, StreamId, Token, wire};
use crate::pending::{Call, Pending};
use crate::plugins::Plugins;
use crate::stream::{Effect, Effects, Event, Stream};
use crate::uses::Uses;
use crate::watch::{Change, Freshness, Watch};
use bouncer_custody::Reason;
use bouncer_proto::intercept::v1::Invalidate;
use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;
use hashbrown::HashMap;
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

/// More streams at once than this in one VM are refused.
pub const MAX_STREAMS: usize = 1 << 20;

/// How long after a call's own deadline the filter stops waiting for the host to say so, in milliseconds.
const GRACE_MS: u64 = 1_000;

/// How long a report of uses may take, in milliseconds. Nobody waits for it.
const REPORT_TIMEOUT_MS: u32 = 2_000;

/// gRPC status codes that say more than that the resolver could not be reached.
const RESOURCE_EXHAUSTED: u32 = 8;
const DEADLINE_EXCEEDED: u32 = 4;

/// The filter of one VM.
#[derive(Debug)]
pub struct Filter {
    plugins: Plugins,
    /// `GrpcService` of the resolver.
    service: Vec<u8>,
    cache: Cache,
    streams: HashMap<StreamId, Stream, SeedableRandomState>,
    pending: Pending,
    watch: Watch,
    uses: Uses,
    clock: Clock,
    random: u64,
}

impl Filter {
    /// The filter of a VM whose first plugin was configured at this time of the wall clock. The time also seeds the
    /// hashes, until the resolver's boot id, which no client knows, replaces that seed.
    #[must_use]
    pub fn new(plugin: PluginId, config: Config, wall_ns: u64) -> Self {
        let random = mix(wall_ns ^ u64::from(plugin).rotate_left(32));
        Self {
            service: wire::grpc_service(&config.intercept_cluster),
            cache: Cache::new(config.cache_entries, random),
            // Its keys are Envoy's own numbers, so nobody can choose colliding ones.
            streams: HashMap::with_hasher(SeedableRandomState::with_seed(random, SharedSeed::global_fixed())),
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
        self.cache = Cache::new(self.plugins.policy().cache_entries, self.next_random());
        Ok(())
    }

    /// The headers of a stream came, with this facts header.
    pub fn on_request_headers(&mut self, host: &mut impl Host, id: StreamId, facts: Option<&[u8]>) -> Action {
        let Some(facts) = facts else {
            return self.advance(host, id, Stream::Arriving, &Event::Failed(Reason::FactsMissing));
        };
        if let Some(decision) = self.cache.get(facts, self.clock.now_ms()) {
            self.uses.count(decision);
            let (stream, effects) = Stream::Arriving.handle(&Event::Decided(decision), self.plugins.policy());
            return self.perform(host, id, stream, effects, true);
        }
        match self.ask(host, id, facts) {
            Ok(()) => self.advance(host, id, Stream::Arriving, &Event::Undecided),
            Err(reason) => self.advance(host, id, Stream::Arriving, &Event::Failed(reason)),
        }
    }

    /// A gRPC message came: an answer, or an event of the watch.
    pub fn on_grpc_receive(&mut self, host: &mut impl Host, token: Token, message: &[u8]) {
        if self.watch.is(token) {
            let change = self.watch.receive(message);
            self.apply(host, change);
            return;
        }
        let Some(call) = self.pending.settle(token) else { return };
        // The facts were checked before they became a question.
        let Ok(facts) = Facts::parse(&call.key) else { return self.fail(host, call.waiting, Reason::Internal) };
        let reply = Reply::parse(message, facts.cluster);
        match self.watch.freshness(&reply.boot, reply.epoch) {
            Freshness::Stale if call.again => self.fail(host, call.waiting, Reason::DecisionStale),
            Freshness::Stale => self.ask_again(host, call),
            fresh => self.settle(host, call, reply, fresh == Freshness::Keep),
        }
    }

    /// A gRPC call or stream ended with this status.
    pub fn on_grpc_close(&mut self, host: &mut impl Host, token: Token, status: u32) {
        if self.watch.is(token) {
            let random = self.next_random();
            self.watch.closed(self.clock.now_ms(), random);
            return;
        }
        let Some(call) = self.pending.settle(token) else { return };
        let reason = match status {
            DEADLINE_EXCEEDED => Reason::ResolverTimeout,
            RESOURCE_EXHAUSTED => Reason::Overloaded,
            _ => Reason::ResolverUnavailable,
        };
        self.fail(host, call.waiting, reason);
    }

    /// Time passed. Every plugin of a VM has its own ticks; those of one of them are enough.
    pub fn on_tick(&mut self, host: &mut impl Host, plugin: PluginId, wall_ns: u64) {
        if !self.plugins.leads(plugin) {
            return;
        }
        self.clock.tick(wall_ns / 1_000_000);
        let now_ms = self.clock.now_ms();
        while let Some(call) = self.pending.overdue(now_ms) {
            self.fail(host, call.waiting, Reason::ResolverTimeout);
        }
        if self.watch.is_due(now_ms) {
            match host.watch(&self.service, &self.watch.request().encode_to_vec()) {
                Ok(token) => self.watch.opened(token),
                Err(_) => {
                    let random = self.next_random();
                    self.watch.closed(now_ms, random);
                }
            }
        }
        if let Some(report) = self.uses.report(now_ms) {
            // Its answer says nothing, and a lost report is a lost count.
            let _ = host.call(Method::ReportUses, &self.service, &report.encode_to_vec(), REPORT_TIMEOUT_MS);
        }
    }

    /// A stream or a plugin is gone. `false` if that was the last plugin.
    pub fn on_delete(&mut self, context: u32) -> bool {
        if self.streams.remove(&context).is_none() && self.plugins.contains(context) {
            if self.plugins.leads(context) {
                // Envoy ends the streams of a plugin with it and says nothing.
                self.watch.closed(self.clock.now_ms(), 0);
            }
            return self.plugins.leave(context);
        }
        true
    }

    /// How many streams are waiting or carry a tag.
    #[must_use]
    pub fn live_streams(&self) -> usize {
        self.streams.len()
    }

    /// Finds or makes the call that this stream will wait for.
    fn ask(&mut self, host: &mut impl Host, id: StreamId, header: &[u8]) -> Result<(), Reason> {
        let facts = Facts::parse(header).map_err(|_| Reason::FactsMissing)?;
        if self.streams.len() >= MAX_STREAMS {
            return Err(Reason::Overloaded);
        }
        if self.pending.join(header, id) {
            return Ok(());
        }
        if !self.pending.has_room() {
            return Err(Reason::Overloaded);
        }
        self.dispatch(host, &facts, header.into(), vec![id], false).map_err(|_| Reason::ResolverUnavailable)
    }

    /// The answer was overtaken by an invalidation: the same streams wait for another.
    fn ask_again(&mut self, host: &mut impl Host, call: Call) {
        let waiting = call.waiting.clone();
        let dispatched = match Facts::parse(&call.key) {
            Ok(facts) => self.dispatch(host, &facts, Rc::clone(&call.key), call.waiting, true).is_ok(),
            Err(_) => false,
        };
        if !dispatched {
            self.fail(host, waiting, Reason::ResolverUnavailable);
        }
    }

    fn dispatch(
        &mut self,
        host: &mut impl Host,
        facts: &Facts<'_>,
        key: Rc<[u8]>,
        waiting: Vec<StreamId>,
        again: bool,
    ) -> Result<(), crate::host::Refused> {
        let timeout_ms = self.plugins.policy().decide_timeout_ms;
        let token = host.call(Method::Decide, &self.service, &facts.to_request().encode_to_vec(), timeout_ms)?;
        let ends_ms = self.clock.now_ms() + u64::from(timeout_ms + TICK_MS) + GRACE_MS;
        self.pending.add(token, key, waiting, again, ends_ms);
        Ok(())
    }

    /// Gives every stream that waited its decision, and keeps it if it may be kept.
    fn settle(&mut self, host: &mut impl Host, call: Call, reply: Reply, keep: bool) {
        let decision = Rc::new(reply.decision);
        let ttl_ms = reply.ttl_ms.min(self.plugins.policy().max_ttl_ms);
        if let Some(ends_ms) = self.clock.deadline(ttl_ms).filter(|_| keep) {
            self.cache.insert(&call.key, Rc::clone(&decision), ends_ms, self.clock.now_ms());
        }
        let mut first = true;
        for id in call.waiting {
            if let Some(stream) = self.streams.remove(&id) {
                if !std::mem::take(&mut first) {
                    self.uses.count(&decision);
                }
                self.advance(host, id, stream, &Event::Decided(&decision));
            }
        }
    }

    fn fail(&mut self, host: &mut impl Host, waiting: Vec<StreamId>, reason: Reason) {
        for id in waiting {
            if let Some(stream) = self.streams.remove(&id) {
                self.advance(host, id, stream, &Event::Failed(reason));
            }
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
            self.reset_streams(host, &invalidate);
        }
    }

    fn flush(&mut self) {
        let random = self.next_random();
        let boot = self.watch.request().boot;
        // The boot id is what makes the hash unpredictable to clients.
        self.cache.flush(boot.bytes().fold(random, |seed, byte| mix(seed ^ u64::from(byte))));
    }

    fn reset_streams(&mut self, host: &mut impl Host, invalidate: &Invalidate) {
        let revoked = |stream: &Stream| match stream {
            Stream::Carrying(decision) => decision.tag().is_some_and(|tag| invalidate.tags.iter().any(|t| t == tag)),
            _ => false,
        };
        let ids: Vec<StreamId> = self.streams.iter().filter(|(_, stream)| revoked(stream)).map(|(id, _)| *id).collect();
        for id in ids {
            if let Some(stream) = self.streams.remove(&id) {
                self.advance(host, id, stream, &Event::Revoked);
            }
        }
    }

    fn advance(&mut self, host: &mut impl Host, id: StreamId, stream: Stream, event: &Event<'_>) -> Action {
        let arriving = matches!(stream, Stream::Arriving);
        let (stream, effects) = stream.handle(event, self.plugins.policy());
        self.perform(host, id, stream, effects, arriving)
    }

    /// Performs the effects in their order. The first that the host refuses ends the stream.
    fn perform(
        &mut self,
        host: &mut impl Host,
        id: StreamId,
        stream: Stream,
        effects: Effects,
        arriving: bool,
    ) -> Action {
        let mut action = Action::Pause;
        for effect in effects {
            let done = match effect {
                Effect::Tag(decision) => host.set_tag(id, decision.tag().unwrap_or(NO_TAG)),
                Effect::NoTag => host.set_tag(id, NO_TAG),
                Effect::Go if arriving => {
                    action = Action::Continue;
                    Ok(())
                }
                Effect::Go => host.resume(id),
                Effect::Hold => Ok(()),
                Effect::Deny(denial) => host.deny(id, &denial).or_else(|_| host.reset(id)),
                Effect::Reset => host.reset(id),
            };
            if done.is_err() {
                let denial = Denial::of(Reason::Internal);
                // If even this is refused the stream has ended, or stays paused until Envoy's own timeout.
                let _ = host.deny(id, &denial).or_else(|_| host.reset(id));
                return Action::Pause;
            }
        }
        match stream {
            Stream::Waiting | Stream::Carrying(_) => {
                self.streams.insert(id, stream);
            }
            Stream::Arriving | Stream::Done => {}
        }
        action
    }

    fn next_random(&mut self) -> u64 {
        self.random = mix(self.random);
        self.random
    }
}

/// Whether an invalidation is about this decision.
fn voids(invalidate: &Invalidate, decision: &Decision) -> bool {
    decision.tag().is_some_and(|tag| invalidate.tags.iter().any(|void| void == tag))
        || invalidate.clusters.iter().any(|cluster| **cluster == *decision.cluster)
}

/// SplitMix64: spreads seeds and retries, and guards nothing.
const fn mix(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
