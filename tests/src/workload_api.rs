//! A small SPIFFE Workload API of our own, for what real SPIRE can't be made to do quickly: expiry, rotation, another
//! bundle, outages. One socket hands out one identity.
//!
//! For scenarios and `--dev` only. It attests nobody: whoever opens the socket is given the identity.

// Generated; the .proto file holds its documentation.
#[expect(unreachable_pub, clippy::allow_attributes_without_reason, reason = "generated")]
mod wire {
    include!(concat!(env!("OUT_DIR"), "/_.rs"));
}

use crate::pki::{Ca, Identity, Leaf};
use crate::{Result, TRUST_DOMAIN, fault::Doing as _};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _, wrappers::UnixListenerStream, wrappers::WatchStream};
use tonic::{Request, Response, Status};
use wire::spiffe_workload_api_server::{SpiffeWorkloadApi, SpiffeWorkloadApiServer};

/// The authority of a trust domain: signs X.509-SVIDs and JWT-SVIDs.
pub struct TrustDomain {
    ca: Ca,
    jwt_key: EcdsaKeyPair,
    kid: String,
}

impl TrustDomain {
    /// A new authority for the scenarios' trust domain.
    ///
    /// # Errors
    /// If no key can be made.
    pub fn new() -> Result<Arc<Self>> {
        let jwt_key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
        let kid = uuid::Uuid::new_v4().simple().to_string();
        Ok(Arc::new(Self { ca: Ca::for_trust_domain(TRUST_DOMAIN)?, jwt_key, kid }))
    }

    /// The authority for X.509-SVIDs.
    #[must_use]
    pub fn ca(&self) -> &Ca {
        &self.ca
    }

    /// The id of the key that signs JWT-SVIDs.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.kid
    }

    /// An X.509-SVID, as a caller of Envoy holds it.
    ///
    /// # Errors
    /// If the ID is no ASCII.
    pub fn svid(&self, spiffe_id: &str) -> Result<Identity> {
        self.ca.issue(&Leaf::svid(spiffe_id)?)
    }

    /// The JWK set that proves the JWT-SVIDs.
    #[must_use]
    pub fn jwks(&self) -> String {
        // Uncompressed point: 0x04, x, y.
        let point = self.jwt_key.public_key().as_ref();
        let (x, y) = point[1..].split_at(32);
        let coordinate = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        serde_json::json!({"keys": [{
            "kty": "EC", "crv": "P-256", "use": "jwt-svid", "alg": "ES256", "kid": self.kid,
            "x": coordinate(x), "y": coordinate(y),
        }]})
        .to_string()
    }

    /// A JWT-SVID, ES256.
    ///
    /// # Errors
    /// If it can't be signed.
    pub fn jwt_svid(&self, spiffe_id: &str, audience: &[String], valid_for: Duration) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let header = serde_json::json!({"alg": "ES256", "typ": "JWT", "kid": self.kid});
        let claims = serde_json::json!({
            "sub": spiffe_id, "aud": audience, "iat": now, "exp": now + valid_for.as_secs(),
        });
        let part = |json: &serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.jwt_key.sign(&SystemRandom::new(), signed.as_bytes())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// How the Workload API behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// As the standard says.
    Answering,
    /// Ends every stream and refuses every call as unavailable.
    Refusing,
    /// Takes calls and never answers them; streams that are open get nothing more.
    Silent,
}

/// A running Workload API. Dropping it closes the socket.
pub struct WorkloadApi {
    socket: PathBuf,
    spiffe_id: String,
    state: watch::Sender<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct State {
    domain: Arc<TrustDomain>,
    svid: Arc<Identity>,
    // Authorities beside the domain's own, as during the change from one to the next.
    more_roots: Vec<Vec<u8>>,
    jwt_lifetime: Duration,
    behaviour: Behaviour,
}

impl WorkloadApi {
    /// Serves one identity on a socket.
    ///
    /// # Errors
    /// If the socket can't be bound.
    pub fn start(domain: &Arc<TrustDomain>, socket: &Path, spiffe_id: &str) -> Result<Self> {
        let svid = Arc::new(domain.svid(spiffe_id)?);
        let (state, watched) = watch::channel(State {
            domain: Arc::clone(domain),
            svid,
            more_roots: vec![],
            jwt_lifetime: Duration::from_mins(5),
            behaviour: Behaviour::Answering,
        });
        let listener = tokio::net::UnixListener::bind(socket).doing(socket.display())?;
        let server = SpiffeWorkloadApiServer::new(Server { spiffe_id: spiffe_id.to_owned(), state: watched });
        let task = tokio::spawn(async move {
            let incoming = UnixListenerStream::new(listener);
            // An end of this server shows in the scenario as an outage; there is nobody to tell.
            let _ = tonic::transport::Server::builder().add_service(server).serve_with_incoming(incoming).await;
        });
        Ok(Self { socket: socket.to_path_buf(), spiffe_id: spiffe_id.to_owned(), state, task })
    }

    /// Its address, as `SPIFFE_ENDPOINT_SOCKET` has it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// The identity it hands out.
    #[must_use]
    pub fn spiffe_id(&self) -> &str {
        &self.spiffe_id
    }

    /// Hands out another X.509-SVID from now on, of a given lifetime.
    ///
    /// # Errors
    /// If none can be issued.
    pub fn rotate(&self, valid_for: Duration) -> Result<()> {
        let leaf = Leaf::svid(&self.spiffe_id)?.valid_for(valid_for);
        let svid = Arc::new(self.state.borrow().domain.ca.issue(&leaf)?);
        self.state.send_modify(|state| state.svid = svid);
        Ok(())
    }

