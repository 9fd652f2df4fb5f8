//! Bringing the images of an index into a layout, byte for byte as they are.

use futures::{StreamExt, stream};
use kit::{Cause, Context, Error, Platform, Result};
use oci_spec::image::{Descriptor, ImageManifest};
use serde_json::{Value, json};

use crate::{
    Document, Layout, Place,
    document::is_foreign,
    index::{self, entries},
    is_image,
};

/// Blobs of one image fetched at the same time.
const PARALLEL: usize = 4;
/// A larger blob is refused.
const BLOB_LIMIT: u64 = 16 << 30;

/// An image of one platform, as an index has it.
#[derive(Debug, Clone)]
pub struct Part {
    /// Which platform.
    pub platform: Platform,
    /// That platform as the index says it, with all that it says.
    pub listed: Value,
    /// The manifest.
    pub manifest: Descriptor,
}

/// The digest of an image, and its parts; attestations are left out.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] with the image.
pub async fn parts(place: &Place) -> Result<(String, Vec<Part>)> {
    let top = place.top().await?;
    let raw: Value = top.parse()?;
    let part = |entry: index::Entry| {
        let listed = listed(&raw, &entry.descriptor).unwrap_or_else(|| platform_json(&entry.platform));
        Part { listed, platform: entry.platform, manifest: entry.descriptor }
    };
    Ok((top.digest.clone(), entries(place, &top).await?.into_iter().map(part).collect()))
}

/// The platform of an index's entry with what oci-spec does not keep of it (`os.features`).
fn listed(index: &Value, descriptor: &Descriptor) -> Option<Value> {
    // One manifest may be listed for two platforms.
    let wanted = descriptor.platform().as_ref()?;
    let is_it = |entry: &&Value| {
        let said = &entry["platform"];
        entry["digest"] == descriptor.digest().to_string()
            && said["architecture"] == wanted.architecture().to_string()
            && said["os"] == wanted.os().to_string()
            && said["variant"].as_str() == wanted.variant().as_deref()
    };
    index["manifests"].as_array()?.iter().find(is_it).map(|entry| entry["platform"].clone())
}

/// A platform as OCI's index has it (image-spec, image-index.md).
#[must_use]
pub fn platform_json(platform: &Platform) -> Value {
    let mut value = json!({ "os": platform.os, "architecture": platform.arch });
    for (name, part) in [("variant", &platform.variant), ("os.version", &platform.os_version)] {
        if let Some(part) = part {
            value[name] = json!(part);
        }
    }
    value
}

/// Fetches an image's manifest, config and layers into a layout; what is there is not fetched again. Layers
/// that the registry itself does not have, because they may not be handed on (`foreign`), stay where they are.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] naming the blob; [`Cause::ImageMissingPlatform`] if the manifest is missing.
pub async fn pull(place: &Place, manifest: &Descriptor, layout: &Layout) -> Result<Document> {
    let document = place.child(manifest).await?.ok_or_else(|| {
        let what = format!("{place}: its index names {}, which is not there", manifest.digest());
        Error::new(Cause::ImageMissingPlatform, what)
    })?;
    if !is_image(&document.media_type) {
        return Err(Error::new(Cause::Registry, format!("{place}: '{}' is no image", document.media_type)));
    }
    let parsed: ImageManifest = document.parse()?;
    let blobs = parsed.layers().iter().chain([parsed.config()]);
    let fetches = stream::iter(blobs.map(|blob| fetch(place, blob, layout)));
    // All of them end before the first error counts: none may write into a folder that is removed by then.
    let fetched: Vec<Result<()>> = fetches.buffer_unordered(PARALLEL).collect().await;
    fetched.into_iter().collect::<Result<()>>()?;
    layout.write(document.media_type.as_str().into(), &document.bytes)?;
    Ok(document)
}

async fn fetch(place: &Place, blob: &Descriptor, layout: &Layout) -> Result<()> {
    if layout.path(blob).is_file() {
        return Ok(());
    }
    if blob.size() > BLOB_LIMIT {
        let what = format!("{place}: blob {} is said to have {} bytes", blob.digest(), blob.size());
        return Err(Error::new(Cause::Registry, what));
    }
    let body = place.blob(blob).await?;
    let (layout, media_type) = (layout.clone(), blob.media_type().clone());
    let (what, size) = (format!("cannot keep blob {} of {place}", blob.digest()), blob.size());
    let stored = body.scan(move |reader| {
        layout.write_with(media_type, |writer| {
            let copied = std::io::copy(reader, writer).cause(Cause::HostDisk, || what.clone())?;
            // When nobody waits for it any more it ends early, and is not to be kept.
            if copied == size { Ok(()) } else { Err(Error::new(Cause::Registry, what)) }
        })
    });
    match stored.await {
        Err(error) if error.cause == Cause::Registry && is_foreign(blob) => Ok(()),
        stored => stored.map(drop),
    }
}
