//! Stands between the resolver and KMS: counts calls by operation, and delays, holds, refuses or fails them.

use crate::plain_http::PlainHttp;
use crate::sts::{Refusal, Trust};
use crate::{Fault, Result, fault::Doing as _};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// What happens to the calls of one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// They go through.
    Forward,
    /// They go through after a while.
    Delay(Duration),
    /// They wait until the operation behaves otherwise.
    Hold,
    /// The connection ends without an answer.
    Refuse,
    /// AWS answers with an error of this status and code.
    Fail(u16, &'static str),
    /// The same, in AWS's words: where those tell two errors of one code apart.
    Say(u16, &'static str, &'static str),
    /// So many go through per second, and one second's worth at once; the others are throttled.
    Quota(u32),
}

/// One call that arrived.
#[derive(Debug, Clone)]
pub struct Call {
    /// `Decrypt`, `AssumeRoleWithWebIdentity` and so on.
    pub operation: String,
    /// When.
    pub at: Instant,
    /// The body: JSON for KMS, a form for STS. Never a plaintext, since only requests are kept.
    pub body: Bytes,
}

struct State {
    target: String,
    http: reqwest::Client,
    calls: Mutex<Vec<Call>>,
    behaviours: watch::Sender<HashMap<String, Behaviour>>,
    disabled_keys: Mutex<HashSet<String>>,
    quotas: Mutex<HashMap<String, (f64, Instant)>>,
    trust: Mutex<Option<Trust>>,
}

/// A running proxy.
pub struct KmsProxy {
    server: PlainHttp,
    state: Arc<State>,
}

impl KmsProxy {
    /// Starts it in front of `target`, a base URL.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start(target: &str) -> Result<Self> {
        let state = Arc::new(State {
            target: target.to_owned(),
            http: reqwest::Client::builder().no_proxy().build()?,
            calls: Mutex::default(),
            behaviours: watch::Sender::default(),
            disabled_keys: Mutex::default(),
            quotas: Mutex::default(),
            trust: Mutex::default(),
        });
        let server = PlainHttp::start(Arc::clone(&state), respond).await?;
        Ok(Self { server, state })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Its base URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.server.endpoint()
    }

    /// Sets what happens to the calls of an operation; held ones follow at once.
    pub fn behave(&self, operation: &str, behaviour: Behaviour) {
        self.state.behaviours.send_modify(|all| {
            all.insert(operation.to_owned(), behaviour);
        });
    }

    /// Answers as AWS does for a disabled key, which moto goes on decrypting with.
    pub fn set_key_enabled(&self, key_arn: &str, enabled: bool) {
        let mut disabled = self.state.disabled_keys.lock().unwrap_or_else(PoisonError::into_inner);
        if enabled {
            disabled.remove(key_arn)
        } else {
            disabled.insert(key_arn.to_owned())
        };
    }

    /// From now on a web identity buys credentials only where this says so.
    pub fn trust(&self, trust: Trust) {
        *self.state.trust.lock().unwrap_or_else(PoisonError::into_inner) = Some(trust);
    }

    /// All calls that arrived, whatever became of them.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.state.calls().clone()
    }

    /// How many calls of an operation arrived.
    #[must_use]
    pub fn count(&self, operation: &str) -> usize {
        self.state.calls().iter().filter(|call| call.operation == operation).count()
    }

    /// Forgets the calls so far.
    pub fn reset(&self) {
        self.state.calls().clear();
    }
}

impl State {
    fn calls(&self) -> MutexGuard<'_, Vec<Call>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the operation behaves now, once it does not hold calls.
    async fn behaviour(&self, operation: &str) -> Behaviour {
        let mut behaviours = self.behaviours.subscribe();
        let of = |all: &HashMap<String, Behaviour>| all.get(operation).copied().unwrap_or(Behaviour::Forward);
        match behaviours.wait_for(|all| of(all) != Behaviour::Hold).await {
            Ok(all) => of(&all),
            Err(_) => Behaviour::Refuse,
        }
    }

