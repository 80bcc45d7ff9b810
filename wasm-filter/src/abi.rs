//! What Envoy calls: the exports of the proxy-wasm ABI 0.2.1, of which only those listed in `capabilities.yaml` are
//! ever called. Each is event, filter, answer; nothing is decided here.
//!
//! They are exported by hand and not by the proxy-wasm SDK. The SDK's dispatcher needs a call into the VM per stream to
//! build a boxed context, looks it up in maps for every callback, copies every header it reads to the heap, and panics
//! on a status or a context that it does not expect: one request could kill a worker's VM.

#![expect(unsafe_code, reason = "an export without a mangled name is unsafe by definition")]

use crate::clock::TICK_MS;
use crate::config::Config;
use crate::denial::Denial;
use crate::filter::{Action, Filter};
use crate::host::envoy::{self, Envoy};
use crate::host::{Host as _, PluginId, StreamId, Token};
use bouncer_custody::Reason;
use std::cell::RefCell;

thread_local! {
    static FILTER: RefCell<Option<Filter>> = const { RefCell::new(None) };
    /// Contexts that Envoy deleted while the filter was at work.
    static DELETED: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// Runs `work` on the filter; `None` if there is none, or if it is at work already.
fn with_filter<T>(work: impl FnOnce(&mut Filter) -> T) -> Option<T> {
    FILTER.with(|cell| {
        let mut slot = cell.try_borrow_mut().ok()?;
        let result = work(slot.as_mut()?);
        DELETED.with(|deleted| {
            let mut ids = deleted.try_borrow_mut().map(|mut ids| std::mem::take(&mut *ids)).unwrap_or_default();
            if ids.drain(..).any(|id| !slot.as_mut().is_some_and(|filter| filter.on_delete(id))) {
                *slot = None;
            }
        });
        Some(result)
    })
}

/// Tells Envoy which ABI this is.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_abi_version_0_2_1() {}

/// Memory for what Envoy is about to hand over.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    envoy::allocate(size)
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
    let facts = facts.as_ref().ok().map(envoy::Received::bytes);
    let action = with_filter(|filter| filter.on_request_headers(&mut host, stream, facts)).unwrap_or_else(|| {
        // Without a filter nothing is let on. If the host refuses the answer too, the stream stays stopped.
        let _ = host.deny(stream, &Denial::of(Reason::Internal));
        Action::Pause
    });
    u32::from(action == Action::Pause)
}

/// A gRPC message came.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_grpc_receive(plugin: PluginId, token: Token, size: usize) {
    // Without its bytes a message is the empty one, which denies.
    let message = envoy::buffer(envoy::GRPC_MESSAGE, size);
    let message = message.as_ref().map_or(&[][..], envoy::Received::bytes);
    with_filter(|filter| filter.on_grpc_receive(&mut Envoy::during(plugin), token, message));
}

/// A gRPC call or stream ended.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_grpc_close(plugin: PluginId, token: Token, status: u32) {
    with_filter(|filter| filter.on_grpc_close(&mut Envoy::during(plugin), token, status));
}

/// Time passed.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_tick(plugin: PluginId) {
    with_filter(|filter| filter.on_tick(&mut Envoy::during(plugin), plugin, envoy::wall_ns()));
}

/// A stream or a plugin is gone.
#[unsafe(no_mangle)]
pub extern "C" fn proxy_on_delete(context: u32) {
    let left = FILTER.with(|cell| {
        let mut slot = cell.try_borrow_mut().ok()?;
        let left = slot.as_mut().is_none_or(|filter| filter.on_delete(context));
        if !left {
            *slot = None;
        }
        Some(())
    });
    if left.is_none() {
        // The filter is at work, and this came of it: it is told when it is done.
        DELETED.with(|deleted| {
            if let Ok(mut ids) = deleted.try_borrow_mut() {
                ids.push(context);
            }
        });
    }
}
