//! Rows of proposals.

use super::tokens::read_scope;
use super::{change, parsed, time, unsigned};
use crate::edit::{IdempotencyKey, Reason};
use crate::proposal::{ProposalRecord, Proposed};
use crate::store::{Result, StoreError};

const TABLE: &str = "proposals";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct ProposalRow {
    seq: i64,
    id: String,
    state: String,
    method: String,
    route: String,
    path: String,
    body: String,
    base_revision: i64,
    subject: String,
    logical_path: Option<String>,
    former_path: Option<String>,
    before_json: Option<String>,
    after_json: String,
    reason: Option<String>,
    actor: String,
    token_id: Option<String>,
    role: String,
    scope: String,
    idempotency_request: Option<Vec<u8>>,
    created_ms: i64,
    expires_ms: i64,
    decided_ms: Option<i64>,
    decided_by: Option<String>,
    note: Option<String>,
}

impl ProposalRow {
    /// Whether the call that it came of under its idempotency key is this one.
    pub(in crate::store) fn is_of(&self, key: &IdempotencyKey) -> bool {
        self.idempotency_request.as_deref() == Some(key.request.as_slice())
    }

    pub(in crate::store) fn read(self) -> Result<ProposalRecord> {
        let decided = match (self.decided_ms, self.decided_by) {
            (Some(ms), Some(by)) => Some(change(TABLE, ms, by)?),
            _ => None,
        };
        let json = |text: &str| serde_json::from_str(text).map_err(|_| StoreError::Corrupt(TABLE));
        Ok(ProposalRecord {
            id: parsed(TABLE, &self.id)?,
            seq: unsigned(self.seq)?,
            state: parsed(TABLE, &self.state)?,
            proposed: Proposed {
                method: self.method,
                route: self.route,
                path: self.path,
                body: self.body,
                base_revision: unsigned(self.base_revision)?,
                subject: self.subject,
                logical_path: self.logical_path.as_deref().map(|text| parsed(TABLE, text)).transpose()?,
                former_path: self.former_path.as_deref().map(|text| parsed(TABLE, text)).transpose()?,
                before: self.before_json.as_deref().map(json).transpose()?,
                after: json(&self.after_json)?,
                reason: self.reason.as_deref().map(|text| parsed(TABLE, text)).transpose()?,
            },
            created: change(TABLE, self.created_ms, self.actor)?,
            token: self.token_id.as_deref().map(|id| parsed(TABLE, id)).transpose()?,
            role: parsed(TABLE, &self.role)?,
            scope: read_scope(TABLE, &self.scope)?,
            expires: time(TABLE, self.expires_ms)?,
            decided,
            note: self.note.as_deref().map(|text| parsed(TABLE, text)).transpose()?,
        })
    }
}

/// What is said of a proposal in the list of changes.
pub(in crate::store) fn detail(record: &ProposalRecord, note: Option<&Reason>) -> String {
    let proposed = &record.proposed;
    let what =
        format!("{} {} about {}, proposed by {}", proposed.method, proposed.route, proposed.subject, record.created.by);
    note.map_or(what.clone(), |note| format!("{what}: {}", note.as_str()))
}
