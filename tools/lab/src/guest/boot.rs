//! How a node is started: its own memory disk, its empty disk, and qemu's arguments.

use std::fs;

use kit::{Cause, Context, Error, Result, record::LabMachine};

use super::{CNI, cpio, disk, machine};
use crate::{
    config,
    layout::{BIN, LAB, Layout},
    network, pki,
    record::{Node, Record},
};

/// The disk that a node writes to; it has holes where nothing was written.
const SCRATCH: &str = "16G";

/// Makes everything that the machine needs before it is started: certificate, disks, wire.
pub(crate) fn prepare(layout: &Layout, record: &Record, node: &Node, pid: u32) -> Result<()> {
    let machine = machine_of(node)?;
    let folder = layout.state_of("nodes").join(&node.name);
    let cannot = || format!("cannot create {}", folder.display());
    fs::create_dir_all(&folder).cause(Cause::HostDisk, cannot)?;
    // There are keys in it, and pods can mount folders of the host's node.
    let private = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&folder, private).cause(Cause::HostDisk, cannot)?;
    pki::node(layout, record, node)?;
    write(layout, record, node)?;
    let scratch = folder.join("disk");
    if !scratch.exists() {
        // Whole or not there, whenever somebody is killed.
        let new = folder.join("disk.new");
        disk::scratch(&new, SCRATCH)?;
        fs::rename(&new, &scratch).cause(Cause::HostDisk, || format!("cannot create {}", scratch.display()))?;
    }
    network::attach(record, machine, pid)
}

/// Writes what the machine reads when it starts.
pub(crate) fn write(layout: &Layout, record: &Record, node: &Node) -> Result<()> {
    let machine = machine_of(node)?;
    let path = layout.bin().join(&machine.disk).join("initrd");
    let mut initrd = fs::read(&path).cause(Cause::HostDisk, || format!("cannot read {}", path.display()))?;
    initrd.extend(said(layout, record, node, machine)?);
    kit::rundir::write(&layout.state_of("nodes").join(&node.name).join("initrd"), &initrd).map(drop)
}

fn machine_of(node: &Node) -> Result<&LabMachine> {
    node.machine.as_ref().ok_or_else(|| Error::new(Cause::Internal, format!("{} is no machine", node.name)))
}

/// What this lab says to its node, unpacked over the disk that all labs share.
fn said(layout: &Layout, record: &Record, node: &Node, machine: &LabMachine) -> Result<Vec<u8>> {
    let mut archive = cpio::Archive::default();
    for (path, text) in config::of_machine(record, node, machine, CNI) {
        archive.file(&format!("node/conf/{path}"), 0o644, text.as_bytes());
    }
    for name in [&node.name, "kube-proxy", "storage"] {
        let file = format!("conf/{name}.kubeconfig");
        let path = layout.state_of(&file);
        let text = fs::read(&path).cause(Cause::HostDisk, || format!("cannot read {}", path.display()))?;
        archive.file(&format!("node/{file}"), 0o600, &text);
    }
    let ca = layout.state_of("pki/ca.crt");
    let ca = fs::read(&ca).cause(Cause::HostDisk, || format!("cannot read {}", ca.display()))?;
    archive.file("node/pki/ca.crt", 0o644, &ca);
    let id = kit::digest::hex(format!("{} {}", layout.id(), node.name).as_bytes());
    archive.file("node/machine-id", 0o444, format!("{}\n", &id[..32]).as_bytes());
    archive.file("node/node.env", 0o644, variables(record, node, machine).as_bytes());
    Ok(archive.finish())
}

/// For the node's scripts. All of it is made here, of letters, digits and dots.
fn variables(record: &Record, node: &Node, machine: &LabMachine) -> String {
    format!(
        "NAME={}\nADDRESS={}\nLAB={}\nREGISTRY={}\nPROVISIONER={}\n",
        node.name,
        machine.address,
        record.address(),
        record.registry,
        config::PROVISIONER
    )
}

