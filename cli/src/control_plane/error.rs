//! What can go wrong between the tool and the control plane, told apart as far as what to do differs.

use super::Problem;
use crate::failure::{Exit, Explain, root_cause};
use crate::files::FileError;
use reqwest::StatusCode;
use std::error::Error;

/// Why there is no answer of the API, or why it is a no.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ControlPlaneError {
    /// No URL given.
    #[error("the control plane's URL is missing")]
    NoUrl,
    /// No usable URL.
    #[error("the control plane's URL can't be used: {0}")]
    BadUrl(&'static str),
    /// The token would travel in clear.
    #[error("plain HTTP is refused for a control plane on another machine")]
    PlainHttp,
    /// No token given.
    #[error("the API token is missing")]
    NoToken,
    /// No usable token.
    #[error("what was given as API token is none")]
    BadToken,
    /// The CA file holds no certificate.
    #[error("the CA file holds no PEM certificate")]
    BadCaFile,
    /// Token file or CA file.
    #[error(transparent)]
    File(#[from] FileError),
    /// The client can't be set up.
    #[error("the HTTPS client could not be set up")]
    Client {
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// No connection, or it broke.
    #[error("the control plane at {origin} is not reachable")]
    Unreachable {
        /// Where.
        origin: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// A connection, and no TLS.
    #[error("no trusted TLS connection with the control plane at {origin}")]
    Tls {
        /// Where.
        origin: String,
        /// What rustls says.
        why: String,
    },
    /// No answer in time.
    #[error("the control plane at {origin} did not answer in time")]
    Timeout {
        /// Where.
        origin: String,
    },
    /// 401.
    #[error("the control plane at {origin} does not accept the token")]
    Unauthorized {
        /// Where.
        origin: String,
        /// What it says.
        problem: Box<Problem>,
    },
    /// Any other 4xx or 5xx.
    #[error("the control plane refused: {status}")]
    Refused {
        /// How.
        status: StatusCode,
        /// What it says.
        problem: Box<Problem>,
        /// Seconds that it asks to wait.
        retry_after: Option<u32>,
    },
    /// 202: the change waits.
    #[error("the change is not made: it waits for a second person")]
    Waits {
        /// The proposal, as the API answered it.
        proposal: Box<serde_json::Value>,
    },
    /// Something else answers there.
    #[error("what answers at {origin} is not the control plane's API (status {status})")]
    NotTheApi {
        /// Where.
        origin: String,
        /// How.
        status: StatusCode,
    },
}

impl ControlPlaneError {
    /// Tells apart why a call has no answer.
    pub(super) fn not_reached(origin: String, source: reqwest::Error) -> Self {
        if let Some(why) = tls_fault(&source) {
            Self::Tls { origin, why }
        } else if source.is_timeout() {
            Self::Timeout { origin }
        } else {
            Self::Unreachable { origin, source }
        }
    }

    /// Tells apart why an answer is a no.
    pub(super) fn refused(origin: String, status: StatusCode, problem: Box<Problem>, retry_after: Option<u32>) -> Self {
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized { origin, problem },
            status => Self::Refused { status, problem, retry_after },
        }
    }

    /// Whether a connection that stood broke without an answer, so that nobody knows whether the call was carried out.
    pub(super) fn broke(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if !source.is_connect() && !source.is_builder())
    }

    /// Whether nobody knows if the call was carried out: what came back, if anything did, is no word of the API's on it.
    pub(crate) fn is_open(&self) -> bool {
        match self {
            Self::Timeout { .. } => true,
            Self::Refused { status, .. } => status.is_server_error(),
            Self::NotTheApi { status, .. } => status.is_success() || status.is_server_error(),
            other => other.broke(),
        }
    }

    /// How many seconds the control plane asks to wait, since there were too many calls. None of this one was carried out.
    pub(super) const fn asks_to_wait(&self) -> Option<u32> {
        match self {
            Self::Refused { status: StatusCode::TOO_MANY_REQUESTS, retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What kind of refusal it is, such as `feature_disabled`; empty where it is none of the API's.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused { problem, .. } => &problem.code,
            _ => "",
        }
    }

    /// The proposal as which the change waits, if it does.
    pub(crate) fn proposal(&self) -> Option<&serde_json::Value> {
        match self {
            Self::Waits { proposal } => Some(proposal),
            _ => None,
        }
    }

    /// Whether the control plane answered that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::NOT_FOUND, .. })
    }
}

/// The TLS fault behind an error, if one is.
fn tls_fault(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls.to_string());
        }
        // An io::Error's source is that of what it wraps, so that the wrapped error itself would be passed over.
        next = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

