//! `e2e-runner merge`: the results of all parts of a suite as one record, which is what one run of the whole
//! would have said; and a word on the parts that are missing.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Parser;
use jiff::Timestamp;
use kit::{
    Cause, Context, Done, Error, Outcome, Output, Platform, Result, Ui,
    record::{Counts, Head, Input, Results, Status},
    rundir,
};

use crate::{
    TOOL, VERSION,
    compare::SOURCES,
    junit,
    parse::event::top,
    report::{self, PACKAGE, Row},
    runs::{self, Found, Wanted},
    shard,
};

/// Options of `merge`.
#[derive(Debug, Parser)]
#[command(after_help = "Example:
  e2e-runner merge run-of-machine-1 run-of-machine-2 run-of-machine-3 --out merged

Exit codes: those of the whole, as if one machine had run it, with the cause of a part that never came to its tests;
4 if all is good but a part is missing; 2 if the parts are not of one whole.")]
pub struct MergeArgs {
    /// The parts: run directories, parts of them, or records
    #[arg(value_name = "RUN", required = true)]
    parts: Vec<PathBuf>,
    /// Write results.json, junit.xml and the logs into this folder
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Of this component, where the runs have several
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    /// Of this kind of tests
    #[arg(long, value_name = "KIND", default_value = "e2e")]
    kind: String,
    /// Of this platform, where the runs have several
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
}

/// Merges the parts.
///
/// # Errors
/// [`Cause::Usage`] if they are not of one whole, [`Cause::HostDisk`] if the result cannot be written.
pub fn run(args: &MergeArgs, ui: &Ui) -> Result<Done> {
    let started = Timestamp::now();
    let wanted =
        Wanted { component: args.component.as_deref(), kind: Some(&args.kind), platform: args.platform.as_ref() };
    let mut found = Vec::new();
    for place in &args.parts {
        found.extend(runs::find(place, wanted)?);
    }
    if let Some(inside) = found.iter().find(|part| part.path.parent().is_some_and(|folder| same(folder, &args.out))) {
        let what = format!("--out {} is the folder of {}", args.out.display(), inside.path.display());
        return Err(Error::new(Cause::Usage, what).next("name another folder: whoever finds both would count twice"));
    }
    let (mut results, rows) = merge(&mut found, started)?;
    let rows = bring_logs(rows, &found, &args.out)?;
    junit::write(&args.out.join("junit.xml"), &results, &rows)?;
    let summary = report::summary(&results, &rows, &args.out);
    results.tests = rows.into_iter().map(|row| row.test).collect();
    let digest = rundir::write_record(&args.out, &results)?;
    match ui.output {
        Output::Json => ui.json(&results)?,
        Output::Text => ui.result(&summary)?,
    }
    let (exit, cause) = report::verdict(&results.tests);
    Ok(Done { cause, exit: Some(exit), digest: Some(digest), reference: None })
}

fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().ok();
    real(one).is_some_and(|one| real(other) == Some(one))
}

