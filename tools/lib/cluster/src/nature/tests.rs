//! Machines, and what they are taken for. Those of `tests/facts` were captured: the probe itself ran there.
//! Of the others, which are not to be had here, the texts are those that their documents and kernels show.

use std::collections::BTreeMap;

use kit::{
    Cause,
    ci::Declared,
    record::{Nature, Node},
};

use super::{Facts, judge, machine, settle};
use Nature::{Emulated, Native, Unknown};

/// Facts of a machine of `goarch` with these files, given by the ends of their paths.
fn facts(goarch: &str, files: &[(&str, &str)]) -> Facts {
    let known = [
        "/proc/cpuinfo",
        "/proc/sysinfo",
        "/sys/class/dmi/id/sys_vendor",
        "/sys/class/dmi/id/product_name",
        "/sys/class/dmi/id/board_vendor",
        "/sys/class/dmi/id/bios_vendor",
        "/sys/firmware/devicetree/base/model",
        "/sys/firmware/devicetree/base/compatible",
        "/sys/firmware/devicetree/base/hypervisor/compatible",
    ];
    let path = |name: &str| (*known.iter().find(|path| path.ends_with(name)).expect(name)).to_owned();
    let files: BTreeMap<_, _> = files.iter().map(|(name, text)| (path(name), (*text).to_owned())).collect();
    Facts { schema_version: "1.0".into(), goarch: goarch.into(), page_size: 4096, files, ..Facts::default() }
}

#[track_caller]
fn is(facts: &Facts, nature: Nature, words: &str) {
    let found = judge(facts);
    assert!(found.nature == nature && found.evidence.contains(words), "{found:?}");
}

const Z15: &str = "Manufacturer:         IBM\nType:                 8561\nModel:                T01              T01\nPlant:                02\n\nLPAR Number:          11\nLPAR Name:            LP11";

#[test]
fn z() {
    is(&facts("s390x", &[("sysinfo", Z15)]), Native, "Manufacturer: IBM, Type: 8561");
    for below in ["z/VM    7.3.0", "KVM/Linux"] {
        let text = format!("{Z15}\nVM00 Name:            LINUX1\nVM00 Control Program: {below}");
        let found = facts("s390x", &[("sysinfo", &text)]);
        is(&found, Native, "Manufacturer: IBM");
        assert!(machine(&found).model.unwrap().starts_with("IBM 8561 T01 T01 "));
    }
    let qemu = "Manufacturer:         QEMU\nType:                 8561\n\nVM00 Name:            TESTGUEST\nVM00 Control Program: KVM/Linux";
    is(&facts("s390x", &[("sysinfo", qemu)]), Emulated, "Manufacturer: QEMU");
    is(&facts("s390x", &[("sysinfo", "Manufacturer: HRC\nType: 2097")]), Emulated, "HRC");
    is(&facts("s390x", &[("sysinfo", "Manufacturer: IBM\nType: 1090")]), Emulated, "an emulator");
    is(&facts("s390x", &[]), Unknown, "does not say");
}

#[test]
fn arm() {
    let n1 = ("cpuinfo", "processor\t: 0\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: 0xd0c");
    let dmi = |vendor, product| facts("arm64", &[n1, ("sys_vendor", vendor), ("product_name", product)]);
    for (vendor, product, nature) in [
        ("Amazon EC2", "m6g.large", Native),
        ("Google", "Google Compute Engine", Native),
        ("Microsoft Corporation", "Virtual Machine", Native),
        ("QEMU", "KVM Virtual Machine", Native),
        ("QEMU", "QEMU Virtual Machine", Unknown),
        ("Hetzner", "vServer", Unknown),
        ("Red Hat", "OpenStack Compute", Unknown),
        ("Alibaba Cloud", "Alibaba Cloud ECS", Unknown),
    ] {
        is(&dmi(vendor, product), nature, vendor);
    }
    let server = [
        n1,
        ("sys_vendor", "GIGABYTE"),
        ("product_name", "R272-P30"),
        ("board_vendor", "GIGABYTE"),
        ("bios_vendor", "GIGABYTE"),
    ];
    is(&facts("arm64", &server), Native, "GIGABYTE R272-P30");
    is(&facts("arm64", &[n1]), Unknown, "nothing but implementer 0x41");
    is(&facts("arm64", &[n1, ("base/model", "Raspberry Pi 4 Model B")]), Unknown, "as an emulated board does");
    let max = ("cpuinfo", "CPU implementer\t: 0x00\nCPU architecture: 8\nCPU part\t: 0x051");
    is(&facts("arm64", &[max, ("sys_vendor", "QEMU")]), Emulated, "part 0x051");
}

