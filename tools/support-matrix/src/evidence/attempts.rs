//! The statements that a run's records make, and those that missing records make.

use std::collections::BTreeMap;

use kit::{
    Cause, Platform,
    record::{Cleanup, ClusterId, Counts, Head, Install, Nature, Results, SkipSource, Status, Test},
};

use super::{
    Attempt, Key, TestFact,
    build::{built, origin},
    run::{Found, Run, Tried},
    verdict, verdict_of, why,
};
use crate::{
    model::{Level, NodeRow, OriginKind, RunResult, TestRow, Verdict},
    text::{self, clean, many},
};

/// Kinds of nodes, of one record.
const MAX_NODES: usize = 20;
/// Tests that did not simply pass, of one record.
const MAX_TESTS: usize = 300;

/// Tests of one record.
const MAX_ALL_TESTS: usize = 20_000;
/// What e2e-runner calls tests that somebody picked by name: no suite, so they speak of no level.
const SELECTION: &str = "selection";

/// Everything that `run` says. Who built a release that it did not build itself others know: see
/// [`Attempt::builder`].
pub(crate) fn attempts(run: &Run) -> Vec<Attempt> {
    let built = run.builds.iter().flat_map(built);
    let tried = run.tried.iter().flat_map(|tried| on_cluster(run, tried));
    let mut all: Vec<_> = built.chain(tried).collect();
    let missing = not_reached(run, &all);
    all.extend(missing);
    all
}

fn on_cluster(run: &Run, tried: &Tried) -> Vec<Attempt> {
    let mut all = Vec::new();
    let Tried { install, results, cleanup, .. } = tried;
    let cluster = install
        .as_ref()
        .map(|found| &found.record.cluster)
        .or_else(|| cleanup.as_ref().map(|found| &found.record.cluster))
        .filter(|cluster| !cluster.kubernetes.is_empty());
    let place = |attempt: Attempt| Attempt {
        kubernetes: cluster.map(|cluster| clean(&cluster.kubernetes)),
        cluster: cluster.map(name),
        ..attempt
    };
    let key = |component: &str, version: &str, platform: &Platform, release: Option<&str>| {
        let (origin, builder) = origin_of(run, component, release);
        let (component, version) = (clean(component), clean(version));
        (Key { component, version, origin, platform: platform.clone() }, builder)
    };
    if let Some(found) = install {
        let Install { component, version, platform, release, .. } = &found.record;
        let (key, builder) = key(component, version, platform, Some(release));
        all.push(place(Attempt { builder, ..installed(found, key) }));
    }
    let mut suites: BTreeMap<(&str, &str), Vec<&Found<Results>>> = BTreeMap::new();
    for found in results {
        suites.entry((&found.record.kind, &found.record.suite)).or_default().push(found);
    }
    for shards in suites.values() {
        let Results { component, version, platform, release, .. } = &shards[0].record;
        let installed = install.as_ref().map(|found| found.record.release.as_str());
        let release = release.as_deref().or(installed);
        let record = install.as_ref().map(|found| &found.record);
        let (key, builder) = key(component, version, platform, release);
        let attempt = tested(shards, key, &tried.folder, record);
        all.push(place(Attempt { release: release.map(clean), builder, ..attempt }));
    }
    if let (Some(found), Some(first)) = (cleanup, all.first().cloned()) {
        all.push(place(Attempt { builder: first.builder, ..cleaned(found, first.key) }));
    }
    all
}

/// Who built a release: whoever wrote its digest. A release that this run did not build may be another's.
fn origin_of(run: &Run, component: &str, release: Option<&str>) -> (OriginKind, Option<String>) {
    let here = run.builds.iter().find(|found| found.record.component == component).map(|found| &found.record);
    match (release.filter(|release| !release.is_empty()), here) {
        (Some(release), _) => {
            let by =
                |images: &&kit::record::Images| images.release.as_ref().is_some_and(|built| built.digest == release);
            let own = run.builds.iter().map(|found| &found.record).find(by);
            own.map_or_else(|| (OriginKind::Unknown, Some(clean(release))), |images| (origin(images), None))
        }
        (None, Some(images)) => (origin(images), None),
        (None, None) => (OriginKind::Unknown, None),
    }
}