/// The whole, without its tests, which are the rows'. Rows keep the order of the parts.
///
/// # Errors
/// As [`run`].
pub fn merge(found: &mut [Found], started: Timestamp) -> Result<(Results, Vec<Row>)> {
    found.sort_by_key(|part| part.results.shard);
    check(found)?;
    let first = &first_of(found).results;
    let of = first.shard.1;
    let mut rows: Vec<Row> = (1..=of).filter_map(|number| missing(number, of, found)).collect();
    let complete = rows.is_empty();
    rows.extend(found.iter().filter_map(stopped));
    for part in found.iter() {
        rows.extend(part.results.tests.iter().map(|test| Row { test: test.clone(), excerpt: Vec::new(), ran: None }));
    }
    if complete {
        complete_names(first, &rows)?;
    }
    let mut results = Results { tests: Vec::new(), shard: (1, 1), whole: None, evidence: None, ..first.clone() };
    let tests = || rows.iter().map(|row| &row.test);
    (results.counts, results.all_counts) = report::count(tests());
    let sum = found.iter().fold(Counts::default(), |sum, part| add(sum, part.results.counts));
    if sum != results.counts {
        let what = "the parts' totals do not add up to those of their tests";
        return Err(Error::new(Cause::Usage, what).line(format!("{sum:?}\n{:?}", results.counts)));
    }
    conditions(&mut results, found);
    let (_, cause) = report::verdict(tests());
    let mut head = Head::new(TOOL, VERSION, &first.head.run, started);
    head.started = found.iter().map(|part| part.results.head.started).min().unwrap_or(started);
    head.finished = found.iter().map(|part| part.results.head.finished).max().unwrap_or(started);
    let part =
        |part: &Found| Input { name: format!("part {} of {of}", part.results.shard.0), digest: part.digest.clone() };
    // What all parts were made from, so that they can be compared with others as each of them can.
    let sources = first.head.inputs.iter().filter(|input| input.name == SOURCES).cloned();
    head.inputs = found.iter().map(part).chain(sources).collect();
    head.cause = cause;
    if let Some(cause) = cause.filter(|cause| *cause != Cause::Flaky) {
        head.outcome = Outcome::Failed;
        let decided = tests().find(|test| test.cause == Some(cause));
        head.line = decided.and_then(|test| test.line.clone());
        head.reproduce = decided.and_then(|test| test.reproduce.clone());
    }
    let message = found.iter().filter(|part| !part.never_began()).find_map(|part| part.results.head.message.clone());
    head.message = message;
    results.head = head;
    Ok((results, rows))
}

/// The first part that came to its tests, and of such parts none, the first.
fn first_of(found: &[Found]) -> &Found {
    found.iter().find(|part| !part.never_began()).unwrap_or(&found[0])
}

/// A row for a part that is not there, or that says only why it never came to its tests.
fn missing(number: u32, of: u32, found: &[Found]) -> Option<Row> {
    let mut test = report::row(PACKAGE, &format!("part {number} of {of}"), Status::Failed);
    match found.iter().find(|part| part.results.shard.0 == number) {
        Some(part) if part.never_began() => {
            let head = &part.results.head;
            (test.cause, test.line) = (Some(head.cause.unwrap_or(Cause::Unclassified)), head.message.clone());
            test.reproduce.clone_from(&head.reproduce);
        }
        Some(_) => return None,
        None => {
            let why = format!("there are no results of part {number} of {of}");
            (test.cause, test.line) = (Some(Cause::NothingRan), Some(why));
        }
    }
    Some(Row { test, excerpt: Vec::new(), ran: None })
}

/// A row for a part that was stopped, which says so in its head only: that all of its tests passed until then is not all.
fn stopped(part: &Found) -> Option<Row> {
    let head = part.results.head.clone();
    let message = head.message.filter(|_| !part.never_began())?;
    let (number, of) = part.results.shard;
    let mut test = report::row(PACKAGE, &format!("part {number} of {of}"), Status::Failed);
    test.cause = Some(head.cause.filter(|cause| *cause != Cause::Flaky).unwrap_or(Cause::Unclassified));
    (test.line, test.reproduce) = (Some(message), head.reproduce);
    Some(Row { test, excerpt: Vec::new(), ran: None })
}

/// The sources of its tests, by content.
fn sources(results: &Results) -> Option<&str> {
    let mut inputs = results.head.inputs.iter();
    inputs.find(|input| input.name == SOURCES).map(|input| input.digest.as_str())
}

