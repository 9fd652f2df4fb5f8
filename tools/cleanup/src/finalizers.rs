//! Whose a finalizer is, and which workloads could remove it: the table, and names that fit. Pure.

use std::{collections::BTreeSet, sync::LazyLock};

use kit::record::ObjectKey;
use serde::Deserialize;
use serde_json::Value;

use crate::rules::like;

/// Those that are known by name.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let table: Table = kit::config::parse(include_str!("finalizers.toml"), "finalizers.toml")
        // The file is part of the program, and a test reads it.
        .expect("finalizers.toml is well-formed");
    table.finalizer
});

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    finalizer: Vec<Known>,
}

/// A finalizer that is known.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Known {
    name: String,
    kind: Option<String>,
    /// Who has to act.
    pub controller: String,
    /// What it waits for.
    pub means: String,
    /// What to do about it.
    pub next: String,
}

impl Known {
    /// Namespace and name of the workload that has to act, if it is one.
    #[must_use]
    pub(crate) fn workload(&self) -> Option<(&str, &str)> {
        self.controller.split_once('/')
    }
}

/// The finalizer of that name on such an object.
#[must_use]
pub(crate) fn known(finalizer: &str, key: &ObjectKey) -> Option<&'static Known> {
    KNOWN.iter().find(|known| like(&known.name, finalizer) && known.kind.as_ref().is_none_or(|kind| *kind == key.kind))
}

/// A workload that may be a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Workload {
    /// Deployment, StatefulSet or DaemonSet.
    pub kind: &'static str,
    /// Where.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The service account of its pods.
    pub account: String,
    /// How many of its pods are ready.
    pub ready: i32,
    /// How many it wants.
    pub wanted: i32,
}

impl Workload {
    /// Whether it can act at all.
    #[must_use]
    pub(crate) fn alive(&self) -> bool {
        self.ready > 0
    }

    /// In words.
    #[must_use]
    pub(crate) fn shown(&self) -> String {
        let Self { kind, namespace, name, ready, wanted, .. } = self;
        format!("{kind} {namespace}/{name} ({ready} of {wanted} ready)")
    }

    /// Whether its names have a word in common with those that name the controller.
    #[must_use]
    pub(crate) fn fits(&self, words: &BTreeSet<String>) -> bool {
        let own = words_of(&format!("{} {}", self.namespace, self.name));
        own.iter().any(|word| words.contains(word))
    }
}

/// The words by which the owner of a finalizer may be known: of its domain, and of who wrote it.
#[must_use]
pub(crate) fn owner_words(finalizer: &str, writer: Option<&str>) -> BTreeSet<String> {
    let domain = finalizer.split_once('/').map_or(finalizer, |(domain, _)| domain);
    words_of(&format!("{domain} {}", writer.unwrap_or_default()))
}

/// Words that say nothing about whose something is.
const EMPTY: &[&str] = &[
    "com",
    "controller",
    "dev",
    "example",
    "finalizer",
    "finalizers",
    "io",
    "k8s",
    "kubectl",
    "kubernetes",
    "manager",
    "net",
    "operator",
    "org",
    "server",
    "system",
    "webhook",
];

fn words_of(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| word.len() > 1);
    words.map(str::to_ascii_lowercase).filter(|word| !EMPTY.contains(&word.as_str())).collect()
}

/// Who wrote a finalizer into an object: the field manager.
#[must_use]
pub(crate) fn writer(body: &Value, finalizer: &str) -> Option<String> {
    let field = format!("v:\"{finalizer}\"");
    let wrote = |entry: &&Value| entry["fieldsV1"]["f:metadata"]["f:finalizers"].get(&field).is_some();
    let entries = body["metadata"]["managedFields"].as_array()?;
    entries.iter().find(wrote).and_then(|entry| entry["manager"].as_str()).map(String::from)
}

/// Who wrote an object last, with when: at most two.
#[must_use]
pub(crate) fn writers(body: &Value) -> Vec<String> {
    let entries = body["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut entries: Vec<(&str, &str)> = entries
        .filter(|entry| entry["subresource"] != "status")
        .filter_map(|entry| Some((entry["time"].as_str().unwrap_or_default(), entry["manager"].as_str()?)))
        .collect();
    entries.sort_unstable();
    entries.reverse();
    entries.iter().take(2).map(|(time, manager)| format!("'{manager}' at {time}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::object;
    use serde_json::json;

    #[test]
    fn the_table_knows_kubernetes_own_finalizers_and_tektons() {
        let namespace = object("Namespace.v1 n", "1").key;
        let run = object("PipelineRun.tekton.dev/v1 n/r", "1").key;
        assert!(known("kubernetes", &namespace).unwrap().means.contains("empty"));
        assert!(known("kubernetes", &run).is_none());
        let chains = known("chains.tekton.dev/pipelinerun", &run).unwrap();
        assert_eq!(chains.workload(), Some(("tekton-chains", "tekton-chains-controller")));
        assert!(known("left.example.com/wait", &run).is_none());
        assert!(KNOWN.iter().all(|known| !known.next.is_empty() && !known.means.is_empty()));
    }

    #[test]
    fn names_that_fit_tell_whose_it_is() {
        let workload = |namespace: &str, name: &str| Workload {
            kind: "Deployment",
            namespace: namespace.into(),
            name: name.into(),
            account: "a".into(),
            ready: 1,
            wanted: 1,
        };
        let words = owner_words("chains.tekton.dev/x", None);
        assert!(workload("tekton-chains", "controller").fits(&words));
        assert!(!workload("kube-system", "coredns").fits(&words));
        assert!(!workload("default", "controller-manager").fits(&owner_words("x.example.com/controller", None)));
        assert!(workload("apps", "greeter-controller").fits(&owner_words("left.example.com/wait", Some("greeter"))));
    }

    #[test]
    fn an_object_tells_who_wrote_it() {
        let body = json!({"metadata": {"managedFields": [
            {"manager": "status-writer", "subresource": "status", "time": "2026-01-03T00:00:00Z"},
            {"manager": "one", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:metadata": {"f:finalizers": {"v:\"a.b/c\"": {}}}}},
            {"manager": "two", "time": "2026-01-02T00:00:00Z"},
        ]}});
        assert_eq!(writer(&body, "a.b/c").as_deref(), Some("one"));
        assert_eq!(writer(&body, "a.b/d"), None);
        assert_eq!(writers(&body), ["'two' at 2026-01-02T00:00:00Z", "'one' at 2026-01-01T00:00:00Z"]);
        assert!(writers(&json!({})).is_empty());
    }
}
