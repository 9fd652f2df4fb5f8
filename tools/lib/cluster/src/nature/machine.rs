//! The machine in words that people compare: model, processor, size of pages.

use kit::{record::Machine, ui::printable};

use super::{Facts, rules};

/// Longer words are cut.
const LENGTH: usize = 120;

/// What is recorded of a machine.
#[must_use]
pub fn machine(facts: &Facts) -> Machine {
    Machine {
        model: words(&model(facts)),
        processor: words(&processor(facts)),
        page_size: facts.page_size,
        work_micros: facts.work().map(|work| (work / 1000).max(1)),
    }
}

fn words(text: &str) -> Option<String> {
    let line = printable(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    Some(line.chars().take(LENGTH).collect()).filter(|line: &String| !line.is_empty())
}

fn model(facts: &Facts) -> String {
    let info = |name| facts.field("/proc/sysinfo", name).unwrap_or_default();
    if !info("Manufacturer").is_empty() {
        let below = [info("VM00 Control Program"), if info("LPAR Name").is_empty() { "" } else { "LPAR" }];
        let below = below.into_iter().find(|name| !name.is_empty()).unwrap_or_default();
        return format!("{} {} {} {below}", info("Manufacturer"), info("Type"), info("Model"));
    }
    let tree = |name: &str| facts.file(&format!("/sys/firmware/devicetree/base/{name}"));
    let dmi = |name: &str| facts.file(&format!("/sys/class/dmi/id/{name}"));
    let cpuinfo = |name| facts.field("/proc/cpuinfo", name).unwrap_or_default();
    let dmi = format!("{} {}", dmi("sys_vendor"), dmi("product_name"));
    let power = if facts.goarch.starts_with("ppc") { cpuinfo("model") } else { "" };
    let hypervisor = facts.hypervisor.as_deref().and_then(rules::hypervisor).map(|name| format!("guest of {name}"));
    let names = [dmi.trim(), tree("model"), power, tree("compatible"), hypervisor.as_deref().unwrap_or_default()];
    names.into_iter().find(|name| !name.is_empty()).unwrap_or_default().to_owned()
}

/// The level that programs may count on: what compilers and distributions call it.
fn processor(facts: &Facts) -> String {
    let cpuinfo = |name| facts.field("/proc/cpuinfo", name).unwrap_or_default();
    match facts.goarch.as_str() {
        "amd64" => {
            let level = x86_level(cpuinfo("flags")).unwrap_or_default();
            format!("{level} {}", cpuinfo("model name"))
        }
        "arm64" | "arm" => {
            let (level, implementer, part) =
                (cpuinfo("CPU architecture"), cpuinfo("CPU implementer"), cpuinfo("CPU part"));
            if level.is_empty() {
                String::new()
            } else {
                format!("ARMv{level}, implementer {implementer}, part {part}")
            }
        }
        "ppc64le" | "ppc64" => cpuinfo("cpu").to_owned(),
        _ => facts.platform.clone(),
    }
}

/// The level of the x86-64 psABI that the processor has all features of (its chapter on microarchitecture
/// levels), in the kernel's names.
fn x86_level(flags: &str) -> Option<&'static str> {
    const LEVELS: [(&str, &[&str]); 4] = [
        ("x86-64-v1", &["cmov", "cx8", "fpu", "fxsr", "mmx", "sse", "sse2"]),
        ("x86-64-v2", &["cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3"]),
        ("x86-64-v3", &["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe", "xsave"]),
        ("x86-64-v4", &["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"]),
    ];
    let has = |flag: &&str| flags.split(' ').any(|found| found == *flag);
    LEVELS.iter().take_while(|(_, needed)| needed.iter().all(has)).last().map(|(name, _)| *name)
}
