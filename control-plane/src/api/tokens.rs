//! API tokens: made, listed, revoked. A token's text is in the answer to its making and nowhere else.

use super::Api;
use super::extract::{Body, Named};
use super::fields::Faults;
use super::middleware::Caller;
use super::page::List;
use super::problem::{ApiError, Problems};
use crate::model::TokenRecord;
use crate::token::Token;
use axum::Json;
use axum::extract::State;
use bouncer_custody::ResourceName;
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// A new token's name.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// Stands for the token in the audit. At most 63 lower-case letters, digits and inner '-', '_', '.'.
    #[schema(example = "deploy-pipeline")]
    name: String,
}

/// A token, without its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenAnswer {
    id: Uuid,
    name: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    created_by: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
}

/// A new token, with its text.
#[derive(Serialize, ToSchema)]
pub struct NewTokenAnswer {
    #[serde(flatten)]
    record: TokenAnswer,
    /// The token. It is shown this once.
    token: String,
}

fn answer(record: TokenRecord) -> TokenAnswer {
    TokenAnswer {
        id: record.id,
        name: record.name,
        created_at: record.created.at,
        created_by: record.created.by,
        revoked_at: record.revoked,
    }
}

/// Makes another administrator's token.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "operations", operation_id = "create_token",
    request_body = TokenBody,
    responses(
        (status = 201, body = NewTokenAnswer),
        Problems,
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    Caller(actor): Caller,
    Body(body): Body<TokenBody>,
) -> Result<(StatusCode, Json<NewTokenAnswer>), ApiError> {
    let mut faults = Faults::default();
    // The same form as every other plain name; the type's own term would mislead in a message.
    if body.name.parse::<ResourceName>().is_err() {
        faults.add("name", "must be at most 63 lower-case letters, digits and inner '-', '_' or '.'");
        return Err(faults.into_error());
    }
    let token = Token::generate()?;
    let record = api.store.add_token(&body.name, &token.hash(), &actor).await?;
    let answer = NewTokenAnswer { record: answer(record), token: token.reveal().to_owned() };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// All tokens, without their texts.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "operations", operation_id = "list_tokens",
    responses(
        (status = 200, body = List<TokenAnswer>),
        Problems,
    )
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<List<TokenAnswer>>, ApiError> {
    let items = api.store.tokens().await?.into_iter().map(answer).collect();
    Ok(Json(List { items, next_cursor: None }))
}

/// Revokes a token, at once. The last one cannot be revoked.
#[utoipa::path(
    delete, path = "/v1/tokens/{id}", tag = "operations", operation_id = "revoke_token",
    params(("id" = Uuid, Path)),
    responses(
        (status = 204),
        Problems,
    )
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    Caller(actor): Caller,
    Named(id): Named<Uuid>,
) -> Result<StatusCode, ApiError> {
    api.store.revoke_token(id, &actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
