//! What each verb does: files in, files and a result out.

use std::{io::IsTerminal, path::PathBuf};

use clap::{Args, ValueEnum};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use kit::{
    Cause, Done, Error, Output, Result, RunDir, Ui,
    bundle::{self, History},
    ci::CiOptions,
    dirs,
    rundir::{write, write_json},
};
use serde::Serialize;

use crate::{
    cells::{Rules, compute},
    evidence,
    history::{self, Known},
    model::Matrix,
    render,
    text::clean,
};

/// Seals a run directory and keeps it.
#[derive(Debug, Args)]
pub struct Record {
    /// The run's folder, as in target/runs
    run_dir: PathBuf,
    /// Where closed runs are kept [default: target/history of the workspace]
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
}

/// Shows the matrix.
#[derive(Debug, Args)]
pub struct Render {
    #[command(flatten)]
    input: Input,
    /// What to write
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Write files (matrix.txt, matrix.md, matrix.html, matrix.json) into this folder instead of standard output
    /// [default with --format all: target/matrix of the workspace]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Check every file of every bundle, and end with exit code 1 if evidence had to be left out for a fault
    #[arg(long)]
    strict: bool,
}

/// Says why a cell is what it is.
#[derive(Debug, Args)]
pub struct Why {
    /// Part of the cell's name, component@version/os-arch/kubernetes/origin: for instance pipeline@v1.9.0/linux-s390x
    cell: String,
    #[command(flatten)]
    input: Input,
}

/// What a matrix is computed from.
#[derive(Debug, Args)]
struct Input {
    /// Where closed runs are kept [default: target/history of the workspace]
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    #[command(flatten)]
    ci: CiOptions,
    /// The date that the matrix speaks of, as 2026-11-23 (its end, UTC) or 2026-11-23T12:00:00Z [default: now]
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    as_of: Option<Timestamp>,
}

/// How the matrix is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people, at most 100 columns wide
    #[default]
    Terminal,
    /// Tables for a repository's documents
    Markdown,
    /// One file that needs nothing else
    Html,
    /// With a schema: schemas/matrix.json
    Json,
    /// All of them as files, and the table on standard output
    All,
}

fn parse_date(text: &str) -> Result<Timestamp, String> {
    let end_of = |date: Date| {
        date.tomorrow()
            .ok()?
            .to_zoned(TimeZone::UTC)
            .ok()?
            .timestamp()
            .checked_sub(jiff::SignedDuration::from_secs(1))
            .ok()
    };
    let day = || text.parse::<Date>().ok().and_then(end_of);
    text.parse().ok().or_else(day).ok_or_else(|| "neither a date as 2026-11-23 nor a time as RFC 3339 writes it".into())
}

fn history_or_default(folder: Option<&PathBuf>) -> Result<PathBuf> {
    folder.map_or_else(|| Ok(dirs::workspace()?.join("target/history")), |folder| Ok(folder.clone()))
}

/// What `record` says with `--output json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Recorded<'a> {
    digest: &'a str,
    run: &'a str,
    folder: String,
    new: bool,
    complete: bool,
    files: usize,
}

pub(crate) fn record(args: &Record, ui: &Ui) -> Result<Done> {
    let run = RunDir::open(&args.run_dir)?;
    let closed = bundle::seal(&run)?;
    // What nobody can read is no evidence: said now, to whoever can still do something about it.
    let read = evidence::read(closed.clone())?;
    let stored = History::create(history_or_default(args.history.as_ref())?)?.store(&closed)?;
    let complete = read.is_complete();
    if !complete {
        ui.warn(format!(
            "run {} did not come to its end; what it did not reach counts as not shown",
            clean(closed.run())
        ));
    }
    let files = closed.files().len();
    ui.note(format!(
        "run {} {} ({files} files)",
        clean(closed.run()),
        if stored.new { "recorded" } else { "was recorded already" }
    ));
    let folder = stored.folder.display().to_string();
    match ui.output {
        Output::Text => ui.result(closed.digest())?,
        Output::Json => {
            let (digest, run) = (closed.digest(), closed.run());
            ui.json(&Recorded { digest, run, folder, new: stored.new, complete, files })?;
        }
    }
    Ok(Done::good().digest(closed.digest()))
}

