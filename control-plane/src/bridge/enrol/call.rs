//! What a resolver sends to enrol: the parts of a signed `GetCallerIdentity` that only it knows, read once and strictly.
//!
//! Method, path, body, the set of signed headers, the audience and the key's digest are not among them. They are written
//! here ([`SignedCall::headers`]), so that another action, a further header or one that is not signed can't be asked for.

use bouncer_custody::{Audience, GetCallerIdentity, StsHost, is_region};
use bouncer_proto::bridge::v1::EnrollRequest;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// How far the time of the signature may be from ours.
const SLACK: SignedDuration = SignedDuration::from_mins(5);
/// Longest session token, in bytes. AWS says that there is no maximum; those of today have up to 2,000.
const TOKEN_LIMIT: usize = 8 * 1024;

/// What can't be used, in fixed words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum CallFault {
    /// A part has not its form.
    #[error("the enrolment's {0} is not of its form")]
    Form(&'static str),
    /// Another server.
    #[error("the enrolment names an STS that this control plane does not ask; see bridge.iam.sts_endpoints")]
    Host,
    /// Too old, or from the future.
    #[error("the enrolment's signature is not of the last five minutes; check the clocks on both sides")]
    Stale,
}

/// A signed call, ready to be put together. It holds a session token and has no `Debug`.
pub(super) struct SignedCall {
    host: StsHost,
    region: String,
    amz_date: String,
    access_key_id: String,
    signature: String,
    token: Option<String>,
}

impl SignedCall {
    /// Reads what was sent. Without `hosts`, AWS's own of the signature's region are allowed.
    pub(super) fn read(request: EnrollRequest, hosts: &[StsHost], now: Timestamp) -> Result<Self, CallFault> {
        let EnrollRequest { host, region, amz_date, access_key_id, signature, security_token } = request;
        if !is_region(&region) {
            return Err(CallFault::Form("region"));
        }
        let host: StsHost = host.parse().map_err(|_| CallFault::Form("host"))?;
        if !(hosts.contains(&host) || (hosts.is_empty() && StsHost::of_region(&region).as_ref() == Ok(&host))) {
            return Err(CallFault::Host);
        }
        let key_byte = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
        if !(16..=128).contains(&access_key_id.len()) || !access_key_id.bytes().all(key_byte) {
            return Err(CallFault::Form("access_key_id"));
        }
        if signature.len() != 64 || !signature.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(CallFault::Form("signature"));
        }
        let token_byte = |b: u8| b.is_ascii_alphanumeric() || b"+/=_-".contains(&b);
        if security_token.len() > TOKEN_LIMIT || !security_token.bytes().all(token_byte) {
            return Err(CallFault::Form("security_token"));
        }
        let signed = time(&amz_date).ok_or(CallFault::Form("amz_date"))?;
        if now.duration_since(signed).abs() > SLACK {
            return Err(CallFault::Stale);
        }
        let token = Some(security_token).filter(|token| !token.is_empty());
        Ok(Self { host, region, amz_date, access_key_id, signature, token })
    }

    /// Where it goes.
    pub(super) fn url(&self) -> String {
        format!("https://{}/", self.host.as_str())
    }

    /// Every header but host, which the client makes of the URL. The signature is over all of them and host; over any
    /// others it is none.
    pub(super) fn headers(&self, audience: &Audience, key: &str) -> Option<HeaderMap> {
        let mut signed = vec![
            ("content-type", GetCallerIdentity::CONTENT_TYPE),
            ("host", self.host.as_str()),
            ("x-amz-date", &self.amz_date),
            (GetCallerIdentity::AUDIENCE_HEADER, audience.as_str()),
            (GetCallerIdentity::KEY_HEADER, key),
        ];
        if let Some(token) = &self.token {
            signed.insert(3, ("x-amz-security-token", token));
        }
        let names: Vec<_> = signed.iter().map(|(name, _)| *name).collect();
        let authorization = format!(
            "AWS4-HMAC-SHA256 Credential={}/{}/{}/sts/aws4_request, SignedHeaders={}, Signature={}",
            self.access_key_id,
            &self.amz_date[..8],
            self.region,
            names.join(";"),
            self.signature
        );
        let mut headers = HeaderMap::new();
        for (name, value) in signed.into_iter().filter(|(name, _)| *name != "host") {
            let mut value = HeaderValue::from_str(value).ok()?;
            value.set_sensitive(name == "x-amz-security-token");
            headers.insert(HeaderName::from_static(name), value);
        }
        let mut authorization = HeaderValue::from_str(&authorization).ok()?;
        authorization.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, authorization);
        Some(headers)
    }
}

/// `20150830T123600Z`.
fn time(text: &str) -> Option<Timestamp> {
    let digits = |at: std::ops::Range<usize>| text.get(at).is_some_and(|part| part.bytes().all(|b| b.is_ascii_digit()));
    let shaped =
        text.len() == 16 && digits(0..8) && text.get(8..9) == Some("T") && digits(9..15) && text.ends_with('Z');
    if !shaped {
        return None;
    }
    let civil = DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    TimeZone::UTC.to_timestamp(civil).ok()
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
