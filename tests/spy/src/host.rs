//! Every host call of the proxy-wasm ABI, and those of WASI that could tell something. What the capability list leaves
//! out gives a status, as everything here does.

#![expect(unsafe_code, reason = "the ABI is made of C functions that take and give raw pointers")]

use crate::wire;
use std::ptr;

/// What a host call gave: its status, and bytes where it has some.
pub(crate) type Got = (u32, Vec<u8>);

#[link(wasm_import_module = "env")]
unsafe extern "C" {
    fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
    fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
    fn proxy_get_buffer_bytes(buffer: u32, start: usize, size: usize, data: *mut *mut u8, length: *mut usize) -> u32;
    fn proxy_get_header_map_pairs(map: u32, data: *mut *mut u8, length: *mut usize) -> u32;
    fn proxy_get_header_map_value(m: u32, key: *const u8, size: usize, data: *mut *mut u8, length: *mut usize) -> u32;
    fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, size: usize) -> u32;
    fn proxy_get_property(path: *const u8, path_size: usize, data: *mut *mut u8, length: *mut usize) -> u32;
    fn proxy_set_effective_context(context: u32) -> u32;
    fn proxy_continue_stream(stream: u32) -> u32;
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
    fn proxy_grpc_call(
        service: *const u8,
        service_size: usize,
        name: *const u8,
        name_size: usize,
        method: *const u8,
        method_size: usize,
        metadata: *const u8,
        metadata_size: usize,
        message: *const u8,
        message_size: usize,
        timeout_ms: u32,
        token: *mut u32,
    ) -> u32;
    fn proxy_grpc_stream(
        service: *const u8,
        service_size: usize,
        name: *const u8,
        name_size: usize,
        method: *const u8,
        method_size: usize,
        metadata: *const u8,
        metadata_size: usize,
        token: *mut u32,
    ) -> u32;
    fn proxy_grpc_send(token: u32, message: *const u8, size: usize, end: u32) -> u32;
    fn proxy_get_shared_data(k: *const u8, size: usize, data: *mut *mut u8, length: *mut usize, cas: *mut u32) -> u32;
    fn proxy_resolve_shared_queue(vm: *const u8, vm_size: usize, name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_dequeue_shared_queue(id: u32, data: *mut *mut u8, length: *mut usize) -> u32;
    fn proxy_call_foreign_function(
        name: *const u8,
        name_size: usize,
        argument: *const u8,
        argument_size: usize,
        data: *mut *mut u8,
        length: *mut usize,
    ) -> u32;
    fn proxy_get_status(code: *mut u32, data: *mut *mut u8, length: *mut usize) -> u32;
    fn proxy_define_metric(kind: u32, name: *const u8, size: usize, id: *mut u32) -> u32;
    fn proxy_get_metric(id: u32, value: *mut u64) -> u32;
}

#[link(wasm_import_module = "wasi_snapshot_preview1")]
unsafe extern "C" {
    fn environ_sizes_get(count: *mut usize, size: *mut usize) -> u32;
    fn environ_get(pointers: *mut *mut u8, bytes: *mut u8) -> u32;
    fn args_sizes_get(count: *mut usize, size: *mut usize) -> u32;
    fn args_get(pointers: *mut *mut u8, bytes: *mut u8) -> u32;
}

/// Memory for bytes that Envoy is about to hand over.
pub(crate) fn allocate(size: usize) -> *mut u8 {
    let mut bytes = Vec::<u8>::with_capacity(size);
    let start = bytes.as_mut_ptr();
    std::mem::forget(bytes);
    start
}

/// Runs a call that hands bytes over.
fn taking(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Got {
    let mut start = ptr::null_mut();
    let mut length = 0;
    let status = call(&raw mut start, &raw mut length);
    if start.is_null() {
        return (status, Vec::new());
    }
    // SAFETY: `allocate` made it with at least this capacity, and Envoy wrote as many bytes.
    (status, unsafe { Vec::from_raw_parts(start, length, length) })
}

/// A line in Envoy's log.
pub(crate) fn log(text: &str) {
    const CRITICAL: u32 = 5;
    // SAFETY: the pointer is valid for the call.
    unsafe { proxy_log(CRITICAL, text.as_ptr(), text.len()) };
}

/// Asks for ticks.
pub(crate) fn tick_every(period_ms: u32) -> u32 {
    // SAFETY: takes no pointer.
    unsafe { proxy_set_tick_period_milliseconds(period_ms) }
}

/// One of Envoy's buffers.
pub(crate) fn buffer(buffer: u32) -> Got {
    // SAFETY: the pointers are valid for the call.
    taking(|data, length| unsafe { proxy_get_buffer_bytes(buffer, 0, 1 << 20, data, length) })
}

/// A whole header map.
pub(crate) fn headers(map: u32) -> Got {
    // SAFETY: the pointers are valid for the call.
    taking(|data, length| unsafe { proxy_get_header_map_pairs(map, data, length) })
}

/// One header.
pub(crate) fn header(map: u32, key: &str) -> Got {
    // SAFETY: the pointers are valid for the call.
    taking(|data, length| unsafe { proxy_get_header_map_value(map, key.as_ptr(), key.len(), data, length) })
}

/// Writes a property.
pub(crate) fn set_property(path: &str, value: &str) -> u32 {
    // SAFETY: the pointers are valid for the call.
    unsafe { proxy_set_property(path.as_ptr(), path.len(), value.as_ptr(), value.len()) }
}

/// Reads a property; the path's steps are separated by zeros.
pub(crate) fn property(path: &str) -> Got {
    // SAFETY: the pointers are valid for the call.
    taking(|data, length| unsafe { proxy_get_property(path.as_ptr(), path.len(), data, length) })
}

/// Makes the following calls be about another context.
pub(crate) fn enter(context: u32) -> u32 {
    // SAFETY: takes no pointer.
    unsafe { proxy_set_effective_context(context) }
}

/// Lets a paused request on.
pub(crate) fn resume() -> u32 {
    // SAFETY: takes no pointer.
    unsafe { proxy_continue_stream(0) }
}

/// Answers a request.
pub(crate) fn respond(status: u32, body: &str) -> u32 {
    let none = wire::pairs(&[]);
    // SAFETY: the pointers are valid for the call.
    unsafe {
        proxy_send_local_response(status, ptr::null(), 0, body.as_ptr(), body.len(), none.as_ptr(), none.len(), -1)
    }
}

/// An HTTP call to a cluster; gives the status and the call's token.
pub(crate) fn http_call(cluster: &str, headers: &[(&str, &str)], body: &[u8]) -> (u32, u32) {
    let (headers, none) = (wire::pairs(headers), wire::pairs(&[]));
    let mut token = 0;
    // SAFETY: the pointers are valid for the call.
    let status = unsafe {
        proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            none.as_ptr(),
            none.len(),
            2_000,
            &raw mut token,
        )
    };
    (status, token)
}

