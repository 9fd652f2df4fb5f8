//! The lab's own clients: kubectl, and containerd's ctr.

use std::{path::Path, process::Command, time::Duration};

use clap::Arg;
use kit::{Cause, Process, Result};

use crate::{
    layout::{CONTAINERD, Layout, through},
    record::Record,
};

/// Our global options as options of `kubectl` that nobody can write, so that all its arguments are kubectl's: it
/// has an `--output` as well. clap hands down to a verb what the verb does not have itself, told by the id.
pub(crate) fn covered() -> impl Iterator<Item = Arg> {
    let covered = [("name", "(name)"), ("output", "(output)"), ("quiet", "(quiet)"), ("results_dir", "(results)")];
    covered.into_iter().map(|(id, long)| Arg::new(id).long(long).hide(true))
}

/// Loads an image archive into the node's store; returns what containerd says.
pub(crate) fn load(layout: &Layout, record: &Record, pid: u32, archive: &Path) -> Result<String> {
    let key = record.parts.get("containerd").map_or("", String::as_str);
    let mut command = Command::new(layout.bin().join("containerd").join(key).join("ctr"));
    command.arg("--address").arg(through(pid, CONTAINERD)).args(["--namespace", "k8s.io", "images", "import"]);
    command.arg(archive);
    Process::new("loading of an image", command).cause(Cause::Node).limit(Duration::from_secs(300)).read()
}

/// A kubectl that knows only this lab.
pub(crate) fn kubectl(layout: &Layout, record: &Record, arguments: &[&str]) -> Process<'static> {
    Process::new("kubectl", kubectl_command(layout, record, arguments)).limit(Duration::from_secs(180))
}

/// As [`kubectl`], as a command.
pub(crate) fn kubectl_command(layout: &Layout, record: &Record, arguments: &[&str]) -> Command {
    let key = record.parts.get("kubernetes").map_or("", String::as_str);
    let mut command = Command::new(layout.bin().join("kubernetes").join(key).join("kubectl"));
    command.arg("--kubeconfig").arg(layout.kubeconfig());
    command.arg("--cache-dir").arg(layout.state_of("tmp/kubectl"));
    // Nor do the user's own defaults and aliases count.
    command.args(arguments).env_remove("KUBECONFIG").env("KUBERC", "off");
    // A proxy of the user's would not find the lab.
    command.env("NO_PROXY", record.address().to_string());
    command
}
