//! Which tests: the suite, the ledger of skips, `--tests`; and how they are named to a test program.

use std::collections::BTreeSet;

use jiff::civil::Date;
use kit::{
    Cause, Error, Platform, Result,
    ci::{Skip, Suite},
    record::Status,
};

use crate::{
    leaves::{self, Leaves},
    ledger,
    parse::event::top,
    pattern::{self, Alternative},
    report::PACKAGE,
    runs::Found,
};

/// One argument of a process may be 128 KiB long (execve(2), MAX_ARG_STRLEN).
const PATTERN_LIMIT: usize = 100_000;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Top-level tests that are run, in the program's order.
    pub asked: Vec<String>,
    /// Those of them of which only some subtests are, by `-test.run`'s patterns for these.
    pub parts: Leaves,
    /// Subtests that `--skip` leaves out, as `-test.skip` takes them.
    pub skipped: Vec<String>,
    /// Tests (`TestA` or `TestA/sub`) that the ledger leaves out, with the reason.
    pub excluded: Vec<(String, String)>,
    /// All other top-level tests of the program.
    pub others: Vec<String>,
    /// Entries of the ledger whose time is over: they leave nothing out, and are a failure of their own.
    pub expired: Vec<String>,
    /// Names in the ledger that no test has.
    pub unknown: Vec<String>,
}

/// What the tests are chosen from.
#[derive(Debug)]
pub struct Choice<'a> {
    /// The component's name.
    pub component: &'a str,
    /// Its version.
    pub version: &'a str,
    /// The suite's name.
    pub suite_name: &'a str,
    /// The suite.
    pub suite: &'a Suite,
    /// The ledger.
    pub skips: &'a [Skip],
    /// Where they run.
    pub platform: &'a Platform,
    /// Whether that is a lab's node that is this machine.
    pub lab: bool,
    /// `--tests` and `--skip`.
    pub wanted: &'a Wanted,
    /// The day.
    pub today: Date,
}

/// `--tests`: names, or patterns as `go test -run` takes them; or the names of an earlier record. And `--skip`.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// The alternatives of each value.
    patterns: Vec<Vec<Alternative>>,
    names: Option<BTreeSet<String>>,
    /// Those of them of which only some subtests failed, by patterns for these.
    leaves: Leaves,
    skip: Vec<Alternative>,
}

impl Wanted {
    /// Reads the options' values: names or patterns, of `--tests` several with commas between.
    ///
    /// # Errors
    /// [`Cause::Usage`] for what is no regular expression.
    pub fn new(values: &[String], skip: &[String]) -> Result<Self> {
        let parts = values.iter().flat_map(|value| pattern::split(value, ','));
        let parts = parts.map(str::trim).filter(|part| !part.is_empty());
        let read = |part: &str| pattern::read("--tests", part);
        let skip = skip.iter().filter(|value| !value.is_empty()).map(|value| pattern::read("--skip", value));
        let skip = skip.collect::<Result<Vec<_>>>()?.concat();
        Ok(Self { patterns: parts.map(read).collect::<Result<_>>()?, skip, ..Self::default() })
    }

    /// Instead of what `--tests` names: the top-level tests that failed or did not come to their end in earlier records; of
    /// examples, those of them that failed.
    #[must_use]
    pub fn failed(self, found: &[Found]) -> Self {
        let tests = found.iter().flat_map(|found| &found.results.tests);
        let bad = tests.filter(|test| matches!(test.status, Status::Failed | Status::NotRun) && test.name != PACKAGE);
        let names = bad.map(|test| top(&test.name).to_owned()).collect();
        Self { patterns: Vec::new(), names: Some(names), leaves: leaves::of_earlier(found), ..self }
    }

    /// The names, if it is names of an earlier record.
    #[must_use]
    pub fn names(&self) -> Option<&BTreeSet<String>> {
        self.names.as_ref()
    }

