//! Who calls: SPIFFE IDs, and patterns over them.

use crate::malformed::{Malformed, Problem, bounded, checked_text};

const WHAT: &str = "SPIFFE ID";
const FORM: &str = "spiffe://TRUST-DOMAIN/PATH (SPIFFE-ID, sections 2.1 and 2.2)";

fn trust_domain_ok(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_'))
}

fn segment_ok(segment: &str) -> bool {
    !matches!(segment, "" | "." | "..")
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

fn check(text: &str) -> Result<(), Malformed> {
    bounded(text, WHAT, 2_048)?;
    let rest = text.strip_prefix("spiffe://").ok_or(Problem::Form(FORM).of(WHAT))?;
    let (trust_domain, path) = match rest.split_once('/') {
        Some((trust_domain, path)) => (trust_domain, Some(path)),
        None => (rest, None),
    };
    let path_ok = path.is_none_or(|path| path.split('/').all(segment_ok));
    if trust_domain_ok(trust_domain) && path_ok { Ok(()) } else { Err(Problem::Form(FORM).of(WHAT)) }
}

checked_text! {
    /// A SPIFFE ID, as the SPIFFE-ID standard defines it. At most 2,048 bytes.
    SpiffeId, check
}

impl SpiffeId {
    /// The trust domain's name.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        let rest = &self.0["spiffe://".len()..];
        rest.split_once('/').map_or(rest, |(trust_domain, _)| trust_domain)
    }
}

/// One SPIFFE ID, or with a last segment `*` all IDs below a prefix of whole path segments.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CallerPattern {
    prefix: SpiffeId,
    below: bool,
}

impl CallerPattern {
    /// The one caller that it names; `None` for a prefix.
    #[must_use]
    pub fn exact(&self) -> Option<&SpiffeId> {
        (!self.below).then_some(&self.prefix)
    }

    /// Whether `caller` is the one named, or lies below the prefix.
    #[must_use]
    pub fn matches(&self, caller: &SpiffeId) -> bool {
        if !self.below {
            return self.prefix == *caller;
        }
        caller.as_str().strip_prefix(self.prefix.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl std::str::FromStr for CallerPattern {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let (prefix, below) = match text.strip_suffix("/*") {
            Some(prefix) => (prefix, true),
            None => (text, false),
        };
        let prefix = prefix.parse().map_err(|error: Malformed| match error.problem {
            Problem::Form(_) => Problem::Form("a SPIFFE ID, or one followed by '/*'").of("caller"),
            other => other.of("caller"),
        })?;
        Ok(Self { prefix, below })
    }
}

impl TryFrom<String> for CallerPattern {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<CallerPattern> for String {
    fn from(pattern: CallerPattern) -> Self {
        pattern.to_string()
    }
}

impl std::fmt::Display for CallerPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.prefix, if self.below { "/*" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_follow_the_standard() {
        let id: SpiffeId = "spiffe://example.org/ns/shop/sa/cart".parse().unwrap();
        assert_eq!(id.trust_domain(), "example.org");
        assert!("spiffe://example.org".parse::<SpiffeId>().is_ok());
        for bad in [
            "",
            "spiffe://",
            "https://example.org/a",
            "spiffe://Example.org/a",
            "spiffe://example.org/",
            "spiffe://example.org//a",
            "spiffe://example.org/a/",
            "spiffe://example.org/../a",
            "spiffe://example.org/a?x",
            "spiffe://example.org/a,spiffe://example.org/b",
            "spiffe://example.org/%61",
            "spiffe://example.org:80/a",
        ] {
            assert!(bad.parse::<SpiffeId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_end_at_whole_segments() {
        let pattern: CallerPattern = "spiffe://example.org/ns/shop/*".parse().unwrap();
        let matches = |id: &str| pattern.matches(&id.parse().unwrap());
        assert!(matches("spiffe://example.org/ns/shop/sa/cart"));
        assert!(!matches("spiffe://example.org/ns/shopping/sa/cart"));
        assert!(!matches("spiffe://example.org/ns/shop"));
        assert!(!matches("spiffe://example.org.evil/ns/shop/x"));
        let domain: CallerPattern = "spiffe://example.org/*".parse().unwrap();
        assert!(!domain.matches(&"spiffe://example.organic/a".parse().unwrap()));
        assert!("spiffe://*".parse::<CallerPattern>().is_err());
        assert!("spiffe://example.org/a*".parse::<CallerPattern>().is_err());
        assert_eq!(pattern.to_string(), "spiffe://example.org/ns/shop/*");
    }
}
