//! Small state on disk: written whole to a new file, synced, and renamed, so that a crash leaves the old or the new.
//! Never secret bytes.

use serde::{Serialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a state file could not be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// Truncated, changed, or not a file of ours. It is fetched anew.
    #[error("the file is damaged: its digest does not match its content, or it holds something else")]
    Damaged,
}

const DIGEST: usize = 32;

/// Replaces the file at `path`, readable by its owner only.
///
/// # Errors
/// [`io::Error`]; the old file stays then.
pub fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(&Sha256::digest(content))?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&new, path)?;
    sync_folder(path)
}

/// Removes the file at `path`, if there is one.
///
/// # Errors
/// [`io::Error`]; the file may be there still.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => sync_folder(path),
    }
}

fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads the file at `path`; `None` if there is none.
///
/// # Errors
/// [`StateError::Damaged`] if the content does not match its digest.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, StateError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut all = Vec::new();
    file.read_to_end(&mut all)?;
    let (digest, content) = all.split_at_checked(DIGEST).ok_or(StateError::Damaged)?;
    if Sha256::digest(content).as_slice() != digest {
        return Err(StateError::Damaged);
    }
    Ok(Some(content.to_vec()))
}

/// Replaces the record at `path`; JSON, as [`write`] writes it.
///
/// # Errors
/// [`io::Error`]; the old record stays then.
pub fn store(path: &Path, record: &impl Serialize) -> io::Result<()> {
    write(path, &serde_json::to_vec(record)?)
}

/// Reads the record at `path`; `None` if there is none.
///
/// # Errors
/// [`StateError::Damaged`] also where it is not a record of this kind.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, StateError> {
    let Some(content) = read(path)? else { return Ok(None) };
    serde_json::from_slice(&content).map(Some).map_err(|_| StateError::Damaged)
}

/// The wall clock in Unix milliseconds, for what is kept over a restart.
#[must_use]
pub fn unix_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_of_another_kind_is_damaged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert!(load::<Vec<u8>>(&path).unwrap().is_none());
        store(&path, &[1, 2]).unwrap();
        assert_eq!(load::<Vec<u8>>(&path).unwrap().unwrap(), [1, 2]);
        assert!(matches!(load::<String>(&path), Err(StateError::Damaged)));
    }

    #[test]
    fn what_is_damaged_is_refused_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert!(read(&path).unwrap().is_none());
        write(&path, b"content").unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"content");
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(matches!(read(&path), Err(StateError::Damaged)), "cut at {cut}");
            let mut flipped = whole.clone();
            flipped[cut] ^= 1;
            fs::write(&path, flipped).unwrap();
            assert!(matches!(read(&path), Err(StateError::Damaged)), "flipped at {cut}");
        }
    }
}
