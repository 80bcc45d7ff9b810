//! An issuer of our own making, with keys of our own: what it says, and when it says nothing.

use super::code_flow::Attempt;
use super::keys::Discovery;
use super::*;
use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::StatusCode;
use jsonwebtoken::{EncodingKey, Header};
use rcgen::PublicKeyData as _;
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;

const AUDIENCE: &str = "bouncer";
const CLIENT: &str = "console";
/// Nothing here takes longer unless it is broken.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Clone, Copy, PartialEq)]
enum Mood {
    Answers,
    Fails,
    Hangs,
}

struct Issuer {
    url: String,
    key: rcgen::KeyPair,
    served: Arc<Served>,
}

struct Served {
    discovery: Value,
    keys: Value,
    mood: Mutex<Mood>,
    readings: AtomicUsize,
    id_token: Mutex<String>,
}

async fn discovery(State(served): State<Arc<Served>>) -> Response {
    served.readings.fetch_add(1, Ordering::SeqCst);
    let mood = *served.mood.lock().unwrap();
    match mood {
        Mood::Answers => axum::Json(served.discovery.clone()).into_response(),
        Mood::Fails => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        Mood::Hangs => std::future::pending().await,
    }
}

async fn keys(State(served): State<Arc<Served>>) -> axum::Json<Value> {
    axum::Json(served.keys.clone())
}

async fn token(State(served): State<Arc<Served>>) -> axum::Json<Value> {
    axum::Json(json!({"id_token": *served.id_token.lock().unwrap()}))
}

impl Issuer {
    async fn start() -> Self {
        Self::named(None).await
    }

