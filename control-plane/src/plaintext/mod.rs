//! Tells a plaintext credential by its form, so that the API can refuse it wherever it turns up: PEM and DER private
//! keys, JSON Web Tokens, keys and tokens of clouds, vaults and services, also encoded or cut in two.
//! Best effort: `tests/suite/lookalikes` measures it, and `tests/corpus/misses.txt` lists what it does not see.
//!
//! Called for every text of every body before anything else looks at it, and for every text of an audit event. Only
//! forms are recognised, never entropy, so that a KMS ciphertext blob always passes. Nothing here keeps, returns or
//! formats the text it was given.

mod der;
mod encoded;
mod named;
mod shapes;
mod tokens;

use serde_json::Value;

/// How many encodings may be wrapped around each other.
const DEPTH: u8 = 4;
/// How many bytes are read in all for each of a text, and for a short one. A text that takes more is refused: it has
/// encodings within encodings on purpose.
const READ: (usize, usize) = (16, 64 * 1_024);
/// How much of two texts is judged together, on either side of where they meet, in bytes.
const SEAM: usize = 1_024;
/// Of so many texts any two are judged together; of more, those that follow each other.
const MANY: usize = 12;

/// What a text looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A private key: PEM, DER, OpenSSH, PuTTY, PKCS#12 or JWK.
    PrivateKey,
    /// A JSON Web Token.
    JsonWebToken,
    /// An AWS access key id or secret.
    AwsKey,
    /// A HashiCorp Vault or OpenBao token.
    VaultToken,
    /// A token of a service: GitHub, GitLab, Slack, Stripe, Google, OpenAI and others.
    ServiceToken,
    /// An `Authorization` header's credentials.
    Authorization,
    /// A secret by the name beside it, such as `api_key = …`.
    NamedSecret,
    /// Too many encodings within each other to be read to the end.
    Nested,
    /// A password within a URL.
    UrlPassword,
    /// A token of this control plane.
    OwnToken,
}

impl Kind {
    /// For people, with its article.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::PrivateKey => "a private key",
            Self::JsonWebToken => "a JSON Web Token",
            Self::AwsKey => "an AWS access key",
            Self::VaultToken => "a Vault token",
            Self::ServiceToken => "a service's API token",
            Self::Authorization => "the credentials of an Authorization header",
            Self::NamedSecret => "a secret, by the name beside it",
            Self::Nested => "something hidden, in encodings within encodings",
            Self::UrlPassword => "a URL with a password",
            Self::OwnToken => "a token of this control plane",
        }
    }
}

/// Where in a body plaintext was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The field, such as `callers[0]`; never a name that the body made up.
    pub field: String,
    /// What it looks like.
    pub kind: Kind,
}

/// What `text` looks like, if it looks like a plaintext credential.
#[must_use]
pub fn find(text: &str) -> Option<Kind> {
    find_within(text, DEPTH, &mut (text.len() * READ.0 + READ.1))
}

fn find_within(text: &str, depth: u8, left: &mut usize) -> Option<Kind> {
    let found = private_key(text).or_else(|| tokens::find(text)).or_else(|| named::find(text));
    if found.is_some() || depth == 0 {
        return found;
    }
    let rewritten = encoded::rewritten(text).find_map(|text| {
        let spent = spend(left, text.len());
        spent.or_else(|| find_within(&text, depth - 1, left))
    });
    rewritten.or_else(|| encoded::decoded(text).find_map(|bytes| find_in_bytes(&bytes, depth - 1, left)))
}

fn find_in_bytes(bytes: &[u8], depth: u8, left: &mut usize) -> Option<Kind> {
    if der::holds_key(bytes) {
        return Some(Kind::PrivateKey);
    }
    let spent = spend(left, bytes.len());
    spent.or_else(|| encoded::readable(bytes).into_iter().find_map(|text| find_within(&text, depth, left)))
}

fn spend(left: &mut usize, bytes: usize) -> Option<Kind> {
    match left.checked_sub(bytes) {
        Some(rest) => *left = rest,
        None => return Some(Kind::Nested),
    }
    None
}

/// Private keys in their textual forms.
fn private_key(text: &str) -> Option<Kind> {
    let upper = text.to_ascii_uppercase();
    let pem = upper.match_indices("--BEGIN").any(|(at, begin)| {
        let label: String = upper[at + begin.len()..].chars().take(48).collect();
        label.contains("PRIVATE") && label.contains("KEY")
    });
    let putty = upper.contains("PUTTY-USER-KEY-FILE");
    let jwk = text.contains("\"kty\"") && (text.contains("\"d\"") || text.contains("\"k\""));
    (pem || putty || jwk).then_some(Kind::PrivateKey)
}

/// Looks through every text of a JSON value, names of fields included: each alone, then what they make together.
#[must_use]
pub fn find_in(value: &Value) -> Option<Finding> {
    let mut texts = Vec::new();
    walk(value, &mut String::new(), &mut texts).or_else(|| find_across(&texts))
}

/// A text, and the field that it stands in.
type Leaf<'a> = (String, &'a str);

