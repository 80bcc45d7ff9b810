//! Tokens with a known shape: a prefix, an alphabet, a length.

use super::Kind;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

/// What may follow a prefix.
#[derive(Clone, Copy)]
enum Alphabet {
    /// `A-Z0-9`
    Upper,
    /// `A-Za-z0-9`
    Alphanumeric,
    /// `A-Za-z0-9_-`
    Word,
}

impl Alphabet {
    fn has(self, byte: u8) -> bool {
        match self {
            Self::Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Self::Alphanumeric => byte.is_ascii_alphanumeric(),
            Self::Word => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
        }
    }
}

struct Shape {
    prefix: &'static str,
    alphabet: Alphabet,
    /// How many characters follow at least, and at most.
    length: (usize, usize),
    kind: Kind,
}

const fn shape(prefix: &'static str, alphabet: Alphabet, least: usize, most: usize, kind: Kind) -> Shape {
    Shape { prefix, alphabet, length: (least, most), kind }
}

const ANY: usize = usize::MAX;

const SHAPES: &[Shape] = &[
    shape("AKIA", Alphabet::Upper, 16, 16, Kind::AwsKey),
    shape("ASIA", Alphabet::Upper, 16, 16, Kind::AwsKey),
    shape("hvs.", Alphabet::Word, 20, ANY, Kind::VaultToken),
    shape("hvb.", Alphabet::Word, 20, ANY, Kind::VaultToken),
    shape("hvr.", Alphabet::Word, 20, ANY, Kind::VaultToken),
    shape("s.", Alphabet::Alphanumeric, 24, 24, Kind::VaultToken),
    shape("b.AAAA", Alphabet::Word, 40, ANY, Kind::VaultToken),
    shape("ghp_", Alphabet::Alphanumeric, 20, ANY, Kind::ServiceToken),
    shape("gho_", Alphabet::Alphanumeric, 20, ANY, Kind::ServiceToken),
    shape("ghu_", Alphabet::Alphanumeric, 20, ANY, Kind::ServiceToken),
    shape("ghs_", Alphabet::Alphanumeric, 20, ANY, Kind::ServiceToken),
    shape("ghr_", Alphabet::Alphanumeric, 20, ANY, Kind::ServiceToken),
    shape("github_pat_", Alphabet::Word, 20, ANY, Kind::ServiceToken),
    shape("glpat-", Alphabet::Word, 16, ANY, Kind::ServiceToken),
    shape("xoxa-", Alphabet::Word, 10, ANY, Kind::ServiceToken),
    shape("xoxb-", Alphabet::Word, 10, ANY, Kind::ServiceToken),
    shape("xoxc-", Alphabet::Word, 10, ANY, Kind::ServiceToken),
    shape("xoxe-", Alphabet::Word, 10, ANY, Kind::ServiceToken),
    shape("xoxo-", Alphabet::Word, 10, ANY, Kind::ServiceToken),
    shape("xoxp-", Alphabet::Word, 10, ANY, Kind::ServiceToken),
    shape("xoxr-", Alphabet::Word, 10, ANY, Kind::ServiceToken),
    shape("xoxs-", Alphabet::Word, 10, ANY, Kind::ServiceToken),
    shape("xapp-", Alphabet::Word, 10, ANY, Kind::ServiceToken),
    shape("sk_live_", Alphabet::Alphanumeric, 10, ANY, Kind::ServiceToken),
    shape("sk_test_", Alphabet::Alphanumeric, 10, ANY, Kind::ServiceToken),
    shape("rk_live_", Alphabet::Alphanumeric, 10, ANY, Kind::ServiceToken),
    shape("whsec_", Alphabet::Alphanumeric, 20, ANY, Kind::ServiceToken),
    shape("AIza", Alphabet::Word, 35, 35, Kind::ServiceToken),
    shape("ya29.", Alphabet::Word, 20, ANY, Kind::ServiceToken),
    shape("sk-ant-", Alphabet::Word, 20, ANY, Kind::ServiceToken),
    shape("sk-proj-", Alphabet::Word, 20, ANY, Kind::ServiceToken),
    shape("sk-", Alphabet::Alphanumeric, 32, ANY, Kind::ServiceToken),
    shape("npm_", Alphabet::Alphanumeric, 36, 36, Kind::ServiceToken),
    shape("pypi-", Alphabet::Word, 40, ANY, Kind::ServiceToken),
    shape("dop_v1_", Alphabet::Alphanumeric, 64, 64, Kind::ServiceToken),
    shape("SG.", Alphabet::Word, 20, ANY, Kind::ServiceToken),
    shape(crate::token::PREFIX, Alphabet::Word, 43, 43, Kind::OwnToken),
];

/// Looks for every known shape.
pub(super) fn find(text: &str) -> Option<Kind> {
    SHAPES
        .iter()
        .find(|shape| shape.occurs_in(text))
        .map(|shape| shape.kind)
        .or_else(|| json_web_token(text))
        .or_else(|| aws_secret(text))
        .or_else(|| authorization(text))
        .or_else(|| url_password(text))
}

impl Shape {
    fn occurs_in(&self, text: &str) -> bool {
        starts(text, self.prefix).any(|rest| {
            let length = rest.bytes().take_while(|byte| self.alphabet.has(*byte)).count();
            length >= self.length.0 && length <= self.length.1
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

/// The names that AWS gives a secret key or session token, with a value behind them.
fn aws_secret(text: &str) -> Option<Kind> {
    let squeezed: String = text
        .chars()
        .filter(|c| !matches!(c, '_' | '-' | '"' | '\'' | ' ' | '\t'))
        .collect::<String>()
        .to_ascii_lowercase();
    let named = ["secretaccesskey", "awssessiontoken", "awssecretkey"].iter().any(|name| {
        squeezed.match_indices(name).any(|(at, name)| {
            let rest = squeezed[at + name.len()..].trim_start_matches(['=', ':', '>']);
            let assigned = rest.len() < squeezed.len() - at - name.len();
            let value = rest.bytes().take_while(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'+')).count();
            assigned && value >= 16
        })
    });
    named.then_some(Kind::AwsKey)
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
    let basic = value("basic").any(|value| STANDARD.decode(value).is_ok_and(|decoded| decoded.contains(&b':')));
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
