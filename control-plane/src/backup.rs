//! `backup` and `restore`: the database as one file that says what it is and shows whether it is whole.
//!
//! A backup is two lines of text, the manifest in JSON between them and the database as SQLite has it:
//!
//! ```text
//! bouncer-control-plane backup 1
//! {"program":"0.1.0","schema":3,"epoch":41,"taken_at":"2026-01-31T12:00:00Z","bytes":126976,"sha256":"…"}
//! <the database>
//! ```
//!
//! The digest is of everything but itself. It shows damage; who can write the file can also write another digest, so a
//! backup is to be kept as the database is. It holds what the database holds: of tokens the hashes only.

use crate::clock::{Clock, SystemClock};
use crate::folder;
use crate::store::StoreError;
use crate::store::sqlite::files::{self, Placed};
use bouncer_custody::Hex;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAGIC: &str = "bouncer-control-plane backup 1\n";
/// Longer than any manifest, in bytes.
const MANIFEST_LIMIT: u64 = 4_096;

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of the program that wrote it.
    pub program: String,
    /// The newest migration that the database has seen.
    pub schema: i64,
    /// Its epoch.
    pub epoch: i64,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The length of the database.
    pub bytes: u64,
    /// SHA-256 in hex over the magic line, this manifest with this field empty, a line break, and the database.
    pub sha256: String,
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { program, schema, epoch, taken_at, bytes, sha256 } = self;
        write!(
            f,
            "version {program}, schema {schema}, epoch {epoch}, taken at {taken_at}, {bytes} bytes, SHA-256 {sha256}"
        )
    }
}

impl Manifest {
    /// The digest's beginning: what it covers before the database.
    fn hasher(&self) -> io::Result<Sha256> {
        let blank = Self { sha256: String::new(), ..self.clone() };
        let text = serde_json::to_string(&blank)?;
        Ok(Sha256::new().chain_update(MAGIC).chain_update(text).chain_update("\n"))
    }
}

/// Why no backup was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It is no file.
    #[error(
        "the database of database.url is a PostgreSQL server, whose own tools back it up: 'pg_dump --format=custom' takes it \
             as it is at one instant, while control planes go on, and a base backup with archived write-ahead logs loses less"
    )]
    Server,
    /// There is no database.
    #[error("there is no database at {}, as database.path has it", .0.display())]
    Missing(PathBuf),
    /// The file exists.
    #[error("{} exists, and is never overwritten. Give a path that does not exist with --output", .0.display())]
    Exists(PathBuf),
    /// The database could not be copied.
    #[error(
        "cannot copy the database: {0}. Check that this user may read it and write beside --output, and that the \
             disk there has room for it"
    )]
    Copy(#[source] StoreError),
    /// The database is damaged.
    #[error("the database is damaged, by SQLite's own check; nothing was written. Restore the last good backup")]
    Damaged,
    /// The backup could not be written.
    #[error("cannot write {}: {}. Nothing was left there", path.display(), source.kind())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why nothing was restored. The database is what it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// It is no file.
    #[error(
        "the database of database.url is a PostgreSQL server, whose own tools restore it: stop every control plane, make \
             a new database with 'createdb --template=template0 NEW', restore into it with 'pg_restore --exit-on-error \
             --single-transaction --dbname=NEW', run 'DELETE FROM sessions' in it so that nobody is signed in who was then, \
             point database.url at it and start them again. Never restore over a database that is there: what is newer than \
             the backup would stay in it. The policy epoch jumps past what bouncers hold by itself as they connect"
    )]
    Server,
    /// The backup could not be read.
    #[error("cannot read {}: {}", path.display(), source.kind())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no backup.
    #[error("{} is no backup that 'backup' wrote", .0.display())]
    Foreign(PathBuf),
    /// It is not whole.
    #[error("{} is not what was written: {what}. Nothing was restored; take another copy of it", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// It comes from a newer program.
    #[error(
        "the backup is of schema {schema}, by version {program}, and this program knows up to {known}. Restore it \
             with that version or a later one"
    )]
    Newer {
        /// Its schema.
        schema: i64,
        /// Who wrote it.
        program: String,
        /// The newest schema known here.
        known: i64,
    },
    /// There is a database.
    #[error("there is a database at {}. With --replace the backup takes its place; its content is kept beside it",
            .0.display())]
    Exists(PathBuf),
    /// Somebody uses it.
    #[error("a process has the database open. Stop the control plane, then run 'restore' again")]
    InUse,
    /// A file could not be written.
    #[error("cannot write {}: {}. Nothing was restored", path.display(), source.kind())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The backup's content could not be used.
    #[error("cannot use the database in the backup: {0}. Nothing was restored")]
    Store(#[source] StoreError),
}

