//! From streams to rows: a second attempt for what failed, outages laid over, tests that never ran named.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use kit::{
    Cause, Class,
    record::{SkipSource, Status, Test},
};

use crate::{
    cause::{SILENT_END, is_crash},
    cut_off,
    health::Outages,
    ledger,
    parse::{ENDED, event::top},
    passes::{Ran, STAYED_AWAY, Stopped},
    report::{self, PACKAGE, Row},
    select::Selection,
};

/// How long is waited before what failed by the infrastructure's doing is tried again.
pub const BACKOFF: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(20)];

/// The rows of all passes.
#[must_use]
pub fn rows(ran: &Ran) -> Vec<Row> {
    let mut rows: Vec<_> = ran.streams.iter().cloned().flat_map(report::rows).collect();
    if ran.signal.is_some() {
        // SIGQUIT made the program say where it was, or end without a word; that is not the tests' fault.
        let silent = |row: &Row| row.test.line.as_deref().is_some_and(|line| line.starts_with(SILENT_END));
        for row in rows.iter_mut().filter(|row| row.test.cause == Some(Cause::TestTimeout) || silent(row)) {
            (row.test.status, row.test.cause) = (Status::NotRun, Some(Cause::Interrupted));
        }
        rows.retain(|row| row.test.name != PACKAGE);
    }
    if let Some(Stopped { cause, why }) = &ran.stopped {
        // What runs elsewhere says of itself that it was interrupted, and here it is known why.
        let cut_off = |row: &Row| row.test.cause == Some(Cause::Interrupted);
        rows.retain(|row| row.test.name != PACKAGE || !cut_off(row));
        let says = |row: &Row, words: &str| row.test.line.as_deref().is_some_and(|line| line.starts_with(words));
        // Who waited for a turn, or came before what was to blame.
        let idle = |row: &Row| {
            let ended = matches!(row.test.cause, Some(Cause::TestTimeout | Cause::Interrupted));
            row.test.status == Status::NotRun && ended && says(row, ENDED)
        };
        for row in rows.iter_mut().filter(|row| says(row, "SIGQUIT") || cut_off(row) || idle(row)) {
            // Whom a signal stopped has not failed, nor whom we stopped ourselves, who have no cause.
            let failed = cause.is_some_and(|cause| cause != Cause::Interrupted) && !idle(row);
            row.test.status = if failed { Status::Failed } else { Status::NotRun };
            (row.test.cause, row.test.line) = (*cause, Some(why.clone()));
            if cause.is_none() {
                row.excerpt = Vec::new();
            }
        }
    }
    rows
}

/// A failure while the API server was away says nothing of the component, unless its program crashed: that it must not
/// whatever is away.
pub fn lay_over(rows: &mut [Row], outages: &Outages, end: Timestamp) {
    for row in rows {
        let (from, to) = row.ran.unwrap_or((end, end));
        let bad = matches!(row.test.status, Status::Failed | Status::NotRun);
        // A cause that is the infrastructure's already, or that no outage explains, stays; what was away is known better
        // now than when the tests were stopped.
        let stopped = row.test.line.as_deref() == Some(STAYED_AWAY);
        let open = stopped
            || row.test.cause.is_none_or(|cause| {
                matches!(cause.class(), Class::Product | Class::Unknown) && cause != Cause::BuildFailure
                    || cause == Cause::Usage
            });
        let crashed = row.test.line.as_deref().is_some_and(is_crash);
        if bad
            && open
            && !crashed
            && let Some(outage) = outages.during(from, to)
        {
            (row.test.cause, row.test.line) = (Some(outage.cause), Some(outage.describe()));
        }
    }
}

/// Whether more than a fifth of the tests failed: then something else is wrong than each of them. One failure alone
/// is always worth a second look.
#[must_use]
pub fn too_many(rows: &[Row]) -> bool {
    too_many_of(rows, 0)
}

