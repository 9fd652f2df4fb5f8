//! `image-build verify`: images, releases, layouts, programs and archives against the platforms asked for.

mod adopt;
mod subject;

use std::path::{Path, PathBuf};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use kit::{
    Cause, Done, Error, Output, Platform, Result, Ui,
    ci::{CiOptions, ImageMap},
    record::{Image, ImageKind, PlatformRow, Unseen, Unused},
};
use oci::{Checked, Client, Memory, Place};

use self::subject::{Release, Subject};
use crate::{
    images::{self, Known},
    options::Platforms,
    show,
};

/// Images looked at together.
const PARALLEL: usize = 8;

/// What `--help` says at its end.
pub(crate) const EXAMPLES: &str = "\
Examples:
  image-build verify ghcr.io/x/controller:v1 --platform linux/arm64,linux/s390x
  image-build verify release.yaml --platform linux/s390x --nonroot   every image that it names
  image-build verify ./layout --platform linux/arm/v6 --deep         every program in every layer
  image-build verify tkn_Linux_s390x.tar.gz --platform linux/s390x   every program in the archive

Without --deep only as much of each image is read as shows its program: small layers to their end, of large ones in a
registry the beginning, whose digest is then not compared. JSON says so of each ('unseen').

Exit codes: 0 everything is what it should be; 1 something is not, see the rows; 2 the call is wrong, or a file
that it names; 3 a registry does not answer, or sends something else than it said; 4 no image was named.";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Reference of an image or a release in a registry, a release.yaml, the folder of an OCI layout, a program, or
    /// an archive of programs (tar, also compressed by gzip or zstd, and zip)
    #[arg(required = true)]
    what: Vec<String>,
    #[command(flatten)]
    platforms: Platforms,
    /// Read every program in every layer, not only the one that the image starts; layers are remembered
    #[arg(long)]
    deep: bool,
    /// Refuse images that run as root, and those of which only a user's name is known
    #[arg(long)]
    nonroot: bool,
    #[command(flatten)]
    ci: CiOptions,
    /// Keep the release in this run, with what was found of it: images.json and release.yaml in DIR/COMPONENT
    #[arg(long, value_name = "DIR", requires = "component")]
    run_dir: Option<PathBuf>,
    /// The component that the release is of
    #[arg(long, value_name = "NAME", requires = "run_dir")]
    component: Option<String>,
}