fn walk<'a>(value: &'a Value, path: &mut String, texts: &mut Vec<Leaf<'a>>) -> Option<Finding> {
    let at = |path: &str, kind| Finding { field: if path.is_empty() { "body".into() } else { path.into() }, kind };
    let length = path.len();
    match value {
        Value::String(text) => {
            texts.push((path.clone(), text));
            find(text).map(|kind| at(path, kind))
        }
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            path.push_str(&format!("[{index}]"));
            let found = walk(item, path, texts);
            path.truncate(length);
            found
        }),
        Value::Object(fields) => fields.iter().find_map(|(name, item)| {
            if let Some(kind) = find(name) {
                return Some(at(path, kind));
            }
            let separator = if path.is_empty() { "" } else { "." };
            path.push_str(separator);
            path.push_str(speakable(name));
            let found = walk(item, path, texts);
            path.truncate(length);
            found
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// A credential that was cut in two, and lies in two fields. Each alone is known to be none.
fn find_across(texts: &[Leaf<'_>]) -> Option<Finding> {
    let pairs = texts.iter().enumerate().flat_map(|(at, first)| {
        let others = if texts.len() <= MANY { texts } else { texts.get(at + 1..at + 2).unwrap_or_default() };
        others.iter().filter(move |second| first.0 != second.0).map(move |second| (first, second))
    });
    pairs.into_iter().find_map(|((first, end), (second, beginning))| {
        let from = (end.len().saturating_sub(SEAM)..).find(|at| end.is_char_boundary(*at))?;
        let to = (0..=beginning.len().min(SEAM)).rev().find(|at| beginning.is_char_boundary(*at))?;
        let seam = [&end[from..], &beginning[..to]].concat();
        // A name at the end of one field says nothing of the next one's ciphertext.
        let kind = find(&seam).filter(|kind| *kind != Kind::NamedSecret)?;
        Some(Finding { field: format!("{first} and {second}"), kind })
    })
}

/// A field's name as it may be repeated in an answer: what our own fields look like, and nothing else.
#[must_use]
pub fn speakable(name: &str) -> &str {
    let plain = !name.is_empty() && name.len() <= 32 && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if plain { name } else { "(unnamed)" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_named_and_made_up_names_are_not() {
        let body = json!({"callers": ["spiffe://a/b", "AKIAIOSFODNN7EXAMPLE"]});
        assert_eq!(find_in(&body), Some(Finding { field: "callers[1]".into(), kind: Kind::AwsKey }));
        let body = json!({"AKIAIOSFODNN7EXAMPLE": 1});
        assert_eq!(find_in(&body), Some(Finding { field: "body".into(), kind: Kind::AwsKey }));
        let body = json!({"S3cret!": {"x": "AKIAIOSFODNN7EXAMPLE"}});
        assert_eq!(find_in(&body).unwrap().field, "(unnamed).x");
    }

    #[test]
    fn encodings_within_encodings_are_read_so_far_and_no_further() {
        let nested = "%2525250A\\\\u0025\nVVVV".repeat(8_000);
        assert_eq!(find(&nested), Some(Kind::Nested));
        assert_eq!(find(&"%0A".repeat(20_000)), None);
    }

    #[test]
    fn a_credential_in_two_fields_is_named_by_both() {
        let body = json!({"aad": "IOSFODNN7EXAMPLE", "notes": "use AKIA", "provider": "kms_envelope"});
        assert_eq!(find_in(&body), Some(Finding { field: "notes and aad".into(), kind: Kind::AwsKey }));
        let apart = json!({"aad": "IOSFODNN7EXAMPLE", "notes": "use AKIA "});
        assert_eq!(find_in(&apart), None);
        let many = |text: &str| json!((0..20).map(|at| format!("{at}.{text}")).collect::<Vec<_>>());
        assert_eq!(find_in(&many("ä")), None);
        let mut neighbours = many("spiffe");
        (neighbours[14], neighbours[15]) = (json!("AKIAIOSF"), json!("ODNN7EXAMPLE"));
        assert_eq!(find_in(&neighbours).unwrap().field, "[14] and [15]");
    }

    #[test]
    fn ordinary_text_passes() {
        for text in [
            "Production CMK — dual custody",
            "arn:aws:kms:ca-central-1:123456789012:key/abc-123",
            "AQICAHh...opaque-envelope-blob...",
            "env=production,bouncer=payments-east",
            "spiffe://example.org/ns/shop/sa/cart",
            "outbound|443||api.example.com",
            "Rotate the PRIVATE KEY quarterly; bearer tokens are never stored here.",
            "Bearer authentication/authorization is basic configuration-management",
            "See https://wiki.example.org/kms?page=2 and ask ops@example.org",
            "transit:mount/key#vault:v1:8SDd3WHDOjf7mq69CyCqYjBXAiQQAVZRkFM13ok481zoCmHnSeDX9g==",
            "kv2:secret/payments/upstream-tls",
            "payments.internal:8443",
        ] {
            assert_eq!(find(text), None, "{text}");
        }
    }
}
