//! Which entries of a list are on a page. The lists are long, and a page must not cost more for that: no condition is
//! looked up by going through the whole list where an index knows the few entries that meet it.
//!
//! Each list has a table of what it may be filtered by (migration 0009). The conditions of a page are first asked how many
//! entries meet them, up to [`FEW`]. If few meet one, those are looked up by that condition's index, and put in order.
//! If many meet each, they are met soon on the way through the list in its own order, or through the entries that meet
//! the first equality, which its index has in that order.

#[cfg(test)]
mod tests;

use crate::access::Scope;
use crate::store::{Result, filter};
use sqlx::{QueryBuilder, Sqlite, SqliteConnection};

/// So many entries are quickly looked up and put in order.
const FEW: u16 = 2_000;
/// Trigrams that are looked up of one text. Each costs, and common ones most; few of them leave little to read through.
const TRIGRAMS: usize = 3;

/// A list, and the table that it is found by.
pub(super) struct List {
    /// The table.
    table: &'static str,
    /// Its column that the list is ordered by, without duplicates.
    key: &'static str,
    /// The index of that column.
    in_order: &'static str,
    /// The trigrams of that column.
    trigrams: &'static str,
    /// The same, to be read by their beginnings.
    vocabulary: &'static str,
}

/// Envelope secrets, by logical path.
pub(super) const ENVELOPES: List = List {
    table: "envelope_search",
    key: "logical_path",
    in_order: "envelope_search_in_order",
    trigrams: "envelope_trigrams",
    vocabulary: "envelope_vocabulary",
};
/// Protected resources, by name.
pub(super) const RESOURCES: List = List {
    table: "resource_search",
    key: "name",
    in_order: "resource_search_in_order",
    trigrams: "resource_trigrams",
    vocabulary: "resource_vocabulary",
};
/// Bouncers, by name.
pub(super) const BOUNCERS: List = List {
    table: "bouncer_search",
    key: "name",
    in_order: "bouncer_search_in_order",
    trigrams: "bouncer_trigrams",
    vocabulary: "bouncer_vocabulary",
};

/// What an entry must meet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Condition {
    /// The column is this; the index is of the column and the list's key.
    Is { column: &'static str, index: &'static str, value: Value },
    /// The column is there, and less than this; the second index is of those where it is, in the list's order.
    Before { column: &'static str, index: &'static str, in_order: &'static str, limit: i64 },
    /// The column, which is not the list's key, is within one of these.
    Within { column: &'static str, index: &'static str, ranges: Vec<Range> },
    /// The list's key has this in it, in lower case; the key itself may be in any case.
    Contains { text: String },
}

/// A value to compare with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
}

impl Condition {
    /// What is searched for, as a condition: whatever the case of its ASCII letters.
    pub(super) fn contains(text: &str) -> Self {
        Self::Contains { text: text.to_ascii_lowercase() }
    }
}

/// The texts above one and below another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Range {
    above: String,
    /// `above` itself is in it.
    with_it: bool,
    /// `None` for no end. Never in it, unless it is the same as `above`.
    below: Option<String>,
}

impl Range {
    fn everything() -> Self {
        Self { above: String::new(), with_it: false, below: None }
    }

    /// What is left of it after a text; `None` if nothing is.
    fn after(&self, text: &str) -> Option<Self> {
        if text < self.above.as_str() {
            return Some(self.clone());
        }
        let open = self.below.as_deref().is_none_or(|below| text < below);
        open.then(|| Self { above: text.to_owned(), with_it: false, below: self.below.clone() })
    }

    fn push(&self, query: &mut QueryBuilder<Sqlite>, column: &str) {
        let single = self.below.as_ref() == Some(&self.above);
        query.push(column).push(if self.with_it { " >= " } else { " > " }).push_bind(self.above.clone());
        if let Some(below) = &self.below {
            query.push(" AND ").push(column).push(if single { " <= " } else { " < " }).push_bind(below.clone());
        }
    }
}

/// The whole of a list.
pub(super) fn everything() -> Vec<Range> {
    vec![Range::everything()]
}

