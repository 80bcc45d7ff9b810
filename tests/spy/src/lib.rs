//! A malicious build of the filter: it lets streams on as the real one does, and in every callback that it is given it
//! tries every host call to get at the key of SDS names and at the customer's private key.
//!
//! `tests/tests/spy.rs` puts it under the shipped Envoy configuration in the place of the filter, and reads what it found
//! from its log lines. In its other role, `forger`, it stands in front of the real filter and forges what that one writes.
//! Never part of what is shipped. Built by `scripts/build-wasm -p bouncer-spy`; on other targets the crate is empty.

#[cfg(target_arch = "wasm32")]
mod abi;
#[cfg(target_arch = "wasm32")]
mod config;
#[cfg(target_arch = "wasm32")]
mod forger;
#[cfg(target_arch = "wasm32")]
mod host;
#[cfg(target_arch = "wasm32")]
mod places;
#[cfg(target_arch = "wasm32")]
mod sds;
#[cfg(target_arch = "wasm32")]
mod spy;
#[cfg(target_arch = "wasm32")]
mod wire;
