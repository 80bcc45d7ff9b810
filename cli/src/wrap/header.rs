//! The JSON form of a credential: a client certificate in other clothes, or a header.

use super::CredentialError;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use zeroize::Zeroizing;

/// The JSON forms. Strict: a misspelt field would be a credential without it.
#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Json {
    /// `{"kind":"client_certificate",…}`
    ClientCertificate {
        /// PEM.
        private_key: Zeroizing<String>,
        /// PEM, leaf first.
        certificate_chain: Option<String>,
    },
    /// `{"kind":"header",…}`
    Header {
        /// The header's name.
        name: String,
        /// What stands before the value, such as `Bearer `.
        #[serde(default)]
        prefix: String,
        /// The token.
        value: Zeroizing<String>,
    },
}

/// Headers that decide where a request goes or how it is framed. A credential in one of them would be none.
const FRAMING: &[&str] = &["host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "trailer"];

/// Checks that a header can be sent as it stands.
///
/// # Errors
/// [`CredentialError::BadHeader`], naming the field.
pub(crate) fn check(name: &str, prefix: &str, value: &str) -> Result<(), CredentialError> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| CredentialError::BadHeader("name"))?;
    if FRAMING.contains(&parsed.as_str()) || parsed.as_str().starts_with("x-bouncer-") {
        return Err(CredentialError::BadHeader("name"));
    }
    HeaderValue::from_str(prefix).map_err(|_| CredentialError::BadHeader("prefix"))?;
    if value.is_empty() || value.trim() != value || HeaderValue::from_str(value).is_err() {
        return Err(CredentialError::BadHeader("value"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_headers_that_can_be_sent() {
        assert!(check("authorization", "Bearer ", "abc").is_ok());
        for (name, prefix, value) in [
            ("Host", "", "x"),
            ("a b", "", "x"),
            ("x-bouncer-facts", "", "x"),
            ("a", "\n", "x"),
            ("a", "", ""),
            ("a", "", "x\n"),
        ] {
            assert!(check(name, prefix, value).is_err(), "{name} {prefix:?} {value:?}");
        }
    }
}
