//! Errors → responses, in one place: RFC 9457 problem details with fixed text. No value from a request is repeated.

use super::limits::TooMany;
use crate::model::Flag;
use crate::oidc::OidcError;
use crate::plaintext::Finding;
use crate::store::{Conflict, StoreError};
use axum::Json;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Duration;
use utoipa::ToSchema;
use utoipa::openapi::{self, RefOr};

/// RFC 9457 problem details, with what to do next.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Problem {
    /// Names the kind of problem: `urn:bouncer:problem:<code>`.
    #[serde(rename = "type")]
    #[schema(example = "urn:bouncer:problem:feature_disabled")]
    pub kind: String,
    /// The kind of problem, for people.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What happened, and why.
    pub detail: String,
    /// What to do about it.
    pub next: String,
    /// The request, as its `x-request-id` names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Every field that was not accepted, where fields are the problem.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    pub errors: Vec<FieldError>,
}

/// What every call may answer besides success, for the API's description.
pub(super) struct Problems;

impl utoipa::IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let problem = |why: &str| {
            let schema = openapi::Ref::from_schema_name("Problem");
            let content = openapi::ContentBuilder::new().schema(Some(schema)).build();
            openapi::ResponseBuilder::new().description(why).content("application/problem+json", content).build()
        };
        let answer = |(status, why): &(u16, &str)| (status.to_string(), problem(why).into());
        ANSWERS.iter().map(answer).collect()
    }
}

/// What any call may answer besides success, and why.
const ANSWERS: [(u16, &str); 14] = [
    (400, "The query, a header or the body is not what this call takes"),
    (401, "No token or session that is good"),
    (403, "The role, the token's paths or the feature flag do not allow it"),
    (404, "There is no such thing, or not for this caller"),
    (405, "The path has no such method"),
    (408, "The body did not come in time"),
    (409, "It contradicts what is registered"),
    (412, "It was changed meanwhile, by the entity tag of the condition"),
    (413, "The body is too large"),
    (415, "The body is not declared as JSON"),
    (422, "Fields broke their rules, or hold what looks like a plaintext credential"),
    (429, "Too many calls; wait as Retry-After says"),
    (500, "A fault of the control plane's own"),
    (503, "The database does not answer, or the call took too long"),
];

/// A field that was not accepted, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldError {
    /// The field's name.
    pub field: String,
    /// The rule that it broke. Never its value.
    pub detail: String,
}

