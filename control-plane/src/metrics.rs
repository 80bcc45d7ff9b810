//! Prometheus metrics. Labels are enums and route templates, never anything that a request says.

use crate::bridge::Lag;
use crate::plaintext::Kind;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    method: Method,
    status: u16,
}

/// The methods that the API knows; any other is `Other`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Method {
    Get,
    Put,
    Post,
    Patch,
    Delete,
    Other,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    looks_like: String,
}

/// How a Policy Bridge session ended or why it never began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum BridgeRefusal {
    /// The TLS handshake failed or took too long.
    Handshake,
    /// The SPIFFE ID is not registered.
    Unregistered,
    /// The hello names another bouncer.
    Mismatch,
    /// The hello holds an epoch that no restored backup explains.
    Epoch,
    /// A message was not what the protocol says.
    Protocol,
    /// What was sent to enrol with has not the form of it.
    EnrolMalformed,
    /// It names an STS that is not allowed.
    EnrolHost,
    /// It was signed too long ago, or ahead of time.
    EnrolStale,
    /// Too many attempts of one address, or too many calls to STS at once.
    EnrolLimited,
    /// STS refused the signature.
    StsRefused,
    /// STS does not answer as it should.
    StsUnavailable,
    /// STS vouches for somebody who is no role.
    NoRole,
    /// The connection has not enrolled, or its enrolment has ended.
    NotEnrolled,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabel {
    reason: BridgeRefusal,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutletLabel {
    outlet: String,
}

/// Why an outlet of the audit can't be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum ForwardFailure {
    /// The receiver can't be reached, or takes too long.
    Unreachable,
    /// Its certificate is not one to trust.
    Untrusted,
    /// It asks to be told later.
    Busy,
    /// It takes nothing, or answers as no receiver does.
    Refused,
    /// The headers that it wants can't be read.
    Headers,
}

impl ForwardFailure {
    const ALL: [Self; 5] = [Self::Unreachable, Self::Untrusted, Self::Busy, Self::Refused, Self::Headers];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FailureLabels {
    outlet: String,
    reason: ForwardFailure,
}

impl From<&str> for OutletLabel {
    /// The name comes from the configuration.
    fn from(outlet: &str) -> Self {
        Self { outlet: outlet.to_owned() }
    }
}

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    request_seconds: Histogram,
    unauthenticated: Counter,
    plaintext: Family<KindLabel, Counter>,
    sessions: Gauge,
    refusals: Family<RefusalLabel, Counter>,
    snapshots: Counter,
    deltas: Counter,
    policy_reads: Counter,
    policy_divergences: Counter,
    audit_stored: Counter,
    audit_duplicates: Counter,
    audit_missing: Counter,
    audit_divergences: Counter,
    forwarded: Family<OutletLabel, Counter>,
    forward_connected: Family<OutletLabel, Gauge>,
    forward_lag_seconds: Family<OutletLabel, Gauge>,
    forward_failures: Family<FailureLabels, Counter>,
    forward_rejected: Family<OutletLabel, Counter>,
    pruned_unsent: Counter,
    epoch: Gauge,
    lag_epochs: Gauge,
    silence_seconds: Gauge,
    refusing: Gauge,
    database_up: Gauge,
    identity_valid: Gauge,
}

