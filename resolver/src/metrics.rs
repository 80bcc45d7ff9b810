//! Prometheus metrics. Labels are closed sets of this crate's own words, never a text from outside; but for the paths of
//! the credentials that are held, which are parsed, and bounded in number.

use bouncer_custody::Reason;
use bouncer_proto::bridge::v1::SecretStatus;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::sync::Mutex;

/// The label `reason`, and `outcome` with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    outcome: &'static str,
    reason: &'static str,
}

impl Outcome {
    /// Of a decision or call that ended well.
    #[must_use]
    pub const fn good(outcome: &'static str) -> Self {
        Self { outcome, reason: "" }
    }

    /// Of one that did not.
    #[must_use]
    pub const fn bad(outcome: &'static str, reason: Reason) -> Self {
        Self { outcome, reason: reason.code() }
    }
}

/// The label `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Kind {
    /// What it is.
    pub kind: &'static str,
}

/// The labels of a credential: as the operator registered it, and no more of them than are cached.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CredentialOf {
    /// Its path.
    pub logical_path: String,
    /// Its generation.
    pub generation: u64,
}

/// One of the control plane's addresses.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Front {
    /// As it is configured.
    pub address: String,
}

/// The labels `layer` and `state`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Layer {
    /// "landlock" or "seccomp".
    pub layer: &'static str,
    /// See [`crate::harden::Level::code`].
    pub state: &'static str,
}

/// All metrics of the resolver.
#[derive(Debug)]
pub struct Metrics {
    registry: Mutex<Registry>,
    /// Decisions, by outcome and reason.
    pub decisions: Family<Outcome, Counter>,
    /// Seconds from question to answer.
    pub decision_seconds: Histogram,
    /// Streams that reused a decision, as the filter reported them.
    pub uses: Counter,
    /// Answers of backends, by reason; those that shared a call are counted once.
    pub unwraps: Family<Outcome, Counter>,
    /// Newer generations that were tried: put in use, or not and why.
    pub rotations: Family<Outcome, Counter>,
    /// SDS answers, by kind.
    pub sds: Family<Kind, Counter>,
    /// Open SDS streams.
    pub sds_streams: Gauge,
    /// Watches that wait for an event: wasm VMs that know of every invalidation so far.
    pub watches: Gauge,
    /// Certificates that Envoy refused.
    pub sds_nacks: Counter,
    /// Processes turned away at a socket.
    pub socket_refused: Counter,
    /// Denials that the spool had no room for.
    pub denials_unrecorded: Counter,
    /// Streams that reused a decision, and that the spool had no room for.
    pub uses_unrecorded: Counter,
    /// Spans that did not reach the collector.
    pub spans_lost: Counter,
    /// 1 for the state of each layer of the sandbox.
    pub sandbox: Family<Layer, Gauge>,
    /// 1 while the Policy Bridge is up.
    pub bridge_connected: Gauge,
    /// When the enrolment by IAM role ends, unix seconds; 0 for none.
    pub bridge_enrolment_end: Gauge,
    /// 1 for the control plane's address that the Policy Bridge is up to.
    pub bridge_front: Family<Front, Gauge>,
    /// What is read when it is asked for.
    pub live: Live,
}

