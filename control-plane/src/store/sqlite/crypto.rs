//! The flag, the provider settings, and the envelopes with their generations.

use super::database::{Database, Write, change, parsed, part, signed, unsigned};
use crate::model::{Actor, Envelope, EnvelopeRecord, Flag, FlagState, Settings, SettingsRecord, Terms};
use crate::store::{Conflict, Page, Part, Result, StoreError};
use bouncer_custody::{Generation, KeyId, LogicalPath, Provider};
use sqlx::SqliteExecutor;
use uuid::Uuid;

const TABLE: &str = "envelope_generations";

pub(super) async fn flag(executor: impl SqliteExecutor<'_>, flag: Flag) -> Result<FlagState> {
    let row: Option<(bool, i64, String)> =
        sqlx::query_as("SELECT enabled, updated_ms, updated_by FROM feature_flags WHERE name = ?")
            .bind(flag.name())
            .fetch_optional(executor)
            .await?;
    let Some((enabled, ms, by)) = row else { return Ok(FlagState { enabled: false, changed: None }) };
    Ok(FlagState { enabled, changed: Some(change("feature_flags", ms, by)?) })
}

pub(super) async fn set_flag(database: &Database, which: Flag, enabled: bool, actor: &Actor) -> Result<FlagState> {
    let mut write = database.begin().await?;
    let before = flag(write.connection(), which).await?;
    if before.enabled == enabled && before.changed.is_some() {
        return Ok(before);
    }
    sqlx::query(
        "INSERT INTO feature_flags (name, enabled, updated_ms, updated_by) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (name) DO UPDATE SET enabled = ?2, updated_ms = ?3, updated_by = ?4",
    )
    .bind(which.name())
    .bind(enabled)
    .bind(write.now_ms())
    .bind(actor.as_str())
    .execute(write.connection())
    .await?;
    write.record(actor, if enabled { "flag.enabled" } else { "flag.disabled" }, which.name(), "").await?;
    write.raise_epoch().await?;
    let changed = Some(write.change(actor));
    write.commit().await?;
    Ok(FlagState { enabled, changed })
}

fn key_id(table: &'static str, provider: &str, text: &str) -> Result<KeyId> {
    let provider: Provider = parsed(table, provider)?;
    KeyId::parse(provider, text).map_err(|_| StoreError::Corrupt(table))
}

pub(super) async fn settings(database: &Database) -> Result<Option<SettingsRecord>> {
    let row: Option<(String, String, Option<String>, i64, String)> =
        sqlx::query_as("SELECT provider, key_id, notes, updated_ms, updated_by FROM settings")
            .fetch_optional(&database.reader)
            .await?;
    let Some((provider, key, notes, ms, by)) = row else { return Ok(None) };
    let key_id = key_id("settings", &provider, &key)?;
    Ok(Some(SettingsRecord { settings: Settings { key_id, notes }, changed: change("settings", ms, by)? }))
}

pub(super) async fn put_settings(database: &Database, settings: &Settings, actor: &Actor) -> Result<SettingsRecord> {
    let mut write = database.begin().await?;
    sqlx::query(
        "INSERT INTO settings (singleton, provider, key_id, notes, updated_ms, updated_by) VALUES (1, ?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (singleton) DO UPDATE SET provider = ?1, key_id = ?2, notes = ?3, updated_ms = ?4, updated_by = ?5",
    )
    .bind(settings.key_id.provider().as_str())
    .bind(settings.key_id.as_str())
    .bind(&settings.notes)
    .bind(write.now_ms())
    .bind(actor.as_str())
    .execute(write.connection())
    .await?;
    write.record(actor, "settings.changed", "crypto.settings", settings.key_id.provider().as_str()).await?;
    let changed = write.change(actor);
    write.commit().await?;
    Ok(SettingsRecord { settings: settings.clone(), changed })
}

#[derive(sqlx::FromRow)]
pub(super) struct Row {
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
}

impl Row {
    pub(super) fn read(self) -> Result<EnvelopeRecord> {
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
        })
    }
}

/// The newest generations of secrets that are not deleted; conditions follow.
macro_rules! select_latest {
    ($rest:literal) => {
        concat!(
            "SELECT g.*, s.logical_path, s.revoked_through FROM envelope_secrets s
             JOIN envelope_generations g ON g.secret_id = s.id AND g.generation = s.latest
             WHERE s.deleted_ms IS NULL ",
            $rest
        )
    };
}
pub(super) use select_latest;

async fn insert_generation(
    write: &mut Write<'_>,
    envelope: &Envelope,
    enabled: bool,
    actor: &Actor,
) -> Result<EnvelopeRecord> {
    let (id, generation, revoked_through): (String, i64, i64) = sqlx::query_as(
        "INSERT INTO envelope_secrets (id, logical_path, latest) VALUES (?, ?, 1)
         ON CONFLICT (logical_path) DO UPDATE SET latest = latest + 1, deleted_ms = NULL, deleted_by = NULL
         RETURNING id, latest, revoked_through",
    )
    .bind(Uuid::now_v7().to_string())
    .bind(envelope.path.as_str())
    .fetch_one(write.connection())
    .await?;
    sqlx::query(
        "INSERT INTO envelope_generations (secret_id, generation, provider, key_id, ciphertext_ref, aad,
             certificate_chain, enabled, created_ms, created_by) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&id)
    .bind(generation)
    .bind(envelope.key_id.provider().as_str())
    .bind(envelope.key_id.as_str())
    .bind(envelope.ciphertext_ref.as_str())
    .bind(envelope.aad.as_ref().map(|aad| aad.as_str().to_owned()))
    .bind(envelope.certificate_chain.as_ref().map(|chain| chain.as_str().to_owned()))
    .bind(enabled)
    .bind(write.now_ms())
    .bind(actor.as_str())
    .execute(write.connection())
    .await?;
    Ok(EnvelopeRecord {
        id: parsed(TABLE, &id)?,
        envelope: envelope.clone(),
        generation: Generation::new(unsigned(generation)?).ok_or(StoreError::OutOfRange)?,
        enabled,
        activation: 0,
        revoked_through: unsigned(revoked_through)?,
        created: write.change(actor),
        changed: None,
    })
}

