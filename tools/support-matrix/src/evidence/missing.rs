//! The statements that missing records make: what a run was asked to do, or began, and left no record of.

use std::collections::{BTreeMap, BTreeSet};

use kit::{
    Cause, Class, Platform,
    record::{RunRecord, Stage},
};

use super::{Attempt, Key, attempts::result, limits::MAX_TRIES, run::Run, verdict_of};
use crate::{
    model::{Level, OriginKind, RunResult, Verdict},
    text::clean,
};

/// The stages on a cluster, by what their records would have shown: those of `nightly` and of a Pipeline.
const STAGES: [(Level, &[&str]); 4] = [
    (Level::Installs, &["target", "lease", "preflight", "snapshot", "install"]),
    (Level::E2e, &["test", "e2e"]),
    (Level::Unit, &["unit"]),
    (Level::Examples, &["examples"]),
];

/// What is known of a component on a platform.
struct Known<'a>(BTreeMap<&'a str, BTreeMap<&'a Platform, Vec<&'a Attempt>>>);

impl<'a> Known<'a> {
    fn new(all: &'a [Attempt]) -> Self {
        let mut known = Self(BTreeMap::new());
        for attempt in all {
            let Key { component, platform, .. } = &attempt.key;
            known.0.entry(component).or_default().entry(platform).or_default().push(attempt);
        }
        known
    }

    fn of(&self, component: &str, platform: &Platform) -> &[&'a Attempt] {
        self.0.get(component).and_then(|known| known.get(platform)).map_or(&[], Vec::as_slice)
    }
}

/// What `run` has no record of; `all` is what it says.
pub(super) fn statements(run: &Run, all: &[Attempt]) -> Vec<Attempt> {
    let known = Known::new(all);
    match &run.asked {
        Some(asked) => not_reached(run, asked, &known),
        None => begun(run, &known),
    }
}

/// What a run was asked to install and test.
fn not_reached(run: &Run, asked: &RunRecord, known: &Known<'_>) -> Vec<Attempt> {
    let mut all = Vec::new();
    for (name, platform) in asked.components.iter().flat_map(|c| asked.test_on.iter().map(move |p| (c, p))) {
        let component = clean(name);
        let of_cell = known.of(&component, platform);
        let get = |level| of_cell.iter().find(|attempt| attempt.result.level == Some(level));
        let built = [Level::Index, Level::Contents].into_iter().filter_map(get);
        let mut before = built.map(|attempt| attempt.result.verdict).find(|verdict| *verdict != Verdict::Shown);
        for (level, stages) in &STAGES[..2] {
            if let Some(found) = get(*level) {
                before = Some(found.result.verdict).filter(|verdict| *verdict != Verdict::Shown);
                continue;
            }
            let (verdict, cause, words) = match before {
                Some(Verdict::Failed | Verdict::NotReached) => {
                    (Verdict::NotReached, None, "an earlier stage failed".into())
                }
                _ => stopped(run, name, platform, stages),
            };
            before = Some(verdict);
            all.push(statement(run, &component, platform, of_cell, (*level, verdict, cause, words)));
        }
    }
    all
}

/// What stages began that nobody asked for in a record: a Pipeline's, a script's.
fn begun(run: &Run, known: &Known<'_>) -> Vec<Attempt> {
    let mut all = Vec::new();
    let mut said = BTreeSet::new();
    for stage in run.stages() {
        let Some((level, _)) = STAGES.iter().find(|(_, names)| names.contains(&stage.name.as_str())) else { continue };
        // Tests that a component does not have were not lost.
        let Some(cause) = stage.cause.filter(|cause| *cause != Cause::NothingRan && cause.class() != Class::Flaky)
        else {
            continue;
        };
        for (component, platform) in concerned(run, stage) {
            let of_cell = known.of(&component, platform);
            let recorded = of_cell.iter().any(|attempt| attempt.result.level == Some(*level));
            if all.len() < MAX_TRIES && !recorded && said.insert((component.clone(), platform, *level)) {
                let words = format!("stage '{}' ended with {cause}", clean(&stage.name));
                let found = (*level, verdict_of(cause.class()), Some(cause), words);
                all.push(statement(run, &component, platform, of_cell, found));
            }
        }
    }
    all
}

