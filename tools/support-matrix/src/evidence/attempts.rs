//! The statements that a run's records make.

use std::collections::{BTreeMap, BTreeSet};

use kit::{
    Cause, Platform,
    record::{Cleanup, ClusterId, Counts, Head, Images, Install, Nature, Results, SkipSource, Status, Test},
};

use super::{
    Attempt, Key, TestFact,
    build::{self, built, origin},
    missing,
    run::{Found, Run, Tests, Tried},
    verdict, why,
};
use crate::{
    model::{Level, NodeRow, OriginKind, RunResult, TestRow, Verdict},
    text::{self, clean, many},
};

/// Kinds of nodes, of one record.
const MAX_NODES: usize = 20;
/// Tests of one suite that did not simply pass: what matters most comes first, and each has room of its own.
const LISTED: [(Status, usize); 4] =
    [(Status::Failed, 300), (Status::NotRun, 100), (Status::Flaky, 100), (Status::Skipped, 100)];

/// Tests of one record.
const MAX_ALL_TESTS: usize = 20_000;
/// What e2e-runner calls tests that somebody picked by name: no suite, so they speak of no level.
const SELECTION: &str = "selection";

/// Everything that `run` says. Who built a release that it did not build itself others know: see
/// [`Attempt::builder`].
pub(crate) fn attempts(run: &Run) -> Vec<Attempt> {
    let mut all: Vec<_> = run.builds.iter().flat_map(built).collect();
    let parts: Vec<_> = run.tried.iter().flat_map(parts).collect();
    let mut suites = suites(run, &parts);
    for (place, tried) in run.tried.iter().enumerate() {
        on_cluster(run, tried, suites.remove(&Some(place)).unwrap_or_default(), &mut all);
    }
    all.extend(suites.into_values().flatten());
    let unsaid = missing::statements(run, &all);
    all.extend(unsaid);
    all
}

/// Results of a suite, or of a part of one, and where they come from.
#[derive(Clone, Copy)]
struct Part<'a> {
    tests: &'a Tests,
    tried: &'a Tried,
}

impl<'a> Part<'a> {
    fn record(self) -> &'a Results {
        &self.tests.found.record
    }

    fn release(self) -> Option<&'a str> {
        let installed = self.tried.install.as_ref().map(|found| found.record.release.as_str());
        self.record().release.as_deref().or(installed)
    }

    /// What parts of one suite have in common.
    fn suite(self) -> [Option<&'a str>; 6] {
        let Results { component, version, kind, suite, .. } = self.record();
        let kubernetes = cluster(self.tried).map(|cluster| cluster.kubernetes.as_str());
        [Some(component), Some(version), Some(kind), Some(suite), self.release(), kubernetes]
    }
}

fn parts(tried: &Tried) -> impl Iterator<Item = Part<'_>> {
    tried.results.iter().map(move |tests| Part { tests, tried })
}

/// One statement for each suite that was run, by the place of its cluster. A suite in parts is put together: on one
/// cluster if all of them are there, otherwise over all clusters, which is at no place.
fn suites(run: &Run, parts: &[Part<'_>]) -> BTreeMap<Option<usize>, Vec<Attempt>> {
    let mut found: BTreeMap<Option<usize>, Vec<Attempt>> = BTreeMap::new();
    let place = |part: &Part<'_>| run.tried.iter().position(|tried| std::ptr::eq(tried, part.tried));
    let mut apart: BTreeMap<_, BTreeMap<Option<usize>, Vec<Part<'_>>>> = BTreeMap::new();
    let wholes: Vec<_> = parts.iter().filter(|part| part.record().shard.1 == 1).collect();
    for whole in &wholes {
        found.entry(place(whole)).or_default().push(tested(run, &[**whole]));
    }
    for part in parts.iter().filter(|part| part.record().shard.1 > 1) {
        // Somebody has merged them already.
        let merged = |whole: &&&Part<'_>| {
            (whole.suite(), &whole.record().platform) == (part.suite(), &part.record().platform)
                && whole.record().head.finished >= part.record().head.finished
        };
        if wholes.iter().any(|whole| merged(&whole)) {
            continue;
        }
        let of = (part.suite(), &part.record().platform, part.record().shard.1);
        apart.entry(of).or_default().entry(place(part)).or_default().push(*part);
    }
    for clusters in apart.into_values() {
        let mut rest = Vec::new();
        for (place, parts) in clusters {
            let numbers: BTreeSet<_> = parts.iter().map(|part| part.record().shard.0).collect();
            if numbers.len() == parts[0].record().shard.1 as usize {
                found.entry(place).or_default().push(tested(run, &parts));
            } else {
                rest.extend(parts);
            }
        }
        if !rest.is_empty() {
            let alone = rest.iter().all(|part| std::ptr::eq(part.tried, rest[0].tried));
            let place = if alone { place(&rest[0]) } else { None };
            found.entry(place).or_default().push(tested(run, &rest));
        }
    }
    found
}

