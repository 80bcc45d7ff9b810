//! What rows of either database hold, and how they are read back into records. No SQL, and nothing of a connection.

pub(super) mod audit;
pub(super) mod bouncers;
pub(super) mod crypto;
pub(super) mod envelopes;
pub(super) mod proposals;
pub(super) mod resources;
pub(super) mod tokens;

use super::{Part, Result, StoreError};
use crate::model;
use jiff::Timestamp;

/// How long a call is known by its idempotency key, in milliseconds: a day.
pub(super) const KEPT_MS: i64 = 24 * 60 * 60 * 1_000;

/// What a call did when it was made before under its idempotency key.
pub(in crate::store) enum Recalled {
    /// It registered a generation of a secret: the secret's id and the number, as stored.
    Generation(String, i64),
    /// It registered what its body names.
    Named,
}

/// A count as a database stores it.
pub(in crate::store) fn signed(number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| StoreError::OutOfRange)
}

/// A count as it is read back.
pub(in crate::store) fn unsigned(number: i64) -> Result<u64> {
    u64::try_from(number).map_err(|_| StoreError::OutOfRange)
}

/// Reads a stored text back through the parser that let it in.
pub(in crate::store) fn parsed<T: std::str::FromStr>(table: &'static str, text: &str) -> Result<T> {
    text.parse().map_err(|_| StoreError::Corrupt(table))
}

/// Reads a stored time back.
pub(in crate::store) fn time(table: &'static str, ms: i64) -> Result<Timestamp> {
    Timestamp::from_millisecond(ms).map_err(|_| StoreError::Corrupt(table))
}

/// Reads a stored time and author back.
pub(in crate::store) fn change(table: &'static str, ms: i64, by: String) -> Result<model::Change> {
    Ok(model::Change { at: time(table, ms)?, by })
}

/// Cuts a list that was read one too long.
pub(in crate::store) fn part<R, T>(rows: Vec<R>, limit: u16, read: impl FnMut(R) -> Result<T>) -> Result<Part<T>> {
    let more = rows.len() > usize::from(limit);
    let items = rows.into_iter().take(usize::from(limit)).map(read).collect::<Result<_>>()?;
    Ok(Part { items, more })
}
