//! Conditions of lists, as SQL that both databases understand.

use super::{AdminFilter, AuditKey};
use crate::access::{Scope, TokenState};
use bouncer_custody::PathPattern;
use jiff::Timestamp;
use sqlx::{Database, Encode, QueryBuilder, Type};

/// Between which texts lies what is below a pattern's prefix: from "prefix/" up to "prefix0", which is the next character.
pub(super) fn below(pattern: &PathPattern) -> (String, String) {
    let prefix = pattern.prefix().as_str();
    (format!("{prefix}/"), format!("{prefix}0"))
}

/// Only what lies within the scope.
pub(super) fn within<DB>(query: &mut QueryBuilder<DB>, column: &'static str, scope: &Scope)
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
{
    if scope.is_everything() {
        return;
    }
    query.push(" AND (FALSE");
    for pattern in scope.patterns() {
        if pattern.is_below() {
            let (above, end) = below(pattern);
            query.push(" OR (").push(column).push(" > ").push_bind(above);
            query.push(" AND ").push(column).push(" < ").push_bind(end).push(")");
        } else {
            query.push(" OR ").push(column).push(" = ").push_bind(pattern.prefix().to_string());
        }
    }
    query.push(")");
}

/// What the audit holds within the scope: events, and the newest one's time, by outcome.
pub(super) fn totals<DB>(scope: &Scope) -> QueryBuilder<DB>
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new("SELECT outcome, CAST(SUM(events) AS BIGINT), MAX(last_ms) FROM ");
    if scope.is_everything() {
        query.push("audit_totals");
    } else {
        query.push("audit_path_totals WHERE TRUE");
        within(&mut query, "logical_path", scope);
    }
    query.push(" GROUP BY outcome");
    query
}

/// Only where the column is this, if it is to be anything.
pub(super) fn equals<'t, DB, T>(query: &mut QueryBuilder<DB>, column: &'static str, wanted: Option<T>)
where
    DB: Database,
    T: Encode<'t, DB> + Type<DB> + 't,
{
    if let Some(wanted) = wanted {
        query.push(" AND ").push(column).push(" = ").push_bind(wanted);
    }
}

/// Only tokens in this state, if it is to be any. Those that have ended by themselves are passed over for live ones, and the
/// other way round.
pub(super) fn state<DB>(query: &mut QueryBuilder<DB>, wanted: Option<TokenState>, now: Timestamp)
where
    DB: Database,
    i64: for<'q> Encode<'q, DB> + Type<DB>,
{
    let now = now.as_millisecond();
    match wanted {
        None => {}
        Some(TokenState::Revoked) => _ = query.push(" AND revoked_ms IS NOT NULL"),
        Some(TokenState::Ended) => _ = query.push(" AND revoked_ms IS NULL AND expires_ms <= ").push_bind(now),
        Some(TokenState::Live) => {
            query.push(" AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > ").push_bind(now).push(")");
        }
    }
}

/// Between which places of the list what is wanted lies: from the first time on, and before the place.
pub(super) fn span(wanted: &AdminFilter, after: Option<AuditKey>) -> (i64, AuditKey) {
    let end = wanted.to.map(|to| AuditKey { time_ms: to.as_millisecond(), seq: 0 });
    let last = AuditKey { time_ms: i64::MAX, seq: i64::MAX.unsigned_abs() };
    let before = [after, end].into_iter().flatten().min_by_key(|key| (key.time_ms, key.seq));
    (wanted.from.map_or(i64::MIN, |from| from.as_millisecond()), before.unwrap_or(last))
}
