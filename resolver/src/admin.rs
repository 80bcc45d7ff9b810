//! The operator's own way in, on a Unix socket: revoke at this resolver, now, with the control plane gone or in hostile
//! hands. JSON over HTTP, so that `bouncerctl revoke --socket` and `curl --unix-socket` both do.
//!
//! It can only take away, and give back what it took, and tell how the way to the control plane is. Nothing here shows a
//! secret or a ciphertext.

use crate::engine::{Engine, Revoked};
use crate::socket::{Admitted, Incoming};
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bouncer_custody::LogicalPath;
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;

/// A body says one path.
const BODY: usize = 4 << 10;

/// `GET /v1/policy-bridge`, `GET /v1/revocations`, `POST /v1/revocations`, `POST /v1/revocations/lift`.
pub fn router(engine: Arc<Engine>) -> Router {
    Router::new()
        .route("/v1/policy-bridge", get(bridge))
        .route("/v1/revocations", get(list).post(revoke))
        .route("/v1/revocations/lift", post(lift))
        .layer(axum::extract::DefaultBodyLimit::max(BODY))
        .with_state(engine)
}

/// The socket, as axum serves it.
pub struct AdminSocket(pub Incoming);

impl axum::serve::Listener for AdminSocket {
    type Io = Admitted;
    type Addr = ();

    async fn accept(&mut self) -> (Admitted, ()) {
        loop {
            // It never ends, and reports its own troubles.
            if let Some(Ok(admitted)) = self.0.next().await {
                return (admitted, ());
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<()> {
        Ok(())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    logical_path: LogicalPath,
    /// Every generation that will ever come, too.
    #[serde(default)]
    all_generations: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lift {
    logical_path: LogicalPath,
}

/// A no, by RFC 9457, with what to do next.
struct Problem {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
    next: &'static str,
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, code, title, detail, next } = self;
        let kind = format!("urn:bouncer:problem:{code}");
        let body = json!({"type": kind, "status": status.as_u16(), "title": title, "detail": detail, "next": next});
        (status, [(CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self {
            status: rejection.status(),
            code: "malformed",
            title: "The order can't be read",
            detail: rejection.body_text(),
            next: "Send {\"logical_path\": \"…\"} as application/json.",
        }
    }
}

fn not_saved(title: &'static str, detail: &str, error: &std::io::Error, next: &'static str) -> Problem {
    let detail = format!("{detail}: {error}.");
    Problem { status: StatusCode::INTERNAL_SERVER_ERROR, code: "not_saved", title, detail, next }
}

/// Which link to the control plane is broken, if one is.
async fn bridge(State(engine): State<Arc<Engine>>) -> Response {
    Json(crate::bridge::verdict(&engine)).into_response()
}

async fn list(State(engine): State<Arc<Engine>>) -> Response {
    let all = engine.revocations.all().into_iter();
    let items: Vec<_> = all
        .map(|(path, one)| json!({"logical_path": path, "through_generation": one.through_generation, "time_ms": one.time_ms}))
        .collect();
    Json(json!({"items": items})).into_response()
}

async fn revoke(
    State(engine): State<Arc<Engine>>,
    order: Result<Json<Order>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Order { logical_path, all_generations }) = order?;
    let Some(revoked) = engine.revoke_here(&logical_path, all_generations) else {
        return Err(Problem {
            status: StatusCode::NOT_FOUND,
            code: "not_known",
            title: "No such credential here",
            detail: "This resolver knows no credential of that path.".to_owned(),
            next: "Compare the path with `bouncerctl secrets list`. To revoke one that this resolver does not know yet, revoke all generations.",
        });
    };
    let Revoked { through_generation, ended, saved } = revoked;
    if let Err(error) = saved {
        let detail = "It is revoked now, and a restart of the resolver would forget it";
        let next = "Make the resolver's state folder writable, and revoke again.";
        return Err(not_saved("Revoked, but not saved", detail, &error, next));
    }
    let body = json!({"logical_path": logical_path, "through_generation": through_generation, "ended": ended});
    Ok(Json(body).into_response())
}

async fn lift(
    State(engine): State<Arc<Engine>>,
    order: Result<Json<Lift>, JsonRejection>,
) -> Result<Response, Problem> {
    let Json(Lift { logical_path }) = order?;
    match engine.lift(&logical_path) {
        Ok(true) => Ok(Json(json!({"logical_path": logical_path, "lifted": true})).into_response()),
        Ok(false) => Err(Problem {
            status: StatusCode::NOT_FOUND,
            code: "not_revoked",
            title: "Not revoked",
            detail: "Nothing of that path is revoked at this resolver.".to_owned(),
            next: "`GET /v1/revocations` lists what is.",
        }),
        Err(error) => {
            let next = "Make the resolver's state folder writable, and lift it again.";
            Err(not_saved("Not lifted", "The revocation still holds", &error, next))
        }
    }
}
