//! Strict bodies and queries. The framework's own extractors repeat parts of the request in their errors; these never do,
//! and they look for plaintext credentials before anything else sees a body.

use super::middleware::DEADLINE;
use super::problem::{ApiError, BodyFault};
use super::{Api, page};
use crate::edit::IdempotencyKey;
use crate::plaintext;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::header;
use http::request::Parts;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// The longest body, in bytes: the longest envelope in base64 (95,628) with a long chain beside it.
pub const BODY_LIMIT: usize = 192 * 1024;

/// How long a body may take to come. Shorter than the call may take, so that the answer can say that this was it.
const BODY_DEADLINE: Duration = Duration::from_secs(8);
const _: () = assert!(BODY_DEADLINE.as_secs() < DEADLINE.as_secs());

/// A JSON body of at most 192 KiB, without unknown fields and without anything that looks like a plaintext credential.
#[derive(Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Api> for Body<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let bytes = read(request, BODY_DEADLINE).await?;
        parse(&bytes).map(Self).inspect_err(|error| note_plaintext(api, error))
    }
}

fn note_plaintext(api: &Api, error: &ApiError) {
    if let ApiError::Plaintext(finding) = error {
        api.metrics.plaintext_refused(finding.kind);
        tracing::warn!(
            field = %finding.field,
            looks_like = finding.kind.description(),
            "refused a plaintext credential; it was not stored"
        );
    }
}

/// A [`Body`], and the key by which the same call is known again, if the caller chose one.
#[derive(Debug)]
pub struct Keyed<T>(pub T, pub Option<IdempotencyKey>);

impl<T: DeserializeOwned> FromRequest<Api> for Keyed<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let key = idempotency_key(request.headers())?;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let bytes = read(request, BODY_DEADLINE).await?;
        let body = parse(&bytes).inspect_err(|error| note_plaintext(api, error))?;
        Ok(Self(body, key.map(|key| IdempotencyKey::of(&key, method.as_str(), &path, &bytes))))
    }
}

fn idempotency_key(headers: &http::HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    // A structured field's string is quoted; most callers leave the quotes out.
    let key = value.to_str().map(|key| key.trim_matches('"').to_owned()).unwrap_or_default();
    if IdempotencyKey::LENGTHS.contains(&key.len()) && plaintext::find(&key).is_none() {
        Ok(Some(key))
    } else {
        Err(ApiError::Query("Idempotency-Key must be 8 to 255 visible ASCII characters, such as a random UUID."))
    }
}

async fn read(request: Request, deadline: Duration) -> Result<axum::body::Bytes, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|value| value.split(';').next()).map(str::trim);
    if !essence.is_some_and(|essence| essence.eq_ignore_ascii_case("application/json")) {
        return Err(ApiError::Body(BodyFault::ContentType));
    }
    let declared = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if declared.and_then(|value| value.parse::<usize>().ok()).is_some_and(|length| length > BODY_LIMIT) {
        return Err(ApiError::Body(BodyFault::TooLarge(BODY_LIMIT)));
    }
    let body = axum::body::to_bytes(request.into_body(), BODY_LIMIT);
    let body = tokio::time::timeout(deadline, body).await.map_err(|_| ApiError::Body(BodyFault::Slow(deadline)))?;
    body.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        let mut too_large = false;
        while let Some(cause) = source {
            too_large |= cause.is::<http_body_util::LengthLimitError>();
            source = cause.source();
        }
        ApiError::Body(if too_large { BodyFault::TooLarge(BODY_LIMIT) } else { BodyFault::Incomplete })
    })
}

/// Parses a body: plaintext first, then the shape.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    let value: Value = serde_json::from_slice(bytes)
        .map_err(|error| ApiError::Body(BodyFault::Syntax(error.line(), error.column())))?;
    if let Some(finding) = plaintext::find_in(&value) {
        return Err(ApiError::Plaintext(finding));
    }
    if !value.is_object() {
        return Err(ApiError::Body(BodyFault::NotAnObject));
    }
    serde_json::from_slice(bytes).map_err(|error| ApiError::Body(shape_fault::<T>(&error, &value)))
}

