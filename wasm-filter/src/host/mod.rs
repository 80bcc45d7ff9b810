//! What the filter needs of Envoy, by role. [`Filter`](crate::filter::Filter) speaks only to this trait; the one real
//! implementation is `envoy`, which exists on wasm alone, and the tests bring their own.
//!
//! A host may refuse anything at any time. Nothing here panics, and no value from the host is trusted to be UTF-8.

#[cfg(target_arch = "wasm32")]
pub mod envoy;
pub mod landing;
pub mod wire;

use crate::denial::Denial;

/// Envoy's number for a stream (a proxy-wasm context id). Not used twice at a time.
pub type StreamId = u32;

/// Envoy's number for a plugin (a root context id).
pub type PluginId = u32;

/// Envoy's number for a call to the resolver.
pub type Token = u32;

/// The host did not do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("Envoy refused a call of the filter with status {0}")]
pub struct Refused(pub u32);

/// A method of `bouncer.intercept.v1.Intercept`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// `Decide`.
    Decide,
    /// `ReportUses`.
    ReportUses,
    /// `Watch`.
    Watch,
}

impl Method {
    /// Its path on the wire.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Self::Decide => "/bouncer.intercept.v1.Intercept/Decide",
            Self::ReportUses => "/bouncer.intercept.v1.Intercept/ReportUses",
            Self::Watch => "/bouncer.intercept.v1.Intercept/Watch",
        }
    }
}

/// Envoy.
pub trait Host {
    /// Sets the property that the native tag filter behind reads, and the one that the access log shows: the id of the
    /// decision, where there was one.
    ///
    /// # Errors
    /// The stream must not go on.
    fn set_tag(&mut self, stream: StreamId, tag: &str, decision: Option<&str>) -> Result<(), Refused>;

    /// Lets a paused stream on.
    ///
    /// # Errors
    /// It stays paused.
    fn resume(&mut self, stream: StreamId) -> Result<(), Refused>;

    /// Answers a stream here.
    ///
    /// # Errors
    /// It was not answered.
    fn deny(&mut self, stream: StreamId, denial: &Denial) -> Result<(), Refused>;

    /// Cuts a stream off, without an answer. The host says that it has ended before this returns.
    ///
    /// # Errors
    /// It was not cut off.
    fn reset(&mut self, stream: StreamId) -> Result<(), Refused>;

    /// The wall clock, in milliseconds since 1970; 0 if the host won't say.
    fn wall_ms(&mut self) -> u64;

    /// The `traceparent` of the stream whose headers have just come, if it is traced. To be asked for in that callback
    /// only.
    fn trace(&mut self) -> Option<String>;

    /// Calls the resolver behind this cluster, within the trace of this `traceparent`. The answer comes with the token,
    /// or never.
    ///
    /// # Errors
    /// There was no call.
    fn call(
        &mut self,
        method: Method,
        cluster: &str,
        message: &[u8],
        timeout_ms: u32,
        traceparent: Option<&str>,
    ) -> Result<Token, Refused>;
}
