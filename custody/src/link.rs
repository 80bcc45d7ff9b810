//! The links between a resolver and the control plane, each of which can break by itself. Both sides, `bouncerctl probe`
//! and the console name a broken one in these words.

use std::fmt;

macro_rules! links {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $what:literal, $advice:literal;)*) => {
        /// A link of the Policy Bridge. The code is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Link {
            $($(#[$doc])* $name,)*
        }

        impl Link {
            /// Every link, in the order in which a connection needs them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable code, such as `dns`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// What is wrong when this link is broken.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $(Self::$name => $what,)* }
            }

            /// What to do then.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice,)* }
            }
        }
    };
}

links! {
    /// Nothing more is known than that there is no connection.
    Offline = "offline", "There is no connection, and from here it can't be told why",
        "Run 'bouncerctl probe --socket' on the resolver's node: it tells which link is broken.";
    /// The address has no record.
    Dns = "dns", "The control plane's name can't be resolved",
        "Correct bridge.address in resolver.toml, or the DNS of the resolver's node.";
    /// No TCP connection.
    Tcp = "tcp", "The control plane's address does not take the connection",
        "Check that the control plane runs and listens there, and that firewalls and network policies let the resolver through.";
    /// No TLS, or not for HTTP/2.
    Tls = "tls", "What answers there does not speak the Policy Bridge's TLS",
        "Check that the address and port are those of [bridge] in control-plane.toml, and that no proxy between ends TLS.";
    /// An identity is missing, has ended, is not trusted, or is another than expected.
    Svid = "svid", "A workload identity is missing, has ended, is not trusted, or is not the expected one",
        "Check the SPIFFE agents of both sides, bridge.server_id in resolver.toml (bridge.iam and the AWS credentials, for an IAM role), the trust bundles, and both clocks.";
    /// The control plane does not know this SPIFFE ID or IAM role, or knows it under another name.
    Authorization = "authorization", "The control plane does not let this identity speak for this bouncer",
        "Register the resolver's SPIFFE ID or IAM role for this name with 'bouncerctl bouncers add', or correct 'bouncer' in resolver.toml.";
    /// Connected and refused, or ended.
    Service = "service", "The control plane takes the connection, and does not serve it",
        "Look at the control plane's /readyz and log: it may be starting, stopping, or without its database.";
    /// What the resolver holds is not what the control plane holds, by its digest.
    Divergence = "divergence", "The resolver's policy is not the control plane's",
        "A whole snapshot is asked for and puts it right; if it comes back, something between them or on a disk changes content.";
    /// The policy in use is behind.
    Lag = "lag", "The resolver's policy is behind the control plane's",
        "Wait a moment; if it lasts, look at the resolver's log for what it refuses.";
    /// The clocks differ.
    Clock = "clock", "The clocks of resolver and control plane differ by more than 5 s",
        "Set both by NTP; tokens and certificates fail when clocks differ.";
}

impl Link {
    /// Clocks that differ by more make tokens and certificates fail. Milliseconds.
    pub const SKEW_LIMIT_MS: i64 = 5_000;

    /// How far a clock is off that is ahead of another by so many milliseconds: `ahead by 6000 ms`, or `behind by 6000 ms`.
    #[must_use]
    pub fn skew(ahead_ms: i64) -> String {
        let way = if ahead_ms < 0 { "behind" } else { "ahead" };
        format!("{way} by {} ms", ahead_ms.unsigned_abs())
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_or_behind() {
        assert_eq!(Link::skew(6_000), "ahead by 6000 ms");
        assert_eq!(Link::skew(-6_000), "behind by 6000 ms");
        assert_eq!(Link::skew(i64::MIN), "behind by 9223372036854775808 ms");
    }

    #[test]
    fn each_link_has_words_of_its_own() {
        for link in Link::ALL {
            assert!(link.code().chars().all(|c| c.is_ascii_lowercase()), "{link}");
            assert!(!link.what().ends_with('.') && link.advice().ends_with('.'), "{link}");
            assert_eq!(Link::ALL.iter().filter(|other| other.code() == link.code()).count(), 1, "{link}");
        }
    }
}
