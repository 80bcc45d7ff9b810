//! Sessions on the Policy Bridge, for whoever else reads this database.

use super::database::Database;
use crate::bridge::Told;
use crate::store::Result;
use crate::store::rows::bridge_sessions::{COUNTS_MS, SessionRow, view};
use uuid::Uuid;

pub(super) async fn tell(database: &Database, replica: Uuid, ids: &[Uuid], changed: &[&Told]) -> Result<()> {
    let mut write = database.begin().await?;
    let (now_ms, ids) = (write.now_ms(), serde_json::Value::from_iter(ids.iter().map(Uuid::to_string)).to_string());
    sqlx::query(
        "DELETE FROM bridge_sessions
         WHERE told_ms < ?1 OR (replica = ?2 AND id NOT IN (SELECT value FROM json_each(?3)))",
    )
    .bind(now_ms - COUNTS_MS)
    .bind(replica.to_string())
    .bind(ids)
    .execute(write.connection())
    .await?;
    for told in changed {
        sqlx::query(
            "INSERT INTO bridge_sessions (id, replica, bouncer, told_ms, view) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT (id) DO UPDATE SET replica = ?2, told_ms = ?4, view = ?5",
        )
        .bind(told.id.to_string())
        .bind(replica.to_string())
        .bind(told.bouncer.as_str())
        .bind(now_ms)
        .bind(view(told)?)
        .execute(write.connection())
        .await?;
    }
    write.commit().await
}

pub(super) async fn elsewhere(database: &Database, replica: Uuid) -> Result<Vec<Told>> {
    let rows: Vec<SessionRow> =
        sqlx::query_as("SELECT id, bouncer, view FROM bridge_sessions WHERE replica <> ? AND told_ms >= ? ORDER BY id")
            .bind(replica.to_string())
            .bind(database.clock.now().as_millisecond() - COUNTS_MS)
            .fetch_all(&database.reader)
            .await?;
    rows.into_iter().map(SessionRow::read).collect()
}
