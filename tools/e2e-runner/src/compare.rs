//! `e2e-runner compare`: two runs of the same tests, beside each other. What fails on both is not the doing of
//! the architecture that one of them is about.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    path::PathBuf,
};

use clap::Parser;
use kit::{
    Cause, Class, Done, Error, Outcome, Output, Platform, Result, Ui, combine,
    record::{Results, SkipSource, Status, Test},
    ui,
};
use serde::Serialize;

use crate::{
    report::{self, PACKAGE},
    runs::{self, Found, Wanted},
};

/// How many tests of a kind are listed for people.
const SHOWN: usize = 50;

/// Options of `compare`.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  e2e-runner compare target/runs/RUN/pipeline/linux-s390x target/runs/RUN/pipeline/linux-amd64
  e2e-runner compare target/runs/TODAY target/runs/REFERENCE --component pipeline --output json

Exit codes: 0 if nothing failed here that was good there, and every top-level test that ran there is here as well;
1 if something failed here only; 3 if that was the infrastructure; 4 if tests are missing here, or nothing ran on both;
2 if the two are not of the same tests.")]
pub struct CompareArgs {
    /// The run that is judged: a run directory, a part of one, or a results.json
    #[arg(value_name = "RUN")]
    here: PathBuf,
    /// The run that it is held against, mostly amd64's at the same commit
    #[arg(value_name = "RUN")]
    there: PathBuf,
    /// Of this component, where the runs have several
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    /// Of this kind of tests
    #[arg(long, value_name = "KIND", default_value = "e2e")]
    kind: String,
    /// Compare tests of different versions as well
    #[arg(long)]
    any_version: bool,
}

/// One of the two.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// The run's id.
    pub run: String,
    /// The platform.
    pub platform: Platform,
    /// What was tested.
    pub component: String,
    /// Its version.
    pub version: String,
    /// Which tests of it.
    pub suites: BTreeSet<String>,
}

/// A test on both, or a package (or something else) that failed as a whole.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pair {
    /// Its name.
    pub test: String,
    /// Its package.
    pub package: String,
    /// What became of it here, if it is known here.
    pub here: Option<Status>,
    /// And there, if it is known there.
    pub there: Option<Status>,
    /// Why not, here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The line that decided it, here or (of a test that was good here) there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// Why not, there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause_there: Option<Cause>,
    /// Shows it again, here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reproduce: Option<String>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The judged run.
    pub here: Side,
    /// The other one.
    pub there: Side,
    /// Failed here and was good there: of the architecture, until somebody shows otherwise.
    pub only_here: Vec<Pair>,
    /// Failed on both: not of the architecture.
    pub both: Vec<Pair>,
    /// Failed here, and did not run there: nobody knows.
    pub unknown: Vec<Pair>,
    /// Not good here by the infrastructure's doing: says nothing.
    pub infrastructure: Vec<Pair>,
    /// Failed there only.
    pub only_there: Vec<Pair>,
    /// Ran there, and not even its name is known here: nobody knows. Where it is a test with all its subtests, it says
    /// so for them.
    pub missing_here: Vec<Pair>,
    /// Left out here or skipped itself, and ran there.
    pub skipped_here: Vec<Pair>,
    /// How many came to the same good end.
    pub same: usize,
}

/// Compares two runs.
///
/// # Errors
/// [`Cause::Usage`] if the two are not of the same tests.
pub fn run(args: &CompareArgs, ui: &Ui) -> Result<Done> {
    let find = |place: &PathBuf, component: Option<&str>| {
        runs::find(place, Wanted { component, kind: Some(&args.kind), platform: None })
    };
    let here = side(find(&args.here, args.component.as_deref())?, &args.here)?;
    let there = side(find(&args.there, Some(&here.0.component))?, &args.there)?;
    if !args.any_version {
        same_tests(&here, &there)?;
    }
    let comparison = compare(here.0, &tests(&here.1), there.0, &tests(&there.1));
    match ui.output {
        Output::Json => ui.json(&comparison)?,
        Output::Text => ui.result(&comparison.summary())?,
    }
    Ok(comparison.verdict())
}

