//! The arithmetic of the audit's chains: whether what comes in follows from what is there, and what comes next in the
//! control plane's own. No SQL: each database looks up where a chain is, and stores where it has come to.

use super::rows::{audit::owner, parsed};
use super::{Result, StoreError};
use crate::model::{Actor, AuditEvent, Divergence, Evidence};
use base64::Engine as _;
use bouncer_audit::{ChainId, ChainPoint, Change, Digest, Owner, Signed};
use bouncer_custody::BouncerName;
use sha2::Digest as _;
use std::collections::HashMap;

/// Where the control plane's own chain begins, with the first change in a database.
pub(super) fn begin_own() -> Result<ChainPoint> {
    let chain = parsed("audit_chains", &uuid::Uuid::now_v7().to_string())?;
    Ok(ChainPoint::origin(chain, &Owner::ControlPlane, 0))
}

/// An administrative change's place behind `before`: its leaf, and where the own chain then is.
pub(super) fn own_next(
    before: ChainPoint,
    time_ms: i64,
    actor: &Actor,
    [action, subject, detail]: [&str; 3],
) -> (Digest, ChainPoint) {
    let sequence = before.sequence + 1;
    let leaf = Change { sequence, time_ms, actor: actor.as_str(), action, subject, detail }.leaf();
    let head = before.head_with(&leaf);
    (leaf, ChainPoint { sequence, head, ..before })
}

/// A checkpoint's certificates as they are stored: the SHA-256 of the text, and the text.
pub(super) fn certificates(checkpoint: &Signed) -> ([u8; 32], String) {
    let encode = |der: &Vec<u8>| base64::engine::general_purpose::STANDARD.encode(der);
    let text = serde_json::Value::from(checkpoint.certificates.iter().map(encode).collect::<Vec<_>>()).to_string();
    (sha2::Sha256::digest(&text).into(), text)
}

/// What is said of an event that came with the id of another.
pub(super) fn told_again(event: &AuditEvent, evidence: &Evidence) -> String {
    format!("id {}, outcome {}, leaf {}, head {}", event.id, event.outcome, evidence.leaf, evidence.head)
}

/// A chain as a row has it: whose it is, and where.
pub(super) fn end(chain: &ChainId, text: String, sequence: i64, head: &[u8]) -> Result<(Owner, ChainPoint)> {
    let head = super::rows::audit::digest("audit_chains", head)?;
    let point = ChainPoint { chain: chain.clone(), sequence: super::rows::unsigned(sequence)?, head };
    Ok((owner("audit_chains", text)?, point))
}

/// The texts of an event that are withheld, as they are stored.
pub(super) fn withheld(evidence: Option<&Evidence>) -> Result<Option<String>> {
    let withheld = evidence.map(|evidence| &evidence.withheld).filter(|withheld| !withheld.is_empty());
    withheld.map(serde_json::to_string).transpose().map_err(|_| StoreError::Corrupt("audit_events"))
}

/// What an event that was stored is to its chain.
pub(super) enum Step {
    /// It is the new end, with what is wrong about that.
    Next(Option<Divergence>),
    /// It comes after its turn; or another has its place.
    Late,
    /// The chain is another's.
    Foreign,
}

/// The chains of one batch of a bouncer's: as they were before it, and as they come to be.
pub(super) struct Chains {
    owner: Owner,
    /// Those that were looked up: whose each is, and where; `None` for one that is new.
    ends: HashMap<ChainId, Option<(Owner, ChainPoint)>>,
}

impl Chains {
    pub(super) fn new(bouncer: &BouncerName) -> Self {
        Self { owner: Owner::Bouncer(bouncer.to_string()), ends: HashMap::new() }
    }

    /// Whether the chain was looked up.
    pub(super) fn knows(&self, chain: &ChainId) -> bool {
        self.ends.contains_key(chain)
    }

    /// What was found of a chain.
    pub(super) fn learn(&mut self, chain: ChainId, end: Option<(Owner, ChainPoint)>) {
        self.ends.insert(chain, end);
    }

    fn end(&self, chain: &ChainId) -> Option<&(Owner, ChainPoint)> {
        self.ends.get(chain)?.as_ref()
    }

    /// The last event of a chain that was looked up; 0 for one that is new.
    pub(super) fn sequence(&self, chain: &ChainId) -> u64 {
        self.end(chain).map_or(0, |(_, end)| end.sequence)
    }

    /// Whether the chain is another owner's.
    pub(super) fn is_foreign(&self, chain: &ChainId) -> bool {
        self.end(chain).is_some_and(|(owner, _)| *owner != self.owner)
    }

    /// Where an event says that it is chained. In another owner's chain it can't be.
    pub(super) fn evidence<'a>(&self, event: &'a AuditEvent) -> Option<&'a Evidence> {
        event.evidence.as_ref().filter(|evidence| !self.is_foreign(&evidence.chain))
    }

    /// An event was stored: does it follow?
    pub(super) fn take(&mut self, event: &AuditEvent, evidence: &Evidence) -> Step {
        let follows = |before: &ChainPoint| before.head_with(&evidence.leaf) == evidence.head;
        let fault = match self.end(&evidence.chain) {
            Some((owner, _)) if *owner != self.owner => return Step::Foreign,
            Some((_, end)) if event.sequence <= end.sequence => return Step::Late,
            Some((_, end)) if event.sequence > end.sequence + 1 => Some(Divergence::Gap),
            Some((_, end)) => (!follows(end)).then_some(Divergence::Link),
            None => {
                let before = event.sequence.saturating_sub(1);
                let origin = ChainPoint::origin(evidence.chain.clone(), &self.owner, before);
                (!follows(&origin)).then_some(Divergence::Gap)
            }
        };
        let point = ChainPoint { chain: evidence.chain.clone(), sequence: event.sequence, head: evidence.head };
        self.learn(evidence.chain.clone(), Some((self.owner.clone(), point)));
        Step::Next(fault)
    }

    /// How far the bouncer's own chains have come.
    pub(super) fn reached(&self) -> impl Iterator<Item = &(Owner, ChainPoint)> {
        self.ends.values().flatten().filter(|(owner, _)| *owner == self.owner)
    }
}