/// What was found.
#[derive(Default)]
struct Found {
    images: Vec<Image>,
    unused: Vec<Unused>,
    release: Option<Release>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    if args.run_dir.is_some() && args.what.len() > 1 {
        return Err(Error::new(Cause::Usage, "a run keeps one release: name one, or leave out --run-dir"));
    }
    // Outside a workspace nothing is known to be unused.
    let map = args.ci.open().map_or_else(|_| Ok(ImageMap::default()), |ci| ci.images())?;
    let started = Timestamp::now();
    let step = ui.step(format!("verifying {}", args.what.join(", ")));
    let found = look(args, &map);
    let problem = match &found {
        Ok(found) => show::problems(&found.images),
        Err(_) => None,
    };
    let (found, error) = match found {
        Ok(found) => (found, problem),
        Err(error) => (Found::default(), Some(error)),
    };
    step.done(seen(&found.images));
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

/// How many images were looked at, and how many of them not to the end of their layers.
fn seen(images: &[Image]) -> String {
    let partly = |image: &&Image| image.platforms.iter().any(|row| row.unseen == Some(Unseen::LayerEnd));
    let partly = match images.iter().filter(partly).count() {
        0 => String::new(),
        partly => format!(", of {partly} large layers only as far as their program (--deep reads all)"),
    };
    format!("{} images{partly}", images.len())
}

/// Something to look at, with its name.
enum Todo {
    Image(Place, Vec<Platform>),
    File(PathBuf),
    /// It could not even be found out what it is.
    Failed(Error),
}

fn look(args: &Args, map: &ImageMap) -> Result<Found> {
    let platforms = args.platforms.list();
    let (mut todo, mut found) = oci::run(gather(args, &platforms, map))?;
    let folder = kit::dirs::cache().ok().map(|cache| cache.join("layers"));
    let memory = args.deep.then(|| folder.map_or_else(Memory::default, Memory::in_folder));
    let mut images = oci::run(async {
        let places = todo.iter().enumerate().filter_map(|(number, (name, todo))| match todo {
            Todo::Image(place, platforms) => Some((number, name, place, platforms)),
            _ => None,
        });
        let checks = stream::iter(places).map(async |(number, name, place, platforms)| {
            (number, check_with(place, name, platforms, memory.as_ref()).await)
        });
        Ok(checks.buffer_unordered(PARALLEL).collect::<Vec<_>>().await)
    })?;
    for (number, (name, todo)) in todo.drain(..).enumerate() {
        kit::signal::check()?;
        match todo {
            Todo::Image(..) => {}
            Todo::File(path) => match check_file(&path, &platforms) {
                Err(error) if args.what.len() == 1 => return Err(error),
                checked => images.push((
                    number,
                    image(&name, name.clone(), checked.unwrap_or_else(|error| failed(&platforms, &error))),
                )),
            },
            Todo::Failed(error) => images.push((number, image(&name, name.clone(), failed(&platforms, &error)))),
        }
    }
    images.sort_by_key(|(number, _)| *number);
    found.images = images.into_iter().map(|(_, image)| image).collect();
    if args.nonroot {
        found.images.iter_mut().flat_map(|image| &mut image.platforms).for_each(refuse_root);
    }
    Ok(found)
}

/// Finds out what everything is that was named, and what releases name.
async fn gather(args: &Args, platforms: &[Platform], map: &ImageMap) -> Result<(Vec<(String, Todo)>, Found)> {
    let client = Client::new()?;
    let (mut todo, mut found) = (Vec::new(), Found::default());
    for what in &args.what {
        match gather_one(&client, what, platforms, map).await {
            Ok((more, one)) => {
                todo.extend(more);
                found.unused.extend(one.unused);
                found.release = one.release.or(found.release.take());
            }
            // Of several the others are looked at all the same.
            Err(error) if args.what.len() > 1 && error.signal.is_none() => {
                todo.push((what.clone(), Todo::Failed(error)));
            }
            Err(error) => return Err(error),
        }
    }
    if todo.is_empty() {
        let what = format!("{} names no image that runs on these platforms", args.what.join(", "));
        return Err(Error::new(Cause::NothingRan, what));
    }
    Ok((todo, found))
}

async fn gather_one(
    client: &Client,
    what: &str,
    platforms: &[Platform],
    map: &ImageMap,
) -> Result<(Vec<(String, Todo)>, Found)> {
    let (mut todo, mut found) = (Vec::new(), Found::default());
    match subject::find(client, what).await? {
        Subject::Images(images) => {
            todo.extend(images.into_iter().map(|(name, place)| (name, Todo::Image(place, platforms.to_vec()))));
        }
        Subject::File(path) => todo.push((what.to_owned(), Todo::File(path))),
        Subject::Release(release) => {
            for name in release.images(what)? {
                let (known, platforms) = images::lookup(map, &name, platforms)?;
                match known {
                    Known::Unused(reason) => found.unused.push(Unused { reference: name, reason: reason.into() }),
                    _ => {
                        let place = Place::Registry(client.clone(), oci::parse(&name)?);
                        todo.push((name, Todo::Image(place, platforms)));
                    }
                }
            }
            found.release = Some(release);
        }
    }
    Ok((todo, found))
}

/// Verifies images of registries, each for its own platforms, several at a time, in the order given.
pub(crate) async fn check_all(client: &Client, images: &[(String, Vec<Platform>)]) -> Result<Vec<Image>> {
    let mut places = Vec::new();
    for (name, platforms) in images {
        places.push((name, platforms, Place::Registry(client.clone(), oci::parse(name)?)));
    }
    check_places(&places).await
}

type Lying<'a> = (&'a String, &'a Vec<Platform>, Place);

/// Verifies images where they lie, each for its own platforms, several at a time, in the order given.
async fn check_places(places: &[Lying<'_>]) -> Result<Vec<Image>> {
    let checks = stream::iter(places).map(|(name, platforms, place)| check(place, name, platforms));
    Ok(checks.buffered(PARALLEL).collect().await)
}

/// As [`check_places`], of images that were built.
pub(crate) async fn check_all_built(places: &[Lying<'_>]) -> Result<Vec<Image>> {
    let checks = stream::iter(places).map(|(name, platforms, place)| check_built(place, name, platforms));
    Ok(checks.buffered(PARALLEL).collect().await)
}

/// Verifies an image that was built, which has to have a program.
pub(crate) async fn check_built(place: &Place, name: &str, platforms: &[Platform]) -> Image {
    let mut image = Image { kind: ImageKind::Built, ..check(place, name, platforms).await };
    for row in image.platforms.iter_mut().filter(|row| row.problem.is_none() && row.program.is_none()) {
        (row.problem, row.cause) = (Some("there is no program that it starts".into()), Some(Cause::Product));
    }
    image
}

/// Verifies one image.
pub(crate) async fn check(place: &Place, name: &str, platforms: &[Platform]) -> Image {
    check_with(place, name, platforms, None).await
}

async fn check_with(place: &Place, name: &str, platforms: &[Platform], memory: Option<&Memory>) -> Image {
    let checked = match memory {
        Some(memory) => oci::verify_deep(place, platforms, memory).await,
        None => oci::verify(place, platforms).await,
    };
    let reference = match (place, &checked.digest) {
        (Place::Registry(_, reference), Some(digest)) => oci::pinned(reference, digest).whole(),
        _ => name.to_owned(),
    };
    image(name, reference, checked)
}

fn check_file(path: &Path, platforms: &[Platform]) -> Result<Checked> {
    match platforms {
        [platform] => oci::verify_file(path, platform),
        _ => Err(Error::new(Cause::Usage, format!("{}: programs in files are for one platform", path.display()))
            .next("give one --platform, and verify the files of others by themselves")),
    }
}

fn image(name: &str, reference: String, checked: Checked) -> Image {
    Image {
        name: name.to_owned(),
        kind: ImageKind::Referenced,
        reference,
        digest: checked.digest,
        base: checked.base,
        platforms: checked.rows,
    }
}

fn failed(platforms: &[Platform], error: &Error) -> Checked {
    let row = |platform: &Platform| PlatformRow {
        problem: Some(error.summary()),
        cause: Some(error.cause),
        ..PlatformRow::new(platform.clone())
    };
    Checked { digest: None, base: None, rows: platforms.iter().map(row).collect() }
}

/// Kubernetes starts no image as `runAsNonRoot` whose user it does not know to be another one.
fn refuse_root(row: &mut PlatformRow) {
    if row.problem.is_some() || row.config.is_none() {
        return;
    }
    let user = row.user.as_deref().unwrap_or_default();
    let problem = match row.nonroot {
        Some(true) => return,
        Some(false) if user.is_empty() => "it runs as root, for it names no user".to_owned(),
        Some(false) => format!("it runs as root, by its user '{user}'"),
        // The base decides it there.
        None if row.platform.os == "windows" => return,
        None => format!("its user '{user}' is a name, which may be root's: a number is needed"),
    };
    (row.problem, row.cause) = (Some(problem), Some(Cause::PolicyRefused));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_mere_names_are_refused_where_they_can_be_told() {
        for (platform, user, nonroot, refused) in [
            ("linux/arm64", None, Some(false), true),
            ("linux/arm64", Some("0"), Some(false), true),
            ("linux/arm64", Some("git"), None, true),
            ("linux/arm64", Some("65532"), Some(true), false),
            ("windows/amd64", None, None, false),
            ("windows/amd64", Some("ContainerAdministrator"), Some(false), true),
        ] {
            let platform: Platform = platform.parse().unwrap();
            let user = user.map(String::from);
            let mut row =
                PlatformRow { config: Some(platform.clone()), user, nonroot, ..PlatformRow::new(platform.clone()) };
            refuse_root(&mut row);
            assert_eq!(row.cause, refused.then_some(Cause::PolicyRefused), "{row:?}");
        }
    }
}
