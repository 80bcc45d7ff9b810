//! A program under test: a process group of its own that ends with its owner, and a log in the scenario's folder.

use crate::scratch::{Scratch, tail};
use crate::{Fault, Result, fault::Doing as _};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::future::Future;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A running program. Dropping it kills it with all its children.
pub struct Process {
    name: String,
    // Behind a lock since a wait may reap it while another looks at it.
    child: Mutex<Child>,
    pid: Pid,
    log: PathBuf,
}

impl Process {
    /// Starts a program; its output is appended to `<name>.log` in the folder.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn(name: &str, scratch: &Scratch, mut command: Command) -> Result<Self> {
        let log = scratch.file(&format!("{name}.log"));
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
        let program = command.get_program().to_string_lossy().into_owned();
        let child = command.spawn().doing(format!("starting {name} ({program})"))?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or_else(|| Fault::new("no such pid"))?;
        Ok(Self { name: name.to_owned(), child: Mutex::new(child), pid, log })
    }

    /// The name it was given.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Its output so far.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// How it ended, or `None` while it runs.
    #[must_use]
    pub fn exited(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait().ok().flatten()
    }

    /// Waits until `condition` gives a value.
    ///
    /// # Errors
    /// After `deadline`, or as soon as the process has ended; with the end of its log.
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
        let fault = Fault::new(format!("{}: {}", self.name, what.into()));
        async move {
            let start = Instant::now();
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            loop {
                tick.tick().await;
                if let Ok(Some(value)) = tokio::time::timeout(deadline, condition()).await {
                    return Ok(value);
                }
                let why = match self.exited() {
                    Some(status) => format!("it ended before that, with {status}\n"),
                    None if start.elapsed() > deadline => format!("not within {deadline:?}\n"),
                    None => continue,
                };
                return Err(fault.with_evidence(why).with_evidence(tail(&self.log)));
            }
        }
    }

    /// Waits until the log holds `text`.
    ///
    /// # Errors
    /// As [`Self::until`].
    #[track_caller]
    pub fn logs(&self, text: &str, deadline: Duration) -> impl Future<Output = Result<()>> {
        let text = text.to_owned();
        self.until(format!("logs {text:?}"), deadline, move || {
            let found = self.log().contains(&text);
            async move { found.then_some(()) }
        })
    }

    /// SIGKILL, to the whole group, and waits for the end.
    pub fn kill(&self) {
        let _ = kill_process_group(self.pid, Signal::KILL);
        let _ = self.child.lock().unwrap_or_else(PoisonError::into_inner).wait();
    }

    /// Sends a signal to the process alone.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(self.pid, signal).doing(format!("signal to {}", self.name))
    }

    /// SIGTERM, then waits for the end.
    ///
    /// # Errors
    /// If it does not end within `deadline`.
    pub async fn terminate(&self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        let start = Instant::now();
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            tick.tick().await;
            if let Some(status) = self.exited() {
                return Ok(status);
            }
            if start.elapsed() > deadline {
                let why = format!("{} did not end within {deadline:?} of SIGTERM", self.name);
                return Err(Fault::new(why).with_evidence(tail(&self.log)));
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A group whose leader was reaped may be anyone's by now.
        if self.exited().is_none() {
            self.kill();
        }
    }
}
