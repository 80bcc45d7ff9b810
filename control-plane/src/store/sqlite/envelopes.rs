//! The envelopes, with their generations.

use super::database::{Database, Write};
use super::proposals;
use crate::certificate::CertificateChain;
use crate::edit::{Edit, Reason};
use crate::model::{Envelope, EnvelopeRecord, Terms};
use crate::store::rows::envelopes::{EnvelopeRow, TABLE, detail};
use crate::store::rows::{Recalled, parsed, part, signed, unsigned};
use crate::store::search::Wanted;
use crate::store::{Conflict, EnvelopeFilter, Page, Part, Result, StoreError, expected};
use bouncer_custody::{Generation, LogicalPath};
use sqlx::{SqliteExecutor, SqlitePool};
use uuid::Uuid;

/// The newest generations of secrets that are not deleted; conditions follow.
macro_rules! select_latest {
    ($rest:literal) => {
        concat!(
            "SELECT g.*, s.logical_path, s.revoked_through, s.revision FROM envelope_secrets s
             JOIN envelope_generations g ON g.secret_id = s.id AND g.generation = s.latest
             WHERE s.deleted_ms IS NULL ",
            $rest
        )
    };
}
pub(super) use select_latest;

/// Any generation of a secret; conditions follow.
macro_rules! select_generation {
    ($rest:literal) => {
        concat!(
            "SELECT g.*, s.logical_path, s.revoked_through, s.revision FROM envelope_generations g
             JOIN envelope_secrets s ON s.id = g.secret_id WHERE s.id = ? ",
            $rest
        )
    };
}

async fn generation(write: &mut Write<'_>, id: &str, generation: i64) -> Result<Option<EnvelopeRecord>> {
    let row: Option<EnvelopeRow> = sqlx::query_as(select_generation!("AND g.generation = ?"))
        .bind(id)
        .bind(generation)
        .fetch_optional(write.connection())
        .await?;
    row.map(EnvelopeRow::read).transpose()
}

async fn insert_generation(
    write: &mut Write<'_>,
    envelope: &Envelope,
    terms: &Terms,
    edit: &Edit,
) -> Result<EnvelopeRecord> {
    let revision = write.revise().await?;
    let (id, generation, revoked_through): (String, i64, i64) = sqlx::query_as(
        "INSERT INTO envelope_secrets (id, logical_path, latest, revision) VALUES (?1, ?2, 1, ?3)
         ON CONFLICT (logical_path) DO UPDATE
         SET latest = latest + 1, deleted_ms = NULL, deleted_by = NULL, revision = ?3
         RETURNING id, latest, revoked_through",
    )
    .bind(Uuid::now_v7().to_string())
    .bind(envelope.path.as_str())
    .bind(signed(revision)?)
    .fetch_one(write.connection())
    .await?;
    let chain = envelope.certificate_chain.as_ref();
    sqlx::query(
        "INSERT INTO envelope_generations (secret_id, generation, provider, key_id, ciphertext_ref, aad,
             certificate_chain, not_after_ms, enabled, created_ms, created_by, reason)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&id)
    .bind(generation)
    .bind(envelope.key_id.provider().as_str())
    .bind(envelope.key_id.as_str())
    .bind(envelope.ciphertext_ref.as_str())
    .bind(envelope.aad.as_ref().map(|aad| aad.as_str().to_owned()))
    .bind(chain.map(|chain| chain.as_str().to_owned()))
    .bind(chain.map(|chain| chain.not_after().as_millisecond()))
    .bind(terms.enabled)
    .bind(write.now_ms())
    .bind(edit.actor.as_str())
    .bind(terms.reason.as_ref().map(|reason| reason.as_str().to_owned()))
    .execute(write.connection())
    .await?;
    Ok(EnvelopeRecord {
        id: parsed(TABLE, &id)?,
        envelope: envelope.clone(),
        generation: Generation::new(unsigned(generation)?).ok_or(StoreError::OutOfRange)?,
        enabled: terms.enabled,
        activation: 0,
        revoked_through: unsigned(revoked_through)?,
        created: write.change(&edit.actor),
        changed: None,
        reason: terms.reason.clone(),
        revision,
    })
}

