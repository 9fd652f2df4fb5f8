//! Putting images and artifacts into registries.

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use kit::{Cause, Error, Result};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};

use crate::{
    Client, Document, Layout, Reference, body::file_chunks, canonical, descriptor, document::MANIFEST_LIMIT, is_image,
    is_index, pinned,
};

/// The type of a release file that is pushed as an artifact.
pub const ARTIFACT_TYPE_RELEASE: &str = "application/vnd.other-arch.release.v1+yaml";
/// Blobs of one image sent at the same time.
const PARALLEL: usize = 4;
/// An artifact that is read is at most this large.
const ARTIFACT_LIMIT: u64 = 64 << 20;

/// Copies an image of a layout with all that it contains to `target`: what is there already is not sent
/// again, and the tag is set last. Returns the digest.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] naming what could not be pushed.
pub async fn copy(client: &Client, layout: &Layout, image: &Descriptor, target: &Reference) -> Result<String> {
    let top = layout.manifest(image).await?;
    if client.find_manifest(target).await?.is_some_and(|there| there.digest == top.digest) {
        // A registry takes a manifest only when it has what the manifest names.
        return Ok(top.digest);
    }
    let children = if is_index(&top.media_type) { top.parse::<ImageIndex>()?.manifests().clone() } else { vec![] };
    for child in &children {
        let manifest = layout.manifest(child).await?;
        copy_blobs(client, layout, &manifest, target).await?;
        client.push_manifest(&pinned(target, &manifest.digest), &manifest).await?;
    }
    if children.is_empty() {
        copy_blobs(client, layout, &top, target).await?;
    }
    client.push_manifest(target, &top).await?;
    Ok(top.digest)
}

async fn copy_blobs(client: &Client, layout: &Layout, manifest: &Document, target: &Reference) -> Result<()> {
    let manifest: ImageManifest = manifest.parse()?;
    let blobs = manifest.layers().iter().chain([manifest.config()]);
    let pushes = stream::iter(blobs.map(|blob| async move {
        let path = layout.path(blob);
        client.push_blob(target, blob, async || file_chunks(&path).await).await
    }));
    pushes.buffer_unordered(PARALLEL).try_collect().await
}

/// Pushes a file as an OCI artifact and returns its reference by digest.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] naming what could not be pushed.
pub async fn push_artifact(
    client: &Client,
    target: &Reference,
    artifact_type: &str,
    title: &str,
    content: &[u8],
) -> Result<Reference> {
    let empty = descriptor(MediaType::EmptyJSON, b"{}")?;
    let layer = descriptor(MediaType::Other(artifact_type.into()), content)?;
    let mut named = serde_json::to_value(&layer).unwrap_or_default();
    named["annotations"] = serde_json::json!({ "org.opencontainers.image.title": title });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest,
        "artifactType": artifact_type,
        "config": empty,
        "layers": [named],
    });
    for (blob, bytes) in [(&empty, &b"{}"[..]), (&layer, content)] {
        let bytes = Bytes::copy_from_slice(bytes);
        client.push_blob(target, blob, async || Ok(stream::iter([Ok(bytes.clone())]))).await?;
    }
    let document = Document::new(canonical(&manifest)?, "");
    client.push_manifest(target, &document).await?;
    Ok(pinned(target, &document.digest))
}

/// The only file of an artifact of the type asked for, at most 64 MiB, and the artifact by digest.
///
/// # Errors
/// [`Cause::Usage`] if the reference is something else; [`Cause::Auth`] or [`Cause::Registry`].
pub async fn pull_artifact(
    client: &Client,
    reference: &Reference,
    artifact_type: &str,
) -> Result<(Vec<u8>, Reference)> {
    let document = client.manifest(reference).await?;
    let other = || Error::new(Cause::Usage, format!("{reference} is no artifact of type {artifact_type}"));
    debug_assert!(document.bytes.len() as u64 <= MANIFEST_LIMIT);
    if !is_image(&document.media_type) {
        return Err(other());
    }
    let manifest: ImageManifest = document.parse()?;
    let said = manifest.artifact_type().as_ref().map(ToString::to_string);
    match manifest.layers().as_slice() {
        [only] if said.as_deref() == Some(artifact_type) => {
            let bytes = client.blob(reference, only).await?.bytes(ARTIFACT_LIMIT).await?;
            Ok((bytes, pinned(reference, &document.digest)))
        }
        _ => Err(other()),
    }
}
