//! What runs again, and what it comes to then.

use super::*;
use crate::parse::{PackageEnd, Parsed};

fn row(name: &str, status: Status, cause: Option<Cause>) -> Row {
    let mut test = report::row(name, "p", status);
    test.cause = cause;
    Row { test, excerpt: Vec::new(), ran: None }
}

fn ran(crashed: bool) -> Ran {
    let package = PackageEnd { name: "p".into(), crashed, ..PackageEnd::default() };
    Ran { streams: vec![Parsed { packages: vec![package], ..Parsed::default() }], ..Ran::default() }
}

#[test]
fn whom_a_signal_cut_off_has_not_failed() {
    let mut program = ran(true);
    let mut cut = |cause: Cause, line: &str| {
        let failure = Some(Box::new(crate::cause::Verdict::new(cause, line)));
        let (began, ended) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
        let test = crate::parse::Ended {
            package: 0,
            name: "TestA".into(),
            status: Status::Failed,
            began,
            ended,
            seconds: 1.0,
            log: None,
            failure,
            reason: None,
        };
        program.streams[0].tests = vec![test];
        program.signal = Some(2);
        let why = "stopped by signal 2".into();
        program.stopped = Some(Stopped { cause: Some(Cause::Interrupted), why });
        let rows = rows(&program);
        (rows[0].test.status, rows[0].test.cause)
    };
    assert_eq!(cut(Cause::Product, SILENT_END), (Status::NotRun, Some(Cause::Interrupted)));
    assert_eq!(cut(Cause::TestTimeout, "SIGQUIT: quit"), (Status::NotRun, Some(Cause::Interrupted)));
    assert_eq!(cut(Cause::Product, "x_test.go:1: wanted 2"), (Status::Failed, Some(Cause::Product)));
    // It hung before the signal came.
    assert_eq!(cut(Cause::TestTimeout, "TestA took longer"), (Status::Failed, Some(Cause::TestTimeout)));
}

#[test]
fn what_was_stopped_elsewhere_has_the_reason_that_is_known_here() {
    let why = "it printed nothing for 1.0 s";
    let mut program = ran(false);
    let line = "error[interrupted]: the tests: stopped by signal 15";
    let cut_off = crate::cause::Verdict::new(Cause::Interrupted, line);
    let (began, ended) = (Timestamp::UNIX_EPOCH, Timestamp::UNIX_EPOCH);
    program.streams[0].tests = vec![crate::parse::Ended {
        package: 0,
        name: "TestA".into(),
        status: Status::NotRun,
        began,
        ended,
        seconds: 1.0,
        log: None,
        failure: Some(Box::new(cut_off.clone())),
        reason: None,
    }];
    let package = &mut program.streams[0].packages[0];
    (package.failure, package.cut_off) = (Some(cut_off.clone()), Some(cut_off));
    let missing = |program: &Ran| never_began(&["TestB".into()], &rows(program), "p", program, &[])[0].test.clone();
    assert_eq!(missing(&program).line.as_deref(), Some(line));
    program.stopped = Some(Stopped { cause: Some(Cause::TestTimeout), why: why.into() });
    let said: Vec<_> =
        rows(&program).into_iter().map(|row| (row.test.name, row.test.status, row.test.cause, row.test.line)).collect();
    assert_eq!(said, [("TestA".into(), Status::Failed, Some(Cause::TestTimeout), Some(why.into()))]);
    assert_eq!(missing(&program).line.as_deref(), Some(why));
}

#[test]
fn what_passes_the_second_time_is_flaky() {
    let product = Some(Cause::Product);
    let mut rows = vec![
        row("TestA", Status::Failed, product),
        row("TestA/x", Status::Failed, product),
        row("TestA/y", Status::Passed, None),
        row("TestB", Status::Failed, product),
        row("TestC", Status::Passed, None),
    ];
    let passed = |name| row(name, Status::Passed, None);
    join(&mut rows, &[passed("TestA"), passed("TestA/x"), passed("TestA/y"), row("TestB", Status::Failed, product)]);
    let after: Vec<_> = rows.iter().map(|row| (row.test.status, row.test.attempts)).collect();
    use Status::{Failed, Flaky, Passed};
    assert_eq!(after, [(Flaky, 2), (Flaky, 2), (Passed, 2), (Failed, 2), (Passed, 1)]);
}

