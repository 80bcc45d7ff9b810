//! What the control plane knows, as typed values: parsed at the API's edge or read back from the store, and valid ever
//! after. Nothing here can hold a plaintext credential's bytes as such; all of it may be shown to an administrator.

use crate::certificate::CertificateChain;
use crate::edit::Reason;
use bouncer_audit::{ChainId, ChainPoint, Digest, Signed, Withheld};
use bouncer_custody::{
    BouncerIdentity, BouncerName, CallerPattern, CiphertextRef, ClusterName, EncryptionContext, Generation, KeyId,
    LogicalPath, Reserved, ResourceName, Upstream,
};
use jiff::Timestamp;
use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use uuid::Uuid;

/// Who asked for a change: the name of the token that was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor(Box<str>);

impl Actor {
    /// The bearer of the token with this name.
    #[must_use]
    pub fn token(name: &str) -> Self {
        Self(format!("token:{name}").into())
    }

    /// Someone whom the identity provider vouches for.
    #[must_use]
    pub fn oidc(subject: &str) -> Self {
        Self(format!("oidc:{subject}").into())
    }

    /// As it was stored.
    #[must_use]
    pub fn stored(text: &str) -> Self {
        Self(text.into())
    }

    /// Someone with access to the database file itself, by `bouncer-control-plane bootstrap`.
    #[must_use]
    pub fn operator() -> Self {
        Self("operator".into())
    }

    /// The control plane itself, by its configuration.
    #[must_use]
    pub fn control_plane() -> Self {
        Self("control-plane".into())
    }

    /// A bouncer, by its registered name.
    #[must_use]
    pub fn bouncer(name: &BouncerName) -> Self {
        Self(format!("bouncer:{name}").into())
    }

    /// As it is stored.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// When something was changed, and by whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Timestamp,
    /// Who, as an [`Actor`] writes itself.
    pub by: String,
}

/// A feature flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// Whether bouncers may intercept with dual-custody credentials at all.
    DualCustodyIntercept,
}

impl Flag {
    /// Every flag there is.
    pub const ALL: &'static [Self] = &[Self::DualCustodyIntercept];

    /// The flag's name in the API.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::DualCustodyIntercept => "flags.crypto.dual_custody_intercept",
        }
    }

    /// What it does, for people.
    #[must_use]
    pub const fn description(self) -> &'static str {
        match self {
            Self::DualCustodyIntercept => {
                "Bouncers may resolve customer credentials at intercept time. While off, every /v1/crypto call is \
                 refused and bouncers deny all protected streams."
            }
        }
    }

    /// The flag of that name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|flag| flag.name() == name)
    }
}

/// Whether a flag is on, and since when. A flag that nobody ever set is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlagState {
    /// On or off.
    pub enabled: bool,
    /// The last change, if there ever was one.
    pub changed: Option<Change>,
    /// Of the last change; 0 if there was none.
    pub revision: u64,
}

/// The cryptographic provider that the operator chose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The key or namespace, which implies the provider.
    pub key_id: KeyId,
    /// Free text for people.
    pub notes: Option<String>,
}

/// [`Settings`] as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsRecord {
    /// What was chosen.
    pub settings: Settings,
    /// When and by whom.
    pub changed: Change,
    /// Of the last change.
    pub revision: u64,
}

/// The metadata of one wrapped credential, as its owner registers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// What the credential is called.
    pub path: LogicalPath,
    /// Who can unwrap it.
    pub key_id: KeyId,
    /// The opaque reference to what is unwrapped.
    pub ciphertext_ref: CiphertextRef,
    /// The pairs bound to it. Absent is not the same as empty.
    pub aad: Option<EncryptionContext>,
    /// The public chain, where it travels beside the ciphertext.
    pub certificate_chain: Option<CertificateChain>,
}

/// How an [`Envelope`] is to be registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The number that the registration must get, or else there is none: who wrapped for that number, or builds on what
    /// was registered before, must not overtake somebody else's registration.
    pub generation: Option<Generation>,
    /// Whether bouncers may use it at once.
    pub enabled: bool,
    /// Why, for people.
    pub reason: Option<Reason>,
}

/// One generation of an [`Envelope`], as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnvelopeRecord {
    /// Of the secret: all generations of a logical path share it.
    pub id: Uuid,
    /// What was registered.
    pub envelope: Envelope,
    /// Counts the registrations of the path.
    pub generation: Generation,
    /// Whether bouncers may use it.
    pub enabled: bool,
    /// How often it was disabled and enabled again.
    pub activation: u64,
    /// The newest generation of the path that was disabled or deleted; 0 for none.
    pub revoked_through: u64,
    /// When and by whom it was registered.
    pub created: Change,
    /// When and by whom it was last enabled or disabled, if ever.
    pub changed: Option<Change>,
    /// Why it was registered.
    pub reason: Option<Reason>,
    /// Of the secret's last change.
    pub revision: u64,
}

