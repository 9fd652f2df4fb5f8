//! The objects of the tests' namespaces as they were last seen, in bounded memory.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Event, Pod};
use kube::{ResourceExt, api::DynamicObject, runtime::watcher};

/// Events of a namespace; older ones go.
const EVENTS: usize = 300;
/// Objects of a namespace.
const OBJECTS: usize = 400;
/// A larger object is not kept.
const OBJECT: usize = 128 << 10;
/// Of all objects and events together.
const MEMORY: usize = 48 << 20;

/// A container whose log is wanted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Container {
    pub(super) namespace: String,
    pub(super) pod: String,
    pub(super) uid: String,
    pub(super) name: String,
    /// Which start of it, from 0.
    pub(super) restart: i32,
    /// Whether it is the log of the start before the present one.
    pub(super) previous: bool,
}

/// An object as text, which takes a fifth of the memory.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) json: String,
    /// Whether it has been deleted since.
    pub(super) gone: bool,
}

/// A namespace that came while tests ran, or the component's own.
#[derive(Debug, Default)]
pub(super) struct Space {
    pub(super) born: Option<Timestamp>,
    /// By kind and name.
    pub(super) objects: BTreeMap<(String, String), Kept>,
    events: VecDeque<(String, String)>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Held {
    before: BTreeSet<String>,
    component: Option<String>,
    kinds: Vec<String>,
    spaces: BTreeMap<String, Space>,
    asked: BTreeSet<Container>,
    bytes: usize,
    left_out: usize,
}

impl Held {
    pub(super) fn new(before: BTreeSet<String>, component: Option<&str>, kinds: Vec<String>) -> Self {
        let component = component.map(String::from);
        Self { before, component, kinds, spaces: BTreeMap::new(), asked: BTreeSet::new(), bytes: 0, left_out: 0 }
    }

    /// Takes a change in; returns the containers whose logs are to be had now and maybe not later.
    pub(super) fn take(&mut self, target: usize, change: watcher::Event<DynamicObject>) -> Vec<Container> {
        let kind = self.kinds.get(target).cloned().unwrap_or_default();
        match change {
            watcher::Event::Apply(object) | watcher::Event::InitApply(object) => self.keep(&kind, object, false),
            watcher::Event::Delete(object) => self.keep(&kind, object, true),
            watcher::Event::Init | watcher::Event::InitDone => Vec::new(),
        }
    }

    fn is_kept(&self, namespace: &str) -> bool {
        !namespace.is_empty() && (!self.before.contains(namespace) || self.component.as_deref() == Some(namespace))
    }

    fn keep(&mut self, kind: &str, mut object: DynamicObject, gone: bool) -> Vec<Container> {
        let (name, of) = (object.name_any(), object.namespace().unwrap_or_default());
        let namespace = if kind == "Namespace" { name.clone() } else { of };
        if !self.is_kept(&namespace) {
            return Vec::new();
        }
        object.metadata.managed_fields = None;
        let born = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let json = serde_json::to_string(&object).unwrap_or_default();
        if json.len() > OBJECT || self.bytes + json.len() > MEMORY {
            self.left_out += 1;
            return Vec::new();
        }
        let space = self.spaces.entry(namespace.clone()).or_default();
        let before = match kind {
            "Namespace" => {
                space.born = born;
                return Vec::new();
            }
            "Event" => {
                // An event that is repeated is the same object again; that it is gone after an hour means nothing.
                let old = space.events.iter().position(|(uid, _)| Some(uid) == object.metadata.uid.as_ref());
                let old = old.and_then(|at| space.events.remove(at));
                let oldest = if space.events.len() >= EVENTS { space.events.pop_front() } else { None };
                space.events.push_back((object.metadata.uid.clone().unwrap_or_default(), json.clone()));
                old.into_iter().chain(oldest).map(|(_, json)| json.len()).sum()
            }
            _ => {
                let key = (kind.to_owned(), name);
                if space.objects.len() >= OBJECTS && !space.objects.contains_key(&key) {
                    self.left_out += 1;
                    return Vec::new();
                }
                let old = space.objects.insert(key, Kept { json: json.clone(), gone });
                old.map_or(0, |old| old.json.len())
            }
        };
        self.bytes = (self.bytes + json.len()).saturating_sub(before);
        let is_test_s = !self.before.contains(&namespace);
        let pod = (kind == "Pod" && !gone && is_test_s).then(|| serde_json::from_str::<Pod>(&json).ok()).flatten();
        let ended = pod.map(|pod| ended(&pod)).unwrap_or_default();
        ended.into_iter().filter(|container| self.asked.insert(container.clone())).collect()
    }

    /// The namespaces of tests, with when they came.
    pub(super) fn namespaces(&self) -> impl Iterator<Item = (String, Option<Timestamp>)> {
        let tests = self.spaces.iter().filter(|(name, _)| !self.before.contains(*name));
        tests.map(|(name, space)| (name.clone(), space.born))
    }

    pub(super) fn space(&self, namespace: &str) -> Option<&Space> {
        self.spaces.get(namespace)
    }

    pub(super) fn pods(&self, namespace: &str) -> Vec<Pod> {
        let objects = self.spaces.get(namespace).into_iter().flat_map(|space| &space.objects);
        let pods = objects.filter(|((kind, _), _)| kind == "Pod");
        pods.filter_map(|(_, kept)| serde_json::from_str(&kept.json).ok()).collect()
    }

    pub(super) fn events(&self, namespace: &str) -> Vec<Event> {
        let events = self.spaces.get(namespace).into_iter().flat_map(|space| &space.events);
        events.filter_map(|(_, json)| serde_json::from_str(json).ok()).collect()
    }