/// A scope as ranges of paths: in order, and none within another.
pub(super) fn ranges(scope: &Scope) -> Vec<Range> {
    if scope.is_everything() {
        return everything();
    }
    let patterns = scope.patterns();
    let covered = |at: usize| {
        patterns.iter().enumerate().any(|(other_at, other)| {
            let (one, same) = (&patterns[at], patterns[at] == *other);
            other.is_below() && !same && other.matches(one.prefix()) || same && other_at < at
        })
    };
    let range = |pattern: &bouncer_custody::PathPattern| {
        if pattern.is_below() {
            let (above, end) = filter::below(pattern);
            Range { above, with_it: false, below: Some(end) }
        } else {
            let prefix = pattern.prefix().as_str().to_owned();
            Range { above: prefix.clone(), with_it: true, below: Some(prefix) }
        }
    };
    let kept = patterns.iter().enumerate().filter(|(at, _)| !covered(*at));
    let mut ranges: Vec<_> = kept.map(|(_, pattern)| range(pattern)).collect();
    ranges.sort_by(|one, other| one.above.cmp(&other.above));
    ranges
}

/// Which entries are wanted.
pub(super) struct Wanted {
    /// The list.
    pub(super) list: &'static List,
    /// In these ranges of the list's key, in order and apart.
    pub(super) ranges: Vec<Range>,
    /// That meet all of these.
    pub(super) conditions: Vec<Condition>,
}

/// By what the entries are looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// In the list's order.
    Order,
    /// In the list's order, among those that meet this condition, or may.
    Part(usize),
    /// Those that meet this condition, whatever their order.
    Condition(usize),
}

/// Of a text's trigrams one from each part of it, the one that is likely to be the rarest; the rarest first.
fn telling(text: &[char]) -> Vec<&[char]> {
    let rare = |character: char| match character {
        'j' | 'k' | 'q' | 'v' | 'w' | 'x' | 'z' | '0'..='9' => 2,
        'e' | 't' | 'a' | 'o' | 'i' | 'n' | 's' | 'r' | 'h' | 'l' | '/' | '-' | '_' | '.' => 0,
        _ => 1,
    };
    // Padding is common: what repeats itself counts less.
    let repeated = |three: &[char]| three.windows(2).filter(|two| two[0] == two[1]).count();
    let rarity = |three: &&[char]| {
        (three.iter().map(|character| rare(*character)).sum::<usize>()).saturating_sub(2 * repeated(three))
    };
    let all: Vec<&[char]> = text.windows(3).collect();
    let part = all.len().div_ceil(TRIGRAMS).max(1);
    let mut telling: Vec<_> = all.chunks(part).filter_map(|part| part.iter().copied().max_by_key(rarity)).collect();
    telling.sort_by_key(|three| (std::cmp::Reverse(rarity(three)), *three));
    telling.dedup();
    telling
}

impl Wanted {
    /// The keys of the page: at most so many, after one, in the list's order.
    pub(super) async fn keys(&self, read: &mut SqliteConnection, after: &str, limit: i64) -> Result<Vec<String>> {
        self.keys_among(FEW, read, after, limit).await
    }

    async fn keys_among(&self, few: u16, read: &mut SqliteConnection, after: &str, limit: i64) -> Result<Vec<String>> {
        let Some(by) = self.way(few, read).await? else { return Ok(Vec::new()) };
        let mut keys: Vec<String> = Vec::new();
        for range in self.ranges.iter().filter_map(|range| range.after(after)) {
            let missing = limit - i64::try_from(keys.len()).unwrap_or(i64::MAX);
            if missing <= 0 {
                break;
            }
            keys.extend(self.page(by, &range, missing).build_query_scalar::<String>().fetch_all(&mut *read).await?);
        }
        Ok(keys)
    }

    /// The way to look them up; `None` if there are none.
    async fn way(&self, few: u16, read: &mut SqliteConnection) -> Result<Option<By>> {
        let equality = self.conditions.iter().position(|condition| matches!(condition, Condition::Is { .. }));
        let ordered = || self.conditions.iter().position(|condition| matches!(condition, Condition::Before { .. }));
        let walk = equality.or_else(ordered).map_or(By::Order, By::Part);
        if let [] | [Condition::Is { .. }] = *self.conditions {
            return Ok(Some(walk));
        }
        let mut best = (i64::from(few), walk);
        for (at, condition) in self.conditions.iter().enumerate() {
            let met: i64 = self.count(condition, few).build_query_scalar().fetch_one(&mut *read).await?;
            if met == 0 {
                return Ok(None);
            }
            if met < best.0 {
                let equality = matches!(condition, Condition::Is { .. });
                best = (met, if equality { By::Part(at) } else { By::Condition(at) });
            }
        }
        Ok(Some(best.1))
    }

