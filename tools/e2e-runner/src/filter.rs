//! `e2e-runner parse`: a stream in, results, JUnit and a summary out. It needs no cluster and no Go.

use std::path::PathBuf;

use clap::Parser;
use jiff::Timestamp;
use kit::{
    Cause, Context, Done, Error, Outcome, Output, Platform, Result, Ui,
    record::{Collected, Conditions, Head, Nature, Results},
    rundir,
};

use crate::{
    TOOL, VERSION,
    cause::Judge,
    input, junit,
    parse::{Parsed, Stream, lines, log::Folder},
    report::{self, Row},
};

/// Options of `parse`.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  go test -json ./... | e2e-runner parse
  e2e-runner parse stream.json --out results --component pipeline --version v1.9.0

Exit codes: 0 good (also what is flaky); 1 a test says that the component is not good, or no rule knows why it failed;
3 infrastructure; 2 the call is wrong; 4 nothing ran; 5 a program is missing; 128+n signal n.")]
pub struct ParseArgs {
    /// The stream: output of `go test -json` [default: standard input]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write results.json, junit.xml and the logs of what did not pass into this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep the logs of tests that passed as well
    #[arg(long, requires = "out")]
    all_logs: bool,
    /// The component's name, for the record
    #[arg(long, value_name = "NAME", default_value = "unknown")]
    component: String,
    /// The component's version, for the record
    #[arg(long, value_name = "VERSION", default_value = "unknown")]
    version: String,
    /// What kind of tests these are, for the record
    #[arg(long, value_name = "KIND", default_value = "unit")]
    kind: String,
    /// Where the tests ran, for the record [default: this machine]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

/// Reads the stream to its end.
///
/// # Errors
/// If the stream cannot be read, or a file not written.
pub fn run(args: &ParseArgs, ui: &Ui) -> Result<Done> {
    let started = Timestamp::now();
    let scratch = tempfile::tempdir().cause(Cause::HostDisk, || "cannot create a temporary folder")?;
    let folder = args.out.as_deref().unwrap_or(scratch.path());
    let logs = Folder::new(folder.join("logs"));
    let allowance = logs.allowance();
    let parsed = parse(args, logs, ui)?;
    let (mut results, rows) = results(args, started, parsed);
    let cut = allowance.cut().filter(|_| args.out.is_some());
    results.evidence = cut.map(|cut| Collected { cut: vec![cut], ..Collected::default() });
    let summary = match ui.output {
        Output::Json => String::new(),
        Output::Text => report::summary(&results, &rows, folder),
    };
    if args.out.is_some() {
        junit::write(&folder.join("junit.xml"), &results, &rows)?;
    }
    // Of a large stream the tests are what fills the memory: they are there once.
    results.tests = rows.into_iter().map(|row| row.test).collect();
    if args.out.is_some() {
        rundir::write_record(folder, &results)?;
    }
    match ui.output {
        Output::Json => ui.json(&results)?,
        Output::Text => ui.result(&summary)?,
    }
    let (exit, cause) = report::verdict(&results.tests);
    Ok(Done { cause, exit: Some(exit), ..Done::default() })
}

fn parse(args: &ParseArgs, folder: Folder, ui: &Ui) -> Result<Parsed> {
    let shown = args.file.as_ref().map_or_else(|| "standard input".into(), |file| file.display().to_string());
    let failed = || format!("cannot read {shown}");
    let reader = input::open(args.file.as_deref())?;
    let judge = Judge::default();
    let mut stream = Stream::new(folder, args.all_logs, &judge, ());
    let mut lines = lines::Lines::new(reader, lines::LIMIT);
    loop {
        let line = lines.next_line();
        kit::signal::check()?;
        let Some(line) = line.cause(Cause::Usage, failed)? else { break };
        stream.line(line)?;
    }
    if lines.cut > 0 {
        let most = lines::LIMIT >> 20;
        ui.warn(format!(
            "{shown}: {} bytes of lines longer than {most} MiB are not read, nor what they say",
            lines.cut
        ));
    }
    stream.finish(None)
}

/// The record without its tests, which are the rows'.
fn results(args: &ParseArgs, started: Timestamp, parsed: Parsed) -> (Results, Vec<Row>) {
    let truncated = parsed.truncated;
    let mut rows = report::rows(parsed);
    for row in &mut rows {
        // Without --out the logs are gone when we end.
        row.test.log = row.test.log.take().filter(|_| args.out.is_some());
    }
    let (counts, all_counts) = report::count(rows.iter().map(|row| &row.test));
    let (_, cause) = report::verdict(rows.iter().map(|row| &row.test));
    let mut head = Head::new(TOOL, VERSION, "", started);
    head.cause = cause;
    if cause.is_some_and(|cause| cause != Cause::Flaky) {
        head.outcome = Outcome::Failed;
    }
    if truncated {
        let error = Error::new(cause.unwrap_or(Cause::Unclassified), "the stream ends in the middle of a package");
        head = head.failed(&error);
    }
    let results = Results {
        head,
        component: args.component.clone(),
        version: args.version.clone(),
        kind: args.kind.clone(),
        suite: "stream".into(),
        platform: args.platform.clone().unwrap_or_else(Platform::host),
        nature: Nature::Unknown,
        cluster: String::new(),
        release: None,
        counts,
        all_counts,
        conditions: Conditions::default(),
        tests: Vec::new(),
        shard: (1, 1),
        whole: None,
        evidence: None,
    };
    (results, rows)
}