/// The cluster that something was tried on, if anybody got to know it.
fn cluster(tried: &Tried) -> Option<&ClusterId> {
    let installed = tried.install.as_ref().map(|found| &found.record.cluster);
    let cleaned = tried.cleanup.as_ref().map(|found| &found.record.cluster);
    installed.or(cleaned).filter(|cluster| !cluster.kubernetes.is_empty())
}

fn on_cluster(run: &Run, tried: &Tried, suites: Vec<Attempt>, all: &mut Vec<Attempt>) {
    let Tried { install, cleanup, .. } = tried;
    let cluster = cluster(tried);
    let place = |attempt: Attempt| Attempt {
        kubernetes: cluster.map(|cluster| clean(&cluster.kubernetes)),
        cluster: cluster.map(name),
        ..attempt
    };
    let mut about = parts(tried).next().map(|part| {
        let Results { component, version, platform, .. } = part.record();
        let (key, builder) = key(run, component, version, platform, part.release());
        (key, builder, part.release().map(clean))
    });
    if let Some(found) = install {
        let Install { component, version, platform, release, .. } = &found.record;
        let (key, builder) = key(run, component, version, platform, Some(release));
        let installed = Attempt { builder, ..installed(found, key) };
        about = Some((installed.key.clone(), installed.builder.clone(), installed.release.clone()));
        all.push(place(installed));
    }
    all.extend(suites);
    if let (Some(found), Some((key, builder, release))) = (cleanup, about) {
        all.push(place(Attempt { builder, release, ..cleaned(found, key) }));
    }
}

/// What a record of a cluster is about, and whose build decides its origin.
fn key(run: &Run, component: &str, version: &str, platform: &Platform, release: Option<&str>) -> (Key, Option<String>) {
    let (origin, builder, built) = origin_of(run, component, release);
    let built = built.filter(|built| built.version == version).map(build::version);
    let (component, version) = (clean(component), built.unwrap_or_else(|| clean(version)));
    (Key { component, version, origin, platform: platform.clone() }, builder)
}

