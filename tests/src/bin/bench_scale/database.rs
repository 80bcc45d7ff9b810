//! The databases that a control plane may have, filled and written to beside it.

use bouncer_proto::bridge::v1 as wire;
use bouncer_tests::Result;
use bouncer_tests::postgres::{Server, Settings};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, Encode, QueryBuilder, Type};
use std::path::Path;

/// Rows of one statement, in the peer of audit intake.
const AT_ONCE: usize = 64;

/// A kind of database.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// SQLite, as the control plane opens it.
    Sqlite,
    /// PostgreSQL, on a server of the bench's own that syncs each commit.
    Postgres,
}

/// Where control planes have their databases.
pub(crate) enum Databases {
    /// Each in its own folder.
    Sqlite,
    /// All on one server.
    Postgres(Server),
}

impl Databases {
    /// Starts the server, if the kind has one.
    ///
    /// # Errors
    /// If it does not start.
    pub(crate) fn start(kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Sqlite => Self::Sqlite,
            Kind::Postgres => Self::Postgres(Server::start(&Settings { synced: true, ..Settings::default() })?),
        })
    }

    /// What it is called.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres(_) => "PostgreSQL",
        }
    }

    /// Makes an empty one. Returns its URL, if it is not a file that the control plane makes.
    ///
    /// # Errors
    /// If the server does not make it.
    pub(crate) async fn create(&self, name: &str) -> Result<Option<String>> {
        let Self::Postgres(server) = self else { return Ok(None) };
        let mut connection = PgConnection::connect(&server.url("postgres")).await?;
        sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name:?}"))).execute(&mut connection).await?;
        Ok(Some(server.url(name)))
    }
}

/// One connection.
pub(crate) enum Connection {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

/// The same on whichever it is.
macro_rules! on {
    ($self:ident, $connection:ident => $do:expr) => {
        match $self {
            Self::Sqlite($connection) => $do,
            Self::Postgres($connection) => $do,
        }
    };
}

/// An insert with the numbers from 0 as `n`, as many as the first parameter says.
macro_rules! numbered {
    ($insert:literal) => {
        concat!(
            $insert,
            " FROM (WITH RECURSIVE n(i) AS
            (SELECT 0 WHERE $1 > 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < $1) SELECT i FROM n) n"
        )
    };
}

/// Envelope secrets of every kind that pages are asked for.
const SECRETS: &str = numbered!(
    "INSERT INTO envelope_secrets (id, logical_path, latest, revision)
     SELECT '0199d7a0-0000-7000-8000-' || substr(CAST(1000000000000 + i AS TEXT), 2), CASE
         WHEN i >= $1 - 60 THEN 'zz-tail/service-' || substr(CAST(1000000 + i AS TEXT), 2) || '/upstream-tls'
         WHEN i % ($1 / 7) = 3 AND i / ($1 / 7) < 7 THEN 'protected-resources/team-'
             || substr(CAST(100 + i % 50 AS TEXT), 2) || '/zebra-' || substr(CAST(1000000 + i AS TEXT), 2)
         ELSE 'protected-resources/team-' || substr(CAST(100 + i % 50 AS TEXT), 2)
             || '/service-' || substr(CAST(1000000 + i AS TEXT), 2) || '/upstream-tls' END, 1, 1"
);
const GENERATIONS: &str = numbered!(
    "INSERT INTO envelope_generations (secret_id, generation, provider, key_id, ciphertext_ref,
         aad, certificate_chain, not_after_ms, enabled, created_ms, created_by)
     SELECT '0199d7a0-0000-7000-8000-' || substr(CAST(1000000000000 + i AS TEXT), 2), 1,
         CASE WHEN i % 4 = 3 THEN 'vault_delegate' ELSE 'kms_envelope' END,
         CASE WHEN i % 4 = 3 THEN 'team' ELSE 'arn:aws:kms:ca-central-1:123456789012:key/' || CAST(i % 4 AS TEXT) END,
         CASE WHEN i % 4 = 3 THEN 'kv2:secret/service-' || CAST(i AS TEXT) ELSE 'AQICAHg=' END,
         CASE WHEN i % 4 = 3 THEN NULL ELSE 'env=production,bouncer=payments-east' END,
         CASE WHEN i % 20 = 5 THEN $2 END, CASE WHEN i % 20 = 5 THEN CAST($3 AS BIGINT) END, i % 20 <> 7, 1, 'bench'"
);

