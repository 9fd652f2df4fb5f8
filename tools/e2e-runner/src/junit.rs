//! `junit.xml`, for programs that read nothing else.

use std::{path::Path, time::Duration};

use kit::{
    Cause, Context, Result,
    record::{Results, Status},
    rundir,
};
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestRerun, TestSuite};

use crate::report::Row;

/// Writes it beside the record. Characters that XML does not know are replaced by quick-junit.
///
/// # Errors
/// [`Cause::HostDisk`] naming the file.
pub fn write(path: &Path, results: &Results, rows: &[Row]) -> Result<()> {
    let mut order: Vec<&Row> = rows.iter().collect();
    order.sort_by_key(|row| row.test.package.as_str());
    let packages = || order.chunk_by(|a, b| a.test.package == b.test.package);
    let head = head(results, packages())?;
    let failed = || "cannot write JUnit XML";
    rundir::write_with(path, |out| {
        out.write_all(head.as_bytes()).cause(Cause::HostDisk, failed)?;
        // The library keeps a whole report in memory, which of a large stream is larger than all else: so each
        // package is a report of its own, without the frame around it.
        for package in packages() {
            let mut report = Report::new("");
            report.add_test_suite(suite(results, package));
            let text = report.to_string().cause(Cause::Internal, failed)?;
            out.write_all(inner(&text).as_bytes()).cause(Cause::HostDisk, failed)?;
        }
        out.write_all(END.as_bytes()).cause(Cause::HostDisk, failed)
    })
    .map(drop)
}

/// The last line of a report.
const END: &str = "</testsuites>\n";

/// The first lines of a report, with the totals of all suites.
fn head<'a>(results: &Results, packages: impl Iterator<Item = &'a [&'a Row]>) -> Result<String> {
    let mut report = Report::new(format!("{} {} {}", results.component, results.kind, results.suite));
    for row in packages.flatten() {
        report.tests += 1;
        match status(row, String::new(), String::new()) {
            TestCaseStatus::NonSuccess { kind: NonSuccessKind::Failure, .. } => report.failures += 1,
            TestCaseStatus::NonSuccess { kind: NonSuccessKind::Error, .. } => report.errors += 1,
            TestCaseStatus::Skipped { .. } => report.skipped += 1,
            TestCaseStatus::Success { .. } => {}
        }
    }
    let text = report.to_string().cause(Cause::Internal, || "cannot write JUnit XML")?;
    Ok(text.strip_suffix(END).unwrap_or(&text).to_owned())
}

/// What stands between the first lines of a report and the last one.
fn inner(report: &str) -> &str {
    let begin = report.find("<testsuite ").map_or(0, |at| report[..at].trim_end_matches(' ').len());
    report[begin..].strip_suffix(END).unwrap_or(&report[begin..])
}

fn suite(results: &Results, rows: &[&Row]) -> TestSuite {
    let mut suite = TestSuite::new(rows.first().map_or("", |row| row.test.package.as_str()));
    for (name, value) in [
        ("platform", results.platform.to_string()),
        ("nature", results.nature.name().to_owned()),
        ("cluster", results.cluster.clone()),
        ("release", results.release.clone().unwrap_or_default()),
    ] {
        suite.add_property((name, value.as_str()));
    }
    for row in rows {
        suite.add_test_case(case(row));
    }
    suite
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
            let product = test.cause.is_some_and(|cause| cause.class() == kit::Class::Product);
            let kind = if product { NonSuccessKind::Failure } else { NonSuccessKind::Error };
            let mut status = TestCaseStatus::non_success(kind);
            status.set_type(cause).set_message(message).set_description(words);
            status
        }
    }
}
