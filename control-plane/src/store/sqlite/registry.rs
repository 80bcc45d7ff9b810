//! Bouncers, the protected resources they guard, and the policy that each may see.

use super::crypto::{self, select_latest};
use super::database::{Database, Write, change, parsed, part, signed, time, unsigned};
use crate::model::{Actor, Bouncer, BouncerRecord, Flag, Policy, Protocol, Resource, ResourceRecord, Sighting};
use crate::store::{Conflict, Page, Part, Result, StoreError};
use bouncer_custody::{BouncerName, ClusterName, ResourceName, SpiffeId};
use sqlx::SqliteExecutor;

const BOUNCERS: &str = "bouncers";
const RESOURCES: &str = "protected_resources";

#[derive(sqlx::FromRow)]
struct BouncerRow {
    name: String,
    spiffe_id: String,
    created_ms: i64,
    created_by: String,
    seen_ms: Option<i64>,
    version: Option<String>,
    epoch_acked: Option<i64>,
}

impl BouncerRow {
    fn read(self) -> Result<BouncerRecord> {
        let sighting = match (self.seen_ms, self.version, self.epoch_acked) {
            (Some(ms), Some(version), Some(epoch)) => {
                Some(Sighting { at: time(BOUNCERS, ms)?, version, epoch_acked: unsigned(epoch)? })
            }
            _ => None,
        };
        Ok(BouncerRecord {
            bouncer: Bouncer { name: parsed(BOUNCERS, &self.name)?, spiffe_id: parsed(BOUNCERS, &self.spiffe_id)? },
            created: change(BOUNCERS, self.created_ms, self.created_by)?,
            sighting,
        })
    }
}

macro_rules! select_bouncer {
    ($rest:literal) => {
        concat!(
            "SELECT b.*, s.seen_ms, s.version, s.epoch_acked FROM bouncers b
             LEFT JOIN bouncer_sightings s ON s.bouncer = b.name ",
            $rest
        )
    };
}

pub(super) async fn register_bouncer(database: &Database, bouncer: &Bouncer, actor: &Actor) -> Result<BouncerRecord> {
    let mut write = database.begin().await?;
    if let Some(known) = bouncer_by_name(write.connection(), &bouncer.name).await? {
        return if known.bouncer == *bouncer { Ok(known) } else { Err(Conflict::NameTaken.into()) };
    }
    let inserted = sqlx::query("INSERT INTO bouncers (name, spiffe_id, created_ms, created_by) VALUES (?, ?, ?, ?)")
        .bind(bouncer.name.as_str())
        .bind(bouncer.spiffe_id.as_str())
        .bind(write.now_ms())
        .bind(actor.as_str())
        .execute(write.connection())
        .await;
    match inserted {
        Err(error) if error.as_database_error().is_some_and(|e| e.is_unique_violation()) => {
            return Err(Conflict::SpiffeIdTaken.into());
        }
        other => other?,
    };
    write.record(actor, "bouncer.registered", bouncer.name.as_str(), bouncer.spiffe_id.as_str()).await?;
    write.raise_epoch().await?;
    let created = write.change(actor);
    write.commit().await?;
    Ok(BouncerRecord { bouncer: bouncer.clone(), created, sighting: None })
}

pub(super) async fn bouncer_by_name(
    executor: impl SqliteExecutor<'_>,
    name: &BouncerName,
) -> Result<Option<BouncerRecord>> {
    let row: Option<BouncerRow> =
        sqlx::query_as(select_bouncer!("WHERE b.name = ?")).bind(name.as_str()).fetch_optional(executor).await?;
    row.map(BouncerRow::read).transpose()
}

pub(super) async fn bouncer_by_spiffe_id(database: &Database, id: &SpiffeId) -> Result<Option<Bouncer>> {
    let row: Option<BouncerRow> = sqlx::query_as(select_bouncer!("WHERE b.spiffe_id = ?"))
        .bind(id.as_str())
        .fetch_optional(&database.reader)
        .await?;
    Ok(row.map(BouncerRow::read).transpose()?.map(|record| record.bouncer))
}

pub(super) async fn bouncers(database: &Database, page: &Page<BouncerName>) -> Result<Part<BouncerRecord>> {
    let rows: Vec<BouncerRow> = sqlx::query_as(select_bouncer!("WHERE b.name > ? ORDER BY b.name LIMIT ?"))
        .bind(page.after.as_ref().map_or("", BouncerName::as_str))
        .bind(i64::from(page.limit) + 1)
        .fetch_all(&database.reader)
        .await?;
    part(rows, page.limit, BouncerRow::read)
}

