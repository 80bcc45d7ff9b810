//! Tells the other control planes on the database which resolvers are connected to this one, and hears of theirs. Run by
//! [`crate::serve`] where the database may have others.
//!
//! Losing it loses a view, and nothing else: no decision hangs on it.

use super::live::{Live, SessionView, Told};
use crate::store::Others;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How often what changed is told, and the others are heard.
const PERIOD: Duration = Duration::from_secs(2);
/// How often everything is told, changed or not; a third of the time after which it counts no more.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// One control plane among those on a database.
pub struct Replica {
    others: Arc<dyn Others>,
    live: Arc<Live>,
    id: Uuid,
    /// What was told last, without when the resolver was last heard.
    told: HashMap<Uuid, SessionView>,
    whole: Option<Instant>,
}

impl Replica {
    /// A new one, under a name that no other has.
    #[must_use]
    pub fn new(others: Arc<dyn Others>, live: Arc<Live>) -> Self {
        Self { others, live, id: Uuid::now_v7(), told: HashMap::new(), whole: None }
    }

    /// Tells and hears until `stop`, and then takes back what it told.
    pub async fn keep(mut self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.exchange().await {
                tracing::debug!(%error, "could not tell other replicas which resolvers are connected here");
                self.whole = None;
            }
            if stop.run_until_cancelled(tokio::time::sleep(PERIOD)).await.is_none() {
                break;
            }
        }
        if let Err(error) = self.others.tell_sessions(self.id, &[], &[]).await {
            tracing::debug!(%error, "could not take back which resolvers were connected here");
        }
    }

    /// Tells what changed, and hears of the others.
    ///
    /// # Errors
    /// If the database does not answer.
    pub async fn exchange(&mut self) -> crate::store::Result<()> {
        let whole = self.whole.is_none_or(|whole| whole.elapsed() >= HEARTBEAT);
        let own = self.live.own();
        let now: HashMap<_, _> = own.iter().map(|told| (told.id, told.view.without_times())).collect();
        if whole || now != self.told {
            let changed: Vec<&Told> =
                own.iter().filter(|told| whole || self.told.get(&told.id) != now.get(&told.id)).collect();
            let ids: Vec<Uuid> = own.iter().map(|told| told.id).collect();
            self.others.tell_sessions(self.id, &ids, &changed).await?;
            self.told = now;
            if whole {
                self.whole = Some(Instant::now());
            }
        }
        self.live.hear(self.others.sessions_elsewhere(self.id).await?);
        Ok(())
    }
}
