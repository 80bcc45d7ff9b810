//! A control plane in this process: a store on a database of its own, the API's router, a token.

use crate::database::Place;
use axum::Router;
use axum::body::Body;
use bouncer_control_plane::access::{Principal, Role, Scope};
use bouncer_control_plane::api::limits::Limits;
use bouncer_control_plane::api::{self, Api};
use bouncer_control_plane::bridge::{Bridge, Live, Timing};
use bouncer_control_plane::clock::{Clock, SystemClock};
use bouncer_control_plane::metrics::Metrics;
use bouncer_control_plane::model::Actor;
use bouncer_control_plane::oidc::{Oidc, OidcConfig};
use bouncer_control_plane::readiness::Readiness;
use bouncer_control_plane::store::Store;
use bouncer_control_plane::token::Token;
use http::{HeaderMap, Method, Request, StatusCode, header};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

pub(crate) const FLAG: &str = "flags.crypto.dual_custody_intercept";
pub(crate) const KEY: &str = "arn:aws:kms:ca-central-1:123456789012:key/abc-123";
pub(crate) const PATH: &str = "protected-resources/payments-api/upstream-tls";
/// Nothing here takes longer unless it is broken.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Looks again and again until there is something, for no longer than [`DEADLINE`].
pub(crate) async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < DEADLINE, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) struct ControlPlane {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) place: Arc<Place>,
    pub(crate) live: Arc<Live>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) token: String,
    metrics: Arc<Metrics>,
    router: Router,
}

/// An answer of the API.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
    pub(crate) json: Value,
}

impl Answer {
    /// The problem's code, as its type names it.
    pub(crate) fn code(&self) -> &str {
        assert_eq!(self.headers[header::CONTENT_TYPE], "application/problem+json", "{}", self.text);
        assert_eq!(self.json["status"], self.status.as_u16());
        assert!(self.json["next"].as_str().is_some_and(|next| !next.is_empty()), "{}", self.text);
        self.json["type"].as_str().unwrap().strip_prefix("urn:bouncer:problem:").unwrap()
    }

    #[track_caller]
    pub(crate) fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        self.json
    }
}

impl ControlPlane {
    /// Fresh, with its first token; the flag is off.
    pub(crate) async fn new() -> Self {
        Self::claimed(Arc::new(Place::new())).await
    }

    /// As [`Self::new`], on a database that has nothing in it yet.
    pub(crate) async fn claimed(place: Arc<Place>) -> Self {
        let mut plane = Self::bootstrapped(place).await;
        let admin = plane.post("/v1/tokens", &json!({"name": "admin", "role": "admin"})).await.ok();
        plane.token = admin["token"].as_str().unwrap().to_owned();
        plane
    }

    /// Fresh, with the token that `bootstrap` writes.
    pub(crate) async fn unclaimed() -> Self {
        Self::bootstrapped(Arc::new(Place::new())).await
    }

    async fn bootstrapped(place: Arc<Place>) -> Self {
        let token = Token::generate().unwrap();
        let plane = Self::on(place, token.reveal().to_owned()).await;
        plane.store.bootstrap("bootstrap", &token.hash()).await.unwrap();
        plane
    }

    /// A token of this role, limited to these paths.
    pub(crate) async fn token_of(&self, role: &str, paths: &[&str]) -> String {
        let name = format!("{role}-{}", uuid::Uuid::now_v7().simple());
        let body = json!({"name": name, "role": role, "path_prefixes": paths});
        self.post("/v1/tokens", &body).await.ok()["token"].as_str().unwrap().to_owned()
    }

    /// The same control plane, as the bearer of another token meets it.
    pub(crate) fn with_token(&self, token: String) -> Self {
        Self { token, ..self.with_router(self.router.clone()) }
    }

    /// The same control plane behind a router of its own, which lets each caller make so many calls each second.
    pub(crate) fn limited_to(&self, per_second: u32) -> Self {
        self.limited_by(per_second, None)
    }

    /// As [`Self::limited_to`], with an identity provider.
    pub(crate) fn limited_by(&self, per_second: u32, oidc: Option<OidcConfig>) -> Self {
        self.with_router(api::router(Api {
            limits: Arc::new(Limits::new(per_second.try_into().unwrap())),
            oidc: oidc.map(|config| Arc::new(Oidc::new(config).unwrap())),
            ..self.api()
        }))
    }

    /// The same control plane behind a router that asks for a second person.
    pub(crate) fn asking_for_a_second_person(&self) -> Self {
        self.with_router(api::router(Api { second_person: true, ..self.api() }))
    }

