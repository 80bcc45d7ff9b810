//! Verifies an export, line by line and in bounded memory. Trusts nothing in it: what it accepts follows from the bundles.

use crate::bundle::Bundles;
use crate::chain::{ChainId, ChainPoint, Owner};
use crate::checkpoint::{CHECKPOINT_EVENTS, CheckpointError, Signed};
use crate::digest::Digest;
use crate::event::Withheld;
use crate::line::{Line, Proof};
use bouncer_custody::SpiffeId;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// How much later than its last checkpoint an event may be that is not signed yet, in milliseconds. A resolver signs each
/// ten seconds while it is connected, and at once after a pause.
const LATE_MS: i64 = 60_000;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum What {
    /// A line that is none of an export's.
    #[error("line {0} is no line of an export")]
    Line(u64),
    /// The file ends before the export did.
    #[error("the export is not whole: its last line is missing, or lines of it are")]
    CutOff,
    /// Events are missing.
    #[error("events are missing: {expected} was to follow, but {found} does")]
    Gap {
        /// The sequence that was to follow.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// Out of order, or there twice.
    #[error("the event is out of order, or there twice")]
    Order,
    /// Fewer than all.
    #[error("{0} event(s) in front of the first one are not in this export")]
    Incomplete(u64),
    /// Changed.
    #[error("the event, or its head, is not what was chained")]
    Changed,
    /// A withheld text that does not add up.
    #[error("a withheld text of the event does not add up")]
    Withheld,
    /// Of another owner.
    #[error("it is in another's chain")]
    Owner,
    /// Begins in the middle.
    #[error(
        "what is in front of the event is missing: it is not the chain's first, and no checkpoint ties it to what was"
    )]
    NoStart,
    /// A chain without a good checkpoint.
    #[error(
        "nothing of the chain is signed. That is so for a bouncer that enrols by an IAM role, and for no other: where this is \
         one, name its role (--bouncer NAME=ARN)"
    )]
    Unsigned,
    /// The control plane's own chain without a good checkpoint.
    #[error(
        "nothing of the chain is signed, and who signs it was given (--control-plane-id): its checkpoints are missing. A \
         control plane signs within ten seconds of its first change: where that has only just been, export again"
    )]
    OwnUnsigned,
    /// Nothing of an owner whose identity was given.
    #[error(
        "nothing of {0} is here, and who signs it was given: its chains are missing, or the export was not to hold them"
    )]
    Nothing(Owner),
    /// More events behind the last checkpoint than there can be.
    #[error(
        "{found} event(s) behind the last checkpoint are not signed, and at most {most} can be: checkpoints are missing, or \
         could not be made"
    )]
    TailTooLong {
        /// How many there are.
        found: u64,
        /// How many there may be.
        most: u64,
    },
    /// An unsigned event long after the last checkpoint.
    #[error(
        "the event is not signed, and more than a minute later than what should have been: checkpoints are missing, or could \
         not be made"
    )]
    TailTooLate,
    /// A checkpoint covers events that are not there.
    #[error("the checkpoint covers events that are missing: they end at {0}")]
    MissingBefore(u64),
    /// Another head.
    #[error("the checkpoint was signed over other events")]
    OtherHead,
    /// A checkpoint is missing.
    #[error("a checkpoint is missing: number {expected} was to follow, but {found} does")]
    CheckpointMissing {
        /// The number that was to follow.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// Not good by itself.
    #[error("the checkpoint is not good: {0}")]
    Checkpoint(CheckpointError),
    /// Of another identity.
    #[error("the checkpoint was signed by {found}, and not by {expected}")]
    Identity {
        /// Who signs this chain, by what was given or by its first checkpoint.
        expected: SpiffeId,
        /// Who signed this one.
        found: SpiffeId,
    },
    /// Less than the resolver says it has handed over.
    #[error(
        "the tail is missing: the resolver was told that events up to {acknowledged} are stored, and they end at {last}"
    )]
    Tail {
        /// What the control plane acknowledged.
        acknowledged: u64,
        /// The last event here.
        last: u64,
    },
    /// Not the resolver's own head.
    #[error("the resolver's own head is another: these are not the events that it recorded")]
    NotTheResolvers,
}

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// In which chain, unless it is about the export as a whole.
    pub chain: Option<ChainId>,
    /// At which event or checkpoint.
    pub sequence: Option<u64>,
    /// What.
    pub what: What,
}

/// What a resolver says of its own chain (`GET /audit/head`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Expected {
    /// Where it is.
    #[serde(flatten)]
    pub point: ChainPoint,
    /// Up to where the control plane acknowledged.
    pub acknowledged: u64,
}