/// Every way in which a call can fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ApiError {
    /// No token, or none that is known.
    #[error("unauthenticated")]
    Unauthenticated,
    /// The caller's role is not enough.
    #[error("forbidden")]
    Forbidden,
    /// The caller is limited to other paths.
    #[error("out of the caller's scope")]
    OutOfScope,
    /// The token is good for one exchange only.
    #[error("a token for one use was used for another")]
    SingleUse,
    /// A call by cookie does not show that it comes from our own pages.
    #[error("no proof against cross-site request forgery")]
    Csrf,
    /// The identity provider, or what it gave.
    #[error(transparent)]
    Oidc(#[from] OidcError),
    /// The caller calls too often; wait so long.
    #[error("too many calls")]
    TooMany(TooMany),
    /// Who proposed a change, or may be the same person, decides on it.
    #[error("not a second person")]
    OwnProposal,
    /// Somebody else's proposal is taken back.
    #[error("not the author of the proposal")]
    NotTheAuthor,
    /// What the proposal was built on was changed.
    #[error("the proposal is stale")]
    ProposalStale,
    /// The token that proposed it was revoked.
    #[error("the proposal's author is gone")]
    AuthorGone,
    /// A flag is off.
    #[error("the flag {} is off", .0.name())]
    FeatureDisabled(Flag),
    /// A field holds what looks like a plaintext credential.
    #[error("plaintext in a request")]
    Plaintext(Finding),
    /// Fields broke their rules.
    #[error("invalid fields")]
    Invalid(Vec<FieldError>),
    /// The body is no JSON of the right shape.
    #[error("malformed body")]
    Body(BodyFault),
    /// The query is not what the call takes.
    #[error("malformed query")]
    Query(&'static str),
    /// No such thing.
    #[error("not found")]
    NotFound(&'static str),
    /// No such route.
    #[error("no such route")]
    NoRoute,
    /// The route exists, the method does not.
    #[error("method not allowed")]
    Method,
    /// The call took too long.
    #[error("timed out")]
    Timeout,
    /// A fault of the control plane's own.
    #[error("internal fault")]
    Internal,
    /// The store said no, or nothing.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The operating system gave no randomness.
    #[error(transparent)]
    Randomness(#[from] crate::token::NoRandomness),
}

/// What is wrong with a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BodyFault {
    /// Not declared as JSON.
    ContentType,
    /// Longer than the limit, in bytes.
    TooLarge(usize),
    /// Broken off.
    Incomplete,
    /// Not there after so long.
    Slow(Duration),
    /// No JSON, at this line and column.
    Syntax(usize, usize),
    /// JSON, but no object.
    NotAnObject,
    /// A field that the call does not know.
    UnknownField(String),
    /// A field that is missing.
    MissingField(String),
    /// A field that stands there twice.
    DuplicateField(String),
    /// A field of another type than it should be.
    Type(String),
}

/// What kind of problem an answer is, for who asked for it within this process.
#[derive(Debug, Clone)]
pub(super) struct Kind(pub(super) String);

struct Text {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    next: String,
}

fn text(
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: impl Into<String>,
    next: impl Into<String>,
) -> Text {
    Text { status, code, title, detail: detail.into(), next: next.into() }
}

const SEE_OPENAPI: &str = "GET /openapi.json describes every call and its fields.";

impl ApiError {
    fn text(&self) -> Text {
        match self {
            Self::Unauthenticated => text(
                StatusCode::UNAUTHORIZED,
                "unauthenticated",
                "A valid bearer token is needed",
                "The call carries no bearer token that this control plane knows.",
                "Send 'Authorization: Bearer <token>'. The first token is written by 'bouncer-control-plane bootstrap \
                 --token-file PATH' and is good for one use; if it is lost, run that with '--replace-tokens'.",
            ),
            Self::Forbidden => text(
                StatusCode::FORBIDDEN,
                "forbidden",
                "The role is not enough",
                "The token's role does not allow this call.",
                "GET /v1/session shows the role and what it may do. An administrator can hand out another token.",
            ),
            Self::OutOfScope => text(
                StatusCode::FORBIDDEN,
                "out_of_scope",
                "Outside of the token's paths",
                "The token is limited to some logical paths, and the call is about others or about all of them.",
                "GET /v1/session shows the paths. Ask an administrator for a token that covers this one.",
            ),
            Self::SingleUse => text(
                StatusCode::FORBIDDEN,
                "single_use_token",
                "The token is good for one exchange",
                "The token that 'bootstrap' writes can be exchanged once, for another token or for a session, and for \
                 nothing else. It was not used up by this call.",
                "Make a token of your own: 'bouncerctl tokens create NAME --role admin --out FILE --token-file \
                 BOOTSTRAP_FILE', or sign in to the console with it.",
            ),
            Self::Csrf => text(
                StatusCode::FORBIDDEN,
                "csrf",
                "The call does not come from this site",
                "A call by cookie that changes something must carry the session's CSRF token, and come from a page of \
                 this control plane.",
                "Send the csrf_token of GET /v1/session as the header 'x-bouncer-csrf', or use a bearer token.",
            ),
            Self::Oidc(OidcError::NoRole) => text(
                StatusCode::FORBIDDEN,
                "no_role",
                "Nobody that may do anything here",
                "The identity provider vouches for the caller, but none of [[oidc.roles]] stands for what it says of them.",
                "Ask an administrator for the group that they map to a role, or to map yours.",
            ),
            Self::Oidc(OidcError::Refused(_)) => Self::Unauthenticated.text(),
            Self::Oidc(_) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "identity_provider_unavailable",
                "The identity provider cannot be asked",
                "The issuer of oidc.issuer does not answer as it should, so nobody can be identified by it.",
                "Try again shortly, or use an API token. The control plane's log says what is wrong.",
            ),
            Self::TooMany(_) => text(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_requests",
                "Too many calls",
                "The caller makes more calls than api.requests_per_second allows, presents many tokens that are none, or \
                 signs in by the identity provider too often.",
                "Wait as long as Retry-After says. Ask for pages of 500 instead of many small ones.",
            ),
            Self::FeatureDisabled(flag) => text(
                StatusCode::FORBIDDEN,
                "feature_disabled",
                "The feature flag is off",
                format!("The flag {} is off, so every /v1/crypto call is refused.", flag.name()),
                format!("Turn it on: PUT /v1/feature-flags/{} with the body {{\"enabled\":true}}.", flag.name()),
            ),
            Self::OwnProposal => text(
                StatusCode::FORBIDDEN,
                "own_proposal",
                "Not a second person",
                "The caller proposed the change, or may be the same person: one of the two tokens was handed out by the \
                 bearer of the other, or both by one person.",
                "Let somebody else decide, whose token does not come from either. To take it back: DELETE of the proposal.",
            ),
            Self::NotTheAuthor => text(
                StatusCode::FORBIDDEN,
                "not_the_author",
                "Somebody else's proposal",
                "Only who proposed a change can take it back.",
                "Reject it: POST /v1/proposals/{id}/reject.",
            ),
            Self::ProposalStale => text(
                StatusCode::PRECONDITION_FAILED,
                "proposal_stale",
                "It was changed meanwhile",
                "What the proposal was built on was changed since, or is gone. Nothing was changed; the proposal is over.",
                "Look at what is registered now, and propose the change again if it is still wanted.",
            ),
            Self::AuthorGone => text(
                StatusCode::CONFLICT,
                "author_gone",
                "The author's token was revoked",
                "The token that proposed the change was revoked since. Nothing was changed.",
                "Reject the proposal; whoever wants the change proposes it again.",
            ),
            Self::Plaintext(finding) => text(
                StatusCode::UNPROCESSABLE_ENTITY,
                "plaintext_refused",
                "Plaintext credentials are refused",
                format!(
                    "The field '{}' looks like {}. It was neither stored nor logged.",
                    finding.field,
                    finding.kind.description()
                ),
                "The control plane takes envelope metadata only. Wrap the credential under your own key with \
                 'bouncerctl wrap' and register the result. Treat what was sent here as exposed, and rotate it. If it is a \
                 ciphertext already, which looks like this by chance, wrap its credential once more.",
            ),
            Self::Invalid(errors) => text(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_fields",
                "Fields are not valid",
                format!("{} of the body's fields broke a rule; 'errors' names each.", errors.len()),
                "Correct the fields and send the call again. Nothing was changed.",
            ),
            Self::Body(fault) => fault.text(),
            Self::Query(detail) => {
                text(StatusCode::BAD_REQUEST, "invalid_query", "The query is not valid", *detail, SEE_OPENAPI)
            }
            Self::NotFound(what) => text(
                StatusCode::NOT_FOUND,
                "not_found",
                "Not found",
                format!("There is no such {what}."),
                format!("List what there is with a GET of the collection, or register the {what} first."),
            ),
            Self::NoRoute => {
                text(StatusCode::NOT_FOUND, "no_such_route", "No such call", "The API has no such path.", SEE_OPENAPI)
            }
            Self::Method => text(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "Method not allowed",
                "The API has this path, but not this method on it.",
                SEE_OPENAPI,
            ),
            Self::Timeout => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "timeout",
                "The call took too long",
                "The call was not finished within its deadline. A change may or may not have been made.",
                "Read back what you meant to change, then try again.",
            ),
            Self::Internal => internal(),
            Self::Store(error) => store_text(error),
            Self::Randomness(_) => unavailable("The operating system gave no random bytes."),
        }
    }

    /// The problem, as it is written.
    #[must_use]
    pub fn problem(&self) -> (StatusCode, Problem) {
        let text = self.text();
        let errors = if let Self::Invalid(errors) = self { errors.clone() } else { Vec::new() };
        let problem = Problem {
            kind: format!("urn:bouncer:problem:{}", text.code),
            title: text.title,
            status: text.status.as_u16(),
            detail: text.detail,
            next: text.next,
            instance: super::middleware::current_request().map(|id| format!("urn:uuid:{id}")),
            errors,
        };
        (text.status, problem)
    }
}

