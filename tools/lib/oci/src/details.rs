//! What an image says of itself on every platform that it offers: for comparing two of them.

use futures::{StreamExt, TryStreamExt, stream};
use kit::{Cause, Context, Platform, Result};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageManifest};
use serde_json::Value;

use crate::{Client, Document, Offer, Place, Reference, document::CONFIG_LIMIT, is_index, offered, pinned};

/// Platforms of one image read at the same time.
const PARALLEL: usize = 4;
/// Annotations that name a base (image-spec, annotations.md).
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// An image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Details {
    /// Of the index, or of the manifest of a plain image.
    pub digest: String,
    /// Whether it is an index.
    pub index: bool,
    /// One for each platform that it offers.
    pub platforms: Vec<PlatformDetails>,
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

/// What an image is and for which platforms, and no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offering {
    /// Of the index, or of the manifest of a plain image.
    pub digest: String,
    /// Whether it is an index.
    pub index: bool,
    /// In the index's order.
    pub platforms: Vec<Platform>,
}

/// Reads for which platforms an image is.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] with the image.
pub async fn offering(client: &Client, reference: &Reference) -> Result<Offering> {
    let (top, offers) = top(client, reference).await?;
    let platforms = offers.into_iter().map(|offer| offer.platform).collect();
    Ok(Offering { digest: top.digest, index: is_index(&top.media_type), platforms })
}

async fn top(client: &Client, reference: &Reference) -> Result<(Document, Vec<Offer>)> {
    let top = client.manifest(reference).await?;
    let by_digest = pinned(reference, &top.digest);
    let (_, offers) = offered(&Place::Registry(client.clone(), by_digest)).await?;
    Ok((top, offers))
}

/// Reads what an image says of itself, without its layers.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] with the image.
pub async fn details(client: &Client, reference: &Reference) -> Result<Details> {
    let (top, offers) = top(client, reference).await?;
    let by_digest = pinned(reference, &top.digest);
    let (top, by_digest) = (&top, &by_digest);
    let reads = stream::iter(offers).map(|offer| async move {
        let document = client.manifest(&pinned(by_digest, &offer.manifest)).await?;
        let manifest: ImageManifest = document.parse()?;
        let config = client.blob(by_digest, manifest.config()).await?.bytes(CONFIG_LIMIT).await?;
        let config: ImageConfiguration = serde_json::from_slice(&config)
            .cause(Cause::Registry, || format!("{by_digest}: the config for {} cannot be read", offer.platform))?;
        let user = config.config().as_ref().and_then(|config| config.user().clone()).unwrap_or_default();
        let sizes = manifest.layers().iter().chain([manifest.config()]).map(Descriptor::size);
        Ok::<_, kit::Error>(PlatformDetails {
            platform: offer.platform,
            manifest: offer.manifest,
            user,
            base: base(&document).or_else(|| base(top)),
            size: sizes.fold(0, u64::saturating_add),
        })
    });
    let platforms = reads.buffered(PARALLEL).try_collect().await?;
    Ok(Details { digest: top.digest.clone(), index: is_index(&top.media_type), platforms })
}

fn base(document: &Document) -> Option<String> {
    let value: Value = serde_json::from_slice(&document.bytes).ok()?;
    let said = |key: &str| value["annotations"][key].as_str().filter(|text| !text.is_empty());
    match (said(BASE_NAME), said(BASE_DIGEST)) {
        (Some(name), Some(digest)) if !name.contains('@') => Some(format!("{name}@{digest}")),
        (name, digest) => name.or(digest).map(String::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_named_by_what_there_is() {
        let of = |annotations: Value| {
            let bytes = serde_json::to_vec(&serde_json::json!({ "annotations": annotations })).unwrap();
            base(&Document::new(bytes, ""))
        };
        let (name, digest) = (BASE_NAME, BASE_DIGEST);
        assert_eq!(of(serde_json::json!({ name: "r.io/b:1", digest: "sha256:0" })).unwrap(), "r.io/b:1@sha256:0");
        assert_eq!(of(serde_json::json!({ digest: "sha256:0" })).unwrap(), "sha256:0");
        assert_eq!(of(serde_json::json!({ name: "", digest: 7 })), None);
    }
}
