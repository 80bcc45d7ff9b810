//! Secrets that have no form of their own, by the name beside them: `name = value`, in whatever notation.

use super::Kind;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// How the names of secrets end, without what stands between their words.
const SECRETS: [&str; 12] = [
    "secret",
    "token",
    "password",
    "passwd",
    "apikey",
    "secretkey",
    "accesskey",
    "authkey",
    "accountkey",
    "accesssecret",
    "privatekey",
    "passphrase",
];
/// How AWS names a secret key and a session token.
const AWS: [&str; 3] = ["secretaccesskey", "awssessiontoken", "awssecretkey"];

/// A shorter value may be a word, a name, or a version.
const SHORTEST: usize = 15;

/// Looks at both sides of each `=` and `:`.
pub(super) fn find(text: &str) -> Option<Kind> {
    text.match_indices(['=', ':']).find_map(|(at, _)| {
        let name = name_before(&text[..at]);
        let quote = |c: char| c.is_whitespace() || matches!(c, '=' | ':' | '>' | '"' | '\'');
        let value = text[at + 1..].trim_start_matches(quote);
        let length = value.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(byte)).count();
        let of_base64 = &value[..length];
        let ends = |names: &[&str]| names.iter().any(|end| name.ends_with(end));
        if ends(&AWS) && length > SHORTEST {
            return Some(Kind::AwsKey);
        }
        if name == "auth" && is_user_and_password(of_base64) {
            return Some(Kind::Authorization);
        }
        ((ends(&SECRETS) || name == "sig") && is_random(value)).then_some(Kind::NamedSecret)
    })
}

/// The name that ends here: in lower case, without spaces, dashes and quotes.
fn name_before(text: &str) -> String {
    let text = text.trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
    let within = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ' ');
    let mut name: Vec<char> =
        text.chars().rev().take(40).take_while(within).filter(char::is_ascii_alphanumeric).collect();
    name.reverse();
    String::from_iter(name).to_ascii_lowercase()
}

/// An unbroken run of letters and digits at its beginning, or behind a `-` or `_`, longer than a word. A path, a UUID, a
/// date and a name in several words are none.
fn is_random(value: &str) -> bool {
    let value = value.split(|c: char| !c.is_ascii_alphanumeric() && !matches!(c, '-' | '_' | '+' | '.')).next();
    value.unwrap_or_default().split(['-', '_', '+', '.']).any(|run| {
        let (letters, digits) = (run.bytes().any(|b| b.is_ascii_alphabetic()), run.bytes().any(|b| b.is_ascii_digit()));
        run.len() >= SHORTEST && letters && digits
    })
}

/// As `Basic` has them (RFC 7617), and the configuration of container tools.
pub(super) fn is_user_and_password(base64: &str) -> bool {
    let decoded = STANDARD.decode(base64).unwrap_or_default();
    decoded.contains(&b':') && decoded.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}