#[test]
fn power() {
    let cpuinfo = |text| ("cpuinfo", text);
    let powervm = "cpu\t\t: POWER9 (architected), altivec supported\n\ntimebase\t: 512000000\nplatform\t: pSeries\nmodel\t\t: IBM,9009-42A\nmachine\t\t: CHRP IBM,9009-42A";
    let bare = "cpu\t\t: POWER9, altivec supported\n\ntimebase\t: 512000000\nplatform\t: PowerNV\nmodel\t\t: 8335-GTW\nmachine\t\t: PowerNV 8335-GTW\nfirmware\t: OPAL";
    let qemu = "cpu\t\t: POWER9 (architected), altivec supported\n\ntimebase\t: 512000000\nplatform\t: pSeries\nmodel\t\t: IBM pSeries (emulated by qemu)\nmachine\t\t: CHRP IBM pSeries (emulated by qemu)";
    let tree = ("base/model", "IBM pSeries (emulated by qemu)");
    is(&facts("ppc64le", &[cpuinfo(powervm)]), Native, "IBM,9009-42A");
    is(&facts("ppc64le", &[cpuinfo(bare)]), Native, "PowerNV 8335-GTW");
    is(
        &facts("ppc64le", &[("cpuinfo", &bare.replace("8335-GTW", "IBM PowerNV (emulated by qemu)"))]),
        Emulated,
        "a PowerNV",
    );
    is(&facts("ppc64le", &[cpuinfo(qemu)]), Unknown, "under KVM it says the same");
    is(&facts("ppc64le", &[cpuinfo(qemu), tree]), Emulated, "no KVM in the device tree");
    is(&facts("ppc64le", &[cpuinfo(qemu), tree, ("hypervisor/compatible", "linux,kvm")]), Native, "linux,kvm");
    assert_eq!(
        machine(&facts("ppc64le", &[cpuinfo(powervm)])).processor.unwrap(),
        "POWER9 (architected), altivec supported"
    );
    is(&facts("ppc64le", &[]), Unknown, "says nothing");
}

#[test]
fn x86() {
    let with = |hypervisor: &str| Facts { hypervisor: Some(hypervisor.into()), ..facts("amd64", &[]) };
    for (name, nature) in [
        ("", Native),
        ("KVMKVMKVM", Native),
        ("Microsoft Hv", Native),
        ("bhyve bhyve ", Native),
        ("TCGTCGTCGTCG", Emulated),
        ("lrpepyh  vr", Unknown),
    ] {
        is(&with(name), nature, "CPUID");
    }
    is(&facts("amd64", &[]), Unknown, "could not be asked");
    // A machine that is emulated may itself run KVM.
    let nested = Facts {
        hypervisor: Some("KVMKVMKVM".into()),
        ..facts("amd64", &[("cpuinfo", "model name\t: QEMU TCG CPU version 2.5+")])
    };
    is(&nested, Emulated, "QEMU TCG");
    for (flags, level) in [
        ("fpu cx8 cmov mmx fxsr sse sse2", Some("x86-64-v1")),
        ("fpu cx8 cmov mmx fxsr sse sse2 cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3", Some("x86-64-v2")),
        ("avx", None),
    ] {
        let text = format!("flags\t\t: {flags}");
        assert_eq!(machine(&facts("amd64", &[("cpuinfo", &text)])).processor.as_deref(), level);
    }
}

