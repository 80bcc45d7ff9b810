//! The Policy Bridge: policy down to bouncers, audit up, over gRPC with SVIDs on both sides.
//!
//! A bouncer is known by the SPIFFE ID of its connection's certificate and by nothing that it says. It is sent what is
//! its own, whole, at every change; nothing it sends is acknowledged before it is stored.

pub mod health;
mod ingest;
mod live;
mod service;
mod session;
mod snapshot;
pub mod transport;

pub use live::{Lag, Live, SessionView};
pub use service::{Bridge, Peer, Timing};
