//! The control plane: stores envelope metadata, policy and audit, and speaks to administrators by REST and to bouncers
//! by the Policy Bridge.
//!
//! It can never decrypt: nothing in its dependencies could (a test reads `cargo tree`), and what looks like a plaintext
//! credential is refused before it is stored or logged ([`plaintext`]). [`api`] and [`bridge`] are the two servers,
//! [`store`] is the database behind both, [`console`] the web pages in front of the first; [`cli`] is what the binary
//! calls.

pub mod access;
pub mod api;
pub mod backup;
pub mod bootstrap;
pub mod bridge;
pub mod buckets;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod descriptors;
pub mod edit;
pub mod folder;
pub mod forward;
pub mod health;
mod http_client;
pub mod http_server;
pub mod metrics;
pub mod model;
pub mod oidc;
pub mod own_chain;
pub mod person;
pub mod plaintext;
pub mod proposal;
pub mod readiness;
pub mod retention;
pub mod serve;
pub mod store;
pub mod tls;
pub mod token;
