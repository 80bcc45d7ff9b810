//! What a denied client gets to read: the reason's code, the decision's id, and one fixed sentence.
//!
//! Used by the host shell only. Nothing here may depend on the request, the credential or the policy beyond the code.

use bouncer_custody::Reason;

/// The header that carries [`Reason::code`].
pub const REASON_HEADER: &str = "x-bouncer-reason";

/// The header that carries the decision's id, where there is one.
pub const DECISION_HEADER: &str = "x-bouncer-decision";

/// A stream that is not let on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// Which decision said so.
    pub decision: Option<Box<str>>,
}

impl Denial {
    /// A denial of the filter's own.
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        Self { reason, decision: None }
    }

    /// The response's body: what happened, why, what to do.
    #[must_use]
    pub fn body(&self) -> String {
        format!("Bouncer denied this request ({}): {}\n", self.reason, advice(self.reason))
    }
}

/// Why and what to do, in general terms: the details are in the audit log, for those who may read it.
fn advice(reason: Reason) -> &'static str {
    match reason {
        Reason::FactsMissing => "the proxy did not say what it knows of the connection. Check the filter chain.",
        Reason::NotRegistered | Reason::NotProtected | Reason::ResourceDisabled | Reason::FeatureDisabled => {
            "no credential is registered and enabled for this upstream. Ask its owner to register it."
        }
        Reason::CallerUnverified => "the caller has no verified identity. Connect with its workload certificate.",
        Reason::CallerNotAllowed => "this caller may not use this upstream. Ask its owner.",
        Reason::ResolverUnavailable | Reason::ResolverTimeout | Reason::Overloaded => {
            "the credential resolver did not answer. Try again; if it stays, check the resolver."
        }
        Reason::DecisionStale => "the rules changed while this request was decided. Try again.",
        _ if reason.is_transient() => "the credential cannot be had right now. Try again.",
        _ if reason.http_status() == 403 => "the rules do not allow it. The audit log says more.",
        _ => "the credential cannot be used as it is. The audit log says more.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_a_short_plain_body() {
        for reason in Reason::ALL {
            let body = Denial::of(*reason).body();
            assert!(body.contains(reason.code()) && body.ends_with(".\n") && body.len() < 200, "{body}");
            assert!(body.is_ascii());
        }
    }
}
