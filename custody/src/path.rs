//! Logical paths: what a credential is called, everywhere.

use crate::malformed::{Malformed, Problem, bounded, checked_text};

const WHAT: &str = "logical path";
const LIMIT: usize = 255;

fn check(text: &str) -> Result<(), Malformed> {
    bounded(text, WHAT, LIMIT)?;
    for segment in text.split('/') {
        if segment.is_empty() {
            return Err(Problem::Form("non-empty segments joined by single '/'").of(WHAT));
        }
        if segment == "." || segment == ".." {
            return Err(Problem::Form("without '.' and '..' segments").of(WHAT));
        }
        if !segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
            return Err(Problem::Character("ASCII letters, digits, '-', '_', '.' and '/'").of(WHAT));
        }
    }
    Ok(())
}

checked_text! {
    /// What a credential is called, such as `protected-resources/payments-api/upstream-tls`.
    ///
    /// At most 255 bytes; segments of ASCII letters, digits, `-`, `_`, `.`, joined by single slashes, none of them `.`
    /// or `..`. Percent signs, controls and look-alike letters are no part of the set, so that no decoder further on
    /// can make another path of it.
    LogicalPath, check
}

/// A logical path, or with a last segment `*` all paths below a prefix of whole segments.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(try_from = "String")]
pub struct PathPattern {
    prefix: LogicalPath,
    below: bool,
}

impl PathPattern {
    /// Whether `path` is the one named, or lies below the prefix.
    #[must_use]
    pub fn matches(&self, path: &LogicalPath) -> bool {
        if !self.below {
            return self.prefix == *path;
        }
        path.as_str().strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl PathPattern {
    /// The path that is named, or above which nothing is.
    #[must_use]
    pub const fn prefix(&self) -> &LogicalPath {
        &self.prefix
    }

    /// Whether it stands for what lies below the prefix, and not for the prefix itself.
    #[must_use]
    pub const fn is_below(&self) -> bool {
        self.below
    }
}

impl std::fmt::Display for PathPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.prefix.as_str(), if self.below { "/*" } else { "" })
    }
}

impl serde::Serialize for PathPattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl std::str::FromStr for PathPattern {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for PathPattern {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        let (prefix, below) = match text.strip_suffix("/*") {
            Some(prefix) => (prefix, true),
            None => (text.as_str(), false),
        };
        Ok(Self { prefix: prefix.parse()?, below })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn traversal_and_look_alikes_are_refused() {
        assert!("protected-resources/payments-api/upstream-tls".parse::<LogicalPath>().is_ok());
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            "a/../b",
            "..",
            "./a",
            "a/%2e%2e/b",
            "a\0b",
            "a b",
            "a\u{0430}",
            "a@1",
            "a\\b",
            &"a".repeat(256),
        ] {
            assert!(bad.parse::<LogicalPath>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn patterns_end_at_whole_segments() {
        let pattern = PathPattern::try_from("a/b/*".to_owned()).unwrap();
        assert!(pattern.matches(&"a/b/c".parse().unwrap()));
        assert!(!pattern.matches(&"a/bc".parse().unwrap()));
        assert!(!pattern.matches(&"a/b".parse().unwrap()));
        assert!(PathPattern::try_from("*".to_owned()).is_err());
    }

    proptest! {
        #[test]
        fn what_parses_is_itself(text in ".{0,40}") {
            if let Ok(path) = text.parse::<LogicalPath>() {
                prop_assert_eq!(path.as_str(), text.as_str());
                prop_assert!(!text.contains(".."  ) || !text.split('/').any(|s| s == ".."));
                prop_assert!(text.is_ascii());
            }
        }
    }
}
