//! The audit: decisions from bouncers, changes by administrators.

use super::chains::Incoming;
use super::database::Database;
use super::filter;
use crate::model::{AdminRecord, Appended, AuditEvent, AuditRecord, Received};
use crate::store::chain::withheld;
use crate::store::rows::audit::{AdminRow, AuditRow};
use crate::store::rows::{part, signed, time, unsigned};
use crate::store::{AuditBuckets, AuditCount, AuditFilter, AuditKey, AuditSummary, Page, Part, Result};
use bouncer_custody::BouncerName;
use sqlx::{QueryBuilder, Sqlite};

/// Administrative changes; conditions follow.
pub(super) const SELECT_ADMIN: &str = "SELECT seq, time_ms, actor, action, subject, detail, e.sequence, e.head,
         CASE WHEN e.sequence IS NULL THEN NULL ELSE c.chain END AS chain
         FROM admin_events e LEFT JOIN audit_chains c ON c.owner = 'control-plane'";

pub(super) async fn append(
    database: &Database,
    bouncer: &BouncerName,
    events: &[AuditEvent],
    checkpoint: Option<&Received>,
) -> Result<Appended> {
    let mut write = database.begin().await?;
    let mut incoming = Incoming::new(bouncer);
    let mut new = 0;
    for event in events {
        let received_ms = write.now_ms();
        let evidence = incoming.evidence(&mut write, event).await?;
        let withheld = withheld(evidence)?;
        let inserted = sqlx::query(
            "INSERT OR IGNORE INTO audit_events (bouncer, id, sequence, time_ms, received_ms, caller, resource,
                 logical_path, generation, key_id, aad_sha256, cluster, destination, outcome, reason,
                 backend_request_id, count, decision_id, authority, dev, chain, leaf, head, withheld)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(bouncer.as_str())
        .bind(event.id.to_string())
        .bind(signed(event.sequence)?)
        .bind(event.at.as_millisecond())
        .bind(received_ms)
        .bind(&event.caller)
        .bind(&event.resource)
        .bind(&event.logical_path)
        .bind(signed(event.generation)?)
        .bind(&event.key_id)
        .bind(&event.aad_sha256)
        .bind(&event.cluster)
        .bind(&event.destination)
        .bind(&event.outcome)
        .bind(&event.reason)
        .bind(&event.backend_request_id)
        .bind(signed(event.count)?)
        .bind(&event.decision_id)
        .bind(&event.authority)
        .bind(event.dev)
        .bind(evidence.map(|evidence| evidence.chain.as_str()))
        .bind(evidence.map(|evidence| evidence.leaf.as_bytes().as_slice()))
        .bind(evidence.map(|evidence| evidence.head.as_bytes().as_slice()))
        .bind(withheld)
        .execute(write.connection())
        .await?;
        if inserted.rows_affected() == 0 {
            incoming.again(&mut write, event).await?;
            continue;
        }
        new += 1;
        incoming.take(&mut write, event).await?;
        sqlx::query(
            "INSERT INTO audit_totals (outcome, events, last_ms) VALUES (?1, 1, ?2)
             ON CONFLICT (outcome) DO UPDATE SET events = events + 1, last_ms = max(last_ms, ?2)",
        )
        .bind(&event.outcome)
        .bind(event.at.as_millisecond())
        .execute(write.connection())
        .await?;
    }
    if let Some(received) = checkpoint {
        incoming.checkpoint(&mut write, received).await?;
    }
    let divergences = incoming.finish(&mut write).await?;
    write.commit().await?;
    Ok(Appended { new, divergences })
}

pub(super) async fn list(
    database: &Database,
    wanted: &AuditFilter,
    page: &Page<AuditKey>,
) -> Result<Part<AuditRecord>> {
    let after = page.after.unwrap_or(AuditKey { time_ms: i64::MAX, seq: i64::MAX.unsigned_abs() });
    let mut query = QueryBuilder::new("SELECT * FROM audit_events WHERE (time_ms, seq) < (");
    query.push_bind(after.time_ms).push(", ").push_bind(signed(after.seq)?).push(")");
    matching(&mut query, wanted);
    query.push(" ORDER BY time_ms DESC, seq DESC LIMIT ").push_bind(i64::from(page.limit) + 1);
    part(query.build_query_as().fetch_all(&database.reader).await?, page.limit, AuditRow::read)
}

/// The conditions of a filter.
fn matching(query: &mut QueryBuilder<Sqlite>, wanted: &AuditFilter) {
    filter::within(query, "logical_path", &wanted.scope);
    filter::equals(query, "outcome", wanted.outcome.clone());
    filter::equals(query, "bouncer", wanted.bouncer.clone());
    filter::equals(query, "reason", wanted.reason.clone());
    filter::equals(query, "logical_path", wanted.logical_path.clone());
    filter::equals(query, "caller", wanted.caller.clone());
    if let Some(from) = wanted.from {
        query.push(" AND time_ms >= ").push_bind(from.as_millisecond());
    }
    if let Some(to) = wanted.to {
        query.push(" AND time_ms < ").push_bind(to.as_millisecond());
    }
}

pub(super) async fn histogram(
    database: &Database,
    wanted: &AuditFilter,
    span: AuditBuckets,
) -> Result<Vec<AuditCount>> {
    let mut query = QueryBuilder::new("SELECT (time_ms - ");
    query.push_bind(span.from_ms).push(") / ").push_bind(span.bucket_ms.max(1));
    // One event's count is its bouncer's word; bounded, no number of them can overflow the sum.
    query.push(" AS bucket, outcome, SUM(MIN(count, 4294967296)) FROM audit_events WHERE time_ms >= ");
    query.push_bind(span.from_ms);
    matching(&mut query, wanted);
    query.push(" GROUP BY bucket, outcome");
    let rows: Vec<(i64, String, i64)> = query.build_query_as().fetch_all(&database.reader).await?;
    let read =
        |(bucket, outcome, streams)| Ok(AuditCount { bucket: unsigned(bucket)?, outcome, streams: unsigned(streams)? });
    rows.into_iter().map(read).collect()
}

pub(super) async fn summary(database: &Database) -> Result<AuditSummary> {
    let rows: Vec<(String, i64, i64)> =
        sqlx::query_as("SELECT outcome, events, last_ms FROM audit_totals").fetch_all(&database.reader).await?;
    let mut summary = AuditSummary::default();
    for (outcome, events, last_ms) in rows {
        let events = unsigned(events)?;
        summary.events += events;
        match outcome.as_str() {
            "inject" => summary.injected = events,
            "deny" => summary.denied = events,
            _ => {}
        }
        summary.last = summary.last.max(Some(time("audit_totals", last_ms)?));
    }
    summary.divergences =
        unsigned(sqlx::query_scalar("SELECT count(*) FROM audit_divergences").fetch_one(&database.reader).await?)?;
    Ok(summary)
}

pub(super) async fn admin(database: &Database, page: &Page<u64>) -> Result<Part<AdminRecord>> {
    let rows: Vec<AdminRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{} WHERE seq < ? ORDER BY seq DESC LIMIT ?", SELECT_ADMIN)))
            .bind(page.after.map_or(Ok(i64::MAX), signed)?)
            .bind(i64::from(page.limit) + 1)
            .fetch_all(&database.reader)
            .await?;
    part(rows, page.limit, AdminRow::read)
}
