//! `bootstrap`: brings the database up to date and writes the first administrator's token to a file, once.

use crate::clock::SystemClock;
use crate::config::DatabaseConfig;
use crate::folder;
use crate::store::{Conflict, StoreError};
use crate::token::{NoRandomness, Token};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Why no token was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapError {
    /// The database could not be opened.
    #[error("cannot open the database: {source}{advice}")]
    Store {
        /// Why.
        #[source]
        source: StoreError,
        /// What to look at, behind that.
        advice: &'static str,
    },
    /// There is a token already.
    #[error(
        "this database was bootstrapped before, so it has its first token. Use that one; if it is lost, run \
             'bootstrap' again with --replace-tokens and a new --token-file, which revokes every token there is"
    )]
    Already,
    /// The token file exists.
    #[error("{} exists, and is never overwritten. Give a path that does not exist with --token-file", .0.display())]
    FileExists(PathBuf),
    /// The token file could not be written.
    #[error("cannot write {}: {}. No token was stored; give a path that this user may write with --token-file",
            path.display(), source.kind())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// No token could be made.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
}

/// Creates the token and its file. With `replace`, every earlier token is revoked first.
///
/// # Errors
/// [`BootstrapError`]; then no new token is valid, and no file is left behind.
pub async fn bootstrap(database: &DatabaseConfig, token_file: &Path, replace: bool) -> Result<(), BootstrapError> {
    let failed = |source| BootstrapError::Store { advice: database.advice(&source), source };
    let store = database.open(Arc::new(SystemClock)).await.map_err(failed)?;
    let token = Token::generate()?;
    if !replace && !store.tokens().await.map_err(failed)?.is_empty() {
        return Err(BootstrapError::Already);
    }
    // The file first: a token that is stored but was never written down would be lost, and with it the database.
    write(token_file, &token)?;
    let stored = if replace {
        store.replace_tokens("bootstrap", &token.hash()).await
    } else {
        store.bootstrap("bootstrap", &token.hash()).await
    };
    store.close().await;
    stored.map_err(|error| {
        // The file holds a token that is good for nothing. If it cannot be removed either, it only misleads.
        let _ = std::fs::remove_file(token_file);
        match error {
            StoreError::Conflict(Conflict::AlreadyBootstrapped) => BootstrapError::Already,
            other => failed(other),
        }
    })
}

fn write(path: &Path, token: &Token) -> Result<(), BootstrapError> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::AlreadyExists => BootstrapError::FileExists(path.to_owned()),
        _ => BootstrapError::File { path: path.to_owned(), source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let written = writeln!(file, "{}", token.reveal()).and_then(|()| file.sync_all()).and_then(|()| folder::sync(path));
    written.map_err(|source| {
        let _ = std::fs::remove_file(path);
        failed(source)
    })
}
