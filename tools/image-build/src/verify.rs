//! `image-build verify`: an image, a release or a layout against the platforms asked for.

use std::path::Path;

use futures::{StreamExt, stream};
use kit::{
    Done, Output, Platform, Result, Ui, rundir,
    record::{Image, ImageKind},
};
use oci::{ARTIFACT_TYPE_RELEASE, Client, Layout, Place};

use crate::{manifests, options::Platforms, show};

/// Images looked at together.
const PARALLEL: usize = 8;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Reference of an image or a release in a registry, a release.yaml, or the folder of an OCI layout
    what: String,
    #[command(flatten)]
    platforms: Platforms,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let platforms = args.platforms.list();
    let images = oci::run(async {
        let client = Client::new()?;
        let step = ui.step(format!("verifying {}", args.what));
        let images = images(&client, &args.what, &platforms).await?;
        step.done(format!("{} images", images.len()));
        Ok(images)
    })?;
    match ui.output {
        Output::Json => ui.json(&images)?,
        Output::Text => ui.result(&show::table(&images))?,
    }
    show::problems(&images).map_or_else(|| Ok(Done::good()), Err)
}

async fn images(client: &Client, what: &str, platforms: &[Platform]) -> Result<Vec<Image>> {
    let path = Path::new(what);
    if path.is_dir() {
        let place = Place::Layout(Layout::open(path)?);
        return Ok(vec![check(&place, what, platforms).await]);
    }
    if path.is_file() {
        let bytes = rundir::read_limited(path, manifests::RELEASE_LIMIT)?;
        return release(client, &String::from_utf8_lossy(&bytes), platforms).await;
    }
    let reference = oci::parse(what)?;
    match oci::pull_artifact(client, &reference, ARTIFACT_TYPE_RELEASE).await {
        Ok((bytes, _)) => release(client, &String::from_utf8_lossy(&bytes), platforms).await,
        // Not a release, or not to be had: the rows say which.
        Err(_) => Ok(vec![check(&Place::Registry(client.clone(), reference), what, platforms).await]),
    }
}

/// All images that a release names.
async fn release(client: &Client, text: &str, platforms: &[Platform]) -> Result<Vec<Image>> {
    let names = manifests::image_references(text)?;
    let named: Vec<_> = names.into_iter().map(|name| (name, ImageKind::Referenced)).collect();
    check_all(client, &named, platforms).await
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
    let checks = stream::iter(places).map(|(name, kind, place)| async move {
        Image { kind, ..check(&place, name, platforms).await }
    });
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
