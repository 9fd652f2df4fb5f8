//! A release as it is named on the command line: a release file, an artifact in a registry, or the folder of a
//! component in a run directory.

use std::path::{Path, PathBuf};

use kit::{
    Cause, Context, Error, Result, Within, digest,
    record::{Images, Record},
    rundir,
};
use oci::{ARTIFACT_TYPE_RELEASE, Client, Reference};

use crate::manifests;

/// A release file and what is known about it.
pub(crate) struct Release {
    /// As it was named.
    pub(crate) name: String,
    pub(crate) text: String,
    /// The artifact that it was read from or, says its record, pushed as.
    pub(crate) artifact: Option<Reference>,
    /// `images.json`, where it lies beside the file and is about it.
    pub(crate) record: Option<Images>,
}

impl Release {
    /// The images that it names.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it is no release.
    pub(crate) fn images(&self) -> Result<Vec<String>> {
        let images = manifests::image_references(&self.text).and_then(|images| {
            manifests::count_objects(&self.text)?;
            Ok(images.into_iter().collect())
        });
        images.within(|| self.name.clone())
    }
}

/// Removes the release files of an earlier attempt from a component's folder.
///
/// # Errors
/// [`Cause::HostDisk`] naming what cannot be removed.
pub(crate) fn forget(folder: &Path) -> Result<()> {
    ["release.yaml", "release.notags.yaml"].iter().try_for_each(|name| remove(&folder.join(name)))
}

/// Removes a file, if there is one.
///
/// # Errors
/// [`Cause::HostDisk`] naming it.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).cause(Cause::HostDisk, || format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Reads a release.
///
/// # Errors
/// [`Cause::Usage`] if `what` is none; [`Cause::Auth`] or [`Cause::Registry`] for an artifact.
pub(crate) async fn open(client: &Client, what: &str) -> Result<Release> {
    let path = Path::new(what);
    if path.is_dir() {
        return read(&folder(path)?.join("release.yaml"), what);
    }
    if path.is_file() {
        return read(path, what);
    }
    let neither = |error: Error| error.next("name a release.yaml, a folder of a run, or a release in a registry");
    let reference = oci::parse(what).map_err(neither)?;
    let (bytes, artifact) = oci::pull_artifact(client, &reference, ARTIFACT_TYPE_RELEASE).await?;
    let text = String::from_utf8(bytes).cause(Cause::Usage, || format!("{what} is not UTF-8"))?;
    // The tag is what people know it by.
    let artifact = if reference.digest().is_none() { reference } else { artifact };
    Ok(Release { name: what.into(), text, artifact: Some(artifact), record: None })
}

/// The folder itself, or the only one in it that holds a release.
fn folder(path: &Path) -> Result<PathBuf> {
    let holds = |folder: &Path| folder.join("release.yaml").is_file();
    if holds(path) {
        return Ok(path.to_owned());
    }
    let entries = path.read_dir().cause(Cause::Usage, || format!("cannot read {}", path.display()))?;
    let mut found: Vec<_> = entries.flatten().map(|entry| entry.path()).filter(|path| holds(path)).collect();
    found.sort();
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(Error::new(Cause::Usage, format!("{} holds no release.yaml", path.display()))),
        several => {
            let names: Vec<_> = several.iter().map(|path| path.display().to_string()).collect();
            let what = format!("{} holds several releases", path.display());
            Err(Error::new(Cause::Usage, what).next(format!("name one of {}", names.join(", "))))
        }
    }
}

fn read(path: &Path, name: &str) -> Result<Release> {
    let bytes = rundir::read_limited(path, manifests::RELEASE_LIMIT)?;
    let digest = digest::sha256(&bytes);
    let text = String::from_utf8(bytes).cause(Cause::Usage, || format!("{} is not UTF-8", path.display()))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let record = match folder.join(Images::FILE).is_file() {
        true => Some(rundir::read_record::<Images>(folder)?.0),
        false => None,
    };
    // One of another file says nothing about this one.
    let record = record.filter(|record| record.release.as_ref().is_some_and(|release| release.digest == digest));
    let artifact = record.as_ref().and_then(|record| record.release.as_ref()?.artifact.clone());
    let artifact = artifact.map(|artifact| oci::parse(&artifact)).transpose()?;
    Ok(Release { name: name.into(), text, artifact, record })
}

/// Takes a repository's name apart where ko put an import path into it: `REPO` and `example.com/x/cmd/y`, without
/// the hash that ko adds. Nothing if no part but the first looks like a domain.
pub(crate) fn import_path(repository: &str) -> Option<(&str, &str)> {
    let domain = |part: &str| {
        let name = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        };
        let last = part.rsplit('.').next().unwrap_or_default();
        part.contains('.')
            && part.split('.').all(name)
            && last.len() > 1
            && last.bytes().all(|b| b.is_ascii_lowercase())
    };
    let mut at = None;
    let mut begin = 0;
    for part in repository.split('/') {
        if begin > 0 && domain(part) {
            at = Some(begin);
        }
        begin += part.len() + 1;
    }
    let (repo, path) = repository.split_at(at?);
    Some((repo.trim_end_matches('/'), without_hash(path)))
}

/// A repository's name without the MD5 that ko adds to make it unique.
pub(crate) fn without_hash(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((path, hash)) if hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => path,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn import_paths_are_found_in_names_of_repositories() {
        let hash = "10a3e32792f33651396d02b6855a6e36";
        for (name, expected) in [
            (
                format!("ghcr.io/tektoncd/pipeline/github.com/tektoncd/pipeline/cmd/controller-{hash}"),
                Some(("ghcr.io/tektoncd/pipeline", "github.com/tektoncd/pipeline/cmd/controller")),
            ),
            ("10.1.2.3:5000/e.com/x".into(), Some(("10.1.2.3:5000", "e.com/x"))),
            ("r.io/mirror/cgr.dev/chainguard/busybox".into(), Some(("r.io/mirror", "cgr.dev/chainguard/busybox"))),
            ("r.io/gopkg.in/yaml.v3/cmd".into(), Some(("r.io", "gopkg.in/yaml.v3/cmd"))),
            ("cgr.dev/chainguard/busybox".into(), None),
            ("r.io/published/x.1".into(), None),
        ] {
            assert_eq!(import_path(&name), expected, "{name}");
        }
        assert_eq!(without_hash("a-b"), "a-b");
    }

    #[test]
    fn a_record_of_another_file_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("release.yaml"), "kind: A\n").unwrap();
        std::fs::write(folder.path().join("images.json"), "{").unwrap();
        assert_eq!(read(&folder.path().join("release.yaml"), "x").err().unwrap().cause, Cause::Usage);
        std::fs::remove_file(folder.path().join("images.json")).unwrap();
        assert!(read(&folder.path().join("release.yaml"), "x").unwrap().record.is_none());
        assert!(super::folder(&folder.path().join("nothing")).is_err());
    }
}
