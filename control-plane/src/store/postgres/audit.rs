//! The audit: decisions from bouncers, changes by administrators.

use super::chains::Incoming;
use super::database::{Database, Write};
use super::filter;
use crate::access::Scope;
use crate::model::{AdminRecord, Appended, AuditEvent, AuditRecord, Evidence, Received};
use crate::store::chain::withheld;
use crate::store::rows::audit::{AdminRow, AuditRow, summary_of};
use crate::store::rows::{part, signed, unsigned};
use crate::store::{AdminFilter, AuditBuckets, AuditCount, AuditFilter, AuditKey, AuditSummary, Page, Part, Result};
use bouncer_audit::Digest;
use bouncer_custody::BouncerName;
use sqlx::{Postgres, QueryBuilder};
use std::collections::{BTreeMap, HashMap};

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
    let mut write = database.begin_beside().await?;
    write.share(super::outlets::arrival()).await?;
    let mut incoming = Incoming::begin(&mut write, bouncer, events, checkpoint).await?;
    let inserted = insert(&mut write, bouncer, events, &incoming).await?;
    let mut stored = inserted.clone();
    for event in events {
        // Of several with one id the first is the one that was stored.
        match stored.remove(&event.id.to_string()) {
            Some(seq) => incoming.take(&mut write, event, seq).await?,
            None => incoming.again(&mut write, event).await?,
        }
    }
    count(&mut write, bouncer, events, &inserted).await?;
    let new = inserted.len() as u64;
    if let Some(received) = checkpoint {
        incoming.checkpoint(&mut write, received).await?;
    }
    let divergences = incoming.finish(&mut write).await?;
    write.commit().await?;
    Ok(Appended { new, divergences })
}

/// Stores the events that are not there yet, in their order. Returns the ids of those, each with its place.
async fn insert(
    write: &mut Write<'_>,
    bouncer: &BouncerName,
    events: &[AuditEvent],
    incoming: &Incoming,
) -> Result<HashMap<String, i64>> {
    let all = |column: fn(&AuditEvent) -> &String| events.iter().map(column).cloned().collect::<Vec<_>>();
    let numbers = |column: fn(&AuditEvent) -> u64| events.iter().map(|event| signed(column(event))).collect();
    let (sequence, generation, count): (Result<Vec<_>>, Result<Vec<_>>, Result<Vec<_>>) =
        (numbers(|event| event.sequence), numbers(|event| event.generation), numbers(|event| event.count));
    let evidence: Vec<_> = events.iter().map(|event| incoming.evidence(event)).collect();
    let withheld = evidence.iter().map(|evidence| withheld(*evidence)).collect::<Result<Vec<_>>>()?;
    let digests = |of: fn(&Evidence) -> &Digest| {
        evidence.iter().map(|evidence| evidence.map(|evidence| of(evidence).as_bytes().to_vec())).collect::<Vec<_>>()
    };
    let chains: Vec<_> = evidence.iter().map(|evidence| evidence.map(|evidence| evidence.chain.to_string())).collect();
    let received_ms = write.now_ms();
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "INSERT INTO audit_events (bouncer, received_ms, id, sequence, time_ms, caller, resource, logical_path, generation,
             key_id, aad_sha256, cluster, destination, outcome, reason, backend_request_id, count, decision_id, authority,
             dev, chain, leaf, head, withheld)
         SELECT $1, $2, e.* FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::text[], $7::text[], $8::text[],
             $9::bigint[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[],
             $17::bigint[], $18::text[], $19::text[], $20::boolean[], $21::text[], $22::bytea[], $23::bytea[], $24::text[]) e
         ON CONFLICT (bouncer, id) DO NOTHING RETURNING id, seq",
    )
    .bind(bouncer.as_str())
    .bind(received_ms)
    .bind(events.iter().map(|event| event.id.to_string()).collect::<Vec<_>>())
    .bind(sequence?)
    .bind(events.iter().map(|event| event.at.as_millisecond()).collect::<Vec<_>>())
    .bind(all(|event| &event.caller))
    .bind(all(|event| &event.resource))
    .bind(all(|event| &event.logical_path))
    .bind(generation?)
    .bind(all(|event| &event.key_id))
    .bind(all(|event| &event.aad_sha256))
    .bind(all(|event| &event.cluster))
    .bind(all(|event| &event.destination))
    .bind(all(|event| &event.outcome))
    .bind(all(|event| &event.reason))
    .bind(all(|event| &event.backend_request_id))
    .bind(count?)
    .bind(all(|event| &event.decision_id))
    .bind(all(|event| &event.authority))
    .bind(events.iter().map(|event| event.dev).collect::<Vec<_>>())
    .bind(chains)
    .bind(digests(|evidence| &evidence.leaf))
    .bind(digests(|evidence| &evidence.head))
    .bind(withheld)
    .fetch_all(write.connection())
    .await?;
    Ok(rows.into_iter().collect())
}

