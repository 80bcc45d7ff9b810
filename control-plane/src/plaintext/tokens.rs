//! Tokens with a known shape: a prefix, an alphabet, a length.

use super::Kind;
use super::named::is_user_and_password;
use super::shapes::{Alphabet, INNER, Inner, SHAPES, Shape};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// So much base64 around a shape, capitals in it, is taken for noise and for no path. Less than what the shortest
/// ciphertext of Vault (28 bytes more than its plaintext) leaves around a shape that it happens to hold.
const SURROUNDINGS: usize = 16;
/// A shape that is less rare than this, in bits, may well turn up in noise. An AWS access key id has 37.
const NEVER_IN_NOISE: f64 = 36.0;

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
    // Where the characters of base64 begin that stand before, without a break.
    let mut run = 0;
    for (at, byte) in bytes.iter().enumerate() {
        if at == 0 || !bytes[at - 1].is_ascii_alphanumeric() {
            let (before, rest) = (&bytes[run..at], &bytes[at..]);
            let fits = |shape: &&Shape| {
                // Most of them differ in that already.
                shape.prefix.as_bytes()[0] == *byte
                    && shape.length_at(rest).is_some_and(|length| {
                        let (token, after) = rest.split_at(length);
                        shape.stands_out() || !is_noise(before, token, after)
                    })
            };
            if let Some(shape) = SHAPES.iter().find(fits) {
                return Some(shape.kind);
            }
        }
        if !Alphabet::Base64.has(*byte) {
            run = at + 1;
        }
    }
    None
}

/// Whether `token`, with all the base64 that stands before it and what follows, looks like a piece of a ciphertext.
fn is_noise(before: &[u8], token: &[u8], after: &[u8]) -> bool {
    let (after, end) = after.split_at(count(after, Alphabet::Base64));
    let padding = end.iter().take_while(|byte| **byte == b'=').count();
    let around = before.len() + after.len();
    let padded = padding > 0 && (around + token.len() + padding).is_multiple_of(4);
    let surrounded = around >= SURROUNDINGS;
    padded || surrounded && [before, after].concat().iter().any(u8::is_ascii_uppercase)
}

fn count(bytes: &[u8], alphabet: Alphabet) -> usize {
    bytes.iter().take_while(|byte| alphabet.has(**byte)).count()
}

impl Shape {
    /// How long the token is that `text` begins with, if it begins with one.
    fn length_at(&self, text: &[u8]) -> Option<usize> {
        let length = count(text.strip_prefix(self.prefix.as_bytes())?, self.alphabet);
        (self.length.0..=self.length.1).contains(&length).then_some(self.prefix.len() + length)
    }

    /// Whether base64 of noise is not going to hold one, in as many places as a ciphertext has.
    fn stands_out(&self) -> bool {
        let fits = self.prefix.bytes().all(|byte| Alphabet::Base64.has(byte));
        !fits || self.prefix.len() as f64 * 6.0 + self.length.0 as f64 * self.alphabet.rarity() >= NEVER_IN_NOISE
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