impl Explain for ControlPlaneError {
    fn why(&self) -> Option<String> {
        match self {
            Self::Unreachable { source, .. } | Self::Client { source } => Some(root_cause(source)),
            Self::Tls { why, .. } => Some(why.clone()),
            Self::Unauthorized { problem, .. } | Self::Refused { problem, .. } => {
                Some(problem.say()).filter(|text| !text.is_empty())
            }
            Self::File(error) => error.why(),
            _ => None,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::NoUrl => "Set CONTROL_PLANE_URL, or give --control-plane URL.",
            Self::BadUrl(_) => "Give the base URL alone, such as https://bouncer.example.org.",
            Self::PlainHttp => "Use https. On the control plane's own machine, http to 127.0.0.1 will do.",
            Self::NoToken => "Set TOKEN or BOUNCER_TOKEN_FILE, or give --token-file. The first token is made with the one that `bouncer-control-plane bootstrap` wrote: bouncerctl tokens create admin --role admin --out FILE --token-file BOOTSTRAP_FILE.",
            Self::BadToken => "A token is one word of visible ASCII. Check the token file, or the variable TOKEN.",
            Self::BadCaFile => "Give a PEM file with the CA that signed the control plane's certificate.",
            Self::File(error) => return error.advice(),
            Self::Client { .. } => "Check the system's trusted certificates, or give --ca-file.",
            Self::Unreachable { .. } => "Check the URL and port, that the control plane runs (GET /healthz there), and the network in between.",
            Self::Tls { .. } => "If a private CA signed its certificate, give --ca-file. If the name is wrong, use the name in the certificate. There is no switch to turn verification off.",
            Self::Timeout { .. } => "Ask /readyz there whether it is overloaded or its database stuck; --timeout gives it longer.",
            Self::Unauthorized { .. } => "Check TOKEN, BOUNCER_TOKEN_FILE or --token-file: the token may be of another control plane, mistyped, revoked, past its end, or the one of bootstrap, which is good for one exchange.",
            Self::Waits { .. } => "Somebody else decides: bouncerctl proposals list.",
            Self::NotTheApi { .. } => "Check the URL: a proxy, a login page or another service answers there.",
            Self::Refused { status, problem, retry_after } => return refused(*status, problem, *retry_after),
        }
        .to_owned()
    }

    fn exit(&self) -> Exit {
        match self {
            Self::NoUrl | Self::BadUrl(_) | Self::PlainHttp | Self::NoToken | Self::BadToken | Self::BadCaFile => {
                Exit::Usage
            }
            Self::File(error) => error.exit(),
            Self::Waits { .. } => Exit::Waits,
            Self::Unreachable { .. } | Self::Tls { .. } | Self::Timeout { .. } | Self::NotTheApi { .. } => {
                Exit::Unreachable
            }
            Self::Client { .. } | Self::Unauthorized { .. } | Self::Refused { .. } => Exit::Refused,
        }
    }
}

fn refused(status: StatusCode, problem: &Problem, retry_after: Option<u32>) -> String {
    // The control plane speaks of its API; this one is shorter said with this tool.
    if problem.code == "feature_disabled" {
        return "Turn it on: bouncerctl flags enable flags.crypto.dual_custody_intercept".to_owned();
    }
    if problem.code == "changed_meanwhile" {
        return "Somebody else changed it after this command had read it; nothing of theirs was overwritten. Look at what is there \
                now, and run the command again if it is still meant."
            .to_owned();
    }
    if let (StatusCode::TOO_MANY_REQUESTS, Some(seconds)) = (status, retry_after) {
        return format!("Try again in {seconds} seconds.");
    }
    if !problem.next.is_empty() {
        return problem.next.clone();
    }
    // Something in between has answered.
    match status.as_u16() {
        429 | 503 => format!("Try again in {} seconds.", retry_after.unwrap_or(5)),
        500..=599 => "Look into the log of the control plane, or of the proxy in front of it.".to_owned(),
        _ => "Check the URL, and what stands between here and the control plane.".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flag_that_is_off_is_named_with_its_cure() {
        let problem = Problem { code: "feature_disabled".to_owned(), next: "PUT …".to_owned(), ..Problem::default() };
        let error = ControlPlaneError::refused("https://x".to_owned(), StatusCode::FORBIDDEN, Box::new(problem), None);
        assert!(error.advice().contains("bouncerctl flags enable flags.crypto.dual_custody_intercept"));
        assert_eq!(error.exit(), Exit::Refused);
    }

    #[test]
    fn what_somebody_else_changed_is_explained() {
        let problem =
            Problem { code: "changed_meanwhile".to_owned(), next: "Read it".to_owned(), ..Problem::default() };
        let status = StatusCode::PRECONDITION_FAILED;
        let error = ControlPlaneError::refused("https://x".to_owned(), status, Box::new(problem), None);
        assert!(error.advice().contains("Somebody else changed it") && error.exit() == Exit::Refused);
        assert_eq!(error.code(), "changed_meanwhile");
    }

    #[test]
    fn a_rustls_fault_is_found_below_io_errors() {
        let fault = rustls::Error::General("x".to_owned());
        let wrapped = std::io::Error::other(std::io::Error::other(fault));
        assert!(tls_fault(&wrapped).is_some());
        assert!(tls_fault(&std::io::Error::other("x")).is_none());
    }
}
