//! Sessions on the Policy Bridge, for the other replicas. Their age is told by the server's clock, which is one for all.

use super::PostgresStore;
use crate::bridge::Told;
use crate::store::rows::parsed;
use crate::store::{Others, Result, StoreError};
use uuid::Uuid;

const TABLE: &str = "bridge_sessions";
/// So long what was told counts, in milliseconds.
const COUNTS_MS: i64 = 30_000;

#[derive(sqlx::FromRow)]
struct SessionRow {
    id: String,
    bouncer: String,
    view: String,
}

impl SessionRow {
    fn read(self) -> Result<Told> {
        let view = serde_json::from_str(&self.view).map_err(|_| StoreError::Corrupt(TABLE))?;
        Ok(Told { id: parsed(TABLE, &self.id)?, bouncer: parsed(TABLE, &self.bouncer)?, view })
    }
}

#[tonic::async_trait]
impl Others for PostgresStore {
    async fn tell_sessions(&self, replica: Uuid, ids: &[Uuid], changed: &[&Told]) -> Result<()> {
        let mut write = self.database.begin_beside().await?;
        // Another replica that clears away the same rows at the same time has them; this one need not wait.
        sqlx::query(
            "DELETE FROM bridge_sessions WHERE id IN (
             SELECT id FROM bridge_sessions
             WHERE told_ms < (extract(epoch FROM now()) * 1000)::bigint - $1 OR (replica = $2 AND id <> ALL ($3))
             FOR UPDATE SKIP LOCKED)",
        )
        .bind(COUNTS_MS)
        .bind(replica.to_string())
        .bind(ids.iter().map(Uuid::to_string).collect::<Vec<_>>())
        .execute(write.connection())
        .await?;
        for told in changed {
            sqlx::query(
            "INSERT INTO bridge_sessions (id, replica, bouncer, told_ms, view)
             VALUES ($1, $2, $3, (extract(epoch FROM now()) * 1000)::bigint, $4)
             ON CONFLICT (id) DO UPDATE SET replica = excluded.replica, told_ms = excluded.told_ms, view = excluded.view",
        )
        .bind(told.id.to_string())
        .bind(replica.to_string())
        .bind(told.bouncer.as_str())
        .bind(serde_json::to_string(&told.view).map_err(|_| StoreError::Corrupt(TABLE))?)
        .execute(write.connection())
        .await?;
        }
        write.commit().await
    }

    async fn sessions_elsewhere(&self, replica: Uuid) -> Result<Vec<Told>> {
        let rows: Vec<SessionRow> = sqlx::query_as(
            "SELECT id, bouncer, view FROM bridge_sessions
         WHERE replica <> $1 AND told_ms >= (extract(epoch FROM now()) * 1000)::bigint - $2 ORDER BY id",
        )
        .bind(replica.to_string())
        .bind(COUNTS_MS)
        .fetch_all(&self.database.reader)
        .await?;
        rows.into_iter().map(SessionRow::read).collect()
    }
}
