//! What labs can leave on a machine: processes, namespaces, mounts, interfaces, rules, cgroups.
//!
//! Printed before `up` and after `down`, the two lists are to be the same.

use std::{collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use kit::{Cause, Context, Done, Output, Process, Result, Ui};

use crate::cgroups;

/// Prints the list, sorted, one thing a line.
pub(crate) fn print(ui: &Ui) -> Result<Done> {
    let mut list = BTreeSet::new();
    processes(&mut list)?;
    mounts(&mut list)?;
    interfaces(&mut list)?;
    rules(&mut list);
    for hierarchy in cgroups::hierarchies()? {
        cgroup(&hierarchy, &mut list);
    }
    if ui.output == Output::Json {
        ui.json(&list)?;
    } else {
        ui.result(&list.into_iter().collect::<Vec<_>>().join("\n"))?;
    }
    Ok(Done::good())
}

/// Processes that are in other namespaces than this one or belong to a lab, and all namespaces.
fn processes(list: &mut BTreeSet<String>) -> Result<()> {
    let entries = fs::read_dir("/proc").cause(Cause::Node, || "cannot list the processes")?;
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let mut foreign = false;
        for kind in ["net", "mnt", "pid", "uts", "ipc"] {
            let theirs = fs::read_link(entry.path().join("ns").join(kind));
            let ours = fs::read_link(Path::new("/proc/self/ns").join(kind));
            if let (Ok(theirs), Ok(ours)) = (theirs, ours)
                && theirs != ours
            {
                foreign = true;
                list.insert(format!("namespace {}", theirs.display()));
            }
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if foreign || line.contains(" supervise ") {
            list.insert(format!("process {pid} {}", line.chars().take(80).collect::<String>().trim_end()));
        }
    }
    Ok(())
}

fn mounts(list: &mut BTreeSet<String>) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").cause(Cause::Node, || "cannot read the mounts")?;
    list.extend(mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some(format!("mount {} {}", words.next()?, words.next()?))
    }));
    Ok(())
}

fn interfaces(list: &mut BTreeSet<String>) -> Result<()> {
    let entries = fs::read_dir("/sys/class/net").cause(Cause::Node, || "cannot list the interfaces")?;
    list.extend(entries.flatten().map(|entry| format!("interface {}", entry.file_name().display())));
    Ok(())
}

/// Rules of the packet filter, without their counters. A machine without the programs can have none of ours.
fn rules(list: &mut BTreeSet<String>) {
    for program in ["iptables-save", "ip6tables-save", "iptables-legacy-save"] {
        let process = Process::new("list of packet filter rules", Command::new(program));
        let text = process.limit(Duration::from_secs(20)).read().unwrap_or_default();
        let rules = text.lines().filter(|line| line.starts_with('-'));
        list.extend(rules.map(|rule| format!("rule {program} {rule}")));
    }
}

fn cgroup(folder: &Path, list: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        list.insert(format!("cgroup {}", entry.path().display()));
        cgroup(&entry.path(), list);
    }
}
