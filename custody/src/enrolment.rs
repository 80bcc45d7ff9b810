//! What a resolver without an SVID signs to enrol, and the control plane puts together anew: one call of STS.

use crate::key::is_region;
use crate::malformed::{Malformed, Problem, bounded, checked_text};

const AUDIENCE: &str = "audience";
const STS_HOST: &str = "STS host";

checked_text! {
    /// A control plane's own name, which resolvers that enrol sign: 1 to 128 letters, digits and `.:/_-`.
    Audience, |text| {
        bounded(text, AUDIENCE, 128)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".:/_-".contains(&b);
        if text.bytes().all(allowed) { Ok(()) } else { Err(Problem::Character("letters, digits and '.:/_-'").of(AUDIENCE)) }
    }
}

checked_text! {
    /// A server of STS, `host` or `host:port`: a lower-case name or an IPv4 address, and nothing else that a URL could hold.
    /// The port of HTTPS is left out, so that a server has one name.
    StsHost, |text| {
        let (host, port) = text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port)));
        bounded(host, STS_HOST, 253)?;
        if host.split('.').all(is_label) && port.is_none_or(is_other_port) {
            Ok(())
        } else {
            Err(Problem::Form("a lower-case name or an IPv4 address, with a port where that is not 443").of(STS_HOST))
        }
    }
}

fn is_label(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(allowed) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_other_port(text: &str) -> bool {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    digits && text.parse::<u16>().is_ok_and(|port| port != 443)
}

impl StsHost {
    /// Of `https://HOST` or `https://HOST:PORT`, as it is configured.
    ///
    /// # Errors
    /// If it is another URL, or none.
    pub fn of_url(url: &str) -> Result<Self, Malformed> {
        let form = Problem::Form("an https URL of nothing but a host, such as https://sts.internal:8443");
        let text = url.strip_prefix("https://").ok_or(form.of(STS_HOST))?;
        let text = text.strip_suffix('/').unwrap_or(text);
        text.strip_suffix(":443").unwrap_or(text).parse()
    }

    /// AWS's own in a region: `sts.REGION.amazonaws.com`.
    ///
    /// # Errors
    /// If that is no region.
    pub fn of_region(region: &str) -> Result<Self, Malformed> {
        if !is_region(region) {
            return Err(Problem::Form("of a region, such as ca-central-1").of(STS_HOST));
        }
        format!("sts.{region}.amazonaws.com").parse()
    }
}

/// STS's `GetCallerIdentity`, as both sides write it. The signature is over these very bytes.
pub struct GetCallerIdentity;

impl GetCallerIdentity {
    /// The one body.
    pub const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
    /// Its type.
    pub const CONTENT_TYPE: &str = "application/x-www-form-urlencoded";
    /// The header that binds the call to one control plane.
    pub const AUDIENCE_HEADER: &str = "x-bouncer-audience";
    /// The header that binds it to one key: SHA-256 of its SubjectPublicKeyInfo, lower-case hex.
    pub const KEY_HEADER: &str = "x-bouncer-key";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audience_keeps_its_form() {
        for good in ["here", "control-plane.example.org", "https://cp:8444/a_b", &"x".repeat(128)] {
            assert!(good.parse::<Audience>().is_ok(), "{good}");
        }
        for bad in ["", "two words", "a,b", "ä", "a\n", &"x".repeat(129)] {
            assert!(bad.parse::<Audience>().is_err(), "{bad}");
        }
    }

    #[test]
    fn an_sts_host_is_nothing_but_a_host() {
        for good in ["sts.ca-central-1.amazonaws.com", "sts.internal:8443", "127.0.0.1:1", "localhost", &"a".repeat(63)]
        {
            assert_eq!(good.parse::<StsHost>().map(String::from), Ok(good.to_owned()));
            assert_eq!(StsHost::of_url(&format!("https://{good}")), good.parse(), "{good}");
            assert_eq!(StsHost::of_url(&format!("https://{good}/")), good.parse(), "{good}");
        }
        let long = format!("{}a", "a.".repeat(127));
        for bad in [
            "",
            ".",
            "a..b",
            "-a",
            "a-",
            "a.",
            "STS.internal",
            "user@sts.internal",
            "sts.internal/x",
            "sts.internal?x",
            "sts.internal#x",
            "sts.internal\\x",
            "sts.internal:",
            "sts.internal:0",
            "sts.internal:0443",
            "sts.internal:+1",
            "sts.internal:99999",
            "sts.internal:1:2",
            "[::1]",
            "sts%2einternal",
            " sts.internal",
            "sts.internal\r\nx: y",
            "ѕts.internal",
            &"a".repeat(64),
            &long,
        ] {
            assert!(bad.parse::<StsHost>().is_err(), "{bad:?}");
            assert!(StsHost::of_url(&format!("https://{bad}")).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_sts_has_one_name_whatever_its_url() {
        for url in
            ["https://sts.internal", "https://sts.internal/", "https://sts.internal:443", "https://sts.internal:443/"]
        {
            assert_eq!(StsHost::of_url(url), "sts.internal".parse(), "{url}");
        }
        assert!("sts.internal:443".parse::<StsHost>().is_err(), "on the wire it is not left to be seen");
        for bad in [
            "sts.internal",
            "http://sts.internal",
            "https://sts.internal//",
            "https://sts.internal:443:443",
            "https://",
        ] {
            assert!(StsHost::of_url(bad).is_err(), "{bad}");
        }
        assert_eq!(StsHost::of_region("ca-central-1"), "sts.ca-central-1.amazonaws.com".parse());
        for bad in ["canada", "ca-central-1.example.org/x", ""] {
            assert!(StsHost::of_region(bad).is_err(), "{bad}");
        }
    }
}
