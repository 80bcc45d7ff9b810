//! Feature flags.

use super::Api;
use super::extract::{Body, Named};
use super::guard::Author;
use super::outcome::Outcome;
use super::page::List;
use super::problem::{ApiError, Problems};
use super::proposals::ProposalAnswer;
use super::second_person;
use super::tagged::Tagged;
use crate::model::{Flag, FlagState};
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Turns a flag on or off.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlagBody {
    /// On or off.
    enabled: bool,
}

/// A flag and its state.
#[derive(Debug, Serialize, ToSchema)]
pub struct FlagAnswer {
    #[schema(example = "flags.crypto.dual_custody_intercept")]
    name: &'static str,
    description: &'static str,
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    updated_by: Option<String>,
    /// Of the last change; 0 if there was none. `"r<revision>"` is the entity tag.
    revision: u64,
}

fn answer(flag: Flag, state: FlagState) -> FlagAnswer {
    let (updated_at, updated_by) = state.changed.map(|change| (change.at, change.by)).unzip();
    FlagAnswer {
        name: flag.name(),
        description: flag.description(),
        enabled: state.enabled,
        updated_at,
        updated_by,
        revision: state.revision,
    }
}

/// All feature flags.
#[utoipa::path(
    get, path = "/v1/feature-flags", tag = "flags", operation_id = "list_feature_flags",
    responses(
        (status = 200, body = List<FlagAnswer>),
        Problems,
    )
)]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<List<FlagAnswer>>, ApiError> {
    let mut items = Vec::new();
    for flag in Flag::ALL {
        items.push(answer(*flag, api.store.flag(*flag).await?));
    }
    Ok(Json(List { items, next_cursor: None }))
}

/// Turns a feature flag on or off.
#[utoipa::path(
    put, path = "/v1/feature-flags/{name}", tag = "flags", operation_id = "put_feature_flag",
    params(("name" = String, Path, example = "flags.crypto.dual_custody_intercept")),
    request_body = FlagBody,
    responses(
        (status = 200, body = FlagAnswer),
        (status = 202, description = "It waits for a second person", body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    mut author: Author,
    Named(name): Named<String>,
    Body(body): Body<FlagBody>,
) -> Result<Outcome<Tagged<FlagAnswer>>, ApiError> {
    let flag = Flag::by_name(&name).ok_or(ApiError::NotFound("feature flag"))?;
    let sent = second_person::sent(&api, &author, &body)?;
    if let Some(waits) = second_person::flag(&api, &mut author, sent, flag, body.enabled).await? {
        return Ok(Outcome::Waits(waits));
    }
    let state = api.store.set_flag(flag, body.enabled, &author.edit).await?;
    Ok(Outcome::Done(Tagged { revision: state.revision, body: answer(flag, state) }))
}