/// How one chain is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainReport {
    /// Which.
    pub chain: ChainId,
    /// Whose.
    pub owner: Option<Owner>,
    /// Who signed its checkpoints.
    pub spiffe_id: Option<SpiffeId>,
    /// That identity was given by the one who verifies, and not read out of the export.
    pub expected: bool,
    /// Events here.
    pub events: u64,
    /// The last event's sequence, or the checkpoint's that stands for those before.
    pub last: u64,
    /// Events in front of the first one here: removed by retention, or outside the range.
    pub before: u64,
    /// Checkpoints here.
    pub checkpoints: u64,
    /// Up to where it is signed.
    pub signed_through: u64,
    /// Events behind the last checkpoint.
    pub not_yet_signed: u64,
    /// When the last checkpoint was signed, Unix milliseconds.
    pub last_checkpoint_ms: Option<i64>,
    /// Events of which the control plane withholds a text. The rest of each is proven.
    pub withheld: u64,
    /// Events that the resolver has recorded and not handed over yet, where its head was given.
    pub not_delivered: Option<u64>,
    /// Nothing signs it, and nobody said that anything does: its order holds, and whoever stored it could have made it.
    pub unsigned: bool,
    /// It is as it should be.
    pub good: bool,
}

/// What came of it.
#[derive(Debug)]
pub struct Report {
    /// Every chain, by name.
    pub chains: Vec<ChainReport>,
    /// Everything that is wrong, at most one for each chain.
    pub faults: Vec<Fault>,
    /// Events from before there were chains: nothing speaks for them.
    pub unchained: u64,
    /// What the control plane itself found wrong as it came in.
    pub divergences: u64,
}

#[derive(Debug, Default)]
struct State {
    owner: Option<Owner>,
    at: Option<ChainPoint>,
    events: u64,
    before: u64,
    withheld: u64,
    signer: Option<SpiffeId>,
    checkpoints: u64,
    last: Option<(u64, u64, i64)>,
    /// When the first event behind the last checkpoint was.
    tail_ms: Option<i64>,
    /// The first event behind it that is too late to be there.
    late: Option<u64>,
    broken: bool,
}

/// Verifies one export.
#[derive(Debug)]
pub struct Verifier {
    bundles: Bundles,
    signers: BTreeMap<Owner, SpiffeId>,
    heads: Vec<Expected>,
    unsigned: BTreeSet<Owner>,
    complete: bool,
    max_unsigned: Option<u64>,
    chains: BTreeMap<ChainId, State>,
    faults: Vec<Fault>,
    unchained: u64,
    divergences: u64,
    lines: u64,
    whole: bool,
}

impl Verifier {
    /// With the bundles that vouch, the identities that are expected, and what resolvers say of themselves.
    #[must_use]
    pub fn new(bundles: Bundles, signers: BTreeMap<Owner, SpiffeId>, heads: Vec<Expected>) -> Self {
        Self {
            bundles,
            signers,
            heads,
            unsigned: BTreeSet::new(),
            complete: false,
            max_unsigned: None,
            chains: BTreeMap::new(),
            faults: Vec::new(),
            unchained: 0,
            divergences: 0,
            lines: 0,
            whole: false,
        }
    }

    /// Wants every chain from its beginning: nothing was removed, and the export is no range.
    #[must_use]
    pub fn complete(mut self) -> Self {
        self.complete = true;
        self
    }

    /// Expects no signature over the chains of these, who have no SVID. Whoever verifies says so: the export can't.
    #[must_use]
    pub fn unsigned(mut self, owners: impl IntoIterator<Item = Owner>) -> Self {
        self.unsigned.extend(owners);
        self
    }

    /// Takes so many events behind a chain's last checkpoint, whenever they were. Without it, what a resolver can have there:
    /// [`CHECKPOINT_EVENTS`], and none of them a minute later than the checkpoint. Of the control plane's own, which signs by
    /// time alone, those of one minute.
    #[must_use]
    pub fn max_unsigned(mut self, most: u64) -> Self {
        self.max_unsigned = Some(most);
        self
    }

    /// The next line, without its line end. An empty one says nothing.
    pub fn line(&mut self, text: &str) {
        if text.trim().is_empty() {
            return;
        }
        let Ok(line) = serde_json::from_str::<Line>(text) else {
            self.lines += 1;
            // The first of them says enough, and there may be many.
            if !self.faults.iter().any(|fault| matches!(fault.what, What::Line(_))) {
                let what = What::Line(self.lines);
                self.faults.push(Fault { chain: None, sequence: None, what });
            }
            return;
        };
        // Nothing comes behind the end.
        self.whole = false;
        match line {
            Line::End(end) => return self.whole = end.lines == self.lines,
            Line::Divergence(_) => self.divergences += 1,
            Line::Event(event) => {
                let owner = Owner::Bouncer(event.bouncer.clone());
                let leaf = |withheld: &Withheld| event.decision().leaf_without(withheld);
                self.event(event.proof.as_ref(), owner, (event.sequence, event.time_ms), leaf);
            }
            Line::AdminEvent(event) => {
                let leaf = |_: &Withheld| Some(event.change().leaf());
                self.event(event.proof.as_ref(), Owner::ControlPlane, (event.sequence, event.time_ms), leaf);
            }
            Line::Checkpoint(signed) => self.checkpoint(&signed, signed.checkpoint.owner != Owner::ControlPlane),
            Line::AdminCheckpoint(signed) => self.checkpoint(&signed, signed.checkpoint.owner == Owner::ControlPlane),
        }
        self.lines += 1;
    }

