//! What labs can leave on a machine: processes, namespaces, mounts, interfaces, rules, cgroups, files.
//!
//! Printed before `up` and after `down`, the two lists are to be the same. Each line is a kind, the lab
//! that it belongs to (`-` if to none that can be told), and the thing. Of one lab alone the list is to be
//! empty, whatever else goes on on the machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use kit::{Cause, Context, Done, Output, Process, Result, Ui};

use crate::{
    cgroups,
    layout::{ALIAS, CGROUP, LAB, Layout},
    network,
    prerequisites::command,
    process, record,
};

/// The kinds of namespaces that a lab has of its own.
const KINDS: [&str; 5] = ["net", "mnt", "pid", "uts", "ipc"];
/// Where a lab's programs would write on the machine if their own folders did not cover it.
const OUTSIDE: &[&str] = &[
    "/etc/cni",
    "/opt/cni",
    "/run/bin",
    "/run/containerd",
    "/run/lab",
    "/run/netns",
    "/run/supervisor.sock",
    "/var/lib/cni",
    "/var/lib/containerd",
    "/var/lib/etcd",
    "/var/lib/kubelet",
    "/var/lib/other-arch",
    "/var/log/containers",
    "/var/log/pods",
];

/// The lab that something belongs to, as far as it can be told.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    name: String,
    /// Of the cache: labs of one name in two caches are two.
    digest: Option<String>,
}

impl Owner {
    fn of(layout: &Layout) -> Self {
        Self { name: layout.name.clone(), digest: Some(layout.digest()) }
    }

    /// As [`Layout::id`] makes it.
    fn of_id(id: &str) -> Option<Self> {
        let (name, digest) = id.rsplit_once('-')?;
        Some(Self { name: name.into(), digest: Some(digest.into()) })
    }

    fn may_be(&self, layout: &Layout) -> bool {
        self.name == layout.name && self.digest.as_ref().is_none_or(|digest| *digest == layout.digest())
    }
}

/// A line of the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Thing {
    kind: &'static str,
    owner: Option<Owner>,
    what: String,
}

impl Thing {
    fn line(&self) -> String {
        format!("{} {} {}", self.kind, self.owner.as_ref().map_or("-", |owner| &owner.name), self.what)
    }
}

type List = BTreeSet<Thing>;

/// Prints the list, sorted, one thing a line: of the whole machine, or only what is the lab's of that name.
pub(crate) fn print(layout: &Layout, of: Option<&str>, ui: &Ui) -> Result<Done> {
    let of = of.map(|name| Layout::at(name, layout.cache().to_path_buf())).transpose()?;
    let mut list = List::new();
    processes(&mut list)?;
    mounts(layout, &mut list)?;
    interfaces(&mut list)?;
    rules(layout, &mut list)?;
    for hierarchy in cgroups::hierarchies()? {
        cgroup(&hierarchy, &mut list)?;
    }
    files(layout, &mut list)?;
    let wanted = |thing: &&Thing| {
        of.as_ref().is_none_or(|layout| thing.owner.as_ref().is_some_and(|owner| owner.may_be(layout)))
    };
    let lines: BTreeSet<_> = list.iter().filter(wanted).map(Thing::line).collect();
    if ui.output == Output::Json {
        ui.json(&lines)?;
    } else if !lines.is_empty() {
        ui.result(&lines.into_iter().collect::<Vec<_>>().join("\n"))?;
    }
    Ok(Done::good())
}

/// Processes in other namespaces than this one's, supervisors of labs, and all those namespaces.
fn processes(list: &mut List) -> Result<()> {
    let pids = process::pids()?;
    // A lab is known by the process namespace of its supervisor.
    let labs: BTreeMap<_, _> =
        pids.iter().filter_map(|pid| Some((namespace(*pid, "pid")?, Owner::of(&process::lab_of(*pid)?)))).collect();
    for pid in pids {
        let by_space = || labs.get(&namespace(pid, "pid")?).cloned();
        let owner = by_space().or_else(|| by_cgroup(pid)).or_else(|| by_mount(pid));
        let mut foreign = owner.is_some();
        for kind in KINDS {
            let (theirs, ours) = (namespace(pid, kind), namespace(std::process::id(), kind));
            if let (Some(theirs), Some(ours)) = (theirs, ours)
                && theirs != ours
            {
                foreign = true;
                let what = theirs.display().to_string();
                list.insert(Thing { kind: "namespace", owner: owner.clone(), what });
            }
        }
        if foreign {
            let line = process::words(pid).join(" ").chars().take(100).collect::<String>();
            let what = format!("{pid} {}", kit::ui::printable(line.trim_end()));
            list.insert(Thing { kind: "process", owner, what });
        }
    }
    Ok(())
}

/// Of a process that ends while we look, or that even root may not look into, there is nothing to say.
fn namespace(pid: u32, kind: &str) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()
}

fn by_cgroup(pid: u32) -> Option<Owner> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    text.lines().find_map(|line| cgroup_owner(Path::new(line.splitn(3, ':').nth(2)?)))
}

fn cgroup_owner(path: &Path) -> Option<Owner> {
    path.iter().find_map(|part| Owner::of_id(part.to_str()?.strip_prefix(CGROUP)?))
}

fn by_mount(pid: u32) -> Option<Owner> {
    state_in(&fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?)
}

