//! `ci/skips.toml` held against a test program: which of its tests are left out here and today, and which entries are
//! of no use.

use kit::{
    ci::{Skip, Unless},
    record::{SkipSource, Status},
};

use crate::{
    parse::event::top,
    report::Row,
    select::{Choice, Selection},
};

/// What the ledger leaves out here and today, by names of tests; a subtest's as the ledger has it.
pub(crate) fn find(choice: &Choice<'_>, listed: &[String], selection: &mut Selection) -> Vec<(String, String)> {
    let mut left_out: Vec<(String, String)> = Vec::new();
    for skip in choice.skips.iter().filter(|skip| is_here(skip, choice)) {
        for entry in &skip.tests {
            let (first, rest) = entry.split_once('/').map_or((entry.as_str(), None), |(top, rest)| (top, Some(rest)));
            let tops: Vec<_> = listed.iter().filter(|test| fits(first, test)).collect();
            if tops.is_empty() {
                selection.unknown.push(entry.clone());
            } else if skip.until < choice.today {
                // It is the affair of whoever runs one of these tests.
                if !tops.iter().any(|test| choice.wanted.of(test, listed).is_some()) {
                    continue;
                }
                selection.expired.push(format!("{entry}: left out until {} (owner: {})", skip.until, skip.owner));
            } else {
                let name = |test: &String| rest.map_or_else(|| test.clone(), |rest| format!("{test}/{rest}"));
                for name in tops.into_iter().map(name) {
                    if !left_out.iter().any(|(known, _)| *known == name) {
                        left_out.push((name, skip.reason.clone()));
                    }
                }
            }
        }
    }
    left_out
}

fn is_here(skip: &Skip, choice: &Choice<'_>) -> bool {
    skip.component == choice.component
        && skip.is_of(choice.version)
        && (skip.platforms.is_empty() || skip.platforms.contains(choice.platform))
        && (skip.suites.is_empty() || skip.suites.iter().any(|suite| suite == choice.suite_name))
        && !(choice.lab && skip.unless == Some(Unless::Lab))
}

/// A level of a name as a regular expression: `*` stands for anything within it.
pub(crate) fn pattern(level: &str) -> String {
    let parts: Vec<_> = level.split('*').map(regex::escape).collect();
    format!("^{}$", parts.join(".*"))
}

/// Whether a name fits an entry of the ledger, each of its levels.
fn fits(entry: &str, name: &str) -> bool {
    let level = |(entry, name): (&str, &str)| {
        let mut parts = entry.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    };
    entry.split('/').count() == name.split('/').count() && entry.split('/').zip(name.split('/')).all(level)
}

/// What became of a test that the ledger leaves out, or of all that an entry stands for, when it was run to see.
pub(crate) fn shadow(entry: &Row, shadows: &[Row]) -> Option<Status> {
    let of_it = |row: &&Row| row.test.package == entry.test.package && fits(&entry.test.name, &row.test.name);
    let found = || shadows.iter().filter(of_it).map(|row| row.test.status);
    found().find(|status| *status != Status::Passed).or_else(|| found().next())
}

/// Subtests of the ledger that nobody has seen, though the test that they belong to came to a good end with nothing left
/// out.
pub(crate) fn unknown(rows: &[Row], shadows: &[Row]) -> Vec<String> {
    let whole = |name: &str| {
        shadows
            .iter()
            .any(|row| row.test.name == top(name) && matches!(row.test.status, Status::Passed | Status::Flaky))
    };
    let left_out = rows.iter().filter(|row| row.test.skipped_by == Some(SkipSource::Ledger));
    let names = left_out.filter(|row| row.test.shadow.is_none()).map(|row| &row.test.name);
    names.filter(|name| name.contains('/') && whole(name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report;

    #[test]
    fn a_star_stands_for_any_part_of_a_level() {
        for (entry, name, is) in [
            ("TestA", "TestA", true),
            ("TestA", "TestAb", false),
            ("TestA*", "TestA", true),
            ("Test*Net", "TestXNet", true),
            ("Test*Net", "TestNets", false),
            ("*a*b*", "xaybz", true),
            ("*a*b*", "xbya", false),
            ("a*a", "a", false),
            ("TestA/*", "TestA/x", true),
            ("TestA/*", "TestA", false),
            ("Test*/x", "TestB/x", true),
            ("TestA*", "TestA/x", false),
        ] {
            assert_eq!(fits(entry, name), is, "{entry} {name}");
            let mut levels = entry.split('/').zip(name.split('/'));
            let same_levels = entry.split('/').count() == name.split('/').count();
            let go = levels.all(|(entry, name)| regex::Regex::new(&pattern(entry)).unwrap().is_match(name));
            assert_eq!(go && same_levels, is, "{entry} {name}");
        }
    }

    #[test]
    fn entries_that_nobody_knows_are_found_when_nothing_is_left_out() {
        let left_out = |name: &str| {
            let mut test = report::row(name, "p", Status::Skipped);
            test.skipped_by = Some(SkipSource::Ledger);
            Row { test, excerpt: Vec::new(), ran: None }
        };
        let ran = |name: &str, status| Row { test: report::row(name, "p", status), excerpt: Vec::new(), ran: None };
        let shadows = [
            ran("TestA/x1", Status::Passed),
            ran("TestA/x2", Status::Failed),
            ran("TestA", Status::Passed),
            ran("TestB", Status::Failed),
        ];
        let mut rows: Vec<_> = ["TestA/x*", "TestA/x1", "TestA/gone", "TestB/late", "TestC/x"].map(left_out).into();
        for row in &mut rows {
            row.test.shadow = shadow(row, &shadows);
        }
        let said: Vec<_> = rows.iter().map(|row| row.test.shadow).collect();
        assert_eq!(said, [Some(Status::Failed), Some(Status::Passed), None, None, None]);
        assert_eq!(unknown(&rows, &shadows), ["TestA/gone"], "TestB may have ended before it came so far");
    }
}
