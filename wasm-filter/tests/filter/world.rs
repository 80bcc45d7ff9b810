//! The resolver as the tests play it, and what must hold all along.
//!
//! [`World`] keeps its own truth about who asked what and what was answered, apart from the filter's, and compares the
//! two whenever a stream goes on. A [`Plant`] builds a fault in, for the controls.

use crate::envoy::{Envoy, Open};
use bouncer_proto::intercept::v1::{
    DecideReply, DecideRequest, Deny, Flush, Inject, Invalidate, PassThrough, Resumed, WatchEvent, decide_reply,
    watch_event,
};
use bouncer_wasm_filter::config::Config;
use bouncer_wasm_filter::facts::Facts;
use bouncer_wasm_filter::filter::{Action, Filter, NO_TAG};
use bouncer_wasm_filter::host::{Host as _, StreamId, Token, wire};
use prost::Message as _;
use std::collections::{HashMap, HashSet};

pub(crate) const PLUGIN: u32 = 1_000_000_000;
pub(crate) const OPEN: &str = "open";
pub(crate) const MAX_TTL_MS: u64 = 30_000;
pub(crate) const ENTRIES: usize = 16;

/// What happens.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// A stream comes, with one of the facts headers.
    Arrive(usize),
    /// One of the open calls is answered.
    Answer { call: usize, kind: Kind, other_boot: bool, behind: bool },
    /// A call that has been answered is answered once more.
    AnswerAgain(usize),
    /// One of the open calls fails.
    Close { call: usize, status: u32 },
    /// One of the streams ends.
    Kill(usize),
    /// Time passes.
    Wait(u64),
    /// The resolver says something on the watch.
    Watch(Said),
    /// The watch breaks.
    Break,
    /// The tag of the facts with this number is revoked, and nobody hears of it.
    Revoke(usize),
    /// The host refuses one of its next calls.
    Refuse(u32),
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Inject { ttl_ms: u32 },
    BadTag,
    PassThrough,
    Deny { ttl_ms: u32 },
    UnknownReason,
    Empty,
    Garbage,
}

#[derive(Debug, Clone)]
pub(crate) enum Said {
    /// The tag and cluster of the facts with this number are void.
    Invalidate {
        facts: usize,
        by_cluster: bool,
        reset: bool,
    },
    Resumed,
    Flush,
    NewBoot,
    Garbage,
}

/// A fault that the tests must find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plant {
    Nothing,
    /// The cache's key leaves out the caller.
    KeyWithoutCaller,
    /// A protected cluster passes.
    EverythingPasses,
    /// Invalidations do not arrive.
    DeafWatch,
    /// Answers arrive under the wrong call.
    MixedAnswers,
    /// Envoy does not say that a call has ended, and the filter gets no ticks.
    NoTicks,
    /// Envoy does not say that a stream has ended.
    NoEnds,
    /// The resolver does not look at what streams carry.
    Careless,
}

/// The facts headers that streams come with. Two that differ anywhere are two.
pub(crate) fn headers() -> Vec<Option<Vec<u8>>> {
    let mut headers: Vec<Option<Vec<u8>>> = Vec::new();
    for cluster in ["pay", OPEN] {
        for caller in ["-", "spiffe://t/alice", "spiffe://t/bob"] {
            for authority in ["a", "b"] {
                headers.push(Some(format!("{cluster} 8443 HTTP/2 {caller} {authority}").into_bytes()));
            }
        }
    }
    headers.push(None);
    headers.push(Some(Vec::new()));
    headers.push(Some(b"pay 8443 HTTP/2 a".to_vec()));
    headers.push(Some(b"pay 8443 HTTP/2 - a b".to_vec()));
    headers.push(Some(b"pay 8443 HTTP/2 - \xff\xfe".to_vec()));
    headers
}

/// The tag that only these facts get.
pub(crate) fn tag_for(request: &DecideRequest) -> String {
    let caller = request.caller.rsplit('/').next().filter(|caller| !caller.is_empty()).unwrap_or("nobody");
    format!("{}/{caller}/{}@1.0123456789abcdef", request.cluster, request.authority)
}