    /// The containers of a namespace that run, as far as is known.
    pub(super) fn running(&self, namespace: &str) -> Vec<Container> {
        let Some(space) = self.spaces.get(namespace) else { return Vec::new() };
        let there = space.objects.iter().filter(|((kind, _), kept)| kind == "Pod" && !kept.gone);
        let pods = there.filter_map(|(_, kept)| serde_json::from_str::<Pod>(&kept.json).ok());
        let running = |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.running.is_some());
        pods.flat_map(|pod| {
            let all = statuses(&pod).filter(|status| running(status));
            all.map(|status| container(&pod, status, false)).collect::<Vec<_>>()
        })
        .collect()
    }

    /// What is not here that was there.
    pub(super) fn cuts(&self) -> Vec<String> {
        match self.left_out {
            0 => Vec::new(),
            n => vec![format!(
                "{n} changes of objects were not kept: larger than {} KiB, more than {OBJECTS} in a namespace, or more \
                 than {} MiB in all",
                OBJECT >> 10,
                MEMORY >> 20
            )],
        }
    }
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten())
    })
}

fn container(pod: &Pod, status: &ContainerStatus, previous: bool) -> Container {
    Container {
        namespace: pod.namespace().unwrap_or_default(),
        pod: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        name: status.name.clone(),
        restart: if previous { status.restart_count - 1 } else { status.restart_count },
        previous,
    }
}

/// The containers of a pod whose log does not grow any more, or is about to go with the pod.
fn ended(pod: &Pod) -> Vec<Container> {
    let going = pod.metadata.deletion_timestamp.is_some();
    let mut found = Vec::new();
    for status in statuses(pod) {
        let state = status.state.clone().unwrap_or_default();
        if state.terminated.is_some() || (going && state.running.is_some()) {
            found.push(container(pod, status, false));
        }
        let before = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
        if before && status.restart_count > 0 {
            found.push(container(pod, status, true));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn held() -> Held {
        let kinds = ["Namespace", "Pod", "Event", "TaskRun"].map(String::from).to_vec();
        Held::new(BTreeSet::from(["kube-system".into(), "own".into()]), Some("own"), kinds)
    }

    fn object(namespace: &str, name: &str, more: Value) -> DynamicObject {
        let mut value = json!({"metadata": {"name": name, "namespace": namespace, "uid": name, "managedFields": [{}]}});
        for (key, more) in more.as_object().unwrap() {
            value[key] = more.clone();
        }
        serde_json::from_value(value).unwrap()
    }

    fn pod(state: Value, restarts: i32, last: Value) -> DynamicObject {
        let status = json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
            "restartCount": restarts, "state": state, "lastState": last}]});
        object("test-1", "p", json!({"status": status}))
    }

    #[test]
    fn what_tests_make_is_kept_when_it_is_gone() {
        let mut held = held();
        let apply = watcher::Event::Apply;
        held.take(0, apply(object("", "test-1", json!({}))));
        held.take(3, apply(object("test-1", "run", json!({"spec": {"a": 1}}))));
        held.take(3, apply(object("kube-system", "run", json!({}))));
        held.take(3, watcher::Event::Delete(object("test-1", "run", json!({"spec": {"a": 2}}))));
        let kept = &held.space("test-1").unwrap().objects[&("TaskRun".into(), "run".into())];
        assert!(kept.gone && kept.json.contains("\"a\":2") && !kept.json.contains("managedFields"), "{kept:?}");
        assert_eq!(held.namespaces().map(|(name, _)| name).collect::<Vec<_>>(), ["test-1"]);
        assert!(held.space("kube-system").is_none());
        held.take(2, apply(object("own", "e", json!({"reason": "Killing", "involvedObject": {}}))));
        assert_eq!(held.events("own").len(), 1, "the component's own events count");
    }

    #[test]
    fn logs_are_wanted_once_and_in_time() {
        let mut held = held();
        let mut take = |object| {
            let found = held.take(1, watcher::Event::Apply(object));
            found.iter().map(|container| (container.restart, container.previous)).collect::<Vec<_>>()
        };
        let running = || json!({"running": {}});
        assert_eq!(take(pod(running(), 0, json!({}))), []);
        let ended = || json!({"terminated": {"exitCode": 1}});
        assert_eq!(take(pod(ended(), 0, json!({}))), [(0, false)]);
        assert_eq!(take(pod(ended(), 0, json!({}))), []);
        assert_eq!(take(pod(running(), 1, ended())), [(0, true)]);
        let mut going = pod(running(), 1, ended());
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(take(going), [(1, false)]);
        assert_eq!(held.running("test-1").len(), 1);
    }

    #[test]
    fn memory_is_bounded_and_says_so() {
        let mut held = held();
        let apply = watcher::Event::Apply;
        held.take(3, apply(object("test-1", "huge", json!({"spec": "x".repeat(OBJECT)}))));
        for n in 0..(OBJECTS + 10) {
            held.take(3, apply(object("test-1", &format!("run-{n}"), json!({}))));
        }
        for n in 0..(EVENTS + 10) {
            held.take(2, apply(object("test-1", &format!("event-{n}"), json!({"involvedObject": {}}))));
            held.take(2, apply(object("test-1", "again", json!({"involvedObject": {}}))));
        }
        let space = held.space("test-1").unwrap();
        assert_eq!((space.objects.len(), space.events.len()), (OBJECTS, EVENTS));
        assert!(held.cuts()[0].starts_with("11 changes of objects were not kept"), "{:?}", held.cuts());
        let real: usize = space.objects.values().map(|kept| kept.json.len()).sum::<usize>()
            + space.events.iter().map(|(_, json)| json.len()).sum::<usize>();
        assert_eq!(held.bytes, real);
    }
}
