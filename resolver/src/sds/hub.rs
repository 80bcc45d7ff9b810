//! Who is subscribed to what, and what a cluster in `named` mode has been given.
//!
//! The [`crate::engine`] pushes and revokes through it; each SDS stream registers what it is asked for.

use super::codec::Content;
use crate::credential::ClientCertificate;
use crate::grants::Peer;
use bouncer_custody::{ClusterName, Tag};
use futures::channel::mpsc;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;

/// What can be pushed to later than asked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// A tag, by `<key>/<tag>`.
    Tag(Tag),
    /// A cluster in `named` mode.
    Named(ClusterName),
}

/// What a stream is told without having asked.
pub(super) type Push = (Topic, Content);

struct Subscriber {
    stream: u64,
    peer: Peer,
    push: mpsc::UnboundedSender<Push>,
    /// The last version that Envoy took.
    acked: Option<String>,
}

#[derive(Default)]
struct Inner {
    /// Hardly ever more than one of a topic.
    subscribers: HashMap<Topic, Vec<Subscriber>>,
    named: HashMap<ClusterName, Given>,
}

struct Given {
    version: String,
    tag: Option<Tag>,
    credential: Arc<ClientCertificate>,
}

/// The subscriptions of all SDS streams.
#[derive(Default)]
pub struct SdsHub {
    next: AtomicU64,
    inner: Mutex<Inner>,
    acked: Notify,
}

