//! Rows of the audit: decisions, administrative changes, checkpoints.

use super::{parsed, time, unsigned};
use crate::model::{AdminRecord, AuditEvent, AuditRecord, Evidence};
use crate::store::{AuditSummary, Result, StoreError};
use bouncer_audit::{ChainId, ChainPoint, Checkpoint, Digest, Owner, Signed};

const TABLE: &str = "audit_events";
const CHECKPOINTS: &str = "audit_checkpoints";

/// The numbers of the outcomes together: of each its events, and the newest one's time.
pub(in crate::store) fn summary_of(totals: Vec<(String, i64, i64)>) -> Result<AuditSummary> {
    let mut summary = AuditSummary::default();
    for (outcome, events, last_ms) in totals {
        let events = unsigned(events)?;
        summary.events += events;
        match outcome.as_str() {
            "inject" => summary.injected = events,
            "deny" => summary.denied = events,
            _ => {}
        }
        summary.last = summary.last.max(Some(time("audit_totals", last_ms)?));
    }
    Ok(summary)
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct AuditRow {
    seq: i64,
    bouncer: String,
    id: String,
    sequence: i64,
    time_ms: i64,
    received_ms: i64,
    caller: String,
    resource: String,
    logical_path: String,
    generation: i64,
    key_id: String,
    aad_sha256: String,
    cluster: String,
    destination: String,
    outcome: String,
    reason: String,
    backend_request_id: String,
    count: i64,
    decision_id: String,
    authority: String,
    dev: bool,
    chain: Option<String>,
    leaf: Option<Vec<u8>>,
    head: Option<Vec<u8>>,
    withheld: Option<String>,
}

impl AuditRow {
    pub(in crate::store) fn read(self) -> Result<AuditRecord> {
        let evidence = match (self.chain, self.leaf, self.head) {
            (Some(chain), Some(leaf), Some(head)) => {
                let withheld = self.withheld.as_deref().map(serde_json::from_str).transpose();
                let withheld = withheld.map_err(|_| StoreError::Corrupt(TABLE))?.unwrap_or_default();
                let chain = parsed::<ChainId>(TABLE, &chain)?;
                Some(Evidence { chain, leaf: digest(TABLE, &leaf)?, head: digest(TABLE, &head)?, withheld })
            }
            _ => None,
        };
        Ok(AuditRecord {
            seq: unsigned(self.seq)?,
            bouncer: self.bouncer,
            received: time(TABLE, self.received_ms)?,
            event: AuditEvent {
                id: parsed(TABLE, &self.id)?,
                sequence: unsigned(self.sequence)?,
                at: time(TABLE, self.time_ms)?,
                caller: self.caller,
                resource: self.resource,
                logical_path: self.logical_path,
                generation: unsigned(self.generation)?,
                key_id: self.key_id,
                aad_sha256: self.aad_sha256,
                cluster: self.cluster,
                destination: self.destination,
                outcome: self.outcome,
                reason: self.reason,
                backend_request_id: self.backend_request_id,
                count: unsigned(self.count)?,
                decision_id: self.decision_id,
                authority: self.authority,
                dev: self.dev,
                evidence,
            },
        })
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct AdminRow {
    seq: i64,
    time_ms: i64,
    actor: String,
    action: String,
    subject: String,
    detail: String,
    sequence: Option<i64>,
    head: Option<Vec<u8>>,
    chain: Option<String>,
}

impl AdminRow {
    pub(in crate::store) fn read(self) -> Result<AdminRecord> {
        let table = "admin_events";
        let place = match (self.chain, self.sequence, self.head) {
            (Some(chain), Some(sequence), Some(head)) => Some(ChainPoint {
                chain: parsed(table, &chain)?,
                sequence: unsigned(sequence)?,
                head: digest(table, &head)?,
            }),
            _ => None,
        };
        Ok(AdminRecord {
            seq: unsigned(self.seq)?,
            at: time(table, self.time_ms)?,
            actor: self.actor,
            action: self.action,
            subject: self.subject,
            detail: self.detail,
            place,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct CheckpointRow {
    chain: String,
    number: i64,
    owner: String,
    sequence: i64,
    head: Vec<u8>,
    time_ms: i64,
    algorithm: String,
    signature: Vec<u8>,
    certificates: String,
}

impl CheckpointRow {
    pub(in crate::store) fn read(self) -> Result<Signed> {
        let certificates = serde_json::from_str::<Vec<String>>(&self.certificates).ok();
        let certificates = certificates.and_then(|all| all.iter().map(|one| base64(one)).collect());
        Ok(Signed {
            checkpoint: Checkpoint {
                chain: parsed(CHECKPOINTS, &self.chain)?,
                owner: owner(CHECKPOINTS, self.owner)?,
                number: unsigned(self.number)?,
                sequence: unsigned(self.sequence)?,
                head: digest(CHECKPOINTS, &self.head)?,
                time_ms: self.time_ms,
            },
            algorithm: parsed(CHECKPOINTS, &self.algorithm)?,
            signature: self.signature,
            certificates: certificates.ok_or(StoreError::Corrupt(CHECKPOINTS))?,
        })
    }
}

fn base64(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

pub(in crate::store) fn digest(table: &'static str, bytes: &[u8]) -> Result<Digest> {
    Digest::try_from(bytes).map_err(|_| StoreError::Corrupt(table))
}

pub(in crate::store) fn owner(table: &'static str, text: String) -> Result<Owner> {
    Owner::try_from(text).map_err(|_| StoreError::Corrupt(table))
}
