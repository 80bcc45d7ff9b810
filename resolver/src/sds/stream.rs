//! One SDS stream: what Envoy asks on it, and what it is told.

use super::codec::{Content, DeltaRequest, DeltaResponse, SECRET};
use super::hub::{Push, Topic};
use crate::config::Mode;
use crate::engine::Engine;
use crate::grants::Peer;
use crate::metrics::Kind;
use bouncer_custody::ClusterName;
use futures::channel::mpsc;
use futures::stream::{self, Stream, StreamExt as _};
use std::collections::VecDeque;
use std::sync::Arc;
use tonic::{Status, Streaming};
use zeroize::Zeroizing;

/// Names that one stream may hold. Envoy asks for one on each.
const NAMES: usize = 256;

/// A stream's state, as small as it can be: it lives as long as its secret is in use, and hardly ever has anything to do.
pub(super) struct Session {
    engine: Arc<Engine>,
    id: u64,
    peer: Peer,
    /// The cluster that this stream's configuration belongs to.
    cluster: Option<ClusterName>,
    /// Whether its configuration carries the SDS key.
    has_key: bool,
    requests: Streaming<DeltaRequest>,
    /// The topics that were subscribed, and under which name.
    topics: Vec<(Topic, Zeroizing<String>)>,
    /// Certificates without an acknowledgement so far.
    unacked: Vec<Unacked>,
    nonce: u64,
    pushes: mpsc::UnboundedReceiver<Push>,
    push: mpsc::UnboundedSender<Push>,
    /// What is still to be told.
    outbox: VecDeque<DeltaResponse>,
}

/// A certificate that Envoy has neither taken nor refused yet.
struct Unacked {
    nonce: u64,
    topic: Topic,
    version: String,
}

/// What a name stands for, on this stream.
enum Name {
    Pushed(Topic),
    Trust(ClusterName),
    Unknown,
}

impl Session {
    pub(super) fn new(
        engine: Arc<Engine>,
        peer: Peer,
        cluster: Option<ClusterName>,
        has_key: bool,
        requests: Streaming<DeltaRequest>,
    ) -> Self {
        let (push, pushes) = mpsc::unbounded();
        let id = engine.sds.stream();
        engine.metrics.sds_streams.inc();
        let (topics, unacked, outbox) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { engine, id, peer, cluster, has_key, requests, topics, unacked, nonce: 0, pushes, push, outbox }
    }

