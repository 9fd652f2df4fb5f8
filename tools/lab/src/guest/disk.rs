//! What a node of another architecture boots from, the same for all labs: kernel, initial memory disk and a read-only
//! disk, put together from Debian's packages and our own programs.
//!
//! It lies in the cache as the part `node-ARCH`. A key over everything that went in names its folder, and a manifest
//! in it has the digests, so what was damaged since is found and made anew.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use debian::{Package, Tree, apt, deb, tree::merge_usr};
use kit::{Arch, Cause, Context, Error, Platform, Process, Result, Ui, Within, digest, record::SCHEMA_VERSION};
use serde::{Deserialize, Serialize};

use super::{
    CNI, cpio,
    machine::Machine,
    modules::{Modules, WANTED},
};
use crate::{
    config, image,
    layout::Layout,
    parts::{self, Go},
    prerequisites::command,
};

/// Changes when the same input gives another disk.
const FORMAT: &str = "2";
/// Debian's packages of a node: shell and network, mounts, the packet filter, containers, and a quick gunzip for layers.
const PACKAGES: &[&str] = &[
    "base-files",
    "busybox-static",
    "libc6",
    "libgcc-s1",
    "mount",
    "libmount1",
    "libblkid1",
    "libselinux1",
    "libpcre2-8-0",
    "libsmartcols1",
    "iptables",
    "libxtables12",
    "libip4tc2",
    "libip6tc2",
    "libmnl0",
    "libnftnl11",
    "libnfnetlink0",
    "libnetfilter-conntrack3",
    "conntrack",
    "runc",
    "libseccomp2",
    "pigz",
    "zlib1g",
];
/// Our own programs, from the same sources as the host's.
const PARTS: &[&str] = &["containerd", "cni", "pause", "node", "storage"];
/// The commands of busybox that a node's scripts use.
const COMMANDS: &[&str] = &[
    "cat", "cut", "date", "dmesg", "free", "grep", "hostname", "ip", "kill", "ls", "mkdir", "poweroff", "ps", "rm",
    "sed", "sh", "sleep", "touch", "uname", "wget",
];
/// Nothing runs on a node that needs these.
const DROPPED: &[&str] = &["/boot", "/lib/modules", "/usr/share", "/usr/lib/systemd", "/etc/init.d"];
/// Folders that file systems are mounted on.
const MOUNTED: &[&str] = &["/proc", "/sys", "/dev", "/run", "/tmp", "/var", "/root", "/mnt"];
const FILES: [&str; 3] = ["kernel", "initrd", "disk"];
const MANIFEST: &str = "manifest.json";

/// What a node's disk was made of, and the digests of what came out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: String,
    platform: Platform,
    packages: Vec<Package>,
    parts: BTreeMap<String, String>,
    files: BTreeMap<String, String>,
}

/// The part of the cache that nodes of an architecture boot from.
fn part(machine: &Machine) -> String {
    format!("node-{}", machine.arch)
}

/// Whether the cache has a node's disk (part and key) as it was made. A damaged one is removed.
pub(crate) fn is_whole(layout: &Layout, disk: &str, ui: &Ui) -> Result<bool> {
    let folder = layout.bin().join(disk);
    let parent = folder.parent().unwrap_or(&folder);
    let _lock = parts::lock(&parent.join(".lock"), &format!("a build of {disk}"), ui)?;
    look(&folder, ui)
}

/// Whether a disk is there and whole; a damaged one is removed.
fn look(folder: &Path, ui: &Ui) -> Result<bool> {
    if !folder.is_dir() {
        return Ok(false);
    }
    match check(folder) {
        Ok(()) => Ok(true),
        Err(error) => {
            ui.warn(format!("{}; it is made anew", error.summary()));
            fs::remove_dir_all(folder).cause(Cause::HostDisk, || format!("cannot remove {}", folder.display()))?;
            Ok(false)
        }
    }
}

