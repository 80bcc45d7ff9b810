//! The folder that a file lies in, or will.

use std::fs::File;
use std::io;
use std::path::Path;

/// The file's folder; the current one for a bare name.
#[must_use]
pub fn of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes the file's name as durable as its content.
///
/// # Errors
/// [`io::Error`] if the folder cannot be opened or synced.
pub fn sync(path: &Path) -> io::Result<()> {
    File::open(of(path))?.sync_all()
}