fn internal() -> Text {
    text(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal",
        "A fault of the control plane's own",
        "The call ran into a fault. A change may or may not have been made.",
        "Read back what you meant to change. The log has more under this request's id.",
    )
}

fn unavailable(detail: &str) -> Text {
    text(
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        "The control plane cannot answer right now",
        format!("{detail} Nothing that was acknowledged is lost."),
        "Try again shortly. If it lasts, look at the control plane's log, and at the disk that holds its database.",
    )
}

fn store_text(error: &StoreError) -> Text {
    match error {
        StoreError::NotFound => text(
            StatusCode::NOT_FOUND,
            "not_found",
            "Not found",
            "There is no such thing, or it was deleted.",
            "List what there is with a GET of the collection.",
        ),
        StoreError::Conflict(conflict) => conflict_text(*conflict),
        StoreError::Corrupt(_) => unavailable("The database holds a row that is not valid."),
        StoreError::OtherSchema(_) | StoreError::Newer { .. } => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "The control plane cannot answer right now",
            "The database has not the schema that this control plane knows. Nothing that was acknowledged is lost.",
            "Look at /readyz. If a newer version has upgraded the database, stop this control plane and start the newer \
             version; if a backup is being restored, try again when it is.",
        ),
        StoreError::Unavailable(_) | StoreError::Migration(_) | StoreError::OutOfRange => {
            unavailable("The database did not answer as it should.")
        }
    }
}

