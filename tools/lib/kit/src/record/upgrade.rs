//! `upgrade.json`: what was made while an older release was installed, for a look at it when a newer one is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Head, ObjectKey, Record};
use crate::arch::Platform;

/// Objects that were made, and what they were then.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Upgrade {
    /// Tool, times, outcome.
    #[serde(flatten)]
    pub head: Head,
    /// The component's name.
    pub component: String,
    /// The version that was installed.
    pub version: String,
    /// Digest of the release that was installed.
    pub release: String,
    /// The platform that is tested.
    pub platform: Platform,
    /// UID of the cluster.
    pub cluster: String,
    /// The namespace of all of them.
    pub namespace: String,
    /// Its UID.
    pub namespace_uid: String,
    /// Every object.
    pub objects: Vec<Remembered>,
}

impl Record for Upgrade {
    const FILE: &'static str = "upgrade.json";
    fn head(&self) -> &Head {
        &self.head
    }
}

/// An object as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Remembered {
    /// Which.
    #[serde(flatten)]
    pub key: ObjectKey,
    /// Its UID.
    pub uid: String,
    /// All of it but for metadata and status.
    pub body: Value,
    /// How it had come to an end of its own, if it is of a kind that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
}

/// What an object had come to by itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reached {
    /// As `ci/components.toml` names it: the type of a condition that is True, or `phase=VALUE`.
    pub what: String,
    /// Its conditions that were True or False.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Decided>,
    /// `status.phase`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// `status.completionTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completion_time: Option<String>,
    /// What was sent to make it, so that another like it can be made.
    pub manifest: Value,
}

/// A condition that is not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Decided {
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// True or False.
    pub status: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