/// What a stage was about, which its own call need not say: the lease of a cluster is taken for the run's release.
fn concerned<'a>(run: &'a Run, stage: &'a Stage) -> BTreeSet<(String, &'a Platform)> {
    let others =
        || run.stages().iter().filter_map(|other| Some((other.component.as_deref()?, other.platform.as_ref()?)));
    let built = || {
        let builds = run.builds.iter().map(|found| &found.record);
        builds.flat_map(|images| images.platforms.iter().map(|platform| (images.component.as_str(), platform)))
    };
    let fits = |(component, platform): &(&str, &Platform)| {
        stage.component.as_deref().is_none_or(|wanted| wanted == *component)
            && stage.platform.as_ref().is_none_or(|wanted| wanted == *platform)
    };
    let mut found: BTreeSet<_> = match (&stage.component, &stage.platform) {
        (Some(component), Some(platform)) => BTreeSet::from([(component.as_str(), platform)]),
        _ => others().filter(fits).take(MAX_TRIES).collect(),
    };
    if found.is_empty() {
        found = built().filter(fits).take(MAX_TRIES).collect();
    }
    found.into_iter().map(|(component, platform)| (clean(component), platform)).collect()
}

/// Why parts of a suite have no results: the run was stopped, or a stage of its tests says it. Otherwise they may be in
/// another run, and nobody has lost them.
pub(super) fn of_parts(run: &Run, component: &str, platform: &Platform) -> Option<Cause> {
    if !run.is_complete() {
        return Some(Cause::Interrupted);
    }
    let tests = |stage: &&Stage| STAGES[1..].iter().any(|(_, names)| names.contains(&stage.name.as_str()));
    let stages = run.stages().iter().filter(|stage| concerns(stage, component, platform)).filter(tests);
    stages.filter_map(|stage| stage.cause).find(|cause| cause.class() == Class::Infrastructure)
}

fn concerns(stage: &Stage, component: &str, platform: &Platform) -> bool {
    stage.component.as_deref().is_none_or(|name| name == component)
        && stage.platform.as_ref().is_none_or(|on| on == platform)
}

/// Why a run has no record of a stage: the stage itself says so, or one that it needs, or nobody.
fn stopped(run: &Run, component: &str, platform: &Platform, names: &[&str]) -> (Verdict, Option<Cause>, String) {
    let Some(stages) = &run.stages else {
        return (Verdict::Infrastructure, Some(Cause::Interrupted), "the run ended before it".into());
    };
    let stopped = stages.stages.iter().filter(|stage| concerns(stage, component, platform) && stage.cause.is_some());
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

/// A statement without a record, about what the run's other statements are about.
fn statement(
    run: &Run,
    component: &str,
    platform: &Platform,
    of_cell: &[&Attempt],
    (level, verdict, cause, words): (Level, Verdict, Option<Cause>, String),
) -> Attempt {
    let last = of_cell.last();
    // Where it would have run is known if something was installed there; of several places, what claims least.
    let installs = of_cell.iter().filter(|attempt| attempt.result.level == Some(Level::Installs));
    let nature = installs.filter_map(|attempt| attempt.result.nature).max();
    let unknown = || Key {
        component: component.to_owned(),
        version: "unknown".into(),
        origin: OriginKind::Unknown,
        platform: platform.clone(),
    };
    Attempt {
        key: last.map_or_else(unknown, |attempt| attempt.key.clone()),
        builder: last.and_then(|attempt| attempt.builder.clone()),
        kubernetes: last.and_then(|attempt| attempt.kubernetes.clone()),
        cluster: last.and_then(|attempt| attempt.cluster.clone()),
        suite: None,
        at: run.finished,
        record: None,
        release: last.and_then(|attempt| attempt.release.clone()),
        result: RunResult { cause, nature, ..result(Some(level), verdict, words) },
        logs: Vec::new(),
        tests: Vec::new(),
        all: Vec::new(),
    }
}