    fn fault(&mut self, chain: &ChainId, sequence: Option<u64>, what: What) {
        self.chains.entry(chain.clone()).or_default().broken = true;
        self.faults.push(Fault { chain: Some(chain.clone()), sequence, what });
    }

    fn event(
        &mut self,
        proof: Option<&Proof>,
        owner: Owner,
        (sequence, time_ms): (u64, i64),
        leaf: impl FnOnce(&Withheld) -> Option<Digest>,
    ) {
        let Some(proof) = proof else {
            self.unchained += 1;
            return;
        };
        let state = self.chains.entry(proof.chain.clone()).or_default();
        if state.broken {
            return;
        }
        match state.event(proof, owner, (sequence, time_ms), leaf) {
            Err(what) => self.fault(&proof.chain, Some(sequence), what),
            Ok(()) => {
                let own = self.heads.iter().any(|head| {
                    head.point.chain == proof.chain && head.point.sequence == sequence && head.point.head != proof.head
                });
                if own {
                    self.fault(&proof.chain, Some(sequence), What::NotTheResolvers);
                }
            }
        }
    }

    fn checkpoint(&mut self, signed: &Signed, fits: bool) {
        let checkpoint = &signed.checkpoint;
        let state = self.chains.entry(checkpoint.chain.clone()).or_default();
        if state.broken {
            return;
        }
        let owned = if fits { state.owned_by(&checkpoint.owner) } else { Err(What::Owner) };
        let verified = owned.and_then(|()| signed.verify(&self.bundles).map_err(What::Checkpoint));
        let expected = self.signers.get(&checkpoint.owner);
        if let Err(what) = verified.and_then(|signer| state.checkpoint(signed, signer, expected)) {
            self.fault(&checkpoint.chain, Some(checkpoint.sequence), what);
        }
    }

    /// What came of it all.
    #[must_use]
    pub fn finish(mut self) -> Report {
        if !self.whole {
            self.faults.push(Fault { chain: None, sequence: None, what: What::CutOff });
        }
        let tails = self.chains.iter().filter(|(_, state)| !state.broken);
        let tails = tails.filter_map(|(chain, state)| Some((chain.clone(), self.tail(state)?)));
        for (chain, (sequence, what)) in tails.collect::<Vec<_>>() {
            self.fault(&chain, sequence, what);
        }
        let owners: BTreeSet<_> = self.chains.values().filter_map(|state| state.owner.clone()).collect();
        for owner in self.signers.keys().filter(|owner| !owners.contains(owner)).cloned() {
            self.faults.push(Fault { chain: None, sequence: None, what: What::Nothing(owner) });
        }
        let cut = self.chains.iter().filter(|(_, state)| self.complete && !state.broken && state.before > 0);
        for (chain, before) in cut.map(|(chain, state)| (chain.clone(), state.before)).collect::<Vec<_>>() {
            self.fault(&chain, None, What::Incomplete(before));
        }
        for head in std::mem::take(&mut self.heads) {
            let (chain, acknowledged) = (&head.point.chain, head.acknowledged);
            let state = self.chains.entry(chain.clone()).or_default();
            let last = state.at.as_ref().map_or(0, |point| point.sequence);
            let broken = state.broken;
            if !broken && last < acknowledged {
                self.fault(chain, None, What::Tail { acknowledged, last });
            }
            self.heads.push(head);
        }
        let chains = std::mem::take(&mut self.chains);
        let chains = chains.into_iter().map(|(chain, state)| self.report(chain, state)).collect();
        Report { chains, faults: self.faults, unchained: self.unchained, divergences: self.divergences }
    }

    /// Whether a chain without any signature can be honest: nobody said that there are any.
    fn may_be_unsigned(&self, state: &State) -> bool {
        state.owner.as_ref().is_some_and(|owner| {
            self.unsigned.contains(owner) || (*owner == Owner::ControlPlane && !self.signers.contains_key(owner))
        })
    }