fn conflict_text(conflict: Conflict) -> Text {
    let (code, detail, next) = match conflict {
        Conflict::NameTaken => (
            "name_taken",
            "Something else is registered under this name.",
            "Choose another name, or change or delete the existing registration.",
        ),
        Conflict::SpiffeIdTaken => (
            "spiffe_id_taken",
            "The SPIFFE ID is registered for another bouncer; one identity is one bouncer.",
            "Give this bouncer's resolver an SVID of its own, or delete the other registration.",
        ),
        Conflict::IamRoleTaken => (
            "iam_role_taken",
            "The IAM role is registered for another bouncer; one identity is one bouncer.",
            "Give this bouncer's resolver a role of its own, or delete the other registration.",
        ),
        Conflict::NoSuchBouncer => (
            "no_such_bouncer",
            "The protected resource names a bouncer that is not registered.",
            "Register the bouncer first: POST /v1/bouncers with its name and its SPIFFE ID or IAM role.",
        ),
        Conflict::BouncerInUse => (
            "bouncer_in_use",
            "The bouncer still guards protected resources.",
            "Delete those first: GET /v1/protected-resources shows which name it.",
        ),
        Conflict::OtherGeneration => (
            "generation_taken",
            "The registration would not get the generation that it names: something else was registered under this \
             logical path, or it never had that many. Nothing was stored.",
            "Look at the newest generation (GET of the collection), build on that one, and register with its successor.",
        ),
        Conflict::AlreadyBootstrapped => (
            "already_bootstrapped",
            "The database has its first token already.",
            "Use that token, or make another with POST /v1/tokens.",
        ),
        Conflict::LastToken => (
            "last_token",
            "This is the last token of an administrator; without it nobody could administer the control plane.",
            "Make another with POST /v1/tokens first.",
        ),
        Conflict::TokenTaken => (
            "token_taken",
            "A token of this hash was made before: by somebody else, on other terms, or it was revoked or has ended.",
            "Make a fresh token of 256 random bits, and send its hash.",
        ),
        Conflict::BoundToGeneration => (
            "bound_to_generation",
            "The AAD of that generation names its number, so that its content can be no other generation.",
            "Wrap it again for the next number, inside your KMS: 'bouncerctl secrets rollback' does both.",
        ),
        Conflict::ProposalDecided => (
            "proposal_decided",
            "The proposal does not wait any more: it was decided, taken back or overtaken, or its time is over.",
            "GET /v1/proposals/{id} shows what became of it.",
        ),
        Conflict::TooManyProposals => (
            "too_many_proposals",
            "1,000 proposals wait already.",
            "Decide on some of them first: GET /v1/proposals?state=pending.",
        ),
        Conflict::TokenSpent => return ApiError::Unauthenticated.text(),
        Conflict::ChangedMeanwhile => {
            return text(
                StatusCode::PRECONDITION_FAILED,
                "changed_meanwhile",
                "It was changed meanwhile",
                "What the call wanted to change is not of the revision that If-Match names. Nothing was changed.",
                "Read it again, look at what is different, and send the change with the new entity tag.",
            );
        }
        Conflict::KeyReused => {
            return text(
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "The idempotency key belongs to another call",
                "The Idempotency-Key came with another call of yours within the last day. Nothing was changed.",
                "Choose a new random key for each call, and send it again only with the very same call.",
            );
        }
    };
    text(StatusCode::CONFLICT, code, "The change contradicts what is registered", detail, next)
}

