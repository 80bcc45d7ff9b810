//! Tokens: hashes in, records out.

use super::database::{Database, Write};
use super::filter;
use crate::access::{NewToken, Principal, TokenFilter, TokenRecord, TokenState};
use crate::model::Actor;
use crate::store::rows::part;
use crate::store::rows::tokens::{TokenRow, first, made_before, write_scope};
use crate::store::{Conflict, Page, Part, Result, StoreError};
use crate::token::TokenHash;
use jiff::Timestamp;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;

/// Every token; conditions follow.
macro_rules! select_token {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, hash, role, scope, created_ms, created_by, expires_ms, revoked_ms, single_use FROM tokens ",
            $rest
        )
    };
}

pub(super) async fn presented(database: &Database, presented: &TokenHash) -> Result<Option<TokenRecord>> {
    let rows: Vec<TokenRow> = sqlx::query_as(select_token!(
        "WHERE lookup = $1 AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $2)"
    ))
    .bind(presented.lookup())
    .bind(database.clock.now().as_millisecond())
    .fetch_all(&database.reader)
    .await?;
    rows.into_iter().find(|row| presented.matches(&row.hash)).map(TokenRow::read).transpose()
}

pub(super) async fn all(database: &Database) -> Result<Vec<TokenRecord>> {
    let rows: Vec<TokenRow> = sqlx::query_as(select_token!("ORDER BY id")).fetch_all(&database.reader).await?;
    rows.into_iter().map(TokenRow::read).collect()
}

pub(super) async fn by_id(database: &Database, id: Uuid) -> Result<Option<TokenRecord>> {
    let row: Option<TokenRow> =
        sqlx::query_as(select_token!("WHERE id = $1")).bind(id.to_string()).fetch_optional(&database.reader).await?;
    row.map(TokenRow::read).transpose()
}

pub(super) async fn list(database: &Database, wanted: &TokenFilter, page: &Page<Uuid>) -> Result<Part<TokenRecord>> {
    let mut query = some(wanted, page, database.clock.now());
    let mut read = database.begin_list().await?;
    part(query.build_query_as().fetch_all(&mut *read).await?, page.limit, TokenRow::read)
}

/// The tokens of a page, and one more: in the order of the index of what leaves out most, so that PostgreSQL can take no
/// other (see [`super::search`]).
pub(super) fn some(wanted: &TokenFilter, page: &Page<Uuid>, now: Timestamp) -> QueryBuilder<Postgres> {
    let after = page.after.map(|after| after.to_string()).unwrap_or_default();
    let (name, role) =
        (wanted.name.as_ref().map(ToString::to_string), wanted.role.map(|role| role.as_str().to_owned()));
    let mut query = QueryBuilder::new(select_token!("WHERE "));
    let equal = |query: &mut QueryBuilder<Postgres>, column: &'static str, value: String| {
        query.push("(").push(column).push(", id) > (").push_bind(value.clone()).push(", ").push_bind(after.clone());
        query.push(") AND ").push(column).push(" <= ").push_bind(value);
    };
    let order = match (name, wanted.state, role) {
        (Some(name), _, role) => {
            equal(&mut query, "name", name);
            filter::equals(&mut query, "role", role);
            "name, id"
        }
        (None, None, Some(role)) => {
            equal(&mut query, "role", role);
            "role, id"
        }
        (None, state, role) => {
            query.push("id > ").push_bind(after.clone());
            filter::equals(&mut query, "role", role);
            match state {
                None => "id",
                Some(TokenState::Revoked) => "id, revoked_ms",
                Some(TokenState::Live | TokenState::Ended) => "id, expires_ms",
            }
        }
    };
    filter::state(&mut query, wanted.state, now);
    query.push(" ORDER BY ").push(order).push(" LIMIT ").push_bind(i64::from(page.limit) + 1);
    query
}