impl EnvelopeRecord {
    /// Whether the pairs name the generation, so that the same content cannot be registered as another one.
    #[must_use]
    pub fn is_bound_to_its_generation(&self) -> bool {
        self.envelope.aad.as_ref().is_some_and(|aad| aad.get(Reserved::Generation).is_some())
    }
}

/// A bouncer's registration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bouncer {
    /// What it is called.
    pub name: BouncerName,
    /// Who its resolvers are on the Policy Bridge.
    pub identity: BouncerIdentity,
}

/// A [`Bouncer`] as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BouncerRecord {
    /// The registration.
    pub bouncer: Bouncer,
    /// When and by whom.
    pub created: Change,
    /// When and by whom it was last changed.
    pub updated: Change,
    /// Of the last change.
    pub revision: u64,
    /// What was last heard of it, if ever.
    pub sighting: Option<Sighting>,
}

/// What was last heard of a bouncer, across restarts of the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// When.
    pub at: Timestamp,
    /// The resolver's version.
    pub version: String,
    /// The newest epoch it had taken.
    pub epoch_acked: u64,
}

/// How the protected upstream is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// TLS with a client certificate.
    Mtls,
    /// TLS with a credential in a header.
    Https,
}

impl Protocol {
    /// As it is written in the API and on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mtls => "mtls",
            Self::Https => "https",
        }
    }
}

/// Neither "mtls" nor "https".
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("protocol must be \"mtls\" or \"https\"")]
pub struct UnknownProtocol;

impl FromStr for Protocol {
    type Err = UnknownProtocol;
    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text {
            "mtls" => Ok(Self::Mtls),
            "https" => Ok(Self::Https),
            _ => Err(UnknownProtocol),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An upstream that a bouncer guards with a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// What it is called.
    pub name: ResourceName,
    /// Which bouncer guards it.
    pub bouncer: BouncerName,
    /// Envoy's cluster that leads to it.
    pub cluster: ClusterName,
    /// Where it is. Informative: the resolver compares its own rails.
    pub upstream: Upstream,
    /// How it is spoken to.
    pub protocol: Protocol,
    /// The credential.
    pub path: LogicalPath,
    /// Who may call. Empty allows no one.
    pub callers: Vec<CallerPattern>,
    /// Whether streams to it may have the credential.
    pub enabled: bool,
}

impl Resource {
    /// Whether there can be a caller that both this and `other` allow.
    #[must_use]
    pub fn shares_callers_with(&self, other: &Self) -> bool {
        self.callers.iter().any(|own| other.callers.iter().any(|theirs| overlap(own, theirs)))
    }
}

/// Whether two patterns can match one SPIFFE ID: they are the same, or one lies below the other.
fn overlap(one: &CallerPattern, other: &CallerPattern) -> bool {
    let (one, other) = (one.to_string(), other.to_string());
    let covers = |above: &str, below: &str| {
        let prefix = above.strip_suffix("/*");
        prefix.is_some_and(|prefix| below.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/')))
    };
    one == other || covers(&one, &other) || covers(&other, &one)
}

/// A [`Resource`] as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceRecord {
    /// The registration.
    pub resource: Resource,
    /// When and by whom it was registered.
    pub created: Change,
    /// When and by whom it was last changed.
    pub updated: Change,
    /// Of the last change.
    pub revision: u64,
}

/// Everything that one bouncer may know, at one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// When in the order of changes.
    pub epoch: u64,
    /// Whose.
    pub bouncer: Bouncer,
    /// The flag.
    pub intercept_enabled: bool,
    /// The bouncer's own resources.
    pub resources: Vec<Resource>,
    /// The newest generations of what those resources name, where enabled.
    pub envelopes: Vec<EnvelopeRecord>,
}

/// By what a bouncer's policy is known to be the same as before, but for the epoch. Each change has a number of its own,
/// which nothing else ever has: so where no number is newer and nothing is gone, nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyMark {
    /// The bouncer's own revision.
    pub bouncer: u64,
    /// The flag's.
    pub flag: u64,
    /// How many resources it guards.
    pub resources: u64,
    /// The newest revision of those.
    pub newest_resource: u64,
    /// The newest revision of the secrets that they name, deleted or not.
    pub newest_secret: u64,
}

/// The marks of all bouncers, at one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyMarks {
    /// When in the order of changes.
    pub epoch: u64,
    /// By bouncer.
    pub marks: HashMap<BouncerName, PolicyMark>,
}

/// What an audit event can be about: a credential given to a stream, a stream denied, one that needed none, uses of an
/// earlier decision, a newer generation that was put in use or was no good, and a credential that was ended.
pub const OUTCOMES: [&str; 6] = ["inject", "deny", "pass_through", "uses", "rotate", "revoke"];

