//! A cell's runs, as the matrix lists them.

use std::{cmp::Reverse, rc::Rc};

use kit::{Platform, Result};

use super::Told;
use crate::{
    evidence::Attempt,
    history::Library,
    index::Facts,
    model::{Cell, RunResult, RunRow},
    text::{clean, tail},
};

/// So many runs of a cell are listed.
const MAX_RUNS: usize = 20;
/// The ends of so many logs are shown of one record.
const MAX_LOGS: usize = 20;
/// Bytes of a log that is read for its end.
const MAX_LOG: u64 = 64 << 20;

/// The newest runs, newest first, and the numbers of what they say. That costs nothing: [`listed`] reads it.
pub(super) fn newest(told: &[Told<'_>]) -> Vec<(Rc<str>, Box<[u16]>)> {
    let mut told: Vec<_> = told.iter().collect();
    told.sort_by_key(|told| (Reverse((told.run.finished, &told.run.digest)), told.attempt.number));
    let runs = told.chunk_by(|a, b| a.run.digest == b.run.digest).take(MAX_RUNS);
    let numbers = |told: &[&Told<'_>]| told.iter().map(|told| told.attempt.number).collect();
    runs.map(|told| (Rc::clone(&told[0].run.digest), numbers(told))).collect()
}

/// A cell's newest runs with all that they say of it. The ends of logs are read for the newest run that has any: they
/// are files of the bundle, and the pages of runs show the others.
///
/// # Errors
/// If the index is damaged.
pub(crate) fn listed(library: &Library, cell: &Cell) -> Result<Vec<RunRow>> {
    let mut with_logs = true;
    let mut rows = Vec::new();
    for (digest, numbers) in &cell.beside.newest {
        let facts = library.facts(digest)?;
        let of_cell = || numbers.iter().filter_map(|number| Some((*number, facts.attempts.get(usize::from(*number))?)));
        rows.push(RunRow {
            results: of_cell()
                .map(|(number, attempt)| result(library, digest, (number, attempt), with_logs))
                .collect::<Result<_>>()?,
            stages: stages(&facts, Some((&cell.component, &cell.platform))),
            ..head(&facts)
        });
        with_logs &= of_cell().all(|(_, attempt)| attempt.logs.is_empty());
    }
    Ok(rows)
}

/// A run, without what it says of any cell.
pub(crate) fn head(facts: &Facts) -> RunRow {
    RunRow {
        run: facts.run.clone(),
        evidence: facts.digest.clone(),
        started: facts.started,
        finished: facts.finished,
        complete: facts.complete,
        dashboard: facts.dashboard.clone(),
        results: Vec::new(),
        stages: Vec::new(),
    }
}

/// One of a run's statements, which has that number, with its tests, and the ends of their logs if they are wanted.
///
/// # Errors
/// If the index is damaged.
pub(crate) fn result(
    library: &Library,
    digest: &str,
    (number, attempt): (u16, &Attempt),
    with_logs: bool,
) -> Result<RunResult> {
    let mut result = attempt.result.clone();
    // Only tests have totals.
    if result.counts.is_some() {
        result.tests = library.listed(digest, number)?;
    }
    let logs = attempt.logs.iter().take(if with_logs { MAX_LOGS } else { 0 });
    let mut logs = logs.peekable();
    if logs.peek().is_none() {
        return Ok(result);
    }
    let bundle = library.bundle(digest);
    for (index, path) in logs {
        let shown = match &bundle {
            Ok(bundle) if bundle.is_shed() => "this log was removed: [retention] in ci/policy.toml".to_owned(),
            Ok(bundle) => bundle.read(path, MAX_LOG).map_or_else(|error| clean(&error.summary()), |log| tail(&log)),
            Err(error) => clean(&error.summary()),
        };
        if let Some(test) = result.tests.get_mut(*index) {
            test.log_tail = Some(shown);
        }
    }
    Ok(result)
}

/// The stages of a run that concern a component on a platform, or all.
pub(crate) fn stages(facts: &Facts, of: Option<(&str, &Platform)>) -> Vec<crate::model::StageRow> {
    let concerns = |stage: &&crate::index::StageFact| {
        of.is_none_or(|(component, platform)| {
            stage.component.as_deref().is_none_or(|its| its == component)
                && stage.platform.as_ref().is_none_or(|its| its == platform)
        })
    };
    facts.stages.iter().filter(concerns).take(200).map(|stage| stage.row.clone()).collect()
}
