//! The connections: one that writes, some that read, and what every transaction shares.

use crate::clock::Clock;
use crate::edit::Edit;
use crate::model::{self, Actor};
use crate::store::rows::{KEPT_MS, Recalled, signed, unsigned};
use crate::store::{Conflict, Result, StoreError, chain, newest};
use bouncer_audit::Owner;
use jiff::Timestamp;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use uuid::Uuid;

const READERS: u32 = 4;
/// Kibibytes of the file that each connection keeps, as SQLite writes it: the policies of 10,000 bouncers, so that a change
/// for all reads each page once.
const CACHE: &str = "-8192";
/// Rows that SQLite's thread may be ahead of whoever reads them.
const ROWS: usize = 1_024;
/// How long a statement waits for another process's lock, and a caller for a connection.
const PATIENCE: Duration = Duration::from_secs(5);

pub(super) static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("./migrations/sqlite");

/// The file, its connections, and the signal that it changed.
pub(super) struct Database {
    pub(super) writer: SqlitePool,
    pub(super) reader: SqlitePool,
    pub(super) clock: Arc<dyn Clock>,
    changes: watch::Sender<u64>,
}

impl Database {
    /// Opens or creates the file (0600) and brings its schema up to date.
    pub(super) async fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let (writer, reader) = connect(path).await?;
        Ok(Self { writer, reader, clock, changes: watch::Sender::new(0) })
    }

    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Begins a change. `BEGIN IMMEDIATE`, so that it never fails half-way for want of the write lock.
    pub(super) async fn begin(&self) -> Result<Write<'_>> {
        let transaction = self.writer.begin_with("BEGIN IMMEDIATE").await?;
        Ok(Write { transaction, now: self.clock.now(), wake: Wake { changes: &self.changes, armed: false } })
    }
}

async fn connect(path: &Path) -> Result<(SqlitePool, SqlitePool)> {
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(sqlx::Error::Io)?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .pragma("trusted_schema", "OFF")
        .pragma("cache_size", CACHE)
        // A full buffer makes SQLite's thread and whoever reads wait for each other, row by row.
        .row_buffer_size(ROWS)
        .busy_timeout(PATIENCE);
    // Another process, `bootstrap` beside `serve`, may be setting up the same file: one after the other.
    let turn = turn(path).await?;
    let presence = Arc::new(Presence::new(path));
    let writer = pool(1, &presence).connect_with(options.clone()).await?;
    MIGRATIONS.run(&writer).await.map_err(|error| StoreError::migration(error, newest(&MIGRATIONS)))?;
    super::envelopes::date_certificates(&writer).await?;
    drop(turn);
    let reader = pool(READERS, &presence).connect_with(options.pragma("query_only", "ON")).await?;
    Ok((writer, reader))
}

/// A lock on the file's folder, since a second handle on the file itself would cost SQLite its own locks when closed.
pub(super) async fn turn(path: &Path) -> Result<std::fs::File> {
    let folder = crate::folder::of(path).to_owned();
    let locked = tokio::task::spawn_blocking(move || {
        let folder = std::fs::File::open(folder)?;
        folder.lock().map(|()| folder)
    });
    let locked = locked.await.unwrap_or_else(|cancelled| Err(std::io::Error::other(cancelled)));
    locked.map_err(|error| sqlx::Error::Io(error).into())
}

fn pool(connections: u32, presence: &Arc<Presence>) -> SqlitePoolOptions {
    let presence = Arc::clone(presence);
    SqlitePoolOptions::new()
        .max_connections(connections)
        // Whoever is about to replace the file sees by an open connection that it is in use.
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(PATIENCE)
        .test_before_acquire(false)
        .before_acquire(move |_, meta| {
            let current = presence.is_current(meta.age);
            Box::pin(async move { Ok(current) })
        })
}

/// Notices that the file at the path is no longer the one that connections have open: it was deleted or replaced, and
/// what they write would be lost. Such connections are closed; new ones open what is there, or fail.
struct Presence {
    path: PathBuf,
    seen: Mutex<(Option<(u64, u64)>, Instant)>,
}

impl Presence {
    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), seen: Mutex::new((identity(path), Instant::now())) }
    }

    fn is_current(&self, connection_age: Duration) -> bool {
        let identity = identity(&self.path);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != identity {
            *seen = (identity, Instant::now());
            return false;
        }
        identity.is_some() && connection_age <= seen.1.elapsed()
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// One change in the making. Dropped without [`Write::commit`], it never was.
pub(super) struct Write<'a> {
    transaction: Transaction<'a, Sqlite>,
    now: Timestamp,
    wake: Wake<'a>,
}

impl Write<'_> {
    pub(super) fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.now.as_millisecond()
    }

    /// The change's time and author, as answered to the caller.
    pub(super) fn change(&self, actor: &Actor) -> model::Change {
        model::Change { at: self.now, by: actor.as_str().to_owned() }
    }

    /// Records an administrative change, chained to the one before it. `detail` is metadata, never a value from the body.
    pub(super) async fn record(&mut self, actor: &Actor, action: &str, subject: &str, detail: &str) -> Result<()> {
        let before = super::chains::own_end(self.connection()).await?;
        let before = before.map_or_else(chain::begin_own, Ok)?;
        let time_ms = self.now_ms();
        let (leaf, end) = chain::own_next(before, time_ms, actor, [action, subject, detail]);
        sqlx::query(
            "INSERT INTO admin_events (time_ms, actor, action, subject, detail, sequence, leaf, head)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
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
            "SELECT request, secret_id, generation FROM idempotency_keys WHERE actor = ? AND key = ? AND created_ms > ?",
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
        sqlx::query("DELETE FROM idempotency_keys WHERE created_ms <= ?")
            .bind(self.now_ms() - KEPT_MS)
            .execute(self.connection())
            .await?;
        sqlx::query(
            "INSERT OR IGNORE INTO idempotency_keys (actor, key, request, secret_id, generation, created_ms)
             VALUES (?, ?, ?, ?, ?, ?)",
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
        let epoch: i64 = sqlx::query_scalar("UPDATE meta SET epoch = epoch + 1 RETURNING epoch")
            .fetch_one(self.connection())
            .await?;
        self.wake.armed = true;
        unsigned(epoch)
    }

    /// Raises the epoch to one past `reported`, if it is not there already.
    pub(super) async fn raise_epoch_past(&mut self, reported: u64) -> Result<u64> {
        let past = reported.checked_add(1).ok_or(StoreError::OutOfRange)?;
        let epoch: i64 = sqlx::query_scalar("UPDATE meta SET epoch = max(epoch, ?) RETURNING epoch")
            .bind(signed(past)?)
            .fetch_one(self.connection())
            .await?;
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

/// Wakes the waiting when dropped, even where the commit's outcome was not awaited.
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
