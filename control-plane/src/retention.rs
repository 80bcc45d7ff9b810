//! Removes audit events that are older than the configuration keeps them. Run by [`crate::serve`] where days are given.
//!
//! What an outlet of the audit has not been told yet is kept for longer, but not for good.

use crate::clock::Clock;
use crate::metrics::Metrics;
use crate::store::{Pruned, Retention, Store};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(3_600);
/// So much longer is kept what an outlet has not been told.
const UNSENT: SignedDuration = SignedDuration::from_hours(24 * 7);

/// Looks at once and each hour until told to stop.
pub async fn keep(
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    (days, outlets): (u32, Vec<String>),
    stop: CancellationToken,
) {
    let mut old = Retention { outlets, ..Retention::default() };
    loop {
        let before = clock.now().checked_sub(SignedDuration::from_hours(24 * i64::from(days)));
        if let Ok(before) = before {
            old.before = before;
            old.unsent_before = before.checked_sub(UNSENT).unwrap_or(Timestamp::MIN);
            match stop.run_until_cancelled(store.prune_audit(&old)).await {
                None => return,
                Some(Ok(Pruned { events: 0, .. })) => {}
                Some(Ok(Pruned { events, unsent })) => {
                    tracing::info!(removed = events, days, "old audit events were removed");
                    metrics.pruned_unsent(unsent);
                    if unsent > 0 {
                        tracing::error!(
                            unsent,
                            "audit events were removed that not every outlet had been told, a week after they had \
                             become old"
                        );
                    }
                }
                Some(Err(error)) => tracing::error!(%error, "old audit events could not be removed; trying again"),
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none() {
            return;
        }
    }
}
