//! What a change of binding came to: made, or waiting for a second person.

use super::proposals::ProposalAnswer;
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

/// An answer of a call that may have to wait.
pub(super) enum Outcome<T> {
    /// It was made.
    Done(T),
    /// It waits: 202 (RFC 9110, section 15.3.3), and where it does.
    Waits(Box<ProposalAnswer>),
}

impl<T: IntoResponse> IntoResponse for Outcome<T> {
    fn into_response(self) -> Response {
        match self {
            Self::Done(answer) => answer.into_response(),
            Self::Waits(proposal) => {
                let location = HeaderValue::try_from(format!("/v1/proposals/{}", proposal.id()));
                let mut response = (StatusCode::ACCEPTED, Json(proposal)).into_response();
                if let Ok(location) = location {
                    response.headers_mut().insert(header::LOCATION, location);
                }
                response
            }
        }
    }
}