fn installed(found: &Found<Install>, key: Key) -> Attempt {
    let install = &found.record;
    let verdict = verdict(&install.head);
    let words = match verdict {
        Verdict::Shown => {
            format!("{} ready on {}", many(install.objects, "object"), name(&install.cluster))
        }
        _ => why(&install.head),
    };
    let mut attempt = attempt(key, Some(Level::Installs), verdict, words, &install.head, &found.digest);
    attempt.result.nature = Some(install.nature);
    attempt.result.nodes = nodes(install);
    attempt.release = Some(clean(&install.release)).filter(|release| !release.is_empty());
    attempt
}

/// The nodes that an installation was for, alike ones together.
fn nodes(install: &Install) -> Vec<NodeRow> {
    let mut rows: Vec<NodeRow> = Vec::new();
    let meant = install.cluster.nodes.iter().filter(|node| node.ready && node.platform == install.platform);
    for node in meant {
        let words = |words: Option<&String>| words.map(|words| clean(words));
        let machine = node.machine.as_ref();
        let row = NodeRow {
            count: 1,
            nature: node.nature,
            evidence: words(node.evidence.as_ref()),
            model: words(machine.and_then(|machine| machine.model.as_ref())),
            processor: words(machine.and_then(|machine| machine.processor.as_ref())),
            page_size: machine.map(|machine| machine.page_size),
        };
        match rows.iter().position(|other| NodeRow { count: 1, ..other.clone() } == row) {
            Some(same) => rows[same].count += 1,
            None if rows.len() < MAX_NODES => rows.push(row),
            None => {}
        }
    }
    rows
}

/// What the nodes were that a suite ran on: what its own record says, and what the installation found out there.
/// Where both know and differ, what claims less is believed.
fn nature(own: Nature, cluster: &str, install: Option<&Install>) -> Nature {
    match install.filter(|install| install.cluster.uid == cluster).map(|install| install.nature) {
        None | Some(Nature::Unknown) => own,
        Some(found) if own == Nature::Unknown => found,
        Some(found) => own.max(found),
    }
}

fn cleaned(found: &Found<Cleanup>, key: Key) -> Attempt {
    let cleanup = &found.record;
    let words = match verdict(&cleanup.head) {
        Verdict::Shown => {
            let deleted: usize = cleanup.deleted.values().sum();
            format!("back at the baseline, {} deleted, stage {}", many(deleted, "object"), clean(&cleanup.stage))
        }
        _ => format!("{} differ: {}", many(cleanup.difference.len(), "object"), why(&cleanup.head)),
    };
    attempt(key, None, verdict(&cleanup.head), words, &cleanup.head, &found.digest)
}

