//! What the lab needs of this machine, all checked before anything is done, all missing things said at once.

use std::{fs, path::Path, process::Command, time::Duration};

use kit::{Arch, Cause, Context, Error, Process, Result, Ui};

use crate::{cgroups, layout::Layout};

/// A lab with a few images takes about this much, the built programs included.
const DISK: u64 = 4 << 30;
/// And so much more each node of another architecture: its programs, packages and disk, and what its pods' images take.
const NODE_DISK: u64 = 2 << 30;

/// What is to be made that takes room on the disk. A lab that is up, and nodes that it has, have theirs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct New {
    /// A lab, or what is left to do of one.
    pub(crate) lab: bool,
    /// Nodes of other architectures.
    pub(crate) nodes: usize,
}

impl New {
    /// Bytes.
    const fn room(self) -> u64 {
        (if self.lab { DISK } else { 0 }) + NODE_DISK * self.nodes as u64
    }

    fn words(self) -> String {
        match (self.lab, self.nodes) {
            (true, 0) => "a lab".to_owned(),
            (true, nodes) => format!("a lab with emulated nodes ({nodes})"),
            (false, nodes) => format!("new emulated nodes ({nodes})"),
        }
    }
}

/// A program that comes with the system, and Debian's package of it.
#[derive(Debug)]
pub(crate) struct Program {
    /// As it is called.
    pub(crate) name: &'static str,
    /// The package.
    pub(crate) package: &'static str,
}

/// Needed only where a module of the kernel is to be loaded.
const MODPROBE: Program = Program { name: "modprobe", package: "kmod" };

const PROGRAMS: &[Program] = &[
    Program { name: "ip", package: "iproute2" },
    Program { name: "unshare", package: "util-linux" },
    Program { name: "nsenter", package: "util-linux" },
    Program { name: "mount", package: "mount" },
    Program { name: "runc", package: "runc" },
    Program { name: "iptables", package: "iptables" },
    Program { name: "conntrack", package: "conntrack" },
    Program { name: "bash", package: "bash" },
];

/// Architectures that a lab can run on: the ones we know how to build all parts for.
const HOSTS: &[&str] = &["amd64", "arm64", "s390x", "ppc64le"];

/// Checks everything for what is to be made, programs that are `also` needed too; what a package can bring is installed.
pub(crate) fn check(layout: &Layout, new: New, also: &[&'static Program], ui: &Ui) -> Result<()> {
    let host = Arch::host().go;
    if !HOSTS.contains(&host) || std::env::consts::OS != "linux" {
        let os = std::env::consts::OS;
        return Err(Error::new(Cause::Usage, format!("a lab cannot run on {os}/{host}"))
            .next(format!("use Linux on {}, or another cluster with --kubeconfig", HOSTS.join(", "))));
    }
    let missing = missing(also, &path());
    if !rustix::process::geteuid().is_root() {
        return Err(not_root(&missing));
    }
    if !missing.is_empty() {
        install(&missing, also, &path(), ui)?;
    }
    disk(layout, new)?;
    kernel()
}

/// An error unless root asks.
pub(crate) fn root() -> Result<()> {
    if rustix::process::geteuid().is_root() { Ok(()) } else { Err(not_root(&[])) }
}

/// What whoever is not root hears, with all that is missing besides.
fn not_root(missing: &[&Program]) -> Error {
    let error = Error::new(Cause::Usage, "a lab needs root: it makes namespaces, mounts and cgroups")
        .next("run it as root, or use another cluster with --kubeconfig");
    if missing.is_empty() { error } else { error.line(format!("also missing: {}", describe(missing))) }
}

/// A program of the system, to be started by name: Debian keeps some where only root's own PATH looks.
pub(crate) fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", path());
    command
}

fn path() -> String {
    let own = std::env::var("PATH").unwrap_or_default();
    let own = if own.is_empty() { "/usr/local/bin:/usr/bin:/bin".into() } else { own };
    format!("{own}:/usr/local/sbin:/usr/sbin:/sbin")
}

fn disk(layout: &Layout, new: New) -> Result<()> {
    let cannot = || format!("cannot use {}", layout.cache().display());
    fs::create_dir_all(layout.cache()).cause(Cause::HostDisk, cannot)?;
    let free = rustix::fs::statvfs(layout.cache()).cause(Cause::HostDisk, cannot)?;
    let free = free.f_bavail * free.f_frsize;
    let needed = new.room();
    if free >= needed {
        return Ok(());
    }
    let (cache, free, needed, what) = (layout.cache().display(), free >> 20, needed >> 20, new.words());
    let verb = if new.lab { "needs" } else { "need" };
    Err(Error::new(Cause::HostDisk, format!("{cache} has {free} MiB left, {what} {verb} {needed}"))
        .next("free some space, or set OTHER_ARCH_CACHE to a folder on another disk"))
}

