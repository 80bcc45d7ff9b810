//! Health and metrics over plain HTTP, on loopback unless configured otherwise. Nothing here changes anything.

use crate::engine::Engine;
use crate::harden::Confinement;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use std::sync::Arc;

/// `/healthz`: the process lives. `/readyz`: protected streams can be served; 503 with the reasons where not.
/// `/metrics`: Prometheus. `/audit/head`: where the audit chain is, to hold the control plane's export against.
pub fn router(engine: Arc<Engine>, confinement: Confinement) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(move |engine| ready(engine, confinement)))
        .route("/metrics", get(metrics))
        .route("/audit/head", get(head))
        .with_state(engine)
}

async fn ready(State(engine): State<Arc<Engine>>, confinement: Confinement) -> Response {
    let reasons: Vec<&str> = engine.not_ready().into_iter().map(bouncer_custody::Reason::code).collect();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({
        "ready": reasons.is_empty(),
        "reasons": reasons,
        "dev": engine.config.dev,
        "known_by": engine.config.bridge.login.word(),
        "policy_epoch": engine.policy.epoch(),
        "control_plane": engine.sight.connected(),
        "sandbox": { "landlock": confinement.landlock.code(), "seccomp": confinement.seccomp.code() },
    });
    (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(body)).into_response()
}

async fn metrics(State(engine): State<Arc<Engine>>) -> Response {
    let live = &engine.metrics.live;
    let arena = engine.cache.arena_stats();
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    live.secrets.set(count(engine.cache.len()));
    live.secret_bytes.set(count(arena.used));
    live.secret_unlocked_bytes.set(count(arena.unlocked));
    live.grants.set(count(engine.grants.len()));
    live.policy_epoch.set(i64::try_from(engine.policy.epoch()).unwrap_or(i64::MAX));
    live.policy_age.set(engine.policy.age().map_or(-1, |age| i64::try_from(age.as_secs()).unwrap_or(i64::MAX)));
    let (spooled, capacity) = engine.spool.usage();
    live.spool_bytes.set(i64::try_from(spooled).unwrap_or(i64::MAX));
    live.spool_capacity.set(i64::try_from(capacity).unwrap_or(i64::MAX));
    live.ready.set(i64::from(engine.not_ready().is_empty()));
    live.svid_not_after.set(engine.identity.not_after().unwrap_or(0));
    live.dev.set(i64::from(engine.config.dev));
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], engine.metrics.encode(&engine.cache.status())).into_response()
}

async fn head(State(engine): State<Arc<Engine>>) -> Response {
    // The acknowledged position first: it never lies behind the head that is read after it.
    let acknowledged = engine.spool.acknowledged();
    let head = bouncer_audit::Expected { point: engine.spool.at(), acknowledged };
    ([(header::CACHE_CONTROL, "no-store")], axum::Json(head)).into_response()
}