async fn insert(
    write: &mut Write<'_>,
    token: &NewToken,
    single_use: bool,
    hash: &TokenHash,
    actor: &Actor,
) -> Result<TokenRecord> {
    let (id, created) = (Uuid::now_v7(), write.change(actor));
    let expires = token.life.map(|life| created.at + life);
    sqlx::query(
        "INSERT INTO tokens (id, name, lookup, hash, role, scope, created_ms, created_by, expires_ms, single_use)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(id.to_string())
    .bind(&token.name)
    .bind(hash.lookup())
    .bind(hash.as_bytes().as_slice())
    .bind(token.role.as_str())
    .bind(write_scope(&token.scope)?)
    .bind(write.now_ms())
    .bind(actor.as_str())
    .bind(expires.map(|expires| expires.as_millisecond()))
    .bind(single_use)
    .execute(write.connection())
    .await?;
    write.record(actor, "token.created", &token.name, token.role.as_str()).await?;
    Ok(TokenRecord {
        id,
        name: token.name.clone(),
        role: token.role,
        scope: token.scope.clone(),
        created,
        expires,
        revoked: None,
        single_use,
    })
}

pub(super) async fn bootstrap(database: &Database, name: &str, hash: &TokenHash) -> Result<()> {
    let mut write = database.begin().await?;
    let tokens: i64 = sqlx::query_scalar("SELECT count(*) FROM tokens").fetch_one(write.connection()).await?;
    if tokens > 0 {
        return Err(Conflict::AlreadyBootstrapped.into());
    }
    insert(&mut write, &first(name), true, hash, &Actor::operator()).await?;
    write.commit().await
}

pub(super) async fn replace_all(database: &Database, name: &str, hash: &TokenHash) -> Result<()> {
    let mut write = database.begin().await?;
    sqlx::query("UPDATE tokens SET revoked_ms = $1 WHERE revoked_ms IS NULL")
        .bind(write.now_ms())
        .execute(write.connection())
        .await?;
    sqlx::query("DELETE FROM sessions").execute(write.connection()).await?;
    write.record(&Actor::operator(), "token.all_revoked", "tokens", "").await?;
    insert(&mut write, &first(name), true, hash, &Actor::operator()).await?;
    write.commit().await
}

/// Takes a token out of use that was good for one.
pub(super) async fn spend(write: &mut Write<'_>, by: &Principal) -> Result<()> {
    let (Some(id), true) = (by.token, by.single_use) else { return Ok(()) };
    let spent = sqlx::query("UPDATE tokens SET revoked_ms = $1 WHERE id = $2 AND revoked_ms IS NULL")
        .bind(write.now_ms())
        .bind(id.to_string())
        .execute(write.connection())
        .await?;
    if spent.rows_affected() == 0 {
        return Err(Conflict::TokenSpent.into());
    }
    write.record(&by.actor, "token.spent", by.actor.as_str(), "").await
}

pub(super) async fn add(
    database: &Database,
    token: &NewToken,
    hash: &TokenHash,
    by: &Principal,
) -> Result<TokenRecord> {
    let mut write = database.begin().await?;
    spend(&mut write, by).await?;
    let alike =
        sqlx::query_as(select_token!("WHERE lookup = $1")).bind(hash.lookup()).fetch_all(write.connection()).await?;
    if let Some(known) = made_before(alike, token, hash, &by.actor, write.change(&by.actor).at)? {
        return Ok(known);
    }
    let taken: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM tokens WHERE name = $1 AND revoked_ms IS NULL AND (expires_ms IS NULL OR expires_ms > $2)",
    )
    .bind(&token.name)
    .bind(write.now_ms())
    .fetch_one(write.connection())
    .await?;
    if taken > 0 {
        return Err(Conflict::NameTaken.into());
    }
    let record = insert(&mut write, token, false, hash, &by.actor).await?;
    write.commit().await?;
    Ok(record)
}

pub(super) async fn revoke(database: &Database, id: Uuid, actor: &Actor) -> Result<()> {
    let mut write = database.begin().await?;
    let revoked: Option<(String, bool)> = sqlx::query_as(
        "UPDATE tokens SET revoked_ms = $1 WHERE id = $2 AND revoked_ms IS NULL
         RETURNING name, role = 'admin' AND scope = '[]' AND (expires_ms IS NULL OR expires_ms > $1)",
    )
    .bind(write.now_ms())
    .bind(id.to_string())
    .fetch_optional(write.connection())
    .await?;
    let (name, administered) = revoked.ok_or(StoreError::NotFound)?;
    // Where there is none anyway, such as beside an identity provider, any other can be revoked.
    if administered {
        let left: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM tokens WHERE role = 'admin' AND scope = '[]' AND revoked_ms IS NULL
                 AND (expires_ms IS NULL OR expires_ms > $1)",
        )
        .bind(write.now_ms())
        .fetch_one(write.connection())
        .await?;
        if left == 0 {
            return Err(Conflict::LastToken.into());
        }
    }
    sqlx::query("DELETE FROM sessions WHERE token_id = $1").bind(id.to_string()).execute(write.connection()).await?;
    write.record(actor, "token.revoked", &name, "").await?;
    write.commit().await
}
