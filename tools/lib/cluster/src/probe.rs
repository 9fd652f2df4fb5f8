//! Running the probe as a pod on one node, and reading its answer.

use std::time::Duration;

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Event, Pod};
use kit::{Cause, Error, Result, Within, record::Node, retry, ui::duration};
use kube::{
    Client, ResourceExt,
    api::{ApiResource, GroupVersionKind, LogParams},
};
use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    Kind, KubeContext, NAMESPACE,
    explain::{self, Trouble},
    fail, namespace,
    nature::{ANSWER_LIMIT, Facts},
    ours::{self, at_once, pods},
    watch::{Target, View, watch},
};

/// The label of all its pods.
const LABEL: &str = "other-arch/probe";
/// The container's name.
const CONTAINER: &str = "probe";
/// Where the node keeps its device tree, and where the probe looks for it (`tools/image-build/probe/facts.go`): at its
/// own place a container sees an empty folder whatever is mounted there, for runtimes mask it (`defaultMaskedPaths` in
/// containerd's `oci/spec.go`).
const FIRMWARE: (&str, &str) = ("/sys/firmware", "/host-firmware");
/// How long a log that does not come is asked for again.
const LOG: Duration = Duration::from_secs(10);

/// Runs `image` on `node`, with these arguments, and reads what it found. It must come to its end within `limit`.
///
/// # Errors
/// The cause of what keeps the pod from running ([`crate::explain`]), naming the node; [`Cause::Usage`] for
/// an image that is not the probe.
pub async fn run(client: &Client, image: &str, arguments: &[String], node: &Node, limit: Duration) -> Result<Facts> {
    let what = || format!("cannot probe node {}", node.name);
    namespace::ensure(client).await.within(what)?;
    let deadline = Instant::now() + limit;
    let pod = create(client, image, arguments, node, deadline).await.within(what)?;
    let waited = ended(client, &pod, node, deadline, limit).await.within(what);
    let answer = match waited {
        Ok(()) => log(client, &pod).await.within(what),
        Err(error) => Err(error),
    };
    // What stays goes with the next probe or with the namespace.
    let gone = pods(client).delete(&pod.name_any(), &at_once()).await.map(drop);
    let facts = Facts::parse(&answer?).within(what)?;
    match gone {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => other.kube(what)?,
    }
    if facts.goarch != node.platform.arch {
        let found =
            format!("{}: the probe there is a program for {}, and the node is {}", what(), facts.goarch, node.platform);
        return Err(Error::new(Cause::ImageWrongArch, found));
    }
    Ok(facts)
}

/// Removes the pods of probes that were killed before they could do that themselves.
///
/// # Errors
/// As [`crate::cause_of`] says.
pub async fn forget(client: &Client) -> Result<()> {
    ours::forget(client, LABEL).await
}

/// Creates the pod. Where a policy forbids it to look at the firmware, it goes without.
async fn create(client: &Client, image: &str, arguments: &[String], node: &Node, deadline: Instant) -> Result<Pod> {
    if let Ok(pod) = ours::create(client, &manifest(image, arguments, &node.name, true), deadline).await? {
        return Ok(pod);
    }
    let plain = manifest(image, arguments, &node.name, false);
    ours::create(client, &plain, deadline).await?.kube(|| "cannot create its pod")
}

/// The pod: bound to the node without the scheduler, with no rights at all.
fn manifest(image: &str, arguments: &[String], node: &str, firmware: bool) -> serde_json::Value {
    let (volumes, mounts) = if firmware {
        // Every Linux has this folder.
        (
            json!([{"name": "firmware", "hostPath": {"path": FIRMWARE.0, "type": "Directory"}}]),
            json!([{"name": "firmware", "mountPath": FIRMWARE.1, "readOnly": true}]),
        )
    } else {
        (json!([]), json!([]))
    };
    json!({
        "metadata": {"generateName": "probe-", "labels": {LABEL: "true"}},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": volumes,
            "containers": [{
                "name": CONTAINER,
                "image": image,
                "args": arguments,
                "volumeMounts": mounts,
                "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]},
                },
            }],
        },
    })
}

