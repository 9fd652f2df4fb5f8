//! `e2e-runner parse`: a stream in, results, JUnit and a summary out. It needs no cluster and no Go.

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use clap::Parser;
use jiff::Timestamp;
use kit::{
    Cause, Context, Done, Error, Outcome, Output, Platform, Result, Ui,
    record::{Collected, Conditions, Counts, Head, Nature, Record, Results},
    rundir,
};

use crate::{
    TOOL, VERSION,
    cause::Judge,
    input,
    junit::{self, Totals},
    options::Kind,
    parse::{Ended, Observer, Parsed, Stream, lines, log::Folder},
    report::{self, PACKAGE, Row},
    spool::Spool,
};

/// Options of `parse`.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  go test -json ./... | e2e-runner parse
  e2e-runner parse stream.json --out results --component pipeline --version v1.9.0

Exit codes: 0 good (also what is flaky); 1 a test says that the component is not good, or no rule knows why it failed;
3 infrastructure; 2 the call is wrong; 4 nothing ran, or all tests skipped themselves; 5 a program is missing;
128+n signal n.")]
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
    /// What kind of tests these are, for the record; of unit tests, few rules about clusters hold
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
    let is_kept = args.out.is_some() || ui.output == Output::Json;
    let mut tests = Tests::new(is_kept.then(|| Spool::new(folder)).transpose()?, args.out.is_some());
    let logs = Folder::new(folder.join("logs"));
    let allowance = logs.allowance();
    let parsed = parse(args, logs, &mut tests, ui)?;
    let truncated = parsed.truncated;
    // Of those that are good nobody needs more than the totals, the record and JUnit have.
    let mut rows = report::rows(parsed);
    for row in &mut rows {
        row.test.log = row.test.log.take().filter(|_| tests.logs);
        if row.test.name == PACKAGE {
            tests.take(row.clone());
        }
    }
    tests.put_aside()?;
    let (exit, cause) = report::verdict_of(rows.iter().map(|row| &row.test), &tests.counts);
    let mut results = results(args, started, &tests, cause, truncated);
    let cut = allowance.cut().filter(|_| args.out.is_some());
    results.evidence = cut.map(|cut| Collected { cut: vec![cut], ..Collected::default() });
    if args.out.is_some() {
        tests.write_junit(&folder.join("junit.xml"), &results)?;
        rundir::write_with(&folder.join(Results::FILE), |out| tests.write_record(&results, out))?;
    }
    match ui.output {
        Output::Json => ui.result_with(|out| tests.write_record(&results, out))?,
        Output::Text => ui.result(&report::summary(&results, &rows, folder))?,
    }
    Ok(Done { cause, exit: Some(exit), ..Done::default() })
}

