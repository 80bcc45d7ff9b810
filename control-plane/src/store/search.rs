//! Which entries of a list are on a page. The lists are long, and a page must not cost more for that: no condition is
//! looked up by going through the whole list where an index knows the few entries that meet it.
//!
//! Each database has indexes of what its lists may be filtered by, in the list's order, and of the trigrams of what is
//! searched. The conditions of a page are first asked how many entries meet them, up to [`Reach::few`]. If few meet one,
//! those are looked up by that condition's index, and put in order. If many meet each, they are met soon on the way through
//! the list in its own order, or through the entries that meet the first equality, which its index has in that order.
//!
//! What is chosen here, and how a page is put together, is the same on both databases; [`Lists`] is how each is asked.

#[cfg(test)]
pub(super) mod tests;

use super::{BouncerFilter, EnvelopeFilter, ResourceFilter, Result, filter};
use crate::access::Scope;
use sqlx::{Database, Encode, QueryBuilder, Type};

/// How far is looked before the way is chosen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// So many entries are quickly looked up and put in order.
    pub(super) few: u16,
    /// So many entries for each that is wanted are quickly gone through.
    pub(super) near: u16,
}

const REACH: Reach = Reach { few: 2_000, near: 12 };
/// Trigrams that are looked up of one text. Each costs, and common ones most; few of them leave little to read through.
const TRIGRAMS: usize = 3;
/// Of so many parts of a text each has one to offer.
const PARTS: usize = 6;

/// A list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum List {
    /// Envelope secrets, by logical path.
    Envelopes,
    /// Protected resources, by name.
    Resources,
    /// Bouncers, by name.
    Bouncers,
}

impl List {
    /// The column that it is ordered by, without duplicates.
    pub(super) const fn key(self) -> &'static str {
        match self {
            Self::Envelopes => "logical_path",
            Self::Resources | Self::Bouncers => "name",
        }
    }
}

/// What an entry must meet. Indexes have the same names on both databases.
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

impl Value {
    pub(super) fn push<DB>(&self, query: &mut QueryBuilder<DB>)
    where
        DB: Database,
        String: for<'q> Encode<'q, DB> + Type<DB>,
        bool: for<'q> Encode<'q, DB> + Type<DB>,
    {
        match self {
            Self::Text(text) => query.push_bind(text.clone()),
            Self::Flag(flag) => query.push_bind(*flag),
        };
    }
}

impl Condition {
    /// What is searched for, as a condition: whatever the case of its ASCII letters.
    fn contains(text: &str) -> Self {
        Self::Contains { text: text.to_ascii_lowercase() }
    }

    /// Whether some entry might meet it, by what an entry can have. No database is asked for anything else.
    fn is_possible(&self) -> bool {
        match self {
            // No name or path has another character.
            Self::Contains { text } => text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte)),
            // PostgreSQL can't hold one, and takes offence at being asked for it.
            Self::Is { value: Value::Text(text), .. } => !text.contains('\0'),
            Self::Is { .. } | Self::Before { .. } | Self::Within { .. } => true,
        }
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
    /// All texts but the empty one, which is none of an entry's.
    pub(super) const EVERYTHING: Self = Self { above: String::new(), with_it: false, below: None };

    /// What is left of it after a text; `None` if nothing is.
    fn after(&self, text: &str) -> Option<Self> {
        if text < self.above.as_str() {
            return Some(self.clone());
        }
        let open = self.below.as_deref().is_none_or(|below| text < below);
        open.then(|| Self { above: text.to_owned(), with_it: false, below: self.below.clone() })
    }

    /// How its texts compare with each of its ends.
    pub(super) fn ends(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let single = self.below.as_ref() == Some(&self.above);
        let above = (if self.with_it { " >= " } else { " > " }, self.above.as_str());
        let below = self.below.as_deref().map(|below| (if single { " <= " } else { " < " }, below));
        [Some(above), below].into_iter().flatten()
    }

    /// That the column is within it.
    pub(super) fn push<DB>(&self, query: &mut QueryBuilder<DB>, column: &str)
    where
        DB: Database,
        String: for<'q> Encode<'q, DB> + Type<DB>,
    {
        for (at, (compared, end)) in self.ends().enumerate() {
            query.push(if at == 0 { "" } else { " AND " }).push(column).push(compared).push_bind(end.to_owned());
        }
    }
}

