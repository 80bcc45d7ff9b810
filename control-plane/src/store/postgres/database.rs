//! The connections, what every transaction shares, and the signal that something changed.

use crate::clock::Clock;
use crate::edit::Edit;
use crate::model::{self, Actor};
use crate::store::rows::{KEPT_MS, Recalled, signed, unsigned};
use crate::store::{Conflict, Result, StoreError, chain, newest};
use bouncer_audit::Owner;
use jiff::Timestamp;
use sha2::Digest as _;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{PgConnection, PgPool, Postgres, Transaction};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Connections that write, and connections that read, so that reads go on while writers wait for each other.
const CONNECTIONS: u32 = 8;
/// How long a caller waits for a connection, and a statement for another transaction's lock.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts to listen for changes.
const RETRY: Duration = Duration::from_millis(500);
/// What changes are announced on. Channels belong to one database.
const CHANNEL: &str = "bouncer_changes";

pub(super) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations/postgres");

/// The connections, and the signal that something changed.
pub(super) struct Database {
    pub(super) writer: PgPool,
    pub(super) reader: PgPool,
    pub(super) clock: Arc<dyn Clock>,
    changes: watch::Sender<u64>,
    stop: CancellationToken,
}

/// Set on every connection. A replica that was stopped in the middle of a change must not keep the others waiting, and
/// nobody waits longer for a lock than a caller would.
const SETTINGS: [(&str, &str); 4] = [
    ("lock_timeout", "5s"),
    ("statement_timeout", "30s"),
    ("idle_in_transaction_session_timeout", "10s"),
    ("client_min_messages", "warning"),
];

/// Set on the one connection that migrates, after [`SETTINGS`]. An upgrade takes what it takes, and so does another
/// replica's that is waited for. One that was stopped in the middle of it still lets go of what it holds.
const MIGRATING: [(&str, &str); 2] = [("lock_timeout", "0"), ("statement_timeout", "0")];
/// An upgrade that takes longer is told of.
const QUICK: Duration = Duration::from_secs(1);

/// One snapshot, so that what was found is there. In it PostgreSQL scans a whole table, or sorts, only where there is no
/// other way, and never a whole index for being smaller: it would decide by what it takes tables for, and that may be old.
/// So the plan is the same for all values, and none is worth compiling or sharing out.
const BEGIN_LIST: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;
    SET LOCAL enable_seqscan = off; SET LOCAL enable_indexonlyscan = off;
    SET LOCAL enable_sort = off; SET LOCAL enable_incremental_sort = off;
    SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL jit = off; SET LOCAL max_parallel_workers_per_gather = 0";

impl Database {
    /// Connects, and brings the schema up to date.
    pub(super) async fn open(options: PgConnectOptions, clock: Arc<dyn Clock>) -> Result<Self> {
        let options = options.application_name("bouncer-control-plane").options(SETTINGS);
        migrate(options.clone()).await?;
        let writer = pool(CONNECTIONS).connect_with(options.clone()).await?;
        let reader =
            pool(CONNECTIONS).connect_with(options.clone().options([("default_transaction_read_only", "on")])).await?;
        let database = Self { writer, reader, clock, changes: watch::Sender::new(0), stop: CancellationToken::new() };
        let listening = pool(1).connect_lazy_with(options);
        tokio::spawn(database.stop.clone().run_until_cancelled_owned(listen(listening, database.changes.clone())));
        Ok(database)
    }

    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.reader.close().await;
        self.writer.close().await;
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Begins an administrative change. They are one after the other, whichever replica makes them: what each reads is what
    /// the one before it left, as with SQLite's one writer.
    pub(super) async fn begin(&self) -> Result<Write<'_>> {
        let mut write = self.begin_beside().await?;
        sqlx::query("SELECT singleton FROM meta FOR UPDATE").execute(write.connection()).await?;
        // By now another's change may have been made.
        write.now = self.clock.now();
        Ok(write)
    }

    /// Begins to read a page of a list, by indexes.
    pub(super) async fn begin_list(&self) -> Result<Transaction<'_, Postgres>> {
        Ok(self.reader.begin_with(BEGIN_LIST).await?)
    }

    /// Begins a change that is no administrator's, beside those that are. It must not call [`Write::record`].
    pub(super) async fn begin_beside(&self) -> Result<Write<'_>> {
        let transaction = self.writer.begin().await?;
        Ok(Write { transaction, now: self.clock.now(), wake: Wake { changes: &self.changes, armed: false } })
    }
}

