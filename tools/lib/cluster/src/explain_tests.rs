//! What kubelets and schedulers really say, and what it is taken for.

use serde_json::{Value, json};

use super::{Context, Trouble};
use kit::{Cause, Platform};

fn explain(status: Value, logs: &[(String, String)], events: &[Value]) -> Option<Trouble> {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "webhook-7d-x", "namespace": "t", "uid": "u1"},
        "spec": {"nodeName": "n3", "containers": [{"name": "webhook", "image": "r/w@sha256:1"}]},
        "status": status
    }))
    .unwrap();
    let events: Vec<_> = events.iter().map(|event| serde_json::from_value(event.clone()).unwrap()).collect();
    let platform: Platform = "linux/s390x".parse().unwrap();
    super::pod(&pod, Context { events: &events, logs, platform: Some(&platform), ..Context::default() })
}

/// A pod with one container in that state.
fn container(state: Value, last: Value) -> Value {
    json!({"phase": "Pending", "containerStatuses": [{
        "name": "webhook", "image": "sha256:9", "imageID": "", "ready": false, "started": false,
        "restartCount": 1, "state": state, "lastState": last}]})
}

fn waiting(reason: &str, message: &str) -> Value {
    container(json!({"waiting": {"reason": reason, "message": message}}), json!({}))
}

#[track_caller]
fn says(trouble: Option<Trouble>, cause: Cause, heals: bool, words: &str) {
    let trouble = trouble.expect("nothing was found");
    assert!(trouble.line.contains(words), "{}", trouble.line);
    assert_eq!((trouble.cause, trouble.heals), (cause, heals), "{}", trouble.line);
}

#[test]
fn ready_or_done_is_no_trouble() {
    assert_eq!(
        explain(json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}), &[], &[]),
        None
    );
    assert_eq!(explain(json!({"phase": "Succeeded"}), &[], &[]), None);
}

#[test]
fn images_that_cannot_be_pulled() {
    let of = |message: &str| explain(waiting("ImagePullBackOff", message), &[], &[]);
    let back = "Back-off pulling image \"r/w@sha256:1\": ErrImagePull: ";
    says(
        of(&format!(
            "{back}rpc error: code = NotFound desc = failed to pull and unpack image \"r/w@sha256:1\": no match for platform in manifest: not found"
        )),
        Cause::ImageMissingPlatform,
        false,
        "webhook-7d-x on node n3: container webhook: image r/w@sha256:1 has no platform of this node",
    );
    let refused = "image pull: 401 from registry, which refuses r/w@sha256:1: failed to authorize";
    says(of(&format!("{back}failed to authorize: 401 Unauthorized")), Cause::Auth, false, refused);
    let asked = "pull access denied, repository does not exist or may require authorization: authorization failed: no basic auth credentials";
    says(of(&format!("{back}{asked}")), Cause::Auth, false, "image pull: 401 from registry");
    says(of(&format!("{back}pull access denied")), Cause::Auth, false, "image pull: 403 from registry");
    says(of(&format!("{back}write /var/lib/x: no space left on device")), Cause::HostDisk, true, "disk is full");
    says(of(&format!("{back}dial tcp: lookup reg: no such host")), Cause::Dns, true, "no such host");
    says(of(&format!("{back}r/w@sha256:1401: not found")), Cause::ImagePull, false, "r/w@sha256:1401: not found");
    says(of(&format!("{back}dial tcp 10.0.0.1:5000: connect: connection refused")), Cause::ImagePull, true, "refused");
    says(explain(waiting("InvalidImageName", ""), &[], &[]), Cause::Product, false, "cannot be the name");
    let root = waiting("CreateContainerConfigError", "container has runAsNonRoot and image will run as root");
    says(explain(root, &[], &[]), Cause::Product, false, "must not run as root, and does");
}

#[test]
fn programs_of_another_architecture() {
    let message = "failed to create containerd task: failed to create shim task: OCI runtime create failed: exec /ko-app/webhook: exec format error";
    says(
        explain(waiting("RunContainerError", message), &[], &[]),
        Cause::ImageWrongArch,
        false,
        "image r/w@sha256:1 has no program for a linux/s390x node",
    );
    let ended = json!({"terminated": {"exitCode": 255, "reason": "Error"}});
    let crash = container(json!({"waiting": {"reason": "CrashLoopBackOff"}}), ended);
    let logs = [("webhook".to_owned(), "exec /ko-app/webhook: exec format error".to_owned())];
    says(explain(crash.clone(), &logs, &[]), Cause::ImageWrongArch, false, "exec format error");
    // A shell that starts it says what the C library says.
    for line in [
        "/start.sh: line 3: /app/web: Exec format error",
        "sh: /app/web: cannot execute binary file: Exec format error",
    ] {
        let logs = [("webhook".to_owned(), line.to_owned())];
        says(explain(crash.clone(), &logs, &[]), Cause::ImageWrongArch, false, line);
    }
    // With restartPolicy Never there is no second try.
    let message = "failed to start containerd task \"x\": exec /ko-app/x: exec format error: unknown";
    let terminated = json!({"terminated": {"exitCode": 128, "reason": "StartError", "message": message}});
    let mut never = container(terminated, json!({}));
    never["phase"] = json!("Failed");
    says(explain(never, &[], &[]), Cause::ImageWrongArch, false, "linux/s390x node");
}

