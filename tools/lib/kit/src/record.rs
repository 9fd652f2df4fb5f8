//! The records that tools leave in a run directory: their types are the schemas.
//!
//! Each is written once, by one tool, and read by others; see ARCHITECTURE.md. A reader refuses a
//! newer major version and ignores fields that it does not know.

mod cleanup;
mod cluster;
mod images;
mod install;
mod lab;
mod results;
mod run;
mod upgrade;

pub use cleanup::{Baseline, BaselineObject, Cleanup, CleanupHistory, Difference, NodeContent, ObjectKey};
pub use cluster::{ClusterHost, ClusterPhase, ClusterSeen, ClusterState};
pub use images::{
    Deep, Image, ImageKind, Images, Origin, PlatformRow, Program, Release, Replacement, Source, Unseen, Unused,
};
pub use install::{AppliedObject, Change, ClusterId, Install, Machine, Nature, Node, RunningImage};
pub use lab::{EMULATED, Lab, LabMachine, LabNode, LabPhase, Subnet};
pub use results::{
    Collected, Conditions, Counts, Results, RoundResult, Setting, SkipSource, SourceChange, Status, Stretch, Test,
    TestLimit, Whole,
};
pub use run::{Bundle, BundleFile, RunRecord, Stage, Stages};
pub use upgrade::{Decided, Reached, Remembered, Upgrade};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{Cause, Error, Outcome};

/// Major and minor version of every schema here. A new minor version only adds fields.
pub const SCHEMA_VERSION: &str = "1.0";

/// What a record of ours is: its file's name and how its head is reached.
pub trait Record: Serialize + DeserializeOwned + JsonSchema {
    /// The file's name in the run directory, without folder.
    const FILE: &'static str;
    /// The head that all have.
    fn head(&self) -> &Head;
}

/// What every record begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// `major.minor` of the schema.
    pub schema_version: String,
    /// The tool that wrote it.
    pub tool: String,
    /// That tool's version.
    pub tool_version: String,
    /// The run that it belongs to.
    pub run: String,
    /// When the work began, RFC 3339.
    pub started: Timestamp,
    /// When the work ended, RFC 3339.
    pub finished: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, unless all is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// What went wrong, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The line that decided the cause.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// The one command that shows the failure again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reproduce: Option<String>,
    /// What was read: name and digest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<Input>,
}

/// Something that a tool read, by content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Input {
    /// A file of the run directory, or what else it was.
    pub name: String,
    /// `sha256:…` of its bytes.
    pub digest: String,
}

impl Head {
    /// The head of work by `tool` that began at `started`, for now without a fault.
    #[must_use]
    pub fn new(tool: &str, version: &str, run: &str, started: Timestamp) -> Self {
        Self {
            schema_version: SCHEMA_VERSION.into(),
            tool: tool.into(),
            tool_version: version.into(),
            run: run.into(),
            started,
            finished: Timestamp::now(),
            outcome: Outcome::Passed,
            cause: None,
            message: None,
            line: None,
            reproduce: None,
            inputs: Vec::new(),
        }
    }

    /// Marks the work as failed for the reason of `error`.
    #[must_use]
    pub fn failed(mut self, error: &Error) -> Self {
        let good = error.cause.class() == crate::Class::Flaky;
        self.outcome = if good { Outcome::Passed } else { Outcome::Failed };
        self.cause = Some(error.cause);
        self.message = Some(error.summary());
        self.line.clone_from(&error.line);
        self
    }

    /// Names the command that shows a failure again.
    #[must_use]
    pub fn reproduce(mut self, command: impl Into<String>) -> Self {
        self.reproduce = Some(command.into());
        self
    }
}

/// Every schema, with the name of its file: `schemas/<name>.json` is generated from here.
#[must_use]
pub fn schemas() -> Vec<(&'static str, schemars::Schema)> {
    vec![
        ("run", schemars::schema_for!(RunRecord)),
        ("images", schemars::schema_for!(Images)),
        ("verify", schemars::schema_for!(Vec<Image>)),
        ("install", schemars::schema_for!(Install)),
        ("results", schemars::schema_for!(Results)),
        ("upgrade", schemars::schema_for!(Upgrade)),
        ("baseline", schemars::schema_for!(Baseline)),
        ("cleanup", schemars::schema_for!(Cleanup)),
        ("stages", schemars::schema_for!(Stages)),
        ("bundle", schemars::schema_for!(Bundle)),
        ("lab", schemars::schema_for!(Lab)),
        ("cluster", schemars::schema_for!(ClusterState)),
    ]
}
