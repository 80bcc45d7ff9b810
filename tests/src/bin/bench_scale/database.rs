//! The databases that a control plane may have, filled and written to beside it.

use bouncer_proto::bridge::v1 as wire;
use bouncer_tests::Result;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection as _, QueryBuilder, Sqlite};
use std::path::Path;

/// Every database that is measured.
pub(crate) const ALL: [Kind; 1] = [Kind::Sqlite];

/// Rows of one statement, in the peer of audit intake.
const AT_ONCE: usize = 64;

/// A database.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// SQLite, as the control plane opens it.
    Sqlite,
}

impl Kind {
    /// What it is called.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
        }
    }

    /// A connection of its own beside the control plane's, with the same guarantees.
    ///
    /// # Errors
    /// If it can't be opened.
    pub(crate) async fn connect(self, path: &Path) -> Result<Connection> {
        match self {
            Self::Sqlite => {
                let options = SqliteConnectOptions::new()
                    .filename(path)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .foreign_keys(true);
                Ok(Connection(SqliteConnection::connect_with(&options).await?))
            }
        }
    }
}

/// One connection.
pub(crate) struct Connection(SqliteConnection);

/// The numbers from 0, as many as the first parameter says.
const NUMBERS: &str = "WITH RECURSIVE n(i) AS (SELECT 0 WHERE ?1 > 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1) ";

impl Connection {
    /// Registers so many envelope secrets of every kind that pages are asked for. Every twentieth is disabled, and
    /// another has a chain, which ends with the day; 60 sort behind all others, and 7 have "zebra" in them.
    ///
    /// # Errors
    /// If the database does not take them.
    pub(crate) async fn add_secrets(&mut self, count: u32, chain: &str, end_ms: i64) -> Result<()> {
        let mut transaction = self.0.begin().await?;
        let secrets = "INSERT INTO envelope_secrets (id, logical_path, latest, revision)
            SELECT printf('0199d7a0-0000-7000-8000-%012d', i), CASE
                WHEN i >= ?1 - 60 THEN printf('zz-tail/service-%06d/upstream-tls', i)
                WHEN i % (?1 / 7) = 3 AND i / (?1 / 7) < 7 THEN printf('protected-resources/team-%02d/zebra-%06d', i % 50, i)
                ELSE printf('protected-resources/team-%02d/service-%06d/upstream-tls', i % 50, i) END, 1, 1 FROM n";
        let generations = "INSERT INTO envelope_generations (secret_id, generation, provider, key_id, ciphertext_ref,
                aad, certificate_chain, not_after_ms, enabled, created_ms, created_by)
            SELECT printf('0199d7a0-0000-7000-8000-%012d', i), 1,
                CASE WHEN i % 4 = 3 THEN 'vault_delegate' ELSE 'kms_envelope' END,
                CASE WHEN i % 4 = 3 THEN 'team' ELSE printf('arn:aws:kms:ca-central-1:123456789012:key/%d', i % 4) END,
                CASE WHEN i % 4 = 3 THEN printf('kv2:secret/service-%d', i) ELSE 'AQICAHg=' END,
                CASE WHEN i % 4 = 3 THEN NULL ELSE 'env=production,bouncer=payments-east' END,
                CASE WHEN i % 20 = 5 THEN ?2 END, CASE WHEN i % 20 = 5 THEN ?3 END, i % 20 <> 7, 1, 'bench' FROM n";
        sqlx::query(sqlx::AssertSqlSafe(format!("{NUMBERS}{secrets}"))).bind(count).execute(&mut *transaction).await?;
        let generations = sqlx::query(sqlx::AssertSqlSafe(format!("{NUMBERS}{generations}")));
        generations.bind(count).bind(chain).bind(end_ms).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// Registers so many bouncers, each with a resource and its envelope.
    ///
    /// # Errors
    /// If the database does not take them.
    pub(crate) async fn add_bouncers(&mut self, count: u32) -> Result<()> {
        let mut transaction = self.0.begin().await?;
        for insert in [
            "INSERT INTO bouncers (name, spiffe_id, created_ms, created_by)
             SELECT printf('bouncer-%05d', i), printf('spiffe://example.org/bouncer/bouncer-%05d', i), 1, 'bench' FROM n",
            "INSERT INTO envelope_secrets (id, logical_path, latest, revision)
             SELECT printf('0199d7a0-0000-7000-8000-%012d', i), printf('service-%05d/upstream-tls', i), 1, 1 FROM n",
            "INSERT INTO envelope_generations (secret_id, generation, provider, key_id, ciphertext_ref, aad, enabled,
                 created_ms, created_by)
             SELECT printf('0199d7a0-0000-7000-8000-%012d', i), 1, 'kms_envelope',
                 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', 'AQICAHg=',
                 printf('env=production,bouncer=bouncer-%05d', i), 1, 1, 'bench' FROM n",
            "INSERT INTO protected_resources (name, bouncer, cluster, upstream, protocol, logical_path, callers, enabled,
                 created_ms, created_by, updated_ms, updated_by)
             SELECT printf('service-%05d', i), printf('bouncer-%05d', i), 'payments', 'payments.internal:8443', 'mtls',
                 printf('service-%05d/upstream-tls', i), '[\"spiffe://example.org/ns/shop/*\"]', 1, 1, 'bench', 1, 'bench'
             FROM n",
        ] {
            let insert = sqlx::query(sqlx::AssertSqlSafe(format!("{NUMBERS}{insert}")));
            insert.bind(count).execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// The peer of audit intake: the same rows, by prepared statements of many, in one transaction.
    ///
    /// # Errors
    /// If the database does not take them.
    pub(crate) async fn insert_audit(&mut self, bouncer: &str, events: &[wire::AuditEvent]) -> Result<()> {
        let mut transaction = self.0.begin_with("BEGIN IMMEDIATE").await?;
        for some in events.chunks(AT_ONCE) {
            let mut query = QueryBuilder::<Sqlite>::new(
                "INSERT INTO audit_events (bouncer, id, sequence, time_ms, received_ms, caller, resource, logical_path,
                     generation, key_id, aad_sha256, cluster, destination, outcome, reason, backend_request_id, count,
                     decision_id, authority, dev, chain, leaf, head) ",
            );
            query.push_values(some, |mut row, event| {
                row.push_bind(bouncer).push_bind(&event.id).push_bind(event.sequence.cast_signed());
                row.push_bind(event.time_ms).push_bind(event.time_ms);
                row.push_bind(&event.caller).push_bind(&event.resource).push_bind(&event.logical_path);
                row.push_bind(event.generation.cast_signed()).push_bind(&event.key_id).push_bind(&event.aad_sha256);
                row.push_bind(&event.cluster).push_bind(&event.destination).push_bind(&event.outcome);
                row.push_bind(&event.reason).push_bind(&event.backend_request_id).push_bind(event.count.cast_signed());
                row.push_bind(&event.decision_id).push_bind(&event.authority).push_bind(false);
                // A leaf is as long as a head.
                row.push_bind(&event.chain).push_bind(&event.head).push_bind(&event.head);
            });
            query.build().execute(&mut *transaction).await?;
        }
        Ok(transaction.commit().await?)
    }
}
