//! What is wrong with a cluster, asked when so many tests failed that it is hardly each of them: the API server's own
//! checks, its nodes, and the pods of the component and of the system.

use std::time::Duration;

use cluster::explain;
use k8s_openapi::api::core::v1::{Event, Node, Pod};
use kit::{Platform, Ui, record::Status};
use kube::{
    Api, Client, ResourceExt,
    api::{GetParams, ListParams},
    core::Request,
};
use tokio::runtime::Runtime;

use crate::{parse::event::top, place::Place, report::Row};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(20);
/// How many pods and events are looked at in a namespace.
const MOST: u32 = 500;
/// How many lines are said of one matter.
const LINES: usize = 10;

/// Looks what is wrong with the cluster, when more is than a test or two, and tells people.
pub fn ask(rows: &[Row], place: &Place, namespace: Option<&str>, runtime: &Runtime, ui: &Ui) -> Vec<String> {
    let failed = rows.iter().filter(|row| row.test.status == Status::Failed && top(&row.test.name) == row.test.name);
    ui.warn(format!("{} tests did not pass, more than a fifth: nothing is tried again", failed.count()));
    let look = look(&place.opened.client, namespace, &place.platform);
    let found = runtime.block_on(cluster::interruptible(async { Ok(look.await) })).unwrap_or_default();
    for line in &found {
        ui.warn(format!("the cluster: {line}"));
    }
    found
}

/// What is found, in words; says so as well if there is nothing.
pub async fn look(client: &Client, namespace: Option<&str>, platform: &Platform) -> Vec<String> {
    let mut found = Vec::new();
    let all = async {
        ready(client, &mut found).await;
        nodes(client, platform, &mut found).await;
        for namespace in namespace.into_iter().chain(["kube-system"]) {
            pods(client, namespace, platform, &mut found).await;
        }
    };
    let late = tokio::time::timeout(LIMIT, all).await.is_err();
    if late {
        found.push(format!("it does not say more within {} s", LIMIT.as_secs()));
    }
    if found.is_empty() {
        found.push(
            "API server, nodes and the component's pods are well: the failures have something else in common".into(),
        );
    }
    found
}

/// The API server's own checks (`/readyz`): those that are not good.
async fn ready(client: &Client, found: &mut Vec<String>) {
    let Ok(request) = Request::new("").get("readyz", &GetParams::default()) else { return };
    match client.request_text(request).await {
        // Who may not ask that knows nothing of it.
        Ok(_) => {}
        Err(kube::Error::Api(status)) if matches!(status.code, 401 | 403 | 404) => {}
        Err(error) => {
            let said = cluster::describe(&error);
            let bad: Vec<_> = said.lines().filter(|line| line.starts_with("[-]")).take(LINES).collect();
            let bad = if bad.is_empty() { first_line(&said) } else { bad.join(", ") };
            found.push(format!("the API server is not ready: {bad}"));
        }
    }
}

async fn nodes(client: &Client, platform: &Platform, found: &mut Vec<String>) {
    let nodes = match Api::<Node>::all(client.clone()).list(&ListParams::default()).await {
        Ok(nodes) => nodes,
        Err(error) => return found.push(format!("its nodes cannot be listed: {}", cluster::describe(&error))),
    };
    found.extend(nodes.iter().filter_map(|node| of_node(node, platform)));
}

/// What is wrong with a node of the platform.
fn of_node(node: &Node, platform: &Platform) -> Option<String> {
    let status = node.status.as_ref()?;
    let info = status.node_info.as_ref()?;
    if (info.operating_system.as_str(), info.architecture.as_str()) != (&platform.os, &platform.arch) {
        return None;
    }
    let bad = |kind: &str, state: &str| if kind == "Ready" { state != "True" } else { state == "True" };
    let conditions = status.conditions.iter().flatten().filter(|condition| bad(&condition.type_, &condition.status));
    let mut words: Vec<_> = conditions
        .map(|condition| {
            let message = first_line(condition.message.as_deref().unwrap_or_default());
            format!("{} is {}: {message}", condition.type_, condition.status)
        })
        .collect();
    let spec = node.spec.as_ref();
    let taints = spec.and_then(|spec| spec.taints.as_ref()).into_iter().flatten();
    words.extend(taints.filter(|taint| taint.effect != "PreferNoSchedule").map(|taint| format!("taint {}", taint.key)));
    (!words.is_empty()).then(|| format!("node {}: {}", node.name_any(), words.join("; ")))
}

async fn pods(client: &Client, namespace: &str, platform: &Platform, found: &mut Vec<String>) {
    let params = ListParams::default().limit(MOST);
    let pods = match Api::<Pod>::namespaced(client.clone(), namespace).list(&params).await {
        Ok(pods) => pods.items,
        Err(error) => {
            return found.push(format!("the pods of {namespace} cannot be listed: {}", cluster::describe(&error)));
        }
    };
    let events = Api::<Event>::namespaced(client.clone(), namespace).list(&params).await;
    let events = events.map(|events| events.items).unwrap_or_default();
    let mut lines = Vec::new();
    for pod in &pods {
        let context = explain::Context { events: &events, logs: &[], platform: Some(platform), nodes: &[] };
        lines.extend(
            explain::pod(pod, context).map(|trouble| format!("{namespace}/{} [{}]", trouble.line, trouble.cause)),
        );
        lines.extend(restarts(pod).map(|often| format!("{namespace}/{}: {often}", pod.name_any())));
    }
    let more = lines.len().saturating_sub(LINES);
    found.extend(lines.into_iter().take(LINES));
    if more > 0 {
        found.push(format!("{namespace}: {more} pods more"));
    }
}

/// A pod that runs, and did not always.
fn restarts(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_ref()?;
    let status = statuses.iter().find(|status| status.restart_count > 0 && status.ready)?;
    let last = status.last_state.as_ref()?.terminated.as_ref()?;
    let reason = last.reason.as_deref().unwrap_or("it ended");
    Some(format!(
        "container {} was started again {} times, last: {reason}, exit code {}",
        status.name, status.restart_count, last.exit_code
    ))
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn node(status: &str, pressure: &str, taint: &str) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n"},
            "spec": {"taints": [{"key": taint, "effect": "NoSchedule"}]},
            "status": {
                "conditions": [
                    {"type": "Ready", "status": status, "message": "Kubelet stopped posting node status.\nmore"},
                    {"type": "DiskPressure", "status": pressure, "message": "little is left"}],
                "nodeInfo": {"bootID": "", "architecture": "s390x", "containerRuntimeVersion": "", "kernelVersion": "",
                    "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "linux",
                    "osImage": "", "systemUUID": ""},
            },
        }))
        .unwrap()
    }

    #[test]
    fn a_node_that_is_ill_says_why() {
        let s390x = "linux/s390x".parse().unwrap();
        assert_eq!(
            of_node(&node("Unknown", "True", "x"), &s390x).unwrap(),
            "node n: Ready is Unknown: Kubelet stopped posting node status.; DiskPressure is True: little is left; taint x"
        );
        let mut well = node("True", "False", "x");
        well.spec = None;
        assert_eq!(of_node(&well, &s390x), None);
        assert_eq!(of_node(&node("False", "True", "x"), &"linux/amd64".parse().unwrap()), None, "of another platform");
    }

    #[test]
    fn a_pod_that_came_back_is_said() {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 2,
                "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}}]},
        }));
        assert_eq!(
            restarts(&pod.unwrap()).unwrap(),
            "container c was started again 2 times, last: OOMKilled, exit code 137"
        );
    }
}
