//! `results.json`: every test that was asked for, and what became of it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Head, Nature, Record};
use crate::{Cause, arch::Platform};

/// The results of one suite on one cluster.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Results {
    /// Tool, times, outcome.
    #[serde(flatten)]
    pub head: Head,
    /// The component's name.
    pub component: String,
    /// Its version.
    pub version: String,
    /// What kind of tests: `e2e`, `unit`, `examples`, `script`, `upgrade`.
    pub kind: String,
    /// The suite's name in `ci/components.toml`.
    pub suite: String,
    /// The platform that was tested.
    pub platform: Platform,
    /// Whether that was real hardware.
    pub nature: Nature,
    /// UID of the cluster.
    pub cluster: String,
    /// Digest of the release that was installed, if the runner was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Totals of top-level tests.
    pub counts: Counts,
    /// Totals of tests and subtests, as `go test` counts them.
    pub all_counts: Counts,
    /// What was arranged for the tests, beside the installation.
    #[serde(default, skip_serializing_if = "Conditions::is_plain")]
    pub conditions: Conditions,
    /// Every test and subtest, in the order in which they ended.
    pub tests: Vec<Test>,
    /// Which part of the suite this is, `(1, 1)` for all of it.
    pub shard: (u32, u32),
    /// Of a part, what all parts together were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<Whole>,
    /// What was collected of failures while it was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Collected>,
}

/// A suite that is run in parts, so that nobody takes some of them for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Whole {
    /// Top-level tests of all parts, those that are left out with them.
    pub asked: usize,
    /// `sha256:…` of their names, sorted, one a line.
    pub digest: String,
}

/// The state of the cluster that was kept for tests that failed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Collected {
    /// Files.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// What was left out or cut, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
}

impl Record for Results {
    const FILE: &'static str = "results.json";
    fn head(&self) -> &Head {
        &self.head
    }
}

/// Honest totals: asked = passed + failed + flaky + skipped + excluded + notRun.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// In the suite.
    pub asked: usize,
    /// Good.
    pub passed: usize,
    /// Not good.
    pub failed: usize,
    /// Good on a second try.
    pub flaky: usize,
    /// Skipped by the test itself.
    pub skipped: usize,
    /// Left out by `ci/skips.toml`.
    pub excluded: usize,
    /// Never came to their end, or never began.
    pub not_run: usize,
}

/// What was arranged so that the tests could run as they did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Conditions {
    /// How the installation was set, if the suite sets anything: one round after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rounds: Vec<RoundResult>,
    /// How limits were stretched, if the nodes are slower than the machine that the tests are made for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stretch: Option<Stretch>,
    /// How long one test might take, without the time of its subtests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_limit: Option<TestLimit>,
    /// Nodes of other platforms that took no pods meanwhile.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<String>,
    /// What was wrong with the cluster when more than a fifth of the tests had failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub diagnosis: Vec<String>,
    /// How many pods were seen in the namespaces that the tests made, by the platform of their node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pods: BTreeMap<String, usize>,
}

/// How long one test might take.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestLimit {
    /// A test of which nothing was known from earlier runs.
    pub seconds: f64,
    /// How many tests had a limit of their own: five times what they took in an earlier run, two minutes at least.
    pub learnt: usize,
}

/// Limits stretched for slow nodes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stretch {
    /// How much slower the nodes are.
    pub slowdown: f64,
    /// Who says so: `install.json` or `--slowdown`.
    pub source: String,
    /// What lengths of time were multiplied by.
    pub factor: u32,
    /// What was changed in the tests' own sources, by the rules of `ci/components.toml`.
    pub changes: Vec<SourceChange>,
}

/// A text that a rule replaced in a source file of the tests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SourceChange {
    /// The file, relative to the component's sources.
    pub file: String,
    /// What was there.
    pub find: String,
    /// What is there instead.
    pub replace: String,
    /// How often.
    pub times: usize,
}

impl Conditions {
    /// Whether nothing was arranged.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// A round of a suite: tests that ran with the installation set in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoundResult {
    /// `first` for all tests; of a further round its name in `ci/components.toml`.
    pub name: String,
    /// What was set for it, and put back afterwards.
    pub settings: Vec<Setting>,
    /// What became of its top-level tests in it.
    pub counts: Counts,
}

/// A value that was set while tests ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Setting {
    /// The ConfigMap, as `namespace/name`.
    pub config_map: String,
    /// The key in it.
    pub key: String,
    /// What it was set to.
    pub value: String,
    /// What it was before, if it was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
}

/// One test or subtest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Test {
    /// `TestX` or `TestX/sub`.
    pub name: String,
    /// Go package.
    pub package: String,
    /// What became of it.
    pub status: Status,
    /// Why, unless it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The line that decided the cause, or the reason of a skip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// Who skipped it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_by: Option<SkipSource>,
    /// The further round that this is the result of, because it skipped itself before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// How often it was run.
    pub attempts: u32,
    /// Its log, relative to this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
    /// The one command that shows its failure again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reproduce: Option<String>,
    /// The folder with what the cluster held when it failed, relative to this record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Of a test that `ci/skips.toml` leaves out: what became of it when it was run all the same, to see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Status>,
}

/// What became of a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Good.
    Passed,
    /// Not good.
    Failed,
    /// Good on a second try.
    Flaky,
    /// It, or we, skipped it.
    Skipped,
    /// It never came to its end, or never began.
    NotRun,
}

/// Who skipped a test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SkipSource {
    /// The test itself.
    Test,
    /// `ci/skips.toml`.
    Ledger,
}
