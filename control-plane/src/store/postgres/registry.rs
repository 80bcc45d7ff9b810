//! The protected resources that bouncers guard, and the policy that each bouncer may see.

use super::database::{Database, Write};
use super::envelopes::select_latest;
use super::{bouncers, crypto, proposals};
use crate::edit::Edit;
use crate::model::{Flag, Policy, PolicyMarks, Resource, ResourceRecord};
use crate::store::rows::envelopes::EnvelopeRow;
use crate::store::rows::resources::{MARKS, MarkRow, ResourceRow, TABLE, marks};
use crate::store::rows::{part, signed, unsigned};
use crate::store::search::Wanted;
use crate::store::{Conflict, Page, Part, ResourceFilter, Result, StoreError, expected};
use bouncer_custody::{BouncerName, ClusterName, ResourceName};
use sqlx::PgExecutor;

async fn require_bouncer(write: &mut Write<'_>, resource: &Resource) -> Result<()> {
    match bouncers::by_name(write.connection(), &resource.bouncer).await? {
        Some(_) => Ok(()),
        None => Err(Conflict::NoSuchBouncer.into()),
    }
}

/// Writes the row, keeping when and by whom it was first registered.
async fn upsert(write: &mut Write<'_>, resource: &Resource, edit: &Edit) -> Result<ResourceRecord> {
    let revision = write.revise().await?;
    let callers = serde_json::to_string(&resource.callers).map_err(|_| StoreError::Corrupt(TABLE))?;
    let row: ResourceRow = sqlx::query_as(
        "INSERT INTO protected_resources (name, bouncer, cluster, upstream, protocol, logical_path, callers, enabled,
             created_ms, created_by, updated_ms, updated_by, revision)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $9, $10, $11)
         ON CONFLICT (name) DO UPDATE SET bouncer = $2, cluster = $3, upstream = $4, protocol = $5, logical_path = $6,
             callers = $7, enabled = $8, updated_ms = $9, updated_by = $10, revision = $11
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
    .bind(edit.actor.as_str())
    .bind(signed(revision)?)
    .fetch_one(write.connection())
    .await?;
    row.read()
}

pub(super) async fn register_resource(database: &Database, resource: &Resource, edit: &Edit) -> Result<ResourceRecord> {
    let mut write = proposals::begin(database, edit).await?;
    let recalled = write.recall(edit).await?.is_some();
    let known = resource_by_name(write.connection(), &resource.name).await?;
    if recalled {
        return known.ok_or(Conflict::ChangedMeanwhile.into());
    }
    expected(edit, known.as_ref().map_or(0, |known| known.revision))?;
    if let Some(known) = known {
        return if known.resource == *resource { Ok(known) } else { Err(Conflict::NameTaken.into()) };
    }
    require_bouncer(&mut write, resource).await?;
    let record = upsert(&mut write, resource, edit).await?;
    write.record(&edit.actor, "resource.registered", resource.name.as_str(), resource.path.as_str()).await?;
    write.note(edit, None).await?;
    write.raise_epoch().await?;
    write.commit().await?;
    Ok(record)
}

pub(super) async fn replace_resource(database: &Database, resource: &Resource, edit: &Edit) -> Result<ResourceRecord> {
    let mut write = proposals::begin(database, edit).await?;
    let known = resource_by_name(write.connection(), &resource.name).await?.ok_or(StoreError::NotFound)?;
    expected(edit, known.revision)?;
    if known.resource == *resource {
        return Ok(known);
    }
    require_bouncer(&mut write, resource).await?;
    let record = upsert(&mut write, resource, edit).await?;
    let detail = if resource.enabled { "enabled" } else { "disabled" };
    write.record(&edit.actor, "resource.changed", resource.name.as_str(), detail).await?;
    write.raise_epoch().await?;
    write.commit().await?;
    Ok(record)
}

