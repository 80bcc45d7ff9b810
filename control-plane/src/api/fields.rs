//! Fields of a body, parsed all of them before any fault is reported. Faults name fields and rules, never values.

use super::problem::{ApiError, FieldError};
use bouncer_custody::Malformed;

/// Collects what is wrong with the fields of a body, so that everything is said at once.
#[derive(Debug, Default)]
pub struct Faults(Vec<FieldError>);

impl Faults {
    /// Notes a rule that `field` broke.
    pub fn add(&mut self, field: &str, detail: impl std::fmt::Display) {
        self.0.push(FieldError { field: field.to_owned(), detail: detail.to_string() });
    }

    /// The value, or its fault noted. Errors of the vocabulary never repeat the value.
    pub fn take<T, E: Into<FieldRule>>(&mut self, field: &str, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.add(field, error.into().0)).ok()
    }

    /// The error, if anything was noted.
    #[must_use]
    pub fn into_error(self) -> ApiError {
        ApiError::Invalid(self.0)
    }

    /// Whether nothing was noted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The text of a broken rule, from an error that is known not to repeat values.
pub struct FieldRule(String);

impl From<Malformed> for FieldRule {
    fn from(error: Malformed) -> Self {
        Self(error.to_string())
    }
}
impl From<crate::certificate::ChainError> for FieldRule {
    fn from(error: crate::certificate::ChainError) -> Self {
        Self(error.to_string())
    }
}
impl From<crate::model::UnknownProtocol> for FieldRule {
    fn from(error: crate::model::UnknownProtocol) -> Self {
        Self(error.to_string())
    }
}
impl From<crate::edit::NoReason> for FieldRule {
    fn from(error: crate::edit::NoReason) -> Self {
        Self(error.to_string())
    }
}
impl From<crate::access::UnknownRole> for FieldRule {
    fn from(error: crate::access::UnknownRole) -> Self {
        Self(error.to_string())
    }
}
