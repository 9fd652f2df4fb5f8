//! What a registry says of the release's images: the one place that asks registries.

use std::collections::BTreeSet;

use cluster::objects::Object;
use futures::{StreamExt, stream};
use kit::{
    Platform, Result,
    record::{Image, ImageKind},
};
use oci::{Client, Place};

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

/// Whether the image `reference@digest`, which a node reports, has `manifest` for the platform: two indexes may
/// hold the same image, and the node names either.
pub(crate) async fn contains(reported: &str, platform: &Platform, manifest: &str) -> bool {
    let look = async {
        let place = Place::Registry(Client::new()?, oci::parse(reported)?);
        Ok::<_, kit::Error>(oci::verify(&place, std::slice::from_ref(platform)).await)
    };
    look.await.is_ok_and(|checked| checked.rows.iter().any(|row| row.manifest.as_deref() == Some(manifest)))
}
