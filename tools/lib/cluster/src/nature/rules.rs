//! The rules, architecture by architecture.

use kit::{arch::Arch, record::Nature};

use super::{Facts, Judgement};

const CPUINFO: &str = "/proc/cpuinfo";
const SYSINFO: &str = "/proc/sysinfo";
const DMI: &str = "/sys/class/dmi/id/";
const TREE: &str = "/sys/firmware/devicetree/base/";

/// The word of a kernel's command line with which a lab marks the machines that it emulates.
const MARK: &str = "other-arch.nature=emulated";

/// Clouds and hypervisors that run guests on hardware of the guests' own architecture only: vendor, and how
/// the product's name begins.
const HARDWARE_ONLY: [(&str, &str); 5] = [
    ("Amazon EC2", ""),
    ("Google", "Google Compute Engine"),
    ("Microsoft Corporation", "Virtual Machine"),
    ("Apple Inc.", "Apple Virtualization"),
    // hw/arm/virt.c and hw/riscv/virt.c of qemu: the name says which accelerator is used.
    ("QEMU", "KVM Virtual Machine"),
];

/// Hypervisors of x86 that run guests on hardware of the guests' own architecture only, by what CPUID says.
const HYPERVISORS: [(&str, &str); 7] = [
    ("KVMKVMKVM", "KVM"),
    ("Linux KVM Hv", "KVM"),
    ("Microsoft Hv", "Hyper-V"),
    ("VMwareVMware", "VMware"),
    ("XenVMMXenVMM", "Xen"),
    ("bhyve bhyve", "bhyve"),
    ("ACRNACRNACRN", "ACRN"),
];

/// The name of such a hypervisor.
pub(super) fn hypervisor(said: &str) -> Option<&'static str> {
    HYPERVISORS.iter().find(|(known, _)| *known == said.trim()).map(|(_, name)| *name)
}

/// What names of vendors, products and firmware hold in virtual machines.
const VIRTUAL: [&str; 14] = [
    "QEMU",
    "KVM",
    "Virtual",
    "VMware",
    "Xen",
    "OpenStack",
    "oVirt",
    "Red Hat",
    "EFI Development Kit",
    "EDK II",
    "SeaBIOS",
    "Bochs",
    "Cloud",
    "Parallels",
];

/// What looks the same under KVM and emulated.
const VIRTUAL_MACHINE: &str = "a virtual machine, on hardware or emulated";

fn native(evidence: impl Into<String>) -> Judgement {
    Judgement { nature: Nature::Native, evidence: evidence.into() }
}

fn emulated(evidence: impl Into<String>) -> Judgement {
    Judgement { nature: Nature::Emulated, evidence: evidence.into() }
}

fn unknown(evidence: impl Into<String>) -> Judgement {
    Judgement { nature: Nature::Unknown, evidence: evidence.into() }
}

/// What the machine is that the probe ran on.
#[must_use]
pub fn judge(facts: &Facts) -> Judgement {
    if facts.marks.iter().any(|mark| mark == MARK) {
        return emulated(format!("the kernel's command line says {MARK}"));
    }
    if let Some(evidence) = user_mode(facts) {
        return emulated(format!("single programs are emulated: {evidence}"));
    }
    match facts.goarch.as_str() {
        "s390x" => z(facts),
        "arm64" | "arm" => arm(facts),
        "ppc64le" | "ppc64" => power(facts),
        "amd64" | "386" => x86(facts),
        other => {
            firmware(facts).unwrap_or_else(|| unknown(format!("nothing tells hardware of {other} from emulation")))
        }
    }
}

/// What shows that only this program is emulated, on a kernel of another architecture.
fn user_mode(facts: &Facts) -> Option<String> {
    let foreign = |other: &str| {
        // A 64-bit kernel runs programs of its 32-bit sibling by itself.
        let siblings = [("386", "amd64"), ("arm", "arm64")];
        other != facts.goarch && !siblings.contains(&(facts.goarch.as_str(), other))
    };
    let kernel = Arch::find(&facts.kernel_arch).ok().map(|arch| arch.go);
    if let Some(kernel) = kernel.filter(|kernel| foreign(kernel)) {
        return Some(format!("the kernel is one for {kernel}"));
    }
    let emulators = ["qemu-", "rosetta", "FEXInterpreter", "box64"];
    let mapped = facts.mapped.iter().find(|name| emulators.iter().any(|emulator| name.starts_with(emulator)));
    if let Some(name) = mapped {
        return Some(format!("{name} is mapped into it"));
    }
    // A kernel before 6.1, and an emulator that does not make up /proc/cpuinfo.
    let family = cpuinfo_of(facts).filter(|family| foreign(family))?;
    Some(format!("{CPUINFO} is that of {family}"))
}

/// The architecture whose kernel writes such a `/proc/cpuinfo`.
fn cpuinfo_of(facts: &Facts) -> Option<&'static str> {
    let has = |name| facts.field(CPUINFO, name).is_some();
    match facts.field(CPUINFO, "vendor_id") {
        Some("IBM/S390") => Some("s390x"),
        Some(_) if has("flags") => Some("amd64"),
        _ if has("CPU implementer") => Some("arm64"),
        _ if has("timebase") && facts.big_endian => Some("ppc64"),
        _ if has("timebase") => Some("ppc64le"),
        _ if has("hart") && has("isa") => Some("riscv64"),
        _ => None,
    }
}