/// One decision, as a bouncer reported it. Texts are bounded and hold nothing that looks like a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEvent {
    /// The decision's id.
    pub id: Uuid,
    /// The resolver's own count.
    pub sequence: u64,
    /// When it was decided, by the bouncer's clock.
    pub at: Timestamp,
    /// The verified caller, or empty.
    pub caller: String,
    /// The protected resource, or empty.
    pub resource: String,
    /// The credential's path, or empty.
    pub logical_path: String,
    /// The credential's generation, or 0.
    pub generation: u64,
    /// The key, or empty.
    pub key_id: String,
    /// SHA-256 of the AAD, or empty.
    pub aad_sha256: String,
    /// Envoy's cluster.
    pub cluster: String,
    /// The cluster's host:port by the resolver's rails.
    pub destination: String,
    /// One of [`OUTCOMES`].
    pub outcome: String,
    /// A reason code, or empty.
    pub reason: String,
    /// The backend's request id, or empty.
    pub backend_request_id: String,
    /// Streams that this event stands for.
    pub count: u64,
    /// For "uses": the decision that was reused.
    pub decision_id: String,
    /// `:authority` or SNI as the client sent it.
    pub authority: String,
    /// The resolver ran with `--dev`.
    pub dev: bool,
    /// Where it is chained. Absent from resolvers of before there were chains.
    pub evidence: Option<Evidence>,
}

/// Where an event is chained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Which chain.
    pub chain: ChainId,
    /// Its leaf, over what came in; also where a text was withheld afterwards.
    pub leaf: Digest,
    /// The head behind it, as it came in.
    pub head: Digest,
    /// The commitments to withheld texts.
    pub withheld: Withheld,
}

/// A bouncer's checkpoint as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// The checkpoint.
    pub signed: Signed,
    /// What is wrong with it by itself. It is stored all the same.
    pub fault: Option<Divergence>,
}

/// How what came in does not fit together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Divergence {
    /// Events are missing in front of one.
    Gap,
    /// The head does not follow from the one before it.
    Link,
    /// Another event is there under the same sequence, or the same id.
    Conflict,
    /// The chain is another owner's.
    Owner,
    /// The checkpoint covers another head than the event has that is stored.
    CheckpointHead,
    /// Another checkpoint is there under the same number.
    CheckpointConflict,
    /// The checkpoint's signature does not match.
    CheckpointSignature,
    /// The checkpoint was signed by another identity than the connection's.
    CheckpointIdentity,
}

impl Divergence {
    /// As it is stored and exported.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gap => "gap",
            Self::Link => "link",
            Self::Conflict => "conflict",
            Self::Owner => "owner",
            Self::CheckpointHead => "checkpoint_head",
            Self::CheckpointConflict => "checkpoint_conflict",
            Self::CheckpointSignature => "checkpoint_signature",
            Self::CheckpointIdentity => "checkpoint_identity",
        }
    }
}

/// What became of a batch of audit events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Appended {
    /// Events that were new.
    pub new: u64,
    /// What did not fit together.
    pub divergences: Vec<Divergence>,
}

/// How far the control plane's own chain has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnChain {
    /// Its end.
    pub end: ChainPoint,
    /// Its last checkpoint.
    pub last: Option<Signed>,
}

/// An [`AuditEvent`] as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRecord {
    /// The order of arrival.
    pub seq: u64,
    /// Which bouncer, by the identity of its connection.
    pub bouncer: String,
    /// When it arrived.
    pub received: Timestamp,
    /// The event.
    pub event: AuditEvent,
}

/// How far an outlet of the audit has come: the last of each that is known to be there, 0 for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// Of the decisions, by their order of arrival.
    pub decisions: u64,
    /// Of the administrative changes.
    pub changes: u64,
}

/// One administrative change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminRecord {
    /// The order of the changes.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who, as an [`Actor`] writes itself.
    pub actor: String,
    /// What was done, such as `envelope.registered`.
    pub action: String,
    /// To what: a name, a path, a flag.
    pub subject: String,
    /// More about it, such as a generation. Metadata only.
    pub detail: String,
    /// Where it is in the control plane's own chain. Absent for changes from before there was one.
    pub place: Option<ChainPoint>,
}

#[cfg(test)]
mod tests {
    #[test]
    fn patterns_overlap_where_one_lies_below_the_other() {
        let overlap = |one: &str, other: &str| {
            let (one, other) = (one.parse().unwrap(), other.parse().unwrap());
            assert_eq!(super::overlap(&one, &other), super::overlap(&other, &one));
            super::overlap(&one, &other)
        };
        assert!(overlap("spiffe://a.b/x", "spiffe://a.b/x"));
        assert!(overlap("spiffe://a.b/x/*", "spiffe://a.b/x/*"));
        assert!(overlap("spiffe://a.b/x/*", "spiffe://a.b/x/y"));
        assert!(overlap("spiffe://a.b/x/*", "spiffe://a.b/x/y/*"));
        assert!(overlap("spiffe://a.b/*", "spiffe://a.b/x/y"));
        assert!(!overlap("spiffe://a.b/x/*", "spiffe://a.b/x"));
        assert!(!overlap("spiffe://a.b/x/*", "spiffe://a.b/xy"));
        assert!(!overlap("spiffe://a.b/x/*", "spiffe://a.b/y/*"));
        assert!(!overlap("spiffe://a.b/*", "spiffe://a.bc/x"));
    }
}
