//! Texts that look like credentials, and texts that only look a little like them.
//!
//! - `everyday`: forms in which a key is pasted by accident; all of them must be refused (`plaintext.rs`).
//! - `formats`: the frozen corpus `tests/corpus/formats.toml`, made into credentials, and `encodings` of them.
//! - `legitimate`: what must pass.
//! - `measure`: both rates, and the list of misses.
//! - `structure`: what a structural field (an ARN, a path, a name) can hold of all this.

mod encodings;
pub(crate) mod everyday;
mod formats;
mod legitimate;
mod made;
mod measure;
mod noise;
mod structure;