/// A scope as ranges of paths: in order, and none within another.
fn ranges(scope: &Scope) -> Vec<Range> {
    if scope.is_everything() {
        return vec![Range::EVERYTHING];
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

/// That the column is within one of the ranges.
pub(super) fn push_within<DB>(query: &mut QueryBuilder<DB>, column: &str, ranges: &[Range])
where
    DB: Database,
    String: for<'q> Encode<'q, DB> + Type<DB>,
{
    for (at, range) in ranges.iter().enumerate() {
        query.push(if at == 0 { "((" } else { ") OR (" });
        range.push(query, column);
    }
    query.push("))");
}

/// The way to a page.
#[derive(Debug, Clone, Copy)]
enum Way<'c> {
    /// Through the list in its order; through those that meet a condition, if its index has that order.
    Walk(Option<&'c Condition>),
    /// To those that meet a condition, whatever their order.
    LookUp(&'c Condition),
}

/// A connection to one of the databases, as it is asked for entries of a list. What it answers depends on the entries alone,
/// never on the way.
pub(super) trait Lists {
    /// How many entries meet the condition, as far as `few`. Of trigrams, how many may.
    async fn count(&mut self, list: List, condition: &Condition, few: u16) -> Result<i64>;

    /// The first keys in the range, at most so many, in the list's order, on the way through it or a part of it.
    async fn walk(
        &mut self,
        wanted: &Wanted,
        part: Option<&Condition>,
        range: &Range,
        limit: i64,
    ) -> Result<Vec<String>>;

    /// The first keys in the ranges, at most so many, in the list's order, out of those that meet the condition.
    async fn look_up(
        &mut self,
        wanted: &Wanted,
        condition: &Condition,
        ranges: &[Range],
        limit: i64,
    ) -> Result<Vec<String>>;

    /// The first keys in the ranges, if so many entries on the way tell of them all. A database for which counting costs
    /// nothing near that need not look.
    async fn near(
        &mut self,
        _wanted: &Wanted,
        _part: Option<&Condition>,
        _ranges: &[Range],
        _limit: i64,
        _near: i64,
    ) -> Result<Option<Vec<String>>> {
        Ok(None)
    }
}

/// Which entries are wanted.
#[derive(Debug)]
pub(super) struct Wanted {
    /// Of this list.
    pub(super) list: List,
    /// In these ranges of the list's key, in order and apart.
    pub(super) ranges: Vec<Range>,
    /// That meet all of these.
    pub(super) conditions: Vec<Condition>,
}

/// The conditions that single out fewer stand first.
impl Wanted {
    pub(super) fn envelopes(wanted: &EnvelopeFilter) -> Self {
        let is = |column, index, value| Condition::Is { column, index, value };
        let key = wanted.key_id.clone().map(Value::Text);
        let enabled = wanted.enabled.map(Value::Flag);
        let provider = wanted.provider.map(|provider| Value::Text(provider.as_str().to_owned()));
        let end = wanted.expires_before.map(|before| before.as_millisecond());
        let conditions = [
            key.map(|value| is("key_id", "envelope_search_by_key", value)),
            enabled.map(|value| is("enabled", "envelope_search_by_enabled", value)),
            provider.map(|value| is("provider", "envelope_search_by_provider", value)),
            end.map(|limit| Condition::Before {
                column: "not_after_ms",
                index: "envelope_search_by_end",
                in_order: "envelope_search_ending",
                limit,
            }),
            wanted.contains.as_deref().map(Condition::contains),
        ];
        let conditions = conditions.into_iter().flatten().collect();
        Self { list: List::Envelopes, ranges: ranges(&wanted.scope), conditions }
    }

    pub(super) fn resources(wanted: &ResourceFilter) -> Self {
        let is = |column, index, value| Condition::Is { column, index, value };
        let path = wanted.path.as_ref().map(|path| Value::Text(path.to_string()));
        let bouncer = wanted.bouncer.as_ref().map(|bouncer| Value::Text(bouncer.to_string()));
        let enabled = wanted.enabled.map(Value::Flag);
        let scoped = !wanted.scope.is_everything();
        let (column, index) = ("logical_path", "resource_search_by_path");
        let conditions = [
            path.map(|value| is(column, index, value)),
            bouncer.map(|value| is("bouncer", "resource_search_by_bouncer", value)),
            enabled.map(|value| is("enabled", "resource_search_by_enabled", value)),
            scoped.then(|| Condition::Within { column, index, ranges: ranges(&wanted.scope) }),
            wanted.contains.as_deref().map(Condition::contains),
        ];
        let conditions = conditions.into_iter().flatten().collect();
        Self { list: List::Resources, ranges: vec![Range::EVERYTHING], conditions }
    }

    pub(super) fn bouncers(wanted: &BouncerFilter) -> Self {
        let conditions = wanted.contains.as_deref().map(Condition::contains).into_iter().collect();
        Self { list: List::Bouncers, ranges: vec![Range::EVERYTHING], conditions }
    }

    /// The keys of the page: at most so many, after one, in the list's order.
    pub(super) async fn keys(&self, lists: &mut impl Lists, after: &str, limit: u16) -> Result<Vec<String>> {
        self.keys_within(REACH, lists, after, limit).await
    }

    pub(super) async fn keys_within(
        &self,
        reach: Reach,
        lists: &mut impl Lists,
        after: &str,
        limit: u16,
    ) -> Result<Vec<String>> {
        let ranges: Vec<_> = self.ranges.iter().filter_map(|range| range.after(after)).collect();
        if ranges.is_empty() || !self.conditions.iter().all(Condition::is_possible) {
            return Ok(Vec::new());
        }
        let limit = i64::from(limit);
        let way = match *self.conditions {
            [] | [Condition::Is { .. }] => Way::Walk(self.part()),
            _ => {
                let near = i64::from(reach.near) * limit;
                if let Some(keys) = lists.near(self, self.part(), &ranges, limit, near).await? {
                    return Ok(keys);
                }
                let Some(way) = self.way(reach.few, lists).await? else { return Ok(Vec::new()) };
                way
            }
        };
        let part = match way {
            Way::Walk(part) => part,
            Way::LookUp(condition) => return lists.look_up(self, condition, &ranges, limit).await,
        };
        let mut keys: Vec<String> = Vec::new();
        for range in &ranges {
            let missing = limit - i64::try_from(keys.len()).unwrap_or(i64::MAX);
            if missing <= 0 {
                break;
            }
            keys.extend(lists.walk(self, part, range, missing).await?);
        }
        Ok(keys)
    }

    /// The part of the list, in its order, that leaves out most.
    fn part(&self) -> Option<&Condition> {
        let equality = self.conditions.iter().find(|condition| matches!(condition, Condition::Is { .. }));
        equality.or_else(|| self.conditions.iter().find(|condition| matches!(condition, Condition::Before { .. })))
    }

    /// The way to the entries; `None` if there are none.
    async fn way(&self, few: u16, lists: &mut impl Lists) -> Result<Option<Way<'_>>> {
        let mut best = (i64::from(few), Way::Walk(self.part()));
        for condition in &self.conditions {
            let met = lists.count(self.list, condition, few).await?;
            if met == 0 {
                return Ok(None);
            }
            if met < best.0 {
                let equality = matches!(condition, Condition::Is { .. });
                best = (met, if equality { Way::Walk(Some(condition)) } else { Way::LookUp(condition) });
            }
        }
        Ok(Some(best.1))
    }

    /// That the conditions are met; `position` is the database's function for where a text has another in it.
    pub(super) fn push_conditions<DB>(&self, query: &mut QueryBuilder<DB>, position: &'static str)
    where
        DB: Database,
        String: for<'q> Encode<'q, DB> + Type<DB>,
        bool: for<'q> Encode<'q, DB> + Type<DB>,
        i64: for<'q> Encode<'q, DB> + Type<DB>,
    {
        for condition in &self.conditions {
            query.push(" AND ");
            match condition {
                Condition::Is { column, value, .. } => value.push(query.push(*column).push(" = ")),
                Condition::Before { column, limit, .. } => _ = query.push(*column).push(" < ").push_bind(*limit),
                Condition::Within { column, ranges, .. } => push_within(query, column, ranges),
                Condition::Contains { text } => {
                    query.push(position).push("(lower(").push(self.list.key()).push("), ");
                    query.push_bind(text.clone()).push(") > 0");
                }
            }
        }
    }
}

/// Of a text's trigrams those that are likely to be the rarest, no two of one part of it; the rarest first. None of a text
/// that is shorter than one.
pub(super) fn telling(text: &str) -> Vec<&str> {
    let rare = |byte: u8| match byte {
        b'0'..=b'9' => 3,
        b'j' | b'k' | b'q' | b'v' | b'w' | b'x' | b'z' => 2,
        b'e' | b't' | b'a' | b'o' | b'i' | b'n' | b's' | b'r' | b'h' | b'l' | b'/' | b'-' | b'_' | b'.' => 0,
        _ => 1,
    };
    // Padding is common: what repeats itself counts less.
    let repeated = |three: &str| three.as_bytes().windows(2).filter(|two| two[0] == two[1]).count();
    let rarity = |three: &&str| three.bytes().map(rare).sum::<usize>().saturating_sub(2 * repeated(three));
    let all: Vec<&str> = (0..text.len()).filter_map(|at| text.get(at..at + 3)).collect();
    let part = all.len().div_ceil(PARTS).max(1);
    let mut telling: Vec<_> = all.chunks(part).filter_map(|part| part.iter().copied().max_by_key(rarity)).collect();
    telling.sort_by_key(|three| (std::cmp::Reverse(rarity(three)), *three));
    telling.dedup();
    telling.truncate(TRIGRAMS);
    telling
}