#[test]
fn what_the_infrastructure_failed_has_the_cause_that_it_has_without() {
    let mut rows = vec![
        row("TestA", Status::Failed, Some(Cause::ImagePull)),
        row("TestB", Status::Failed, Some(Cause::ImagePull)),
        row("TestC", Status::Failed, Some(Cause::Product)),
        row("TestD", Status::Failed, Some(Cause::Product)),
        row("TestD/17", Status::Failed, Some(Cause::Product)),
    ];
    let second = [
        row("TestA", Status::Failed, Some(Cause::Product)),
        row("TestB", Status::Passed, None),
        row("TestC", Status::Failed, Some(Cause::Node)),
        row("TestC/19", Status::Failed, Some(Cause::Node)),
        row("TestD", Status::Passed, None),
        row("TestD/18", Status::Passed, None),
        row(PACKAGE, Status::Failed, Some(Cause::Product)),
    ];
    join(&mut rows, &second);
    let after: Vec<_> = rows.iter().map(|row| (row.test.status, row.test.cause.unwrap(), row.test.attempts)).collect();
    use Status::{Failed, Flaky};
    assert_eq!(
        after,
        [
            (Failed, Cause::Product, 2),
            (Flaky, Cause::Flaky, 2),
            (Failed, Cause::Product, 2),
            (Flaky, Cause::Flaky, 2),
            (Flaky, Cause::Flaky, 1),
            (Failed, Cause::Node, 1),
            (Failed, Cause::Product, 1)
        ]
    );
    // A third time, without it.
    join(&mut rows, &[row("TestC", Status::Passed, None)]);
    assert_eq!((rows[2].test.status, rows[5].test.status), (Flaky, Flaky));
}

#[test]
fn what_the_infrastructure_spoiled_does_not_count_as_tried() {
    let failed = |cause| [row("TestA", Status::Failed, Some(cause))];
    let (product, away) = (failed(Cause::Product), failed(Cause::ImagePull));
    for [first, second] in [[&product, &away], [&away, &product]] {
        let (mut tries, mut rows) = (Tries::default(), first.to_vec());
        tries.note(first);
        assert_eq!(again(&rows, &ran(false), &tries), ["TestA"]);
        tries.note(second);
        join(&mut rows, second);
        assert_eq!((rows[0].test.cause, rows[0].test.attempts), (Some(Cause::Product), 2));
        let third = again(&rows, &ran(false), &tries);
        assert_eq!(third, ["TestA"], "it has failed by its own doing only once");
        let wait = if second == &away { BACKOFF[1] } else { Duration::ZERO };
        assert_eq!(tries.wait(&rows, &third), wait);
        tries.note(&product);
        assert_eq!(again(&rows, &ran(false), &tries), [""; 0]);
    }
}

#[test]
fn what_kept_a_flaky_test_from_passing_is_still_seen() {
    let mut rows: Vec<_> =
        [Cause::ImagePull, Cause::Product].map(|cause| row(cause.name(), Status::Failed, Some(cause))).into();
    rows.iter_mut().for_each(|row| row.test.line = Some("why".into()));
    let second: Vec<_> = rows.iter().map(|old| row(&old.test.name, Status::Passed, None)).collect();
    join(&mut rows, &second);
    let said: Vec<_> = rows.iter().map(|row| (row.test.cause, row.test.line.as_deref().unwrap())).collect();
    assert_eq!(said, [(Some(Cause::Flaky), "image-pull: why"), (Some(Cause::Flaky), "why")]);
}

#[test]
fn who_waited_has_not_failed_when_all_were_stopped() {
    let mut program = ran(true);
    let at = Timestamp::UNIX_EPOCH;
    let test = |name: &str, status, line: &str| crate::parse::Ended {
        package: 0,
        name: name.into(),
        status,
        began: at,
        ended: at,
        seconds: 1.0,
        log: None,
        failure: Some(Box::new(crate::cause::Verdict::new(Cause::TestTimeout, line))),
        reason: None,
    };
    program.streams[0].tests = vec![
        test("TestRan", Status::Failed, "SIGQUIT: quit"),
        test("TestWaited", Status::NotRun, "the test program ended in TestRan"),
    ];
    program.stopped = Some(Stopped { cause: Some(Cause::ClusterUnreachable), why: STAYED_AWAY.into() });
    let said: Vec<_> = rows(&program).into_iter().map(|row| (row.test.status, row.test.cause)).collect();
    let away = Some(Cause::ClusterUnreachable);
    assert_eq!(said, [(Status::Failed, away), (Status::NotRun, away)]);
}

