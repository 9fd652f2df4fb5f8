//! A folder of evidence for each failure: what to read first, objects, events, logs. All of it together stays below a
//! limit, and what was cut is said.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use cluster::explain::{self, Context as Known};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kit::{Platform, Result, record::Collected, rundir, ui};
use kube::ResourceExt;
use serde_json::Value;

use super::{
    file_name,
    held::Held,
    logs::{Controller, Logs},
    owner::Owners,
};
use crate::{parse::log, report::Row};

/// Of all failures together.
const ALL: u64 = 32 << 20;
/// Of one failure.
const EACH: u64 = 6 << 20;
/// How long after a test's end its consequences still count.
const AFTER: SignedDuration = SignedDuration::from_secs(5);

/// The time in which the component's containers may have said why a test failed that ran then.
pub(super) fn window((began, ended): (Timestamp, Timestamp)) -> (Timestamp, Timestamp) {
    (began - SignedDuration::from_secs(1), ended + AFTER)
}

/// A failure, and where to look.
pub(super) struct About<'a> {
    pub(super) row: &'a Row,
    pub(super) owners: &'a Owners,
    pub(super) namespaces: &'a [String],
    pub(super) component: Option<&'a str>,
    pub(super) controllers: &'a [Controller],
    pub(super) platform: &'a Platform,
}

/// Writes evidence within its limits.
pub(super) struct Writer {
    folder: PathBuf,
    collected: Collected,
    /// What is left for the present failure.
    left: u64,
}

impl Writer {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_path_buf(), collected: Collected::default(), left: EACH }
    }

    pub(super) fn cut(&mut self, what: String) {
        if !self.collected.cut.contains(&what) {
            self.collected.cut.push(what);
        }
    }

    pub(super) fn cuts(&mut self, what: Vec<String>) {
        what.into_iter().for_each(|what| self.cut(what));
    }

    pub(super) fn finish(self) -> Collected {
        self.collected
    }

    fn file(&mut self, path: &Path, bytes: &[u8], of: &str) -> Result<()> {
        let size = bytes.len() as u64;
        if bytes.is_empty() {
            return Ok(());
        }
        if size > self.left || self.collected.bytes + size > ALL {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.cut(format!(
                "{of}: {name}, {size} bytes: more than {} MiB of one failure or {} MiB of all",
                EACH >> 20,
                ALL >> 20
            ));
            return Ok(());
        }
        rundir::write(path, bytes)?;
        self.left -= size;
        self.collected.files += 1;
        self.collected.bytes += size;
        Ok(())
    }

    /// Writes what there is of a failure; returns its folder's name.
    ///
    /// # Errors
    /// `Cause::HostDisk` naming the file.
    pub(super) fn test(&mut self, about: &About<'_>, held: &Held, logs: &Logs) -> Result<String> {
        let test = &about.row.test.name;
        let name = log::file_name(test);
        let folder = self.folder.join(&name);
        self.left = EACH;
        self.file(&folder.join("summary.txt"), summary(about, held, logs).as_bytes(), test)?;
        let (began, ended) = about.row.ran.unwrap_or_default();
        if let Some(component) = about.component {
            let of_time = |event: &&Event| time(event).is_some_and(|at| began <= at && at <= ended + AFTER);
            let events: Vec<_> = held.events(component).into_iter().filter(|event| of_time(&event)).collect();
            self.file(&folder.join("controllers/events.txt"), table(&events).as_bytes(), test)?;
        }
        for namespace in about.namespaces {
            let folder = folder.join(file_name(&[namespace]));
            self.file(&folder.join("events.txt"), table(&held.events(namespace)).as_bytes(), test)?;
            self.file(&folder.join("objects.json"), &objects(held, namespace), test)?;
            for file in logs.of(namespace) {
                let container = &file.container;
                let before =
                    if container.previous { format!(".previous-{}", container.restart) } else { String::new() };
                let path = folder
                    .join("logs")
                    .join(format!("{}{before}.log", file_name(&[&container.pod, &container.name]).display()));
                let text = std::fs::read(&file.path).unwrap_or_default();
                self.file(&path, &text, test)?;
            }
        }
        for controller in about.controllers {
            let path = folder.join("controllers").join(format!("{}.log", file_name(&[&controller.name]).display()));
            self.file(&path, controller.text.as_bytes(), test)?;
        }
        Ok(name)
    }
}

