//! How each bouncer is, in words: from its live sessions, or from what was last heard of it.

use super::live::{Live, SessionView};
use super::refusals::{Refusal, Why};
use crate::access::Scope;
use crate::model::BouncerRecord;
use bouncer_custody::Link;
use jiff::Timestamp;
use serde::Serialize;
use std::collections::BTreeSet;
use utoipa::ToSchema;

/// Whether a bouncer is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BridgeState {
    /// At least one resolver is connected.
    Connected,
    /// None is, but one was.
    Disconnected,
    /// None ever was.
    NeverSeen,
}

/// Something that a bouncer could not use.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct BridgeProblem {
    /// A logical path, or the name of a protected resource.
    pub subject: String,
    /// A reason code.
    #[schema(example = "envelope_malformed")]
    pub reason: String,
}

/// How one secret is, by a resolver's account.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
pub struct UnwrapHealth {
    /// Its logical path.
    pub logical_path: String,
    /// The generation in use.
    pub generation: u64,
    /// A reason code; absent while good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the credential ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub not_after: Option<Timestamp>,
}

/// A bouncer's connection on the Policy Bridge. Where several resolvers serve one bouncer, the worst of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct BridgeHealth {
    /// Everything is as it should be.
    pub ok: bool,
    /// The link to it that is broken: `offline`, `svid`, `authorization`, `divergence`, `lag` or `clock`. Absent where the
    /// Policy Bridge is well, also while something else is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "lag")]
    pub link: Option<&'static str>,
    /// What is, and why.
    pub detail: String,
    /// What to do; empty if nothing.
    pub next: String,
    /// Connected or not.
    pub state: BridgeState,
    /// How many resolvers are connected.
    pub instances: usize,
    /// The newest epoch that it has taken.
    pub epoch_acked: u64,
    /// How many changes it is behind.
    pub epoch_lag: u64,
    /// When it last said anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub last_seen_at: Option<Timestamp>,
    /// How long ago that was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<i64>,
    /// The resolver's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// It says that it can do its work; absent until it says anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Why not, as reason codes.
    pub not_ready: Vec<String>,
    /// It runs with --dev: plain HTTP, loopback backends and file identities are allowed. Never for production.
    pub dev: bool,
    /// Its clock is ahead of the control plane's by so much.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_skew_ms: Option<i64>,
    /// Why it refused the newest policy; absent if it did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    /// What it holds is not what it was sent.
    pub diverged: bool,
    /// What of the newest policy it could never use.
    pub problems: Vec<BridgeProblem>,
    /// Its secrets.
    pub secrets: Vec<UnwrapHealth>,
    /// Audit events that its sequence skipped.
    pub audit_missing: u64,
    /// What of its audit did not fit together since it connected: events or checkpoints that contradict the chain.
    pub audit_divergences: u64,
}

/// How a bouncer is, at an epoch and a time, as far as it concerns the paths of a scope.
#[must_use]
pub fn of(live: &Live, record: &BouncerRecord, epoch: u64, now: Timestamp, scope: &Scope) -> BridgeHealth {
    let sessions = live.sessions(&record.bouncer.name);
    let mut health = if sessions.is_empty() {
        let last = live.last(&record.bouncer.name);
        away(record, last)
    } else {
        connected(&sessions)
    };
    health.epoch_lag = epoch.saturating_sub(health.epoch_acked);
    health.age_ms = health.last_seen_at.map(|seen| now.as_millisecond().saturating_sub(seen.as_millisecond()).max(0));
    let within = |path: &str| scope.is_everything() || path.parse().is_ok_and(|path| scope.holds(&path));
    health.problems.retain(|problem| within(&problem.subject));
    health.secrets.retain(|secret| within(&secret.logical_path));
    let name = record.bouncer.name.as_str();
    let broken = match health.state {
        BridgeState::Connected => broken_link(&health),
        _ => Some(missing(&health, name, live.refusals.of(&record.bouncer.name, now), scope)),
    };
    if let Some((link, detail, next)) = broken {
        return BridgeHealth { ok: false, link: Some(link.code()), detail, next, ..health };
    }
    let (ok, detail, next) = verdict(&health);
    BridgeHealth { ok, detail, next, ..health }
}