/// Names the field that a body got wrong. serde's own message may hold its value, so only the names in it are used,
/// and of those only the ones that look like ours.
fn shape_fault<T: DeserializeOwned>(error: &serde_json::Error, value: &Value) -> BodyFault {
    let message = error.to_string();
    let named = |prefix: &str| {
        let rest = message.strip_prefix(prefix)?.strip_prefix(" field `")?;
        rest.split('`').next().map(|name| plaintext::speakable(name).to_owned())
    };
    if let Some(field) = named("unknown") {
        return BodyFault::UnknownField(field);
    }
    if let Some(field) = named("missing") {
        return BodyFault::MissingField(field);
    }
    if let Some(field) = named("duplicate") {
        return BodyFault::DuplicateField(field);
    }
    // A type error names no field: the one that fails alone, other than for want of the others, is it.
    let culprit = value.as_object().into_iter().flatten().find(|(name, item)| {
        let alone = Value::Object([((*name).clone(), (*item).clone())].into_iter().collect());
        serde_json::from_value::<T>(alone).err().is_some_and(|error| !error.to_string().starts_with("missing field"))
    });
    BodyFault::Type(culprit.map_or("(unnamed)", |(name, _)| plaintext::speakable(name)).to_owned())
}

/// A query without unknown parameters.
#[derive(Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        axum::extract::Query::<T>::try_from_uri(&parts.uri).map(|query| Self(query.0)).map_err(|_| {
            ApiError::Query("The query has a parameter that this call does not know, or that is not of its form.")
        })
    }
}

/// A path parameter, parsed. What does not parse names nothing that exists.
#[derive(Debug)]
pub struct Named<T>(pub T);

impl<T: std::str::FromStr, S: Send + Sync> FromRequestParts<S> for Named<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let text = path.map_err(|_| ApiError::NotFound("name"))?.0;
        text.parse().map(Self).map_err(|_| ApiError::NotFound("name"))
    }
}

/// Where a list goes on, and how much of it is wanted.
#[derive(Debug, Default, serde::Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// At most so many items, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    pub limit: Option<u16>,
    /// `next_cursor` of the part before.
    pub cursor: Option<String>,
}

impl PageParams {
    /// The page that is asked for.
    ///
    /// # Errors
    /// [`ApiError::Query`] if the limit is out of range or the cursor is not one of ours.
    pub fn page<K: page::Cursor>(&self) -> Result<crate::store::Page<K>, ApiError> {
        page::parse(self.limit, self.cursor.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Sample {
        name: String,
        enabled: bool,
        callers: Option<Vec<String>>,
    }

    fn fault(body: &str) -> BodyFault {
        match parse::<Sample>(body.as_bytes()) {
            Err(ApiError::Body(fault)) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_body_that_does_not_come_is_not_waited_for() {
        let first = Ok::<_, std::io::Error>(axum::body::Bytes::from_static(b"{"));
        let stalled = futures::stream::iter([first]).chain(futures::stream::pending());
        let request = |body| Request::post("/").header(header::CONTENT_TYPE, "application/json").body(body).unwrap();
        let deadline = Duration::from_millis(50);
        let stalled = read(request(axum::body::Body::from_stream(stalled)), deadline).await;
        assert!(matches!(stalled, Err(ApiError::Body(BodyFault::Slow(_)))), "{stalled:?}");
        assert_eq!(read(request("{}".into()), deadline).await.unwrap(), "{}", "the control");
    }

    #[test]
    fn faults_name_fields_and_never_values() {
        assert_eq!(fault("{"), BodyFault::Syntax(1, 1));
        assert_eq!(fault("[]"), BodyFault::NotAnObject);
        assert_eq!(fault(r#"{"name":"a"}"#), BodyFault::MissingField("enabled".into()));
        assert_eq!(fault(r#"{"name":"a","enabled":true,"nmae":1}"#), BodyFault::UnknownField("nmae".into()));
        assert_eq!(fault(r#"{"name":"a","enabled":true,"S3cr3t!":1}"#), BodyFault::UnknownField("(unnamed)".into()));
        assert_eq!(fault(r#"{"name":"a","name":"b","enabled":true}"#), BodyFault::DuplicateField("name".into()));
        assert_eq!(fault(r#"{"name":"a","enabled":"hunter2"}"#), BodyFault::Type("enabled".into()));
        assert_eq!(fault(r#"{"name":"a","enabled":true,"callers":["x",7]}"#), BodyFault::Type("callers".into()));
    }
}
