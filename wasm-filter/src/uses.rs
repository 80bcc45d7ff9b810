//! How often cached decisions were used, for audit: counted per decision, reported in batches.
//!
//! A count lives in its decision; this module remembers which decisions have one. It is bounded: what does not fit is a
//! lost count, never a lost decision or a wait.

use crate::decision::Decision;
use bouncer_proto::intercept::v1::{ReportUsesRequest, Uses as UsesOf};
use std::rc::Rc;

/// At most this many decisions in one report.
pub const MAX_DECISIONS: usize = 1_024;

/// How long counts are gathered, in milliseconds.
pub const REPORT_MS: u64 = 1_000;

/// The decisions that were used since the last report.
#[derive(Debug)]
pub struct Uses {
    used: Vec<Rc<Decision>>,
    reported_ms: u64,
}

impl Uses {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { used: Vec::with_capacity(MAX_DECISIONS), reported_ms: 0 }
    }

    /// One more stream went by this decision.
    pub fn count(&mut self, decision: &Rc<Decision>) {
        let count = decision.uses.get();
        if count == 0 {
            if decision.id.is_none() || self.used.len() == MAX_DECISIONS {
                return;
            }
            self.used.push(Rc::clone(decision));
        }
        decision.uses.set(count.saturating_add(1));
    }

    /// A report, if one is due.
    pub fn report(&mut self, now_ms: u64) -> Option<ReportUsesRequest> {
        let full = self.used.len() == MAX_DECISIONS;
        if self.used.is_empty() || (!full && now_ms < self.reported_ms + REPORT_MS) {
            return None;
        }
        self.reported_ms = now_ms;
        let uses = self.used.drain(..).map(|decision| UsesOf {
            decision_id: decision.id.as_deref().unwrap_or_default().to_owned(),
            count: u64::from(decision.uses.take()),
        });
        Some(ReportUsesRequest { uses: uses.collect() })
    }
}

impl Default for Uses {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Outcome;
    use std::cell::Cell;

    fn decision(id: &str) -> Rc<Decision> {
        Rc::new(Decision {
            cluster: "c".into(),
            id: Some(id.into()),
            outcome: Outcome::PassThrough,
            uses: Cell::new(0),
        })
    }

    #[test]
    fn counts_are_gathered_per_decision_and_start_again() {
        let mut uses = Uses::new();
        let (a, b) = (decision("a"), decision("b"));
        for _ in 0..3 {
            uses.count(&a);
        }
        uses.count(&b);
        assert_eq!(uses.report(999), None);
        let report = uses.report(1_000).unwrap();
        let found: Vec<_> = report.uses.iter().map(|uses| (uses.decision_id.as_str(), uses.count)).collect();
        assert_eq!(found, [("a", 3), ("b", 1)]);
        assert_eq!(uses.report(9_000), None, "nothing new, no report");
        uses.count(&a);
        assert_eq!(uses.report(9_000).unwrap().uses[0].count, 1);
    }

    #[test]
    fn it_is_bounded_and_never_grows_by_a_decision_already_counted() {
        let mut uses = Uses::new();
        let many: Vec<_> = (0..2 * MAX_DECISIONS).map(|n| decision(&n.to_string())).collect();
        let capacity = uses.used.capacity();
        for _ in 0..3 {
            many.iter().for_each(|decision| uses.count(decision));
        }
        assert_eq!((uses.used.len(), uses.used.capacity()), (MAX_DECISIONS, capacity));
        assert_eq!(uses.report(0).unwrap().uses.len(), MAX_DECISIONS, "a full one is due at once");
    }
}