/// Bouncers, each with a resource and its envelope.
const BOUNCERS: [&str; 4] = [
    numbered!(
        "INSERT INTO bouncers (name, identity, created_ms, created_by, revision)
         SELECT 'bouncer-' || substr(CAST(100000 + i AS TEXT), 2),
             'spiffe://example.org/bouncer/bouncer-' || substr(CAST(100000 + i AS TEXT), 2), 1, 'bench', 1"
    ),
    numbered!(
        "INSERT INTO envelope_secrets (id, logical_path, latest, revision)
         SELECT '0199d7a0-0000-7000-8000-' || substr(CAST(1000000000000 + i AS TEXT), 2),
             'service-' || substr(CAST(100000 + i AS TEXT), 2) || '/upstream-tls', 1, 1"
    ),
    numbered!(
        "INSERT INTO envelope_generations (secret_id, generation, provider, key_id, ciphertext_ref, aad, enabled,
             created_ms, created_by)
         SELECT '0199d7a0-0000-7000-8000-' || substr(CAST(1000000000000 + i AS TEXT), 2), 1, 'kms_envelope',
             'arn:aws:kms:ca-central-1:123456789012:key/abc-123', 'AQICAHg=',
             'env=production,bouncer=bouncer-' || substr(CAST(100000 + i AS TEXT), 2), 1 = 1, 1, 'bench'"
    ),
    numbered!(
        "INSERT INTO protected_resources (name, bouncer, cluster, upstream, protocol, logical_path, callers, enabled,
             created_ms, created_by, updated_ms, updated_by, revision)
         SELECT 'service-' || substr(CAST(100000 + i AS TEXT), 2), 'bouncer-' || substr(CAST(100000 + i AS TEXT), 2),
             'payments', 'payments.internal:8443', 'mtls',
             'service-' || substr(CAST(100000 + i AS TEXT), 2) || '/upstream-tls',
             '[\"spiffe://example.org/ns/shop/*\"]', 1 = 1, 1, 'bench', 1, 'bench', 1"
    ),
];

impl Connection {
    /// One beside a control plane's, with the same guarantees: to the URL, or to the file.
    ///
    /// # Errors
    /// If it can't be opened.
    pub(crate) async fn open(url: Option<&str>, file: &Path) -> Result<Self> {
        if let Some(url) = url {
            return Ok(Self::Postgres(PgConnection::connect(url).await?));
        }
        let options = SqliteConnectOptions::new()
            .filename(file)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true);
        Ok(Self::Sqlite(SqliteConnection::connect_with(&options).await?))
    }

    /// Registers so many envelope secrets of every kind that pages are asked for. Every twentieth is disabled, and
    /// another has a chain, which ends with the day; 60 sort behind all others, and 7 have "zebra" in them.
    ///
    /// # Errors
    /// If the database does not take them.
    pub(crate) async fn add_secrets(&mut self, count: i32, chain: &str, end_ms: i64) -> Result<()> {
        on!(self, connection => {
            let mut transaction = connection.begin().await?;
            sqlx::query(SECRETS).bind(count).execute(&mut *transaction).await?;
            let generations = sqlx::query(GENERATIONS).bind(count).bind(chain).bind(end_ms);
            generations.execute(&mut *transaction).await?;
            Ok(transaction.commit().await?)
        })
    }

    /// Registers so many bouncers, each with a resource and its envelope.
    ///
    /// # Errors
    /// If the database does not take them.
    pub(crate) async fn add_bouncers(&mut self, count: i32) -> Result<()> {
        on!(self, connection => {
            let mut transaction = connection.begin().await?;
            for insert in BOUNCERS {
                sqlx::query(insert).bind(count).execute(&mut *transaction).await?;
            }
            Ok(transaction.commit().await?)
        })
    }

    /// The peer of audit intake: the same rows, by prepared statements of many, in one transaction.
    ///
    /// # Errors
    /// If the database does not take them.
    pub(crate) async fn insert_audit(&mut self, bouncer: &str, events: &[wire::AuditEvent]) -> Result<()> {
        on!(self, connection => {
            let mut transaction = connection.begin().await?;
            for some in events.chunks(AT_ONCE) {
                audit_rows(bouncer, some).build().execute(&mut *transaction).await?;
            }
            Ok(transaction.commit().await?)
        })
    }
}

fn audit_rows<'a, DB>(bouncer: &'a str, events: &'a [wire::AuditEvent]) -> QueryBuilder<DB>
where
    DB: sqlx::Database,
    for<'q> &'a str: Encode<'q, DB> + Type<DB>,
    for<'q> &'a [u8]: Encode<'q, DB> + Type<DB>,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'q> bool: Encode<'q, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new(
        "INSERT INTO audit_events (bouncer, id, sequence, time_ms, received_ms, caller, resource, logical_path,
             generation, key_id, aad_sha256, cluster, destination, outcome, reason, backend_request_id, count,
             decision_id, authority, dev, chain, leaf, head) ",
    );
    query.push_values(events, |mut row, event| {
        row.push_bind(bouncer).push_bind(&*event.id).push_bind(event.sequence.cast_signed());
        row.push_bind(event.time_ms).push_bind(event.time_ms);
        row.push_bind(&*event.caller).push_bind(&*event.resource).push_bind(&*event.logical_path);
        row.push_bind(event.generation.cast_signed()).push_bind(&*event.key_id).push_bind(&*event.aad_sha256);
        row.push_bind(&*event.cluster).push_bind(&*event.destination).push_bind(&*event.outcome);
        row.push_bind(&*event.reason).push_bind(&*event.backend_request_id).push_bind(event.count.cast_signed());
        row.push_bind(&*event.decision_id).push_bind(&*event.authority).push_bind(false);
        // A leaf is as long as a head.
        row.push_bind(&*event.chain).push_bind(&*event.head).push_bind(&*event.head);
    });
    query
}