    /// One whose discovery document names this issuer.
    async fn named(name: Option<&str>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let key = rcgen::KeyPair::generate().unwrap();
        // An uncompressed point: 4, x, y.
        let (x, y) = key.der_bytes()[1..].split_at(32);
        let [x, y] = [x, y].map(|part| URL_SAFE_NO_PAD.encode(part));
        let served = Arc::new(Served {
            discovery: json!({
                "issuer": name.unwrap_or(&url), "jwks_uri": format!("{url}/keys"),
                "authorization_endpoint": format!("{url}/authorize"), "token_endpoint": format!("{url}/token"),
            }),
            keys: json!({"keys": [{"kty": "EC", "crv": "P-256", "kid": "one", "use": "sig", "x": x, "y": y}]}),
            mood: Mutex::new(Mood::Answers),
            readings: AtomicUsize::new(0),
            id_token: Mutex::default(),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/keys", get(keys))
            .route("/token", post(token))
            .with_state(served.clone());
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { url, key, served }
    }

    fn is(&self, mood: Mood) {
        *self.served.mood.lock().unwrap() = mood;
    }

    fn readings(&self) -> usize {
        self.served.readings.load(Ordering::SeqCst)
    }

    /// The control plane's half, which trusts this issuer.
    fn trusted(&self, keys: Keys) -> Arc<Oidc> {
        let rule = RoleRule { value: "admins".to_owned(), role: Role::Admin, scope: Scope::default() };
        let console = ConsoleConfig {
            name: "Ops".to_owned(),
            client_id: CLIENT.to_owned(),
            client_secret_file: None,
            public_url: "http://127.0.0.1:1".to_owned(),
            scopes: Vec::new(),
        };
        let config = OidcConfig {
            issuer: self.url.clone(),
            audience: AUDIENCE.to_owned(),
            ca_file: None,
            roles_claim: "groups".to_owned(),
            roles: vec![rule],
            console: Some(console),
        };
        Arc::new(Oidc { keys, ..Oidc::new(config).unwrap() })
    }

    /// What a good token says.
    fn claims(&self) -> Value {
        let exp = Timestamp::now().as_second() + 300;
        json!({"iss": self.url, "aud": AUDIENCE, "sub": "alice", "exp": exp, "groups": ["admins"]})
    }

    /// A token that says this, and that it was signed by the key of this name.
    fn sign(&self, kid: &str, claims: &Value) -> String {
        let header = Header { kid: Some(kid.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(&self.key.serialize_der())).unwrap()
    }

    fn token(&self) -> String {
        self.sign("one", &self.claims())
    }
}

fn with(mut claims: Value, name: &str, value: impl Into<Value>) -> Value {
    claims[name] = value.into();
    claims
}

#[tokio::test]
async fn a_token_is_of_the_issuer_for_us_and_in_its_time() {
    let issuer = Issuer::start().await;
    let oidc = issuer.trusted(Keys::default());
    let good = issuer.claims();
    let now = Timestamp::now().as_second();
    let leeway = i64::try_from(LEEWAY).unwrap();
    for (what, claims) in [
        ("the control", good.clone()),
        ("ended within the leeway", with(good.clone(), "exp", now - leeway + 10)),
        ("begins within the leeway", with(good.clone(), "nbf", now + leeway - 10)),
        ("one audience of two", with(good.clone(), "aud", json!(["other", AUDIENCE]))),
    ] {
        let principal = oidc.bearer(&issuer.sign("one", &claims)).await;
        assert_eq!(principal.map_err(|error| error.to_string()).map(|found| found.role), Ok(Role::Admin), "{what}");
    }
    for (why, claims) in [
        ("its issuer is another one", with(good.clone(), "iss", "http://127.0.0.1:1")),
        ("its issuer is another one", with(good.clone(), "iss", format!("{}/", issuer.url))),
        ("its audience is another one", with(good.clone(), "aud", CLIENT)),
        ("it has ended", with(good.clone(), "exp", now - leeway - 10)),
        ("it is not valid yet", with(good.clone(), "nbf", now + leeway + 10)),
        ("its subject is none that can be named", with(good.clone(), "sub", "two words")),
    ] {
        let refused = oidc.bearer(&issuer.sign("one", &claims)).await;
        assert!(matches!(&refused, Err(OidcError::Refused(said)) if *said == why), "{why}: {refused:?}");
    }
    for missing in ["iss", "aud", "sub", "exp"] {
        let mut claims = good.clone();
        claims.as_object_mut().unwrap().remove(missing);
        let refused = oidc.bearer(&issuer.sign("one", &claims)).await;
        assert!(matches!(refused, Err(OidcError::Refused(_))), "without {missing}: {refused:?}");
    }
    let forged = Issuer { url: issuer.url.clone(), ..Issuer::start().await };
    let refused = oidc.bearer(&forged.token()).await;
    assert!(matches!(refused, Err(OidcError::Refused("its signature is not the issuer's"))), "{refused:?}");
    let nobody = oidc.bearer(&issuer.sign("one", &with(good, "groups", "others"))).await;
    assert!(matches!(nobody, Err(OidcError::NoRole)), "{nobody:?}");
}

#[tokio::test]
async fn a_code_is_taken_only_with_the_nonce_of_its_sign_in() {
    let issuer = Issuer::start().await;
    let oidc = issuer.trusted(Keys::default());
    let (attempt, other) = (Attempt("one"), Attempt("other"));
    let nonce = async |attempt: &Attempt<'_>| {
        let url = reqwest::Url::parse(&oidc.authorization_url(attempt).await.unwrap()).unwrap();
        url.query_pairs().find(|(name, _)| name == "nonce").unwrap().1.into_owned()
    };
    let exchange = async |claims: Value| {
        *issuer.served.id_token.lock().unwrap() = issuer.sign("one", &claims);
        oidc.exchange(&attempt, "code").await
    };
    let claims = with(issuer.claims(), "aud", CLIENT);
    let good = exchange(with(claims.clone(), "nonce", nonce(&attempt).await)).await;
    assert_eq!(good.unwrap().actor, Actor::oidc("alice"), "the control");
    for (what, claims) in [
        ("another's nonce", with(claims.clone(), "nonce", nonce(&other).await)),
        ("an empty nonce", with(claims.clone(), "nonce", "")),
        ("no nonce", claims),
    ] {
        let refused = exchange(claims).await;
        assert!(matches!(refused, Err(OidcError::Refused("it was made for another sign-in"))), "{what}: {refused:?}");
    }
    let bearer = exchange(with(issuer.claims(), "nonce", nonce(&attempt).await)).await;
    assert!(matches!(bearer, Err(OidcError::Refused("its audience is another one"))), "{bearer:?}");
}

#[tokio::test]
async fn another_issuers_document_is_no_document() {
    let issuer = Issuer::named(Some("http://127.0.0.1:1")).await;
    let refused = issuer.trusted(Keys::default()).bearer(&issuer.token()).await;
    let why = "its discovery document names another issuer";
    assert!(matches!(&refused, Err(OidcError::Issuer(said)) if *said == why), "{refused:?}");
}

#[test]
fn a_document_that_came_by_tls_leads_nowhere_without_it() {
    let issuer = "https://login.example.org";
    let good = json!({
        "issuer": issuer, "jwks_uri": "https://keys.example.org/", "token_endpoint": "https://login.example.org/token",
        "authorization_endpoint": "https://login.example.org/authorize",
    });
    let read = |document: Value| serde_json::from_value::<Discovery>(document).unwrap().of(issuer);
    assert!(read(good.clone()).is_ok(), "the control");
    for name in ["jwks_uri", "token_endpoint", "authorization_endpoint"] {
        let plain = read(with(good.clone(), name, "http://login.example.org/"));
        assert!(matches!(plain, Err(OidcError::Issuer("its discovery document leads to plain HTTP"))), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_issuer_that_hangs_holds_up_nobody_whose_key_is_known() {
    let issuer = Issuer::start().await;
    let oidc = issuer.trusted(Keys::read_within(DEADLINE * 6, Duration::ZERO));
    let token = issuer.token();
    oidc.bearer(&token).await.unwrap();
    issuer.is(Mood::Hangs);
    let stranger = issuer.sign("unknown", &issuer.claims());
    let strangers: Vec<_> = (0..50)
        .map(|_| {
            let (oidc, stranger) = (Arc::clone(&oidc), stranger.clone());
            tokio::spawn(async move { oidc.bearer(&stranger).await })
        })
        .collect();
    let hanging = async {
        while issuer.readings() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, hanging).await.unwrap();
    for _ in 0..50 {
        let known = tokio::time::timeout(DEADLINE, oidc.bearer(&token)).await;
        known.expect("it does not wait for the strangers' reading").unwrap();
    }
    assert!(strangers.iter().all(|stranger| !stranger.is_finished()), "the control: the reading still hangs");
    assert_eq!(issuer.readings(), 2, "fifty strangers wait for one reading");
    strangers.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn an_issuer_that_fails_is_not_asked_by_each_stranger() {
    for mood in [Mood::Fails, Mood::Hangs] {
        let issuer = Issuer::start().await;
        issuer.is(mood);
        let oidc = issuer.trusted(Keys::read_within(Duration::from_millis(200), DEADLINE * 6));
        let token = issuer.token();
        let all = futures::future::join_all((0..50).map(|_| oidc.bearer(&token))).await;
        assert!(all.iter().all(|told| matches!(told, Err(OidcError::Issuer(_)))), "{all:?}");
        assert_eq!(issuer.readings(), 1);
    }
    // The control: without a pause each of them asks.
    let issuer = Issuer::start().await;
    issuer.is(Mood::Fails);
    let oidc = issuer.trusted(Keys::read_within(DEADLINE, Duration::ZERO));
    for _ in 0..5 {
        assert!(oidc.bearer(&issuer.token()).await.is_err());
    }
    assert_eq!(issuer.readings(), 5);
    // And once it answers again, its keys are found.
    issuer.is(Mood::Answers);
    assert!(oidc.bearer(&issuer.token()).await.is_ok());
}