/// The same of the tests of a part of a suite, of which `others` have run at another time.
#[must_use]
pub fn too_many_of(rows: &[Row], others: usize) -> bool {
    let tops = || rows.iter().filter(|row| is_top(row) && row.test.status != Status::Skipped);
    let failed = tops().filter(|row| row.test.status == Status::Failed).count();
    failed > 1 && failed * 5 > tops().count() + others
}

/// Whether it is a test that is no subtest.
pub(crate) fn is_top(row: &Row) -> bool {
    top(&row.test.name) == row.test.name && row.test.name != PACKAGE
}

/// What earlier attempts have shown.
#[derive(Debug, Default)]
pub struct Tries {
    /// How many there were.
    number: usize,
    /// How often each top-level test failed by its own doing: an attempt that the infrastructure spoiled shows nothing.
    failed: BTreeMap<String, usize>,
    /// Tests whose last failure was the infrastructure's.
    spoiled: BTreeSet<String>,
}

impl Tries {
    /// Another attempt, of which these are the rows.
    pub fn note(&mut self, rows: &[Row]) {
        self.number += 1;
        self.spoiled.clear();
        for test in rows.iter().filter(|row| is_top(row) && row.test.status == Status::Failed).map(|row| &row.test) {
            if test.cause.is_some_and(|cause| cause.class() == Class::Infrastructure) {
                self.spoiled.insert(test.name.clone());
            } else {
                *self.failed.entry(test.name.clone()).or_default() += 1;
            }
        }
    }

    /// How long to wait before the next attempt, of these: the infrastructure is given time.
    #[must_use]
    pub fn wait(&self, rows: &[Row], names: &[String]) -> Duration {
        let spoiled = names.iter().any(|name| self.spoiled.contains(name));
        let wait = BACKOFF.get(self.number.saturating_sub(1)).copied().unwrap_or_default();
        if spoiled || wants_time(rows, names) { wait } else { Duration::ZERO }
    }
}

/// The top-level tests that get another attempt: those that failed by the infrastructure's doing, up to two; what failed by
/// its own doing, until it has done so twice; and with them what was kept from its end. None if the program crashed or was
/// stopped (then there is nothing to repeat).
#[must_use]
pub fn again(rows: &[Row], ran: &Ran, tries: &Tries) -> Vec<String> {
    let crashed = ran.streams.iter().flat_map(|stream| &stream.packages).any(|package| package.crashed);
    if crashed || ran.stopped.is_some() || ran.signal.is_some() || tries.number > BACKOFF.len() {
        return Vec::new();
    }
    let worth = |row: &&Row| match row.test.cause {
        Some(Cause::Product | Cause::Unclassified) => tries.failed.get(&row.test.name).is_none_or(|times| *times < 2),
        Some(cause) => is_passing(cause),
        None => false,
    };
    let cut_off = cut_off::is_cut_off(rows);
    let failed = |row: &&Row| is_top(row) && row.test.status == Status::Failed && worth(row);
    let wanted = rows.iter().filter(|row| failed(row) || (cut_off && cut_off::was_kept(row)));
    wanted.map(|row| row.test.name.clone()).collect()
}

/// The top-level tests that were stopped, or never began, because what they need stayed away.
#[must_use]
pub fn stopped_by_outage(rows: &[Row]) -> Vec<String> {
    let stopped = |row: &&Row| is_top(row) && row.test.line.as_deref() == Some(STAYED_AWAY);
    rows.iter().filter(stopped).map(|row| row.test.name.clone()).collect()
}

/// Whether time may heal it.
pub(crate) fn is_passing(cause: Cause) -> bool {
    let lasting = [Cause::Interrupted, Cause::LeaseHeld, Cause::Auth, Cause::HostDisk, Cause::Quota];
    cause.class() == Class::Infrastructure && !lasting.contains(&cause)
}

