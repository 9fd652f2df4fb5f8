//! `run.json`, `stages.json`, `bundle.json`: what a run was asked, how its stages ended, and its sealed content.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Head, Record};
use crate::{Cause, Outcome, arch::Platform};

/// What a run was asked to do, written before it begins.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunRecord {
    /// Tool, times.
    #[serde(flatten)]
    pub head: Head,
    /// Components.
    pub components: Vec<String>,
    /// Platforms that are built and verified.
    pub platforms: Vec<Platform>,
    /// Platforms that are tested.
    pub test_on: Vec<Platform>,
    /// The suite, if another than each component's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<String>,
    /// The cluster as named on the command line.
    pub cluster: String,
    /// The run whose records this one goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continues: Option<String>,
}

impl Record for RunRecord {
    const FILE: &'static str = "run.json";
    fn head(&self) -> &Head {
        &self.head
    }
}

/// How the stages of a run ended, written when all have.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stages {
    /// Tool, times, and the outcome of the whole.
    #[serde(flatten)]
    pub head: Head,
    /// In the order in which they ended.
    pub stages: Vec<Stage>,
}

impl Record for Stages {
    const FILE: &'static str = "stages.json";
    fn head(&self) -> &Head {
        &self.head
    }
}

/// One stage of a run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stage {
    /// `build`, `lab`, `snapshot`, `install`, `test`, `cleanup`, `record`.
    pub name: String,
    /// Of which component, where it is of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// On which platform, where it is on one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Which part of it, as `2/3`, where parts run at the same time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub finished: Timestamp,
    /// How.
    pub outcome: Outcome,
    /// Why, unless it is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The exit code of its tool.
    pub exit: i32,
    /// The command, as it can be given again.
    pub command: String,
}

/// The sealed content of a closed run. Its own digest names the run's evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// `major.minor` of the schema.
    pub schema_version: String,
    /// The run's id.
    pub run: String,
    /// Every file, sorted by path.
    pub files: Vec<BundleFile>,
}

/// A file of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BundleFile {
    /// Relative to the run directory, with `/`.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// `sha256:…`.
    pub digest: String,
}
