//! Why a pod is not ready, in words and with its cause: from what the cluster says of it, so that a
//! wait can tell what it waits for and give up at once on what cannot heal.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, Event, Pod};
use kit::{Cause, Platform, record::Node};
use kube::{Api, Client, ResourceExt, api::LogParams};
use serde::Serialize;

/// How many bytes of a container's log are looked at.
const LOG_BYTES: i64 = 16 << 10;
/// Lines longer than this are cut in explanations.
const LINE: usize = 300;

/// The well-known label that each kubelet sets to its own architecture (k8s.io/api/core/v1, LabelArchStable).
pub const ARCH_LABEL: &str = "kubernetes.io/arch";

/// What is said of a container whose probe fails, if nothing says more.
const UNREADY: &str = "its readiness probe fails";

/// What keeps something from being ready.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Trouble {
    /// Who has to act, if it stays so.
    pub cause: Cause,
    /// What it is, in words.
    pub line: String,
    /// Whether waiting can help.
    pub heals: bool,
}

impl Trouble {
    /// Something that time may heal.
    #[must_use]
    pub fn new(cause: Cause, line: impl Into<String>) -> Self {
        Self { cause, line: line.into(), heals: true }
    }

    fn stays(cause: Cause, line: impl Into<String>) -> Self {
        Self { heals: false, ..Self::new(cause, line) }
    }

    fn within(mut self, place: &str) -> Self {
        self.line = format!("{place}: {}", self.line);
        self
    }
}

/// What is known of a pod beyond itself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Context<'a> {
    /// Events of its namespace; those of other objects are left out here.
    pub events: &'a [Event],
    /// Last lines of logs: container and line.
    pub logs: &'a [(String, String)],
    /// What its node runs.
    pub platform: Option<&'a Platform>,
    /// All nodes of the cluster, as far as they are known.
    pub nodes: &'a [Node],
}

/// Why the pod is not ready; nothing if it is, or has done its work.
#[must_use]
pub fn pod(pod: &Pod, context: Context<'_>) -> Option<Trouble> {
    let status = pod.status.clone().unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let is = |kind: &str, value: &str| conditions.iter().find(|c| c.type_ == kind && c.status == value);
    let phase = status.phase.as_deref().unwrap_or("Pending");
    if phase == "Succeeded" || is("Ready", "True").is_some() {
        return None;
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref());
    let place = node.map_or_else(|| pod.name_any(), |node| format!("{} on node {node}", pod.name_any()));
    if status.reason.as_deref() == Some("Evicted") {
        return Some(
            Trouble::new(Cause::Node, format!("evicted: {}", status.message.unwrap_or_default())).within(&place),
        );
    }
    if let Some(condition) = is("PodScheduled", "False") {
        let message = condition.message.as_deref().unwrap_or_default();
        return Some(no_such_node(pod, context.nodes).unwrap_or_else(|| unschedulable(message)).within(&place));
    }
    let mut inits = status.init_container_statuses.unwrap_or_default();
    let mut mains = status.container_statuses.unwrap_or_default();
    let specs = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers));
    for spec in specs {
        // The status may name the image by its config's digest, which nobody knows it by.
        for status in inits.iter_mut().chain(&mut mains).filter(|status| status.name == spec.name) {
            status.image = spec.image.clone().unwrap_or_default();
        }
    }
    let of_containers = || inits.iter().chain(&mains).filter_map(|status| container(status, context));
    let found = of_containers().min_by_key(|trouble| trouble.heals);
    // An event says more than a container that has not started, or that runs and is not ready.
    let vague = |trouble: &Trouble| trouble.heals && (trouble.cause == Cause::Node || trouble.line.ends_with(UNREADY));
    let found = match found {
        Some(found) if !vague(&found) => Some(found),
        found => warning(pod, context.events).or(found),
    };
    Some(found.unwrap_or_else(|| Trouble::new(Cause::Node, format!("{phase}, and nothing says why"))).within(&place))
}

/// An architecture that the pod insists on and that no node has: nothing in the cluster changes that.
fn no_such_node(pod: &Pod, nodes: &[Node]) -> Option<Trouble> {
    let wanted = pod.spec.as_ref()?.node_selector.as_ref()?.get(ARCH_LABEL)?;
    let missing = !nodes.is_empty() && nodes.iter().all(|node| node.platform.arch != *wanted);
    missing.then(|| Trouble::stays(Cause::Node, format!("unschedulable: no node with arch {wanted}")))
}

