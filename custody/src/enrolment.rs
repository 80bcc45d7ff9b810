//! What a resolver without an SVID signs to enrol, and the control plane puts together anew: one call of STS.

use crate::malformed::{Problem, bounded, checked_text};

const AUDIENCE: &str = "audience";

checked_text! {
    /// A control plane's own name, which resolvers that enrol sign: 1 to 128 letters, digits and `.:/_-`.
    Audience, |text| {
        bounded(text, AUDIENCE, 128)?;
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b".:/_-".contains(&b);
        if text.bytes().all(allowed) { Ok(()) } else { Err(Problem::Character("letters, digits and '.:/_-'").of(AUDIENCE)) }
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
}
