//! The wire of Bouncer, generated from the `.proto` files, whose comments are its documentation.
//!
//! [`intercept::v1`] is spoken between the filter in Envoy and the resolver, [`bridge::v1`] between the resolver and
//! the control plane. Messages alone build for wasm; tonic's clients and servers come with the feature `services`.
//! Nothing here may ever carry a secret: there is no field for one.

#[cfg(feature = "services")]
mod codec;
mod content;
mod delta;
mod parts;
mod snapshot;

pub use content::{ContentDigest, Outline};
pub use delta::DeltaFault;
pub use parts::Parted;

/// Between the filter in Envoy and the resolver.
pub mod intercept {
    /// Version 1.
    #[expect(missing_docs, reason = "generated; the .proto files hold the documentation")]
    #[cfg_attr(
        feature = "services",
        expect(clippy::allow_attributes_without_reason, reason = "tonic's generated services have them")
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/bouncer.intercept.v1.rs"));
    }
}

/// Between the resolver and the control plane.
pub mod bridge {
    /// Version 1.
    #[expect(missing_docs, reason = "generated; the .proto files hold the documentation")]
    #[cfg_attr(
        feature = "services",
        expect(clippy::allow_attributes_without_reason, reason = "tonic's generated services have them")
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/bouncer.bridge.v1.rs"));
    }
}
