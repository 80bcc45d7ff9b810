//! The database as a file, for backups: a copy of one that is in use, a look at a copy, and a file put in another's place.

use super::SqliteStore;
use super::database::{MIGRATIONS, turn};
use crate::clock::Clock;
use crate::model::Actor;
use crate::store::{Result, Store as _, StoreError, newest};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode};
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long another process may take to end what it is doing to the file.
const PATIENCE: Duration = Duration::from_secs(1);

/// What stands in a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The newest migration that it has seen.
    pub schema: i64,
    /// The epoch.
    pub epoch: i64,
}

/// The newest schema that this program knows.
#[must_use]
pub fn newest_schema() -> i64 {
    newest(&MIGRATIONS)
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(false)
        .pragma("trusted_schema", "OFF")
        .busy_timeout(PATIENCE)
}

/// Writes a copy of the database, as it is at one instant, into the empty file `to`. Who uses it goes on.
///
/// # Errors
/// [`StoreError::Unavailable`].
pub async fn copy(from: &Path, to: &Path) -> Result<()> {
    let to = to.to_str().ok_or_else(|| sqlx::Error::Io(std::io::ErrorKind::InvalidFilename.into()))?;
    let mut connection = options(from).connect().await?;
    sqlx::query("VACUUM INTO ?").bind(to).execute(&mut connection).await?;
    Ok(connection.close().await?)
}

/// Checks a database that nobody uses. `None` if it is damaged, or none of ours.
///
/// # Errors
/// [`StoreError::Unavailable`] if the file cannot be read.
pub async fn inspect(path: &Path) -> Result<Option<Facts>> {
    let looked = async {
        let mut connection = options(path).read_only(true).immutable(true).connect().await?;
        let found = look(&mut connection).await;
        connection.close().await?;
        found
    };
    match looked.await {
        Ok(facts) => Ok(facts),
        // What SQLite itself says of the content; a file that cannot be read is another matter.
        Err(sqlx::Error::Database(_) | sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. }) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

async fn look(connection: &mut SqliteConnection) -> sqlx::Result<Option<Facts>> {
    let faults: Vec<String> = sqlx::query_scalar("PRAGMA integrity_check").fetch_all(&mut *connection).await?;
    let dangling = sqlx::query("PRAGMA foreign_key_check").fetch_optional(&mut *connection).await?;
    if faults != ["ok"] || dangling.is_some() {
        return Ok(None);
    }
    let schema = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success");
    let schema: i64 = schema.fetch_one(&mut *connection).await?;
    let epoch: i64 = sqlx::query_scalar("SELECT epoch FROM meta").fetch_one(connection).await?;
    Ok(Some(Facts { schema, epoch }))
}

/// Makes a copy fit to be used: brings its schema up to date, ends the sessions that were open when it was taken, and
/// records where it comes from.
///
/// # Errors
/// [`StoreError`], if it cannot be brought up to date.
pub async fn admit(path: &Path, clock: Arc<dyn Clock>, origin: &str) -> Result<()> {
    let store = SqliteStore::open(path, clock).await?;
    let mut write = store.database.begin().await?;
    sqlx::query("DELETE FROM sessions").execute(write.connection()).await?;
    write.record(&Actor::operator(), "database.restored", "database", origin).await?;
    write.commit().await?;
    store.close().await;
    // One file again, without a log beside it.
    let connection = options(path).locking_mode(SqliteLockingMode::Exclusive).journal_mode(SqliteJournalMode::Delete);
    Ok(connection.connect().await?.close().await?)
}

/// Puts the database `new` at `path`, where there is none.
///
/// # Errors
/// [`StoreError::Unavailable`], also if there is one.
pub async fn place(path: &Path, new: &Path) -> Result<()> {
    let turn = turn(path).await?;
    // The one moment at which nothing can stand there before: a link, unlike a renaming, replaces nothing.
    std::fs::hard_link(new, path).map_err(sqlx::Error::Io)?;
    for end in ["-wal", "-shm"] {
        // Left behind by one that is gone; this one's log would be taken from it.
        let _ = std::fs::remove_file(beside(path, end));
    }
    std::fs::remove_file(new).map_err(sqlx::Error::Io)?;
    drop(turn);
    Ok(())
}

/// How a file came into another's place.
#[derive(Debug, PartialEq, Eq)]
pub enum Placed {
    /// It did.
    Yes,
    /// A process has the database open. Nothing was changed.
    InUse,
}

/// Puts the database `new` in the place of the one at `path`, whose content stays under the name `aside`. Either is done
/// whole, or nothing.
///
/// # Errors
/// [`StoreError::Unavailable`]; then the one at `path` is what it was.
pub async fn replace(path: &Path, new: &Path, aside: &Path) -> Result<Placed> {
    // Nobody opens it meanwhile.
    let turn = turn(path).await?;
    let io = |error: std::io::Error| StoreError::from(sqlx::Error::Io(error));
    let own = match alone(path).await {
        Ok(connection) => Some(connection),
        Err(error) if is_busy(&error) => return Ok(Placed::InUse),
        // Damaged, which may be why it is to be replaced: what it has in its log goes aside with it.
        Err(sqlx::Error::Database(_)) => None,
        Err(other) => return Err(other.into()),
    };
    std::fs::hard_link(path, aside).map_err(io)?;
    if own.is_none() {
        for end in ["-wal", "-shm"] {
            // Not there, unless it was left behind.
            let _ = std::fs::rename(beside(path, end), beside(aside, end));
        }
    }
    std::fs::rename(new, path).map_err(io)?;
    if let Some(own) = own {
        own.close().await?;
    }
    drop(turn);
    Ok(Placed::Yes)
}

/// Takes the file out of the mode in which several have it open. That succeeds for the only one, and leaves no log beside
/// it that could be taken for the new file's.
async fn alone(path: &Path) -> sqlx::Result<SqliteConnection> {
    let alone = options(path).locking_mode(SqliteLockingMode::Exclusive).journal_mode(SqliteJournalMode::Delete);
    let mut connection = alone.connect().await?;
    sqlx::query("BEGIN EXCLUSIVE").execute(&mut connection).await?;
    Ok(connection)
}

/// SQLITE_BUSY and SQLITE_LOCKED, extended or not.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<i32>().ok());
    code.is_some_and(|code| matches!(code & 0xff, 5 | 6))
}

fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
