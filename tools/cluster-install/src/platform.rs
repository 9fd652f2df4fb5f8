//! Whether a release can run on a cluster at all: said before anything is applied.

use kit::{
    Cause, Error, Platform, Result,
    record::{ClusterId, Image, Nature, Node},
};

/// The nodes that an installation is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// Their platform.
    pub(crate) platform: Platform,
    /// The worst of theirs.
    pub(crate) nature: Nature,
    /// Whether the cluster has nodes of other architectures too, where pods must not land.
    pub(crate) mixed: bool,
}

/// The platform `wanted`, or that of all nodes that take pods.
pub(crate) fn choose(cluster: &ClusterId, wanted: Option<&Platform>) -> Result<Target> {
    let ready: Vec<&Node> = cluster.nodes.iter().filter(|node| node.ready).collect();
    let mut platforms: Vec<&Platform> = ready.iter().map(|node| &node.platform).collect();
    platforms.sort();
    platforms.dedup();
    let list = || platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let platform = match (wanted, &platforms[..]) {
        (Some(wanted), _) => wanted,
        (None, [only]) => only,
        (None, []) => {
            let what = format!("no node of {} is ready and takes pods", cluster.name);
            return Err(Error::new(Cause::Node, what).line(all_nodes(cluster)));
        }
        (None, _) => {
            return Err(Error::new(
                Cause::Usage,
                format!("{} has nodes of several platforms: {}", cluster.name, list()),
            )
            .next("add --platform for those that are meant"));
        }
    };
    let nature = ready.iter().filter(|node| node.platform == *platform).map(|node| node.nature).max();
    let Some(nature) = nature else {
        let what = format!("no node of {} is {platform}, ready and takes pods", cluster.name);
        return Err(Error::new(Cause::Node, what).line(all_nodes(cluster)));
    };
    // A node that is not ready now may be in a minute: it counts for where pods can land.
    let mixed = cluster.nodes.iter().any(|node| node.platform.arch != platform.arch);
    Ok(Target { platform: platform.clone(), nature, mixed })
}

fn all_nodes(cluster: &ClusterId) -> String {
    let line = |node: &Node| {
        format!("{}: {}, {}", node.name, node.platform, if node.ready { "ready" } else { "takes no pods" })
    };
    if cluster.nodes.is_empty() {
        "it has no nodes".into()
    } else {
        cluster.nodes.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Whether each image of the release was verified for the platform.
///
/// # Errors
/// [`Cause::ImageMissingPlatform`] or what else was found of it, naming image, platform and node.
pub(crate) fn check_images(images: &[Image], target: &Target, cluster: &ClusterId) -> Result<()> {
    let platform = &target.platform;
    let node = cluster.nodes.iter().find(|node| node.ready && node.platform == *platform);
    let node = node.map_or("?", |node| node.name.as_str());
    let faults: Vec<(Cause, String)> = images
        .iter()
        .filter_map(|image| {
            let name = if image.name == image.reference { String::new() } else { format!("{}, ", image.name) };
            let fault = |cause, why: &str| Some((cause, format!("{name}{}: {why}", image.reference)));
            match image.platforms.iter().find(|row| row.platform == *platform) {
                // An image that is only for another operating system runs on none of these nodes.
                None if !image.platforms.is_empty() && image.platforms.iter().all(|r| r.platform.os != platform.os) => {
                    None
                }
                None => fault(Cause::ImageMissingPlatform, &format!("was not verified for {platform}")),
                Some(row) => match &row.problem {
                    Some(problem) => fault(row.cause.unwrap_or(Cause::ImageMissingPlatform), problem),
                    None if row.manifest.is_none() => {
                        fault(Cause::ImageMissingPlatform, &format!("has no manifest for {platform}"))
                    }
                    None => None,
                },
            }
        })
        .collect();
    let Some((cause, _)) = faults.first() else { return Ok(()) };
    let lines: Vec<_> = faults.iter().map(|(_, line)| line.as_str()).collect();
    let what = format!("{} of {} images cannot run on node {node} ({platform})", faults.len(), images.len());
    let error = Error::new(*cause, what).line(lines.join("\n"));
    Err(match cause {
        Cause::ImageMissingPlatform => error.next(format!("build the release with --platform {platform}")),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn cluster(nodes: &[(&str, &str, bool)]) -> ClusterId {
        let node = |(name, platform, ready): &(&str, &str, bool)| json!({"name": name, "platform": platform, "nature": "native", "kubelet": "v1", "kernel": "6", "ready": ready});
        let nodes: Vec<_> = nodes.iter().map(node).collect();
        serde_json::from_value(json!({"uid": "u", "name": "c", "kubernetes": "v1", "nodes": nodes})).unwrap()
    }

    fn image(rows: serde_json::Value) -> Image {
        serde_json::from_value(
            json!({"name": "cmd/web", "kind": "built", "reference": "r/web@sha256:1", "platforms": rows}),
        )
        .unwrap()
    }

    #[test]
    fn the_platform_is_that_of_the_nodes_that_take_pods() {
        let one = cluster(&[("n1", "linux/amd64", true), ("n2", "linux/s390x", false)]);
        let target = choose(&one, None).unwrap();
        assert_eq!((target.platform.to_string().as_str(), target.mixed), ("linux/amd64", true));
        let two = cluster(&[("n1", "linux/amd64", true), ("n2", "linux/s390x", true)]);
        assert_eq!(choose(&two, None).unwrap_err().cause, Cause::Usage);
        let wanted: Platform = "linux/s390x".parse().unwrap();
        assert_eq!(choose(&two, Some(&wanted)).unwrap().platform, wanted);
        let error = choose(&one, Some(&wanted)).unwrap_err();
        assert_eq!(error.cause, Cause::Node);
        assert!(error.to_string().contains("n2: linux/s390x, takes no pods"), "{error}");
        assert_eq!(choose(&cluster(&[]), None).unwrap_err().cause, Cause::Node);
    }

    #[test]
    fn an_image_without_the_platform_is_named_with_the_node() {
        let cluster = cluster(&[("n1", "linux/s390x", true)]);
        let target = choose(&cluster, None).unwrap();
        let good = image(json!([{"platform": "linux/s390x", "manifest": "sha256:2"}]));
        check_images(std::slice::from_ref(&good), &target, &cluster).unwrap();
        for (bad, cause, why) in [
            (
                json!([{"platform": "linux/amd64", "manifest": "sha256:2"}]),
                Cause::ImageMissingPlatform,
                "was not verified",
            ),
            (json!([]), Cause::ImageMissingPlatform, "was not verified"),
            (json!([{"platform": "linux/s390x"}]), Cause::ImageMissingPlatform, "has no manifest"),
            (
                json!([{"platform": "linux/s390x", "manifest": "sha256:2", "problem": "ELF is amd64", "cause": "image-wrong-arch"}]),
                Cause::ImageWrongArch,
                "ELF is amd64",
            ),
        ] {
            let error = check_images(&[good.clone(), image(bad)], &target, &cluster).unwrap_err();
            assert_eq!((error.cause, error.exit()), (cause, kit::Exit::NOT_GOOD));
            let text = error.to_string();
            assert!(text.contains("cmd/web") && text.contains("node n1 (linux/s390x)") && text.contains(why), "{text}");
        }
        check_images(&[image(json!([{"platform": "windows/amd64"}]))], &target, &cluster).unwrap();
    }
}
