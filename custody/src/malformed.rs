//! The one parse error of this crate, and the macro that gives every text type the same edges.

use std::fmt;

/// A text from outside that is not what it should be. Says which rule it broke, never what it held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{what} {problem}")]
pub struct Malformed {
    /// The field's term for what was expected, such as "logical path".
    pub what: &'static str,
    /// The rule that was broken.
    pub problem: Problem,
}

/// The rule that a malformed text broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// It is empty.
    Empty,
    /// It is longer than this many bytes.
    TooLong(usize),
    /// It holds a character outside the allowed set, which is described.
    Character(&'static str),
    /// It is not of the described form.
    Form(&'static str),
    /// A key stands in it twice.
    Duplicate,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("must not be empty"),
            Self::TooLong(limit) => write!(f, "must not be longer than {limit} bytes"),
            Self::Character(allowed) => write!(f, "may hold only {allowed}"),
            Self::Form(form) => write!(f, "must be {form}"),
            Self::Duplicate => f.write_str("must not name a key twice"),
        }
    }
}

impl Problem {
    pub(crate) const fn of(self, what: &'static str) -> Malformed {
        Malformed { what, problem: self }
    }
}

/// The bounds that every text shares: not empty, not too long.
pub(crate) fn bounded(text: &str, what: &'static str, limit: usize) -> Result<(), Malformed> {
    if text.is_empty() {
        return Err(Problem::Empty.of(what));
    }
    if text.len() > limit {
        return Err(Problem::TooLong(limit).of(what));
    }
    Ok(())
}

/// A newtype over a shared text that `$check` accepted: `FromStr`, `TryFrom<String>`, `Display`, `AsRef<str>` and serde, all
/// through that check.
macro_rules! checked_text {
    ($(#[$doc:meta])* $name:ident, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The text as it was parsed.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Malformed;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let check: fn(&str) -> Result<(), $crate::Malformed> = $check;
                check(text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = $crate::Malformed;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                (*value.0).into()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}
pub(crate) use checked_text;