/// An answer that was delivered.
#[derive(Debug)]
struct Answered {
    id: String,
    request: DecideRequest,
    outcome: Option<decide_reply::Outcome>,
    until_ms: u64,
    step: usize,
    void: bool,
}

/// Everything, and the truth about it.
pub(crate) struct World {
    pub(crate) filter: Filter,
    pub(crate) envoy: Envoy,
    plant: Plant,
    facts: HashMap<StreamId, Option<DecideRequest>>,
    answered: Vec<Answered>,
    old_tokens: Vec<(Token, Vec<u8>)>,
    boot: u32,
    epoch: u64,
    /// The run and the newest epoch that the filter has heard of on the watch.
    heard: Option<(u32, u64)>,
    /// Tags that were revoked without a word, and those of them that a flush gave away.
    unheard: HashSet<String>,
    step: usize,
    next_stream: StreamId,
}

impl World {
    pub(crate) fn new(plant: Plant) -> Self {
        let open = if plant == Plant::EverythingPasses { r#""pay","open""# } else { r#""open""# };
        let json = format!(
            r#"{{"version":1,"pass_through_clusters":[{open}],"decide_timeout_ms":1000,"max_ttl_ms":{MAX_TTL_MS},"cache_entries":{ENTRIES}}}"#
        );
        let wall_ms = 1_700_000_000_000;
        Self {
            filter: Filter::new(PLUGIN, Config::parse(json.as_bytes()).expect("good"), wall_ms * 1_000_000),
            envoy: Envoy { wall_ms, ..Envoy::default() },
            plant,
            facts: HashMap::new(),
            answered: Vec::new(),
            old_tokens: Vec::new(),
            boot: 1,
            epoch: 5,
            heard: None,
            unheard: HashSet::new(),
            step: 0,
            next_stream: 1,
        }
    }

    /// Does one step, and says what was wrong about it.
    pub(crate) fn take(&mut self, step: &Step) -> Result<(), String> {
        self.step += 1;
        match step {
            Step::Arrive(header) => self.arrive(*header),
            Step::Answer { call, kind, other_boot, behind } => self.answer(*call, kind, *other_boot, *behind),
            Step::AnswerAgain(index) => {
                if let Some((token, message)) = pick(&self.old_tokens, *index).cloned() {
                    self.filter.on_answer(&mut self.envoy, token, &wire::frame(&message), 0);
                }
            }
            Step::Close { call, status } => {
                if !self.envoy.calls.is_empty() {
                    let call = self.envoy.calls.remove(call % self.envoy.calls.len());
                    self.filter.on_answer(&mut self.envoy, call.token, &[], *status);
                }
            }
            Step::Kill(index) => {
                let mut live: Vec<_> = self.envoy.live.iter().copied().collect();
                live.sort_unstable();
                if let Some(stream) = pick(&live, *index) {
                    self.end(*stream);
                }
            }
            Step::Wait(ms) => self.wait(*ms),
            Step::Watch(said) => self.say(said)?,
            Step::Break => {
                if let Some(token) = self.envoy.watch.take() {
                    self.filter.on_answer(&mut self.envoy, token, &[], 14);
                }
            }
            Step::Revoke(facts) => {
                let all: Vec<_> = headers().into_iter().flatten().collect();
                if let Ok(facts) = Facts::parse(&all[facts % all.len()]) {
                    self.unheard.insert(tag_for(&facts.to_request()));
                }
            }
            Step::Refuse(calls) => self.envoy.refuse_in = *calls,
        }
        self.answer_for_carried();
        self.cut_off();
        self.check()
    }

    /// The resolver's answer to a watch that asks about what streams carry: at once, where some of it is void.
    fn answer_for_carried(&mut self) {
        let tags: Vec<String> = self.envoy.carried.drain(..).filter(|tag| self.unheard.contains(tag)).collect();
        let Some(token) = self.envoy.watch.filter(|_| !tags.is_empty() && self.plant != Plant::Careless) else {
            return;
        };
        let (Some((_, epoch)), boot) = (self.heard, self.boot.to_string()) else { return };
        let said = |event| wire::frame(&WatchEvent { boot: boot.clone(), epoch, event: Some(event) }.encode_to_vec());
        let void = Invalidate { tags, clusters: vec![], reset_streams: true };
        let body = [said(watch_event::Event::Resumed(Resumed {})), said(watch_event::Event::Invalidate(void))].concat();
        self.envoy.watch = None;
        self.filter.on_answer(&mut self.envoy, token, &body, 0);
    }

    /// What `abi` does after a callback, and Envoy with what was answered in it.
    fn cut_off(&mut self) {
        while let Some(stream) = self.filter.next_condemned() {
            if self.envoy.reset(stream).is_ok() {
                self.end(stream);
            }
        }
        for stream in self.envoy.live.intersection(&self.envoy.ended).copied().collect::<Vec<_>>() {
            self.end(stream);
        }
    }

    fn end(&mut self, stream: StreamId) {
        self.envoy.live.remove(&stream);
        if self.plant != Plant::NoEnds {
            self.filter.on_end(stream);
        }
    }

    /// Lets every deadline pass, and says which stream was forgotten.
    pub(crate) fn finish(&mut self) -> Result<(), String> {
        self.envoy.refuse_in = 0;
        for _ in 0..30 {
            self.take(&Step::Wait(200))?;
        }
        // The watch is back by now: a flush, and whoever carries what was revoked is found out.
        self.take(&Step::Watch(Said::Flush))?;
        self.take(&Step::Wait(200))?;
        let carries = |stream: &&StreamId| self.envoy.tags.get(*stream).is_some_and(|tag| self.unheard.contains(tag));
        let lives = |stream: &&StreamId| {
            self.envoy.live.contains(*stream)
                && !self.envoy.ended.contains(*stream)
                && !self.envoy.stubborn.contains(*stream)
        };
        if let Some(stream) = self.envoy.went_on.iter().filter(lives).find(carries) {
            return Err(format!("stream {stream} lives on with a tag that was revoked unheard"));
        }
        let settled = |stream: &&StreamId| !self.envoy.went_on.contains(*stream) && !self.envoy.ended.contains(*stream);
        match self.envoy.live.iter().find(settled) {
            Some(stream) => Err(format!("stream {stream} waits for ever")),
            None => Ok(()),
        }
    }

    fn arrive(&mut self, header: usize) {
        let all = headers();
        let header = all[header % all.len()].clone();
        let stream = self.next_stream;
        self.next_stream += 1;
        self.envoy.live.insert(stream);
        let request = header.as_deref().and_then(|header| Facts::parse(header).ok()).map(|facts| facts.to_request());
        self.facts.insert(stream, request);
        let header = match self.plant {
            Plant::KeyWithoutCaller => header.map(|header| {
                let text = String::from_utf8_lossy(&header);
                text.replace("spiffe://t/alice", "-").replace("spiffe://t/bob", "-").into_bytes()
            }),
            _ => header,
        };
        let action = self.filter.on_request_headers(&mut self.envoy, stream, header.as_deref());
        if action == Action::Continue {
            self.envoy.resumed_now.push(stream);
        }
    }

    fn answer(&mut self, call: usize, kind: &Kind, other_boot: bool, behind: bool) {
        if self.envoy.calls.is_empty() {
            return;
        }
        let index = call % self.envoy.calls.len();
        let Open { mut token, request, .. } = self.envoy.calls.remove(index);
        let boot = self.boot + u32::from(other_boot) * 100;
        let epoch = self.epoch - u64::from(behind);
        let id = format!("decision-{token}");
        let outcome = match kind {
            Kind::Inject { ttl_ms } => {
                Some(decide_reply::Outcome::Inject(Inject { tag: tag_for(&request), ttl_ms: *ttl_ms }))
            }
            Kind::BadTag => {
                Some(decide_reply::Outcome::Inject(Inject { tag: "../x@1.0123456789abcdef".into(), ttl_ms: 1_000 }))
            }
            Kind::PassThrough => Some(decide_reply::Outcome::PassThrough(PassThrough { ttl_ms: 1_000 })),
            Kind::Deny { ttl_ms } => {
                Some(decide_reply::Outcome::Deny(Deny { reason: "caller_not_allowed".into(), ttl_ms: *ttl_ms }))
            }
            Kind::UnknownReason => {
                Some(decide_reply::Outcome::Deny(Deny { reason: "no such code".into(), ttl_ms: 1_000 }))
            }
            Kind::Empty | Kind::Garbage => None,
        };
        let message = match kind {
            Kind::Garbage => vec![0xff; 7],
            Kind::Empty => Vec::new(),
            _ => DecideReply { boot: boot.to_string(), epoch, decision_id: id.clone(), outcome: outcome.clone() }
                .encode_to_vec(),
        };
        let ttl_ms = match &outcome {
            Some(decide_reply::Outcome::Inject(inject)) => u64::from(inject.ttl_ms),
            Some(decide_reply::Outcome::PassThrough(pass)) => u64::from(pass.ttl_ms),
            _ => 0,
        };
        let stale = self.heard.is_some_and(|(heard, newest)| heard == boot && epoch < newest);
        self.answered.push(Answered {
            id: id.clone(),
            request,
            outcome,
            until_ms: self.envoy.wall_ms + ttl_ms.min(MAX_TTL_MS),
            step: self.step,
            void: stale,
        });
        if self.plant == Plant::MixedAnswers
            && let Some(other) = self.envoy.calls.first_mut()
        {
            std::mem::swap(&mut other.token, &mut token);
        }
        self.old_tokens.push((token, message.clone()));
        self.filter.on_answer(&mut self.envoy, token, &wire::frame(&message), 0);
    }

    fn wait(&mut self, ms: u64) {
        self.envoy.wall_ms += ms;
        // Ended without a word, as with a plugin that is gone.
        self.envoy.watch = self.envoy.watch.filter(|_| self.envoy.wall_ms < self.envoy.watch_ends_ms);
        if self.plant == Plant::NoTicks {
            return;
        }
        // Envoy ends what has timed out, most of the time; where it doesn't, the filter must.
        let now_ms = self.envoy.wall_ms;
        let (ended, open): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.envoy.calls).into_iter().partition(|call| call.ends_ms + 2_000 <= now_ms);
        self.envoy.calls = open;
        for call in ended.iter().filter(|call| call.token % 4 == 1) {
            self.filter.on_answer(&mut self.envoy, call.token, &[], 14);
        }
        self.filter.on_tick(&mut self.envoy, PLUGIN);
    }

