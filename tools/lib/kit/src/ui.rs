//! What people see while work goes on: progress on a terminal, plain dated lines elsewhere. Always on
//! standard error; standard output belongs to the result.

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::{Cause, Context, Result};

/// How the result is written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// JSON with a schema.
    Json,
}

/// The way to talk to whoever called us. Cheap to clone, may be shared by threads.
#[derive(Clone)]
pub struct Ui {
    /// What the result is to look like.
    pub output: Output,
    /// Whether colour may be used on standard error.
    pub colour: bool,
    quiet: bool,
    bars: Option<MultiProgress>,
}

/// Writes for a reader who may have seen enough, as with `| head`: the rest is nobody's.
struct Patient<W>(W);

impl<W: Write> Write for Patient<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            written => written,
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self.0.flush() {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            flushed => flushed,
        }
    }
}

/// A piece of work that takes a while.
pub struct Step {
    ui: Ui,
    name: String,
    began: Instant,
    bar: Option<ProgressBar>,
    last: Arc<Mutex<Instant>>,
    open: bool,
}

/// In a plain log a step says at most this often how far it is.
const PLAIN_INTERVAL: Duration = Duration::from_secs(20);

impl Ui {
    /// For a tool's process, as its options and its terminal want it.
    #[must_use]
    pub fn new(output: Output, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { output, colour, quiet, bars: (terminal && !quiet).then(MultiProgress::new) }
    }

    /// Says nothing but warnings: for tests, and for what is asked again and again.
    #[must_use]
    pub fn silent() -> Self {
        Self { output: Output::Text, colour: false, quiet: true, bars: None }
    }

    /// Begins a step; it ends with [`Step::done`], or is shown as stopped when it is dropped.
    #[must_use]
    pub fn step(&self, name: impl Into<String>) -> Step {
        let name = name.into();
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new_spinner());
            let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed:.dim} {wide_msg:.dim}");
            if let Ok(style) = style {
                bar.set_style(style);
            }
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        if bar.is_none() {
            self.note(format!("{name} ..."));
        }
        let now = Instant::now();
        Step { ui: self.clone(), name, began: now, bar, last: Arc::new(Mutex::new(now)), open: true }
    }

    /// A line for people.
    pub fn note(&self, line: impl AsRef<str>) {
        if !self.quiet {
            self.line(line.as_ref());
        }
    }

    /// A line that people should not miss.
    pub fn warn(&self, line: impl AsRef<str>) {
        self.line(&format!("{} {}", self.paint("33", "warning:"), line.as_ref()));
    }

    /// `text` in an ANSI colour, where colour is wanted.
    #[must_use]
    pub fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Writes the result to standard output as JSON.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value).cause(Cause::Internal, || "cannot write JSON")?;
        self.result(&text)
    }

    /// Writes the result to standard output.
    ///
    /// # Errors
    /// If standard output is closed.
    pub fn result(&self, text: &str) -> Result<()> {
        let write = || writeln!(std::io::stdout().lock(), "{}", text.trim_end_matches('\n'));
        self.bars
            .as_ref()
            .map_or_else(write, |bars| bars.suspend(write))
            .or_else(|error| {
                // The reader has seen enough, as with `| head`.
                if error.kind() == std::io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
            })
            .cause(Cause::HostDisk, || "cannot write to standard output")
    }

    /// Writes a result to standard output piece by piece, however long it is.
    ///
    /// # Errors
    /// If it cannot be written, or `fill` fails.
    pub fn result_with(&self, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let write = || {
            let mut out = std::io::BufWriter::new(Patient(std::io::stdout().lock()));
            fill(&mut out)?;
            out.flush().cause(Cause::HostDisk, || "cannot write to standard output")
        };
        match &self.bars {
            Some(bars) => bars.suspend(write),
            None => write(),
        }
    }

    fn line(&self, line: &str) {
        // Nobody may be listening any more; that is no reason to stop.
        let _ = match &self.bars {
            Some(bars) => bars.suspend(|| writeln!(std::io::stderr(), "{line}")),
            None => writeln!(std::io::stderr(), "{} {line}", jiff::Timestamp::now().strftime("%H:%M:%S")),
        };
    }
}

impl Step {
    /// How far it is.
    pub fn set(&self, state: impl AsRef<str>) {
        match &self.bar {
            Some(bar) => bar.set_message(state.as_ref().to_owned()),
            None => {
                if let Ok(mut last) = self.last.lock()
                    && last.elapsed() >= PLAIN_INTERVAL
                {
                    *last = Instant::now();
                    self.ui.note(format!("{}: {}", self.name, state.as_ref()));
                }
            }
        }
    }

    /// A line for people that stays, beside how far it is.
    pub fn note(&self, line: impl AsRef<str>) {
        self.ui.note(printable(line.as_ref()));
    }

    /// It is done; `result` says what came of it.
    pub fn done(mut self, result: impl AsRef<str>) {
        self.end(&self.ui.paint("32", "done"), result.as_ref());
    }

    /// It failed; the error is shown by whoever gets it.
    pub fn failed(mut self, result: impl AsRef<str>) {
        self.end(&self.ui.paint("31", "failed"), result.as_ref());
    }

    fn end(&mut self, how: &str, result: &str) {
        self.open = false;
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let took = duration(self.began.elapsed());
        let colon = if result.is_empty() { "" } else { ": " };
        self.ui.note(format!("{} {how} in {took}{colon}{result}", self.name));
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if self.open {
            self.end("stopped", "");
        }
    }
}

/// A length of time as people write it: `0.4 s`, `12 s`, `3 min 05 s`.
#[must_use]
pub fn duration(length: Duration) -> String {
    match length.as_secs() {
        0..10 => format!("{:.1} s", length.as_secs_f64()),
        seconds @ 10..60 => format!("{seconds} s"),
        seconds => format!("{} min {:02} s", seconds / 60, seconds % 60),
    }
}

/// Lines up the columns of a table; the first row is its head.
#[must_use]
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<_> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Text from outside, safe for a terminal: control characters and direction marks are shown, not obeyed.
#[must_use]
pub fn printable(text: &str) -> String {
    let shown = |c: char| c == '\n' || c == '\t' || !is_hostile(c);
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if shown(c) { safe.push(c) } else { safe.extend(c.escape_unicode()) }
    }
    safe
}

/// Whether a character drives a terminal or changes how its neighbours are read: control characters, line and
/// paragraph separators, marks of direction (Unicode Bidi_Control), spaces without width, by which two names look alike.
#[must_use]
pub fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(c, '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_read_well() {
        assert_eq!(duration(Duration::from_millis(420)), "0.4 s");
        assert_eq!(duration(Duration::from_secs(59)), "59 s");
        assert_eq!(duration(Duration::from_secs(185)), "3 min 05 s");
    }

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 2]| cells.map(String::from).to_vec();
        assert_eq!(table(&[row(["a", "b"]), row(["long", ""]), row(["ü", "c"])]), "a     b\nlong\nü     c\n");
    }

    #[test]
    fn a_terminal_cannot_be_driven_by_a_name() {
        assert_eq!(printable("a\x1b[2Jb\u{202e}"), "a\\u{1b}[2Jb\\u{202e}");
        assert_eq!(printable("a\u{200b}b\u{feff}"), "a\\u{200b}b\\u{feff}");
    }
}
