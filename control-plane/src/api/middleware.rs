//! What every call passes through: a request id, the log line, the deadline, the headers of every answer. Who may make
//! which call is [`super::guard`]'s to say.
//!
//! The log line holds the route's template, never the path, the query, a header or the body.

use super::Api;
use super::guard::PUBLIC;
use super::problem::ApiError;
use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, header};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How long a call may take, its body included.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

tokio::task_local! {
    static REQUEST: Uuid;
}

/// The id of the call that this task works on.
pub(super) fn current_request() -> Option<Uuid> {
    REQUEST.try_with(|id| *id).ok()
}

/// The outermost layer.
pub(super) async fn outer(State(api): State<Api>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = Uuid::now_v7();
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().map_or("(none)", |path| path.as_str()).to_owned();
    let quiet = PUBLIC.contains(&route.as_str()) || route.starts_with(crate::console::BASE);

    let mut response = within(DEADLINE, id, next.run(request)).await;
    decorate(&mut response, id, api.tls);
    let (status, took) = (response.status().as_u16(), started.elapsed());
    api.metrics.request(&route, &method, status, took);
    let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if quiet {
        tracing::debug!(%method, route, status, took_ms, request_id = %id, "request");
    } else {
        tracing::info!(%method, route, status, took_ms, request_id = %id, "request");
    }
    response
}

/// Runs a call to its end whatever becomes of the connection, so that a commit is never torn from its announcement, and
/// answers in its place if it takes too long.
async fn within(deadline: Duration, id: Uuid, call: impl Future<Output = Response> + Send + 'static) -> Response {
    let work = tokio::spawn(REQUEST.scope(id, call));
    match tokio::time::timeout(deadline, work).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => REQUEST.sync_scope(id, || ApiError::Internal.into_response()),
        Err(_) => REQUEST.sync_scope(id, || ApiError::Timeout.into_response()),
    }
}

fn decorate(response: &mut Response, id: Uuid, tls: bool) {
    let headers = response.headers_mut();
    let fixed = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ];
    for (name, value) in fixed {
        // The console's pages say for themselves what they load and for how long they hold.
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    if tls {
        headers.insert(header::STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));
    }
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        headers.insert(REQUEST_ID, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;

    async fn code(response: Response) -> (StatusCode, String) {
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 4_096).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        (status, body["type"].as_str().unwrap().replace("urn:bouncer:problem:", ""))
    }

    #[tokio::test]
    async fn a_call_that_takes_too_long_is_answered_and_goes_on() {
        let (go_on, told) = tokio::sync::oneshot::channel::<()>();
        let (done, ended) = tokio::sync::oneshot::channel();
        let call = async {
            let _ = told.await;
            let _ = done.send(current_request());
            StatusCode::OK.into_response()
        };
        let id = Uuid::now_v7();
        let late = within(Duration::from_millis(50), id, call).await;
        assert_eq!(code(late).await, (StatusCode::SERVICE_UNAVAILABLE, "timeout".to_owned()));
        go_on.send(()).unwrap();
        assert_eq!(ended.await.unwrap(), Some(id), "it was not torn off");

        let soon = within(DEADLINE, id, async { StatusCode::OK.into_response() }).await;
        assert_eq!(soon.status(), StatusCode::OK, "the control");
        let fault = within(DEADLINE, id, async { panic!("a fault of our own") }).await;
        assert_eq!(code(fault).await.1, "internal");
    }
}
