//! The inside of a lab's mount namespace, made by its first process before anything else runs there.
//!
//! Whatever the lab's programs mount or write outside their folders (`/run`, `/var`, `/tmp`) is seen by
//! nobody else and goes with the namespace.

use std::{fs, os::unix::fs::symlink, path::Path};

use kit::{Cause, Context, Result};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_move};

use crate::layout::{BIN, LAB, Layout};

/// Folders of the state that the lab sees under [`LAB`] and in place of the machine's own.
const FOLDERS: &[&str] = &["conf", "pki", "run", "tmp", "var/lib", "var/log", "var/tmp", "var/cache"];

/// Makes the folders that [`enter`] mounts.
pub(crate) fn prepare(layout: &Layout) -> Result<()> {
    let state = FOLDERS.iter().map(|folder| layout.state_of(folder));
    for folder in state.chain([layout.logs(), layout.registry(), layout.bin()]) {
        fs::create_dir_all(&folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
    }
    let mode = |bits| std::os::unix::fs::PermissionsExt::from_mode(bits);
    let state = layout.state();
    fs::set_permissions(&state, mode(0o700)).cause(Cause::HostDisk, || format!("cannot protect {}", state.display()))
}

/// Makes this process' mount namespace the lab's. It must be private already.
pub(crate) fn enter(layout: &Layout) -> Result<()> {
    let resolver = fs::canonicalize("/etc/resolv.conf").ok();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    // Everything is gathered on the new /run before it covers the old one: the cache may lie there too.
    let run = layout.state_of("run");
    step("mount a file system for /run", mount("run", &run, "tmpfs", flags, c"mode=755"))?;
    gather(layout, &run)?;
    step("move /run", mount_move(&run, "/run"))?;
    cover(resolver.as_deref())?;
    // The kubelet wants mounts to reach the pods; this namespace's mounts reach nobody else.
    let shared = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    step("share the mounts", mount_change("/", shared))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    step("mount /proc", mount("proc", "/proc", "proc", flags, None))?;
    kernel_settings()
}

/// Settings of the whole machine that a kubelet insists on (setupKernelTunables in its container manager).
/// It is shown files that say so, and the machine keeps its own.
fn kernel_settings() -> Result<()> {
    let wanted = [
        ("vm/overcommit_memory", "1"),
        ("vm/panic_on_oom", "0"),
        ("kernel/panic", "10"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/keys/root_maxkeys", "1000000"),
        ("kernel/keys/root_maxbytes", "25000000"),
    ];
    let folder = Path::new(LAB).join("conf/kernel");
    step("place kernel settings", fs::create_dir_all(&folder))?;
    for (setting, value) in wanted {
        let (ours, theirs) = (folder.join(setting.replace('/', ".")), Path::new("/proc/sys").join(setting));
        step("place kernel settings", fs::write(&ours, value))?;
        if theirs.exists() {
            step("cover kernel settings", bind(&ours, &theirs))?;
        }
    }
    // These are the network namespace's own: packets are forwarded, and what crosses the pods' bridge is translated.
    for (setting, needed) in [("ipv4/ip_forward", true), ("bridge/bridge-nf-call-iptables", false)] {
        let file = Path::new("/proc/sys/net").join(setting);
        if needed || file.exists() {
            step("set up forwarding", fs::write(file, "1"))?;
        }
    }
    Ok(())
}

fn gather(layout: &Layout, run: &Path) -> Result<()> {
    let at = |path: &str| run.join(path.trim_start_matches("/run/"));
    for folder in [at(LAB), at(BIN), run.join("lock")] {
        step("fill /run", fs::create_dir_all(folder))?;
    }
    step("bind the state", bind(&layout.state(), &at(LAB)))?;
    step("bind the programs", bind(&layout.bin(), &at(BIN)))?;
    for folder in ["log", "registry"] {
        let target = at(LAB).join(folder);
        step("fill the state", fs::create_dir_all(&target))?;
        step("bind the lab's folders", bind(&layout.root().join(folder), &target))?;
    }
    Ok(())
}

/// Puts the lab's folders in the place of the machine's.
fn cover(resolver: Option<&Path>) -> Result<()> {
    let lab = Path::new(LAB);
    let link = lab.join("var/run");
    if !link.is_symlink() {
        step("link /var/run", symlink("/run", link))?;
    }
    step("bind /var", bind(&lab.join("var"), Path::new("/var")))?;
    step("bind /tmp", bind(&lab.join("tmp"), Path::new("/tmp")))?;
    let ours = lab.join("conf/resolv.conf");
    match resolver {
        // Where systemd-resolved keeps it, which is covered now.
        Some(path) if path.starts_with("/run") || path.starts_with("/var") => {
            if let Some(folder) = path.parent() {
                step("place resolv.conf", fs::create_dir_all(folder))?;
            }
            step("place resolv.conf", fs::copy(ours, path).map(drop))
        }
        Some(path) => step("bind resolv.conf", bind(&ours, path)),
        None => Ok(()),
    }
}

fn bind(source: &Path, target: &Path) -> std::io::Result<()> {
    Ok(mount_bind(source, target)?)
}

fn step<E: Into<kit::BoxError>>(what: &str, result: Result<(), E>) -> Result<()> {
    result.cause(Cause::Node, || format!("cannot prepare the lab's file systems: {what}"))
}
