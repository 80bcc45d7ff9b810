//! How a credential ends: by policy, by its backend's no, by an operator. Wherever it is then, in the cache, in grants, in
//! Envoy, in the filters and on live streams, it is taken away, and the audit says so.

use super::{AT_ONCE, Engine};
use crate::audit::Event;
use crate::config::Mode;
use crate::policy::Policy;
use crate::revocations::Revocation;
use bouncer_custody::{Generation, LogicalPath, Reason, Tag};
use bouncer_proto::intercept::v1::Invalidate;
use futures::{StreamExt as _, stream};
use std::collections::HashSet;

/// What an operator's revocation did.
#[derive(Debug)]
pub struct Revoked {
    /// The newest generation that it ends; `None` for every one.
    pub through_generation: Option<Generation>,
    /// How many issues of the credential were ended.
    pub ended: usize,
    /// Whether it will be remembered after a restart.
    pub saved: std::io::Result<()>,
}

impl Engine {
    /// The backend said no for good: the credential ends, wherever it is.
    pub(super) fn end(&self, tag: &Tag, reason: Reason) {
        self.rotation.end(tag);
        if !self.grants.any(tag) {
            return;
        }
        let Some(policy) = self.policy.latest() else { return };
        // One that drains has no way back; the one that the policy wants has, and then under another name.
        if policy.envelope_of(tag).is_some() {
            self.policy.end(tag.path());
        }
        self.revoke(std::slice::from_ref(tag), clusters_of(Some(&policy), tag.path()), Some(reason));
    }

    /// Ends these tags wherever they are, and records it; `reason` says why, where it was not the policy.
    pub(super) fn revoke(&self, tags: &[Tag], clusters: Vec<String>, reason: Option<Reason>) {
        let mut ended = Vec::new();
        for tag in tags {
            self.cache.evict(tag);
            // In whichever version of the backend's they were granted.
            ended.extend(self.withdraw(|granted| granted.is_of(tag)));
            if !ended.contains(tag) {
                self.sds.remove(tag);
                ended.push(tag.clone());
            }
        }
        self.announce(&ended, clusters);
        for tag in tags {
            let event = Event {
                id: uuid::Uuid::now_v7().to_string(),
                outcome: "revoke".to_owned(),
                logical_path: tag.path().to_string(),
                generation: tag.generation().get(),
                reason: reason.map_or_else(String::new, |reason| reason.code().to_owned()),
                count: 1,
                ..Event::default()
            };
            self.record_change(event);
        }
    }

    /// The pairs beside a secret speak against a stream: what was granted under earlier ones may not be used either.
    /// Grants of the present version were checked against the present pairs, and stay.
    pub(super) fn end_former(&self, present: &Tag) {
        let former = self.withdraw(|granted| granted.is_of(present) && granted != present);
        if !former.is_empty() {
            self.cache.evict(present);
            self.announce(&former, Vec::new());
        }
    }

    /// Takes such tags back from Envoy, wherever they are granted.
    fn withdraw(&self, which: impl Fn(&Tag) -> bool) -> Vec<Tag> {
        let ended = self.grants.revoke(which);
        for (tag, clusters) in &ended {
            let mut named = Vec::new();
            for cluster in clusters {
                if let Some(rail) = self.config.rails.clusters.get(cluster).filter(|rail| rail.mode == Mode::Named) {
                    self.cooling.start(cluster, rail.drain);
                    named.push(cluster.clone());
                }
            }
            self.sds.revoke(tag, &named);
        }
        ended.into_keys().collect()
    }

    /// Tells the filters: to reset the streams with these tags, and to decide anew for these clusters.
    pub(super) fn announce(&self, ended: &[Tag], clusters: Vec<String>) {
        let tags = ended.iter().map(ToString::to_string).collect();
        self.watch.publish(Invalidate { tags, clusters, reset_streams: !ended.is_empty() });
    }

    /// An operator revokes a credential at this resolver: all generations that it knows, or `forever`. `None` if it
    /// knows none.
    pub fn revoke_here(&self, path: &LogicalPath, forever: bool) -> Option<Revoked> {
        let policy = self.policy.latest();
        let registered = policy.as_ref().and_then(|policy| policy.envelope(path).ok()).map(|envelope| &envelope.tag);
        let mut tags: Vec<Tag> = registered.cloned().into_iter().chain(self.rotation.in_use(path)).collect();
        tags.extend(self.grants.tags().iter().filter(|tag| tag.path() == path).map(Tag::unversioned));
        tags.sort_unstable_by_key(ToString::to_string);
        tags.dedup();
        let newest = tags.iter().map(Tag::generation).max();
        if newest.is_none() && !forever {
            return None;
        }
        let through_generation = newest.filter(|_| !forever);
        let revocation = Revocation { through_generation, time_ms: jiff::Timestamp::now().as_millisecond() };
        // First of all, so that no stream is decided in between.
        let saved = self.revocations.add(path.clone(), revocation);
        self.rotation.forget(path);
        self.policy.end(path);
        self.revoke(&tags, clusters_of(policy.as_deref(), path), Some(Reason::RevokedByOperator));
        tracing::warn!(%path, "an operator revoked a credential at this resolver");
        Some(Revoked { through_generation, ended: tags.len(), saved })
    }

    /// An operator takes a revocation back. `false` if there was none.
    ///
    /// # Errors
    /// [`std::io::Error`]: it could not be saved, and still holds.
    pub fn lift(&self, path: &LogicalPath) -> std::io::Result<bool> {
        let lifted = self.revocations.lift(path)?;
        if lifted {
            tracing::warn!(%path, "an operator lifted a revocation at this resolver");
            // The filters may hold denials.
            self.announce(&[], clusters_of(self.policy.latest().as_deref(), path));
        }
        Ok(lifted)
    }

    /// Asks the backends again of what Envoy may use and was not confirmed for a while. A no ends it at once, also where
    /// no new stream comes. Called every few seconds.
    pub async fn recheck(&self) {
        // Once, in however many versions it is granted.
        let granted: HashSet<Tag> = self.grants.tags().iter().map(Tag::unversioned).collect();
        let calls = granted.into_iter().filter_map(|tag| self.envelope_of(&tag)).map(|envelope| async move {
            if let Err(error) = self.cache.get(&envelope).await
                && !error.reason.is_transient()
            {
                self.end(&envelope.tag, error.reason);
            }
        });
        stream::iter(calls).buffer_unordered(AT_ONCE).for_each(|()| std::future::ready(())).await;
    }
}

fn clusters_of(policy: Option<&Policy>, path: &LogicalPath) -> Vec<String> {
    policy.map(|policy| policy.clusters_of(path).map(ToString::to_string).collect()).unwrap_or_default()
}
