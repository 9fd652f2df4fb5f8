//! `in-pod`: a program that runs in a pod, as if it ran here. What it prints comes out of standard output, its exit code
//! is ours, and why it could not be run is an error with a cause.
//!
//! The pod goes on when the connection breaks; its log is asked for again from where it was.

use std::{
    io::Write,
    time::{Duration, Instant},
};

use clap::Parser;
use cluster::{KubeContext, NAMESPACE, explain};
use futures::{AsyncReadExt, StreamExt};
use k8s_openapi::api::core::v1::{ContainerState, Event, Pod};
use kit::{Cause, Context, Done, Error, Exit, Platform, Result, Ui, ui};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, LogParams, PostParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;

use super::{USER, follow::Follower};
use crate::cause::CONTAINER_ENDED;

/// The label of all its pods.
const LABEL: &str = "other-arch/unit";
const CONTAINER: &str = "test";
/// How long a pod may take to begin: its image comes over the network first.
pub(super) const START: Duration = Duration::from_mins(10);
/// How long an API server may be away, or a pod gone from it, before the program counts as lost.
pub(super) const AWAY: Duration = Duration::from_mins(10);
/// Why a kubelet ends pods that would run on.
const DISRUPTIONS: &[&str] =
    &["Evicted", "Terminated", "NodeShutdown", "Shutdown", "NodeLost", "Preempting", "UnexpectedAdmissionError"];
/// What a kubelet says of a container that the kernel has killed.
const OOM_KILLED: &str = "OOMKilled";
/// How long it may take to remove the pod.
const REMOVE: Duration = Duration::from_secs(15);

/// Options of `in-pod`.
#[derive(Debug, Parser)]
pub struct InPodArgs {
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would show it")]
    pub cluster: cluster::Options,
    /// The image
    #[arg(long, value_name = "REFERENCE")]
    pub image: String,
    /// The platform of the node
    #[arg(long, value_name = "OS/ARCH")]
    pub platform: Platform,
    /// The working directory
    #[arg(long, value_name = "DIR")]
    pub folder: String,
    /// After so many seconds the cluster ends the pod, whatever has become of us
    #[arg(long, value_name = "SECONDS")]
    pub limit: Option<u64>,
    /// A variable that the program gets; its value is in the environment of this one, under another name
    #[arg(long, value_name = "NAME")]
    pub pass: Vec<String>,
    /// The program and its arguments
    #[arg(last = true, required = true)]
    pub command: Vec<String>,
}

/// The name under which a variable is handed to `in-pod`, so that it does not change `in-pod` itself.
#[must_use]
pub(super) fn passed(name: &str) -> String {
    format!("IN_POD_{name}")
}

/// Runs it.
///
/// # Errors
/// Why it could not be run, with the cause that the cluster shows.
pub fn in_pod(args: &InPodArgs, ui: &Ui) -> Result<Done> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let code = runtime.cause(Cause::Internal, || "cannot start the runtime")?.block_on(async {
        let opened = cluster::interruptible(cluster::open(&args.cluster, &Ui::silent())).await?;
        let pods = Api::<Pod>::namespaced(opened.client.clone(), NAMESPACE);
        let pod = cluster::interruptible(create(&pods, args)).await?;
        let name = pod.name_any();
        // A signal ends the work, and the pod with it.
        let done = cluster::interruptible(follow(&opened.client, &pods, &name, &args.platform)).await;
        let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let late = || Error::new(Cause::ClusterUnreachable, "it does not answer");
        let remove = async { pods.delete(&name, &at_once).await.kube(|| format!("cannot remove pod {name}")) };
        if let Err(error) = cluster::within(REMOVE, late, remove).await {
            ui.warn(format!("the next run removes it: {error}"));
        }
        done
    })?;
    Ok(Done { exit: Some(Exit(u8::try_from(code).unwrap_or(1))), ..Done::default() })
}

