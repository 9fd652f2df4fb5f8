//! `install.json`: what runs on which cluster.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Head, ObjectKey, Record, Setting};
use crate::arch::Platform;

/// A release installed on a cluster, with what was read back from it.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Install {
    /// Tool, times, outcome.
    #[serde(flatten)]
    pub head: Head,
    /// The component's name.
    pub component: String,
    /// Its version, from the release.
    pub version: String,
    /// Digest of the release file.
    pub release: String,
    /// The platform that was wanted of the nodes.
    pub platform: Platform,
    /// The worst of the nodes of that platform: emulated before unknown before native.
    pub nature: Nature,
    /// The cluster.
    pub cluster: ClusterId,
    /// Objects in the release.
    pub objects: usize,
    /// Objects that were not there before, or changed.
    pub changed: usize,
    /// Namespaces that the release made or uses.
    pub namespaces: Vec<String>,
    /// What was added to every pod of the release so that none lands on another architecture; empty where
    /// all nodes have the same.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// How much longer a small fixed piece of work takes on the slowest of the nodes than on the machine that
    /// installed, 1.0 if it takes no longer; nothing if it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1.0))]
    pub slowdown: Option<f64>,
    /// Of how many containers the liveness probes may fail more often than the release says, because the nodes are
    /// emulated and slow: they would be killed before they have started.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub patient_probes: usize,
    /// Whether it was installed although nobody looked whether its images can run there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchecked: bool,
    /// The set of feature flags that was asked for, by its name in `ci/components.toml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flags: Option<String>,
    /// Every value that was set in the release's ConfigMaps before anything started.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<Setting>,
    /// Registries that images are taken from instead of those that the release names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub registries: BTreeMap<String, String>,
    /// What was created or changed, also by an installation that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<AppliedObject>,
    /// What an earlier version had and this one lacks, and was removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pruned: Vec<ObjectKey>,
    /// What runs, as the pods say.
    pub running: Vec<RunningImage>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl Record for Install {
    const FILE: &'static str = "install.json";
    fn head(&self) -> &Head {
        &self.head
    }
}

/// An object that an installation wrote.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AppliedObject {
    /// Which.
    #[serde(flatten)]
    pub key: ObjectKey,
    /// Whether it was there before.
    pub change: Change,
}

/// What came of an object that was applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It was not there.
    Created,
    /// It was another.
    Changed,
}

/// Which cluster, so that no other is taken for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterId {
    /// UID of its `kube-system` namespace.
    pub uid: String,
    /// How it was named: `lab-default`, or the context.
    pub name: String,
    /// The API server's `gitVersion`.
    pub kubernetes: String,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What its kubelet reports (`status.nodeInfo`).
    pub platform: Platform,
    /// Real hardware or not.
    pub nature: Nature,
    /// Who says so and what shows it, in words; nothing if nobody says anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// The machine that it is, as a probe saw it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// The kubelet's version.
    pub kubelet: String,
    /// The kernel's version.
    pub kernel: String,
    /// Whether it is ready and takes pods.
    pub ready: bool,
}

/// A machine in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// What it calls itself: vendor, type, hypervisor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The processor, by the level that programs may count on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processor: Option<String>,
    /// Bytes of a page.
    pub page_size: u64,
    /// Processor time of the probe's piece of work, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work_micros: Option<u64>,
}

/// Whether a node is what its architecture says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Nature {
    /// Real hardware of that architecture.
    Native,
    /// Nobody could tell.
    Unknown,
    /// Emulated on another architecture: never counts as native.
    Emulated,
}

impl Nature {
    /// The name in records and messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Unknown => "unknown",
            Self::Emulated => "emulated",
        }
    }
}

/// An image that a container of the release runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub struct RunningImage {
    /// `namespace/pod/container`, the pod by its owner's name.
    pub container: String,
    /// As the pod names it.
    pub image: String,
    /// The digest that the node reports.
    pub digest: String,
}
