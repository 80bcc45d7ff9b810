//! Conditions of lists that are PostgreSQL's own, beside those of both databases.

pub(super) use crate::store::filter::{equals, span, state, totals, within};
use sqlx::{Postgres, QueryBuilder};

/// Only where the column is this text, if it is to be any.
pub(super) fn is(query: &mut QueryBuilder<Postgres>, column: &'static str, wanted: Option<&str>) {
    // No text here has a NUL: PostgreSQL can't hold one, and takes offence at being asked for it.
    match wanted {
        Some(wanted) if wanted.contains('\0') => drop(query.push(" AND FALSE")),
        wanted => equals(query, column, wanted.map(str::to_owned)),
    }
}
