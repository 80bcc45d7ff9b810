//! The audit: decisions from bouncers, changes by administrators.

use super::chains::Incoming;
use super::database::{Database, Write};
use crate::access::Scope;
use crate::model::{AdminRecord, Appended, AuditEvent, AuditRecord, Received};
use crate::store::chain::withheld;
use crate::store::filter;
use crate::store::rows::audit::{AdminRow, AuditRow, summary_of};
use crate::store::rows::{part, signed, unsigned};
use crate::store::{AdminFilter, AuditBuckets, AuditCount, AuditFilter, AuditKey, AuditSummary, Page, Part, Result};
use bouncer_custody::BouncerName;
use sqlx::{QueryBuilder, Sqlite};
use std::collections::{BTreeMap, HashSet};

/// Administrative changes; conditions follow.
pub(super) const SELECT_ADMIN: &str = "SELECT seq, time_ms, actor, action, subject, detail, e.sequence, e.head,
         CASE WHEN e.sequence IS NULL THEN NULL ELSE c.chain END AS chain
         FROM admin_events e LEFT JOIN audit_chains c ON c.owner = 'control-plane'";

/// Events inserted by one statement.
const AT_ONCE: usize = 64;

pub(super) async fn append(
    database: &Database,
    bouncer: &BouncerName,
    events: &[AuditEvent],
    checkpoint: Option<&Received>,
) -> Result<Appended> {
    let mut write = database.begin().await?;
    let mut incoming = Incoming::new(bouncer);
    let mut totals: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    let mut new = 0;
    let mut left = events;
    while !left.is_empty() {
        let (some, rest) = left.split_at(incoming.following(&mut write, left).await?.clamp(1, AT_ONCE));
        left = rest;
        let inserted = insert(&mut write, bouncer, &mut incoming, some).await?;
        for (event, inserted) in some.iter().zip(inserted) {
            if !inserted {
                incoming.again(&mut write, event).await?;
                continue;
            }
            new += 1;
            incoming.take(&mut write, event).await?;
            let at = event.at.as_millisecond();
            let (count, last) = totals.entry(event.outcome.as_str()).or_insert((0, at));
            (*count, *last) = (*count + 1, at.max(*last));
        }
    }
    for (outcome, (events, last_ms)) in totals {
        sqlx::query(
            "INSERT INTO audit_totals (outcome, events, last_ms) VALUES (?1, ?2, ?3)
             ON CONFLICT (outcome) DO UPDATE SET events = events + ?2, last_ms = max(last_ms, ?3)",
        )
        .bind(outcome)
        .bind(events)
        .bind(last_ms)
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

/// Inserts events by one statement. Returns of each whether it was new.
async fn insert(
    write: &mut Write<'_>,
    bouncer: &BouncerName,
    incoming: &mut Incoming,
    events: &[AuditEvent],
) -> Result<Vec<bool>> {
    let received_ms = write.now_ms();
    let mut query = QueryBuilder::<Sqlite>::new(
        "INSERT OR IGNORE INTO audit_events (bouncer, id, sequence, time_ms, received_ms, caller, resource,
             logical_path, generation, key_id, aad_sha256, cluster, destination, outcome, reason,
             backend_request_id, count, decision_id, authority, dev, chain, leaf, head, withheld) VALUES ",
    );
    for (at, event) in events.iter().enumerate() {
        let evidence = incoming.evidence(write, event).await?;
        let withheld = withheld(evidence)?;
        query.push(if at == 0 { "(" } else { ", (" });
        query
            .separated(", ")
            .push_bind(bouncer.as_str())
            .push_bind(event.id.to_string())
            .push_bind(signed(event.sequence)?)
            .push_bind(event.at.as_millisecond())
            .push_bind(received_ms)
            .push_bind(&event.caller)
            .push_bind(&event.resource)
            .push_bind(&event.logical_path)
            .push_bind(signed(event.generation)?)
            .push_bind(&event.key_id)
            .push_bind(&event.aad_sha256)
            .push_bind(&event.cluster)
            .push_bind(&event.destination)
            .push_bind(&event.outcome)
            .push_bind(&event.reason)
            .push_bind(&event.backend_request_id)
            .push_bind(signed(event.count)?)
            .push_bind(&event.decision_id)
            .push_bind(&event.authority)
            .push_bind(event.dev)
            .push_bind(evidence.map(|evidence| evidence.chain.as_str()))
            .push_bind(evidence.map(|evidence| evidence.leaf.as_bytes().as_slice()))
            .push_bind(evidence.map(|evidence| evidence.head.as_bytes().as_slice()))
            .push_bind(withheld);
        query.push(")");
    }
    query.push(" RETURNING id");
    // The ids of those that are new, in any order. Of two with the same id the first one is.
    let ids: Vec<String> = query.build_query_scalar().fetch_all(write.connection()).await?;
    let mut ids: HashSet<String> = ids.into_iter().collect();
    Ok(events.iter().map(|event| ids.remove(&event.id.to_string())).collect())
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

pub(super) async fn summary(database: &Database, scope: &Scope) -> Result<AuditSummary> {
    let mut query = filter::totals(scope);
    let mut summary = summary_of(query.build_query_as().fetch_all(&database.reader).await?)?;
    if scope.is_everything() {
        let all = sqlx::query_scalar("SELECT count(*) FROM audit_divergences").fetch_one(&database.reader).await?;
        summary.divergences = Some(unsigned(all)?);
    }
    Ok(summary)
}

pub(super) async fn admin(
    database: &Database,
    wanted: &AdminFilter,
    page: &Page<AuditKey>,
) -> Result<Part<AdminRecord>> {
    let mut query = changes(wanted, page)?;
    part(query.build_query_as().fetch_all(&database.reader).await?, page.limit, AdminRow::read)
}

/// The administrative changes of a page, and one more. Every index that there is for a filter has the list's order.
pub(super) fn changes(wanted: &AdminFilter, page: &Page<AuditKey>) -> Result<QueryBuilder<Sqlite>> {
    let (from_ms, before) = filter::span(wanted, page.after);
    let mut query = QueryBuilder::new(SELECT_ADMIN);
    query.push(" WHERE (time_ms, seq) < (").push_bind(before.time_ms).push(", ").push_bind(signed(before.seq)?);
    query.push(") AND time_ms >= ").push_bind(from_ms);
    filter::equals(&mut query, "actor", wanted.actor.clone());
    filter::equals(&mut query, "action", wanted.action.clone());
    filter::equals(&mut query, "subject", wanted.subject.clone());
    query.push(" ORDER BY time_ms DESC, seq DESC LIMIT ").push_bind(i64::from(page.limit) + 1);
    Ok(query)
}
