//! What makes the filter's cached decisions invalid, in order, with a journal for those who were away.
//!
//! The [`crate::engine`] publishes; the intercept service's `Watch` streams subscribe. Epochs count events of this
//! boot, and mean nothing to another.

use bouncer_proto::intercept::v1::{Flush, Invalidate, Resumed, WatchEvent, WatchRequest, watch_event::Event};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::broadcast;

/// How many events a watcher may have missed and still resume.
const JOURNAL: usize = 1_024;

/// The source of all invalidations of this boot.
#[derive(Debug)]
pub struct WatchHub {
    boot: Arc<str>,
    journal: Mutex<Journal>,
    live: broadcast::Sender<WatchEvent>,
}

#[derive(Debug, Default)]
struct Journal {
    epoch: u64,
    events: VecDeque<WatchEvent>,
}

impl Default for WatchHub {
    fn default() -> Self {
        Self {
            boot: uuid::Uuid::now_v7().to_string().into(),
            journal: Mutex::default(),
            live: broadcast::channel(JOURNAL).0,
        }
    }
}

impl WatchHub {
    /// Names this run of the resolver.
    #[must_use]
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// The epoch of the last event. A decision takes it before it looks at the policy, so that an event in between
    /// makes the decision too old and never the other way round.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner).epoch
    }

    /// Tells every watcher, those who come back later too.
    pub fn publish(&self, invalidate: Invalidate) {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.epoch += 1;
        let event = self.event(journal.epoch, Event::Invalidate(invalidate));
        if journal.events.len() == JOURNAL {
            journal.events.pop_front();
        }
        journal.events.push_back(event.clone());
        // Sent under the lock, so that order is the same for all. No watcher at all is no error.
        let _ = self.live.send(event);
    }

    /// What a watcher must hear first, and the source of what comes after.
    #[must_use]
    pub fn subscribe(&self, from: &WatchRequest) -> (Vec<WatchEvent>, broadcast::Receiver<WatchEvent>) {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let live = self.live.subscribe();
        let oldest = journal.epoch - journal.events.len() as u64;
        let resumes = from.boot == *self.boot && (oldest..=journal.epoch).contains(&from.epoch);
        if !resumes {
            return (vec![self.flush(journal.epoch)], live);
        }
        let missed = journal.events.iter().filter(|event| event.epoch > from.epoch).cloned();
        let first = self.event(from.epoch, Event::Resumed(Resumed {}));
        (std::iter::once(first).chain(missed).collect(), live)
    }

    /// For a watcher that fell behind: everything it has is void.
    #[must_use]
    pub fn flush(&self, epoch: u64) -> WatchEvent {
        self.event(epoch, Event::Flush(Flush {}))
    }

    fn event(&self, epoch: u64, event: Event) -> WatchEvent {
        WatchEvent { boot: self.boot.to_string(), epoch, event: Some(event) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalidate(tag: &str) -> Invalidate {
        Invalidate { tags: vec![tag.into()], ..Default::default() }
    }

    fn tags(events: &[WatchEvent]) -> Vec<&str> {
        let tag = |event: &WatchEvent| match &event.event {
            Some(Event::Invalidate(invalidate)) => Some(invalidate.tags[0].clone()),
            _ => None,
        };
        events.iter().filter_map(tag).map(|tag| &*tag.leak()).collect()
    }

    #[test]
    fn who_was_away_hears_what_was_missed_or_flushes() {
        let hub = WatchHub::default();
        hub.publish(invalidate("a"));
        hub.publish(invalidate("b"));
        let ask = |boot: &str, epoch| hub.subscribe(&WatchRequest { boot: boot.into(), epoch, carried: vec![] }).0;
        assert_eq!(tags(&ask(hub.boot(), 1)), ["b"]);
        assert!(matches!(ask(hub.boot(), 2)[..], [WatchEvent { event: Some(Event::Resumed(_)), epoch: 2, .. }]));
        for (boot, epoch) in [("", 0), ("another", 2), (hub.boot(), 3)] {
            assert!(matches!(ask(boot, epoch)[..], [WatchEvent { event: Some(Event::Flush(_)), epoch: 2, .. }]));
        }
        for i in 0..JOURNAL {
            hub.publish(invalidate(&i.to_string()));
        }
        assert!(matches!(ask(hub.boot(), 1)[..], [WatchEvent { event: Some(Event::Flush(_)), .. }]));
        assert_eq!(ask(hub.boot(), 2).len(), JOURNAL + 1);
    }

    #[tokio::test]
    async fn live_watchers_hear_at_once() {
        let hub = WatchHub::default();
        let (_, mut live) = hub.subscribe(&WatchRequest::default());
        hub.publish(invalidate("a"));
        assert_eq!(tags(&[live.recv().await.unwrap()]), ["a"]);
    }
}