/// s390x: STSI of an emulator names its maker; z/VM and KVM pass the machine's own answer on.
fn z(facts: &Facts) -> Judgement {
    let Some(maker) = facts.field(SYSINFO, "Manufacturer") else {
        return unknown(format!("{SYSINFO} does not say who made the machine"));
    };
    let kind = facts.field(SYSINFO, "Type").unwrap_or("?");
    match (maker, kind) {
        // IBM's own emulator (zPDT) has machine types that no hardware has.
        ("IBM", "1090" | "1091") => emulated(format!("{SYSINFO} says IBM {kind}, which is an emulator")),
        ("IBM", kind) => native(format!("{SYSINFO} says Manufacturer: IBM, Type: {kind}")),
        (maker, _) => emulated(format!("{SYSINFO} says Manufacturer: {maker}, and all hardware is IBM's")),
    }
}

fn arm(facts: &Facts) -> Judgement {
    let implementer = facts.field(CPUINFO, "CPU implementer").unwrap_or_default();
    if implementer == "0x00" {
        let part = facts.field(CPUINFO, "CPU part").unwrap_or("?");
        return emulated(format!("implementer 0x00, part {part}: reserved for software, as in qemu's -cpu max"));
    }
    firmware(facts).unwrap_or_else(|| {
        let (model, like) = (facts.file(&format!("{TREE}model")), facts.file(&format!("{TREE}compatible")));
        unknown(match (model, implementer) {
            _ if like.contains("dummy-virt") => format!("the device tree says {like}: {VIRTUAL_MACHINE}"),
            ("", "") => "the machine says nothing of itself".to_owned(),
            ("", implementer) => format!("the machine says nothing but implementer {implementer}, as an emulator may"),
            // Emulated boards have the device trees of real ones.
            (model, _) => format!("the device tree says {model}, as an emulated board does"),
        })
    })
}

/// What DMI tells; nothing if it tells nothing.
fn firmware(facts: &Facts) -> Option<Judgement> {
    let get = |name: &str| facts.file(&format!("{DMI}{name}"));
    let (vendor, product) = (get("sys_vendor"), get("product_name"));
    if vendor.is_empty() {
        return None;
    }
    let said = format!("DMI says {vendor} {product}").trim_end().to_owned();
    if HARDWARE_ONLY.iter().any(|(known, begins)| vendor == *known && product.starts_with(begins)) {
        return Some(native(format!("{said}: hardware of its own architecture")));
    }
    let names = [vendor, product, get("bios_vendor"), get("board_vendor")];
    if names.iter().any(|name| VIRTUAL.iter().any(|word| name.contains(word))) {
        return Some(unknown(format!("{said}: {VIRTUAL_MACHINE}")));
    }
    // Emulators give their machines no board, unless they are told to.
    if get("board_vendor").is_empty() {
        return Some(unknown(format!("{said}, and nothing of a board")));
    }
    Some(native(said))
}

fn power(facts: &Facts) -> Judgement {
    let tree = facts.file(&format!("{TREE}model"));
    let cpuinfo = facts.field(CPUINFO, "model").or_else(|| facts.field(CPUINFO, "machine")).unwrap_or_default();
    let model = if tree.is_empty() { cpuinfo } else { tree };
    let qemu = [model, cpuinfo].iter().any(|model| model.contains("emulated by qemu"));
    let bare = facts.field(CPUINFO, "platform") == Some("PowerNV");
    match (qemu, bare) {
        // qemu runs that machine without KVM only.
        (true, true) => emulated(format!("the model is {model}, a PowerNV")),
        // It says "emulated" under KVM as well, and then describes KVM in the device tree (hw/ppc/spapr.c).
        (true, false) => match facts.file(&format!("{TREE}hypervisor/compatible")) {
            kvm if kvm.lines().any(|line| line == "linux,kvm") => {
                native("qemu's pSeries, and its hypervisor is linux,kvm")
            }
            _ if tree.is_empty() => {
                unknown(format!("{model}: under KVM it says the same, and there is no device tree to see"))
            }
            _ => emulated(format!("{model}, and no KVM in the device tree")),
        },
        (false, true) => native(format!("PowerNV {model}: no hypervisor")),
        (false, false) if model.starts_with("IBM,") => native(format!("{model}: a partition of PowerVM")),
        (false, false) if model.is_empty() => unknown("the machine says nothing of itself"),
        (false, false) => unknown(format!("the machine is a {model}, which we do not know")),
    }
}

fn x86(facts: &Facts) -> Judgement {
    let name = facts.field(CPUINFO, "model name").unwrap_or_default();
    if name.contains("QEMU TCG") {
        return emulated(format!("the processor is a {name}"));
    }
    match facts.hypervisor.as_deref().map(str::trim) {
        Some("") => native("CPUID knows of no hypervisor"),
        Some("TCGTCGTCGTCG") => emulated("CPUID names TCGTCGTCGTCG as the hypervisor, which is qemu's emulation"),
        Some(name) => match hypervisor(name) {
            Some(known) => native(format!("CPUID names {known} as the hypervisor")),
            None => unknown(format!("CPUID names {name} as the hypervisor, which we do not know")),
        },
        None => unknown("CPUID could not be asked"),
    }
}
