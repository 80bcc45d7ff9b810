//! Where a credential may go.

use crate::malformed::{Malformed, Problem, bounded};
use std::fmt;
use std::str::FromStr;

const WHAT: &str = "upstream";
const FORM: &str = "host:port with a lower-case DNS name or an IP address (IPv6 in brackets), port 1 to 65535";

/// A destination, `host:port`: a lower-case DNS name or an IP address, and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Upstream {
    host: Box<str>,
    port: u16,
}

fn dns_name_ok(host: &str) -> bool {
    !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| {
            !label.is_empty()
                && label.len() <= 63
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

fn host_ok(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => dns_name_ok(host),
    }
}

impl Upstream {
    /// The host, IPv6 in brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for Upstream {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        bounded(text, WHAT, 260)?;
        let (host, port) = text.rsplit_once(':').ok_or(Problem::Form(FORM).of(WHAT))?;
        let canonical = !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) && !port.starts_with('0');
        match port.parse::<u16>() {
            Ok(port) if canonical && host_ok(host) => Ok(Self { host: host.into(), port }),
            _ => Err(Problem::Form(FORM).of(WHAT)),
        }
    }
}

impl TryFrom<String> for Upstream {
    type Error = Malformed;
    fn try_from(text: String) -> Result<Self, Malformed> {
        text.parse()
    }
}

impl From<Upstream> for String {
    fn from(upstream: Upstream) -> Self {
        upstream.to_string()
    }
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// One destination, or with a leading `*.` all hosts below a suffix of whole labels (any port, or the port given).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UpstreamPattern {
    /// `host:port`.
    Exact(Upstream),
    /// `*.suffix` or `*.suffix:port`.
    Below {
        /// The suffix, without `*.`.
        suffix: Box<str>,
        /// Any port, if absent.
        port: Option<u16>,
    },
}

impl UpstreamPattern {
    /// Whether `upstream` is the one named, or lies below the suffix. An IP address lies below none.
    #[must_use]
    pub fn matches(&self, upstream: &Upstream) -> bool {
        match self {
            Self::Exact(exact) => exact == upstream,
            Self::Below { suffix, port } => {
                port.is_none_or(|port| port == upstream.port)
                    && upstream.host.strip_suffix(&**suffix).is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
            }
        }
    }
}

impl FromStr for UpstreamPattern {
    type Err = Malformed;
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let Some(suffix) = text.strip_prefix("*.") else {
            return text.parse().map(Self::Exact);
        };
        let (suffix, port) = match suffix.rsplit_once(':') {
            Some((suffix, _)) => (suffix, Some(format!("x.{}", &text[2..]).parse::<Upstream>()?.port)),
            None => (suffix, None),
        };
        // One label, or one that is all digits at the end (an address's tail), would bind next to nothing.
        let last_is_number = suffix.rsplit('.').next().is_some_and(|label| label.bytes().all(|b| b.is_ascii_digit()));
        if !dns_name_ok(suffix) || !suffix.contains('.') || last_is_number {
            return Err(Problem::Form("host:port, or '*.' and a suffix of at least two DNS labels").of(WHAT));
        }
        Ok(Self::Below { suffix: suffix.into(), port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_have_one_spelling() {
        for good in ["payments.internal:8443", "10.0.0.1:443", "[::1]:443", "localhost:1"] {
            assert_eq!(good.parse::<Upstream>().unwrap().to_string(), good);
        }
        for bad in [
            "",
            "host",
            "host:",
            "host:0",
            "host:080",
            "host:65536",
            "HOST:1",
            "a..b:1",
            ":1",
            "-a:1",
            "a b:1",
            "::1:443",
            "user@host:1",
            "host:+1",
        ] {
            assert!(bad.parse::<Upstream>().is_err(), "{bad}");
        }
    }

    #[test]
    fn suffixes_end_at_whole_labels() {
        let pattern: UpstreamPattern = "*.example.com".parse().unwrap();
        let matches = |p: &UpstreamPattern, u: &str| p.matches(&u.parse().unwrap());
        assert!(matches(&pattern, "api.example.com:443"));
        assert!(!matches(&pattern, "example.com:443"));
        assert!(!matches(&pattern, "evilexample.com:443"));
        assert!(!matches(&pattern, "api.example.com.evil.net:443"));
        let with_port: UpstreamPattern = "*.example.com:443".parse().unwrap();
        assert!(!matches(&with_port, "api.example.com:444"));
        for bad in ["*.com", "*", "*.", "*.0.1", "a.*.com:1", "*.example.com:"] {
            assert!(bad.parse::<UpstreamPattern>().is_err(), "{bad}");
        }
    }
}
