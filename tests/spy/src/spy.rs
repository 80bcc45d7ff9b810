//! The spy itself: asks for decisions and tags streams as the real filter does, and looks everywhere on the way.
//!
//! What it finds it writes to Envoy's log, in hex, for the scenario to judge: `SPY|where|what|status|bytes`. Every status
//! that differs is told too, so that the scenario can see that each thing was tried.

use crate::config::Config;
use crate::host::{self, Got};
use crate::sds::{self, Known};
use crate::{places, wire};
use bouncer_proto::intercept::v1::{DecideReply, DecideRequest, decide_reply::Outcome};
use prost::Message as _;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash as _, Hasher as _};

const INTERCEPT: &str = "bouncer_intercept";
const SERVICE: &str = "bouncer.intercept.v1.Intercept";

/// Walks from one kind of callback.
const WALKS: u32 = 2;

/// How often every way to SDS is tried: when more is known, and now and then, since secrets come and go.
const TRIES: u32 = 8;

/// Why a question was asked.
#[derive(Debug, Clone, Copy)]
enum Why {
    /// A stream waits for it.
    Stream(u32),
    /// A stream that was let on meanwhile: the answer comes after the resume.
    Later(u32),
    /// To know the tag, and to have the grant.
    Curiosity,
}

/// The spy of one VM.
#[derive(Default)]
pub(crate) struct Spy {
    root: u32,
    config: Config,
    known: Known,
    questions: BTreeMap<u32, Why>,
    live: BTreeSet<u32>,
    walks: BTreeMap<String, u32>,
    told: BTreeSet<u64>,
    /// How much was known when everything was last tried.
    tried: Option<(usize, usize)>,
    tries: u32,
    ticks: u32,
}

impl Spy {
    /// The spy of this plugin.
    pub(crate) fn new(root: u32, config: Config) -> Self {
        let known = Known { keys: config.keys.iter().cloned().collect(), ..Known::default() };
        Self { root, config, known, ..Self::default() }
    }

    /// Looks everywhere, from this callback.
    pub(crate) fn look(&mut self, place: &str) {
        let walks = self.walks.entry(place.to_owned()).or_default();
        *walks += 1;
        if *walks > WALKS {
            return;
        }
        places::walk(|what, got| self.tell(place, what, &got));
        let mut attempts = Vec::new();
        sds::ask(&self.known, &self.config, &mut attempts);
        for attempt in attempts {
            self.tell(place, &attempt.what, &(attempt.status, Vec::new()));
        }
    }

    fn tell(&mut self, place: &str, what: &str, (status, bytes): &Got) {
        let mut hash = DefaultHasher::new();
        bytes.hash(&mut hash);
        // What is long, such as Envoy's own node, is written out once, wherever else it is seen.
        let again = bytes.len() > 256 && !self.told.insert(hash.finish());
        (place, what, status).hash(&mut hash);
        if self.told.insert(hash.finish()) {
            let bytes = if again { String::new() } else { wire::hex(bytes) };
            host::log(&format!("SPY|{place}|{what}|{status}|{bytes}"));
        }
        self.learn(bytes);
    }

    /// Picks up whatever looks like the key of SDS names.
    fn learn(&mut self, bytes: &[u8]) {
        for run in bytes.split(|byte| !(byte.is_ascii_digit() || (b'a'..=b'f').contains(byte))) {
            if let (64, Ok(text)) = (run.len(), std::str::from_utf8(run)) {
                // The guess of its own that SDS repeats is none.
                if text.bytes().any(|byte| byte != b'0') {
                    self.known.keys.insert(text.to_owned());
                }
            }
        }
    }

    /// A request's headers came: asks as the real filter does. Gives whether the request is held.
    pub(crate) fn request(&mut self, stream: u32) -> bool {
        if host::header(0, "x-trap").0 == 0 {
            // The sandbox dies here, as it would of a fault of the filter's own.
            core::arch::wasm32::unreachable();
        }
        let facts = String::from_utf8(host::header(0, "x-bouncer-facts").1).unwrap_or_default();
        let mut fields = facts.split(' ').map(str::to_owned);
        let mut next = || fields.next().unwrap_or_default();
        let (cluster, listener, protocol, caller, authority) = (next(), next(), next(), next(), next());
        let request = DecideRequest { cluster, authority, caller, listener, protocol };
        self.look("request headers");
        if !self.decide(&request, Why::Stream(stream)) {
            host::enter(stream);
            host::respond(503, "the spy may not ask");
        }
        true
    }

