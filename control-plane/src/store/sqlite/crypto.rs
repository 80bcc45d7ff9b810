//! The flag and the provider settings.

use super::database::Database;
use super::proposals;
use crate::edit::Edit;
use crate::model::{Flag, FlagState, Settings, SettingsRecord};
use crate::store::rows::crypto::{FlagRow, SettingsRow};
use crate::store::rows::signed;
use crate::store::{Result, expected};
use sqlx::SqliteExecutor;

pub(super) async fn flag(executor: impl SqliteExecutor<'_>, flag: Flag) -> Result<FlagState> {
    let row: Option<FlagRow> =
        sqlx::query_as("SELECT enabled, updated_ms, updated_by, revision FROM feature_flags WHERE name = ?")
            .bind(flag.name())
            .fetch_optional(executor)
            .await?;
    FlagRow::read(row)
}

pub(super) async fn set_flag(database: &Database, which: Flag, enabled: bool, edit: &Edit) -> Result<FlagState> {
    let mut write = proposals::begin(database, edit).await?;
    let before = flag(write.connection(), which).await?;
    expected(edit, before.revision)?;
    if before.enabled == enabled && before.changed.is_some() {
        return Ok(before);
    }
    let revision = write.revise().await?;
    sqlx::query(
        "INSERT INTO feature_flags (name, enabled, updated_ms, updated_by, revision) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (name) DO UPDATE SET enabled = ?2, updated_ms = ?3, updated_by = ?4, revision = ?5",
    )
    .bind(which.name())
    .bind(enabled)
    .bind(write.now_ms())
    .bind(edit.actor.as_str())
    .bind(signed(revision)?)
    .execute(write.connection())
    .await?;
    write.record(&edit.actor, if enabled { "flag.enabled" } else { "flag.disabled" }, which.name(), "").await?;
    write.raise_epoch().await?;
    let changed = Some(write.change(&edit.actor));
    write.commit().await?;
    Ok(FlagState { enabled, changed, revision })
}

pub(super) async fn settings(executor: impl SqliteExecutor<'_>) -> Result<Option<SettingsRecord>> {
    let row: Option<SettingsRow> =
        sqlx::query_as("SELECT provider, key_id, notes, updated_ms, updated_by, revision FROM settings")
            .fetch_optional(executor)
            .await?;
    row.map(SettingsRow::read).transpose()
}

pub(super) async fn put_settings(database: &Database, new: &Settings, edit: &Edit) -> Result<SettingsRecord> {
    let mut write = proposals::begin(database, edit).await?;
    let before = settings(write.connection()).await?;
    expected(edit, before.as_ref().map_or(0, |record| record.revision))?;
    if let Some(before) = before.filter(|before| before.settings == *new) {
        return Ok(before);
    }
    let revision = write.revise().await?;
    sqlx::query(
        "INSERT INTO settings (singleton, provider, key_id, notes, updated_ms, updated_by, revision)
         VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (singleton) DO UPDATE
         SET provider = ?1, key_id = ?2, notes = ?3, updated_ms = ?4, updated_by = ?5, revision = ?6",
    )
    .bind(new.key_id.provider().as_str())
    .bind(new.key_id.as_str())
    .bind(&new.notes)
    .bind(write.now_ms())
    .bind(edit.actor.as_str())
    .bind(signed(revision)?)
    .execute(write.connection())
    .await?;
    write.record(&edit.actor, "settings.changed", "crypto.settings", new.key_id.provider().as_str()).await?;
    let changed = write.change(&edit.actor);
    write.commit().await?;
    Ok(SettingsRecord { settings: new.clone(), changed, revision })
}
