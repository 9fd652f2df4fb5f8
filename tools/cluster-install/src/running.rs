//! What runs, as the nodes say: it must be what the release says.

use cluster::objects::Object;
use k8s_openapi::api::core::v1::Pod;
use kit::{
    Cause, Error, Platform, Result,
    record::{Image, RunningImage},
};

use crate::{images, pods};

/// A container that runs, with the image that it should be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Found {
    pub(crate) running: RunningImage,
    /// As the node reports it, with the repository if it says one.
    reported: String,
    /// The release's name of it.
    wanted: String,
}

/// The containers of the release's pods, each once for each image.
pub(crate) fn find(objects: &[Object], pods: &[Pod]) -> Vec<Found> {
    let mut found = Vec::new();
    for object in objects.iter().filter(|object| pods::has_pods(object)) {
        for (name, wanted) in pods::containers(object) {
            for pod in pods.iter().filter(|pod| pods::belongs(pod, object)) {
                let status = pod.status.clone().unwrap_or_default();
                let lists = [status.init_container_statuses, status.container_statuses];
                let Some(status) = lists.into_iter().flatten().flatten().find(|status| status.name == name) else {
                    continue;
                };
                // Docker says `docker-pullable://`.
                let reported = status.image_id.rsplit("://").next().unwrap_or_default().to_owned();
                let digest = reported.rsplit('@').next().unwrap_or_default().to_owned();
                let container = format!("{}/{}/{name}", object.key.namespace, object.key.name);
                let running = RunningImage { container, image: wanted.clone(), digest };
                found.push(Found { running, reported, wanted: wanted.clone() });
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Compares what runs with what was verified. Of an image that nobody verified because nobody was to (`unchecked`), and
/// that has no digest in its name, nobody knows which it should be.
///
/// # Errors
/// [`Cause::Product`] naming container and both digests.
pub(crate) async fn check(found: &[Found], verified: &[Image], platform: &Platform, unchecked: bool) -> Result<()> {
    let mut wrong = Vec::new();
    for one in found {
        let Found { running, reported, wanted } = one;
        let image = verified.iter().find(|image| names(image, wanted));
        let digests: Vec<&str> = image.map(|image| accepted(image, platform)).unwrap_or_default();
        let digests = if digests.is_empty() {
            wanted.rsplit_once('@').map(|(_, digest)| digest).into_iter().collect()
        } else {
            digests
        };
        let unknown = unchecked && digests.is_empty() && !reported.is_empty();
        if unknown || digests.contains(&running.digest.as_str()) {
            continue;
        }
        let manifest =
            image.and_then(|image| image.platforms.iter().find(|row| row.platform == *platform)?.manifest.as_deref());
        let same = match (image, manifest) {
            (Some(image), Some(manifest)) if reported.contains('@') => {
                images::are_same(reported, &image.reference, platform, manifest).await
            }
            _ => false,
        };
        if !same {
            wrong.push(format!(
                "{}: runs {}, the release has {wanted}",
                running.container,
                if reported.is_empty() { "nothing known" } else { reported }
            ));
        }
    }
    if wrong.is_empty() {
        return Ok(());
    }
    let what = format!("{} of {} containers run another image than the release's", wrong.len(), found.len());
    Err(Error::new(Cause::Product, what)
        .line(wrong.join("\n"))
        .next("somebody changed them: a mutating webhook, a registry mirror, or another installation"))
}

/// Whether `image` is the one that a container names.
fn names(image: &Image, wanted: &str) -> bool {
    let digest = wanted.rsplit_once('@').map(|(_, digest)| digest);
    image.reference == wanted || (digest.is_some() && image.digest.as_deref() == digest)
}

/// Digests under which a node may report it: the index's, or the platform's own manifest's.
fn accepted<'a>(image: &'a Image, platform: &Platform) -> Vec<&'a str> {
    let row = image.platforms.iter().find(|row| row.platform == *platform);
    [image.digest.as_deref(), row.and_then(|row| row.manifest.as_deref())].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object() -> Vec<Object> {
        let text = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: n}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: 'r/w@sha256:1'}]}}
";
        cluster::objects::parse(text, "r").unwrap()
    }

    fn pod(name: &str, id: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "n", "labels": {"app": "web"}},
            "status": {"containerStatuses": [
                {"name": "web", "image": "x", "imageID": id, "ready": true, "restartCount": 0},
                {"name": "injected", "image": "x", "imageID": "p@sha256:9", "ready": true, "restartCount": 0}]}
        }))
        .unwrap()
    }

    fn image() -> Image {
        serde_json::from_value(json!({
            "name": "cmd/web", "kind": "built", "reference": "r/w@sha256:1", "digest": "sha256:1",
            "platforms": [{"platform": "linux/amd64", "manifest": "sha256:2"}]
        }))
        .unwrap()
    }

    fn checked(ids: &[&str], verified: &[Image]) -> Result<()> {
        let pods: Vec<_> = ids.iter().enumerate().map(|(i, id)| pod(&i.to_string(), id)).collect();
        let found = find(&object(), &pods);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(check(&found, verified, &"linux/amd64".parse().unwrap(), false))
    }

    #[test]
    fn what_nobody_was_to_check_may_have_any_digest() {
        let mut objects = object();
        let checked = |objects: &[Object], id: &str, unchecked| {
            let found = find(objects, &[pod("0", id)]);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(check(&found, &[], &"linux/amd64".parse().unwrap(), unchecked))
        };
        assert!(checked(&objects, "r/w@sha256:7", true).is_err(), "its name says which digest it has");
        objects[0].value["spec"]["template"]["spec"]["containers"][0]["image"] = json!("r/w:1");
        checked(&objects, "r/w@sha256:7", true).unwrap();
        assert!(checked(&objects, "r/w@sha256:7", false).is_err());
        assert!(checked(&objects, "", true).is_err(), "nobody knows what runs");
    }

    #[test]
    fn index_and_manifest_are_both_the_image() {
        checked(&["r/w@sha256:1", "docker-pullable://r/w@sha256:2"], &[image()]).unwrap();
        checked(&["r/w@sha256:1"], &[]).unwrap();
    }

    #[test]
    fn another_image_is_an_error() {
        for (id, verified) in [("sha256:7", vec![image()]), ("", vec![image()]), ("r/w@sha256:2", vec![])] {
            let error = checked(&[id], &verified).unwrap_err();
            assert_eq!(error.cause, Cause::Product);
            assert!(error.to_string().contains("n/web/web: runs"), "{error}");
        }
    }

    #[test]
    fn pods_alike_are_one_line() {
        let found = find(&object(), &[pod("a", "r/w@sha256:1"), pod("b", "r/w@sha256:1")]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].running.container, "n/web/web");
        assert_eq!(found[0].running.digest, "sha256:1");
    }
}
