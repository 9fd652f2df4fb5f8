//! `image-build images`: the stand-ins for public images, pushed where mirrors look for them.

use std::path::PathBuf;

use futures::{StreamExt, TryStreamExt, stream};
use kit::{
    Cause, Done, Error, Output, Platform, Result, Ui,
    ci::{CiOptions, ImageMap, ReplacedImage},
    record::Image,
};
use oci::{Client, Offer, Place, Reference};

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
    let mut wanted = Vec::new();
    for image in &map.image {
        let platforms: Vec<_> = platforms.iter().filter(|platform| runs_stand_in(image, platform)).cloned().collect();
        if let Some(build) = image.build.as_ref().filter(|_| !platforms.is_empty()) {
            let made = base::make(&map, build, &platforms, ui)?;
            if let Some(folder) = args.preload.as_ref().filter(|_| image.preload) {
                for name in &image.names {
                    made.archive(name, &folder.join(format!("{}.tar", kit::rundir::slug(name))))?;
                }
            }
            let names = image.names.iter().cloned();
            wanted.extend(names.map(|name| StandIn { name, made: made.clone(), platforms: platforms.clone() }));
        }
    }
    let step = ui.step("stand-ins for public images");
    let images = oci::run(async {
        let client = Client::new()?;
        let placed = place(&client, &registry, &wanted).await?;
        push(&client, &placed).await?;
        Ok(placed.into_iter().map(|placed| placed.image).collect::<Vec<_>>())
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

/// A stand-in for an image, for the platforms that run it.
pub(crate) struct StandIn {
    pub(crate) name: String,
    pub(crate) made: Made,
    pub(crate) platforms: Vec<Platform>,
}

/// A stand-in as it was verified, by the reference under which it is, or will be when it is pushed.
pub(crate) struct Placed {
    pub(crate) image: Image,
    /// What has to be pushed, and where to; nothing if it is there, or if something is wrong with it.
    push: Option<(Made, Reference)>,
}

/// Verifies each where it lies, and looks where it belongs: under its mirrored name. Nothing is pushed.
pub(crate) async fn place(client: &Client, registry: &str, wanted: &[StandIn]) -> Result<Vec<Placed>> {
    let looks = stream::iter(wanted).map(|StandIn { name, made, platforms }| async move {
        let image = verify::check(&made.place(), name, platforms).await;
        if show::problems(std::slice::from_ref(&image)).is_some() {
            return Ok(Placed { image, push: None });
        }
        let target = oci::mirror(registry, name, made.tag())?;
        let there = oci::offered(&Place::Registry(client.clone(), target.clone())).await;
        let (digest, push) = match there {
            // Others may have asked for more platforms than we do: theirs stay.
            Ok(there) if holds(&there.offers, &image) => (there.digest, None),
            _ => (made.parts().1.digest().to_string(), Some((made.clone(), target.clone()))),
        };
        let reference = oci::pinned(&target, &digest).whole();
        Ok(Placed { image: Image { reference, digest: Some(digest), ..image }, push })
    });
    looks.buffered(PARALLEL).try_collect().await
}

/// Pushes those that are not there.
pub(crate) async fn push(client: &Client, placed: &[Placed]) -> Result<()> {
    let pushes = stream::iter(placed.iter().filter_map(|placed| placed.push.as_ref()));
    let pushes = pushes.map(|(made, target)| async move { made.push(client, target).await.map(drop) });
    pushes.buffer_unordered(PARALLEL).try_collect().await
}

/// Whether a stand-in can be run there: all of them are made of packages for Linux.
fn runs_stand_in(image: &ReplacedImage, platform: &Platform) -> bool {
    platform.os == "linux" && runs(image, platform)
}

fn runs(image: &ReplacedImage, platform: &Platform) -> bool {
    image.platforms.is_empty() || image.platforms.iter().any(|own| oci::offers(platform, own))
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

/// Looks a reference of a configuration up; returns also for which of the platforms it counts.
pub(crate) fn lookup<'a>(map: &'a ImageMap, name: &str, platforms: &[Platform]) -> Result<(Known<'a>, Vec<Platform>)> {
    let reference = oci::parse(name)?;
    let wanted = reference.whole();
    let among = |wanted: &dyn Fn(&Platform) -> bool| -> Vec<Platform> {
        platforms.iter().filter(|platform| wanted(platform)).cloned().collect()
    };
    let counted = |known: Known<'a>, own: Vec<Platform>| match own.is_empty() && !platforms.is_empty() {
        true => (Known::Unused("none of these platforms runs it"), own),
        false => (known, own),
    };
    let same = |other: &String| oci::parse(other).is_ok_and(|other| other.whole() == wanted);
    let Some(image) = map.image.iter().find(|image| image.names.iter().any(same)) else {
        // What a release of ours has in an image's place runs where that image does.
        let mirrored = |other: &String| {
            let mirror = oci::mirror(reference.registry(), other, "x");
            mirror.is_ok_and(|mirror| mirror.repository() == reference.repository())
        };
        let stands_in = |image: &&ReplacedImage| image.build.is_some() && image.names.iter().any(mirrored);
        return Ok(match map.image.iter().find(stands_in) {
            Some(image) => counted(Known::Itself, among(&|platform| runs_stand_in(image, platform))),
            None => (Known::Itself, platforms.to_vec()),
        });
    };
    match (&image.build, &image.unused) {
        (Some(build), None) => Ok(counted(Known::Build(build), among(&|platform| runs_stand_in(image, platform)))),
        // Reasons speak of Linux: what only Windows runs counts as soon as Windows is asked for, and only there.
        (None, Some(reason)) => {
            let own = among(&|platform| platform.os != "linux" && runs(image, platform));
            Ok((if own.is_empty() { Known::Unused(reason) } else { Known::Itself }, own))
        }
        (None, None) if !image.platforms.is_empty() => {
            Ok(counted(Known::Itself, among(&|platform| runs(image, platform))))
        }
        _ => Err(Error::new(Cause::Usage, format!("images.toml: {name} needs either build, unused or platforms"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_counts_only_where_it_runs() {
        let text = "[[image]]\nnames = ['x.y/shell:1']\nbuild = 'shell'\n\
                    [[image]]\nnames = ['x.y/win:1']\nunused = 'only Windows runs it'\n\
                    [[image]]\nnames = ['x.y/z:1']\nplatforms = ['linux/s390x', 'windows/amd64']\n\
                    [[image]]\nnames = ['x.y/neither:1']\n";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("images.toml"), text).unwrap();
        let map = kit::ci::Ci::new(folder.path()).images().unwrap();
        let platforms: Vec<Platform> =
            ["linux/amd64", "linux/s390x", "windows/amd64:10.0.17763"].map(|text| text.parse().unwrap()).into();
        for (name, asked, known, counts) in [
            ("shell", &platforms[..], "build shell", &platforms[..2]),
            ("shell", &platforms[2..], "unused none of these platforms runs it", &[]),
            ("win", &platforms[..2], "unused only Windows runs it", &[]),
            ("win", &platforms[..], "itself", &platforms[2..]),
            ("z", &platforms[..], "itself", &platforms[1..]),
            ("z", &platforms[..1], "unused none of these platforms runs it", &[]),
            ("other", &platforms[..], "itself", &platforms[..]),
            ("mirror/x.y/shell", &platforms[..], "itself", &platforms[..2]),
            ("win", &[], "unused only Windows runs it", &[]),
            ("shell", &[], "build shell", &[]),
        ] {
            let (found, counted) = lookup(&map, &format!("x.y/{name}:1"), asked).unwrap();
            let found = match found {
                Known::Build(build) => format!("build {build}"),
                Known::Unused(reason) => format!("unused {reason}"),
                Known::Itself => "itself".into(),
            };
            assert_eq!((found.as_str(), &counted[..]), (known, counts), "{name} on {asked:?}");
        }
        assert_eq!(lookup(&map, "x.y/neither:1", &platforms).err().unwrap().cause, Cause::Usage);
    }
}
