//! Rows of the flags and of the provider settings.

use super::{change, parsed, unsigned};
use crate::model::{FlagState, Settings, SettingsRecord};
use crate::store::{Result, StoreError};
use bouncer_custody::{KeyId, Provider};

pub(in crate::store) fn key_id(table: &'static str, provider: &str, text: &str) -> Result<KeyId> {
    let provider: Provider = parsed(table, provider)?;
    KeyId::parse(provider, text).map_err(|_| StoreError::Corrupt(table))
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct FlagRow {
    enabled: bool,
    updated_ms: i64,
    updated_by: String,
    revision: i64,
}

impl FlagRow {
    /// A flag that nobody ever set is off.
    pub(in crate::store) fn read(row: Option<Self>) -> Result<FlagState> {
        let Some(Self { enabled, updated_ms, updated_by, revision }) = row else {
            return Ok(FlagState { enabled: false, changed: None, revision: 0 });
        };
        let changed = Some(change("feature_flags", updated_ms, updated_by)?);
        Ok(FlagState { enabled, changed, revision: unsigned(revision)? })
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct SettingsRow {
    provider: String,
    key_id: String,
    notes: Option<String>,
    updated_ms: i64,
    updated_by: String,
    revision: i64,
}

impl SettingsRow {
    pub(in crate::store) fn read(self) -> Result<SettingsRecord> {
        Ok(SettingsRecord {
            settings: Settings { key_id: key_id("settings", &self.provider, &self.key_id)?, notes: self.notes },
            changed: change("settings", self.updated_ms, self.updated_by)?,
            revision: unsigned(self.revision)?,
        })
    }
}
