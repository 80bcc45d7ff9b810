//! Rows of bouncers, with what was last heard of each.

use super::{change, parsed, time, unsigned};
use crate::model::{Bouncer, BouncerRecord, Sighting};
use crate::store::{Conflict, Result, StoreError};
use bouncer_custody::BouncerIdentity;

const TABLE: &str = "bouncers";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct BouncerRow {
    name: String,
    identity: String,
    created_ms: i64,
    created_by: String,
    updated_ms: Option<i64>,
    updated_by: Option<String>,
    revision: i64,
    seen_ms: Option<i64>,
    version: Option<String>,
    epoch_acked: Option<i64>,
}

impl BouncerRow {
    pub(in crate::store) fn read(self) -> Result<BouncerRecord> {
        let sighting = match (self.seen_ms, self.version, self.epoch_acked) {
            (Some(ms), Some(version), Some(epoch)) => {
                Some(Sighting { at: time(TABLE, ms)?, version, epoch_acked: unsigned(epoch)? })
            }
            _ => None,
        };
        let created = change(TABLE, self.created_ms, self.created_by)?;
        let updated = match (self.updated_ms, self.updated_by) {
            (Some(ms), Some(by)) => change(TABLE, ms, by)?,
            _ => created.clone(),
        };
        Ok(BouncerRecord {
            bouncer: Bouncer { name: parsed(TABLE, &self.name)?, identity: parsed(TABLE, &self.identity)? },
            created,
            updated,
            revision: unsigned(self.revision)?,
            sighting,
        })
    }
}

/// The one constraint that a well-formed bouncer can break is that identities are distinct.
pub(in crate::store) fn taken(error: sqlx::Error, identity: &BouncerIdentity) -> StoreError {
    match error.as_database_error() {
        Some(cause) if cause.is_unique_violation() => match identity {
            BouncerIdentity::Spiffe(_) => Conflict::SpiffeIdTaken.into(),
            BouncerIdentity::IamRole(_) => Conflict::IamRoleTaken.into(),
        },
        _ => error.into(),
    }
}