/// Counts what was stored.
async fn count(
    write: &mut Write<'_>,
    bouncer: &BouncerName,
    events: &[AuditEvent],
    inserted: &HashMap<String, i64>,
) -> Result<()> {
    let mut totals: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
    let mut left = inserted.clone();
    for event in events.iter().filter(|event| left.remove(&event.id.to_string()).is_some()) {
        let (number, last_ms) = totals.entry(&event.outcome).or_insert((0, i64::MIN));
        *number += 1;
        *last_ms = (*last_ms).max(event.at.as_millisecond());
    }
    for (outcome, (number, last_ms)) in totals {
        sqlx::query(
            "INSERT INTO audit_totals AS t (bouncer, outcome, events, last_ms) VALUES ($1, $2, $3, $4)
             ON CONFLICT (bouncer, outcome) DO UPDATE
             SET events = t.events + excluded.events, last_ms = greatest(t.last_ms, excluded.last_ms)",
        )
        .bind(bouncer.as_str())
        .bind(outcome)
        .bind(number)
        .bind(last_ms)
        .execute(write.connection())
        .await?;
    }
    Ok(())
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
fn matching(query: &mut QueryBuilder<Postgres>, wanted: &AuditFilter) {
    filter::within(query, "logical_path", &wanted.scope);
    filter::is(query, "outcome", wanted.outcome.as_deref());
    filter::is(query, "bouncer", wanted.bouncer.as_deref());
    filter::is(query, "reason", wanted.reason.as_deref());
    filter::is(query, "logical_path", wanted.logical_path.as_deref());
    filter::is(query, "caller", wanted.caller.as_deref());
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
    query.push(" AS bucket, outcome, SUM(LEAST(count, 4294967296))::bigint FROM audit_events WHERE time_ms >= ");
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
    let mut read = database.begin_list().await?;
    part(query.build_query_as().fetch_all(&mut *read).await?, page.limit, AdminRow::read)
}

/// The administrative changes of a page, and one more: in the order of the index of one of the filters, or of time, so that
/// PostgreSQL can take no other (see [`super::search`]).
pub(super) fn changes(wanted: &AdminFilter, page: &Page<AuditKey>) -> Result<QueryBuilder<Postgres>> {
    let (from_ms, before) = filter::span(wanted, page.after);
    let filters = [("subject", &wanted.subject), ("actor", &wanted.actor), ("action", &wanted.action)];
    let mut filters = filters.into_iter().filter_map(|(column, value)| Some((column, value.as_deref()?)));
    let mut query = QueryBuilder::new(SELECT_ADMIN);
    let order = match filters.next() {
        // What PostgreSQL can't hold is in no change.
        Some((_, value)) if value.contains('\0') => {
            query.push(" WHERE FALSE");
            "seq DESC".to_owned()
        }
        Some((column, value)) => {
            query.push(format!(" WHERE ({column}, time_ms, seq) < (")).push_bind(value.to_owned()).push(", ");
            query.push_bind(before.time_ms).push(", ").push_bind(signed(before.seq)?);
            query.push(format!(") AND ({column}, time_ms) >= (")).push_bind(value.to_owned()).push(", ");
            query.push_bind(from_ms).push(")");
            format!("{column} DESC, time_ms DESC, seq DESC")
        }
        None => {
            query.push(" WHERE (time_ms, seq) < (").push_bind(before.time_ms).push(", ").push_bind(signed(before.seq)?);
            query.push(") AND time_ms >= ").push_bind(from_ms);
            "time_ms DESC, seq DESC".to_owned()
        }
    };
    for (column, value) in filters {
        filter::is(&mut query, column, Some(value));
    }
    query.push(" ORDER BY ").push(order).push(" LIMIT ").push_bind(i64::from(page.limit) + 1);
    Ok(query)
}