impl BodyFault {
    fn text(&self) -> Text {
        let malformed = |detail: String| {
            text(StatusCode::BAD_REQUEST, "malformed_body", "The body is not what this call takes", detail, SEE_OPENAPI)
        };
        match self {
            Self::ContentType => text(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "unsupported_media_type",
                "The body must be JSON",
                "The call does not say that its body is JSON.",
                "Send the header 'Content-Type: application/json'.",
            ),
            Self::TooLarge(limit) => text(
                StatusCode::PAYLOAD_TOO_LARGE,
                "body_too_large",
                "The body is too large",
                format!("Bodies are at most {limit} bytes."),
                "The longest envelope is 95,628 bytes in base64; leave out what does not belong in the call.",
            ),
            Self::Slow(deadline) => text(
                StatusCode::REQUEST_TIMEOUT,
                "body_timeout",
                "The body did not come in time",
                format!("The body was not complete within {} s. Nothing was changed.", deadline.as_secs()),
                "Send the whole body at once. If it was, look at the network in between.",
            ),
            Self::Incomplete => malformed("The body ended before it was complete.".into()),
            Self::Syntax(line, column) => malformed(format!("The body is not JSON at line {line}, column {column}.")),
            Self::NotAnObject => malformed("The body must be a JSON object.".into()),
            Self::UnknownField(field) => {
                malformed(format!("The body has a field '{field}' that this call does not know."))
            }
            Self::MissingField(field) => malformed(format!("The body lacks the field '{field}'.")),
            Self::DuplicateField(field) => malformed(format!("The body has the field '{field}' twice.")),
            Self::Type(field) => malformed(format!("The field '{field}' is of the wrong JSON type.")),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, problem) = self.problem();
        if status.is_server_error() {
            // The source names the fault of the database or the system, and holds nothing of the request.
            let source = std::error::Error::source(&self).map(ToString::to_string);
            tracing::error!(error = %self, source = source.as_deref().unwrap_or_default(), "a call failed");
        }
        let kind = Kind(problem.kind.clone());
        let mut response = (status, Json(problem)).into_response();
        response.extensions_mut().insert(kind);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self {
            Self::Unauthenticated
            | Self::Oidc(OidcError::Refused(_))
            | Self::Store(StoreError::Conflict(Conflict::TokenSpent)) => {
                let challenge = HeaderValue::from_static("Bearer realm=\"bouncer\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            Self::TooMany(TooMany(wait)) => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs() + 1));
            }
            Self::Store(StoreError::Unavailable(_)) | Self::Timeout => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response
    }
}
