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

use futures::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
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
/// What is kept of the log of one of the component's own containers, of the time of one failure.
const CONTROLLER: usize = 512 << 10;
/// The component's own containers.
const CONTROLLERS: usize = 40;
/// A longer line comes in pieces.
const LINE: u64 = 1 << 20;

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

/// The log of one of the component's own containers of some time, each line with its own.
#[derive(Debug, Clone)]
pub(super) struct Controller {
    pub(super) name: String,
    pub(super) text: String,
}

/// The component's own containers.
pub(super) struct Controllers {
    pods: Api<Pod>,
    /// Pod, container, and whether it is the start before the present one.
    sources: Vec<(String, String, bool)>,
    pub(super) cuts: Vec<String>,
}

impl Controllers {
    /// Those of the component's namespace.
    pub(super) async fn find(client: &Client, namespace: &str) -> Self {
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        let (mut sources, mut cuts) = (Vec::new(), Vec::new());
        match pods.list(&ListParams::default()).await {
            Ok(list) => sources.extend(list.iter().flat_map(containers)),
            Err(error) => cuts.push(format!("no logs of {namespace}: {}", cluster::describe(&error))),
        }
        if sources.len() > CONTROLLERS {
            cuts.push(format!("only {CONTROLLERS} of {} containers of {namespace} have logs", sources.len()));
            sources.truncate(CONTROLLERS);
        }
        Self { pods, sources, cuts }
    }

    /// What they said between these times.
    pub(super) async fn between(&mut self, from: Timestamp, to: Timestamp) -> Vec<Controller> {
        let mut found = Vec::new();
        for (pod, container, previous) in &self.sources {
            let name = format!("{pod}_{container}{}", if *previous { ".previous" } else { "" });
            let params = LogParams {
                container: Some(container.clone()),
                previous: *previous,
                timestamps: true,
                // It is rounded to seconds, also upwards.
                since_time: Some(from - SignedDuration::from_secs(1)),
                ..LogParams::default()
            };
            let read = async {
                let stream = self.pods.log_stream(pod, &params).await.map_err(|error| cluster::describe(&error))?;
                between(std::pin::pin!(stream), from, to).await.map_err(|error| error.to_string())
            };
            match read.await {
                Ok(text) if text.is_empty() => {}
                Ok(text) => found.push(Controller { name, text }),
                Err(error) => {
                    let cut = format!("no log of {name}: {error}");
                    if !self.cuts.contains(&cut) {
                        self.cuts.push(cut);
                    }
                }
            }
        }
        found
    }
}

/// The containers of a pod, and their starts before the present ones as far as they can be had.
fn containers(pod: &Pod) -> Vec<(String, String, bool)> {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let of = |status: &ContainerStatus| {
        let before = status.last_state.as_ref().is_some_and(|last| last.terminated.is_some());
        let starts = [Some(false), Some(true).filter(|_| before && status.restart_count > 0)];
        starts.into_iter().flatten().map(|previous| (pod.name_any(), status.name.clone(), previous)).collect::<Vec<_>>()
    };
    statuses.flat_map(of).collect()
}

/// The lines of a log with times between these, the last ones if they are many. It is not read further than that.
async fn between(mut log: impl AsyncBufRead + Unpin, from: Timestamp, to: Timestamp) -> std::io::Result<String> {
    let (mut kept, mut left_out, mut inside) = (Vec::new(), 0, false);
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut log).take(LINE).read_until(b'\n', &mut line).await? == 0 {
            break;
        }
        // What follows a line without a time of its own belongs to that line.
        if let Some(at) = time(&line) {
            inside = from <= at;
            if at > to {
                break;
            }
        }
        if inside {
            kept.extend_from_slice(&line);
            if kept.len() > 2 * CONTROLLER {
                left_out += shorten(&mut kept);
            }
        }
    }
    left_out += shorten(&mut kept);
    let note = if left_out > 0 { format!("[... {left_out} bytes left out ...]\n") } else { String::new() };
    Ok(note + &String::from_utf8_lossy(&kept))
}

/// The time at the beginning of a line.
fn time(line: &[u8]) -> Option<Timestamp> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    std::str::from_utf8(&line[..space]).ok()?.parse().ok()
}

/// Leaves the end, from a whole line on; says how much had to go.
fn shorten(text: &mut Vec<u8>) -> usize {
    let from = text.len().saturating_sub(CONTROLLER);
    let whole = |at: &usize| *at == 0 || text[*at - 1] == b'\n';
    let begin = (from..=text.len()).find(whole).unwrap_or(text.len());
    text.drain(..begin);
    begin
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
        let space =
            |name: &str| -> DynamicObject { serde_json::from_value(json!({"metadata": {"name": name}})).unwrap() };
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

    #[tokio::test]
    async fn only_lines_of_the_time_are_kept() {
        let at = |time: &str| time.parse().unwrap();
        let read = async |text: &str, from, to| between(text.as_bytes(), at(from), at(to)).await.unwrap();
        let text = "2026-01-01T00:00:01Z a\n2026-01-01T00:00:05.5Z b\n  more of b\n2026-01-01T00:00:09Z c\n";
        let kept = read(text, "2026-01-01T00:00:02Z", "2026-01-01T00:00:08Z").await;
        assert_eq!(kept, "2026-01-01T00:00:05.5Z b\n  more of b\n");
        // However much was said before, and however much in that time.
        let early = format!("2026-01-01T00:00:01Z {}\n", "x".repeat(100)).repeat(100_000);
        let kept = read(&(early + text), "2026-01-01T00:00:05Z", "2026-01-01T00:00:08Z").await;
        assert_eq!(kept, "2026-01-01T00:00:05.5Z b\n  more of b\n");
        let much = format!("2026-01-01T00:00:06Z {}\n", "x".repeat(100)).repeat(20_000);
        let kept =
            read(&format!("{much}2026-01-01T00:00:07Z last\n"), "2026-01-01T00:00:05Z", "2026-01-01T00:00:08Z").await;
        assert!(
            kept.starts_with("[... ") && kept.ends_with("Z last\n") && kept.len() <= CONTROLLER + 100,
            "{}",
            kept.len()
        );
        let whole = kept.lines().skip(1).all(|line| line.starts_with("2026-01-01T00:00:0"));
        assert!(whole && much.len() + 26 > kept.len());
    }

    #[test]
    fn a_container_that_was_started_again_has_two_logs() {
        let of = |restarts: i32, last: serde_json::Value| {
            let status = json!({"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": restarts,
                "lastState": last});
            let pod = json!({"metadata": {"name": "p"}, "status": {"containerStatuses": [status]}});
            containers(&serde_json::from_value(pod).unwrap()).len()
        };
        assert_eq!((of(0, json!({})), of(2, json!({"terminated": {"exitCode": 1}})), of(2, json!({}))), (1, 2, 1));
    }
}
