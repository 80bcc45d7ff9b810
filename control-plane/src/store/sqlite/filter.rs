//! Conditions of lists, as SQL.

use crate::access::Scope;
use sqlx::{Encode, QueryBuilder, Sqlite, Type};

/// Only what lies within the scope.
pub(super) fn within(query: &mut QueryBuilder<Sqlite>, column: &'static str, scope: &Scope) {
    if scope.is_everything() {
        return;
    }
    query.push(" AND (0");
    for pattern in scope.patterns() {
        let prefix = pattern.prefix().as_str();
        if pattern.is_below() {
            // From "prefix/" up to "prefix0", which is the next character.
            query.push(" OR (").push(column).push(" > ").push_bind(format!("{prefix}/"));
            query.push(" AND ").push(column).push(" < ").push_bind(format!("{prefix}0")).push(")");
        } else {
            query.push(" OR ").push(column).push(" = ").push_bind(prefix.to_owned());
        }
    }
    query.push(")");
}

/// Only where the column is this, if it is to be anything.
pub(super) fn equals<'t, T>(query: &mut QueryBuilder<Sqlite>, column: &'static str, wanted: Option<T>)
where
    T: Encode<'t, Sqlite> + Type<Sqlite>,
{
    if let Some(wanted) = wanted {
        query.push(" AND ").push(column).push(" = ").push_bind(wanted);
    }
}