/// Builds our programs for a machine unless the cache has them; returns their keys.
pub(crate) fn build(layout: &Layout, machine: &Machine, go: &Go, ui: &Ui) -> Result<BTreeMap<String, String>> {
    let arch = machine.arch()?;
    PARTS.iter().map(|name| Ok(((*name).to_owned(), parts::part(name)?.build(layout, go, arch, ui)?))).collect()
}

/// Makes it unless the cache has it whole; returns its part and key.
pub(crate) fn make(layout: &Layout, machine: &Machine, go: &Go, ui: &Ui) -> Result<String> {
    let arch = machine.arch()?;
    let platform = Platform::from_parts("linux", arch.go, None, None);
    let keys = build(layout, machine, go, ui)?;
    let packages = packages(&platform, machine, ui)?;
    let parent = layout.bin().join(part(machine));
    fs::create_dir_all(&parent).cause(Cause::HostDisk, || format!("cannot create {}", parent.display()))?;
    let key = key(&packages, &keys)?;
    let folder = parent.join(&key);
    let _lock = parts::lock(&parent.join(".lock"), &format!("another build of {}", part(machine)), ui)?;
    parts::sweep(&parent);
    let disk = format!("{}/{key}", part(machine));
    if look(&folder, ui)? {
        return Ok(disk);
    }
    let step = ui.step(format!("disk of {platform} nodes"));
    let work = tempfile::Builder::new().prefix(parts::NEW).tempdir_in(&parent);
    let work = work.cause(Cause::HostDisk, || format!("cannot write to {}", parent.display()))?;
    step.set("packages");
    let files = write(layout, arch, &packages, &keys, work.path()).within(|| format!("disk of {platform} nodes"))?;
    let manifest = Manifest { schema_version: SCHEMA_VERSION.into(), platform, packages, parts: keys, files };
    kit::rundir::write_json(&work.path().join(MANIFEST), &manifest)?;
    let work = work.keep();
    fs::rename(work, &folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
    step.done(&key);
    forget(layout, &parent, &key);
    Ok(disk)
}

/// Removes disks that no lab of this cache boots from. What cannot be removed only takes room.
fn forget(layout: &Layout, parent: &Path, key: &str) {
    let labs = fs::read_dir(layout.labs()).into_iter().flatten().flatten();
    let records: Vec<_> = labs.filter_map(|lab| fs::read_to_string(lab.path().join("lab.json")).ok()).collect();
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != key && !name.starts_with('.') && !records.iter().any(|record| record.contains(&name)) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The packages, the newest kernel's own among them.
fn packages(platform: &Platform, machine: &Machine, ui: &Ui) -> Result<Vec<Package>> {
    let resolve = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        apt::resolve(platform, &names, ui).map_err(|mut error| {
            // Nobody has asked for an image.
            error.cause = if error.cause == Cause::ImageMissingPlatform { Cause::Registry } else { error.cause };
            error
        })
    };
    let newest = apt::fetch(platform, &resolve(&[machine.kernel])?)?;
    let control = match &newest[..] {
        [package] => deb::read(&read(package)?)?.control,
        _ => String::new(),
    };
    let kernel = kernel_of(&control).ok_or_else(|| {
        Error::new(Cause::Node, format!("Debian's {} names no kernel", machine.kernel)).line(&control)
    })?;
    resolve(&[PACKAGES, &[&kernel]].concat())
}

/// The package that the newest kernel's depends on.
fn kernel_of(control: &str) -> Option<String> {
    let depends = control.lines().find_map(|line| line.strip_prefix("Depends:"))?;
    let names = depends.split(',').filter_map(|package| package.split_whitespace().next());
    names.map(String::from).find(|name| name.starts_with("linux-image-"))
}

fn key(packages: &[Package], parts: &BTreeMap<String, String>) -> Result<String> {
    let scripts = [INIT, START, RUN, INITTAB];
    let all = serde_json::to_vec(&(FORMAT, packages, parts, scripts, WANTED, COMMANDS, DROPPED, MOUNTED));
    let all = all.cause(Cause::Internal, || "cannot compute a key")?;
    Ok(digest::hex(&all)[..16].to_owned())
}

/// Whether every file is what it was when it was made.
fn check(folder: &Path) -> Result<()> {
    let (manifest, _): (Manifest, _) = kit::rundir::read_json(&folder.join(MANIFEST))?;
    for name in FILES {
        let path = folder.join(name);
        let (expected, found) = (manifest.files.get(name), digest::sha256_file(&path)?);
        if expected != Some(&found) {
            return Err(Error::new(Cause::HostDisk, format!("{} is damaged: its digest is {found}", path.display())));
        }
    }
    Ok(())
}

const INIT: &str = include_str!("../../guest/init");
const START: &str = include_str!("../../guest/start");
const RUN: &str = include_str!("../../guest/run");
const INITTAB: &str = include_str!("../../guest/inittab");

/// Writes the files; returns their digests.
fn write(
    layout: &Layout,
    arch: &Arch,
    packages: &[Package],
    parts: &BTreeMap<String, String>,
    folder: &Path,
) -> Result<BTreeMap<String, String>> {
    let platform = Platform::from_parts("linux", arch.go, None, None);
    let mut tree = Tree::default();
    for path in apt::fetch(&platform, packages)? {
        let package = deb::read(&read(&path)?).within(|| path.display().to_string())?;
        tree.unpack(&package.data).within(|| path.display().to_string())?;
    }
    let kernel = tree.files_below("/boot").find(|(name, _)| name.starts_with("boot/vmlinu"));
    let (_, kernel) = kernel.ok_or_else(|| Error::new(Cause::Node, "the kernel's package has no kernel"))?;
    kit::rundir::write(&folder.join("kernel"), kernel)?;
    kit::rundir::write(&folder.join("initrd"), &initrd(&tree)?)?;
    for path in DROPPED {
        tree.remove(path);
    }
    ours(layout, arch, parts, &mut tree)?;
    squash(&tree, folder)?;
    FILES.iter().map(|name| Ok(((*name).to_owned(), digest::sha256_file(&folder.join(name))?))).collect()
}

/// What runs before there is a disk.
fn initrd(tree: &Tree) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::default();
    let busybox = tree.files_below("/usr/bin").find(|(name, _)| *name == "usr/bin/busybox");
    let (_, busybox) = busybox.ok_or_else(|| Error::new(Cause::Node, "the package busybox-static has no busybox"))?;
    archive.file("bin/busybox", 0o755, busybox);
    archive.file("init", 0o755, INIT.as_bytes());
    for folder in ["proc", "sys", "dev", "root", "node"] {
        archive.folder(folder);
    }
    let order = Modules::new(tree.files_below("/lib/modules")).order()?;
    let names: String = order.iter().map(|(name, _)| format!("{name}\n")).collect();
    archive.file("modules/order", 0o644, names.as_bytes());
    for (name, content) in order {
        archive.file(&format!("modules/{name}"), 0o644, content);
    }
    Ok(archive.finish())
}

