//! What a program does that was told to stop: drops its work, and ends what it started with it.

use crate::Result;
use std::fmt::Display;
use std::future::Future;
use std::io::Write as _;
use std::process::ExitCode;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// What a shell takes for a program that was told to stop.
pub const INTERRUPTED: u8 = 130;

/// The signals that end a program: SIGINT, SIGTERM and SIGHUP.
pub struct Stop {
    signals: [Signal; 3],
}

impl Stop {
    /// Listens to them from now on.
    ///
    /// # Errors
    /// If the system does not let it.
    pub fn new() -> Result<Self> {
        let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        let [interrupt, terminate, hangup] = kinds.map(signal);
        Ok(Self { signals: [interrupt?, terminate?, hangup?] })
    }

    /// Runs something until it ends, or a signal comes: then `None`, and what it held is dropped.
    pub async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            done = work => Some(done),
            _ = interrupt.recv() => None,
            _ = terminate.recv() => None,
            _ = hangup.recv() => None,
        }
    }
}

/// How a program of this crate ends: whether it kept what it promises, `None` if it was told to stop, or what went wrong.
/// Says the last two on standard error.
#[must_use]
pub fn exit_code(program: &str, ended: Result<Option<bool>>) -> ExitCode {
    let said = match ended {
        Ok(Some(true)) => return ExitCode::SUCCESS,
        Ok(Some(false)) => return ExitCode::FAILURE,
        Ok(None) => "stopped; everything that it started has been ended".to_owned(),
        Err(ref fault) => format!("failed: {fault}"),
    };
    progress(program, said);
    if ended.is_ok() { ExitCode::from(INTERRUPTED) } else { ExitCode::FAILURE }
}

/// A line for who waits, on standard error, so that the results on standard output stay clean.
pub fn progress(program: &str, line: impl Display) {
    let _ = writeln!(std::io::stderr(), "{program}: {line}");
}
