//! The vocabulary of dual custody: what a credential is called, who wrapped it, what it is bound to, and why a stream
//! was denied.
//!
//! Every part of Bouncer speaks these types. They are parsed once, at the edge, and cannot hold anything malformed
//! afterwards; [`Malformed`] names what was wrong and never repeats the value. The crate does no I/O, holds no secret
//! and knows no provider, so that it builds for the wasm sandbox and for the control plane alike.

mod binding;
mod context;
mod enrolment;
mod envelope;
mod hex;
mod identity;
mod key;
mod link;
mod malformed;
mod names;
mod path;
mod reason;
mod reference;
mod spiffe_id;
mod tag;
mod trace;
mod upstream;
mod vault;

pub use binding::{Binding, ClusterRail, StreamFacts};
pub use context::{EncryptionContext, Reserved};
pub use enrolment::{Audience, GetCallerIdentity, StsHost};
pub use envelope::{EnvelopeHeader, SealedEnvelope};
pub use hex::Hex;
pub use identity::{BouncerIdentity, RoleArn};
pub use key::{KeyId, KmsKeyArn, Provider, VaultNamespace, is_region};
pub use link::Link;
pub use malformed::{Malformed, Problem};
pub use names::{BouncerName, ClusterName, Environment, ResourceName};
pub use path::{LogicalPath, PathPattern};
pub use reason::{Reason, UnknownReason};
pub use reference::{CiphertextRef, Wrapped};
pub use spiffe_id::{CallerPattern, SpiffeId};
pub use tag::{Generation, Issue, IssueOf, Tag};
pub use trace::TraceParent;
pub use upstream::{Upstream, UpstreamPattern};
pub use vault::{
    BoundBy, TransitCiphertext, VaultEngine, VaultItem, VaultMount, VaultMountName, VaultName, VaultPath, VaultRef,
};
