//! Lists in parts: limits, and cursors that mean nothing to the caller.

use super::problem::ApiError;
use crate::store::{AuditKey, Page, Part};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bouncer_custody::{BouncerName, LogicalPath, ResourceName};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

const DEFAULT: u16 = 100;
const MOST: u16 = 500;

/// One part of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct List<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Where the next part begins; absent at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> List<T> {
    /// Shows a part of the store's list.
    pub fn of<R, K: Cursor>(part: Part<R>, key: impl Fn(&R) -> K, show: impl FnMut(R) -> T) -> Self {
        let last = part.items.last().map(|last| URL_SAFE_NO_PAD.encode(key(last).write()));
        let next_cursor = if part.more { last } else { None };
        Self { items: part.items.into_iter().map(show).collect(), next_cursor }
    }
}

/// A key that a list is ordered by, as text.
pub trait Cursor: Sized {
    /// As it stands in a cursor.
    fn write(&self) -> String;
    /// As it is read back; `None` if it is not one of ours.
    fn read(text: &str) -> Option<Self>;
}

macro_rules! text_cursor {
    ($($name:ty),*) => {$(
        impl Cursor for $name {
            fn write(&self) -> String {
                self.as_str().to_owned()
            }
            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        }
    )*};
}
text_cursor!(LogicalPath, BouncerName, ResourceName);

impl Cursor for u64 {
    fn write(&self) -> String {
        self.to_string()
    }
    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|number| i64::try_from(*number).is_ok())
    }
}

impl Cursor for Uuid {
    fn write(&self) -> String {
        self.to_string()
    }
    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Cursor for AuditKey {
    fn write(&self) -> String {
        format!("{}.{}", self.time_ms, self.seq)
    }
    fn read(text: &str) -> Option<Self> {
        let (time_ms, seq) = text.split_once('.')?;
        Some(Self { time_ms: time_ms.parse().ok()?, seq: u64::read(seq)? })
    }
}

/// What is searched for, if anything is.
pub(super) fn search(text: Option<String>) -> Result<Option<String>, ApiError> {
    match text {
        Some(text) if text.len() > 255 => Err(ApiError::Query("The parameter 'q' must be at most 255 bytes.")),
        text => Ok(text.filter(|text| !text.is_empty())),
    }
}

/// A name that a query asks for, if it does.
pub(super) fn name<T: std::str::FromStr>(fault: &'static str, text: Option<String>) -> Result<Option<T>, ApiError> {
    text.map(|text| text.parse().map_err(|_| ApiError::Query(fault))).transpose()
}

/// The page that a query asks for.
pub(super) fn parse<K: Cursor>(limit: Option<u16>, cursor: Option<&str>) -> Result<Page<K>, ApiError> {
    let limit = limit.unwrap_or(DEFAULT);
    if !(1..=MOST).contains(&limit) {
        return Err(ApiError::Query("The parameter 'limit' must be 1 to 500."));
    }
    let after = cursor.map(|cursor| {
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok()?;
        K::read(std::str::from_utf8(&bytes).ok()?)
    });
    match after {
        Some(None) => {
            Err(ApiError::Query("The parameter 'cursor' is not one that this list gave out. Begin without it."))
        }
        Some(after) => Ok(Page { after, limit }),
        None => Ok(Page { after: None, limit }),
    }
}
