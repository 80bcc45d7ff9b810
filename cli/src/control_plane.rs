//! The control plane, as a client sees it: one authenticated call at a time, JSON in, JSON out.
//!
//! Called by every command but `wrap` without `--register`. Never follows a redirect and never sends the token over
//! plain HTTP to another machine. Answers are read leniently, since an older tool must understand a newer control plane.

mod endpoint;
mod error;
mod problem;

pub(crate) use error::ControlPlaneError;

use crate::args::Global;
use crate::output::Output;
use endpoint::Endpoint;
pub(crate) use endpoint::is_loopback;
pub(crate) use problem::Problem;
use reqwest::header::{ACCEPT, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// More than any answer of the API: a page of 500 events is a tenth of it.
const ANSWER_LIMIT: usize = 16 * 1024 * 1024;

/// How long a long answer may take as a whole.
const LONG: Duration = Duration::from_hours(7 * 24);
/// How long it may pause: a busy database has something to do between two parts.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a change is built on (RFC 9110, section 13.1).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Expects {
    /// Whatever is there.
    #[default]
    Anything,
    /// Nothing of that name.
    Nothing,
    /// What was read, of this revision; 0 is that of what was never made.
    Revision(u64),
}

impl From<Option<u64>> for Expects {
    /// What was read, where the answer said of which revision it is.
    fn from(revision: Option<u64>) -> Self {
        revision.map_or(Self::Anything, Self::Revision)
    }
}

/// On what terms a call is made.
#[derive(Debug, Clone, Copy, Default)]
struct Terms<'a> {
    expects: Expects,
    /// By which the same call is known again.
    key: Option<&'a str>,
}

/// One control plane, and the token for it.
#[derive(Debug)]
pub(crate) struct ControlPlane {
    http: reqwest::Client,
    endpoint: Endpoint,
    authorization: HeaderValue,
    timeout: Duration,
    waits: Option<Waits>,
}

/// How long a run may wait in all, where it is told to, in seconds.
const WAITS: u32 = 600;

/// The waits of a run of many calls.
#[derive(Debug)]
struct Waits {
    /// In seconds.
    left: AtomicU32,
    /// Where they are told.
    output: Output,
}

impl Waits {
    /// Waits so many seconds; false if that would be too long.
    async fn wait(&self, seconds: u32) -> bool {
        let left = self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(seconds));
        if left.is_err() {
            return false;
        }
        if !self.output.is_json() {
            self.output.note(&format!("Too many calls: going on in {seconds} s, as the control plane asks."));
        }
        tokio::time::sleep(Duration::from_secs(seconds.into())).await;
        true
    }
}

impl ControlPlane {
    /// Reads URL, token and trust from the options and the environment.
    ///
    /// # Errors
    /// [`ControlPlaneError`] if one of them is missing or unfit.
    pub(crate) fn new(global: &Global, output: &Output) -> Result<Self, ControlPlaneError> {
        let endpoint = Endpoint::parse(global.control_plane.as_deref())?;
        let authorization = endpoint::authorization(global.token_file.as_deref(), output)?;
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(global.timeout.min(Duration::from_secs(5)))
            .timeout(global.timeout)
            .https_only(!endpoint.is_loopback())
            .user_agent(concat!("bouncerctl/", env!("CARGO_PKG_VERSION")));
        if endpoint.is_loopback() {
            // A proxy would be another machine.
            builder = builder.no_proxy();
        }
        if let Some(path) = &global.ca_file {
            builder = builder.tls_certs_only(endpoint::certificates(path)?);
        }
        let http = builder.build().map_err(|source| ControlPlaneError::Client { source })?;
        Ok(Self { http, endpoint, authorization, timeout: global.timeout, waits: None })
    }

    /// The same, for many calls: where it is asked to wait (429, Retry-After) it does, 600 s in all, and calls again.
    pub(crate) fn waiting_as_told(self, output: &Output) -> Self {
        let waits = Waits { left: AtomicU32::new(WAITS), output: *output };
        Self { waits: Some(waits), ..self }
    }

