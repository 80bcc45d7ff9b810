//! Bouncers: who may speak on the Policy Bridge, by SPIFFE ID or by IAM role.

use super::Api;
use super::extract::{Body, Keyed, Named, Params};
use super::fields::Faults;
use super::guard::{Author, Caller};
use super::outcome::Outcome;
use super::page::{self, List};
use super::problem::{ApiError, Problems};
use super::proposals::ProposalAnswer;
use super::second_person;
use super::tagged::Tagged;
use crate::access::Scope;
use crate::bridge::health::{self, BridgeHealth};
use crate::model::{Bouncer, BouncerRecord};
use crate::store::BouncerFilter;
use axum::Json;
use axum::extract::State;
use bouncer_custody::{BouncerIdentity, BouncerName};
use http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// A bouncer's name and identity.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BouncerBody {
    #[schema(example = "payments-east")]
    name: String,
    /// The SPIFFE ID of its resolver's SVID. This or `iam_role_arn`, and not both.
    #[schema(example = "spiffe://example.org/bouncer/payments-east")]
    spiffe_id: Option<String>,
    /// The IAM role that its resolver enrols with, without the role's path.
    #[schema(example = "arn:aws:iam::123456789012:role/bouncer-payments-east")]
    iam_role_arn: Option<String>,
}

/// Another identity for a bouncer.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BouncerPut {
    /// The bouncer's name again, or nothing.
    name: Option<String>,
    /// The SPIFFE ID of its resolver's SVID. Sessions of the one before end. This or `iam_role_arn`, and not both.
    #[schema(example = "spiffe://example.org/bouncer/payments-east")]
    spiffe_id: Option<String>,
    /// The IAM role that its resolver enrols with, without the role's path.
    #[schema(example = "arn:aws:iam::123456789012:role/bouncer-payments-east")]
    iam_role_arn: Option<String>,
}

/// Which bouncers are wanted. What is left out matches all.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BouncerParams {
    /// At most so many items, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u16>,
    /// `next_cursor` of the part before.
    cursor: Option<String>,
    /// Only with this in their name.
    #[param(max_length = 255)]
    q: Option<String>,
}

/// A bouncer, and how it is.
#[derive(Debug, Serialize, ToSchema)]
pub struct BouncerAnswer {
    name: String,
    /// Its SPIFFE ID, if it is known by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    spiffe_id: Option<String>,
    /// Its IAM role, if it is known by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    iam_role_arn: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    created_by: String,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    updated_by: String,
    /// Of the last change. `"r<revision>"` is the entity tag.
    revision: u64,
    /// Its connection on the Policy Bridge.
    bridge: BridgeHealth,
}

async fn show(api: &Api, scope: &Scope, record: BouncerRecord) -> Result<Tagged<BouncerAnswer>, ApiError> {
    let epoch = api.store.epoch().await?;
    Ok(Tagged { revision: record.revision, body: answer(api, scope, epoch, record) })
}

fn answer(api: &Api, scope: &Scope, epoch: u64, record: BouncerRecord) -> BouncerAnswer {
    let bridge = health::of(&api.live, &record, epoch, api.clock.now(), scope);
    BouncerAnswer {
        name: record.bouncer.name.into(),
        spiffe_id: record.bouncer.identity.spiffe_id().map(ToString::to_string),
        iam_role_arn: record.bouncer.identity.iam_role().map(ToString::to_string),
        created_at: record.created.at,
        created_by: record.created.by,
        updated_at: record.updated.at,
        updated_by: record.updated.by,
        revision: record.revision,
        bridge,
    }
}

/// Exactly one of both. A `None` has its fault noted.
fn identity(faults: &mut Faults, spiffe_id: Option<String>, role: Option<String>) -> Option<BouncerIdentity> {
    match (spiffe_id, role) {
        (Some(id), None) => faults.take("spiffe_id", id.parse().map(BouncerIdentity::Spiffe)),
        (None, Some(role)) => faults.take("iam_role_arn", role.parse().map(BouncerIdentity::IamRole)),
        (Some(_), Some(_)) => {
            faults.add("iam_role_arn", "must be left out where spiffe_id is given: a bouncer has one identity");
            None
        }
        (None, None) => {
            faults.add("spiffe_id", "is missing; a bouncer has a spiffe_id or an iam_role_arn");
            None
        }
    }
}

