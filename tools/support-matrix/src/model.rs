//! `matrix.json`: the matrix as a versioned schema, and what every rendering is made from.
//!
//! Text in it is clean: nothing that a record said can drive a terminal or turn around what stands beside it.

mod answers;
mod runs;
mod words;

use std::rc::Rc;

use jiff::Timestamp;
use kit::{
    Platform,
    record::{Counts, Nature, Replacement, Status},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use answers::{
    Alarm, AlarmKind, Answer, ClaimFound, ClaimKind, Coming, Difference, Direction, Listing, LogEntry, Need, Notice,
    Notices, Onboarding, Side,
};
pub use runs::{RunResult, RunRow, StageRow, TestRow};

/// Major and minor version of the schemas. A new minor version only adds fields.
pub const SCHEMA_VERSION: &str = "2.0";

/// What is supported, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Matrix {
    /// `major.minor` of this schema.
    pub schema_version: String,
    /// Version of the program that computed it.
    pub tool_version: String,
    /// The moment that it speaks of: later evidence is left out, ages are counted from here.
    pub as_of: Timestamp,
    /// How many runs it rests on.
    pub runs: usize,
    /// When the newest of them ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<Timestamp>,
    /// How many later runs there are, which do not count at that date.
    #[serde(default)]
    pub later: usize,
    /// What could not be counted, and why.
    pub left_out: Vec<LeftOut>,
    /// Every platform that is configured or seen, with those who answer for it.
    pub platforms: Vec<PlatformRow>,
    /// Everybody who answers for a platform.
    #[serde(default)]
    pub owners: Vec<OwnerRow>,
    /// The matrix, ordered by component, version, origin, platform and Kubernetes version.
    pub cells: Vec<Cell>,
}

/// Evidence that is not counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeftOut {
    /// Digest or folder of the bundle.
    pub bundle: String,
    /// Why.
    pub reason: String,
    /// Whether something is wrong with it, which is always so since 1.2: before, later runs were listed as well.
    pub fault: bool,
}

/// A platform and its owners.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlatformRow {
    /// Which.
    pub platform: Platform,
    /// Who answers for it, and with what.
    #[serde(flatten)]
    pub owned: Owned,
    /// Runs that were to test something there.
    pub runs: usize,
    /// Those of them from which nothing was learnt, for reasons of the infrastructure: not for a fault of ours.
    pub lost: usize,
    /// The lost ones as a share of all, from 0 to 1.
    #[serde(default)]
    pub share: f64,
}

/// Somebody who answers for platforms.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OwnerRow {
    /// A person or a team; `nobody` for platforms that nobody answers for.
    pub owner: String,
    /// For which platforms.
    pub platforms: Vec<Platform>,
    /// How many machines there are for them.
    pub machines: u32,
    /// Runs that were to test something there.
    pub runs: usize,
    /// Those of them that the infrastructure lost.
    pub lost: usize,
    /// The lost ones as a share of all, from 0 to 1.
    pub share: f64,
}

/// Who answers for a platform (`ci/architectures.toml`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Owned {
    /// People or teams.
    pub owners: Vec<String>,
    /// Machines, in words.
    pub hardware: Vec<String>,
    /// How many machines.
    #[serde(default)]
    pub machines: u32,
    /// Who lends or pays for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Names of clusters.
    pub clusters: Vec<String>,
}

