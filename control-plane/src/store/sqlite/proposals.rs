//! Proposals, and the approval that is part of the change's own transaction.

use super::database::{Database, Write};
use crate::access::Principal;
use crate::edit::{Edit, Reason};
use crate::model::Actor;
use crate::proposal::{Asked, LIFE, MOST_PENDING, ProposalFilter, ProposalRecord, ProposalState, Proposed};
use crate::store::filter;
use crate::store::rows::proposals::{ProposalRow, detail};
use crate::store::rows::tokens::write_scope;
use crate::store::rows::{KEPT_MS, part, signed};
use crate::store::{Conflict, Page, Part, Result};
use sqlx::{QueryBuilder, SqliteExecutor};
use uuid::Uuid;

/// Begins a change. Where it is an approved one, the approval is part of it: both happen, or neither.
/// [`Conflict::ProposalDecided`] if the proposal does not wait any more.
pub(super) async fn begin<'a>(database: &'a Database, edit: &Edit) -> Result<Write<'a>> {
    let mut write = database.begin().await?;
    if let Some(approval) = &edit.approval {
        let note = approval.note.as_ref();
        decide_in(&mut write, approval.proposal, ProposalState::Approved, &approval.by, note).await?;
    }
    Ok(write)
}

async fn decide_in(
    write: &mut Write<'_>,
    id: Uuid,
    state: ProposalState,
    by: &Actor,
    note: Option<&Reason>,
) -> Result<ProposalRecord> {
    let row: Option<ProposalRow> = sqlx::query_as(
        "UPDATE proposals SET state = ?1, decided_ms = ?2, decided_by = ?3, note = ?4
         WHERE id = ?5 AND state = 'pending' AND expires_ms > ?2 RETURNING *",
    )
    .bind(state.as_str())
    .bind(write.now_ms())
    .bind(by.as_str())
    .bind(note.map(|note| note.as_str().to_owned()))
    .bind(id.to_string())
    .fetch_optional(write.connection())
    .await?;
    let record = row.ok_or(Conflict::ProposalDecided)?.read()?;
    let action = format!("proposal.{}", state.as_str());
    write.record(by, &action, &id.to_string(), &detail(&record, note)).await?;
    Ok(record)
}

pub(super) async fn decide(
    database: &Database,
    id: Uuid,
    state: ProposalState,
    by: &Actor,
    note: Option<&Reason>,
) -> Result<ProposalRecord> {
    let mut write = database.begin().await?;
    let record = decide_in(&mut write, id, state, by, note).await?;
    write.commit().await?;
    Ok(record)
}

pub(super) async fn expire(database: &Database) -> Result<u64> {
    const DUE: &str = "SELECT count(*) FROM proposals WHERE state = 'pending' AND expires_ms <= ?";
    let now = database.clock.now().as_millisecond();
    let due: i64 = sqlx::query_scalar(DUE).bind(now).fetch_one(&database.reader).await?;
    if due == 0 {
        return Ok(0);
    }
    let mut write = database.begin().await?;
    let rows: Vec<ProposalRow> = sqlx::query_as(
        "UPDATE proposals SET state = 'expired', decided_ms = ?1, decided_by = ?2
         WHERE state = 'pending' AND expires_ms <= ?1 RETURNING *",
    )
    .bind(write.now_ms())
    .bind(Actor::control_plane().as_str())
    .fetch_all(write.connection())
    .await?;
    let mut expired = 0;
    for row in rows {
        let record = row.read()?;
        let detail = detail(&record, None);
        write.record(&Actor::control_plane(), "proposal.expired", &record.id.to_string(), &detail).await?;
        expired += 1;
    }
    write.commit().await?;
    Ok(expired)
}

async fn under_key(
    executor: impl SqliteExecutor<'_>,
    actor: &Actor,
    edit: &Edit,
    since_ms: i64,
) -> Result<Option<ProposalRecord>> {
    let Some(key) = edit.key else { return Ok(None) };
    let row: Option<ProposalRow> =
        sqlx::query_as("SELECT * FROM proposals WHERE actor = ? AND idempotency_key = ? AND created_ms > ?")
            .bind(actor.as_str())
            .bind(key.key.as_slice())
            .bind(since_ms)
            .fetch_optional(executor)
            .await?;
    let Some(row) = row else { return Ok(None) };
    if !row.is_of(&key) {
        return Err(Conflict::KeyReused.into());
    }
    row.read().map(Some)
}

