//! What people and scripts read: answers on standard output, warnings and failures on standard error.
//!
//! Called by every command. Text that came from elsewhere is printed without its control characters, since a control
//! plane in hostile hands could otherwise write whatever it likes into the operator's terminal.

use crate::failure::{Exit, Failure};
use serde::Serialize;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences.
    Human,
    /// One JSON document on standard output.
    Json,
}

/// Where a command writes to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    format: Format,
}

#[derive(Serialize)]
struct JsonFailure<'a> {
    error: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    advice: &'a str,
    exit_code: u8,
}

impl Output {
    /// An output of the given format.
    pub(crate) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// Whether a program reads the answer.
    pub(crate) const fn is_json(&self) -> bool {
        matches!(self.format, Format::Json)
    }

    /// Prints `value` as JSON, in either format.
    ///
    /// # Errors
    /// [`Failure::Output`] if standard output does not take it.
    pub(crate) fn json(&self, value: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(value).map_err(|error| Failure::Output(error.into()))?;
        text.push('\n');
        write_out(&text)
    }

    /// Prints text for people. Control characters other than line ends are replaced.
    ///
    /// # Errors
    /// [`Failure::Output`] if standard output does not take it.
    pub(crate) fn text(&self, text: &str) -> Result<(), Failure> {
        write_out(&format!("{}\n", printable(text.trim_end())))
    }

    /// Prints `value` as one line of JSON: an element of a stream.
    ///
    /// # Errors
    /// [`Failure::Output`] if standard output does not take it.
    pub(crate) fn line(&self, value: &serde_json::Value) -> Result<(), Failure> {
        write_out(&format!("{value}\n"))
    }

    /// Prints a script of our own making, as it is.
    ///
    /// # Errors
    /// [`Failure::Output`] if standard output does not take it.
    pub(crate) fn script(&self, script: &str) -> Result<(), Failure> {
        write_out(script)
    }

    /// Tells of something that went well and deserves attention, on standard error.
    pub(crate) fn warning(&self, text: &str) {
        write_err(&format!("warning: {}\n", printable(text)));
    }

    /// Tells of something done, on standard error, where standard output holds the answer.
    pub(crate) fn note(&self, text: &str) {
        write_err(&format!("{}\n", printable(text)));
    }

    /// Asks whether to go on. Yes where there is nobody to be asked: no terminal on both ends.
    pub(crate) fn confirm(&self, question: &str) -> bool {
        if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
            return true;
        }
        write_err(&format!("{question} [y/N] "));
        let mut answer = String::new();
        let read = std::io::stdin().lock().read_line(&mut answer);
        read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes" | "Yes")
    }

    /// Prints why a command failed, on standard error.
    pub(crate) fn failure(&self, failure: &Failure) {
        let (why, advice) = (failure.why(), failure.advice());
        if self.is_json() {
            let json =
                JsonFailure { error: failure.to_string(), why, advice: &advice, exit_code: failure.exit().code() };
            return write_err(&format!("{}\n", serde_json::to_string(&json).unwrap_or_default()));
        }
        let mut text = format!("bouncerctl: {failure}\n");
        for (label, part) in [("why", why.as_deref().unwrap_or_default()), ("do", &advice)] {
            if !part.is_empty() {
                text.push_str(&format!("  {label:>3}: {}\n", part.replace('\n', "\n       ")));
            }
        }
        write_err(&printable(&text));
    }

    /// [`Exit::Ok`] or [`Exit::Refused`].
    pub(crate) const fn exit(healthy: bool) -> Exit {
        if healthy { Exit::Ok } else { Exit::Refused }
    }
}

fn write_out(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::Output)
}

fn write_err(text: &str) {
    // Nobody is left to be told that standard error is closed.
    let _closed = std::io::stderr().lock().write_all(text.as_bytes());
}

/// `text` with every control character but the line end replaced.
pub(crate) fn printable(text: &str) -> String {
    let hidden =
        |c: char| (c.is_control() && c != '\n') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect()
}

/// Columns of text, each as wide as its widest cell; the last one runs free.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with a head.
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()] }
    }

    /// Adds a row.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        // A line end inside a cell would forge a row.
        self.rows.push(cells.into_iter().map(|cell| cell.replace('\n', " ")).collect());
    }

    /// The table as text; `empty` where it has a head only.
    pub(crate) fn render(&self, empty: &str) -> String {
        if self.rows.len() < 2 {
            return empty.to_owned();
        }
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |n: usize| self.rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..columns).map(|n| width(n).unwrap_or_default()).collect();
        let line = |row: &Vec<String>| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        self.rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_answer_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nc\u{202e}"), "a\u{fffd}[2Jb\u{fffd}\nc\u{fffd}");
        let mut table = Table::new(&["name"]);
        table.row(["ok\nforged row".to_owned()]);
        assert_eq!(table.render("none").lines().count(), 2);
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["a", "bb"]);
        assert_eq!(table.render("nothing"), "nothing");
        table.row(["long".to_owned(), "x".to_owned()]);
        assert_eq!(table.render("nothing"), "a     bb\nlong  x");
    }
}
