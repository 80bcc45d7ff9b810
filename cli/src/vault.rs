//! The customer's Vault, as the operator may use it: `transit/rewrap`, which decrypts and encrypts inside Vault, and a
//! look at the key's versions. Never `decrypt`.
//!
//! Called by `rewrap`. Speaks HTTPS, or HTTP to this machine under `--dev`; follows no redirect, and uses no proxy: a
//! token goes to the address that was given.

use crate::args::VaultServer;
use crate::control_plane::{body_of, is_loopback};
use crate::failure::{Exit, Explain, root_cause};
use crate::files::{self, FileError};
use crate::output::Output;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bouncer_custody::{EncryptionContext, TransitCiphertext, VaultMountName, VaultName, VaultNamespace};
use reqwest::header::HeaderValue;
use reqwest::{Method, StatusCode, Url};
use serde_json::{Value, json};
use std::time::Duration;
use zeroize::Zeroizing;

/// More than any answer about a ciphertext that a bouncer takes.
const ANSWER_LIMIT: usize = 256 * 1024;

/// A Vault, and a token for it.
#[derive(Debug)]
pub(crate) struct Vault {
    http: reqwest::Client,
    address: String,
    token: HeaderValue,
}

/// A key of `transit`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransitKey<'a> {
    pub namespace: &'a VaultNamespace,
    pub mount: &'a VaultMountName,
    pub name: &'a VaultName,
}

