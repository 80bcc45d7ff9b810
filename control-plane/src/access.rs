//! Who makes a call, and what they may do: roles, the paths that a role is limited to, tokens and sessions.
//!
//! [`crate::api`] authenticates a call into a [`Principal`] and asks it before anything is done. Nothing here looks at a
//! request.

use crate::model::{Actor, Change};
use bouncer_custody::{LogicalPath, PathPattern, ResourceName};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// What a principal may do, as a whole. Each may do what the rows of [`Role::permissions`] say and nothing else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Sees what is registered and how it is.
    Viewer,
    /// A viewer who also sees the audit.
    Auditor,
    /// Registers bouncers, protected resources and envelope secrets, and sees the audit.
    Operator,
    /// An operator who also hands out tokens and sets flags and provider.
    Admin,
}

/// One kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Permission {
    /// See what is registered and how it is.
    Read,
    /// See what bouncers decided and what administrators changed.
    Audit,
    /// Register, change and delete bouncers, protected resources and envelope secrets.
    Write,
    /// Hand out and revoke tokens; set flags and the provider.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Viewer, Self::Auditor, Self::Operator, Self::Admin];

    /// What the role may do.
    #[must_use]
    pub const fn permissions(self) -> &'static [Permission] {
        match self {
            Self::Viewer => &[Permission::Read],
            Self::Auditor => &[Permission::Read, Permission::Audit],
            Self::Operator => &[Permission::Read, Permission::Audit, Permission::Write],
            Self::Admin => &[Permission::Read, Permission::Audit, Permission::Write, Permission::Admin],
        }
    }

    /// Whether the role may do this.
    #[must_use]
    pub fn may(self, permission: Permission) -> bool {
        self.permissions().contains(&permission)
    }

    /// As it is written in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Auditor => "auditor",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

/// Not the name of a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be \"viewer\", \"auditor\", \"operator\" or \"admin\"")]
pub struct UnknownRole;

impl std::str::FromStr for Role {
    type Err = UnknownRole;
    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        Self::ALL.into_iter().find(|role| role.as_str() == text).ok_or(UnknownRole)
    }
}

/// The logical paths that a principal is limited to. Without any pattern every path is within it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Scope(Vec<PathPattern>);

impl Scope {
    /// Most patterns of one scope.
    pub const LIMIT: usize = 32;

    /// Limited to these; to none in particular if there are none.
    #[must_use]
    pub const fn of(patterns: Vec<PathPattern>) -> Self {
        Self(patterns)
    }

    /// Whether every path is within it.
    #[must_use]
    pub const fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// The patterns.
    #[must_use]
    pub fn patterns(&self) -> &[PathPattern] {
        &self.0
    }

    /// Whether the path is within it.
    #[must_use]
    pub fn holds(&self, path: &LogicalPath) -> bool {
        self.is_everything() || self.0.iter().any(|pattern| pattern.matches(path))
    }
}

/// Who makes a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// As the audit names them.
    pub actor: Actor,
    /// What they may do.
    pub role: Role,
    /// To what.
    pub scope: Scope,
    /// When that ends, if it does by itself.
    pub expires: Option<Timestamp>,
    /// The token that was presented, if one was.
    pub token: Option<Uuid>,
    /// The token is good for one exchange and for nothing else: the one that `bootstrap` wrote.
    pub single_use: bool,
}

impl Principal {
    /// Whether they may do this at all.
    #[must_use]
    pub fn may(&self, permission: Permission) -> bool {
        self.role.may(permission)
    }
}

/// A token to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewToken {
    /// What it is called.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// To what.
    pub scope: Scope,
    /// How long it is good for; `None` for the one that `bootstrap` writes, which ends by its use.
    pub life: Option<SignedDuration>,
}

impl NewToken {
    /// Whether `record` is what comes of it where `by` makes it.
    #[must_use]
    pub fn made(&self, record: &TokenRecord, by: &Actor) -> bool {
        let life = record.expires.map(|end| end.duration_since(record.created.at));
        record.created.by == by.as_str()
            && (&record.name, record.role, &record.scope, life) == (&self.name, self.role, &self.scope, self.life)
    }
}

/// An API token, without the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRecord {
    /// Its id.
    pub id: Uuid,
    /// What it is called.
    pub name: String,
    /// What its bearer may do.
    pub role: Role,
    /// To what.
    pub scope: Scope,
    /// When and by whom it was made.
    pub created: Change,
    /// When it ends by itself. Tokens of before there were roles do not.
    pub expires: Option<Timestamp>,
    /// When it was revoked or, if it was good for one use, used.
    pub revoked: Option<Timestamp>,
    /// It is good for one exchange only.
    pub single_use: bool,
}

/// Whether a token is good for anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ToSchema)]
#[schema(rename_all = "lowercase")]
pub enum TokenState {
    /// It is good.
    Live,
    /// Its time is over.
    Ended,
    /// It was revoked or, if it was good for one use, used.
    Revoked,
}

/// Not the name of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be \"live\", \"ended\" or \"revoked\"")]
pub struct UnknownTokenState;

impl std::str::FromStr for TokenState {
    type Err = UnknownTokenState;
    fn from_str(text: &str) -> Result<Self, UnknownTokenState> {
        match text {
            "live" => Ok(Self::Live),
            "ended" => Ok(Self::Ended),
            "revoked" => Ok(Self::Revoked),
            _ => Err(UnknownTokenState),
        }
    }
}

/// Which tokens are wanted. Everything absent matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenFilter {
    /// Only of this name.
    pub name: Option<ResourceName>,
    /// Only of this role.
    pub role: Option<Role>,
    /// Only in this state.
    pub state: Option<TokenState>,
}

impl TokenRecord {
    /// Its bearer.
    #[must_use]
    pub fn principal(self) -> Principal {
        Principal {
            actor: Actor::token(&self.name),
            role: self.role,
            scope: self.scope,
            expires: self.expires,
            token: Some(self.id),
            single_use: self.single_use,
        }
    }
}

/// A browser that signed in, to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewSession {
    /// Who signed in. The session ends with their token, unless that was good for this one use.
    pub principal: Principal,
    /// When it ends by itself.
    pub expires: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(patterns: &[&str]) -> Scope {
        Scope::of(patterns.iter().map(|pattern| pattern.parse().unwrap()).collect())
    }

    #[test]
    fn each_role_may_what_the_one_before_may() {
        for pair in Role::ALL.windows(2) {
            assert!(pair[1].permissions().starts_with(pair[0].permissions()));
        }
        assert_eq!(Role::ALL.map(|role| role.as_str().parse()), Role::ALL.map(Ok));
        assert_eq!("root".parse::<Role>(), Err(UnknownRole));
    }

    #[test]
    fn a_scope_holds_its_own_paths() {
        let payments = scope(&["payments/*", "shared/ca"]);
        for (path, held) in [("payments/a", true), ("payments", false), ("paymentsx/a", false), ("shared/ca", true)] {
            assert_eq!(payments.holds(&path.parse().unwrap()), held, "{path}");
        }
        assert!(Scope::default().holds(&"x".parse().unwrap()));
    }
}
