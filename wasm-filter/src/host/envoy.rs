//! Envoy itself: the imports of the proxy-wasm ABI 0.2.1 that the filter uses, and no others. What is imported here is
//! what `capabilities.yaml` allows.
//!
//! Every call is checked by its status; none panics.

#![expect(unsafe_code, reason = "the ABI is made of C functions that take and give raw pointers")]

use super::landing::Received;
use super::{Host, Method, Refused, StreamId, Token, wire};
use crate::denial::{DECISION_HEADER, Denial, REASON_HEADER};
use crate::{facts, trace};
use std::ptr;

const TAG: &str = "bouncer.tag";
/// For the access log only: joins its line with the audit.
const DECISION: &str = "bouncer.decision";
const NO_HEADERS: &[u8] = &[0; 4];

const REQUEST_HEADERS: u32 = 0;
const REQUEST_STREAM: u32 = 0;
/// Envoy's buffer of the plugin's configuration.
pub const PLUGIN_CONFIGURATION: u32 = 7;
/// Envoy's buffer of the body of the answer that just came.
pub const ANSWER_BODY: u32 = 4;
const ANSWER_HEADERS: u32 = 6;
const ANSWER_TRAILERS: u32 = 7;

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
    fn proxy_get_current_time_nanoseconds(time: *mut u64) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, size: usize, data: *mut *mut u8, length: *mut usize) -> u32;
    fn proxy_get_header_map_value(
        map: u32,
        key: *const u8,
        key_size: usize,
        data: *mut *mut u8,
        length: *mut usize,
    ) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
    fn proxy_close_stream(stream: u32) -> u32;
    fn proxy_send_local_response(
        status: u32,
        details: *const u8,
        details_size: usize,
        body: *const u8,
        body_size: usize,
        headers: *const u8,
        headers_size: usize,
        grpc_status: i32,
    ) -> u32;
    fn proxy_http_call(
        cluster: *const u8,
        cluster_size: usize,
        headers: *const u8,
        headers_size: usize,
        body: *const u8,
        body_size: usize,
        trailers: *const u8,
        trailers_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
}

const fn checked(status: u32) -> Result<(), Refused> {
    if status == 0 { Ok(()) } else { Err(Refused(status)) }
}

