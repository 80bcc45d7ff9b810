//! What an event says, in bytes: the leaves of the chains, and the limits that its texts keep to.

use crate::digest::Digest;
use std::collections::BTreeMap;

/// The longest text of an event, in bytes; the longest SPIFFE ID.
pub const TEXT_LIMIT: usize = 2_048;
/// What stands in for a text that looked like a credential.
pub const WITHHELD: &str = "[withheld: looked like a credential]";
/// What stands in for a text that its resolver should have cut.
pub const UNFIT: &str = "[withheld: too long or not printable]";

const DECISION: &[u8] = b"bouncer.audit.decision.v1\0";
const CHANGE: &[u8] = b"bouncer.audit.change.v1\0";
const TEXT: &[u8] = &[1];

/// The commitments to texts that are not shown, by field.
pub type Withheld = BTreeMap<String, Digest>;

/// Whether a text is as an event has them: at most [`TEXT_LIMIT`] bytes, and no control characters.
#[must_use]
pub fn fits(text: &str) -> bool {
    text.len() <= TEXT_LIMIT && !text.chars().any(char::is_control)
}

/// Makes a text as an event has them. A resolver does so before it chains, and the control plane stores no other: what
/// was chained is then what is stored.
pub fn fit(text: &mut String) {
    if !fits(text) {
        cut(text, TEXT_LIMIT);
    }
}

/// Cuts a text to `limit` bytes, and takes control characters out of it.
pub fn cut(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
    }
    text.retain(|character| !character.is_control());
}

fn commit(text: &str) -> Digest {
    Digest::of(&[TEXT, text.as_bytes()])
}

/// One decision of a bouncer. What the control plane adds, when it arrived and whether the resolver ran with `--dev`, is
/// no part of the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "bridge.proto documents the fields")]
pub struct Decision<'a> {
    pub bouncer: &'a str,
    pub id: &'a str,
    pub sequence: u64,
    pub time_ms: i64,
    pub caller: &'a str,
    pub resource: &'a str,
    pub logical_path: &'a str,
    pub generation: u64,
    pub key_id: &'a str,
    pub aad_sha256: &'a str,
    pub cluster: &'a str,
    pub destination: &'a str,
    pub outcome: &'a str,
    pub reason: &'a str,
    pub backend_request_id: &'a str,
    pub count: u64,
    pub decision_id: &'a str,
    pub authority: &'a str,
}

/// The [`Decision`] that an event of a bouncer's holds, whatever type the event is: its fields have the same names in
/// memory, on the wire and in exports.
#[macro_export]
macro_rules! decision {
    ($event:expr, $bouncer:expr) => {
        $crate::Decision {
            bouncer: $bouncer,
            id: &$event.id,
            sequence: $event.sequence,
            time_ms: $event.time_ms,
            caller: &$event.caller,
            resource: &$event.resource,
            logical_path: &$event.logical_path,
            generation: $event.generation,
            key_id: &$event.key_id,
            aad_sha256: &$event.aad_sha256,
            cluster: &$event.cluster,
            destination: &$event.destination,
            outcome: &$event.outcome,
            reason: &$event.reason,
            backend_request_id: &$event.backend_request_id,
            count: $event.count,
            decision_id: &$event.decision_id,
            authority: &$event.authority,
        }
    };
}

