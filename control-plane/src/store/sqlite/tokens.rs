//! Tokens: hashes in, records out.

use super::database::{Database, Write, change, parsed, time};
use crate::model::{Actor, TokenRecord};
use crate::store::{Conflict, Result, StoreError};
use crate::token::TokenHash;
use uuid::Uuid;

const TABLE: &str = "tokens";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    name: String,
    hash: Vec<u8>,
    created_ms: i64,
    created_by: String,
    revoked_ms: Option<i64>,
}

impl Row {
    fn read(self) -> Result<TokenRecord> {
        Ok(TokenRecord {
            id: parsed(TABLE, &self.id)?,
            name: self.name,
            created: change(TABLE, self.created_ms, self.created_by)?,
            revoked: self.revoked_ms.map(|ms| time(TABLE, ms)).transpose()?,
        })
    }
}

pub(super) async fn presented(database: &Database, presented: &TokenHash) -> Result<Option<TokenRecord>> {
    let rows: Vec<Row> = sqlx::query_as(
        "SELECT id, name, hash, created_ms, created_by, revoked_ms FROM tokens WHERE lookup = ? AND revoked_ms IS NULL",
    )
    .bind(presented.lookup())
    .fetch_all(&database.reader)
    .await?;
    rows.into_iter().find(|row| presented.matches(&row.hash)).map(Row::read).transpose()
}

pub(super) async fn all(database: &Database) -> Result<Vec<TokenRecord>> {
    let rows: Vec<Row> =
        sqlx::query_as("SELECT id, name, hash, created_ms, created_by, revoked_ms FROM tokens ORDER BY id")
            .fetch_all(&database.reader)
            .await?;
    rows.into_iter().map(Row::read).collect()
}

async fn insert(write: &mut Write<'_>, name: &str, hash: &TokenHash, actor: &Actor) -> Result<TokenRecord> {
    let id = Uuid::now_v7();
    sqlx::query("INSERT INTO tokens (id, name, lookup, hash, created_ms, created_by) VALUES (?, ?, ?, ?, ?, ?)")
        .bind(id.to_string())
        .bind(name)
        .bind(hash.lookup())
        .bind(hash.as_bytes().as_slice())
        .bind(write.now_ms())
        .bind(actor.as_str())
        .execute(write.connection())
        .await?;
    write.record(actor, "token.created", name, "").await?;
    Ok(TokenRecord { id, name: name.to_owned(), created: write.change(actor), revoked: None })
}

pub(super) async fn bootstrap(database: &Database, name: &str, hash: &TokenHash) -> Result<()> {
    let mut write = database.begin().await?;
    let tokens: i64 = sqlx::query_scalar("SELECT count(*) FROM tokens").fetch_one(write.connection()).await?;
    if tokens > 0 {
        return Err(Conflict::AlreadyBootstrapped.into());
    }
    insert(&mut write, name, hash, &Actor::operator()).await?;
    write.commit().await
}

pub(super) async fn replace_all(database: &Database, name: &str, hash: &TokenHash) -> Result<()> {
    let mut write = database.begin().await?;
    sqlx::query("UPDATE tokens SET revoked_ms = ? WHERE revoked_ms IS NULL")
        .bind(write.now_ms())
        .execute(write.connection())
        .await?;
    write.record(&Actor::operator(), "token.all_revoked", "tokens", "").await?;
    insert(&mut write, name, hash, &Actor::operator()).await?;
    write.commit().await
}

pub(super) async fn add(database: &Database, name: &str, hash: &TokenHash, actor: &Actor) -> Result<TokenRecord> {
    let mut write = database.begin().await?;
    let taken: i64 = sqlx::query_scalar("SELECT count(*) FROM tokens WHERE name = ? AND revoked_ms IS NULL")
        .bind(name)
        .fetch_one(write.connection())
        .await?;
    if taken > 0 {
        return Err(Conflict::NameTaken.into());
    }
    let record = insert(&mut write, name, hash, actor).await?;
    write.commit().await?;
    Ok(record)
}

pub(super) async fn revoke(database: &Database, id: Uuid, actor: &Actor) -> Result<()> {
    let mut write = database.begin().await?;
    let name: Option<String> =
        sqlx::query_scalar("UPDATE tokens SET revoked_ms = ? WHERE id = ? AND revoked_ms IS NULL RETURNING name")
            .bind(write.now_ms())
            .bind(id.to_string())
            .fetch_optional(write.connection())
            .await?;
    let name = name.ok_or(StoreError::NotFound)?;
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM tokens WHERE revoked_ms IS NULL")
        .fetch_one(write.connection())
        .await?;
    if left == 0 {
        return Err(Conflict::LastToken.into());
    }
    write.record(actor, "token.revoked", &name, "").await?;
    write.commit().await
}