/// Refuses parts that are not of one whole, and a part that is there twice.
fn check(found: &[Found]) -> Result<()> {
    let first = first_of(found);
    let strange = |part: &&Found| {
        let (number, of) = part.results.shard;
        !(1..=shard::MOST).contains(&of) || !(1..=of).contains(&number)
    };
    if let Some(part) = found.iter().find(strange) {
        let (number, of) = part.results.shard;
        let what = format!("{} is part {number} of {of}, and there is no such part", part.path.display());
        return Err(Error::new(Cause::Usage, what).next("its record is damaged: run that part again"));
    }
    let key = |part: &Found| {
        let Results { component, version, kind, suite, platform, release, shard, whole, .. } = &part.results;
        let whole = whole.as_ref().map(|whole| format!("{} tests {}", whole.asked, whole.digest));
        let of = format!("of {}", shard.1);
        let mut key = vec![
            ("component", component.clone()),
            ("version", version.clone()),
            ("kind", kind.clone()),
            ("platform", platform.to_string()),
            ("number of parts", of),
        ];
        // What is learnt on the cluster, a part that never came there does not know.
        if !part.never_began() {
            let release = release.clone().unwrap_or_default();
            let sources = sources(&part.results).unwrap_or_default().to_owned();
            key.extend([("suite", suite.clone()), ("release", release), ("sources", sources)]);
            key.push(("list of tests", whole.unwrap_or_default()));
        }
        key
    };
    for part in found {
        for ((word, ours), (_, theirs)) in key(first).iter().zip(&key(part)) {
            if ours != theirs {
                let what = format!(
                    "{} and {} are not parts of one whole: their {word} differs ({ours}, {theirs})",
                    first.path.display(),
                    part.path.display()
                );
                return Err(Error::new(Cause::Usage, what)
                    .next("parts must come from the same command with --shard and the same --durations"));
            }
        }
    }
    for pair in found.windows(2) {
        if pair[0].results.shard.0 == pair[1].results.shard.0 {
            let (number, of) = pair[0].results.shard;
            let what = format!(
                "part {number} of {of} is there twice: {} and {}",
                pair[0].path.display(),
                pair[1].path.display()
            );
            return Err(Error::new(Cause::Usage, what).next("name each part once"));
        }
    }
    let mut seen: BTreeMap<(&str, &str), &Path> = BTreeMap::new();
    for part in found {
        for test in part.results.tests.iter().filter(|test| test.name != PACKAGE) {
            if let Some(other) =
                seen.insert((&test.package, &test.name), &part.path).filter(|other| *other != part.path)
            {
                let what = format!("{} is in {} and in {}", test.name, other.display(), part.path.display());
                return Err(Error::new(Cause::Usage, what));
            }
        }
    }
    Ok(())
}

/// Whether the tests of all parts are those that each part knows the whole to have.
fn complete_names(first: &Results, rows: &[Row]) -> Result<()> {
    let Some(whole) = &first.whole else { return Ok(()) };
    let names = rows.iter().map(|row| row.test.name.as_str());
    let names = names.filter(|name| *name != PACKAGE && top(name) == *name);
    let now = shard::whole(names);
    if now == *whole {
        return Ok(());
    }
    let what = format!("the parts hold {} tests, and the whole has {}", now.asked, whole.asked);
    Err(Error::new(Cause::Usage, what).line(format!("{} instead of {}", now.digest, whole.digest)))
}

fn add(sum: Counts, part: Counts) -> Counts {
    Counts {
        asked: sum.asked + part.asked,
        passed: sum.passed + part.passed,
        failed: sum.failed + part.failed,
        flaky: sum.flaky + part.flaky,
        skipped: sum.skipped + part.skipped,
        excluded: sum.excluded + part.excluded,
        not_run: sum.not_run + part.not_run,
    }
}

/// What the parts' clusters were like, together: the worst of natures, the sum of pods, round by round.
fn conditions(results: &mut Results, found: &[Found]) {
    let began = || found.iter().filter(|part| !part.never_began()).map(|part| &part.results);
    results.nature = began().map(|part| part.nature).max().unwrap_or(results.nature);
    let others = began().skip(1);
    for other in others {
        if !results.cluster.split(' ').any(|cluster| cluster == other.cluster) {
            results.cluster = format!("{} {}", results.cluster, other.cluster).trim().to_owned();
        }
        let ours = &mut results.conditions;
        for (platform, number) in &other.conditions.pods {
            *ours.pods.entry(platform.clone()).or_default() += number;
        }
        ours.set_aside.extend(other.conditions.set_aside.iter().cloned());
        ours.diagnosis.extend(other.conditions.diagnosis.iter().cloned());
        for round in &other.conditions.rounds {
            match ours.rounds.iter_mut().find(|known| known.name == round.name) {
                Some(known) => known.counts = add(known.counts, round.counts),
                None => ours.rounds.push(round.clone()),
            }
        }
        let slower =
            |now: &kit::record::Stretch| ours.stretch.as_ref().is_none_or(|known| known.slowdown < now.slowdown);
        if other.conditions.stretch.as_ref().is_some_and(slower) {
            ours.stretch.clone_from(&other.conditions.stretch);
        }
    }
}