impl Decision<'_> {
    const fn texts(&self) -> [(&'static str, &str); 14] {
        [
            ("bouncer", self.bouncer),
            ("id", self.id),
            ("caller", self.caller),
            ("resource", self.resource),
            ("logical_path", self.logical_path),
            ("key_id", self.key_id),
            ("aad_sha256", self.aad_sha256),
            ("cluster", self.cluster),
            ("destination", self.destination),
            ("outcome", self.outcome),
            ("reason", self.reason),
            ("backend_request_id", self.backend_request_id),
            ("decision_id", self.decision_id),
            ("authority", self.authority),
        ]
    }

    /// Its leaf.
    #[must_use]
    pub fn leaf(&self) -> Digest {
        self.over(&self.texts().map(|(_, text)| commit(text)))
    }

    /// Its leaf, where some texts are withheld. `None` if a text is shown in the place of a withheld one, if one is
    /// withheld without its commitment, or if a commitment is for no text of a decision.
    #[must_use]
    pub fn leaf_without(&self, withheld: &Withheld) -> Option<Digest> {
        let names = self.texts().map(|(name, _)| name);
        if withheld.keys().any(|name| !names.contains(&name.as_str())) {
            return None;
        }
        let mut commitments = self.texts().map(|(_, text)| commit(text));
        for (commitment, (name, text)) in commitments.iter_mut().zip(self.texts()) {
            // Without a commitment a text is itself, also where a client sent the very words.
            if let Some(withheld) = withheld.get(name) {
                if ![WITHHELD, UNFIT].contains(&text) {
                    return None;
                }
                *commitment = *withheld;
            }
        }
        Some(self.over(&commitments))
    }

    fn over(&self, commitments: &[Digest; 14]) -> Digest {
        let mut bytes = Vec::with_capacity(DECISION.len() + 4 * 8 + 14 * 32);
        bytes.extend_from_slice(DECISION);
        bytes.extend_from_slice(&self.sequence.to_be_bytes());
        bytes.extend_from_slice(&self.time_ms.to_be_bytes());
        bytes.extend_from_slice(&self.generation.to_be_bytes());
        bytes.extend_from_slice(&self.count.to_be_bytes());
        for commitment in commitments {
            bytes.extend_from_slice(commitment.as_bytes());
        }
        Digest::of(&[&bytes])
    }

    /// The commitment to one of its texts, for when it is not to be stored.
    #[must_use]
    pub fn commitment(text: &str) -> Digest {
        commit(text)
    }
}

/// One administrative change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the API's description documents the fields")]
pub struct Change<'a> {
    pub sequence: u64,
    pub time_ms: i64,
    pub actor: &'a str,
    pub action: &'a str,
    pub subject: &'a str,
    pub detail: &'a str,
}

