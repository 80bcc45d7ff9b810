//! The audit's evidence: what an event says in bytes, how events form a chain, what a signed checkpoint is, how an export
//! looks, and how all of it is verified.
//!
//! The one place for all of that: the resolver chains and signs, the control plane stores, chains its own changes and
//! exports, `bouncerctl audit verify` verifies. Nothing here does I/O, and nothing here may need more than an export and
//! archived trust bundles. It is no part of the filter.
//!
//! # The bytes
//!
//! - A *text* is committed to by `SHA-256(0x01 ‖ its UTF-8 bytes)`, so that one text can be withheld without the rest
//!   becoming unprovable.
//! - A *leaf* is `SHA-256(domain ‖ numbers ‖ commitments)`: every part has a fixed length and a fixed place
//!   ([`Decision`], [`Change`]).
//! - A chain's *origin* is `SHA-256("bouncer.audit.origin.v1\0" ‖ chain ‖ owner ‖ sequence before its first)`, where a
//!   text stands with its length (8 bytes, big-endian) before it.
//! - A *head* is `SHA-256("bouncer.audit.head.v1\0" ‖ the head before ‖ leaf)`.
//! - A *checkpoint* is `"bouncer.audit.checkpoint.v1\0" ‖ chain ‖ owner ‖ number ‖ sequence ‖ head ‖ time`, signed with
//!   the key of an X.509-SVID. Numbers are 8 bytes, big-endian.

mod bundle;
mod chain;
mod checkpoint;
mod digest;
mod event;
mod line;
mod verify;

pub use bundle::{BundleError, Bundles};
pub use chain::{ChainId, ChainPoint, NotAChain, NotAnOwner, Owner};
pub use checkpoint::{Algorithm, CHECKPOINT_EVENTS, Checkpoint, CheckpointError, Signed, Signer};
pub use digest::{Digest, NotADigest};
pub use event::{Change, Decision, TEXT_LIMIT, UNFIT, WITHHELD, Withheld, cut, fit, fits};
pub use line::{AdminLine, DecisionLine, DivergenceLine, EndLine, Line, Proof};
pub use verify::{ChainReport, Expected, Fault, Report, Verifier, What};
