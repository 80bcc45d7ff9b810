//! Delta SDS: the answer to Envoy's request for a secret, on a socket of its own.
//!
//! Three kinds of names are served, each under its own right: `<key>/<tag>` to an Envoy with a live grant for the
//! cluster that its configuration names in `x-bouncer-cluster`; `named/<cluster>` to one whose configuration carries
//! the key in `x-bouncer-sds-key`, once a stream was allowed; `ca/<cluster>`, which is public. Every other name is
//! answered with `removed_resources` at once, so that Envoy fails a handshake instead of waiting.
//! Followed: the xDS protocol's incremental variant, as `envoy.service.secret.v3`.

mod codec;
mod cooling;
mod hub;
mod stream;

use crate::engine::Engine;
use crate::grants::Peer;
use bouncer_custody::ClusterName;
use codec::{DeltaRequest, DeltaResponse, SdsCodec};
pub use cooling::Cooling;
pub use hub::SdsHub;
use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use stream::Session;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};

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
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let method = Method { engine: Arc::clone(&self.engine) };
        Box::pin(async move {
            if request.uri().path() == "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets" {
                return Ok(Grpc::new(SdsCodec).max_decoding_message_size(1 << 20).streaming(method, request).await);
            }
            Ok(Status::unimplemented("only DeltaSecrets is served: set api_type to DELTA_GRPC").into_http())
        })
    }
}

struct Method {
    engine: Arc<Engine>,
}

impl StreamingService<DeltaRequest> for Method {
    type Response = DeltaResponse;
    type ResponseStream = ReceiverStream<Result<DeltaResponse, Status>>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<Streaming<DeltaRequest>>) -> Self::Future {
        let engine = Arc::clone(&self.engine);
        Box::pin(async move {
            let peer = *request.extensions().get::<Peer>().ok_or_else(|| Status::internal("no peer"))?;
            let text = |key| request.metadata().get(key).and_then(|value| value.to_str().ok());
            let cluster: Option<ClusterName> = text("x-bouncer-cluster").and_then(|name| name.parse().ok());
            let has_key = text("x-bouncer-sds-key").is_some_and(|key| engine.config.sds_key.matches(key.as_bytes()));
            let (answers, stream) = tokio::sync::mpsc::channel(16);
            let session = Session::new(engine, peer, cluster, has_key, answers);
            tokio::spawn(session.run(request.into_inner()));
            Ok(Response::new(ReceiverStream::new(stream)))
        })
    }
}
