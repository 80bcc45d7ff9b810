//! The audit in the order of an export: chain by chain, by sequence, in parts.

use super::audit::SELECT_ADMIN;
use super::chains::checkpoints as checkpoints_where;
use super::database::Database;
use crate::model::{AdminRecord, AuditRecord};
use crate::store::rows::audit::{AdminRow, AuditRow, CheckpointRow, digest};
use crate::store::rows::{parsed, signed, unsigned};
use crate::store::{Anchor, AuditRange, AuditSpan, Result};
use bouncer_audit::{ChainId, ChainPoint, DivergenceLine, Owner, Signed};
use sqlx::PgPool;
use std::collections::HashSet;

fn bounds(range: &AuditRange) -> (i64, i64) {
    let from = range.from.map_or(i64::MIN, |time| time.as_millisecond());
    (from, range.to.map_or(i64::MAX, |time| time.as_millisecond()))
}

pub(super) async fn spans(database: &Database, range: &AuditRange) -> Result<Vec<AuditSpan>> {
    let owner = range.bouncer.clone().map(|name| Owner::Bouncer(name).to_string());
    let (from, to) = bounds(range);
    let all = range.from.is_none() && range.to.is_none();
    // Without times the index by chain answers, and chains of which nothing is left are told of too.
    let sql = if all {
        "SELECT c.chain, coalesce((SELECT min(sequence) FROM audit_events WHERE chain = c.chain), c.sequence + 1),
             c.sequence
         FROM audit_chains c WHERE c.owner <> 'control-plane' AND ($1 IS NULL OR c.owner = $1) ORDER BY c.chain"
    } else {
        "SELECT e.chain, min(e.sequence), max(e.sequence) FROM audit_events e
         WHERE e.chain IS NOT NULL AND ($1 IS NULL OR 'bouncer:' || e.bouncer = $1)
           AND e.time_ms >= $2 AND e.time_ms < $3
         GROUP BY e.chain ORDER BY e.chain"
    };
    let rows: Vec<(String, i64, i64)> =
        sqlx::query_as(sql).bind(&owner).bind(from).bind(to).fetch_all(&database.reader).await?;
    let mut spans = Vec::with_capacity(rows.len());
    for (chain, first, last) in rows {
        let chain: ChainId = parsed("audit_events", &chain)?;
        let (first, last) = (unsigned(first)?, unsigned(last)?);
        spans.push(span(&database.reader, chain, (first, last), first).await?);
    }
    if all {
        return Ok(spans);
    }
    let busy: HashSet<ChainId> = spans.iter().map(|span| span.chain.clone()).collect();
    let chains: Vec<String> = sqlx::query_scalar(
        "SELECT chain FROM audit_chains WHERE owner <> 'control-plane' AND ($1 IS NULL OR owner = $1) ORDER BY chain",
    )
    .bind(&owner)
    .fetch_all(&database.reader)
    .await?;
    for chain in chains {
        let chain: ChainId = parsed("audit_chains", &chain)?;
        if !busy.contains(&chain) {
            spans.extend(idle(&database.reader, chain, to).await?);
        }
    }
    Ok(spans)
}

/// Stretched to the checkpoints around it; from `start` where there is none in front, and no bouncer's event.
async fn span(reader: &PgPool, chain: ChainId, (first, last): (u64, u64), start: u64) -> Result<AuditSpan> {
    let before: Option<i64> =
        sqlx::query_scalar("SELECT max(sequence) FROM audit_checkpoints WHERE chain = $1 AND sequence < $2")
            .bind(chain.as_str())
            .bind(signed(first)?)
            .fetch_one(reader)
            .await?;
    let covered: Option<i64> =
        sqlx::query_scalar("SELECT min(sequence) FROM audit_checkpoints WHERE chain = $1 AND sequence >= $2")
            .bind(chain.as_str())
            .bind(signed(last)?)
            .fetch_one(reader)
            .await?;
    let first = match before {
        Some(before) => unsigned(before)? + 1,
        // Without one in front, from where the stored chain begins.
        None => {
            let stored: Option<i64> = sqlx::query_scalar("SELECT min(sequence) FROM audit_events WHERE chain = $1")
                .bind(chain.as_str())
                .fetch_one(reader)
                .await?;
            stored.map(unsigned).transpose()?.unwrap_or(start)
        }
    };
    let last = covered.map(unsigned).transpose()?.unwrap_or(last);
    Ok(AuditSpan { chain, first, last })
}

