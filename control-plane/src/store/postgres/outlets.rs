//! The outlets of the audit: how far each has come, who serves it, and what comes next.

use super::audit::SELECT_ADMIN;
use super::database::{Database, lock_number};
use crate::model::{AdminRecord, AuditRecord, Position};
use crate::store::Result;
use crate::store::rows::audit::{AdminRow, AuditRow};
use crate::store::rows::{signed, unsigned};
use sqlx::AssertSqlSafe;
use std::time::Duration;
use uuid::Uuid;

pub(super) async fn lease(
    database: &Database,
    outlet: &str,
    holder: Uuid,
    lease: Duration,
) -> Result<Option<Position>> {
    let now_ms = database.clock.now().as_millisecond();
    let until_ms = now_ms + i64::try_from(lease.as_millis()).unwrap_or(i64::MAX / 2);
    let row: Option<(i64, i64)> = sqlx::query_as(
        "INSERT INTO audit_outlets (name, decisions, changes, holder, until_ms)
         VALUES ($1, (SELECT coalesce(max(seq), 0) FROM audit_events),
             (SELECT coalesce(max(seq), 0) FROM admin_events), $2, $3)
         ON CONFLICT (name) DO UPDATE SET holder = $2, until_ms = $3
             WHERE audit_outlets.holder = $2 OR audit_outlets.until_ms <= $4
         RETURNING decisions, changes",
    )
    .bind(outlet)
    .bind(holder.to_string())
    .bind(until_ms)
    .bind(now_ms)
    .fetch_optional(&database.writer)
    .await?;
    row.map(|(decisions, changes)| Ok(Position { decisions: unsigned(decisions)?, changes: unsigned(changes)? }))
        .transpose()
}

pub(super) async fn advance(database: &Database, outlet: &str, holder: Uuid, to: Position) -> Result<bool> {
    let advanced = sqlx::query("UPDATE audit_outlets SET decisions = $3, changes = $4 WHERE name = $1 AND holder = $2")
        .bind(outlet)
        .bind(holder.to_string())
        .bind(signed(to.decisions)?)
        .bind(signed(to.changes)?)
        .execute(&database.writer)
        .await?;
    Ok(advanced.rows_affected() > 0)
}

pub(super) async fn release(database: &Database, outlet: &str, holder: Uuid) -> Result<()> {
    sqlx::query("UPDATE audit_outlets SET until_ms = 0 WHERE name = $1 AND holder = $2")
        .bind(outlet)
        .bind(holder.to_string())
        .execute(&database.writer)
        .await?;
    Ok(())
}

/// Batches of several bouncers are stored side by side, and one that began earlier may be there later. So those that have
/// begun are waited for: what begins after that gets later places. Each holds the lock with others, and this one alone.
pub(super) async fn decisions(database: &Database, after: u64, limit: u16) -> Result<Vec<AuditRecord>> {
    let after = signed(after)?;
    let newest: Option<i64> =
        sqlx::query_scalar("SELECT max(seq) FROM audit_events").fetch_one(&database.reader).await?;
    if newest.is_none_or(|newest| newest <= after) {
        return Ok(Vec::new());
    }
    let mut write = database.begin_beside().await?;
    write.lock(arrival()).await?;
    let settled: Option<i64> =
        sqlx::query_scalar("SELECT max(seq) FROM audit_events").fetch_one(write.connection()).await?;
    write.commit().await?;
    let rows: Vec<AuditRow> =
        sqlx::query_as("SELECT * FROM audit_events WHERE seq > $1 AND seq <= $2 ORDER BY seq LIMIT $3")
            .bind(after)
            .bind(settled)
            .bind(i64::from(limit))
            .fetch_all(&database.reader)
            .await?;
    rows.into_iter().map(AuditRow::read).collect()
}

/// The lock that each batch of decisions holds while it is stored.
pub(super) fn arrival() -> i64 {
    lock_number("audit", "arrival")
}

pub(super) async fn changes(database: &Database, after: u64, limit: u16) -> Result<Vec<AdminRecord>> {
    let sql = format!("{SELECT_ADMIN} WHERE seq > $1 ORDER BY seq LIMIT $2");
    let rows: Vec<AdminRow> = sqlx::query_as(AssertSqlSafe(sql))
        .bind(signed(after)?)
        .bind(i64::from(limit))
        .fetch_all(&database.reader)
        .await?;
    rows.into_iter().map(AdminRow::read).collect()
}

/// The last decision that is known to be at every one of these outlets. One that has not begun wants none of the past.
pub(super) async fn sent(database: &Database, outlets: &[String]) -> Result<i64> {
    let sent: Option<i64> = sqlx::query_scalar("SELECT min(decisions) FROM audit_outlets WHERE name = ANY($1)")
        .bind(outlets)
        .fetch_one(&database.reader)
        .await?;
    Ok(sent.unwrap_or(i64::MAX))
}
