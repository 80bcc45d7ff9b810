//! How PostgreSQL is asked for entries of a list: migration 0005 has the indexes. Each question is about a part of one
//! index, and asks for it in that index's order; so in a transaction of `Database::begin_list`, which sorts and scans only
//! where it must, PostgreSQL can take no other, whatever it takes the list for. What else an entry must meet stands outside,
//! behind a `LIMIT`, where no index is looked for.

#[cfg(test)]
mod tests;

use crate::store::Result;
use crate::store::search::{Condition, List, Lists, Range, Wanted, push_within, telling};
use sqlx::{PgConnection, Postgres, QueryBuilder};

impl Lists for PgConnection {
    async fn count(&mut self, list: List, condition: &Condition, few: u16) -> Result<i64> {
        Ok(count(list, condition, few).build_query_scalar().fetch_one(self).await?)
    }

    async fn walk(
        &mut self,
        wanted: &Wanted,
        part: Option<&Condition>,
        range: &Range,
        limit: i64,
    ) -> Result<Vec<String>> {
        Ok(walk(wanted, part, None, range, limit).build_query_scalar().fetch_all(self).await?)
    }

    async fn look_up(
        &mut self,
        wanted: &Wanted,
        condition: &Condition,
        ranges: &[Range],
        limit: i64,
    ) -> Result<Vec<String>> {
        Ok(look_up(wanted, condition, ranges, limit).build_query_scalar().fetch_all(self).await?)
    }

    /// A GIN index finds all entries that have a trigram, and cannot stop at a few: it is asked only for texts that are not
    /// met soon, as common ones are.
    async fn near(
        &mut self,
        wanted: &Wanted,
        part: Option<&Condition>,
        ranges: &[Range],
        limit: i64,
        mut near: i64,
    ) -> Result<Option<Vec<String>>> {
        let mut keys: Vec<String> = Vec::new();
        let mut missing = limit;
        for range in ranges {
            let mut met = walk(wanted, part, Some(near), range, missing);
            keys.extend(met.build_query_scalar::<String>().fetch_all(&mut *self).await?);
            missing = limit - i64::try_from(keys.len()).unwrap_or(i64::MAX);
            if missing <= 0 {
                return Ok(Some(keys));
            }
            let passed: i64 = passed(wanted.list, part, near, range).build_query_scalar().fetch_one(&mut *self).await?;
            if passed > near {
                return Ok(None);
            }
            near -= passed;
        }
        Ok(Some(keys))
    }
}

const fn table(list: List) -> &'static str {
    match list {
        List::Envelopes => "envelope_search",
        List::Resources => "protected_resources",
        List::Bouncers => "bouncers",
    }
}

fn count(list: List, condition: &Condition, few: u16) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("SELECT count(*) FROM (");
    push_met(&mut query, list, condition, Some(few.into()));
    query.push(") AS entry");
    query
}

/// How many entries there are on the way through a range, as far as one more than `near`.
fn passed(list: List, part: Option<&Condition>, near: i64, range: &Range) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("SELECT count(*) FROM (");
    push_walk(&mut query, list, part, range, Some(near + 1));
    query.push(") AS entry");
    query
}

/// The keys of a page; of the nearest entries on the way, if it is said how many.
fn walk(
    wanted: &Wanted,
    part: Option<&Condition>,
    near: Option<i64>,
    range: &Range,
    limit: i64,
) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::new("SELECT ");
    query.push(wanted.list.key()).push(" FROM (");
    let order = push_walk(&mut query, wanted.list, part, range, near);
    query.push(") AS entry WHERE TRUE");
    wanted.push_conditions(&mut query, "strpos");
    query.push(" ORDER BY ").push(order).push(" LIMIT ").push_bind(limit);
    query
}

fn look_up(wanted: &Wanted, condition: &Condition, ranges: &[Range], limit: i64) -> QueryBuilder<Postgres> {
    let key = wanted.list.key();
    let mut query = QueryBuilder::new("SELECT ");
    query.push(key).push(" FROM (");
    push_met(&mut query, wanted.list, condition, None);
    query.push(") AS entry WHERE ");
    push_within(&mut query, key, ranges);
    wanted.push_conditions(&mut query, "strpos");
    query.push(" ORDER BY ").push(key).push(" LIMIT ").push_bind(limit);
    query
}

/// The entries of a range, in the list's order; of those that meet a condition if its index has that order. Answers what
/// they are ordered by: all that is in the index, since another would begin with as much.
fn push_walk(
    query: &mut QueryBuilder<Postgres>,
    list: List,
    part: Option<&Condition>,
    range: &Range,
    most: Option<i64>,
) -> String {
    let key = list.key();
    query.push("SELECT * FROM ").push(table(list)).push(" WHERE ");
    let order = match part {
        Some(Condition::Is { column, value, .. }) => {
            // Not that the column is the value: of a value that is one and the same, no order is asked for.
            for (compared, end) in range.ends() {
                query.push("(").push(*column).push(", ").push(key).push(")").push(compared).push("(");
                value.push(query);
                query.push(", ").push_bind(end.to_owned()).push(") AND ");
            }
            value.push(query.push(*column).push(" <= "));
            format!("{column}, {key}")
        }
        Some(Condition::Before { column, limit, .. }) => {
            range.push(query, key);
            query.push(" AND ").push(*column).push(" < ").push_bind(*limit);
            format!("{key}, {column}")
        }
        _ => {
            range.push(query, key);
            key.to_owned()
        }
    };
    query.push(" ORDER BY ").push(&order).push(" LIMIT ").push_bind(most);
    order
}

/// The entries that meet a condition, by its index. By trigrams, those that may meet it.
fn push_met(query: &mut QueryBuilder<Postgres>, list: List, condition: &Condition, most: Option<i64>) {
    let (key, table) = (list.key(), table(list));
    match condition {
        Condition::Is { .. } => _ = push_walk(query, list, Some(condition), &Range::EVERYTHING, most),
        Condition::Before { column, limit, .. } => {
            query.push("SELECT * FROM ").push(table).push(" WHERE ").push(*column).push(" < ").push_bind(*limit);
            query.push(" ORDER BY ").push(*column).push(" LIMIT ").push_bind(most);
        }
        Condition::Within { column, ranges, .. } => {
            for (at, range) in ranges.iter().enumerate() {
                query.push(if at == 0 { "SELECT * FROM ((" } else { " UNION ALL (" });
                range.push(query.push("SELECT * FROM ").push(table).push(" WHERE "), column);
                query.push(" ORDER BY ").push(*column).push(", ").push(key).push(" LIMIT ").push_bind(most).push(")");
            }
            query.push(") AS part LIMIT ").push_bind(most);
        }
        Condition::Contains { text } => {
            // A trigram that begins with it stands for one or two letters.
            let all = match telling(text) {
                none if none.is_empty() => format!("'{text}':*"),
                all => all.iter().map(|three| format!("'{three}'")).collect::<Vec<_>>().join(" & "),
            };
            query.push("SELECT * FROM ").push(table).push(" WHERE trigrams(").push(key).push(") @@ ");
            query.push_bind(all).push("::tsquery LIMIT ").push_bind(most);
        }
    }
}
