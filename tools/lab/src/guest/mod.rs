//! Nodes of other architectures: virtual machines under qemu's emulation of a whole system, with Debian's kernel and
//! our own kubelet, containerd and plugins of that architecture.
//!
//! A machine is one more program of the lab, in its namespaces, on a wire of its own; its own network begins behind
//! that wire. What it boots from is shared by all labs and never written; what this lab says to it comes in a second
//! memory disk, and what it writes goes to a disk that is made for it and goes with the lab.

mod boot;
mod cpio;
mod disk;
mod machine;
mod modules;

use std::fs;

use clap::Args;
use kit::{
    Cause, Context, Error, Platform, Result, Ui,
    record::{LabMachine, Nature},
};

use crate::{
    cgroups,
    layout::Layout,
    parts::Go,
    prerequisites::{self, Program},
    record::{Node, Record},
};

pub(crate) use boot::{arguments, prepare, write};
pub(crate) use disk::build;
use machine::Machine;

/// Where a node has its CNI plugins.
const CNI: &str = "/usr/lib/cni";
/// What this machine must keep for itself, in MiB.
const RESERVE: u64 = 768;
const SQUASH: Program = Program { name: "sqfstar", package: "squashfs-tools" };
const FORMAT: Program = Program { name: "mkfs.ext4", package: "e2fsprogs" };

/// Which nodes a lab has.
#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// A node of this platform, emulated if it is not this machine's; repeatable, also for several of one
    #[arg(long = "node", value_name = "PLATFORM")]
    platforms: Vec<Platform>,
    /// Memory of each emulated node that is new, in MiB
    #[arg(long = "node-memory", value_name = "MIB", default_value_t = 3072, value_parser = clap::value_parser!(u64).range(1024..=262_144))]
    memory: u64,
    /// Processors of each emulated node that is new
    #[arg(long = "node-cpus", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    cpus: u16,
}

/// The machines of platforms, this machine itself left out.
///
/// # Errors
/// [`Cause::Usage`] for a platform that cannot be a node.
pub(crate) fn machines(platforms: &[Platform]) -> Result<Vec<&'static Machine>> {
    let foreign = platforms.iter().filter(|platform| **platform != Platform::host());
    foreign.map(Machine::find).collect()
}

impl Nodes {
    /// Those that are asked for.
    fn machines(&self) -> Result<Vec<&'static Machine>> {
        machines(&self.platforms)
    }

    /// Programs that they need of this machine.
    ///
    /// # Errors
    /// [`Cause::Usage`] for a platform that cannot be a node.
    pub(crate) fn programs(&self) -> Result<Vec<&'static Program>> {
        let machines = self.machines()?;
        let both = if machines.is_empty() { &[][..] } else { &[&SQUASH, &FORMAT] };
        Ok(machines.iter().map(|machine| &machine.qemu).chain(both.iter().copied()).collect())
    }

    /// How many of them are new, to a lab that is there or not.
    pub(crate) fn count_new(&self, record: Option<&Record>) -> Result<usize> {
        Ok(record.map_or_else(|| self.machines(), |record| self.missing(record))?.len())
    }

    /// What can be said before anything is done, for those that are new to a lab that is there or not: whether this
    /// machine has wires, and so much memory.
    pub(crate) fn check(&self, record: Option<&Record>) -> Result<()> {
        let machines = self.count_new(record)?;
        if machines == 0 {
            return Ok(());
        }
        tun()?;
        enough(machines, self.memory)
    }

    /// Those that a lab does not have yet.
    fn missing(&self, record: &Record) -> Result<Vec<&'static Machine>> {
        let mut there: Vec<_> = record.nodes.iter().map(|node| node.platform.arch.as_str()).collect();
        let mut machines = self.machines()?;
        machines.retain(|machine| match there.iter().position(|arch| *arch == machine.arch) {
            Some(at) => {
                there.swap_remove(at);
                false
            }
            None => true,
        });
        Ok(machines)
    }

    /// Whether the lab has to get another node.
    pub(crate) fn wants_more(&self, record: &Record) -> Result<bool> {
        Ok(!self.missing(record)?.is_empty())
    }

    /// Adds what is missing to the record, with disks that are in the cache then.
    pub(crate) fn add(&self, layout: &Layout, record: &mut Record, go: &Go, ui: &Ui) -> Result<()> {
        let missing = self.missing(record)?;
        if missing.is_empty() {
            return Ok(());
        }
        enough(missing.len(), self.memory)?;
        for machine in missing {
            let disk = disk::make(layout, machine, go, ui)?;
            let node = self.node(layout, record, machine, disk)?;
            record.nodes.push(node);
        }
        Ok(())
    }

    fn node(&self, layout: &Layout, record: &Record, machine: &Machine, disk: String) -> Result<Node> {
        let platform = Platform::from_parts("linux", machine.arch, None, None);
        let same = record.nodes.iter().filter(|node| node.platform == platform).count();
        let name = format!("{}-{}", layout.name, machine.arch);
        let name = if same == 0 { name } else { format!("{name}-{}", same + 1) };
        let number = u8::try_from(record.nodes.len()).ok().filter(|number| *number < 200);
        let number = number.ok_or_else(|| Error::new(Cause::Usage, "a lab cannot have so many nodes"))?;
        let address = record.subnet.node(number);
        let machine = LabMachine { number, address, cpus: self.cpus, memory: self.memory, disk };
        Ok(Node { name, platform, nature: Nature::Emulated, machine: Some(machine) })
    }
}

