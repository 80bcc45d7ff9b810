//! Bouncers: who may speak on the Policy Bridge, by SPIFFE ID.

use super::Api;
use super::extract::{Body, Named, PageParams, Params};
use super::fields::Faults;
use super::middleware::Caller;
use super::page::List;
use super::problem::{ApiError, Problems};
use crate::bridge::health::{self, BridgeHealth};
use crate::model::{Bouncer, BouncerRecord};
use axum::Json;
use axum::extract::State;
use bouncer_custody::{BouncerName, SpiffeId};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A bouncer's name and identity.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BouncerBody {
    #[schema(example = "payments-east")]
    name: String,
    /// The SPIFFE ID of its resolver's SVID.
    #[schema(example = "spiffe://example.org/bouncer/payments-east")]
    spiffe_id: String,
}

/// A bouncer, and how it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct BouncerAnswer {
    name: String,
    spiffe_id: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    created_by: String,
    /// Its connection on the Policy Bridge.
    bridge: BridgeHealth,
}

async fn show(api: &Api, record: BouncerRecord) -> Result<BouncerAnswer, ApiError> {
    let epoch = api.store.epoch().await?;
    Ok(answer(api, epoch, record))
}

fn answer(api: &Api, epoch: u64, record: BouncerRecord) -> BouncerAnswer {
    let bridge = health::of(&api.live, &record, epoch, api.clock.now());
    BouncerAnswer {
        name: record.bouncer.name.into(),
        spiffe_id: record.bouncer.spiffe_id.into(),
        created_at: record.created.at,
        created_by: record.created.by,
        bridge,
    }
}

/// Registers a bouncer. The same registration again is no change.
#[utoipa::path(
    post, path = "/v1/bouncers", tag = "registry", operation_id = "register_bouncer",
    request_body = BouncerBody,
    responses(
        (status = 201, body = BouncerAnswer),
        Problems,
    )
)]
pub(super) async fn register(
    State(api): State<Api>,
    Caller(actor): Caller,
    Body(body): Body<BouncerBody>,
) -> Result<(StatusCode, Json<BouncerAnswer>), ApiError> {
    let mut faults = Faults::default();
    let name = faults.take("name", body.name.parse::<BouncerName>());
    let spiffe_id = faults.take("spiffe_id", body.spiffe_id.parse::<SpiffeId>());
    let (Some(name), Some(spiffe_id)) = (name, spiffe_id) else { return Err(faults.into_error()) };
    let record = api.store.register_bouncer(&Bouncer { name, spiffe_id }, &actor).await?;
    Ok((StatusCode::CREATED, Json(show(&api, record).await?)))
}

/// All bouncers, by name.
#[utoipa::path(
    get, path = "/v1/bouncers", tag = "registry", operation_id = "list_bouncers",
    params(PageParams),
    responses(
        (status = 200, body = List<BouncerAnswer>),
        Problems,
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Params(params): Params<PageParams>,
) -> Result<Json<List<BouncerAnswer>>, ApiError> {
    let part = api.store.bouncers(&params.page()?).await?;
    let epoch = api.store.epoch().await?;
    Ok(Json(List::of(part, |record| record.bouncer.name.clone(), |record| answer(&api, epoch, record))))
}

/// One bouncer.
#[utoipa::path(
    get, path = "/v1/bouncers/{name}", tag = "registry", operation_id = "get_bouncer",
    params(("name" = String, Path)),
    responses(
        (status = 200, body = BouncerAnswer),
        Problems,
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    Named(name): Named<BouncerName>,
) -> Result<Json<BouncerAnswer>, ApiError> {
    let record = api.store.bouncer(&name).await?.ok_or(ApiError::NotFound("bouncer"))?;
    Ok(Json(show(&api, record).await?))
}

/// Removes a bouncer that guards no protected resource, and ends its sessions on the Policy Bridge.
#[utoipa::path(
    delete, path = "/v1/bouncers/{name}", tag = "registry", operation_id = "delete_bouncer",
    params(("name" = String, Path)),
    responses(
        (status = 204),
        Problems,
    )
)]
pub(super) async fn delete(
    State(api): State<Api>,
    Caller(actor): Caller,
    Named(name): Named<BouncerName>,
) -> Result<StatusCode, ApiError> {
    api.store.delete_bouncer(&name, &actor).await?;
    Ok(StatusCode::NO_CONTENT)
}