#[test]
fn a_crash_is_no_outage_s_doing() {
    let outages = Outages::default().with(at(0), at(9), Cause::Apiserver);
    for (line, cause) in [
        ("panic: oh no", Cause::Product),
        ("WARNING: DATA RACE", Cause::Product),
        ("x_test.go:1: wanted 2", Cause::Apiserver),
    ] {
        let mut row = row("TestA", Status::Failed, Some(Cause::Product));
        (row.test.line, row.ran) = (Some(line.into()), Some((at(1), at(2))));
        let mut rows = [row];
        lay_over(&mut rows, &outages, at(9));
        assert_eq!(rows[0].test.cause, Some(cause), "{line}");
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

#[test]
fn what_is_left_out_shows_what_would_become_of_it() {
    let selection = Selection {
        excluded: vec![("TestC".into(), "why".into()), ("TestB/x".into(), "why".into())],
        ..Selection::default()
    };
    let mut rows = left_out(&selection, "p");
    let shadows = [row("TestC", Status::Passed, None), row("TestB", Status::Failed, Some(Cause::Product))];
    lay_shadows(&mut rows, &shadows);
    let said: Vec<_> = rows.iter().map(|row| (row.test.status, row.test.shadow)).collect();
    assert_eq!(said, [(Status::Skipped, Some(Status::Passed)), (Status::Skipped, None)]);
}

#[test]
fn not_everything_is_tried_again() {
    let failed = |name: &str| row(name, Status::Failed, Some(Cause::Product));
    let passed: Vec<_> = (0..8).map(|n| row(&format!("TestP{n}"), Status::Passed, None)).collect();
    let with = |rows: &[Row]| [rows, &passed].concat();
    let again = |rows: &[Row], ran: &Ran, number: usize| {
        let mut tries = Tries::default();
        (0..number).for_each(|_| tries.note(rows));
        super::again(rows, ran, &tries)
    };
    assert_eq!(again(&with(&[failed("TestA"), failed("TestA/x")]), &ran(false), 1), ["TestA"]);
    assert_eq!(again(&[failed("TestA")], &ran(false), 1), ["TestA"]);
    assert!(again(&[failed("TestA")], &ran(false), 2).is_empty(), "the component's failures are tried once more");
    assert!(again(&with(&[failed("TestA")]), &ran(true), 1).is_empty(), "a crash");
    let away = |cause| row("TestA", Status::Failed, Some(cause));
    for before in [1, 2] {
        assert_eq!(again(&with(&[away(Cause::ImagePull)]), &ran(false), before), ["TestA"]);
    }
    assert!(again(&with(&[away(Cause::ImagePull)]), &ran(false), 3).is_empty(), "not for ever");
    assert!(again(&with(&[away(Cause::HostDisk)]), &ran(false), 1).is_empty(), "time does not heal it");
    assert!(wants_time(&[away(Cause::Node)], &["TestA".into()]) && !wants_time(&[failed("TestA")], &["TestA".into()]));
    assert!(!too_many(&[failed("TestA"), failed("TestA/x")]), "one alone");
    assert!(!too_many(&with(&[failed("TestA"), failed("TestB")])), "a fifth");
    let three = with(&[failed("TestA"), failed("TestB"), failed("TestC")]);
    assert!(too_many(&three) && too_many_of(&three, 3) && !too_many_of(&three, 4), "of 11, of 14, of 15");
}

#[test]
fn a_subtest_that_is_not_there_is_named() {
    let parts = ["TestA", "TestB", "TestC"].map(|name| (name.to_owned(), vec!["x".to_owned(), "y/z".to_owned()]));
    let selection = Selection { parts: parts.into(), ..Selection::default() };
    let rows = [
        row("TestA/x", Status::Passed, None),
        row("TestA", Status::Passed, None),
        row("TestB", Status::Passed, None),
        row("TestC", Status::Failed, Some(Cause::Product)),
    ];
    let found = no_such_subtests(&selection, &rows, "p");
    let said: Vec<_> = found.iter().map(|row| (row.test.name.as_str(), row.test.status, row.test.cause)).collect();
    assert_eq!(said, [("TestB/x|y/z", Status::NotRun, Some(Cause::Usage))]);
}

#[test]
fn a_test_that_no_pass_ran_is_named() {
    let selection = Selection {
        asked: vec!["TestA".into(), "TestB".into()],
        excluded: vec![("TestC".into(), "why".into())],
        expired: vec!["TestD: over".into()],
        ..Selection::default()
    };
    let mut rows = left_out(&selection, "p");
    let (passed, passes) = ([row("TestA", Status::Passed, None)], [vec!["-x".into()], vec![]]);
    rows.extend(never_began(&selection.asked, &passed, "p", &ran(false), &passes));
    let said: Vec<_> = rows.iter().map(|row| (row.test.name.as_str(), row.test.status, row.test.cause)).collect();
    assert_eq!(
        said,
        [
            ("TestC", Status::Skipped, None),
            (PACKAGE, Status::Failed, Some(Cause::PolicyRefused)),
            ("TestB", Status::NotRun, Some(Cause::Usage))
        ]
    );
    assert!(rows[2].test.line.as_ref().unwrap().ends_with("[-x], []"));
}
