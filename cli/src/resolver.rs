//! One resolver on this node, on its operator's socket.
//!
//! Called by `revoke --socket` and `probe --socket`. Who may speak there is decided by the socket's mode and by the uid that the kernel names.

use crate::control_plane::Problem;
use crate::failure::{Exit, Explain, root_cause};
use reqwest::StatusCode;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A resolver answers at once.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Why a resolver did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolverError {
    /// No client.
    #[error("the client for the resolver's socket could not be set up")]
    Client(#[source] reqwest::Error),
    /// No connection, or it was closed without an answer.
    #[error("no resolver answers on {}", socket.display())]
    Unreachable {
        /// Where.
        socket: PathBuf,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// It said no.
    #[error("the resolver refused: {status}")]
    Refused {
        /// How.
        status: StatusCode,
        /// What it says.
        problem: Box<Problem>,
    },
}

impl Explain for ResolverError {
    fn why(&self) -> Option<String> {
        match self {
            Self::Client(source) | Self::Unreachable { source, .. } => Some(root_cause(source)),
            Self::Refused { problem, .. } => Some(problem.say()).filter(|text| !text.is_empty()),
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Client(_) => "Report this: it should not happen.".to_owned(),
            Self::Unreachable { .. } => {
                "Check that the resolver runs on this node, that --socket is the [admin] socket of its resolver.toml, and \
                 that your user is among its allowed_uids."
                    .to_owned()
            }
            Self::Refused { problem, .. } if !problem.next.is_empty() => problem.next.clone(),
            Self::Refused { .. } => "See the resolver's log.".to_owned(),
        }
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Client(_) | Self::Unreachable { .. } => Exit::Unreachable,
            Self::Refused { .. } => Exit::Refused,
        }
    }
}

/// The resolver behind a socket.
#[derive(Debug)]
pub(crate) struct Resolver {
    http: reqwest::Client,
    socket: PathBuf,
}

impl Resolver {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// [`ResolverError::Client`].
    pub(crate) fn new(socket: &Path) -> Result<Self, ResolverError> {
        let builder = reqwest::Client::builder().unix_socket(socket).timeout(TIMEOUT);
        let http = builder.redirect(reqwest::redirect::Policy::none()).build().map_err(ResolverError::Client)?;
        Ok(Self { http, socket: socket.to_owned() })
    }

    /// `POST path` with a body.
    ///
    /// # Errors
    /// [`ResolverError`].
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ResolverError> {
        // The host is only what HTTP wants.
        self.ask(self.http.post(format!("http://resolver{path}")).json(body)).await
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`ResolverError`].
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ResolverError> {
        self.ask(self.http.get(format!("http://resolver{path}"))).await
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Value, ResolverError> {
        let unreachable = |source| ResolverError::Unreachable { socket: self.socket.clone(), source };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(unreachable)?;
        let json: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(json);
        }
        Err(ResolverError::Refused { status, problem: Box::new(Problem::read(&json)) })
    }
}