    /// Whether no tests are named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.names.is_none()
    }

    /// Whether it leaves a suite as it is.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.is_empty() && self.skip.is_empty()
    }

    /// What is wanted of a test: nothing, or the subtests that these patterns name; without any, all of it. A whole name
    /// means that test alone; anything else is a pattern.
    pub(crate) fn of(&self, test: &str, listed: &[String]) -> Option<Vec<String>> {
        if self.skip.iter().any(|skip| skip.rest.is_none() && skip.fits(test)) {
            return None;
        }
        if self.is_empty() || self.names.as_ref().is_some_and(|names| names.contains(test)) {
            return Some(self.leaves.get(test).cloned().unwrap_or_default());
        }
        let mut parts = Vec::new();
        for alternatives in &self.patterns {
            let is_name = |text: &String| alternatives.len() == 1 && listed.contains(text);
            let fits = |one: &&Alternative| if is_name(&one.top) { one.top == test } else { one.fits(test) };
            for one in alternatives.iter().filter(fits) {
                parts.push(one.rest.clone());
            }
        }
        if parts.contains(&None) {
            return Some(Vec::new());
        }
        (!parts.is_empty()).then(|| parts.into_iter().flatten().collect())
    }

    /// The subtests that `--skip` leaves out.
    fn skipped(&self) -> Vec<String> {
        self.skip.iter().filter(|skip| skip.rest.is_some()).map(Alternative::text).collect()
    }
}

/// Chooses among the tests `listed` by the program.
///
/// # Errors
/// [`Cause::Usage`] if the suite names a test that is not there, [`Cause::NothingRan`] if none is left.
pub fn choose(choice: &Choice<'_>, listed: &[String]) -> Result<Selection> {
    let selection = among(choice, listed)?;
    if selection.asked.is_empty() {
        let left_out = match selection.excluded.len() {
            0 => String::new(),
            n => format!(" ({n} are left out by ci/skips.toml)"),
        };
        let what = format!("{}: no tests selected of {}{left_out}", choice.component, listed.len());
        return Err(Error::new(Cause::NothingRan, what).next("see the suites in ci/components.toml, and --tests"));
    }
    Ok(selection)
}

/// The same where none may be left.
///
/// # Errors
/// [`Cause::Usage`] if the suite names a test that is not there.
pub fn among(choice: &Choice<'_>, listed: &[String]) -> Result<Selection> {
    let suite = choice.suite;
    let missing: Vec<_> = suite.tests.iter().filter(|test| !listed.contains(test)).map(String::as_str).collect();
    if !missing.is_empty() {
        let what = format!(
            "ci/components.toml: [{}.suites.{}]: no such test in the program: {}",
            choice.component,
            choice.suite_name,
            missing.join(", ")
        );
        return Err(Error::new(Cause::Usage, what).next("take them out of the suite, or correct their names"));
    }
    let mut selection = Selection { skipped: choice.wanted.skipped(), ..Selection::default() };
    let ledger = ledger::find(choice, listed, &mut selection);
    for test in listed {
        let in_suite = suite.all || suite.tests.contains(test);
        let wanted = choice.wanted.of(test, listed).filter(|_| in_suite);
        match (ledger.iter().find(|(name, _)| name == test), wanted) {
            (Some(entry), Some(_)) => {
                selection.excluded.push(entry.clone());
                selection.others.push(test.clone());
            }
            (None, Some(parts)) => {
                selection.asked.push(test.clone());
                if !parts.is_empty() {
                    selection.parts.insert(test.clone(), parts);
                }
            }
            (_, None) => selection.others.push(test.clone()),
        }
    }
    let subtests = ledger.into_iter().filter(|(name, _)| {
        name.split_once('/').is_some_and(|(top, _)| selection.asked.iter().any(|asked| asked == top))
    });
    selection.excluded.extend(subtests.collect::<Vec<_>>());
    Ok(selection)
}

