//! A cell's runs, as the matrix lists them.

use kit::Result;

use super::Told;
use crate::{
    evidence::{Attempt, Key},
    history::Library,
    index::Facts,
    model::{RunResult, RunRow},
    text::{clean, tail},
};

/// So many runs of a cell are listed.
const MAX_RUNS: usize = 20;
/// Of so many of them the ends of logs are shown, for so many tests each.
const MAX_RUNS_WITH_LOGS: usize = 3;
const MAX_LOGS: usize = 20;
/// Bytes of a log that is read for its end.
const MAX_LOG: u64 = 64 << 20;

/// The newest runs, newest first.
///
/// # Errors
/// If the index is damaged.
pub(crate) fn runs(library: &Library, key: &Key, told: &[Told<'_>]) -> Result<Vec<RunRow>> {
    let mut runs: Vec<Told<'_>> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for told in told {
        if seen.insert(&told.run.digest) {
            runs.push(*told);
        }
    }
    runs.sort_by(|a, b| (b.run.finished, &b.run.digest).cmp(&(a.run.finished, &a.run.digest)));
    let mut rows = Vec::new();
    for (index, first) in runs.into_iter().take(MAX_RUNS).enumerate() {
        let facts = library.facts(&first.run.digest)?;
        let of_run = told.iter().filter(|told| told.run.digest == first.run.digest);
        let mut numbers: Vec<_> = of_run.map(|told| usize::from(told.attempt.number)).collect();
        numbers.sort_unstable();
        let attempts = numbers.iter().filter_map(|number| facts.attempts.get(*number));
        rows.push(RunRow {
            results: attempts.map(|attempt| result(library, &facts, attempt, index < MAX_RUNS_WITH_LOGS)).collect(),
            stages: stages(&facts, Some(key)),
            ..head(&facts)
        });
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

/// One of a run's statements, with the ends of its logs if they are wanted.
pub(crate) fn result(library: &Library, facts: &Facts, attempt: &Attempt, with_logs: bool) -> RunResult {
    let mut result = attempt.result.clone();
    let logs = attempt.logs.iter().take(if with_logs { MAX_LOGS } else { 0 });
    let mut logs = logs.peekable();
    if logs.peek().is_none() {
        return result;
    }
    let bundle = library.bundle(&facts.digest);
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
    result
}

/// The stages of a run that concern `key`, or all.
pub(crate) fn stages(facts: &Facts, key: Option<&Key>) -> Vec<crate::model::StageRow> {
    let concerns = |stage: &&crate::index::StageFact| {
        key.is_none_or(|key| {
            stage.component.as_deref().is_none_or(|component| component == key.component)
                && stage.platform.as_ref().is_none_or(|platform| *platform == key.platform)
        })
    };
    facts.stages.iter().filter(concerns).take(200).map(|stage| stage.row.clone()).collect()
}