    /// How many entries meet the condition, as far as `few`. Of trigrams, how many may.
    fn count(&self, condition: &Condition, few: u16) -> QueryBuilder<Sqlite> {
        let mut query = QueryBuilder::new("SELECT count(*) FROM (SELECT 1 FROM (");
        self.push_ids(&mut query, condition);
        query.push(") LIMIT ").push_bind(i64::from(few)).push(")");
        query
    }

    fn page(&self, by: By, range: &Range, limit: i64) -> QueryBuilder<Sqlite> {
        let List { table, key, in_order, .. } = *self.list;
        let mut query = QueryBuilder::new("SELECT ");
        query.push(key).push(" FROM ").push(table);
        match by {
            By::Order => _ = query.push(" INDEXED BY ").push(in_order).push(" WHERE "),
            By::Part(at) => {
                if let Some(Condition::Is { index, .. } | Condition::Before { in_order: index, .. }) =
                    self.conditions.get(at)
                {
                    query.push(" INDEXED BY ").push(*index);
                }
                query.push(" WHERE ");
            }
            By::Condition(at) => {
                query.push(" NOT INDEXED WHERE ");
                if let Some(condition) = self.conditions.get(at) {
                    query.push("id IN (");
                    self.push_ids(&mut query, condition);
                    query.push(") AND ");
                }
            }
        }
        range.push(&mut query, key);
        for condition in &self.conditions {
            query.push(" AND ");
            self.push(&mut query, condition);
        }
        query.push(" ORDER BY ").push(key).push(" LIMIT ").push_bind(limit);
        query
    }

    /// The numbers of the entries that meet a condition, by its index. By trigrams, of those that may meet it.
    fn push_ids(&self, query: &mut QueryBuilder<Sqlite>, condition: &Condition) {
        let table = self.list.table;
        let indexed = |query: &mut QueryBuilder<Sqlite>, index: &str| {
            query.push("SELECT id FROM ").push(table).push(" INDEXED BY ").push(index).push(" WHERE ");
        };
        match condition {
            Condition::Is { index, .. } | Condition::Before { index, .. } => {
                indexed(query, index);
                self.push(query, condition);
            }
            Condition::Within { column, index, ranges } => {
                for (at, range) in ranges.iter().enumerate() {
                    query.push(if at == 0 { "" } else { " UNION ALL " });
                    indexed(query, index);
                    range.push(query, column);
                }
            }
            Condition::Contains { text } => self.push_trigrams(query, text),
        }
    }

    fn push_trigrams(&self, query: &mut QueryBuilder<Sqlite>, text: &str) {
        let List { trigrams, vocabulary, .. } = *self.list;
        let characters: Vec<char> = text.chars().collect();
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            // No name or path has such a character.
            query.push("SELECT 0 WHERE 0");
        } else if characters.len() < 3 {
            // The trigrams that begin with it.
            query.push("SELECT DISTINCT doc FROM ").push(vocabulary).push(" WHERE term >= ").push_bind(text.to_owned());
            query.push(" AND term < ").push_bind(format!("{text}\u{7f}"));
        } else {
            let trigram = |three: &[char]| format!("\"{}\"", three.iter().collect::<String>().replace('"', "\"\""));
            let all: Vec<_> = telling(&characters).into_iter().map(trigram).collect();
            query.push("SELECT rowid FROM ").push(trigrams).push(" WHERE ").push(trigrams).push(" MATCH ");
            query.push_bind(all.join(" AND "));
        }
    }

    fn push(&self, query: &mut QueryBuilder<Sqlite>, condition: &Condition) {
        match condition {
            Condition::Is { column, value, .. } => {
                query.push(*column).push(" = ");
                match value {
                    Value::Text(text) => query.push_bind(text.clone()),
                    Value::Flag(flag) => query.push_bind(*flag),
                };
            }
            Condition::Before { column, limit, .. } => _ = query.push(*column).push(" < ").push_bind(*limit),
            Condition::Within { column, ranges, .. } => {
                query.push("(0");
                for range in ranges {
                    query.push(" OR (");
                    range.push(query, column);
                    query.push(")");
                }
                query.push(")");
            }
            Condition::Contains { text } => {
                let key = self.list.key;
                query.push("instr(lower(").push(key).push("), ").push_bind(text.clone()).push(") > 0");
            }
        }
    }
}