/// One component in one version on one platform, on one version of Kubernetes, from one origin.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cell {
    /// `component@version/os-arch/kubernetes/origin`, a name for `why`.
    pub id: String,
    /// The component.
    pub component: String,
    /// Its version.
    pub version: String,
    /// The line of development that it belongs to: `v1.9`, or `main` for what is no release.
    #[serde(default)]
    pub line: String,
    /// Where.
    pub platform: Platform,
    /// The API server's version where it was tested; none where it was only built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<String>,
    /// Who built the images.
    pub origin: OriginRow,
    /// All in one word.
    pub state: State,
    /// The same for people, who want to know at once that a node was emulated.
    pub state_words: String,
    /// Why it is that, in words.
    pub reason: String,
    /// What it will be if nothing new comes, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Change>,
    /// Whether the images are there and are what they say.
    pub available: Available,
    /// Whether its tests passed.
    pub tested: Tested,
    /// Its tests beside those of the reference platform; nothing if those never ran, or if this is the reference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Comparison>,
    /// How many of the last valid runs of tests passed, at most 20: those of its line of versions there, up to its own
    /// last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pass_rate: Option<PassRow>,
    /// Who answers for the platform.
    pub owned: Owned,
    /// The nodes that it was last installed on.
    #[serde(default)]
    pub nodes: Vec<NodeRow>,
    /// Level by level, what was shown.
    pub levels: Levels,
    /// The strongest claim of `ci/policy.toml` of which everything is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// The claim `supported`.
    pub supported: Claim,
    /// Every claim of `ci/policy.toml`, from weak to strong.
    pub claims: Vec<Claim>,
    /// Every bundle that its state and its claims rest on, by digest.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// How many runs said something about it.
    pub run_count: usize,
    /// How many of them were lost to the infrastructure.
    pub lost_runs: usize,
    /// When something was last tried on a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<Timestamp>,
    /// The newest of them, newest first; none where a whole matrix is listed and newer versions have taken this one's
    /// place.
    pub runs: Vec<RunRow>,
    /// What stands in no JSON.
    #[serde(skip)]
    pub beside: Beside,
}

/// What the program itself keeps of a cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beside {
    /// When a run first said something of it.
    pub first_seen: Option<Timestamp>,
    /// When the newest run that does ended.
    pub seen: Option<Timestamp>,
    /// When something was last learnt on a cluster; as long as nothing was, when it was first tried there.
    pub learnt: Option<Timestamp>,
    /// Where it fails, or each try of something was lost: the digest of the bundle that decided, and the number of the
    /// statement in it.
    pub decided: Option<(String, u16)>,
    /// A newer version of its line was tried there since.
    pub superseded: bool,
    /// All that is known of its version is superseded or forgotten.
    pub older: bool,
    /// Its newest runs, newest first: the digest of each, and the numbers of its statements about the cell.
    pub newest: Vec<(Rc<str>, Box<[u16]>)>,
}

/// What a cell becomes by time alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The last moment of what it is now.
    pub at: Timestamp,
    /// What it is after that, in words: another state, or a claim that is not met any more.
    pub words: String,
    /// Its state after that.
    pub state: State,
    /// The strongest claim that is met then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// The rule.
    pub why: String,
}

/// Tests beside those of the reference platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Comparison {
    /// The reference.
    pub platform: Platform,
    /// Which suite.
    pub suite: String,
    /// Digest of the reference's bundle.
    pub evidence: String,
    /// When the reference was tested.
    pub at: Timestamp,
    /// Whether the very same release was tested there; otherwise it is the same version only.
    pub same_release: bool,
    /// How many tests are good there and not here.
    pub count: usize,
    /// Which, at most 50.
    pub tests: Vec<TestDifference>,
}

/// A test that is good on the reference platform and not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestDifference {
    /// Its name.
    pub name: String,
    /// What became of it here; nothing if it is not known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<Status>,
    /// Left out here by `ci/skips.toml`.
    pub excluded: bool,
}

/// How many of so many valid runs passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PassRow {
    /// Good.
    pub passed: usize,
    /// All that taught us something.
    pub valid: usize,
}

/// Where images come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OriginRow {
    /// Published by the project, built here, or not known.
    pub kind: OriginKind,
    /// The bases of what was built here, by reference.
    pub bases: Vec<String>,
    /// Images that the configuration named and ours that stand in for them.
    pub replacements: Vec<Replacement>,
}

/// Who built the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OriginKind {
    /// The component's own project.
    Published,
    /// We did.
    BuiltHere,
    /// A release was installed whose images nobody looked at.
    Unknown,
}

