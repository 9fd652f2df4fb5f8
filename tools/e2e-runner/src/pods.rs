//! Where the tests' pods really ran: those in namespaces that came while the tests did, by the platform of their
//! node. Tests that ran on another platform than the one they are about have shown nothing of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use cluster::KubeContext;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kit::{
    Result,
    record::{ClusterId, Node},
};
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

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    counted: HashSet<String>,
    /// Pods by the platform of their node.
    pub platforms: BTreeMap<String, usize>,
    /// Some of those on each platform.
    names: BTreeMap<String, Vec<String>>,
}

impl Seen {
    fn take(&mut self, pod: &Pod, before: &BTreeSet<String>, nodes: &[Node]) {
        let namespace = pod.namespace().unwrap_or_default();
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
        let Some(node) = node.filter(|_| !before.contains(&namespace) && self.counted.len() < LIMIT) else { return };
        if !self.counted.insert(pod.uid().unwrap_or_default()) {
            return;
        }
        let known = nodes.iter().find(|known| known.name == node);
        let platform = known.map_or_else(|| format!("unknown ({node})"), |known| known.platform.to_string());
        let names = self.names.entry(platform.clone()).or_default();
        if names.len() < NAMED {
            names.push(format!("{namespace}/{} on {node}", pod.name_any()));
        }
        *self.platforms.entry(platform).or_default() += 1;
    }

    /// What ran elsewhere than on `platform`, in words; nothing if all ran there.
    #[must_use]
    pub fn strays(&self, platform: &str) -> Option<String> {
        let others = self.platforms.iter().filter(|(other, _)| *other != platform);
        let words: Vec<_> = others
            .map(|(other, number)| {
                let names = self.names.get(other).map(|names| names.join(", ")).unwrap_or_default();
                format!("{number} pods of tests ran on {other} ({names})")
            })
            .collect();
        (!words.is_empty()).then(|| format!("{}: that says nothing of {platform}", words.join("; ")))
    }
}

/// Watches the cluster's pods.
pub struct Pods {
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
        let (seen, nodes) = (Arc::new(Mutex::new(Seen::default())), cluster.nodes.clone());
        let mut stream = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default())
            .default_backoff()
            .applied_objects()
            .boxed();
        let taken = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Some(change) = stream.next().await {
                // After a fault of the connection it goes on by itself.
                if let Ok(pod) = change {
                    taken.lock().unwrap_or_else(PoisonError::into_inner).take(&pod, &before, &nodes);
                }
            }
        });
        Ok(Self { seen, task })
    }

    /// Ends; returns what was seen.
    #[must_use]
    pub fn finish(self) -> Seen {
        self.task.abort();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_pods_of_tests_count_each_once_and_strays_are_named() {
        let node = |name: &str, platform: &str| -> Node {
            serde_json::from_value(json!({
                "name": name, "platform": platform, "nature": "native", "kubelet": "", "kernel": "", "ready": true
            }))
            .unwrap()
        };
        let nodes = [node("z", "linux/s390x"), node("a", "linux/amd64")];
        let before = BTreeSet::from(["kube-system".to_owned()]);
        let mut seen = Seen::default();
        let mut take = |namespace: &str, name: &str, node: Option<&str>| {
            let pod = json!({
                "metadata": {"namespace": namespace, "name": name, "uid": name},
                "spec": {"nodeName": node, "containers": []}
            });
            seen.take(&serde_json::from_value(pod).unwrap(), &before, &nodes);
            seen.clone()
        };
        take("kube-system", "dns", Some("a"));
        take("test-1", "waiting", None);
        take("test-1", "one", Some("z"));
        assert_eq!(take("test-1", "one", Some("z")).strays("linux/s390x"), None);
        let seen = take("test-1", "two", Some("a"));
        assert_eq!(seen.platforms, BTreeMap::from([("linux/amd64".into(), 1), ("linux/s390x".into(), 1)]));
        let said = seen.strays("linux/s390x").unwrap();
        assert_eq!(said, "1 pods of tests ran on linux/amd64 (test-1/two on a): that says nothing of linux/s390x");
        assert!(take("test-2", "three", Some("new")).strays("linux/s390x").unwrap().contains("unknown (new)"));
    }
}
