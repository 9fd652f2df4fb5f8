//! The pods that a release's objects describe: their images, and where they may run.

use cluster::objects::Object;
use k8s_openapi::api::core::v1::Pod;
use kit::Platform;
use serde_json::{Map, Value};

pub(crate) use cluster::explain::ARCH_LABEL;

/// Where an object's pod specification is, if it has one.
fn pointer(object: &Object) -> Option<&'static str> {
    Some(match (object.group(), object.key.kind.as_str()) {
        ("", "Pod") => "/spec",
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("", "ReplicationController")
        | ("batch", "Job") => "/spec/template/spec",
        ("batch", "CronJob") => "/spec/jobTemplate/spec/template/spec",
        _ => return None,
    })
}

/// Whether an object describes pods.
pub(crate) fn has_pods(object: &Object) -> bool {
    pointer(object).is_some()
}

/// An object's pod specification.
pub(crate) fn spec_mut(object: &mut Object) -> Option<&mut Value> {
    let pointer = pointer(object)?;
    object.value.pointer_mut(pointer)
}

/// The containers that an object describes, with their images.
pub(crate) fn containers(object: &Object) -> Vec<(String, String)> {
    let spec = pointer(object).and_then(|pointer| object.value.pointer(pointer));
    let lists = ["initContainers", "containers"].into_iter().filter_map(|list| spec?.get(list)?.as_array());
    let text = |container: &Value, field: &str| container[field].as_str().unwrap_or_default().to_owned();
    lists.flatten().map(|container| (text(container, "name"), text(container, "image"))).collect()
}

/// Keeps an object's pods on nodes of `platform`, unless it says itself which architecture they are for.
pub(crate) fn restrict(object: &mut Object, platform: &Platform) {
    let Some(spec) = spec_mut(object).and_then(Value::as_object_mut) else { return };
    let selector = spec.entry("nodeSelector").or_insert_with(|| Value::Object(Map::new()));
    if selector.is_null() {
        *selector = Value::Object(Map::new());
    }
    if let Some(selector) = selector.as_object_mut() {
        selector.entry(ARCH_LABEL).or_insert_with(|| platform.arch.clone().into());
    }
}

/// Lets the liveness and startup probes of an object's containers fail so many `times` as often before the containers
/// are killed; returns of how many containers.
pub(crate) fn be_patient(object: &mut Object, times: u64) -> usize {
    let spec = spec_mut(object).and_then(Value::as_object_mut);
    let lists = spec.into_iter().flat_map(|spec| spec.values_mut()).filter_map(Value::as_array_mut);
    let mut changed = 0;
    for container in lists.flatten().filter(|item| item["image"].is_string()) {
        let mut any = false;
        for probe in ["livenessProbe", "startupProbe"] {
            let Some(probe) = container.get_mut(probe).and_then(Value::as_object_mut) else { continue };
            // What the API server fills in.
            let failures = probe.get("failureThreshold").and_then(Value::as_u64).unwrap_or(3);
            probe.insert("failureThreshold".into(), failures.saturating_mul(times).into());
            any = true;
        }
        changed += usize::from(any);
    }
    changed
}

/// Whether a pod belongs to an object of the release, and is not about to go.
pub(crate) fn belongs(pod: &Pod, object: &Object) -> bool {
    if pod.metadata.deletion_timestamp.is_some() || pod.metadata.namespace.as_deref() != Some(&object.key.namespace) {
        return false;
    }
    match object.key.kind.as_str() {
        "Pod" => pod.metadata.name.as_deref() == Some(&object.key.name),
        // The API server gives a Job's pods this label; its selector is not in the release.
        "Job" => label(pod, "batch.kubernetes.io/job-name") == Some(&object.key.name),
        "ReplicationController" => selected(pod, &object.value["spec"]["selector"]),
        _ => selected(pod, &object.value["spec"]["selector"]["matchLabels"]),
    }
}

/// Whether a pod runs what the release says: not what an earlier release said.
pub(crate) fn is_current(pod: &Pod, object: &Object) -> bool {
    let spec = pod.spec.clone().unwrap_or_default();
    let inits = spec.init_containers.unwrap_or_default();
    let has = |(name, image): &(String, String)| {
        inits.iter().chain(&spec.containers).any(|found| found.name == *name && found.image.as_ref() == Some(image))
    };
    containers(object).iter().all(has)
}

