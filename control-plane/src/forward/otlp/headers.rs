//! The headers that a receiver knows us by, such as a bearer token: from a file, one a line.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use std::io;
use std::path::Path;

/// The longest file, in bytes.
const LIMIT: usize = 16 * 1_024;
/// The most headers.
const MOST: usize = 16;

/// Why the headers can't be used. Nothing of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadersFault {
    /// There is no such file, or it is somebody else's.
    #[error("cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    /// It holds something else.
    #[error("must hold 1 to 16 lines such as \"Authorization: Bearer …\", and be no longer than 16 KiB")]
    Form,
}

/// Reads the file.
///
/// # Errors
/// [`HeadersFault`].
pub(super) fn read(file: &Path) -> Result<HeaderMap, HeadersFault> {
    let text = std::fs::read_to_string(file).map_err(|error| HeadersFault::Unreadable(error.kind()))?;
    parse(&text).ok_or(HeadersFault::Form)
}

fn parse(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let mut value = HeaderValue::from_str(value.trim()).ok().filter(|value| !value.is_empty())?;
        // Neither logged nor kept in a table of header compression.
        value.set_sensitive(true);
        headers.append(name.parse::<HeaderName>().ok()?, value);
    }
    (text.len() <= LIMIT && (1..=MOST).contains(&headers.len())).then_some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_header_and_none_is_shown() {
        let headers = parse("Authorization: Bearer hunter2\n\nX-Api-Key:hunter2\r\n").unwrap();
        assert_eq!(headers["authorization"], "Bearer hunter2");
        assert_eq!(headers["x-api-key"], "hunter2");
        assert!(!format!("{headers:?}").contains("hunter2"));
        let many = "a: b\n".repeat(MOST + 1);
        let long = format!("a: {}", "b".repeat(LIMIT));
        for bad in ["", "\n", "hunter2", "Authorization:", ": b", "a b: c", "a: b\u{7}", &many, &long] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
