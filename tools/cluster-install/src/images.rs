//! What a registry says of the release's images: the one place that asks registries.

use std::collections::BTreeSet;

use cluster::objects::Object;
use futures::{StreamExt, stream};
use kit::{
    Platform, Result,
    record::{Image, ImageKind},
};
use oci::{Client, Place};
use serde_json::Value;

use crate::pods;

/// Images looked at together.
const PARALLEL: usize = 6;

/// Verifies the images of a release that are not among those that somebody has verified.
pub(crate) async fn verify(objects: &[Object], known: &[Image], platform: &Platform) -> Result<Vec<Image>> {
    let is_known = |name: &String| known.iter().any(|image| image.reference == *name);
    let names = objects.iter().flat_map(pods::containers).map(|(_, image)| image);
    let names: BTreeSet<String> = names.filter(|name| !name.is_empty() && !is_known(name)).collect();
    let client = Client::new()?;
    let checks = names.into_iter().map(|name| {
        let client = client.clone();
        async move {
            let place = Place::Registry(client, oci::parse(&name)?);
            let checked = oci::verify(&place, std::slice::from_ref(platform)).await;
            Ok(Image {
                kind: ImageKind::Referenced,
                reference: name.clone(),
                name,
                digest: checked.digest,
                base: None,
                platforms: checked.rows,
            })
        }
    });
    stream::iter(checks).buffer_unordered(PARALLEL).collect::<Vec<Result<Image>>>().await.into_iter().collect()
}

/// Whether `reported`, as a node names an image, is on that platform the one that `reference` has `manifest` for. Two
/// indexes may have the same manifest, and two manifests with other annotations the same config: a node knows an image
/// by its config, and reports any of the names it has of it (CRI v1: `Image.id`, `repo_digests`).
pub(crate) async fn are_same(reported: &str, reference: &str, platform: &Platform, manifest: &str) -> bool {
    let look = async {
        let (client, reported, reference) = (Client::new()?, oci::parse(reported)?, oci::parse(reference)?);
        let (_, parts) = oci::parts(&Place::Registry(client.clone(), reported.clone())).await?;
        let fitting = parts.iter().filter(|part| oci::offers(&part.platform, platform));
        let theirs: Vec<_> = fitting.map(|part| part.manifest.digest().to_string()).collect();
        if theirs.iter().any(|theirs| theirs == manifest) {
            return Ok(true);
        }
        let ours = config(&client, &reference, manifest).await?;
        for theirs in theirs {
            if ours.is_some() && config(&client, &reported, &theirs).await? == ours {
                return Ok(true);
            }
        }
        Ok::<_, kit::Error>(false)
    };
    look.await.unwrap_or(false)
}

/// The digest of the config that a manifest in a repository names.
async fn config(client: &Client, repository: &oci::Reference, manifest: &str) -> Result<Option<String>> {
    let manifest: Value = client.manifest(&oci::pinned(repository, manifest)).await?.parse()?;
    Ok(manifest["config"]["digest"].as_str().map(String::from))
}
