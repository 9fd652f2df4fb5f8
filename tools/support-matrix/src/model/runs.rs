//! Runs, as a matrix lists them: records, tests and stages.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kit::{
    Cause, Outcome,
    record::{Counts, Nature, Status},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Level, NodeRow, Verdict};

/// A run, as far as it concerns a cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRow {
    /// The run's id.
    pub run: String,
    /// Digest of its bundle.
    pub evidence: String,
    /// When it began.
    pub started: Timestamp,
    /// When its last record was written.
    pub finished: Timestamp,
    /// Whether it came to its own end.
    pub complete: bool,
    /// Where the Tekton Dashboard shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dashboard: Option<String>,
    /// How it ended for this cell: a word for each record.
    pub results: Vec<RunResult>,
    /// Stages, and how long each took, in the order in which they began.
    pub stages: Vec<StageRow>,
}

/// One record of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunResult {
    /// Which level it speaks of; none for cleanup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<Level>,
    /// `contents`, `installs`, `e2e smoke`, `cleanup`.
    pub name: String,
    /// Good, not good, or nothing learnt.
    pub verdict: Verdict,
    /// In words.
    pub words: String,
    /// Why, unless it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The line that decided the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// The one command that shows it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reproduce: Option<String>,
    /// What the nodes were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nature: Option<Nature>,
    /// The nodes, for installations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeRow>,
    /// Totals, for tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// How many failed for which cause.
    pub causes: BTreeMap<Cause, usize>,
    /// Every test that did not simply pass.
    pub tests: Vec<TestRow>,
}

/// A test that did not simply pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestRow {
    /// Its name.
    pub name: String,
    /// What became of it.
    pub status: Status,
    /// Left out by `ci/skips.toml`, rather than skipped by itself.
    pub excluded: bool,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The line that decided the cause, or the reason of a skip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// The one command that shows it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reproduce: Option<String>,
    /// The end of its log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
}

/// A stage of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StageRow {
    /// Its name, with component and platform where it has them.
    pub name: String,
    /// Seconds from the run's beginning to the stage's.
    pub after: f64,
    /// Seconds from its beginning to its end.
    pub seconds: f64,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, unless it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}
