//! Conditions of lists, as SQL that both databases understand.

use crate::access::Scope;
use bouncer_custody::PathPattern;
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