/// Waits by watch until the pod has done its work.
async fn ended(client: &Client, pod: &Pod, node: &Node, deadline: Instant, limit: Duration) -> Result<()> {
    let name = pod.name_any();
    let target = |kind: &str, fields: String| {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
        Target { kind: Kind { resource, namespaced: true }, namespace: NAMESPACE.into(), fields }
    };
    let targets =
        [target("Pod", format!("metadata.name={name}")), target("Event", format!("involvedObject.name={name}"))];
    let (mut view, mut changes) = watch(client, &targets);
    let mut last = Trouble::new(Cause::Apiserver, "the API server says nothing of its pod");
    loop {
        tokio::select! {
            Some(change) = changes.next() => {
                view.take(change);
                while let Some(Some(change)) = changes.next().now_or_never() {
                    view.take(change);
                }
            }
            () = sleep_until(deadline) => {
                let what = format!("its pod has not ended after {}", duration(limit));
                let fault = view.fault.map(|fault| Trouble::new(Cause::ClusterUnreachable, fault));
                return Err(error(&fault.unwrap_or(last), what));
            }
        }
        if !view.complete() {
            continue;
        }
        let state = match state(&view, &name, node) {
            State::Unclear(container) => {
                let line = explain::last_line(client, pod, &container, false).await;
                failed(&view, &name, node, &[(container, line.unwrap_or_default())])
            }
            state => state,
        };
        match state {
            State::Done => return Ok(()),
            State::Waits(trouble) => last = trouble,
            State::Failed(trouble) => return Err(error(&trouble, "its pod failed".into())),
            State::Unclear(_) => {}
        }
    }
}

fn error(trouble: &Trouble, what: String) -> Error {
    Error::new(trouble.cause, what).line(trouble.line.clone())
}

#[derive(Debug, PartialEq)]
enum State {
    Done,
    /// It may still come to its end.
    Waits(Trouble),
    /// It does not.
    Failed(Trouble),
    /// It failed, and its log may say why.
    Unclear(String),
}

fn state(view: &View, name: &str, node: &Node) -> State {
    let Some(pod) = find(view, name) else {
        return State::Failed(Trouble::new(Cause::Node, format!("pod {name} was deleted before it ended")));
    };
    match pod.status.as_ref().and_then(|status| status.phase.as_deref()) {
        Some("Succeeded") => State::Done,
        Some("Failed") => match explain::silent_containers(&pod).into_iter().next() {
            Some((container, _)) => State::Unclear(container),
            None => failed(view, name, node, &[]),
        },
        _ => match trouble(view, &pod, node, &[]) {
            trouble if trouble.heals => State::Waits(trouble),
            trouble => State::Failed(trouble),
        },
    }
}

/// Why a pod failed: if no container says anything, the node did not take it.
fn failed(view: &View, name: &str, node: &Node, logs: &[(String, String)]) -> State {
    let Some(pod) = find(view, name) else {
        return State::Failed(Trouble::new(Cause::Node, format!("pod {name} is gone")));
    };
    let status = pod.status.clone().unwrap_or_default();
    let of_containers = status.container_statuses.iter().flatten().any(|status| status.state.is_some());
    if !of_containers && let Some(reason) = status.reason {
        let line = format!("{reason}: {}", status.message.unwrap_or_default());
        return State::Failed(Trouble::new(Cause::Node, line));
    }
    State::Failed(trouble(view, &pod, node, logs))
}

fn trouble(view: &View, pod: &Pod, node: &Node, logs: &[(String, String)]) -> Trouble {
    let events: Vec<Event> = view.all("Event");
    let context =
        explain::Context { events: &events, logs, platform: Some(&node.platform), ..explain::Context::default() };
    explain::pod(pod, context).unwrap_or_else(|| Trouble::new(Cause::Node, "it runs"))
}

fn find(view: &View, name: &str) -> Option<Pod> {
    view.all::<Pod>("Pod").into_iter().find(|pod| pod.name_any() == name)
}

/// The last line that it wrote; the kubelet may need a moment for it.
async fn log(client: &Client, pod: &Pod) -> Result<String> {
    let limit = i64::try_from(ANSWER_LIMIT).unwrap_or(i64::MAX);
    let params = LogParams { container: Some(CONTAINER.into()), limit_bytes: Some(limit), ..LogParams::default() };
    let (until, mut delays) = (Instant::now() + LOG, retry::delays());
    loop {
        let read = pods(client).logs(&pod.name_any(), &params).await;
        let delay = delays.next().unwrap_or_default();
        match read {
            Ok(text) if !text.trim().is_empty() => return Ok(text),
            Ok(_) if Instant::now() + delay > until => return Err(Error::new(Cause::Node, "its log is empty")),
            Err(error) if Instant::now() + delay > until => return Err(fail("cannot read its log", &error)),
            _ => sleep(delay).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_device_tree_is_not_mounted_where_runtimes_mask_it() {
        let container = &manifest("image", &[], "node", true)["spec"]["containers"][0];
        let path = container["volumeMounts"][0]["mountPath"].as_str().unwrap();
        assert!(["/proc", "/sys"].iter().all(|masked| !path.starts_with(masked)), "{path}");
        let source = include_str!("../../../image-build/probe/facts.go");
        assert!(source.contains(&format!("\"{path}\"")), "the probe does not look into {path}");
    }
}
