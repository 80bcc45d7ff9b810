//! Where the programs are that scenarios run: pinned tools under `.tools/bin`, our own beside the test binary.

use crate::{Fault, Result};
use std::path::{Path, PathBuf};

/// The root of the workspace.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// A pinned tool, as `scripts/tools` installs it.
///
/// # Errors
/// If it is not installed; the message says how to get it.
pub fn tool(name: &str) -> Result<PathBuf> {
    let path = root().join(".tools/bin").join(name);
    if path.exists() {
        return Ok(path);
    }
    Err(Fault::new(format!("{name} is not installed: run `make tools` (scripts/tools all)")))
}

/// One of our own binaries, from the same target folder and profile as this program.
///
/// # Errors
/// If it is not built; the message says how to.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    // Test binaries lie in `target/<profile>/deps`, others in `target/<profile>`.
    own.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .ok_or_else(|| Fault::new(format!("{name} is not built: run `make build`")))
}

/// The wasm filter.
///
/// # Errors
/// If it is not built; the message says how to.
pub fn filter() -> Result<PathBuf> {
    wasm("bouncer_filter.wasm")
}

/// A wasm module that `scripts/build-wasm` has made.
///
/// # Errors
/// If it is not built; the message says how to.
pub fn wasm(name: &str) -> Result<PathBuf> {
    let path = root().join("target/wasm").join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(Fault::new(format!("{name} is not built: run `make wasm` (scripts/build-wasm)")))
}