/// What the probe said on a machine that was to be had: by qemu 7.2 with Debian's kernels, its user-mode
/// emulation on a kernel for amd64, and a virtual machine on hardware.
fn captured(name: &str) -> Facts {
    let path = format!("{}/tests/facts/{name}.json", env!("CARGO_MANIFEST_DIR"));
    Facts::parse(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn machines_that_were_seen() {
    for (name, nature, words, unmounted) in [
        ("system-s390x", Emulated, "Manufacturer: QEMU", Some("Manufacturer: QEMU")),
        ("system-arm64-max", Emulated, "implementer 0x00, part 0x051", Some("part 0x051")),
        ("system-arm64-cortex-a72", Unknown, "a virtual machine, on hardware or emulated", None),
        ("system-ppc64le-pseries", Emulated, "no KVM in the device tree", None),
        ("system-ppc64le-powernv", Emulated, "a PowerNV", Some("a PowerNV")),
        ("user-s390x", Emulated, "single programs are emulated", Some("the kernel is one for amd64")),
        ("user-arm64", Emulated, "single programs are emulated", Some("the kernel is one for amd64")),
        ("user-ppc64le", Emulated, "single programs are emulated", Some("the kernel is one for amd64")),
        ("user-amd64", Emulated, "qemu-x86_64-static is mapped", Some("qemu-x86_64")),
        ("kvm-amd64", Native, "names KVM as the hypervisor", Some("KVM")),
    ] {
        // What it says by itself, without a lab's mark.
        let mut facts = Facts { marks: Vec::new(), ..captured(name) };
        is(&facts, nature, words);
        facts.files.retain(|path, _| !path.starts_with("/sys/firmware"));
        match unmounted {
            Some(words) => is(&facts, nature, words),
            None => assert_eq!(judge(&facts).nature, Unknown, "{name}: without the device tree nothing tells"),
        }
        assert!(facts.work().unwrap() > 1_000_000, "{name}");
    }
    is(&captured("system-arm64-max"), Emulated, "command line");
}

#[test]
fn an_emulator_of_programs_is_found_by_more_than_one_sign() {
    for name in ["user-s390x", "user-arm64", "user-ppc64le"] {
        let old_kernel = Facts { kernel_arch: String::new(), ..captured(name) };
        is(&old_kernel, Emulated, "is mapped into it");
        is(&Facts { mapped: Vec::new(), ..old_kernel }, Emulated, "/proc/cpuinfo is that of amd64");
    }
    is(&Facts { mapped: Vec::new(), ..captured("user-amd64") }, Emulated, "TCG");
}

#[test]
fn machines_have_words() {
    for (name, model, processor, page) in [
        ("system-s390x", "QEMU 8561 QEMU KVM/Linux", "z15", 4096),
        ("system-arm64-max", "linux,dummy-virt", "ARMv8, implementer 0x00, part 0x051", 4096),
        ("system-ppc64le-pseries", "IBM pSeries (emulated by qemu)", "POWER9 (architected), altivec supported", 65536),
        ("kvm-amd64", "guest of KVM", "x86-64-v4 Intel(R) Xeon(R) Processor", 4096),
    ] {
        let found = machine(&captured(name));
        let words = |words: &'_ Option<String>| words.clone().unwrap_or_default();
        assert_eq!(
            (words(&found.model).as_str(), words(&found.processor).as_str(), found.page_size),
            (model, processor, page),
            "{name}"
        );
    }
}

#[test]
fn single_programs_that_are_emulated() {
    let ibm = [("sysinfo", Z15)];
    let kernel = |arch: &str, goarch: &str| Facts { kernel_arch: arch.into(), ..facts(goarch, &ibm) };
    is(&kernel("x86_64", "s390x"), Emulated, "the kernel is one for amd64");
    is(&kernel("s390x", "s390x"), Native, "IBM");
    is(&kernel("what-is-this", "s390x"), Native, "IBM");
    let old = Facts { kernel_arch: "x86_64".into(), hypervisor: Some(String::new()), ..facts("386", &[]) };
    is(&old, Native, "no hypervisor");
    let mapped = Facts { mapped: vec!["qemu-s390x-static".into()], ..facts("s390x", &ibm) };
    is(&mapped, Emulated, "qemu-s390x-static is mapped");
    let cpuinfo = [("cpuinfo", "vendor_id\t: GenuineIntel\nflags\t\t: fpu"), ibm[0]];
    is(&facts("s390x", &cpuinfo), Emulated, "that of amd64");
}

#[test]
fn a_lab_marks_its_guests() {
    let marked = Facts {
        marks: vec!["other-arch.lab=x".into(), "other-arch.nature=emulated".into()],
        ..facts("s390x", &[("sysinfo", Z15)])
    };
    is(&marked, Emulated, "command line");
    let otherwise = Facts { marks: vec!["other-arch.nature=native".into()], ..facts("s390x", &[]) };
    is(&otherwise, Unknown, "does not say");
}

#[test]
fn answers_are_hostile() {
    for text in ["", "{}", "[1]", "{\"schemaVersion\":\"2.0\"}", "{\"schemaVersion\":\"1.0\",\"files\":3}"] {
        assert_eq!(Facts::parse(text).unwrap_err().cause, Cause::Usage, "{text}");
    }
    let long = format!("{{\"schemaVersion\":\"1.0\",\"goarch\":\"{}\"}}", "x".repeat(super::ANSWER_LIMIT));
    assert!(Facts::parse(&long).unwrap_err().to_string().contains("longer than"));
    let text = format!("Manufacturer: \u{1b}[2J{}\nType: 1", "x".repeat(1000));
    let hostile = facts("s390x", &[("sysinfo", &text)]);
    let model = machine(&hostile).model.unwrap();
    assert!(model.chars().count() <= 120 && !model.contains('\u{1b}'), "{model}");
    let mut node = node(Unknown);
    settle(&mut node, Some(&hostile), "c", None).unwrap();
    assert!(!node.evidence.unwrap().contains('\u{1b}'));
}

#[test]
fn the_quickest_round_counts() {
    let with = |rounds: &[u64]| Facts { work_nanoseconds: rounds.to_vec(), ..Facts::default() };
    assert_eq!(with(&[90, 10, 20]).work(), Some(10));
    assert_eq!(with(&[]).work(), None);
    assert_eq!(with(&[0]).work(), None);
}

fn node(nature: Nature) -> Node {
    let node = serde_json::json!({"name": "n1", "platform": "linux/s390x", "nature": nature.name(), "kubelet": "v1", "kernel": "6", "ready": true});
    serde_json::from_value(node).unwrap()
}

/// What a node is in the end, of what the lab said, what the probe saw and what its owner says.
fn settled(lab: Nature, probed: Option<&Facts>, declared: Option<Nature>) -> Result<Nature, String> {
    let declared = declared.map(|nature| Declared {
        name: Some("c".into()),
        uid: None,
        platform: None,
        nature,
        owner: "the owner".into(),
    });
    let mut node = node(lab);
    settle(&mut node, probed, "c", declared.as_ref()).map_err(|error| {
        assert_eq!(error.cause, Cause::Usage);
        error.to_string()
    })?;
    Ok(node.nature)
}

#[test]
fn who_is_believed() {
    let ibm = facts("s390x", &[("sysinfo", Z15)]);
    let qemu = facts("s390x", &[("sysinfo", "Manufacturer: QEMU")]);
    let silent = facts("s390x", &[]);
    for (lab, probed, declared, wanted) in [
        (Unknown, None, None, Unknown),
        (Unknown, Some(&silent), None, Unknown),
        (Unknown, Some(&ibm), None, Native),
        (Unknown, Some(&qemu), None, Emulated),
        (Emulated, None, None, Emulated),
        (Emulated, Some(&silent), None, Emulated),
        // A mark that was lost, and a lab on a machine that is itself emulated.
        (Emulated, Some(&ibm), None, Emulated),
        (Native, Some(&qemu), None, Emulated),
        // A lab on a machine of which nobody can tell, unless its owner does. Without a probe the lab is believed.
        (Native, Some(&silent), None, Unknown),
        (Native, Some(&silent), Some(Native), Native),
        (Native, Some(&ibm), None, Native),
        (Native, None, None, Native),
        // An owner fills what nobody knows.
        (Unknown, None, Some(Native), Native),
        (Unknown, Some(&silent), Some(Native), Native),
        (Unknown, Some(&silent), Some(Emulated), Emulated),
        (Unknown, Some(&ibm), Some(Native), Native),
    ] {
        assert_eq!(settled(lab, probed, declared), Ok(wanted), "{lab:?} {probed:?} {declared:?}");
    }
    for (lab, probed, declared) in
        [(Unknown, Some(&qemu), Native), (Unknown, Some(&ibm), Emulated), (Emulated, None, Native)]
    {
        let error = settled(lab, probed, Some(declared)).unwrap_err();
        assert!(error.contains("the owner declares c") && error.contains("node n1 is"), "{error}");
    }
}
