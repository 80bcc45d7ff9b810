//! Spans of decisions and of the backend calls that they begin, sent by OTLP to a collector.
//!
//! Only a call of the filter's with a sampled `traceparent` (W3C Trace Context) has spans. A span holds names and ids
//! that the audit has too, and never a caller's token or a secret. Nothing waits for the collector: spans go through a
//! bounded queue, and those that find it full, or the collector away, are lost and counted.
//!
//! Made by hand from OTLP's messages and not with the SDK: two spans need no processors and no global state, and the SDK
//! would make ids and keep queues for every span, sampled or not.

use crate::config::TelemetryConfig;
use bouncer_custody::{Hex, Reason, TraceParent};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{self as otlp, ResourceSpans, ScopeSpans, Status};
use prometheus_client::metrics::counter::Counter;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Spans that may wait for the collector.
const QUEUE: usize = 2_048;

/// Spans in one message.
const BATCH: usize = 512;

/// How long spans are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(200);

/// How long the collector may take for one message, connection included.
const EXPORT: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// The span that the task works for.
    static CURRENT: Span;
}

/// The span of somebody else that ours is a child of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parent {
    trace: [u8; 16],
    span: [u8; 8],
}

impl Parent {
    /// Reads a `traceparent`. `None` where it is none, and where it is not sampled.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let parent = TraceParent::parse(text).filter(TraceParent::is_sampled)?;
        Some(Self { trace: Hex::read(parent.trace_id())?, span: Hex::read(parent.span_id())? })
    }
}

/// Makes spans, and has them sent.
#[derive(Debug, Clone)]
pub struct Tracer {
    queue: mpsc::Sender<otlp::Span>,
    lost: Counter,
}

impl Tracer {
    /// Begins to send to this collector, which need not be there.
    ///
    /// # Errors
    /// The endpoint or its CA certificates can't be used.
    pub fn start(config: &TelemetryConfig, bouncer: &str, lost: Counter) -> Result<Self, tonic::transport::Error> {
        let mut endpoint = Endpoint::from_shared(config.endpoint.clone())?.connect_timeout(EXPORT).timeout(EXPORT);
        if config.endpoint.starts_with("https://") {
            let tls = ClientTlsConfig::new();
            endpoint = endpoint.tls_config(match &config.ca {
                Some(ca) => tls.ca_certificate(Certificate::from_pem(ca)),
                None => tls.with_native_roots(),
            })?;
        }
        let (queue, spans) = mpsc::channel(QUEUE);
        tokio::spawn(export(spans, endpoint.connect_lazy(), bouncer.to_owned(), lost.clone()));
        Ok(Self { queue, lost })
    }

    /// Begins a span.
    #[must_use]
    pub fn span(&self, name: &'static str, parent: Parent) -> Span {
        let id: [u8; 8] = rand::random();
        let span = otlp::Span {
            trace_id: parent.trace.to_vec(),
            span_id: id.to_vec(),
            parent_span_id: parent.span.to_vec(),
            // Sampled, as all that are made.
            flags: 1,
            name: name.to_owned(),
            kind: otlp::span::SpanKind::Internal.into(),
            start_time_unix_nano: now(),
            ..otlp::Span::default()
        };
        let here = Parent { trace: parent.trace, span: id };
        Span(Arc::new(Open { tracer: self.clone(), here, span: Mutex::new(span) }))
    }
}

/// A span that goes on. It ends, and is sent, when nobody holds it any more.
#[derive(Debug, Clone)]
pub struct Span(Arc<Open>);

#[derive(Debug)]
struct Open {
    tracer: Tracer,
    here: Parent,
    span: Mutex<otlp::Span>,
}

impl Span {
    /// Adds an attribute.
    pub fn set(&self, key: &str, value: impl Into<String>) {
        let mut span = self.0.span.lock().unwrap_or_else(PoisonError::into_inner);
        span.attributes.push(attribute(key, value.into()));
    }

