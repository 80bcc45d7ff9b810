//! The gRPC service: who is at the other end, and what becomes of a stream that may begin.

use super::editions::Editions;
use super::enrol::KeyHolder;
use super::live::Live;
use super::refusals::{Refusal, Why};
use super::session::Session;
use crate::clock::Clock;
use crate::metrics::{BridgeRefusal, Metrics};
use crate::model::{Actor, Bouncer};
use crate::store::Store;
use bouncer_custody::BouncerIdentity;
use bouncer_proto::bridge::v1::enrolment_server::{Enrolment, EnrolmentServer};
use bouncer_proto::bridge::v1::policy_bridge_server::{PolicyBridge, PolicyBridgeServer};
use bouncer_proto::bridge::v1::{ControlMessage, EnrollReply, EnrollRequest, Hello, ResolverMessage, resolver_message};
use futures::TryStreamExt as _;
use futures::stream::MapOk;
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// How long a resolver may take to say hello.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// The largest message from a resolver: an audit batch.
const MESSAGE_LIMIT: usize = 4 * 1024 * 1024;
/// The largest message to enrol with, which may come from anybody: a session token and little else.
const ENROLMENT_LIMIT: usize = 16 * 1024;
/// How far one hello may raise the epoch: by more changes than a database has seen since any backup of it.
const STEP: u64 = 1 << 32;
/// No hello raises it to this or beyond: so much is left for changes, however many hellos lie.
const CEILING: u64 = 1 << 62;
/// Messages waiting for a resolver that is slow to read.
const OUTBOX: usize = 16;

/// Where they wait. Boxed: a channel keeps room for 32 at a time, as large as the largest kind.
pub(super) type Outbox = mpsc::Sender<Result<Box<ControlMessage>, Status>>;
type Unboxed = fn(Box<ControlMessage>) -> ControlMessage;

/// Who is at the other end of a connection, by its verified certificate or its enrolment. The transport attaches it to
/// every request.
#[derive(Debug, Clone)]
pub struct Peer {
    /// The SPIFFE ID of the client's SVID, or the IAM role that it enrolled with.
    pub id: BouncerIdentity,
    /// When that SVID ends, and the session with it. An enrolment can be renewed: its end is [`KeyHolder`]'s to know.
    pub not_after: Timestamp,
}

/// How often a session speaks and how long it waits. Tests choose shorter ones.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// How often a resolver hears from us when nothing changes.
    pub keep_alive: Duration,
    /// How long a resolver may be silent.
    pub silence: Duration,
}

impl Default for Timing {
    /// 10 s as the protocol says, and 35 s: three of a resolver's status reports.
    fn default() -> Self {
        Self { keep_alive: Duration::from_secs(10), silence: Duration::from_secs(35) }
    }
}

/// The Policy Bridge.
#[derive(Clone)]
pub struct Bridge {
    /// The database.
    pub store: Arc<dyn Store>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Where sessions show what they learn.
    pub live: Arc<Live>,
    /// What each connected bouncer may know.
    pub editions: Arc<Editions>,
    /// How often and how long.
    pub timing: Timing,
    /// Ends every session.
    pub stop: CancellationToken,
}

impl Bridge {
    /// The service, as tonic serves it.
    #[must_use]
    pub fn into_service(self) -> PolicyBridgeServer<Self> {
        PolicyBridgeServer::new(self).max_decoding_message_size(MESSAGE_LIMIT)
    }

    /// The service that whoever has a connection may call.
    #[must_use]
    pub fn into_enrolment(self) -> EnrolmentServer<Self> {
        EnrolmentServer::new(self).max_decoding_message_size(ENROLMENT_LIMIT)
    }

    fn refuse(&self, reason: BridgeRefusal, peer: &BouncerIdentity, status: Status) -> Status {
        self.metrics.bridge_refused(reason);
        tracing::warn!(peer = %peer, why = status.message(), "refused a Policy Bridge session");
        status
    }

    /// The bouncer of this identity.
    ///
    /// # Errors
    /// The status to answer with: nobody is registered for it, or the database does not answer.
    pub(super) async fn registered(&self, peer: &BouncerIdentity) -> Result<Bouncer, Status> {
        let bouncer = self.store.bouncer_of(peer).await.map_err(|error| unavailable(&error))?;
        bouncer.ok_or_else(|| {
            let text = match peer {
                BouncerIdentity::Spiffe(_) => {
                    "no bouncer is registered for this SPIFFE ID; register it with POST /v1/bouncers"
                }
                BouncerIdentity::IamRole(_) => {
                    "no bouncer is registered for this IAM role; register it with POST /v1/bouncers"
                }
            };
            self.live.refusals.note(Refusal { at: self.clock.now(), peer: peer.clone(), why: Why::Unregistered });
            self.refuse(BridgeRefusal::Unregistered, peer, Status::permission_denied(text))
        })
    }

    async fn hello(&self, peer: &BouncerIdentity, messages: &mut Streaming<ResolverMessage>) -> Result<Hello, Status> {
        let first = tokio::time::timeout(HELLO_DEADLINE, messages.message()).await;
        match first.map_err(|_| Status::deadline_exceeded("no hello came within 10 s"))?? {
            Some(ResolverMessage { body: Some(resolver_message::Body::Hello(hello)) }) => Ok(hello),
            _ => {
                let status = Status::invalid_argument("the first message must be a hello");
                Err(self.refuse(BridgeRefusal::Protocol, peer, status))
            }
        }
    }
}

