//! Publishing what was verified: images, then what tells of them, the release last.

use std::collections::BTreeSet;

use futures::{StreamExt, TryStreamExt, stream};
use kit::{
    Cause, Error, Result,
    record::{Image, Release},
    rundir,
};
use oci::{Layout, Received};

use super::{Build, fresh::Fresh, reuse::Reuse};
use crate::manifests;

/// Images pushed at the same time.
const PARALLEL: usize = 4;

/// Pushes what was built and what ko wrote about it (SBOMs), all by digest; then the tags, also of images that the
/// registry had.
pub(super) fn images(build: &Build<'_>, fresh: Option<&Fresh>, reuse: Option<&Reuse<'_>>) -> Result<()> {
    if let Some(fresh) = fresh {
        pushed(build, fresh, reuse)?;
    }
    let tags = build.tags();
    let mut wanted = Vec::new();
    for (import, known) in reuse.map(Reuse::known).into_iter().flatten() {
        for tag in &tags {
            wanted.push((oci::parse(&format!("{}:{tag}", build.repository(import)))?, &known.document));
        }
    }
    oci::run(async {
        let sets = stream::iter(&wanted).map(|(tag, document)| async move {
            let there = build.client.find_manifest(tag).await?;
            if there.is_some_and(|there| there.digest == document.digest) {
                return Ok(());
            }
            build.client.push_manifest(tag, document).await
        });
        sets.buffer_unordered(PARALLEL).try_collect::<()>().await
    })
}

fn pushed(build: &Build<'_>, fresh: &Fresh, reuse: Option<&Reuse<'_>>) -> Result<()> {
    let verified: BTreeSet<_> = fresh.images().filter_map(|(image, _)| image.digest.as_deref()).collect();
    let wanted = |received: &&Received| {
        // What is about an image has the image's digest as its tag, as cosign writes it.
        received.tag.starts_with("sha256-") || verified.contains(received.image.digest().to_string().as_str())
    };
    let received: Vec<_> = fresh.received().iter().filter(wanted).collect();
    let step = build.ui.step(format!("pushing to {}", build.args.repo.name()));
    oci::run(async {
        for tagged in [false, true] {
            let pushes = stream::iter(&received).map(|received| push(build, fresh.layout(), received, reuse, tagged));
            pushes.buffer_unordered(PARALLEL).try_collect::<()>().await?;
        }
        Ok(())
    })?;
    step.done(format!("{} images", verified.len()));
    Ok(())
}

async fn push(
    build: &Build<'_>,
    layout: &Layout,
    received: &Received,
    reuse: Option<&Reuse<'_>>,
    tagged: bool,
) -> Result<()> {
    let Received { repository, tag, image } = received;
    let target = oci::parse(&format!("{}/{repository}:{tag}", build.args.repo.registry()?))?;
    let target = if tagged { target } else { oci::pinned(&target, image.digest().as_ref()) };
    match reuse.is_some_and(|reuse| reuse.is_damaged(repository)) && !tagged {
        true => oci::restore(&build.client, layout, image, &target).await.map(drop),
        false => oci::copy(&build.client, layout, image, &target).await.map(drop),
    }
}

/// The images by digest for Tekton Chains (`docs/config.md`, type hinting); an error if they are too many.
pub(super) fn images_result(build: &Build<'_>, built: &[Image]) -> Result<String> {
    let lines: Vec<_> = built.iter().map(|image| image.reference.as_str()).collect();
    let (text, limit) = (lines.join("\n"), build.args.images_result_limit);
    if build.args.images_result.is_some() && text.len() > limit {
        let what = format!("the result IMAGES would have {} bytes, and may have {limit}", text.len());
        let next = "let results be larger (Tekton's feature flags results-from and max-result-size) and say so with \
                    --images-result-limit";
        return Err(Error::new(Cause::Usage, what).next(next));
    }
    Ok(text)
}

/// Writes the release's files and pushes it under all tags; the files appear last, when everything is there.
pub(super) fn release(build: &Build<'_>, text: &str) -> Result<Release> {
    let objects = manifests::count_objects(text)?;
    let bare = manifests::without_tags(text);
    same_digests(text, &bare)?;
    let mut artifact = None;
    for tag in build.tags() {
        let target = build.args.repo.reference(&format!("release/{}:{tag}", build.args.component))?;
        let pushed =
            oci::push_artifact(&build.client, &target, oci::ARTIFACT_TYPE_RELEASE, "release.yaml", text.as_bytes());
        artifact = Some(oci::run(pushed)?.whole());
    }
    rundir::write(&build.folder.join("release.notags.yaml"), bare.as_bytes())?;
    let digest = rundir::write(&build.folder.join("release.yaml"), text.as_bytes())?;
    Ok(Release { digest, objects, artifact })
}

/// Refuses release files that do not name the same images in the same order.
fn same_digests(text: &str, bare: &str) -> Result<()> {
    match manifests::digests(bare) == manifests::digests(text) {
        true => Ok(()),
        false => Err(Error::new(Cause::Internal, "release.yaml and release.notags.yaml name other digests")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_files_with_other_digests_are_refused() {
        let image = |tag: &str, digit: &str| format!("image: r.io/x{tag}@sha256:{}\n", digit.repeat(64));
        let text = image(":v1", "1") + &image(":v1", "2");
        same_digests(&text, &manifests::without_tags(&text)).unwrap();
        for bare in [image("", "1"), image("", "1") + &image("", "3"), image("", "2") + &image("", "1")] {
            assert_eq!(same_digests(&text, &bare).unwrap_err().cause, Cause::Internal, "{bare}");
        }
    }
}
