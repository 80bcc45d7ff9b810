//! The control plane's state as a file says it: flags, settings, bouncers, credentials' metadata, protected resources.
//!
//! Called by `export`, `diff` and `apply`. Holds metadata only; a `ciphertext_ref` is never shown whole.

mod fault;
mod locate;
mod plan;
mod read;
mod schema;
mod write;

pub(crate) use fault::{Fault, Undeclarable};
pub(crate) use plan::{Action, Change, Plan};
pub(crate) use read::read;
pub(crate) use schema::Kind;
pub(crate) use write::write;

use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The fields of one thing, without its name.
pub(crate) type Fields = Map<String, Value>;

/// What the files say: each thing by its kind and name.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    /// The kinds that they speak of at all. What they do not speak of is left alone.
    pub sections: BTreeSet<Kind>,
    /// The things.
    pub things: BTreeMap<(Kind, String), Fields>,
}

/// A thing that is registered.
#[derive(Debug, Clone)]
pub(crate) struct Registered {
    /// What it is made of, in the form that a file would have.
    pub fields: Fields,
    /// Of its last change.
    pub revision: u64,
    /// By which the API knows it, where that is not its name.
    pub id: Option<String>,
}

/// What is registered, as far as it could be read.
#[derive(Debug, Default)]
pub(crate) struct Live {
    /// The things.
    pub things: BTreeMap<(Kind, String), Registered>,
    /// The flag is off: what it guards can be neither read nor changed.
    pub locked: bool,
}