fn blank(state: BridgeState) -> BridgeHealth {
    BridgeHealth {
        ok: false,
        link: None,
        detail: String::new(),
        next: String::new(),
        state,
        instances: 0,
        epoch_acked: 0,
        epoch_lag: 0,
        last_seen_at: None,
        age_ms: None,
        version: None,
        ready: None,
        not_ready: Vec::new(),
        dev: false,
        clock_skew_ms: None,
        refused: None,
        diverged: false,
        problems: Vec::new(),
        secrets: Vec::new(),
        audit_missing: 0,
        audit_divergences: 0,
    }
}

fn away(record: &BouncerRecord, last: Option<SessionView>) -> BridgeHealth {
    let Some(sighting) = &record.sighting else { return blank(BridgeState::NeverSeen) };
    let seen = last.as_ref().map_or(sighting.at, |view| view.seen.max(sighting.at));
    BridgeHealth {
        epoch_acked: sighting.epoch_acked,
        last_seen_at: Some(seen),
        version: Some(sighting.version.clone()),
        dev: last.and_then(|view| view.report).is_some_and(|report| report.dev),
        ..blank(BridgeState::Disconnected)
    }
}

fn connected(sessions: &[SessionView]) -> BridgeHealth {
    let reports: Vec<_> = sessions.iter().filter_map(|view| view.report.as_ref()).collect();
    let not_ready: BTreeSet<_> = reports.iter().flat_map(|report| report.not_ready.iter().cloned()).collect();
    let problems: BTreeSet<_> = sessions
        .iter()
        .flat_map(|view| &view.problems)
        .map(|p| BridgeProblem { subject: p.subject.clone(), reason: p.reason.clone() })
        .collect();
    let secrets: BTreeSet<_> = reports
        .iter()
        .flat_map(|report| &report.secrets)
        .map(|secret| UnwrapHealth {
            logical_path: secret.logical_path.clone(),
            generation: secret.generation,
            reason: Some(secret.reason.clone()).filter(|reason| !reason.is_empty()),
            not_after: secret.not_after,
        })
        .collect();
    let all_reported = reports.len() == sessions.len();
    BridgeHealth {
        instances: sessions.len(),
        epoch_acked: sessions.iter().map(|view| view.epoch_acked).min().unwrap_or(0),
        last_seen_at: sessions.iter().map(|view| view.seen).min(),
        version: sessions.last().map(|view| view.version.clone()),
        ready: all_reported.then(|| reports.iter().all(|report| report.ready)),
        not_ready: not_ready.into_iter().collect(),
        dev: reports.iter().any(|report| report.dev),
        clock_skew_ms: reports.iter().map(|report| report.clock_skew_ms).max_by_key(|skew| skew.saturating_abs()),
        refused: sessions.iter().map(|view| view.refused.clone()).find(|refused| !refused.is_empty()),
        diverged: sessions.iter().any(|view| view.diverged),
        problems: problems.into_iter().collect(),
        secrets: secrets.into_iter().collect(),
        audit_missing: sessions.iter().map(|view| view.audit_missing).fold(0, u64::saturating_add),
        audit_divergences: sessions.iter().map(|view| view.audit_divergences).fold(0, u64::saturating_add),
        ..blank(BridgeState::Connected)
    }
}

/// Why a bouncer is not connected, as far as it shows here.
fn missing(health: &BridgeHealth, name: &str, refusal: Option<Refusal>, scope: &Scope) -> (Link, String, String) {
    let is_new = health.state == BridgeState::NeverSeen;
    let missing = if is_new { "has ever connected" } else { "is connected" };
    let authorization = |why: String| {
        let detail = format!("No resolver of '{name}' {missing}. {why}");
        (Link::Authorization, detail, Link::Authorization.advice().to_owned())
    };
    match refusal {
        Some(Refusal { peer, why: Why::Mismatch { registered, named }, .. }) => {
            let named = named.map_or_else(|| "something that is no name".to_owned(), |named| format!("'{named}'"));
            return authorization(format!(
                "One with the {} {peer}, which is registered for '{registered}', called itself {named} and was refused.",
                peer.word()
            ));
        }
        Some(Refusal { peer, why: Why::Epoch { reported, .. }, .. }) => {
            let detail = format!(
                "No resolver of '{name}' {missing}. One with the {} {peer} holds epoch {reported}, further past the \
                 database's than a restored backup explains, and was refused.",
                peer.word()
            );
            let next =
                "Where it is to be trusted, stop it, remove the file 'snapshot' from its state_dir, and start it.";
            return (Link::Service, detail, next.to_owned());
        }
        // Whose it is is not known, and who sees a part only is not told of the others'.
        Some(Refusal { peer, why: Why::Unregistered, .. }) if scope.is_everything() => {
            return authorization(format!(
                "One with the {} {peer} was refused: no bouncer is registered for that.",
                peer.word()
            ));
        }
        _ => {}
    }
    let next = if is_new {
        "Start its resolver with this name as 'bouncer' and this control plane as 'bridge.address', and check that its \
         SVID or IAM role is the registered one; 'bouncerctl probe --socket' on its node tells which link is broken."
    } else {
        "It goes on with its last policy until bridge.snapshot_max_age_s, then denies every protected stream. \
         'bouncerctl probe --socket' on its node tells which link is broken."
    };
    (Link::Offline, format!("No resolver of '{name}' {missing}."), next.to_owned())
}