#[test]
fn crashes_say_their_last_line() {
    let ended = json!({"terminated": {"exitCode": 2, "reason": "Error"}});
    let crash = container(json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}}), ended);
    let logs = [("webhook".to_owned(), "panic: no config".to_owned())];
    says(
        explain(crash, &logs, &[]),
        Cause::Product,
        true,
        "CrashLoopBackOff: exit code 2; last log line: panic: no config",
    );
    let oom = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}});
    let crash = container(json!({"waiting": {"reason": "CrashLoopBackOff"}}), oom);
    says(explain(crash, &[], &[]), Cause::Product, true, "memory limit");
}

#[test]
fn pods_that_find_no_node() {
    let of = |message: &str| {
        let condition =
            json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
        explain(json!({"phase": "Pending", "conditions": [condition]}), &[], &[])
    };
    says(
        of("0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."),
        Cause::Node,
        true,
        "unschedulable: 0/1",
    );
    says(of("0/1 nodes are available: 1 Insufficient cpu."), Cause::Quota, true, "Insufficient cpu");
    says(of("pod has unbound immediate PersistentVolumeClaims."), Cause::Storage, true, "unbound");
}

#[test]
fn pods_that_want_an_architecture_that_no_node_has() {
    let pod = |wanted: &str| {
        let condition = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"});
        serde_json::from_value(json!({
            "metadata": {"name": "web-1"}, "status": {"phase": "Pending", "conditions": [condition]},
            "spec": {"nodeSelector": {"kubernetes.io/arch": wanted}, "containers": [{"name": "web"}]}
        }))
        .unwrap()
    };
    let node = json!({"name": "n1", "platform": "linux/amd64", "nature": "native", "kubelet": "", "kernel": "", "ready": false});
    let nodes = [serde_json::from_value(node).unwrap()];
    let context = Context { nodes: &nodes, ..Context::default() };
    says(super::pod(&pod("s390x"), context), Cause::Node, false, "web-1: unschedulable: no node with arch s390x");
    // A node of it that is not ready may come back.
    says(super::pod(&pod("amd64"), context), Cause::Node, true, "unschedulable: 0/1 nodes");
    says(super::pod(&pod("s390x"), Context::default()), Cause::Node, true, "unschedulable: 0/1 nodes");
}

#[test]
fn events_fill_what_the_status_leaves_open() {
    let event = |reason: &str, message: &str, uid: &str| {
        json!({"metadata": {"name": "e"}, "involvedObject": {"uid": uid}, "type": "Warning", "reason": reason, "message": message,
               "lastTimestamp": "2026-01-01T00:00:00Z"})
    };
    let creating = waiting("ContainerCreating", "");
    says(
        explain(
            creating.clone(),
            &[],
            &[event("FailedMount", "MountVolume.SetUp failed: configmap \"c\" not found", "u1")],
        ),
        Cause::Product,
        true,
        "configmap \"c\" not found",
    );
    says(
        explain(creating.clone(), &[], &[event("FailedMount", "timed out waiting", "u1")]),
        Cause::Storage,
        true,
        "timed out",
    );
    says(
        explain(creating.clone(), &[], &[event("FailedMount", "timed out waiting", "another")]),
        Cause::Node,
        true,
        "ContainerCreating",
    );
}

#[test]
fn a_running_container_may_not_be_ready() {
    let status = json!({"phase": "Running", "containerStatuses": [{
        "name": "webhook", "image": "i", "imageID": "", "ready": false, "started": true, "restartCount": 0,
        "state": {"running": {}}}]});
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"uid": "u1"}, "type": "Warning",
                       "reason": "Unhealthy", "message": "Readiness probe failed: connection refused"});
    says(explain(status.clone(), &[], &[]), Cause::Product, true, "readiness probe fails");
    says(explain(status, &[], &[event]), Cause::Product, true, "not ready: Readiness probe failed: connection refused");
    says(explain(json!({}), &[], &[]), Cause::Node, true, "nothing says why");
}

#[test]
fn long_messages_are_cut() {
    let trouble = explain(waiting("ContainerCreating", &"x ".repeat(4000)), &[], &[]).unwrap();
    assert!(trouble.line.chars().count() < 450, "{}", trouble.line.len());
}