/// Whether one of these tests failed by the infrastructure's doing, so that it is given time.
#[must_use]
pub fn wants_time(rows: &[Row], names: &[String]) -> bool {
    let of = |row: &&Row| is_top(row) && names.contains(&row.test.name);
    rows.iter().filter(of).any(|row| row.test.cause.is_some_and(is_passing))
}

/// What failed and passes now. What had kept it from that stays with it: the infrastructure's doing by name.
pub(crate) fn flaky(test: &mut Test) {
    let theirs = test.cause.filter(|cause| cause.class() == Class::Infrastructure);
    if let Some(cause) = theirs {
        test.line = Some(format!("{cause}: {}", test.line.as_deref().unwrap_or_default()));
    }
    (test.status, test.cause) = (Status::Flaky, Some(Cause::Flaky));
}

/// Joins another attempt to those before: what passes now is flaky, what fails again has failed twice. What had failed
/// by the infrastructure's doing has the cause that it has without. What fails for the first time is added.
pub fn join(rows: &mut Vec<Row>, second: &[Row]) {
    let theirs = |row: &Row| row.test.cause.is_some_and(|cause| cause.class() == Class::Infrastructure);
    let is_new = |row: &&Row| {
        let known = rows.iter().any(|old| old.test.name == row.test.name && old.test.package == row.test.package);
        // That the infrastructure kept a program from its tests says nothing new of them.
        row.test.status == Status::Failed && !known && !(row.test.name == PACKAGE && theirs(row))
    };
    let new: Vec<_> = second.iter().filter(is_new).cloned().collect();
    let passed = |package: &str, name: &str| {
        let same = |now: &&Row| now.test.name == name && now.test.package == package;
        second.iter().find(same).is_some_and(|now| now.test.status == Status::Passed)
    };
    for row in rows.iter_mut() {
        let same = |other: &&Row| other.test.name == row.test.name && other.test.package == row.test.package;
        let failed = row.test.status == Status::Failed;
        let Some(now) = second.iter().find(same).filter(|now| now.test.status != Status::NotRun) else {
            // A subtest that has another name each time goes with the test that it belongs to.
            if failed && passed(&row.test.package, top(&row.test.name)) {
                flaky(&mut row.test);
            }
            continue;
        };
        row.test.attempts += 1;
        if failed && now.test.status == Status::Passed {
            flaky(&mut row.test);
        } else if failed && now.test.status == Status::Failed && theirs(row) && !theirs(now) {
            let attempts = row.test.attempts;
            *row = now.clone();
            row.test.attempts = attempts;
        }
    }
    rows.extend(new);
}

/// Notes at what the ledger leaves out what became of it when it was run all the same.
pub fn lay_shadows(rows: &mut [Row], shadows: &[Row]) {
    for row in rows.iter_mut().filter(|row| row.test.skipped_by == Some(SkipSource::Ledger)) {
        row.test.shadow = ledger::shadow(row, shadows);
    }
}

/// Rows for what the ledger leaves out, and for what it may not leave out any more.
#[must_use]
pub fn left_out(selection: &Selection, package: &str) -> Vec<Row> {
    let excluded = selection.excluded.iter().map(|(name, reason)| {
        let mut test = report::row(name, package, Status::Skipped);
        (test.skipped_by, test.line, test.attempts) = (Some(SkipSource::Ledger), Some(reason.clone()), 0);
        test
    });
    let expired = selection.expired.iter().map(|expired| {
        let mut test = report::row(PACKAGE, "ci/skips.toml", Status::Failed);
        (test.cause, test.line) = (Some(Cause::PolicyRefused), Some(expired.clone()));
        test
    });
    excluded.chain(expired).map(|test| Row { test, excerpt: Vec::new(), ran: None }).collect()
}

