//! What is told: a decision or an administrative change, as a line of an export, and how much of it at once.

use super::receiver::Receiver;
use crate::api::export;
use crate::model::{AdminRecord, AuditRecord, Position};
use bouncer_audit::Line;
use jiff::Timestamp;

/// Records of each kind read at once.
pub(super) const BATCH: u16 = 500;
/// Bytes told at once, unless one record alone has more, or the receiver takes fewer.
pub(super) const BYTES: usize = 512 * 1_024;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Decision,
    Change,
}

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Decision => "decision",
            Self::Change => "change",
        }
    }
}

/// One record.
pub(super) struct Record {
    seq: u64,
    pub(super) kind: Kind,
    /// When it happened.
    pub(super) at: Timestamp,
    /// When the control plane heard of it.
    pub(super) observed: Timestamp,
    /// A denial is a warning.
    pub(super) warning: bool,
    pub(super) line: Line,
}

impl From<AuditRecord> for Record {
    fn from(record: AuditRecord) -> Self {
        Self {
            seq: record.seq,
            kind: Kind::Decision,
            at: record.event.at,
            observed: record.received,
            warning: record.event.outcome == "deny",
            line: export::decision(record, None),
        }
    }
}

impl From<AdminRecord> for Record {
    fn from(record: AdminRecord) -> Self {
        Self {
            seq: record.seq,
            kind: Kind::Change,
            at: record.at,
            observed: record.at,
            warning: false,
            line: export::change(record),
        }
    }
}

/// What is told at once.
pub(super) struct Batch {
    /// Each as the receiver is told it.
    pub(super) records: Vec<Vec<u8>>,
    /// How far they reach.
    pub(super) to: Position,
    /// Whether there may be more at once.
    pub(super) more: bool,
}

impl Batch {
    /// As much as may be told at once, of so many bytes at most, of what lies behind a position.
    pub(super) fn gather(
        receiver: &Receiver,
        limit: usize,
        from: Position,
        changes: Vec<AdminRecord>,
        decisions: Vec<AuditRecord>,
    ) -> serde_json::Result<Self> {
        let more = changes.len().max(decisions.len()) == usize::from(BATCH);
        let mut batch = Self { records: Vec::new(), to: from, more };
        let mut bytes = 0;
        for record in changes.into_iter().map(Record::from).chain(decisions.into_iter().map(Record::from)) {
            let written = receiver.write(&record)?;
            bytes += written.len();
            if bytes > limit && !batch.records.is_empty() {
                batch.more = true;
                break;
            }
            batch.records.push(written);
            match record.kind {
                Kind::Decision => batch.to.decisions = record.seq,
                Kind::Change => batch.to.changes = record.seq,
            }
        }
        Ok(batch)
    }

    /// How much is told, without what is around it.
    pub(super) fn bytes(&self) -> usize {
        self.records.iter().map(Vec::len).sum()
    }
}
