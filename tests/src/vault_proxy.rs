//! Stands between the resolver and OpenBao, in plain HTTP for `--dev`: keeps what was asked, and answers in its place.

use crate::plain_http::PlainHttp;
use crate::{Fault, Result, fault::Doing as _};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use std::sync::{Arc, Mutex, PoisonError};

/// What happens to calls for secrets. Logins and token calls go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Behaviour {
    /// They go through.
    Forward,
    /// This status, with an empty list of errors.
    Fail(u16),
    /// A redirect to this base URL.
    Redirect(String),
}

/// One call that arrived.
#[derive(Debug, Clone)]
pub struct Call {
    /// The path below `/v1/`.
    pub path: String,
    /// `X-Vault-Token`.
    pub token: Option<String>,
    /// The request id in Vault's answer.
    pub request_id: Option<String>,
}

struct State {
    target: Option<String>,
    http: reqwest::Client,
    calls: Mutex<Vec<Call>>,
    behaviour: Mutex<Behaviour>,
}

/// A running proxy.
pub struct VaultProxy {
    server: PlainHttp,
    state: Arc<State>,
}

impl VaultProxy {
    /// Starts it in front of a server with a certificate of `ca`.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(target: &str, ca: &str) -> Result<Self> {
        Self::serve(Some(target.to_owned()), &[reqwest::Certificate::from_pem(ca.as_bytes())?]).await
    }

    /// One in front of nothing, which answers 404: a stranger's server.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn stranger() -> Result<Self> {
        Self::serve(None, &[]).await
    }

    async fn serve(target: Option<String>, roots: &[reqwest::Certificate]) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().tls_certs_only(roots.iter().cloned()).build()?;
        let state =
            Arc::new(State { target, http, calls: Mutex::default(), behaviour: Mutex::new(Behaviour::Forward) });
        let server = PlainHttp::start(Arc::clone(&state), respond).await?;
        Ok(Self { server, state })
    }

    /// Its base URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.server.endpoint()
    }

    /// Sets what happens to calls for secrets.
    pub fn behave(&self, behaviour: Behaviour) {
        *self.state.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    /// All calls that arrived, whatever became of them.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many calls arrived whose path holds `part`.
    #[must_use]
    pub fn count(&self, part: &str) -> usize {
        self.calls().iter().filter(|call| call.path.contains(part)).count()
    }

    /// Forgets the calls so far.
    pub fn reset(&self) {
        self.state.calls.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

async fn respond(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.doing("the request's body")?.to_bytes();
    let path = parts.uri.path().trim_start_matches("/v1/").to_owned();
    let token = parts.headers.get("x-vault-token").and_then(|token| token.to_str().ok()).map(str::to_owned);
    let behaviour = state.behaviour.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let for_secret = !path.starts_with("auth/");
    let answer = match (&state.target, behaviour) {
        (Some(_), Behaviour::Fail(status)) if for_secret => empty(StatusCode::from_u16(status)?),
        (Some(_), Behaviour::Redirect(to)) if for_secret => {
            let mut answer = empty(StatusCode::TEMPORARY_REDIRECT);
            answer.headers_mut().insert(header::LOCATION, format!("{to}{}", parts.uri.path()).parse()?);
            answer
        }
        (Some(target), _) => {
            let url = format!("{target}{}", parts.uri.path());
            forward(&state.http, url, parts.method, parts.headers, body).await?
        }
        (None, _) => empty(StatusCode::NOT_FOUND),
    };
    let said = answer.body().clone().collect().await?.to_bytes();
    let said: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
    let request_id = said["request_id"].as_str().map(str::to_owned);
    state.calls.lock().unwrap_or_else(PoisonError::into_inner).push(Call { path, token, request_id });
    Ok(answer)
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(Bytes::from_static(br#"{"errors":[]}"#)));
    *answer.status_mut() = status;
    answer
}

async fn forward(
    http: &reqwest::Client,
    url: String,
    method: http::Method,
    mut headers: HeaderMap,
    body: Bytes,
) -> Result<Response<Full<Bytes>>> {
    headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    let answer = http.request(method, url).headers(headers).body(body).send().await.map_err(|_| Fault::new("gone"))?;
    let status = answer.status();
    let mut response = Response::new(Full::new(answer.bytes().await?));
    *response.status_mut() = status;
    Ok(response)
}
