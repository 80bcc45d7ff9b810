//! How far a long command is, on standard error: a bar on a terminal, a line for each step elsewhere.
//!
//! Called by `rewrap` and `audit export`. Says nothing where a program reads the answer.

use crate::output::{Output, printable};
use std::io::{IsTerminal as _, Write as _};

const WIDTH: usize = 20;
/// A line that wraps can't be drawn over.
const LABEL: usize = 44;

/// Steps of a known number.
#[derive(Debug)]
pub(crate) struct Progress {
    total: usize,
    done: usize,
    shown: Shown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Bar,
    Lines,
    Nothing,
}

impl Progress {
    /// Before the first step.
    pub(crate) fn new(total: usize, output: &Output) -> Self {
        let shown = match (output.is_json(), Self::can_redraw()) {
            (true, _) => Shown::Nothing,
            (false, true) => Shown::Bar,
            (false, false) => Shown::Lines,
        };
        Self { total, done: 0, shown }
    }

    fn can_redraw() -> bool {
        std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
    }

    /// One more is done, and what it was.
    pub(crate) fn step(&mut self, what: &str) {
        self.done += 1;
        let what = printable(what).replace('\n', " ");
        match self.shown {
            Shown::Bar => {
                let what: String = what.chars().take(LABEL).collect();
                write(&format!("\r\u{1b}[K{} {what}", bar(self.done, self.total)));
            }
            Shown::Lines => write(&format!("{}/{} {what}\n", self.done, self.total)),
            Shown::Nothing => {}
        }
    }
}

/// Lines and bytes that come in, of an unknown number.
#[derive(Debug)]
pub(crate) struct Tally {
    lines: u64,
    bytes: u64,
    redrawn: std::time::Instant,
    shown: bool,
}

impl Tally {
    /// Before the first. Shown where there is a terminal, and nothing else on it.
    pub(crate) fn new(quiet: bool) -> Self {
        let shown = !quiet && Progress::can_redraw();
        Self { lines: 0, bytes: 0, redrawn: std::time::Instant::now(), shown }
    }

    /// Some more.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.lines += bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
        if self.shown && self.redrawn.elapsed() >= std::time::Duration::from_millis(100) {
            self.redrawn = std::time::Instant::now();
            write(&format!("\r\u{1b}[K{} lines, {} KiB", self.lines, self.bytes / 1_024));
        }
    }

    /// Lines and bytes so far.
    pub(crate) const fn so_far(&self) -> (u64, u64) {
        (self.lines, self.bytes)
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.shown {
            write("\r\u{1b}[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown == Shown::Bar && self.done > 0 {
            // What follows takes the bar's place.
            write("\r\u{1b}[K");
        }
    }
}

fn bar(done: usize, total: usize) -> String {
    let full = (done * WIDTH).checked_div(total).unwrap_or(WIDTH).min(WIDTH);
    format!("[{}{}] {done}/{total}", "#".repeat(full), "-".repeat(WIDTH - full))
}

fn write(text: &str) {
    // Nobody is left to be told that standard error is closed.
    let mut err = std::io::stderr().lock();
    let _closed = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_full_at_the_end_and_never_longer() {
        assert_eq!(bar(0, 4), format!("[{}] 0/4", "-".repeat(WIDTH)));
        assert_eq!(bar(4, 4), format!("[{}] 4/4", "#".repeat(WIDTH)));
        assert!(bar(9, 4).starts_with(&format!("[{}]", "#".repeat(WIDTH))));
        assert!(bar(0, 0).contains("0/0"));
    }
}