fn parse(args: &ParseArgs, folder: Folder, tests: &mut Tests, ui: &Ui) -> Result<Parsed> {
    let shown = args.file.as_ref().map_or_else(|| "standard input".into(), |file| file.display().to_string());
    let failed = || format!("cannot read {shown}");
    let reader = input::open(args.file.as_deref())?;
    let judge = Judge::default();
    let judge = if args.kind == Kind::Unit.name() { judge.of_units() } else { judge };
    let mut stream = Stream::new(folder, args.all_logs, &judge, tests).forgetting_good();
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

/// The record without its tests, which wait on disk.
fn results(args: &ParseArgs, started: Timestamp, tests: &Tests, cause: Option<Cause>, truncated: bool) -> Results {
    let mut head = Head::new(TOOL, VERSION, "", started);
    head.cause = cause;
    if cause.is_some_and(|cause| cause != Cause::Flaky) {
        head.outcome = Outcome::Failed;
    }
    if truncated {
        let error = Error::new(cause.unwrap_or(Cause::Unclassified), "the stream ends in the middle of a package");
        head = head.failed(&error);
    }
    Results {
        head,
        component: args.component.clone(),
        version: args.version.clone(),
        kind: args.kind.clone(),
        suite: "stream".into(),
        platform: args.platform.clone().unwrap_or_else(Platform::host),
        nature: Nature::Unknown,
        cluster: String::new(),
        release: None,
        counts: tests.counts,
        all_counts: tests.all_counts,
        conditions: Conditions::default(),
        tests: Vec::new(),
        shard: (1, 1),
        whole: None,
        evidence: None,
    }
}

/// Rows that are put aside together.
const BATCH: usize = 1000;
/// The strand of the record's tests.
const RECORD: &str = "record";

/// What a stream says of its tests, one after the other: totals, and, for the record and JUnit, what they will say of
/// each. There may be millions, so that waits on disk.
struct Tests {
    spool: Option<Spool>,
    /// Whether there will be logs when we have ended.
    logs: bool,
    counts: Counts,
    all_counts: Counts,
    suites: BTreeMap<String, Totals>,
    batch: Vec<Row>,
    is_empty: bool,
    /// Nobody can be told while the stream is read.
    written: Result<()>,
}

impl Observer for Tests {
    fn ended(&mut self, package: &str, test: &Ended) {
        self.take(report::of_test(test.clone(), package));
    }
}

impl Tests {
    fn new(spool: Option<Spool>, logs: bool) -> Self {
        Self {
            spool,
            logs,
            counts: Counts::default(),
            all_counts: Counts::default(),
            suites: BTreeMap::new(),
            batch: Vec::new(),
            is_empty: true,
            written: Ok(()),
        }
    }

    fn take(&mut self, mut row: Row) {
        report::add((&mut self.counts, &mut self.all_counts), &row.test);
        if self.spool.is_none() {
            return;
        }
        row.test.log = row.test.log.take().filter(|_| self.logs);
        self.batch.push(row);
        if self.batch.len() == BATCH && self.written.is_ok() {
            self.written = self.write_batch();
        }
    }

    /// Puts the last ones aside as well.
    fn put_aside(&mut self) -> Result<()> {
        std::mem::replace(&mut self.written, Ok(()))?;
        self.write_batch()
    }

    fn write_batch(&mut self) -> Result<()> {
        let mut rows = std::mem::take(&mut self.batch);
        let Some(spool) = &mut self.spool else { return Ok(()) };
        for row in &rows {
            let text = serde_json::to_string_pretty(&row.test).cause(Cause::Internal, || "cannot write JSON")?;
            let separator = if self.is_empty { "" } else { "," };
            self.is_empty = false;
            spool.add(RECORD, &format!("{separator}\n    {}", text.replace('\n', "\n    ")))?;
        }
        rows.sort_by(|a, b| a.test.package.cmp(&b.test.package));
        for rows in rows.chunk_by(|a, b| a.test.package == b.test.package) {
            let package = &rows[0].test.package;
            let totals = self.suites.entry(package.clone()).or_default();
            rows.iter().for_each(|row| totals.add(row));
            spool.add(&strand(package), &junit::cases(rows)?)?;
        }
        Ok(())
    }

    fn write_junit(&self, path: &Path, results: &Results) -> Result<()> {
        junit::write_suites(path, results, &self.suites, |package, out| self.copy(&strand(package), out))
    }

    /// Writes what [`rundir::write_json`] would write if the results held their tests.
    fn write_record(&self, results: &Results, out: &mut dyn Write) -> Result<()> {
        let text = serde_json::to_string_pretty(results).cause(Cause::Internal, || "cannot write JSON")?;
        let failed = || "it cannot be written";
        let frame = if self.is_empty { None } else { text.split_once(NO_TESTS) };
        let Some((before, after)) = frame else { return writeln!(out, "{text}").cause(Cause::HostDisk, failed) };
        write!(out, "{before}{}", NO_TESTS.trim_end_matches(']')).cause(Cause::HostDisk, failed)?;
        self.copy(RECORD, out)?;
        writeln!(out, "\n  ]{after}").cause(Cause::HostDisk, failed)
    }

    fn copy(&self, strand: &str, out: &mut dyn Write) -> Result<()> {
        self.spool.as_ref().map_or(Ok(()), |spool| spool.copy(strand, out))
    }
}

/// How a record without tests says so, on a line of its own.
const NO_TESTS: &str = "\n  \"tests\": []";

/// The strand of a package's cases in JUnit.
fn strand(package: &str) -> String {
    format!("package {package}")
}
