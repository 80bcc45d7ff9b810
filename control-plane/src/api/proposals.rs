//! Proposals: changes of binding that wait for a second person, and what people decide on them.

use super::extract::{Body, Named, Params};
use super::fields::Faults;
use super::guard::{self, Caller};
use super::page::{self, List};
use super::permission;
use super::problem::{ApiError, Kind, Problems};
use super::{Api, calls};
use crate::access::{Principal, TokenRecord};
use crate::edit::Reason;
use crate::person::{self, Party};
use crate::proposal::{Approval, ProposalFilter, ProposalRecord, ProposalState};
use crate::store::{Conflict, StoreError};
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, Request, StatusCode, header};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeSet;
use tower::ServiceExt as _;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Which proposals are wanted. What is left out matches all.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ProposalParams {
    /// At most so many items, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u16>,
    /// `next_cursor` of the part before.
    cursor: Option<String>,
    /// Only in this state.
    #[param(value_type = Option<ProposalState>)]
    state: Option<String>,
}

/// What is said about a decision.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DecisionBody {
    /// Why, for people: one line, at most 500 bytes.
    #[schema(example = "agreed in CHG-7")]
    reason: Option<String>,
}

/// A field that would change.
#[derive(Debug, Serialize, ToSchema)]
pub struct FieldChange {
    /// The field's name.
    field: String,
    /// What is registered; absent where nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    /// What would be; absent where nothing would.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
}

/// A change of binding that waits, or waited, for a second person.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProposalAnswer {
    id: Uuid,
    state: ProposalState,
    /// The call that was proposed.
    #[schema(example = "PUT")]
    method: String,
    /// Its route.
    #[schema(example = "/v1/protected-resources/{name}")]
    route: String,
    /// What it is about: a name, a logical path, a flag.
    subject: String,
    /// The credential it is about, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    logical_path: Option<String>,
    /// What would change, or has, by field. Of a ciphertext, its digest.
    changes: Vec<FieldChange>,
    /// The revision it was built on; 0 where nothing was registered.
    base_revision: u64,
    /// Why, in the words of who proposed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    proposed_at: Timestamp,
    proposed_by: String,
    /// When it ends by itself.
    #[schema(value_type = String, format = DateTime)]
    expires_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    decided_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    decided_by: Option<String>,
    /// Why, in the words of who decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    decision_reason: Option<String>,
    /// The caller proposed it, and may take it back.
    mine: bool,
    /// The caller is a second person who may decide on it now.
    may_decide: bool,
}

impl ProposalAnswer {
    /// Its id.
    pub(super) const fn id(&self) -> Uuid {
        self.id
    }
}

fn changes(before: Option<&Value>, after: &Value) -> Vec<FieldChange> {
    let fields = |value: Option<&Value>| value.and_then(Value::as_object).cloned().unwrap_or_default();
    let (before, after) = (fields(before), fields(Some(after)));
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let differs = |name: &&&String| before.get(**name) != after.get(**name);
    let change = |name: &String| FieldChange {
        field: name.clone(),
        before: before.get(name).filter(|value| !value.is_null()).cloned(),
        after: after.get(name).filter(|value| !value.is_null()).cloned(),
    };
    names.iter().filter(differs).map(|name| change(name)).collect()
}

fn is_second_person(caller: &Principal, record: &ProposalRecord, tokens: &[TokenRecord]) -> bool {
    let author = record.author();
    let caller = Party { actor: &caller.actor, token: caller.token };
    !person::may_be_the_same(caller, Party { actor: &author.actor, token: author.token }, tokens)
}

/// Whether they might make the proposed call themselves.
fn might_make(caller: &Principal, record: &ProposalRecord) -> Result<(), ApiError> {
    let method = record.proposed.method.parse::<Method>().map_err(|_| ApiError::Internal)?;
    let needs = permission::needed(&method, &record.proposed.route).ok_or(ApiError::Forbidden)?;
    if !caller.may(needs.permission) {
        return Err(ApiError::Forbidden);
    }
    if needs.unlimited && !caller.scope.is_everything() { Err(ApiError::OutOfScope) } else { Ok(()) }
}

