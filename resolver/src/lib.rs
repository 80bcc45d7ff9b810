//! The resolver: the daemon beside Envoy that decides, unwraps with its workload identity, and serves the result.
//!
//! [`daemon::run`] wires the parts: the [`intercept`] service answers the filter's questions through the [`engine`],
//! the [`sds`] service hands credentials to Envoy, the [`bridge`] brings policy down and audit up. Secret bytes live in
//! the [`arena`] only, and leave it through [`arena::Secret::expose`].

pub mod admin;
pub mod arena;
pub mod audit;
pub mod bridge;
pub mod cache;
pub mod clock;
pub mod config;
pub mod credential;
pub mod daemon;
pub mod engine;
pub mod grants;
pub mod harden;
pub mod http;
pub mod identity;
pub mod intercept;
pub mod journal;
pub mod kms;
pub mod metrics;
pub mod policy;
pub mod revocations;
pub mod rotation;
pub mod sds;
pub mod socket;
pub mod state_file;
pub mod trace;
pub mod unwrap;
pub mod vault;
pub mod watch;
