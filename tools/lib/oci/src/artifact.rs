//! OCI artifacts: files in a registry that are no image, such as a release file or a note about an image.

use std::collections::BTreeMap;

use bytes::Bytes;
use kit::{Cause, Context, Error, Result};
use oci_spec::image::{Descriptor, ImageManifest, MediaType};
use serde_json::{Value, json};

use crate::{
    Client, Document, Reference, canonical, client::bytes_of, descriptor, is_image, pinned, referrers::store_referrer,
};

/// The type of a release file that is pushed as an artifact.
pub const ARTIFACT_TYPE_RELEASE: &str = "application/vnd.other-arch.release.v1+yaml";
/// The type of a note about what an image was made of.
pub const ARTIFACT_TYPE_INPUTS: &str = "application/vnd.other-arch.inputs.v1+json";
/// The files of an artifact that is read are at most this large together.
const ARTIFACT_LIMIT: u64 = 64 << 20;
/// An artifact that is read has at most so many files.
const FILES: usize = 64;
const TITLE: &str = "org.opencontainers.image.title";

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFile {
    /// What it is.
    pub media_type: String,
    /// Its name, if it has one.
    pub title: Option<String>,
    /// Its bytes.
    pub content: Vec<u8>,
}

/// An artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifact {
    /// What it is.
    pub artifact_type: String,
    /// What is said of it.
    pub annotations: BTreeMap<String, String>,
    /// What it holds.
    pub files: Vec<ArtifactFile>,
    /// The manifest that it is about.
    pub subject: Option<Descriptor>,
}

impl Artifact {
    /// An artifact of one file.
    #[must_use]
    pub fn file(artifact_type: &str, title: &str, content: &[u8]) -> Self {
        let file =
            ArtifactFile { media_type: artifact_type.into(), title: Some(title.into()), content: content.to_vec() };
        Self { artifact_type: artifact_type.into(), annotations: BTreeMap::new(), files: vec![file], subject: None }
    }

    /// Its manifest; equal artifacts have equal bytes.
    ///
    /// # Errors
    /// [`Cause::Internal`], never for an artifact of ours.
    pub fn manifest(&self) -> Result<Document> {
        let layers = self.files.iter().map(|file| {
            let mut layer = value(&descriptor(MediaType::Other(file.media_type.clone()), &file.content)?)?;
            if let Some(title) = &file.title {
                layer["annotations"] = json!({ TITLE: title });
            }
            Ok(layer)
        });
        let mut layers = layers.collect::<Result<Vec<_>>>()?;
        if layers.is_empty() {
            // The specification asks for at least one.
            layers.push(value(&descriptor(MediaType::EmptyJSON, b"{}")?)?);
        }
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest,
            "artifactType": self.artifact_type,
            "config": descriptor(MediaType::EmptyJSON, b"{}")?,
            "layers": layers,
        });
        if !self.annotations.is_empty() {
            manifest["annotations"] = json!(self.annotations);
        }
        if let Some(subject) = &self.subject {
            manifest["subject"] = json!({
                "mediaType": subject.media_type(),
                "digest": subject.digest(),
                "size": subject.size(),
            });
        }
        Ok(Document::new(canonical(&manifest)?, ""))
    }

    /// Stores what it holds, and returns the manifest, which is for the caller to store.
    pub(crate) async fn push_files(&self, client: &Client, repository: &Reference) -> Result<Document> {
        let contents = self.files.iter().map(|file| file.content.as_slice());
        for content in [&b"{}"[..]].into_iter().chain(contents) {
            let blob = descriptor(MediaType::EmptyJSON, content)?;
            let bytes = Bytes::copy_from_slice(content);
            client.push_blob(repository, &blob, async |offset| Ok(bytes_of(&bytes, offset))).await?;
        }
        self.manifest()
    }
}

fn value(descriptor: &Descriptor) -> Result<Value> {
    serde_json::to_value(descriptor).cause(Cause::Internal, || "cannot write JSON")
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
    store_artifact(client, target, &Artifact::file(artifact_type, title, content)).await
}

