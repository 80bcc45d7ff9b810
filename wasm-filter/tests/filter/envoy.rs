//! Envoy as the tests play it: it does what it is asked for streams that live, refuses on demand, and notes what an Envoy
//! could not forgive.

use bouncer_proto::intercept::v1::{DecideRequest, ReportUsesRequest, WatchRequest};
use bouncer_wasm_filter::denial::Denial;
use bouncer_wasm_filter::host::{Host, Method, Refused, StreamId, Token};
use prost::Message as _;
use std::collections::{HashMap, HashSet};

/// A call that has not been answered.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) token: Token,
    pub(crate) request: DecideRequest,
    pub(crate) ends_ms: u64,
}

/// Envoy.
#[derive(Debug, Default)]
pub(crate) struct Envoy {
    pub(crate) wall_ms: u64,
    pub(crate) next_token: Token,
    pub(crate) live: HashSet<StreamId>,
    pub(crate) tags: HashMap<StreamId, String>,
    /// What the access log would show.
    pub(crate) decisions: HashMap<StreamId, Option<String>>,
    pub(crate) went_on: HashSet<StreamId>,
    pub(crate) ended: HashSet<StreamId>,
    /// Streams that it would not reset, and cannot be made to.
    pub(crate) stubborn: HashSet<StreamId>,
    pub(crate) resumed_now: Vec<StreamId>,
    pub(crate) calls: Vec<Open>,
    pub(crate) watch: Option<Token>,
    pub(crate) watch_ends_ms: u64,
    /// What the watch asks about.
    pub(crate) carried: Vec<String>,
    pub(crate) refuse_in: u32,
    pub(crate) decides: usize,
    pub(crate) reported: u64,
    pub(crate) faults: Vec<String>,
}

impl Envoy {
    fn obey(&mut self, stream: Option<StreamId>) -> Result<(), Refused> {
        if self.refuse_in > 0 {
            self.refuse_in -= 1;
            if self.refuse_in == 0 {
                return Err(Refused(10));
            }
        }
        match stream {
            // Envoy may still find it, and crash.
            Some(stream) if !self.live.contains(&stream) => {
                self.faults.push(format!("stream {stream} was touched after its end"));
                Err(Refused(2))
            }
            _ => Ok(()),
        }
    }
}

impl Host for Envoy {
    fn set_tag(&mut self, stream: StreamId, tag: &str, decision: Option<&str>) -> Result<(), Refused> {
        self.obey(Some(stream))?;
        self.tags.insert(stream, tag.to_owned());
        self.decisions.insert(stream, decision.map(str::to_owned));
        Ok(())
    }

    fn resume(&mut self, stream: StreamId) -> Result<(), Refused> {
        self.obey(Some(stream))?;
        self.resumed_now.push(stream);
        Ok(())
    }

    fn deny(&mut self, stream: StreamId, _: &Denial) -> Result<(), Refused> {
        self.obey(Some(stream))?;
        if self.went_on.contains(&stream) || self.resumed_now.contains(&stream) || !self.ended.insert(stream) {
            self.faults.push(format!("stream {stream} was answered although it had gone on or ended"));
        }
        Ok(())
    }

    fn reset(&mut self, stream: StreamId) -> Result<(), Refused> {
        self.obey(Some(stream)).inspect_err(|_| {
            self.stubborn.insert(stream);
        })?;
        self.ended.insert(stream);
        Ok(())
    }

    fn wall_ms(&mut self) -> u64 {
        self.wall_ms
    }

    fn trace(&mut self) -> Option<String> {
        None
    }

    fn call(
        &mut self,
        method: Method,
        _: &str,
        message: &[u8],
        timeout_ms: u32,
        _: Option<&str>,
    ) -> Result<Token, Refused> {
        self.obey(None)?;
        self.next_token += 2;
        if method == Method::Watch {
            self.watch = Some(self.next_token & !1);
            self.carried = WatchRequest::decode(message).expect("a watch").carried;
            self.watch_ends_ms = self.wall_ms + u64::from(timeout_ms);
            return Ok(self.next_token & !1);
        }
        let token = self.next_token | 1;
        if method == Method::ReportUses {
            let report = ReportUsesRequest::decode(message).expect("a report");
            self.reported += report.uses.iter().map(|uses| uses.count).sum::<u64>();
            return Ok(token);
        }
        let request = DecideRequest::decode(message).expect("a question");
        let wall_ms = self.wall_ms;
        if self.calls.iter().any(|call| call.request == request && call.ends_ms > wall_ms) {
            self.faults.push(format!("two calls at once for {request:?}"));
        }
        self.decides += 1;
        self.calls.push(Open { token, request, ends_ms: wall_ms + u64::from(timeout_ms) });
        Ok(token)
    }
}
