//! The trace that a stream belongs to, as the native `header_mutation` filter in front of ours writes it into a header:
//! `<trace id> <span id> <the request's own traceparent> <x-request-id>`, nothing or `-` where Envoy has none.
//!
//! It is read only where a stream makes the filter ask, goes along with the question as a `traceparent` (W3C Trace
//! Context), and has no part in the decision or in its key. Whatever is not exactly of this form is no trace.

use bouncer_custody::TraceParent;

/// The header that carries it.
pub const HEADER: &str = "x-bouncer-trace";

/// More bytes than this are no trace: four fields of the form have 32 + 16 + 55 + 36, and spaces between.
const MAX_BYTES: usize = 192;

/// The `traceparent` of Envoy's own span, or of the request's where Envoy makes none. `None` for no trace, and for one
/// that nobody samples.
#[must_use]
pub fn parent(header: &[u8]) -> Option<String> {
    if header.len() > MAX_BYTES {
        return None;
    }
    let mut fields = std::str::from_utf8(header).ok()?.split(' ');
    let (trace, span, own, request) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    if fields.next().is_some() {
        return None;
    }
    let own = TraceParent::parse(own);
    let sampled = match own {
        Some(own) => own.is_sampled(),
        // The trace begins in this Envoy, which notes in the request's id whether it samples it: 9 by chance, a because
        // it was made to, b because the client asked. It has no formatter that says so.
        None => matches!(request.as_bytes().get(14), Some(b'9' | b'a' | b'b')),
    };
    let parent = if TraceParent::is_trace_id(trace) || TraceParent::is_span_id(span) {
        TraceParent::of(trace, span, sampled)?
    } else {
        own?
    };
    sampled.then(|| parent.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";
    const SAMPLED: &str = "459070f2-c6fc-9477-b4a7-1929173daa6b";

    #[test]
    fn the_parent_is_envoys_span_or_else_the_requests() {
        let own = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(
            parent(format!("{TRACE} 00000000000000aa {own} -").as_bytes()),
            Some(format!("00-{TRACE}-00000000000000aa-01"))
        );
        assert_eq!(parent(format!("  {own} ").as_bytes()), Some(own.clone()));
        // Some of Envoy's, and not all: it is no span.
        assert_eq!(parent(format!("{TRACE}  {own} ").as_bytes()), None);
    }

    #[test]
    fn only_what_is_sampled_is_traced() {
        assert_eq!(parent(format!("  00-{TRACE}-{SPAN}-00 {SAMPLED}").as_bytes()), None);
        assert_eq!(parent(format!("{TRACE} {SPAN}  2d138db7-c768-4c01-867c-510fda20e37a").as_bytes()), None);
        assert!(parent(format!("{TRACE} {SPAN}  {SAMPLED}").as_bytes()).is_some());
        assert!(parent(format!("{TRACE} {SPAN}  ").as_bytes()).is_none());
    }

    #[test]
    fn other_forms_are_no_trace() {
        let zero = "0".repeat(32);
        for bad in [
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-+1"),
            format!("01-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{zero}-{SPAN}-01"),
            format!("00-{TRACE}-0000000000000000-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{SPAN}-01 x"),
            "x".repeat(MAX_BYTES),
        ] {
            assert_eq!(parent(format!("  {bad} {SAMPLED}").as_bytes()), None, "{bad}");
        }
        assert_eq!(parent(b""), None);
        assert_eq!(parent(b"\xff   "), None);
    }
}
