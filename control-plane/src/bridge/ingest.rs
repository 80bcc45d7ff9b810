//! Audit events as they come off the wire, made fit to be stored: ids parsed, texts bounded, nothing kept that looks
//! like a credential. What is chained of them is taken from what came in, before any of that.

use crate::model::{AuditEvent, Divergence, Evidence, OUTCOMES, Received};
use crate::plaintext;
use bouncer_audit::{Checkpoint, Decision, Digest, Owner, Signed, TEXT_LIMIT, UNFIT, WITHHELD, Withheld, cut, fits};
use bouncer_custody::{BouncerIdentity, BouncerName};
use bouncer_proto::bridge::v1 as wire;
use jiff::Timestamp;
use std::collections::HashSet;

/// The longest signature and certificates of a checkpoint, in bytes.
const CHECKPOINT_LIMIT: usize = 64 * 1_024;

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
    #[error("an audit event's chain or head is malformed")]
    Chain,
    #[error("an audit checkpoint is malformed")]
    Checkpoint,
}

/// Cuts a text to `limit` bytes, and withholds it if it looks like a credential: `authority`, for one, is whatever a
/// client chose to send.
pub(super) fn bounded(mut text: String, limit: usize) -> String {
    if plaintext::find(&text).is_some() {
        return WITHHELD.to_owned();
    }
    cut(&mut text, limit);
    text
}

/// Texts of one batch that were found to be no credential. Most of an event's texts are those of the event before it, and
/// what a text looks like depends on nothing but the text.
#[derive(Default)]
pub(super) struct Judged(HashSet<String>);

impl Judged {
    /// So many are remembered.
    const LIMIT: usize = 256;

    fn looks_like_a_credential(&mut self, text: &str) -> bool {
        if self.0.contains(text) {
            return false;
        }
        if plaintext::find(text).is_some() {
            return true;
        }
        if self.0.len() == Self::LIMIT {
            self.0.clear();
        }
        self.0.insert(text.to_owned());
        false
    }
}

/// Reads one event of the bouncer's.
pub(super) fn event(
    mut event: wire::AuditEvent,
    bouncer: &BouncerName,
    dev: bool,
    judged: &mut Judged,
) -> Result<AuditEvent, EventFault> {
    let number = |number: u64| i64::try_from(number).map(|_| number).map_err(|_| EventFault::Number);
    if !OUTCOMES.contains(&event.outcome.as_str()) {
        return Err(EventFault::Outcome);
    }
    let id: uuid::Uuid = event.id.parse().map_err(|_| EventFault::Id)?;
    let mut evidence = evidence(&event, bouncer)?;
    let mut withheld = Withheld::new();
    let mut text = |name: &str, text: &mut String| {
        let mut shown = std::mem::take(text);
        let withhold = judged.looks_like_a_credential(&shown);
        if evidence.is_none() {
            cut(&mut shown, TEXT_LIMIT);
            return if withhold { WITHHELD.to_owned() } else { shown };
        }
        let stand_in = if withhold {
            WITHHELD
        } else if fits(&shown) {
            return shown;
        } else {
            UNFIT
        };
        withheld.insert(name.to_owned(), Decision::commitment(&shown));
        stand_in.to_owned()
    };
    let mut read = AuditEvent {
        sequence: number(event.sequence)?,
        at: Timestamp::from_millisecond(event.time_ms).map_err(|_| EventFault::Time)?,
        caller: text("caller", &mut event.caller),
        resource: text("resource", &mut event.resource),
        logical_path: text("logical_path", &mut event.logical_path),
        generation: number(event.generation)?,
        key_id: text("key_id", &mut event.key_id),
        aad_sha256: text("aad_sha256", &mut event.aad_sha256),
        cluster: text("cluster", &mut event.cluster),
        destination: text("destination", &mut event.destination),
        reason: text("reason", &mut event.reason),
        backend_request_id: text("backend_request_id", &mut event.backend_request_id),
        count: number(event.count)?,
        decision_id: text("decision_id", &mut event.decision_id),
        authority: text("authority", &mut event.authority),
        outcome: event.outcome,
        id,
        dev,
        evidence: None,
    };
    if let Some(evidence) = &mut evidence {
        // Stored ids have one form, and a chain is over the form that came in.
        if event.id != id.to_string() {
            return Err(EventFault::Id);
        }
        evidence.withheld = withheld;
    }
    read.evidence = evidence;
    Ok(read)
}

fn evidence(event: &wire::AuditEvent, bouncer: &BouncerName) -> Result<Option<Evidence>, EventFault> {
    if event.chain.is_empty() && event.head.is_empty() {
        return Ok(None);
    }
    let decision = bouncer_audit::decision!(event, bouncer.as_str());
    let chain = event.chain.parse().map_err(|_| EventFault::Chain)?;
    let head = Digest::try_from(&*event.head).map_err(|_| EventFault::Chain)?;
    Ok(Some(Evidence { chain, leaf: decision.leaf(), head, withheld: Withheld::new() }))
}

