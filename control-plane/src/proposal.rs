//! Changes of binding that wait for a second person: what is stored of each, and what can become of it.
//!
//! [`crate::api`] stores a call as a proposal where the configuration asks for a second person; once one approved it, the
//! call is made as it was, in the transaction that notes the approval.

use crate::access::{Principal, Role, Scope};
use crate::edit::Reason;
use crate::model::{Actor, Change};
use bouncer_custody::LogicalPath;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

/// How long a proposal waits.
pub const LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);
/// Most proposals that wait at once.
pub const MOST_PENDING: i64 = 1_000;

/// What became of a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProposalState {
    /// It waits.
    Pending,
    /// A second person approved it, and the change was made.
    Approved,
    /// A second person rejected it.
    Rejected,
    /// Its author took it back.
    Withdrawn,
    /// Nobody decided in time.
    Expired,
    /// What it was built on was changed before anybody approved it.
    Stale,
}

impl ProposalState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Approved, Self::Rejected, Self::Withdrawn, Self::Expired, Self::Stale];

    /// As it is written in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
            Self::Stale => "stale",
        }
    }
}

/// Not the name of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be \"pending\", \"approved\", \"rejected\", \"withdrawn\", \"expired\" or \"stale\"")]
pub struct UnknownState;

impl std::str::FromStr for ProposalState {
    type Err = UnknownState;
    fn from_str(text: &str) -> Result<Self, UnknownState> {
        Self::ALL.into_iter().find(|state| state.as_str() == text).ok_or(UnknownState)
    }
}

/// The call that waits, and what it would change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposed {
    /// The call's method.
    pub method: String,
    /// The call's route, as its template is written.
    pub route: String,
    /// The call's path.
    pub path: String,
    /// The call's body, as canonical JSON.
    pub body: String,
    /// The revision of what it was built on; 0 where there was nothing.
    pub base_revision: u64,
    /// What it is about: a name, a path, a flag.
    pub subject: String,
    /// The credential it is about; `None` where it is about more than some.
    pub logical_path: Option<LogicalPath>,
    /// The credential that it was about before, where there was one.
    pub former_path: Option<LogicalPath>,
    /// What is registered; `None` where nothing is.
    pub before: Option<Value>,
    /// What would be registered.
    pub after: Value,
    /// Why, for people.
    pub reason: Option<Reason>,
}

impl Proposed {
    /// Whether it is within a scope, as a whole.
    #[must_use]
    pub fn is_within(&self, scope: &Scope) -> bool {
        let held = |path: &LogicalPath| scope.holds(path);
        scope.is_everything()
            || (self.logical_path.as_ref().is_some_and(held) && self.former_path.as_ref().is_none_or(held))
    }
}

/// A proposal as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposalRecord {
    /// Its id.
    pub id: Uuid,
    /// The order of the proposals.
    pub seq: u64,
    /// What became of it.
    pub state: ProposalState,
    /// The call.
    pub proposed: Proposed,
    /// When, and by whom.
    pub created: Change,
    /// The token that they presented, if one was.
    pub token: Option<Uuid>,
    /// What they might do then.
    pub role: Role,
    /// To what.
    pub scope: Scope,
    /// When it ends by itself.
    pub expires: Timestamp,
    /// When it was decided, and by whom.
    pub decided: Option<Change>,
    /// What was said about that.
    pub note: Option<Reason>,
}

impl ProposalRecord {
    /// Its author, as they were.
    #[must_use]
    pub fn author(&self) -> Principal {
        Principal {
            actor: Actor::stored(&self.created.by),
            role: self.role,
            scope: self.scope.clone(),
            expires: None,
            token: self.token,
            single_use: false,
        }
    }
}

/// What asking for a second person came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// The call waits, or did: it may have been decided since it was first sent.
    Stored(Box<ProposalRecord>),
    /// The call was made under its idempotency key before, without one.
    MadeBefore,
}

/// Which proposals are wanted. Everything absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProposalFilter {
    /// Only within it.
    pub scope: Scope,
    /// Only in this state.
    pub state: Option<ProposalState>,
}

/// That a change was approved: by whom, and as which proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Which.
    pub proposal: Uuid,
    /// By whom.
    pub by: Actor,
    /// What they said about it.
    pub note: Option<Reason>,
}