fn answer(caller: &Principal, record: ProposalRecord, tokens: &[TokenRecord]) -> ProposalAnswer {
    let may_decide = record.state == ProposalState::Pending
        && might_make(caller, &record).is_ok()
        && is_second_person(caller, &record, tokens);
    let (decided_at, decided_by) = record.decided.map(|change| (change.at, change.by)).unzip();
    let proposed = record.proposed;
    ProposalAnswer {
        id: record.id,
        state: record.state,
        method: proposed.method,
        route: proposed.route,
        subject: proposed.subject,
        logical_path: proposed.logical_path.map(String::from),
        changes: changes(proposed.before.as_ref(), &proposed.after),
        base_revision: proposed.base_revision,
        reason: proposed.reason.map(|reason| reason.as_str().to_owned()),
        proposed_at: record.created.at,
        mine: record.created.by == caller.actor.as_str(),
        proposed_by: record.created.by,
        expires_at: record.expires,
        decided_at,
        decided_by,
        decision_reason: record.note.map(|note| note.as_str().to_owned()),
        may_decide,
    }
}

/// A proposal, as the caller sees it.
pub(super) async fn show(api: &Api, caller: &Principal, record: ProposalRecord) -> Result<ProposalAnswer, ApiError> {
    Ok(answer(caller, record, &api.store.tokens().await?))
}

/// The proposal, if the caller may know of it. Those whose time is over are noted first.
async fn visible(api: &Api, caller: &Principal, id: Uuid) -> Result<ProposalRecord, ApiError> {
    api.store.expire_proposals().await?;
    let record = api.store.proposal(id).await?.filter(|record| record.proposed.is_within(&caller.scope));
    record.ok_or(ApiError::NotFound("proposal"))
}

fn reason(body: &DecisionBody) -> Result<Option<Reason>, ApiError> {
    let mut faults = Faults::default();
    let reason = body.reason.as_deref().and_then(|text| faults.take("reason", text.parse::<Reason>()));
    if faults.is_empty() { Ok(reason) } else { Err(faults.into_error()) }
}

/// Proposals, newest first.
#[utoipa::path(
    get, path = "/v1/proposals", tag = "proposals", operation_id = "list_proposals",
    params(ProposalParams),
    responses(
        (status = 200, body = List<ProposalAnswer>),
        Problems,
    )
)]
pub(super) async fn list(
    State(api): State<Api>,
    Caller(principal): Caller,
    Params(params): Params<ProposalParams>,
) -> Result<Json<List<ProposalAnswer>>, ApiError> {
    let page = page::parse::<u64>(params.limit, params.cursor.as_deref())?;
    let state = page::name("The parameter 'state' is no state of a proposal.", params.state)?;
    api.store.expire_proposals().await?;
    let part = api.store.proposals(&ProposalFilter { scope: principal.scope.clone(), state }, &page).await?;
    let tokens = api.store.tokens().await?;
    Ok(Json(List::of(part, |record| record.seq, |record| answer(&principal, record, &tokens))))
}

