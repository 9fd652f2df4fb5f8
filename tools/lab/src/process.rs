//! The lab's first process, seen from the host: starting it, finding it, ending it.
//!
//! It is found by its arguments and not by a recorded number: a number may be somebody else's by now, and
//! an `up` that was killed has recorded nothing.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    time::Duration,
};

use kit::{Cause, Context, Error, Process, Result};
use rustix::process::{Pid, PidfdFlags, Signal, geteuid, pidfd_open, pidfd_send_signal};

use crate::{
    control::{Request, ask},
    layout::{LAB, Layout},
    prerequisites::command,
};

/// Closes what our caller has left open and becomes its arguments: the lab outlives us all, and would hold a lock or
/// the end of a pipe for as long. From Rust that takes `unsafe`.
const ALONE: &str = r#"for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    [ "$fd" -le 2 ] || eval "exec $fd>&-"
done
exec "$@""#;

/// Starts the lab's first process in namespaces of its own and waits until it listens.
pub(crate) fn start(layout: &Layout) -> Result<u32> {
    let program = std::env::current_exe().cause(Cause::Internal, || "cannot find this program's file")?;
    let mut command = command("bash");
    command.args(["-c", ALONE, "lab", "unshare", "--net", "--mount", "--pid", "--uts", "--ipc", "--fork"]);
    command.args(["--propagation", "private"]).arg(program).args(arguments(layout)).current_dir("/");
    command.env(OUTSIDE, namespaces().join(" ")).env_remove("BASH_ENV");
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
pub(crate) fn last_lines(log: &Path) -> String {
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
    Ok(supervisors(layout)?.into_iter().find(|pid| is_first(*pid)))
}

/// Ends the lab's processes: the first one, with which the kernel ends all others, and its starter.
///
/// The first one of a namespace has ended only when all others have: the kernel sees to that (pid_namespaces(7)).
pub(crate) fn end(layout: &Layout) -> Result<()> {
    let name = &layout.name;
    let late = || Error::new(Cause::Node, format!("processes of lab '{name}' do not end"));
    let mut killed: Vec<Killed> = Vec::new();
    kit::retry::until(Duration::from_secs(30), late, || {
        killed.retain(|process| !process.has_ended());
        let alive = supervisors(layout)?;
        killed.extend(alive.iter().filter_map(|pid| Killed::kill(*pid, &|| is_supervisor(*pid, layout))));
        Ok((killed.is_empty() && alive.is_empty()).then_some(()))
    })?;
    // Those of a lab whose first process somebody else has killed a moment ago are still ending.
    let mut left = Vec::new();
    let waited = kit::retry::until(Duration::from_secs(30), late, || {
        left = pids()?.into_iter().filter(|pid| is_inside(*pid, layout)).map(|pid| pid.to_string()).collect();
        Ok(left.is_empty().then_some(()))
    });
    waited.map_err(|error| {
        error.line(format!("in it: {}", left.join(" "))).next("end these processes, then call it again")
    })
}

/// A process that was killed, known by its number and the moment of its start.
struct Killed {
    pid: u32,
    started: String,
    _handle: OwnedFd,
}

impl Killed {
    /// Kills a process if it still is what it should be once we have hold of it.
    fn kill(pid: u32, is_it: &dyn Fn() -> bool) -> Option<Self> {
        let handle = pidfd_open(Pid::from_raw(i32::try_from(pid).ok()?)?, PidfdFlags::empty()).ok()?;
        let (_, started) = state_and_start(pid)?;
        if !is_it() {
            return None;
        }
        // It may be ending already.
        let _ = pidfd_send_signal(&handle, Signal::KILL);
        Some(Self { pid, started, _handle: handle })
    }

    /// Nothing of it runs any more; somebody may still have to ask how it ended.
    fn has_ended(&self) -> bool {
        state_and_start(self.pid)
            .is_none_or(|(state, started)| started != self.started || matches!(state.as_str(), "Z" | "X"))
    }
}

/// The fields `state` and `starttime` (proc_pid_stat(5)); the second one holds any character.
fn state_and_start(pid: u32) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    Some(((*fields.first()?).to_owned(), (*fields.get(19)?).to_owned()))
}

