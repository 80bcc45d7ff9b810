//! The facts of one stream, as the native `header_mutation` filter in front of ours writes them into one header:
//! `<cluster> <local port> <protocol> <caller's URI SANs> <authority>`, nothing or `-` where Envoy knows none (its header
//! formatter writes nothing, its access log `-`).
//!
//! The filter parses them once per cold stream; a warm one is recognised by the header's bytes alone, so two headers
//! that differ in any byte never share a decision. Whatever is not exactly of this form must never become a question to
//! the resolver.

use bouncer_proto::intercept::v1::DecideRequest;

/// The header that carries the facts.
pub const HEADER: &str = "x-bouncer-facts";

/// More bytes than this are refused.
pub const MAX_BYTES: usize = 4_096;

/// What Envoy knows of a stream. Absent facts are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts<'a> {
    /// The cluster that the route chose. Never empty.
    pub cluster: &'a str,
    /// The local port of the downstream connection. Never empty.
    pub listener: &'a str,
    /// Such as `HTTP/1.1`. Never empty.
    pub protocol: &'a str,
    /// The URI SANs of the verified client certificate, as Envoy joins them.
    pub caller: &'a str,
    /// `:authority`, which the client chose.
    pub authority: &'a str,
}

/// The header is missing or not of the agreed form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the facts header is not of the agreed form")]
pub struct NotFacts;

impl<'a> Facts<'a> {
    /// Reads the header's value.
    ///
    /// # Errors
    /// Anything but five fields with one space between each, of which the first three are there, within the bounds of
    /// `DecideRequest`. Envoy's own four spaces are always there, so a value that smuggles in another has too many.
    pub fn parse(header: &'a [u8]) -> Result<Self, NotFacts> {
        if header.len() > MAX_BYTES {
            return Err(NotFacts);
        }
        let text = std::str::from_utf8(header).map_err(|_| NotFacts)?;
        let mut fields = text.split(' ');
        let mut next = || fields.next().map(present).ok_or(NotFacts);
        let (cluster, listener, protocol, caller, authority) = (next()?, next()?, next()?, next()?, next()?);
        if fields.next().is_some() || [cluster, listener, protocol].contains(&"") {
            return Err(NotFacts);
        }
        if cluster.len() > 255 || authority.len() > 255 {
            return Err(NotFacts);
        }
        Ok(Self { cluster, listener, protocol, caller, authority })
    }

    /// The question to the resolver.
    #[must_use]
    pub fn to_request(&self) -> DecideRequest {
        DecideRequest {
            cluster: self.cluster.to_owned(),
            authority: self.authority.to_owned(),
            caller: self.caller.to_owned(),
            listener: self.listener.to_owned(),
            protocol: self.protocol.to_owned(),
        }
    }
}

/// One spelling of what Envoy does not know.
fn present(field: &str) -> &str {
    if field == "-" { "" } else { field }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn five_fields_become_a_question() {
        let facts = Facts::parse(b"payments 8443 HTTP/2 spiffe://a/b,spiffe://a/c shop.example:443").unwrap();
        let request = facts.to_request();
        assert_eq!(request.cluster, "payments");
        assert_eq!(request.listener, "8443");
        assert_eq!(request.protocol, "HTTP/2");
        assert_eq!(request.caller, "spiffe://a/b,spiffe://a/c");
        assert_eq!(request.authority, "shop.example:443");
    }

    #[test]
    fn caller_and_authority_may_be_absent_and_nothing_else() {
        for good in ["c 1 HTTP/1.1 - -", "c 1 HTTP/1.1  ", "c 1 HTTP/1.1 - "] {
            let facts = Facts::parse(good.as_bytes()).unwrap();
            assert_eq!((facts.protocol, facts.caller, facts.authority), ("HTTP/1.1", "", ""), "{good}");
        }
        assert_eq!(Facts::parse(b"c 1 HTTP/1.1  a").unwrap().authority, "a");
        for bad in ["- 1 p - a", " 1 p - a", "c - p - a", "c  p - a", "c 1 - - a", "c 1  - a"] {
            assert_eq!(Facts::parse(bad.as_bytes()), Err(NotFacts), "{bad}");
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let long = "a".repeat(256);
        let huge = format!("c 1 p {} a", "x".repeat(MAX_BYTES));
        let long = [format!("{long} 1 p - a"), format!("c 1 p - {long}"), huge];
        let bad = ["", " ", "    ", "c", "c 1 p -", "c 1 p - a b", "c 1 p - a ", " c 1 p - a", "c  1 p - a"];
        for bad in bad.iter().copied().chain(long.iter().map(String::as_str)) {
            assert_eq!(Facts::parse(bad.as_bytes()), Err(NotFacts), "{bad}");
        }
        assert_eq!(Facts::parse(b"c 1 p - \xff"), Err(NotFacts));
    }

    proptest! {
        /// What is accepted can be put together again from its fields: nothing is lost or moved between them.
        #[test]
        fn accepted_facts_round_trip(
            bytes in proptest::collection::vec(prop_oneof![3 => Just(b' '), 1 => Just(b'-'), 4 => any::<u8>()], 0..16),
        ) {
            if let Ok(facts) = Facts::parse(&bytes) {
                let fields = [facts.cluster, facts.listener, facts.protocol, facts.caller, facts.authority];
                let text = std::str::from_utf8(&bytes).unwrap();
                prop_assert!(text.split(' ').map(present).eq(fields));
            }
        }
    }
}