/// Brings the schema up to date. One of several that start at once does it, under a lock of the database's; the others wait
/// for as long as that takes.
async fn migrate(options: PgConnectOptions) -> Result<()> {
    let migrating = pool(1).connect_with(options.options(MIGRATING)).await?;
    let mut migrated = pin!(MIGRATIONS.run(&migrating));
    let outcome = match tokio::time::timeout(QUICK, &mut migrated).await {
        Ok(outcome) => outcome,
        Err(_) => {
            tracing::info!(
                "waiting until the database's schema is up to date: this or another control plane upgrades it"
            );
            migrated.await
        }
    };
    migrating.close().await;
    outcome.map_err(|error| StoreError::migration(error, newest(&MIGRATIONS)))
}

fn pool(connections: u32) -> PgPoolOptions {
    PgPoolOptions::new().max_connections(connections).acquire_timeout(PATIENCE).after_connect(|connection, _| {
        Box::pin(async move {
            // An acknowledgement says that it is on disk. What is stricter than that, such as a synchronous replica,
            // is the server's to choose.
            let sql = "SELECT set_config('synchronous_commit', 'on', false)
                       WHERE current_setting('synchronous_commit') = 'off'";
            sqlx::query(sql).execute(connection).await.map(|_| ())
        })
    })
}

/// Wakes whoever waits for changes when any replica made one. After a time without a connection it wakes them once, since
/// there may have been one.
async fn listen(pool: PgPool, changes: watch::Sender<u64>) {
    loop {
        if let Err(error) = listen_once(&pool, &changes).await {
            tracing::warn!(%error, "changes of other replicas are not heard of at once; listening again");
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn listen_once(pool: &PgPool, changes: &watch::Sender<u64>) -> sqlx::Result<()> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    loop {
        changes.send_modify(|count| *count = count.wrapping_add(1));
        if listener.try_recv().await?.is_none() {
            return Ok(());
        }
    }
}

/// The number of an advisory lock for what is named.
pub(super) fn lock_number(kind: &str, name: &str) -> i64 {
    let digest =
        <[u8; 32]>::from(sha2::Sha256::new().chain_update(kind).chain_update([0]).chain_update(name).finalize());
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first)
}

/// One change in the making. Dropped without [`Write::commit`], it never was.
pub(super) struct Write<'a> {
    transaction: Transaction<'a, Postgres>,
    now: Timestamp,
    wake: Wake<'a>,
}