/// Reads one checkpoint of the bouncer's, which the peer sends. That the certificate leads to a trust bundle is for
/// whoever verifies, with the bundle of that time; here it must carry the identity that the connection proved.
pub(super) fn checkpoint(
    checkpoint: wire::Checkpoint,
    bouncer: &BouncerName,
    peer: &BouncerIdentity,
) -> Result<Received, EventFault> {
    let number = |number: u64| i64::try_from(number).map(|_| number).map_err(|_| EventFault::Number);
    let malformed = EventFault::Checkpoint;
    let wire::Checkpoint { chain, bouncer: named, sequence, head, time_ms, algorithm, signature, certificates, .. } =
        checkpoint;
    let bytes = signature.len() + certificates.iter().map(Vec::len).sum::<usize>();
    if named != bouncer.as_str() || bytes > CHECKPOINT_LIMIT || checkpoint.number == 0 {
        return Err(malformed);
    }
    Timestamp::from_millisecond(time_ms).map_err(|_| EventFault::Time)?;
    let signed = Signed {
        checkpoint: Checkpoint {
            chain: chain.parse().map_err(|_| malformed)?,
            owner: Owner::Bouncer(named),
            number: number(checkpoint.number)?,
            sequence: number(sequence)?,
            head: Digest::try_from(&*head).map_err(|_| malformed)?,
            time_ms,
        },
        algorithm: algorithm.parse().map_err(|_| malformed)?,
        signature,
        certificates,
    };
    let fault = match signed.verify_signature() {
        Ok(signer) if peer.spiffe_id() == Some(&signer) => None,
        Ok(_) => Some(Divergence::CheckpointIdentity),
        Err(_) => Some(Divergence::CheckpointSignature),
    };
    Ok(Received { signed, fault })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(event: wire::AuditEvent, dev: bool) -> Result<AuditEvent, EventFault> {
        super::event(event, &"payments-east".parse().unwrap(), dev, &mut Judged::default())
    }

    #[test]
    fn a_chained_event_keeps_its_leaf_where_a_text_is_withheld() {
        let wire = wire::AuditEvent {
            id: "0199d7a0-0000-7000-8000-000000000001".into(),
            sequence: 1,
            outcome: "deny".into(),
            authority: "AKIAIOSFODNN7EXAMPLE".into(),
            cluster: "a\n".into(),
            caller: "spiffe://example.org/cart".into(),
            chain: "0199d7a0-0000-7000-8000-0000000000aa".into(),
            head: vec![7; 32],
            ..Default::default()
        };
        let event = event(wire, false).unwrap();
        assert_eq!((event.authority.as_str(), event.cluster.as_str()), (WITHHELD, UNFIT));
        assert_eq!(event.caller, "spiffe://example.org/cart");
        let evidence = event.evidence.unwrap();
        assert_eq!(evidence.withheld.keys().collect::<Vec<_>>(), ["authority", "cluster"]);
        assert_eq!(evidence.withheld["authority"], Decision::commitment("AKIAIOSFODNN7EXAMPLE"));
    }

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
    fn a_remembered_verdict_is_the_one_that_the_text_has() {
        let mut judged = Judged::default();
        // More than are remembered, credentials among them, and all of them again.
        let text = |number: usize| match number % 5 {
            0 => format!("AKIAIOSFODNN7EXAMP{:02}", number % 100),
            1 => format!("password=hunter{number}x"),
            2 => uuid::Uuid::from_u128(number as u128 * 0x1_0001).to_string(),
            3 => "payments.internal:8443".to_owned(),
            _ => format!("spiffe://example.org/ns/shop/sa/cart-{number}"),
        };
        let mut found = [0, 0];
        for number in (0..2_000).chain((0..2_000).rev()) {
            let text = text(number);
            let looks = judged.looks_like_a_credential(&text);
            assert_eq!(looks, plaintext::find(&text).is_some(), "{text}");
            found[usize::from(looks)] += 1;
            assert!(judged.0.len() <= Judged::LIMIT);
        }
        assert!(found.iter().all(|count| *count >= 400), "{found:?}");
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
        assert_eq!(event(wire::AuditEvent { time_ms: i64::MAX, ..good.clone() }, false), Err(EventFault::Time));
        let chain = "0199d7a0-0000-7000-8000-0000000000aa".to_owned();
        let chained = wire::AuditEvent { chain, head: vec![7; 32], ..good };
        assert!(event(chained.clone(), false).is_ok());
        let upper = wire::AuditEvent { id: chained.id.to_uppercase(), ..chained.clone() };
        assert_eq!(event(upper, false), Err(EventFault::Id));
        assert_eq!(event(wire::AuditEvent { head: vec![7], ..chained.clone() }, false), Err(EventFault::Chain));
        assert_eq!(event(wire::AuditEvent { chain: String::new(), ..chained }, false), Err(EventFault::Chain));
    }
}
