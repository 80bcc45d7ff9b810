//! Tells a plaintext credential by its form, so that the API can refuse it wherever it turns up: PEM and DER private
//! keys, JSON Web Tokens, keys and tokens of clouds, vaults and services, also when base64- or percent-encoded.
//!
//! Called for every text of every body before anything else looks at it, and for every text of an audit event. Only
//! forms are recognised, never entropy, so that a KMS ciphertext blob always passes. Nothing here keeps, returns or
//! formats the text it was given.

mod encoded;
mod tokens;

use serde_json::Value;

/// How many encodings may be wrapped around each other.
const DEPTH: u8 = 3;

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
    find_within(text, DEPTH)
}

fn find_within(text: &str, depth: u8) -> Option<Kind> {
    let found = private_key(text).or_else(|| tokens::find(text)).or_else(|| encoded::private_key(text));
    if found.is_some() || depth == 0 {
        return found;
    }
    encoded::decodings(text).into_iter().find_map(|inner| find_within(&inner, depth - 1))
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

/// Looks through every text of a JSON value, names of fields included.
#[must_use]
pub fn find_in(value: &Value) -> Option<Finding> {
    walk(value, &mut String::new())
}

fn walk(value: &Value, path: &mut String) -> Option<Finding> {
    let at = |path: &str, kind| Finding { field: if path.is_empty() { "body".into() } else { path.into() }, kind };
    let length = path.len();
    match value {
        Value::String(text) => find(text).map(|kind| at(path, kind)),
        Value::Array(items) => items.iter().enumerate().find_map(|(index, item)| {
            path.push_str(&format!("[{index}]"));
            let found = walk(item, path);
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
            let found = walk(item, path);
            path.truncate(length);
            found
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
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