/// Who built a release: whoever wrote its digest. A release that this run did not build may be another's.
fn origin_of<'a>(
    run: &'a Run,
    component: &str,
    release: Option<&str>,
) -> (OriginKind, Option<String>, Option<&'a Images>) {
    let here = run.builds.iter().find(|found| found.record.component == component).map(|found| &found.record);
    match (release.filter(|release| !release.is_empty()), here) {
        (Some(release), _) => {
            let by = |images: &&Images| images.release.as_ref().is_some_and(|built| built.digest == release);
            let own = run.builds.iter().map(|found| &found.record).find(by);
            own.map_or_else(
                || (OriginKind::Unknown, Some(clean(release)), None),
                |images| (origin(images), None, Some(images)),
            )
        }
        (None, Some(images)) => (origin(images), None, Some(images)),
        (None, None) => (OriginKind::Unknown, None, None),
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

/// One suite, put together from its parts.
fn tested(run: &Run, parts: &[Part<'_>]) -> Attempt {
    let first = parts[0].record();
    let (key, builder) = key(run, &first.component, &first.version, &first.platform, parts[0].release());
    let of = first.shard.1;
    let each = one_of_each(parts);
    let absent = (of as usize).saturating_sub(each.len());
    let one_whole = each.iter().all(|part| part.record().whole == first.whole);
    // Good is only what every part found good; the worst of them speaks for all.
    let worst = each.iter().max_by_key(|part| rank(part)).map_or(parts[0], |part| *part);
    let head = &worst.record().head;
    let counts = each.iter().fold(Counts::default(), |sum, part| add(sum, part.record().counts));
    let all = || each.iter().flat_map(|part| part.record().tests.iter().map(|test| (*part, test)));
    let lost = |cause, words| (Verdict::Infrastructure, cause, words);
    let (verdict, cause, words) = match verdict(head) {
        Verdict::Failed => (Verdict::Failed, head.cause, text::counts(&counts)),
        _ if !one_whole => lost(Some(Cause::Usage), "its parts are not of one whole".into()),
        Verdict::Shown if absent > 0 => {
            let cause = missing::of_parts(run, &first.component, &first.platform);
            lost(cause, format!("{absent} of {of} shards have no results"))
        }
        Verdict::Shown if counts.failed > 0 => (Verdict::Failed, head.cause, text::counts(&counts)),
        Verdict::Shown if counts.not_run > 0 => {
            let cause = all().filter(|(_, test)| test.status == Status::NotRun).find_map(|(_, test)| test.cause);
            lost(head.cause.or(cause), text::counts(&counts))
        }
        Verdict::Shown if counts.passed + counts.flaky == 0 => {
            lost(Some(head.cause.unwrap_or(Cause::NothingRan)), "no test ran".into())
        }
        Verdict::Shown => (Verdict::Shown, head.cause, text::counts(&counts)),
        verdict => (verdict, head.cause, why(head)),
    };
    let level = Level::find(&first.kind).filter(|level| level.runs() && *level != Level::Installs);
    let level = level.filter(|_| first.suite != SELECTION);
    let at = each.iter().map(|part| part.record().head.finished).max().unwrap_or(head.finished);
    let mut attempt = attempt(key, level, verdict, words, head, &worst.tests.found.digest);
    let of_part = |part: &Part<'_>| {
        let install = part.tried.install.as_ref().map(|found| &found.record);
        nature(part.record().nature, &part.record().cluster, install)
    };
    attempt.result.cause = cause;
    attempt.result.name = clean(&format!("{} {}", first.kind, first.suite));
    attempt.result.nature = each.iter().map(of_part).max();
    attempt.result.counts = Some(counts);
    for cause in all().filter(|(_, test)| !test.name.contains('/')).filter_map(|(_, test)| test.cause) {
        *attempt.result.causes.entry(cause).or_default() += 1;
    }
    attempt.all = all().take(MAX_ALL_TESTS).map(|(_, test)| fact(test)).collect();
    for (status, most) in LISTED {
        for (part, test) in all().filter(|(_, test)| test.status == status).take(most) {
            if let Some(log) = test.log.as_deref().filter(|_| has_log(test)) {
                attempt.logs.push((attempt.tests.len(), format!("{}{log}", part.tests.folder)));
            }
            attempt.tests.push(row(test));
        }
    }
    let clusters: BTreeSet<_> = each.iter().filter_map(|part| cluster(part.tried).map(name)).collect();
    let clusters: Vec<_> = clusters.into_iter().collect();
    Attempt {
        builder,
        kubernetes: cluster(worst.tried).map(|cluster| clean(&cluster.kubernetes)),
        cluster: (!clusters.is_empty()).then(|| clean(&clusters.join(", "))),
        release: parts[0].release().map(clean),
        suite: Some(clean(&first.suite)),
        at,
        ..attempt
    }
}

/// How bad that is, when several speak of one thing.
fn rank(part: &Part<'_>) -> u8 {
    match verdict(&part.record().head) {
        Verdict::Failed => 2,
        Verdict::Shown => 0,
        _ => 1,
    }
}

/// Each part once: of one that was run on two clusters the worse counts, or the later.
fn one_of_each<'a>(parts: &[Part<'a>]) -> Vec<Part<'a>> {
    let mut each: BTreeMap<u32, Part<'a>> = BTreeMap::new();
    for part in parts {
        let order = |part: &Part<'_>| (rank(part), part.record().head.finished);
        let known = each.entry(part.record().shard.0).or_insert(*part);
        if order(part) > order(known) {
            *known = *part;
        }
    }
    each.into_values().collect()
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
        tests: Vec::new(),
        all: Vec::new(),
    }
}

pub(super) fn result(level: Option<Level>, verdict: Verdict, words: String) -> RunResult {
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