pub(super) async fn register(
    database: &Database,
    envelope: &Envelope,
    terms: &Terms,
    edit: &Edit,
) -> Result<EnvelopeRecord> {
    let mut write = proposals::begin(database, edit).await?;
    if let Some(Recalled::Generation(id, number)) = write.recall(edit).await? {
        return generation(&mut write, &id, number).await?.ok_or(StoreError::Corrupt(TABLE));
    }
    let before: Option<i64> =
        sqlx::query_scalar("SELECT revision FROM envelope_secrets WHERE logical_path = ? AND deleted_ms IS NULL")
            .bind(envelope.path.as_str())
            .fetch_optional(write.connection())
            .await?;
    expected(edit, before.map_or(Ok(0), unsigned)?)?;
    let record = insert_generation(&mut write, envelope, terms, edit).await?;
    if terms.generation.is_some_and(|wanted| wanted != record.generation) {
        // Nothing is committed.
        return Err(Conflict::OtherGeneration.into());
    }
    let detail = detail(record.generation, terms.reason.as_ref());
    write.record(&edit.actor, "envelope.registered", envelope.path.as_str(), &detail).await?;
    write.note(edit, Some((record.id, record.generation.get()))).await?;
    write.raise_epoch().await?;
    write.commit().await?;
    Ok(record)
}

pub(super) async fn roll_back(
    database: &Database,
    id: Uuid,
    to: Generation,
    reason: Option<&Reason>,
    edit: &Edit,
) -> Result<EnvelopeRecord> {
    let mut write = proposals::begin(database, edit).await?;
    if let Some(Recalled::Generation(id, number)) = write.recall(edit).await? {
        return generation(&mut write, &id, number).await?.ok_or(StoreError::Corrupt(TABLE));
    }
    let latest = by_id(write.connection(), id).await?.ok_or(StoreError::NotFound)?;
    expected(edit, latest.revision)?;
    let old = generation(&mut write, &id.to_string(), signed(to.get())?).await?.ok_or(StoreError::NotFound)?;
    if old.is_bound_to_its_generation() {
        return Err(Conflict::BoundToGeneration.into());
    }
    // What was disabled stays so: rolling back is no way around a revocation.
    let terms = Terms { generation: None, enabled: latest.enabled, reason: reason.cloned() };
    let record = insert_generation(&mut write, &old.envelope, &terms, edit).await?;
    let detail = format!("to generation {to}, as {}", detail(record.generation, reason));
    write.record(&edit.actor, "envelope.rolled_back", old.envelope.path.as_str(), &detail).await?;
    write.note(edit, Some((record.id, record.generation.get()))).await?;
    write.raise_epoch().await?;
    write.commit().await?;
    Ok(record)
}

/// Notes when registered chains end that were stored before that was noted.
pub(super) async fn date_certificates(writer: &SqlitePool) -> Result<()> {
    let rows: Vec<(String, i64, String)> = sqlx::query_as(
        "SELECT secret_id, generation, certificate_chain FROM envelope_generations
         WHERE certificate_chain IS NOT NULL AND not_after_ms IS NULL",
    )
    .fetch_all(writer)
    .await?;
    for (id, generation, chain) in rows {
        let chain: CertificateChain = parsed(TABLE, &chain)?;
        sqlx::query("UPDATE envelope_generations SET not_after_ms = ? WHERE secret_id = ? AND generation = ?")
            .bind(chain.not_after().as_millisecond())
            .bind(id)
            .bind(generation)
            .execute(writer)
            .await?;
    }
    Ok(())
}

pub(super) async fn by_id(executor: impl SqliteExecutor<'_>, id: Uuid) -> Result<Option<EnvelopeRecord>> {
    let row: Option<EnvelopeRow> =
        sqlx::query_as(select_latest!("AND s.id = ?")).bind(id.to_string()).fetch_optional(executor).await?;
    row.map(EnvelopeRow::read).transpose()
}

