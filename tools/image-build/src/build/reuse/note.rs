//! The note beside an image that says what it was made of: written, found again by its key, and checked.

use std::collections::BTreeMap;

use kit::{Cause, Context, Error, Platform, Result, record::Image};
use oci::{ARTIFACT_TYPE_INPUTS, Artifact, ArtifactFile, Place, Received, Reference, Tree};
use serde::{Deserialize, Serialize};

use super::{super::Build, Known};
use crate::{show, verify};

/// What its tag begins with.
const TAG: &str = "inputs-";
/// What may be about one image: an SBOM for each platform.
const ABOUT: usize = 1000;

#[derive(Serialize, Deserialize)]
struct Note {
    key: String,
    import: String,
    /// What ko wrote about the image (SBOMs).
    about: Vec<About>,
}

#[derive(Serialize, Deserialize)]
struct About {
    tag: String,
    digest: String,
}

/// The image that was made of this, or why the one that is noted cannot be used; nothing if none is noted.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] if the registry does not answer.
pub(super) async fn find(
    build: &Build<'_>,
    import: &str,
    key: &str,
    platforms: &[Platform],
) -> Result<Option<Result<Known>>> {
    let place = place(build, import, key)?;
    let artifact = match oci::find_artifact(&build.client, &place, ARTIFACT_TYPE_INPUTS).await {
        Ok(None) => return Ok(None),
        Ok(Some((artifact, _))) => artifact,
        // Something else has this tag.
        Err(error) if error.cause == Cause::Usage => return Ok(Some(Err(error))),
        Err(error) => return Err(error),
    };
    Ok(Some(check(build, import, key, platforms, artifact).await))
}

async fn check(
    build: &Build<'_>,
    import: &str,
    key: &str,
    platforms: &[Platform],
    artifact: Artifact,
) -> Result<Known> {
    let strange = || Error::new(Cause::Registry, "the note about what it was made of is not ours");
    let file = artifact.files.first().ok_or_else(strange)?;
    let note: Note = serde_json::from_slice(&file.content).cause(Cause::Registry, || "the note cannot be read")?;
    let subject = artifact.subject.filter(|_| note.key == key && note.import == import).ok_or_else(strange)?;
    if note.about.len() > ABOUT {
        return Err(strange());
    }
    let repository = oci::parse(&build.repository(import))?;
    let digest = subject.digest().to_string();
    let image = oci::pinned(&repository, &digest);
    let document = complete(build, &image).await?;
    for about in &note.about {
        let tagged = oci::parse(&format!("{}:{}", build.repository(import), about.tag))?;
        let found = build.client.find_manifest(&tagged).await?;
        if found.is_none_or(|found| found.digest != about.digest) {
            return Err(Error::new(Cause::Registry, format!("{tagged} is no longer what ko wrote")));
        }
        complete(build, &oci::pinned(&tagged, &about.digest)).await?;
    }
    let place = Place::Registry(build.client.clone(), image);
    let image = verify::check_built(&place, import, platforms).await;
    if let Some(error) = show::problems(std::slice::from_ref(&image)) {
        return Err(error);
    }
    Ok(Known { image, document })
}

/// Looks whether a registry has all of an image, and returns its index or manifest.
async fn complete(build: &Build<'_>, image: &Reference) -> Result<oci::Document> {
    let place = Place::Registry(build.client.clone(), image.clone());
    let tree = Tree::read(&place, place.top().await?).await?;
    tree.check_blobs(&build.client, image).await?;
    Ok(tree.top)
}

/// Notes what a new image was made of.
pub(super) async fn keep(build: &Build<'_>, image: &Image, key: &str, received: &[Received]) -> Result<()> {
    let named = oci::parse(&image.reference)?;
    let place = Place::Registry(build.client.clone(), named.clone());
    let subject = oci::subject(&place.top().await?)?;
    let about = received
        .iter()
        .filter(|received| received.tag.starts_with("sha256-") && received.repository == named.repository());
    let about = about.map(|received| About { tag: received.tag.clone(), digest: received.image.digest().to_string() });
    let note = Note { key: key.to_owned(), import: image.name.clone(), about: about.collect() };
    let file = ArtifactFile {
        media_type: ARTIFACT_TYPE_INPUTS.into(),
        title: Some("inputs.json".into()),
        content: oci::canonical(&note)?,
    };
    let artifact = Artifact {
        artifact_type: ARTIFACT_TYPE_INPUTS.into(),
        annotations: BTreeMap::new(),
        files: vec![file],
        subject: Some(subject),
    };
    oci::store_artifact(&build.client, &self::place(build, &image.name, key)?, &artifact).await.map(drop)
}

fn place(build: &Build<'_>, import: &str, key: &str) -> Result<Reference> {
    oci::parse(&format!("{}:{TAG}{key}", build.repository(import)))
}
