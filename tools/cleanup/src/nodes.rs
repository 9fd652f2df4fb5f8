//! What nodes hold beside the objects of the API: images, volumes, and pods that only the kubelet still knows.
//! What a kubelet does not say (folders of hostPath volumes, files of pods) is not known here.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::{Node, Pod};
use kit::{Result, Ui, record::NodeContent, ui::printable};
use kube::{
    Api, Client, ResourceExt,
    api::{GetParams, ListParams},
    core::Request,
};
use serde_json::Value;

use crate::api::{CONCURRENT, again, patiently};

/// A kubelet with more pods than this tells us about these.
const PODS: usize = 2000;

/// Looks at every node.
///
/// # Errors
/// As [`cluster::cause_of`] says. A kubelet that may not be asked, or that does not answer, is no error.
pub(crate) async fn look(client: &Client) -> Result<Vec<NodeContent>> {
    let list = ListParams::default();
    let (nodes, pods) = (Api::<Node>::all(client.clone()), Api::<Pod>::all(client.clone()));
    let (nodes, pods) = tokio::try_join!(
        patiently(|| "cannot list the nodes".into(), || nodes.list(&list)),
        patiently(|| "cannot list the pods".into(), || pods.list_metadata(&list)),
    )?;
    let known: BTreeSet<String> = pods.iter().filter_map(|pod| pod.uid()).collect();
    let known = &known;
    let looked = stream::iter(nodes).map(|node| async move {
        let name = node.name_any();
        let status = node.status.clone().unwrap_or_default();
        let images = status.images.unwrap_or_default().into_iter();
        let mut content = NodeContent {
            images: images.filter_map(|image| image.names.and_then(|names| names.into_iter().min())).collect(),
            volumes: status.volumes_in_use.unwrap_or_default(),
            node: name.clone(),
            ..NodeContent::default()
        };
        content.images.sort();
        match kubelet(client, &name).await {
            Ok(pods) => content.orphans = orphans(&pods, known),
            Err(error) => content.unasked = Some(cluster::describe(&error)),
        }
        Ok(content)
    });
    looked.buffered(CONCURRENT).try_collect().await
}

async fn kubelet(client: &Client, node: &str) -> Result<Value, kube::Error> {
    let request = || Request::new(format!("/api/v1/nodes/{node}/proxy")).get("pods", &GetParams::default());
    let text = again(|| async { client.request_text(request().map_err(kube::Error::BuildRequest)?).await }).await?;
    serde_json::from_str(&text).map_err(kube::Error::SerdeError)
}

/// Pods of a kubelet that the API server does not know. Static pods are known by their mirrors, which have the
/// kubelet's UID in an annotation; they are no leftovers.
fn orphans(pods: &Value, known: &BTreeSet<String>) -> Vec<String> {
    let text = |pod: &Value, name: &str| pod["metadata"][name].as_str().unwrap_or_default().to_owned();
    let alone = |pod: &&Value| {
        let stands = pod["metadata"]["annotations"]["kubernetes.io/config.source"].as_str().unwrap_or("api");
        stands == "api" && !known.contains(&text(pod, "uid"))
    };
    let pods = pods["items"].as_array().into_iter().flatten().take(PODS);
    pods.filter(alone).map(|pod| format!("{}/{}", text(pod, "namespace"), text(pod, "name"))).collect()
}

/// What nodes hold now and did not hold before; only those that hold something more.
#[must_use]
pub(crate) fn beyond(before: &[NodeContent], now: Vec<NodeContent>) -> Vec<NodeContent> {
    let before: BTreeMap<&str, &NodeContent> = before.iter().map(|node| (node.node.as_str(), node)).collect();
    let empty = NodeContent::default();
    let more = |mut node: NodeContent| {
        let then = before.get(node.node.as_str()).copied().unwrap_or(&empty);
        node.images.retain(|image| !then.images.contains(image));
        node.volumes.retain(|volume| !then.volumes.contains(volume));
        node.orphans.retain(|orphan| !then.orphans.contains(orphan));
        node
    };
    let holds = |node: &NodeContent| !(node.images.is_empty() && node.volumes.is_empty() && node.orphans.is_empty());
    now.into_iter().map(more).filter(holds).collect()
}

/// Says which kubelets were not asked.
pub(crate) fn report_unasked(nodes: &[NodeContent], ui: &Ui) {
    for node in nodes {
        if let Some(why) = &node.unasked {
            ui.warn(printable(&format!("node {}: its kubelet was not asked: {why}", node.node)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_that_only_the_kubelet_knows_are_leftovers() {
        let pod = |uid: &str, source: &str| {
            json!({"metadata": {"uid": uid, "namespace": "n", "name": format!("p-{uid}"),
                "annotations": {"kubernetes.io/config.source": source}}})
        };
        let pods = json!({"items": [pod("1", "api"), pod("2", "api"), pod("3", "file")]});
        assert_eq!(orphans(&pods, &["1".to_owned()].into()), ["n/p-2"]);
        assert!(orphans(&json!("damaged"), &BTreeSet::new()).is_empty());
    }

    #[test]
    fn only_what_is_new_is_reported() {
        let node = |name: &str, images: &[&str]| NodeContent {
            node: name.into(),
            images: images.iter().map(|image| (*image).to_owned()).collect(),
            ..NodeContent::default()
        };
        let before = [node("a", &["x"]), node("b", &["x", "y"])];
        let now = vec![node("a", &["x", "z"]), node("b", &["x"]), node("c", &[])];
        assert_eq!(beyond(&before, now), [node("a", &["z"])]);
    }
}
