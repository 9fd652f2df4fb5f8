//! Where the tests' pods really ran: those in namespaces that came while the tests did, by the platform of their
//! node. Tests that ran on another platform than the one they are about have shown nothing of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cluster::KubeContext;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kit::{Platform, Result, record::ClusterId};
use kube::{
    Api, Client, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        watcher::{self, watcher},
    },
};
use tokio::task::JoinHandle;

/// How many pods are told apart. No suite starts as many; a test that goes wild must not fill our memory.
const LIMIT: usize = 100_000;
/// How many are named.
const NAMED: usize = 5;
/// How long the API server may take to say what the nodes are that nobody knows.
const ASK: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    counted: HashSet<String>,
    /// Platforms of nodes, also of those that came while the tests ran.
    nodes: BTreeMap<String, String>,
    /// Pods on each node, and some of their names.
    on: BTreeMap<String, (usize, Vec<String>)>,
}

impl Seen {
    /// Takes a pod in; returns its node if nobody knows what that is.
    fn take(&mut self, pod: &Pod, before: &BTreeSet<String>) -> Option<String> {
        let namespace = pod.namespace().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let node = node.filter(|_| !before.contains(&namespace) && self.counted.len() < LIMIT)?;
        if !self.counted.insert(pod.uid().unwrap_or_default()) {
            return None;
        }
        let (number, names) = self.on.entry(node.to_owned()).or_default();
        *number += 1;
        if names.len() < NAMED {
            names.push(format!("{namespace}/{} on {node}", pod.name_any()));
        }
        (!self.nodes.contains_key(node)).then(|| node.to_owned())
    }

    /// The nodes with pods of tests that nobody knows.
    fn unknown(&self) -> Vec<String> {
        self.on.keys().filter(|node| !self.nodes.contains_key(*node)).cloned().collect()
    }

    fn platform(&self, node: &str) -> String {
        self.nodes.get(node).cloned().unwrap_or_else(|| format!("unknown ({node})"))
    }

    /// Pods by the platform of their node.
    #[must_use]
    pub fn platforms(&self) -> BTreeMap<String, usize> {
        let mut platforms = BTreeMap::new();
        for (node, (number, _)) in &self.on {
            *platforms.entry(self.platform(node)).or_default() += number;
        }
        platforms
    }

    /// What ran elsewhere than on `platform`, in words; nothing if all ran there.
    #[must_use]
    pub fn strays(&self, platform: &str) -> Option<String> {
        let words: Vec<_> = self
            .platforms()
            .into_iter()
            .filter(|(other, _)| other != platform)
            .map(|(other, number)| {
                let names = self.on.iter().filter(|(node, _)| self.platform(node) == other);
                let names: Vec<_> = names.flat_map(|(_, (_, names))| names.clone()).take(NAMED).collect();
                format!("{number} pods of tests ran on {other} ({})", names.join(", "))
            })
            .collect();
        (!words.is_empty()).then(|| format!("{}: that says nothing of {platform}", words.join("; ")))
    }
}

/// Watches the cluster's pods.
pub struct Pods {
    client: Client,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

impl Pods {
    /// Begins, on the present tokio runtime, before the first test. The namespace `known` is the tests' although it is
    /// there already.
    ///
    /// # Errors
    /// As `cluster::cause_of` says.
    pub async fn start(client: &Client, cluster: &ClusterId, known: Option<&str>) -> Result<Self> {
        let namespaces = Api::<Namespace>::all(client.clone()).list_metadata(&ListParams::default()).await;
        let namespaces = namespaces.kube(|| "cannot list the namespaces")?;
        let before: BTreeSet<_> =
            namespaces.iter().map(ResourceExt::name_any).filter(|name| Some(name.as_str()) != known).collect();
        let nodes = cluster.nodes.iter().map(|node| (node.name.clone(), node.platform.to_string())).collect();
        let seen = Arc::new(Mutex::new(Seen { nodes, ..Seen::default() }));
        let mut stream = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .boxed();
        let (taken, asked) = (Arc::clone(&seen), client.clone());
        let task = tokio::spawn(async move {
            while let Some(change) = stream.next().await {
                // After a fault of the connection it goes on by itself.
                let Ok(pod) = change else { continue };
                let unknown = taken.lock().unwrap_or_else(PoisonError::into_inner).take(&pod, &before);
                // A node that came while the tests ran may be gone when they end.
                if let Some(node) = unknown {
                    ask(&asked, &taken, &node).await;
                }
            }
        });
        Ok(Self { client: client.clone(), seen, task })
    }

    /// Ends; returns what was seen.
    pub async fn finish(self) -> Seen {
        self.task.abort();
        let look = || self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = look().unknown();
        let all = async {
            for node in &unknown {
                ask(&self.client, &self.seen, node).await;
            }
        };
        // Who gets no answer keeps what nobody knows.
        _ = tokio::time::timeout(ASK, all).await;
        look().clone()
    }
}

/// Asks what a node is.
async fn ask(client: &Client, seen: &Mutex<Seen>, name: &str) {
    let Ok(Some(node)) = Api::<Node>::all(client.clone()).get_opt(name).await else { return };
    if let Some(platform) = platform_of(&node) {
        seen.lock().unwrap_or_else(PoisonError::into_inner).nodes.insert(name.to_owned(), platform);
    }
}

fn platform_of(node: &Node) -> Option<String> {
    let info = node.status.as_ref()?.node_info.as_ref()?;
    Some(Platform::from_parts(&info.operating_system, &info.architecture, None, None).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_pods_of_tests_count_each_once_and_strays_are_named() {
        let before = BTreeSet::from(["kube-system".to_owned()]);
        let nodes = [("z", "linux/s390x"), ("a", "linux/amd64")].map(|(name, os)| (name.to_owned(), os.to_owned()));
        let mut seen = Seen { nodes: nodes.into(), ..Seen::default() };
        let mut take = |namespace: &str, name: &str, node: Option<&str>| {
            let pod = json!({
                "metadata": {"namespace": namespace, "name": name, "uid": name},
                "spec": {"nodeName": node, "containers": []}
            });
            let unknown = seen.take(&serde_json::from_value(pod).unwrap(), &before);
            assert_eq!(unknown.is_some(), node == Some("new"));
            seen.clone()
        };
        take("kube-system", "dns", Some("a"));
        take("test-1", "waiting", None);
        take("test-1", "one", Some("z"));
        assert_eq!(take("test-1", "one", Some("z")).strays("linux/s390x"), None);
        let seen = take("test-1", "two", Some("a"));
        assert_eq!(seen.platforms(), BTreeMap::from([("linux/amd64".into(), 1), ("linux/s390x".into(), 1)]));
        let said = seen.strays("linux/s390x").unwrap();
        assert_eq!(said, "1 pods of tests ran on linux/amd64 (test-1/two on a): that says nothing of linux/s390x");
        let mut seen = take("test-2", "three", Some("new"));
        assert!(seen.strays("linux/s390x").unwrap().contains("unknown (new)"));
        assert_eq!(seen.unknown(), ["new"]);
        seen.nodes.insert("new".into(), "linux/s390x".into());
        assert!(!seen.strays("linux/s390x").unwrap().contains("new"), "it came while the tests ran");
        assert_eq!(seen.platforms()["linux/s390x"], 2);
    }
}