    /// What is wrong with what is not signed of a chain, and where.
    fn tail(&self, state: &State) -> Option<(Option<u64>, What)> {
        if state.owner.as_ref().is_some_and(|owner| self.unsigned.contains(owner)) {
            return None;
        }
        let own = state.owner == Some(Owner::ControlPlane);
        let Some((_, signed_through, _)) = state.last else {
            let what = if own { What::OwnUnsigned } else { What::Unsigned };
            return (!self.may_be_unsigned(state)).then_some((None, what));
        };
        let found = state.at.as_ref().map_or(0, |at| at.sequence).saturating_sub(signed_through);
        let most = self.max_unsigned.unwrap_or(if own { u64::MAX } else { CHECKPOINT_EVENTS });
        if found > most {
            return Some((None, What::TailTooLong { found, most }));
        }
        state.late.filter(|_| self.max_unsigned.is_none()).map(|late| (Some(late), What::TailTooLate))
    }

    fn report(&self, chain: ChainId, state: State) -> ChainReport {
        let last = state.at.as_ref().map_or(0, |point| point.sequence);
        let before = last - state.events.min(last);
        let signed_through = state.last.map_or(before, |(_, sequence, _)| sequence);
        let head = self.heads.iter().find(|head| head.point.chain == chain);
        ChainReport {
            unsigned: state.last.is_none() && self.may_be_unsigned(&state),
            expected: state.owner.as_ref().is_some_and(|owner| self.signers.contains_key(owner)),
            owner: state.owner,
            spiffe_id: state.signer,
            events: state.events,
            last,
            before: state.before,
            checkpoints: state.checkpoints,
            signed_through,
            not_yet_signed: last.saturating_sub(signed_through),
            last_checkpoint_ms: state.last.map(|(_, _, time_ms)| time_ms),
            withheld: state.withheld,
            not_delivered: head.map(|head| head.point.sequence.saturating_sub(last)),
            good: !state.broken,
            chain,
        }
    }
}

impl State {
    fn owned_by(&mut self, owner: &Owner) -> Result<(), What> {
        if self.owner.get_or_insert_with(|| owner.clone()) == owner { Ok(()) } else { Err(What::Owner) }
    }

    fn event(
        &mut self,
        proof: &Proof,
        owner: Owner,
        (sequence, time_ms): (u64, i64),
        leaf: impl FnOnce(&Withheld) -> Option<Digest>,
    ) -> Result<(), What> {
        self.owned_by(&owner)?;
        let leaf = leaf(&proof.withheld).ok_or(What::Withheld)?;
        match &self.at {
            Some(at) => {
                let expected = at.sequence + 1;
                if sequence > expected {
                    return Err(What::Gap { expected, found: sequence });
                }
                if sequence < expected {
                    return Err(What::Order);
                }
                if at.head_with(&leaf) != proof.head {
                    return Err(What::Changed);
                }
            }
            None => {
                let before = sequence.checked_sub(1).ok_or(What::Order)?;
                let origin = ChainPoint::origin(proof.chain.clone(), &owner, before);
                let start = proof.before.map_or(origin.clone(), |head| ChainPoint { head, ..origin.clone() });
                if start.head_with(&leaf) != proof.head {
                    return Err(What::NoStart);
                }
                if start != origin {
                    self.before = before;
                }
            }
        }
        self.at = Some(ChainPoint { chain: proof.chain.clone(), sequence, head: proof.head });
        if let Some((.., signed_ms)) = self.last {
            // A resolver signs with the first event after a pause; the control plane a little after it.
            let first_ms = *self.tail_ms.get_or_insert(time_ms);
            let since = if owner == Owner::ControlPlane { first_ms } else { signed_ms };
            if self.late.is_none() && time_ms.saturating_sub(since) > LATE_MS {
                self.late = Some(sequence);
            }
        }
        self.events += 1;
        self.withheld += u64::from(!proof.withheld.is_empty());
        Ok(())
    }

    fn checkpoint(&mut self, signed: &Signed, signer: SpiffeId, expected: Option<&SpiffeId>) -> Result<(), What> {
        let checkpoint = &signed.checkpoint;
        let expected = expected.or(self.signer.as_ref()).unwrap_or(&signer);
        if *expected != signer {
            return Err(What::Identity { expected: expected.clone(), found: signer });
        }
        if let Some((number, ..)) = self.last
            && checkpoint.number != number + 1
        {
            return Err(What::CheckpointMissing { expected: number + 1, found: checkpoint.number });
        }
        match &self.at {
            Some(at) if checkpoint.sequence > at.sequence => return Err(What::MissingBefore(at.sequence)),
            Some(at) if checkpoint.sequence < at.sequence => return Err(What::Order),
            Some(at) if checkpoint.head != at.head => return Err(What::OtherHead),
            Some(_) => {}
            None => {
                self.at = Some(checkpoint.point());
                self.before = checkpoint.sequence;
            }
        }
        self.signer = Some(signer);
        self.checkpoints += 1;
        self.last = Some((checkpoint.number, checkpoint.sequence, checkpoint.time_ms));
        (self.tail_ms, self.late) = (None, None);
        Ok(())
    }
}
