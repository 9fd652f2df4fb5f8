//! The subtests of a test that failed, so that they run again by themselves: an example is a subtest of the one test that
//! runs them all. Of other tests that is not done, for their subtests may need each other.

use std::collections::{BTreeMap, BTreeSet};

use kit::{
    Cause,
    record::{Results, Status, Test},
};

use crate::{
    cause::is_crash,
    options::Kind,
    parse::event::top,
    pattern,
    report::{PACKAGE, Row},
    runs::Found,
    select::Selection,
};

/// How long a pattern may be that is said letter by letter: each is a level of a regular expression.
const LONGEST: usize = 300;

/// The patterns of subtests, by the top-level test that they belong to.
pub type Leaves = BTreeMap<String, Vec<String>>;

/// A subtest and no other, as `--tests` and `-test.run` take it.
#[must_use]
pub fn exactly(test: &str) -> String {
    match test.split_once('/') {
        Some((top, rest)) => format!("{top}/{}", exact(rest)),
        None => test.to_owned(),
    }
}

/// Each level for itself. A comma would end a value of `--tests`.
fn exact(levels: &str) -> String {
    let level = |level: &str| format!("^{}$", regex::escape(level).replace(',', "[,]"));
    levels.split('/').map(level).collect::<Vec<_>>().join("/")
}

/// The levels that a pattern of [`exactly`] names; nothing for another one.
fn levels(pattern: &str) -> Option<Vec<String>> {
    let level = |level: &str| {
        let inner = level.strip_prefix('^')?.strip_suffix('$')?.replace("[,]", ",");
        let mut name = String::new();
        let mut chars = inner.chars();
        while let Some(c) = chars.next() {
            name.push(if c == '\\' { chars.next().filter(|c| !c.is_alphanumeric())? } else { c });
        }
        (regex::escape(&name) == inner).then_some(name)
    };
    pattern::split(pattern, '/').into_iter().map(level).collect()
}

/// What `-test.skip` has to leave out of a test so that only these subtests run, if all `parts` name them exactly: programs
/// that set a `-test.run` of their own, as Tekton's does, run all of a test otherwise.
#[must_use]
pub fn skips(test: &str, parts: &[String]) -> Vec<String> {
    // A longer one is more than Go's regular expressions take.
    let short = parts.iter().all(|part| part.len() <= LONGEST);
    let wanted = parts.iter().map(|part| levels(part)).collect::<Option<Vec<_>>>().filter(|_| short);
    let Some(wanted) = wanted else { return Vec::new() };
    let mut below: BTreeMap<&[String], BTreeSet<&str>> = BTreeMap::new();
    for leaf in &wanted {
        for at in 0..leaf.len() {
            below.entry(&leaf[..at]).or_default().insert(&leaf[at]);
        }
    }
    // Of a subtest that is wanted all is, whatever else is wanted in it.
    below.retain(|outer, _| !wanted.iter().any(|leaf| outer.starts_with(leaf)));
    let escape = |level: &str| format!("^{}$", regex::escape(level));
    let skip = |(outer, names): (&&[String], &BTreeSet<&str>)| {
        let outer: String = outer.iter().map(|level| format!("/{}", escape(level))).collect();
        format!("{}{outer}/^{}$", escape(test), others(names.iter().copied()))
    };
    below.iter().map(skip).collect()
}

/// Fits all names but these. Go's regular expressions cannot say that of a whole name, so it is said letter by letter.
fn others<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let (mut ends, mut by_first) = (false, BTreeMap::<char, Vec<&str>>::new());
    for name in names {
        let mut chars = name.chars();
        match chars.next() {
            Some(first) => by_first.entry(first).or_default().push(chars.as_str()),
            None => ends = true,
        }
    }
    let escape = |c: char| if c.is_ascii() && !c.is_alphanumeric() { format!("\\{c}") } else { c.to_string() };
    let mut alternatives = Vec::new();
    if !ends {
        alternatives.push(String::new());
    }
    let heads: String = by_first.keys().map(|c| escape(*c)).collect();
    alternatives.push(if heads.is_empty() { ".+".into() } else { format!("[^{heads}].*") });
    let longer = by_first.into_iter().map(|(first, rest)| format!("{}{}", escape(first), others(rest.into_iter())));
    alternatives.extend(longer);
    format!("(?:{})", alternatives.join("|"))
}