/// Registers a bouncer. The same registration again is no change.
#[utoipa::path(
    post, path = "/v1/bouncers", tag = "registry", operation_id = "register_bouncer",
    request_body = BouncerBody,
    responses(
        (status = 201, body = BouncerAnswer),
        (status = 202, description = "It waits for a second person", body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn register(
    State(api): State<Api>,
    mut author: Author,
    Keyed(body, key): Keyed<BouncerBody>,
) -> Result<Outcome<(StatusCode, Tagged<BouncerAnswer>)>, ApiError> {
    author.edit.key = key;
    let sent = second_person::sent(&api, &author, &body)?;
    let mut faults = Faults::default();
    let name = faults.take("name", body.name.parse::<BouncerName>());
    let identity = identity(&mut faults, body.spiffe_id, body.iam_role_arn);
    let (Some(name), Some(identity)) = (name, identity) else { return Err(faults.into_error()) };
    let bouncer = Bouncer { name, identity };
    if let Some(waits) = second_person::bouncer(&api, &mut author, sent, &bouncer).await? {
        return Ok(Outcome::Waits(waits));
    }
    let record = api.store.register_bouncer(&bouncer, &author.edit).await?;
    Ok(Outcome::Done((StatusCode::CREATED, show(&api, &author.principal.scope, record).await?)))
}

/// Gives a bouncer another identity.
#[utoipa::path(
    put, path = "/v1/bouncers/{name}", tag = "registry", operation_id = "put_bouncer",
    params(("name" = String, Path)),
    request_body = BouncerPut,
    responses(
        (status = 200, body = BouncerAnswer),
        (status = 202, description = "It waits for a second person", body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn put(
    State(api): State<Api>,
    mut author: Author,
    Named(name): Named<BouncerName>,
    Body(body): Body<BouncerPut>,
) -> Result<Outcome<Tagged<BouncerAnswer>>, ApiError> {
    let sent = second_person::sent(&api, &author, &body)?;
    let mut faults = Faults::default();
    if body.name.is_some_and(|text| text != name.as_str()) {
        faults.add("name", "must be the one that the path names, or be left out");
    }
    let identity = identity(&mut faults, body.spiffe_id, body.iam_role_arn);
    let Some(identity) = identity.filter(|_| faults.is_empty()) else { return Err(faults.into_error()) };
    let bouncer = Bouncer { name, identity };
    if let Some(waits) = second_person::bouncer(&api, &mut author, sent, &bouncer).await? {
        return Ok(Outcome::Waits(waits));
    }
    let record = api.store.replace_bouncer(&bouncer, &author.edit).await?;
    Ok(Outcome::Done(show(&api, &author.principal.scope, record).await?))
}

/// All bouncers, by name.
#[utoipa::path(
    get, path = "/v1/bouncers", tag = "registry", operation_id = "list_bouncers",
    params(BouncerParams),
    responses(
        (status = 200, body = List<BouncerAnswer>),
        Problems,
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Caller(principal): Caller,
    Params(params): Params<BouncerParams>,
) -> Result<Json<List<BouncerAnswer>>, ApiError> {
    let page = page::parse(params.limit, params.cursor.as_deref())?;
    let part = api.store.bouncers(&BouncerFilter { contains: page::search(params.q)? }, &page).await?;
    let epoch = api.store.epoch().await?;
    Ok(Json(List::of(
        part,
        |record| record.bouncer.name.clone(),
        |record| answer(&api, &principal.scope, epoch, record),
    )))
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
    Caller(principal): Caller,
    Named(name): Named<BouncerName>,
) -> Result<Tagged<BouncerAnswer>, ApiError> {
    let record = api.store.bouncer(&name).await?.ok_or(ApiError::NotFound("bouncer"))?;
    show(&api, &principal.scope, record).await
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
    author: Author,
    Named(name): Named<BouncerName>,
) -> Result<StatusCode, ApiError> {
    api.store.delete_bouncer(&name, &author.edit).await?;
    Ok(StatusCode::NO_CONTENT)
}
