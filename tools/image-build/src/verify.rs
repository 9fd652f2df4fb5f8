//! `image-build verify`: an image, a release or a layout against the platforms asked for.

use std::path::Path;

use futures::{StreamExt, stream};
use kit::{
    Done, Output, Platform, Result, Ui,
    ci::{CiOptions, ImageMap},
    record::{Image, ImageKind},
    rundir,
};
use oci::{ARTIFACT_TYPE_RELEASE, Client, Layout, Place};

use crate::{
    images::{self, Known},
    manifests,
    options::Platforms,
    show,
};

/// Images looked at together.
const PARALLEL: usize = 8;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Reference of an image or a release in a registry, a release.yaml, or the folder of an OCI layout
    what: String,
    #[command(flatten)]
    platforms: Platforms,
    #[command(flatten)]
    ci: CiOptions,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let platforms = args.platforms.list();
    // Outside a workspace nothing is known to be unused.
    let map = args.ci.open().map_or_else(|_| Ok(ImageMap::default()), |ci| ci.images())?;
    let step = ui.step(format!("verifying {}", args.what));
    let images = oci::run(async { Look { client: Client::new()?, map, platforms, ui }.images(&args.what).await })?;
    step.done(format!("{} images", images.len()));
    match ui.output {
        Output::Json => ui.json(&images)?,
        Output::Text => ui.result(&show::table(&images))?,
    }
    show::problems(&images).map_or_else(|| Ok(Done::good()), Err)
}

struct Look<'a> {
    client: Client,
    map: ImageMap,
    platforms: Vec<Platform>,
    ui: &'a Ui,
}

impl Look<'_> {
    async fn images(&self, what: &str) -> Result<Vec<Image>> {
        let path = Path::new(what);
        if path.is_dir() {
            let place = Place::Layout(Layout::open(path)?);
            return Ok(vec![check(&place, what, &self.platforms).await]);
        }
        if path.is_file() {
            return self.release(&rundir::read_limited(path, manifests::RELEASE_LIMIT)?).await;
        }
        let reference = oci::parse(what)?;
        match oci::pull_artifact(&self.client, &reference, ARTIFACT_TYPE_RELEASE).await {
            Ok((bytes, _)) => self.release(&bytes).await,
            // Not a release, or not to be had: the rows say which.
            Err(_) => Ok(vec![check(&Place::Registry(self.client.clone(), reference), what, &self.platforms).await]),
        }
    }

    /// All images that a release names, but those that nothing runs.
    async fn release(&self, bytes: &[u8]) -> Result<Vec<Image>> {
        let mut named = Vec::new();
        for name in manifests::image_references(&String::from_utf8_lossy(bytes))? {
            match images::lookup(&self.map, &name, &self.platforms)? {
                Known::Unused(reason) => self.ui.note(format!("{name} is not looked at: {reason}")),
                _ => named.push((name, ImageKind::Referenced)),
            }
        }
        check_all(&self.client, &named, &self.platforms).await
    }
}

/// Verifies images of registries, several at a time, in the order given.
pub(crate) async fn check_all(
    client: &Client,
    images: &[(String, ImageKind)],
    platforms: &[Platform],
) -> Result<Vec<Image>> {
    let mut places = Vec::new();
    for (name, kind) in images {
        places.push((name, *kind, Place::Registry(client.clone(), oci::parse(name)?)));
    }
    let checks = stream::iter(places)
        .map(|(name, kind, place)| async move { Image { kind, ..check(&place, name, platforms).await } });
    Ok(checks.buffered(PARALLEL).collect().await)
}

/// Verifies one image.
pub(crate) async fn check(place: &Place, name: &str, platforms: &[Platform]) -> Image {
    let checked = oci::verify(place, platforms).await;
    let reference = match (place, &checked.digest) {
        (Place::Registry(_, reference), Some(digest)) => oci::pinned(reference, digest).whole(),
        _ => name.to_owned(),
    };
    Image {
        name: name.to_owned(),
        kind: ImageKind::Referenced,
        reference,
        digest: checked.digest,
        base: None,
        platforms: checked.rows,
    }
}
