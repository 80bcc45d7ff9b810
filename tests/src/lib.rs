//! The harness of the end-to-end scenarios, the demo and the benchmarks: real Envoy, SPIRE, KMS server, control plane and
//! resolver, each a process of its own scenario, with its own folder and ports.
//!
//! Nothing here is shared between two scenarios, so they run in parallel. Nothing here sleeps: [`scratch::Scratch`]
//! waits for conditions, with a deadline, and a wait that fails shows the ends of all logs. A scenario usually starts with
//! [`stack::Stack::builder`].
//!
//! It is never part of what is shipped. Its keys are made for one run and protect nothing.

pub mod any_server;
pub mod api;
pub mod bridge;
pub mod bridge_relay;
pub mod browser;
pub mod client;
pub mod collector;
pub mod control_plane;
pub mod envoy;
pub mod fault;
pub mod iam;
pub mod intercept;
pub mod kms;
pub mod kms_proxy;
pub mod leak;
pub mod memory;
pub mod oidc;
pub mod openbao;
pub mod operator;
pub mod pki;
pub mod plain_http;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod resolver;
pub mod scratch;
pub mod sds;
pub mod spire;
pub mod stack;
pub mod stats;
pub mod stop;
pub mod sts;
pub mod tls_front;
pub mod tools;
pub mod traffic;
pub mod upstream;
pub mod vault_proxy;
pub mod workload_api;

pub use fault::{Fault, Result};

/// The trust domain of every scenario.
pub const TRUST_DOMAIN: &str = "example.org";