/// One suite, put together from its shards.
fn tested(shards: &[&Found<Results>], key: Key, folder: &str, install: Option<&Install>) -> Attempt {
    let first = &shards[0].record;
    let of = first.shard.1.max(1);
    let missing: Vec<_> = (1..=of).filter(|i| shards.iter().all(|found| found.record.shard.0 != *i)).collect();
    // Good is only what every shard found good; the worst of them speaks for all.
    let rank = |found: &&&Found<Results>| match verdict(&found.record.head) {
        Verdict::Failed => 2,
        Verdict::Shown => 0,
        _ => 1,
    };
    let worst = shards.iter().max_by_key(rank).map_or(shards[0], |found| *found);
    let head = &worst.record.head;
    let counts = shards.iter().fold(Counts::default(), |sum, found| add(sum, found.record.counts));
    let (verdict, words) = match verdict(head) {
        Verdict::Failed => (Verdict::Failed, text::counts(&counts)),
        Verdict::Shown if of > 1 && !missing.is_empty() => {
            (Verdict::Infrastructure, format!("{} of {of} shards have no results", missing.len()))
        }
        Verdict::Shown if counts.failed > 0 => (Verdict::Failed, text::counts(&counts)),
        Verdict::Shown if counts.not_run > 0 => (Verdict::Infrastructure, text::counts(&counts)),
        Verdict::Shown if counts.passed + counts.flaky == 0 => (Verdict::Infrastructure, "no test ran".into()),
        Verdict::Shown => (Verdict::Shown, text::counts(&counts)),
        verdict => (verdict, why(head)),
    };
    let level = Level::find(&first.kind).filter(|level| level.runs() && *level != Level::Installs);
    let level = level.filter(|_| first.suite != SELECTION);
    let at = shards.iter().map(|found| found.record.head.finished).max().unwrap_or(head.finished);
    let mut attempt = attempt(key, level, verdict, words, head, &worst.digest);
    let natures = shards.iter().map(|found| nature(found.record.nature, &found.record.cluster, install));
    attempt.result.name = clean(&format!("{} {}", first.kind, first.suite));
    attempt.result.nature = natures.max();
    attempt.result.counts = Some(counts);
    let all = || shards.iter().flat_map(|found| &found.record.tests);
    for cause in all().filter(|test| !test.name.contains('/')).filter_map(|test| test.cause) {
        *attempt.result.causes.entry(cause).or_default() += 1;
    }
    attempt.all = all().take(MAX_ALL_TESTS).map(fact).collect();
    for test in all().filter(|test| test.status != Status::Passed).take(MAX_TESTS) {
        if let Some(log) = test.log.as_deref().filter(|_| has_log(test)) {
            attempt.logs.push((attempt.result.tests.len(), format!("{folder}{log}")));
        }
        attempt.result.tests.push(row(test));
    }
    Attempt { suite: Some(clean(&first.suite)), at, ..attempt }
}

fn has_log(test: &Test) -> bool {
    matches!(test.status, Status::Failed | Status::Flaky | Status::NotRun)
}

fn fact(test: &Test) -> TestFact {
    let excluded = test.skipped_by == Some(SkipSource::Ledger);
    TestFact { name: clean(&test.name), status: test.status, excluded, seconds: seconds(test) }
}

/// JSON has no word for what is no number.
fn seconds(test: &Test) -> f64 {
    if test.seconds.is_finite() { test.seconds.max(0.0) } else { 0.0 }
}

fn row(test: &Test) -> TestRow {
    TestRow {
        name: clean(&test.name),
        status: test.status,
        excluded: test.skipped_by == Some(SkipSource::Ledger),
        cause: test.cause,
        line: test.line.as_deref().map(clean),
        seconds: seconds(test),
        reproduce: test.reproduce.as_deref().map(clean),
        log_tail: None,
    }
}

/// What a run was asked to install and test, and has no record of.
fn not_reached(run: &Run, known: &[Attempt]) -> Vec<Attempt> {
    let Some(asked) = &run.asked else { return Vec::new() };
    let mut all = Vec::new();
    for (component, platform) in asked.components.iter().flat_map(|c| asked.test_on.iter().map(move |p| (c, p))) {
        let of_cell: Vec<_> =
            known.iter().filter(|a| a.key.component == clean(component) && a.key.platform == *platform).collect();
        let get = |level| of_cell.iter().find(|attempt| attempt.result.level == Some(level));
        let unknown = || Key {
            component: clean(component),
            version: "unknown".into(),
            origin: OriginKind::Unknown,
            platform: platform.clone(),
        };
        let first = of_cell.last();
        let key = first.map_or_else(unknown, |attempt| attempt.key.clone());
        let built = [Level::Index, Level::Contents].into_iter().filter_map(get);
        let mut before = built.map(|attempt| attempt.result.verdict).find(|verdict| *verdict != Verdict::Shown);
        for (level, stages) in [(Level::Installs, &["snapshot", "install"][..]), (Level::E2e, &["test"])] {
            if let Some(found) = get(level) {
                before = Some(found.result.verdict).filter(|verdict| *verdict != Verdict::Shown);
                continue;
            }
            let (verdict, cause, words) = match before {
                Some(Verdict::Failed | Verdict::NotReached) => {
                    (Verdict::NotReached, None, "an earlier stage failed".into())
                }
                _ => stopped(run, component, platform, stages),
            };
            before = Some(verdict);
            all.push(Attempt {
                key: key.clone(),
                builder: first.and_then(|attempt| attempt.builder.clone()),
                kubernetes: first.and_then(|attempt| attempt.kubernetes.clone()),
                cluster: first.and_then(|attempt| attempt.cluster.clone()),
                suite: None,
                at: run.finished,
                record: None,
                release: None,
                result: RunResult { cause, ..result(Some(level), verdict, words) },
                logs: Vec::new(),
                all: Vec::new(),
            });
        }
    }
    all
}

