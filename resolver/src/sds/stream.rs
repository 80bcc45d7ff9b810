//! One SDS stream: what Envoy asks on it, and what it is told.

use super::answers::Answer;
use super::codec::{Content, DeltaRequest, DeltaResponse, SECRET};
use super::hub::{Push, Topic};
use crate::config::Mode;
use crate::engine::Engine;
use crate::grants::Peer;
use crate::metrics::Kind;
use bouncer_custody::ClusterName;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};
use zeroize::Zeroizing;

/// Names that one stream may hold. Envoy asks for one on each.
const NAMES: usize = 256;

pub(super) struct Session {
    engine: Arc<Engine>,
    id: u64,
    peer: Peer,
    /// The cluster that this stream's configuration belongs to.
    cluster: Option<ClusterName>,
    /// Whether its configuration carries the SDS key.
    has_key: bool,
    answers: mpsc::Sender<Answer>,
    /// The topics that were subscribed, and under which name.
    topics: HashMap<Topic, Zeroizing<String>>,
    /// Answers without an acknowledgement so far, by nonce.
    unacked: HashMap<String, (Topic, String)>,
    nonce: u64,
    pushes: mpsc::UnboundedReceiver<Push>,
    push: mpsc::UnboundedSender<Push>,
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
        answers: mpsc::Sender<Answer>,
    ) -> Self {
        let (push, pushes) = mpsc::unbounded_channel();
        let id = engine.sds.stream();
        engine.metrics.sds_streams.inc();
        Self {
            engine,
            id,
            peer,
            cluster,
            has_key,
            answers,
            topics: HashMap::new(),
            unacked: HashMap::new(),
            nonce: 0,
            pushes,
            push,
        }
    }

    pub(super) async fn run(mut self, mut requests: Streaming<DeltaRequest>) {
        let stop = self.engine.stop.clone();
        let ended = loop {
            // What it takes to answer is boxed: a stream waits nearly always, and should be small then.
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => if let Err(status) = Box::pin(self.take(request)).await { break Some(status) },
                    Ok(None) => break None,
                    Err(_) => break None,
                },
                Some(push) = self.pushes.recv() => {
                    let (topic, content) = *push;
                    if let Some(name) = self.topics.get(&topic).cloned() {
                        Box::pin(self.answer(Some(topic), name, content)).await;
                    }
                }
                () = self.answers.closed() => break None,
                () = stop.cancelled() => break Some(Status::unavailable("the resolver is going away")),
            }
        };
        if let Some(status) = ended {
            let _ = self.answers.send(Box::new(Err(status))).await;
        }
    }

    async fn take(&mut self, request: DeltaRequest) -> Result<(), Status> {
        if !request.type_url.is_empty() && request.type_url != SECRET {
            return Err(Status::invalid_argument("only secrets are served here"));
        }
        if let Some((topic, version)) = self.unacked.remove(&request.nonce) {
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
            let topics: Vec<Topic> =
                self.topics.iter().filter(|(_, known)| ***known == name).map(|(topic, _)| topic.clone()).collect();
            for topic in topics {
                self.engine.sds.unsubscribe(&topic, self.id);
                self.topics.remove(&topic);
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
                self.topics.insert(topic.clone(), name.clone());
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
            self.answer(topic, name, content).await;
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

    async fn answer(&mut self, topic: Option<Topic>, name: Zeroizing<String>, content: Content) {
        self.nonce += 1;
        let nonce = self.nonce.to_string();
        let kind = match &content {
            Content::Certificate { version, .. } => {
                if let Some(topic) = topic {
                    self.unacked.insert(nonce.clone(), (topic, version.clone()));
                }
                "certificate"
            }
            Content::Trust { .. } => "validation_context",
            Content::Removed => "removed",
        };
        self.engine.metrics.sds.get_or_create(&Kind { kind }).inc();
        let _ = self.answers.send(Box::new(Ok(DeltaResponse { nonce, name, content }))).await;
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        for topic in self.topics.keys() {
            self.engine.sds.unsubscribe(topic, self.id);
        }
        self.engine.metrics.sds_streams.dec();
    }
}
