//! Images that ko builds: into a layout on this machine, where each is compared with what was asked for.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use kit::{Cause, Context, Error, Platform, Result, record::Image, rundir};
use oci::{Inbox, Layout, Place, Received};

use super::{Build, bases::Bases};
use crate::{ko, verify};

/// What ko built, and where it lies.
pub(super) struct Fresh {
    layout: Layout,
    received: Vec<Received>,
    /// As they are, with the platforms asked for, by import path.
    images: Vec<(Image, Vec<Platform>)>,
}

impl Fresh {
    /// Lets ko build these images in `folder`, and looks at all of them.
    pub(super) fn build(
        build: &Build<'_>,
        program: &Path,
        bases: &Bases,
        images: BTreeMap<String, Vec<Platform>>,
        folder: &Path,
    ) -> Result<Self> {
        let inbox = oci::run(Inbox::open(folder.to_owned()))?;
        let answer = resolve(build, program, bases, &images, &inbox)?;
        let below = build.args.repo.below(inbox.name());
        let (layout, received) = (inbox.layout().clone(), inbox.received());
        // Nothing comes after what is looked at.
        drop(inbox);
        let mut fresh = Self { layout, received, images: Vec::new() };
        let looked = fresh.verify(build, &answer, &images, bases, &below)?;
        fresh.images = looked.into_iter().zip(images.into_values()).collect();
        Ok(fresh)
    }

    /// The images, each with the platforms that it was asked for.
    pub(super) fn images(&self) -> impl Iterator<Item = (&Image, &[Platform])> {
        self.images.iter().map(|(image, platforms)| (image, &platforms[..]))
    }

    /// Everything that ko pushed.
    pub(super) fn received(&self) -> &[Received] {
        &self.received
    }

    /// Where all of it lies.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Compares what ko pushed with what it was asked for, image by image and platform by platform.
    fn verify(
        &self,
        build: &Build<'_>,
        answer: &BTreeMap<String, String>,
        images: &BTreeMap<String, Vec<Platform>>,
        bases: &Bases,
        below: &str,
    ) -> Result<Vec<Image>> {
        let mut places = Vec::new();
        for (import, platforms) in images {
            let left_out = || Error::new(Cause::BuildFailure, format!("ko built no image for ko://{import}"));
            let reference = oci::parse(answer.get(import).ok_or_else(left_out)?)?;
            let name = format!("{}/{}", reference.registry(), reference.repository());
            if name != build.args.naming().repository(below, import) {
                let what = format!("ko called the image of {import} {name}, which is not what it was asked for");
                return Err(Error::new(Cause::BuildFailure, what));
            }
            let its =
                |digest: &str| self.received.iter().find(|received| received.image.digest().to_string() == digest);
            let image = reference.digest().and_then(its).ok_or_else(left_out)?.image.clone();
            places.push((import, platforms, Place::Layout(self.layout.choose(&image))));
        }
        let step = build.ui.step(format!("verifying {} images on {} platforms", places.len(), build.platforms.len()));
        let checked = oci::run(verify::check_all_built(&places))?;
        step.done("");
        let named = checked.into_iter().map(|image| {
            let base = bases.get(&image.name).or_else(|| bases.get("default")).cloned();
            let digest = image.digest.clone().unwrap_or_default();
            let reference = format!("{}@{digest}", build.repository(&image.name));
            Image { base, reference, ..image }
        });
        Ok(named.collect())
    }
}

/// Lets ko build into the inbox; returns what it called the images.
fn resolve(
    build: &Build<'_>,
    program: &Path,
    bases: &Bases,
    images: &BTreeMap<String, Vec<Platform>>,
    inbox: &Inbox,
) -> Result<BTreeMap<String, String>> {
    rundir::write(&build.folder.join("ko.yaml"), build.ko_config(bases)?.as_bytes())?;
    // ko runs in the sources' folder.
    let folder =
        build.folder.canonicalize().cause(Cause::HostDisk, || format!("cannot read {}", build.folder.display()))?;
    // ko builds all images for the same platforms.
    let mut groups = BTreeMap::<&[Platform], BTreeSet<String>>::new();
    for (import, platforms) in images {
        groups.entry(platforms).or_default().insert(import.clone());
    }
    let mut answer = BTreeMap::new();
    for (platforms, images) in groups {
        let resolve = ko::Resolve {
            program,
            root: &build.checkout.dir,
            folder: &folder,
            repo: &build.args.repo.below(inbox.name()),
            naming: build.args.naming(),
            tags: &build.tags(),
            platforms,
            images: &images,
            sbom: &build.args.sbom,
            jobs: build.args.jobs,
            go_flags: build.args.go_flags.as_deref(),
            others: &build.args.others(),
        };
        answer.extend(resolve.run(build.ui)?);
    }
    Ok(answer)
}
