//! Where the control plane is, whom to trust there, and the token: from options, files and the environment.

use super::ControlPlaneError;
use crate::files;
use crate::output::Output;
use reqwest::Url;
use reqwest::header::HeaderValue;
use std::path::Path;
use zeroize::Zeroizing;

/// A base URL that a token may be sent to.
#[derive(Debug, Clone)]
pub(crate) struct Endpoint {
    base: Url,
    loopback: bool,
}

impl Endpoint {
    /// Parses the option or environment variable.
    ///
    /// # Errors
    /// Missing, no URL, or a place where the token would travel in clear.
    pub(crate) fn parse(text: Option<&str>) -> Result<Self, ControlPlaneError> {
        let text = text.map(str::trim).filter(|text| !text.is_empty()).ok_or(ControlPlaneError::NoUrl)?;
        let base = Url::parse(text).map_err(|_| ControlPlaneError::BadUrl("it is no absolute URL"))?;
        let problem = match base.scheme() {
            "http" | "https" if !base.username().is_empty() || base.password().is_some() => {
                "it carries a user or password"
            }
            "http" | "https" if base.query().is_some() || base.fragment().is_some() => "it carries a query or fragment",
            "http" | "https" => "",
            _ => "its scheme is neither https nor http",
        };
        if !problem.is_empty() {
            return Err(ControlPlaneError::BadUrl(problem));
        }
        let loopback = is_loopback(&base);
        if base.scheme() == "http" && !loopback {
            return Err(ControlPlaneError::PlainHttp);
        }
        Ok(Self { base, loopback })
    }

    /// Whether it is this machine.
    pub(crate) const fn is_loopback(&self) -> bool {
        self.loopback
    }

    /// Scheme, host and port, for messages.
    pub(crate) fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// The URL of an absolute path of the API, below the path that the base may have.
    pub(crate) fn url(&self, path: &str) -> Result<Url, ControlPlaneError> {
        Url::parse(&format!("{}{path}", self.base.as_str().trim_end_matches('/')))
            .map_err(|_| ControlPlaneError::BadUrl("it can't be joined with the API's paths"))
    }

    /// `path` with a query.
    pub(crate) fn with_query(&self, path: &str, query: &[(&str, String)]) -> String {
        let mut url = self.base.clone();
        url.set_query(None);
        url.query_pairs_mut().extend_pairs(query);
        format!("{path}?{}", url.query().unwrap_or_default())
    }
}

/// Whether the URL's host is this machine by its address, or by the one name that always is.
pub(crate) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// `Bearer <token>`, from the file, or from the environment variable `TOKEN`.
///
/// # Errors
/// No token, an unreadable file, or something that is no token.
pub(crate) fn authorization(file: Option<&Path>, output: &Output) -> Result<HeaderValue, ControlPlaneError> {
    let token = match file {
        Some(path) => files::read_token(path, "token file", output)?,
        None => Zeroizing::new(std::env::var("TOKEN").unwrap_or_default()),
    };
    bearer(&token)
}

/// `Bearer <token>`.
///
/// # Errors
/// Nothing, or something that is no token.
pub(crate) fn bearer(token: &str) -> Result<HeaderValue, ControlPlaneError> {
    let token = token.trim();
    if token.is_empty() {
        return Err(ControlPlaneError::NoToken);
    }
    // RFC 6750: letters, digits and -._~+/ with trailing '='.
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/' | b'=');
    if !token.bytes().all(allowed) {
        return Err(ControlPlaneError::BadToken);
    }
    let bearer = Zeroizing::new(format!("Bearer {token}"));
    let mut value = HeaderValue::from_str(&bearer).map_err(|_| ControlPlaneError::BadToken)?;
    value.set_sensitive(true);
    Ok(value)
}

/// The certificates of a PEM file.
///
/// # Errors
/// Unreadable, or no certificate in it.
pub(crate) fn certificates(path: &Path) -> Result<Vec<reqwest::Certificate>, ControlPlaneError> {
    let input = files::read(path, "CA file")?;
    match reqwest::Certificate::from_pem_bundle(input.text.as_bytes()) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(ControlPlaneError::BadCaFile),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_never_travels_in_clear_to_another_machine() {
        for good in [
            "https://cp.example.org",
            "https://cp.example.org:8443/bouncer/",
            "http://127.0.0.1:8080",
            "http://localhost:1",
            "http://[::1]:8080",
        ] {
            assert!(Endpoint::parse(Some(good)).is_ok(), "{good}");
        }
        for bad in [
            "http://cp.example.org",
            "http://10.0.0.1:8080",
            "http://localhost.example.org",
            "http://127.0.0.1.example.org",
            "http://0.0.0.0:8080",
        ] {
            assert!(matches!(Endpoint::parse(Some(bad)), Err(ControlPlaneError::PlainHttp)), "{bad}");
        }
        for bad in ["cp.example.org", "ftp://cp", "https://user:x@cp", "https://cp/?a=b", "https://cp/#x"] {
            assert!(matches!(Endpoint::parse(Some(bad)), Err(ControlPlaneError::BadUrl(_))), "{bad}");
        }
        assert!(matches!(Endpoint::parse(Some(" ")), Err(ControlPlaneError::NoUrl)));
        assert!(matches!(Endpoint::parse(None), Err(ControlPlaneError::NoUrl)));
    }

    #[test]
    fn paths_join_below_the_base() {
        let endpoint = Endpoint::parse(Some("https://cp.example.org/bouncer/")).unwrap();
        assert_eq!(endpoint.url("/v1/bouncers").unwrap().as_str(), "https://cp.example.org/bouncer/v1/bouncers");
        let path = endpoint.with_query("/v1/audit/events", &[("cursor", "a b&c".to_owned())]);
        assert_eq!(path, "/v1/audit/events?cursor=a+b%26c");
    }

    #[test]
    fn a_token_is_never_shown() {
        assert!(matches!(bearer(" \n"), Err(ControlPlaneError::NoToken)));
        assert!(matches!(bearer("two words"), Err(ControlPlaneError::BadToken)));
        let value = bearer("abc.DEF-123\n").unwrap();
        assert_eq!(value, "Bearer abc.DEF-123");
        assert!(!format!("{value:?}").contains("abc"));
    }
}
