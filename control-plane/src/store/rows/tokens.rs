//! Rows of tokens and of browsers' sessions.

use super::{change, parsed, time};
use crate::access::{NewToken, Principal, Role, Scope, TokenRecord};
use crate::model::Actor;
use crate::store::{Conflict, Result, StoreError};
use crate::token::TokenHash;
use jiff::Timestamp;

const TOKENS: &str = "tokens";
const SESSIONS: &str = "sessions";

#[derive(sqlx::FromRow)]
pub(in crate::store) struct TokenRow {
    id: String,
    name: String,
    pub(in crate::store) hash: Vec<u8>,
    role: String,
    scope: String,
    created_ms: i64,
    created_by: String,
    expires_ms: Option<i64>,
    revoked_ms: Option<i64>,
    single_use: bool,
}

impl TokenRow {
    pub(in crate::store) fn read(self) -> Result<TokenRecord> {
        Ok(TokenRecord {
            id: parsed(TOKENS, &self.id)?,
            name: self.name,
            role: parsed(TOKENS, &self.role)?,
            scope: read_scope(TOKENS, &self.scope)?,
            created: change(TOKENS, self.created_ms, self.created_by)?,
            expires: self.expires_ms.map(|ms| time(TOKENS, ms)).transpose()?,
            revoked: self.revoked_ms.map(|ms| time(TOKENS, ms)).transpose()?,
            single_use: self.single_use,
        })
    }
}

#[derive(sqlx::FromRow)]
pub(in crate::store) struct SessionRow {
    pub(in crate::store) hash: Vec<u8>,
    token_id: Option<String>,
    actor: String,
    role: String,
    scope: String,
    expires_ms: i64,
}

impl SessionRow {
    pub(in crate::store) fn read(self) -> Result<Principal> {
        Ok(Principal {
            actor: Actor::stored(&self.actor),
            role: parsed(SESSIONS, &self.role)?,
            scope: read_scope(SESSIONS, &self.scope)?,
            expires: Some(time(SESSIONS, self.expires_ms)?),
            token: self.token_id.as_deref().map(|id| parsed(SESSIONS, id)).transpose()?,
            single_use: false,
        })
    }
}

pub(in crate::store) fn read_scope(table: &'static str, text: &str) -> Result<Scope> {
    serde_json::from_str(text).map_err(|_| StoreError::Corrupt(table))
}

pub(in crate::store) fn write_scope(scope: &Scope) -> Result<String> {
    serde_json::to_string(scope).map_err(|_| StoreError::Corrupt(TOKENS))
}

/// The token that `bootstrap` writes.
pub(in crate::store) fn first(name: &str) -> NewToken {
    NewToken { name: name.to_owned(), role: Role::Admin, scope: Scope::default(), life: None }
}

/// The token of this hash, of those that share its `lookup`: where the same call made it before, and it is still good. One hash
/// is one token, and one that has ended never comes back: else [`Conflict::TokenTaken`].
pub(in crate::store) fn made_before(
    rows: Vec<TokenRow>,
    token: &NewToken,
    hash: &TokenHash,
    by: &Actor,
    now: Timestamp,
) -> Result<Option<TokenRecord>> {
    let Some(row) = rows.into_iter().find(|row| hash.matches(&row.hash)) else { return Ok(None) };
    let record = row.read()?;
    let good = record.revoked.is_none() && record.expires.is_none_or(|end| end > now);
    if good && token.made(&record, by) { Ok(Some(record)) } else { Err(Conflict::TokenTaken.into()) }
}