/// What the scheduler says (kubernetes/pkg/scheduler, `Unschedulable` messages).
fn unschedulable(message: &str) -> Trouble {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let cause = if has(&["PersistentVolumeClaim", "persistentvolumeclaim", "volume"]) {
        Cause::Storage
    } else if has(&["Insufficient", "Too many pods"]) {
        Cause::Quota
    } else {
        Cause::Node
    };
    let line =
        if message.is_empty() { "waits for the scheduler".into() } else { format!("unschedulable: {}", cut(message)) };
    Trouble::new(cause, line)
}

fn container(status: &ContainerStatus, context: Context<'_>) -> Option<Trouble> {
    let log = context.logs.iter().find(|(name, _)| *name == status.name).map(|(_, line)| line.as_str());
    let state = status.state.clone().unwrap_or_default();
    let last = status.last_state.clone().unwrap_or_default().terminated.or_else(|| state.terminated.clone());
    let wrong_arch = [
        log,
        state.waiting.as_ref().and_then(|waiting| waiting.message.as_deref()),
        last.as_ref().and_then(|last| last.message.as_deref()),
    ];
    let trouble = if let Some(line) = wrong_arch.into_iter().flatten().find(|text| is_wrong_program(text)) {
        let platform = context.platform.map_or_else(|| "this node".into(), |platform| format!("a {platform} node"));
        let text = format!("exec format error: image {} has no program for {platform}: {}", status.image, cut(line));
        Some(Trouble::stays(Cause::ImageWrongArch, text))
    } else if let Some(waiting) = &state.waiting {
        waits(waiting, status, last.as_ref(), log)
    } else if let Some(terminated) = state.terminated.as_ref().filter(|terminated| terminated.exit_code != 0) {
        Some(Trouble::new(Cause::Product, format!("ended: {}", ended(terminated, log))))
    } else if state.running.is_some() && !status.ready && status.started == Some(true) {
        Some(Trouble::new(Cause::Product, format!("runs{}, but {UNREADY}", log_of(log))))
    } else {
        None
    };
    trouble.map(|trouble| trouble.within(&format!("container {}", status.name)))
}

/// What the kernel refuses with ENOEXEC, as Go's library says it, or as C's does for a shell.
fn is_wrong_program(text: &str) -> bool {
    ["exec format error", "Exec format error"].iter().any(|words| text.contains(words))
}

/// The reasons are the kubelet's (kubernetes/pkg/kubelet/images/types.go, kuberuntime).
fn waits(
    waiting: &ContainerStateWaiting,
    status: &ContainerStatus,
    last: Option<&ContainerStateTerminated>,
    log: Option<&str>,
) -> Option<Trouble> {
    let message = waiting.message.as_deref().unwrap_or_default();
    let reason = waiting.reason.as_deref().unwrap_or_default();
    Some(match reason {
        "ErrImagePull" | "ImagePullBackOff" | "RegistryUnavailable" | "ImageInspectError" => {
            pull(&status.image, message)
        }
        "InvalidImageName" => {
            Trouble::stays(Cause::Product, format!("'{}' cannot be the name of an image", status.image))
        }
        "ErrImageNeverPull" => {
            Trouble::stays(Cause::Product, format!("image {} is not on the node and must not be pulled", status.image))
        }
        "CreateContainerConfigError" if message.contains("runAsNonRoot") => Trouble::stays(
            Cause::Product,
            format!("image {} must not run as root, and does: {}", status.image, cut(message)),
        ),
        "CreateContainerConfigError" => Trouble::new(Cause::Product, format!("cannot be configured: {}", cut(message))),
        "CrashLoopBackOff" => {
            let how = last.map_or_else(|| format!("ended{}", log_of(log)), |last| ended(last, log));
            Trouble::new(Cause::Product, format!("CrashLoopBackOff: {how}"))
        }
        "CreateContainerError" | "RunContainerError" | "PostStartHookError" => {
            Trouble::new(Cause::Product, format!("cannot be started: {}", cut(message)))
        }
        "" => return None,
        reason => Trouble::new(Cause::Node, format!("{reason} {}", cut(message)).trim_end().to_owned()),
    })
}

