//! Standard output and standard error: results go to the one, everything said about them to the other.
use crate::environment;
use crate::progress::{Progress, Unit};
use serde::Serialize;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};

/// Where a command says things.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    quiet: bool,
    stderr_is_terminal: bool,
    colors: bool,
}

/// Whoever read our standard output stopped reading.
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub(crate) struct StdoutClosed;

impl Output {
    pub(crate) fn new(quiet: bool) -> Self {
        let colors = io::stdout().is_terminal() && !environment::wants_no_color();
        Self { quiet, stderr_is_terminal: io::stderr().is_terminal(), colors }
    }

    /// A line of the result.
    pub(crate) fn line(&self, line: impl Display) -> anyhow::Result<()> {
        self.text(format_args!("{line}\n"))
    }

    /// A part of the result as it is, such as a table that ends with a line break.
    pub(crate) fn text(&self, text: impl Display) -> anyhow::Result<()> {
        let mut stdout = io::stdout().lock();
        match write!(stdout, "{text}").and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(StdoutClosed.into()),
            Err(error) => Err(anyhow::Error::new(error).context("cannot write to standard output")),
        }
    }

    /// A result as one line of JSON.
    pub(crate) fn json(&self, value: &impl Serialize) -> anyhow::Result<()> {
        self.line(serde_json::to_string(value)?)
    }

    /// A remark beside the result; with `--quiet` none.
    pub(crate) fn note(&self, note: impl Display) {
        if !self.quiet {
            // There is nowhere left to say that stderr is gone.
            let _ = writeln!(io::stderr(), "{note}");
        }
    }

    /// An error with its causes, said even with `--quiet`.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        let mut said = error.to_string();
        let mut text = format!("error: {said}\n");
        for cause in error.chain().skip(1).map(ToString::to_string) {
            // Some errors tell their cause in their own words.
            if !said.contains(&cause) {
                text.push_str(&format!("  because: {cause}\n"));
                said = cause;
            }
        }
        let _ = io::stderr().write_all(text.as_bytes());
    }

    /// A bar on a terminal, else a line every ten seconds; with `--quiet` nothing. `total` 0 means unknown.
    pub(crate) fn progress(&self, what: &str, unit: Unit, total: u64) -> Progress {
        match (self.quiet, self.stderr_is_terminal) {
            (true, _) => Progress::silent(),
            (false, true) => Progress::bar(what, unit, total),
            (false, false) => Progress::lines(what, unit, total),
        }
    }

    /// Emphasis: bold where there are colours, else `mark` on both sides.
    pub(crate) fn strong(&self, text: &str, mark: &str) -> String {
        if self.colors { format!("\x1b[1;32m{text}\x1b[0m") } else { format!("{mark}{text}{mark}") }
    }

    /// Less important: dim where there are colours.
    pub(crate) fn dim(&self, text: impl Display) -> String {
        if self.colors { format!("\x1b[2m{text}\x1b[0m") } else { text.to_string() }
    }
}

/// `text` from a file or a model on one line, safe for a terminal: control characters and line breaks become spaces.
pub(crate) fn printable(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { ' ' } else { character }).collect()
}

/// The beginning of `text`, at most `n_chars` characters, cut at a word.
pub(crate) fn snippet(text: &str, n_chars: usize) -> String {
    let text = printable(text.trim());
    let Some((cut, _)) = text.char_indices().nth(n_chars) else { return text };
    let end = text[..cut].rfind(' ').filter(|end| *end > cut / 2).unwrap_or(cut);
    format!("{} ...", text[..end].trim_end())
}

/// `1234567` as `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (idx, digit) in digits.chars().enumerate() {
        if idx > 0 && (digits.len() - idx).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A size in decimal units, as `1.5 GB`.
pub(crate) fn bytes(n_bytes: u64) -> String {
    match n_bytes {
        0..1_000 => format!("{n_bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", n_bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", n_bytes as f64 / 1e6),
        _ => format!("{:.2} GB", n_bytes as f64 / 1e9),
    }
}

/// A duration, as `7.5 s` or `1 h 02 min`.
pub(crate) fn duration(secs: f64) -> String {
    let whole = secs.round() as u64;
    match whole {
        0..10 => format!("{secs:.1} s"),
        10..120 => format!("{whole} s"),
        120..7_200 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!([0, 12, 1_234, 21_015_324].map(thousands), ["0", "12", "1,234", "21,015,324"]);
        assert_eq!([12, 1_500, 538_090_408, 4_200_000_000].map(bytes), ["12 bytes", "1.5 kB", "538.1 MB", "4.20 GB"]);
        assert_eq!([0.25, 61.0, 125.0, 7_500.0].map(duration), ["0.2 s", "61 s", "2 min 05 s", "2 h 05 min"]);
    }

    #[test]
    fn snippets_end_at_words_and_hold_no_control_characters() {
        assert_eq!(snippet("one two three", 20), "one two three");
        assert_eq!(snippet("one two three", 9), "one two ...");
        assert_eq!(snippet("änderungsschneiderei", 6), "änderu ...");
        assert_eq!(snippet("a\u{1b}[31m\nb", 20), "a [31m b");
    }
}