impl Selection {
    /// `-test.run` and `-test.skip` for these of the tests asked for. Both say the same, for a TestMain
    /// may set a `-test.run` of its own (Tekton's does, for its categories).
    ///
    /// # Errors
    /// [`Cause::Usage`] if they are too many for a command line: without them a program runs everything.
    pub fn arguments(&self, tests: &[String]) -> Result<Vec<String>> {
        let (partly, whole): (Vec<&String>, Vec<&String>) =
            tests.iter().partition(|test| self.parts.contains_key(*test));
        let whole: Vec<_> = whole.into_iter().map(|test| regex::escape(test)).collect();
        let mut run = Vec::new();
        if !whole.is_empty() || partly.is_empty() {
            run.push(format!("^({})$", whole.join("|")));
        }
        let in_part = !partly.is_empty();
        for test in partly {
            run.extend(self.parts[test].iter().map(|rest| format!("^{}$/{rest}", regex::escape(test))));
        }
        let run = run.join("|");
        let rest = self.asked.iter().filter(|test| !tests.contains(test)).chain(&self.others);
        let others: Vec<_> = rest.map(|test| format!("^{}$", regex::escape(test))).collect();
        let ledger = self.excluded.iter().filter(|(name, _)| name.contains('/')).map(|(name, _)| {
            let levels: Vec<_> = name.split('/').map(ledger::pattern).collect();
            levels.join("/")
        });
        let subtests: Vec<_> = ledger.chain(self.skipped.iter().cloned()).collect();
        let parts = self.parts.iter().filter(|(test, _)| tests.contains(test));
        let leaves: Vec<_> = parts.flat_map(|(test, parts)| leaves::skips(test, parts)).collect();
        let both = [others.as_slice(), &subtests].concat();
        // What only some programs need is left out first.
        let with_leaves = [both.as_slice(), &leaves].concat().join("|");
        let both = if with_leaves.len() < PATTERN_LIMIT { with_leaves } else { both.join("|") };
        // One of the two is enough to run no others, but each says something of subtests that the other cannot.
        let (run, skip) = match (run.len() < PATTERN_LIMIT, both.len() < PATTERN_LIMIT) {
            (true, true) => (Some(run), both),
            (true, false) => (Some(run), subtests.join("|")),
            (false, true) if !in_part => (None, both),
            (false, _) => return Err(too_long(tests.len())),
        };
        if skip.len() >= PATTERN_LIMIT {
            return Err(too_long(subtests.len()));
        }
        let run = run.map(|run| format!("-test.run={run}"));
        let skip = (!skip.is_empty()).then(|| format!("-test.skip={skip}"));
        Ok(run.into_iter().chain(skip).collect())
    }

    /// The tests that the ledger leaves out, as something to be run by itself: whole top-level tests, for a name of
    /// a subtest alone is no selection for a program that sets its own `-test.run`.
    #[must_use]
    pub fn shadow(&self) -> Self {
        let mut asked: Vec<String> = Vec::new();
        for name in self.excluded.iter().map(|(name, _)| top(name)) {
            if !asked.iter().any(|known| known == name) {
                asked.push(name.to_owned());
            }
        }
        let all = self.asked.iter().chain(&self.others);
        let others = all.filter(|test| !asked.contains(test)).cloned().collect();
        Self { asked, others, ..Self::default() }
    }
}

fn too_long(number: usize) -> Error {
    Error::new(Cause::Usage, format!("the names of {number} tests are longer than an argument of a program may be"))
        .next("run them in parts: --shard 1/2, --tests, --package")
}

#[cfg(test)]
mod tests {
    use super::*;
    use kit::ci::Unless;

    fn listed() -> Vec<String> {
        ["TestA", "TestAb", "TestB", "ExampleC"].map(String::from).to_vec()
    }

    fn skip(tests: &[&str], until: &str) -> Skip {
        Skip {
            component: "x".into(),
            tests: tests.iter().map(ToString::to_string).collect(),
            versions: None,
            platforms: vec![],
            suites: vec![],
            unless: None,
            reason: "needs the internet".into(),
            link: None,
            owner: "us".into(),
            until: until.parse().unwrap(),
        }
    }

    fn suite(tests: &[&str]) -> Suite {
        let tests: Vec<_> = tests.iter().map(ToString::to_string).collect();
        Suite { default: true, all: tests.is_empty(), tests, ..Suite::default() }
    }

    fn chosen(suite: &Suite, skips: &[Skip], wanted: &[&str]) -> Result<Selection> {
        chosen_but(suite, skips, wanted, &[])
    }

    fn chosen_but(suite: &Suite, skips: &[Skip], wanted: &[&str], not: &[&str]) -> Result<Selection> {
        let owned = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let wanted = Wanted::new(&owned(wanted), &owned(not))?;
        let platform = "linux/amd64".parse().unwrap();
        let today = "2026-06-01".parse().unwrap();
        let (component, version, suite_name, wanted, platform) = ("x", "v1.9.2", "smoke", &wanted, &platform);
        choose(&Choice { component, version, suite_name, suite, skips, platform, lab: true, wanted, today }, &listed())
    }

    #[test]
    fn a_suite_is_all_or_what_it_names() {
        assert_eq!(chosen(&suite(&[]), &[], &[]).unwrap().asked, listed());
        let some = chosen(&suite(&["TestB", "TestA"]), &[], &[]).unwrap();
        assert_eq!(
            (some.asked, some.others),
            (vec!["TestA".into(), "TestB".into()], vec!["TestAb".into(), "ExampleC".into()])
        );
        let error = chosen(&suite(&["TestA", "TestGone"]), &[], &[]).unwrap_err();
        assert_eq!(error.cause, Cause::Usage);
        assert!(error.to_string().contains("[x.suites.smoke]: no such test in the program: TestGone"), "{error}");
    }

