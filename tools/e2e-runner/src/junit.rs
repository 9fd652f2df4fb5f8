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
    let text = report(results, rows).to_string().cause(Cause::Internal, || "cannot write JUnit XML")?;
    rundir::write(path, text.as_bytes()).map(drop)
}

fn report(results: &Results, rows: &[Row]) -> Report {
    let mut report = Report::new(format!("{} {} {}", results.component, results.kind, results.suite));
    let mut packages: Vec<_> = rows.iter().map(|row| row.test.package.as_str()).collect();
    packages.sort_unstable();
    packages.dedup();
    for package in packages {
        let mut suite = TestSuite::new(package);
        for (name, value) in [
            ("platform", results.platform.to_string()),
            ("nature", results.nature.name().to_owned()),
            ("cluster", results.cluster.clone()),
            ("release", results.release.clone().unwrap_or_default()),
        ] {
            suite.add_property((name, value.as_str()));
        }
        for row in rows.iter().filter(|row| row.test.package == package) {
            suite.add_test_case(case(row));
        }
        report.add_test_suite(suite);
    }
    report
}

fn case(row: &Row) -> TestCase {
    let test = &row.test;
    let cause = test.cause.map_or("", Cause::name);
    let message = test.line.clone().unwrap_or_default();
    let words = || row.excerpt.join("\n");
    let status = match test.status {
        Status::Passed => TestCaseStatus::success(),
        Status::Flaky => {
            let mut rerun = TestRerun::new(NonSuccessKind::Failure);
            rerun.set_type(cause).set_message(message.clone()).set_description(words());
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
            status.set_type(cause).set_message(message).set_description(words());
            status
        }
    };
    let mut case = TestCase::new(test.name.as_str(), status);
    case.set_classname(test.package.as_str()).set_time(Duration::from_secs_f64(test.seconds.clamp(0.0, 1e9)));
    if let Some(reproduce) = &test.reproduce {
        case.add_property(("reproduce", reproduce.as_str()));
    }
    case
}
