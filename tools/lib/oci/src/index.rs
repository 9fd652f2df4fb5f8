//! What an image offers: the entries of its index and of those inside it, and its config.

use std::{collections::HashSet, sync::Arc};

use kit::{Cause, Error, Platform, Result};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};

use crate::{Document, Place, document::CONFIG_LIMIT, is_image, is_index};

/// Indexes inside indexes, at most so deep.
const DEPTH: usize = 4;
/// Entries of an index and those inside it.
const ENTRIES: usize = 1000;
/// Bytes of indexes inside it and of configs that have to be read to know a platform, all together.
const BYTES: usize = 64 << 20;
/// What configs of images are called; artifacts have others.
const CONFIG_TYPES: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// A manifest and its config.
pub(crate) type Image = (ImageManifest, ImageConfiguration);

/// An entry of an index: its platform as the index says it, and its manifest.
pub(crate) struct Entry {
    pub(crate) platform: Platform,
    pub(crate) descriptor: Descriptor,
    /// Whether the index says the platform, and not only the config.
    pub(crate) declared: bool,
    /// If it had to be read to know the platform.
    pub(crate) image: Option<Arc<Image>>,
}

/// A platform that an image offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// As the index says it; as its config does, for a plain image.
    pub platform: Platform,
    /// Digest of the manifest.
    pub manifest: String,
}

/// What an image is and for which platforms, and no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offering {
    /// Of the index, or of the manifest of a plain image.
    pub digest: String,
    /// Whether it is an index.
    pub index: bool,
    /// In the index's order.
    pub offers: Vec<Offer>,
}

impl Offering {
    /// Whether it serves who asks for this platform.
    #[must_use]
    pub fn has(&self, asked: &Platform) -> bool {
        self.offers.iter().any(|offer| offers(&offer.platform, asked))
    }

    /// Its platforms, in the index's order.
    #[must_use]
    pub fn platforms(&self) -> Vec<Platform> {
        self.offers.iter().map(|offer| offer.platform.clone()).collect()
    }
}