/// All processes with the supervisor's arguments: it and `unshare`, which waits for it.
fn supervisors(layout: &Layout) -> Result<Vec<u32>> {
    Ok(pids()?.into_iter().filter(|pid| is_supervisor(*pid, layout)).collect())
}

fn is_supervisor(pid: u32, layout: &Layout) -> bool {
    pid != std::process::id() && is_ours(pid) && words(pid).ends_with(&arguments(layout))
}

/// Anybody can start a process with such arguments: only one of our own user is a lab's.
fn is_ours(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok_and(|process| process.uid() == geteuid().as_raw())
}

/// Whether a process sees the lab's state where the lab's programs see it.
fn is_inside(pid: u32, layout: &Layout) -> bool {
    let key = |path: &Path| fs::metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()));
    let seen = key(&crate::layout::through(pid, LAB));
    seen.is_some() && seen == key(&layout.state())
}

/// The numbers of all processes.
pub(crate) fn pids() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").cause(Cause::Node, || "cannot list the processes")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// The lab that a process supervises, if it is such a process.
pub(crate) fn lab_of(pid: u32) -> Option<Layout> {
    let words = words(pid);
    match words.get(words.len().checked_sub(4)?..)? {
        [option, name, verb, cache] if option == "--name" && verb == "supervise" && is_ours(pid) && is_first(pid) => {
            Layout::at(name, PathBuf::from(cache)).ok()
        }
        _ => None,
    }
}

/// The arguments of a process.
pub(crate) fn words(pid: u32) -> Vec<String> {
    let line = fs::read(PathBuf::from(format!("/proc/{pid}/cmdline"))).unwrap_or_default();
    let words = line.strip_suffix(b"\0").unwrap_or(&line).split(|byte| *byte == 0);
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// Tells the supervisor which namespaces are not its own.
const OUTSIDE: &str = "OTHER_ARCH_LAB_OUTSIDE";

/// The namespaces of this process in which a supervisor must not be.
fn namespaces() -> Vec<String> {
    let links = ["net", "mnt", "uts", "ipc"].map(|kind| fs::read_link(format!("/proc/self/ns/{kind}")));
    links.into_iter().flatten().map(|link| link.display().to_string()).collect()
}

/// Whether this process is the first of namespaces that were made for it: what it does to mounts, network and
/// name of the machine it then does to nobody else.
pub(crate) fn is_first_of_its_own() -> bool {
    let outside = std::env::var(OUTSIDE).unwrap_or_default();
    let ours = namespaces();
    // /proc is still the outside's: there it has another number.
    let number = fs::read_link("/proc/self").ok().and_then(|link| link.to_str()?.parse().ok());
    let apart = outside.split(' ').count() == ours.len() && !ours.iter().any(|own| outside.contains(own));
    std::process::id() == 1 && number.is_some_and(is_first) && apart
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_process_has_ended_only_when_nothing_of_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let mut command = std::process::Command::new("sleep");
        command.arg("1000");
        let mut child = Process::new("sleep", command).spawn(&folder.path().join("log")).unwrap();
        assert!(Killed::kill(child.id(), &|| false).is_none());
        assert!(child.try_wait().unwrap().is_none(), "killed, though it was somebody else");
        let killed = Killed::kill(child.id(), &|| true).unwrap();
        let late = || Error::new(Cause::Internal, "still there");
        kit::retry::until(Duration::from_secs(10), late, || Ok(killed.has_ended().then_some(()))).unwrap();
        child.wait().unwrap();
        assert!(killed.has_ended());
    }

    #[test]
    fn this_process_is_no_supervisor() {
        assert!(!is_first_of_its_own());
    }
}
