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
/// How much more what is held already may grow to: its last state is the one that counts.
const SPARE: usize = 12 << 20;

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
    /// Whether it was deleted.
    gone: bool,
    /// Whether only tests that passed name it.
    passed: bool,
    /// By kind and name.
    pub(super) objects: BTreeMap<(String, String), Kept>,
    events: VecDeque<(String, String)>,
}

impl Space {
    fn bytes(&self) -> usize {
        let objects = self.objects.values().map(|kept| kept.json.len());
        objects.chain(self.events.iter().map(|(_, json)| json.len())).sum()
    }
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
    /// Those that had to make room, and whether only tests that passed named them.
    let_go: BTreeMap<String, bool>,
}

impl Held {
    pub(super) fn new(before: BTreeSet<String>, component: Option<&str>, kinds: Vec<String>) -> Self {
        let component = component.map(String::from);
        let (spaces, asked, let_go) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { before, component, kinds, spaces, asked, bytes: 0, left_out: 0, let_go }
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
        // Whether there is room for the object or not: logs are to be had now.
        let wanted = if kind == "Pod" && !gone { self.wanted(&namespace, &json) } else { Vec::new() };
        if self.let_go.contains_key(&namespace) {
            return wanted;
        }
        if kind == "Namespace" {
            let space = self.spaces.entry(namespace).or_default();
            (space.born, space.gone) = (born.or(space.born), space.gone || gone);
            return wanted;
        }
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let key = (kind.to_owned(), name);
        let space = self.spaces.entry(namespace.clone()).or_default();
        let (before, known) = match kind {
            "Event" => (space.events.iter().find(|(of, _)| *of == uid).map(|(_, json)| json.len()), true),
            _ => (space.objects.get(&key).map(|kept| kept.json.len()), space.objects.len() < OBJECTS),
        };
        let fits = json.len() <= OBJECT && (known || before.is_some());
        if !fits || !self.make_room(&namespace, json.len(), before) {
            self.left_out += 1;
            return wanted;
        }
        self.bytes = (self.bytes + json.len()).saturating_sub(before.unwrap_or(0));
        let space = self.spaces.entry(namespace).or_default();
        if kind == "Event" {
            // An event that is repeated is the same object again; that it is gone after an hour means nothing.
            space.events.retain(|(of, _)| *of != uid);
            let oldest = if space.events.len() >= EVENTS { space.events.pop_front() } else { None };
            self.bytes -= oldest.map_or(0, |(_, json)| json.len());
            space.events.push_back((uid, json));
        } else {
            space.objects.insert(key, Kept { json, gone });
        }
        wanted
    }

    /// The containers of a pod of the tests whose logs are to be had now, each once.
    fn wanted(&mut self, namespace: &str, json: &str) -> Vec<Container> {
        if self.before.contains(namespace) {
            return Vec::new();
        }
        let ended = serde_json::from_str::<Pod>(json).map(|pod| ended(&pod)).unwrap_or_default();
        ended.into_iter().filter(|container| self.asked.insert(container.clone())).collect()
    }

    /// Whether so many bytes fit in where `before` were. Namespaces that nobody needs any more make room.
    fn make_room(&mut self, namespace: &str, bytes: usize, before: Option<usize>) -> bool {
        let limit = if before.is_some() { MEMORY + SPARE } else { MEMORY };
        let wanted = bytes.saturating_sub(before.unwrap_or(0));
        if self.bytes + wanted <= MEMORY {
            return true;
        }
        for (name, passed) in self.released() {
            if self.bytes + wanted <= MEMORY {
                break;
            }
            if name != namespace
                && let Some(space) = self.spaces.remove(&name)
            {
                self.bytes = self.bytes.saturating_sub(space.bytes());
                self.let_go.insert(name, passed);
            }
        }
        self.bytes + wanted <= limit
    }

