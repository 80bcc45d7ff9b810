//! The databases that a control plane may have, filled and written to beside it.

use bouncer_proto::bridge::v1 as wire;
use bouncer_tests::Result;
use bouncer_tests::postgres::{Server, Settings};
use sqlx::postgres::PgConnection;
use sqlx::sqlite::{Sqlite, SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection as _, QueryBuilder};
use std::path::Path;

/// Rows of one statement on SQLite, in the peer of audit intake.
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

    /// How many connections write at a time what so many bouncers send.
    pub(crate) const fn writers(&self, bouncers: usize) -> usize {
        match self {
            Self::Sqlite => 1,
            Self::Postgres(_) => bouncers,
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

    /// The peer of audit intake: a batch in one transaction, by prepared statements of as many rows as the database is
    /// quickest with. For SQLite that is some, and for PostgreSQL all, as arrays.
    ///
    /// # Errors
    /// If the database does not take them.
    pub(crate) async fn insert_audit(&mut self, bouncer: &str, events: &[wire::AuditEvent]) -> Result<()> {
        match self {
            Self::Sqlite(connection) => {
                let mut transaction = connection.begin().await?;
                for some in events.chunks(AT_ONCE) {
                    audit_rows(bouncer, some).build().execute(&mut *transaction).await?;
                }
                Ok(transaction.commit().await?)
            }
            Self::Postgres(connection) => insert_audit_arrays(connection, bouncer, events).await,
        }
    }
}

/// The columns that the peer of audit intake fills.
macro_rules! insert_into_audit {
    ($rest:literal) => {
        concat!(
            "INSERT INTO audit_events (bouncer, id, sequence, time_ms, received_ms, caller, resource, logical_path,
                 generation, key_id, aad_sha256, cluster, destination, outcome, reason, backend_request_id, count,
                 decision_id, authority, dev, chain, leaf, head) ",
            $rest
        )
    };
}

async fn insert_audit_arrays(connection: &mut PgConnection, bouncer: &str, events: &[wire::AuditEvent]) -> Result<()> {
    let texts = |column: fn(&wire::AuditEvent) -> &String| events.iter().map(column).cloned().collect::<Vec<_>>();
    let numbers = |column: fn(&wire::AuditEvent) -> u64| {
        events.iter().map(|event| column(event).cast_signed()).collect::<Vec<_>>()
    };
    let times: Vec<_> = events.iter().map(|event| event.time_ms).collect();
    let heads: Vec<_> = events.iter().map(|event| event.head.clone()).collect();
    let arrays = insert_into_audit!(
        "SELECT $1, e.* FROM unnest($2::text[], $3::bigint[], $4::bigint[], $4::bigint[], $5::text[], $6::text[],
             $7::text[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
             $15::text[], $16::bigint[], $17::text[], $18::text[], $19::boolean[], $20::text[], $21::bytea[],
             $21::bytea[]) e"
    );
    sqlx::query(arrays)
        .bind(bouncer)
        .bind(texts(|event| &event.id))
        .bind(numbers(|event| event.sequence))
        .bind(times)
        .bind(texts(|event| &event.caller))
        .bind(texts(|event| &event.resource))
        .bind(texts(|event| &event.logical_path))
        .bind(numbers(|event| event.generation))
        .bind(texts(|event| &event.key_id))
        .bind(texts(|event| &event.aad_sha256))
        .bind(texts(|event| &event.cluster))
        .bind(texts(|event| &event.destination))
        .bind(texts(|event| &event.outcome))
        .bind(texts(|event| &event.reason))
        .bind(texts(|event| &event.backend_request_id))
        .bind(numbers(|event| event.count))
        .bind(texts(|event| &event.decision_id))
        .bind(texts(|event| &event.authority))
        .bind(vec![false; events.len()])
        .bind(texts(|event| &event.chain))
        // A leaf is as long as a head.
        .bind(heads)
        .execute(connection)
        .await?;
    Ok(())
}

fn audit_rows<'a>(bouncer: &'a str, events: &'a [wire::AuditEvent]) -> QueryBuilder<Sqlite> {
    let mut query = QueryBuilder::new(insert_into_audit!(""));
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