/// The program and its arguments.
///
/// `cache=unsafe`: what a node writes need not survive the machine. `werror=report`: with a full disk the node goes on
/// with errors, where qemu would stop it for good. `tb-size`: MiB for translated instructions, 1 GiB if nobody says.
/// The mark on the kernel's command line tells whoever
/// looks from inside that no hardware is there. `-no-reboot`: a machine that ends is started again by the supervisor.
pub(crate) fn arguments(record: &Record, node: &Node) -> Result<(&'static str, Vec<String>)> {
    let (kind, machine) = (machine(node)?, machine_of(node)?);
    let shared = format!("{BIN}/{}", machine.disk);
    let own = format!("{LAB}/nodes/{}", node.name);
    let mark = format!("other-arch.nature=emulated other-arch.lab={}", record.name);
    let append = format!("console={} loglevel=4 panic=5 {mark}", kind.console);
    let (cpus, memory) = (machine.cpus.to_string(), format!("{}M", machine.memory));
    let mut arguments: Vec<String> = kind.arguments.iter().map(|text| (*text).to_owned()).collect();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(|word| (*word).to_owned()));
    add(&[
        "-accel",
        "tcg,thread=multi,tb-size=256",
        "-smp",
        &cpus,
        "-m",
        &memory,
        "-nodefaults",
        "-no-reboot",
        "-no-user-config",
    ]);
    add(&["-display", "none", "-monitor", "none", "-serial", "stdio", "-rtc", "base=utc"]);
    add(&["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]);
    add(&["-kernel", &format!("{shared}/kernel"), "-initrd", &format!("{own}/initrd"), "-append", &append]);
    add(&["-drive", &format!("id=shared,if=none,format=raw,readonly=on,file={shared}/disk")]);
    add(&["-device", &format!("virtio-blk-{},drive=shared,serial=shared", kind.bus)]);
    add(&["-drive", &format!("id=own,if=none,format=raw,cache=unsafe,discard=unmap,werror=report,file={own}/disk")]);
    add(&["-device", &format!("virtio-blk-{},drive=own,serial=own", kind.bus)]);
    let (interface, mac) = (network::interface(machine), format!("52:54:00:0a:00:{:02x}", machine.number));
    add(&["-netdev", &format!("tap,id=wire,ifname={interface},script=no,downscript=no")]);
    let rom = if kind.bus == "pci" { ",romfile=" } else { "" };
    add(&["-device", &format!("virtio-net-{},netdev=wire,mac={mac}{rom}", kind.bus)]);
    add(&["-device", &format!("virtio-rng-{}", kind.bus)]);
    Ok((kind.qemu.name, arguments))
}

#[cfg(test)]
mod tests {
    use super::{super::tests::record_with, *};

    #[test]
    fn every_machine_is_marked_and_has_its_own_disk_wire_and_console() {
        let (_, record) = record_with(&["linux/s390x", "linux/arm64", "linux/ppc64le"]);
        for (node, (program, console)) in record.nodes[1..].iter().zip([
            ("qemu-system-s390x", "console=ttysclp0 "),
            ("qemu-system-aarch64", "console=ttyAMA0 "),
            ("qemu-system-ppc64", "console=hvc0 "),
        ]) {
            let (found, arguments) = arguments(&record, node).unwrap();
            assert_eq!(found, program);
            let line = arguments.join(" ");
            assert!(line.contains(console) && line.contains("other-arch.nature=emulated"), "{line}");
            assert!(line.contains(&format!("file=/run/lab/nodes/{}/disk", node.name)), "{line}");
            assert!(line.contains("readonly=on,file=/run/bin/node-"), "{line}");
        }
    }

    #[test]
    fn the_nodes_scripts_read_the_variables() {
        let (_, record) = record_with(&["linux/s390x"]);
        let text = variables(&record, &record.nodes[1], record.nodes[1].machine.as_ref().unwrap());
        assert!(text.contains("NAME=test-s390x\nADDRESS=10.213.7.17\nLAB=10.213.7.2\nREGISTRY=10.213.7.2:5000\n"));
    }
}