/// Of a chain without an event in the range: its last checkpoint from before the range's end, which tells that it was there.
async fn idle(reader: &PgPool, chain: ChainId, to: i64) -> Result<Option<AuditSpan>> {
    let last: Option<i64> = sqlx::query_scalar(
        "SELECT sequence FROM audit_checkpoints WHERE chain = $1 AND time_ms < $2 ORDER BY number DESC LIMIT 1",
    )
    .bind(chain.as_str())
    .bind(to)
    .fetch_optional(reader)
    .await?;
    let last = last.map(unsigned).transpose()?;
    Ok(last.map(|last| AuditSpan { chain, first: last + 1, last }))
}

pub(super) async fn anchor(database: &Database, chain: &ChainId, first: u64) -> Result<Anchor> {
    let checkpoint: Option<CheckpointRow> = sqlx::query_as(checkpoints_where!(
        "WHERE chain = $1 AND sequence < $2 ORDER BY sequence DESC, number DESC LIMIT 1"
    ))
    .bind(chain.as_str())
    .bind(signed(first)?)
    .fetch_optional(&database.reader)
    .await?;
    if let Some(checkpoint) = checkpoint {
        return Ok(Anchor::Checkpoint(Box::new(checkpoint.read()?)));
    }
    let cut: Option<(i64, Vec<u8>)> = sqlx::query_as("SELECT sequence, head FROM audit_cuts WHERE chain = $1")
        .bind(chain.as_str())
        .fetch_optional(&database.reader)
        .await?;
    let Some((sequence, head)) = cut else { return Ok(Anchor::Start) };
    let head = digest("audit_cuts", &head)?;
    Ok(Anchor::Cut(ChainPoint { chain: chain.clone(), sequence: unsigned(sequence)?, head }))
}

pub(super) async fn audit_in(
    database: &Database,
    span: &AuditSpan,
    after: Option<(u64, u64)>,
    limit: u16,
) -> Result<Vec<AuditRecord>> {
    let (sequence, seq) = after.unwrap_or((span.first.saturating_sub(1), i64::MAX.unsigned_abs()));
    let rows: Vec<AuditRow> = sqlx::query_as(
        "SELECT * FROM audit_events WHERE chain = $1 AND (sequence, seq) > ($2, $3) AND sequence <= $4
         ORDER BY sequence, seq LIMIT $5",
    )
    .bind(span.chain.as_str())
    .bind(signed(sequence)?)
    .bind(signed(seq)?)
    .bind(signed(span.last)?)
    .bind(i64::from(limit))
    .fetch_all(&database.reader)
    .await?;
    rows.into_iter().map(AuditRow::read).collect()
}

pub(super) async fn checkpoints(
    database: &Database,
    chain: &ChainId,
    after: u64,
    through: u64,
    limit: u16,
) -> Result<Vec<Signed>> {
    let rows: Vec<CheckpointRow> = sqlx::query_as(checkpoints_where!(
        "WHERE chain = $1 AND number > $2 AND sequence <= $3 ORDER BY number LIMIT $4"
    ))
    .bind(chain.as_str())
    .bind(signed(after)?)
    .bind(signed(through)?)
    .bind(i64::from(limit))
    .fetch_all(&database.reader)
    .await?;
    rows.into_iter().map(CheckpointRow::read).collect()
}

