//! What the runner says of its tests: rows of `results.json`, honest totals, a summary for people.

use std::{collections::HashSet, fmt::Write, path::Path};

use jiff::Timestamp;
use kit::{
    Cause, Class, Exit, Outcome,
    record::{Conditions, Counts, Results, RoundResult, SkipSource, Status, Test},
    ui,
};

use crate::parse::{Ended, Parsed, event::top};

/// The name under which a package stands whose program failed outside of any test. It is counted
/// neither as asked nor as failed, as `go test` does not.
pub const PACKAGE: &str = "(package)";
/// Failures that are shown at length, of those that a rule knows and of those that none does.
const SHOWN: usize = 25;
/// Where a new rule goes.
const RULES: &str = "tools/e2e-runner/src/cause/rules.rs";

/// A row of the record, with what only the summary needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// As in the record.
    pub test: Test,
    /// Its own words.
    pub excerpt: Vec<String>,
    /// When it ran, if it did.
    pub ran: Option<(Timestamp, Timestamp)>,
}

/// The rows of a stream: packages that failed by themselves, then tests in the order in which they ended.
#[must_use]
pub fn rows(parsed: Parsed) -> Vec<Row> {
    let Parsed { packages, tests, .. } = parsed;
    let failed = packages.iter().filter_map(|end| {
        let failure = end.failure.as_ref()?;
        let mut test = row(PACKAGE, &end.name, Status::Failed);
        (test.cause, test.line, test.seconds) = (Some(failure.cause), failure.line.clone(), end.seconds);
        test.log = log(end.log.clone());
        Some(Row { test, excerpt: failure.excerpt.clone(), ran: None })
    });
    let mut rows: Vec<_> = failed.collect();
    rows.reserve_exact(tests.len());
    rows.extend(tests.into_iter().map(|ended| {
        let package = &packages[ended.package].name;
        of_test(ended, package)
    }));
    rows
}

/// The row of a test of that package.
#[must_use]
pub fn of_test(ended: Ended, package: &str) -> Row {
    let mut test = row(ended.name.into_string(), package, ended.status);
    test.seconds = (ended.seconds * 1000.0).round() / 1000.0;
    test.log = log(ended.log);
    test.skipped_by = (ended.status == Status::Skipped).then_some(SkipSource::Test);
    test.line = ended.reason;
    let mut excerpt = Vec::new();
    if let Some(failure) = ended.failure {
        (test.cause, test.line, excerpt) = (Some(failure.cause), failure.line, failure.excerpt);
    }
    Row { test, excerpt, ran: Some((ended.began, ended.ended)) }
}

/// A log as the record names it.
fn log(file: Option<String>) -> Option<String> {
    file.map(|file| format!("logs/{file}"))
}

/// A test that came to nothing yet.
#[must_use]
pub fn row(name: impl Into<String>, package: &str, status: Status) -> Test {
    Test {
        name: name.into(),
        package: package.into(),
        status,
        cause: None,
        line: None,
        skipped_by: None,
        round: None,
        seconds: 0.0,
        attempts: 1,
        log: None,
        reproduce: None,
        evidence: None,
        shadow: None,
    }
}

/// Something is wrong with the cluster as such: whatever the tests say, nobody knows what they would have said.
#[must_use]
pub fn of_cluster(name: &str, cause: Cause, why: String) -> Row {
    let mut test = row(PACKAGE, name, Status::Failed);
    (test.cause, test.line) = (Some(cause), Some(why));
    Row { test, excerpt: Vec::new(), ran: None }
}

/// Totals of top-level tests, and of all.
#[must_use]
pub fn count<'a>(tests: impl IntoIterator<Item = &'a Test>) -> (Counts, Counts) {
    let (mut tops, mut all) = (Counts::default(), Counts::default());
    for test in tests {
        add((&mut tops, &mut all), test);
    }
    (tops, all)
}

/// Adds a test to the totals of top-level tests, and of all.
pub fn add((tops, all): (&mut Counts, &mut Counts), test: &Test) {
    if test.name == PACKAGE {
        return;
    }
    for counts in [Some(all), (top(&test.name) == test.name).then_some(tops)].into_iter().flatten() {
        counts.asked += 1;
        *match (test.status, test.skipped_by) {
            (Status::Passed, _) => &mut counts.passed,
            (Status::Failed, _) => &mut counts.failed,
            (Status::Flaky, _) => &mut counts.flaky,
            (Status::Skipped, Some(SkipSource::Ledger)) => &mut counts.excluded,
            (Status::Skipped, _) => &mut counts.skipped,
            (Status::NotRun, _) => &mut counts.not_run,
        } += 1;
    }
}