/// What a cell is, in one word. The first that applies, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Images, install or native tests are not good.
    Failing,
    /// Its tests passed on hardware of that architecture, not too long ago.
    TestedNatively,
    /// What was shown is too old.
    Stale,
    /// Nothing was shown of it, because each try was lost to the infrastructure. Of what was shown before, such a loss
    /// changes nothing.
    Infrastructure,
    /// Its tests passed, but emulated or on nodes of unknown nature: that never counts as native.
    TestedNotNatively,
    /// It runs on hardware of that architecture; no test came to its end.
    Installed,
    /// A published release whose images are verified.
    Available,
    /// Built here and verified; nothing ran.
    Built,
    /// Nothing was shown.
    Unknown,
}

/// Nodes that are alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRow {
    /// How many.
    pub count: usize,
    /// What they are.
    pub nature: Nature,
    /// Who says so, and what shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// What the machine calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The processor's level.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// Bytes of a page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page_size: Option<u64>,
}

/// Whether images are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Available {
    /// True only for a published release whose contents are verified for this platform.
    pub available: bool,
    /// `available`, `built, verified`, `not verified`.
    pub words: String,
    /// When that was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Digest of the bundle that shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// The last full native run of this very version: of a suite that 'supported' asks for, and as long as there was none, of
/// any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tested {
    /// Whether it passed.
    pub passed: bool,
    /// In words.
    pub words: String,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Which suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// Its totals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// Digest of the release that was installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// The cluster's name and UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// Digest of the bundle that shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
}

/// The levels of evidence, from weak to strong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Levels {
    /// Each image's index has the platform.
    pub index: Evidence,
    /// Config and program header of each image are of that platform.
    pub contents: Evidence,
    /// It installs, and its workloads become ready.
    pub installs: Evidence,
    /// Its unit tests pass.
    pub unit: Evidence,
    /// Its end-to-end tests pass.
    pub e2e: Evidence,
    /// Its examples run.
    pub examples: Evidence,
    /// It can be upgraded to from the version before.
    pub upgrade: Evidence,
}

/// A level of evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// See [`Levels`].
    Index,
    /// See [`Levels`].
    Contents,
    /// See [`Levels`].
    Installs,
    /// See [`Levels`].
    Unit,
    /// See [`Levels`].
    E2e,
    /// See [`Levels`].
    Examples,
    /// See [`Levels`].
    Upgrade,
}

/// What is known of one level. The newest try that taught us something decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Shown or not.
    pub verdict: Verdict,
    /// In words.
    pub words: String,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// What the nodes were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nature: Option<Nature>,
    /// Which suite, for tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// Totals, for tests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// Digest of the bundle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Digest of the record in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<String>,
    /// Tries after that one which were lost to the infrastructure.
    pub lost_since: usize,
}

/// What is known of a level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Good.
    Shown,
    /// Not good.
    Failed,
    /// Good, but only on emulated nodes or nodes of unknown nature.
    NotNative,
    /// Not good, but only on emulated nodes or nodes of unknown nature: nobody knows whose fault that is.
    FailedNotNative,
    /// Every try was lost to the infrastructure.
    Infrastructure,
    /// An earlier level failed.
    NotReached,
    /// Never tried.
    NotTried,
}

/// A claim of `ci/policy.toml`, computed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The word.
    pub name: String,
    /// Whether everything that it requires is shown.
    pub met: bool,
    /// What is missing.
    pub reasons: Vec<String>,
    /// When it ends, if nothing new comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// When it ended by age: since then it is not met, and nothing else is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<Timestamp>,
    /// The bundles that it rests on, by digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
}

/// The JSON Schema of [`Matrix`], checked in as `schemas/matrix.json`.
#[must_use]
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Matrix)
}

/// Every schema of this tool with the name of its file: `schemas/<name>.json`.
#[must_use]
pub fn schemas() -> Vec<(&'static str, schemars::Schema)> {
    vec![
        ("matrix", schema()),
        ("matrix-can", schemars::schema_for!(Answer)),
        ("matrix-log", schemars::schema_for!(Listing<LogEntry>)),
        ("matrix-diff", schemars::schema_for!(Listing<Difference>)),
        ("matrix-claims", schemars::schema_for!(Listing<ClaimFound>)),
        ("matrix-stale", schemars::schema_for!(Listing<Alarm>)),
        ("matrix-notices", schemars::schema_for!(Notices)),
        ("matrix-onboard", schemars::schema_for!(Onboarding)),
    ]
}