pub(super) async fn resource_by_name(
    executor: impl PgExecutor<'_>,
    name: &ResourceName,
) -> Result<Option<ResourceRecord>> {
    let row: Option<ResourceRow> = sqlx::query_as("SELECT * FROM protected_resources WHERE name = $1")
        .bind(name.as_str())
        .fetch_optional(executor)
        .await?;
    row.map(ResourceRow::read).transpose()
}

pub(super) async fn resources(
    database: &Database,
    wanted: &ResourceFilter,
    page: &Page<ResourceName>,
) -> Result<Part<ResourceRecord>> {
    let mut read = database.begin_list().await?;
    let after = page.after.as_ref().map_or("", ResourceName::as_str);
    let names = Wanted::resources(wanted).keys(&mut *read, after, page.limit + 1).await?;
    let rows: Vec<ResourceRow> = sqlx::query_as("SELECT * FROM protected_resources WHERE name = ANY($1) ORDER BY name")
        .bind(names)
        .fetch_all(&mut *read)
        .await?;
    read.commit().await?;
    part(rows, page.limit, ResourceRow::read)
}

pub(super) async fn resources_behind(
    database: &Database,
    bouncer: &BouncerName,
    cluster: &ClusterName,
) -> Result<Vec<Resource>> {
    let rows: Vec<ResourceRow> =
        sqlx::query_as("SELECT * FROM protected_resources WHERE bouncer = $1 AND cluster = $2 ORDER BY name")
            .bind(bouncer.as_str())
            .bind(cluster.as_str())
            .fetch_all(&database.reader)
            .await?;
    rows.into_iter().map(|row| row.read().map(|record| record.resource)).collect()
}

pub(super) async fn delete_resource(database: &Database, name: &ResourceName, edit: &Edit) -> Result<()> {
    let mut write = proposals::begin(database, edit).await?;
    let known = resource_by_name(write.connection(), name).await?.ok_or(StoreError::NotFound)?;
    expected(edit, known.revision)?;
    sqlx::query("DELETE FROM protected_resources WHERE name = $1")
        .bind(name.as_str())
        .execute(write.connection())
        .await?;
    write.record(&edit.actor, "resource.deleted", name.as_str(), "").await?;
    write.raise_epoch().await?;
    write.commit().await
}

pub(super) async fn policy(database: &Database, name: &BouncerName) -> Result<Option<Policy>> {
    // One snapshot for all of it, so that epoch and content belong together.
    let mut read = database.reader.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let Some(record) = bouncers::by_name(&mut *read, name).await? else { return Ok(None) };
    let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM meta").fetch_one(&mut *read).await?;
    let intercept_enabled = crypto::flag(&mut *read, Flag::DualCustodyIntercept).await?.enabled;
    let resources: Vec<ResourceRow> =
        sqlx::query_as("SELECT * FROM protected_resources WHERE bouncer = $1 ORDER BY name")
            .bind(name.as_str())
            .fetch_all(&mut *read)
            .await?;
    // While the flag is off a bouncer needs no envelope, and what it does not hold it cannot use.
    let envelopes: Vec<EnvelopeRow> = if intercept_enabled {
        sqlx::query_as(select_latest!(
            "AND g.enabled
             AND s.logical_path IN (SELECT logical_path FROM protected_resources WHERE bouncer = $1)
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
        envelopes: envelopes.into_iter().map(EnvelopeRow::read).collect::<Result<_>>()?,
    }))
}

pub(super) async fn policy_marks(database: &Database) -> Result<PolicyMarks> {
    // One snapshot for all of it, so that epoch and marks belong together.
    let mut read = database.reader.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM meta").fetch_one(&mut *read).await?;
    let flag = crypto::flag(&mut *read, Flag::DualCustodyIntercept).await?.revision;
    let rows: Vec<MarkRow> = sqlx::query_as(MARKS).fetch_all(&mut *read).await?;
    read.commit().await?;
    marks(epoch, flag, rows)
}