/// The failures that no failure in them explains, without those of whole tests.
fn failed<'a>(tests: impl Iterator<Item = &'a Test> + Clone) -> impl Iterator<Item = &'a str> {
    let bad = tests.filter(|test| test.status == Status::Failed && test.name != PACKAGE).map(|test| test.name.as_str());
    let outer: BTreeSet<_> =
        bad.clone().flat_map(|name| name.match_indices('/').map(move |(at, _)| &name[..at])).collect();
    bad.filter(move |name| name.contains('/') && !outer.contains(name))
}

/// The failed subtests of these tests, by their names.
#[must_use]
pub fn of(rows: &[Row], tops: &[String]) -> Vec<String> {
    let found = failed(rows.iter().map(|row| &row.test));
    found.filter(|name| tops.iter().any(|wanted| wanted == top(name))).map(String::from).collect()
}

/// What runs these subtests, and of their tests nothing else.
#[must_use]
pub fn selection(selection: &Selection, leaves: &[String]) -> Selection {
    let mut parts = Leaves::new();
    for (top, rest) in leaves.iter().filter_map(|leaf| leaf.split_once('/')) {
        parts.entry(top.to_owned()).or_default().push(exact(rest));
    }
    let mut selection = selection.clone();
    selection.parts.extend(parts);
    selection
}

/// Whether more than a fifth of the subtests failed, of which `others` have run at another time.
#[must_use]
pub fn too_many(rows: &[Row], others: usize) -> bool {
    let tests = || rows.iter().map(|row| &row.test).filter(|test| test.status != Status::Skipped);
    let outer: BTreeSet<_> = tests().flat_map(|test| test.name.rsplit_once('/').map(|(outer, _)| outer)).collect();
    let all = tests().filter(|test| test.name.contains('/') && !outer.contains(test.name.as_str())).count();
    let failed = failed(tests()).count();
    failed > 1 && failed * 5 > all + others
}

/// What of earlier runs of examples is to run again where that need not be all of a test.
#[must_use]
pub fn of_earlier(found: &[Found]) -> Leaves {
    let (mut leaves, mut whole) = (Leaves::new(), BTreeSet::new());
    for results in found.iter().map(|found| &found.results).filter(|results| results.kind == Kind::Examples.name()) {
        let bad = |test: &&Test| matches!(test.status, Status::Failed | Status::NotRun) && test.name != PACKAGE;
        let tops: BTreeSet<_> = results.tests.iter().filter(bad).map(|test| top(&test.name)).collect();
        for test in tops {
            let its = failed(results.tests.iter()).filter(|name| top(name) == test);
            let its: Vec<_> = its.filter_map(|name| Some(exact(name.split_once('/')?.1))).collect();
            if its.is_empty() || !is_complete(results, test) {
                whole.insert(test.to_owned());
            }
            leaves.entry(test.to_owned()).or_default().extend(its);
        }
    }
    leaves.retain(|test, _| !whole.contains(test));
    leaves
}

