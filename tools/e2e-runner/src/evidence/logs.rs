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

use super::held::Container;

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
    /// By namespace.
    files: Mutex<BTreeMap<String, Vec<LogFile>>>,
    /// Under way.
    waiting: AtomicUsize,
    settled: Notify,
    bytes: AtomicU64,
    left_out: AtomicUsize,
    missing: Mutex<Vec<String>>,
}

impl Logs {
    pub(super) fn new(client: Client) -> Result<Self> {
        let folder = tempfile::tempdir().cause(Cause::HostDisk, || "cannot create a temporary folder")?;
        let state = State {
            folder,
            files: Mutex::default(),
            waiting: AtomicUsize::new(0),
            settled: Notify::new(),
            bytes: AtomicU64::new(0),
            left_out: AtomicUsize::new(0),
            missing: Mutex::default(),
        };
        Ok(Self { client, turns: Arc::new(Semaphore::new(PARALLEL)), state: Arc::new(state) })
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
        if state.bytes.load(Ordering::SeqCst) > DISK {
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
        let number = state.bytes.fetch_add(text.len() as u64, Ordering::SeqCst);
        let path = state
            .folder
            .path()
            .join(format!("{number}-{}", kit::digest::hex(container.uid.as_bytes()).get(..8).unwrap_or("")));
        let path = path.with_extension(format!("{}-{}", container.restart, kit::rundir::slug(&container.name)));
        if fs::write(&path, text.as_bytes()).is_err() {
            state.left_out.fetch_add(1, Ordering::SeqCst);
            return;
        }
        let mut files = state.files.lock().unwrap_or_else(PoisonError::into_inner);
        files.entry(container.namespace.clone()).or_default().push(LogFile { container, path });
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
        match self.state.left_out.load(Ordering::SeqCst) {
            0 => Vec::new(),
            n => vec![format!(
                "the logs of {n} containers were not kept: there is no room, or more than {} MiB",
                DISK >> 20
            )],
        }
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
    use super::*;

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
