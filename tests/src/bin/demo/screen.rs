//! What the demo prints: 100 columns, colour only where a person looks at it.
//!
//! Called by every other module. A terminal that goes away is no reason to stop: what was started still has to be ended.

use std::io::{IsTerminal as _, Write as _};

const WIDTH: usize = 100;

/// Standard output.
#[derive(Clone, Copy)]
pub(crate) struct Screen {
    colour: bool,
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// As promised.
    Held,
    /// Not as promised.
    Broken,
    /// This machine does not let the demo look.
    NotChecked,
}

#[derive(Clone, Copy)]
enum Style {
    Plain,
    Bold,
    Dim,
    Green,
    Red,
    Yellow,
    Cyan,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "0",
            Self::Bold => "1",
            Self::Dim => "2",
            Self::Green => "32",
            Self::Red => "31",
            Self::Yellow => "33",
            Self::Cyan => "36",
        }
    }
}

impl Screen {
    /// In colour on a terminal, unless `NO_COLOR` is set.
    pub(crate) fn new() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self { colour: std::io::stdout().is_terminal() && !unwanted && !dumb }
    }

    fn paint(self, style: Style, text: &str) -> String {
        match style {
            Style::Plain => text.to_owned(),
            _ if !self.colour => text.to_owned(),
            _ => format!("\x1b[{}m{text}\x1b[0m", style.code()),
        }
    }

    fn line(self, text: &str) {
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{text}");
        let _ = out.flush();
    }

    /// An empty line.
    pub(crate) fn blank(self) {
        self.line("");
    }

    /// What a chapter is about.
    pub(crate) fn heading(self, text: &str) {
        let rule = "─".repeat(WIDTH.saturating_sub(text.chars().count() + 4));
        self.blank();
        self.line(&format!("{} {}", self.paint(Style::Bold, &format!("── {text}")), self.paint(Style::Dim, &rule)));
    }

    /// A paragraph.
    pub(crate) fn say(self, text: &str) {
        self.paragraph("", "", text, Style::Plain);
    }

    /// A call, as a user would type it; the lines after the first go on with it.
    pub(crate) fn call(self, command: &str) {
        self.blank();
        for (index, line) in command.lines().enumerate() {
            let mark = if index == 0 { "$ " } else { "  " };
            self.line(&format!("{}{}", self.paint(Style::Dim, mark), self.paint(Style::Cyan, line)));
        }
    }

    /// What came back.
    pub(crate) fn answer(self, text: &str) {
        self.paragraph("→ ", "  ", text, Style::Plain);
    }

    /// What came back, where it was a no.
    pub(crate) fn refusal(self, text: &str) {
        self.paragraph("→ ", "  ", text, Style::Yellow);
    }

    /// Text that was laid out elsewhere, as it is.
    pub(crate) fn verbatim(self, text: &str) {
        for line in text.trim_end().lines() {
            self.line(format!("  {line}").trim_end());
        }
    }

    /// A row of what is being done.
    pub(crate) fn row(self, mark: Verdict, text: &str) {
        self.line(format!("  {} {text}", self.mark(mark)).trim_end());
    }

    /// A promise, and what it rests on.
    pub(crate) fn promise(self, verdict: Verdict, text: &str, evidence: &[String]) {
        self.blank();
        self.line(&format!("{} {}", self.mark(verdict), self.paint(Style::Bold, text)));
        for piece in evidence {
            self.paragraph("  ", "    ", piece, Style::Plain);
        }
    }

    /// The last word.
    pub(crate) fn summary(self, good: bool, text: &str) {
        self.blank();
        self.line(&self.paint(if good { Style::Green } else { Style::Red }, text));
    }

    fn mark(self, verdict: Verdict) -> String {
        match verdict {
            Verdict::Held => self.paint(Style::Green, "✓"),
            Verdict::Broken => self.paint(Style::Red, "✗"),
            Verdict::NotChecked => self.paint(Style::Yellow, "–"),
        }
    }

    fn paragraph(self, first: &str, next: &str, text: &str, style: Style) {
        for (index, line) in wrap(text, WIDTH - first.chars().count()).iter().enumerate() {
            let indent = if index == 0 { first } else { next };
            self.line(&format!("{indent}{}", self.paint(style, line.trim_end())));
        }
    }
}

/// Breaks text at its spaces; what is longer than a line stays whole. Spaces at the start of it are kept.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let indent: String = text.chars().take_while(|c| *c == ' ').collect();
    let mut lines = vec![indent];
    for word in text.trim_start().split(' ') {
        if let Some(line) = lines.last_mut() {
            let used = line.chars().count();
            if line.trim().is_empty() {
                line.push_str(word);
                continue;
            }
            if used + 1 + word.chars().count() <= width {
                line.push(' ');
                line.push_str(word);
                continue;
            }
        }
        lines.push(word.to_owned());
    }
    lines
}

/// Cuts the middle out of a text that is longer than `limit` characters.
pub(crate) fn shorten(text: &str, limit: usize) -> String {
    let count = text.chars().count();
    if count <= limit {
        return text.to_owned();
    }
    let kept: String = text.chars().take(limit.saturating_sub(9)).collect();
    let end: String = text.chars().skip(count - 8).collect();
    format!("{kept}…{end}")
}

/// Bytes, as people count them.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        0..1_024 => format!("{bytes} bytes"),
        1_024..1_048_576 => format!("{} KiB", bytes / 1_024),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_wrapped_at_spaces_and_columns_are_kept() {
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("a   b", 10), ["a   b"]);
        assert_eq!(wrap("averylongword x", 4), ["averylongword", "x"]);
        assert_eq!(shorten("abcdefghijklmnopqrstuvwxyz", 12), "abc…stuvwxyz");
        assert_eq!(shorten("short", 12), "short");
    }
}
