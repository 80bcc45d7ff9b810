//! A stream's trace, as it travels: W3C Trace Context's `traceparent`.

use std::fmt;

/// Version 00 of a `traceparent`: `00-<32 hex>-<16 hex>-<2 hex>` in lower case, no id all zero. Any other text is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent<'a> {
    trace: &'a str,
    span: &'a str,
    sampled: bool,
}

impl<'a> TraceParent<'a> {
    /// Reads one.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut fields = text.split('-');
        let (version, trace, span, flags) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
        let flags = if flags.len() == 2 && is_hex(flags) { u8::from_str_radix(flags, 16).ok()? } else { return None };
        let whole = version == "00" && fields.next().is_none();
        // The other flags say nothing.
        Self::of(trace, span, flags & 1 == 1).filter(|_| whole)
    }

    /// Of ids that are known apart. `None` if one of them is none.
    #[must_use]
    pub fn of(trace: &'a str, span: &'a str, sampled: bool) -> Option<Self> {
        (Self::is_trace_id(trace) && Self::is_span_id(span)).then_some(Self { trace, span, sampled })
    }

    /// Whether this is a trace's id: 32 lower-case hex digits, not all zero.
    #[must_use]
    pub fn is_trace_id(text: &str) -> bool {
        is_id(text, 32)
    }

    /// Whether this is a span's id: 16 lower-case hex digits, not all zero.
    #[must_use]
    pub fn is_span_id(text: &str) -> bool {
        is_id(text, 16)
    }

    /// The trace's id, in hex.
    #[must_use]
    pub const fn trace_id(&self) -> &'a str {
        self.trace
    }

    /// The span's id, in hex.
    #[must_use]
    pub const fn span_id(&self) -> &'a str {
        self.span
    }

    /// Whether the trace is recorded.
    #[must_use]
    pub const fn is_sampled(&self) -> bool {
        self.sampled
    }
}

impl fmt::Display for TraceParent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02}", self.trace, self.span, u8::from(self.sampled))
    }
}

fn is_id(text: &str, digits: usize) -> bool {
    text.len() == digits && is_hex(text) && text.bytes().any(|digit| digit != b'0')
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let parent = TraceParent::parse(GOOD).unwrap();
        assert_eq!((parent.trace_id(), parent.span_id()), ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"));
        assert!(parent.is_sampled());
        assert_eq!(parent.to_string(), GOOD);
        let other = GOOD.replace("-01", "-fe");
        assert!(!TraceParent::parse(&other).unwrap().is_sampled());
        assert!(TraceParent::parse(&GOOD.replace("-01", "-03")).unwrap().is_sampled(), "other flags say nothing");
    }

    #[test]
    fn other_forms_are_none() {
        for bad in [
            &GOOD[..54],
            &format!("{GOOD}-"),
            &format!("{GOOD}0"),
            &GOOD.replacen("00", "01", 1),
            &GOOD.replace("-01", "-+1"),
            &GOOD.replace("-01", "-1"),
            &GOOD.replace("0af7", "0AF7"),
            &GOOD.replace("b7ad6b7169203331", "0000000000000000"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            "",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
