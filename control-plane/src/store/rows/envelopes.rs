//! Rows of envelopes, each one generation.

use super::crypto::key_id;
use super::{change, parsed, unsigned};
use crate::edit::Reason;
use crate::model::{Envelope, EnvelopeRecord};
use crate::store::{Result, StoreError};
use bouncer_custody::Generation;

/// The table.
pub(in crate::store) const TABLE: &str = "envelope_generations";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct EnvelopeRow {
    secret_id: String,
    logical_path: String,
    generation: i64,
    provider: String,
    key_id: String,
    ciphertext_ref: String,
    aad: Option<String>,
    certificate_chain: Option<String>,
    enabled: bool,
    activation: i64,
    revoked_through: i64,
    created_ms: i64,
    created_by: String,
    changed_ms: Option<i64>,
    changed_by: Option<String>,
    reason: Option<String>,
    revision: i64,
}

impl EnvelopeRow {
    pub(in crate::store) fn read(self) -> Result<EnvelopeRecord> {
        let changed = match (self.changed_ms, self.changed_by) {
            (Some(ms), Some(by)) => Some(change(TABLE, ms, by)?),
            _ => None,
        };
        Ok(EnvelopeRecord {
            id: parsed(TABLE, &self.secret_id)?,
            envelope: Envelope {
                path: parsed(TABLE, &self.logical_path)?,
                key_id: key_id(TABLE, &self.provider, &self.key_id)?,
                ciphertext_ref: parsed(TABLE, &self.ciphertext_ref)?,
                aad: self.aad.as_deref().map(|text| parsed(TABLE, text)).transpose()?,
                certificate_chain: self.certificate_chain.as_deref().map(|text| parsed(TABLE, text)).transpose()?,
            },
            generation: Generation::new(unsigned(self.generation)?).ok_or(StoreError::Corrupt(TABLE))?,
            enabled: self.enabled,
            activation: unsigned(self.activation)?,
            revoked_through: unsigned(self.revoked_through)?,
            created: change(TABLE, self.created_ms, self.created_by)?,
            changed,
            reason: self.reason.as_deref().map(|text| parsed(TABLE, text)).transpose()?,
            revision: unsigned(self.revision)?,
        })
    }
}

/// What is said of a change in the list of changes.
pub(in crate::store) fn detail(generation: Generation, reason: Option<&Reason>) -> String {
    match reason {
        None => format!("generation {generation}"),
        Some(reason) => format!("generation {generation}: {}", reason.as_str()),
    }
}
