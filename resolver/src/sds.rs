//! Delta SDS: the answer to Envoy's request for a secret, on a socket of its own.
//!
//! Three kinds of names are served, each under its own right: `<key>/<tag>` to an Envoy with a live grant for the
//! cluster that its configuration names in `x-bouncer-cluster`; `named/<cluster>` to one whose configuration carries
//! the key in `x-bouncer-sds-key`, once a stream was allowed; `ca/<cluster>`, which is public. Every other name is
//! answered with `removed_resources` at once, so that Envoy fails a handshake instead of waiting.
//! Followed: the xDS protocol's incremental variant, as `envoy.service.secret.v3`.

mod answers;
mod codec;
mod cooling;
mod hub;
mod stream;

use crate::engine::Engine;
use crate::grants::Peer;
use answers::Answers;
use bouncer_custody::ClusterName;
use codec::RequestDecoder;
pub use cooling::Cooling;
use http::{HeaderValue, header};
pub use hub::SdsHub;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use stream::Session;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::server::NamedService;
use tonic::{Status, Streaming};

/// The largest request, in bytes.
const MAX_REQUEST: usize = 1 << 20;

/// `envoy.service.secret.v3.SecretDiscoveryService`, its method `DeltaSecrets` only.
///
/// Written by hand, since generated messages would hold secret bytes.
#[derive(Clone)]
pub struct SdsService {
    engine: Arc<Engine>,
}

impl SdsService {
    /// The service of one resolver.
    #[must_use]
    pub const fn new(engine: Arc<Engine>) -> Self {
        Self { engine }
    }
}

impl NamedService for SdsService {
    const NAME: &'static str = "envoy.service.secret.v3.SecretDiscoveryService";
}

impl tower::Service<http::Request<Body>> for SdsService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets" {
            return ready(Ok(
                Status::unimplemented("only DeltaSecrets is served: set api_type to DELTA_GRPC").into_http()
            ));
        }
        ready(Ok(self.open(request).unwrap_or_else(Status::into_http)))
    }
}

impl SdsService {
    /// Starts a stream's session.
    fn open(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let engine = Arc::clone(&self.engine);
        let peer = *request.extensions().get::<Peer>().ok_or_else(|| Status::internal("no peer"))?;
        let text = |key| request.headers().get(key).and_then(|value| value.to_str().ok());
        let cluster: Option<ClusterName> = text("x-bouncer-cluster").and_then(|name| name.parse().ok());
        let has_key = text("x-bouncer-sds-key").is_some_and(|key| engine.config.sds_key.matches(key.as_bytes()));
        let arena = Arc::clone(engine.cache.arena());
        let requests = Streaming::new_request(RequestDecoder, request.into_body(), None, Some(MAX_REQUEST));
        let session = Session::new(engine, peer, cluster, has_key, requests);
        let mut response = http::Response::new(Body::new(Answers::new(arena, session.answers())));
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Ok(response)
    }
}
