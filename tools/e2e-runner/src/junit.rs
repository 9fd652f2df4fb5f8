//! `junit.xml`, for programs that read nothing else.

use std::{collections::BTreeMap, io::Write, path::Path, time::Duration};

use kit::{
    Cause, Context, Result,
    record::{Results, Status},
    rundir,
};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};

use crate::report::Row;

/// The library keeps a whole report in memory, which of many tests is larger than all else: so many cases are a report
/// of their own, without the frame around them.
const CASES: usize = 1000;
/// The last line of a report.
const END: &str = "</testsuites>\n";
/// The last line of a suite.
const SUITE_END: &str = "    </testsuite>\n";

/// What became of the tests of a suite, as JUnit counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    tests: usize,
    skipped: usize,
    errors: usize,
    failures: usize,
}

impl Totals {
    /// Counts a row.
    pub fn add(&mut self, row: &Row) {
        self.tests += 1;
        match row.test.status {
            Status::Passed | Status::Flaky => {}
            Status::Skipped => self.skipped += 1,
            Status::Failed | Status::NotRun if is_product(row) => self.failures += 1,
            Status::Failed | Status::NotRun => self.errors += 1,
        }
    }
}

/// Writes it beside the record. Characters that XML does not know are replaced by quick-junit.
///
/// # Errors
/// [`Cause::HostDisk`] naming the file.
pub fn write(path: &Path, results: &Results, rows: &[Row]) -> Result<()> {
    let (mut packages, mut suites) = (BTreeMap::<&str, Vec<&Row>>::new(), BTreeMap::<String, Totals>::new());
    for row in rows {
        packages.entry(&row.test.package).or_default().push(row);
        suites.entry(row.test.package.clone()).or_default().add(row);
    }
    write_suites(path, results, &suites, |package, out| {
        let rows = packages.get(package).map(Vec::as_slice).unwrap_or_default();
        rows.chunks(CASES).try_for_each(|rows| {
            let text = cases(rows.iter().copied())?;
            out.write_all(text.as_bytes()).cause(Cause::HostDisk, failed)
        })
    })
}

/// The same for suites whose cases are written by somebody else, each as [`cases`] makes them.
///
/// # Errors
/// As [`write`].
pub fn write_suites(
    path: &Path,
    results: &Results,
    suites: &BTreeMap<String, Totals>,
    cases: impl Fn(&str, &mut dyn Write) -> Result<()>,
) -> Result<()> {
    let head = head(results, suites.values())?;
    rundir::write_with(path, |out| {
        out.write_all(head.as_bytes()).cause(Cause::HostDisk, failed)?;
        for (package, totals) in suites {
            out.write_all(suite(results, package, totals)?.as_bytes()).cause(Cause::HostDisk, failed)?;
            cases(package, out)?;
            out.write_all(SUITE_END.as_bytes()).cause(Cause::HostDisk, failed)?;
        }
        out.write_all(END.as_bytes()).cause(Cause::HostDisk, failed)
    })
    .map(drop)
}

fn failed() -> &'static str {
    "cannot write JUnit XML"
}

/// The first lines of a report, with the totals of all suites.
fn head<'a>(results: &Results, suites: impl Iterator<Item = &'a Totals>) -> Result<String> {
    let mut report = Report::new(format!("{} {} {}", results.component, results.kind, results.suite));
    for totals in suites {
        report.tests += totals.tests;
        report.skipped += totals.skipped;
        report.errors += totals.errors;
        report.failures += totals.failures;
    }
    let text = report.to_string().cause(Cause::Internal, failed)?;
    Ok(text.strip_suffix(END).unwrap_or(&text).to_owned())
}

/// What stands in a report from the line on that begins with `from`, up to the end of the suite.
fn inner<'a>(report: &'a str, from: &str) -> &'a str {
    let begin = report.find(from).map_or(0, |at| report[..at].trim_end_matches(' ').len());
    let end = report.rfind(SUITE_END).unwrap_or(report.len());
    &report[begin..end.max(begin)]
}

/// The first lines of a suite.
fn suite(results: &Results, package: &str, totals: &Totals) -> Result<String> {
    let mut suite = TestSuite::new(package);
    (suite.tests, suite.skipped, suite.errors, suite.failures) =
        (totals.tests, totals.skipped, totals.errors, totals.failures);
    for (name, value) in [
        ("platform", results.platform.to_string()),
        ("nature", results.nature.name().to_owned()),
        ("cluster", results.cluster.clone()),
        ("release", results.release.clone().unwrap_or_default()),
    ] {
        suite.add_property((name, value.as_str()));
    }
    Ok(inner(&report(suite)?, "<testsuite ").to_owned())
}

/// The lines of cases in a suite.
///
/// # Errors
/// [`Cause::Internal`] if they cannot be put into XML.
pub fn cases<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Result<String> {
    let mut suite = TestSuite::new("");
    for row in rows {
        suite.add_test_case(case(row));
    }
    Ok(inner(&report(suite)?, "<testcase ").to_owned())
}

fn report(suite: TestSuite) -> Result<String> {
    let mut report = Report::new("");
    report.add_test_suite(suite);
    report.to_string().cause(Cause::Internal, failed)
}

/// Whether its cause is the component's.
fn is_product(row: &Row) -> bool {
    row.test.cause.is_some_and(|cause| cause.class() == kit::Class::Product)
}

fn case(row: &Row) -> TestCase {
    let test = &row.test;
    let status = status(row, test.line.clone().unwrap_or_default(), row.excerpt.join("\n"));
    let mut case = TestCase::new(test.name.as_str(), status);
    case.set_classname(test.package.as_str()).set_time(Duration::from_secs_f64(test.seconds.clamp(0.0, 1e9)));
    if let Some(reproduce) = &test.reproduce {
        case.add_property(("reproduce", reproduce.as_str()));
    }
    case
}

fn status(row: &Row, message: String, words: String) -> TestCaseStatus {
    let test = &row.test;
    let cause = test.cause.map_or("", Cause::name);
    match test.status {
        Status::Passed => TestCaseStatus::success(),
        Status::Flaky => {
            let mut rerun = TestRerun::new(NonSuccessKind::Failure);
            rerun.set_type(cause).set_message(message).set_description(words);
            let mut status = TestCaseStatus::success();
            status.add_rerun(rerun);
            status
        }
        Status::Skipped => {
            let mut status = TestCaseStatus::skipped();
            status.set_message(message);
            status
        }
        // 'error' is JUnit's word for what is not the test's verdict on the component.
        Status::Failed | Status::NotRun => {
            let kind = if is_product(row) { NonSuccessKind::Failure } else { NonSuccessKind::Error };
            let mut status = TestCaseStatus::non_success(kind);
            status.set_type(cause).set_message(message).set_description(words);
            status
        }
    }
}
