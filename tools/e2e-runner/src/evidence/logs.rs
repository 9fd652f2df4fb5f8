//! Logs of containers, fetched while they can be had and kept in files of our own until it is known whose they are.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kit::{Cause, Context, Result};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, LogParams},
};
use tempfile::TempDir;
use tokio::sync::{Notify, Semaphore};

use super::held::{Container, Held};

/// Logs that are fetched at the same time.
const PARALLEL: usize = 4;
/// Lines of a container, the last ones.
const LINES: i64 = 3000;
/// Bytes of them.
const BYTES: usize = 256 << 10;
/// What a server sends of these lines, at most.
const ANSWER: i64 = 1 << 20;
/// Of all containers together.
const DISK: u64 = 256 << 20;
/// What is read of one of the component's own containers.
const CONTROLLER: i64 = 8 << 20;
/// Their pods and containers.
const CONTROLLERS: usize = 40;

/// A log that is here.
#[derive(Debug, Clone)]
pub(super) struct LogFile {
    pub(super) container: Container,
    pub(super) path: PathBuf,
    bytes: u64,
}

/// All that were fetched.
#[derive(Clone)]
pub(super) struct Logs {
    client: Client,
    turns: Arc<Semaphore>,
    state: Arc<State>,
}

struct State {
    folder: TempDir,
    /// Knows which namespaces nobody needs any more.
    held: Arc<Mutex<Held>>,
    /// By namespace.
    files: Mutex<BTreeMap<String, Vec<LogFile>>>,
    /// Under way.
    waiting: AtomicUsize,
    settled: Notify,
    bytes: AtomicU64,
    /// Files, ever.
    number: AtomicU64,
    left_out: AtomicUsize,
    /// Namespaces whose logs made room.
    let_go: AtomicUsize,
    missing: Mutex<Vec<String>>,
}

impl Logs {
    pub(super) fn new(client: Client, held: Arc<Mutex<Held>>) -> Result<Self> {
        Ok(Self { client, turns: Arc::new(Semaphore::new(PARALLEL)), state: Arc::new(State::new(held)?) })
    }

    /// Fetches the log of a container, in the background.
    pub(super) fn fetch(&self, container: Container) {
        self.state.waiting.fetch_add(1, Ordering::SeqCst);
        let logs = self.clone();
        tokio::spawn(async move {
            if let Ok(_turn) = logs.turns.acquire().await {
                logs.get(container).await;
            }
            logs.state.waiting.fetch_sub(1, Ordering::SeqCst);
            logs.state.settled.notify_waiters();
        });
    }

    /// Waits until nothing is under way any more.
    pub(super) async fn settle(&self) {
        loop {
            let settled = self.state.settled.notified();
            if self.state.waiting.load(Ordering::SeqCst) == 0 {
                return;
            }
            settled.await;
        }
    }

    async fn get(&self, container: Container) {
        let state = &self.state;
        if !state.make_room(&container.namespace, DISK) {
            state.left_out.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let params = LogParams {
            container: Some(container.name.clone()),
            previous: container.previous,
            tail_lines: Some(LINES),
            limit_bytes: Some(ANSWER),
            timestamps: true,
            ..LogParams::default()
        };
        let pods = Api::<Pod>::namespaced(self.client.clone(), &container.namespace);
        let text = match pods.logs(&container.pod, &params).await {
            Ok(text) => text,
            Err(error) => {
                let mut missing = state.missing.lock().unwrap_or_else(PoisonError::into_inner);
                if missing.len() < 50 {
                    let Container { namespace, pod, name, .. } = &container;
                    missing.push(format!("log of {namespace}/{pod} {name}: {}", cluster::describe(&error)));
                }
                return;
            }
        };
        let text = tail(&text, BYTES);
        state.keep(container, &text);
    }

    /// The logs of a namespace.
    pub(super) fn of(&self, namespace: &str) -> Vec<LogFile> {
        let files = self.state.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.get(namespace).cloned().unwrap_or_default()
    }

    /// Why logs of a namespace could not be had.
    pub(super) fn missing(&self, namespace: &str) -> Vec<String> {
        let missing = self.state.missing.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = format!("log of {namespace}/");
        missing.iter().filter(|line| line.starts_with(&begins)).cloned().collect()
    }

    pub(super) fn cuts(&self) -> Vec<String> {
        let most = DISK >> 20;
        let said = [
            (&self.state.left_out, "containers were not kept: there is no room, or"),
            (&self.state.let_go, "namespaces that were deleted made room: there was"),
        ];
        let said = said.map(|(number, words)| (number.load(Ordering::SeqCst), words));
        said.iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, words)| format!("the logs of {number} {words} more than {most} MiB"))
            .collect()
    }
}

impl State {
    fn new(held: Arc<Mutex<Held>>) -> Result<Self> {
        let folder = tempfile::tempdir().cause(Cause::HostDisk, || "cannot create a temporary folder")?;
        Ok(Self {
            folder,
            held,
            files: Mutex::default(),
            waiting: AtomicUsize::new(0),
            settled: Notify::new(),
            bytes: AtomicU64::new(0),
            number: AtomicU64::new(0),
            left_out: AtomicUsize::new(0),
            let_go: AtomicUsize::new(0),
            missing: Mutex::default(),
        })
    }

