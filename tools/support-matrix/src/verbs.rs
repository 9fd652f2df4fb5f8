//! Recording a run, and showing the matrix: files in, files and a result out.

use std::{io::IsTerminal, mem::ManuallyDrop, path::PathBuf};

use clap::{Args, ValueEnum};
use kit::{
    Cause, Done, Error, Output, Result, RunDir, Ui,
    bundle::{self, History},
    dirs,
    rundir::{write, write_json},
};
use serde::Serialize;

use crate::{
    cells::rows,
    evidence,
    history::Library,
    index::{Facts, IndexOption},
    model::Matrix,
    questions::{CellName, Input, history_or_default},
    render::{self, Listed},
    text::{clean, list},
    tidy,
};

/// Seals a run directory and keeps it.
#[derive(Debug, Args)]
pub struct Record {
    /// The run's folder, as in target/runs
    run_dir: PathBuf,
    /// Where closed runs are kept [default: target/history of the workspace]
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    #[command(flatten)]
    index: IndexOption,
    /// Where the Tekton Dashboard shows this run; it becomes part of the evidence, and a link in the pages
    #[arg(long, value_name = "URL")]
    dashboard: Option<String>,
    /// The PipelineRun that it was: --dashboard is then where the Dashboard itself is, or empty if there is none
    #[arg(long, value_name = "NAMESPACE/NAME", requires = "dashboard")]
    pipelinerun: Option<String>,
    /// Afterwards remove the folders of other runs in DIR that the history has and that left a clean cluster, or that are
    /// older than 30 days
    #[arg(long, value_name = "DIR")]
    tidy: Option<PathBuf>,
}

impl Record {
    /// The address of the page that shows the run.
    ///
    /// # Errors
    /// [`Cause::Usage`] if that is none.
    fn link(&self) -> Result<Option<String>> {
        let Some(dashboard) = &self.dashboard else { return Ok(None) };
        let link = match self.pipelinerun.as_ref().map(|run| run.split_once('/')) {
            Some(_) if dashboard.is_empty() => return Ok(None),
            Some(Some((namespace, name))) => {
                format!("{}/#/namespaces/{namespace}/pipelineruns/{name}", dashboard.trim_end_matches('/'))
            }
            Some(None) => return Err(Error::new(Cause::Usage, "--pipelinerun is NAMESPACE/NAME")),
            None => dashboard.clone(),
        };
        if evidence::is_link(&link) {
            return Ok(Some(link));
        }
        let error = Error::new(Cause::Usage, format!("'{}' is no address of a page", clean(&link)));
        Err(error.next("write it as https://HOST/PATH"))
    }
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
    /// Also versions whose place newer ones have taken, or of which nothing is known any more; JSON always has them,
    /// without their runs
    #[arg(long)]
    all: bool,
}

/// Says why a cell is what it is.
#[derive(Debug, Args)]
pub struct Why {
    /// Part of the cell's name, component@version/os-arch/kubernetes/origin: for instance pipeline@v1.9.0/linux-s390x
    cell: String,
    #[command(flatten)]
    input: Input,
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
    if let Some(link) = args.link()? {
        write(&run.path().join(evidence::DASHBOARD), format!("{link}\n").as_bytes())?;
    }
    let closed = bundle::seal(&run)?;
    // What nobody can read is no evidence: said now, to whoever can still do something about it.
    let read = evidence::read(closed.clone())?;
    evidence::check_date(read.finished).map_err(|error| error.within(format!("run {}", clean(closed.run()))))?;
    let folder = history_or_default(args.history.as_ref())?;
    let history = History::create(&folder)?;
    // The index first: where it cannot be used, the history stays as it was. Where somebody else has it, it is only late.
    let index = args.index.open_to_add(&folder)?;
    let stored = history.store(&closed)?;
    match index {
        Some(index) => index.add(&[Facts::of(&read)])?,
        None => ui.note("the index is in use: whoever reads it next adds this run"),
    }
    if let Some(runs) = &args.tidy {
        tidy::runs(runs, &run, &history, ui);
    }
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
    let opened = args.input.open(args.strict, ui)?;
    // Never freed: with it the process ends.
    let mut matrix = ManuallyDrop::new(opened.matrix(ui)?);
    if args.all {
        matrix.cells.iter_mut().for_each(|cell| cell.beside.older = false);
    }
    if matrix.runs + matrix.later == 0 && matrix.left_out.is_empty() {
        ui.warn("the history holds no run yet; next: cargo xtask nightly");
        return Ok(Done::found(Cause::NothingRan));
    }
    let out = match (&args.out, args.format) {
        (Some(out), _) => Some(out.clone()),
        (None, Format::All) => Some(dirs::workspace()?.join("target/matrix")),
        (None, _) => None,
    };
    let (library, listed) = (&opened.library, Listed::new(&opened.library, &matrix));
    match out {
        Some(out) => {
            for format in args.format.each() {
                let path = out.join(format.file());
                match format {
                    Format::Json => listed.write(|listed| write_json(&path, listed))?,
                    _ => write(&path, text(library, &matrix, *format, false)?.as_bytes())?,
                };
                ui.note(format!("wrote {}", path.display()));
            }
            match (ui.output, args.format) {
                (Output::Json, _) => listed.show(ui)?,
                (_, Format::All | Format::Terminal) => ui.result(&render::terminal(&matrix, colour()))?,
                _ => {}
            }
        }
        None if ui.output == Output::Json || args.format == Format::Json => listed.show(ui)?,
        None => ui.result(&text(library, &matrix, args.format, colour())?)?,
    }
    let faulty = matrix.left_out.iter().any(|left| left.fault);
    Ok(if args.strict && faulty { Done::found(Cause::PolicyRefused) } else { Done::good() })
}

pub(crate) fn why(args: &Why, ui: &Ui) -> Result<Done> {
    let opened = args.input.open(false, ui)?;
    let mut matrix = opened.matrix(ui)?;
    let known: Vec<_> = matrix.cells.iter().map(|cell| cell.id.clone()).collect();
    let wanted = CellName::new(&args.cell);
    matrix.cells.retain(|cell| wanted.takes(&cell.id, &cell.platform));
    if matrix.cells.is_empty() {
        let error = Error::new(Cause::Usage, format!("no cell's name contains '{}'", clean(&args.cell)));
        return Err(error.next(format!("cells: {}", list(&known, 50))));
    }
    match ui.output {
        Output::Json => {
            for cell in &mut matrix.cells {
                cell.runs = rows::listed(&opened.library, cell)?;
            }
            ui.json(&matrix.cells)?;
        }
        Output::Text => ui.result(&render::why(&matrix))?,
    }
    Ok(Done::good())
}

/// For people; JSON is written piece by piece.
fn text(library: &Library, matrix: &Matrix, format: Format, colour: bool) -> Result<String> {
    Ok(match format {
        Format::Markdown => render::markdown(matrix),
        Format::Html => render::html(library, matrix)?,
        Format::Terminal | Format::All | Format::Json => render::terminal(matrix, colour),
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