/// Removes pods of runs that were killed before they could do that themselves.
///
/// # Errors
/// As `cluster::cause_of` says.
pub(super) async fn forget(client: &Client) -> Result<()> {
    let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let pods = Api::<Pod>::namespaced(client.clone(), NAMESPACE);
    let left = pods.delete_collection(&at_once, &ListParams::default().labels(LABEL)).await;
    left.map(drop).kube(|| format!("cannot remove what an earlier run left in {NAMESPACE}"))
}

async fn create(pods: &Api<Pod>, args: &InPodArgs) -> Result<Pod> {
    let pod: Pod = serde_json::from_value(manifest(args)).cause(Cause::Internal, || "cannot describe the pod")?;
    let mut delays = kit::retry::delays();
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match pods.create(&PostParams::default(), &pod).await {
            Ok(pod) => return Ok(pod),
            // The service account of a namespace that was just made comes a moment later.
            Err(error) if cluster::describe(&error).contains("serviceaccount") && Instant::now() < deadline => {
                tokio::time::sleep(delays.next().unwrap_or_default()).await;
            }
            Err(error) => return Err(cluster::fail("cannot create the pod of the tests", &error)),
        }
    }
}

/// The pod: on a node of the platform, with no rights, no root and a folder to write to.
fn manifest(args: &InPodArgs) -> serde_json::Value {
    let env: Vec<_> = args
        .pass
        .iter()
        .map(|name| json!({"name": name, "value": std::env::var(passed(name)).unwrap_or_default()}))
        .collect();
    json!({
        "metadata": {"generateName": "unit-", "labels": {LABEL: "true"}},
        "spec": {
            "nodeSelector": {"kubernetes.io/os": args.platform.os, "kubernetes.io/arch": args.platform.arch},
            "restartPolicy": "Never",
            "activeDeadlineSeconds": args.limit,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER,
                "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "tmp", "emptyDir": {}}],
            "containers": [{
                "name": CONTAINER,
                "image": args.image,
                "command": args.command,
                "workingDir": args.folder,
                "env": env,
                "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// What becomes of the container.
enum Now {
    Waits,
    Runs,
    /// With this exit code, for this reason of the kubelet's.
    Ended(i32, Option<String>),
}

fn now(pod: &Pod) -> Now {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let status = statuses.and_then(|statuses| statuses.iter().find(|status| status.name == CONTAINER));
    match status.and_then(|status| status.state.clone()).unwrap_or_default() {
        ContainerState { terminated: Some(ended), .. } => Now::Ended(ended.exit_code, ended.reason),
        ContainerState { running: Some(_), .. } => Now::Runs,
        _ => Now::Waits,
    }
}

/// Waits for its beginning, passes on its log, returns its exit code.
async fn follow(client: &Client, pods: &Api<Pod>, name: &str, platform: &Platform) -> Result<i32> {
    begin(client, pods, name, platform).await?;
    let mut follower = Follower::default();
    let mut answered = Instant::now();
    let mut delays = kit::retry::delays();
    loop {
        let before = follower.came();
        let broken = read(pods, name, true, &mut follower).await?;
        if follower.came() != before || broken.is_none() {
            (answered, delays) = (Instant::now(), kit::retry::delays());
        }
        match pods.get(name).await {
            Ok(pod) => match now(&pod) {
                Now::Ended(code, _) if code != 0 && disrupted(&pod).is_some() => {
                    // What it still said, if that can be had: with the pod goes its log.
                    _ = read(pods, name, false, &mut follower).await?;
                    return Err(ended_by_others(&pod));
                }
                Now::Ended(code, reason) => {
                    // What came between the end of the log's connection and that of the container.
                    while let Some(error) = read(pods, name, false, &mut follower).await? {
                        if answered.elapsed() > AWAY {
                            return Err(error.within("the end of the log is missing"));
                        }
                        tokio::time::sleep(delays.next().unwrap_or_default()).await;
                    }
                    if reason.as_deref() == Some(OOM_KILLED) {
                        say(&format!("{CONTAINER_ENDED}{OOM_KILLED}, it needed more memory than there is"))?;
                    }
                    return Ok(code);
                }
                Now::Runs | Now::Waits if is_over(&pod) => return Err(ended_by_others(&pod)),
                Now::Runs | Now::Waits => answered = Instant::now(),
            },
            Err(kube::Error::Api(status)) if status.code == 404 => {
                return Err(Error::new(Cause::Node, "the pod of the tests is gone, and nobody here removed it"));
            }
            Err(error) if answered.elapsed() > AWAY => {
                let away = ui::duration(AWAY);
                return Err(cluster::fail(
                    format!("the cluster has not answered for {away}, and the tests go on there"),
                    &error,
                ));
            }
            Err(_) => {}
        }
        tokio::time::sleep(delays.next().unwrap_or(Duration::from_secs(5))).await;
    }
}

/// Whether a pod will not run any more.
fn is_over(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Failed" | "Succeeded")) || pod.metadata.deletion_timestamp.is_some()
}

/// Why a pod ends that others have ended: its kubelet, the scheduler or whoever drains its node. Nothing for one whose
/// program ended by itself.
fn disrupted(pod: &Pod) -> Option<String> {
    let status = pod.status.clone().unwrap_or_default();
    // The reasons are the kubelet's (kubernetes/pkg/kubelet: eviction, nodeshutdown, preemption).
    let reason = status.reason.filter(|reason| DISRUPTIONS.contains(&reason.as_str()));
    let target = status.conditions.into_iter().flatten();
    let target = target.into_iter().find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
    let said = target.map(|target| target.message.or(target.reason).unwrap_or(target.type_));
    let deleted =
        pod.metadata.deletion_timestamp.is_some().then(|| "it was deleted, and nobody here did that".to_owned());
    reason.map(|reason| status.message.unwrap_or(reason)).or(said).or(deleted)
}

fn ended_by_others(pod: &Pod) -> Error {
    let status = || pod.status.clone().unwrap_or_default();
    let why = disrupted(pod).or_else(|| status().message.or(status().reason));
    let why = why.unwrap_or_else(|| "nothing says why".into());
    Error::new(Cause::Node, format!("the pod of the tests was ended: {why}"))
}

/// A line of our own among the program's.
fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "\n{line}").and_then(|()| out.flush());
    written.cause(Cause::Internal, || "cannot pass on why the tests ended")
}

/// Passes on the log from where it was; returns why it ended early, if it did.
async fn read(pods: &Api<Pod>, name: &str, wait: bool, follower: &mut Follower) -> Result<Option<Error>> {
    follower.resume();
    let params = LogParams {
        container: Some(CONTAINER.into()),
        follow: wait,
        timestamps: true,
        since_time: follower.since(),
        ..LogParams::default()
    };
    let stream = match pods.log_stream(name, &params).await {
        Ok(stream) => stream,
        Err(error) => return Ok(Some(cluster::fail("cannot read the log", &error))),
    };
    let mut stream = std::pin::pin!(stream);
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer).await {
            Ok(0) => return Ok(None),
            Ok(read) => {
                let mut out = std::io::stdout().lock();
                let written = follower.take(&buffer[..read], &mut out).and_then(|()| out.flush());
                written.cause(Cause::Internal, || "cannot pass on what the tests print")?;
            }
            Err(error) => return Ok(Some(Error::from_source(Cause::ClusterUnreachable, "the log ended", error))),
        }
    }
}

/// Waits by watch until the container runs or has ended.
async fn begin(client: &Client, pods: &Api<Pod>, name: &str, platform: &Platform) -> Result<()> {
    let deadline = Instant::now() + START;
    let mut changes = std::pin::pin!(watcher::watch_object(pods.clone(), name).default_backoff());
    let mut last = explain::Trouble::new(Cause::Apiserver, "the API server says nothing of it");
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let change = tokio::time::timeout(left, changes.next()).await;
        let pod = match change {
            Err(_) => {
                let what = format!("the pod of the tests has not begun after {}", ui::duration(START));
                return Err(Error::new(last.cause, what).line(last.line));
            }
            Ok(Some(Ok(Some(pod)))) => pod,
            Ok(Some(Ok(None))) => {
                return Err(Error::new(Cause::Node, "the pod of the tests was removed before it began"));
            }
            Ok(Some(Err(_))) => continue,
            Ok(None) => return Err(Error::new(Cause::Internal, "the watch of the pod ended")),
        };
        if !matches!(now(&pod), Now::Waits) || is_over(&pod) {
            return Ok(());
        }
        let about = ListParams::default().fields(&format!("involvedObject.name={name}")).limit(50);
        let events = Api::<Event>::namespaced(client.clone(), NAMESPACE).list(&about).await;
        let events = events.map(|events| events.items).unwrap_or_default();
        let known = explain::Context { events: &events, logs: &[], platform: Some(platform), nodes: &[] };
        if let Some(trouble) = explain::pod(&pod, known) {
            if !trouble.heals {
                return Err(Error::new(trouble.cause, trouble.line));
            }
            last = trouble;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&str]) -> InPodArgs {
        let fixed = ["in-pod", "--image", "r/x@sha256:0", "--platform", "linux/s390x", "--folder", "/src/pkg"];
        InPodArgs::parse_from(fixed.iter().chain(words))
    }

    #[test]
    fn the_pod_has_a_node_of_the_platform_and_no_rights() {
        let pod = manifest(&args(&["--pass", "HOME", "--", "/unit.test", "-test.run=^(TestA)$"]));
        let spec = &pod["spec"];
        assert_eq!(spec["nodeSelector"]["kubernetes.io/arch"], "s390x");
        assert_eq!(spec["containers"][0]["command"], json!(["/unit.test", "-test.run=^(TestA)$"]));
        assert_eq!(spec["containers"][0]["env"][0]["name"], "HOME");
        assert_eq!(
            (&spec["automountServiceAccountToken"], &spec["securityContext"]["runAsNonRoot"]),
            (&json!(false), &json!(true))
        );
        assert!(InPodArgs::try_parse_from(["in-pod", "--image", "x"]).is_err());
        assert_eq!(spec["activeDeadlineSeconds"], serde_json::Value::Null);
        let limited = manifest(&args(&["--limit", "720", "--", "/unit.test"]));
        assert_eq!(limited["spec"]["activeDeadlineSeconds"], 720);
    }

    #[test]
    fn what_becomes_of_a_container() {
        let pod = |phase: &str, state: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": {"name": "p"}, "status": {"phase": phase, "containerStatuses": [
                {"name": CONTAINER, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state}]}}))
            .unwrap()
        };
        assert!(matches!(now(&pod("Running", json!({"running": {}}))), Now::Runs));
        assert!(matches!(now(&pod("Failed", json!({"terminated": {"exitCode": 2}}))), Now::Ended(2, None)));
        let killed = now(&pod("Failed", json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}})));
        assert!(matches!(killed, Now::Ended(137, Some(reason)) if reason == OOM_KILLED));
        let waits = pod("Pending", json!({"waiting": {"reason": "ContainerCreating"}}));
        assert!(matches!(now(&waits), Now::Waits) && !is_over(&waits));
        assert!(is_over(&pod("Failed", json!({}))), "evicted before it ran");
    }

    #[test]
    fn a_pod_that_others_ended_is_no_fault_of_its_program() {
        let pod = |metadata: serde_json::Value, status: serde_json::Value| -> Pod {
            serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap()
        };
        let plain = || json!({"name": "p"});
        let going = || json!({"name": "p", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        let target = json!({"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI", "message": "Eviction API: evicting"});
        for (pod, said) in [
            (
                pod(plain(), json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"})),
                "low on memory",
            ),
            (pod(plain(), json!({"phase": "Failed", "reason": "Terminated"})), "Terminated"),
            (pod(plain(), json!({"phase": "Failed", "conditions": [target]})), "Eviction API: evicting"),
            (pod(going(), json!({"phase": "Running"})), "it was deleted"),
        ] {
            assert!(disrupted(&pod).unwrap().starts_with(said), "{pod:?}");
            let error = ended_by_others(&pod);
            assert!(error.cause == Cause::Node && error.to_string().contains(said), "{error}");
        }
        // A program that panics ends a pod in the same phase.
        assert_eq!(
            disrupted(&pod(plain(), json!({"phase": "Failed", "conditions": [{"type": "Ready", "status": "False"}]}))),
            None
        );
    }
}
