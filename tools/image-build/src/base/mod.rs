//! Base images and stand-ins, made from Debian's packages: the same definition serves every architecture.
//!
//! Nothing is compiled and no maintainer script runs, so any machine makes them for any architecture, byte
//! for byte the same each time. What was made is kept in the cache under a key of everything that went
//! into it.

mod definition;
mod image;
mod root;

use std::{
    fs,
    path::{Path, PathBuf},
};

use kit::{
    Cause, Context, Done, Error, Output, Platform, Result, Ui, Within, ci::CiOptions, ci::ImageMap, digest, dirs,
};
use oci::{Client, Layout, Place, Reference, spec::Descriptor};

use crate::options::{Platforms, Repo};
use debian::{Package, apt};
pub(crate) use definition::Definition;

/// Changes when the same definition gives another image.
const FORMAT: &str = "1";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A [build.NAME] of ci/images.toml, for instance static
    name: String,
    #[command(flatten)]
    repo: Repo,
    #[command(flatten)]
    platforms: Platforms,
    #[command(flatten)]
    ci: CiOptions,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let map = args.ci.open()?.images()?;
    let made = make(&map, &args.name, &args.platforms.list(), ui)?;
    let target = made.repository(&args.repo)?;
    let digest = oci::run(async { made.push(&Client::new()?, &target).await })?;
    let reference = oci::pinned(&target, &digest);
    match ui.output {
        Output::Json => ui.json(&serde_json::json!({ "reference": reference.whole(), "digest": digest }))?,
        Output::Text => ui.result(&reference.whole())?,
    }
    Ok(Done::good().digest(digest))
}

/// An image of a definition for some platforms, in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    name: String,
    key: String,
    layout: Layout,
    index: Descriptor,
}

impl Made {
    /// The layout that holds it.
    pub(crate) fn place(&self) -> Place {
        Place::Layout(self.layout.clone())
    }

    /// Writes it into a file, to be imported into a node's store under `name`.
    pub(crate) fn archive(&self, name: &str, file: &Path) -> Result<()> {
        oci::archive(&self.layout, name, file)
    }

    /// A tag that names the content.
    pub(crate) fn tag(&self) -> &str {
        &self.key[..16]
    }

    /// Where bases lie in a repository.
    pub(crate) fn repository(&self, repo: &Repo) -> Result<Reference> {
        repo.reference(&format!("base/{}:{}", self.name, self.tag()))
    }

    /// Pushes it, unless it is there already; returns the digest.
    pub(crate) async fn push(&self, client: &Client, target: &Reference) -> Result<String> {
        oci::copy(client, &self.layout, &self.index, target).await
    }
}

/// Makes `[build.NAME]` for all of `platforms`, or takes it from the cache.
///
/// # Errors
/// [`Cause::Usage`] for an unknown name, [`Cause::ImageMissingPlatform`] naming base, platform and package if
/// Debian does not have it, [`Cause::MissingProgram`] without apt.
pub(crate) fn make(map: &ImageMap, name: &str, platforms: &[Platform], ui: &Ui) -> Result<Made> {
    let definition = Definition::resolve(map, name)?;
    let packages = packages(&definition, platforms, ui).within(|| format!("image {name}"))?;
    let key = key(&definition, platforms, &packages)?;
    let folder = dirs::cache()?.join("images").join(format!("{name}-{}", &key[..16]));
    if !folder.is_dir() {
        let step = ui.step(format!("image {name}"));
        build(&definition, platforms, &packages, &folder).within(|| format!("image {name}"))?;
        step.done(format!("{} platforms", platforms.len()));
    }
    let layout = Layout::open(folder)?;
    let index = layout.find(None)?;
    Ok(Made { name: name.into(), key, layout, index })
}

/// The packages for each platform. Those that are the same for all architectures are taken from one list, for
/// a mirror may have a newer one for one architecture than for another for a while.
fn packages(definition: &Definition, platforms: &[Platform], ui: &Ui) -> Result<Vec<Vec<Package>>> {
    let shared = Platform::from_parts("linux", "amd64", None, None);
    let mut all = vec![shared.clone()];
    all.extend(platforms.iter().filter(|platform| **platform != shared).cloned());
    let found = each(&all, |platform| apt::resolve(platform, &definition.packages, ui))?;
    let shared = apt::fetch_shared(&shared, &found[0])?;
    let of = |platform: &Platform| {
        let packages = all.iter().position(|other| other == platform).map_or(&[][..], |at| &found[at]);
        let same = |package: &Package| shared.iter().find(|other| other.name() == package.name()).cloned();
        packages.iter().map(|package| same(package).unwrap_or_else(|| package.clone())).collect()
    };
    Ok(platforms.iter().map(of).collect())
}

/// Does `work` for each item, side by side, and returns what came of it in order.
fn each<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> Result<T> + Sync) -> Result<Vec<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<T>>| {
            thread.join().unwrap_or_else(|_| Err(Error::new(Cause::Internal, "a thread that makes an image panicked")))
        };
        // All of them are awaited before the first error counts.
        threads.into_iter().map(join).collect::<Vec<_>>().into_iter().collect()
    })
}

fn key(definition: &Definition, platforms: &[Platform], packages: &[Vec<Package>]) -> Result<String> {
    let all = serde_json::to_vec(&(FORMAT, definition, platforms, packages));
    Ok(digest::hex(&all.cause(Cause::Internal, || "cannot compute a key")?))
}

fn build(definition: &Definition, platforms: &[Platform], packages: &[Vec<Package>], folder: &PathBuf) -> Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    fs::create_dir_all(parent).cause(Cause::HostDisk, || format!("cannot create {}", parent.display()))?;
    let temporary = tempfile::Builder::new().prefix(".new-").tempdir_in(parent);
    let temporary = temporary.cause(Cause::HostDisk, || format!("cannot write to {}", parent.display()))?;
    let layout = Layout::create(temporary.path())?;
    let parts: Vec<_> = platforms.iter().zip(packages).collect();
    let manifests = each(&parts, |(platform, packages)| {
        let debs = apt::fetch(platform, packages)?;
        let tree = root::assemble(definition, &debs).within(|| platform.to_string())?;
        image::write(&layout, definition, platform, &tree)
    })?;
    image::write_index(&layout, &manifests)?;
    match fs::rename(temporary.path(), folder) {
        // Somebody else was quicker with the same content.
        Err(_) if folder.is_dir() => Ok(()),
        renamed => renamed.cause(Cause::HostDisk, || format!("cannot create {}", folder.display())),
    }
}