/// Why Vault has not done what it was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VaultError {
    /// No URL.
    #[error("the Vault address is no https or http URL of a server")]
    BadAddress,
    /// A token in clear.
    #[error("a Vault address over plain HTTP is refused")]
    PlainHttp,
    /// Nobody to be.
    #[error("there is no Vault token")]
    NoToken,
    /// No token.
    #[error("the Vault token holds a character that no token has")]
    BadToken,
    /// No certificate.
    #[error("the Vault CA file holds no certificate")]
    BadCaFile,
    /// A file.
    #[error(transparent)]
    File(#[from] FileError),
    /// No connection, or no answer in time.
    #[error("Vault at {address} is not reachable")]
    Unreachable { address: String, why: String },
    /// Vault says no.
    #[error("Vault refused to {what}: {status}")]
    Refused { what: &'static str, status: StatusCode, why: String },
    /// It can't take the binding along.
    #[error("Vault does not rewrap what is bound by associated data")]
    Bound { why: String },
    /// An answer that no bouncer could use.
    #[error("Vault answered, and with nothing that a bouncer could use")]
    UnusableAnswer,
}

impl Vault {
    /// Reads address, token and trust from the options and the environment. Calls nothing yet.
    ///
    /// # Errors
    /// [`VaultError`] if one of them is missing or unfit.
    pub(crate) fn connect(server: &VaultServer, dev: bool, output: &Output) -> Result<Option<Self>, VaultError> {
        let Some(address) = &server.vault else { return Ok(None) };
        let address = parse_address(address, dev)?;
        let token = match &server.vault_token_file {
            Some(path) => files::read_token(path, "Vault token file", output)?,
            None => Zeroizing::new(std::env::var("VAULT_TOKEN").unwrap_or_default()),
        };
        let mut http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(15))
            .user_agent(concat!("bouncerctl/", env!("CARGO_PKG_VERSION")));
        if let Some(path) = &server.vault_ca_file {
            let pem = files::read(path, "Vault CA file")?;
            let certificates = reqwest::Certificate::from_pem_bundle(pem.text.as_bytes());
            let certificates = certificates.ok().filter(|all| !all.is_empty()).ok_or(VaultError::BadCaFile)?;
            http = http.tls_certs_only(certificates);
        }
        let http = http.build().map_err(|error| VaultError::unreachable(&address, error))?;
        Ok(Some(Self { http, address, token: header(&token)? }))
    }

    /// The ciphertext under the newest version of its key; the same where that is what it has.
    ///
    /// # Errors
    /// [`VaultError`].
    pub(crate) async fn rewrap(
        &self,
        key: TransitKey<'_>,
        ciphertext: &TransitCiphertext,
        aad: Option<&EncryptionContext>,
    ) -> Result<TransitCiphertext, VaultError> {
        let mut body = json!({"ciphertext": ciphertext.as_str()});
        if let Some(aad) = aad {
            body["associated_data"] = STANDARD.encode(aad.as_str()).into();
        }
        let answer = match self.call(Method::POST, key, "rewrap", "rewrap it", Some(&body)).await {
            Err(VaultError::Refused { status: StatusCode::BAD_REQUEST, why, .. }) if aad.is_some() => {
                return Err(VaultError::Bound { why });
            }
            answer => answer?,
        };
        let moved = answer["data"]["ciphertext"].as_str().and_then(|text| text.parse::<TransitCiphertext>().ok());
        moved.filter(|moved| moved.version() >= ciphertext.version()).ok_or(VaultError::UnusableAnswer)
    }

    /// The newest version of a key.
    ///
    /// # Errors
    /// [`VaultError`].
    pub(crate) async fn newest_version(&self, key: TransitKey<'_>) -> Result<u64, VaultError> {
        let answer = self.call(Method::GET, key, "keys", "show its key", None).await?;
        answer["data"]["latest_version"].as_u64().ok_or(VaultError::UnusableAnswer)
    }

    async fn call(
        &self,
        method: Method,
        key: TransitKey<'_>,
        endpoint: &str,
        what: &'static str,
        body: Option<&Value>,
    ) -> Result<Value, VaultError> {
        let TransitKey { namespace, mount, name } = key;
        let unreachable = |error| VaultError::unreachable(&self.address, error);
        let url = format!("{}/v1/{mount}/{endpoint}/{name}", self.address);
        let mut request = self.http.request(method, url).header("X-Vault-Token", self.token.clone());
        if let Some(namespace) = namespace.path() {
            request = request.header("X-Vault-Namespace", namespace);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body = body_of(&mut response, ANSWER_LIMIT).await.map_err(unreachable)?;
        let answer: Value = serde_json::from_slice(&body.ok_or(VaultError::UnusableAnswer)?).unwrap_or_default();
        if status.is_success() { Ok(answer) } else { Err(VaultError::Refused { what, status, why: said(&answer) }) }
    }
}

/// Vault's own words, as far as they fit on a line.
fn said(answer: &Value) -> String {
    let errors = answer["errors"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let words = errors.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    words.chars().filter(|c| !c.is_control()).take(300).collect()
}

/// The server's URL without a slash at its end.
fn parse_address(text: &str, dev: bool) -> Result<String, VaultError> {
    let url = Url::parse(text).map_err(|_| VaultError::BadAddress)?;
    match url.scheme() {
        "https" => {}
        "http" if dev && is_loopback(&url) => {}
        "http" => return Err(VaultError::PlainHttp),
        _ => return Err(VaultError::BadAddress),
    }
    let bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
    if url.host_str().is_none_or(str::is_empty) || !bare || url.path() != "/" || url.fragment().is_some() {
        return Err(VaultError::BadAddress);
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn header(token: &str) -> Result<HeaderValue, VaultError> {
    let token = token.trim();
    if token.is_empty() {
        return Err(VaultError::NoToken);
    }
    if !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(VaultError::BadToken);
    }
    let mut value = HeaderValue::from_str(token).map_err(|_| VaultError::BadToken)?;
    value.set_sensitive(true);
    Ok(value)
}

impl VaultError {
    fn unreachable(address: &str, error: reqwest::Error) -> Self {
        Self::Unreachable { address: address.to_owned(), why: root_cause(&error.without_url()) }
    }
}

impl Explain for VaultError {
    fn why(&self) -> Option<String> {
        match self {
            Self::PlainHttp => Some("the token would travel in clear".to_owned()),
            Self::Unreachable { why, .. } | Self::Refused { why, .. } | Self::Bound { why } => {
                Some(why.clone()).filter(|why| !why.is_empty())
            }
            Self::File(error) => error.why(),
            Self::BadAddress | Self::NoToken | Self::BadToken | Self::BadCaFile | Self::UnusableAnswer => None,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::BadAddress => "Give it as https://vault.example.org:8200, without a path.",
            Self::PlainHttp => "Use https. With --dev, plain HTTP to this machine is allowed.",
            Self::NoToken => "Set VAULT_TOKEN, or give --vault-token-file.",
            Self::BadToken => "Look whether the file or VAULT_TOKEN holds the token, and nothing else.",
            Self::BadCaFile => "Give a file of PEM certificates.",
            Self::File(error) => return error.advice(),
            Self::Unreachable { .. } => "Look at the address, the network, and --vault-ca-file.",
            Self::Refused { status, .. } if *status == StatusCode::FORBIDDEN => {
                "The token needs update on <mount>/rewrap/<key>, and for --dry-run read on <mount>/keys/<key>."
            }
            Self::Refused { status, .. } if status.is_server_error() => {
                "Vault may be sealed or a standby: ask another."
            }
            Self::Refused { .. } => "Look whether mount and key are there, in the namespace that key_id names.",
            Self::Bound { .. } => {
                "Its binding stays whole only if it is encrypted anew: transit/encrypt with the same associated_data, \
                 then bouncerctl register."
            }
            Self::UnusableAnswer => "Look whether the address is a Vault's.",
        }
        .to_owned()
    }

    fn exit(&self) -> Exit {
        match self {
            Self::BadAddress | Self::PlainHttp | Self::NoToken | Self::BadToken | Self::BadCaFile => Exit::Usage,
            Self::File(error) => error.exit(),
            Self::Unreachable { .. } => Exit::Unreachable,
            Self::Refused { status, .. } if status.is_server_error() => Exit::Unreachable,
            Self::Refused { .. } | Self::Bound { .. } | Self::UnusableAnswer => Exit::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_goes_to_a_server_and_never_in_clear_to_another_machine() {
        let parse = |text, dev| parse_address(text, dev).map_err(|error| error.to_string());
        assert_eq!(parse("https://vault.test:8200/", false).unwrap(), "https://vault.test:8200");
        assert_eq!(parse("http://127.0.0.1:8200", true).unwrap(), "http://127.0.0.1:8200");
        assert!(parse("http://[::1]:8200", true).is_ok());
        let plain = VaultError::PlainHttp.to_string();
        for (text, dev) in [("http://127.0.0.1:8200", false), ("http://vault.test", true)] {
            assert_eq!(parse(text, dev).unwrap_err(), plain, "{text}");
        }
        let bad = VaultError::BadAddress.to_string();
        for text in [
            "vault.test",
            "ftp://vault.test",
            "https://",
            "https://a:b@vault.test",
            "https://vault.test/v1",
            "https://vault.test/?a=b",
        ] {
            assert_eq!(parse(text, true).unwrap_err(), bad, "{text}");
        }
    }

    #[test]
    fn a_token_is_one_word_and_shows_nowhere() {
        let token = header(" hvs.abc\n").unwrap();
        assert!(token.is_sensitive() && !format!("{token:?}").contains("abc"));
        assert!(matches!(header(" \n"), Err(VaultError::NoToken)));
        assert!(matches!(header("two words"), Err(VaultError::BadToken)));
    }

    #[test]
    fn what_vault_says_is_told_on_one_line_and_shortened() {
        let answer = json!({"errors": ["1 error occurred:\n\t* no \u{7}way", "x".repeat(1_000)]});
        let told = said(&answer);
        assert!(told.starts_with("1 error occurred: * no way xxx") && told.len() == 300, "{told}");
        assert_eq!(said(&Value::Null), "");
    }
}