/// A gRPC call by a serialized `GrpcService`; gives the status and the call's token.
pub(crate) fn grpc_call(
    to: &[u8],
    service: &str,
    method: &str,
    metadata: &[(&str, &str)],
    message: &[u8],
) -> (u32, u32) {
    let metadata = wire::pairs(metadata);
    let mut token = 0;
    // SAFETY: the pointers are valid for the call.
    let status = unsafe {
        proxy_grpc_call(
            to.as_ptr(),
            to.len(),
            service.as_ptr(),
            service.len(),
            method.as_ptr(),
            method.len(),
            metadata.as_ptr(),
            metadata.len(),
            message.as_ptr(),
            message.len(),
            2_000,
            &raw mut token,
        )
    };
    (status, token)
}

/// A gRPC stream that stays open, with a first message.
pub(crate) fn grpc_stream(
    to: &[u8],
    service: &str,
    method: &str,
    metadata: &[(&str, &str)],
    message: &[u8],
) -> (u32, u32) {
    let metadata = wire::pairs(metadata);
    let mut token = 0;
    // SAFETY: the pointers are valid for the call.
    let mut status = unsafe {
        proxy_grpc_stream(
            to.as_ptr(),
            to.len(),
            service.as_ptr(),
            service.len(),
            method.as_ptr(),
            method.len(),
            metadata.as_ptr(),
            metadata.len(),
            &raw mut token,
        )
    };
    if status == 0 {
        // SAFETY: the pointer is valid for the call.
        status = unsafe { proxy_grpc_send(token, message.as_ptr(), message.len(), 0) };
    }
    (status, token)
}

/// Data that VMs share.
pub(crate) fn shared_data(key: &str) -> Got {
    let mut cas = 0;
    // SAFETY: the pointers are valid for the call.
    taking(|data, length| unsafe { proxy_get_shared_data(key.as_ptr(), key.len(), data, length, &raw mut cas) })
}

/// The first message of a queue that VMs share.
pub(crate) fn shared_queue(vm: &str, name: &str) -> Got {
    let mut id = 0;
    // SAFETY: the pointers are valid for the call.
    let found = unsafe { proxy_resolve_shared_queue(vm.as_ptr(), vm.len(), name.as_ptr(), name.len(), &raw mut id) };
    if found != 0 {
        return (found, Vec::new());
    }
    // SAFETY: the pointers are valid for the call.
    taking(|data, length| unsafe { proxy_dequeue_shared_queue(id, data, length) })
}

/// A function of Envoy's that is no part of the ABI.
pub(crate) fn foreign(name: &str, argument: &[u8]) -> Got {
    // SAFETY: the pointers are valid for the call.
    taking(|data, length| unsafe {
        proxy_call_foreign_function(name.as_ptr(), name.len(), argument.as_ptr(), argument.len(), data, length)
    })
}

/// The status of the last gRPC call, with its message.
pub(crate) fn status() -> Got {
    let mut code = 0;
    // SAFETY: the pointers are valid for the call.
    taking(|data, length| unsafe { proxy_get_status(&raw mut code, data, length) })
}

/// A counter, defined anew.
pub(crate) fn metric(name: &str) -> Got {
    let (mut id, mut value) = (0, 0);
    // SAFETY: the pointers are valid for the calls.
    let status = unsafe {
        match proxy_define_metric(0, name.as_ptr(), name.len(), &raw mut id) {
            0 => proxy_get_metric(id, &raw mut value),
            refused => refused,
        }
    };
    (status, value.to_string().into_bytes())
}

type Sizes = unsafe extern "C" fn(*mut usize, *mut usize) -> u32;
type Texts = unsafe extern "C" fn(*mut *mut u8, *mut u8) -> u32;

fn wasi(sizes: Sizes, texts: Texts) -> Got {
    let (mut count, mut size) = (0, 0);
    // SAFETY: the pointers are valid for the call.
    let status = unsafe { sizes(&raw mut count, &raw mut size) };
    if status != 0 || count > 1 << 16 || size > 1 << 20 {
        return (status, Vec::new());
    }
    let mut pointers = vec![ptr::null_mut(); count];
    let mut bytes = vec![0; size];
    // SAFETY: both have the sizes that were just told.
    let status = unsafe { texts(pointers.as_mut_ptr(), bytes.as_mut_ptr()) };
    (status, bytes)
}

/// The environment, as WASI gives it.
pub(crate) fn environment() -> Got {
    wasi(environ_sizes_get, environ_get)
}

/// The arguments, as WASI gives them.
pub(crate) fn arguments() -> Got {
    wasi(args_sizes_get, args_get)
}
