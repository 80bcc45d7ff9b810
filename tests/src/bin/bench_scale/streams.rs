//! Streams as resolvers hold them on the Policy Bridge: each over a connection and under an SVID of its own, acknowledging
//! what comes and reporting every ten seconds.

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

/// What a stream got.
pub(crate) enum Got {
    /// A whole snapshot.
    Snapshot(wire::Snapshot),
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
        let hello = wire::Hello { bouncer: bouncer.to_owned(), version: "bench".to_owned(), ..wire::Hello::default() };
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

    /// Holds the stream, telling of each whole snapshot, until it ends.
    pub(crate) async fn hold(mut self, stream: usize, events: mpsc::UnboundedSender<Event>) {
        let tell = |got| events.send(Event { stream, at: Instant::now(), got }).is_ok();
        // Not all at the same time.
        let first = tokio::time::Instant::now() + REPORT.mul_f64((stream % 97) as f64 / 97.0);
        let mut reports = tokio::time::interval_at(first, REPORT);
        let mut whole = wire::Snapshot::default();
        loop {
            let up = tokio::select! {
                _ = reports.tick() => Up::Status(wire::Status { ready: true, ..wire::Status::default() }),
                next = self.next() => match next {
                    Ok(Some(Down::Snapshot(part))) => {
                        whole.resources.extend_from_slice(&part.resources);
                        whole.envelopes.extend_from_slice(&part.envelopes);
                        if part.more {
                            continue;
                        }
                        let whole = wire::Snapshot { resources: std::mem::take(&mut whole.resources),
                            envelopes: std::mem::take(&mut whole.envelopes), ..part };
                        let epoch = whole.epoch;
                        if !tell(Got::Snapshot(whole)) {
                            return;
                        }
                        Up::Ack(wire::Ack { epoch, ..wire::Ack::default() })
                    }
                    Ok(Some(_)) => continue,
                    Ok(None) => { tell(Got::End("it ended".to_owned())); return }
                    Err(fault) => { tell(Got::End(fault.to_string())); return }
                },
            };
            if self.up.send(message(up)).await.is_err() {
                tell(Got::End("it takes no more".to_owned()));
                return;
            }
        }
    }
}