    /// Whether a call is within the operation's quota; if so, it is counted.
    fn is_within(&self, operation: &str, per_second: u32) -> bool {
        let (now, most) = (Instant::now(), f64::from(per_second));
        let mut quotas = self.quotas.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, at) = quotas.entry(operation.to_owned()).or_insert((most, now));
        *tokens = (*tokens + now.duration_since(*at).as_secs_f64() * most).min(most);
        *at = now;
        let is_within = *tokens >= 1.0;
        if is_within {
            *tokens -= 1.0;
        }
        is_within
    }

    fn refuses_identity(&self, form: &[u8]) -> Option<Refusal> {
        let trust = self.trust.lock().unwrap_or_else(PoisonError::into_inner);
        trust.as_ref().and_then(|trust| trust.check(form).err())
    }

    /// Whether a KMS call names a key that is disabled.
    fn key_is_disabled(&self, body: &[u8]) -> bool {
        let json = serde_json::from_slice::<serde_json::Value>(body).unwrap_or_default();
        let disabled = self.disabled_keys.lock().unwrap_or_else(PoisonError::into_inner);
        json["KeyId"].as_str().is_some_and(|key| disabled.contains(key))
    }

    async fn forward(&self, path: &str, headers: HeaderMap, body: Bytes) -> Result<Response<Full<Bytes>>> {
        let mut headers = headers;
        headers.remove(header::HOST);
        headers.remove(header::CONTENT_LENGTH);
        let url = format!("{}{path}", self.target);
        let answer = self.http.post(url).headers(headers).body(body).send().await?;
        let (status, mut answered) = (answer.status(), answer.headers().clone());
        answered.remove(header::TRANSFER_ENCODING);
        answered.remove(header::CONNECTION);
        let mut response = Response::new(Full::new(answer.bytes().await?));
        *response.status_mut() = status;
        *response.headers_mut() = answered;
        Ok(response)
    }
}

/// `X-Amz-Target` names KMS's operations; STS has them in its form.
fn operation(headers: &HeaderMap, body: &[u8]) -> String {
    if let Some(target) = headers.get("x-amz-target").and_then(|value| value.to_str().ok()) {
        return target.rsplit('.').next().unwrap_or(target).to_owned();
    }
    let form = String::from_utf8_lossy(body);
    form.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap_or("unknown").to_owned()
}

fn aws_error(operation: &str, status: u16, code: &str, message: &str) -> Result<Response<Full<Bytes>>> {
    let is_sts = operation.starts_with("AssumeRole");
    let body = if is_sts {
        let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
        format!("<ErrorResponse>{error}<RequestId>{}</RequestId></ErrorResponse>", uuid::Uuid::new_v4())
    } else {
        serde_json::json!({"__type": code, "message": message}).to_string()
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status)?;
    let kind = if is_sts { "text/xml" } else { "application/x-amz-json-1.1" };
    response.headers_mut().insert(header::CONTENT_TYPE, kind.parse()?);
    response.headers_mut().insert("x-amzn-requestid", uuid::Uuid::new_v4().to_string().parse()?);
    Ok(response)
}

/// An error ends the connection, which is what [`Behaviour::Refuse`] wants.
async fn respond(state: Arc<State>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.doing("the request's body")?.to_bytes();
    let operation = operation(&parts.headers, &body);
    state.calls().push(Call { operation: operation.clone(), at: Instant::now(), body: body.clone() });
    match state.behaviour(&operation).await {
        Behaviour::Forward => {}
        Behaviour::Delay(delay) => tokio::time::sleep_until(tokio::time::Instant::now() + delay).await,
        Behaviour::Hold | Behaviour::Refuse => return Err(Fault::new("refused")),
        Behaviour::Fail(status, code) => return aws_error(&operation, status, code, "made by a test"),
        Behaviour::Say(status, code, message) => return aws_error(&operation, status, code, message),
        Behaviour::Quota(per_second) if state.is_within(&operation, per_second) => {}
        Behaviour::Quota(_) => return aws_error(&operation, 400, "ThrottlingException", "Rate exceeded"),
    }
    if operation == "AssumeRoleWithWebIdentity"
        && let Some((status, code, message)) = state.refuses_identity(&body)
    {
        return aws_error(&operation, status, code, message);
    }
    if state.key_is_disabled(&body) {
        return aws_error(&operation, 400, "DisabledException", "made by a test");
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    state.forward(path, parts.headers, body).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_told_apart() {
        let mut headers = HeaderMap::new();
        assert_eq!(operation(&headers, b"Version=1&Action=AssumeRoleWithWebIdentity&X=1"), "AssumeRoleWithWebIdentity");
        headers.insert("x-amz-target", "TrentService.Decrypt".parse().unwrap());
        assert_eq!(operation(&headers, b""), "Decrypt");
    }
}