pub(super) async fn unchained_audit(
    database: &Database,
    range: &AuditRange,
    after: u64,
    limit: u16,
) -> Result<Vec<AuditRecord>> {
    let (from, to) = bounds(range);
    let rows: Vec<AuditRow> = sqlx::query_as(
        "SELECT * FROM audit_events
         WHERE chain IS NULL AND seq > $1 AND time_ms >= $2 AND time_ms < $3 AND ($4 IS NULL OR bouncer = $4)
         ORDER BY seq LIMIT $5",
    )
    .bind(signed(after)?)
    .bind(from)
    .bind(to)
    .bind(&range.bouncer)
    .bind(i64::from(limit))
    .fetch_all(&database.reader)
    .await?;
    rows.into_iter().map(AuditRow::read).collect()
}

pub(super) async fn admin_span(database: &Database, range: &AuditRange) -> Result<Option<AuditSpan>> {
    let own = {
        let mut connection = database.reader.acquire().await?;
        super::chains::own_end(&mut connection).await?
    };
    let Some(own) = own else { return Ok(None) };
    let (from, to) = bounds(range);
    let (first, last): (Option<i64>, Option<i64>) = sqlx::query_as(
        "SELECT min(sequence), max(sequence) FROM admin_events
         WHERE sequence IS NOT NULL AND time_ms >= $1 AND time_ms < $2",
    )
    .bind(from)
    .bind(to)
    .fetch_one(&database.reader)
    .await?;
    let (Some(first), Some(last)) = (first, last) else { return idle(&database.reader, own.chain, to).await };
    // Administrative changes are never removed.
    span(&database.reader, own.chain, (unsigned(first)?, unsigned(last)?), 1).await.map(Some)
}

pub(super) async fn admin_in(
    database: &Database,
    span: &AuditSpan,
    after: u64,
    limit: u16,
) -> Result<Vec<AdminRecord>> {
    let sql = format!("{} WHERE e.sequence > $1 AND e.sequence <= $2 ORDER BY e.sequence LIMIT $3", SELECT_ADMIN);
    let rows: Vec<AdminRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(signed(after.max(span.first.saturating_sub(1)))?)
        .bind(signed(span.last)?)
        .bind(i64::from(limit))
        .fetch_all(&database.reader)
        .await?;
    rows.into_iter().map(AdminRow::read).collect()
}

pub(super) async fn unchained_admin(
    database: &Database,
    range: &AuditRange,
    after: u64,
    limit: u16,
) -> Result<Vec<AdminRecord>> {
    let (from, to) = bounds(range);
    let sql = format!(
        "{} WHERE e.sequence IS NULL AND seq > $1 AND time_ms >= $2 AND time_ms < $3 ORDER BY seq LIMIT $4",
        SELECT_ADMIN
    );
    let rows: Vec<AdminRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql))
        .bind(signed(after)?)
        .bind(from)
        .bind(to)
        .bind(i64::from(limit))
        .fetch_all(&database.reader)
        .await?;
    rows.into_iter().map(AdminRow::read).collect()
}

pub(super) async fn divergences(
    database: &Database,
    range: &AuditRange,
    after: u64,
    limit: u16,
) -> Result<Vec<(u64, DivergenceLine)>> {
    let (from, to) = bounds(range);
    let rows: Vec<(i64, i64, String, String, i64, String, String)> = sqlx::query_as(
        "SELECT seq, received_ms, bouncer, chain, sequence, kind, evidence FROM audit_divergences
         WHERE seq > $1 AND received_ms >= $2 AND received_ms < $3 AND ($4 IS NULL OR bouncer = $4)
         ORDER BY seq LIMIT $5",
    )
    .bind(signed(after)?)
    .bind(from)
    .bind(to)
    .bind(&range.bouncer)
    .bind(i64::from(limit))
    .fetch_all(&database.reader)
    .await?;
    rows.into_iter()
        .map(|(seq, time_ms, bouncer, chain, sequence, kind, evidence)| {
            let sequence = unsigned(sequence)?;
            Ok((unsigned(seq)?, DivergenceLine { time_ms, bouncer, chain, sequence, kind, evidence }))
        })
        .collect()
}
