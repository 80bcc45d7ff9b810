//! The Policy Bridge: policy down to bouncers, audit up, over gRPC with SVIDs on both sides.
//!
//! A bouncer is known by the SPIFFE ID of its connection's certificate, or by an IAM role that STS vouches for on that very
//! connection ([`enrol`]), and by nothing that it says. It is sent what is its own, whole at first and then what differs;
//! nothing it sends is acknowledged before it is stored.

mod editions;
pub mod enrol;
pub mod health;
mod ingest;
mod live;
mod refusals;
mod service;
mod session;
mod share;
mod snapshot;
pub mod transport;

pub use editions::Editions;
pub use live::{Lag, Live, SessionView, Told};
pub use service::{Bridge, Peer, Timing};
pub use share::Replica;
