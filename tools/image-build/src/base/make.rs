//! Bases and stand-ins made from Debian's packages: the same definition serves every architecture.
//!
//! Nothing is compiled and no maintainer script runs, so any machine makes them for any architecture, byte
//! for byte the same each time. What was made is kept in the cache under a key of everything that went
//! into it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use debian::{Package, apt};
use kit::{Cause, Class, Context, Error, Platform, Result, Ui, Within, ci::ImageMap, digest, dirs};
use oci::{Client, Layout, Place, Reference, spec::Descriptor};

use super::{definition::Definition, image, root};
use crate::options::Repo;

/// Changes when the same definition gives another image.
const FORMAT: &str = "2";

/// How many lines an error has of what a program said ([`kit::Process`]).
const KEPT: usize = 12;

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

    /// The layout and its index.
    pub(crate) fn parts(&self) -> (&Layout, &Descriptor) {
        (&self.layout, &self.index)
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
/// [`Cause::Usage`] for an unknown name, [`Cause::ImageMissingPlatform`] naming the base, every platform that
/// Debian does not have it for, and the packages, [`Cause::MissingProgram`] without apt.
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

/// The platforms that Debian does not have `[build.NAME]` for.
///
/// # Errors
/// What else goes wrong.
pub(crate) fn missing(map: &ImageMap, name: &str, platforms: &[Platform], ui: &Ui) -> Result<Vec<Platform>> {
    let definition = Definition::resolve(map, name)?;
    let mut missing = Vec::new();
    let first = resolve(&amd64(), &definition, ui).unwrap_or_default();
    if !first.is_empty() && platforms.iter().all(|platform| is_everywhere(&first, platform)) {
        return Ok(missing);
    }
    for (platform, found) in platforms.iter().zip(each(platforms, |platform| resolve(platform, &definition, ui))) {
        match found {
            Err(error) if error.cause == Cause::ImageMissingPlatform => missing.push(platform.clone()),
            found => drop(found?),
        }
    }
    Ok(missing)
}

/// The packages for each platform. Those that are the same for all architectures are taken from one list, for
/// a mirror may have a newer one for one architecture than for another for a while.
fn packages(definition: &Definition, platforms: &[Platform], ui: &Ui) -> Result<Vec<Vec<Package>>> {
    let shared = amd64();
    let first = resolve(&shared, definition, ui);
    if let Ok(packages) = &first
        && platforms.iter().all(|platform| is_everywhere(packages, platform))
    {
        let packages = apt::fetch_shared(&shared, packages)?;
        return Ok(vec![packages; platforms.len()]);
    }
    let mut all = vec![shared.clone()];
    all.extend(platforms.iter().filter(|platform| **platform != shared).cloned());
    let others = each(&all[1..], |platform| resolve(platform, definition, ui));
    let found = together(&all, std::iter::once(first).chain(others).collect())?;
    let shared = apt::fetch_shared(&shared, &found[0])?;
    let of = |platform: &Platform| {
        let packages = all.iter().position(|other| other == platform).map_or(&[][..], |at| &found[at]);
        let same = |package: &Package| shared.iter().find(|other| other.name() == package.name()).cloned();
        packages.iter().map(|package| same(package).unwrap_or_else(|| package.clone())).collect()
    };
    Ok(platforms.iter().map(of).collect())
}

fn amd64() -> Platform {
    Platform::from_parts("linux", "amd64", None, None)
}

/// Whether these packages are for this platform too, also if Debian's release has no port for it: there is no program in
/// them.
fn is_everywhere(packages: &[Package], platform: &Platform) -> bool {
    platform.os == "linux" && packages.iter().all(|package| package.file.ends_with("_all.deb"))
}

/// The packages for one platform; where there are none for it, the error's line names those that are missing.
fn resolve(platform: &Platform, definition: &Definition, ui: &Ui) -> Result<Vec<Package>> {
    let lacks = |line: String| {
        let what = format!("Debian {} lacks a package for {platform}", apt::RELEASE);
        Error::new(Cause::ImageMissingPlatform, what).line(line)
    };
    let packages = apt::resolve(platform, &definition.packages, ui).map_err(|error| {
        let names = error.line.as_deref().map(missing_names).filter(|names| !names.is_empty());
        match names {
            // Of a long list only the end was kept.
            Some(names) if error.cause == Cause::ImageMissingPlatform => {
                lacks(format!("{}{}", if names.len() < KEPT { "" } else { "…, " }, names.join(", ")))
            }
            _ => error,
        }
    })?;
    // Debian's port for arm is for v7: only what has no programs runs on older machines too.
    let older = platform.arch == "arm" && platform.variant.as_deref().is_some_and(|variant| variant < "v7");
    let programs: Vec<_> = packages.iter().filter(|package| !package.file.ends_with("_all.deb")).collect();
    if older && !programs.is_empty() {
        let names: Vec<_> = programs.iter().map(|package| package.name()).collect();
        return Err(lacks(format!("only for v7: {}", names.join(", "))));
    }
    Ok(packages)
}

/// The packages that apt says it does not have.
fn missing_names(said: &str) -> Vec<&str> {
    let errors = said.lines().filter_map(|line| line.strip_prefix("E: ")?.split_once(" package "));
    errors.filter_map(|(_, rest)| rest.split_whitespace().next()).collect()
}

/// One result or one error for all platforms: those that lack something are named together.
fn together<T>(platforms: &[Platform], results: Vec<Result<T>>) -> Result<Vec<T>> {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for (platform, result) in platforms.iter().zip(results) {
        match result {
            Ok(result) => good.push(result),
            Err(error) => bad.push((platform, error)),
        }
    }
    // Whoever stopped us wants nothing else; and a platform that is missing stays so when the network is back.
    let rank = |error: &Error| match error.cause.class() {
        _ if error.signal.is_some() => 0,
        Class::Product => 1,
        _ => 2,
    };
    bad.sort_by_key(|(_, error)| rank(error));
    let cause = match bad.first() {
        None => return Ok(good),
        Some((_, error)) => error.cause,
    };
    if cause != Cause::ImageMissingPlatform {
        return Err(bad.remove(0).1);
    }
    let missing = bad.iter().filter(|(_, error)| error.cause == cause).map(|(platform, _)| platform.to_string());
    let missing: Vec<_> = missing.collect();
    let lines = bad.iter().flat_map(|(platform, error)| {
        let lines = error.line.clone().unwrap_or_else(|| error.summary());
        lines.lines().map(|line| format!("{platform}: {line}")).collect::<Vec<_>>()
    });
    let what = format!("Debian {} lacks a package for {}", apt::RELEASE, missing.join(", "));
    Err(Error::new(cause, what).line(lines.collect::<Vec<_>>().join("\n")))
}

/// Does `work` for each item, side by side, and returns what came of it in order.
fn each<I: Sync, T: Send>(items: &[I], work: impl Fn(&I) -> Result<T> + Sync) -> Vec<Result<T>> {
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || work(item))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<T>>| {
            thread.join().unwrap_or_else(|_| Err(Error::new(Cause::Internal, "a thread that makes an image panicked")))
        };
        // All of them are awaited before the first error counts.
        threads.into_iter().map(join).collect()
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
        image::write(&layout, &definition.settings(), platform, &tree)
    });
    let manifests = manifests.into_iter().collect::<Result<Vec<_>>>()?;
    image::write_index(&layout, manifests)?;
    match fs::rename(temporary.path(), folder) {
        // Somebody else was quicker with the same content.
        Err(_) if folder.is_dir() => Ok(()),
        renamed => renamed.cause(Cause::HostDisk, || format!("cannot create {}", folder.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_platform_that_lacks_something_is_named() {
        let platforms: Vec<Platform> =
            ["linux/amd64", "linux/s390x", "linux/arm64"].map(|text| text.parse().unwrap()).into();
        let lacks = |package: &str| Error::new(Cause::ImageMissingPlatform, "lacks").line(package);
        let error = together(&platforms, vec![Ok(1), Err(lacks("git")), Err(lacks("tini"))]).unwrap_err();
        assert_eq!(error.cause, Cause::ImageMissingPlatform);
        assert_eq!(error.summary(), "Debian bookworm lacks a package for linux/s390x, linux/arm64");
        assert_eq!(error.line.as_deref(), Some("linux/s390x: git\nlinux/arm64: tini"));
        // What is missing outranks a network that is not good, and a signal outranks all.
        let network = || Error::new(Cause::Registry, "no answer");
        let error = together(&platforms, vec![Err::<(), _>(network()), Err(lacks("git")), Err(network())]).unwrap_err();
        assert_eq!(error.summary(), "Debian bookworm lacks a package for linux/s390x");
        assert!(error.line.unwrap().contains("linux/arm64: no answer"));
        let results = vec![Err::<(), _>(lacks("git")), Err(Error::interrupted(2)), Ok(())];
        assert_eq!(together(&platforms, results).unwrap_err().signal, Some(2));
        assert_eq!(together(&platforms, vec![Ok(1), Ok(2), Ok(3)]).unwrap(), [1, 2, 3]);
    }

    #[test]
    fn packages_without_programs_are_for_architectures_that_debian_has_no_port_for() {
        let package = |file: &str| Package { file: file.into(), sha256: String::new() };
        let data = [package("tzdata_2025b-0_all.deb"), package("ca-certificates_2023_all.deb")];
        let riscv64 = "linux/riscv64".parse().unwrap();
        assert!(is_everywhere(&data, &riscv64));
        assert!(!is_everywhere(&[package("tini_0.19_amd64.deb")], &riscv64));
        assert!(!is_everywhere(&data, &"windows/amd64".parse().unwrap()));
    }

    #[test]
    fn what_apt_lacks_is_read_from_what_it_says() {
        let said = "W: x\nE: Unable to locate package git\nE: Can't select candidate version from package tini as it \
                    has no candidate\nE: Internal Error\n";
        assert_eq!(missing_names(said), ["git", "tini"]);
    }
}