    /// The same control plane, as the bearer of another token.
    ///
    /// # Errors
    /// [`ControlPlaneError::BadToken`] if it is none.
    pub(crate) fn bearing(&self, token: &str) -> Result<Self, ControlPlaneError> {
        Ok(Self {
            http: self.http.clone(),
            endpoint: self.endpoint.clone(),
            authorization: endpoint::bearer(token)?,
            timeout: self.timeout,
            waits: None,
        })
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`ControlPlaneError`]: not reached, refused, or an answer that is none of the API's.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, ControlPlaneError> {
        self.call(Method::GET, path, None).await
    }

    /// `GET path?query`.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn query(&self, path: &str, query: &[(&str, String)]) -> Result<Value, ControlPlaneError> {
        self.call(Method::GET, &self.endpoint.with_query(path, query), None).await
    }

    /// `GET path?query`, for a long answer: read it with [`Self::chunk`].
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn open(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> Result<reqwest::Response, ControlPlaneError> {
        let request = self
            .http
            .get(self.endpoint.url(&self.endpoint.with_query(path, query))?)
            .header(reqwest::header::AUTHORIZATION, self.authorization.clone())
            .timeout(LONG);
        let timed_out = |_| ControlPlaneError::Timeout { origin: self.endpoint.origin() };
        let sent = tokio::time::timeout(self.timeout, request.send()).await.map_err(timed_out)?;
        let response = sent.map_err(|source| self.not_reached(source))?;
        let status = response.status();
        if status == StatusCode::OK {
            return Ok(response);
        }
        match self.answer(response).await {
            Err(error) => Err(error),
            Ok(_) => Err(ControlPlaneError::NotTheApi { origin: self.endpoint.origin(), status }),
        }
    }

    /// The next piece of a long answer; `None` at its end.
    ///
    /// # Errors
    /// [`ControlPlaneError`] if it breaks off, or nothing comes for a while.
    pub(crate) async fn chunk(
        &self,
        response: &mut reqwest::Response,
    ) -> Result<Option<impl AsRef<[u8]> + use<>>, ControlPlaneError> {
        let timed_out = |_| ControlPlaneError::Timeout { origin: self.endpoint.origin() };
        let patience = self.timeout.max(PATIENCE);
        let chunk = tokio::time::timeout(patience, response.chunk()).await.map_err(timed_out)?;
        chunk.map_err(|source| self.not_reached(source))
    }

    /// `POST path` with a body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ControlPlaneError> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// `POST path` for something new, under a key of its own: if the connection breaks without an answer it is sent once
    /// more, and happens once.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn register(&self, path: &str, body: &Value, on: Expects) -> Result<Value, ControlPlaneError> {
        let key = uuid::Uuid::new_v4().to_string();
        let terms = Terms { expects: on, key: Some(&key) };
        match self.send(Method::POST, path, Some(body), terms).await {
            Err(error) if error.broke() => self.send(Method::POST, path, Some(body), terms).await,
            other => other,
        }
    }

    /// A change with a body, if what it changes is as it was read.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn change(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        on: Expects,
    ) -> Result<Value, ControlPlaneError> {
        self.send(method, path, Some(body), Terms { expects: on, key: None }).await
    }

    /// `PUT path` with a body.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value, ControlPlaneError> {
        self.call(Method::PUT, path, Some(body)).await
    }

    /// `DELETE path`, if what it removes is as it was read.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub(crate) async fn delete(&self, path: &str, on: Expects) -> Result<Value, ControlPlaneError> {
        self.send(Method::DELETE, path, None, Terms { expects: on, key: None }).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, ControlPlaneError> {
        self.send(method, path, body, Terms::default()).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        terms: Terms<'_>,
    ) -> Result<Value, ControlPlaneError> {
        loop {
            let answer = self.send_once(method.clone(), path, body, terms).await;
            let asked = answer.as_ref().err().and_then(ControlPlaneError::asks_to_wait);
            match (asked, &self.waits) {
                (Some(seconds), Some(waits)) if waits.wait(seconds).await => {}
                _ => return answer,
            }
        }
    }

    async fn send_once(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        terms: Terms<'_>,
    ) -> Result<Value, ControlPlaneError> {
        let mut request = self
            .http
            .request(method, self.endpoint.url(path)?)
            .header(reqwest::header::AUTHORIZATION, self.authorization.clone())
            .header(ACCEPT, "application/json, application/problem+json");
        request = match terms.expects {
            Expects::Anything => request,
            // Nothing that was never made has a revision.
            Expects::Revision(0) | Expects::Nothing => request.header(IF_NONE_MATCH, "*"),
            Expects::Revision(revision) => request.header(IF_MATCH, format!("\"r{revision}\"")),
        };
        if let Some(key) = terms.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let sent = request.send().await.map_err(|source| self.not_reached(source))?;
        self.answer(sent).await
    }

    fn not_reached(&self, source: reqwest::Error) -> ControlPlaneError {
        ControlPlaneError::not_reached(self.endpoint.origin(), source)
    }

    async fn answer(&self, mut response: reqwest::Response) -> Result<Value, ControlPlaneError> {
        let status = response.status();
        let retry_after =
            response.headers().get(reqwest::header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = body_of(&mut response, ANSWER_LIMIT).await.map_err(|source| self.not_reached(source))?;
        let Some(body) = body else {
            return Err(ControlPlaneError::NotTheApi { origin: self.endpoint.origin(), status });
        };
        if status == StatusCode::NO_CONTENT || (status.is_success() && body.is_empty()) {
            return Ok(Value::Null);
        }
        let json: Option<Value> = serde_json::from_slice(&body).ok();
        match (status.is_success(), json) {
            (true, Some(json)) if status == StatusCode::ACCEPTED => {
                Err(ControlPlaneError::Waits { proposal: Box::new(json) })
            }
            (true, Some(json)) => Ok(json),
            (false, json) if status.is_client_error() || status.is_server_error() => {
                let problem = Box::new(json.map(|json| Problem::read(&json)).unwrap_or_default());
                Err(ControlPlaneError::refused(self.endpoint.origin(), status, problem, retry_after))
            }
            _ => Err(ControlPlaneError::NotTheApi { origin: self.endpoint.origin(), status }),
        }
    }
}

/// An answer's body; `None` if it is longer than `limit` bytes.
///
/// # Errors
/// If it can't be read to its end.
pub(crate) async fn body_of(response: &mut reqwest::Response, limit: usize) -> reqwest::Result<Option<Vec<u8>>> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > limit {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// One segment of a path, escaped: an id or a name from the command line.
pub(crate) fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    // A segment of dots alone is a step up, however it is written.
    if text == "." || text == ".." { escaped.replace('.', "%252E") } else { escaped }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_stays_one_segment() {
        assert_eq!(segment("flags.crypto.x"), "flags.crypto.x");
        assert_eq!(segment("../tokens?x#y"), "..%2Ftokens%3Fx%23y");
        assert_eq!(segment(".."), "%252E%252E");
    }
}