/// A file in the making, gone unless it is kept.
struct Part(PathBuf);

impl Part {
    /// Beside `path`, empty, mode 0600.
    fn beside(path: &Path, what: &str) -> io::Result<(Self, File)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_string_lossy();
        let part = path.with_file_name(format!(".{name}.{}.{what}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&part)?;
        Ok((Self(part), file))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.0.as_os_str().to_owned();
            name.push(end);
            // Already where it belongs, or never made.
            let _ = std::fs::remove_file(name);
        }
    }
}

/// Writes a backup of the database to `output`, which must not exist. Whoever uses the database goes on.
///
/// # Errors
/// [`BackupError`]; then there is nothing at `output`.
pub async fn backup(database: &Path, output: &Path, clock: &dyn Clock) -> Result<Manifest, BackupError> {
    let written = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => BackupError::Exists(output.to_owned()),
        _ => BackupError::Write { path: output.to_owned(), source },
    };
    if !database.exists() {
        return Err(BackupError::Missing(database.to_owned()));
    }
    if output.exists() {
        return Err(BackupError::Exists(output.to_owned()));
    }
    let (copy, _) = Part::beside(output, "copy").map_err(written)?;
    let taken_at = clock.now();
    files::copy(database, &copy.0).await.map_err(BackupError::Copy)?;
    let facts = files::inspect(&copy.0).await.map_err(BackupError::Copy)?.ok_or(BackupError::Damaged)?;
    let program = env!("CARGO_PKG_VERSION").to_owned();
    let (schema, epoch) = (facts.schema, facts.epoch);
    let manifest = Manifest { program, schema, epoch, taken_at, bytes: 0, sha256: String::new() };
    write(&copy.0, output, manifest).map_err(written)
}

fn write(copy: &Path, output: &Path, mut manifest: Manifest) -> io::Result<Manifest> {
    let mut database = File::open(copy)?;
    manifest.bytes = database.metadata()?.len();
    let mut hashed = Hashed(io::sink(), manifest.hasher()?);
    io::copy(&mut database, &mut hashed)?;
    manifest.sha256 = Hex(&hashed.1.finalize()).to_string();

    let (part, mut file) = Part::beside(output, "part")?;
    writeln!(file, "{MAGIC}{}", serde_json::to_string(&manifest)?)?;
    io::copy(&mut File::open(copy)?, &mut file)?;
    file.sync_all()?;
    // A link, unlike a renaming, never replaces what came there meanwhile.
    std::fs::hard_link(&part.0, output)?;
    folder::sync(output)?;
    Ok(manifest)
}

/// What `restore` did.
#[derive(Debug)]
pub struct Restored {
    /// The backup's own word.
    pub manifest: Manifest,
    /// Where the content of the one that it replaced is.
    pub replaced: Option<PathBuf>,
}

impl fmt::Display for Restored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Restored: {}.", self.manifest)?;
        if let Some(replaced) = &self.replaced {
            writeln!(f, "What was there before is in {}.", replaced.display())?;
        }
        write!(
            f,
            "Review it before you serve it: what was disabled, deleted or revoked since then is not so in it, tokens \
             included. Bouncers that hold a newer epoch are answered all the same: it jumps past theirs."
        )
    }
}