pub(crate) fn render(args: &Render, ui: &Ui) -> Result<Done> {
    let matrix = args.input.matrix(args.strict, ui)?;
    if matrix.runs == 0 && matrix.left_out.is_empty() {
        ui.warn("the history holds no run yet; next: cargo xtask nightly");
        return Ok(Done::found(Cause::NothingRan));
    }
    let out = match (&args.out, args.format) {
        (Some(out), _) => Some(out.clone()),
        (None, Format::All) => Some(dirs::workspace()?.join("target/matrix")),
        (None, _) => None,
    };
    match out {
        Some(out) => {
            for format in args.format.each() {
                let path = out.join(format.file());
                match format {
                    Format::Json => write_json(&path, &matrix)?,
                    _ => write(&path, show(&matrix, *format, false)?.as_bytes())?,
                };
                ui.note(format!("wrote {}", path.display()));
            }
            match (ui.output, args.format) {
                (Output::Json, _) => ui.json(&matrix)?,
                (_, Format::All | Format::Terminal) => ui.result(&render::terminal(&matrix, colour()))?,
                _ => {}
            }
        }
        None if ui.output == Output::Json => ui.json(&matrix)?,
        None => ui.result(&show(&matrix, args.format, colour())?)?,
    }
    let faulty = matrix.left_out.iter().any(|left| left.fault);
    Ok(if args.strict && faulty { Done::found(Cause::PolicyRefused) } else { Done::good() })
}

pub(crate) fn why(args: &Why, ui: &Ui) -> Result<Done> {
    let mut matrix = args.input.matrix(false, ui)?;
    let known: Vec<_> = matrix.cells.iter().map(|cell| cell.id.clone()).collect();
    let wanted = args.cell.replace("linux/", "linux-").replace("windows/", "windows-");
    matrix.cells.retain(|cell| cell.id.contains(&wanted));
    if matrix.cells.is_empty() {
        let error = Error::new(Cause::Usage, format!("no cell's name contains '{}'", args.cell));
        return Err(error.next(format!("cells: {}", known.join(", "))));
    }
    match ui.output {
        Output::Json => ui.json(&matrix.cells)?,
        Output::Text => ui.result(&render::why(&matrix))?,
    }
    Ok(Done::good())
}

fn show(matrix: &Matrix, format: Format, colour: bool) -> Result<String> {
    Ok(match format {
        Format::Terminal | Format::All => render::terminal(matrix, colour),
        Format::Markdown => render::markdown(matrix),
        Format::Html => render::html(matrix)?,
        Format::Json => render::json(matrix)?,
    })
}

/// Colour is for the table on a terminal; [`Ui`] knows only of standard error.
fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

impl Format {
    const fn file(self) -> &'static str {
        match self {
            Self::Terminal | Self::All => "matrix.txt",
            Self::Markdown => "matrix.md",
            Self::Html => "matrix.html",
            Self::Json => "matrix.json",
        }
    }

    const fn each(&self) -> &[Self] {
        match self {
            Self::All => &[Self::Terminal, Self::Markdown, Self::Html, Self::Json],
            one => std::slice::from_ref(one),
        }
    }
}

impl Input {
    fn matrix(&self, thorough: bool, ui: &Ui) -> Result<Matrix> {
        let folder = history_or_default(self.history.as_ref())?;
        let ci = self.ci.open()?;
        let (architectures, policy) = (ci.architectures()?, ci.policy()?);
        let now = self.as_of.unwrap_or_else(Timestamp::now);
        let known = match History::open(&folder) {
            Ok(history) => history::read(&history, now, thorough, ui)?,
            // Nothing was recorded yet; a folder that was named and is not there is a mistake.
            Err(_) if self.history.is_none() => Known::default(),
            Err(error) => return Err(error),
        };
        for left in known.left_out.iter().filter(|left| left.fault) {
            ui.warn(format!("left out: {} {}", left.bundle, left.reason));
        }
        compute(known, &Rules { architectures, policy, now })
    }
}
