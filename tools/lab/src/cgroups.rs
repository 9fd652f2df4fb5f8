//! The lab's cgroups: one of its own in every hierarchy of the machine, old kind and new.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use kit::{Cause, Context, Error, Result};

use crate::layout::Layout;

/// Makes the lab's cgroup in every hierarchy: the kubelet wants to find it.
pub(crate) fn create(layout: &Layout) -> Result<()> {
    for hierarchy in hierarchies()? {
        enable_controllers(&hierarchy);
        let folder = hierarchy.join(layout.cgroup());
        match fs::create_dir(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::from_source(Cause::Node, format!("cannot create {}", folder.display()), error));
            }
            _ => {}
        }
        enable_controllers(&folder);
    }
    Ok(())
}

/// Lets the children of a cgroup of the new kind use its controllers. In a hierarchy of the old kind, or where
/// it is so already, there is nothing to do, and what the kubelet then misses it says itself.
fn enable_controllers(folder: &Path) {
    let controllers = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
    for controller in controllers.split_whitespace() {
        let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
    }
}

/// Removes them with everything below. Their processes must have ended.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    let folders = all(layout)?;
    let late = || {
        let left: Vec<_> = folders.iter().filter(|folder| folder.exists()).map(|f| f.display().to_string()).collect();
        Error::new(Cause::Node, format!("cgroups of the lab remain: {}", left.join(", ")))
            .next("look which process is in them (cgroup.procs)")
    };
    kit::retry::until(Duration::from_secs(10), late, || {
        folders.iter().for_each(|folder| remove_tree(folder));
        Ok((!folders.iter().any(|folder| folder.exists())).then_some(()))
    })
}

/// Where the hierarchies of this machine are mounted.
pub(crate) fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").cause(Cause::Node, || "cannot read the mounts")?;
    Ok(parse(&mounts))
}

/// Bytes of memory that the cgroups above us leave, if one has a limit: a container's is the top of what it sees.
pub(crate) fn memory_left() -> Result<Option<u64>> {
    Ok(hierarchies()?.iter().filter_map(|folder| left(folder)).min())
}

/// The limit less what is in use and would not be given up (cgroup-v2.rst, memory.txt: the page cache that was not used
/// lately is given up).
fn left(folder: &Path) -> Option<u64> {
    let number = |file: &str| fs::read_to_string(folder.join(file)).ok()?.trim().parse::<u64>().ok();
    let limit = number("memory.max").or_else(|| number("memory.limit_in_bytes"))?;
    let used = number("memory.current").or_else(|| number("memory.usage_in_bytes")).unwrap_or_default();
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let field = |name: &str| {
        let value = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.and_then(|value| value.trim().parse::<u64>().ok())
    };
    let cache = field("total_inactive_file").or_else(|| field("inactive_file")).unwrap_or_default();
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

fn all(layout: &Layout) -> Result<Vec<PathBuf>> {
    Ok(hierarchies()?.into_iter().map(|mount| mount.join(layout.cgroup())).collect())
}

/// Mount points of type cgroup and cgroup2 (proc(5): fields, ` - `, type).
fn parse(mounts: &str) -> Vec<PathBuf> {
    let hierarchy = |line: &str| {
        let (fields, rest) = line.split_once(" - ")?;
        let kind = rest.split(' ').next()?;
        matches!(kind, "cgroup" | "cgroup2").then_some(())?;
        fields.split(' ').nth(4).map(PathBuf::from)
    };
    mounts.lines().filter_map(hierarchy).collect()
}

/// Deepest first. The files in them are the kernel's and go with the folder; what is busy stays for the next try.
fn remove_tree(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_what_a_limit_leaves() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        assert_eq!(left(folder.path()), None);
        write("memory.max", "max\n");
        write("memory.current", "300\n");
        assert_eq!(left(folder.path()), None);
        write("memory.max", "1000\n");
        write("memory.stat", "anon 250\ninactive_file 50\n");
        assert_eq!(left(folder.path()), Some(750));
        let old = tempfile::tempdir().unwrap();
        fs::write(old.path().join("memory.limit_in_bytes"), "1000\n").unwrap();
        fs::write(old.path().join("memory.usage_in_bytes"), "2000\n").unwrap();
        assert_eq!(left(old.path()), Some(0));
    }

    #[test]
    fn finds_both_kinds_of_hierarchies() {
        let mounts = "25 22 0:23 / /sys/fs/cgroup rw shared:4 - tmpfs tmpfs rw\n\
                      26 25 0:24 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      27 25 0:25 / /sys/fs/cgroup/unified rw shared:5 master:2 - cgroup2 cgroup2 rw\nnonsense\n";
        assert_eq!(parse(mounts), ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"].map(PathBuf::from));
    }
}
