//! A client of SDS as Envoy is one: a stream for each secret, all on one connection. Incremental for Bouncer, state of
//! the world for SPIRE Agent, which serves no other.

use bouncer_tests::{Fault, Result, fault::Doing as _};
use http::uri::PathAndQuery;
use prost::Message;
use std::path::Path;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};
use tonic_prost::ProstCodec;

const SECRET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret";
const DELTA: &str = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets";
const STATE: &str = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";

/// A connection over a Unix socket.
///
/// # Errors
/// If nobody listens.
pub(crate) async fn connect(socket: &Path) -> Result<Channel> {
    Endpoint::try_from(format!("unix:{}", socket.display()))?.connect().await.doing(socket.display())
}

/// A secret that was answered, its stream left open.
pub(crate) struct Held {
    /// The answer's length.
    pub bytes: usize,
    _stream: Stream,
}

enum Stream {
    Delta { _requests: mpsc::Sender<DeltaRequest>, _answers: Streaming<DeltaResponse> },
    State { _requests: mpsc::Sender<StateRequest>, _answers: Streaming<StateResponse> },
}

/// Asks Bouncer for a secret.
///
/// # Errors
/// If it gives none.
pub(crate) async fn delta(channel: &Channel, cluster: &MetadataValue<Ascii>, name: String) -> Result<Held> {
    let ask =
        DeltaRequest { node: Some(node()), type_url: SECRET.to_owned(), subscribe: vec![name], nonce: String::new() };
    let (requests, outgoing) = mpsc::channel(2);
    requests.send(ask).await?;
    let mut request = Request::new(ReceiverStream::new(outgoing));
    request.metadata_mut().insert("x-bouncer-cluster", cluster.clone());
    let mut answers: Streaming<DeltaResponse> = open(channel, request, DELTA).await?;
    let answer = answers.message().await?.ok_or_else(|| Fault::new("the stream ended"))?;
    if answer.resources.len() != 1 {
        return Err(Fault::new("no secret in the answer"));
    }
    let bytes = answer.encoded_len();
    requests.send(DeltaRequest { nonce: answer.nonce, ..DeltaRequest::default() }).await?;
    Ok(Held { bytes, _stream: Stream::Delta { _requests: requests, _answers: answers } })
}

/// Asks SPIRE Agent for a secret.
///
/// # Errors
/// If it gives none.
pub(crate) async fn state(channel: &Channel, name: String) -> Result<Held> {
    let ask =
        StateRequest { node: Some(node()), names: vec![name], type_url: SECRET.to_owned(), ..StateRequest::default() };
    let (requests, outgoing) = mpsc::channel(2);
    requests.send(ask.clone()).await?;
    let mut answers: Streaming<StateResponse> =
        open(channel, Request::new(ReceiverStream::new(outgoing)), STATE).await?;
    let answer = answers.message().await?.ok_or_else(|| Fault::new("the stream ended"))?;
    if answer.resources.len() != 1 {
        return Err(Fault::new("no secret in the answer"));
    }
    let bytes = answer.encoded_len();
    requests.send(StateRequest { version: answer.version, nonce: answer.nonce, node: None, ..ask }).await?;
    Ok(Held { bytes, _stream: Stream::State { _requests: requests, _answers: answers } })
}

async fn open<Q, A>(channel: &Channel, request: Request<ReceiverStream<Q>>, path: &'static str) -> Result<Streaming<A>>
where
    Q: Message + 'static,
    A: Message + Default + 'static,
{
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let path = PathAndQuery::from_static(path);
    Ok(grpc.streaming(request, path, ProstCodec::<Q, A>::default()).await?.into_inner())
}

fn node() -> Node {
    Node { id: "bench".to_owned(), cluster: "bench".to_owned() }
}

// The fields that matter here, by the numbers of envoy.config.core.v3 and envoy.service.discovery.v3.

#[derive(Clone, PartialEq, prost::Message)]
struct Node {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    cluster: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeltaRequest {
    #[prost(message, optional, tag = "1")]
    node: Option<Node>,
    #[prost(string, tag = "2")]
    type_url: String,
    #[prost(string, repeated, tag = "3")]
    subscribe: Vec<String>,
    #[prost(string, tag = "6")]
    nonce: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeltaResponse {
    #[prost(bytes = "vec", repeated, tag = "2")]
    resources: Vec<Vec<u8>>,
    #[prost(string, tag = "5")]
    nonce: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StateRequest {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(message, optional, tag = "2")]
    node: Option<Node>,
    #[prost(string, repeated, tag = "3")]
    names: Vec<String>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StateResponse {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(bytes = "vec", repeated, tag = "2")]
    resources: Vec<Vec<u8>>,
    #[prost(string, tag = "5")]
    nonce: String,
}