/// The first link of a connected bouncer that is broken, in the order in which they have to be put right.
fn broken_link(health: &BridgeHealth) -> Option<(Link, String, String)> {
    if health.diverged {
        let detail = "What it holds is not what it was sent, by its digest.".to_owned();
        return Some((Link::Divergence, detail, Link::Divergence.advice().to_owned()));
    }
    if let Some(refused) = &health.refused {
        let next = "Its log says more. A replay is refused after a restore; it is put right when the resolver connects \
                    again.";
        return Some((Link::Lag, format!("It refused the newest policy: {refused}."), next.to_owned()));
    }
    if health.epoch_lag > 0 {
        let detail = format!("It is connected, and {} change(s) behind.", health.epoch_lag);
        return Some((Link::Lag, detail, Link::Lag.advice().to_owned()));
    }
    let skew = health.clock_skew_ms.filter(|skew| skew.saturating_abs() > Link::SKEW_LIMIT_MS)?;
    let detail = format!("By the control plane's clock, its own is {}.", Link::skew(skew));
    Some((Link::Clock, detail, Link::Clock.advice().to_owned()))
}

/// The first thing beyond the Policy Bridge that is wrong with a connected bouncer.
fn verdict(health: &BridgeHealth) -> (bool, String, String) {
    let wrong = |detail: String, next: &str| (false, detail, next.to_owned());
    match health.ready {
        None => return wrong("It has not reported its state yet.".into(), "Wait a moment; it reports each 10 s."),
        Some(false) => {
            let detail = format!("It is not ready: {}.", health.not_ready.join(", "));
            return wrong(detail, "Look at the resolver's /readyz and log for these reason codes.");
        }
        Some(true) => {}
    }
    if health.audit_divergences > 0 {
        return wrong(
            format!("Its audit does not fit together in {} place(s).", health.audit_divergences),
            "Run 'bouncerctl audit export' and 'bouncerctl audit verify': lines of the type divergence say where. A \
             restored database or a disk that lost power can be the cause; so can someone who changed events.",
        );
    }
    if let Some(problem) = health.problems.first() {
        let detail = format!("It can never use '{}': {}.", problem.subject, problem.reason);
        return wrong(detail, "Correct the registration that 'problems' names, or the resolver's rails.");
    }
    if let Some(secret) = health.secrets.iter().find(|secret| secret.reason.is_some()) {
        let reason = secret.reason.as_deref().unwrap_or_default();
        let detail = format!("It cannot unwrap '{}': {reason}.", secret.logical_path);
        return wrong(
            detail,
            "See the reason code: the key's policy, the AAD and the wrapped credential are the usual causes.",
        );
    }
    let loud = if health.dev { " IT RUNS WITH --dev, WHICH IS NOT FOR PRODUCTION." } else { "" };
    (true, format!("Connected, current and ready.{loud}"), String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_differs_is_ahead_or_behind() {
        let clock = |clock_skew_ms| {
            broken_link(&BridgeHealth { clock_skew_ms, ..blank(BridgeState::Connected) })
                .map(|(link, said, _)| (link, said))
        };
        let named = |said: &str| Some((Link::Clock, said.to_owned()));
        assert_eq!(clock(Some(6_000)), named("By the control plane's clock, its own is ahead by 6000 ms."));
        assert_eq!(clock(Some(-6_000)), named("By the control plane's clock, its own is behind by 6000 ms."));
        for well in [None, Some(Link::SKEW_LIMIT_MS), Some(-Link::SKEW_LIMIT_MS)] {
            assert_eq!(clock(well), None, "{well:?}");
        }
    }
}
