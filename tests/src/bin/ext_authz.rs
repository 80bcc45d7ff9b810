//! The benchmark's other side: a minimal `envoy.service.auth.v3` server on a Unix socket, by tonic.
//!
//! It does what an authorization server of that kind must at least do: reads the request's attributes, looks up a
//! decision in memory, and answers it. No trick and no waste: one thread, no log, no allocation of its own beyond what
//! prost and tonic do.

use bouncer_tests::Result;
use clap::Parser;
use prost::Message;
use std::collections::HashMap;
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::{Body, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// A minimal ext_authz server, which the benchmark compares Bouncer with.
#[derive(Parser)]
struct Args {
    /// The socket to listen on.
    #[arg(long)]
    socket: PathBuf,
    /// A host that is allowed; with `=TAG`, the answer carries the tag as dynamic metadata `tag`. Others are denied.
    #[arg(long = "allow", value_name = "HOST[=TAG]")]
    allowed: Vec<String>,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "ext_authz: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let allowed = args.allowed.iter().map(|allowed| match allowed.split_once('=') {
        Some((host, tag)) => (host.to_owned(), Some(tag.to_owned())),
        None => (allowed.clone(), None),
    });
    let authorization = Authorization(Arc::new(allowed.collect()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let incoming = UnixListenerStream::new(UnixListener::bind(&args.socket)?);
        tonic::transport::Server::builder().add_service(authorization).serve_with_incoming(incoming).await?;
        Ok(())
    })
}

/// Hosts that are allowed, with their tags.
#[derive(Clone)]
struct Authorization(Arc<HashMap<String, Option<String>>>);

impl Authorization {
    fn check(&self, request: CheckRequest) -> CheckResponse {
        let http = request.attributes.and_then(|attributes| attributes.request).and_then(|request| request.http);
        match http.and_then(|http| self.0.get(&http.host)) {
            Some(tag) => CheckResponse {
                status: Some(RpcStatus { code: 0 }),
                ok_response: Some(OkHttpResponse {}),
                dynamic_metadata: tag.as_ref().map(|tag| Struct {
                    fields: HashMap::from([("tag".to_owned(), Value { string_value: tag.clone() })]),
                }),
            },
            None => CheckResponse {
                status: Some(RpcStatus { code: tonic::Code::PermissionDenied as i32 }),
                ok_response: None,
                dynamic_metadata: None,
            },
        }
    }
}

impl UnaryService<CheckRequest> for Authorization {
    type Response = CheckResponse;
    type Future = std::future::Ready<std::result::Result<Response<CheckResponse>, Status>>;

    fn call(&mut self, request: Request<CheckRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.check(request.into_inner()))))
    }
}

impl<B> Service<http::Request<B>> for Authorization
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let known = request.uri().path() == "/envoy.service.auth.v3.Authorization/Check";
        let service = self.clone();
        Box::pin(async move {
            if !known {
                return Ok(Status::unimplemented("only Check").into_http());
            }
            let mut grpc = Grpc::new(ProstCodec::<CheckResponse, CheckRequest>::default());
            Ok(grpc.unary(service, request).await)
        })
    }
}

impl NamedService for Authorization {
    const NAME: &'static str = "envoy.service.auth.v3.Authorization";
}

// The part of the messages that such a server reads and writes, with the numbers of envoy/service/auth/v3.

#[derive(Clone, PartialEq, Message)]
struct CheckRequest {
    #[prost(message, optional, tag = "1")]
    attributes: Option<AttributeContext>,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeContext {
    #[prost(message, optional, tag = "1")]
    source: Option<Peer>,
    #[prost(message, optional, tag = "2")]
    destination: Option<Peer>,
    #[prost(message, optional, tag = "4")]
    request: Option<AttributeRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct Peer {
    #[prost(string, tag = "4")]
    principal: String,
}

#[derive(Clone, PartialEq, Message)]
struct AttributeRequest {
    #[prost(message, optional, tag = "2")]
    http: Option<HttpRequest>,
}

#[derive(Clone, PartialEq, Message)]
struct HttpRequest {
    #[prost(string, tag = "2")]
    method: String,
    #[prost(map = "string, string", tag = "3")]
    headers: HashMap<String, String>,
    #[prost(string, tag = "4")]
    path: String,
    #[prost(string, tag = "5")]
    host: String,
    #[prost(string, tag = "10")]
    protocol: String,
}

#[derive(Clone, PartialEq, Message)]
struct CheckResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RpcStatus>,
    #[prost(message, optional, tag = "3")]
    ok_response: Option<OkHttpResponse>,
    #[prost(message, optional, tag = "4")]
    dynamic_metadata: Option<Struct>,
}

#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct OkHttpResponse {}

#[derive(Clone, PartialEq, Message)]
struct Struct {
    #[prost(map = "string, message", tag = "1")]
    fields: HashMap<String, Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "3")]
    string_value: String,
}
