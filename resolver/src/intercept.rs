//! The intercept service: what the filter in Envoy asks, parsed, and the engine's answer on the wire.

use crate::engine::{Engine, Question, Verdict};
use crate::grants::Peer;
use crate::trace::{self, Tracer};
use bouncer_proto::intercept::v1::decide_reply::Outcome;
use bouncer_proto::intercept::v1::intercept_server::Intercept;
use bouncer_proto::intercept::v1::{
    DecideReply, DecideRequest, Deny, Inject, Invalidate, PassThrough, ReportUsesReply, ReportUsesRequest, WatchEvent,
    WatchRequest, watch_event::Event,
};
use prometheus_client::metrics::gauge::Gauge;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};

/// Decisions in one report of uses.
const USES: usize = 4_096;

/// A watch without an event is answered after this time, so that both sides know that the other lives.
const POLL: Duration = Duration::from_secs(10);

/// Tags that one watch may ask about.
const CARRIED: usize = 2_048;

/// The longest tag, in bytes.
const TAG: usize = 512;

/// Uses of one decision in one report: more than Envoy can serve in a decision's life.
const MOST: u64 = 1 << 32;

/// `bouncer.intercept.v1.Intercept`.
pub struct InterceptService {
    engine: Arc<Engine>,
    tracer: Option<Tracer>,
}

impl InterceptService {
    /// The service of one resolver; without a tracer nothing is traced.
    #[must_use]
    pub const fn new(engine: Arc<Engine>, tracer: Option<Tracer>) -> Self {
        Self { engine, tracer }
    }
}

/// Counts a watch for as long as it waits, however it ends.
struct Waiting<'a>(&'a Gauge);

impl<'a> Waiting<'a> {
    fn new(gauge: &'a Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn parse(request: DecideRequest, peer: Peer) -> Option<Question> {
    let plain = |text: &str, limit| text.len() <= limit && text.bytes().all(|b| b.is_ascii_graphic());
    let bounded = plain(&request.authority, 255)
        && plain(&request.caller, 4_096)
        && plain(&request.listener, 64)
        && plain(&request.protocol, 16);
    let cluster = request.cluster.parse().ok()?;
    bounded.then_some(Question { cluster, authority: request.authority, caller: request.caller, peer })
}

fn millis(ttl: Duration) -> u32 {
    u32::try_from(ttl.as_millis()).unwrap_or(u32::MAX)
}

#[tonic::async_trait]
impl Intercept for InterceptService {
    async fn decide(&self, request: Request<DecideRequest>) -> Result<Response<DecideReply>, Status> {
        let peer = *request.extensions().get::<Peer>().ok_or_else(|| Status::internal("no peer"))?;
        let parent = request.metadata().get("traceparent");
        let parent = parent.and_then(|parent| parent.to_str().ok()).and_then(trace::Parent::parse);
        let span = self.tracer.as_ref().zip(parent).map(|(tracer, parent)| tracer.span("decide", parent));
        let question = parse(request.into_inner(), peer)
            .ok_or_else(|| Status::invalid_argument("a fact is too long, empty, or not visible ASCII"))?;
        let decision = trace::within(span.as_ref(), self.engine.decide(&question)).await;
        if let Some(span) = &span {
            let (outcome, reason) = decision.verdict.outcome();
            span.set("bouncer.cluster", question.cluster.to_string());
            span.set("bouncer.decision_id", decision.id.clone());
            span.ended(outcome, reason);
        }
        let outcome = match decision.verdict {
            Verdict::Inject(tag, ttl) => Outcome::Inject(Inject { tag: tag.to_string(), ttl_ms: millis(ttl) }),
            Verdict::PassThrough(ttl) => Outcome::PassThrough(PassThrough { ttl_ms: millis(ttl) }),
            Verdict::Deny(reason, ttl) => Outcome::Deny(Deny { reason: reason.code().to_owned(), ttl_ms: millis(ttl) }),
        };
        Ok(Response::new(DecideReply {
            boot: self.engine.watch.boot().to_owned(),
            epoch: decision.epoch,
            decision_id: decision.id,
            outcome: Some(outcome),
        }))
    }

    type WatchStream = futures::stream::Iter<std::vec::IntoIter<Result<WatchEvent, Status>>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        if request.carried.len() > CARRIED || request.carried.iter().any(|tag| tag.len() > TAG) {
            return Err(Status::invalid_argument("too many tags in one watch, or one that is too long"));
        }
        let (mut events, mut live) = self.engine.watch.subscribe(&request);
        let tags: Vec<String> = request.carried.into_iter().filter(|tag| !self.engine.may_carry(tag)).collect();
        if let (false, Some(last)) = (tags.is_empty(), events.last()) {
            let void = Invalidate { tags, clusters: Vec::new(), reset_streams: true };
            events.push(WatchEvent { event: Some(Event::Invalidate(void)), ..last.clone() });
        }
        // More than the one event that says where the caller stands: something was missed, or everything.
        if matches!(&events[..], [WatchEvent { event: Some(Event::Resumed(_)), .. }]) {
            let _counted = Waiting::new(&self.engine.metrics.watches);
            tokio::select! {
                event = live.recv() => match event {
                    Ok(event) => events.push(event),
                    Err(_) => events = vec![self.engine.watch.flush(self.engine.watch.epoch())],
                },
                () = tokio::time::sleep(POLL) => {}
                () = self.engine.stop.cancelled() => return Err(Status::unavailable("the resolver is going away")),
            }
        }
        Ok(Response::new(futures::stream::iter(events.into_iter().map(Ok).collect::<Vec<_>>())))
    }

    async fn report_uses(&self, request: Request<ReportUsesRequest>) -> Result<Response<ReportUsesReply>, Status> {
        let uses = request.into_inner().uses;
        if uses.len() > USES {
            return Err(Status::invalid_argument("too many decisions in one report"));
        }
        if uses.iter().any(|uses| uses.count > MOST) {
            return Err(Status::invalid_argument("a count is more than there can have been"));
        }
        for uses in uses {
            let id = uuid::Uuid::try_parse(&uses.decision_id);
            let id = id.map_err(|_| Status::invalid_argument("a decision_id is no UUID"))?;
            self.engine.record_uses(&id, uses.count);
        }
        Ok(Response::new(ReportUsesReply {}))
    }
}