/// The records of one side, which are of one component on one platform.
fn side(found: Vec<Found>, place: &std::path::Path) -> Result<(Side, Vec<Results>)> {
    let mut results: Vec<_> = found.into_iter().map(|found| found.results).collect();
    for results in &mut results {
        results.tests.extend(of_head(results));
    }
    let first = &results[0];
    let other = results.iter().find(|other| {
        (&other.component, &other.platform, &other.version) != (&first.component, &first.platform, &first.version)
    });
    if let Some(other) = other {
        let what = format!(
            "{} holds results of {} {} on {} and of {} {} on {}",
            place.display(),
            first.component,
            first.version,
            first.platform,
            other.component,
            other.version,
            other.platform
        );
        return Err(Error::new(Cause::Usage, what)
            .next("name the folder of one of them, as in RUN/pipeline/linux-s390x, or add --component"));
    }
    let side = Side {
        run: first.head.run.clone(),
        platform: first.platform.clone(),
        component: first.component.clone(),
        version: first.version.clone(),
        suites: results.iter().map(|results| results.suite.clone()).collect(),
    };
    Ok((side, results))
}

/// A row for what a record says in its head only: that the tests never began, or were stopped.
fn of_head(results: &Results) -> Option<Test> {
    let told = results.tests.iter().any(|test| test.cause.is_some_and(|cause| cause != Cause::Flaky));
    if results.head.outcome != Outcome::Failed || told {
        return None;
    }
    let mut test = report::row(PACKAGE, &format!("{} {}", results.kind, results.suite), Status::Failed);
    test.cause = Some(results.head.cause.unwrap_or(Cause::Unclassified));
    test.line = results.head.message.clone().or_else(|| results.head.line.clone());
    test.reproduce.clone_from(&results.head.reproduce);
    Some(test)
}

/// Whether both are of the same component, version and sources of tests.
fn same_tests(here: &(Side, Vec<Results>), there: &(Side, Vec<Results>)) -> Result<()> {
    let refuse = |what: &str, ours: &str, theirs: &str| {
        let what = format!("the two are not of the same {what}: {ours} and {theirs}");
        Err(Error::new(Cause::Usage, what).next("add --any-version to compare them all the same"))
    };
    if here.0.version != there.0.version {
        return refuse("version", &here.0.version, &there.0.version);
    }
    let sources = |results: &[Results]| {
        let inputs = results.iter().flat_map(|results| &results.head.inputs);
        inputs.filter(|input| input.name == SOURCES).map(|input| input.digest.clone()).next()
    };
    match (sources(&here.1), sources(&there.1)) {
        (Some(ours), Some(theirs)) if ours != theirs => refuse("sources", &ours, &theirs),
        _ => Ok(()),
    }
}

/// How a record names the sources that its tests were compiled from.
pub const SOURCES: &str = "sources of the tests";

/// By package, name, and, of what failed as a whole and may have failed in several ways, which of them.
type Tests<'a> = BTreeMap<(&'a str, &'a str, usize), &'a Test>;

/// The tests of all records; of a test that is in several, the worst result.
fn tests(results: &[Results]) -> Tests<'_> {
    let mut all = Tests::new();
    for test in results.iter().flat_map(|results| &results.tests) {
        let (package, name) = (test.package.as_str(), test.name.as_str());
        let earlier =
            if name == PACKAGE { all.range((package, name, 0)..=(package, name, usize::MAX)).count() } else { 0 };
        let key = (package, name, earlier);
        let known = all.entry(key).or_insert(test);
        if is_bad(test) && !is_bad(known) {
            *known = test;
        }
    }
    all
}

fn is_bad(test: &Test) -> bool {
    matches!(test.status, Status::Failed | Status::NotRun)
}

fn is_good(status: Status) -> bool {
    matches!(status, Status::Passed | Status::Flaky)
}

