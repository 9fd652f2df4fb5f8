//! Which cluster it is: what every record says of it.

use k8s_openapi::api::core::v1::{Namespace, Node as KubeNode};
use kit::{
    Platform, Result,
    record::{ClusterId, Nature, Node},
};
use kube::{Api, ResourceExt, api::ListParams};

use crate::{KubeContext, Lab, Opened};

/// A lab's own label on the nodes that it emulates. Of a cluster that nobody probed it is all there is; a
/// label that says anything else is nobody's evidence.
const LABEL: (&str, &str) = ("other-arch.dev/nature", "emulated");

/// UID of `kube-system`, version and nodes. Natures come from the lab that made its nodes; of any
/// other cluster they are unknown until somebody probes (see [`crate::nature`]).
///
/// # Errors
/// As [`crate::cause_of`] says.
pub async fn identity(opened: &Opened) -> Result<ClusterId> {
    let client = &opened.client;
    let namespaces = Api::<Namespace>::all(client.clone());
    let all = Api::<KubeNode>::all(client.clone());
    let list = ListParams::default();
    let (system, nodes, version) =
        tokio::join!(namespaces.get("kube-system"), all.list(&list), client.apiserver_version());
    let system = system.kube(|| "cannot read the namespace kube-system")?;
    let nodes = nodes.kube(|| "cannot list the nodes")?;
    Ok(ClusterId {
        uid: system.uid().unwrap_or_default(),
        name: opened.name.clone(),
        kubernetes: version.kube(|| "cannot read the version of the cluster")?.git_version,
        nodes: nodes.iter().map(|node| node_of(node, opened.lab.as_ref())).collect(),
    })
}

fn node_of(node: &KubeNode, lab: Option<&Lab>) -> Node {
    let name = node.name_any();
    let info = node.status.as_ref().and_then(|status| status.node_info.as_ref());
    let text = |get: fn(&k8s_openapi::api::core::v1::NodeSystemInfo) -> &String| {
        info.map(|info| get(info).clone()).unwrap_or_default()
    };
    let known = lab.and_then(|lab| lab.nodes.iter().find(|node| node.name == name)).map(|node| node.nature);
    let labelled = node.labels().get(LABEL.0).is_some_and(|value| value == LABEL.1);
    let (nature, evidence) = match (known, labelled) {
        (_, true) => (Nature::Emulated, Some(format!("label: {}={}", LABEL.0, LABEL.1))),
        (Some(nature), false) if nature != Nature::Unknown => (nature, Some("lab: it made the node".to_owned())),
        _ => (Nature::Unknown, None),
    };
    Node {
        platform: Platform::from_parts(
            &text(|info| &info.operating_system),
            &text(|info| &info.architecture),
            None,
            None,
        ),
        nature,
        evidence,
        machine: None,
        kubelet: text(|info| &info.kubelet_version),
        kernel: text(|info| &info.kernel_version),
        ready: takes_pods(node),
        name,
    }
}

/// Ready, not cordoned, and without a taint that keeps ordinary pods away.
fn takes_pods(node: &KubeNode) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    let ready = conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let spec = node.spec.as_ref();
    let cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let tainted = spec
        .and_then(|spec| spec.taints.as_ref())
        .is_some_and(|taints| taints.iter().any(|taint| taint.effect != "PreferNoSchedule"));
    ready && !cordoned && !tainted
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(spec: serde_json::Value, ready: &str) -> KubeNode {
        serde_json::from_value(json!({
            "metadata": {"name": "n1"},
            "spec": spec,
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "nodeInfo": {
                    "architecture": "s390x", "operatingSystem": "linux", "kubeletVersion": "v1.37.2",
                    "kernelVersion": "6.1", "bootID": "", "containerRuntimeVersion": "",
                    "kubeProxyVersion": "", "machineID": "", "osImage": "", "systemUUID": ""
                }
            }
        }))
        .unwrap()
    }

    #[test]
    fn a_node_is_what_its_kubelet_reports() {
        let found = node_of(&node(json!({}), "True"), None);
        assert_eq!(found.platform.to_string(), "linux/s390x");
        assert_eq!((found.nature, found.evidence), (Nature::Unknown, None));
        assert!(found.ready);
    }

    #[test]
    fn a_label_only_says_that_a_node_is_emulated() {
        for (value, nature) in [("emulated", Nature::Emulated), ("native", Nature::Unknown)] {
            let mut labelled = node(json!({}), "True");
            labelled.labels_mut().insert("other-arch.dev/nature".into(), value.into());
            assert_eq!(node_of(&labelled, None).nature, nature);
        }
    }

    #[test]
    fn a_node_may_take_no_pods() {
        assert!(!takes_pods(&node(json!({}), "Unknown")));
        assert!(!takes_pods(&node(json!({"unschedulable": true}), "True")));
        assert!(!takes_pods(&node(json!({"taints": [{"key": "k", "effect": "NoSchedule"}]}), "True")));
        assert!(takes_pods(&node(json!({"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}), "True")));
    }
}
