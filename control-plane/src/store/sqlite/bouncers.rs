//! Bouncers, and what was last heard of each.

use super::database::Database;
use super::proposals;
use crate::edit::Edit;
use crate::model::{Bouncer, BouncerRecord, Sighting};
use crate::store::rows::bouncers::{BouncerRow, taken};
use crate::store::rows::{part, signed};
use crate::store::search::Wanted;
use crate::store::{BouncerFilter, Conflict, Page, Part, Result, StoreError, expected};
use bouncer_custody::{BouncerIdentity, BouncerName};
use sqlx::SqliteExecutor;
use std::collections::HashMap;

macro_rules! select_bouncer {
    ($rest:literal) => {
        concat!(
            "SELECT b.*, s.seen_ms, s.version, s.epoch_acked FROM bouncers b
             LEFT JOIN bouncer_sightings s ON s.bouncer = b.name ",
            $rest
        )
    };
}

pub(super) async fn register(database: &Database, bouncer: &Bouncer, edit: &Edit) -> Result<BouncerRecord> {
    let mut write = proposals::begin(database, edit).await?;
    let recalled = write.recall(edit).await?.is_some();
    let known = by_name(write.connection(), &bouncer.name).await?;
    if recalled {
        return known.ok_or(Conflict::ChangedMeanwhile.into());
    }
    expected(edit, known.as_ref().map_or(0, |known| known.revision))?;
    if let Some(known) = known {
        return if known.bouncer == *bouncer { Ok(known) } else { Err(Conflict::NameTaken.into()) };
    }
    let revision = write.revise().await?;
    let inserted =
        sqlx::query("INSERT INTO bouncers (name, identity, created_ms, created_by, revision) VALUES (?, ?, ?, ?, ?)")
            .bind(bouncer.name.as_str())
            .bind(bouncer.identity.as_str())
            .bind(write.now_ms())
            .bind(edit.actor.as_str())
            .bind(signed(revision)?)
            .execute(write.connection())
            .await;
    inserted.map_err(|error| taken(error, &bouncer.identity))?;
    write.record(&edit.actor, "bouncer.registered", bouncer.name.as_str(), bouncer.identity.as_str()).await?;
    write.note(edit, None).await?;
    write.raise_epoch().await?;
    let created = write.change(&edit.actor);
    write.commit().await?;
    Ok(BouncerRecord { bouncer: bouncer.clone(), updated: created.clone(), created, revision, sighting: None })
}

pub(super) async fn replace(database: &Database, bouncer: &Bouncer, edit: &Edit) -> Result<BouncerRecord> {
    let mut write = proposals::begin(database, edit).await?;
    let known = by_name(write.connection(), &bouncer.name).await?.ok_or(StoreError::NotFound)?;
    expected(edit, known.revision)?;
    if known.bouncer == *bouncer {
        return Ok(known);
    }
    let revision = write.revise().await?;
    let updated =
        sqlx::query("UPDATE bouncers SET identity = ?, updated_ms = ?, updated_by = ?, revision = ? WHERE name = ?")
            .bind(bouncer.identity.as_str())
            .bind(write.now_ms())
            .bind(edit.actor.as_str())
            .bind(signed(revision)?)
            .bind(bouncer.name.as_str())
            .execute(write.connection())
            .await;
    updated.map_err(|error| taken(error, &bouncer.identity))?;
    write.record(&edit.actor, "bouncer.changed", bouncer.name.as_str(), bouncer.identity.as_str()).await?;
    write.raise_epoch().await?;
    let updated = write.change(&edit.actor);
    write.commit().await?;
    Ok(BouncerRecord { bouncer: bouncer.clone(), updated, revision, ..known })
}

pub(super) async fn by_name(executor: impl SqliteExecutor<'_>, name: &BouncerName) -> Result<Option<BouncerRecord>> {
    let row: Option<BouncerRow> =
        sqlx::query_as(select_bouncer!("WHERE b.name = ?")).bind(name.as_str()).fetch_optional(executor).await?;
    row.map(BouncerRow::read).transpose()
}