pub(super) async fn register(
    database: &Database,
    envelope: &Envelope,
    terms: Terms,
    actor: &Actor,
) -> Result<EnvelopeRecord> {
    let mut write = database.begin().await?;
    let record = insert_generation(&mut write, envelope, terms.enabled, actor).await?;
    if terms.generation.is_some_and(|wanted| wanted != record.generation) {
        // Nothing is committed.
        return Err(Conflict::OtherGeneration.into());
    }
    let detail = format!("generation {}", record.generation);
    write.record(actor, "envelope.registered", envelope.path.as_str(), &detail).await?;
    write.raise_epoch().await?;
    write.commit().await?;
    Ok(record)
}

pub(super) async fn by_id(executor: impl SqliteExecutor<'_>, id: Uuid) -> Result<Option<EnvelopeRecord>> {
    let row: Option<Row> =
        sqlx::query_as(select_latest!("AND s.id = ?")).bind(id.to_string()).fetch_optional(executor).await?;
    row.map(Row::read).transpose()
}

pub(super) async fn by_path(database: &Database, path: &LogicalPath) -> Result<Option<EnvelopeRecord>> {
    let row: Option<Row> = sqlx::query_as(select_latest!("AND s.logical_path = ?"))
        .bind(path.as_str())
        .fetch_optional(&database.reader)
        .await?;
    row.map(Row::read).transpose()
}

pub(super) async fn list(database: &Database, page: &Page<LogicalPath>) -> Result<Part<EnvelopeRecord>> {
    let rows: Vec<Row> = sqlx::query_as(select_latest!("AND s.logical_path > ? ORDER BY s.logical_path LIMIT ?"))
        .bind(page.after.as_ref().map_or("", LogicalPath::as_str))
        .bind(i64::from(page.limit) + 1)
        .fetch_all(&database.reader)
        .await?;
    part(rows, page.limit, Row::read)
}

pub(super) async fn history(database: &Database, id: Uuid, page: &Page<u64>) -> Result<Part<EnvelopeRecord>> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT g.*, s.logical_path, s.revoked_through FROM envelope_generations g JOIN envelope_secrets s ON s.id = g.secret_id
         WHERE s.id = ? AND g.generation < ? ORDER BY g.generation DESC LIMIT ?",
    )
    .bind(id.to_string())
    .bind(page.after.map_or(Ok(i64::MAX), signed)?)
    .bind(i64::from(page.limit) + 1)
    .fetch_all(&database.reader)
    .await?;
    part(rows, page.limit, Row::read)
}

pub(super) async fn set_enabled(database: &Database, id: Uuid, enabled: bool, actor: &Actor) -> Result<EnvelopeRecord> {
    let mut write = database.begin().await?;
    let before = by_id(write.connection(), id).await?.ok_or(StoreError::NotFound)?;
    if before.enabled == enabled {
        return Ok(before);
    }
    // Enabled again is another activation: its tag is new, so no pooled connection of the time before is used.
    sqlx::query(
        "UPDATE envelope_generations SET enabled = ?1, activation = activation + ?1, changed_ms = ?2, changed_by = ?3
         WHERE secret_id = ?4 AND generation = ?5",
    )
    .bind(enabled)
    .bind(write.now_ms())
    .bind(actor.as_str())
    .bind(id.to_string())
    .bind(signed(before.generation.get())?)
    .execute(write.connection())
    .await?;
    let revoked_through = if enabled { before.revoked_through } else { before.generation.get() };
    sqlx::query("UPDATE envelope_secrets SET revoked_through = max(revoked_through, ?) WHERE id = ?")
        .bind(signed(revoked_through)?)
        .bind(id.to_string())
        .execute(write.connection())
        .await?;
    let action = if enabled { "envelope.enabled" } else { "envelope.disabled" };
    let detail = format!("generation {}", before.generation);
    write.record(actor, action, before.envelope.path.as_str(), &detail).await?;
    write.raise_epoch().await?;
    let changed = Some(write.change(actor));
    write.commit().await?;
    let activation = before.activation + u64::from(enabled);
    Ok(EnvelopeRecord { enabled, activation, revoked_through, changed, ..before })
}

pub(super) async fn delete(database: &Database, id: Uuid, actor: &Actor) -> Result<()> {
    let mut write = database.begin().await?;
    let path: Option<String> = sqlx::query_scalar(
        "UPDATE envelope_secrets SET deleted_ms = ?, deleted_by = ?, revoked_through = latest
         WHERE id = ? AND deleted_ms IS NULL
         RETURNING logical_path",
    )
    .bind(write.now_ms())
    .bind(actor.as_str())
    .bind(id.to_string())
    .fetch_optional(write.connection())
    .await?;
    let path = path.ok_or(StoreError::NotFound)?;
    write.record(actor, "envelope.deleted", &path, "").await?;
    write.raise_epoch().await?;
    write.commit().await
}
