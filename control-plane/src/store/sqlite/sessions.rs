//! Sessions of browsers: hashes of their cookies in, principals out.

use super::database::Database;
use super::tokens;
use crate::access::{NewSession, Principal};
use crate::model::Actor;
use crate::store::Result;
use crate::store::rows::tokens::{SessionRow, write_scope};
use crate::token::TokenHash;

pub(super) async fn open(database: &Database, session: &NewSession, hash: &TokenHash) -> Result<()> {
    let mut write = database.begin().await?;
    let who = &session.principal;
    tokens::spend(&mut write, who).await?;
    sqlx::query("DELETE FROM sessions WHERE expires_ms <= ?").bind(write.now_ms()).execute(write.connection()).await?;
    sqlx::query(
        "INSERT INTO sessions (lookup, hash, token_id, actor, role, scope, created_ms, expires_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(hash.lookup())
    .bind(hash.as_bytes().as_slice())
    .bind(who.token.filter(|_| !who.single_use).map(|id| id.to_string()))
    .bind(who.actor.as_str())
    .bind(who.role.as_str())
    .bind(write_scope(&who.scope)?)
    .bind(write.now_ms())
    .bind(session.expires.as_millisecond())
    .execute(write.connection())
    .await?;
    write.record(&who.actor, "session.opened", who.actor.as_str(), who.role.as_str()).await?;
    write.commit().await
}

pub(super) async fn presented(database: &Database, presented: &TokenHash) -> Result<Option<Principal>> {
    let rows: Vec<SessionRow> = sqlx::query_as(
        "SELECT s.hash, s.token_id, s.actor, s.role, s.scope, s.expires_ms FROM sessions s
         LEFT JOIN tokens t ON t.id = s.token_id
         WHERE s.lookup = ?1 AND s.expires_ms > ?2 AND t.revoked_ms IS NULL
           AND (t.expires_ms IS NULL OR t.expires_ms > ?2)",
    )
    .bind(presented.lookup())
    .bind(database.clock.now().as_millisecond())
    .fetch_all(&database.reader)
    .await?;
    rows.into_iter().find(|row| presented.matches(&row.hash)).map(SessionRow::read).transpose()
}

pub(super) async fn close(database: &Database, presented: &TokenHash) -> Result<()> {
    let mut write = database.begin().await?;
    let actor: Option<String> = sqlx::query_scalar("DELETE FROM sessions WHERE hash = ? RETURNING actor")
        .bind(presented.as_bytes().as_slice())
        .fetch_optional(write.connection())
        .await?;
    if let Some(actor) = actor {
        write.record(&Actor::stored(&actor), "session.closed", &actor, "").await?;
    }
    write.commit().await
}
