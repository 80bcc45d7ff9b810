//! Removes audit events that are older than the configuration keeps them. Run by [`crate::serve`] where days are given.

use crate::clock::Clock;
use crate::store::Store;
use jiff::SignedDuration;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often it is looked.
const PERIOD: Duration = Duration::from_secs(3_600);

/// Looks at once and each hour until told to stop.
pub async fn keep(store: Arc<dyn Store>, clock: Arc<dyn Clock>, days: u32, stop: CancellationToken) {
    loop {
        let age = SignedDuration::from_hours(24 * i64::from(days));
        if let Ok(before) = clock.now().checked_sub(age) {
            match stop.run_until_cancelled(store.prune_audit(before)).await {
                None => return,
                Some(Ok(0)) => {}
                Some(Ok(removed)) => tracing::info!(removed, days, "old audit events were removed"),
                Some(Err(error)) => tracing::error!(%error, "old audit events could not be removed; trying again"),
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none() {
            return;
        }
    }
}