    /// Moves to another authority; the old one stays in the bundle if `overlap`.
    ///
    /// # Errors
    /// If no SVID can be issued.
    pub fn change_domain(&self, domain: &Arc<TrustDomain>, overlap: bool) -> Result<()> {
        let svid = Arc::new(domain.svid(&self.spiffe_id)?);
        self.state.send_modify(|state| {
            let old = state.domain.ca.der().to_vec();
            state.more_roots = if overlap { vec![old] } else { vec![] };
            state.domain = Arc::clone(domain);
            state.svid = svid;
        });
        Ok(())
    }

    /// How long JWT-SVIDs live from now on.
    pub fn jwt_lifetime(&self, lifetime: Duration) {
        self.state.send_modify(|state| state.jwt_lifetime = lifetime);
    }

    /// Starts or ends an outage.
    pub fn behave(&self, behaviour: Behaviour) {
        self.state.send_modify(|state| state.behaviour = behaviour);
    }
}

impl Drop for WorkloadApi {
    fn drop(&mut self) {
        self.task.abort();
        let _ = std::fs::remove_file(&self.socket);
    }
}

struct Server {
    spiffe_id: String,
    state: watch::Receiver<State>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Server {
    /// The standard wants this header, so that a confused HTTP client is never given a key.
    fn admit<T>(request: &Request<T>) -> Result<(), Status> {
        match request.metadata().get("workload.spiffe.io").map(|value| value.as_bytes()) {
            Some(b"true") => Ok(()),
            _ => Err(Status::invalid_argument("security header missing")),
        }
    }

    /// One answer now and one after each change, for as long as the outage mode lets it.
    fn answers<T: Send + 'static>(&self, answer: impl Fn(&State) -> T + Send + 'static) -> Answers<T> {
        let mut ended = false;
        let stream = WatchStream::new(self.state.clone())
            .filter(|state| state.behaviour != Behaviour::Silent)
            .map(move |state| match state.behaviour {
                Behaviour::Refusing => Err(Status::unavailable("the Workload API is out of order")),
                _ => Ok(answer(&state)),
            })
            .take_while(move |item| !std::mem::replace(&mut ended, item.is_err()));
        Box::pin(stream)
    }

    async fn now(&self) -> Result<State, Status> {
        let state = self.state.borrow().clone();
        match state.behaviour {
            Behaviour::Answering => Ok(state),
            Behaviour::Refusing => Err(Status::unavailable("the Workload API is out of order")),
            Behaviour::Silent => std::future::pending().await,
        }
    }
}

fn bundle(state: &State) -> Vec<u8> {
    let mut bundle = state.domain.ca.der().to_vec();
    bundle.extend(state.more_roots.iter().flatten());
    bundle
}

fn by_domain(bundle: Vec<u8>) -> HashMap<String, Vec<u8>> {
    HashMap::from([(format!("spiffe://{TRUST_DOMAIN}"), bundle)])
}

#[tonic::async_trait]
impl SpiffeWorkloadApi for Server {
    type FetchX509SVIDStream = Answers<wire::X509svidResponse>;
    type FetchX509BundlesStream = Answers<wire::X509BundlesResponse>;
    type FetchJWTBundlesStream = Answers<wire::JwtBundlesResponse>;

    async fn fetch_x509svid(
        &self,
        request: Request<wire::X509svidRequest>,
    ) -> Result<Response<Self::FetchX509SVIDStream>, Status> {
        Self::admit(&request)?;
        let spiffe_id = self.spiffe_id.clone();
        Ok(Response::new(self.answers(move |state| wire::X509svidResponse {
            svids: vec![wire::X509svid {
                spiffe_id: spiffe_id.clone(),
                x509_svid: state.svid.cert.to_vec(),
                x509_svid_key: state.svid.key_der.clone(),
                bundle: bundle(state),
                hint: String::new(),
            }],
            crl: vec![],
            federated_bundles: HashMap::new(),
        })))
    }

    async fn fetch_x509_bundles(
        &self,
        request: Request<wire::X509BundlesRequest>,
    ) -> Result<Response<Self::FetchX509BundlesStream>, Status> {
        Self::admit(&request)?;
        let answer = |state: &State| wire::X509BundlesResponse { crl: vec![], bundles: by_domain(bundle(state)) };
        Ok(Response::new(self.answers(answer)))
    }

    async fn fetch_jwtsvid(
        &self,
        request: Request<wire::JwtsvidRequest>,
    ) -> Result<Response<wire::JwtsvidResponse>, Status> {
        Self::admit(&request)?;
        let audience = request.into_inner().audience;
        if audience.is_empty() {
            return Err(Status::invalid_argument("no audience"));
        }
        let state = self.now().await?;
        let svid = state
            .domain
            .jwt_svid(&self.spiffe_id, &audience, state.jwt_lifetime)
            .map_err(|fault| Status::internal(fault.what()))?;
        let svid = wire::Jwtsvid { spiffe_id: self.spiffe_id.clone(), svid, hint: String::new() };
        Ok(Response::new(wire::JwtsvidResponse { svids: vec![svid] }))
    }

    async fn fetch_jwt_bundles(
        &self,
        request: Request<wire::JwtBundlesRequest>,
    ) -> Result<Response<Self::FetchJWTBundlesStream>, Status> {
        Self::admit(&request)?;
        let answer = |state: &State| wire::JwtBundlesResponse { bundles: by_domain(state.domain.jwks().into_bytes()) };
        Ok(Response::new(self.answers(answer)))
    }
}