/// Our own programs and scripts, and what maintainer scripts would have done.
fn ours(layout: &Layout, arch: &Arch, parts: &BTreeMap<String, String>, tree: &mut Tree) -> Result<()> {
    for (name, key) in parts {
        let part = parts::part(name)?;
        for program in part.programs {
            let path = layout.bin().join(name).join(key).join(program);
            match name.as_str() {
                "pause" => tree.file("/usr/lib/node/pause.tar", 0o644, image::archive(config::PAUSE, &path, arch)?),
                "cni" => tree.file(&format!("{CNI}/{program}"), 0o755, read(&path)?),
                _ => tree.file(&format!("/usr/local/bin/{program}"), 0o755, read(&path)?),
            }
        }
    }
    for (name, script) in [("start", START), ("run", RUN)] {
        tree.file(&format!("/usr/lib/node/{name}"), 0o755, script.as_bytes());
    }
    tree.file("/etc/inittab", 0o644, INITTAB.as_bytes());
    tree.file("/etc/passwd", 0o644, *b"root:x:0:0:root:/root:/bin/sh\n");
    tree.file("/etc/group", 0o644, *b"root:x:0:\n");
    tree.file("/etc/hosts", 0o644, *b"127.0.0.1 localhost\n");
    tree.file("/etc/nsswitch.conf", 0o644, *b"hosts: files dns\n");
    tree.symlink("/etc/resolv.conf", "/run/lab/conf/resolv.conf");
    tree.symlink("/etc/machine-id", "/run/lab/machine-id");
    tree.symlink("/sbin/init", "/bin/busybox");
    for command in COMMANDS {
        tree.symlink(&format!("/bin/{command}"), "busybox");
    }
    for name in ["tables", "tables-save", "tables-restore"] {
        for family in ["ip", "ip6"] {
            tree.symlink(&format!("/usr/sbin/{family}{name}"), "xtables-legacy-multi");
        }
    }
    for folder in MOUNTED {
        tree.remove(folder);
        tree.directory(folder, 0o755, 0);
    }
    merge_usr(tree);
    Ok(())
}