    /// Says how it ended.
    pub fn ended(&self, outcome: &str, reason: Option<Reason>) {
        self.set("bouncer.outcome", outcome);
        if let Some(reason) = reason {
            self.set("bouncer.reason", reason.code());
            let mut span = self.0.span.lock().unwrap_or_else(PoisonError::into_inner);
            span.status = Some(Status { message: String::new(), code: otlp::status::StatusCode::Error.into() });
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let span = self.span.get_mut().unwrap_or_else(PoisonError::into_inner);
        span.end_time_unix_nano = now();
        if self.tracer.queue.try_send(std::mem::take(span)).is_err() {
            self.tracer.lost.inc();
        }
    }
}

/// Works within a span, if there is one.
pub async fn within<F: Future>(span: Option<&Span>, work: F) -> F::Output {
    match span {
        Some(span) => CURRENT.scope(span.clone(), work).await,
        None => work.await,
    }
}

/// Begins a child of the span that this task works for, if there is one.
#[must_use]
pub fn child(name: &'static str) -> Option<Span> {
    CURRENT.try_with(|span| span.0.tracer.span(name, span.0.here)).ok()
}

/// Adds an attribute to the span that this task works for; none that is empty.
pub fn note(key: &str, value: &str) {
    if !value.is_empty() {
        // Without a span there is nothing to note.
        let _ = CURRENT.try_with(|span| span.set(key, value));
    }
}

fn attribute(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

async fn export(mut spans: mpsc::Receiver<otlp::Span>, channel: Channel, bouncer: String, lost: Counter) {
    let mut collector = TraceServiceClient::new(channel);
    let attributes = vec![attribute("service.name", "bouncer-resolver".into()), attribute("bouncer.name", bouncer)];
    let resource = Resource { attributes, ..Resource::default() };
    let version = env!("CARGO_PKG_VERSION").to_owned();
    let scope = InstrumentationScope { name: "bouncer".into(), version, ..InstrumentationScope::default() };
    let mut batch = Vec::new();
    while spans.recv_many(&mut batch, BATCH).await > 0 {
        tokio::time::sleep(GATHER).await;
        while batch.len() < BATCH
            && let Ok(span) = spans.try_recv()
        {
            batch.push(span);
        }
        let count = u64::try_from(batch.len()).unwrap_or(u64::MAX);
        let scoped = ScopeSpans { scope: Some(scope.clone()), spans: std::mem::take(&mut batch), ..Default::default() };
        let spans = ResourceSpans { resource: Some(resource.clone()), scope_spans: vec![scoped], ..Default::default() };
        let request = ExportTraceServiceRequest { resource_spans: vec![spans] };
        let refused = match tokio::time::timeout(EXPORT, collector.export(request)).await {
            Ok(Ok(answer)) => {
                let partial = answer.into_inner().partial_success;
                partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0).min(count))
            }
            Ok(Err(_)) | Err(_) => count,
        };
        lost.inc_by(refused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_sampled_traceparent_of_the_exact_form_is_a_parent() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert!(Parent::parse(good).is_some());
        assert!(Parent::parse(&good.replace("-01", "-03")).is_some(), "other flags say nothing");
        for bad in [
            &good[..54],
            &format!("{good}-"),
            &format!("{good}0"),
            &good.replacen("00", "01", 1),
            &good.replace("-01", "-00"),
            &good.replace("0af7", "0AF7"),
            &good.replace("b7ad6b7169203331", "0000000000000000"),
            &good.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            "",
        ] {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
        let (queue, mut spans) = mpsc::channel(1);
        let tracer = Tracer { queue, lost: Counter::default() };
        let parent = Parent { trace: [1; 16], span: [2; 8] };
        let decide = tracer.span("decide", parent);
        let call = within(Some(&decide), async { child("kms.Decrypt") }).await.unwrap();
        assert!(child("kms.Decrypt").is_none(), "no span outside of one");
        drop(call);
        drop(decide);
        let sent = spans.try_recv().unwrap();
        assert_eq!((sent.name.as_str(), &sent.trace_id[..]), ("kms.Decrypt", &[1; 16][..]));
        assert_ne!(sent.parent_span_id, [2; 8]);
        assert_eq!(tracer.lost.get(), 1, "the queue had room for one");
    }
}