    /// What Envoy is told, until the stream ends. Its requests are read as answers are asked for.
    pub(super) fn answers(self) -> impl Stream<Item = Result<DeltaResponse, Status>> + Send {
        stream::unfold(Some(self), async |session| {
            let mut session = session?;
            match session.next().await {
                Ok(Some(answer)) => Some((Ok(answer), Some(session))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        })
    }

    /// The next answer; `None` when Envoy has ended the stream.
    async fn next(&mut self) -> Result<Option<DeltaResponse>, Status> {
        let stop = self.engine.stop.clone();
        loop {
            if let Some(answer) = self.outbox.pop_front() {
                return Ok(Some(answer));
            }
            self.outbox = VecDeque::new();
            // What it takes to answer is boxed, so that a stream that waits is small.
            tokio::select! {
                request = self.requests.message() => match request {
                    Ok(Some(request)) => Box::pin(self.take(request)).await?,
                    Ok(None) | Err(_) => return Ok(None),
                },
                Some(push) = self.pushes.next() => {
                    let (topic, content) = push;
                    if let Some(name) = self.name_of(&topic).cloned() {
                        self.answer(Some(topic), name, content);
                    }
                }
                () = stop.cancelled() => return Err(Status::unavailable("the resolver is going away")),
            }
        }
    }

    fn name_of(&self, topic: &Topic) -> Option<&Zeroizing<String>> {
        self.topics.iter().find_map(|(known, name)| (known == topic).then_some(name))
    }

    async fn take(&mut self, request: DeltaRequest) -> Result<(), Status> {
        if !request.type_url.is_empty() && request.type_url != SECRET {
            return Err(Status::invalid_argument("only secrets are served here"));
        }
        let acked = self.unacked.iter().position(|unacked| request.nonce == unacked.nonce.to_string());
        if let Some(Unacked { topic, version, .. }) = acked.map(|place| self.unacked.swap_remove(place)) {
            self.unacked.shrink_to_fit();
            match request.error {
                None => self.engine.sds.acknowledge(&topic, self.id, &version),
                Some(error) => {
                    self.engine.metrics.sds_nacks.inc();
                    tracing::error!(
                        code = error.code,
                        "Envoy refused a credential; it is not sent again until its content changes"
                    );
                }
            }
        }
        for name in request.unsubscribe {
            for (topic, _) in self.topics.extract_if(.., |(_, known)| **known == name) {
                self.engine.sds.unsubscribe(&topic, self.id);
            }
        }
        if self.topics.len() + request.subscribe.len() > NAMES {
            return Err(Status::resource_exhausted("too many names on one stream"));
        }
        let mut held = request.initial_versions;
        for name in request.subscribe {
            let held = held.remove(&name);
            self.subscribe(Zeroizing::new(name), held).await;
        }
        Ok(())
    }

    fn name(&self, name: &str) -> Name {
        if let Some(cluster) = name.strip_prefix("ca/") {
            return cluster.parse().map_or(Name::Unknown, Name::Trust);
        }
        if let Some(cluster) = name.strip_prefix("named/").filter(|_| self.has_key) {
            // Only its own: whoever subscribes is pushed to, whatever it was answered at first.
            let own = self.cluster.as_ref().filter(|own| own.as_str() == cluster);
            return own.map_or(Name::Unknown, |own| Name::Pushed(Topic::Named(own.clone())));
        }
        let tag = self.engine.config.sds_key.open(name).and_then(|tag| tag.parse().ok());
        tag.map_or(Name::Unknown, |tag| Name::Pushed(Topic::Tag(tag)))
    }

    async fn subscribe(&mut self, name: Zeroizing<String>, held: Option<String>) {
        let parsed = self.name(&name);
        let (topic, content) = match parsed {
            Name::Unknown => (None, Content::Removed),
            Name::Trust(cluster) => (None, self.trust(&cluster)),
            Name::Pushed(topic) => {
                // Registered before the state is read, so that no push falls in between.
                self.engine.sds.subscribe(topic.clone(), self.id, self.peer, self.push.clone(), held.clone());
                self.topics.retain(|(known, _)| *known != topic);
                self.topics.reserve_exact(1);
                self.topics.push((topic.clone(), name.clone()));
                let content = match &topic {
                    Topic::Tag(tag) if held.as_deref() == Some(&*tag.to_string()) && self.may_have(&topic) => return,
                    Topic::Tag(_) => self.by_tag(&topic).await,
                    Topic::Named(cluster) => self.by_name(cluster),
                };
                (Some(topic), content)
            }
        };
        let same = match &content {
            Content::Certificate { version, .. } | Content::Trust { version, .. } => held.as_ref() == Some(version),
            Content::Removed => false,
        };
        if !same {
            self.answer(topic, name, content);
        }
    }

    fn may_have(&self, topic: &Topic) -> bool {
        match (topic, &self.cluster) {
            (Topic::Tag(tag), Some(cluster)) => self.engine.is_granted(tag, cluster, self.peer),
            _ => false,
        }
    }

    async fn by_tag(&self, topic: &Topic) -> Content {
        let (Topic::Tag(tag), Some(cluster)) = (topic, &self.cluster) else { return Content::Removed };
        let mode = self.engine.config.rails.clusters.get(cluster).map(|cluster| cluster.mode);
        if mode != Some(Mode::OnDemand) {
            return Content::Removed;
        }
        match self.engine.granted(tag, cluster, self.peer).await {
            Some(credential) => Content::Certificate { version: tag.to_string(), credential },
            None => Content::Removed,
        }
    }

    fn by_name(&self, cluster: &ClusterName) -> Content {
        match self.engine.sds.given(cluster) {
            Some((Some(tag), content)) if self.engine.is_granted(&tag, cluster, self.peer) => content,
            // A throwaway stands for a revoked credential: whoever still has that needs it.
            Some((None, content)) => content,
            _ => Content::Removed,
        }
    }

    fn trust(&self, cluster: &ClusterName) -> Content {
        match self.engine.config.rails.clusters.get(cluster) {
            Some(cluster) => Content::Trust {
                version: cluster.trust_version.clone(),
                ca: Arc::from(cluster.ca.as_slice()),
                names: Arc::from(cluster.server_names.as_slice()),
            },
            None => Content::Removed,
        }
    }

    fn answer(&mut self, topic: Option<Topic>, name: Zeroizing<String>, content: Content) {
        self.nonce += 1;
        let nonce = self.nonce;
        let kind = match &content {
            Content::Certificate { version, .. } => {
                if let Some(topic) = topic {
                    self.unacked.push(Unacked { nonce, topic, version: version.clone() });
                }
                "certificate"
            }
            Content::Trust { .. } => "validation_context",
            Content::Removed => "removed",
        };
        self.engine.metrics.sds.get_or_create(&Kind { kind }).inc();
        self.outbox.push_back(DeltaResponse { nonce: nonce.to_string(), name, content });
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for (topic, _) in &self.topics {
            self.engine.sds.unsubscribe(topic, self.id);
        }
        self.engine.metrics.sds_streams.dec();
    }
}
