//! Newer generations, tried ahead of the streams that are to use them. See [`crate::rotation`].

use super::{AT_ONCE, Engine, describe};
use crate::audit::Event;
use crate::cache::Fetched;
use crate::metrics::Outcome;
use crate::policy::{Envelope, Pairs, Policy};
use bouncer_custody::{ClusterName, Reason};
use futures::{StreamExt as _, stream};
use std::sync::Arc;
use std::time::Instant;

impl Engine {
    /// Tries the newer generations that wait for it, each ahead of the streams that are to use it.
    pub async fn rotate(&self) {
        let Ok(policy) = self.policy.current() else { return };
        let due = self.rotation.due(&policy, Instant::now());
        let trials = due.into_iter().map(|candidate| self.try_candidate(&policy, candidate));
        stream::iter(trials).buffer_unordered(AT_ONCE).for_each(|()| std::future::ready(())).await;
    }

    async fn try_candidate(&self, policy: &Policy, candidate: Arc<Envelope>) {
        let mut event = Event { id: uuid::Uuid::now_v7().to_string(), count: 1, ..Event::default() };
        event.logical_path = candidate.path.to_string();
        describe(&candidate, &mut event);
        let clusters: Vec<&ClusterName> = policy.clusters_of(&candidate.path).collect();
        let outcome = self.prove(&candidate, &clusters).await;
        match outcome {
            Ok(fetched) => {
                event.backend_request_id = fetched.request_id.unwrap_or_default();
                self.rotation.proven(&candidate);
                self.metrics.rotations.get_or_create(&Outcome::good("in_use")).inc();
                tracing::info!(path = %candidate.path, generation = %candidate.generation, "a newer generation is in use");
                self.announce(&[], clusters.into_iter().map(ToString::to_string).collect());
            }
            Err((reason, request_id)) => {
                self.metrics.rotations.get_or_create(&Outcome::bad("not_in_use", reason)).inc();
                if !self.rotation.refuse(&candidate, reason, Instant::now()) {
                    return;
                }
                event.backend_request_id = request_id.unwrap_or_default();
                event.reason = reason.code().to_owned();
                tracing::error!(path = %candidate.path, generation = %candidate.generation, %reason, "a newer generation is no good; the one before it stays in use");
            }
        }
        event.outcome = "rotate".to_owned();
        self.record_change(event);
    }

    /// Whether a newer generation could be used on these clusters, as far as that shows without a stream.
    async fn prove(
        &self,
        candidate: &Arc<Envelope>,
        clusters: &[&ClusterName],
    ) -> Result<Fetched, (Reason, Option<String>)> {
        let rails = || clusters.iter().filter_map(|cluster| self.config.rails.clusters.get(*cluster));
        let known = match candidate.pairs() {
            Pairs::Known(pairs) => Some(pairs),
            Pairs::WithSecret => None,
        };
        for cluster in rails() {
            self.check_key(candidate, cluster).map_err(|reason| (reason, None))?;
            if let Some(pairs) = known {
                self.check_place(candidate, pairs, cluster).map_err(|reason| (reason, None))?;
            }
        }
        self.history.check(candidate).map_err(|reason| (reason, None))?;
        let fetched = self.cache.get(candidate).await.map_err(|error| (error.reason, error.request_id))?;
        if known.is_none() {
            for cluster in rails() {
                let checked = self.check_place(candidate, fetched.pairs.as_deref(), cluster);
                checked.map_err(|reason| (reason, fetched.request_id.clone()))?;
            }
        }
        Ok(fetched)
    }
}
