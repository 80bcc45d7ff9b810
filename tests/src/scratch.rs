//! A scenario's own folder, its ports, and its waiting.

pub use crate::ports::free_port;
use crate::{Fault, Result, fault::Doing as _};
use std::fmt::Write as _;
use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(20);
const TAIL: usize = 3_000;

/// A temporary folder that goes when the scenario ends, unless it fails or `BOUNCER_TEST_KEEP` is set.
pub struct Scratch {
    folder: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// A new folder, named after the scenario.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn new(scenario: &str) -> Result<Self> {
        // Unix sockets lie in it, whose paths may have 108 bytes.
        let short: String = scenario.chars().take(24).collect();
        let folder =
            tempfile::Builder::new().prefix(&format!("bouncer-{short}-")).tempdir().doing("a scratch folder")?;
        let path = folder.path().to_path_buf();
        Ok(Self { folder: Some(folder), path })
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Writes a file that only its owner may read.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<PathBuf> {
        use std::io::Write as _;
        use std::os::unix::fs::OpenOptionsExt as _;
        let path = self.file(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path).doing(name)?;
        file.write_all(content.as_ref())?;
        Ok(path)
    }

    /// Makes a folder in it.
    ///
    /// # Errors
    /// If it can't be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.file(name);
        std::fs::create_dir_all(&path).doing(name)?;
        Ok(path)
    }

    /// Waits until `condition` gives a value.
    ///
    /// # Errors
    /// After `deadline`, with the ends of all logs in the folder.
    #[track_caller]
    pub fn until<T, F>(
        &self,
        what: impl Into<String>,
        deadline: Duration,
        mut condition: impl FnMut() -> F,
    ) -> impl Future<Output = Result<T>>
    where
        F: Future<Output = Option<T>>,
    {
        let late = Fault::new(format!("{} did not happen within {deadline:?}", what.into()));
        async move {
            let start = Instant::now();
            let mut tick = tokio::time::interval(POLL);
            loop {
                tick.tick().await;
                if let Ok(Some(value)) = tokio::time::timeout(deadline, condition()).await {
                    return Ok(value);
                }
                if start.elapsed() > deadline {
                    return Err(late.with_evidence(self.log_tails()));
                }
            }
        }
    }

    /// The ends of all logs in the folder.
    #[must_use]
    pub fn log_tails(&self) -> String {
        let mut out = String::new();
        let mut logs: Vec<_> = std::fs::read_dir(&self.path)
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|path| path.extension().is_some_and(|ext| ext == "log"))
            .collect();
        logs.sort();
        for log in logs {
            let _ = write!(out, "--- {}\n{}\n", log.display(), tail(&log));
        }
        out
    }
}

/// The end of a log.
#[must_use]
pub fn tail(log: &Path) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let mut start = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let keep = std::thread::panicking() || std::env::var_os("BOUNCER_TEST_KEEP").is_some();
        if let (true, Some(folder)) = (keep, self.folder.take()) {
            let _ = folder.keep();
        }
    }
}

/// Whether something listens there.
pub async fn listens(address: SocketAddr) -> bool {
    tokio::net::TcpStream::connect(address).await.is_ok()
}