/// What a resolver hears when the database fails: nothing of why.
pub(super) fn unavailable(error: &crate::store::StoreError) -> Status {
    let source = std::error::Error::source(error).map(ToString::to_string);
    tracing::error!(%error, source = source.as_deref().unwrap_or_default(), "the Policy Bridge could not use the database");
    Status::unavailable("the control plane's database is not available; try again")
}

#[tonic::async_trait]
impl PolicyBridge for Bridge {
    type SyncStream = MapOk<ReceiverStream<Result<Box<ControlMessage>, Status>>, Unboxed>;

    async fn sync(&self, request: Request<Streaming<ResolverMessage>>) -> Result<Response<Self::SyncStream>, Status> {
        let holder = request.extensions().get::<KeyHolder>().cloned();
        let peer = match (&holder, request.extensions().get::<Peer>()) {
            (Some(holder), _) => holder.peer(self)?,
            (None, Some(peer)) => peer.clone(),
            (None, None) => return Err(Status::unauthenticated("the connection has no verified SPIFFE ID")),
        };
        let mut messages = request.into_inner();
        let bouncer = self.registered(&peer.id).await?;
        let (outbox, stream) = mpsc::channel(OUTBOX);

        // Answered at once, so that a resolver that waits for the response's head before its hello gets it.
        let bridge = self.clone();
        tokio::spawn(async move {
            let session = bridge.run(peer, bouncer, &mut messages, &outbox);
            let ended = match holder {
                None => session.await,
                Some(holder) => tokio::select! {
                    ended = session => ended,
                    status = holder.ended(&bridge) => Err(status),
                },
            };
            if let Err(status) = ended {
                // The resolver may be gone already.
                let _ = tokio::time::timeout(Duration::from_secs(1), outbox.send(Err(status))).await;
            }
        });
        let unboxed: Unboxed = |message| *message;
        Ok(Response::new(ReceiverStream::new(stream).map_ok(unboxed)))
    }
}

#[tonic::async_trait]
impl Enrolment for Bridge {
    async fn enroll(&self, request: Request<EnrollRequest>) -> Result<Response<EnrollReply>, Status> {
        let holder = request.extensions().get::<KeyHolder>().cloned();
        let holder = holder.ok_or_else(|| {
            Status::failed_precondition("this listener knows resolvers by their SVIDs; bridge.iam has another one")
        })?;
        holder.enrol(self, request.into_inner()).await.map(Response::new)
    }
}

impl Bridge {
    async fn run(
        &self,
        peer: Peer,
        bouncer: Bouncer,
        messages: &mut Streaming<ResolverMessage>,
        outbox: &Outbox,
    ) -> Result<(), Status> {
        let hello = self.hello(&peer.id, messages).await?;
        if hello.bouncer != bouncer.name.as_str() {
            let text = format!(
                "this identity is registered for the bouncer '{}', not for the one that the hello names; correct \
                 'bouncer' in resolver.toml or the registration",
                bouncer.name
            );
            let why = Why::Mismatch { registered: bouncer.name, named: hello.bouncer.parse().ok() };
            self.live.refusals.note(Refusal { at: self.clock.now(), peer: peer.id.clone(), why });
            return Err(self.refuse(BridgeRefusal::Mismatch, &peer.id, Status::permission_denied(text)));
        }
        self.outgrow(&bouncer, &peer.id, hello.epoch).await?;
        Session::new(self, bouncer, peer, hello, outbox).run(messages).await
    }

    /// A bouncer holds an epoch that this database never reached: it was restored from a backup. Without a jump past
    /// it the bouncer would refuse everything we say as a replay. The epoch is every bouncer's, and never falls: where
    /// one lies, that must cost the others nothing.
    async fn outgrow(&self, bouncer: &Bouncer, peer: &BouncerIdentity, reported: u64) -> Result<(), Status> {
        let own = self.store.epoch().await.map_err(|error| unavailable(&error))?;
        if reported <= own {
            return Ok(());
        }
        if reported - own > STEP || reported >= CEILING {
            let why = Why::Epoch { bouncer: bouncer.name.clone(), reported };
            self.live.refusals.note(Refusal { at: self.clock.now(), peer: peer.clone(), why });
            let text = format!(
                "the hello's epoch, {reported}, is further past the database's, {own}, than a restored backup explains; \
                 where the resolver is to be trusted, stop it, remove the file 'snapshot' from its state_dir, and start it"
            );
            return Err(self.refuse(BridgeRefusal::Epoch, peer, Status::out_of_range(text)));
        }
        self.raise(bouncer, reported).await.map(drop)
    }

    /// Jumps past an epoch that a bouncer holds, and gives the new one.
    pub(super) async fn raise(&self, bouncer: &Bouncer, reported: u64) -> Result<u64, Status> {
        let actor = Actor::bouncer(&bouncer.name);
        let epoch = self.store.raise_epoch_past(reported, &actor).await.map_err(|error| unavailable(&error))?;
        tracing::warn!(
            bouncer = %bouncer.name, reported, now = epoch,
            "a bouncer holds an epoch that this database never said: it was restored from a backup. Review its content"
        );
        Ok(epoch)
    }
}
