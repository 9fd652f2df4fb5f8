//! The lab's first process, seen from the host: starting it, finding it, ending it.
//!
//! It is found by its arguments and not by a recorded number: a number may be somebody else's by now, and
//! an `up` that was killed has recorded nothing.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use kit::{Cause, Context, Error, Process, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::{
    control::{Request, ask},
    layout::Layout,
};

/// Starts the lab's first process in namespaces of its own and waits until it listens.
pub(crate) fn start(layout: &Layout) -> Result<u32> {
    let program = std::env::current_exe().cause(Cause::Internal, || "cannot find this program's file")?;
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--uts", "--ipc", "--fork", "--propagation", "private"]);
    command.arg(program).args(arguments(layout)).current_dir("/");
    let log = layout.logs().join("supervisor.log");
    let mut child = Process::new("the lab's supervisor", command).cause(Cause::Node).spawn(&log)?;
    let late = || Error::new(Cause::Node, "the lab's supervisor does not answer").line(last_lines(&log));
    kit::retry::until(Duration::from_secs(20), late, || {
        if let Ok(Some(status)) = child.try_wait() {
            let error = Error::new(Cause::Node, format!("the lab's supervisor ended: {status}"));
            return Err(error.line(last_lines(&log)));
        }
        Ok(find(layout)?.filter(|pid| ask(*pid, &Request::Status).is_ok()))
    })
}

/// The last lines of a log, for an error.
pub(crate) fn last_lines(log: &std::path::Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text[text.len().saturating_sub(8192)..]).into_owned();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

fn arguments(layout: &Layout) -> [String; 4] {
    let cache = layout.cache().display().to_string();
    ["--name".into(), layout.name.clone(), "supervise".into(), cache]
}

/// The number of the lab's first process on the host, if it lives.
pub(crate) fn find(layout: &Layout) -> Result<Option<u32>> {
    Ok(all(layout)?.into_iter().find(|pid| is_first(*pid)))
}

/// Ends the lab's processes: the first one, with which the kernel ends all others, and its starter.
pub(crate) fn end(layout: &Layout) -> Result<()> {
    let late = || Error::new(Cause::Node, format!("processes of lab '{}' do not end", layout.name));
    kit::retry::until(Duration::from_secs(30), late, || {
        let pids = all(layout)?;
        for pid in pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?)) {
            // It may have ended since it was found.
            let _ = kill_process(pid, Signal::KILL);
        }
        Ok(pids.is_empty().then_some(()))
    })
}

/// All processes with the supervisor's arguments: it and `unshare`, which waits for it.
fn all(layout: &Layout) -> Result<Vec<u32>> {
    let wanted = arguments(layout);
    let entries = fs::read_dir("/proc").cause(Cause::Node, || "cannot list the processes")?;
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| *pid != std::process::id() && words(*pid).ends_with(&wanted)).collect())
}

/// The name of the lab that a process supervises, if it is such a process.
pub(crate) fn lab_of(pid: u32) -> Option<String> {
    let words = words(pid);
    match words.get(words.len().checked_sub(4)?..)? {
        [option, name, verb, _] if option == "--name" && verb == "supervise" && is_first(pid) => Some(name.clone()),
        _ => None,
    }
}

/// The arguments of a process.
pub(crate) fn words(pid: u32) -> Vec<String> {
    let line = fs::read(PathBuf::from(format!("/proc/{pid}/cmdline"))).unwrap_or_default();
    let words = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Whether it is the first process of its namespace (proc(5): NSpid has a number for each level).
fn is_first(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    numbers.is_some_and(|numbers| {
        let numbers: Vec<_> = numbers.split_whitespace().collect();
        numbers.len() > 1 && numbers.last() == Some(&"1")
    })
}