/// Checks the backup, brings it up to date, and puts it at `database`: in the place of one that is there only with
/// `replace`, and never while a process has that one open.
///
/// # Errors
/// [`RestoreError`]; then the database is what it was.
pub async fn restore(database: &Path, input: &Path, replace: bool) -> Result<Restored, RestoreError> {
    let exists = database.symlink_metadata().is_ok();
    if exists && !replace {
        return Err(RestoreError::Exists(database.to_owned()));
    }
    let writing = |source| RestoreError::Write { path: database.to_owned(), source };
    let (part, file) = Part::beside(database, "part").map_err(writing)?;
    let manifest = extract(input, file, &part.0)?;
    let damaged = |what| RestoreError::Damaged { path: input.to_owned(), what };
    let facts = files::inspect(&part.0).await.map_err(RestoreError::Store)?;
    let facts = facts.ok_or_else(|| damaged("SQLite's own check finds its database damaged"))?;
    if (facts.schema, facts.epoch) != (manifest.schema, manifest.epoch) {
        return Err(damaged("its database has another schema or epoch than it says"));
    }
    let known = files::newest_schema();
    if facts.schema > known {
        return Err(RestoreError::Newer { schema: facts.schema, program: manifest.program, known });
    }
    let origin = format!("a backup taken at {}, epoch {}", manifest.taken_at, manifest.epoch);
    files::admit(&part.0, Arc::new(SystemClock), &origin).await.map_err(RestoreError::Store)?;
    File::open(&part.0).and_then(|file| file.sync_all()).map_err(writing)?;

    let aside = exists.then(|| {
        let name = database.file_name().unwrap_or_default().to_string_lossy();
        database.with_file_name(format!("{name}.replaced-{}", Timestamp::now().as_millisecond()))
    });
    match &aside {
        None => files::place(database, &part.0).await.map_err(RestoreError::Store)?,
        Some(aside) => match files::replace(database, &part.0, aside).await.map_err(RestoreError::Store)? {
            Placed::Yes => {}
            Placed::InUse => return Err(RestoreError::InUse),
        },
    }
    folder::sync(database).map_err(writing)?;
    Ok(Restored { manifest, replaced: aside })
}

/// Writes the backup's database to `part`, and proves that it is the one that was backed up.
fn extract(input: &Path, mut part: File, path: &Path) -> Result<Manifest, RestoreError> {
    let reading = |source| RestoreError::Read { path: input.to_owned(), source };
    let foreign = || RestoreError::Foreign(input.to_owned());
    let damaged = |what| RestoreError::Damaged { path: input.to_owned(), what };
    let mut file = BufReader::new(File::open(input).map_err(reading)?);
    let mut line = |limit| {
        let mut line = Vec::new();
        file.by_ref().take(limit).read_until(b'\n', &mut line).map_err(reading)?;
        String::from_utf8(line).map_err(|_| foreign())
    };
    if line(MAGIC.len() as u64)? != MAGIC {
        return Err(foreign());
    }
    let manifest: Manifest = serde_json::from_str(&line(MANIFEST_LIMIT)?).map_err(|_| damaged("its manifest"))?;
    let mut hashed = Hashed(&mut part, manifest.hasher().map_err(reading)?);
    // One byte more would show that something follows.
    let copied = io::copy(&mut file.take(manifest.bytes.saturating_add(1)), &mut hashed);
    let bytes = copied.map_err(|source| RestoreError::Write { path: path.to_owned(), source })?;
    let digest = Hex(&hashed.1.finalize()).to_string();
    if bytes < manifest.bytes {
        return Err(damaged("it is cut off"));
    }
    if bytes > manifest.bytes {
        return Err(damaged("something follows it"));
    }
    if digest != manifest.sha256 {
        return Err(damaged("its SHA-256 is another one"));
    }
    Ok(manifest)
}

/// Writes through, and hashes.
struct Hashed<W>(W, Sha256);

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.0.write(bytes)?;
        self.1.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
