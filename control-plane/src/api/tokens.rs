//! API tokens: made, listed, revoked. A token's text is in the answer to its making and nowhere else.

use super::Api;
use super::extract::{Body, Named, Params};
use super::fields::Faults;
use super::guard::Caller;
use super::page::{self, List};
use super::problem::{ApiError, Problems};
use crate::access::{NewToken, Role, Scope, TokenFilter, TokenRecord, TokenState};
use crate::token::{Token, TokenHash};
use axum::Json;
use axum::extract::State;
use bouncer_custody::{PathPattern, ResourceName};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// The longest life of a token, in days.
const MOST_DAYS: u32 = 366;
/// The life of a token for which none is given, in days.
const DAYS: u32 = 90;

/// A new token.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// Stands for the token in the audit. At most 63 lower-case letters, digits and inner '-', '_', '.'.
    #[schema(example = "deploy-pipeline")]
    name: String,
    /// What its bearer may do.
    #[schema(value_type = Role)]
    role: String,
    /// Limits it to these logical paths, `*` as the last segment for all below. Empty, or left out, is no limit.
    #[serde(default)]
    #[schema(example = json!(["protected-resources/payments-api/*"]), max_items = 32)]
    path_prefixes: Vec<String>,
    /// Its life in days, 1 to 366; 90 unless given.
    #[schema(minimum = 1, maximum = 366, default = 90)]
    expires_in_days: Option<u32>,
    /// SHA-256, in lower-case hexadecimal digits, of a token that the caller made: `bnc_` and 256 random bits in base64url.
    /// Then the answer has no token in it, and the same call again is answered alike.
    #[schema(pattern = "^[0-9a-f]{64}$")]
    token_sha256: Option<String>,
}

/// A token, without its text.
#[derive(Debug, Serialize, ToSchema)]
pub struct TokenAnswer {
    id: Uuid,
    name: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    created_by: String,
    role: Role,
    /// The logical paths that it is limited to; empty for no limit.
    #[schema(value_type = Vec<String>)]
    path_prefixes: Scope,
    /// When it ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Timestamp>,
    /// It is good for one exchange and nothing else: the one that `bootstrap` wrote.
    single_use: bool,
    /// When it was revoked or used up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Timestamp>,
}

/// A new token, with its text.
#[derive(Serialize, ToSchema)]
pub struct NewTokenAnswer {
    #[serde(flatten)]
    record: TokenAnswer,
    /// The token. It is shown this once, and absent where the caller made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// Which tokens are wanted. What is left out matches all.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TokenParams {
    /// At most so many items, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u16>,
    /// `next_cursor` of the part before.
    cursor: Option<String>,
    /// Only of this name. Of those in use there is one at most.
    name: Option<String>,
    /// Only of this role.
    #[param(value_type = Option<Role>)]
    role: Option<String>,
    /// Only those that are good, whose time is over, or that were revoked or used up.
    #[param(value_type = Option<TokenState>)]
    state: Option<String>,
}

impl TokenBody {
    /// The token, and its hash where the caller made it.
    fn parse(self) -> Result<(NewToken, Option<TokenHash>), ApiError> {
        let mut faults = Faults::default();
        // The same form as every other plain name; the type's own term would mislead in a message.
        if self.name.parse::<ResourceName>().is_err() {
            faults.add("name", "must be at most 63 lower-case letters, digits and inner '-', '_' or '.'");
        }
        let role = faults.take("role", self.role.parse::<Role>());
        if self.path_prefixes.len() > Scope::LIMIT {
            faults.add("path_prefixes", format_args!("must not be more than {}", Scope::LIMIT));
        }
        let mut patterns = Vec::new();
        for (index, text) in self.path_prefixes.iter().enumerate().take(Scope::LIMIT) {
            patterns.extend(faults.take(&format!("path_prefixes[{index}]"), text.parse::<PathPattern>()));
        }
        let days = self.expires_in_days.unwrap_or(DAYS);
        if !(1..=MOST_DAYS).contains(&days) {
            faults.add("expires_in_days", format_args!("must be 1 to {MOST_DAYS}"));
        }
        let life = Some(SignedDuration::from_hours(i64::from(days) * 24));
        let hash = self.token_sha256.as_deref().map(TokenHash::from_hex);
        if hash.is_some_and(|hash| hash.is_none()) {
            faults.add("token_sha256", "must be the SHA-256 of a token, in 64 lower-case hexadecimal digits");
        }
        match role {
            Some(role) if faults.is_empty() => {
                Ok((NewToken { name: self.name, role, scope: Scope::of(patterns), life }, hash.flatten()))
            }
            _ => Err(faults.into_error()),
        }
    }
}

