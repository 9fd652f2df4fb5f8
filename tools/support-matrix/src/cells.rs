//! From what runs tried to the matrix: attempts in groups, groups as cells, each with state and reason.

mod judge;
mod rows;
mod state;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kit::{
    Platform, Result,
    ci::{Architectures, Policy},
};

use crate::{
    evidence::{Attempt, Key, Origins, Run, attempts},
    history::Known,
    model::{Cell, Levels, Matrix, OriginKind, OriginRow, Owned, PlatformRow, SCHEMA_VERSION, Verdict},
    policy,
    text::clean,
};
pub(crate) use judge::{Judged, judge};

/// An attempt and the run that made it.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) run: &'a Run,
    pub(crate) attempt: &'a Attempt,
}

/// What the matrix is computed from, beside the runs.
pub(crate) struct Rules {
    pub(crate) architectures: Architectures,
    pub(crate) policy: Policy,
    pub(crate) now: Timestamp,
}

/// The matrix.
///
/// # Errors
/// [`kit::Cause::Usage`] for a policy that asks for what does not exist.
pub(crate) fn compute(known: Known, rules: &Rules) -> Result<Matrix> {
    policy::check(&rules.policy)?;
    let Known { runs, left_out } = known;
    let origins = origins(&runs);
    let all: Vec<(usize, Vec<Attempt>)> =
        runs.iter().enumerate().map(|(index, run)| (index, attempts(run, &origins))).collect();
    let mut groups: BTreeMap<Key, Vec<Told<'_>>> = BTreeMap::new();
    for (index, attempts) in &all {
        for attempt in attempts {
            groups.entry(attempt.key.clone()).or_default().push(Told { run: &runs[*index], attempt });
        }
    }
    adopt_unknown(&mut groups);
    let platforms = platforms(&groups, rules);
    let mut cells = Vec::new();
    for (key, told) in &groups {
        let versions: BTreeSet<_> = told.iter().filter_map(|told| told.attempt.kubernetes.clone()).collect();
        for version in &versions {
            let of = |told: &&Told<'_>| told.attempt.kubernetes.as_ref().is_none_or(|found| found == version);
            let told: Vec<_> = told.iter().filter(of).copied().collect();
            cells.push(cell(key, Some(version.clone()), &told, rules));
        }
        if versions.is_empty() {
            cells.push(cell(key, None, told, rules));
        }
    }
    Ok(Matrix {
        schema_version: SCHEMA_VERSION.into(),
        tool_version: env!("CARGO_PKG_VERSION").into(),
        as_of: rules.now,
        runs: runs.len(),
        left_out,
        platforms,
        cells,
    })
}

fn origins(runs: &[Run]) -> Origins {
    let builds = runs.iter().flat_map(|run| &run.builds).map(|found| &found.record);
    builds
        .filter_map(|images| Some((images.release.as_ref()?.digest.clone(), crate::evidence::origin(images))))
        .collect()
}

/// A run that did not get as far as knowing the version says something about the version that was last seen there.
fn adopt_unknown(groups: &mut BTreeMap<Key, Vec<Told<'_>>>) {
    let is_unknown = |key: &Key| key.version == "unknown" && key.origin == OriginKind::Unknown;
    let orphans: Vec<_> = groups.keys().filter(|key| is_unknown(key)).cloned().collect();
    for orphan in orphans {
        let same =
            |key: &&Key| key.component == orphan.component && key.platform == orphan.platform && !is_unknown(key);
        let newest = |key: &&Key| groups.get(*key).and_then(|told| told.iter().map(|told| told.attempt.at).max());
        let Some(parent) = groups.keys().filter(same).max_by_key(newest).cloned() else { continue };
        let told = groups.remove(&orphan).unwrap_or_default();
        groups.entry(parent).or_default().extend(told);
    }
}