    fn api(&self) -> Api {
        Api {
            store: self.store.clone(),
            clock: Arc::new(SystemClock),
            metrics: self.metrics.clone(),
            live: self.live.clone(),
            readiness: self.readiness.clone(),
            limits: Arc::new(Limits::new(10_000.try_into().unwrap())),
            oidc: None,
            tls: false,
            second_person: false,
        }
    }

    fn with_router(&self, router: Router) -> Self {
        Self {
            store: self.store.clone(),
            live: self.live.clone(),
            readiness: self.readiness.clone(),
            token: self.token.clone(),
            metrics: self.metrics.clone(),
            router,
            place: self.place.clone(),
        }
    }

    /// With the flag on.
    pub(crate) async fn enabled() -> Self {
        let plane = Self::new().await;
        plane.put(&format!("/v1/feature-flags/{FLAG}"), &json!({"enabled": true})).await.ok();
        plane
    }

    /// One on a database, which may be another control plane's too.
    pub(crate) async fn on(place: Arc<Place>, token: String) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let store = place.open(clock.clone()).await;
        let (metrics, live, readiness) =
            (Arc::new(Metrics::default()), Arc::new(Live::default()), Arc::new(Readiness::default()));
        let router = api::router(Api {
            store: store.clone(),
            clock,
            metrics: metrics.clone(),
            live: live.clone(),
            readiness: readiness.clone(),
            limits: Arc::new(Limits::new(10_000.try_into().unwrap())),
            oidc: None,
            tls: false,
            second_person: false,
        });
        Self { store, live, readiness, token, metrics, router, place }
    }

    /// Closed and opened again on the same database.
    pub(crate) async fn restarted(self) -> Self {
        self.store.close().await;
        Self::on(self.place, self.token).await
    }

    /// Every byte that the database has on disk.
    pub(crate) fn bytes_on_disk(&self) -> Vec<u8> {
        self.place.bytes_on_disk()
    }

    pub(crate) fn bridge(&self) -> Bridge {
        Bridge {
            store: self.store.clone(),
            clock: Arc::new(SystemClock),
            metrics: self.metrics.clone(),
            live: self.live.clone(),
            editions: Arc::default(),
            timing: Timing { keep_alive: Duration::from_millis(200), silence: DEADLINE },
            stop: CancellationToken::new(),
        }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = tokio::time::timeout(DEADLINE, self.router.clone().oneshot(request)).await.unwrap().unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        Answer { status, headers, json: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    /// The body of an answer as it comes.
    pub(crate) async fn body(&self, path: &str) -> Body {
        let authorization = format!("Bearer {}", self.token);
        let request = Request::builder().uri(path).header(header::AUTHORIZATION, authorization).body(Body::empty());
        self.router.clone().oneshot(request.unwrap()).await.unwrap().into_body()
    }

    pub(crate) async fn raw(&self, method: Method, path: &str, body: impl Into<Body>) -> Answer {
        self.raw_with(method, path, &[], body).await
    }

    /// A call with more headers.
    pub(crate) async fn raw_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.raw(Method::GET, path, Body::empty()).await
    }
    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.raw(Method::DELETE, path, Body::empty()).await
    }
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Answer {
        self.raw(Method::PUT, path, body.to_string()).await
    }
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.raw(Method::POST, path, body.to_string()).await
    }
    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.raw(Method::PATCH, path, body.to_string()).await
    }

    pub(crate) async fn register_bouncer(&self, name: &str) {
        self.post("/v1/bouncers", &json!({"name": name, "spiffe_id": spiffe_id(name)})).await.ok();
    }
}

pub(crate) fn spiffe_id(bouncer: &str) -> String {
    format!("spiffe://example.org/bouncer/{bouncer}")
}

/// A complete envelope body that warns of nothing once the bouncer is registered.
pub(crate) fn envelope(path: &str) -> Value {
    json!({
        "logical_path": path, "key_id": KEY, "ciphertext_ref": "AQICAHg=", "provider": "kms_envelope",
        "aad": "env=production,bouncer=payments-east",
    })
}

/// An administrator without limits, who came by no token.
pub(crate) fn operator() -> Principal {
    Principal {
        actor: Actor::operator(),
        role: Role::Admin,
        scope: Scope::default(),
        expires: None,
        token: None,
        single_use: false,
    }
}

pub(crate) fn resource(name: &str, path: &str) -> Value {
    json!({
        "name": name, "bouncer": "payments-east", "cluster": "payments", "upstream": "payments.internal:8443",
        "protocol": "mtls", "logical_path": path, "callers": ["spiffe://example.org/ns/shop/*"], "enabled": true,
    })
}
