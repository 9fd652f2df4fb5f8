//! `baseline.json` and `cleanup.json`: what a cluster held before, and what it took to get back.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ClusterId, Head, Record};

/// Everything that a cluster held.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Baseline {
    /// Tool, times, outcome.
    #[serde(flatten)]
    pub head: Head,
    /// Which cluster.
    pub cluster: ClusterId,
    /// Every object.
    pub objects: Vec<BaselineObject>,
    /// What could not be listed, as `Kind.group` or `*.group`: nothing of it is ever cleaned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unlisted: Vec<String>,
    /// The file beside this one that holds the bodies: one a line, `{"digest": …, "body": …}`, each known by the
    /// digest that its object has here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bodies: Option<String>,
    /// What nodes held, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeContent>,
}

impl Record for Baseline {
    const FILE: &'static str = "baseline.json";
    fn head(&self) -> &Head {
        &self.head
    }
}

/// The name of an object in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ObjectKey {
    /// API group and version, `apps/v1`.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace, empty for cluster-wide objects.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{} ", self.kind, self.api_version)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// An object of the baseline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BaselineObject {
    /// Which.
    #[serde(flatten)]
    pub key: ObjectKey,
    /// Its UID.
    pub uid: String,
    /// `sha256:…` of what is compared of it; a keyed hash for Secrets.
    pub digest: String,
    /// What may be put back, in records that have no file of bodies; never of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<serde_json::Value>,
}

/// What a node holds beside the objects of the API: as far as its kubelet says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeContent {
    /// The node.
    pub node: String,
    /// Names of images in its store. A kubelet names 50 at most, the largest.
    pub images: Vec<String>,
    /// Volumes that it still has attached or mounted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Pods that its kubelet still holds, as `namespace/name`, and the API server does not know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub orphans: Vec<String>,
    /// Why the kubelet itself was not asked, if it was not: then nothing is known of orphans.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unasked: Option<String>,
}

/// Where a cluster is not what it was.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// There now, and not before.
    pub added: Vec<ObjectKey>,
    /// There before, and not now.
    pub missing: Vec<ObjectKey>,
    /// There both times, with another content.
    pub changed: Vec<ObjectKey>,
    /// Which fields of a changed object differ, by the object as text, where that was looked at. Of a Secret never.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub fields: BTreeMap<String, Vec<String>>,
    /// What nodes hold that they did not hold before, where that was asked for: reported, and no part of what has
    /// to be empty, because kubelets remove images by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeContent>,
    /// What the baseline could not see, as `Kind.group` or `*.group`: nothing of it is compared, nor cleaned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<String>,
}

impl Difference {
    /// Whether the cluster is at its baseline.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.missing.is_empty() && self.changed.is_empty()
    }

    /// How many objects differ.
    #[must_use]
    pub fn len(&self) -> usize {
        self.added.len() + self.missing.len() + self.changed.len()
    }
}

/// A cluster brought back to its baseline, or not.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cleanup {
    /// Tool, times, outcome.
    #[serde(flatten)]
    pub head: Head,
    /// Which cluster.
    pub cluster: ClusterId,
    /// The last stage that was needed: `none`, `objects`, `force`, `needs-recreate`.
    pub stage: String,
    /// What was deleted, by kind.
    pub deleted: BTreeMap<String, usize>,
    /// What was put back.
    pub restored: Vec<ObjectKey>,
    /// Objects whose finalizers were removed by force.
    pub forced: Vec<ObjectKey>,
    /// What was selected, in words; nothing if it was everything beyond the baseline.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub selection: Vec<String>,
    /// What was deleted again and again because somebody makes it anew, with who that seems to be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub recreated: Vec<String>,
    /// How earlier cleanups of this cluster ended, as far as their records lie beside this run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<CleanupHistory>,
    /// What still differs: empty is the proof.
    pub difference: Difference,
}

/// The newest cleanups of one cluster, this one included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CleanupHistory {
    /// How many there are.
    pub cleanups: usize,
    /// How many of them needed force, or a new cluster.
    pub late: usize,
    /// Whether that is often: the cluster is sick.
    pub sick: bool,
}

impl Record for Cleanup {
    const FILE: &'static str = "cleanup.json";
    fn head(&self) -> &Head {
        &self.head
    }
}
