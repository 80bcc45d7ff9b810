//! One stream's life, as a state that is consumed by value: what happened goes in, what to do comes out.
//!
//! [`Filter`](crate::filter::Filter) is the only caller; it performs the effects in their order and stops at the first
//! that the host refuses. The one promise of this module: neither `Continue` nor `Resume` comes without `Tag` right
//! before it, except for a cluster that the policy lets pass, and then with `NoTag` before it.

use crate::decision::{Decision, Outcome};
use crate::denial::Denial;
use bouncer_custody::Reason;
use std::rc::Rc;

/// What the operator decided about clusters.
pub trait Policy {
    /// Whether a stream to this cluster may go on without a credential.
    fn lets_pass(&self, cluster: &str) -> bool;
}

/// Where a stream is.
#[derive(Debug, Default)]
pub enum Stream {
    /// Its headers have just come.
    #[default]
    Arriving,
    /// Paused, until the resolver answers.
    Waiting,
    /// Let on, with the tag of this decision.
    Carrying(Rc<Decision>),
    /// To be cut off as soon as the filter is at rest.
    Condemned,
    /// Let on without a credential, or ended by us: nothing more will happen to it here.
    Done,
}

/// What happened to it.
#[derive(Debug)]
pub enum Event<'a> {
    /// There is no decision yet, and the resolver is being asked.
    Undecided,
    /// This is the decision for exactly its facts.
    Decided(&'a Rc<Decision>),
    /// There is none, and will be none.
    Failed(Reason),
    /// The credential that it carries was revoked.
    Revoked,
}

/// What to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Name the credential to the native filter behind.
    Tag(Rc<Decision>),
    /// Overwrite whatever an earlier filter named.
    NoTag(Rc<Decision>),
    /// Let it on, in the answer to its headers.
    Continue,
    /// Let it on, out of its pause.
    Resume,
    /// Pause it.
    Hold,
    /// Answer it here.
    Deny(Denial),
    /// Cut it off once the filter is at rest, since Envoy ends it within that very call.
    Condemn,
}

/// At most two effects, in their order, without an allocation.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects([Option<Effect>; 2]);

impl Effects {
    const fn none() -> Self {
        Self([None, None])
    }
    const fn one(effect: Effect) -> Self {
        Self([Some(effect), None])
    }
    const fn two(first: Effect, second: Effect) -> Self {
        Self([Some(first), Some(second)])
    }
}

impl IntoIterator for Effects {
    type Item = Effect;
    type IntoIter = std::iter::Flatten<std::array::IntoIter<Option<Effect>, 2>>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter().flatten()
    }
}

impl Stream {
    /// Takes one event. One that makes no sense where the stream is changes nothing.
    #[must_use]
    pub fn handle(self, event: &Event<'_>, policy: &impl Policy) -> (Self, Effects) {
        match (self, event) {
            (Self::Arriving, Event::Decided(decision)) => decided(decision, Effect::Continue, policy),
            (Self::Waiting, Event::Decided(decision)) => decided(decision, Effect::Resume, policy),
            (Self::Arriving, Event::Undecided) => (Self::Waiting, Effects::one(Effect::Hold)),
            (Self::Arriving | Self::Waiting, Event::Failed(reason)) => {
                (Self::Done, Effects::one(Effect::Deny(Denial::of(*reason))))
            }
            (Self::Carrying(_), Event::Revoked) => (Self::Condemned, Effects::one(Effect::Condemn)),
            (stream, _) => (stream, Effects::none()),
        }
    }
}

