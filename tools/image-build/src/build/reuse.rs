//! `build --reuse`: images whose inputs are those of images that the registry has are not built again.
//!
//! What an image was made of is a key, kept beside it as an artifact that refers to it and that has the key as its
//! tag. Nothing of it is in the image. An image that is found is looked at as any other before it is used, and one
//! of which anything is gone is built again. Whoever may write to the repository decides what is found: releases are
//! built without it.

mod inputs;
mod kodata;
mod note;
mod packages;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use futures::{StreamExt, stream};
use kit::{Platform, Result, record::Image};
use oci::Document;

use self::inputs::Keys;
pub(in crate::build) use self::inputs::compile;
use super::{Build, bases::Bases, fresh::Fresh};

/// Images looked for together.
const PARALLEL: usize = 8;

/// What is known of the images before anything is built.
pub(super) struct Reuse<'a> {
    build: &'a Build<'a>,
    program: &'a Path,
    bases: &'a Bases,
    keys: Keys,
    known: BTreeMap<String, Known>,
    /// Repositories of images that were noted and cannot be used.
    damaged: BTreeSet<String>,
}

/// An image that the registry has.
pub(super) struct Known {
    /// Verified, as if it had been built.
    pub(super) image: Image,
    pub(super) document: Document,
}

impl<'a> Reuse<'a> {
    /// Looks which of these images the registry has.
    pub(super) fn look(
        build: &'a Build<'a>,
        program: &'a Path,
        bases: &'a Bases,
        images: &BTreeMap<String, Vec<Platform>>,
    ) -> Result<Self> {
        let step = build.ui.step("looking for images that are built already");
        let keys = inputs::keys(build, program, bases, images)?;
        let known = oci::run(async {
            let looks = stream::iter(images).map(async |(import, platforms)| {
                let Some(Ok(key)) = keys.get(import) else { return Ok(None) };
                let found = note::find(build, import, key, platforms).await?;
                Ok(found.map(|found| (import.clone(), found)))
            });
            let looked: Vec<Result<_>> = looks.buffered(PARALLEL).collect().await;
            looked.into_iter().collect::<Result<Vec<_>>>()
        })?;
        let mut reuse = Self { build, program, bases, keys, known: BTreeMap::new(), damaged: BTreeSet::new() };
        for (import, found) in known.into_iter().flatten() {
            match found {
                Ok(mut known) => {
                    known.image.base = bases.get(&import).or_else(|| bases.get("default")).cloned();
                    reuse.known.insert(import, known);
                }
                Err(why) => {
                    build.ui.note(format!("{import} is built again: {}", why.summary()));
                    reuse.damaged.insert(oci::parse(&build.repository(&import))?.repository().to_owned());
                }
            }
        }
        step.done(format!("{} of {} are reused", reuse.known.len(), images.len()));
        reuse.say_why_not();
        Ok(reuse)
    }

    /// Those that need not be built.
    pub(super) fn known(&self) -> &BTreeMap<String, Known> {
        &self.known
    }

    /// Whether something of the image in a repository is gone or wrong.
    pub(super) fn is_damaged(&self, repository: &str) -> bool {
        self.damaged.contains(repository)
    }

    /// Keeps what new images were made of, if that is still what it was before they were built. A registry that does
    /// not take it only makes the next build slower.
    pub(super) fn remember(&self, fresh: &Fresh) -> Result<()> {
        let step = self.build.ui.step("keeping what the images were made of");
        let images = fresh.images().map(|(image, platforms)| (image.name.clone(), platforms.to_vec())).collect();
        let after = inputs::keys(self.build, self.program, self.bases, &images)?;
        let mut kept = 0;
        for (image, _) in fresh.images() {
            let (Some(Ok(before)), Some(Ok(after))) = (self.keys.get(&image.name), after.get(&image.name)) else {
                continue;
            };
            if before != after {
                self.build.ui.note(format!("{}: its inputs changed while it was built", image.name));
                continue;
            }
            match oci::run(note::keep(self.build, image, before, fresh.received())) {
                Ok(()) => kept += 1,
                Err(error) if error.signal.is_some() => return Err(error),
                Err(error) => self.build.ui.warn(format!("{} will be built again: {}", image.name, error.summary())),
            }
        }
        step.done(format!("{kept} images"));
        Ok(())
    }

    /// Each reason once.
    fn say_why_not(&self) {
        let mut reasons: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (import, key) in &self.keys {
            if let Err(why) = key {
                reasons.entry(why.to_string()).or_default().push(import);
            }
        }
        for (why, imports) in reasons {
            self.build.ui.note(format!("not to be reused: {} ({why})", imports.join(", ")));
        }
    }
}
