//! Which tests: the suite, the ledger of skips, `--tests`; and how they are named to a test program.

use std::collections::BTreeSet;

use jiff::civil::Date;
use kit::{
    Cause, Context, Error, Platform, Result,
    ci::{Skip, Suite, Unless},
    record::Status,
};
use regex::Regex;

use crate::{parse::event::top, report::PACKAGE, runs::Found};

/// One argument of a process may be 128 KiB long (execve(2), MAX_ARG_STRLEN).
const PATTERN_LIMIT: usize = 100_000;

/// What is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// Top-level tests that are run, in the program's order.
    pub asked: Vec<String>,
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
    /// `--tests`.
    pub wanted: &'a Wanted,
    /// The day.
    pub today: Date,
}

/// `--tests`: names, or patterns as `go test -run` takes them for top-level tests; or the names of an earlier record.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    patterns: Vec<(String, Regex)>,
    names: Option<BTreeSet<String>>,
}

impl Wanted {
    /// Reads the option's values: names or patterns, several with commas between.
    ///
    /// # Errors
    /// [`Cause::Usage`] for what is no regular expression.
    pub fn new(values: &[String]) -> Result<Self> {
        let parts = values.iter().flat_map(|value| value.split(',')).map(str::trim).filter(|part| !part.is_empty());
        let read = |part: &str| {
            let regex = Regex::new(part).cause(Cause::Usage, || format!("--tests {part}: not a regular expression"))?;
            Ok((part.to_owned(), regex))
        };
        Ok(Self { patterns: parts.map(read).collect::<Result<_>>()?, names: None })
    }

    /// The top-level tests that failed or did not come to their end in earlier records.
    #[must_use]
    pub fn failed(found: &[Found]) -> Self {
        let tests = found.iter().flat_map(|found| &found.results.tests);
        let bad = tests.filter(|test| matches!(test.status, Status::Failed | Status::NotRun) && test.name != PACKAGE);
        Self { patterns: Vec::new(), names: Some(bad.map(|test| top(&test.name).to_owned()).collect()) }
    }

    /// The names, if it is names of an earlier record.
    #[must_use]
    pub fn names(&self) -> Option<&BTreeSet<String>> {
        self.names.as_ref()
    }

    /// Whether the option was given.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.names.is_none()
    }

    /// A whole name means that test alone; anything else is a pattern.
    fn matches(&self, test: &str, listed: &[String]) -> bool {
        let pattern =
            |(name, regex): &(String, Regex)| if listed.contains(name) { name == test } else { regex.is_match(test) };
        self.names.as_ref().is_some_and(|names| names.contains(test)) || self.patterns.iter().any(pattern)
    }

    /// The option as `go test -run` takes it, for tests whose names nobody has listed.
    #[must_use]
    pub fn pattern(&self) -> Option<String> {
        let patterns = self.patterns.iter().map(|(name, _)| {
            let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
            if is_name { format!("^{name}$") } else { name.clone() }
        });
        let names = self.names.iter().flatten().map(|name| format!("^{}$", regex::escape(name)));
        let all: Vec<_> = patterns.chain(names).collect();
        (!all.is_empty()).then(|| all.join("|"))
    }
}