/// The exit code of these tests, and the cause that it stands for.
#[must_use]
pub fn verdict<'a>(tests: impl IntoIterator<Item = &'a Test> + Clone) -> (Exit, Option<Cause>) {
    let (tops, _) = count(tests.clone());
    verdict_of(tests, &tops)
}

/// The same of these totals of top-level tests, and of at least those tests that have a cause.
#[must_use]
pub fn verdict_of<'a>(tests: impl IntoIterator<Item = &'a Test> + Clone, tops: &Counts) -> (Exit, Option<Cause>) {
    let causes = || tests.clone().into_iter().filter_map(|test| test.cause);
    // A test that was not run because another one failed adds nothing to that one's cause; and of tests that skipped
    // themselves none has shown anything.
    let ran = tops.passed + tops.failed + tops.flaky;
    let nothing = causes().next().is_none() && ran == 0;
    let exit = kit::combine(causes().chain(nothing.then_some(Cause::NothingRan)), ran);
    // Of several causes with that exit code, the one that most tests have; at a tie, the first listed.
    let fitting = |cause: &Cause| cause.exit() == exit;
    let number = |cause: &Cause| causes().filter(|other| other == cause).count();
    let cause = Cause::ALL.iter().copied().filter(fitting).rev().max_by_key(number).filter(|cause| number(cause) > 0);
    (exit, cause.or(nothing.then_some(Cause::NothingRan)))
}

/// `passed`, `failed` and so on, in words.
#[must_use]
pub fn totals(counts: &Counts) -> String {
    let parts = [
        (counts.passed, "passed"),
        (counts.failed, "failed"),
        (counts.flaky, "flaky"),
        (counts.skipped, "skipped themselves"),
        (counts.excluded, "left out (ci/skips.toml)"),
        (counts.not_run, "not run"),
    ];
    let said: Vec<_> = parts.iter().filter(|part| part.0 > 0).map(|(n, what)| format!("{n} {what}")).collect();
    let said = if said.is_empty() { "none".into() } else { said.join(", ") };
    format!("{} tests: {said}", counts.asked)
}

/// The end of a run for people: what is not good, why, and how to see it again; then the totals. Logs lie
/// under `folder`.
#[must_use]
pub fn summary(results: &Results, rows: &[Row], folder: &Path) -> String {
    let mut text = String::new();
    let bad: Vec<_> = rows.iter().filter(|row| matches!(row.test.status, Status::Failed | Status::Flaky)).collect();
    // A test fails when a subtest does: the subtest says why.
    let inner = bad.iter().flat_map(|row| {
        let (name, package) = (row.test.name.as_str(), row.test.package.as_str());
        name.match_indices('/').map(move |(at, _)| (package, &name[..at]))
    });
    let inner: HashSet<_> = inner.collect();
    let told = |row: &&&Row| !inner.contains(&(row.test.package.as_str(), row.test.name.as_str()));
    let known = |row: &&&Row| row.test.cause != Some(Cause::Unclassified);
    let (classified, unknown): (Vec<_>, Vec<_>) = bad.iter().filter(told).partition(known);
    failures(&mut text, &classified, folder);
    if !unknown.is_empty() {
        let _ = writeln!(text, "{} failures that no rule knows: a rule is owed ({RULES})\n", unknown.len());
        failures(&mut text, &unknown, folder);
    }
    not_run(&mut text, rows);
    let _ = writeln!(text, "{}", totals(&results.counts));
    if results.all_counts != results.counts {
        let _ = writeln!(text, "with subtests: {}", totals(&results.all_counts));
    }
    rounds(&mut text, &results.conditions.rounds);
    shadows(&mut text, rows);
    conditions(&mut text, &results.conditions);
    let verdict = match (results.head.outcome, results.head.cause) {
        (Outcome::Passed, Some(cause)) => format!("good, but {cause}"),
        (Outcome::Passed, None) => "good".into(),
        (_, Some(cause)) if cause.class() == Class::Infrastructure => {
            format!("{cause}: infrastructure, nothing is said of the component")
        }
        (_, Some(cause)) => format!("not good: {cause}"),
        (_, None) => "not good".into(),
    };
    let _ = writeln!(text, "{verdict}");
    if let Some(message) = &results.head.message {
        let _ = writeln!(text, "{}", ui::printable(message));
    }
    text
}