/// The names of the tests that a subtest may lie in, the outermost first.
fn outer(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

/// Puts the tests of two runs beside each other. A test that failed because a subtest did is told by that one.
#[must_use]
pub fn compare(here: Side, ours: &Tests<'_>, there: Side, theirs: &Tests<'_>) -> Comparison {
    let mut found = Comparison {
        here,
        there,
        only_here: Vec::new(),
        both: Vec::new(),
        unknown: Vec::new(),
        infrastructure: Vec::new(),
        only_there: Vec::new(),
        missing_here: missing(ours, theirs),
        skipped_here: Vec::new(),
        same: 0,
    };
    let inner = |all: &Tests<'_>| -> BTreeSet<(String, String)> {
        let bad = all.iter().filter(|(_, test)| is_bad(test));
        bad.flat_map(|((package, name, _), _)| outer(name).map(|outer| ((*package).into(), outer.into()))).collect()
    };
    let (told_here, told_there) = (inner(ours), inner(theirs));
    let ran_there = theirs.values().filter(|test| test.name != PACKAGE && ran(test));
    let packages_there: BTreeSet<_> = ran_there.map(|test| test.package.as_str()).collect();
    let is_told =
        |told: &BTreeSet<(String, String)>, test: &Test| told.contains(&(test.package.clone(), test.name.clone()));
    for (key, test) in ours {
        let other = theirs.get(key).copied();
        let mut pair = pair(test, other);
        if is_bad(test) && is_told(&told_here, test) {
            continue;
        }
        if test.name == PACKAGE && packages_there.contains(key.0) {
            // Only of a package that failed is there such a row.
            pair.there = pair.there.or(Some(Status::Passed));
        }
        let good_there = pair.there.is_some_and(is_good);
        match (test.status, pair.there) {
            (Status::Failed | Status::NotRun, _) if says_nothing(test) => found.infrastructure.push(pair),
            // Good there: whatever kept it from ending here is found here only. And what lacks this very architecture no
            // failure there excuses.
            (Status::Failed | Status::NotRun, _) if good_there || is_of_platform(test) => found.only_here.push(pair),
            // A failure there that is the infrastructure's excuses nothing.
            (Status::Failed, Some(Status::Failed)) if other.is_some_and(|other| !says_nothing(other)) => {
                found.both.push(pair);
            }
            (Status::Failed | Status::NotRun, _) => found.unknown.push(pair),
            (Status::Skipped, Some(Status::Passed | Status::Flaky | Status::Failed)) => found.skipped_here.push(pair),
            (Status::Passed | Status::Flaky, Some(Status::Failed)) => {
                if !other.is_some_and(|other| is_told(&told_there, other)) {
                    found.only_there.push(pair);
                }
            }
            _ => found.same += usize::from(good_there),
        }
    }
    let alone = theirs.iter().filter(|(key, test)| test.name == PACKAGE && !ours.contains_key(*key));
    found.only_there.extend(alone.map(|(_, test)| not_here(test)));
    found
}

/// What ran there, and is not known here, though nothing that is known here explains it: not a subtest whose test did
/// not come so far here. Of a test that is missing, its subtests are not said as well.
fn missing(ours: &Tests<'_>, theirs: &Tests<'_>) -> Vec<Pair> {
    let unknown = theirs.iter().filter(|(key, test)| test.name != PACKAGE && ran(test) && !ours.contains_key(*key));
    let unexplained = unknown.filter(|((package, name, _), _)| {
        let mut outside = outer(name).map(|outer| (*package, outer, 0)).filter(|key| theirs.contains_key(key));
        outside.all(|key| ours.get(&key).is_some_and(|test| is_good(test.status)))
    });
    unexplained.map(|(_, test)| not_here(test)).collect()
}

/// Whether a test came to an end.
fn ran(test: &Test) -> bool {
    is_good(test.status) || test.status == Status::Failed
}

fn not_here(test: &Test) -> Pair {
    Pair {
        test: test.name.clone(),
        package: test.package.clone(),
        here: None,
        there: Some(test.status),
        cause: None,
        line: test.line.clone(),
        cause_there: test.cause,
        reproduce: None,
    }
}

/// Whether a failure says nothing of the component.
fn says_nothing(test: &Test) -> bool {
    test.cause.is_some_and(|cause| matches!(cause.class(), Class::Infrastructure | Class::Ours))
}

/// Whether something it needs is not there for the platform.
fn is_of_platform(test: &Test) -> bool {
    matches!(test.cause, Some(Cause::ImageWrongArch | Cause::ImageMissingPlatform))
}

fn pair(test: &Test, other: Option<&Test>) -> Pair {
    let by_ledger = test.skipped_by == Some(SkipSource::Ledger);
    let line = test.line.clone().or_else(|| other.and_then(|other| other.line.clone()));
    Pair {
        test: test.name.clone(),
        package: test.package.clone(),
        here: Some(test.status),
        there: other.map(|other| other.status),
        cause: test.cause,
        line: line.map(|line| if by_ledger { format!("ci/skips.toml: {line}") } else { line }),
        cause_there: other.and_then(|other| other.cause),
        reproduce: test.reproduce.clone(),
    }
}

