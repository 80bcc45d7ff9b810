//! Reading what the operator names: files and standard input, bounded, with a look at who else may read them.
//!
//! Also making new ones: for a token, and for what `export` writes.
//!
//! Called by `wrap`, `register`, `tokens`, `export`, `apply` and the control plane's settings. Content is handed on in
//! wiped memory; no error repeats any of it.

use crate::failure::{Exit, Explain};
use crate::output::Output;
use std::fs::File;
use std::io::{Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// More than any bundle or wrapped envelope needs.
const LIMIT: usize = 64 * 1024;

/// A file that could not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It can't be opened or read.
    #[error("{what} {} could not be read", .path.display())]
    Unreadable {
        /// What it is for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is longer than anything useful.
    #[error("{what} {} is longer than {limit} bytes", .path.display())]
    TooLong {
        /// What it is for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What it may have.
        limit: usize,
    },
    /// A new file can't be made.
    #[error("{what} {} could not be made", .path.display())]
    NotMade {
        /// What it is for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file can't be written.
    #[error("{what} {} could not be written", .path.display())]
    NotWritten {
        /// What it is for.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is no text.
    #[error("{what} {} is not text", .path.display())]
    NotText {
        /// What it is for.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
}

impl Explain for FileError {
    fn why(&self) -> Option<String> {
        match self {
            Self::Unreadable { source, .. } | Self::NotMade { source, .. } | Self::NotWritten { source, .. } => {
                Some(source.to_string())
            }
            Self::TooLong { .. } | Self::NotText { .. } => None,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Unreadable { .. } => "Check the path, and that this user may read it.",
            Self::NotMade { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists => {
                "Give another path, or remove the file: it is never overwritten. Nothing was asked of the control plane."
            }
            Self::NotMade { .. } => {
                "Check the path, and that this user may write there. Nothing was asked of the control plane."
            }
            Self::NotWritten { .. } => "Check the path, the disk behind it, and that this user may write there.",
            Self::TooLong { .. } => "Check the path: this is probably another file than the one meant.",
            Self::NotText { .. } => "Check the path. PEM, JSON and tokens are text; DER and PKCS#12 must be converted first (openssl x509, openssl pkcs12 -nodes).",
        }
        .to_owned()
    }

    fn exit(&self) -> Exit {
        Exit::Usage
    }
}

/// What was read, and whether others than its owner can read it too.
pub(crate) struct Input {
    /// The content.
    pub text: Zeroizing<String>,
    /// Whether group or world may read the file. Never of standard input.
    pub exposed: bool,
}

/// Reads `path`, or standard input for `-`.
///
/// # Errors
/// [`FileError`], naming the path and never the content.
pub(crate) fn read(path: &Path, what: &'static str) -> Result<Input, FileError> {
    read_up_to(path, what, LIMIT)
}

/// As [`read`], with a length of its own.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_up_to(path: &Path, what: &'static str, limit: usize) -> Result<Input, FileError> {
    let unreadable = |source| FileError::Unreadable { what, path: path.to_owned(), source };
    if path == Path::new("-") {
        let text = read_text(std::io::stdin().lock(), path, what, limit)?;
        return Ok(Input { text, exposed: false });
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let exposed = metadata.is_file() && metadata.permissions().mode() & 0o044 != 0;
    Ok(Input { text: read_text(file, path, what, limit)?, exposed })
}

/// Reads a token, and warns where others may read it too.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_token(path: &Path, what: &'static str, output: &Output) -> Result<Zeroizing<String>, FileError> {
    let input = read(path, what)?;
    if input.exposed {
        output.warning(&format!(
            "{} can be read by others than its owner: whoever reads it holds the token. chmod 600 it.",
            path.display()
        ));
    }
    Ok(input.text)
}

fn read_text(source: impl Read, path: &Path, what: &'static str, limit: usize) -> Result<Zeroizing<String>, FileError> {
    // Whole from the start: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    source.take(limit as u64 + 1).read_to_end(&mut bytes).map_err(|source| FileError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() > limit {
        return Err(FileError::TooLong { what, path: path.to_owned(), limit });
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(FileError::NotText { what, path: path.to_owned() }),
    }
}

/// Keeps a secret as the one line of a new file, which only its owner may read, durably.
///
/// # Errors
/// [`FileError::NotMade`]; then there is no file.
pub(crate) fn keep_secret(path: &Path, what: &'static str, secret: &str) -> Result<(), FileError> {
    let failed = |source| FileError::NotMade { what, path: path.to_owned(), source };
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let line = Zeroizing::new(format!("{secret}\n"));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let written =
        file.write_all(line.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| File::open(folder)?.sync_all());
    written.map_err(|source| {
        remove_secret(path);
        failed(source)
    })
}

/// Takes away the file of a secret that came to nothing.
pub(crate) fn remove_secret(path: &Path) {
    // What can't be removed is good for nothing.
    let _left = std::fs::remove_file(path);
}

/// Writes what is no secret, in place of what the file held: all of it or nothing.
///
/// # Errors
/// [`FileError::NotWritten`].
pub(crate) fn write(path: &Path, what: &'static str, content: &str) -> Result<(), FileError> {
    let written = Unfinished::create(path, 0o666).and_then(|mut file| {
        file.write(content.as_bytes())?;
        file.finish()
    });
    written.map_err(|source| FileError::NotWritten { what, path: path.to_owned(), source })
}

/// A file under another name until it is whole. Dropped before that, it is taken away, and what was there stays.
pub(crate) struct Unfinished {
    file: File,
    part: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl Unfinished {
    /// Begins what is to be at `path`, with this mode as far as the umask allows.
    ///
    /// # Errors
    /// If the file can't be made there.
    pub(crate) fn create(path: &Path, mode: u32) -> std::io::Result<Self> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::options().write(true).create(true).truncate(true).mode(mode).open(&part)?;
        Ok(Self { file, part, path: path.to_owned(), finished: false })
    }

    /// Adds to it.
    ///
    /// # Errors
    /// If the disk takes no more.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Puts it in its place, durably.
    ///
    /// # Errors
    /// If that fails; then the old content stays.
    pub(crate) fn finish(mut self) -> std::io::Result<()> {
        self.file.sync_all()?;
        std::fs::rename(&self.part, &self.path)?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.finished {
            // There is nothing left to do about a file that can't be removed.
            let _left = std::fs::remove_file(&self.part);
        }
    }
}

/// Keeps a crash from writing the memory of this process, and with it a plaintext, to disk. Where the system refuses,
/// there is nothing to do about it, and nothing that would be safer than going on.
pub(crate) fn forbid_core_dumps() {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _refused = setrlimit(Resource::Core, none);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_who_may_read_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        for (mode, exposed) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true)] {
            let path = folder.path().join(format!("{mode:o}"));
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path, "file").unwrap().exposed, exposed, "{mode:o}");
        }
    }

    #[test]
    fn a_file_for_a_secret_is_new_and_its_owners_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        keep_secret(&path, "token file", "abc").unwrap();
        assert!(matches!(keep_secret(&path, "token file", "def"), Err(FileError::NotMade { .. })));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "abc\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        remove_secret(&path);
        assert!(!path.exists());
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        std::fs::write(&path, vec![b'a'; LIMIT + 1]).unwrap();
        assert!(matches!(read(&path, "file"), Err(FileError::TooLong { .. })));
        std::fs::write(&path, [0x30, 0x82, 0xff]).unwrap();
        assert!(matches!(read(&path, "file"), Err(FileError::NotText { .. })));
        assert!(matches!(read(&folder.path().join("absent"), "file"), Err(FileError::Unreadable { .. })));
    }
}
