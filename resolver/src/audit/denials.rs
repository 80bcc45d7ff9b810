//! Denials, counted: the first of its kind is recorded at once, those that follow within a while as one event.

use super::Event;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How many kinds are told apart; beyond, they are counted together.
const KINDS: usize = 1_024;

/// What makes two denials the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct DenialKey {
    /// The caller, as far as it is known.
    pub caller: String,
    /// Envoy's cluster.
    pub cluster: String,
    /// The reason code.
    pub reason: &'static str,
}

/// Denials since the last flush.
#[derive(Debug, Default)]
pub struct Denials {
    seen: Mutex<HashMap<DenialKey, (Event, u64)>>,
}

impl Denials {
    /// Counts a denial. Returns the event where it is the first of its kind, to be recorded now.
    pub fn count(&self, event: Event, reason: &'static str) -> Option<Event> {
        let mut key = DenialKey { caller: event.caller.clone(), cluster: event.cluster.clone(), reason };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= KINDS && !seen.contains_key(&key) {
            key = DenialKey { reason, ..Default::default() };
        }
        if let Some((_, more)) = seen.get_mut(&key) {
            *more += 1;
            return None;
        }
        let kept = Event { caller: key.caller.clone(), cluster: key.cluster.clone(), ..event.clone() };
        seen.insert(key, (kept, 0));
        Some(event)
    }

    /// What was counted and not yet recorded, one event for each kind. Called every few seconds.
    pub fn flush(&self) -> Vec<Event> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        let aggregate = |(event, more): (Event, u64)| {
            (more > 0).then(|| Event { id: uuid::Uuid::now_v7().to_string(), count: more, ..event })
        };
        seen.into_values().filter_map(aggregate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_recorded_and_the_rest_counted() {
        let denials = Denials::default();
        let event = |caller: &str| Event { caller: caller.into(), count: 1, ..Default::default() };
        assert!(denials.count(event("a"), "x").is_some());
        assert!(denials.count(event("a"), "x").is_none());
        assert!(denials.count(event("a"), "y").is_some());
        assert!(denials.count(event("b"), "x").is_some());
        assert!(denials.count(event("a"), "x").is_none());
        let flushed = denials.flush();
        assert_eq!(flushed.iter().map(|e| (e.caller.as_str(), e.count)).collect::<Vec<_>>(), [("a", 2)]);
        assert!(denials.flush().is_empty());
        assert!(denials.count(event("a"), "x").is_some());
    }

    #[test]
    fn kinds_are_bounded() {
        let denials = Denials::default();
        for i in 0..5_000 {
            denials.count(Event { caller: i.to_string(), ..Default::default() }, "x");
        }
        assert!(denials.seen.lock().unwrap().len() <= KINDS + 1);
        assert_eq!(denials.flush().iter().map(|e| e.count).sum::<u64>(), 5_000 - KINDS as u64 - 1);
    }
}