/// Copies the logs of what was not good; what else the parts hold stays with them.
fn bring_logs(mut rows: Vec<Row>, found: &[Found], out: &Path) -> Result<Vec<Row>> {
    let mut logs: BTreeMap<(String, String), (PathBuf, u32)> = BTreeMap::new();
    for part in found {
        let folder = part.path.parent().unwrap_or(Path::new(""));
        for test in &part.results.tests {
            if let Some(log) = test.log.as_ref().filter(|_| test.status != Status::Passed) {
                // A record may say anything, and only logs of ours are read.
                let inside = Path::new(log).components().all(|part| matches!(part, std::path::Component::Normal(_)));
                if inside && log.starts_with("logs/") {
                    logs.insert((test.package.clone(), test.name.clone()), (folder.join(log), part.results.shard.0));
                }
            }
        }
    }
    for row in &mut rows {
        (row.test.log, row.test.evidence) = (None, None);
        let Some((from, shard)) = logs.get(&(row.test.package.clone(), row.test.name.clone())) else { continue };
        let is_file = std::fs::symlink_metadata(from).is_ok_and(|file| file.is_file());
        let Some(name) = from.file_name().filter(|_| is_file) else { continue };
        let log = format!("logs/{shard}/{}", name.to_string_lossy());
        let to = out.join(&log);
        let parent = to.parent().unwrap_or(out);
        let copied = std::fs::create_dir_all(parent).and_then(|()| std::fs::copy(from, &to));
        copied.cause(Cause::HostDisk, || format!("cannot copy {} to {}", from.display(), to.display()))?;
        row.test.log = Some(log);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::row, runs::tests::results};
    use kit::record::{SkipSource, Test};

    fn part(number: u32, tests: Vec<Test>, whole: &[&str]) -> Found {
        let mut results = results("x", "linux/amd64", tests);
        results.shard = (number, 3);
        results.whole = Some(shard::whole(whole.iter().copied()));
        Found { path: format!("run-{number}/results.json").into(), digest: format!("sha256:{number}"), results }
    }

    fn parts() -> Vec<Found> {
        let whole = ["TestA", "TestB", "TestC", "TestNet"];
        let bad = Test { cause: Some(Cause::Product), ..row("TestB", "p", Status::Failed) };
        let net = Test { skipped_by: Some(SkipSource::Ledger), ..row("TestNet", "p", Status::Skipped) };
        vec![
            part(3, vec![row("TestC", "p", Status::Passed)], &whole),
            part(1, vec![row("TestA", "p", Status::Passed), row("TestA/x", "p", Status::Passed), net], &whole),
            part(2, vec![bad], &whole),
        ]
    }

    fn merged(mut found: Vec<Found>) -> Result<(Results, Vec<Row>)> {
        merge(&mut found, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn all_parts_are_the_whole() {
        let (results, rows) = merged(parts()).unwrap();
        let counts = results.counts;
        assert_eq!((counts.asked, counts.passed, counts.failed, counts.excluded), (4, 2, 1, 1));
        assert_eq!((results.all_counts.asked, results.shard, results.whole), (5, (1, 1), None));
        assert_eq!((results.head.outcome, results.head.cause), (Outcome::Failed, Some(Cause::Product)));
        let names: Vec<_> = rows.iter().map(|row| row.test.name.as_str()).collect();
        assert_eq!(names, ["TestA", "TestA/x", "TestNet", "TestB", "TestC"]);
        assert_eq!(results.head.inputs.len(), 3);
    }

    #[test]
    fn a_part_that_is_missing_is_said() {
        let (results, rows) = merged(parts().into_iter().filter(|part| part.results.shard.0 == 3).collect()).unwrap();
        let said: Vec<_> = rows.iter().filter_map(|row| row.test.line.as_deref()).collect();
        assert_eq!(said, ["there are no results of part 1 of 3", "there are no results of part 2 of 3"]);
        assert_eq!((results.head.outcome, results.head.cause), (Outcome::Failed, Some(Cause::NothingRan)));
        assert_eq!(report::verdict(rows.iter().map(|row| &row.test)).0, kit::Exit::NOTHING_RAN);
    }

    /// What a part leaves that never came to its tests.
    fn without_tests(part: &mut Found) {
        let head = part.results.head.clone().failed(&Error::new(Cause::ClusterUnreachable, "nobody answers"));
        part.results.head = head.reproduce("run --shard 1/3");
        (part.results.whole, part.results.tests, part.results.counts) = (None, Vec::new(), Counts::default());
        (part.results.all_counts, part.results.suite) = (Counts::default(), "another".into());
    }

    #[test]
    fn a_part_that_never_came_to_its_tests_is_missing_for_its_reason() {
        let mut found = parts();
        found.iter_mut().for_each(|part| part.results.release = Some("sha256:r".into()));
        without_tests(&mut found[1]);
        found[1].results.release = None;
        let (results, rows) = merged(found).unwrap();
        let row = &rows[0].test;
        assert_eq!((row.package.as_str(), row.cause), ("part 1 of 3", Some(Cause::ClusterUnreachable)));
        assert_eq!((row.line.as_deref(), row.reproduce.as_deref()), (Some("nobody answers"), Some("run --shard 1/3")));
        // The other parts are all there.
        assert_eq!((results.counts.asked, results.suite.as_str(), rows.len()), (2, "smoke", 3));
        assert_eq!((results.release.as_deref(), results.head.cause), (Some("sha256:r"), Some(Cause::Product)));
        let mut found = parts();
        found.iter_mut().for_each(without_tests);
        let (results, rows) = merged(found).unwrap();
        assert_eq!((rows.len(), results.head.cause), (3, Some(Cause::ClusterUnreachable)));
        let mut found = parts();
        without_tests(&mut found[1]);
        found[1].results.version = "v2".into();
        assert!(merged(found).unwrap_err().to_string().contains("their version differs"));
    }

    #[test]
    fn a_part_that_was_stopped_is_not_good_though_its_tests_passed() {
        let mut found = parts();
        found[2].results.tests[0] = row("TestB", "p", Status::Passed);
        (found[2].results.counts, _) = report::count(&found[2].results.tests);
        let head = found[0].results.head.clone().failed(&Error::interrupted(15));
        found[0].results.head = head;
        for part in &mut found {
            part.results.head.inputs.push(Input { name: SOURCES.into(), digest: "h1:a".into() });
        }
        let (results, rows) = merged(found).unwrap();
        let (exit, cause) = report::verdict(rows.iter().map(|row| &row.test));
        assert_eq!((exit, cause), (kit::Exit::INFRASTRUCTURE, Some(Cause::Interrupted)));
        assert_eq!((results.head.outcome, results.head.cause), (Outcome::Failed, Some(Cause::Interrupted)));
        assert!(results.head.message.is_some());
        assert_eq!(sources(&results), Some("h1:a"), "for whoever compares it");
    }

    #[test]
    fn what_is_not_of_one_whole_is_refused() {
        let refused = |change: fn(&mut Vec<Found>), said: &str| {
            let mut found = parts();
            change(&mut found);
            let error = merged(found).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{error}");
        };
        refused(|found| found[1].results.suite = "full".into(), "their suite differs (full, smoke)");
        refused(|found| found[0].results.shard.1 = 4, "their number of parts differs");
        refused(|found| found[0].results.whole = None, "their list of tests differs");
        refused(|found| found[0].results.shard.0 = 2, "part 2 of 3 is there twice");
        refused(
            |found| {
                for (part, digest) in found.iter_mut().zip(["h1:a", "h1:a", "h1:b"]) {
                    part.results.head.inputs.push(Input { name: SOURCES.into(), digest: digest.into() });
                }
            },
            "their sources differs (h1:a, h1:b)",
        );
        refused(|found| found.iter_mut().for_each(|part| part.results.shard.1 = u32::MAX), "there is no such part");
        refused(|found| found[0].results.shard.0 = 0, "is part 0 of 3, and there is no such part");
        refused(|found| found[0].results.tests[0].name = "TestB".into(), "TestB is in");
        refused(|found| found[0].results.tests[0].name = "TestZ".into(), "the parts hold 4 tests, and the whole has 4");
        refused(|found| found[0].results.counts.passed = 9, "do not add up");
    }
}
