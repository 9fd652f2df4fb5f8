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
        let says = |row: &Row, words: &str| row.test.line.as_deref().is_some_and(|line| line.starts_with(words));
        // A test that hung before that has failed all the same.
        let dumped =
            |row: &Row| row.test.cause == Some(Cause::TestTimeout) && (says(row, "SIGQUIT") || says(row, ENDED));
        for row in rows.iter_mut().filter(|row| dumped(row) || says(row, SILENT_END)) {
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
mod tests;
