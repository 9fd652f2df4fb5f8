//! `image-build verify`: an image, a release or a layout against the platforms asked for.

mod adopt;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kit::{
    Cause, Done, Output, Platform, Result, Ui,
    ci::{CiOptions, ImageMap},
    record::{Image, ImageKind, Unused},
    rundir,
};
use oci::{ARTIFACT_TYPE_RELEASE, Client, Layout, Place, Reference};

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
    /// Keep the release in this run, with what was found of it: images.json and release.yaml in DIR/COMPONENT
    #[arg(long, value_name = "DIR", requires = "component")]
    run_dir: Option<PathBuf>,
    /// The component that the release is of
    #[arg(long, value_name = "NAME", requires = "run_dir")]
    component: Option<String>,
}

/// What is looked at.
enum Subject {
    Image(Place),
    Release(Release),
}

/// A release file, and the artifact that it was.
struct Release {
    bytes: Vec<u8>,
    artifact: Option<Reference>,
}

/// What was found.
#[derive(Default)]
struct Found {
    images: Vec<Image>,
    unused: Vec<Unused>,
    release: Option<Release>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    // Outside a workspace nothing is known to be unused.
    let map = args.ci.open().map_or_else(|_| Ok(ImageMap::default()), |ci| ci.images())?;
    let started = Timestamp::now();
    let step = ui.step(format!("verifying {}", args.what));
    let found = oci::run(look(&args.what, &args.platforms.list(), &map));
    let problem = match &found {
        Ok(found) => show::problems(&found.images),
        Err(_) => None,
    };
    let (found, error) = match found {
        Ok(found) => (found, problem),
        Err(error) => (Found::default(), Some(error)),
    };
    step.done(format!("{} images", found.images.len()));
    for unused in &found.unused {
        ui.note(format!("{} is not looked at: {}", unused.reference, unused.reason));
    }
    let digest = adopt::adopt(args, started, &found, error.as_ref())?;
    if !found.images.is_empty() {
        match ui.output {
            Output::Json => ui.json(&found.images)?,
            Output::Text => ui.result(&show::table(&found.images))?,
        }
    }
    match error {
        Some(error) => Err(error),
        None => Ok(Done { digest, ..Done::good() }),
    }
}

async fn look(what: &str, platforms: &[Platform], map: &ImageMap) -> Result<Found> {
    let client = Client::new()?;
    let release = match subject(&client, what).await? {
        Subject::Image(place) => {
            return Ok(Found { images: vec![check(&place, what, platforms).await], ..Found::default() });
        }
        Subject::Release(release) => release,
    };
    let (mut named, mut unused) = (Vec::new(), Vec::new());
    for name in manifests::image_references(&release.text())? {
        match images::lookup(map, &name, platforms)? {
            Known::Unused(reason) => unused.push(Unused { reference: name, reason: reason.into() }),
            _ => named.push((name, ImageKind::Referenced)),
        }
    }
    Ok(Found { images: check_all(&client, &named, platforms).await?, unused, release: Some(release) })
}

async fn subject(client: &Client, what: &str) -> Result<Subject> {
    let path = Path::new(what);
    if path.is_dir() {
        return Ok(Subject::Image(Place::Layout(Layout::open(path)?)));
    }
    if path.is_file() {
        let bytes = rundir::read_limited(path, manifests::RELEASE_LIMIT)?;
        return Ok(Subject::Release(Release { bytes, artifact: None }));
    }
    let reference = oci::parse(what)?;
    match oci::pull_artifact(client, &reference, ARTIFACT_TYPE_RELEASE).await {
        Ok((bytes, artifact)) => Ok(Subject::Release(Release { bytes, artifact: Some(artifact) })),
        // It is there, and something else.
        Err(error) if error.cause == Cause::Usage => Ok(Subject::Image(Place::Registry(client.clone(), reference))),
        Err(error) => Err(error),
    }
}

impl Release {
    fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
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

/// Verifies images where they lie, each for its own platforms, several at a time, in the order given.
pub(crate) async fn check_places(places: &[(&String, &Vec<Platform>, Place)]) -> Result<Vec<Image>> {
    let checks = stream::iter(places).map(|(name, platforms, place)| check(place, name, platforms));
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
