//! What the lab needs of this machine, all checked before anything is done, all missing things said at once.

use std::{fs, process::Command, time::Duration};

use kit::{Arch, Cause, Context, Error, Process, Result, Ui};

use crate::{cgroups, layout::Layout};

/// A lab with a few images takes about this much, the built programs included.
const DISK: u64 = 4 << 30;

/// A program that comes with the system, and Debian's package of it.
struct Program {
    name: &'static str,
    package: &'static str,
}

const PROGRAMS: &[Program] = &[
    Program { name: "ip", package: "iproute2" },
    Program { name: "unshare", package: "util-linux" },
    Program { name: "nsenter", package: "util-linux" },
    Program { name: "mount", package: "mount" },
    Program { name: "runc", package: "runc" },
    Program { name: "iptables", package: "iptables" },
    Program { name: "conntrack", package: "conntrack" },
];

/// Architectures that a lab can run on: the ones we know how to build all parts for.
const HOSTS: &[&str] = &["amd64", "arm64", "s390x", "ppc64le"];

/// Checks everything; what a package can bring is installed.
pub(crate) fn check(layout: &Layout, ui: &Ui) -> Result<()> {
    let host = Arch::host().go;
    if !HOSTS.contains(&host) || std::env::consts::OS != "linux" {
        let os = std::env::consts::OS;
        return Err(Error::new(Cause::Usage, format!("a lab cannot run on {os}/{host}"))
            .next(format!("use Linux on {}, or another cluster with --kubeconfig", HOSTS.join(", "))));
    }
    let root = rustix::process::geteuid().is_root();
    let missing = missing();
    if !root {
        let mut error = Error::new(Cause::Usage, "a lab needs root: it makes namespaces, mounts and cgroups");
        if !missing.is_empty() {
            error = error.line(format!("also missing: {}", describe(&missing)));
        }
        return Err(error.next("run it as root, or use another cluster with --kubeconfig"));
    }
    if !missing.is_empty() {
        install(&missing, ui)?;
    }
    disk(layout)?;
    kernel()
}

fn disk(layout: &Layout) -> Result<()> {
    let cannot = || format!("cannot use {}", layout.cache().display());
    fs::create_dir_all(layout.cache()).cause(Cause::HostDisk, cannot)?;
    let free = rustix::fs::statvfs(layout.cache()).cause(Cause::HostDisk, cannot)?;
    let free = free.f_bavail * free.f_frsize;
    if free >= DISK {
        return Ok(());
    }
    let (free, needed) = (free >> 20, DISK >> 20);
    Err(Error::new(Cause::HostDisk, format!("{} has {free} MiB left, a lab needs {needed}", layout.cache().display()))
        .next("free some space, or set OTHER_ARCH_CACHE to a folder on another disk"))
}

fn missing() -> Vec<&'static Program> {
    // Debian keeps some of them where only root's PATH looks.
    let path = format!("{}:/usr/local/sbin:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    PROGRAMS.iter().filter(|program| which::which_in(program.name, Some(&path), "/").is_err()).collect()
}

fn describe(missing: &[&Program]) -> String {
    let each = missing.iter().map(|program| format!("{} (Debian's package {})", program.name, program.package));
    each.collect::<Vec<_>>().join(", ")
}

fn install(missing: &[&Program], ui: &Ui) -> Result<()> {
    let mut packages: Vec<_> = missing.iter().map(|program| program.package).collect();
    packages.sort_unstable();
    packages.dedup();
    let next = format!("install them by hand: {}", packages.join(" "));
    if which::which("apt-get").is_err() {
        return Err(Error::new(Cause::MissingProgram, format!("the lab needs {}", describe(missing))).next(next));
    }
    let step = ui.step(format!("installation of {}", packages.join(", ")));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(arguments);
        let process = Process::new("installation of Debian's packages", command).cause(Cause::MissingProgram);
        process.limit(Duration::from_secs(600)).on_line(|_, line| step.set(line)).run()
    };
    let install: Vec<_> = ["install", "--yes", "--no-install-recommends"].into_iter().chain(packages).collect();
    // The lists may be missing or old; a machine whose lists are good need not fetch them.
    let installed = apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)));
    installed.map_err(|error| error.within(format!("the lab needs {}", describe(missing))).next(next))?;
    step.done("");
    let still = self::missing();
    if still.is_empty() {
        return Ok(());
    }
    Err(Error::new(Cause::MissingProgram, format!("installed, but still not there: {}", describe(&still))))
}

/// What the kernel must have, as far as it can be seen before it is used.
fn kernel() -> Result<()> {
    let mut lacks = Vec::new();
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has = |name: &str| filesystems.lines().any(|line| line.trim_start_matches("nodev").trim() == name);
    if !has("overlay") && modprobe("overlay").is_err() {
        lacks.push("the overlay file system");
    }
    // Without it services do not work between pods of one node.
    if !std::path::Path::new("/proc/sys/net/bridge").exists() && modprobe("br_netfilter").is_err() {
        lacks.push("the packet filter for bridges (br_netfilter)");
    }
    if cgroups::hierarchies()?.is_empty() {
        lacks.push("mounted cgroups");
    }
    for (file, what) in [("net", "network namespaces"), ("pid", "process namespaces"), ("mnt", "mount namespaces")] {
        if !std::path::Path::new("/proc/self/ns").join(file).exists() {
            lacks.push(what);
        }
    }
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Error::new(Cause::Node, format!("this machine lacks {}", lacks.join(", ")))
        .next("use another kernel or machine, or another cluster with --kubeconfig"))
}

fn modprobe(module: &str) -> Result<()> {
    let mut command = Command::new("modprobe");
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
}
