//! The audit as a file: every event with its evidence, streamed in parts. `bouncerctl audit verify` verifies the JSON lines.
//!
//! Nothing is gathered: a part is read from the store, written, and forgotten. The call's deadline ends with its head; what
//! follows goes on for as long as the client reads.

mod csv;

use super::Api;
use super::extract::Params;
use super::problem::{ApiError, Problems};
use crate::model::{AdminRecord, AuditRecord};
use crate::store::{Anchor, AuditRange, AuditSpan, Store, StoreError};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::IntoResponse;
use bouncer_audit::{AdminLine, ChainId, DecisionLine, Digest, EndLine, Line, Proof, Signed, Withheld};
use http::header;
use jiff::Timestamp;
use serde::Deserialize;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use utoipa::{IntoParams, ToSchema};

/// Records read at once.
const PART: u16 = 500;
/// Bytes given to the connection at once.
const CHUNK: usize = 64 * 1_024;
/// How long a client may read nothing.
const STALL: Duration = Duration::from_secs(60);

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line; the form that can be verified.
    Jsonl,
    /// RFC 4180, for spreadsheets.
    Csv,
}

/// Which part of the audit, and how.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ExportParams {
    /// "jsonl" or "csv".
    #[param(inline, default = "jsonl")]
    format: Option<Format>,
    /// Not before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Before this time.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
    /// Only this bouncer's decisions, and then no administrative changes.
    bouncer: Option<String>,
}

/// The audit with its evidence. JSON lines have a `type`: `event`, `checkpoint`, `admin_event`, `admin_checkpoint`,
/// `divergence`, and at the very end `end`. A range is stretched to the signed checkpoints around it; of a chain without
/// anything in it the last one before its end is given.
#[utoipa::path(
    get, path = "/v1/audit/export", tag = "operations", operation_id = "export_audit",
    params(ExportParams),
    responses(
        (status = 200, content(
            (String = "application/jsonl"),
            (String = "text/csv"),
        )),
        Problems,
    )
)]
pub(super) async fn export(
    State(api): State<Api>,
    Params(params): Params<ExportParams>,
) -> Result<impl IntoResponse, ApiError> {
    let range = AuditRange { from: params.from, to: params.to, bouncer: params.bouncer };
    if let (Some(from), Some(to)) = (range.from, range.to)
        && from >= to
    {
        return Err(ApiError::Query("The parameter 'from' must be before 'to'."));
    }
    let format = params.format.unwrap_or(Format::Jsonl);
    // Before the answer begins, so that a database that does not answer is told as such.
    let spans = api.store.audit_spans(&range).await?;
    let (sender, chunks) = mpsc::channel(2);
    let export = Export { store: Arc::clone(&api.store), range, format, sender, buffer: Vec::new(), lines: 0 };
    tokio::spawn(async move {
        if let Err(ended) = export.run(spans).await {
            tracing::warn!(why = %ended, "an export of the audit was not finished");
        }
    });
    let (content_type, name) = match format {
        Format::Jsonl => ("application/jsonl; charset=utf-8", "attachment; filename=\"audit.jsonl\""),
        Format::Csv => ("text/csv; charset=utf-8; header=present", "attachment; filename=\"audit.csv\""),
    };
    let headers = [(header::CONTENT_TYPE, content_type), (header::CONTENT_DISPOSITION, name)];
    Ok((headers, Body::from_stream(whole(chunks))))
}

/// A piece of an export, or its end.
type Chunk = Option<Bytes>;

/// Ends in an error unless the end came, so that no client takes a part for the whole.
fn whole(chunks: mpsc::Receiver<Chunk>) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send {
    futures::stream::unfold(Some(chunks), async |chunks| {
        let mut chunks = chunks?;
        match chunks.recv().await {
            Some(Some(bytes)) => Some((Ok(bytes), Some(chunks))),
            Some(None) => None,
            None => Some((Err(std::io::Error::other("the export was not finished")), None)),
        }
    })
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("the client went away")]
    Gone,
    #[error("the client read nothing for a minute")]
    Stalled,
    #[error("retention removed what was to come next; export again")]
    Pruned,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a record could not be written")]
    Unwritable(#[from] serde_json::Error),
}

