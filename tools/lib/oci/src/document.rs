//! Manifests, indexes and configs as bytes with a digest, and what kind they are.

use std::collections::HashMap;

use kit::{Cause, Context, Result};
use oci_spec::image::{Descriptor, MediaType, Sha256Digest};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Larger manifests are refused (the distribution specification asks registries for 4 MiB).
pub(crate) const MANIFEST_LIMIT: u64 = 4 << 20;
/// Larger configs are refused.
pub(crate) const CONFIG_LIMIT: u64 = 8 << 20;

/// A manifest or an index, as it is stored.
#[derive(Debug, Clone)]
pub struct Document {
    /// The bytes, to which the digest belongs.
    pub bytes: Vec<u8>,
    /// `sha256:…` of the bytes.
    pub digest: String,
    /// As the document says itself, or as it was served.
    pub media_type: String,
}

impl Document {
    /// Bytes that were served as `served`.
    #[must_use]
    pub fn new(bytes: Vec<u8>, served: &str) -> Self {
        let value: Option<Value> = serde_json::from_slice(&bytes).ok();
        let said = value.as_ref().and_then(|value| value["mediaType"].as_str().map(String::from));
        // Old OCI documents have no mediaType of their own.
        let guessed = value.and_then(|value| value.get("manifests").map(|_| MediaType::ImageIndex.to_string()));
        let media_type = said.or(guessed).unwrap_or_else(|| served.to_owned());
        Self { digest: kit::digest::sha256(&bytes), bytes, media_type }
    }

    /// Its annotations, if it has any.
    pub(crate) fn annotations(&self) -> HashMap<String, String> {
        #[derive(serde::Deserialize)]
        struct Annotated {
            #[serde(default)]
            annotations: HashMap<String, String>,
        }
        serde_json::from_slice(&self.bytes).map_or_else(|_| HashMap::new(), |found: Annotated| found.annotations)
    }

    /// Reads it as `T`.
    ///
    /// # Errors
    /// [`Cause::Registry`] naming the document.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        serde_json::from_slice(&self.bytes)
            .cause(Cause::Registry, || format!("{} is no valid {}", self.digest, self.media_type))
    }
}

/// What ko and others note an image's base by (OCI image-spec, annotations.md).
const BASE_NAME: &str = "org.opencontainers.image.base.name";
const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// The base that an index's or a manifest's annotations name: reference, digest, or both.
pub(crate) fn base_of(annotations: &HashMap<String, String>) -> Option<String> {
    let said = |key| annotations.get(key).filter(|text| !text.is_empty());
    match (said(BASE_NAME), said(BASE_DIGEST)) {
        (Some(name), Some(digest)) if !name.contains('@') => Some(format!("{name}@{digest}")),
        (name, digest) => name.or(digest).cloned(),
    }
}

/// Whether a media type is an index: OCI's, or Docker's list of manifests.
#[must_use]
pub fn is_index(media_type: &str) -> bool {
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"]
        .contains(&media_type)
}

/// Whether a media type is the manifest of one image: OCI's or Docker's.
#[must_use]
pub fn is_image(media_type: &str) -> bool {
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"]
        .contains(&media_type)
}

/// Whether a layer is of those that only their maker distributes, as of Windows (image-spec, layer.md,
/// "Non-Distributable Layers").
pub(crate) fn is_foreign(layer: &Descriptor) -> bool {
    let media_type = layer.media_type().to_string();
    media_type.contains(".nondistributable.") || media_type.contains(".foreign.")
}

/// A value as JSON with sorted keys, so that equal values have equal bytes and so equal digests.
///
/// # Errors
/// [`Cause::Internal`] if it cannot be JSON.
pub fn canonical(value: &impl Serialize) -> Result<Vec<u8>> {
    fn sorted(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let mut pairs: Vec<_> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                pairs.sort_by(|a, b| a.0.cmp(&b.0));
                Value::Object(pairs.into_iter().collect())
            }
            Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
            other => other,
        }
    }
    let value = serde_json::to_value(value).cause(Cause::Internal, || "cannot write JSON")?;
    serde_json::to_vec(&sorted(value)).cause(Cause::Internal, || "cannot write JSON")
}

/// The descriptor of some bytes.
///
/// # Errors
/// [`Cause::Internal`], never for a digest of ours.
pub fn descriptor(media_type: MediaType, bytes: &[u8]) -> Result<Descriptor> {
    let digest: Sha256Digest = kit::digest::hex(bytes).parse().cause(Cause::Internal, || "a digest that is none")?;
    Ok(Descriptor::new(media_type, bytes.len() as u64, digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_that_may_not_be_distributed_are_known() {
        for (media_type, expected) in [
            ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", true),
            ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", true),
            ("application/vnd.oci.image.layer.v1.tar+gzip", false),
        ] {
            assert_eq!(is_foreign(&descriptor(media_type.into(), b"").unwrap()), expected, "{media_type}");
        }
    }

    #[test]
    fn a_base_is_named_by_what_there_is() {
        let of = |all: &[(&str, &str)]| {
            base_of(&all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect())
        };
        assert_eq!(of(&[(BASE_NAME, "r.io/b:1"), (BASE_DIGEST, "sha256:0")]).unwrap(), "r.io/b:1@sha256:0");
        assert_eq!(of(&[(BASE_DIGEST, "sha256:0")]).unwrap(), "sha256:0");
        assert_eq!(of(&[(BASE_NAME, "")]), None);
    }
}