/// Has what a recorded node boots from made anew if it is not what was made; `true` if it was not.
pub(crate) fn mend(layout: &Layout, node: &mut Node, ui: &Ui) -> Result<bool> {
    let Some(machine) = &mut node.machine else { return Ok(false) };
    if disk::is_whole(layout, &machine.disk, ui)? {
        return Ok(false);
    }
    machine.disk = disk::make(layout, Machine::find(&node.platform)?, &Go::find(layout)?, ui)?;
    Ok(true)
}

/// Whether every machine of the lab was ever started.
pub(crate) fn all_begun(record: &Record, begun: &[String]) -> bool {
    record.nodes.iter().filter(|node| node.machine.is_some()).all(|node| begun.contains(&node.name))
}

/// The machine that a node is, if it is one.
fn machine(node: &Node) -> Result<&'static Machine> {
    Machine::find(&node.platform)
}

/// The file that gives a program an interface of its own.
fn tun() -> Result<()> {
    let file = "/dev/net/tun";
    if fs::File::open(file).is_err() {
        prerequisites::modprobe("tun")?;
    }
    fs::File::open(file).map(drop).cause(Cause::Node, || format!("cannot open {file}, which emulated nodes need"))
}

/// Whether so many machines with so much memory in MiB fit in what is free now.
fn enough(machines: usize, memory: u64) -> Result<()> {
    let text = fs::read_to_string("/proc/meminfo").cause(Cause::Node, || "cannot read how much memory there is")?;
    fits(available(&text, cgroups::memory_left()?), machines as u64 * memory)
}

/// MiB that can be had: what the kernel says, or what a container that we are in may still take (bytes).
fn available(meminfo: &str, cgroup: Option<u64>) -> u64 {
    let line = meminfo.lines().find(|line| line.starts_with("MemAvailable:")).unwrap_or_default();
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(u64::MAX);
    (kib >> 10).min(cgroup.map_or(u64::MAX, |bytes| bytes >> 20))
}

fn fits(there: u64, wanted: u64) -> Result<()> {
    if wanted + RESERVE <= there {
        return Ok(());
    }
    let what =
        format!("no memory for the nodes: of {there} MiB {wanted} are asked for, and {RESERVE} stay with this machine");
    Err(Error::new(Cause::Quota, what).next("ask for less with --node-memory, for fewer nodes, or end other programs"))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn nodes(platforms: &[&str]) -> Nodes {
        let platforms = platforms.iter().map(|platform| platform.parse().unwrap()).collect();
        Nodes { platforms, memory: 3072, cpus: 2 }
    }

    pub(crate) fn record_with(platforms: &[&str]) -> (Layout, Record) {
        let layout = Layout::new("test").unwrap();
        let mut record = crate::record::new(&layout, "10.213.7.0/24".parse().unwrap(), vec!["docker.io".into()]);
        let nodes = nodes(platforms);
        for machine in nodes.machines().unwrap() {
            let node = nodes.node(&layout, &record, machine, format!("node-{}/abc", machine.arch)).unwrap();
            record.nodes.push(node);
        }
        (layout, record)
    }

    #[test]
    fn what_is_there_is_not_asked_for_again() {
        let (_, record) = record_with(&["linux/s390x"]);
        let host = Platform::host().to_string();
        let missing = |platforms: &[&str]| nodes(platforms).missing(&record).unwrap().len();
        assert_eq!(missing(&[]), 0);
        assert_eq!(missing(&[&host, "linux/s390x"]), 0);
        assert_eq!(missing(&["linux/s390x", "linux/s390x", "linux/arm64"]), 2);
        let count = |record| nodes(&["linux/s390x", "linux/arm64"]).count_new(record).unwrap();
        assert_eq!((count(Some(&record)), count(None)), (1, 2));
    }

    #[test]
    fn names_and_addresses_do_not_meet() {
        let (_, record) = record_with(&["linux/s390x", "linux/s390x", "linux/arm64"]);
        let names: Vec<_> = record.nodes[1..].iter().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["test-s390x", "test-s390x-2", "test-arm64"]);
        let addresses: Vec<_> =
            record.nodes[1..].iter().map(|n| n.machine.as_ref().unwrap().address.to_string()).collect();
        assert_eq!(addresses, ["10.213.7.17", "10.213.7.18", "10.213.7.19"]);
    }

    #[test]
    fn an_architecture_without_a_machine_is_refused_by_name() {
        let error = nodes(&["linux/riscv64"]).programs().unwrap_err();
        assert_eq!(error.cause, Cause::Usage);
        let text = error.to_string();
        assert!(text.contains("linux/riscv64") && text.contains("linux/s390x"), "{text}");
        assert!(nodes(&["windows/amd64"]).programs().is_err());
        assert!(nodes(&[]).programs().unwrap().is_empty());
    }

    #[test]
    fn memory_that_is_not_there_is_not_promised() {
        let meminfo = "MemTotal:  9999999 kB\nMemAvailable:  4096000 kB\n";
        assert_eq!((available(meminfo, None), available(meminfo, Some(3 << 30))), (4000, 3072));
        fits(4000, 3072).unwrap();
        let error = fits(4000, 6144).unwrap_err();
        assert_eq!(error.cause, Cause::Quota);
        assert!(error.to_string().contains("of 4000 MiB 6144 are asked for"), "{error}");
    }

    #[test]
    fn memory_is_asked_for_before_anything_is_built_and_for_new_nodes_only() {
        let (_, record) = record_with(&["linux/s390x"]);
        let mut asked = nodes(&["linux/s390x"]);
        asked.memory = 1 << 40;
        asked.check(Some(&record)).unwrap();
        if fs::File::open("/dev/net/tun").is_ok() {
            assert_eq!(asked.check(None).unwrap_err().cause, Cause::Quota);
        }
    }
}
