//! What the nodes are: enough workers of the platform, native or not, which processors and pages.

use cluster::nature;
use kit::{
    Cause, Error, Platform,
    ci::Architecture,
    record::{ClusterId, Nature, Node},
};

use super::row::Row;

/// Whether there are enough of them.
pub(crate) fn workers(id: &ClusterId, platform: &Platform, least: u32) -> Row {
    let all: Vec<&Node> = id.nodes.iter().filter(|node| node.platform == *platform).collect();
    let ready = all.iter().filter(|node| node.ready).count();
    let away: Vec<_> = all.iter().filter(|node| !node.ready).map(|node| node.name.as_str()).collect();
    let others = id.nodes.len() - all.len();
    let mut line = format!("{ready} of {platform} ready");
    if !away.is_empty() {
        line += &format!(", {} not ready or cordoned ({})", away.len(), away.join(", "));
    }
    if others > 0 {
        line += &format!(", {others} of other platforms");
    }
    if ready >= usize::try_from(least).unwrap_or(usize::MAX) {
        Row::fit("workers", line)
    } else {
        Row::unfit("workers", Cause::Node, format!("{line}; at least {least} are wanted"))
    }
}

/// Whether they are real hardware. `looked` is what came of looking.
pub(crate) fn nature(id: &ClusterId, platform: &Platform, looked: Option<&Error>, native: bool) -> Row {
    if let Some(error) = looked {
        return Row::error("nature", error);
    }
    let Some(worst) = nature::worst(id, platform) else { return Row::not_tried("nature", "no node of the platform") };
    let nodes = id.nodes.iter().filter(|node| node.ready && node.platform == *platform);
    let words: Vec<_> = nodes
        .map(|node| {
            let why = node.evidence.as_deref().unwrap_or("nobody says what it is");
            format!("{} is {} ({why})", node.name, node.nature.name())
        })
        .collect();
    let line = words.join("; ");
    match worst {
        Nature::Native => Row::fit("nature", line),
        _ if native => Row::unfit("nature", Cause::Node, format!("{line}; native nodes are wanted")),
        Nature::Unknown | Nature::Emulated => Row::note("nature", format!("{line}; no evidence of native")),
    }
}

/// Whether they have the processors and pages that the architecture asks for.
pub(crate) fn processor(id: &ClusterId, platform: &Platform, wanted: Option<&Architecture>) -> Row {
    let (mut wrong, mut words) = (Vec::new(), Vec::new());
    for node in id.nodes.iter().filter(|node| node.ready && node.platform == *platform) {
        let Some(machine) = &node.machine else { continue };
        let processor = machine.processor.as_deref().unwrap_or("unknown processor");
        words.push(format!("{}: {processor}, pages of {}", node.name, machine.page_size));
        let Some(wanted) = wanted else { continue };
        let known = |level: &String| processor == level || processor.starts_with(&format!("{level} "));
        if !wanted.processors.is_empty() && !wanted.processors.iter().any(known) {
            wrong.push(format!("{} has {processor}, not {}", node.name, wanted.processors.join(", ")));
        }
        if !wanted.page_sizes.is_empty() && !wanted.page_sizes.contains(&machine.page_size) {
            let sizes: Vec<_> = wanted.page_sizes.iter().map(u64::to_string).collect();
            wrong.push(format!("{} has pages of {}, not {}", node.name, machine.page_size, sizes.join(", ")));
        }
    }
    match words.is_empty() {
        true => Row::not_tried("processor", "nobody looked (--probe)"),
        false => Row::of("processor", Cause::Node, &wrong, words.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preflight::row::Answer;
    use serde_json::json;

    fn cluster(nodes: &[(&str, &str, bool, &str, u64)]) -> ClusterId {
        let node = |(name, platform, ready, processor, pages): &(&str, &str, bool, &str, u64)| {
            json!({"name": name, "platform": platform, "nature": "emulated", "kubelet": "", "kernel": "", "ready": ready,
                   "machine": {"processor": processor, "pageSize": pages}})
        };
        let nodes: Vec<_> = nodes.iter().map(node).collect();
        serde_json::from_value(json!({"uid": "u", "name": "c", "kubernetes": "v1", "nodes": nodes})).unwrap()
    }

    fn z() -> Platform {
        "linux/s390x".parse().unwrap()
    }

    #[test]
    fn enough_workers_of_the_platform() {
        let cluster = cluster(&[
            ("n1", "linux/s390x", true, "z15", 4096),
            ("n2", "linux/s390x", false, "z15", 4096),
            ("n3", "linux/amd64", true, "x", 4096),
        ]);
        assert_eq!(workers(&cluster, &z(), 1).answer, Answer::Fit);
        let row = workers(&cluster, &z(), 2);
        assert_eq!((row.answer, row.cause), (Answer::Unfit, Some(Cause::Node)));
        let line = "1 of linux/s390x ready, 1 not ready or cordoned (n2), 1 of other platforms; at least 2 are wanted";
        assert_eq!(row.line, line);
    }

    #[test]
    fn emulated_is_said_and_refused_where_native_is_wanted() {
        let cluster = cluster(&[("n1", "linux/s390x", true, "z15", 4096)]);
        assert_eq!(nature(&cluster, &z(), None, false).answer, Answer::Note);
        assert_eq!(nature(&cluster, &z(), None, true).cause, Some(Cause::Node));
        let contradicted = Error::new(Cause::Usage, "me declares c native, and node n1 is emulated");
        assert!(nature(&cluster, &z(), Some(&contradicted), false).line.contains("declares"));
    }

    #[test]
    fn processors_and_pages_that_the_architecture_asks_for() {
        let wanted = |processors: &[&str], pages: &[u64]| {
            let value = json!({"platform": "linux/s390x", "processors": processors, "page_sizes": pages});
            serde_json::from_value::<Architecture>(value).unwrap()
        };
        let cluster = cluster(&[("n1", "linux/s390x", true, "z13 x", 65536)]);
        let of = |wanted: &Architecture| processor(&cluster, &z(), Some(wanted));
        assert_eq!(of(&wanted(&[], &[])).answer, Answer::Fit);
        assert_eq!(of(&wanted(&["z13"], &[65536])).answer, Answer::Fit);
        let row = of(&wanted(&["z14", "z15"], &[4096]));
        assert_eq!(row.line, "n1 has z13 x, not z14, z15; n1 has pages of 65536, not 4096");
        assert_eq!(processor(&cluster, &"linux/amd64".parse().unwrap(), None).answer, Answer::NotTried);
    }
}
