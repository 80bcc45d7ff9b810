//! Probes and metrics: what may be asked without a token. Fixed words and numbers only.

use super::Api;
use crate::metrics::Now;
use crate::store::StoreError;
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

/// Whether the process can do its work, and what is in the way.
#[derive(Debug, Serialize, ToSchema)]
pub struct ReadyAnswer {
    ready: bool,
    /// The database answers.
    database: bool,
    /// There is a valid SVID from the Workload API.
    identity: bool,
    /// The Policy Bridge takes connections.
    policy_bridge: bool,
    /// The process is shutting down.
    draining: bool,
    /// What to do, where something is in the way.
    next: Vec<&'static str>,
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "operations", operation_id = "healthz", security(()),
    responses((status = 200, body = String, content_type = "text/plain")))]
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// Whether the process can do its work.
#[utoipa::path(get, path = "/readyz", tag = "operations", operation_id = "readyz", security(()),
    responses((status = 200, body = ReadyAnswer), (status = 503, body = ReadyAnswer)))]
pub(super) async fn readyz(State(api): State<Api>) -> (StatusCode, Json<ReadyAnswer>) {
    let answered = api.store.ping().await;
    let database = answered.is_ok();
    let (identity, policy_bridge) = (api.readiness.identity(), api.readiness.bridge());
    let draining = api.readiness.draining();
    let ready = database && identity && policy_bridge && !draining;
    let mut next = Vec::new();
    match answered {
        Ok(()) => {}
        Err(StoreError::Newer { .. }) => next.push(
            "A newer version has upgraded the database in a way that this one cannot live with. Stop this control plane, \
             and start the newer version.",
        ),
        Err(_) => next.push("Look at the disk that holds the database, and at the control plane's log."),
    }
    if !identity {
        next.push(
            "Check that the SPIFFE Workload API of identity.workload_api is up and has an entry for this process.",
        );
    }
    if identity && !policy_bridge {
        next.push("Restart the control plane; its log says why the Policy Bridge ended.");
    }
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(ReadyAnswer { ready, database, identity, policy_bridge, draining, next }))
}

/// Metrics in OpenMetrics text.
#[utoipa::path(get, path = "/metrics", tag = "operations", operation_id = "metrics", security(()),
    responses((status = 200, body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn metrics(State(api): State<Api>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let epoch = api.store.epoch().await.ok();
    let lag = api.live.lag(epoch.unwrap_or(0), api.clock.now());
    let now = Now { epoch, identity: api.readiness.identity(), lag };
    ([(header::CONTENT_TYPE, content_type)], api.metrics.render(now))
}
