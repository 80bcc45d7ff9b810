//! Signing in to the console by the authorization code flow with PKCE (OpenID Connect Core, section 3.1; RFC 7636).
//!
//! Everything that must be remembered between the two visits follows from one secret in a cookie of the browser that set
//! out: a code that is brought back by another browser is worth nothing.

use super::keys::bounded;
use super::{Oidc, OidcError};
use crate::access::Principal;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

/// Where the issuer sends browsers back to.
pub const CALLBACK: &str = "/v1/session/oidc/callback";
/// Longest client secret, in bytes.
const SECRET_LIMIT: usize = 4_096;

/// One sign-in, by the secret of the browser that set out.
pub struct Attempt<'a>(pub &'a str);

impl Attempt<'_> {
    fn derive(&self, what: &str) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::new().chain_update(what).chain_update([0]).chain_update(self.0).finalize())
    }

    fn state(&self) -> String {
        self.derive("bouncer oidc state")
    }

    fn nonce(&self) -> String {
        self.derive("bouncer oidc nonce")
    }

    fn verifier(&self) -> String {
        self.derive("bouncer oidc verifier")
    }

    /// Whether the browser that came back is the one that set out.
    #[must_use]
    pub fn is_answered_by(&self, state: &str) -> bool {
        self.state().as_bytes().ct_eq(state.as_bytes()).into()
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    id_token: String,
}

impl Oidc {
    fn redirect_uri(&self) -> Result<(String, &super::ConsoleConfig), OidcError> {
        let console = self.console().ok_or(OidcError::Refused("signing in to the console is not set up"))?;
        Ok((format!("{}{CALLBACK}", console.public_url), console))
    }

    /// Where to send the browser.
    ///
    /// # Errors
    /// [`OidcError`] if the issuer cannot be asked, or has no such endpoint.
    pub async fn authorization_url(&self, attempt: &Attempt<'_>) -> Result<String, OidcError> {
        let (redirect_uri, console) = self.redirect_uri()?;
        let discovery = self.keys.discovery(&self.http, &self.config.issuer).await?;
        let endpoint = discovery.authorization_endpoint.ok_or(OidcError::Issuer("it has no authorization endpoint"))?;
        let mut url =
            reqwest::Url::parse(&endpoint).map_err(|_| OidcError::Issuer("its authorization endpoint is no URL"))?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(attempt.verifier()));
        let scope = std::iter::once("openid").chain(console.scopes.iter().map(String::as_str));
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &console.client_id)
            .append_pair("redirect_uri", &redirect_uri)
            .append_pair("scope", &scope.collect::<Vec<_>>().join(" "))
            .append_pair("state", &attempt.state())
            .append_pair("nonce", &attempt.nonce())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(url.into())
    }

    /// Who signed in, by the code that the browser brought back.
    ///
    /// # Errors
    /// [`OidcError`] if the issuer does not take the code, or what it gives for it is not good.
    pub async fn exchange(&self, attempt: &Attempt<'_>, code: &str) -> Result<Principal, OidcError> {
        let (redirect_uri, console) = self.redirect_uri()?;
        let discovery = self.keys.discovery(&self.http, &self.config.issuer).await?;
        let endpoint = discovery.token_endpoint.ok_or(OidcError::Issuer("it has no token endpoint"))?;
        let verifier = attempt.verifier();
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &redirect_uri),
            ("client_id", &console.client_id),
            ("code_verifier", &verifier),
        ];
        let mut request = self.http.post(endpoint).form(&form);
        if let Some(path) = &console.client_secret_file {
            // Read each time: it may have been renewed.
            let secret = std::fs::read_to_string(path).ok().filter(|secret| secret.len() <= SECRET_LIMIT);
            let secret = secret.ok_or(OidcError::Refused("oidc.client_secret_file cannot be read"))?;
            request = request.basic_auth(&console.client_id, Some(secret.trim()));
        }
        let answer: TokenAnswer = bounded(request.send().await).await?;
        let claims = self.verify(&answer.id_token, &console.client_id).await?;
        let nonce = claims.nonce.as_deref().unwrap_or_default();
        if !bool::from(attempt.nonce().as_bytes().ct_eq(nonce.as_bytes())) {
            return Err(OidcError::Refused("it was made for another sign-in"));
        }
        // The token says who signed in, and has done its work; how long they stay so is the session's to say.
        Ok(Principal { expires: None, ..self.principal(&claims)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_out_does_not_tell_what_is_kept() {
        let attempt = Attempt("one");
        let parts = [attempt.state(), attempt.nonce(), attempt.verifier()];
        for part in &parts {
            assert_eq!(part.len(), 43, "RFC 7636 wants 43 to 128 characters");
            assert_eq!(parts.iter().filter(|other| *other == part).count(), 1);
        }
        assert!(attempt.is_answered_by(&attempt.state()));
        assert!(!attempt.is_answered_by(&Attempt("other").state()) && !attempt.is_answered_by(""));
    }
}
