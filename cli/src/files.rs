//! Reading what the operator names: files and standard input, bounded, with a look at who else may read them.
//!
//! Called by `wrap`, `register` and the control plane's settings. Content is handed on in wiped memory; no error repeats
//! any of it.

use crate::failure::{Exit, Explain};
use crate::output::Output;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
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
    #[error("{what} {} is longer than {LIMIT} bytes", .path.display())]
    TooLong {
        /// What it is for.
        what: &'static str,
        /// Where.
        path: PathBuf,
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
            Self::Unreadable { source, .. } => Some(source.to_string()),
            Self::TooLong { .. } | Self::NotText { .. } => None,
        }
    }

    fn advice(&self) -> String {
        match self {
            Self::Unreadable { .. } => "Check the path, and that this user may read it.",
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
    let unreadable = |source| FileError::Unreadable { what, path: path.to_owned(), source };
    if path == Path::new("-") {
        let text = read_text(std::io::stdin().lock(), path, what)?;
        return Ok(Input { text, exposed: false });
    }
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    let exposed = metadata.is_file() && metadata.permissions().mode() & 0o044 != 0;
    Ok(Input { text: read_text(file, path, what)?, exposed })
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

fn read_text(source: impl Read, path: &Path, what: &'static str) -> Result<Zeroizing<String>, FileError> {
    // Whole from the start: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT + 1));
    source.take(LIMIT as u64 + 1).read_to_end(&mut bytes).map_err(|source| FileError::Unreadable {
        what,
        path: path.to_owned(),
        source,
    })?;
    if bytes.len() > LIMIT {
        return Err(FileError::TooLong { what, path: path.to_owned() });
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok(Zeroizing::new(text.to_owned())),
        Err(_) => Err(FileError::NotText { what, path: path.to_owned() }),
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
    use std::os::unix::fs::OpenOptionsExt as _;

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
