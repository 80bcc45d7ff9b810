//! What the resolver answered, parsed: a reply that this module accepts cannot hold anything malformed.
//!
//! The filter makes a [`Decision`] of every `DecideReply`, and of what is none; whatever can't be read is a denial. The
//! same decision is shared by the cache, the streams that carry its tag and the use counts.

use bouncer_custody::{Reason, Tag};
use bouncer_proto::intercept::v1::{DecideReply, decide_reply};
use prost::Message as _;
use std::cell::Cell;

/// The longest that a denial is reused, in milliseconds, so that a repaired rule shows soon.
pub const MAX_DENIAL_TTL_MS: u32 = 5_000;

/// One answer of the resolver, for exactly one set of facts.
#[derive(Debug, PartialEq, Eq)]
pub struct Decision {
    /// The cluster that it was asked for.
    pub cluster: Box<str>,
    /// Joins it with audit; absent for a denial that was not audited.
    pub id: Option<Box<str>>,
    /// What it says.
    pub outcome: Outcome,
    /// Reuses that have not been reported yet.
    pub uses: Cell<u32>,
}

/// What the resolver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Go on with the credential of this tag, which is a well-formed one.
    Inject(Box<str>),
    /// Go on without a credential, if the cluster is not protected.
    PassThrough,
    /// Do not go on.
    Deny(Reason),
}

/// A decision with what only matters on arrival.
#[derive(Debug)]
pub struct Reply {
    /// The run of the resolver that decided; empty if it did not say.
    pub boot: Box<str>,
    /// The newest invalidation that the decision knows of.
    pub epoch: u64,
    /// For how long it may be reused, in milliseconds, as the resolver says.
    pub ttl_ms: u32,
    /// The decision itself.
    pub decision: Decision,
}

impl Reply {
    /// Reads a `DecideReply`. What cannot be read, has no outcome, or breaks the contract is a denial that nobody reuses.
    #[must_use]
    pub fn parse(message: &[u8], cluster: &str) -> Self {
        let broken = || Self {
            boot: Box::default(),
            epoch: 0,
            ttl_ms: 0,
            decision: Decision::denial(cluster, Reason::Internal, None),
        };
        let Ok(reply) = DecideReply::decode(message) else { return broken() };
        if !is_label(&reply.boot) {
            return broken();
        }
        let id = is_label(&reply.decision_id).then(|| reply.decision_id.into_boxed_str());
        let (outcome, ttl_ms) = match reply.outcome {
            Some(decide_reply::Outcome::Inject(inject)) if id.is_some() && inject.tag.parse::<Tag>().is_ok() => {
                (Outcome::Inject(inject.tag.into_boxed_str()), inject.ttl_ms)
            }
            Some(decide_reply::Outcome::PassThrough(pass)) if id.is_some() => (Outcome::PassThrough, pass.ttl_ms),
            Some(decide_reply::Outcome::Deny(deny)) => {
                // A code that this version does not know says nothing that could be repeated to a client.
                let reason = deny.reason.parse().unwrap_or(Reason::Internal);
                (Outcome::Deny(reason), deny.ttl_ms.min(MAX_DENIAL_TTL_MS))
            }
            _ => return broken(),
        };
        Self {
            boot: reply.boot.into_boxed_str(),
            epoch: reply.epoch,
            ttl_ms,
            decision: Decision { cluster: cluster.into(), id, outcome, uses: Cell::new(0) },
        }
    }
}

impl Decision {
    /// A denial of the filter's own.
    #[must_use]
    pub fn denial(cluster: &str, reason: Reason, id: Option<Box<str>>) -> Self {
        Self { cluster: cluster.into(), id, outcome: Outcome::Deny(reason), uses: Cell::new(0) }
    }

    /// The tag, where there is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Inject(tag) => Some(tag),
            Outcome::PassThrough | Outcome::Deny(_) => None,
        }
    }
}

/// What may stand in a response header and in a log: an identifier of the resolver's.
fn is_label(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use bouncer_proto::intercept::v1::{Deny, Inject, PassThrough};

    fn reply(outcome: Option<decide_reply::Outcome>) -> DecideReply {
        DecideReply { boot: "b1".into(), epoch: 7, decision_id: "0190-x".into(), outcome }
    }

    fn inject(tag: &str) -> DecideReply {
        reply(Some(decide_reply::Outcome::Inject(Inject { tag: tag.into(), ttl_ms: 9 })))
    }

    fn outcome(reply: &DecideReply) -> Outcome {
        Reply::parse(&reply.encode_to_vec(), "c").decision.outcome
    }

    #[test]
    fn a_good_reply_is_read_whole() {
        let reply = Reply::parse(&inject("a/b@1.0123456789abcdef").encode_to_vec(), "c");
        assert_eq!((&*reply.boot, reply.epoch, reply.ttl_ms), ("b1", 7, 9));
        assert_eq!(reply.decision.tag(), Some("a/b@1.0123456789abcdef"));
        assert_eq!((&*reply.decision.cluster, reply.decision.id.as_deref()), ("c", Some("0190-x")));
    }

    #[test]
    fn what_is_not_a_good_reply_denies_and_is_not_reused() {
        let broken: Vec<Vec<u8>> = vec![
            Vec::new(),
            vec![0xff; 9],
            reply(None).encode_to_vec(),
            inject("not a tag").encode_to_vec(),
            DecideReply { boot: String::new(), ..inject("a@1.0123456789abcdef") }.encode_to_vec(),
            DecideReply { decision_id: String::new(), ..inject("a@1.0123456789abcdef") }.encode_to_vec(),
            DecideReply { decision_id: "a\r\nb".into(), ..inject("a@1.0123456789abcdef") }.encode_to_vec(),
            DecideReply {
                decision_id: "x".repeat(65),
                ..reply(Some(decide_reply::Outcome::PassThrough(PassThrough { ttl_ms: 1 })))
            }
            .encode_to_vec(),
        ];
        for message in broken {
            let reply = Reply::parse(&message, "c");
            assert_eq!((reply.decision.outcome, reply.ttl_ms), (Outcome::Deny(Reason::Internal), 0), "{message:?}");
        }
    }

    #[test]
    fn a_denial_needs_no_id_and_keeps_its_reason_if_it_is_known() {
        let deny = |reason: &str| {
            let deny = Deny { reason: reason.into(), ttl_ms: u32::MAX };
            DecideReply { decision_id: String::new(), ..reply(Some(decide_reply::Outcome::Deny(deny))) }
        };
        assert_eq!(outcome(&deny("binding_mismatch_caller")), Outcome::Deny(Reason::BindingCaller));
        assert_eq!(outcome(&deny("<script>")), Outcome::Deny(Reason::Internal));
        assert_eq!(Reply::parse(&deny("internal").encode_to_vec(), "c").ttl_ms, MAX_DENIAL_TTL_MS);
    }
}