pub(super) async fn delete_bouncer(database: &Database, name: &BouncerName, actor: &Actor) -> Result<()> {
    let mut write = database.begin().await?;
    let guarded: i64 = sqlx::query_scalar("SELECT count(*) FROM protected_resources WHERE bouncer = ?")
        .bind(name.as_str())
        .fetch_one(write.connection())
        .await?;
    if guarded > 0 {
        return Err(Conflict::BouncerInUse.into());
    }
    let deleted =
        sqlx::query("DELETE FROM bouncers WHERE name = ?").bind(name.as_str()).execute(write.connection()).await?;
    if deleted.rows_affected() == 0 {
        return Err(StoreError::NotFound);
    }
    write.record(actor, "bouncer.deleted", name.as_str(), "").await?;
    write.raise_epoch().await?;
    write.commit().await
}

pub(super) async fn record_sighting(database: &Database, name: &BouncerName, sighting: &Sighting) -> Result<()> {
    let mut write = database.begin().await?;
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
    write.commit().await
}

#[derive(sqlx::FromRow)]
struct ResourceRow {
    name: String,
    bouncer: String,
    cluster: String,
    upstream: String,
    protocol: String,
    logical_path: String,
    callers: String,
    enabled: bool,
    created_ms: i64,
    created_by: String,
    updated_ms: i64,
    updated_by: String,
}

impl ResourceRow {
    fn read(self) -> Result<ResourceRecord> {
        Ok(ResourceRecord {
            resource: Resource {
                name: parsed(RESOURCES, &self.name)?,
                bouncer: parsed(RESOURCES, &self.bouncer)?,
                cluster: parsed(RESOURCES, &self.cluster)?,
                upstream: parsed(RESOURCES, &self.upstream)?,
                protocol: parsed::<Protocol>(RESOURCES, &self.protocol)?,
                path: parsed(RESOURCES, &self.logical_path)?,
                callers: serde_json::from_str(&self.callers).map_err(|_| StoreError::Corrupt(RESOURCES))?,
                enabled: self.enabled,
            },
            created: change(RESOURCES, self.created_ms, self.created_by)?,
            updated: change(RESOURCES, self.updated_ms, self.updated_by)?,
        })
    }
}

async fn require_bouncer(write: &mut Write<'_>, resource: &Resource) -> Result<()> {
    match bouncer_by_name(write.connection(), &resource.bouncer).await? {
        Some(_) => Ok(()),
        None => Err(Conflict::NoSuchBouncer.into()),
    }
}

/// Writes the row, keeping when and by whom it was first registered.
async fn upsert(write: &mut Write<'_>, resource: &Resource, actor: &Actor) -> Result<ResourceRecord> {
    let callers = serde_json::to_string(&resource.callers).map_err(|_| StoreError::Corrupt(RESOURCES))?;
    let row: ResourceRow = sqlx::query_as(
        "INSERT INTO protected_resources (name, bouncer, cluster, upstream, protocol, logical_path, callers, enabled,
             created_ms, created_by, updated_ms, updated_by) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?9, ?10)
         ON CONFLICT (name) DO UPDATE SET bouncer = ?2, cluster = ?3, upstream = ?4, protocol = ?5, logical_path = ?6,
             callers = ?7, enabled = ?8, updated_ms = ?9, updated_by = ?10
         RETURNING *",
    )
    .bind(resource.name.as_str())
    .bind(resource.bouncer.as_str())
    .bind(resource.cluster.as_str())
    .bind(resource.upstream.to_string())
    .bind(resource.protocol.as_str())
    .bind(resource.path.as_str())
    .bind(callers)
    .bind(resource.enabled)
    .bind(write.now_ms())
    .bind(actor.as_str())
    .fetch_one(write.connection())
    .await?;
    row.read()
}

pub(super) async fn register_resource(
    database: &Database,
    resource: &Resource,
    actor: &Actor,
) -> Result<ResourceRecord> {
    let mut write = database.begin().await?;
    if let Some(known) = resource_by_name(write.connection(), &resource.name).await? {
        return if known.resource == *resource { Ok(known) } else { Err(Conflict::NameTaken.into()) };
    }
    require_bouncer(&mut write, resource).await?;
    let record = upsert(&mut write, resource, actor).await?;
    write.record(actor, "resource.registered", resource.name.as_str(), resource.path.as_str()).await?;
    write.raise_epoch().await?;
    write.commit().await?;
    Ok(record)
}

