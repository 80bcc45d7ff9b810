//! Rows of sessions on the Policy Bridge, as one control plane tells the others of them.

use super::parsed;
use crate::bridge::Told;
use crate::store::{Result, StoreError};

const TABLE: &str = "bridge_sessions";
/// So long what was told counts, in milliseconds.
pub(in crate::store) const COUNTS_MS: i64 = 30_000;

#[derive(sqlx::FromRow)]
pub(in crate::store) struct SessionRow {
    id: String,
    bouncer: String,
    view: String,
}

impl SessionRow {
    pub(in crate::store) fn read(self) -> Result<Told> {
        let view = serde_json::from_str(&self.view).map_err(|_| StoreError::Corrupt(TABLE))?;
        Ok(Told { id: parsed(TABLE, &self.id)?, bouncer: parsed(TABLE, &self.bouncer)?, view })
    }
}

/// What is stored of a session.
pub(in crate::store) fn view(told: &Told) -> Result<String> {
    serde_json::to_string(&told.view).map_err(|_| StoreError::Corrupt(TABLE))
}