struct Export {
    store: Arc<dyn Store>,
    range: AuditRange,
    format: Format,
    sender: mpsc::Sender<Chunk>,
    buffer: Vec<u8>,
    lines: u64,
}

impl Export {
    async fn run(mut self, spans: Vec<AuditSpan>) -> Result<(), Ended> {
        if self.format == Format::Csv {
            csv::head(&mut self.buffer);
        }
        for span in &spans {
            self.decisions(span).await?;
        }
        let mut after = 0;
        loop {
            let part = self.store.unchained_audit(&self.range, after, PART).await?;
            let Some(last) = part.last() else { break };
            after = last.seq;
            for record in part {
                self.line(&decision(record, None)).await?;
            }
        }
        if self.range.bouncer.is_none() {
            self.changes().await?;
        }
        let mut after = 0;
        loop {
            let part = self.store.divergences(&self.range, after, PART).await?;
            let Some(last) = part.last() else { break };
            after = last.0;
            for (_, line) in part {
                self.line(&Line::Divergence(line)).await?;
            }
        }
        if self.format == Format::Jsonl {
            let end = EndLine { lines: self.lines };
            self.line(&Line::End(end)).await?;
        }
        self.flush().await?;
        self.send(None).await
    }

    /// A bouncer's chain: each checkpoint right behind the last event that it covers. Retention may have removed the first
    /// of it since the span was read, and may remove more while it is written.
    async fn decisions(&mut self, span: &AuditSpan) -> Result<(), Ended> {
        let mut part = self.store.audit_in(span, None, PART).await?;
        let found = part.first().map_or(span.last + 1, |record| record.event.sequence);
        let pruned = found > span.first && self.begins_at(&span.chain, found).await?;
        let first = if pruned { found } else { span.first };
        let anchor = self.store.anchor(&span.chain, first).await?;
        let mut before = match &anchor {
            Anchor::Cut(point) if point.sequence >= first => return Err(Ended::Pruned),
            Anchor::Cut(point) if point.sequence + 1 == first => Some(point.head),
            _ => None,
        };
        let mut checkpoints = Checkpoints::begin(self, span, anchor, Line::Checkpoint).await?;
        while let Some(last) = part.last() {
            let (sequence, seq) = (last.event.sequence, last.seq);
            for record in part {
                checkpoints.before(self, record.event.sequence).await?;
                self.line(&decision(record, before.take())).await?;
            }
            part = self.store.audit_in(span, Some((sequence, seq)), PART).await?;
            let next = part.first().map_or(span.last + 1, |record| record.event.sequence);
            if next > sequence + 1 && self.begins_at(&span.chain, next).await? {
                return Err(Ended::Pruned);
            }
        }
        checkpoints.before(self, u64::MAX).await
    }

    /// Whether nothing of a chain is stored in front of an event.
    async fn begins_at(&self, chain: &ChainId, sequence: u64) -> Result<bool, Ended> {
        let in_front = AuditSpan { chain: chain.clone(), first: 0, last: sequence - 1 };
        Ok(self.store.audit_in(&in_front, None, 1).await?.is_empty())
    }

    /// The control plane's own chain, and what it recorded before it had one.
    async fn changes(&mut self) -> Result<(), Ended> {
        let mut after = 0;
        loop {
            let part = self.store.unchained_admin(&self.range, after, PART).await?;
            let Some(last) = part.last() else { break };
            after = last.seq;
            for record in part {
                self.line(&change(record)).await?;
            }
        }
        let Some(span) = self.store.admin_span(&self.range).await? else { return Ok(()) };
        let anchor = self.store.anchor(&span.chain, span.first).await?;
        let mut checkpoints = Checkpoints::begin(self, &span, anchor, Line::AdminCheckpoint).await?;
        let mut after = 0;
        loop {
            let part = self.store.admin_in(&span, after, PART).await?;
            let Some(last) = part.last().and_then(|last| last.place.as_ref()) else { break };
            after = last.sequence;
            for record in part {
                checkpoints.before(self, record.place.as_ref().map_or(0, |place| place.sequence)).await?;
                self.line(&change(record)).await?;
            }
        }
        checkpoints.before(self, u64::MAX).await
    }

