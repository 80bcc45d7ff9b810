//! Tokens with a known shape: a prefix, an alphabet, a length.

use super::Kind;
use super::named::is_user_and_password;
use super::shapes::{Alphabet, INNER, Inner, SHAPES, Shape};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// More characters of base64 than this are no path: what stands behind a `/` in them begins no word. Less than the 72
/// with which a KMS blob begins before the first bytes that are always the same.
const LONG_RUN: usize = 64;

/// Looks for every known shape.
pub(super) fn find(text: &str) -> Option<Kind> {
    shaped(text)
        .or_else(|| INNER.iter().any(|inner| inner.occurs_in(text)).then_some(Kind::ServiceToken))
        .or_else(|| json_web_token(text))
        .or_else(|| authorization(text))
        .or_else(|| url_password(text))
}

/// Looks for the shapes that begin with their mark, where a word begins.
fn shaped(text: &str) -> Option<Kind> {
    let bytes = text.as_bytes();
    // How many characters of base64 stand before, without a break.
    let mut run = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if at == 0 || !bytes[at - 1].is_ascii_alphanumeric() {
            let fits =
                |shape: &&Shape| shape.prefix.as_bytes()[0] == *byte && shape.begins(&bytes[at..], run > LONG_RUN);
            if let Some(shape) = SHAPES.iter().find(fits) {
                return Some(shape.kind);
            }
        }
        run = if Alphabet::Base64.has(*byte) { run + 1 } else { 0 };
    }
    None
}

fn count(bytes: &[u8], alphabet: Alphabet) -> usize {
    bytes.iter().take_while(|byte| alphabet.has(**byte)).count()
}

impl Shape {
    fn begins(&self, text: &[u8], in_noise: bool) -> bool {
        let Some(rest) = text.strip_prefix(self.prefix.as_bytes()) else { return false };
        let length = count(rest, self.alphabet);
        length >= self.length.0 && length <= self.length.1 && !(in_noise && self.occurs_in_noise())
    }

    /// Whether base64 of noise can hold one: mere capitals or hex digits of some length it does not.
    fn occurs_in_noise(&self) -> bool {
        let wide = matches!(self.alphabet, Alphabet::Alnum | Alphabet::Word | Alphabet::Base64);
        wide && self.prefix.bytes().all(|byte| Alphabet::Base64.has(byte))
    }
}

impl Inner {
    fn occurs_in(&self, text: &str) -> bool {
        text.match_indices(self.mark).any(|(at, mark)| {
            let (alphabet, least) = self.before;
            let before = text[..at].bytes().rev().take_while(|byte| alphabet.has(*byte)).count();
            before >= least && count(&text.as_bytes()[at + mark.len()..], self.after.0) >= self.after.1
        })
    }
}

/// What follows each occurrence of `prefix` that does not continue a word.
fn starts<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).filter_map(move |(at, _)| {
        let continues = text[..at].bytes().next_back().is_some_and(|byte| byte.is_ascii_alphanumeric());
        (!continues).then(|| &text[at + prefix.len()..])
    })
}

/// Three or more parts of base64url of which the first is a JOSE header (RFC 7519, RFC 7516).
fn json_web_token(text: &str) -> Option<Kind> {
    let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    text.match_indices("eyJ").find_map(|(at, _)| {
        let length = text[at..].bytes().take_while(|byte| part(*byte)).count();
        let mut parts = text[at..at + length].split('.');
        let header = URL_SAFE_NO_PAD.decode(parts.next()?).ok()?;
        let more = parts.take(2).count();
        let jose = serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&header)
            .is_ok_and(|header| header.contains_key("alg"));
        (jose && more == 2).then_some(Kind::JsonWebToken)
    })
}

/// `Bearer` with what may be a token behind it (RFC 6750), or `Basic` with a user and a password (RFC 7617). Words after
/// either are no credentials.
fn authorization(text: &str) -> Option<Kind> {
    // ASCII only changes case, so that places in both are the same.
    let lower = text.to_ascii_lowercase();
    let value = |scheme: &'static str| {
        starts(&lower, scheme).filter_map(|rest| {
            let at = lower.len() - rest.len();
            let spaces = rest.bytes().take_while(|byte| matches!(byte, b' ' | b'\t' | b'+')).count();
            let token = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
            let length = rest.bytes().skip(spaces).take_while(token).count();
            (spaces > 0).then(|| &text[at + spaces..at + spaces + length])
        })
    };
    let bearer = value("bearer").any(|value| value.len() >= 16 && value.bytes().any(|byte| byte.is_ascii_digit()));
    let basic = value("basic").any(is_user_and_password);
    (bearer || basic).then_some(Kind::Authorization)
}

/// `scheme://user:password@host`.
fn url_password(text: &str) -> Option<Kind> {
    let found = text.match_indices("://").any(|(at, _)| {
        let authority = text[at + 3..].split(['/', '?', '#', ' ', '\n']).next().unwrap_or_default();
        let userinfo = authority.rsplit_once('@').map(|(userinfo, _)| userinfo);
        userinfo.and_then(|userinfo| userinfo.split_once(':')).is_some_and(|(_, password)| !password.is_empty())
    });
    found.then_some(Kind::UrlPassword)
}