/// What to read first.
fn summary(about: &About<'_>, held: &Held, logs: &Logs) -> String {
    let test = &about.row.test;
    let mut text = format!("{}\n", ui::printable(&test.name));
    let cause = test.cause.map_or("", kit::Cause::name);
    let _ = writeln!(text, "{:?} [{cause}] {}", test.status, ui::printable(test.line.as_deref().unwrap_or_default()));
    if let Some((began, ended)) = about.row.ran {
        let _ = writeln!(text, "from {began} to {ended}");
    }
    if about.namespaces.is_empty() {
        text.push_str("\nno namespace came while it ran, so there are no pods of its own\n");
    }
    for namespace in about.namespaces {
        let how = if about.owners.is_named(&test.name, namespace) {
            "its log names it"
        } else {
            "it came while the test ran"
        };
        let _ = writeln!(text, "\nnamespace {namespace} ({how})");
        let events = held.events(namespace);
        for pod in held.pods(namespace) {
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone()).unwrap_or_default();
            let known = Known { events: &events, logs: &[], platform: Some(about.platform), nodes: &[] };
            let why = explain::pod(&pod, known).map_or(String::new(), |trouble| format!(": {}", trouble.line));
            let _ = writeln!(text, "  pod {} {phase}{}", pod.name_any(), ui::printable(&why));
        }
        for line in logs.missing(namespace) {
            let _ = writeln!(text, "  no {}", ui::printable(&line));
        }
        let other = held.space(namespace).into_iter().flat_map(|space| &space.objects);
        for ((kind, name), kept) in other.filter(|((kind, _), _)| kind != "Pod") {
            let gone = if kept.gone { ", deleted since" } else { "" };
            let _ = writeln!(text, "  {kind} {name}{}{gone}", ui::printable(&condition(&kept.json)));
        }
    }
    text
}

/// What an object says of its success, by the convention that Knative and Tekton follow.
fn condition(json: &str) -> String {
    let object: Value = serde_json::from_str(json).unwrap_or_default();
    let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let main = conditions
        .iter()
        .find(|condition| matches!(condition["type"].as_str(), Some("Succeeded" | "Ready" | "Available")));
    let Some(main) = main else { return String::new() };
    let word = |name: &str| main[name].as_str().unwrap_or_default().chars().take(300).collect::<String>();
    format!(": {}={} {} {}", word("type"), word("status"), word("reason"), word("message")).trim_end().to_owned()
}

fn objects(held: &Held, namespace: &str) -> Vec<u8> {
    let kept = held.space(namespace).into_iter().flat_map(|space| space.objects.iter());
    let all: Vec<Value> = kept
        .filter_map(|((kind, _), kept)| {
            let mut object: Value = serde_json::from_str(&kept.json).ok()?;
            object["kind"] = kind.clone().into();
            Some(object)
        })
        .collect();
    if all.is_empty() { Vec::new() } else { serde_json::to_vec_pretty(&all).unwrap_or_default() }
}

fn time(event: &Event) -> Option<Timestamp> {
    let last = event.last_timestamp.as_ref().map(|time| time.0);
    last.or_else(|| event.event_time.as_ref().map(|time| time.0))
        .or_else(|| event.metadata.creation_timestamp.as_ref().map(|time| time.0))
}

/// Events, the oldest first, one a line.
fn table(events: &[Event]) -> String {
    let mut events: Vec<_> = events.iter().collect();
    events.sort_by_key(|event| time(event));
    let mut text = String::new();
    for event in events {
        let at = time(event).map(|time| time.strftime("%H:%M:%S").to_string()).unwrap_or_default();
        let about = &event.involved_object;
        let often = event.count.filter(|count| *count > 1).map_or(String::new(), |count| format!(" ({count} times)"));
        let line = format!(
            "{at} {} {} {}/{}{often}: {}",
            event.type_.as_deref().unwrap_or_default(),
            event.reason.as_deref().unwrap_or_default(),
            about.kind.as_deref().unwrap_or_default(),
            about.name.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default()
        );
        let _ = writeln!(text, "{}", ui::printable(&line));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept_and_said() {
        let folder = tempfile::tempdir().unwrap();
        let mut writer = Writer::new(folder.path());
        let bytes = vec![b'x'; 4 << 20];
        for name in ["a.log", "b.log"] {
            writer.file(&folder.path().join("TestA").join(name), &bytes, "TestA").unwrap();
        }
        writer.file(&folder.path().join("TestA/empty.log"), &[], "TestA").unwrap();
        for n in 0..9 {
            writer.left = EACH;
            writer.file(&folder.path().join(format!("Test{n}/a.log")), &bytes, "TestN").unwrap();
        }
        let collected = writer.finish();
        assert_eq!((collected.files, collected.bytes), (8, 32 << 20));
        assert_eq!(collected.cut.len(), 2, "{:?}", collected.cut);
        assert!(collected.cut[0].starts_with("TestA: b.log, 4194304 bytes"), "{:?}", collected.cut);
    }

    #[test]
    fn events_are_in_order_and_safe() {
        let event = |time: &str, message: &str| -> Event {
            serde_json::from_value(serde_json::json!({
                "metadata": {}, "involvedObject": {"kind": "Pod", "name": "p"}, "type": "Warning", "reason": "Failed",
                "lastTimestamp": time, "message": message, "count": 3,
            }))
            .unwrap()
        };
        let text = table(&[event("2026-01-01T00:00:09Z", "late"), event("2026-01-01T00:00:01Z", "a\u{1b}[2Jb\nc")]);
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("00:00:01 Warning Failed Pod/p (3 times): a"), "{text}");
        assert!(!text.contains('\u{1b}') && lines.last().unwrap().ends_with("late"), "{text}");
    }

    #[test]
    fn a_condition_is_one_line() {
        let json = r#"{"status":{"conditions":[{"type":"Succeeded","status":"False","reason":"TaskRunImagePullFailed","message":"no"}]}}"#;
        assert_eq!(condition(json), ": Succeeded=False TaskRunImagePullFailed no");
        assert_eq!(condition("{}"), "");
    }
}