fn missing(also: &[&'static Program], path: &str) -> Vec<&'static Program> {
    let modprobe = (!has_overlay() || !has_bridge_filter()).then_some(&MODPROBE);
    let needed = PROGRAMS.iter().chain(modprobe).chain(also.iter().copied());
    needed.filter(|program| which::which_in(program.name, Some(path), "/").is_err()).collect()
}

fn describe(missing: &[&Program]) -> String {
    let each = missing.iter().map(|program| format!("{} (Debian's package {})", program.name, program.package));
    each.collect::<Vec<_>>().join(", ")
}

fn install(missing: &[&Program], also: &[&'static Program], path: &str, ui: &Ui) -> Result<()> {
    let mut packages: Vec<_> = missing.iter().map(|program| program.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let next = format!("install them by hand: {}", packages.join(" "));
    if which::which_in("apt-get", Some(path), "/").is_err() {
        return Err(Error::new(Cause::MissingProgram, format!("the lab needs {}", describe(missing))).next(next));
    }
    let step = ui.step(format!("installation of {}", packages.join(", ")));
    let apt = |arguments: &[&str]| {
        let mut command = command("apt-get");
        // Others may be installing something.
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        let process = Process::new("installation of Debian's packages", command).cause(Cause::MissingProgram);
        process.limit(Duration::from_secs(900)).on_line(|_, line| step.set(line)).run()
    };
    let install: Vec<_> = ["install", "--yes", "--no-install-recommends"].into_iter().chain(packages).collect();
    // The lists may be missing or old; a machine whose lists are good need not fetch them.
    let installed = apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)));
    installed.map_err(|error| error.within(format!("the lab needs {}", describe(missing))).next(next))?;
    step.done("");
    let still = self::missing(also, path);
    if still.is_empty() {
        return Ok(());
    }
    Err(Error::new(Cause::MissingProgram, format!("installed, but still not there: {}", describe(&still))))
}

/// What the kernel must have, as far as it can be seen before it is used.
fn kernel() -> Result<()> {
    let mut lacks = Vec::new();
    if !has_overlay() && modprobe("overlay").is_err() {
        lacks.push("the overlay file system");
    }
    if !has_bridge_filter() && load_bridge_filter().is_err() {
        lacks.push("the packet filter for bridges (br_netfilter)");
    }
    if cgroups::hierarchies()?.is_empty() {
        lacks.push("mounted cgroups");
    }
    for (file, what) in [("net", "network namespaces"), ("pid", "process namespaces"), ("mnt", "mount namespaces")] {
        if !Path::new("/proc/self/ns").join(file).exists() {
            lacks.push(what);
        }
    }
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Error::new(Cause::Node, format!("this machine lacks {}", lacks.join(", ")))
        .next("use another kernel or machine, or another cluster with --kubeconfig"))
}

fn has_overlay() -> bool {
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == "overlay")
}

/// Without it services do not work between pods of one node.
fn has_bridge_filter() -> bool {
    Path::new(BRIDGE).exists()
}

/// Where the kernel has the settings of br_netfilter, for each network namespace.
const BRIDGE: &str = "/proc/sys/net/bridge";

/// Loads br_netfilter and switches it off for the host's own bridges: they stay as they were. The lab switches
/// it on in its own namespace.
fn load_bridge_filter() -> Result<()> {
    modprobe("br_netfilter")?;
    for kind in ["arptables", "ip6tables", "iptables"] {
        let file = Path::new(BRIDGE).join(format!("bridge-nf-call-{kind}"));
        fs::write(&file, "0").cause(Cause::Node, || format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

pub(crate) fn modprobe(module: &str) -> Result<()> {
    let mut command = command("modprobe");
    command.arg(module);
    Process::new(format!("loading of {module}"), command).limit(Duration::from_secs(30)).run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_program_and_package() {
        assert_eq!(describe(&[&PROGRAMS[4]]), "runc (Debian's package runc)");
    }

    #[test]
    fn a_machine_without_qemu_and_without_apt_lacks_a_program() {
        const QEMU: Program = Program { name: "qemu-system-s390x", package: "qemu-system-misc" };
        let nothing = tempfile::tempdir().unwrap();
        let path = nothing.path().to_str().unwrap();
        let missing = missing(&[&QEMU], path);
        assert!(missing.iter().any(|program| program.name == QEMU.name), "{missing:?}");
        let error = install(&[&QEMU], &[&QEMU], path, &Ui::silent()).unwrap_err();
        assert_eq!(error.exit().0, 5);
        assert!(error.to_string().contains("qemu-system-s390x (Debian's package qemu-system-misc)"), "{error}");
    }

    #[test]
    fn who_is_not_root_hears_at_once_what_else_is_missing() {
        let error = not_root(&[&PROGRAMS[4]]);
        assert_eq!(error.cause, Cause::Usage);
        assert!(error.to_string().contains("also missing: runc (Debian's package runc)"), "{error}");
        assert!(!not_root(&[]).to_string().contains("missing"));
    }
}