/// Whether something for `offered` serves who asks for `asked`: what the asker leaves open may be anything,
/// and versions of Windows may be cut short (`10.0.17763`), as ko matches platforms.
#[must_use]
pub fn offers(offered: &Platform, asked: &Platform) -> bool {
    let version = asked.os_version.as_ref().is_none_or(|asked| {
        let rest = offered.os_version.as_ref().and_then(|offered| offered.strip_prefix(asked.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    (&offered.os, &offered.arch) == (&asked.os, &asked.arch)
        && (asked.variant.is_none() || offered.variant == asked.variant)
        && version
}

/// Reads for which platforms an image is.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] with the image.
pub async fn offered(place: &Place) -> Result<Offering> {
    let top = place.top().await?;
    let offer = |entry: Entry| Offer { platform: entry.platform, manifest: entry.descriptor.digest().to_string() };
    let offers = entries(place, &top).await?.into_iter().map(offer).collect();
    Ok(Offering { index: is_index(&top.media_type), digest: top.digest, offers })
}

/// The versions of Windows in an index. oci-spec looks for them under `os_version` there, which is no name of the
/// specification's.
#[derive(serde::Deserialize)]
struct Versions {
    manifests: Vec<Versioned>,
}

#[derive(serde::Deserialize)]
struct Versioned {
    #[serde(default)]
    platform: Option<OsVersion>,
}

#[derive(serde::Deserialize)]
struct OsVersion {
    #[serde(default, rename = "os.version")]
    os_version: Option<String>,
}

/// All images of an index, those of indexes inside it too, attestations left out.
pub(crate) async fn entries(place: &Place, top: &Document) -> Result<Vec<Entry>> {
    if !is_index(&top.media_type) {
        let descriptor = crate::descriptor(top.media_type.as_str().into(), &top.bytes)?;
        return Ok(vec![undeclared(place, top, descriptor).await?]);
    }
    let mut found = Vec::new();
    let mut todo = vec![(0, top.clone())];
    let mut seen = HashSet::from([top.digest.clone()]);
    let mut left = BYTES;
    let large = || {
        let what = format!("{place}: its index needs more than {} MiB to be read, which is the limit", BYTES >> 20);
        Error::new(Cause::Registry, what)
    };
    while let Some((depth, document)) = todo.pop() {
        let index: ImageIndex = document.parse()?;
        let versions: Versions = document.parse()?;
        for (descriptor, version) in index.manifests().iter().zip(versions.manifests) {
            if found.len() + todo.len() >= ENTRIES || depth >= DEPTH {
                return Err(Error::new(
                    Cause::Registry,
                    format!("{place}: its index has more than {ENTRIES} entries or {DEPTH} levels, which is the limit"),
                ));
            }
            if is_attestation(descriptor) {
                continue;
            }
            let nested = is_index(descriptor.media_type().as_ref());
            // An index may not hold itself; two platforms may well share an image, rightly or wrongly.
            if nested && !seen.insert(descriptor.digest().to_string()) {
                continue;
            }
            match (nested, descriptor.platform()) {
                (false, Some(platform)) => {
                    let variant = platform.variant().as_deref();
                    let (os, arch) = (platform.os().to_string(), platform.architecture().to_string());
                    let version = version.platform.and_then(|platform| platform.os_version);
                    let platform = Platform::from_parts(&os, &arch, variant, version.as_deref());
                    found.push(Entry { platform, descriptor: descriptor.clone(), declared: true, image: None });
                }
                // Without a platform its config has to tell.
                _ => {
                    let Some(inner) = place.child(descriptor).await? else { continue };
                    left = left.checked_sub(inner.bytes.len()).ok_or_else(large)?;
                    if is_index(&inner.media_type) {
                        todo.push((depth + 1, inner));
                    } else if is_image(&inner.media_type) && !is_artifact(&inner.parse()?) {
                        let entry = undeclared(place, &inner, descriptor.clone()).await?;
                        let config = entry.image.as_ref().map_or(0, |image| image.0.config().size());
                        left = left.checked_sub(usize::try_from(config).unwrap_or(usize::MAX)).ok_or_else(large)?;
                        found.push(entry);
                    }
                }
            }
        }
    }
    Ok(found)
}

async fn undeclared(place: &Place, document: &Document, descriptor: Descriptor) -> Result<Entry> {
    let image = config_of(place, document).await?;
    Ok(Entry { platform: platform_of(&image.1), descriptor, declared: false, image: Some(Arc::new(image)) })
}

/// What buildx and others put beside images: no platform, or a note what it refers to.
fn is_attestation(descriptor: &Descriptor) -> bool {
    let noted = descriptor.annotations().as_ref().is_some_and(|all| all.contains_key("vnd.docker.reference.type"));
    let unknown = descriptor.platform().as_ref().is_some_and(|platform| {
        platform.os().to_string() == "unknown" || platform.architecture().to_string() == "unknown"
    });
    noted || unknown
}

/// Whether a manifest is of something else than an image, such as an SBOM (image-spec, manifest.md, "Guidelines for
/// Artifact Usage").
fn is_artifact(manifest: &ImageManifest) -> bool {
    let kind = manifest.config().media_type().to_string();
    manifest.artifact_type().is_some() || !CONFIG_TYPES.contains(&kind.as_str())
}

pub(crate) async fn config_of(place: &Place, document: &Document) -> Result<Image> {
    let no_image =
        |kind: &str| Err(Error::new(Cause::Usage, format!("{place}: it is no image but '{}'", kind.escape_debug())));
    if !is_image(&document.media_type) {
        return no_image(&document.media_type);
    }
    let manifest: ImageManifest = document.parse()?;
    let bytes = place.blob(manifest.config()).await?.bytes(CONFIG_LIMIT).await?;
    let kind = manifest.config().media_type().to_string();
    match serde_json::from_slice(&bytes) {
        Ok(config) => Ok((manifest, config)),
        Err(_) if !CONFIG_TYPES.contains(&kind.as_str()) => {
            no_image(manifest.artifact_type().as_ref().map_or(kind, ToString::to_string).as_str())
        }
        Err(error) => Err(Error::from_source(Cause::Registry, format!("{place}: its config cannot be read"), error)),
    }
}

/// The platform that a config declares.
pub(crate) fn platform_of(config: &ImageConfiguration) -> Platform {
    let (os, arch) = (config.os().to_string(), config.architecture().to_string());
    Platform::from_parts(&os, &arch, config.variant().as_deref(), config.os_version().as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_open_may_be_anything() {
        for (offered, asked, good) in [
            ("linux/arm64/v8", "linux/arm64", true),
            ("linux/arm/v7", "linux/arm", true),
            ("linux/arm/v6", "linux/arm", false),
            ("linux/arm", "linux/arm/v6", false),
            ("linux/amd64", "linux/arm64", false),
            ("windows/amd64:10.0.17763.99", "windows/amd64", true),
            ("windows/amd64:10.0.17763.99", "windows/amd64:10.0.17763", true),
            ("windows/amd64:10.0.177631.9", "windows/amd64:10.0.17763", false),
            ("windows/amd64", "windows/amd64:10.0.17763", false),
        ] {
            assert_eq!(offers(&offered.parse().unwrap(), &asked.parse().unwrap()), good, "{offered} for {asked}");
        }
    }
}