/// Those of the names, a JSON array, that are registered.
pub(super) async fn by_names(executor: impl SqliteExecutor<'_>, names: &str) -> Result<HashMap<BouncerName, Bouncer>> {
    let rows: Vec<BouncerRow> = sqlx::query_as(select_bouncer!("WHERE b.name IN (SELECT value FROM json_each(?))"))
        .bind(names)
        .fetch_all(executor)
        .await?;
    let read = |row: BouncerRow| row.read().map(|record| (record.bouncer.name.clone(), record.bouncer));
    rows.into_iter().map(read).collect()
}

pub(super) async fn by_identity(database: &Database, id: &BouncerIdentity) -> Result<Option<Bouncer>> {
    let row: Option<BouncerRow> = sqlx::query_as(select_bouncer!("WHERE b.identity = ?"))
        .bind(id.as_str())
        .fetch_optional(&database.reader)
        .await?;
    Ok(row.map(BouncerRow::read).transpose()?.map(|record| record.bouncer))
}

pub(super) async fn list(
    database: &Database,
    wanted: &BouncerFilter,
    page: &Page<BouncerName>,
) -> Result<Part<BouncerRecord>> {
    // One read transaction, so that what was found is there.
    let mut read = database.reader.begin().await?;
    let after = page.after.as_ref().map_or("", BouncerName::as_str);
    let names = Wanted::bouncers(wanted).keys(&mut *read, after, page.limit + 1).await?;
    let names = serde_json::to_string(&names).map_err(|_| StoreError::Corrupt("bouncers"))?;
    let rows: Vec<BouncerRow> =
        sqlx::query_as(select_bouncer!("WHERE b.name IN (SELECT value FROM json_each(?)) ORDER BY b.name"))
            .bind(names)
            .fetch_all(&mut *read)
            .await?;
    read.commit().await?;
    part(rows, page.limit, BouncerRow::read)
}

pub(super) async fn delete(database: &Database, name: &BouncerName, edit: &Edit) -> Result<()> {
    let mut write = proposals::begin(database, edit).await?;
    let known = by_name(write.connection(), name).await?.ok_or(StoreError::NotFound)?;
    expected(edit, known.revision)?;
    let guarded: i64 = sqlx::query_scalar("SELECT count(*) FROM protected_resources WHERE bouncer = ?")
        .bind(name.as_str())
        .fetch_one(write.connection())
        .await?;
    if guarded > 0 {
        return Err(Conflict::BouncerInUse.into());
    }
    sqlx::query("DELETE FROM bouncers WHERE name = ?").bind(name.as_str()).execute(write.connection()).await?;
    write.record(&edit.actor, "bouncer.deleted", name.as_str(), "").await?;
    write.raise_epoch().await?;
    write.commit().await
}

/// What was heard of several bouncers, in one change.
pub(super) async fn record_sightings(database: &Database, sightings: &[(BouncerName, Sighting)]) -> Result<Vec<()>> {
    let mut write = database.begin().await?;
    for (name, sighting) in sightings {
        // Its registration may have gone in the meantime; then there is nothing to remember.
        sqlx::query(
            "INSERT INTO bouncer_sightings (bouncer, seen_ms, version, epoch_acked)
             SELECT name, ?2, ?3, ?4 FROM bouncers WHERE name = ?1
             ON CONFLICT (bouncer) DO UPDATE SET seen_ms = ?2, version = ?3, epoch_acked = ?4",
        )
        .bind(name.as_str())
        .bind(sighting.at.as_millisecond())
        .bind(&sighting.version)
        .bind(signed(sighting.epoch_acked)?)
        .execute(write.connection())
        .await?;
    }
    write.commit().await?;
    Ok(vec![(); sightings.len()])
}
