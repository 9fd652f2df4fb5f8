//! Publishing what was verified: images, then what tells of them, the release last.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use kit::{
    Cause, Error, Result,
    record::{Image, Release},
    rundir,
};
use oci::{Inbox, Received};

use super::Build;
use crate::manifests;

/// Images pushed at the same time.
const PARALLEL: usize = 4;

/// Pushes everything that ko built, with its tags; then what ko wrote about it (SBOMs).
pub(super) fn images(build: &Build<'_>, inbox: &Inbox) -> Result<()> {
    let received = inbox.received();
    let step = build.ui.step(format!("pushing to {}", build.args.repo.name()));
    let about = |received: &&Received| received.tag.starts_with("sha256-");
    let (about, images): (Vec<_>, Vec<_>) = received.iter().partition(about);
    oci::run(async {
        for wave in [&images, &about] {
            let pushes = stream::iter(wave).map(|received| push(build, inbox, received));
            pushes.buffer_unordered(PARALLEL).try_collect::<()>().await?;
        }
        Ok(())
    })?;
    let digests: BTreeSet<_> = images.iter().map(|received| received.image.digest().to_string()).collect();
    step.done(format!("{} images", digests.len()));
    Ok(())
}

async fn push(build: &Build<'_>, inbox: &Inbox, received: &Received) -> Result<()> {
    let Received { repository, tag, image } = received;
    let target = oci::parse(&format!("{}/{repository}:{tag}", build.args.repo.registry()?))?;
    oci::copy(&build.client, inbox.layout(), image, &target).await.map(drop)
}

/// Writes the images by digest for Tekton Chains (`docs/config.md`, type hinting), if that was asked for.
pub(super) fn images_result(build: &Build<'_>, built: &[Image]) -> Result<()> {
    let Some(path) = &build.args.images_result else { return Ok(()) };
    let lines: Vec<_> = built.iter().map(|image| image.reference.as_str()).collect();
    let (text, limit) = (lines.join("\n"), build.args.images_result_limit);
    if text.len() > limit {
        let what = format!("the result IMAGES would have {} bytes, and may have {limit}", text.len());
        let next = "let results be larger (Tekton's feature flags results-from and max-result-size) and say so with \
                    --images-result-limit";
        return Err(Error::new(Cause::Usage, what).next(next));
    }
    rundir::write(path, text.as_bytes()).map(drop)
}

/// Writes the release's files and pushes it; the files appear last, when everything is there.
pub(super) fn release(build: &Build<'_>, text: &str) -> Result<Release> {
    let tag = build.tags().into_iter().next().unwrap_or_default();
    let target = build.args.repo.reference(&format!("release/{}:{tag}", build.args.component))?;
    let objects = manifests::count_objects(text)?;
    let bare = manifests::without_tags(text, build.args.repo.name())?;
    if manifests::digests(&bare) != manifests::digests(text) {
        return Err(Error::new(Cause::Internal, "release.yaml and release.notags.yaml name other digests"));
    }
    let pushed =
        oci::push_artifact(&build.client, &target, oci::ARTIFACT_TYPE_RELEASE, "release.yaml", text.as_bytes());
    let artifact = oci::run(pushed)?;
    rundir::write(&build.folder.join("release.notags.yaml"), bare.as_bytes())?;
    let digest = rundir::write(&build.folder.join("release.yaml"), text.as_bytes())?;
    Ok(Release { digest, objects, artifact: Some(artifact.whole()) })
}