/// Whether a test came so far that all its subtests have run.
fn is_complete(results: &Results, test: &str) -> bool {
    let away = [Cause::TestTimeout, Cause::ClusterUnreachable, Cause::Apiserver, Cause::Node, Cause::Interrupted];
    let mut its = results.tests.iter().filter(|other| top(&other.name) == test);
    let ended = its.all(|test| {
        let crashed = test.line.as_deref().is_some_and(is_crash);
        test.status != Status::NotRun && !crashed && test.cause.is_none_or(|cause| !away.contains(&cause))
    });
    let as_a_whole = results.tests.iter().any(|test| test.name == PACKAGE && test.status == Status::Failed);
    ended && !as_a_whole && results.head.message.is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report, runs};
    use Status::{Failed, NotRun, Passed};

    fn rows(tests: &[(&str, Status)]) -> Vec<Row> {
        let row = |(name, status): &(&str, Status)| Row {
            test: report::row(*name, "p", *status),
            excerpt: Vec::new(),
            ran: None,
        };
        tests.iter().map(row).collect()
    }

    #[test]
    fn a_subtest_that_failed_is_run_by_itself() {
        let rows = rows(&[
            ("TestA/v1/x.yaml", Failed),
            ("TestA/v1/y+1,2", Failed),
            ("TestA/v1/z", Passed),
            ("TestA/v1", Failed),
            ("TestA", Failed),
            ("TestB/x", Failed),
            ("TestB", Failed),
        ]);
        let leaves = of(&rows, &["TestA".into()]);
        assert_eq!(leaves, ["TestA/v1/x.yaml", "TestA/v1/y+1,2"]);
        let asked = vec!["TestA".to_owned(), "TestB".to_owned()];
        let selection = selection(&Selection { asked, ..Selection::default() }, &leaves);
        let parts = &selection.parts["TestA"];
        let skip = format!("-test.skip=^TestB$|{}", skips("TestA", parts).join("|"));
        assert_eq!(
            selection.arguments(&["TestA".into()]).unwrap(),
            [r"-test.run=^TestA$/^v1$/^x\.yaml$|^TestA$/^v1$/^y\+1[,]2$", &skip]
        );
        assert_eq!(exactly("TestA/v1/x.yaml"), r"TestA/^v1$/^x\.yaml$");
        assert_eq!(exactly("TestA"), "TestA");
    }

    #[test]
    fn all_others_are_left_out_by_their_names() {
        let parts = ["v1/x.yaml", "v1/xy", "v2/a-b", "w"].map(exact);
        let skips = skips("TestA", &parts);
        let skipped = |name: &str| {
            // As Go matches: each level of a pattern, however many more a name has.
            let one = |skip: &String| {
                let skip = pattern::split(skip, '/');
                let names: Vec<_> = name.split('/').collect();
                let fits = |(level, name): (&&str, &&str)| regex::Regex::new(level).unwrap().is_match(name);
                skip.len() <= names.len() && skip.iter().zip(&names).all(fits)
            };
            skips.iter().any(one)
        };
        for run in [
            "TestA",
            "TestA/v1/x.yaml",
            "TestA/v1/x.yaml/in it",
            "TestA/v1/xy",
            "TestA/v2/a-b",
            "TestA/w/z",
            "TestA/v1",
        ] {
            assert!(!skipped(run), "{run} {skips:?}");
        }
        for not in [
            "TestA/v1/x",
            "TestA/v1/x.yamls",
            "TestA/v1/xyz",
            "TestA/v1/",
            "TestA/v2/a_b",
            "TestA/v3/a",
            "TestA/v/xy",
            "TestA/é",
        ] {
            assert!(skipped(not), "{not} {skips:?}");
        }
        for another in ["x", "^x.$", "^(a|b)$", "^x$/y", r"^\w$"] {
            assert_eq!(
                super::skips("TestA", &[another.to_owned()]),
                [""; 0],
                "{another}: nobody knows what it does not fit"
            );
        }
    }

    #[test]
    fn more_than_a_fifth_is_more_than_each_of_them() {
        let of = |bad: usize, good: usize| {
            let name = |n| format!("TestA/v1/x{n}");
            let all: Vec<_> = (0..bad + good).map(|n| (name(n), if n < bad { Failed } else { Passed })).collect();
            let mut all: Vec<_> = all.iter().map(|(name, status)| (name.as_str(), *status)).collect();
            all.extend([("TestA/v1", Failed), ("TestA", Failed)]);
            too_many(&rows(&all), 0)
        };
        assert!(!of(1, 0) && !of(2, 8) && of(2, 7) && of(5, 0));
        assert!(!too_many(&rows(&[("TestA/x", Failed), ("TestA/y", Failed), ("TestA", Failed)]), 8));
    }

    #[test]
    fn of_an_earlier_run_only_what_failed_if_all_of_it_ran() {
        let found = |tests: &[(&str, Status)], kind: Kind, change: fn(&mut Results)| {
            let tests = rows(tests).into_iter().map(|row| row.test).collect();
            let mut results = runs::tests::results("x", "linux/amd64", tests);
            results.kind = kind.name().into();
            change(&mut results);
            of_earlier(&[Found { path: "r".into(), digest: String::new(), results }])
        };
        let tests = [("TestA/x", Failed), ("TestA/y", Passed), ("TestA", Failed), ("TestB", Failed)];
        let its = Leaves::from([("TestA".to_owned(), vec!["^x$".to_owned()])]);
        assert_eq!(found(&tests, Kind::Examples, |_| {}), its);
        assert_eq!(found(&tests, Kind::E2e, |_| {}), Leaves::new(), "subtests may need each other");
        let cut = [("TestA/x", Failed), ("TestA/y", NotRun), ("TestA", Failed)];
        assert_eq!(found(&cut, Kind::Examples, |_| {}), Leaves::new());
        let crashed: fn(&mut Results) = |results| results.tests[2].line = Some("panic: oh".into());
        let late: fn(&mut Results) = |results| results.tests[2].cause = Some(Cause::TestTimeout);
        let stopped: fn(&mut Results) = |results| results.head.message = Some("stopped".into());
        for change in [crashed, late, stopped] {
            assert_eq!(found(&tests, Kind::Examples, change), Leaves::new(), "others may not have run");
        }
    }
}