/// Runs a call that hands bytes over.
fn receive(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Received, Refused> {
    let mut start = ptr::null_mut();
    let mut length = 0;
    let status = call(&raw mut start, &raw mut length);
    // SAFETY: Envoy asked `allocate` for the memory, for just as many bytes, and keeps no pointer to it.
    // First claimed, then checked: what was handed over is freed in any case.
    let received = unsafe { Received::claim(start, length) };
    checked(status).map(|()| received)
}

fn header(map: u32, key: &str) -> Result<Received, Refused> {
    receive(|data, length| {
        // SAFETY: the pointers are valid for the call.
        unsafe { proxy_get_header_map_value(map, key.as_ptr(), key.len(), data, length) }
    })
}

/// The facts header of the stream whose headers have just come.
///
/// # Errors
/// There is none, or Envoy won't say.
pub fn facts_header() -> Result<Received, Refused> {
    header(REQUEST_HEADERS, facts::HEADER)
}

/// The gRPC status of the answer that just came: from its trailers, or from its headers where it has nothing else.
/// UNAVAILABLE for whatever is no answer of a gRPC server.
#[must_use]
pub fn answer_status() -> u32 {
    const UNAVAILABLE: u32 = 14;
    let number = |map| {
        let value = header(map, "grpc-status").ok()?;
        std::str::from_utf8(value.bytes()).ok()?.parse().ok()
    };
    number(ANSWER_TRAILERS).or_else(|| number(ANSWER_HEADERS)).unwrap_or(UNAVAILABLE)
}

/// One of Envoy's buffers, whole.
///
/// # Errors
/// It is not there now.
pub fn buffer(buffer: u32, size: usize) -> Result<Received, Refused> {
    receive(|data, length| {
        // SAFETY: the pointers are valid for the call.
        unsafe { proxy_get_buffer_bytes(buffer, 0, size, data, length) }
    })
}

/// The wall clock, in nanoseconds since 1970; 0 if Envoy won't say.
#[must_use]
pub fn wall_ns() -> u64 {
    let mut time = 0;
    // SAFETY: the pointer is valid for the call.
    unsafe { proxy_get_current_time_nanoseconds(&raw mut time) };
    time
}

/// Asks for ticks in the plugin whose callback this is.
///
/// # Errors
/// There will be none.
pub fn tick_every(period_ms: u32) -> Result<(), Refused> {
    // SAFETY: takes no pointer.
    checked(unsafe { proxy_set_tick_period_milliseconds(period_ms) })
}

/// Envoy's log.
pub fn log_error(text: &str) {
    const ERROR: u32 = 4;
    // SAFETY: the pointer is valid for the call. A log line that can't be written is no reason to fail.
    unsafe { proxy_log(ERROR, text.as_ptr(), text.len()) };
}

/// Envoy during one of its callbacks.
pub struct Envoy {
    /// The context that the callback is about.
    home: u32,
    /// The one that calls are about now.
    context: u32,
}

impl Envoy {
    /// `context` is the one that the callback is about.
    #[must_use]
    pub const fn during(context: u32) -> Self {
        Self { home: context, context }
    }

    /// Makes the following calls be about this stream.
    fn enter(&mut self, stream: StreamId) -> Result<(), Refused> {
        if self.context == stream {
            return Ok(());
        }
        // SAFETY: takes no pointer.
        checked(unsafe { proxy_set_effective_context(stream) })?;
        self.context = stream;
        Ok(())
    }
}

/// Sets a property of the stream that calls are about now.
fn set_property(name: &str, value: &str) -> Result<(), Refused> {
    // SAFETY: the pointers are valid for the call.
    checked(unsafe { proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

impl Host for Envoy {
    fn set_tag(&mut self, stream: StreamId, tag: &str, decision: Option<&str>) -> Result<(), Refused> {
        self.enter(stream)?;
        set_property(TAG, tag)?;
        // Also without one, so that no line shows what an earlier filter made up. A log line decides over no stream.
        let _unlogged = set_property(DECISION, decision.unwrap_or("-"));
        Ok(())
    }

    fn resume(&mut self, stream: StreamId) -> Result<(), Refused> {
        self.enter(stream)?;
        // SAFETY: takes no pointer.
        checked(unsafe { proxy_continue_stream(REQUEST_STREAM) })
    }

    fn deny(&mut self, stream: StreamId, denial: &Denial) -> Result<(), Refused> {
        self.enter(stream)?;
        let reason = denial.reason.code();
        let body = denial.body();
        let headers = match &denial.decision {
            Some(id) => wire::pairs(&[(REASON_HEADER, reason), (DECISION_HEADER, id)]),
            None => wire::pairs(&[(REASON_HEADER, reason)]),
        };
        let _unlogged = set_property(DECISION, denial.decision.as_deref().unwrap_or("-"));
        let status = u32::from(denial.reason.http_status());
        // SAFETY: the pointers are valid for the call. -1 lets Envoy derive a gRPC status from the HTTP one.
        checked(unsafe {
            proxy_send_local_response(
                status,
                reason.as_ptr(),
                reason.len(),
                body.as_ptr(),
                body.len(),
                headers.as_ptr(),
                headers.len(),
                -1,
            )
        })
    }

    fn reset(&mut self, stream: StreamId) -> Result<(), Refused> {
        self.enter(stream)?;
        // SAFETY: takes no pointer. Alone: with a local response before it Envoy would crash.
        checked(unsafe { proxy_close_stream(REQUEST_STREAM) })
    }

    fn wall_ms(&mut self) -> u64 {
        wall_ns() / 1_000_000
    }

    fn trace(&mut self) -> Option<String> {
        trace::parent(header(REQUEST_HEADERS, trace::HEADER).ok()?.bytes())
    }

    fn call(
        &mut self,
        method: Method,
        cluster: &str,
        message: &[u8],
        timeout_ms: u32,
        traceparent: Option<&str>,
    ) -> Result<Token, Refused> {
        // Envoy's own gRPC calls would take any server's address, and credentials that Envoy reads from its environment
        // and files: with them a sandbox could send out the SDS key. A plain call takes the name of a cluster only.
        let mut headers = vec![
            (":method", "POST"),
            (":path", method.path()),
            (":authority", "bouncer-resolver"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ];
        headers.extend(traceparent.map(|parent| ("traceparent", parent)));
        let headers = wire::pairs(&headers);
        let body = wire::frame(message);
        // A call lives as long as the plugin that made it: not that of another stream.
        self.enter(self.home)?;
        let mut token = 0;
        // SAFETY: the pointers are valid for the call.
        checked(unsafe {
            proxy_http_call(
                cluster.as_ptr(),
                cluster.len(),
                headers.as_ptr(),
                headers.len(),
                body.as_ptr(),
                body.len(),
                NO_HEADERS.as_ptr(),
                NO_HEADERS.len(),
                timeout_ms,
                &raw mut token,
            )
        })?;
        Ok(token)
    }
}
