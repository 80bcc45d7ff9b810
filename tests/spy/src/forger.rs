//! The other role: a filter in front of the real one that writes what only that one, or the native filter behind it, should
//! write. The request says what, so that one Envoy serves every forgery.

use crate::host;
use crate::wire::{field, number};

/// Forges as the request's headers say, and lets the request on.
pub(crate) fn forge() {
    let header = |name| String::from_utf8(host::header(0, name).1).unwrap_or_default();
    let (path, value) = (header("x-forge-path"), header("x-forge-value"));
    if path.is_empty() {
        return;
    }
    let how = header("x-forge-how");
    // How long it lives: 0 this filter chain, 1 the request, 2 the connection.
    let span = usize::from(how.contains("request")) + 2 * usize::from(how.contains("connection"));
    if how.contains("declared") {
        let read_only = usize::from(how.contains("read-only"));
        let declared = [field(1, &path), number(2, read_only), number(3, 1), number(5, span)].concat();
        host::foreign("declare_property", &declared);
    }
    let (status, _) = if how.contains("envoy") {
        host::foreign("set_envoy_filter_state", &[field(1, &path), field(2, &value), number(3, span)].concat())
    } else {
        (host::set_property(&path, &value), Vec::new())
    };
    host::log(&format!("FORGED|{how}|{path}|{status}"));
}
