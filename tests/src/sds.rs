//! Envoy's side of SDS, in a scenario's own hands: a stream for each secret, all on one connection. Incremental towards
//! Bouncer, state of the world towards SPIRE Agent, which serves no other.

use crate::{Fault, Result, fault::Doing as _};
use http::uri::PathAndQuery;
use prost::Message;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
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
pub async fn connect(socket: &Path) -> Result<Channel> {
    Endpoint::try_from(format!("unix:{}", socket.display()))?.connect().await.doing(socket.display())
}

/// An incremental stream. It ends when it is dropped.
pub struct Delta {
    requests: mpsc::Sender<DeltaRequest>,
    answers: Streaming<DeltaResponse>,
}

/// What an incremental stream was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Told {
    /// The version of the secret; empty where it was removed.
    pub version: String,
    /// The answer's length in bytes.
    pub bytes: usize,
    nonce: String,
}

impl Delta {
    /// Opens a stream for a cluster's secret and asks for it; `held` is the version that Envoy has of it already.
    ///
    /// # Errors
    /// If the server takes no stream.
    pub async fn open(channel: &Channel, cluster: &str, name: &str, held: Option<&str>) -> Result<Self> {
        let initial_versions = held.map(|version| (name.to_owned(), version.to_owned())).into_iter().collect();
        let ask = DeltaRequest {
            node: Some(node()),
            type_url: SECRET.to_owned(),
            subscribe: vec![name.to_owned()],
            initial_versions,
            ..DeltaRequest::default()
        };
        let (requests, outgoing) = mpsc::channel(4);
        requests.send(ask).await?;
        let mut request = Request::new(ReceiverStream::new(outgoing));
        request.metadata_mut().insert("x-bouncer-cluster", cluster.parse()?);
        let answers = open(channel, request, DELTA).await?;
        Ok(Self { requests, answers })
    }

    /// Opens a stream, waits for the secret under its tag, and takes it.
    ///
    /// # Errors
    /// If the server gives no secret, or another.
    pub async fn fetch(channel: &Channel, cluster: &str, key: &str, tag: &str) -> Result<(Self, Told)> {
        let mut stream = Self::open(channel, cluster, &format!("{key}/{tag}"), None).await?;
        let told = stream.next().await?;
        if told.version != tag {
            return Err(Fault::new("no secret in the answer"));
        }
        stream.ack(&told).await?;
        Ok((stream, told))
    }

    /// The next answer.
    ///
    /// # Errors
    /// If the stream ends before.
    pub async fn next(&mut self) -> Result<Told> {
        let answer = self.answers.message().await?.ok_or_else(|| Fault::new("the stream ended"))?;
        let bytes = answer.encoded_len();
        let version = answer.resources.into_iter().next().map(|resource| resource.version).unwrap_or_default();
        Ok(Told { version, bytes, nonce: answer.nonce })
    }

    /// The next answer, if there is one within this time.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn next_within(&mut self, time: Duration) -> Result<Option<Told>> {
        tokio::time::timeout(time, self.next()).await.ok().transpose()
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// If the stream has ended.
    pub async fn ack(&self, told: &Told) -> Result<()> {
        Ok(self.requests.send(DeltaRequest { nonce: told.nonce.clone(), ..DeltaRequest::default() }).await?)
    }

    /// Refuses an answer.
    ///
    /// # Errors
    /// If the stream has ended.
    pub async fn nack(&self, told: &Told) -> Result<()> {
        let error = Some(RpcStatus { code: 3, message: "the scenario does not like it".to_owned() });
        Ok(self.requests.send(DeltaRequest { nonce: told.nonce.clone(), error, ..DeltaRequest::default() }).await?)
    }
}

/// A state-of-the-world stream that was answered.
pub struct State {
    /// The answer's length in bytes.
    pub bytes: usize,
    _requests: mpsc::Sender<StateRequest>,
    _answers: Streaming<StateResponse>,
}

impl State {
    /// Opens a stream, asks for a secret, waits for it, and takes it.
    ///
    /// # Errors
    /// If the server gives none.
    pub async fn open(channel: &Channel, name: &str) -> Result<Self> {
        let ask = StateRequest {
            node: Some(node()),
            names: vec![name.to_owned()],
            type_url: SECRET.to_owned(),
            ..StateRequest::default()
        };
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
        Ok(Self { bytes, _requests: requests, _answers: answers })
    }
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
    Node { id: "scenario".to_owned(), cluster: "scenario".to_owned() }
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
    #[prost(map = "string, string", tag = "5")]
    initial_versions: HashMap<String, String>,
    #[prost(string, tag = "6")]
    nonce: String,
    #[prost(message, optional, tag = "7")]
    error: Option<RpcStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeltaResponse {
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Resource>,
    #[prost(string, tag = "5")]
    nonce: String,
    #[prost(string, repeated, tag = "6")]
    removed: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(bytes = "vec", tag = "2")]
    secret: Vec<u8>,
    #[prost(string, tag = "3")]
    name: String,
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