pub(super) async fn replace_resource(
    database: &Database,
    resource: &Resource,
    actor: &Actor,
) -> Result<ResourceRecord> {
    let mut write = database.begin().await?;
    let known = resource_by_name(write.connection(), &resource.name).await?.ok_or(StoreError::NotFound)?;
    if known.resource == *resource {
        return Ok(known);
    }
    require_bouncer(&mut write, resource).await?;
    let record = upsert(&mut write, resource, actor).await?;
    let detail = if resource.enabled { "enabled" } else { "disabled" };
    write.record(actor, "resource.changed", resource.name.as_str(), detail).await?;
    write.raise_epoch().await?;
    write.commit().await?;
    Ok(record)
}

pub(super) async fn resource_by_name(
    executor: impl SqliteExecutor<'_>,
    name: &ResourceName,
) -> Result<Option<ResourceRecord>> {
    let row: Option<ResourceRow> = sqlx::query_as("SELECT * FROM protected_resources WHERE name = ?")
        .bind(name.as_str())
        .fetch_optional(executor)
        .await?;
    row.map(ResourceRow::read).transpose()
}

pub(super) async fn resources(database: &Database, page: &Page<ResourceName>) -> Result<Part<ResourceRecord>> {
    let rows: Vec<ResourceRow> =
        sqlx::query_as("SELECT * FROM protected_resources WHERE name > ? ORDER BY name LIMIT ?")
            .bind(page.after.as_ref().map_or("", ResourceName::as_str))
            .bind(i64::from(page.limit) + 1)
            .fetch_all(&database.reader)
            .await?;
    part(rows, page.limit, ResourceRow::read)
}

pub(super) async fn resources_behind(
    database: &Database,
    bouncer: &BouncerName,
    cluster: &ClusterName,
) -> Result<Vec<Resource>> {
    let rows: Vec<ResourceRow> =
        sqlx::query_as("SELECT * FROM protected_resources WHERE bouncer = ? AND cluster = ? ORDER BY name")
            .bind(bouncer.as_str())
            .bind(cluster.as_str())
            .fetch_all(&database.reader)
            .await?;
    rows.into_iter().map(|row| row.read().map(|record| record.resource)).collect()
}

pub(super) async fn delete_resource(database: &Database, name: &ResourceName, actor: &Actor) -> Result<()> {
    let mut write = database.begin().await?;
    let deleted = sqlx::query("DELETE FROM protected_resources WHERE name = ?")
        .bind(name.as_str())
        .execute(write.connection())
        .await?;
    if deleted.rows_affected() == 0 {
        return Err(StoreError::NotFound);
    }
    write.record(actor, "resource.deleted", name.as_str(), "").await?;
    write.raise_epoch().await?;
    write.commit().await
}

pub(super) async fn policy(database: &Database, name: &BouncerName) -> Result<Option<Policy>> {
    // One read transaction, so that epoch and content belong together.
    let mut read = database.reader.begin().await?;
    let Some(record) = bouncer_by_name(&mut *read, name).await? else { return Ok(None) };
    let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM meta").fetch_one(&mut *read).await?;
    let intercept_enabled = crypto::flag(&mut *read, Flag::DualCustodyIntercept).await?.enabled;
    let resources: Vec<ResourceRow> =
        sqlx::query_as("SELECT * FROM protected_resources WHERE bouncer = ? ORDER BY name")
            .bind(name.as_str())
            .fetch_all(&mut *read)
            .await?;
    // While the flag is off a bouncer needs no envelope, and what it does not hold it cannot use.
    let envelopes: Vec<crypto::Row> = if intercept_enabled {
        sqlx::query_as(select_latest!(
            "AND g.enabled = 1
             AND s.logical_path IN (SELECT logical_path FROM protected_resources WHERE bouncer = ?)
             ORDER BY s.logical_path"
        ))
        .bind(name.as_str())
        .fetch_all(&mut *read)
        .await?
    } else {
        Vec::new()
    };
    read.commit().await?;
    Ok(Some(Policy {
        epoch: unsigned(epoch)?,
        bouncer: record.bouncer,
        intercept_enabled,
        resources: resources.into_iter().map(|row| row.read().map(|r| r.resource)).collect::<Result<_>>()?,
        envelopes: envelopes.into_iter().map(crypto::Row::read).collect::<Result<_>>()?,
    }))
}