impl Change<'_> {
    /// Its leaf.
    #[must_use]
    pub fn leaf(&self) -> Digest {
        let texts = [self.actor, self.action, self.subject, self.detail].map(commit);
        let [actor, action, subject, detail] = texts.each_ref().map(|digest| digest.as_bytes().as_slice());
        Digest::of(&[CHANGE, &self.sequence.to_be_bytes(), &self.time_ms.to_be_bytes(), actor, action, subject, detail])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: Decision<'static> = Decision {
        bouncer: "east",
        id: "0199d7a0-0000-7000-8000-000000000001",
        sequence: 7,
        time_ms: 1_790_000_000_000,
        caller: "spiffe://example.org/cart",
        resource: "payments-api",
        logical_path: "a/b",
        generation: 3,
        key_id: "arn:aws:kms:eu-central-1:1:key/a",
        aad_sha256: "",
        cluster: "payments",
        destination: "payments.internal:8443",
        outcome: "inject",
        reason: "",
        backend_request_id: "r-1",
        count: 1,
        decision_id: "",
        authority: "payments.internal",
    };

    /// From a second implementation, after the documentation. No change of the code may change what is evidence.
    #[test]
    fn the_bytes_are_these_for_good() {
        let leaf = SAMPLE.leaf().to_string();
        assert_eq!(leaf, "a20026454ccc0a1a03c4280450a64b60d67cd35d033ba153ae261416ad6fa15f");
        let change = Change { sequence: 1, time_ms: 2, actor: "a", action: "b", subject: "c", detail: "d" };
        assert_eq!(change.leaf().to_string(), "ef1777fbe4041aa789c91f68bdedf47529afddf4f6dae29f5e0c1423177408f6");
    }

    #[test]
    fn a_withheld_text_proves_the_rest_and_nothing_can_stand_in_its_place() {
        let withheld = Withheld::from([("authority".to_owned(), Decision::commitment(SAMPLE.authority))]);
        let shown = Decision { authority: WITHHELD, ..SAMPLE };
        assert_eq!(shown.leaf_without(&withheld), Some(SAMPLE.leaf()));
        assert_eq!(Decision { authority: "another", ..SAMPLE }.leaf_without(&withheld), None);
        assert_ne!(Decision { caller: "another", ..shown }.leaf_without(&withheld), Some(SAMPLE.leaf()));
        let odd = Withheld::from([("count".to_owned(), Decision::commitment("1"))]);
        assert_eq!(SAMPLE.leaf_without(&odd), None);
        assert_eq!(SAMPLE.leaf_without(&Withheld::new()), Some(SAMPLE.leaf()));
        let words = Decision { authority: WITHHELD, ..SAMPLE };
        assert_eq!(words.leaf_without(&Withheld::new()), Some(words.leaf()), "a client may say so");
    }

    #[test]
    fn texts_are_cut_at_a_character_and_are_printable() {
        let mut text = format!("a\n{}", "ä".repeat(2_000));
        assert!(!fits(&text));
        fit(&mut text);
        assert!(text.len() <= TEXT_LIMIT && text.starts_with("aä"));
        let once = text.clone();
        assert!(fits(&text));
        fit(&mut text);
        assert_eq!(text, once);
    }

    /// The sample with one bit of one field changed; `None` where that is no text any more.
    fn flipped(field: usize, bit: usize) -> Option<Digest> {
        let mut sample = SAMPLE;
        let number = |value: u64| value ^ (1 << (bit % 64));
        match field {
            0 => sample.sequence = number(sample.sequence),
            1 => sample.time_ms ^= 1 << (bit % 64),
            2 => sample.generation = number(sample.generation),
            3 => sample.count = number(sample.count),
            _ => {
                let mut bytes = sample.texts()[field - 4].1.as_bytes().to_vec();
                match bytes.is_empty() {
                    true => bytes.push(1 << (bit % 7)),
                    false => {
                        let at = (bit / 8) % bytes.len();
                        bytes[at] ^= 1 << (bit % 8);
                    }
                }
                let text = String::from_utf8(bytes).ok()?;
                let mut copy = Decision { ..SAMPLE };
                let place = match field - 4 {
                    0 => &mut copy.bouncer,
                    1 => &mut copy.id,
                    2 => &mut copy.caller,
                    3 => &mut copy.resource,
                    4 => &mut copy.logical_path,
                    5 => &mut copy.key_id,
                    6 => &mut copy.aad_sha256,
                    7 => &mut copy.cluster,
                    8 => &mut copy.destination,
                    9 => &mut copy.outcome,
                    10 => &mut copy.reason,
                    11 => &mut copy.backend_request_id,
                    12 => &mut copy.decision_id,
                    _ => &mut copy.authority,
                };
                *place = &text;
                return Some(copy.leaf());
            }
        }
        Some(sample.leaf())
    }

    proptest! {
        #[test]
        fn any_bit_of_any_field_changes_the_leaf(field in 0_usize..18, bit in 0_usize..4_096) {
            if let Some(leaf) = flipped(field, bit) {
                prop_assert_ne!(leaf, SAMPLE.leaf());
            }
        }

        #[test]
        fn moving_a_text_to_the_next_field_changes_the_leaf(cut in 0_usize..12) {
            let joined = format!("{}{}", SAMPLE.resource, SAMPLE.logical_path);
            let (resource, logical_path) = joined.split_at(cut);
            let moved = Decision { resource, logical_path, ..SAMPLE };
            prop_assert_eq!(moved.leaf() == SAMPLE.leaf(), resource == SAMPLE.resource);
        }
    }
}
