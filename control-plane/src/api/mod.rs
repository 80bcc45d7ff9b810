//! The REST API: routes, and what they share. Everything about HTTP is in here; everything that lasts is behind
//! [`Store`]. `GET /openapi.json` is generated from these handlers.

pub mod audit;
pub mod bouncers;
pub mod envelopes;
pub mod export;
pub mod extract;
pub mod fields;
pub mod flags;
mod guard;
mod headers;
pub mod histogram;
pub mod inventory;
pub mod limits;
mod middleware;
pub mod operations;
mod outcome;
pub mod page;
mod permission;
pub mod problem;
pub mod proposals;
pub mod resources;
mod second_person;
pub mod session;
pub mod settings;
pub mod status;
mod tagged;
pub mod tokens;
pub mod warning;

use crate::bridge::Live;
use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::oidc::Oidc;
use crate::readiness::Readiness;
use crate::store::Store;
use axum::Router;
use limits::Limits;
use problem::ApiError;
use std::sync::{Arc, LazyLock};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// What the handlers work with.
#[derive(Clone)]
pub struct Api {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What bouncers are connected, and how they are.
    pub live: Arc<Live>,
    /// Whether the process can do its work.
    pub readiness: Arc<Readiness>,
    /// How often one caller may call.
    pub limits: Arc<Limits>,
    /// The identity provider whose tokens are taken, if any's are.
    pub oidc: Option<Arc<Oidc>>,
    /// Whether the API is served over TLS.
    pub tls: bool,
    /// Whether changes of binding wait for a second person.
    pub second_person: bool,
}

/// What a call may carry to say who makes it.
struct Credentials;

impl Modify for Credentials {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
        let cookie = ApiKeyValue::with_description(
            session::cookie_name(true),
            &format!(
                "What POST /v1/session gives for a token; over plain HTTP it is called {}. A change by it needs the header \
                 {}, too.",
                session::cookie_name(false),
                session::CSRF
            ),
        );
        components.add_security_scheme("session", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Bouncer control plane",
        description = "Envelope metadata, policy and audit. It stores no plaintext credential and cannot decrypt one."
    ),
    modifiers(&Credentials),
    security(("token" = []), ("session" = [])),
    components(schemas(problem::Problem)),
    tags(
        (name = "crypto", description = "Provider settings and envelope metadata; refused while the flag is off"),
        (name = "flags", description = "Feature flags"),
        (name = "registry", description = "Bouncers and the protected resources they guard"),
        (name = "access", description = "Tokens, and sessions of browsers"),
        (name = "proposals", description = "Changes of binding that wait for a second person"),
        (name = "operations", description = "Status, audit and probes")
    )
)]
struct Document;

fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(settings::get, settings::put))
        .routes(routes!(envelopes::list, envelopes::register))
        .routes(routes!(envelopes::get, envelopes::patch, envelopes::delete))
        .routes(routes!(envelopes::history))
        .routes(routes!(envelopes::roll_back))
        .routes(routes!(flags::list))
        .routes(routes!(flags::put))
        .routes(routes!(bouncers::list, bouncers::register))
        .routes(routes!(bouncers::get, bouncers::put, bouncers::delete))
        .routes(routes!(resources::list, resources::register))
        .routes(routes!(resources::get, resources::put, resources::delete))
        .routes(routes!(status::bootstrap))
        .routes(routes!(status::bridge))
        .routes(routes!(audit::events))
        .routes(routes!(audit::admin_events))
        .routes(routes!(export::export))
        .routes(routes!(histogram::histogram))
        .routes(routes!(proposals::list))
        .routes(routes!(proposals::get, proposals::withdraw))
        .routes(routes!(proposals::approve))
        .routes(routes!(proposals::reject))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::get, tokens::revoke))
        .routes(routes!(session::get, session::sign_in, session::sign_out))
        .routes(routes!(session::methods))
        .routes(routes!(session::oidc_start))
        .routes(routes!(session::oidc_callback))
        .routes(routes!(operations::healthz))
        .routes(routes!(operations::readyz))
        .routes(routes!(operations::metrics))
}

/// The API's description.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    description().clone()
}

fn description() -> &'static utoipa::openapi::OpenApi {
    static DESCRIPTION: LazyLock<utoipa::openapi::OpenApi> = LazyLock::new(|| {
        let mut document = routes().split_for_parts().1;
        headers::describe(&mut document);
        document
    });
    &DESCRIPTION
}

/// The calls themselves, for one that was approved: whoever calls has admitted its author with [`guard::admit`].
fn calls(api: Api) -> Router {
    routes().split_for_parts().0.with_state(api)
}

/// The API as a service.
pub fn router(api: Api) -> Router {
    routes()
        .split_for_parts()
        .0
        .route("/openapi.json", axum::routing::get(|| async { axum::Json(description()) }))
        .fallback(|| async { ApiError::NoRoute })
        .method_not_allowed_fallback(|| async { ApiError::Method })
        .layer(axum::middleware::from_fn_with_state(api.clone(), guard::guard))
        // Behind the guard's layer, and so without it: static files.
        .merge(crate::console::routes())
        .layer(axum::middleware::from_fn_with_state(api.clone(), middleware::outer))
        .with_state(api)
}
