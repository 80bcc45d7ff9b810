//! What Envoy calls: the exports of the proxy-wasm ABI 0.2.1, of which only those listed in `capabilities.yaml` are
//! ever called. Each is event, filter, answer; nothing is decided here.
//!
//! They are exported by hand and not by the proxy-wasm SDK. Each call into the VM costs a request about a microsecond,
//! and the SDK needs two more than this: one to build a boxed context, and one to end it. It also looks
//! the context up in maps, copies every header to the heap, and panics on a status or a context that it does not
//! expect, so that one request could kill a worker's VM.

#![expect(unsafe_code, reason = "an export without a mangled name is unsafe by definition")]

use crate::clock::TICK_MS;
use crate::config::Config;
use crate::denial::Denial;
use crate::filter::{Action, Filter};
use crate::host::envoy::{self, Envoy};
use crate::host::landing::{self, Received};
use crate::host::{Host as _, PluginId, StreamId, Token};
use bouncer_custody::Reason;
use std::cell::RefCell;

thread_local! {
    static FILTER: RefCell<Option<Filter>> = const { RefCell::new(None) };
}

/// Runs `work` on the filter; `None` if there is none. (Envoy calls back only when a call of the filter has returned,
/// but for [`proxy_on_memory_allocate`], and for [`proxy_on_delete`] of a stream that [`cut_off`] resets. So it is never
/// at work already.)
fn with_filter<T>(work: impl FnOnce(&mut Filter) -> T) -> Option<T> {
    FILTER.with(|cell| cell.try_borrow_mut().ok()?.as_mut().map(work))
}

/// Cuts off what the filter has condemned, with the filter at rest: Envoy tells of the end from within each reset.
fn cut_off(host: &mut Envoy) {
    while let Some(stream) = with_filter(Filter::next_condemned).flatten() {
        // One that Envoy does not know any more has ended.
        let _ = host.reset(stream);
    }
}

/// Tells Envoy which ABI this is.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory for what Envoy is about to hand over.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    landing::allocate(size)
}

/// A plugin is configured. 0 refuses it, and Envoy refuses the listener.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_configure(plugin: PluginId, size: usize) -> u32 {
    let configured = envoy::buffer(envoy::PLUGIN_CONFIGURATION, size)
        .map_or_else(|_| Config::parse(b""), |json| Config::parse(json.bytes()))
        .and_then(|config| {
            FILTER.with(|cell| match cell.try_borrow_mut().as_deref_mut() {
                Ok(Some(filter)) => filter.join(plugin, config),
                Ok(slot) => {
                    *slot = Some(Filter::new(plugin, config, envoy::wall_ns()));
                    Ok(())
                }
                // Envoy never configures from within a callback.
                Err(_) => Ok(()),
            })
        });
    if let Err(faults) = &configured {
        envoy::log_error(&faults.to_string());
    }
    u32::from(configured.is_ok() && envoy::tick_every(TICK_MS).is_ok())
}

/// The headers of a request came. 0 lets it on, 1 stops it.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_request_headers(stream: StreamId, _headers: usize, _end: u32) -> u32 {
    let mut host = Envoy::during(stream);
    let facts = envoy::facts_header();
    let facts = facts.as_ref().ok().map(Received::bytes);
    let action = with_filter(|filter| filter.on_request_headers(&mut host, stream, facts)).unwrap_or_else(|| {
        // Without a filter nothing is let on. If the host refuses the answer too, the stream stays stopped.
        let _ = host.deny(stream, &Denial::of(Reason::Internal));
        Action::Pause
    });
    u32::from(action == Action::Pause)
}

/// A call to the resolver was answered, or failed (then there are no headers).
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_http_call_response(
    plugin: PluginId,
    token: Token,
    headers: usize,
    size: usize,
    _trailers: usize,
) {
    const UNAVAILABLE: u32 = 14;
    let status = if headers == 0 { UNAVAILABLE } else { envoy::answer_status() };
    // Without its bytes an answer has no message, which denies.
    let body = if size == 0 { None } else { envoy::buffer(envoy::ANSWER_BODY, size).ok() };
    let body = body.as_ref().map_or(&[][..], Received::bytes);
    let mut host = Envoy::during(plugin);
    with_filter(|filter| filter.on_answer(&mut host, token, body, status));
    cut_off(&mut host);
}

/// Time passed.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_tick(plugin: PluginId) {
    let mut host = Envoy::during(plugin);
    with_filter(|filter| filter.on_tick(&mut host, plugin));
    cut_off(&mut host);
}

/// A stream has ended. (Or a plugin, whose number is none of a stream.)
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(stream: StreamId) {
    with_filter(|filter| filter.on_end(stream));
}
