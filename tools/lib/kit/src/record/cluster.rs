//! What `cluster-install cluster` prints of a cluster as JSON: how it is come by, how far it is, how it is used.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ClusterId;
use crate::{Cause, Platform};

/// A cluster of `ci/architectures.toml`, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterState {
    /// `major.minor` of the schema.
    pub schema_version: String,
    /// Its name.
    pub name: String,
    /// How it is come by: `kubeconfig`, `ssh`, `kind` or `lab`.
    pub provider: String,
    /// What its nodes are to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Who answers for it.
    pub owner: String,
    /// What was seen without asking the cluster itself.
    #[serde(flatten)]
    pub seen: ClusterSeen,
    /// Of `create`: whether this run made it, so that its caller knows whose it is to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<bool>,
    /// Of `delete`: whether there was something to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted: Option<bool>,
    /// The cluster's own answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterId>,
    /// A private file; its only context is called as the cluster is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// The certificate of the cluster's registry, a private file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_certificate: Option<PathBuf>,
    /// The login of that registry, a private file as Docker has it, in a folder that `DOCKER_CONFIG` can name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registry_login: Option<PathBuf>,
    /// How every tool is told which cluster it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<String>,
    /// Why it cannot be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
    /// The same in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// What a provider sees without asking the cluster itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterSeen {
    /// The host, if a host makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<ClusterHost>,
    /// How far it is.
    #[serde(rename = "state")]
    pub phase: ClusterPhase,
    /// Which run made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Since when it is so, as the host says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// What the host says is wrong with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_message: Option<String>,
}

/// Whether a host is there; its cluster has no part in that.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterHost {
    /// Name and port.
    pub address: String,
    /// Whether it let us in and answered.
    pub reachable: bool,
    /// Its machine, as `uname -m` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// What makes clusters there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub implementation: Option<String>,
    /// The Kubernetes that it would make.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<String>,
}

/// How far a cluster has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterPhase {
    /// There is none.
    Absent,
    /// Somebody is making it.
    Creating,
    /// It is there.
    Ready,
    /// Making or removing it did not come to its end.
    Broken,
    /// Somebody is removing it.
    Deleting,
    /// Nobody could tell.
    #[default]
    #[serde(other)]
    Unknown,
}

impl ClusterPhase {
    /// In words, as in "it is …".
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Absent => "not there",
            Self::Creating => "being made",
            Self::Ready => "there",
            Self::Broken => "broken",
            Self::Deleting => "being removed",
            Self::Unknown => "in no state that is known",
        }
    }
}
