//! What refers to a manifest: artifacts with a `subject`, found by the referrers API, or where a registry has none
//! by the tag `sha256-HEX` (distribution-spec 1.1, "Listing Referrers" and "Referrers Tag Schema").

use std::collections::BTreeMap;

use kit::{Cause, Error, Result};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
use serde_json::json;

use crate::{Artifact, ArtifactFile, Client, Document, Reference, canonical, descriptor, is_image, is_index, pinned};

/// More than this refers to no image of ours.
const REFERRERS: usize = 1000;

/// The tag under which a registry without a referrers API holds the list of what refers to a digest. With a suffix
/// it is where cosign puts what it made (`.sig`, `.att`, `.sbom`).
#[must_use]
pub fn digest_tag(subject: &Reference, digest: &str, suffix: &str) -> Reference {
    let tag = format!("{}{suffix}", digest.replacen(':', "-", 1));
    Reference::with_tag(subject.registry().into(), subject.repository().into(), tag)
}

/// Pushes an artifact that refers to `subject`, an image by digest with its descriptor, into the same repository.
/// Returns the artifact by digest. Pushed again it is the same artifact.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] naming what could not be pushed.
pub async fn push_referrer(
    client: &Client,
    (subject, image): (&Reference, &Descriptor),
    artifact_type: &str,
    annotations: &BTreeMap<String, String>,
    layers: &[ArtifactFile],
) -> Result<Reference> {
    let artifact = Artifact {
        artifact_type: artifact_type.into(),
        annotations: annotations.clone(),
        files: layers.to_vec(),
        subject: Some(image.clone()),
    };
    let document = artifact.push_files(client, subject).await?;
    let target = pinned(subject, &document.digest);
    store_referrer(client, &target, &document).await?;
    Ok(target)
}

/// Stores a manifest with a `subject` by its digest, and sees to it that it is found by that: a registry that takes
/// no notice of subjects gets the list under a tag.
pub(crate) async fn store_referrer(client: &Client, target: &Reference, document: &Document) -> Result<()> {
    if client.store_manifest(target, document).await? {
        return Ok(());
    }
    let Some((subject, entry)) = entry(document)? else { return Ok(()) };
    // The list is read and written again: one after the other.
    let _lists = client.lists().await;
    let tag = digest_tag(target, &subject, "");
    let listed = match client.find_written(&tag).await? {
        Some(list) if is_index(&list.media_type) => list.parse::<ImageIndex>()?.manifests().clone(),
        Some(_) => return Err(Error::new(Cause::Registry, format!("{tag} is no list of referrers"))),
        None => vec![],
    };
    if listed.iter().any(|known| known.digest().to_string() == document.digest) {
        return Ok(());
    }
    let mut manifests: Vec<_> = listed.iter().map(|known| json!(known)).collect();
    manifests.push(entry);
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": manifests });
    client.push_manifest(&tag, &Document::new(canonical(&index)?, "")).await
}

/// Whether a manifest is about another.
pub(crate) fn refers(document: &Document) -> Result<bool> {
    Ok(entry(document)?.is_some())
}

/// The digest that a manifest refers to, and the manifest as a list of referrers has it.
fn entry(document: &Document) -> Result<Option<(String, serde_json::Value)>> {
    let mut entry = json!(subject(document)?);
    let (about, annotations, kind) = if is_index(&document.media_type) {
        let index: ImageIndex = document.parse()?;
        (index.subject().clone(), index.annotations().clone(), index.artifact_type().clone())
    } else if is_image(&document.media_type) {
        let manifest: ImageManifest = document.parse()?;
        let config = manifest.config().media_type().clone();
        let kind = manifest.artifact_type().clone().or(Some(config));
        (manifest.subject().clone(), manifest.annotations().clone(), kind)
    } else {
        (None, None, None)
    };
    let Some(about) = about else { return Ok(None) };
    if let Some(kind) = kind {
        entry["artifactType"] = json!(kind);
    }
    if let Some(annotations) = annotations.filter(|all| !all.is_empty()) {
        entry["annotations"] = json!(annotations);
    }
    Ok(Some((about.digest().to_string(), entry)))
}

/// What refers to an image, which is named by digest, of one type or of all. Empty if nothing does.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] naming the image; [`Cause::Usage`] without a digest.
pub async fn referrers(client: &Client, subject: &Reference, artifact_type: Option<&str>) -> Result<Vec<Descriptor>> {
    let Some(digest) = subject.digest() else {
        return Err(Error::new(Cause::Usage, format!("{subject} is not named by its digest")));
    };
    let mut found = match client.referrer_pages(subject, digest, REFERRERS).await? {
        Some(found) => found,
        None => match client.find_manifest(&digest_tag(subject, digest, "")).await? {
            Some(list) if is_index(&list.media_type) => list.parse::<ImageIndex>()?.manifests().clone(),
            _ => vec![],
        },
    };
    if found.len() > REFERRERS {
        return Err(Error::new(Cause::Registry, format!("{subject}: more than {REFERRERS} artifacts refer to it")));
    }
    // A registry need not filter.
    let kind = |descriptor: &Descriptor| descriptor.artifact_type().as_ref().map(ToString::to_string);
    found.retain(|descriptor| artifact_type.is_none() || kind(descriptor).as_deref() == artifact_type);
    Ok(found)
}

/// The descriptor of an image, as a subject or an entry of an index needs it.
///
/// # Errors
/// [`Cause::Internal`], never for a document of ours.
pub fn subject(document: &Document) -> Result<Descriptor> {
    descriptor(document.media_type.as_str().into(), &document.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_of_a_digest() {
        let image = crate::parse("r.io/a/b:v1").unwrap();
        let digest = format!("sha256:{}", "a".repeat(64));
        assert_eq!(digest_tag(&image, &digest, ".sig").whole(), format!("r.io/a/b:sha256-{}.sig", "a".repeat(64)));
    }

    #[test]
    fn only_what_has_a_subject_is_an_entry() {
        let mut artifact = Artifact::file("application/x", "n", b"x");
        assert!(entry(&artifact.manifest().unwrap()).unwrap().is_none());
        let image = descriptor(MediaType::ImageIndex, b"image").unwrap();
        artifact.subject = Some(image.clone());
        artifact.annotations.insert("a".into(), "b".into());
        let document = artifact.manifest().unwrap();
        let (subject, entry) = entry(&document).unwrap().unwrap();
        assert_eq!(subject, image.digest().to_string());
        assert_eq!((&entry["artifactType"], &entry["annotations"]["a"]), (&json!("application/x"), &json!("b")));
        assert_eq!(entry["digest"], json!(document.digest));
    }
}