/// Pushes an artifact and returns its reference by digest. A target that is named by a digest, whichever it is,
/// stands for its repository: then the artifact gets no tag. One with a `subject` is found by that as well.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] naming what could not be pushed.
pub async fn store_artifact(client: &Client, target: &Reference, artifact: &Artifact) -> Result<Reference> {
    let by_digest = pinned(target, &artifact.manifest()?.digest);
    if artifact.subject.is_none() && target.tag().is_some() {
        let there = client.find_written(target).await?;
        if there.is_some_and(|there| Some(there.digest.as_str()) == by_digest.digest()) {
            return Ok(by_digest);
        }
    }
    let document = artifact.push_files(client, target).await?;
    if artifact.subject.is_some() || target.tag().is_none() {
        store_referrer(client, &by_digest, &document).await?;
    }
    if target.tag().is_some() {
        client.push_manifest(target, &document).await?;
    }
    Ok(by_digest)
}

/// An artifact of the type asked for, by any tag or digest; its files together are at most 64 MiB. Nothing if the
/// registry has nothing there.
///
/// # Errors
/// [`Cause::Usage`] if there is something else; [`Cause::Auth`] or [`Cause::Registry`].
pub async fn find_artifact(
    client: &Client,
    reference: &Reference,
    artifact_type: &str,
) -> Result<Option<(Artifact, Reference)>> {
    let Some(document) = client.find_manifest(reference).await? else { return Ok(None) };
    let other = || Error::new(Cause::Usage, format!("{reference} is no artifact of type {artifact_type}"));
    if !is_image(&document.media_type) {
        return Err(other());
    }
    let manifest: ImageManifest = document.parse()?;
    if manifest.artifact_type().as_ref().map(ToString::to_string).as_deref() != Some(artifact_type) {
        return Err(other());
    }
    let size: u64 = manifest.layers().iter().map(Descriptor::size).fold(0, u64::saturating_add);
    if size > ARTIFACT_LIMIT || manifest.layers().len() > FILES {
        let what = format!("{reference} has {} files of {size} bytes", manifest.layers().len());
        return Err(Error::new(Cause::Registry, format!("{what}, more than {FILES} or {ARTIFACT_LIMIT}")));
    }
    let mut files = Vec::new();
    for layer in manifest.layers().iter().filter(|layer| *layer.media_type() != MediaType::EmptyJSON) {
        files.push(ArtifactFile {
            media_type: layer.media_type().to_string(),
            title: layer.annotations().as_ref().and_then(|all| all.get(TITLE)).cloned(),
            content: client.blob(reference, layer).await?.bytes(ARTIFACT_LIMIT).await?,
        });
    }
    let artifact = Artifact {
        artifact_type: artifact_type.into(),
        annotations: manifest.annotations().clone().unwrap_or_default().into_iter().collect(),
        files,
        subject: manifest.subject().clone(),
    };
    Ok(Some((artifact, pinned(reference, &document.digest))))
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
    let missing = || Error::new(Cause::Registry, format!("{reference}: the registry has no such image"));
    let (artifact, found) = find_artifact(client, reference, artifact_type).await?.ok_or_else(missing)?;
    match <[ArtifactFile; 1]>::try_from(artifact.files) {
        Ok([only]) => Ok((only.content, found)),
        Err(files) => {
            let what = format!("{reference} holds {} files instead of one of type {artifact_type}", files.len());
            Err(Error::new(Cause::Usage, what))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_file_is_the_manifest_that_it_always_was() {
        let manifest = Artifact::file(ARTIFACT_TYPE_RELEASE, "release.yaml", b"kind: A\n").manifest().unwrap();
        let text = String::from_utf8(manifest.bytes).unwrap();
        assert!(
            text.starts_with(r#"{"artifactType":"application/vnd.other-arch.release.v1+yaml","config":{"digest":"#)
        );
        assert!(text.contains(r#""annotations":{"org.opencontainers.image.title":"release.yaml"}"#));
        assert!(
            text.ends_with(r#""mediaType":"application/vnd.oci.image.manifest.v1+json","schemaVersion":2}"#),
            "{text}"
        );
        assert!(!text.contains("subject"));
    }

    #[test]
    fn an_artifact_without_files_has_the_empty_layer() {
        let mut artifact = Artifact::file("application/x", "n", b"x");
        artifact.files.clear();
        artifact.annotations.insert("a".into(), "b".into());
        let value: Value = serde_json::from_slice(&artifact.manifest().unwrap().bytes).unwrap();
        assert_eq!(value["layers"][0]["mediaType"], "application/vnd.oci.empty.v1+json");
        assert_eq!(value["annotations"], json!({ "a": "b" }));
    }
}