pub(super) async fn by_path(database: &Database, path: &LogicalPath) -> Result<Option<EnvelopeRecord>> {
    let row: Option<EnvelopeRow> = sqlx::query_as(select_latest!("AND s.logical_path = ?"))
        .bind(path.as_str())
        .fetch_optional(&database.reader)
        .await?;
    row.map(EnvelopeRow::read).transpose()
}

pub(super) async fn list(
    database: &Database,
    wanted: &EnvelopeFilter,
    page: &Page<LogicalPath>,
) -> Result<Part<EnvelopeRecord>> {
    // One read transaction, so that what was found is there.
    let mut read = database.reader.begin().await?;
    let after = page.after.as_ref().map_or("", LogicalPath::as_str);
    let paths = Wanted::envelopes(wanted).keys(&mut *read, after, page.limit + 1).await?;
    let paths = serde_json::to_string(&paths).map_err(|_| StoreError::Corrupt(TABLE))?;
    let rows: Vec<EnvelopeRow> = sqlx::query_as(select_latest!(
        "AND s.logical_path IN (SELECT value FROM json_each(?)) ORDER BY s.logical_path"
    ))
    .bind(paths)
    .fetch_all(&mut *read)
    .await?;
    read.commit().await?;
    part(rows, page.limit, EnvelopeRow::read)
}

pub(super) async fn history(database: &Database, id: Uuid, page: &Page<u64>) -> Result<Part<EnvelopeRecord>> {
    let rows: Vec<EnvelopeRow> =
        sqlx::query_as(select_generation!("AND g.generation < ? ORDER BY g.generation DESC LIMIT ?"))
            .bind(id.to_string())
            .bind(page.after.map_or(Ok(i64::MAX), signed)?)
            .bind(i64::from(page.limit) + 1)
            .fetch_all(&database.reader)
            .await?;
    part(rows, page.limit, EnvelopeRow::read)
}

pub(super) async fn set_enabled(
    database: &Database,
    id: Uuid,
    enabled: bool,
    reason: Option<&Reason>,
    edit: &Edit,
) -> Result<EnvelopeRecord> {
    let mut write = proposals::begin(database, edit).await?;
    let before = by_id(write.connection(), id).await?.ok_or(StoreError::NotFound)?;
    expected(edit, before.revision)?;
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
    .bind(edit.actor.as_str())
    .bind(id.to_string())
    .bind(signed(before.generation.get())?)
    .execute(write.connection())
    .await?;
    let revoked_through = if enabled { before.revoked_through } else { before.generation.get() };
    let revision = write.revise().await?;
    sqlx::query("UPDATE envelope_secrets SET revoked_through = max(revoked_through, ?), revision = ? WHERE id = ?")
        .bind(signed(revoked_through)?)
        .bind(signed(revision)?)
        .bind(id.to_string())
        .execute(write.connection())
        .await?;
    let action = if enabled { "envelope.enabled" } else { "envelope.disabled" };
    let detail = detail(before.generation, reason);
    write.record(&edit.actor, action, before.envelope.path.as_str(), &detail).await?;
    write.raise_epoch().await?;
    let changed = Some(write.change(&edit.actor));
    write.commit().await?;
    let activation = before.activation + u64::from(enabled);
    Ok(EnvelopeRecord { enabled, activation, revoked_through, changed, revision, ..before })
}

pub(super) async fn delete(database: &Database, id: Uuid, edit: &Edit) -> Result<()> {
    let mut write = proposals::begin(database, edit).await?;
    let before = by_id(write.connection(), id).await?.ok_or(StoreError::NotFound)?;
    expected(edit, before.revision)?;
    let revision = write.revise().await?;
    sqlx::query(
        "UPDATE envelope_secrets SET deleted_ms = ?, deleted_by = ?, revoked_through = latest, revision = ?
         WHERE id = ?",
    )
    .bind(write.now_ms())
    .bind(edit.actor.as_str())
    .bind(signed(revision)?)
    .bind(id.to_string())
    .execute(write.connection())
    .await?;
    write.record(&edit.actor, "envelope.deleted", before.envelope.path.as_str(), "").await?;
    write.raise_epoch().await?;
    write.commit().await
}