/// Why a run has no record of a stage: the stage itself says so, or one that it needs, or nobody.
fn stopped(run: &Run, component: &str, platform: &Platform, names: &[&str]) -> (Verdict, Option<Cause>, String) {
    let Some(stages) = &run.stages else {
        return (Verdict::Infrastructure, Some(Cause::Interrupted), "the run ended before it".into());
    };
    let concerns = |stage: &&kit::record::Stage| {
        stage.component.as_deref().is_none_or(|name| name == component)
            && stage.platform.as_ref().is_none_or(|on| on == platform)
            && stage.cause.is_some()
    };
    let stopped = stages.stages.iter().filter(concerns);
    let find = |wanted: &dyn Fn(&str) -> bool| stopped.clone().find(|stage| wanted(&stage.name));
    // Tests are prepared beside everything else: that alone does not keep a stage from being reached.
    let found =
        find(&|name| names.contains(&name)).or_else(|| find(&|name| name != "prepare")).or_else(|| find(&|_| true));
    let Some((stage, cause)) = found.and_then(|stage| Some((stage, stage.cause?))) else {
        return (Verdict::NotTried, None, "the run ended without it".into());
    };
    let words = format!("stage '{}' ended with {cause}", clean(&stage.name));
    let verdict = if names.contains(&stage.name.as_str()) { verdict_of(cause.class()) } else { Verdict::NotReached };
    match verdict_of(cause.class()) {
        Verdict::Infrastructure => (Verdict::Infrastructure, Some(cause), words),
        _ => (verdict, Some(cause), words),
    }
}

pub(super) fn attempt(
    key: Key,
    level: Option<Level>,
    verdict: Verdict,
    words: String,
    head: &Head,
    digest: &str,
) -> Attempt {
    let result = RunResult {
        cause: head.cause,
        line: head.line.as_deref().map(clean),
        reproduce: head.reproduce.as_deref().map(clean),
        ..result(level, verdict, words)
    };
    let (at, record) = (head.finished, Some(digest.to_owned()));
    Attempt {
        key,
        builder: None,
        kubernetes: None,
        suite: None,
        at,
        record,
        cluster: None,
        release: None,
        result,
        logs: Vec::new(),
        all: Vec::new(),
    }
}

fn result(level: Option<Level>, verdict: Verdict, words: String) -> RunResult {
    RunResult {
        level,
        name: level.map_or("cleanup", Level::name).to_owned(),
        verdict,
        words,
        cause: None,
        line: None,
        reproduce: None,
        nature: None::<Nature>,
        nodes: Vec::new(),
        counts: None,
        causes: BTreeMap::new(),
        tests: Vec::new(),
    }
}

fn name(cluster: &ClusterId) -> String {
    clean(&format!("{} ({})", cluster.name, cluster.uid))
}

fn add(a: Counts, b: Counts) -> Counts {
    Counts {
        asked: a.asked.saturating_add(b.asked),
        passed: a.passed.saturating_add(b.passed),
        failed: a.failed.saturating_add(b.failed),
        flaky: a.flaky.saturating_add(b.flaky),
        skipped: a.skipped.saturating_add(b.skipped),
        excluded: a.excluded.saturating_add(b.excluded),
        not_run: a.not_run.saturating_add(b.not_run),
    }
}
