//! What labs can leave on a machine: processes, namespaces, mounts, interfaces, rules, cgroups.
//!
//! Printed before `up` and after `down`, the two lists are to be the same. Each line is a kind, the lab
//! that it belongs to (`-` if to none that runs), and the thing.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kit::{Cause, Context, Done, Output, Process, Result, Ui};

use crate::{cgroups, layout::Layout, process, record::Record};

/// Nobody's.
const NOBODY: &str = "-";
/// The kinds of namespaces that a lab has of its own.
const KINDS: [&str; 5] = ["net", "mnt", "pid", "uts", "ipc"];

/// Prints the list, sorted, one thing a line.
pub(crate) fn print(layout: &Layout, ui: &Ui) -> Result<Done> {
    let mut list = BTreeSet::new();
    processes(&mut list)?;
    mounts(&mut list)?;
    interfaces(layout, &mut list)?;
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

/// Processes in other namespaces than this one's, supervisors of labs, and all those namespaces.
fn processes(list: &mut BTreeSet<String>) -> Result<()> {
    let entries = fs::read_dir("/proc").cause(Cause::Node, || "cannot list the processes")?;
    let pids: Vec<u32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // A lab is known by the process namespace of its supervisor.
    let labs: BTreeMap<_, _> =
        pids.iter().filter_map(|pid| Some((namespace(*pid, "pid")?, process::lab_of(*pid)?))).collect();
    for pid in pids {
        let space = namespace(pid, "pid");
        let owner = space.and_then(|space| labs.get(&space)).map_or(NOBODY, String::as_str);
        let mut foreign = process::lab_of(pid).is_some();
        for kind in KINDS {
            let (theirs, ours) = (namespace(pid, kind), namespace(std::process::id(), kind));
            if let (Some(theirs), Some(ours)) = (theirs, ours)
                && theirs != ours
            {
                foreign = true;
                list.insert(format!("namespace {owner} {}", theirs.display()));
            }
        }
        if foreign {
            let line = process::words(pid).join(" ").chars().take(100).collect::<String>();
            list.insert(format!("process {owner} {pid} {}", kit::ui::printable(line.trim_end())));
        }
    }
    Ok(())
}

fn namespace(pid: u32, kind: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()
}

fn mounts(list: &mut BTreeSet<String>) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").cause(Cause::Node, || "cannot read the mounts")?;
    list.extend(mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some(format!("mount {NOBODY} {} {}", words.next()?, words.next()?))
    }));
    Ok(())
}

fn interfaces(layout: &Layout, list: &mut BTreeSet<String>) -> Result<()> {
    let labs = fs::read_dir(layout.labs()).into_iter().flatten().flatten();
    let owners: BTreeMap<_, _> = labs
        .filter_map(|entry| {
            let lab = Layout::at(entry.file_name().to_str()?, layout.cache().to_path_buf()).ok()?;
            let record = Record::read(&lab).ok()??;
            process::find(&lab).ok()??;
            Some((record.interface, record.name))
        })
        .collect();
    let entries = fs::read_dir("/sys/class/net").cause(Cause::Node, || "cannot list the interfaces")?;
    list.extend(entries.flatten().map(|entry| {
        let name = entry.file_name().display().to_string();
        format!("interface {} {name}", owners.get(&name).map_or(NOBODY, String::as_str))
    }));
    Ok(())
}

/// Rules of the packet filter, without their counters. A machine without the programs can have none of ours.
fn rules(list: &mut BTreeSet<String>) {
    for program in ["iptables-save", "ip6tables-save", "iptables-legacy-save"] {
        let process = Process::new("list of packet filter rules", Command::new(program));
        let text = process.limit(Duration::from_secs(20)).read().unwrap_or_default();
        let rules = text.lines().filter(|line| line.starts_with('-'));
        list.extend(rules.map(|rule| format!("rule {NOBODY} {program} {rule}")));
    }
}

fn cgroup(folder: &Path, list: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let path = entry.path();
        let owner = path.iter().find_map(|part| part.to_str()?.strip_prefix("other-arch-"));
        list.insert(format!("cgroup {} {}", owner.unwrap_or(NOBODY), path.display()));
        cgroup(&path, list);
    }
}