fn answer(record: TokenRecord) -> TokenAnswer {
    TokenAnswer {
        id: record.id,
        name: record.name,
        created_at: record.created.at,
        created_by: record.created.by,
        role: record.role,
        path_prefixes: record.scope,
        expires_at: record.expires,
        single_use: record.single_use,
        revoked_at: record.revoked,
    }
}

/// Makes a token, or takes the hash of one that the caller made. With the one that `bootstrap` wrote, once.
#[utoipa::path(
    post, path = "/v1/tokens", tag = "access", operation_id = "create_token",
    request_body = TokenBody,
    responses(
        (status = 201, body = NewTokenAnswer),
        Problems,
    )
)]
pub(super) async fn create(
    State(api): State<Api>,
    Caller(principal): Caller,
    Body(body): Body<TokenBody>,
) -> Result<(StatusCode, Json<NewTokenAnswer>), ApiError> {
    let (new, theirs) = body.parse()?;
    let ours = theirs.is_none().then(Token::generate).transpose()?;
    let hash = ours.as_ref().map(Token::hash).or(theirs).ok_or(ApiError::Internal)?;
    let record = api.store.add_token(&new, &hash, &principal).await?;
    let answer = NewTokenAnswer { record: answer(record), token: ours.map(|token| token.reveal().to_owned()) };
    Ok((StatusCode::CREATED, Json(answer)))
}

/// Tokens, without their texts, oldest first.
#[utoipa::path(
    get, path = "/v1/tokens", tag = "access", operation_id = "list_tokens",
    params(TokenParams),
    responses(
        (status = 200, body = List<TokenAnswer>),
        Problems,
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<TokenParams>,
) -> Result<Json<List<TokenAnswer>>, ApiError> {
    let page = page::parse(params.limit, params.cursor.as_deref())?;
    let wanted = TokenFilter {
        name: page::name("The parameter 'name' is no token's name.", params.name)?,
        role: page::name("The parameter 'role' must be viewer, auditor, operator or admin.", params.role)?,
        state: page::name("The parameter 'state' must be live, ended or revoked.", params.state)?,
    };
    let part = api.store.list_tokens(&wanted, &page).await?;
    Ok(Json(List::of(part, |record| record.id, answer)))
}

/// One token, without its text.
#[utoipa::path(
    get, path = "/v1/tokens/{id}", tag = "access", operation_id = "get_token",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = TokenAnswer),
        Problems,
    )
)]
pub(super) async fn get(State(api): State<Api>, Named(id): Named<Uuid>) -> Result<Json<TokenAnswer>, ApiError> {
    let found = api.store.token_by_id(id).await?;
    found.map(|record| Json(answer(record))).ok_or(ApiError::NotFound("token"))
}

/// Revokes a token and ends its sessions, at once. An administrator's last one cannot be revoked.
#[utoipa::path(
    delete, path = "/v1/tokens/{id}", tag = "access", operation_id = "revoke_token",
    params(("id" = Uuid, Path)),
    responses(
        (status = 204),
        Problems,
    )
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    Caller(principal): Caller,
    Named(id): Named<Uuid>,
) -> Result<StatusCode, ApiError> {
    api.store.revoke_token(id, &principal.actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
