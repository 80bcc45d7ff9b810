//! What is wrong with a file: where, which key, and which rule. Never a value.

use crate::failure::{Exit, Explain};
use std::path::PathBuf;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// In which file.
    pub file: PathBuf,
    /// On which line, from 1, where that is known.
    pub line: Option<usize>,
    /// Which key, such as `bouncers[2].spiffe_id`; empty for the whole document.
    pub key: String,
    /// Which rule.
    pub rule: String,
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        match self.key.as_str() {
            "" => write!(f, ": {}", self.rule),
            key => write!(f, ": {key} {}", self.rule),
        }
    }
}

/// The files can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the declaration has {}", match .0.len() { 1 => "a fault".to_owned(), n => format!("{n} faults") })]
pub(crate) struct Undeclarable(pub Vec<Fault>);

impl Explain for Undeclarable {
    fn why(&self) -> Option<String> {
        Some(self.0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
    }

    fn advice(&self) -> String {
        "Correct the file. `bouncerctl export` writes one of the right form, and `bouncerctl apply --help` describes it."
            .to_owned()
    }

    fn exit(&self) -> Exit {
        Exit::Usage
    }
}
