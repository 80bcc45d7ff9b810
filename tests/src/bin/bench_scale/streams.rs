//! Streams as resolvers hold them on the Policy Bridge: each over a connection and under an SVID of its own, taking deltas,
//! acknowledging what comes and reporting every ten seconds. They work out nothing: that is other machines' work.

use bouncer_proto::ContentDigest;
use bouncer_proto::bridge::v1 as wire;
use bouncer_tests::pki::Identity;
use bouncer_tests::{Fault, Result, bridge};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use wire::control_message::Body as Down;
use wire::policy_bridge_client::PolicyBridgeClient;
use wire::resolver_message::Body as Up;

/// Between two reports.
const REPORT: Duration = Duration::from_secs(10);

/// One stream, both ways.
pub(crate) struct Stream {
    /// Up.
    pub(crate) up: mpsc::Sender<wire::ResolverMessage>,
    /// Down.
    pub(crate) down: Streaming<wire::ControlMessage>,
}

/// A policy as it was sent: whole, or what of it differs.
#[derive(Debug, Clone)]
pub(crate) enum Policy {
    /// The whole.
    Whole(wire::Snapshot),
    /// From the one before.
    Delta(wire::PolicyDelta),
}

impl Policy {
    /// Whether intercept is enabled.
    pub(crate) fn is_enabled(&self) -> bool {
        match self {
            Self::Whole(snapshot) => snapshot.intercept_enabled,
            Self::Delta(delta) => delta.intercept_enabled,
        }
    }

    /// The resources in it.
    pub(crate) fn resources(&self) -> &[wire::ProtectedResource] {
        match self {
            Self::Whole(snapshot) => &snapshot.resources,
            Self::Delta(delta) => &delta.resources,
        }
    }

    /// The envelopes in it.
    pub(crate) fn envelopes(&self) -> &[wire::Envelope] {
        match self {
            Self::Whole(snapshot) => &snapshot.envelopes,
            Self::Delta(delta) => &delta.envelopes,
        }
    }

    /// The message that it came in.
    pub(crate) fn into_message(self) -> wire::ControlMessage {
        let body = match self {
            Self::Whole(snapshot) => Down::Snapshot(snapshot),
            Self::Delta(delta) => Down::Delta(delta),
        };
        wire::ControlMessage { body: Some(body) }
    }

    fn ack(&self) -> wire::Ack {
        match self {
            Self::Whole(snapshot) => wire::Ack { epoch: snapshot.epoch, ..wire::Ack::default() },
            Self::Delta(delta) => {
                wire::Ack { epoch: delta.epoch, digest: delta.digest.clone(), ..wire::Ack::default() }
            }
        }
    }

    /// It goes on in another message.
    fn is_part(&self) -> bool {
        match self {
            Self::Whole(snapshot) => snapshot.more,
            Self::Delta(delta) => delta.more,
        }
    }
}

/// What a stream got.
pub(crate) enum Got {
    /// A policy.
    Policy(Policy),
    /// Its end.
    End(String),
}

/// What a stream got, which, and when.
pub(crate) struct Event {
    /// Which stream.
    pub(crate) stream: usize,
    /// When.
    pub(crate) at: Instant,
    /// What.
    pub(crate) got: Got,
}

/// A message up.
pub(crate) const fn message(body: Up) -> wire::ResolverMessage {
    wire::ResolverMessage { body: Some(body) }
}

impl Stream {
    /// Connects, and says hello as this bouncer.
    ///
    /// # Errors
    /// If the server does not take the connection.
    pub(crate) async fn open(address: SocketAddr, svid: &Identity, bouncer: &str) -> Result<Self> {
        let channel = bridge::connect(address, svid).await?;
        let (up, outgoing) = mpsc::channel(4);
        let hello = wire::Hello {
            bouncer: bouncer.to_owned(),
            version: "bench".to_owned(),
            delta_form: ContentDigest::FORM,
            ..wire::Hello::default()
        };
        let said = up.send(message(Up::Hello(hello))).await;
        said.map_err(|_| Fault::new("a new stream is closed"))?;
        let down = PolicyBridgeClient::new(channel).sync(ReceiverStream::new(outgoing)).await?.into_inner();
        Ok(Self { up, down })
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    /// If the stream ends with a status.
    pub(crate) async fn next(&mut self) -> Result<Option<Down>> {
        Ok(self.down.message().await?.and_then(|message| message.body))
    }

    /// Holds the stream, telling of each policy, until it ends.
    pub(crate) async fn hold(mut self, stream: usize, events: mpsc::UnboundedSender<Event>) {
        let tell = |got| events.send(Event { stream, at: Instant::now(), got }).is_ok();
        // Not all at the same time.
        let first = tokio::time::Instant::now() + REPORT.mul_f64((stream % 97) as f64 / 97.0);
        let mut reports = tokio::time::interval_at(first, REPORT);
        loop {
            let policy = tokio::select! {
                _ = reports.tick() => None,
                next = self.next() => match next {
                    Ok(Some(Down::Snapshot(snapshot))) => Some(Policy::Whole(snapshot)),
                    Ok(Some(Down::Delta(delta))) => Some(Policy::Delta(delta)),
                    Ok(Some(_)) => continue,
                    Ok(None) => { tell(Got::End("it ended".to_owned())); return }
                    Err(fault) => { tell(Got::End(fault.to_string())); return }
                },
            };
            let up = match policy {
                None => Up::Status(wire::Status { ready: true, ..wire::Status::default() }),
                Some(policy) if policy.is_part() => {
                    tell(Got::End("a policy came in parts".to_owned()));
                    return;
                }
                Some(policy) => {
                    let ack = policy.ack();
                    if !tell(Got::Policy(policy)) {
                        return;
                    }
                    Up::Ack(ack)
                }
            };
            if self.up.send(message(up)).await.is_err() {
                tell(Got::End("it takes no more".to_owned()));
                return;
            }
        }
    }
}
