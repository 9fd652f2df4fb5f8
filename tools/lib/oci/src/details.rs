//! What an image says of itself on every platform that it offers: for comparing two of them.

use futures::{StreamExt, TryStreamExt, stream};
use kit::{Cause, Platform, Result};
use oci_spec::image::Descriptor;

use crate::{
    Client, Document, Place, Reference,
    document::base_of,
    index::{self, Entry, config_of},
    is_index, pinned,
};

/// Platforms of one image read at the same time.
const PARALLEL: usize = 4;

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// Of the index, or of the manifest of a plain image.
    pub digest: String,
    /// Whether it is an index.
    pub index: bool,
    /// One for each platform that it offers.
    pub platforms: Vec<PlatformDetails>,
    /// Platforms that its index names, and whose manifests the registry does not have.
    pub gone: Vec<Platform>,
}

/// An image on one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlatformDetails {
    /// Which.
    pub platform: Platform,
    /// Digest of its manifest.
    pub manifest: String,
    /// The config's `User`; empty is root.
    pub user: String,
    /// The base, as its annotations name it: reference, digest, or both.
    pub base: Option<String>,
    /// Bytes of config and layers as stored.
    pub size: u64,
}

/// Whether a registry answers when it is asked for an image, if only by a no. What was known of the image before
/// counts as long as it does not.
pub async fn answers(client: &Client, reference: &Reference) -> bool {
    !matches!(client.find_manifest(reference).await, Err(error) if error.cause == Cause::Registry)
}

/// Reads what an image says of itself, without its layers.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] with the image.
pub async fn details(client: &Client, reference: &Reference) -> Result<Details> {
    let top = &client.manifest(reference).await?;
    let place = &Place::Registry(client.clone(), pinned(reference, &top.digest));
    let entries = index::entries(place, top).await?;
    let reads = stream::iter(entries).map(|entry| one(place, top, entry));
    let read: Vec<(Platform, Option<PlatformDetails>)> = reads.buffered(PARALLEL).try_collect().await?;
    let (mut platforms, mut gone) = (Vec::new(), Vec::new());
    for (platform, found) in read {
        match found {
            Some(found) => platforms.push(found),
            None => gone.push(platform),
        }
    }
    Ok(Details { digest: top.digest.clone(), index: is_index(&top.media_type), platforms, gone })
}

/// What an image says on one platform; nothing where its manifest is not there.
async fn one(place: &Place, top: &Document, entry: Entry) -> Result<(Platform, Option<PlatformDetails>)> {
    let platform = entry.platform;
    let Some(document) = place.child(&entry.descriptor).await? else { return Ok((platform, None)) };
    let (manifest, config) = config_of(place, &document).await?;
    let user = config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
    let sizes = manifest.layers().iter().chain([manifest.config()]).map(Descriptor::size);
    let found = PlatformDetails {
        platform: platform.clone(),
        manifest: entry.descriptor.digest().to_string(),
        user,
        base: base_of(&document.annotations()).or_else(|| base_of(&top.annotations())),
        size: sizes.fold(0, u64::saturating_add),
    };
    Ok((platform, Some(found)))
}
