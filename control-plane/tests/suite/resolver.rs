//! A resolver as the Policy Bridge sees one, over an in-process connection whose peer was "proven" to be whoever the
//! test says.

use crate::harness::{ControlPlane, DEADLINE};
use bouncer_control_plane::bridge::{Bridge, Peer, transport};
use bouncer_proto::ContentDigest;
use bouncer_proto::bridge::v1::control_message::Body as Down;
use bouncer_proto::bridge::v1::policy_bridge_client::PolicyBridgeClient;
use bouncer_proto::bridge::v1::resolver_message::Body as Up;
use bouncer_proto::bridge::v1::{
    Ack, AuditBatch, AuditEvent, Checkpoint, ControlMessage, Hello, PolicyDelta, ResolverMessage, Snapshot,
    Status as Report,
};
use futures::StreamExt as _;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use std::sync::Mutex;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

pub(crate) struct Resolver {
    up: mpsc::Sender<ResolverMessage>,
    down: Streaming<ControlMessage>,
}

pub(crate) fn hello(bouncer: &str, epoch: u64) -> Up {
    Up::Hello(Hello { bouncer: bouncer.into(), version: "1.2.3".into(), epoch, ..Hello::default() })
}

/// A connection to the bridge, by a peer with this SPIFFE ID whose SVID ends at this time.
async fn channel(bridge: Bridge, spiffe_id: &str, not_after: Timestamp) -> Channel {
    let (client, server) = tokio::io::duplex(1 << 16);
    let peer = Peer { id: spiffe_id.parse().unwrap(), not_after };
    let connection = futures::stream::iter([transport::Identified::new(server, peer)]);
    tokio::spawn(transport::serve(bridge, connection.chain(futures::stream::pending())));
    let client = Mutex::new(Some(client));
    let connector = tower::service_fn(move |_| {
        let client = client.lock().unwrap().take();
        async move { client.map(TokioIo::new).ok_or_else(|| std::io::Error::other("connected before")) }
    });
    Endpoint::from_static("http://control-plane.invalid").connect_with_connector(connector).await.unwrap()
}

impl Resolver {
    /// Opens a stream, without a hello.
    pub(crate) async fn open(bridge: Bridge, spiffe_id: &str, not_after: Timestamp) -> Result<Self, Status> {
        let channel = channel(bridge, spiffe_id, not_after).await;
        let (up, outgoing) = mpsc::channel(16);
        let down = PolicyBridgeClient::new(channel).sync(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { up, down })
    }

    /// As [`Self::connect`], for a resolver that understands deltas and holds this already.
    pub(crate) async fn resume(bridge: Bridge, bouncer: &str, held: Option<&Snapshot>) -> Self {
        let not_after = Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let mut resolver = Self::open(bridge, &crate::harness::spiffe_id(bouncer), not_after).await.unwrap();
        let hello = Hello {
            bouncer: bouncer.into(),
            version: "1.2.3".into(),
            epoch: held.map_or(0, |held| held.epoch),
            digest: held.map(|held| ContentDigest::of(held).to_vec()).unwrap_or_default(),
            delta_form: ContentDigest::FORM,
        };
        resolver.say(Up::Hello(hello)).await;
        resolver
    }

    /// Opens a stream as a registered bouncer's resolver does, and says hello.
    pub(crate) async fn connect(plane: &ControlPlane, bouncer: &str, epoch: u64) -> Self {
        let not_after = Timestamp::now() + jiff::SignedDuration::from_hours(1);
        let spiffe_id = crate::harness::spiffe_id(bouncer);
        let mut resolver = Self::open(plane.bridge(), &spiffe_id, not_after).await.unwrap();
        resolver.say(hello(bouncer, epoch)).await;
        resolver
    }

    pub(crate) async fn say(&mut self, body: Up) {
        self.up.send(ResolverMessage { body: Some(body) }).await.unwrap();
    }

    /// The next message, whatever it is.
    pub(crate) async fn next(&mut self) -> Result<Option<Down>, Status> {
        let message = tokio::time::timeout(DEADLINE, self.down.message()).await.expect("the bridge said nothing");
        Ok(message?.map(|message| message.body.expect("a message without a body")))
    }

    /// The next snapshot; keep-alives may come before it.
    pub(crate) async fn snapshot(&mut self) -> Snapshot {
        loop {
            match self.next().await.unwrap().expect("the stream ended") {
                Down::Snapshot(snapshot) => return snapshot,
                Down::KeepAlive(_) => {}
                other => panic!("{other:?} instead of a snapshot"),
            }
        }
    }

    /// The next delta; keep-alives may come before it.
    pub(crate) async fn delta(&mut self) -> PolicyDelta {
        loop {
            match self.next().await.unwrap().expect("the stream ended") {
                Down::Delta(delta) => return delta,
                Down::KeepAlive(_) => {}
                other => panic!("{other:?} instead of a delta"),
            }
        }
    }

    /// The next audit ack's sequence.
    pub(crate) async fn audit_ack(&mut self) -> u64 {
        loop {
            if let Down::AuditAck(ack) = self.next().await.unwrap().expect("the stream ended") {
                return ack.sequence;
            }
        }
    }

    /// The status that the stream ends with.
    pub(crate) async fn end(&mut self) -> Status {
        loop {
            match self.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }

    pub(crate) async fn ack(&mut self, epoch: u64) {
        self.say(Up::Ack(Ack { epoch, ..Default::default() })).await;
    }

    pub(crate) async fn report(&mut self, report: Report) {
        self.say(Up::Status(Report { time_ms: Timestamp::now().as_millisecond(), ..report })).await;
    }

    pub(crate) async fn batch(&mut self, events: Vec<AuditEvent>, checkpoint: Option<Checkpoint>) {
        self.say(Up::Audit(AuditBatch { events, checkpoint })).await;
    }

    pub(crate) async fn audit(&mut self, events: Vec<AuditEvent>) {
        self.batch(events, None).await;
    }
}

/// An event with this sequence. Its id is made of it.
pub(crate) fn event(sequence: u64, outcome: &str) -> AuditEvent {
    AuditEvent {
        id: format!("0199d7a0-0000-7000-8000-{sequence:012}"),
        sequence,
        time_ms: 1_790_000_000_000 + i64::try_from(sequence).unwrap(),
        caller: "spiffe://example.org/ns/shop/sa/cart".into(),
        resource: "payments-api".into(),
        logical_path: crate::harness::PATH.into(),
        generation: 1,
        key_id: crate::harness::KEY.into(),
        cluster: "payments".into(),
        destination: "payments.internal:8443".into(),
        outcome: outcome.into(),
        reason: if outcome == "deny" { "caller_not_allowed".into() } else { String::new() },
        count: 1,
        authority: "payments.internal".into(),
        ..Default::default()
    }
}