impl Comparison {
    /// What it comes to: the failures that the other run does not excuse.
    #[must_use]
    pub fn verdict(&self) -> Done {
        let causes = |pairs: &[Pair]| -> Vec<Cause> { pairs.iter().filter_map(|pair| pair.cause).collect() };
        let mut open = [causes(&self.only_here), causes(&self.unknown), causes(&self.infrastructure)].concat();
        // Who did not run because another one failed has no cause of its own, and is not good for that.
        let without = self.only_here.iter().chain(&self.unknown).any(|pair| pair.cause.is_none());
        open.extend(without.then_some(Cause::Unclassified));
        // The names of subtests may be others each time.
        let missing = self.missing_here.iter().any(|pair| !pair.test.contains('/'));
        open.extend(missing.then_some(Cause::NothingRan));
        let ran = self.same + self.both.len() + self.only_here.len() + self.only_there.len();
        let exit = combine(open.iter().copied(), ran);
        let cause = open.into_iter().find(|cause| cause.exit() == exit);
        let cause = cause.or_else(|| (exit == kit::Exit::NOTHING_RAN).then_some(Cause::NothingRan));
        Done { cause: cause.filter(|_| exit != kit::Exit::GOOD), exit: Some(exit), digest: None, reference: None }
    }

    /// For people.
    #[must_use]
    pub fn summary(&self) -> String {
        let Side { run, platform, component, version, suites } = &self.here;
        let suites: Vec<_> = suites.iter().map(String::as_str).collect();
        let there = &self.there.platform;
        let mut text = ui::printable(&format!(
            "{component} {version}, {}: {platform} (run {run}) beside {there} (run {})",
            suites.join(", "),
            self.there.run
        ));
        text.push_str("\n\n");
        let mut list = |title: String, pairs: &[Pair], at_length: bool| {
            if pairs.is_empty() {
                return;
            }
            let _ = writeln!(text, "{title}: {}", pairs.len());
            for pair in pairs.iter().take(SHOWN) {
                pair.write(&mut text, at_length);
            }
            if pairs.len() > SHOWN {
                let _ = writeln!(text, "  … and {} more (--output json)", pairs.len() - SHOWN);
            }
            text.push('\n');
        };
        list(format!("failed on {platform} only"), &self.only_here, true);
        list(format!("failed on {platform}, and {there} does not tell"), &self.unknown, true);
        list("failed on both, so not by the architecture".into(), &self.both, false);
        list("the infrastructure's fault, says nothing".into(), &self.infrastructure, false);
        list(format!("failed on {there} only"), &self.only_there, false);
        list(format!("ran on {there}, not there on {platform}"), &self.missing_here, false);
        list(format!("skipped on {platform}, ran on {there}"), &self.skipped_here, false);
        let _ = writeln!(text, "good on both: {}", self.same);
        let said = match self.verdict().cause {
            None => format!("nothing failed on {platform} that was good on {there}"),
            Some(cause) if cause.class() == Class::Infrastructure => {
                format!("{cause}: infrastructure, nothing is said of {platform}")
            }
            Some(Cause::NothingRan) => format!("not all that ran on {there} ran on {platform}"),
            Some(cause) => format!("not good on {platform}: {cause}"),
        };
        let _ = writeln!(text, "{said}");
        text
    }
}

impl Pair {
    fn write(&self, text: &mut String, at_length: bool) {
        let name = if self.test == PACKAGE { &self.package } else { &self.test };
        let name: String = name.chars().take(160).collect();
        let idle = if self.here == Some(Status::NotRun) { " (not run)" } else { "" };
        let cause = |cause: Option<Cause>| cause.map_or(String::new(), |cause| format!(" [{cause}]"));
        let other = self.cause_there.filter(|other| Some(*other) != self.cause);
        let other = other.map_or(String::new(), |other| format!(" (there [{other}])"));
        let _ = writeln!(text, "  {}{idle}{}{other}", ui::printable(&name), cause(self.cause));
        if let Some(line) = &self.line {
            let _ = writeln!(text, "    because: {}", ui::printable(line));
        }
        if let Some(again) = self.reproduce.as_ref().filter(|_| at_length) {
            let _ = writeln!(text, "    again: {}", ui::printable(again));
        }
    }
}

#[cfg(test)]
mod tests_of_this;