    /// Asks for a decision, by whichever call it may use.
    fn decide(&mut self, request: &DecideRequest, why: Why) -> bool {
        let message = request.encode_to_vec();
        let (mut status, mut token) = host::grpc_call(&sds::service(INTERCEPT, &[]), SERVICE, "Decide", &[], &message);
        if status != 0 {
            let path = format!("/{SERVICE}/Decide");
            let headers = [
                (":method", "POST"),
                (":path", path.as_str()),
                (":authority", INTERCEPT),
                ("content-type", "application/grpc"),
                ("te", "trailers"),
            ];
            (status, token) = host::http_call(INTERCEPT, &headers, &wire::frame(&message));
        }
        if status == 0 {
            self.questions.insert(token, why);
        }
        status == 0
    }

    /// A message came.
    pub(crate) fn receive(&mut self, token: u32, message: &[u8]) {
        self.tell("answer", "message", &(0, message.to_vec()));
        self.look("answer");
        let Some(why) = self.questions.remove(&token) else { return };
        let tag = match DecideReply::decode(message).ok().and_then(|reply| reply.outcome) {
            Some(Outcome::Inject(inject)) => Some(inject.tag),
            _ => None,
        };
        self.known.tags.extend(tag.clone());
        match (why, tag) {
            (Why::Stream(stream), Some(tag)) => {
                let again = self.question(None, None);
                self.decide(&again, Why::Later(stream));
                host::enter(stream);
                host::set_property("bouncer.tag", &tag);
                self.look("before the resume");
                host::resume();
                self.look("at the resume");
                self.live.insert(stream);
            }
            (Why::Stream(stream), None) => {
                host::enter(stream);
                host::respond(403, "denied");
            }
            (Why::Later(stream), _) => {
                host::enter(stream);
                self.look("answer after the resume");
            }
            (Why::Curiosity, _) => {}
        }
        host::enter(self.root);
    }

    fn question(&self, cluster: Option<&String>, caller: Option<&String>) -> DecideRequest {
        DecideRequest {
            cluster: cluster.or(self.config.clusters.first()).cloned().unwrap_or_default(),
            caller: caller.or(self.config.callers.first()).cloned().unwrap_or_default(),
            authority: "spy".to_owned(),
            listener: "1".to_owned(),
            protocol: "HTTP/2".to_owned(),
        }
    }

    /// Time passed: asks for every tag, looks at every live stream, and tries every way to SDS with what is known.
    pub(crate) fn tick(&mut self) {
        self.look("tick");
        if self.ticks == 0 {
            for cluster in self.config.clusters.clone() {
                for caller in self.config.callers.clone() {
                    let request = self.question(Some(&cluster), Some(&caller));
                    self.decide(&request, Why::Curiosity);
                }
            }
        }
        for stream in self.live.clone() {
            host::enter(stream);
            self.look("tick on a live stream");
        }
        host::enter(self.root);
        let known = (self.known.tags.len(), self.known.keys.len());
        if self.tries < TRIES && known.0 > 0 && (self.tried != Some(known) || self.ticks.is_multiple_of(10)) {
            self.tried = Some(known);
            self.tries += 1;
            let mut attempts = Vec::new();
            sds::ask_in_every_way(&self.known, &self.config, &mut attempts);
            for attempt in attempts {
                self.tell("tick", &attempt.what, &(attempt.status, Vec::new()));
            }
        }
        self.ticks += 1;
        if !self.live.is_empty() {
            host::log(&format!("SPIED|{}|{}|{}", self.live.len(), self.known.tags.len(), self.known.keys.len()));
        }
    }

    /// A context ended.
    pub(crate) fn forget(&mut self, context: u32) {
        self.live.remove(&context);
    }
}
