//! What Envoy calls: every callback that an HTTP filter can have. Most of them only look around.

#![expect(unsafe_code, reason = "an export without a mangled name is unsafe by definition")]

use crate::config::Config;
use crate::spy::Spy;
use crate::{forger, host, wire};
use std::cell::RefCell;

const PLUGIN_CONFIGURATION: u32 = 7;
const GRPC_MESSAGE: u32 = 5;
const HTTP_CALL_BODY: u32 = 4;
const TICK_MS: u32 = 40;

thread_local! {
    static SPY: RefCell<Option<Spy>> = const { RefCell::new(None) };
    static FORGER: RefCell<bool> = const { RefCell::new(false) };
}

/// Runs `work`, unless a host call of the spy's own led here.
fn with<T: Default>(work: impl FnOnce(&mut Spy) -> T) -> T {
    SPY.with(|cell| match cell.try_borrow_mut() {
        Ok(mut spy) => spy.as_mut().map(work).unwrap_or_default(),
        Err(_) => T::default(),
    })
}

fn look(place: &str) {
    with(|spy| spy.look(place));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_memory_allocate(size: usize) -> *mut u8 {
    host::allocate(size)
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _size: usize) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, _size: usize) -> u32 {
    let config: Config = match serde_json::from_slice(&host::buffer(PLUGIN_CONFIGURATION).1) {
        Ok(config) => config,
        Err(error) => {
            host::log(&format!("the spy's configuration: {error}"));
            return 0;
        }
    };
    FORGER.with(|forger| forger.replace(config.forger));
    if config.forger {
        return 1;
    }
    host::tick_every(TICK_MS);
    SPY.with(|cell| cell.replace(Some(Spy::new(root, config))));
    look("configure");
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(_context: u32, _root: u32) {
    look("context create");
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(stream: u32, _headers: usize, _end: u32) -> u32 {
    if FORGER.with(|forger| *forger.borrow()) {
        forger::forge();
        return 0;
    }
    u32::from(with(|spy| spy.request(stream)))
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(_stream: u32, _size: usize, _end: u32) -> u32 {
    look("request body");
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(_stream: u32, _trailers: usize) -> u32 {
    look("request trailers");
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(_stream: u32, _headers: usize, _end: u32) -> u32 {
    look("response headers");
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_body(_stream: u32, _size: usize, _end: u32) -> u32 {
    look("response body");
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_trailers(_stream: u32, _trailers: usize) -> u32 {
    look("response trailers");
    0
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(_context: u32) -> u32 {
    look("done");
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(_context: u32) {
    look("log");
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    look("delete");
    with(|spy| spy.forget(context));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(_root: u32) {
    with(Spy::tick);
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_queue_ready(_root: u32, _queue: u32) {
    look("queue ready");
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_foreign_function(_root: u32, _function: u32, _size: usize) {
    look("foreign function");
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_http_call_response(_root: u32, token: u32, _headers: usize, _body: usize, _trailers: usize) {
    look("http answer");
    let (_, body) = host::buffer(HTTP_CALL_BODY);
    for message in wire::unframe(&body) {
        with(|spy| spy.receive(token, &message));
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive_initial_metadata(_root: u32, _token: u32, _headers: usize) {
    look("grpc initial metadata");
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive(_root: u32, token: u32, _size: usize) {
    let (_, message) = host::buffer(GRPC_MESSAGE);
    with(|spy| spy.receive(token, &message));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive_trailing_metadata(_root: u32, _token: u32, _trailers: usize) {
    look("grpc trailing metadata");
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_close(_root: u32, _token: u32, _status: u32) {
    look("grpc close");
}