    async fn line(&mut self, line: &Line) -> Result<(), Ended> {
        match self.format {
            Format::Jsonl => {
                serde_json::to_writer(&mut self.buffer, line)?;
                self.buffer.push(b'\n');
            }
            Format::Csv => csv::row(&serde_json::to_value(line)?, &mut self.buffer),
        }
        self.lines += 1;
        if self.buffer.len() >= CHUNK { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<(), Ended> {
        let bytes = Bytes::from(std::mem::take(&mut self.buffer));
        if bytes.is_empty() { Ok(()) } else { self.send(Some(bytes)).await }
    }

    async fn send(&self, chunk: Chunk) -> Result<(), Ended> {
        match tokio::time::timeout(STALL, self.sender.send(chunk)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(Ended::Gone),
            Err(_) => Err(Ended::Stalled),
        }
    }
}

/// The checkpoints of a span, read in parts and written where they belong.
struct Checkpoints<'a> {
    span: &'a AuditSpan,
    line: fn(Signed) -> Line,
    waiting: std::collections::VecDeque<Signed>,
    after: u64,
    more: bool,
}

impl<'a> Checkpoints<'a> {
    /// Writes the one that the span begins behind.
    async fn begin(
        export: &mut Export,
        span: &'a AuditSpan,
        anchor: Anchor,
        line: fn(Signed) -> Line,
    ) -> Result<Self, Ended> {
        let mut after = 0;
        if let Anchor::Checkpoint(signed) = anchor {
            after = signed.checkpoint.number;
            export.line(&line(*signed)).await?;
        }
        Ok(Self { span, line, waiting: Default::default(), after, more: true })
    }

    /// Writes those that cover only what is in front of the event.
    async fn before(&mut self, export: &mut Export, sequence: u64) -> Result<(), Ended> {
        loop {
            if self.waiting.is_empty() && self.more {
                let (chain, last) = (&self.span.chain, self.span.last);
                self.waiting = export.store.checkpoints(chain, self.after, last, PART).await?.into();
                self.more = self.waiting.len() == usize::from(PART);
                self.after = self.waiting.back().map_or(self.after, |signed| signed.checkpoint.number);
            }
            match self.waiting.pop_front_if(|signed| signed.checkpoint.sequence < sequence) {
                Some(signed) => export.line(&(self.line)(signed)).await?,
                None => return Ok(()),
            }
        }
    }
}

/// A decision as a line of an export. `before` is the head in front of it, where nothing else tells that.
pub(crate) fn decision(record: AuditRecord, before: Option<Digest>) -> Line {
    let event = record.event;
    let proof = event.evidence.map(|evidence| Proof {
        chain: evidence.chain,
        head: evidence.head,
        before,
        withheld: evidence.withheld,
    });
    Line::Event(Box::new(DecisionLine {
        time_ms: event.at.as_millisecond(),
        bouncer: record.bouncer,
        sequence: event.sequence,
        id: event.id.to_string(),
        outcome: event.outcome,
        reason: event.reason,
        caller: event.caller,
        resource: event.resource,
        logical_path: event.logical_path,
        generation: event.generation,
        key_id: event.key_id,
        aad_sha256: event.aad_sha256,
        cluster: event.cluster,
        destination: event.destination,
        authority: event.authority,
        backend_request_id: event.backend_request_id,
        decision_id: event.decision_id,
        count: event.count,
        received_ms: record.received.as_millisecond(),
        dev: event.dev,
        proof,
    }))
}

/// An administrative change as a line of an export.
pub(crate) fn change(record: AdminRecord) -> Line {
    let sequence = record.place.as_ref().map_or(0, |place| place.sequence);
    let proof = record.place.map(|place| Proof {
        chain: place.chain,
        head: place.head,
        before: None,
        withheld: Withheld::new(),
    });
    Line::AdminEvent(AdminLine {
        time_ms: record.at.as_millisecond(),
        sequence,
        actor: record.actor,
        action: record.action,
        subject: record.subject,
        detail: record.detail,
        proof,
    })
}
