//! Denials, counted: the first of its kind is recorded at once, those that follow within a while as one event, which says
//! only what all of them share.

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
        // No more than the key holds: what else the first one says is not true of those that follow.
        let shared = Event {
            caller: key.caller.clone(),
            cluster: key.cluster.clone(),
            outcome: event.outcome.clone(),
            reason: event.reason.clone(),
            ..Event::default()
        };
        seen.insert(key, (shared, 0));
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

    fn full(caller: usize) -> Event {
        Event {
            id: caller.to_string(),
            caller: caller.to_string(),
            resource: "payments-api".into(),
            logical_path: "creds/alice".into(),
            generation: 3,
            key_id: "key".into(),
            aad_sha256: "digest".into(),
            cluster: "payments".into(),
            destination: "payments.internal:8443".into(),
            outcome: "deny".into(),
            reason: "x".into(),
            backend_request_id: "request".into(),
            count: 1,
            authority: "payments.internal".into(),
            ..Event::default()
        }
    }

    #[test]
    fn a_count_says_only_what_all_of_it_share() {
        let denials = Denials::default();
        let first = denials.count(full(1), "x");
        assert_eq!(first, Some(full(1)), "the control: one by itself says all");
        denials.count(full(1), "x");
        let mut flushed = denials.flush();
        let id = std::mem::take(&mut flushed[0].id);
        assert!(uuid::Uuid::parse_str(&id).is_ok());
        let shared = Event { outcome: "deny".into(), reason: "x".into(), count: 1, ..Event::default() };
        assert_eq!(flushed, [Event { caller: "1".into(), cluster: "payments".into(), ..shared.clone() }]);

        // Of many kinds together that is less.
        (0..KINDS).for_each(|caller| drop(denials.count(full(caller), "x")));
        assert_eq!(denials.count(full(KINDS), "x"), Some(full(KINDS)));
        assert_eq!(denials.count(full(KINDS + 1), "x"), None);
        let mut flushed = denials.flush();
        flushed[0].id.clear();
        assert_eq!(flushed, [shared]);
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
