//! What is known of the way to the control plane: for the operator's socket, health and metrics.

use super::connect::BridgeError;
use crate::config::BridgeLogin;
use crate::engine::Engine;
use bouncer_custody::Link;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The control plane speaks each 10 s; after so long without a good word the policy lags.
const QUIET: Duration = Duration::from_secs(30);

/// What was seen of the Policy Bridge.
#[derive(Debug, Default)]
pub struct Sight {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    connected: Option<String>,
    /// By address, what its last connection failed at.
    troubles: BTreeMap<String, (Link, String)>,
    /// Our clock is ahead of the control plane's by so much, in milliseconds.
    skew_ms: Option<i64>,
    /// The newest epoch that the control plane spoke of on this connection.
    epoch: u64,
    /// Why the last snapshot or delta was refused, until one is taken.
    refused: Option<(Link, String)>,
}

/// How one address is.
#[derive(Debug, Serialize)]
struct Address {
    address: String,
    connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

/// The way to the control plane, with the first link that is broken.
#[derive(Debug, Serialize)]
pub struct Verdict {
    /// Nothing is broken.
    pub ok: bool,
    /// The link's code; absent when nothing is broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link: Option<&'static str>,
    /// What is, and why.
    pub detail: String,
    /// What to do; empty if nothing.
    pub next: &'static str,
    /// The address that it is connected to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<String>,
    bouncer: String,
    policy_epoch: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy_age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clock_skew_ms: Option<i64>,
    addresses: Vec<Address>,
}

impl Sight {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The address that it is connected to.
    #[must_use]
    pub fn connected(&self) -> Option<String> {
        self.lock().connected.clone()
    }

    pub(super) fn up(&self, address: &str) {
        let mut seen = self.lock();
        seen.troubles.remove(address);
        (seen.connected, seen.epoch) = (Some(address.to_owned()), 0);
    }

    pub(super) fn down(&self, address: &str, error: &BridgeError) {
        let mut seen = self.lock();
        seen.connected = None;
        seen.troubles.insert(address.to_owned(), (error.link(), error.to_string()));
    }

    /// The control plane said what it holds, at a time.
    pub(super) fn told(&self, epoch: u64, time_ms: i64) {
        let mut seen = self.lock();
        seen.epoch = seen.epoch.max(epoch);
        seen.skew_ms = Some(jiff::Timestamp::now().as_millisecond().saturating_sub(time_ms));
    }

    pub(super) fn took(&self) {
        self.lock().refused = None;
    }

    pub(super) fn refused(&self, link: Link, why: String) {
        self.lock().refused = Some((link, why));
    }
}

/// How the way to the control plane is now.
#[must_use]
pub fn verdict(engine: &Engine) -> Verdict {
    let seen = engine.sight.lock();
    let (epoch, age) = (engine.policy.epoch(), engine.policy.age());
    let broken = seen.broken(engine, epoch, age);
    let address = |address: &String| {
        let trouble = seen.troubles.get(address);
        Address {
            address: address.clone(),
            connected: seen.connected.as_ref() == Some(address),
            link: trouble.map(|(link, _)| link.code()),
            detail: trouble.map(|(_, why)| why.clone()),
        }
    };
    let said = |(link, why): &(Link, String)| match why.strip_prefix(link.what()) {
        // The error says it in the same words.
        Some(_) => format!("{why}."),
        None => format!("{}: {why}.", link.what()),
    };
    Verdict {
        ok: broken.is_none(),
        link: broken.as_ref().map(|(link, _)| link.code()),
        detail: broken.as_ref().map_or_else(|| "Connected and current.".to_owned(), said),
        next: broken.as_ref().map_or("", |(link, _)| link.advice()),
        control_plane: seen.connected.clone(),
        bouncer: engine.config.bouncer.to_string(),
        policy_epoch: epoch,
        policy_age_ms: age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        clock_skew_ms: seen.skew_ms,
        addresses: engine.config.bridge.addresses.iter().map(address).collect(),
    }
}

impl Seen {
    /// The first link that is broken, in the order in which they have to be put right, and how.
    fn broken(&self, engine: &Engine, epoch: u64, age: Option<Duration>) -> Option<(Link, String)> {
        // One that enrols by its role has no SVID, and needs none.
        if matches!(engine.config.bridge.login, BridgeLogin::Svid(_))
            && let Err(reason) = engine.identity.spiffe_id()
        {
            let why = format!("{}: this resolver has no X.509-SVID that holds", reason.code());
            return Some((Link::Svid, why));
        }
        if self.connected.is_none() {
            // The one that came furthest says most.
            let furthest = self.troubles.values().max_by_key(|(link, _)| *link).cloned();
            return Some(furthest.unwrap_or_else(|| (Link::Offline, "the first connection is being made".to_owned())));
        }
        if let Some(refused) = &self.refused {
            return Some(refused.clone());
        }
        if self.epoch > epoch {
            return Some((Link::Lag, format!("it is at epoch {}, and this resolver at {epoch}", self.epoch)));
        }
        if age.is_none_or(|age| age > QUIET) {
            let since = age.map_or_else(|| "never".to_owned(), |age| format!("{} s ago", age.as_secs()));
            return Some((Link::Lag, format!("its last word on the policy in use came {since}")));
        }
        self.clock()
    }

    fn clock(&self) -> Option<(Link, String)> {
        let skew = self.skew_ms.filter(|skew| skew.saturating_abs() > Link::SKEW_LIMIT_MS)?;
        Some((Link::Clock, format!("this resolver's is {}", Link::skew(skew))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_differs_is_ahead_or_behind() {
        let clock = |skew_ms| Seen { skew_ms, ..Seen::default() }.clock();
        let named = |said: &str| Some((Link::Clock, said.to_owned()));
        assert_eq!(clock(Some(6_000)), named("this resolver's is ahead by 6000 ms"));
        assert_eq!(clock(Some(-6_000)), named("this resolver's is behind by 6000 ms"));
        for well in [None, Some(Link::SKEW_LIMIT_MS), Some(-Link::SKEW_LIMIT_MS)] {
            assert_eq!(clock(well), None, "{well:?}");
        }
    }
}