/// What came of each round, and with which settings, unless there was only one without any.
fn rounds(text: &mut String, rounds: &[RoundResult]) {
    if rounds.len() == 1 && rounds[0].settings.is_empty() {
        return;
    }
    for round in rounds {
        let set: Vec<_> = round.settings.iter().map(|set| format!("{}={}", set.key, set.value)).collect();
        let set = if set.is_empty() { String::new() } else { format!(" ({})", set.join(", ")) };
        let _ = writeln!(text, "round {}{}: {}", round.name, ui::printable(&set), totals(&round.counts));
    }
}

/// What became of tests that are left out, if they were run all the same.
fn shadows(text: &mut String, rows: &[Row]) {
    for (wanted, words) in [(true, "would pass by now"), (false, "would still not pass")] {
        let is = |row: &&Row| row.test.shadow.is_some_and(|shadow| (shadow == Status::Passed) == wanted);
        let names: Vec<_> = rows.iter().filter(is).map(|row| ui::printable(&shorten(&row.test.name))).collect();
        if !names.is_empty() {
            let _ = writeln!(text, "left out by ci/skips.toml, and {words}: {}", names.join(", "));
        }
    }
}

/// Where the tests ran, and with whose patience.
fn conditions(text: &mut String, conditions: &Conditions) {
    for line in &conditions.diagnosis {
        let _ = writeln!(text, "more than a fifth failed; the cluster: {}", ui::printable(line));
    }
    let pods: Vec<_> = conditions.pods.iter().map(|(platform, number)| format!("{number} on {platform}")).collect();
    if !pods.is_empty() {
        let _ = writeln!(text, "pods of the tests: {}", ui::printable(&pods.join(", ")));
    }
    if let Some(stretch) = &conditions.stretch {
        let _ = writeln!(
            text,
            "limits times {}, for the nodes are {:.1} times slower ({}); {} lengths of time changed in the tests",
            stretch.factor,
            stretch.slowdown,
            stretch.source,
            stretch.changes.iter().map(|change| change.times).sum::<usize>()
        );
    }
}

/// The first ones of these, and how many there are beside them.
fn failures(text: &mut String, rows: &[&&Row], folder: &Path) {
    for row in rows.iter().take(SHOWN) {
        failure(text, row, folder);
    }
    if rows.len() > SHOWN {
        let _ = writeln!(text, "… and {} more, in results.json\n", rows.len() - SHOWN);
    }
}

fn failure(text: &mut String, row: &Row, folder: &Path) {
    let test = &row.test;
    let name = if test.name == PACKAGE { &test.package } else { &test.name };
    let word = if test.status == Status::Flaky { "FLAKY" } else { "FAIL" };
    let cause = test.cause.map_or("", Cause::name);
    let _ = writeln!(text, "{word} {} [{cause}] {:.1} s", ui::printable(&shorten(name)), test.seconds);
    // Where the infrastructure is at fault, the test's own words only repeat it.
    let theirs = test.cause.is_some_and(|cause| cause.class() == Class::Infrastructure);
    let words = if theirs { &[] } else { &row.excerpt[..] };
    if let Some(line) = test.line.as_ref().filter(|line| !words.contains(line)) {
        let _ = writeln!(text, "  because: {}", ui::printable(line));
    }
    for line in words {
        let _ = writeln!(text, "  | {}", ui::printable(line));
    }
    let place = |path: &Option<String>| path.as_ref().map(|path| folder.join(path).display().to_string());
    let (log, evidence) = (place(&test.log), place(&test.evidence));
    for (what, value) in [("log", &log), ("evidence", &evidence), ("again", &test.reproduce)] {
        if let Some(value) = value {
            let _ = writeln!(text, "  {what}: {}", ui::printable(value));
        }
    }
    text.push('\n');
}

/// Tests that did not run, together by reason.
fn not_run(text: &mut String, rows: &[Row]) {
    let idle: Vec<_> = rows.iter().filter(|row| row.test.status == Status::NotRun).collect();
    let mut reasons: Vec<_> = idle.iter().map(|row| (row.test.cause, row.test.line.as_deref())).collect();
    reasons.sort_unstable();
    reasons.dedup();
    for reason in reasons {
        let names: Vec<_> = idle.iter().filter(|row| (row.test.cause, row.test.line.as_deref()) == reason).collect();
        let cause = reason.0.map_or("", Cause::name);
        let _ = writeln!(text, "NOT RUN [{cause}] {} tests: {}", names.len(), ui::printable(reason.1.unwrap_or("")));
        let shown: Vec<_> = names.iter().take(8).map(|row| ui::printable(&shorten(&row.test.name))).collect();
        let more = if names.len() > 8 { ", …" } else { "" };
        let _ = writeln!(text, "  {}{more}\n", shown.join(", "));
    }
}

