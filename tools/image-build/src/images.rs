//! `image-build images`: the stand-ins for public images, pushed where mirrors look for them.

use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt, stream};
use kit::{
    Cause, Done, Error, Output, Platform, Result, Ui,
    ci::{CiOptions, ImageMap},
    record::Image,
};
use oci::{Client, Offer, Place};

use crate::{
    base::{self, Made},
    options::{Platforms, Repo},
    show, verify,
};

/// Images pushed at the same time.
const PARALLEL: usize = 4;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    repo: Repo,
    #[command(flatten)]
    platforms: Platforms,
    /// Write those with preload = true into this folder, one archive each, for `lab load`
    #[arg(long, value_name = "DIR")]
    preload: Option<PathBuf>,
    #[command(flatten)]
    ci: CiOptions,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let map = args.ci.open()?.images()?;
    let platforms = args.platforms.list();
    let registry = args.repo.registry()?;
    let mut wanted: Vec<(String, Made)> = Vec::new();
    for image in &map.image {
        if let Some(build) = &image.build {
            let made = base::make(&map, build, &platforms, ui)?;
            if let Some(folder) = args.preload.as_ref().filter(|_| image.preload) {
                for name in &image.names {
                    made.archive(name, &folder.join(format!("{}.tar", kit::rundir::slug(name))))?;
                }
            }
            wanted.extend(image.names.iter().map(|name| (name.clone(), made.clone())));
        }
    }
    let step = ui.step("stand-ins for public images");
    let images = oci::run(async {
        let client = Client::new()?;
        push(&client, &registry, &wanted, &platforms).await
    })?;
    step.done(format!("{} names", images.len()));
    let problems = show::problems(&images);
    match ui.output {
        Output::Json => ui.json(&images)?,
        Output::Text if problems.is_none() => ui.result(&show::stand_ins(&images))?,
        Output::Text => ui.result(&show::table(&images))?,
    }
    problems.map_or_else(|| Ok(Done::good()), Err)
}

/// Verifies each where it lies and pushes it, under its mirrored name.
pub(crate) async fn push(
    client: &Client,
    registry: &str,
    wanted: &[(String, Made)],
    platforms: &[Platform],
) -> Result<Vec<Image>> {
    let pushes = stream::iter(wanted).map(|(name, made)| async move {
        let image = verify::check(&made.place(), name, platforms).await;
        if show::problems(std::slice::from_ref(&image)).is_some() {
            return Ok(image);
        }
        let target = oci::mirror(registry, name, made.tag())?;
        let there = oci::offered(&Place::Registry(client.clone(), target.clone())).await;
        let digest = match there {
            // Others may have asked for more platforms than we do: theirs stay.
            Ok(there) if holds(&there.offers, &image) => there.digest,
            _ => made.push(client, &target).await?,
        };
        Ok(Image { reference: oci::pinned(&target, &digest).whole(), digest: Some(digest), ..image })
    });
    pushes.buffered(PARALLEL).try_collect().await
}

/// Whether what is offered has all of an image's manifests.
fn holds(offers: &[Offer], image: &Image) -> bool {
    let has = |manifest: &String| offers.iter().any(|offer| offer.manifest == *manifest);
    image.platforms.iter().all(|row| row.manifest.as_ref().is_some_and(has))
}

/// What ci/images.toml says of a public image.
pub(crate) enum Known<'a> {
    /// This build stands in for it.
    Build(&'a str),
    /// Nothing runs it on the platforms asked for, and why.
    Unused(&'a str),
    /// Nothing: it has to be what it is.
    Itself,
}

/// Looks a reference of a configuration up.
pub(crate) fn lookup<'a>(map: &'a ImageMap, name: &str, platforms: &[Platform]) -> Result<Known<'a>> {
    let wanted = oci::parse(name)?.whole();
    let same = |other: &String| oci::parse(other).is_ok_and(|other| other.whole() == wanted);
    let Some(image) = map.image.iter().find(|image| image.names.iter().any(same)) else { return Ok(Known::Itself) };
    match (&image.build, &image.unused) {
        (Some(build), None) => Ok(Known::Build(build)),
        // Reasons speak of Linux: what only Windows runs counts as soon as Windows is asked for.
        (None, Some(reason)) if platforms.iter().all(|platform| platform.os == "linux") => Ok(Known::Unused(reason)),
        (None, Some(_)) => Ok(Known::Itself),
        _ => Err(Error::new(Cause::Usage, format!("images.toml: {name} needs either build or unused"))),
    }
}
