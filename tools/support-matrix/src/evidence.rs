//! From a bundle's records to what was tried, on what, and what came of it.
//!
//! Nothing is decided here about cells: an [`Attempt`] is one statement of one run.

mod attempts;
mod build;
mod limits;
mod missing;
mod platforms;
mod run;

pub(crate) use attempts::attempts;
pub(crate) use build::{origin, version};
pub(crate) use platforms::is_plain;
pub(crate) use run::{DASHBOARD, Run, check_date, is_ahead, is_link, read, verify};

use jiff::Timestamp;
use kit::{
    Cause, Class, Outcome, Platform,
    record::{Head, Status},
};
use serde::{Deserialize, Serialize};

use crate::{
    model::{OriginKind, RunResult, TestRow, Verdict},
    text::clean,
};

/// What an attempt was about, but for the version of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) component: String,
    pub(crate) version: String,
    pub(crate) origin: OriginKind,
    pub(crate) platform: Platform,
}

/// One thing that one run tried.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) key: Key,
    /// The release whose builder decides the key's origin, where this run did not build it itself.
    pub(crate) builder: Option<String>,
    /// The API server's version, where there was one.
    pub(crate) kubernetes: Option<String>,
    /// The suite, for tests.
    pub(crate) suite: Option<String>,
    /// When it ended.
    pub(crate) at: Timestamp,
    /// Digest of the record; none for what a run did not get to.
    pub(crate) record: Option<String>,
    /// Name and UID of the cluster.
    pub(crate) cluster: Option<String>,
    /// Digest of the release.
    pub(crate) release: Option<String>,
    /// What came of it.
    pub(crate) result: RunResult,
    /// Logs of its tests: index in `tests`, and path in the bundle.
    pub(crate) logs: Vec<(usize, String)>,
    /// Every test that did not simply pass, which the result is shown with. The index keeps them apart: most questions
    /// are about the totals.
    #[serde(skip)]
    pub(crate) tests: Vec<TestRow>,
    /// Every test and subtest, also those that passed; the index keeps them apart.
    #[serde(skip)]
    pub(crate) all: Vec<TestFact>,
}

/// What became of one test, in short.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TestFact {
    pub(crate) name: String,
    pub(crate) status: Status,
    /// Left out by `ci/skips.toml`.
    pub(crate) excluded: bool,
    pub(crate) seconds: f64,
}

/// What a record's head means for what it was to show.
fn verdict(head: &Head) -> Verdict {
    match (head.cause.map(Cause::class), head.outcome) {
        (Some(class), _) => verdict_of(class),
        (None, Outcome::Passed) => Verdict::Shown,
        (None, Outcome::Failed) => Verdict::Failed,
        (None, Outcome::Skipped) => Verdict::NotTried,
    }
}

/// A failure of the infrastructure, or of ours, teaches nothing about the product: it only lets evidence age.
const fn verdict_of(class: Class) -> Verdict {
    match class {
        Class::Product | Class::Unknown => Verdict::Failed,
        Class::Flaky => Verdict::Shown,
        Class::Infrastructure | Class::Ours => Verdict::Infrastructure,
    }
}

/// Cause and message, in a line.
fn why(head: &Head) -> String {
    let cause = head.cause.map_or("no cause given", Cause::name);
    head.message.as_deref().map_or_else(|| cause.to_owned(), |message| format!("{cause}: {}", clean(message)))
}
