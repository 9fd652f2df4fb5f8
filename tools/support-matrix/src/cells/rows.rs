//! A cell's runs, as the matrix lists them.

use jiff::Timestamp;
use kit::record::{Record, Stage};

use super::Told;
use crate::{
    evidence::{Key, Run},
    model::{RunResult, RunRow, StageRow},
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
pub(crate) fn runs(key: &Key, told: &[Told<'_>]) -> Vec<RunRow> {
    let mut runs: Vec<&Run> = Vec::new();
    for told in told {
        if !runs.iter().any(|run| run.closed.digest() == told.run.closed.digest()) {
            runs.push(told.run);
        }
    }
    runs.sort_by_key(|run| std::cmp::Reverse((run.finished, run.closed.digest().to_owned())));
    let of = |run: &Run| {
        let same = |told: &&Told<'_>| told.run.closed.digest() == run.closed.digest();
        told.iter().filter(same).copied().collect::<Vec<_>>()
    };
    let row = |(index, run): (usize, &Run)| RunRow {
        run: clean(run.closed.run()),
        evidence: run.closed.digest().to_owned(),
        started: run.started,
        finished: run.finished,
        complete: run.is_complete(),
        results: of(run).into_iter().map(|told| result(told, index < MAX_RUNS_WITH_LOGS)).collect(),
        stages: stages(run, key),
    };
    runs.into_iter().take(MAX_RUNS).enumerate().map(row).collect()
}

fn result(told: Told<'_>, with_logs: bool) -> RunResult {
    let mut result = told.attempt.result.clone();
    for (index, path) in told.attempt.logs.iter().take(if with_logs { MAX_LOGS } else { 0 }) {
        let shown = told.run.closed.read(path, MAX_LOG).map_or_else(|error| clean(&error.summary()), |log| tail(&log));
        if let Some(test) = result.tests.get_mut(*index) {
            test.log_tail = Some(shown);
        }
    }
    result
}

fn stages(run: &Run, key: &Key) -> Vec<StageRow> {
    let Some(record) = &run.stages else { return Vec::new() };
    let concerns = |stage: &&Stage| {
        stage.component.as_deref().is_none_or(|component| clean(component) == key.component)
            && stage.platform.as_ref().is_none_or(|platform| *platform == key.platform)
    };
    let mut stages: Vec<_> = record.stages.iter().filter(concerns).collect();
    stages.sort_by_key(|stage| stage.started);
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64().max(0.0);
    let row = |stage: &Stage| {
        let words = [Some(&stage.name), stage.component.as_ref()].into_iter().flatten().map(|word| clean(word));
        StageRow {
            name: words.collect::<Vec<_>>().join(" "),
            after: seconds(record.head().started, stage.started),
            seconds: seconds(stage.started, stage.finished),
            outcome: stage.outcome,
            cause: stage.cause,
        }
    };
    stages.into_iter().take(200).map(row).collect()
}
