//! What goes wrong in a harness: one type, which says what happened, where, and what the logs said then. Scenarios
//! return it, so that a `?` is as telling as a failed assertion.

use std::error::Error;
use std::fmt::{self, Write as _};
use std::panic::Location;

/// The result of everything that the harness does.
pub type Result<T, E = Fault> = std::result::Result<T, E>;

/// What happened, where, and the ends of the logs if there were any.
pub struct Fault {
    what: String,
    at: &'static Location<'static>,
    evidence: String,
}

impl Fault {
    /// A fault of this harness or of what it runs.
    #[must_use]
    #[track_caller]
    pub fn new(what: impl Into<String>) -> Self {
        Self { what: what.into(), at: Location::caller(), evidence: String::new() }
    }

    /// With what may explain it, such as the ends of logs.
    #[must_use]
    pub fn with_evidence(mut self, evidence: impl AsRef<str>) -> Self {
        self.evidence.push_str(evidence.as_ref());
        self
    }

    /// What happened, without place and logs.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }
}

// Not an `Error` itself, so that every error converts into it with the place of the `?`.
impl<E: Error + Send + Sync + 'static> From<E> for Fault {
    #[track_caller]
    fn from(error: E) -> Self {
        let mut what = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let _ = write!(what, ": {inner}");
            cause = inner.source();
        }
        Self { what, at: Location::caller(), evidence: String::new() }
    }
}

/// Says what was being done when something failed.
pub trait Doing<T> {
    /// Puts `what` in front of the error.
    ///
    /// # Errors
    /// The error, as a [`Fault`] that begins with `what`.
    #[track_caller]
    fn doing(self, what: impl fmt::Display) -> Result<T>;
}

impl<T, E: Into<Fault>> Doing<T> for std::result::Result<T, E> {
    #[track_caller]
    fn doing(self, what: impl fmt::Display) -> Result<T> {
        let at = Location::caller();
        self.map_err(|error| {
            let fault = error.into();
            Fault { what: format!("{what}: {}", fault.what), at, evidence: fault.evidence }
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\n  at {}", self.what, self.at)?;
        if self.evidence.is_empty() { Ok(()) } else { write!(f, "\n{}", self.evidence) }
    }
}

// A test that returns an error prints it by `Debug`.
impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
