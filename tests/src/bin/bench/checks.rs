//! Whether a run counts: every security input must have been in place while Bouncer was measured.

use crate::load::Slice;
use crate::stage::{STATIC, WRAPPED};
use crate::variants::Kind;
use serde::Serialize;

/// What was there before the rounds, or after them.
#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Look {
    /// What the upstream sees of each variant.
    pub sights: Vec<Sight>,
    /// Certificates that Bouncer's Envoy holds by on-demand SDS.
    pub certificates: u64,
    /// The resolver's decisions to inject.
    pub injections: u64,
    /// Its decisions to deny.
    pub denials: u64,
    /// Streams that reused a decision, as the filter reported them.
    pub uses: u64,
    /// Calls to KMS.
    pub decrypts: usize,
}

/// Whom the upstream sees, for a client that forged the facts.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Sight {
    /// The status.
    pub status: u16,
    /// The subject of the client certificate that the upstream was presented.
    pub subject: String,
    /// The facts header that arrived there.
    pub facts: String,
    /// Bouncer's reason, if it denied.
    pub reason: String,
}

impl Look {
    /// Whether nearly all of so many requests were reported as uses. The last report may still be on its way.
    pub(crate) fn most_uses_since(&self, before: &Self, requests: u64) -> bool {
        self.uses.saturating_sub(before.uses) * 100 >= requests * 95
    }
}

/// All that makes the run void.
pub(crate) fn verify(
    kinds: &[Kind],
    before: &Look,
    after: &Look,
    bouncer_requests: u64,
    slices: &[Vec<Slice>],
) -> Vec<String> {
    let mut faults = vec![];
    for (when, look) in [("before", before), ("after", after)] {
        for (kind, sight) in kinds.iter().zip(&look.sights) {
            faults.extend(sight_fault(*kind, sight).map(|fault| format!("{}, {when} the rounds: {fault}", kind.id())));
        }
    }
    for (kind, slices) in kinds.iter().zip(slices) {
        let bad: u64 = slices.iter().map(|slice| slice.bad).sum();
        if bad > 0 {
            faults.push(format!("{}: {bad} requests failed or were not answered with success", kind.id()));
        }
    }
    if kinds.contains(&Kind::Bouncer) {
        faults.extend(bouncer_faults(before, after, bouncer_requests));
    }
    faults
}

fn sight_fault(kind: Kind, sight: &Sight) -> Option<String> {
    let certificate = format!("CN={}", if kind == Kind::Bouncer { WRAPPED } else { STATIC });
    if sight.status != 200 {
        Some(format!("answered {} {}", sight.status, sight.reason))
    } else if sight.subject != certificate {
        Some(format!("the upstream saw {:?} in place of {certificate}", sight.subject))
    } else if kind == Kind::Bouncer && !matches!(sight.facts.as_str(), "" | "-") {
        Some("the facts reached the upstream".to_owned())
    } else {
        None
    }
}

fn bouncer_faults(before: &Look, after: &Look, requests: u64) -> Vec<String> {
    let used = after.uses.saturating_sub(before.uses);
    [
        (before.certificates == 0 || after.certificates == 0, "no certificate came by on-demand SDS".to_owned()),
        (before.decrypts == 0, "the credential was never unwrapped by KMS".to_owned()),
        (after.injections == 0, "the resolver decided nothing".to_owned()),
        // A forged header that was believed would have been one.
        (after.denials > 0, format!("the resolver denied {} times: forged facts were believed?", after.denials)),
        (
            !after.most_uses_since(before, requests),
            format!("of {requests} requests only {used} used a decision, as the filter counts them"),
        ),
    ]
    .into_iter()
    .filter_map(|(wrong, fault)| wrong.then(|| format!("bouncer: {fault}")))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::{Look, Sight, verify};
    use crate::variants::Kind;

    fn look(uses: u64) -> Look {
        let sight =
            Sight { status: 200, subject: "CN=payments-api".into(), facts: String::new(), reason: String::new() };
        Look { sights: vec![sight], certificates: 1, injections: 1, denials: 0, uses, decrypts: 1 }
    }

    fn faults(change: impl Fn(&mut Look)) -> usize {
        let (before, mut after) = (look(0), look(1000));
        change(&mut after);
        verify(&[Kind::Bouncer], &before, &after, 1000, &[vec![]]).len()
    }

    #[test]
    fn each_missing_input_makes_a_run_void() {
        assert_eq!(faults(|_| ()), 0);
        assert_eq!(faults(|after| after.certificates = 0), 1);
        assert_eq!(faults(|after| after.uses = 900), 1);
        assert_eq!(faults(|after| after.denials = 1), 1);
        assert_eq!(faults(|after| after.injections = 0), 1);
        assert_eq!(faults(|after| after.sights[0].facts = "payments 1 HTTP/1.1  host".into()), 1);
        assert_eq!(faults(|after| after.sights[0].subject = "CN=static-client".into()), 1);
        assert_eq!(faults(|after| after.sights[0].status = 403), 1);
    }
}