/// What is asked for when the metrics are.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// The newest epoch; `None` where the database does not answer.
    pub epoch: Option<u64>,
    /// There is an SVID that is still valid.
    pub identity: bool,
    /// How far the connected resolvers are behind.
    pub lag: Lag,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0];
        let mut metrics = Self {
            registry: Registry::with_prefix("bouncer_control_plane"),
            requests: Family::default(),
            request_seconds: Histogram::new(seconds),
            unauthenticated: Counter::default(),
            plaintext: Family::default(),
            sessions: Gauge::default(),
            refusals: Family::default(),
            snapshots: Counter::default(),
            deltas: Counter::default(),
            policy_reads: Counter::default(),
            policy_divergences: Counter::default(),
            audit_stored: Counter::default(),
            audit_duplicates: Counter::default(),
            audit_missing: Counter::default(),
            audit_divergences: Counter::default(),
            forwarded: Family::default(),
            forward_connected: Family::default(),
            forward_lag_seconds: Family::default(),
            forward_failures: Family::default(),
            forward_rejected: Family::default(),
            pruned_unsent: Counter::default(),
            epoch: Gauge::default(),
            lag_epochs: Gauge::default(),
            silence_seconds: Gauge::default(),
            refusing: Gauge::default(),
            database_up: Gauge::default(),
            identity_valid: Gauge::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register("requests", "API calls, by route, method and status", self.requests.clone());
        registry.register_with_unit(
            "request_duration",
            "How long API calls took",
            Unit::Seconds,
            self.request_seconds.clone(),
        );
        registry.register("unauthenticated", "API calls without a valid token", self.unauthenticated.clone());
        registry.register("plaintext_refused", "Bodies refused for a plaintext credential", self.plaintext.clone());
        registry.register("bridge_sessions", "Resolvers connected to the Policy Bridge", self.sessions.clone());
        registry.register("bridge_refusals", "Policy Bridge sessions refused", self.refusals.clone());
        registry.register("bridge_snapshots", "Policy snapshots sent", self.snapshots.clone());
        registry.register("bridge_deltas", "Policy deltas sent, also those without a change", self.deltas.clone());
        registry.register("bridge_policy_reads", "Policies read from the database", self.policy_reads.clone());
        let divergences = self.policy_divergences.clone();
        registry.register("bridge_policy_divergences", "Policies that were not what was sent", divergences);
        registry.register("audit_events_stored", "Audit events stored", self.audit_stored.clone());
        registry.register("audit_events_duplicate", "Audit events delivered again", self.audit_duplicates.clone());
        registry.register("audit_forwarded", "Records written to an outlet of the audit", self.forwarded.clone());
        registry.register(
            "audit_forward_connected",
            "1 while this control plane tells an outlet of the audit",
            self.forward_connected.clone(),
        );
        registry.register_with_unit(
            "audit_forward_lag",
            "Since when the oldest record waits that an outlet of the audit is to be told",
            Unit::Seconds,
            self.forward_lag_seconds.clone(),
        );
        registry.register(
            "audit_forward_failures",
            "Attempts that an outlet of the audit did not take, by reason",
            self.forward_failures.clone(),
        );
        registry.register(
            "audit_forward_rejected",
            "Records that an outlet of the audit rejected for good",
            self.forward_rejected.clone(),
        );
        registry.register(
            "audit_pruned_unsent",
            "Decisions removed for their age before every outlet of the audit had them",
            self.pruned_unsent.clone(),
        );
        registry.register("audit_events_missing", "Gaps in resolvers' audit sequences", self.audit_missing.clone());
        let divergences = self.audit_divergences.clone();
        registry.register("audit_divergences", "Audit that contradicted its chain as it came in", divergences);
        registry.register("epoch", "The policy epoch last sent or read", self.epoch.clone());
        registry.register(
            "bridge_lag_epochs",
            "Changes that the connected resolver furthest behind has not taken",
            self.lag_epochs.clone(),
        );
        registry.register_with_unit(
            "bridge_silence",
            "Since the most silent connected resolver said anything",
            Unit::Seconds,
            self.silence_seconds.clone(),
        );
        registry.register(
            "bridge_refusing",
            "Connected resolvers that refused the newest policy",
            self.refusing.clone(),
        );
        registry.register("database_up", "1 while the database answers", self.database_up.clone());
        registry.register("identity_valid", "1 with an SVID that is still valid", self.identity_valid.clone());
    }

    /// One API call.
    pub fn request(&self, route: &str, method: &http::Method, status: u16, took: Duration) {
        let method = match *method {
            http::Method::GET => Method::Get,
            http::Method::PUT => Method::Put,
            http::Method::POST => Method::Post,
            http::Method::PATCH => Method::Patch,
            http::Method::DELETE => Method::Delete,
            _ => Method::Other,
        };
        self.requests.get_or_create(&RequestLabels { route: route.to_owned(), method, status }).inc();
        self.request_seconds.observe(took.as_secs_f64());
    }

    /// A call without a valid token.
    pub fn unauthenticated(&self) {
        self.unauthenticated.inc();
    }

    /// A body with a plaintext credential.
    pub fn plaintext_refused(&self, kind: Kind) {
        self.plaintext.get_or_create(&KindLabel { looks_like: format!("{kind:?}") }).inc();
    }

    /// A resolver came.
    pub fn session_opened(&self) {
        self.sessions.inc();
    }

    /// A resolver went.
    pub fn session_closed(&self) {
        self.sessions.dec();
    }

    /// A resolver was refused.
    pub fn bridge_refused(&self, reason: BridgeRefusal) {
        self.refusals.get_or_create(&RefusalLabel { reason }).inc();
    }

    /// A snapshot was sent.
    pub fn snapshot_sent(&self, epoch: u64) {
        self.snapshots.inc();
        self.told(epoch);
    }

    /// A delta was sent.
    pub fn delta_sent(&self, epoch: u64) {
        self.deltas.inc();
        self.told(epoch);
    }

    /// A bouncer's policy is read from the database.
    pub fn policy_read(&self) {
        self.policy_reads.inc();
    }

    /// A bouncer holds another policy than it was sent.
    pub fn policy_diverged(&self) {
        self.policy_divergences.inc();
    }

    fn told(&self, epoch: u64) {
        self.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
    }

    /// A batch of audit events was stored.
    pub fn audit(&self, stored: u64, duplicates: u64) {
        self.audit_stored.inc_by(stored);
        self.audit_duplicates.inc_by(duplicates);
    }

    /// An outlet of the audit is served from now on: its counters begin, so that the first of what they count shows.
    pub(crate) fn forward_begins(&self, outlet: &str) {
        self.forwarded(outlet, 0);
        self.forward_rejected(outlet, 0);
        self.forward_connected(outlet, false);
        self.forward_lag(outlet, 0);
        for reason in ForwardFailure::ALL {
            drop(self.forward_failures.get_or_create(&FailureLabels { outlet: outlet.to_owned(), reason }));
        }
    }

    /// Records were written to an outlet of the audit.
    pub(crate) fn forwarded(&self, outlet: &str, records: u64) {
        self.forwarded.get_or_create(&outlet.into()).inc_by(records);
    }

    /// An outlet of the audit is told by this control plane, or not.
    pub(crate) fn forward_connected(&self, outlet: &str, connected: bool) {
        self.forward_connected.get_or_create(&outlet.into()).set(connected.into());
    }

    /// Since when the oldest record waits for an outlet of the audit.
    pub(crate) fn forward_lag(&self, outlet: &str, seconds: i64) {
        self.forward_lag_seconds.get_or_create(&outlet.into()).set(seconds);
    }

    /// An outlet of the audit did not take what it was told.
    pub(crate) fn forward_failed(&self, outlet: &str, reason: ForwardFailure) {
        self.forward_failures.get_or_create(&FailureLabels { outlet: outlet.to_owned(), reason }).inc();
    }

    /// An outlet of the audit rejected records for good.
    pub(crate) fn forward_rejected(&self, outlet: &str, records: u64) {
        self.forward_rejected.get_or_create(&outlet.into()).inc_by(records);
    }

    /// Decisions were removed before every outlet of the audit had them.
    pub(crate) fn pruned_unsent(&self, decisions: u64) {
        self.pruned_unsent.inc_by(decisions);
    }

    /// A resolver's audit sequence skipped.
    pub fn audit_missing(&self, events: u64) {
        self.audit_missing.inc_by(events);
    }

    /// Audit that contradicted its chain.
    pub fn audit_divergences(&self, found: u64) {
        self.audit_divergences.inc_by(found);
    }

    /// The exposition, in OpenMetrics text, with how things stand at this moment.
    #[must_use]
    pub fn render(&self, now: Now) -> String {
        let gauge = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        if let Some(epoch) = now.epoch {
            self.epoch.set(gauge(epoch));
        }
        self.lag_epochs.set(gauge(now.lag.epochs));
        self.silence_seconds.set(now.lag.silence_seconds);
        self.refusing.set(gauge(now.lag.refusing));
        self.database_up.set(i64::from(now.epoch.is_some()));
        self.identity_valid.set(i64::from(now.identity));
        let mut text = String::new();
        if prometheus_client::encoding::text::encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}
