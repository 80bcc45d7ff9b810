//! The Envoy filter of Bouncer: it tags a stream with the credential that the resolver grants it, or denies it.
//!
//! Envoy's native filters in front hand it the facts of a connection in one header; the native filter behind turns the
//! tag into the name of a secret, which this sandbox never sees. Everything that decides is plain Rust without a host
//! ([`stream`], [`cache`], [`pending`], [`watch`], [`streams`], [`uses`], joined by [`filter`]) and is tested natively;
//! `abi` and `host::envoy` exist on wasm alone and only carry calls across.
//!
//! A warm stream costs two calls into the VM, at its headers and at its end, and two calls out of it: one header read, one
//! property written. Nothing is allocated for it, formatted, or asked of the clock. The facts header is not removed here but by the route
//! configuration (`request_headers_to_remove`): a header removed by a wasm filter makes Envoy choose the route again,
//! after its cluster has become a fact.

#[cfg(target_arch = "wasm32")]
pub mod abi;
pub mod cache;
pub mod clock;
pub mod config;
pub mod decision;
pub mod denial;
pub mod facts;
pub mod filter;
pub mod host;
pub mod pending;
pub mod plugins;
pub mod stream;
pub mod streams;
pub mod trace;
pub mod uses;
pub mod watch;
