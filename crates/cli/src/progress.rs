//! How far a command is: a bar with rate and time left on a terminal, else a plain line every ten seconds.
use crate::output::{bytes, duration, thousands};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Shown as kB, MB, GB.
    Bytes,
    /// Shown as numbers.
    Items,
    /// Nothing: only that something goes on.
    Nothing,
}

/// Something under way. Disappears from a terminal when dropped.
pub(crate) struct Progress {
    display: Display,
    what: String,
    unit: Unit,
    total: u64,
    started: Instant,
    /// What had been done before this run.
    n_before: u64,
}

enum Display {
    Silent,
    Bar(ProgressBar),
    Lines { last: Instant },
}

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

impl Progress {
    pub(crate) fn silent() -> Self {
        Self::with(Display::Silent, "", Unit::Nothing, 0)
    }

    pub(crate) fn bar(what: &str, unit: Unit, total: u64) -> Self {
        let bar = ProgressBar::with_draw_target((total > 0).then_some(total), ProgressDrawTarget::stderr());
        let template = match (unit, total) {
            (Unit::Nothing, _) => "{spinner} {msg} ({elapsed})",
            (Unit::Bytes, 0) => "{spinner} {msg} {decimal_bytes}, {decimal_bytes_per_sec}",
            (Unit::Items, 0) => "{spinner} {msg} {human_pos}, {per_sec}",
            (Unit::Bytes, _) => {
                "{msg} [{bar:30}] {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left"
            }
            (Unit::Items, _) => "{msg} [{bar:30}] {human_pos} of {human_len}, {per_sec}, {eta} left",
        };
        bar.set_style(ProgressStyle::with_template(template).expect("the template is valid").progress_chars("=> "));
        bar.set_message(what.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self::with(Display::Bar(bar), what, unit, total)
    }

    pub(crate) fn lines(what: &str, unit: Unit, total: u64) -> Self {
        Self::with(Display::Lines { last: Instant::now() }, what, unit, total)
    }

    fn with(display: Display, what: &str, unit: Unit, total: u64) -> Self {
        Self { display, what: what.to_owned(), unit, total, started: Instant::now(), n_before: 0 }
    }

    /// Says that `done` of the total had been done before, so that it does not count for the rate.
    pub(crate) fn resume_at(&mut self, done: u64) {
        self.n_before = done;
        self.started = Instant::now();
        if let Display::Bar(bar) = &self.display {
            bar.set_position(done);
            bar.reset_eta();
        }
    }

    /// Changes what is under way.
    pub(crate) fn set_what(&mut self, what: impl Into<String>) {
        self.what = what.into();
        if let Display::Bar(bar) = &self.display {
            bar.set_message(self.what.clone());
        }
    }

    /// Says how much is done.
    pub(crate) fn set(&mut self, done: u64) {
        let line = self.line(done);
        match &mut self.display {
            Display::Silent => {}
            Display::Bar(bar) => bar.set_position(done),
            Display::Lines { last } if last.elapsed() >= LINE_EVERY => {
                *last = Instant::now();
                let _ = writeln!(io::stderr(), "{line}");
            }
            Display::Lines { .. } => {}
        }
    }

    /// Runs `print` while nothing of the bar is on the screen.
    pub(crate) fn pause<T>(&self, print: impl FnOnce() -> T) -> T {
        match &self.display {
            Display::Bar(bar) => bar.suspend(print),
            Display::Silent | Display::Lines { .. } => print(),
        }
    }

    /// The plain line.
    fn line(&self, done: u64) -> String {
        let count = |number: u64| if self.unit == Unit::Bytes { bytes(number) } else { thousands(number) };
        let secs = self.started.elapsed().as_secs_f64();
        if self.unit == Unit::Nothing {
            return format!("{}: {}", self.what, duration(secs));
        }
        let rate = done.saturating_sub(self.n_before) as f64 / secs.max(1e-9);
        let rate_text = if self.unit == Unit::Bytes { bytes(rate as u64) } else { format!("{rate:.1}") };
        if self.total == 0 || rate <= 0.0 {
            return format!("{}: {}, {rate_text}/s", self.what, count(done));
        }
        let left = duration(self.total.saturating_sub(done) as f64 / rate);
        let percent = 100.0 * done as f64 / self.total as f64;
        format!("{}: {percent:.0}%, {} of {}, {rate_text}/s, {left} left", self.what, count(done), count(self.total))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Display::Bar(bar) = &self.display {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_line_tells_rate_and_time_left() {
        let mut progress = Progress::lines("indexing", Unit::Bytes, 4_000_000);
        progress.resume_at(1_000_000);
        progress.started = Instant::now().checked_sub(Duration::from_secs(20)).expect("the clock runs for 20 s");
        let line = progress.line(2_000_000);
        assert!(line.starts_with("indexing: 50%, 2.0 MB of 4.0 MB, ") && line.ends_with("/s, 40 s left"), "{line}");
        let unknown = Progress::lines("sampling", Unit::Items, 0).line(1_500);
        assert!(unknown.starts_with("sampling: 1,500, "), "{unknown}");
    }
}