impl Write<'_> {
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.now.as_millisecond()
    }

    /// The change's time and author, as answered to the caller.
    pub(super) fn change(&self, actor: &Actor) -> model::Change {
        model::Change { at: self.now, by: actor.as_str().to_owned() }
    }

    /// Waits until no other transaction has this lock, and takes it until this one ends.
    pub(super) async fn lock(&mut self, number: i64) -> Result<()> {
        sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(number).execute(self.connection()).await?;
        Ok(())
    }

    /// Waits until no other transaction has this lock alone, and shares it until this one ends.
    pub(super) async fn share(&mut self, number: i64) -> Result<()> {
        sqlx::query("SELECT pg_advisory_xact_lock_shared($1)").bind(number).execute(self.connection()).await?;
        Ok(())
    }

    /// Takes this lock if no other transaction has it.
    pub(super) async fn try_lock(&mut self, number: i64) -> Result<bool> {
        let locked = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)").bind(number);
        Ok(locked.fetch_one(self.connection()).await?)
    }

    /// Records an administrative change, chained to the one before it. `detail` is metadata, never a value from the body.
    pub(super) async fn record(&mut self, actor: &Actor, action: &str, subject: &str, detail: &str) -> Result<()> {
        let before = super::chains::own_end(self.connection()).await?;
        let before = before.map_or_else(chain::begin_own, Ok)?;
        let time_ms = self.now_ms();
        let (leaf, end) = chain::own_next(before, time_ms, actor, [action, subject, detail]);
        sqlx::query(
            "INSERT INTO admin_events (time_ms, actor, action, subject, detail, sequence, leaf, head)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(time_ms)
        .bind(actor.as_str())
        .bind(action)
        .bind(subject)
        .bind(detail)
        .bind(signed(end.sequence)?)
        .bind(leaf.as_bytes().as_slice())
        .bind(end.head.as_bytes().as_slice())
        .execute(self.connection())
        .await?;
        super::chains::reach(self.connection(), &Owner::ControlPlane, &end).await
    }

    /// The number of this change, for what it changes.
    pub(super) async fn revise(&mut self) -> Result<u64> {
        let revision: i64 = sqlx::query_scalar("UPDATE meta SET revision = revision + 1 RETURNING revision")
            .fetch_one(self.connection())
            .await?;
        unsigned(revision)
    }

    /// What the call did when it was made before under its key; `None` if it was not. [`Conflict::KeyReused`] if that was
    /// another call.
    pub(super) async fn recall(&mut self, edit: &Edit) -> Result<Option<Recalled>> {
        let Some(key) = edit.key else { return Ok(None) };
        let row: Option<(Vec<u8>, Option<String>, Option<i64>)> = sqlx::query_as(
            "SELECT request, secret_id, generation FROM idempotency_keys WHERE actor = $1 AND key = $2 AND created_ms > $3",
        )
        .bind(edit.actor.as_str())
        .bind(key.key.as_slice())
        .bind(self.now_ms() - KEPT_MS)
        .fetch_optional(self.connection())
        .await?;
        let Some((request, secret, generation)) = row else { return Ok(None) };
        if request != key.request {
            return Err(Conflict::KeyReused.into());
        }
        let registered = secret.zip(generation);
        Ok(Some(registered.map_or(Recalled::Named, |(secret, number)| Recalled::Generation(secret, number))))
    }

    /// Notes the call's key, with the generation that it registered.
    pub(super) async fn note(&mut self, edit: &Edit, registered: Option<(Uuid, u64)>) -> Result<()> {
        let Some(key) = edit.key else { return Ok(()) };
        sqlx::query("DELETE FROM idempotency_keys WHERE created_ms <= $1")
            .bind(self.now_ms() - KEPT_MS)
            .execute(self.connection())
            .await?;
        sqlx::query(
            "INSERT INTO idempotency_keys (actor, key, request, secret_id, generation, created_ms)
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        )
        .bind(edit.actor.as_str())
        .bind(key.key.as_slice())
        .bind(key.request.as_slice())
        .bind(registered.map(|(id, _)| id.to_string()))
        .bind(registered.map(|(_, generation)| signed(generation)).transpose()?)
        .bind(self.now_ms())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Raises the epoch: bouncers must see this change.
    pub(super) async fn raise_epoch(&mut self) -> Result<u64> {
        self.epoch("UPDATE meta SET epoch = epoch + $1 RETURNING epoch", 1).await
    }

    /// Raises the epoch to one past `reported`, if it is not there already.
    pub(super) async fn raise_epoch_past(&mut self, reported: u64) -> Result<u64> {
        let past = reported.checked_add(1).ok_or(StoreError::OutOfRange)?;
        self.epoch("UPDATE meta SET epoch = greatest(epoch, $1) RETURNING epoch", signed(past)?).await
    }

    /// Changes the epoch, and announces it: every replica hears of it when, and only if, this is committed.
    async fn epoch(&mut self, sql: &'static str, number: i64) -> Result<u64> {
        let epoch: i64 = sqlx::query_scalar(sql).bind(number).fetch_one(self.connection()).await?;
        sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(self.connection()).await?;
        self.wake.armed = true;
        unsigned(epoch)
    }

    pub(super) async fn commit(self) -> Result<()> {
        let Self { transaction, wake, .. } = self;
        let committed = transaction.commit().await;
        // Only now, so that whoever is woken reads the change.
        drop(wake);
        Ok(committed?)
    }
}

/// Wakes this replica's waiting when dropped, even where the commit's outcome was not awaited.
struct Wake<'a> {
    changes: &'a watch::Sender<u64>,
    armed: bool,
}

impl Drop for Wake<'_> {
    fn drop(&mut self) {
        if self.armed {
            self.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
    }
}
