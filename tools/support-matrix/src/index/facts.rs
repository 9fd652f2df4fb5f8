//! Everything that one run says, as the index keeps it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kit::{
    Platform,
    record::{Images, Record, Replacement, RunRecord, Stage},
};
use serde::{Deserialize, Serialize};

use crate::{
    evidence::{Attempt, Run, attempts, origin, version},
    model::{OriginKind, StageRow},
    text::clean,
};

/// What one run says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// The run's id, clean.
    pub(crate) run: String,
    /// Digest of its bundle.
    pub(crate) digest: String,
    /// When its first work began.
    pub(crate) started: Timestamp,
    /// When its last record was written.
    pub(crate) finished: Timestamp,
    /// Whether it came to its own end.
    pub(crate) complete: bool,
    /// How many files the bundle has.
    pub(crate) files: usize,
    /// What tells it from another run of the same name: see `history`.
    pub(crate) asked: Option<u64>,
    /// The same where it was not asked: its records.
    pub(crate) records: Vec<u64>,
    /// What it built.
    pub(crate) builds: Vec<BuildFact>,
    /// What it tried.
    pub(crate) attempts: Vec<Attempt>,
    /// How its stages ended.
    pub(crate) stages: Vec<StageFact>,
    /// Where the Tekton Dashboard shows it.
    pub(crate) dashboard: Option<String>,
}

/// A build.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct BuildFact {
    pub(crate) component: String,
    /// As a cell has it.
    pub(crate) version: String,
    pub(crate) origin: OriginKind,
    pub(crate) finished: Timestamp,
    pub(crate) bases: Vec<String>,
    pub(crate) replacements: Vec<Replacement>,
    /// Digest of the release file.
    pub(crate) release: Option<String>,
    /// The release as an artifact in a registry, by digest.
    pub(crate) artifact: Option<String>,
}

/// A stage, and whom it concerns.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StageFact {
    pub(crate) component: Option<String>,
    pub(crate) platform: Option<Platform>,
    pub(crate) row: StageRow,
}

impl Facts {
    /// What `run` says.
    pub(crate) fn of(run: &Run) -> Self {
        let closed = &run.closed;
        let asked = closed.file(RunRecord::FILE).map(|file| number(&file.digest));
        let records = closed.files().iter().filter(|file| asked.is_none() && file.path.ends_with(".json"));
        Self {
            run: clean(closed.run()),
            digest: closed.digest().to_owned(),
            started: run.started,
            finished: run.finished,
            complete: run.is_complete(),
            files: closed.files().len(),
            asked,
            records: records
                .map(|file| number(&kit::digest::sha256(format!("{} {}", file.path, file.digest).as_bytes())))
                .collect(),
            builds: run.builds.iter().map(|found| build(&found.record)).collect(),
            attempts: attempts(run),
            stages: stages(run),
            dashboard: run.dashboard.clone(),
        }
    }
}

impl Facts {
    /// How much that is, in rows of a table.
    pub(crate) fn rows(&self) -> usize {
        let attempt = |attempt: &Attempt| 1 + attempt.result.nodes.len();
        1 + self.stages.len() + self.builds.len() + self.attempts.iter().map(attempt).sum::<usize>()
    }
}

/// The beginning of a digest: enough to tell records of one history apart.
pub(super) fn number(digest: &str) -> u64 {
    let digits = digest.strip_prefix("sha256:").unwrap_or(digest);
    digits.get(..16).and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or_default()
}

fn build(images: &Images) -> BuildFact {
    let bases: BTreeSet<_> = images.images.iter().filter_map(|image| image.base.as_deref()).map(clean).collect();
    let replacements = images.replacements.iter();
    BuildFact {
        component: clean(&images.component),
        version: version(images),
        origin: origin(images),
        finished: images.head.finished,
        bases: bases.into_iter().collect(),
        replacements: replacements
            .map(|replacement| Replacement { from: clean(&replacement.from), to: clean(&replacement.to) })
            .collect(),
        release: images.release.as_ref().map(|release| clean(&release.digest)),
        artifact: images.release.as_ref().and_then(|release| release.artifact.as_deref()).map(clean),
    }
}

fn stages(run: &Run) -> Vec<StageFact> {
    let mut stages: Vec<&Stage> = run.stages().iter().collect();
    stages.sort_by_key(|stage| stage.started);
    let begin = run.stages.as_ref().map(|record| record.head().started);
    let begin = begin.or_else(|| stages.first().map(|stage| stage.started)).unwrap_or(run.started);
    let seconds = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64().max(0.0);
    let fact = |stage: &Stage| {
        let words = [Some(&stage.name), stage.component.as_ref(), stage.part.as_ref()]
            .into_iter()
            .flatten()
            .map(|word| clean(word));
        StageFact {
            component: stage.component.as_deref().map(clean),
            platform: stage.platform.clone(),
            row: StageRow {
                name: words.collect::<Vec<_>>().join(" "),
                after: seconds(begin, stage.started),
                seconds: seconds(stage.started, stage.finished),
                outcome: stage.outcome,
                cause: stage.cause,
            },
        }
    };
    stages.into_iter().take(500).map(fact).collect()
}