    fn say(&mut self, said: &Said) -> Result<(), String> {
        let Some(token) = self.envoy.watch else { return Ok(()) };
        let mut reset = None;
        let event = match said {
            Said::Invalidate { facts, by_cluster, reset: resets } => {
                let all: Vec<_> = headers().into_iter().flatten().collect();
                let Ok(facts) = Facts::parse(&all[facts % all.len()]) else { return Ok(()) };
                let request = facts.to_request();
                self.epoch += 1;
                let tag = tag_for(&request);
                reset = (*resets && !by_cluster).then(|| tag.clone());
                let (tags, clusters) = if *by_cluster { (vec![], vec![request.cluster]) } else { (vec![tag], vec![]) };
                for answered in &mut self.answered {
                    answered.void |= clusters.contains(&answered.request.cluster)
                        || tags.contains(&tag_for(&answered.request)) && answered.is_inject();
                }
                watch_event::Event::Invalidate(Invalidate { tags, clusters, reset_streams: *resets })
            }
            Said::Resumed => watch_event::Event::Resumed(Resumed {}),
            Said::Flush => watch_event::Event::Flush(Flush {}),
            Said::NewBoot => {
                self.boot += 1;
                self.epoch = 5;
                watch_event::Event::Flush(Flush {})
            }
            Said::Garbage => {
                self.void_all();
                self.heard = None;
                self.envoy.watch = None;
                self.filter.on_answer(&mut self.envoy, token, &[0xff; 3], 0);
                return Ok(());
            }
        };
        let new_boot = self.heard.is_none_or(|(boot, _)| boot != self.boot);
        if matches!(event, watch_event::Event::Flush(_)) || new_boot {
            self.void_all();
        }
        let before = self.heard.replace((self.boot, self.epoch)).filter(|(boot, _)| *boot == self.boot);
        // A host that refuses the reset cannot be made to.
        let willing = self.envoy.refuse_in == 0;
        if self.plant != Plant::DeafWatch {
            let is_invalidate = matches!(event, watch_event::Event::Invalidate(_));
            let said = |epoch, event| {
                let event = WatchEvent { boot: self.boot.to_string(), epoch, event: Some(event) };
                wire::frame(&event.encode_to_vec())
            };
            // As the resolver answers a poll: where the caller stands, then what there is.
            let resumed = before.filter(|_| is_invalidate);
            let mut body =
                resumed.map_or_else(Vec::new, |(_, epoch)| said(epoch, watch_event::Event::Resumed(Resumed {})));
            body.extend(said(self.epoch, event));
            self.envoy.watch = None;
            self.filter.on_answer(&mut self.envoy, token, &body, 0);
            self.cut_off();
        }
        let spared = |stream: &&StreamId| {
            self.envoy.live.contains(*stream)
                && !self.envoy.ended.contains(*stream)
                && self.envoy.tags.get(*stream) == reset.as_ref()
        };
        match self.envoy.went_on.iter().find(spared) {
            Some(stream) if reset.is_some() && willing => Err(format!("stream {stream} lives on with a revoked tag")),
            _ => Ok(()),
        }
    }

