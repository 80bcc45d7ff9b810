//! Audit events as they come off the wire, made fit to be stored: ids parsed, texts bounded, nothing kept that looks
//! like a credential.

use crate::model::{AuditEvent, OUTCOMES};
use crate::plaintext;
use bouncer_proto::bridge::v1 as wire;
use jiff::Timestamp;

/// What stands in for a text that looked like a credential.
const WITHHELD: &str = "[withheld: looked like a credential]";
/// The longest text of an event, in bytes; the longest SPIFFE ID.
const TEXT_LIMIT: usize = 2_048;

/// An audit event that is not what the protocol says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum EventFault {
    #[error("an audit event's id is not a UUID")]
    Id,
    #[error("an audit event's time is out of range")]
    Time,
    #[error("an audit event's outcome is none that is known")]
    Outcome,
    #[error("a count in an audit event is out of range")]
    Number,
}

/// Cuts a text to `limit` bytes, and withholds it if it looks like a credential: `authority`, for one, is whatever a
/// client chose to send.
pub(super) fn bounded(mut text: String, limit: usize) -> String {
    if plaintext::find(&text).is_some() {
        return WITHHELD.to_owned();
    }
    if text.len() > limit {
        let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text.retain(|character| !character.is_control());
    text
}

/// Reads one event.
pub(super) fn event(event: wire::AuditEvent, dev: bool) -> Result<AuditEvent, EventFault> {
    let text = |text| bounded(text, TEXT_LIMIT);
    let number = |number: u64| i64::try_from(number).map(|_| number).map_err(|_| EventFault::Number);
    if !OUTCOMES.contains(&event.outcome.as_str()) {
        return Err(EventFault::Outcome);
    }
    Ok(AuditEvent {
        id: event.id.parse().map_err(|_| EventFault::Id)?,
        sequence: number(event.sequence)?,
        at: Timestamp::from_millisecond(event.time_ms).map_err(|_| EventFault::Time)?,
        caller: text(event.caller),
        resource: text(event.resource),
        logical_path: text(event.logical_path),
        generation: number(event.generation)?,
        key_id: text(event.key_id),
        aad_sha256: text(event.aad_sha256),
        cluster: text(event.cluster),
        destination: text(event.destination),
        outcome: event.outcome,
        reason: text(event.reason),
        backend_request_id: text(event.backend_request_id),
        count: number(event.count)?,
        decision_id: text(event.decision_id),
        authority: text(event.authority),
        dev,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_chose_is_withheld_if_it_looks_like_a_credential() {
        let wire = wire::AuditEvent {
            id: "0199d7a0-0000-7000-8000-000000000001".into(),
            outcome: "deny".into(),
            authority: "AKIAIOSFODNN7EXAMPLE".into(),
            cluster: format!("{}\n", "ä".repeat(2_000)),
            ..Default::default()
        };
        let event = event(wire, false).unwrap();
        assert_eq!(event.authority, WITHHELD);
        assert!(event.cluster.len() <= TEXT_LIMIT && event.cluster.chars().all(|c| c == 'ä'));
    }

    #[test]
    fn what_is_no_event_is_refused() {
        let good = wire::AuditEvent {
            id: "0199d7a0-0000-7000-8000-000000000001".into(),
            outcome: "inject".into(),
            ..Default::default()
        };
        assert!(event(good.clone(), false).is_ok());
        assert_eq!(event(wire::AuditEvent { id: "1".into(), ..good.clone() }, false), Err(EventFault::Id));
        assert_eq!(event(wire::AuditEvent { outcome: "x".into(), ..good.clone() }, false), Err(EventFault::Outcome));
        assert_eq!(event(wire::AuditEvent { count: u64::MAX, ..good.clone() }, false), Err(EventFault::Number));
        assert_eq!(event(wire::AuditEvent { time_ms: i64::MAX, ..good }, false), Err(EventFault::Time));
    }
}