/// Why an image cannot be pulled, from the kubelet's message. What a registry says for certain (it refuses, it has no such image) it says again; that it is away, or that a
/// disk is full, may pass.
#[must_use]
pub fn pull(image: &str, message: &str) -> Trouble {
    let has = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let said = || cut(message.rsplit("ErrImagePull: ").next().unwrap_or(message));
    // containerd says "access denied" of both; that it has no credentials to answer with, of a 401 only.
    let asked = has(&[" 401", "no basic auth credentials"]);
    let refused = || if !asked && has(&[" 403", "denied", "Forbidden"]) { "403" } else { "401" };
    if has(&["no match for platform", "no matching manifest"]) {
        Trouble::stays(Cause::ImageMissingPlatform, format!("image {image} has no platform of this node: {}", said()))
    } else if has(&[" 401", " 403", "unauthorized", "Unauthorized", "denied", "authorization failed"]) {
        let line = format!("image pull: {} from registry, which refuses {image}: {}", refused(), said());
        Trouble::stays(Cause::Auth, line)
    } else if has(&["no space left"]) {
        Trouble::new(Cause::HostDisk, format!("image pull: the node's disk is full: {}", said()))
    } else if has(&["no such host", "server misbehaving"]) {
        Trouble::new(Cause::Dns, format!("image pull: {}", said()))
    } else if message.trim_end().ends_with("not found")
        || has(&["manifest unknown", "name unknown", "MANIFEST_UNKNOWN"])
    {
        Trouble::stays(Cause::ImagePull, format!("image pull: the registry has no {image}: {}", said()))
    } else {
        Trouble::new(Cause::ImagePull, format!("image pull of {image}: {}", said()))
    }
}

fn ended(terminated: &ContainerStateTerminated, log: Option<&str>) -> String {
    let how = match terminated.reason.as_deref() {
        Some("OOMKilled") => "killed, its memory limit is used up".into(),
        _ => format!("exit code {}", terminated.exit_code),
    };
    let said = terminated.message.as_deref().filter(|message| !message.trim().is_empty());
    said.map_or_else(|| format!("{how}{}", log_of(log)), |message| format!("{how}: {}", cut(message)))
}

fn log_of(log: Option<&str>) -> String {
    log.map_or_else(String::new, |line| format!("; last log line: {}", cut(line)))
}

/// The newest warning about the pod that says more than its status does.
fn warning(pod: &Pod, events: &[Event]) -> Option<Trouble> {
    let uid = pod.uid();
    let about = |event: &&Event| event.involved_object.uid == uid && event.type_.as_deref() == Some("Warning");
    let when = |event: &&Event| {
        let time = event.last_timestamp.as_ref().map(|time| time.0);
        time.or_else(|| event.event_time.as_ref().map(|time| time.0))
            .or_else(|| event.creation_timestamp().map(|time| time.0))
    };
    let event = events.iter().filter(about).max_by_key(when)?;
    let message = cut(event.message.as_deref().unwrap_or_default());
    match event.reason.as_deref().unwrap_or_default() {
        "FailedMount" | "FailedAttachVolume"
            if message.contains("not found") && !message.contains("persistentvolume") =>
        {
            Some(Trouble::new(Cause::Product, format!("cannot mount: {message}")))
        }
        "FailedMount" | "FailedAttachVolume" | "FailedMapVolume" => {
            Some(Trouble::new(Cause::Storage, format!("cannot mount: {message}")))
        }
        "FailedCreatePodSandBox" | "NetworkNotReady" | "NodeNotReady" => Some(Trouble::new(Cause::Node, message)),
        "Unhealthy" => Some(Trouble::new(Cause::Product, format!("runs, but is not ready: {message}"))),
        _ => None,
    }
}

/// On one line, and not longer than people read.
fn cut(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= LINE { line } else { format!("{}…", line.chars().take(LINE).collect::<String>()) }
}

/// Containers of a pod whose log may say why they do not run: name, and whether it is the log of
/// the run before.
#[must_use]
pub fn silent_containers(pod: &Pod) -> Vec<(String, bool)> {
    let status = pod.status.clone().unwrap_or_default();
    let all = [status.init_container_statuses, status.container_statuses].into_iter().flatten().flatten();
    all.filter(|status| !status.ready)
        .filter_map(|status| {
            let failed = |state: Option<ContainerStateTerminated>| state.is_some_and(|ended| ended.exit_code != 0);
            let state = status.state.unwrap_or_default();
            let last = status.last_state.unwrap_or_default().terminated;
            let waits = state.waiting.and_then(|waiting| waiting.reason).is_some_and(|r| r == "CrashLoopBackOff");
            if waits || (state.running.is_some() && last.is_some()) {
                Some((status.name, true))
            } else if failed(state.terminated) || (state.running.is_some() && status.started == Some(true)) {
                Some((status.name, false))
            } else {
                None
            }
        })
        .collect()
}

/// The last line that a container wrote, if there is one to be had.
pub async fn last_line(client: &Client, pod: &Pod, container: &str, previous: bool) -> Option<String> {
    let namespace = pod.namespace().unwrap_or_default();
    let params = LogParams {
        container: Some(container.to_owned()),
        previous,
        tail_lines: Some(5),
        limit_bytes: Some(LOG_BYTES),
        ..LogParams::default()
    };
    let logs = Api::<Pod>::namespaced(client.clone(), &namespace).logs(&pod.name_any(), &params).await.ok()?;
    logs.lines().rfind(|line| !line.trim().is_empty()).map(cut)
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