    fn void_all(&mut self) {
        self.answered.iter_mut().for_each(|answered| answered.void = true);
    }

    /// Whether what has just gone on had every right to.
    fn check(&mut self) -> Result<(), String> {
        for stream in std::mem::take(&mut self.envoy.resumed_now) {
            if !self.envoy.went_on.insert(stream) || self.envoy.ended.contains(&stream) {
                return Err(format!("stream {stream} went on twice, or after its end"));
            }
            let Some(Some(request)) = self.facts.get(&stream) else {
                return Err(format!("stream {stream} went on without facts"));
            };
            let Some(tag) = self.envoy.tags.get(&stream) else {
                return Err(format!("stream {stream} went on with what an earlier filter may have set"));
            };
            let logged = self.envoy.decisions.get(&stream).cloned().flatten().unwrap_or_default();
            let right = self.answered.iter().any(|answered| {
                let in_time = answered.step == self.step || self.envoy.wall_ms <= answered.until_ms;
                let same = match &answered.outcome {
                    Some(decide_reply::Outcome::Inject(inject)) => inject.tag == *tag,
                    Some(decide_reply::Outcome::PassThrough(_)) => tag == NO_TAG && request.cluster == OPEN,
                    _ => false,
                };
                answered.request == *request && same && in_time && !answered.void && answered.id == logged
            });
            if !right {
                return Err(format!("stream {stream} went on with {tag}, to which nothing valid entitles {request:?}"));
            }
        }
        let (cached, pending, streams) = self.filter.sizes();
        let too_many = cached > ENTRIES || pending > bouncer_wasm_filter::pending::MAX_CALLS;
        if too_many || (streams > self.envoy.live.len() && self.plant != Plant::NoEnds) {
            return Err(format!("{cached} cached, {pending} pending, {streams} followed"));
        }
        match self.envoy.faults.pop() {
            Some(fault) => Err(fault),
            None => Ok(()),
        }
    }
}

impl Answered {
    fn is_inject(&self) -> bool {
        matches!(self.outcome, Some(decide_reply::Outcome::Inject(_)))
    }
}

fn pick<T>(from: &[T], index: usize) -> Option<&T> {
    from.get(index % from.len().max(1))
}
