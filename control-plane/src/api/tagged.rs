//! Answers about one thing, with its entity tag (RFC 9110, section 8.8.3), by which a change can be made conditional.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, header};
use serde::Serialize;

/// An answer about a thing of some revision.
pub(super) struct Tagged<T> {
    /// Of the thing's last change; 0 if it was never made.
    pub(super) revision: u64,
    /// The answer.
    pub(super) body: T,
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.body).into_response();
        if let Ok(tag) = HeaderValue::try_from(format!("\"r{}\"", self.revision)) {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
}