    fn keep(&self, container: Container, text: &str) {
        let number = self.number.fetch_add(1, Ordering::SeqCst);
        let uid = kit::digest::hex(container.uid.as_bytes());
        let name = format!("{number}-{}.{}-{}", &uid[..8], container.restart, kit::rundir::slug(&container.name));
        let path = self.folder.path().join(name);
        if fs::write(&path, text.as_bytes()).is_err() {
            self.left_out.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let bytes = text.len() as u64;
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.entry(container.namespace.clone()).or_default().push(LogFile { container, path, bytes });
    }

    /// Whether there is room for another log of this namespace. Logs that nobody needs any more make some.
    fn make_room(&self, namespace: &str, limit: u64) -> bool {
        let full = || self.bytes.load(Ordering::SeqCst) > limit;
        if !full() {
            return true;
        }
        let released = self.held.lock().unwrap_or_else(PoisonError::into_inner).released();
        for (name, passed) in released.into_iter().filter(|(name, _)| name != namespace) {
            if !full() {
                break;
            }
            let files = self.files.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            self.let_go.fetch_add(usize::from(files.is_some() && !passed), Ordering::SeqCst);
            for file in files.into_iter().flatten() {
                // It lies in a folder of ours, and goes with that at the latest.
                let _ = fs::remove_file(&file.path);
                self.bytes.fetch_sub(file.bytes, Ordering::SeqCst);
            }
        }
        !full()
    }
}

/// The last bytes of a text, from the beginning of a line on, and a word on what is missing.
pub(super) fn tail(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let from = text.len() - limit;
    let begin = text.bytes().skip(from).position(|byte| byte == b'\n').map_or(text.len(), |at| from + at + 1);
    format!("[... {begin} bytes left out ...]\n{}", &text[begin..])
}

/// The log of one of the component's own containers, each line with its time.
#[derive(Debug, Clone)]
pub(super) struct Controller {
    pub(super) name: String,
    pub(super) text: String,
}

/// Logs of the component's containers since `from`; the start before the present one as well.
pub(super) async fn of_controllers(client: &Client, namespace: &str, from: Option<Timestamp>) -> Vec<Controller> {
    let pods = Api::<Pod>::namespaced(client.clone(), namespace);
    let Ok(list) = pods.list(&ListParams::default()).await else { return Vec::new() };
    let mut found = Vec::new();
    for pod in list {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        for status in statuses {
            for previous in [false, true] {
                if (previous && status.restart_count == 0) || found.len() >= CONTROLLERS {
                    continue;
                }
                let params = LogParams {
                    container: Some(status.name.clone()),
                    previous,
                    timestamps: true,
                    limit_bytes: Some(CONTROLLER),
                    since_time: from.map(|from| from - SignedDuration::from_secs(2)),
                    ..LogParams::default()
                };
                if let Ok(text) = pods.logs(&pod.name_any(), &params).await {
                    let before = if previous { ".previous" } else { "" };
                    found.push(Controller { name: format!("{}_{}{before}", pod.name_any(), status.name), text });
                }
            }
        }
    }
    found
}

/// The lines of a log with times between these.
pub(super) fn between(text: &str, from: Timestamp, to: Timestamp) -> String {
    let mut kept = String::new();
    let mut inside = false;
    for line in text.lines() {
        // What follows a line without a time of its own belongs to that line.
        if let Some(at) = line.split_once(' ').and_then(|(time, _)| time.parse::<Timestamp>().ok()) {
            inside = from <= at && at <= to;
        }
        if inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use kube::{api::DynamicObject, runtime::watcher};
    use serde_json::json;

    #[test]
    fn logs_that_nobody_needs_make_room() {
        let mut held = Held::new(BTreeSet::new(), None, vec!["Namespace".into()]);
        let space = |name: &str| -> DynamicObject { serde_json::from_value(json!({"metadata": {"name": name}})).unwrap() };
        for name in ["gone", "there"] {
            held.take(0, watcher::Event::Apply(space(name)));
        }
        held.take(0, watcher::Event::Delete(space("gone")));
        let state = State::new(Arc::new(Mutex::new(held))).unwrap();
        for namespace in ["gone", "there"] {
            let [namespace, pod, uid, name] = [namespace, "p", "u", "c"].map(String::from);
            state.keep(Container { namespace, pod, uid, name, restart: 0, previous: false }, &"x".repeat(600));
        }
        let files = || state.files.lock().unwrap().keys().cloned().collect::<Vec<_>>();
        assert!(state.make_room("there", 1200) && files().len() == 2);
        assert!(state.make_room("there", 1000));
        assert_eq!((files(), state.let_go.load(Ordering::SeqCst)), (vec!["there".to_owned()], 1));
        assert_eq!(fs::read_dir(state.folder.path()).unwrap().count(), 1);
        assert!(!state.make_room("late", 500), "all that is left is needed");
    }

    #[test]
    fn the_end_of_a_log_is_kept_from_a_whole_line_on() {
        assert_eq!(tail("one\ntwo\n", 100), "one\ntwo\n");
        assert_eq!(tail("one\ntwo\nthree\n", 9), "[... 8 bytes left out ...]\nthree\n");
        assert_eq!(tail(&"x".repeat(20), 9), "[... 20 bytes left out ...]\n");
        assert_eq!(tail("äöü\näöü\n", 9), "[... 7 bytes left out ...]\näöü\n");
    }

    #[test]
    fn only_lines_of_the_time_are_kept() {
        let text = "2026-01-01T00:00:01Z a\n2026-01-01T00:00:05.5Z b\n  more of b\n2026-01-01T00:00:09Z c\n";
        let at = |time: &str| time.parse().unwrap();
        let kept = between(text, at("2026-01-01T00:00:02Z"), at("2026-01-01T00:00:08Z"));
        assert_eq!(kept, "2026-01-01T00:00:05.5Z b\n  more of b\n");
    }
}