    #[test]
    fn the_ledger_leaves_out_until_its_day() {
        let skips = [skip(&["TestA", "TestB/sub"], "2026-06-01"), skip(&["TestAb", "TestZ"], "2026-05-31")];
        let found = chosen(&suite(&[]), &skips, &[]).unwrap();
        assert_eq!(found.asked, ["TestAb", "TestB", "ExampleC"]);
        let names: Vec<_> = found.excluded.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["TestA", "TestB/sub"]);
        assert_eq!(found.unknown, ["TestZ"]);
        assert_eq!(found.expired, ["TestAb: left out until 2026-05-31 (owner: us)"]);
        assert_eq!(chosen(&suite(&[]), &skips, &["TestB"]).unwrap().expired, [""; 0], "nobody asks for it");
        assert_eq!(chosen(&suite(&[]), &skips, &["TestAb"]).unwrap().expired.len(), 1);
        let unless = Skip { unless: Some(Unless::Lab), ..skips[0].clone() };
        assert_eq!(chosen(&suite(&[]), &[unless], &[]).unwrap().excluded, [], "this is a lab");
        let elsewhere = Skip { platforms: vec!["linux/s390x".parse().unwrap()], ..skips[0].clone() };
        assert_eq!(chosen(&suite(&[]), &[elsewhere], &[]).unwrap().excluded, []);
        for (versions, left_out) in [("1.9", 2), ("1.8..1.9", 2), ("1.10", 0), ("1.0..1.8", 0)] {
            let versions = Some(kit::ci::Versions::parse(versions).unwrap());
            let some = Skip { versions, ..skips[0].clone() };
            assert_eq!(chosen(&suite(&[]), &[some], &[]).unwrap().excluded.len(), left_out, "{versions:?}");
        }
    }

    #[test]
    fn an_entry_can_stand_for_several_tests() {
        let skips = [skip(&["TestA*", "Test*/s*b", "TestZ*"], "2026-06-01")];
        let found = chosen(&suite(&[]), &skips, &[]).unwrap();
        assert_eq!(
            (found.asked.clone(), found.unknown.clone()),
            (vec!["TestB".into(), "ExampleC".into()], vec!["TestZ*".into()])
        );
        let names: Vec<_> = found.excluded.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["TestA", "TestAb", "TestB/s*b"]);
        assert_eq!(found.arguments(&found.asked).unwrap()[1], "-test.skip=^TestA$|^TestAb$|^TestB$/^s.*b$");
    }

    #[test]
    fn a_name_is_exact_and_a_pattern_is_a_pattern() {
        assert_eq!(chosen(&suite(&[]), &[], &["TestA"]).unwrap().asked, ["TestA"]);
        assert_eq!(chosen(&suite(&[]), &[], &["TestA.", "C$"]).unwrap().asked, ["TestAb", "ExampleC"]);
        assert_eq!(chosen(&suite(&[]), &[], &["TestB,TestA"]).unwrap().asked, ["TestA", "TestB"]);
        assert_eq!(chosen(&suite(&[]), &[], &["("]).unwrap_err().cause, Cause::Usage);
        assert_eq!(chosen(&suite(&[]), &[], &["Nothing"]).unwrap_err().cause, Cause::NothingRan);
        assert_eq!(chosen(&suite(&[]), &[], &["Test.{1,2}$,C$"]).unwrap().asked, listed(), "a comma of a pattern's");
        assert_eq!(chosen(&suite(&[]), &[], &["TestA|C$"]).unwrap().asked, ["TestA", "TestAb", "ExampleC"], "as Go");
    }

    #[test]
    fn subtests_are_chosen_and_left_out_as_go_does() {
        let found = chosen(&suite(&[]), &[], &["TestA/one|TestA/t.o/x", "TestB,TestB/one"]).unwrap();
        assert_eq!(found.asked, ["TestA", "TestAb", "TestB"]);
        let arguments = |found: &Selection, tests: &[String]| found.arguments(tests).unwrap();
        assert_eq!(
            arguments(&found, &found.asked)[0],
            "-test.run=^(TestB)$|^TestA$/one|^TestA$/t.o/x|^TestAb$/one|^TestAb$/t.o/x"
        );
        let one = chosen(&suite(&[]), &[], &["TestA/one"]).unwrap();
        assert_eq!(arguments(&one, &one.asked), ["-test.run=^TestA$/one", "-test.skip=^TestAb$|^TestB$|^ExampleC$"]);
        let but = chosen_but(&suite(&[]), &[], &[], &["TestA|B/sub", "B/x"]).unwrap();
        assert_eq!(
            (but.asked.clone(), but.others.clone()),
            (vec!["TestB".into(), "ExampleC".into()], vec!["TestA".into(), "TestAb".into()])
        );
        assert_eq!(
            arguments(&but, &but.asked),
            ["-test.run=^(TestB|ExampleC)$", "-test.skip=^TestA$|^TestAb$|B/sub|B/x"]
        );
        assert_eq!(chosen_but(&suite(&[]), &[], &[], &[""]).unwrap().asked, listed(), "nothing is not everything");
        assert_eq!(chosen_but(&suite(&[]), &[], &[], &["("]).unwrap_err().cause, Cause::Usage);
        assert_eq!(chosen_but(&suite(&[]), &[], &["TestA"], &["A"]).unwrap_err().cause, Cause::NothingRan);
    }

    #[test]
    fn too_many_names_are_an_error_and_never_everything() {
        let names = |from: usize, to: usize| (from..to).map(|n| format!("Test{n:060}")).collect::<Vec<_>>();
        let many = Selection { asked: names(0, 2000), others: names(2000, 4000), ..Selection::default() };
        let error = many.arguments(&many.asked).unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains("the names of 2000 tests"), "{error}");
        let few = many.arguments(&many.asked[..3]).unwrap();
        assert!(few.len() == 1 && few[0].starts_with("-test.run="), "{few:?}");
        let most = Selection { others: names(2000, 2010), ..many };
        let skip = most.arguments(&most.asked).unwrap();
        assert!(skip.len() == 1 && skip[0].starts_with("-test.skip="), "{skip:?}");
    }

    #[test]
    fn what_failed_before_is_a_selection() {
        use crate::{report::row, runs::tests::results};
        let tests = [
            ("TestA/x", Status::Failed),
            ("TestAb", Status::Passed),
            ("TestB", Status::NotRun),
            (PACKAGE, Status::Failed),
            ("TestGone", Status::Failed),
        ];
        let tests = tests.map(|(name, status)| row(name, "p", status)).to_vec();
        let results = results("x", "linux/amd64", tests);
        let wanted = Wanted::default().failed(&[Found { path: "r".into(), digest: String::new(), results }]);
        assert_eq!(wanted.names().unwrap().iter().collect::<Vec<_>>(), ["TestA", "TestB", "TestGone"]);
        let suite = suite(&[]);
        let platform = "linux/amd64".parse().unwrap();
        let (component, suite_name, today) = ("x", "smoke", "2026-06-01".parse().unwrap());
        let choice = Choice {
            component,
            version: "v1",
            suite_name,
            suite: &suite,
            skips: &[],
            platform: &platform,
            lab: true,
            wanted: &wanted,
            today,
        };
        assert_eq!(choose(&choice, &listed()).unwrap().asked, ["TestA", "TestB"]);
        assert!(!wanted.is_empty());
    }

    #[test]
    fn shadows_are_whole_tests_and_nothing_else() {
        let skips = [skip(&["TestA", "TestB/sub"], "2027-01-01")];
        let shadow = chosen(&suite(&[]), &skips, &[]).unwrap().shadow();
        assert_eq!(shadow.asked, ["TestA", "TestB"]);
        assert_eq!(
            shadow.arguments(&shadow.asked).unwrap(),
            ["-test.run=^(TestA|TestB)$", "-test.skip=^TestAb$|^ExampleC$"]
        );
    }

    #[test]
    fn both_filters_say_the_same() {
        let found = chosen(&suite(&["TestA", "TestB"]), &[skip(&["TestB/a.b/c"], "2027-01-01")], &[]).unwrap();
        assert_eq!(
            found.arguments(&found.asked).unwrap(),
            ["-test.run=^(TestA|TestB)$", r"-test.skip=^TestAb$|^ExampleC$|^TestB$/^a\.b$/^c$"]
        );
        assert_eq!(
            found.arguments(&["TestB".into()]).unwrap()[1],
            r"-test.skip=^TestA$|^TestAb$|^ExampleC$|^TestB$/^a\.b$/^c$"
        );
    }
}