/// One proposal.
#[utoipa::path(
    get, path = "/v1/proposals/{id}", tag = "proposals", operation_id = "get_proposal",
    params(("id" = Uuid, Path)),
    responses(
        (status = 200, body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn get(
    State(api): State<Api>,
    Caller(principal): Caller,
    Named(id): Named<Uuid>,
) -> Result<Json<ProposalAnswer>, ApiError> {
    let record = visible(&api, &principal, id).await?;
    Ok(Json(show(&api, &principal, record).await?))
}

/// A proposal that waits, and that the caller may decide on as a second person.
async fn to_decide(api: &Api, caller: &Principal, id: Uuid) -> Result<(ProposalRecord, Vec<TokenRecord>), ApiError> {
    let record = visible(api, caller, id).await?;
    might_make(caller, &record)?;
    let tokens = api.store.tokens().await?;
    if !is_second_person(caller, &record, &tokens) {
        return Err(ApiError::OwnProposal);
    }
    if record.state != ProposalState::Pending {
        return Err(StoreError::from(Conflict::ProposalDecided).into());
    }
    Ok((record, tokens))
}

/// Approves a proposal as a second person: the call is made as it was proposed, if what it was built on has not changed.
#[utoipa::path(
    post, path = "/v1/proposals/{id}/approve", tag = "proposals", operation_id = "approve_proposal",
    params(("id" = Uuid, Path)),
    request_body = DecisionBody,
    responses(
        (status = 200, body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn approve(
    State(api): State<Api>,
    Caller(principal): Caller,
    Named(id): Named<Uuid>,
    Body(body): Body<DecisionBody>,
) -> Result<Response, ApiError> {
    let note = reason(&body)?;
    let (record, tokens) = to_decide(&api, &principal, id).await?;
    if record.token.is_some_and(|id| tokens.iter().any(|token| token.id == id && token.revoked.is_some())) {
        return Err(ApiError::AuthorGone);
    }
    let made = make(&api, &record, Approval { proposal: id, by: principal.actor.clone(), note }).await?;
    if made.status().is_success() {
        let record = api.store.proposal(id).await?.filter(|record| record.state == ProposalState::Approved);
        return Ok(Json(show(&api, &principal, record.ok_or(ApiError::Internal)?).await?).into_response());
    }
    if overtaken(&made) {
        api.store.decide_proposal(id, ProposalState::Stale, &principal.actor, None).await?;
        return Err(ApiError::ProposalStale);
    }
    // What stands in its way may be removed: it waits on.
    Ok(made)
}

/// Makes the call as it was proposed, by its author. The store notes the approval in the same transaction.
async fn make(api: &Api, record: &ProposalRecord, approval: Approval) -> Result<Response, ApiError> {
    let proposed = &record.proposed;
    let method = proposed.method.parse::<Method>().map_err(|_| ApiError::Internal)?;
    let author = record.author();
    guard::admit(api, &author, &method, &proposed.route, &proposed.path).await?;
    let (condition, tag) = match proposed.base_revision {
        // Nothing that was never made has a tag.
        0 => (header::IF_NONE_MATCH, "*".to_owned()),
        revision => (header::IF_MATCH, format!("\"r{revision}\"")),
    };
    let request = Request::builder()
        .method(method)
        .uri(&proposed.path)
        .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
        .header(condition, tag)
        .extension(author)
        .extension(approval)
        .body(axum::body::Body::from(proposed.body.clone()))
        .map_err(|_| ApiError::Internal)?;
    let calls = calls(api.clone());
    Ok(calls.oneshot(request).await.unwrap_or_else(|never| match never {}))
}

/// Whether what a call was built on is not there any more.
fn overtaken(answer: &Response) -> bool {
    let kind = answer.extensions().get::<Kind>().and_then(|kind| kind.0.strip_prefix("urn:bouncer:problem:"));
    matches!(kind, Some("changed_meanwhile" | "generation_taken" | "not_found" | "name_taken"))
}

/// Rejects a proposal as a second person.
#[utoipa::path(
    post, path = "/v1/proposals/{id}/reject", tag = "proposals", operation_id = "reject_proposal",
    params(("id" = Uuid, Path)),
    request_body = DecisionBody,
    responses(
        (status = 200, body = ProposalAnswer),
        Problems,
    )
)]
pub(super) async fn reject(
    State(api): State<Api>,
    Caller(principal): Caller,
    Named(id): Named<Uuid>,
    Body(body): Body<DecisionBody>,
) -> Result<Json<ProposalAnswer>, ApiError> {
    let note = reason(&body)?;
    to_decide(&api, &principal, id).await?;
    let record = api.store.decide_proposal(id, ProposalState::Rejected, &principal.actor, note.as_ref()).await?;
    Ok(Json(show(&api, &principal, record).await?))
}

/// Takes a proposal back. Only who proposed it may.
#[utoipa::path(
    delete, path = "/v1/proposals/{id}", tag = "proposals", operation_id = "withdraw_proposal",
    params(("id" = Uuid, Path)),
    responses(
        (status = 204),
        Problems,
    )
)]
pub(super) async fn withdraw(
    State(api): State<Api>,
    Caller(principal): Caller,
    Named(id): Named<Uuid>,
) -> Result<StatusCode, ApiError> {
    let record = visible(&api, &principal, id).await?;
    if record.created.by != principal.actor.as_str() {
        return Err(ApiError::NotTheAuthor);
    }
    api.store.decide_proposal(id, ProposalState::Withdrawn, &principal.actor, None).await?;
    Ok(StatusCode::NO_CONTENT)
}