    /// Namespaces of which nothing is needed any more, and whether only tests that passed named them: those first, then
    /// those that were deleted, the oldest first.
    pub(super) fn released(&self) -> Vec<(String, bool)> {
        let here =
            self.spaces.iter().filter(|(name, space)| !self.before.contains(*name) && (space.passed || space.gone));
        let mut here: Vec<_> =
            here.map(|(name, space)| ((!space.passed, space.born), name.clone(), space.passed)).collect();
        here.sort();
        let gone = self.let_go.iter().map(|(name, passed)| (name.clone(), *passed));
        gone.chain(here.into_iter().map(|(_, name, passed)| (name, passed))).collect()
    }

    /// Notes of namespaces that only tests that passed name them.
    pub(super) fn passed<'n>(&mut self, names: impl IntoIterator<Item = &'n String>) {
        for name in names {
            if let Some(space) = self.spaces.get_mut(name) {
                space.passed = true;
            }
        }
    }

    /// Whether there may soon be no room.
    pub(super) fn is_crowded(&self) -> bool {
        self.bytes > MEMORY / 2
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
        let mut cuts = Vec::new();
        if self.left_out > 0 {
            cuts.push(format!(
                "{} changes of objects were not kept: larger than {} KiB, more than {OBJECTS} in a namespace, or more \
                 than {} MiB in all",
                self.left_out,
                OBJECT >> 10,
                MEMORY >> 20
            ));
        }
        let lost = self.let_go.values().filter(|passed| !**passed).count();
        if lost > 0 {
            let most = MEMORY >> 20;
            cuts.push(format!("{lost} namespaces that were deleted made room: there was more than {most} MiB in all"));
        }
        cuts
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

    #[test]
    fn late_failures_have_what_they_need_however_much_came_before() {
        let mut held = held();
        let apply = watcher::Event::Apply;
        let large = || json!({"spec": "x".repeat(100 << 10)});
        let space = |name: &str, second| {
            let mut space = object("", name, json!({}));
            let born = Timestamp::from_second(second).unwrap().to_string();
            space.metadata.creation_timestamp = serde_json::from_value(json!(born)).unwrap();
            space
        };
        // The first one is still there, the others were deleted, of the second only a test that passed has spoken.
        for (n, name) in ["there", "passed", "gone-a", "gone-b", "gone-c", "gone-d"].into_iter().enumerate() {
            held.take(0, apply(space(name, n as i64)));
            for n in 0..110 {
                held.take(3, apply(object(name, &format!("run-{n}"), large())));
            }
            if name.starts_with("gone") {
                held.take(0, watcher::Event::Delete(space(name, n as i64)));
            }
            if n == 1 {
                held.passed(&["passed".to_owned()]);
            }
        }
        let names = |held: &Held| held.namespaces().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(&held), ["gone-b", "gone-c", "gone-d", "there"], "passed first, then the oldest");
        assert_eq!(held.cuts(), ["1 namespaces that were deleted made room: there was more than 48 MiB in all"]);
        // Now all that is held is needed.
        held.spaces.values_mut().for_each(|space| space.gone = false);
        while held.left_out == 0 {
            let name = format!("run-{}", held.bytes);
            held.take(3, apply(object("late", &name, large())));
        }
        let mut late = pod(json!({"terminated": {"exitCode": 1}}), 0, json!({}));
        late.data["status"]["message"] = "x".repeat(100 << 10).into();
        assert_eq!(held.take(1, apply(late)).len(), 1, "its log is fetched all the same");
        held.take(3, apply(object("there", "run-0", json!({"spec": "x".repeat(110 << 10), "status": "last"}))));
        let kept = &held.space("there").unwrap().objects[&("TaskRun".into(), "run-0".into())];
        assert!(kept.json.contains("last"), "what is held is kept up to date");
        assert_eq!(held.bytes, held.spaces.values().map(Space::bytes).sum::<usize>());
        // A namespace that is let go does not come back.
        held.take(3, apply(object("gone-a", "run-0", json!({}))));
        assert!(held.space("gone-a").is_none());
    }
}