/// The lab whose state (`labs/NAME/state`) is mounted at [`LAB`], though it may be deleted (proc_pid_mountinfo(5):
/// root of the mount within its file system, mount point).
fn state_in(mountinfo: &str) -> Option<Owner> {
    mountinfo.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut parts = root.trim_end_matches("//deleted").rsplit('/');
        let tail = (parts.next()?, parts.next()?, parts.next()?);
        match tail {
            ("state", name, "labs") if point == LAB => Some(Owner { name: name.into(), digest: None }),
            _ => None,
        }
    })
}

fn mounts(layout: &Layout, list: &mut List) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").cause(Cause::Node, || "cannot read the mounts")?;
    list.extend(mounts.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let (source, point) = (words.next()?, words.next()?);
        let name = Path::new(point).strip_prefix(layout.labs()).ok().and_then(|rest| rest.iter().next()?.to_str());
        let lab = name.and_then(|name| Layout::at(name, layout.cache().to_path_buf()).ok());
        Some(Thing { kind: "mount", owner: lab.as_ref().map(Owner::of), what: format!("{source} {point}") })
    }));
    Ok(())
}

fn interfaces(list: &mut List) -> Result<()> {
    let entries = fs::read_dir(network::INTERFACES).cause(Cause::Node, || "cannot list the interfaces")?;
    list.extend(entries.flatten().map(|entry| {
        let what = entry.file_name().display().to_string();
        let alias = network::alias(&what);
        let owner = alias.and_then(|alias| Owner::of_id(alias.strip_prefix(ALIAS)?));
        Thing { kind: "interface", owner, what }
    }));
    Ok(())
}

/// Rules of the packet filter, without their counters; a lab's are those that name its interface or its address.
fn rules(layout: &Layout, list: &mut List) -> Result<()> {
    let records: Vec<_> = labs(layout)?.into_iter().filter_map(|lab| Some((record::read(&lab).ok()??, lab))).collect();
    for program in ["iptables-save", "ip6tables-save", "iptables-legacy-save"] {
        let process = Process::new("list of packet filter rules", command(program)).cause(Cause::Node);
        let text = match process.limit(Duration::from_secs(20)).read() {
            // Without the program there can be none.
            Err(error) if error.cause == Cause::MissingProgram => continue,
            other => other?,
        };
        list.extend(text.lines().filter(|line| line.starts_with('-')).map(|rule| {
            let names = |word: &str| rule.split([' ', '/']).any(|other| other == word);
            let lab = records.iter().find(|(lab, _)| {
                names(&lab.interface) || names(&lab.address().to_string()) || rule.contains(&lab.subnet.to_string())
            });
            Thing { kind: "rule", owner: lab.map(|(_, lab)| Owner::of(lab)), what: format!("{program} {rule}") }
        }));
    }
    Ok(())
}

fn cgroup(folder: &Path, list: &mut List) -> Result<()> {
    for path in entries(folder)?.into_iter().filter(|path| path.is_dir() && !path.is_symlink()) {
        list.insert(Thing { kind: "cgroup", owner: cgroup_owner(&path), what: path.display().to_string() });
        cgroup(&path, list)?;
    }
    Ok(())
}

/// What `down` deletes in the cache, and what only a lab out of bounds can write elsewhere.
fn files(layout: &Layout, list: &mut List) -> Result<()> {
    let thing = |owner, path: &Path| Thing { kind: "file", owner, what: path.display().to_string() };
    for lab in labs(layout)? {
        let paths = [lab.state(), lab.kubeconfig(), lab.record()];
        list.extend(paths.iter().filter(|path| path.exists()).map(|path| thing(Some(Owner::of(&lab)), path)));
    }
    list.extend(OUTSIDE.iter().map(Path::new).filter(|path| path.exists()).map(|path| thing(None, path)));
    Ok(())
}

/// The labs of the cache, whether they are up or not.
fn labs(layout: &Layout) -> Result<Vec<Layout>> {
    let folders = entries(&layout.labs())?.into_iter().filter(|path| path.is_dir());
    Ok(folders.filter_map(|path| Layout::at(path.file_name()?.to_str()?, layout.cache().to_path_buf()).ok()).collect())
}

/// What is in a folder; nothing if there is no such folder.
fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).cause(Cause::Node, || format!("cannot list {}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_belongs_to_the_lab_whose_state_it_sees_even_when_that_is_deleted() {
        let owner = |root: &str, point: &str| {
            state_in(&format!("26 25 0:24 / / rw - ext4 d rw\n36 35 98:0 {root} {point} rw - ext4 /dev/x rw\n"))
        };
        let lab = Some(Owner { name: "a".into(), digest: None });
        assert_eq!(owner("/home/me/.cache/other-arch/labs/a/state", "/run/lab"), lab);
        assert_eq!(owner("/labs/a/state//deleted", "/run/lab"), lab);
        assert_eq!(owner("/labs/a/state", "/mnt"), None);
        assert_eq!(owner("/labs/a", "/run/lab"), None);
    }

    #[test]
    fn a_cgroup_names_its_lab_and_its_cache() {
        let layout = Layout::new("my-lab").unwrap();
        let folder = Path::new("/sys/fs/cgroup").join(layout.cgroup()).join("kubepods");
        let owner = cgroup_owner(&folder).unwrap();
        assert!(owner.may_be(&layout));
        let elsewhere = Layout::at("my-lab", "/no/such/cache".into()).unwrap();
        assert!(!owner.may_be(&elsewhere));
        assert_eq!(cgroup_owner(Path::new("/sys/fs/cgroup/kubepods")), None);
    }
}