pub(super) async fn recall(database: &Database, edit: &Edit) -> Result<Option<ProposalRecord>> {
    let since_ms = database.clock.now().as_millisecond() - KEPT_MS;
    under_key(&database.reader, &edit.actor, edit, since_ms).await
}

pub(super) async fn propose(
    database: &Database,
    proposed: &Proposed,
    author: &Principal,
    edit: &Edit,
) -> Result<Asked> {
    let mut write = database.begin().await?;
    if write.recall(edit).await?.is_some() {
        return Ok(Asked::MadeBefore);
    }
    let since_ms = write.now_ms() - KEPT_MS;
    if let Some(known) = under_key(write.connection(), &edit.actor, edit, since_ms).await? {
        return Ok(Asked::Stored(Box::new(known)));
    }
    let same: Option<ProposalRow> = sqlx::query_as(
        "SELECT * FROM proposals WHERE state = 'pending' AND actor = ? AND method = ? AND path = ? AND body = ?
             AND base_revision = ? AND expires_ms > ?",
    )
    .bind(edit.actor.as_str())
    .bind(&proposed.method)
    .bind(&proposed.path)
    .bind(&proposed.body)
    .bind(signed(proposed.base_revision)?)
    .bind(write.now_ms())
    .fetch_optional(write.connection())
    .await?;
    if let Some(same) = same {
        return Ok(Asked::Stored(Box::new(same.read()?)));
    }
    let pending: i64 = sqlx::query_scalar("SELECT count(*) FROM proposals WHERE state = 'pending'")
        .fetch_one(write.connection())
        .await?;
    if pending >= MOST_PENDING {
        return Err(Conflict::TooManyProposals.into());
    }
    let row: ProposalRow = sqlx::query_as(
        "INSERT INTO proposals (id, state, method, route, path, body, base_revision, subject, logical_path, former_path,
             before_json, after_json, reason, actor, token_id, role, scope, idempotency_key, idempotency_request,
             created_ms, expires_ms)
         VALUES (?, 'pending', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
    )
    .bind(Uuid::now_v7().to_string())
    .bind(&proposed.method)
    .bind(&proposed.route)
    .bind(&proposed.path)
    .bind(&proposed.body)
    .bind(signed(proposed.base_revision)?)
    .bind(&proposed.subject)
    .bind(proposed.logical_path.as_ref().map(ToString::to_string))
    .bind(proposed.former_path.as_ref().map(ToString::to_string))
    .bind(proposed.before.as_ref().map(ToString::to_string))
    .bind(proposed.after.to_string())
    .bind(proposed.reason.as_ref().map(|reason| reason.as_str().to_owned()))
    .bind(edit.actor.as_str())
    .bind(author.token.map(|id| id.to_string()))
    .bind(author.role.as_str())
    .bind(write_scope(&author.scope)?)
    .bind(edit.key.map(|key| key.key.to_vec()))
    .bind(edit.key.map(|key| key.request.to_vec()))
    .bind(write.now_ms())
    .bind(write.now_ms() + i64::try_from(LIFE.as_millis()).unwrap_or(i64::MAX))
    .fetch_one(write.connection())
    .await?;
    let record = row.read()?;
    let detail = detail(&record, record.proposed.reason.as_ref());
    write.record(&edit.actor, "proposal.proposed", &record.id.to_string(), &detail).await?;
    write.commit().await?;
    Ok(Asked::Stored(Box::new(record)))
}

pub(super) async fn by_id(database: &Database, id: Uuid) -> Result<Option<ProposalRecord>> {
    let row: Option<ProposalRow> = sqlx::query_as("SELECT * FROM proposals WHERE id = ?")
        .bind(id.to_string())
        .fetch_optional(&database.reader)
        .await?;
    row.map(ProposalRow::read).transpose()
}

pub(super) async fn list(
    database: &Database,
    wanted: &ProposalFilter,
    page: &Page<u64>,
) -> Result<Part<ProposalRecord>> {
    let mut query = QueryBuilder::new("SELECT * FROM proposals WHERE seq < ");
    query.push_bind(page.after.map_or(Ok(i64::MAX), signed)?);
    filter::within(&mut query, "logical_path", &wanted.scope);
    filter::within(&mut query, "coalesce(former_path, logical_path)", &wanted.scope);
    filter::equals(&mut query, "state", wanted.state.map(ProposalState::as_str));
    query.push(" ORDER BY seq DESC LIMIT ").push_bind(i64::from(page.limit) + 1);
    part(query.build_query_as().fetch_all(&database.reader).await?, page.limit, ProposalRow::read)
}
