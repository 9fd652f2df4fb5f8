//! Tests that never came to their end because of what they ran on, and that another attempt ran: nothing that the first
//! one left of them counts.

use kit::record::Status;

use crate::{
    attempts::{flaky, is_passing},
    parse::event::top,
    report::{PACKAGE, Row},
};

/// Whether time may heal what kept a package's tests from their end.
#[must_use]
pub fn is_cut_off(rows: &[Row]) -> bool {
    rows.iter().any(is_package)
}

fn is_package(row: &Row) -> bool {
    row.test.name == PACKAGE && row.test.status == Status::Failed && row.test.cause.is_some_and(is_passing)
}

/// Whether it is a top-level test that was kept from its end by what time may heal.
#[must_use]
pub fn was_kept(row: &Row) -> bool {
    let is_top = top(&row.test.name) == row.test.name && row.test.name != PACKAGE;
    is_top && row.test.status == Status::NotRun && row.test.cause.is_some_and(is_passing)
}

/// Puts what another attempt says in the place of what was kept from its end. A package that came to its end now is
/// flaky, its tests are what they are. Attempts are counted where both are joined.
pub fn adopt(rows: &mut Vec<Row>, second: &[Row]) {
    let came = |row: &&Row| row.test.status != Status::NotRun;
    let kept: Vec<_> = rows.iter().filter(|row| was_kept(row)).map(|row| row.test.clone()).collect();
    for before in kept {
        let of_it = |row: &Row| row.test.package == before.package && top(&row.test.name) == before.name;
        let Some(at) = rows.iter().position(&of_it) else { continue };
        let now: Vec<_> = second.iter().filter(|row| of_it(row)).collect();
        if !now.iter().any(|row| row.test.name == before.name && came(row)) {
            continue;
        }
        rows.retain(|row| !of_it(row));
        let earlier = |row: &Row| if row.test.name == before.name { before.attempts } else { 0 };
        let now = now.into_iter().map(|row| {
            let mut row = row.clone();
            row.test.attempts = earlier(&row);
            row
        });
        rows.splice(at..at, now);
    }
    for row in rows.iter_mut().filter(|row| is_package(row)) {
        let mut now = second.iter().filter(|now| now.test.package == row.test.package);
        let again = now.clone().any(|now| now.test.name == PACKAGE);
        if !again && now.any(|now| came(&now)) {
            flaky(&mut row.test);
            row.test.attempts += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attempts::join, report};
    use Status::{Failed, Flaky, NotRun, Passed};
    use kit::Cause;

    fn row(name: &str, status: Status, cause: Option<Cause>, attempts: u32) -> Row {
        let mut test = report::row(name, "p", status);
        (test.cause, test.attempts) = (cause, attempts);
        Row { test, excerpt: Vec::new(), ran: None }
    }

    fn said(rows: &[Row]) -> Vec<(&str, Status, Option<Cause>, u32)> {
        rows.iter().map(|row| (row.test.name.as_str(), row.test.status, row.test.cause, row.test.attempts)).collect()
    }

    #[test]
    fn another_attempt_takes_the_place_of_what_was_cut_off() {
        let node = Some(Cause::Node);
        let mut rows = vec![
            row(PACKAGE, Failed, node, 1),
            row("TestDone", Passed, None, 1),
            row("TestCut/a", Passed, None, 1),
            row("TestCut", NotRun, node, 1),
            row("TestLate", NotRun, node, 0),
            row("TestLost", NotRun, node, 0),
        ];
        let product = Some(Cause::Product);
        let second = [
            row("TestCut/a", Failed, product, 1),
            row("TestCut", Failed, product, 1),
            row("TestLate/b", Passed, None, 1),
            row("TestLate", Passed, None, 1),
        ];
        let mut again = rows.clone();
        adopt(&mut rows, &second);
        join(&mut rows, &second);
        let flaky = Some(Cause::Flaky);
        let expected = [
            (PACKAGE, Flaky, flaky, 2),
            ("TestDone", Passed, None, 1),
            ("TestCut/a", Failed, product, 1),
            ("TestCut", Failed, product, 2),
            ("TestLate/b", Passed, None, 1),
            ("TestLate", Passed, None, 1),
            ("TestLost", NotRun, node, 0),
        ];
        assert_eq!(said(&rows), expected);
        // Cut off again: nothing has changed.
        let before = again.clone();
        adopt(&mut again, &[row(PACKAGE, Failed, node, 1), row("TestCut", NotRun, node, 1)]);
        assert_eq!(again, before);
    }
}
