//! How SQLite is asked for entries of a list: migration 0009 has the tables, the indexes and the trigrams. Every index that a
//! way goes by is named, so that SQLite can take no other.

#[cfg(test)]
mod tests;

use crate::store::Result;
use crate::store::search::{Condition, List, Lists, Range, Wanted, push_within, telling};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

impl Lists for SqliteConnection {
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
        Ok(walk(wanted, part, range, limit).build_query_scalar().fetch_all(self).await?)
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
}

/// The tables that a list is found by.
struct Tables {
    /// What it may be filtered by.
    table: &'static str,
    /// The index of the list's key.
    in_order: &'static str,
    /// The key's trigrams.
    trigrams: &'static str,
    /// The same, to be read by their beginnings.
    vocabulary: &'static str,
}

const fn tables(list: List) -> Tables {
    match list {
        List::Envelopes => Tables {
            table: "envelope_search",
            in_order: "envelope_search_in_order",
            trigrams: "envelope_trigrams",
            vocabulary: "envelope_vocabulary",
        },
        List::Resources => Tables {
            table: "resource_search",
            in_order: "resource_search_in_order",
            trigrams: "resource_trigrams",
            vocabulary: "resource_vocabulary",
        },
        List::Bouncers => Tables {
            table: "bouncer_search",
            in_order: "bouncer_search_in_order",
            trigrams: "bouncer_trigrams",
            vocabulary: "bouncer_vocabulary",
        },
    }
}

fn count(list: List, condition: &Condition, few: u16) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new("SELECT count(*) FROM (SELECT 1 FROM (");
    push_ids(&mut query, list, condition);
    query.push(") LIMIT ").push_bind(i64::from(few)).push(")");
    query
}

fn walk(wanted: &Wanted, part: Option<&Condition>, range: &Range, limit: i64) -> QueryBuilder<Sqlite> {
    let (key, Tables { table, in_order, .. }) = (wanted.list.key(), tables(wanted.list));
    let index = match part {
        Some(Condition::Is { index, .. } | Condition::Before { in_order: index, .. }) => index,
        _ => in_order,
    };
    let mut query = QueryBuilder::new("SELECT ");
    query.push(key).push(" FROM ").push(table).push(" INDEXED BY ").push(index).push(" WHERE ");
    range.push(&mut query, key);
    wanted.push_conditions(&mut query, "instr");
    query.push(" ORDER BY ").push(key).push(" LIMIT ").push_bind(limit);
    query
}

fn look_up(wanted: &Wanted, condition: &Condition, ranges: &[Range], limit: i64) -> QueryBuilder<Sqlite> {
    let (key, table) = (wanted.list.key(), tables(wanted.list).table);
    let mut query = QueryBuilder::new("SELECT ");
    query.push(key).push(" FROM ").push(table).push(" NOT INDEXED WHERE id IN (");
    push_ids(&mut query, wanted.list, condition);
    query.push(") AND ");
    push_within(&mut query, key, ranges);
    wanted.push_conditions(&mut query, "instr");
    query.push(" ORDER BY ").push(key).push(" LIMIT ").push_bind(limit);
    query
}

/// The numbers of the entries that meet a condition, by its index. By trigrams, of those that may meet it.
fn push_ids(query: &mut QueryBuilder<Sqlite>, list: List, condition: &Condition) {
    let Tables { table, trigrams, vocabulary, .. } = tables(list);
    let indexed = |query: &mut QueryBuilder<Sqlite>, index: &str| {
        query.push("SELECT id FROM ").push(table).push(" INDEXED BY ").push(index).push(" WHERE ");
    };
    match condition {
        Condition::Is { column, index, value } => {
            indexed(query, index);
            value.push(query.push(*column).push(" = "));
        }
        Condition::Before { column, index, limit, .. } => {
            indexed(query, index);
            query.push(*column).push(" < ").push_bind(*limit);
        }
        Condition::Within { column, index, ranges } => {
            for (at, range) in ranges.iter().enumerate() {
                query.push(if at == 0 { "" } else { " UNION ALL " });
                indexed(query, index);
                range.push(query, column);
            }
        }
        Condition::Contains { text } if text.len() < 3 => {
            // The trigrams that begin with it.
            query.push("SELECT DISTINCT doc FROM ").push(vocabulary).push(" WHERE term >= ").push_bind(text.clone());
            query.push(" AND term < ").push_bind(format!("{text}\u{7f}"));
        }
        Condition::Contains { text } => {
            let all: Vec<_> = telling(text).into_iter().map(|three| format!("\"{three}\"")).collect();
            query.push("SELECT rowid FROM ").push(trigrams).push(" WHERE ").push(trigrams).push(" MATCH ");
            query.push_bind(all.join(" AND "));
        }
    }
}