fn decided(decision: &Rc<Decision>, go: Effect, policy: &impl Policy) -> (Stream, Effects) {
    let deny = |reason| {
        let denial = Denial { reason, decision: decision.id.clone() };
        (Stream::Done, Effects::one(Effect::Deny(denial)))
    };
    match &decision.outcome {
        Outcome::Inject(_) => {
            let tag = Effect::Tag(Rc::clone(decision));
            (Stream::Carrying(Rc::clone(decision)), Effects::two(tag, go))
        }
        Outcome::PassThrough if policy.lets_pass(&decision.cluster) => {
            (Stream::Done, Effects::two(Effect::NoTag(Rc::clone(decision)), go))
        }
        Outcome::PassThrough => deny(Reason::NotProtected),
        Outcome::Deny(reason) => deny(*reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    struct Open(bool);
    impl Policy for Open {
        fn lets_pass(&self, _: &str) -> bool {
            self.0
        }
    }

    fn decision(outcome: Outcome) -> Rc<Decision> {
        Rc::new(Decision { cluster: "c".into(), id: Some("id".into()), outcome, uses: Cell::new(0) })
    }

    fn outcome() -> impl Strategy<Value = Outcome> {
        prop_oneof![
            Just(Outcome::Inject("a@1.0123456789abcdef".into())),
            Just(Outcome::PassThrough),
            Just(Outcome::Deny(Reason::BindingCaller)),
        ]
    }

    /// An event, as data that can be shrunk.
    #[derive(Debug, Clone)]
    enum Given {
        Undecided,
        Decided(Outcome),
        Failed,
        Revoked,
    }

    fn given() -> impl Strategy<Value = Given> {
        prop_oneof![
            Just(Given::Undecided),
            outcome().prop_map(Given::Decided),
            Just(Given::Failed),
            Just(Given::Revoked),
        ]
    }

    /// Runs the events and says whether the promise of this module held all along.
    fn keeps_the_promise(events: &[Given], policy: &impl Policy, protected: bool) -> bool {
        let mut stream = Stream::Arriving;
        let mut gone_on = false;
        for given in events {
            let decided;
            let event = match given {
                Given::Undecided => Event::Undecided,
                Given::Decided(outcome) => {
                    decided = decision(outcome.clone());
                    Event::Decided(&decided)
                }
                Given::Failed => Event::Failed(Reason::ResolverTimeout),
                Given::Revoked => Event::Revoked,
            };
            let (next, effects) = stream.handle(&event, policy);
            stream = next;
            let effects: Vec<Effect> = effects.into_iter().collect();
            for (index, effect) in effects.iter().enumerate() {
                if matches!(effect, Effect::Continue | Effect::Resume) {
                    let before = index.checked_sub(1).and_then(|index| effects.get(index));
                    let tagged = matches!(before, Some(Effect::Tag(decision)) if decision.tag().is_some());
                    let untagged = matches!(before, Some(Effect::NoTag(_))) && !protected;
                    if gone_on || !(tagged || untagged) {
                        return false;
                    }
                    gone_on = true;
                }
            }
        }
        true
    }

    proptest! {
        #[test]
        fn no_events_let_a_protected_stream_on_without_a_tag(events in proptest::collection::vec(given(), 0..12)) {
            prop_assert!(keeps_the_promise(&events, &Open(false), true));
            prop_assert!(keeps_the_promise(&events, &Open(true), false));
        }
    }

    #[test]
    fn control_a_policy_that_lets_everything_pass_is_caught() {
        assert!(!keeps_the_promise(&[Given::Decided(Outcome::PassThrough)], &Open(true), true));
    }

    #[test]
    fn a_denial_carries_its_reason_and_decision() {
        let (_, effects) =
            Stream::Waiting.handle(&Event::Decided(&decision(Outcome::Deny(Reason::BindingEnv))), &Open(true));
        let denial = Denial { reason: Reason::BindingEnv, decision: Some("id".into()) };
        assert_eq!(effects, Effects::one(Effect::Deny(denial)));
        let (_, effects) = Stream::Arriving.handle(&Event::Decided(&decision(Outcome::PassThrough)), &Open(false));
        let denial = Denial { reason: Reason::NotProtected, decision: Some("id".into()) };
        assert_eq!(effects, Effects::one(Effect::Deny(denial)));
    }
}