/// Chooses among the tests `listed` by the program.
///
/// # Errors
/// [`Cause::Usage`] if the suite names a test that is not there, [`Cause::NothingRan`] if none is left.
pub fn choose(choice: &Choice<'_>, listed: &[String]) -> Result<Selection> {
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
    let mut selection = Selection::default();
    let ledger = ledger(choice, listed, &mut selection);
    for test in listed {
        let in_suite = suite.all || suite.tests.contains(test);
        let wanted = choice.wanted.is_empty() || choice.wanted.matches(test, listed);
        match ledger.iter().find(|(name, _)| name == test) {
            Some(entry) if in_suite && wanted => {
                selection.excluded.push(entry.clone());
                selection.others.push(test.clone());
            }
            None if in_suite && wanted => selection.asked.push(test.clone()),
            _ => selection.others.push(test.clone()),
        }
    }
    let subtests = ledger.into_iter().filter(|(name, _)| {
        name.split_once('/').is_some_and(|(top, _)| selection.asked.iter().any(|asked| asked == top))
    });
    selection.excluded.extend(subtests.collect::<Vec<_>>());
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

/// What the ledger leaves out here and today.
fn ledger(choice: &Choice<'_>, listed: &[String], selection: &mut Selection) -> Vec<(String, String)> {
    let mut left_out = Vec::new();
    let here = |skip: &&Skip| {
        skip.component == choice.component
            && (skip.platforms.is_empty() || skip.platforms.contains(choice.platform))
            && (skip.suites.is_empty() || skip.suites.iter().any(|suite| suite == choice.suite_name))
            && !(choice.lab && skip.unless == Some(Unless::Lab))
    };
    for skip in choice.skips.iter().filter(here) {
        for test in &skip.tests {
            if !listed.iter().any(|known| known == test.split('/').next().unwrap_or(test)) {
                selection.unknown.push(test.clone());
            } else if skip.until < choice.today {
                selection.expired.push(format!("{test}: left out until {} (owner: {})", skip.until, skip.owner));
            } else {
                left_out.push((test.clone(), skip.reason.clone()));
            }
        }
    }
    left_out
}

impl Selection {
    /// `-test.run` and `-test.skip` for these of the tests asked for. Both say the same, for a TestMain
    /// may set a `-test.run` of its own (Tekton's does, for its categories).
    #[must_use]
    pub fn arguments(&self, tests: &[String]) -> Vec<String> {
        let names: Vec<_> = tests.iter().map(|test| regex::escape(test)).collect();
        let run = format!("-test.run=^({})$", names.join("|"));
        let rest = self.asked.iter().filter(|test| !tests.contains(test)).chain(&self.others);
        let mut skipped: Vec<_> = rest.map(|test| format!("^{}$", regex::escape(test))).collect();
        skipped.extend(self.excluded.iter().filter(|(name, _)| name.contains('/')).map(|(name, _)| {
            let levels: Vec<_> = name.split('/').map(|level| format!("^{}$", regex::escape(level))).collect();
            levels.join("/")
        }));
        let skip = skipped.join("|");
        let mut arguments = Vec::new();
        if run.len() < PATTERN_LIMIT {
            arguments.push(run);
        }
        if !skip.is_empty() && skip.len() < PATTERN_LIMIT {
            arguments.push(format!("-test.skip={skip}"));
        }
        arguments
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

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> Vec<String> {
        ["TestA", "TestAb", "TestB", "ExampleC"].map(String::from).to_vec()
    }

    fn skip(tests: &[&str], until: &str) -> Skip {
        Skip {
            component: "x".into(),
            tests: tests.iter().map(ToString::to_string).collect(),
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
        let wanted = Wanted::new(&wanted.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let platform = "linux/amd64".parse().unwrap();
        let today = "2026-06-01".parse().unwrap();
        let (component, suite_name, wanted, platform, lab) = ("x", "smoke", &wanted, &platform, true);
        choose(&Choice { component, suite_name, suite, skips, platform, lab, wanted, today }, &listed())
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
        let unless = Skip { unless: Some(Unless::Lab), ..skips[0].clone() };
        assert_eq!(chosen(&suite(&[]), &[unless], &[]).unwrap().excluded, [], "this is a lab");
        let elsewhere = Skip { platforms: vec!["linux/s390x".parse().unwrap()], ..skips[0].clone() };
        assert_eq!(chosen(&suite(&[]), &[elsewhere], &[]).unwrap().excluded, []);
    }

    #[test]
    fn a_name_is_exact_and_a_pattern_is_a_pattern() {
        assert_eq!(chosen(&suite(&[]), &[], &["TestA"]).unwrap().asked, ["TestA"]);
        assert_eq!(chosen(&suite(&[]), &[], &["TestA.", "C$"]).unwrap().asked, ["TestAb", "ExampleC"]);
        assert_eq!(chosen(&suite(&[]), &[], &["TestB,TestA"]).unwrap().asked, ["TestA", "TestB"]);
        assert_eq!(chosen(&suite(&[]), &[], &["("]).unwrap_err().cause, Cause::Usage);
        assert_eq!(chosen(&suite(&[]), &[], &["Nothing"]).unwrap_err().cause, Cause::NothingRan);
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
        let wanted = Wanted::failed(&[Found { path: "r".into(), digest: String::new(), results }]);
        assert_eq!(wanted.pattern().unwrap(), "^TestA$|^TestB$|^TestGone$");
        let suite = suite(&[]);
        let platform = "linux/amd64".parse().unwrap();
        let (component, suite_name, today) = ("x", "smoke", "2026-06-01".parse().unwrap());
        let choice = Choice {
            component,
            suite_name,
            suite: &suite,
            skips: &[],
            platform: &platform,
            lab: true,
            wanted: &wanted,
            today,
        };
        assert_eq!(choose(&choice, &listed()).unwrap().asked, ["TestA", "TestB"]);
        assert!(!wanted.is_empty() && wanted.names().unwrap().contains("TestGone"));
    }

    #[test]
    fn shadows_are_whole_tests_and_nothing_else() {
        let skips = [skip(&["TestA", "TestB/sub"], "2027-01-01")];
        let shadow = chosen(&suite(&[]), &skips, &[]).unwrap().shadow();
        assert_eq!(shadow.asked, ["TestA", "TestB"]);
        assert_eq!(shadow.arguments(&shadow.asked), ["-test.run=^(TestA|TestB)$", "-test.skip=^TestAb$|^ExampleC$"]);
    }

    #[test]
    fn both_filters_say_the_same() {
        let found = chosen(&suite(&["TestA", "TestB"]), &[skip(&["TestB/a.b/c"], "2027-01-01")], &[]).unwrap();
        assert_eq!(
            found.arguments(&found.asked),
            ["-test.run=^(TestA|TestB)$", r"-test.skip=^TestAb$|^ExampleC$|^TestB$/^a\.b$/^c$"]
        );
        assert_eq!(found.arguments(&["TestB".into()])[1], r"-test.skip=^TestA$|^TestAb$|^ExampleC$|^TestB$/^a\.b$/^c$");
    }
}