fn shorten(name: &str) -> String {
    match name.char_indices().nth(120) {
        Some((end, _)) => format!("{}…", &name[..end]),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn test(name: &str, status: Status, cause: Option<Cause>) -> Test {
        Test { cause, ..row(name, "p", status) }
    }

    #[test]
    fn totals_add_up() {
        let mut excluded = test("TestD", Status::Skipped, None);
        excluded.skipped_by = Some(SkipSource::Ledger);
        let tests = [
            test("TestA", Status::Passed, None),
            test("TestA/x", Status::Passed, None),
            test("TestB", Status::Failed, Some(Cause::Product)),
            test("TestC", Status::Skipped, None),
            excluded,
            test(PACKAGE, Status::Failed, Some(Cause::Product)),
        ];
        let (tops, all) = count(&tests);
        assert_eq!((tops.asked, tops.passed, tops.failed, tops.skipped, tops.excluded), (4, 1, 1, 1, 1));
        assert_eq!((all.asked, all.passed), (5, 2));
        assert_eq!(totals(&tops), "4 tests: 1 passed, 1 failed, 1 skipped themselves, 1 left out (ci/skips.toml)");
    }

    #[test]
    fn what_is_left_out_and_would_pass_is_said() {
        let mut rows = Vec::new();
        for (name, shadow) in [("TestNet", Some(Status::Passed)), ("TestOld", Some(Status::Failed)), ("TestOff", None)]
        {
            let test = Test { shadow, skipped_by: Some(SkipSource::Ledger), ..test(name, Status::Skipped, None) };
            rows.push(Row { test, excerpt: Vec::new(), ran: None });
        }
        let mut text = String::new();
        shadows(&mut text, &rows);
        assert_eq!(
            text,
            "left out by ci/skips.toml, and would pass by now: TestNet\n\
             left out by ci/skips.toml, and would still not pass: TestOld\n"
        );
    }

    #[test]
    fn failures_that_no_rule_knows_stand_apart() {
        let failed =
            |name: &str, cause| Row { test: test(name, Status::Failed, Some(cause)), excerpt: Vec::new(), ran: None };
        let mut rows = vec![failed("TestOdd", Cause::Unclassified), failed("TestBad", Cause::Product)];
        let results = crate::runs::tests::results("x", "linux/amd64", Vec::new());
        let said = summary(&results, &rows, Path::new("f"));
        let (bad, owed) = (said.find("FAIL TestBad").unwrap(), said.find("1 failures that no rule knows").unwrap());
        assert!(bad < owed && owed < said.find("FAIL TestOdd").unwrap(), "{said}");
        rows.remove(0);
        assert!(!summary(&results, &rows, Path::new("f")).contains("no rule"));
    }

    #[test]
    fn one_exit_code_and_its_cause() {
        let away = test("TestA", Status::Failed, Some(Cause::ClusterUnreachable));
        let bad = test("TestB", Status::Failed, Some(Cause::Product));
        let good = test("TestC", Status::Passed, None);
        let flaky = test("TestD", Status::Flaky, Some(Cause::Flaky));
        assert_eq!(verdict([&away, &bad, &good]), (Exit::NOT_GOOD, Some(Cause::Product)));
        assert_eq!(verdict([&away, &good]), (Exit::INFRASTRUCTURE, Some(Cause::ClusterUnreachable)));
        assert_eq!(verdict([&flaky, &good]), (Exit::GOOD, Some(Cause::Flaky)));
        assert_eq!(verdict([&good]), (Exit::GOOD, None));
        assert_eq!(verdict([]), (Exit::NOTHING_RAN, Some(Cause::NothingRan)));
        let skipped = test("TestE", Status::Skipped, None);
        assert_eq!(verdict([&skipped]), (Exit::NOTHING_RAN, Some(Cause::NothingRan)), "all skipped themselves");
        assert_eq!(verdict([&skipped, &good]), (Exit::GOOD, None));
    }
}
