//! The whole filter against a host and a resolver that the tests play.

mod capabilities;
mod envoy;
mod promises;
mod properties;
mod warm;
mod world;