/// Gauges that are set just before they are read.
#[derive(Debug, Default)]
pub struct Live {
    /// Credentials held.
    pub secrets: Gauge,
    /// Bytes of secret memory in use.
    pub secret_bytes: Gauge,
    /// Bytes of secret memory that could not be locked.
    pub secret_unlocked_bytes: Gauge,
    /// Live grants.
    pub grants: Gauge,
    /// The policy's epoch.
    pub policy_epoch: Gauge,
    /// Seconds since the control plane was heard.
    pub policy_age: Gauge,
    /// Bytes in the audit spool.
    pub spool_bytes: Gauge,
    /// Bytes that the audit spool may hold.
    pub spool_capacity: Gauge,
    /// 1 when ready.
    pub ready: Gauge,
    /// 1 under --dev.
    pub dev: Gauge,
    /// When this resolver's X.509-SVID ends, in Unix seconds; 0 without one.
    pub svid_not_after: Gauge,
    /// When each credential ends, in Unix seconds.
    pub not_after: Family<CredentialOf, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Mutex::default(),
            decisions: Family::default(),
            // 50 microseconds to 1.6 seconds.
            decision_seconds: Histogram::new(prometheus_client::metrics::histogram::exponential_buckets(
                0.000_05, 2.0, 16,
            )),
            uses: Counter::default(),
            unwraps: Family::default(),
            rotations: Family::default(),
            sds: Family::default(),
            sds_streams: Gauge::default(),
            watches: Gauge::default(),
            sds_nacks: Counter::default(),
            socket_refused: Counter::default(),
            denials_unrecorded: Counter::default(),
            uses_unrecorded: Counter::default(),
            spans_lost: Counter::default(),
            sandbox: Family::default(),
            bridge_connected: Gauge::default(),
            bridge_enrolment_end: Gauge::default(),
            bridge_front: Family::default(),
            live: Live::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    fn register(&self) {
        let mut registry = Registry::with_prefix("bouncer_resolver");
        let r = &mut registry;
        r.register("decisions", "Decisions, by outcome and reason", self.decisions.clone());
        r.register_with_unit("decision", "From question to answer", Unit::Seconds, self.decision_seconds.clone());
        r.register("decision_uses", "Streams that reused a decision", self.uses.clone());
        r.register("unwraps", "Calls to a backend, by outcome and reason", self.unwraps.clone());
        r.register("rotations", "Newer generations that were tried, by outcome and reason", self.rotations.clone());
        r.register("sds_answers", "SDS answers, by kind", self.sds.clone());
        r.register("sds_streams", "Open SDS streams", self.sds_streams.clone());
        r.register("watches", "Watches that wait for an event", self.watches.clone());
        r.register("sds_nacks", "Certificates that Envoy refused", self.sds_nacks.clone());
        r.register("socket_refused", "Processes turned away at a socket", self.socket_refused.clone());
        r.register("audit_denials_unrecorded", "Denials without room in the spool", self.denials_unrecorded.clone());
        r.register("audit_uses_unrecorded", "Reuses without room in the spool", self.uses_unrecorded.clone());
        r.register("spans_lost", "Spans that did not reach the collector", self.spans_lost.clone());
        r.register("sandbox", "1 for the state of each layer of the sandbox", self.sandbox.clone());
        r.register("bridge_connected", "1 while the Policy Bridge is up", self.bridge_connected.clone());
        r.register(
            "bridge_enrolment_end_timestamp",
            "When the enrolment by IAM role ends, unix seconds; 0 for none",
            self.bridge_enrolment_end.clone(),
        );
        r.register("bridge_front", "1 for the control plane's address that it is up to", self.bridge_front.clone());
        let live = &self.live;
        r.register("secrets", "Credentials held", live.secrets.clone());
        r.register_with_unit("secret_memory", "Secret memory in use", Unit::Bytes, live.secret_bytes.clone());
        r.register_with_unit(
            "secret_memory_unlocked",
            "Secret memory not locked",
            Unit::Bytes,
            live.secret_unlocked_bytes.clone(),
        );
        r.register("grants", "Live grants", live.grants.clone());
        r.register("policy_epoch", "The epoch of the policy in use", live.policy_epoch.clone());
        r.register_with_unit("policy_age", "Since the control plane was heard", Unit::Seconds, live.policy_age.clone());
        r.register_with_unit("audit_spool", "In the audit spool", Unit::Bytes, live.spool_bytes.clone());
        r.register_with_unit(
            "audit_spool_capacity",
            "What the audit spool may hold; full, nothing is released",
            Unit::Bytes,
            live.spool_capacity.clone(),
        );
        r.register("ready", "1 when ready", live.ready.clone());
        r.register("dev", "1 under --dev, which weakens security", live.dev.clone());
        r.register_with_unit(
            "svid_not_after_timestamp",
            "When this resolver's own X.509-SVID ends, in Unix time; 0 without one",
            Unit::Seconds,
            live.svid_not_after.clone(),
        );
        r.register_with_unit(
            "credential_not_after_timestamp",
            "When the credential's certificate ends, in Unix time",
            Unit::Seconds,
            live.not_after.clone(),
        );
        if let Ok(mut own) = self.registry.lock() {
            *own = registry;
        }
    }

    /// The text that Prometheus scrapes, with when the credentials that are held end.
    #[must_use]
    pub fn encode(&self, secrets: &[SecretStatus]) -> String {
        let mut out = String::new();
        if let Ok(registry) = self.registry.lock() {
            // Under the lock, so that no other scrape sees half of it.
            self.live.not_after.clear();
            for secret in secrets.iter().filter(|secret| secret.not_after_ms != 0) {
                let of = CredentialOf { logical_path: secret.logical_path.clone(), generation: secret.generation };
                self.live.not_after.get_or_create(&of).set(secret.not_after_ms / 1_000);
            }
            let _ = text::encode(&mut out, &registry);
        }
        out
    }
}
