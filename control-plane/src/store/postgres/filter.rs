//! Conditions of lists, as SQL.

use crate::access::Scope;
use sqlx::{Encode, Postgres, QueryBuilder, Type};

/// Only what lies within the scope.
pub(super) fn within(query: &mut QueryBuilder<Postgres>, column: &'static str, scope: &Scope) {
    if scope.is_everything() {
        return;
    }
    query.push(" AND (FALSE");
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
pub(super) fn equals<'t, T>(query: &mut QueryBuilder<Postgres>, column: &'static str, wanted: Option<T>)
where
    T: Encode<'t, Postgres> + Type<Postgres>,
{
    if let Some(wanted) = wanted {
        query.push(" AND ").push(column).push(" = ").push_bind(wanted);
    }
}

/// Only where the column is this text, if it is to be any.
pub(super) fn is(query: &mut QueryBuilder<Postgres>, column: &'static str, wanted: Option<&str>) {
    // No text here has a NUL: PostgreSQL can't hold one, and takes offence at being asked for it.
    match wanted {
        Some(wanted) if wanted.contains('\0') => drop(query.push(" AND FALSE")),
        wanted => equals(query, column, wanted.map(str::to_owned)),
    }
}

/// Only where the column has this in it, whatever the case of its ASCII letters.
pub(super) fn contains(query: &mut QueryBuilder<Postgres>, column: &'static str, wanted: Option<&str>) {
    if wanted.is_some_and(|wanted| wanted.contains('\0')) {
        query.push(" AND FALSE");
    } else if let Some(wanted) = wanted {
        query.push(" AND strpos(lower(").push(column).push("), ").push_bind(wanted.to_ascii_lowercase()).push(") > 0");
    }
}
