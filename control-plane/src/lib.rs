//! The control plane: stores envelope metadata, policy and audit, and speaks to administrators by REST and to bouncers
//! by the Policy Bridge.
//!
//! It can never decrypt: nothing in its dependencies could (a test reads `cargo tree`), and what looks like a plaintext
//! credential is refused before it is stored or logged ([`plaintext`]). [`api`] and [`bridge`] are the two servers,
//! [`store`] is the database behind both; [`cli`] is what the binary calls.

pub mod access;
pub mod api;
pub mod backup;
pub mod bootstrap;
pub mod bridge;
pub mod certificate;
pub mod cli;
pub mod clock;
pub mod config;
pub mod edit;
pub mod health;
pub mod http_server;
pub mod metrics;
pub mod model;
pub mod plaintext;
pub mod readiness;
pub mod serve;
pub mod store;
pub mod token;
