//! The audit: what bouncers decided, and what administrators changed.

use super::Api;
use super::extract::Params;
use super::guard::Caller;
use super::page::{self, List};
use super::problem::{ApiError, Problems};
use crate::model::{AdminRecord, AuditRecord, OUTCOMES};
use crate::store::{AdminFilter, AuditFilter, AuditKey};
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Which audit events are wanted. What is left out matches all.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditParams {
    /// At most so many items, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u16>,
    /// `next_cursor` of the part before.
    cursor: Option<String>,
    /// "inject", "deny", "pass_through", "uses", "rotate" or "revoke".
    #[param(example = "deny")]
    outcome: Option<String>,
    /// A bouncer's name.
    bouncer: Option<String>,
    /// A reason code.
    #[param(example = "binding_incomplete")]
    reason: Option<String>,
    /// A credential's logical path.
    logical_path: Option<String>,
    /// A caller's SPIFFE ID.
    caller: Option<String>,
    /// Not before this (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Before this (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
}

/// Which administrative changes are wanted. What is left out matches all.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AdminParams {
    /// At most so many items, 1 to 500.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<u16>,
    /// `next_cursor` of the part before.
    cursor: Option<String>,
    /// Who.
    #[param(example = "token:alice")]
    actor: Option<String>,
    /// What was done.
    #[param(example = "envelope.registered")]
    action: Option<String>,
    /// To what: a name, a path, a flag.
    subject: Option<String>,
    /// Not before this (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<Timestamp>,
    /// Before this (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<Timestamp>,
}

/// One decision, as its bouncer reported it. Empty texts are left out.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditAnswer {
    /// The decision's id.
    id: Uuid,
    /// The bouncer, by the identity of its connection.
    bouncer: String,
    /// The resolver's own count, without gaps.
    sequence: u64,
    /// When it was decided, by the bouncer's clock.
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    /// When it arrived here.
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
    /// "inject", "deny", "pass_through", "uses", "rotate" or "revoke".
    outcome: String,
    /// Why it was denied.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    reason: String,
    /// The verified caller's SPIFFE ID.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    caller: String,
    /// The protected resource.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    resource: String,
    /// The credential.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    logical_path: String,
    /// Its generation; 0 where there is none.
    generation: u64,
    /// The key that wraps it.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    key_id: String,
    /// SHA-256 of the AAD's text, hex.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    aad_sha256: String,
    /// Envoy's cluster.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    cluster: String,
    /// The cluster's host:port by the resolver's own rails.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    destination: String,
    /// `:authority` or SNI, as the client sent it. Never part of a decision.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    authority: String,
    /// Joins with CloudTrail or Vault's audit.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    backend_request_id: String,
    /// For "uses": the decision that was reused.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    decision_id: String,
    /// The chain that it is in; absent from resolvers of before there were chains.
    #[serde(skip_serializing_if = "Option::is_none")]
    chain: Option<String>,
    /// Streams that this event stands for.
    count: u64,
    /// The resolver ran with --dev.
    dev: bool,
}

/// One administrative change.
#[derive(Debug, Serialize, ToSchema)]
pub struct AdminAnswer {
    #[schema(value_type = String, format = DateTime)]
    time: Timestamp,
    /// Who: the token's name, a bouncer, or the operator of the machine.
    #[schema(example = "token:bootstrap")]
    actor: String,
    #[schema(example = "envelope.registered")]
    action: String,
    /// To what: a name, a path, a flag.
    subject: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    detail: String,
}

fn answer(record: AuditRecord) -> AuditAnswer {
    let event = record.event;
    AuditAnswer {
        id: event.id,
        bouncer: record.bouncer,
        sequence: event.sequence,
        time: event.at,
        received_at: record.received,
        outcome: event.outcome,
        reason: event.reason,
        caller: event.caller,
        resource: event.resource,
        logical_path: event.logical_path,
        generation: event.generation,
        key_id: event.key_id,
        aad_sha256: event.aad_sha256,
        cluster: event.cluster,
        destination: event.destination,
        authority: event.authority,
        backend_request_id: event.backend_request_id,
        decision_id: event.decision_id,
        chain: event.evidence.map(|evidence| evidence.chain.into()),
        count: event.count,
        dev: event.dev,
    }
}

fn admin_answer(record: AdminRecord) -> AdminAnswer {
    AdminAnswer {
        time: record.at,
        actor: record.actor,
        action: record.action,
        subject: record.subject,
        detail: record.detail,
    }
}

/// The outcome that is asked for.
pub(super) fn outcome(wanted: Option<String>) -> Result<Option<String>, ApiError> {
    if wanted.as_deref().is_some_and(|wanted| !OUTCOMES.contains(&wanted)) {
        return Err(ApiError::Query(
            "The parameter 'outcome' must be inject, deny, pass_through, uses, rotate or revoke.",
        ));
    }
    Ok(wanted)
}

/// What bouncers decided, newest first.
#[utoipa::path(
    get, path = "/v1/audit/events", tag = "operations", operation_id = "list_audit_events",
    params(AuditParams),
    responses(
        (status = 200, body = List<AuditAnswer>),
        Problems,
    )
)]
pub(super) async fn events(
    State(api): State<Api>,
    Caller(principal): Caller,
    Params(params): Params<AuditParams>,
) -> Result<Json<List<AuditAnswer>>, ApiError> {
    let page = page::parse::<AuditKey>(params.limit, params.cursor.as_deref())?;
    let filter = AuditFilter {
        outcome: outcome(params.outcome)?,
        bouncer: params.bouncer,
        reason: params.reason,
        logical_path: params.logical_path,
        caller: params.caller,
        from: params.from,
        to: params.to,
        scope: principal.scope,
    };
    let part = api.store.audit(&filter, &page).await?;
    let key = |record: &AuditRecord| AuditKey { time_ms: record.event.at.as_millisecond(), seq: record.seq };
    Ok(Json(List::of(part, key, answer)))
}

/// What administrators changed, newest first.
#[utoipa::path(
    get, path = "/v1/audit/admin-events", tag = "operations", operation_id = "list_admin_events",
    params(AdminParams),
    responses(
        (status = 200, body = List<AdminAnswer>),
        Problems,
    )
)]
pub(super) async fn admin_events(
    State(api): State<Api>,
    Params(params): Params<AdminParams>,
) -> Result<Json<List<AdminAnswer>>, ApiError> {
    let page = page::parse(params.limit, params.cursor.as_deref())?;
    let wanted = AdminFilter {
        actor: params.actor,
        action: params.action,
        subject: params.subject,
        from: params.from,
        to: params.to,
    };
    let part = api.store.admin_events(&wanted, &page).await?;
    let key = |record: &AdminRecord| AuditKey { time_ms: record.at.as_millisecond(), seq: record.seq };
    Ok(Json(List::of(part, key, admin_answer)))
}