/// Rows for those of the tests `asked` for that never began.
#[must_use]
pub fn never_began(asked: &[String], rows: &[Row], package: &str, ran: &Ran, passes: &[Vec<String>]) -> Vec<Row> {
    let why = not_begun(rows, ran, passes);
    let missing = asked.iter().filter(|name| !rows.iter().any(|row| row.test.name == **name));
    let row = |name: &String| {
        let mut test = report::row(name, package, Status::NotRun);
        (test.cause, test.line, test.attempts) = (why.cause, Some(why.why.clone()), 0);
        Row { test, excerpt: Vec::new(), ran: None }
    };
    missing.map(row).collect()
}

/// Rows for subtests that were asked for, of tests that came to a good end without any.
#[must_use]
pub fn no_such_subtests(selection: &Selection, rows: &[Row], package: &str) -> Vec<Row> {
    let passed = |name: &String| rows.iter().any(|row| row.test.name == *name && row.test.status == Status::Passed);
    let any = |name: &String| rows.iter().any(|row| row.test.name != *name && top(&row.test.name) == name);
    let missing = selection.parts.iter().filter(|(name, _)| passed(name) && !any(name));
    let row = |(name, parts): (&String, &Vec<String>)| {
        let mut test = report::row(format!("{name}/{}", parts.join("|")), package, Status::NotRun);
        let why = format!("asked for, and {name} has no such subtest");
        (test.cause, test.line, test.attempts) = (Some(Cause::Usage), Some(why), 0);
        Row { test, excerpt: Vec::new(), ran: None }
    };
    missing.map(row).collect()
}

/// Why tests that were asked for never began.
fn not_begun(rows: &[Row], ran: &Ran, passes: &[Vec<String>]) -> Stopped {
    let crash = ran.streams.iter().flat_map(|stream| {
        stream.tests.iter().filter(|test| stream.packages[test.package].crashed && test.status == Status::Failed)
    });
    let package = rows.iter().find(|row| row.test.name == PACKAGE);
    let cut_off = ran.streams.iter().flat_map(|stream| &stream.packages).find_map(|end| end.cut_off.as_ref());
    if let (None, Some(cut_off)) = (&ran.stopped, cut_off) {
        return Stopped { cause: Some(cut_off.cause), why: cut_off.line.clone().unwrap_or_default() };
    }
    match (&ran.stopped, crash.last(), package) {
        (Some(stopped), _, _) => stopped.clone(),
        (_, Some(test), _) => Stopped {
            cause: test.failure.as_ref().map(|failure| failure.cause),
            why: format!("the test program ended in {}, before this", test.name),
        },
        (_, _, Some(row)) => Stopped {
            cause: row.test.cause,
            why: format!("the test program failed: {}", row.test.line.as_deref().unwrap_or("")),
        },
        _ => {
            let passes: Vec<_> = passes.iter().map(|pass| format!("[{}]", pass.join(" "))).collect();
            let why = format!("asked for, and no pass of the test program ran it: {}", passes.join(", "));
            Stopped { cause: Some(Cause::Usage), why }
        }
    }
}

#[cfg(test)]
mod tests {
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
        let mut cut = |line: &str| {
            let failure = Some(Box::new(crate::cause::Verdict::new(Cause::Product, line)));
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
        assert_eq!(cut(SILENT_END), (Status::NotRun, Some(Cause::Interrupted)));
        assert_eq!(cut("x_test.go:1: wanted 2"), (Status::Failed, Some(Cause::Product)));
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
        let said: Vec<_> = rows(&program)
            .into_iter()
            .map(|row| (row.test.name, row.test.status, row.test.cause, row.test.line))
            .collect();
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
        join(
            &mut rows,
            &[passed("TestA"), passed("TestA/x"), passed("TestA/y"), row("TestB", Status::Failed, product)],
        );
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
        let after: Vec<_> =
            rows.iter().map(|row| (row.test.status, row.test.cause.unwrap(), row.test.attempts)).collect();
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
        assert!(
            wants_time(&[away(Cause::Node)], &["TestA".into()]) && !wants_time(&[failed("TestA")], &["TestA".into()])
        );
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
}