/// A container that runs, and that no readiness probe watches.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unprobed {
    pub(crate) name: String,
    /// How often it was started again.
    pub(crate) restarts: i32,
    /// How it ended the last time.
    pub(crate) exit_code: Option<i32>,
    /// When its node started it, by the node's clock.
    pub(crate) started: Option<jiff::Timestamp>,
}

/// Containers of a pod that run without a readiness probe.
pub(crate) fn unprobed(pod: &Pod) -> Vec<Unprobed> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let names: Vec<_> =
        containers.filter(|container| container.readiness_probe.is_none()).map(|container| &container.name).collect();
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses
        .filter(|status| names.contains(&&status.name))
        .filter_map(|status| {
            let running = status.state.as_ref()?.running.as_ref()?;
            let last = status.last_state.as_ref().and_then(|last| last.terminated.as_ref());
            Some(Unprobed {
                name: status.name.clone(),
                restarts: status.restart_count,
                exit_code: last.map(|last| last.exit_code),
                started: running.started_at.as_ref().map(|time| time.0),
            })
        })
        .collect()
}

fn label<'a>(pod: &'a Pod, name: &str) -> Option<&'a String> {
    pod.metadata.labels.as_ref()?.get(name)
}

fn selected(pod: &Pod, labels: &Value) -> bool {
    let Some(wanted) = labels.as_object().filter(|wanted| !wanted.is_empty()) else { return false };
    wanted.iter().all(|(name, value)| label(pod, name).map(String::as_str) == value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use cluster::objects::parse;

    const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: n}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      initContainers: [{name: first, image: i@sha256:1}]
      containers: [{name: web, image: w@sha256:2}]
";

    fn pod(image: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": "web-1", "namespace": "n", "labels": {"app": "web", "x": "y"}},
            "spec": {"initContainers": [{"name": "first", "image": "i@sha256:1"}],
                     "containers": [{"name": "web", "image": image}, {"name": "injected", "image": "proxy"}]}
        }))
        .unwrap()
    }

    #[test]
    fn containers_and_their_owner() {
        let object = parse(DEPLOYMENT, "r").unwrap().remove(0);
        let names: Vec<_> = containers(&object).into_iter().map(|(name, image)| format!("{name}={image}")).collect();
        assert_eq!(names, ["first=i@sha256:1", "web=w@sha256:2"]);
        assert!(belongs(&pod("w@sha256:2"), &object) && is_current(&pod("w@sha256:2"), &object));
        assert!(belongs(&pod("w@sha256:0"), &object) && !is_current(&pod("w@sha256:0"), &object));
    }

    #[test]
    fn containers_that_start_slowly_are_not_killed_for_it() {
        let text = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {template: {spec: {
            initContainers: [{name: side, image: i, startupProbe: {failureThreshold: 5}}],
            containers: [{name: a, image: i, livenessProbe: {periodSeconds: 10}, readinessProbe: {failureThreshold: 2}},
                {name: b, image: i}], volumes: [{name: v, emptyDir: {}}]}}}}";
        let mut object = parse(text, "r").unwrap().remove(0);
        assert_eq!(be_patient(&mut object, 10), 2);
        let spec = &object.value["spec"]["template"]["spec"];
        let failures = |list: &str, probe: &str| spec[list][0][probe]["failureThreshold"].as_u64();
        assert_eq!(failures("initContainers", "startupProbe"), Some(50));
        assert_eq!(failures("containers", "livenessProbe"), Some(30));
        assert_eq!(failures("containers", "readinessProbe"), Some(2), "it kills nobody");
        let mut map = parse("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", "r").unwrap().remove(0);
        assert_eq!(be_patient(&mut map, 10), 0);
    }

    #[test]
    fn pods_stay_on_their_architecture() {
        let mut object = parse(DEPLOYMENT, "r").unwrap().remove(0);
        restrict(&mut object, &"linux/s390x".parse().unwrap());
        let selector = "/spec/template/spec/nodeSelector/kubernetes.io~1arch";
        assert_eq!(object.value.pointer(selector).unwrap(), "s390x");
        restrict(&mut object, &"linux/amd64".parse().unwrap());
        assert_eq!(object.value.pointer(selector).unwrap(), "s390x", "what is there stays");
        let mut map = parse("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}", "r").unwrap().remove(0);
        let before = map.clone();
        restrict(&mut map, &"linux/amd64".parse().unwrap());
        assert_eq!(map, before);
    }
}