impl SdsHub {
    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a stream.
    pub(super) fn stream(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// From now on the stream hears of the topic. `held` is the version that Envoy already has.
    pub(super) fn subscribe(
        &self,
        topic: Topic,
        stream: u64,
        peer: Peer,
        push: mpsc::UnboundedSender<Push>,
        held: Option<String>,
    ) {
        let subscriber = Subscriber { stream, peer, push, acked: held };
        let mut inner = self.lock();
        let subscribers = inner.subscribers.entry(topic).or_default();
        subscribers.retain(|other| other.stream != stream);
        subscribers.reserve_exact(1);
        subscribers.push(subscriber);
        drop(inner);
        self.acked.notify_waiters();
    }

    /// The stream is not interested any more, or gone.
    pub(super) fn unsubscribe(&self, topic: &Topic, stream: u64) {
        let mut inner = self.lock();
        if let Some(subscribers) = inner.subscribers.get_mut(topic) {
            subscribers.retain(|subscriber| subscriber.stream != stream);
            if subscribers.is_empty() {
                inner.subscribers.remove(topic);
            }
        }
        drop(inner);
        // Whoever waits for every subscriber need not wait for this one any more.
        self.acked.notify_waiters();
    }

    /// Envoy took a version.
    pub(super) fn acknowledge(&self, topic: &Topic, stream: u64, version: &str) {
        let mut inner = self.lock();
        let mut subscribers = inner.subscribers.get_mut(topic).into_iter().flatten();
        if let Some(subscriber) = subscribers.find(|subscriber| subscriber.stream == stream) {
            subscriber.acked = Some(version.to_owned());
        }
        drop(inner);
        self.acked.notify_waiters();
    }

    /// What a cluster in `named` mode has been given so far, for a stream that asks later.
    pub(super) fn given(&self, cluster: &ClusterName) -> Option<(Option<Tag>, Content)> {
        let inner = self.lock();
        let given = inner.named.get(cluster)?;
        Some((given.tag.clone(), given.content()))
    }

    /// Gives a cluster in `named` mode its credential, and waits until this Envoy has taken it. Pushes once per
    /// version, so that a refusal makes no loop; the caller's deadline ends the wait.
    pub async fn push_named(&self, cluster: &ClusterName, peer: Peer, tag: &Tag, credential: &Arc<ClientCertificate>) {
        let version = tag.to_string();
        let topic = Topic::Named(cluster.clone());
        self.give(
            cluster,
            Given { version: version.clone(), tag: Some(tag.clone()), credential: Arc::clone(credential) },
        );
        loop {
            // Registered before the state is looked at, so that no acknowledgement falls in between.
            let mut changed = std::pin::pin!(self.acked.notified());
            changed.as_mut().enable();
            let taken = {
                let inner = self.lock();
                let own = inner.subscribers.get(&topic).into_iter().flatten().filter(|s| s.peer == peer);
                let acked: Vec<bool> = own.map(|subscriber| subscriber.acked.as_ref() == Some(&version)).collect();
                !acked.is_empty() && acked.into_iter().all(|acked| acked)
            };
            if taken {
                return;
            }
            changed.await;
        }
    }

    fn give(&self, cluster: &ClusterName, given: Given) {
        let mut inner = self.lock();
        if inner.named.get(cluster).is_some_and(|before| before.version == given.version) {
            return;
        }
        let topic = Topic::Named(cluster.clone());
        for subscriber in inner.subscribers.get(&topic).into_iter().flatten() {
            // One that kept its secret over a restart of ours has this version already.
            if subscriber.acked.as_ref() != Some(&given.version) {
                let _ = subscriber.push.unbounded_send((topic.clone(), given.content()));
            }
        }
        inner.named.insert(cluster.clone(), given);
    }

    /// Takes the tag back: removed where it was fetched by tag, replaced by a throwaway on the clusters that were given
    /// it by name, since Envoy ignores the removal of a named secret.
    pub fn revoke(&self, tag: &Tag, named: &[ClusterName]) {
        self.remove(tag);
        for cluster in named {
            // Nothing is known of what a former run gave; Envoy says what it holds, and it may be this.
            let other = self.lock().named.get(cluster).is_some_and(|given| given.tag.as_ref() != Some(tag));
            if other {
                continue;
            }
            match ClientCertificate::throwaway() {
                Ok(credential) => {
                    let version = format!("revoked-{}", uuid::Uuid::new_v4().simple());
                    self.give(cluster, Given { version, tag: None, credential: Arc::new(credential) });
                }
                Err(reason) => {
                    tracing::error!(%reason, %cluster, "no throwaway certificate could be made; Envoy keeps the revoked one for new connections until it is restarted, while the filter denies every stream")
                }
            }
        }
    }

    /// Tells Envoy that the tag is gone, where it was fetched by tag.
    pub fn remove(&self, tag: &Tag) {
        let topic = Topic::Tag(tag.clone());
        let inner = self.lock();
        for subscriber in inner.subscribers.get(&topic).into_iter().flatten() {
            let _ = subscriber.push.unbounded_send((topic.clone(), Content::Removed));
        }
    }
}

impl Given {
    fn content(&self) -> Content {
        Content::Certificate { version: self.version.clone(), credential: Arc::clone(&self.credential) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_push_waits_for_every_subscriber_of_this_envoy_and_for_none_that_is_gone() {
        let hub = SdsHub::default();
        let cluster: ClusterName = "payments".parse().unwrap();
        let tag: Tag = "a@1.0123456789abcdef".parse().unwrap();
        let topic = Topic::Named(cluster.clone());
        let (own, other) = (Peer { uid: 1, pid: 2 }, Peer { uid: 1, pid: 3 });
        let (push, mut pushed) = mpsc::unbounded();
        for (stream, peer) in [(1, own), (2, own), (3, other)] {
            hub.subscribe(topic.clone(), stream, peer, push.clone(), None);
        }
        let credential = Arc::new(ClientCertificate::throwaway().unwrap());
        let mut giving = std::pin::pin!(hub.push_named(&cluster, own, &tag, &credential));
        assert!(futures::poll!(giving.as_mut()).is_pending());
        for _ in 0..3 {
            assert!(pushed.try_recv().is_ok());
        }
        hub.acknowledge(&topic, 1, &tag.to_string());
        assert!(futures::poll!(giving.as_mut()).is_pending(), "one of the two has not taken it");
        hub.unsubscribe(&topic, 2);
        assert!(futures::poll!(giving.as_mut()).is_ready());
    }
}