fn platforms(groups: &BTreeMap<Key, Vec<Told<'_>>>, rules: &Rules) -> Vec<PlatformRow> {
    let configured = rules.architectures.architecture.iter().map(|architecture| &architecture.platform);
    let mut all: Vec<&Platform> = configured.collect();
    all.extend(groups.keys().map(|key| &key.platform));
    let mut seen = BTreeSet::new();
    all.retain(|platform| seen.insert(*platform));
    let row = |platform: &Platform| {
        let here = groups.iter().filter(|(key, _)| key.platform == *platform).flat_map(|(_, told)| told);
        let ran = here.filter(|told| is_run(told));
        let mut lost: BTreeMap<&str, bool> = BTreeMap::new();
        for told in ran {
            *lost.entry(told.run.closed.digest()).or_default() |= is_lost(told);
        }
        let (runs, lost) = (lost.len(), lost.values().filter(|lost| **lost).count());
        PlatformRow { platform: platform.clone(), owned: owned(platform, rules), runs, lost }
    };
    all.into_iter().map(row).collect()
}

fn is_run(told: &Told<'_>) -> bool {
    let result = &told.attempt.result;
    result.level.is_some_and(|level| level.runs()) && !matches!(result.verdict, Verdict::NotTried | Verdict::NotReached)
}

fn is_lost(told: &Told<'_>) -> bool {
    told.attempt.result.verdict == Verdict::Infrastructure
}

fn owned(platform: &Platform, rules: &Rules) -> Owned {
    let found = rules.architectures.architecture.iter().find(|architecture| architecture.platform == *platform);
    let words = |words: &[String]| words.iter().map(|word| clean(word)).collect();
    found.map_or_else(Owned::default, |found| Owned {
        owners: words(&found.owners),
        hardware: words(&found.hardware),
        clusters: words(&found.clusters),
    })
}

fn cell(key: &Key, kubernetes: Option<String>, told: &[Told<'_>], rules: &Rules) -> Cell {
    let judged = state::levels(told, rules);
    let owned = owned(&key.platform, rules);
    let claims = policy::claims(told, key.origin, &owned, rules);
    let (state, reason) = state::state(key, &judged, rules);
    let nodes = judged[2].by.map(|by| by.attempt.result.nodes.clone()).unwrap_or_default();
    let [index, contents, installs, unit, e2e, examples, upgrade] = judged.each_ref().map(Judged::evidence);
    let lost: BTreeSet<_> = told.iter().filter(|told| is_lost(told)).map(|told| told.run.closed.digest()).collect();
    let runs: BTreeSet<_> = told.iter().map(|told| told.run.closed.digest()).collect();
    let place = kubernetes.as_deref().unwrap_or("-");
    Cell {
        id: format!("{}@{}/{}/{place}/{}", key.component, key.version, key.platform.dir(), key.origin.name()),
        component: key.component.clone(),
        version: key.version.clone(),
        platform: key.platform.clone(),
        kubernetes,
        origin: origin_row(key, told),
        state,
        state_words: state.words(e2e.nature).into(),
        reason,
        available: state::available(key.origin, &judged),
        tested: state::tested(&judged),
        owned,
        nodes,
        levels: Levels { index, contents, installs, unit, e2e, examples, upgrade },
        claim: claims.iter().rev().find(|claim| claim.met).map(|claim| claim.name.clone()),
        supported: policy::supported(&claims),
        claims,
        run_count: runs.len(),
        lost_runs: lost.len(),
        runs: rows::runs(key, told),
    }
}

/// Bases and replacements of the newest build.
fn origin_row(key: &Key, told: &[Told<'_>]) -> OriginRow {
    let builds = told.iter().flat_map(|told| &told.run.builds).map(|found| &found.record);
    let of = |images: &&kit::record::Images| clean(&images.component) == key.component;
    let newest = builds.filter(of).max_by_key(|images| images.head.finished);
    let bases = newest.into_iter().flat_map(|images| &images.images).filter_map(|image| image.base.as_deref());
    let bases: BTreeSet<_> = bases.map(clean).collect();
    let replacements = newest
        .into_iter()
        .flat_map(|images| &images.replacements)
        .map(|replacement| kit::record::Replacement { from: clean(&replacement.from), to: clean(&replacement.to) });
    OriginRow { kind: key.origin, bases: bases.into_iter().collect(), replacements: replacements.collect() }
}