/// The read-only disk: not compressed, for unpacking is what is slow on an emulated machine.
fn squash(tree: &Tree, folder: &Path) -> Result<()> {
    let mut squash = command("sqfstar");
    squash.args(["-quiet", "-no-progress", "-reproducible", "-mkfs-time", "0", "-all-time", "0"]);
    squash.args(["-noI", "-noD", "-noF", "-noX"]).arg(folder.join("disk"));
    let process = Process::new("disk of the node", squash).cause(Cause::HostDisk).limit(Duration::from_secs(300));
    process.input(tree.archive()?).run()
}

/// An empty disk for what a node writes; a file with holes.
pub(crate) fn scratch(path: &Path, size: &str) -> Result<()> {
    let mut format: Command = command("mkfs.ext4");
    format.args(["-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"]).arg(path).arg(size);
    Process::new("empty disk of the node", format).cause(Cause::HostDisk).limit(Duration::from_secs(60)).run()
}

fn read(path: &PathBuf) -> Result<Vec<u8>> {
    fs::read(path).cause(Cause::HostDisk, || format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_is_what_the_package_depends_on() {
        let control = "Package: linux-image-s390x\nDepends: linux-image-6.1.0-41-s390x (= 6.1.158-1)\nDescription: x\n";
        assert_eq!(kernel_of(control).as_deref(), Some("linux-image-6.1.0-41-s390x"));
        assert_eq!(kernel_of("Depends: libc6\n"), None);
    }

    #[test]
    fn a_damaged_disk_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let mut files = BTreeMap::new();
        for name in FILES {
            fs::write(folder.path().join(name), name).unwrap();
            files.insert(name.to_owned(), digest::sha256(name.as_bytes()));
        }
        let (packages, parts) = (Vec::new(), BTreeMap::new());
        let manifest =
            Manifest { schema_version: SCHEMA_VERSION.into(), platform: Platform::host(), packages, parts, files };
        kit::rundir::write_json(&folder.path().join(MANIFEST), &manifest).unwrap();
        check(folder.path()).unwrap();
        fs::write(folder.path().join("disk"), "dusk").unwrap();
        assert!(check(folder.path()).unwrap_err().to_string().contains("disk is damaged"));
        fs::remove_file(folder.path().join("disk")).unwrap();
        assert!(check(folder.path()).is_err());
    }

    /// containerd unpacks with it if it is there (`archive/compression` in its sources): the slow part on such a node.
    #[test]
    fn layers_are_unpacked_by_the_quick_gunzip() {
        assert!(PACKAGES.contains(&"pigz"));
    }
}
