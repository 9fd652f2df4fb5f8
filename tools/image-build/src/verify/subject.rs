//! What is named on the command line: finding out what it is.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use kit::{Cause, Error, Result, Within, rundir};
use oci::{ARTIFACT_TYPE_RELEASE, Client, FileKind, Layout, Place, Reference};

use crate::manifests;

/// Endings that only files have.
const FILES: [&str; 9] = [".yaml", ".yml", ".json", ".tar", ".tgz", ".gz", ".zst", ".zip", ".exe"];

/// What is looked at.
pub(super) enum Subject {
    /// With what they are called.
    Images(Vec<(String, Place)>),
    /// Of programs.
    File(PathBuf),
    Release(Release),
}

/// A release file, and the artifact that it was.
pub(super) struct Release {
    pub(super) bytes: Vec<u8>,
    pub(super) artifact: Option<Reference>,
}

impl Release {
    pub(super) fn text(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.bytes)
    }

    /// Every image that it names; `what` is how it was called.
    pub(super) fn images(&self, what: &str) -> Result<BTreeSet<String>> {
        if self.bytes.contains(&0) {
            return Err(Error::new(Cause::Usage, format!("{what} is neither a release, a program nor an archive")));
        }
        manifests::image_references(&self.text()).within(|| format!("{what} is no release"))
    }
}

pub(super) async fn find(client: &Client, what: &str) -> Result<Subject> {
    let path = Path::new(what);
    if path.is_dir() {
        return layout(path, what).map(Subject::Images);
    }
    if path.exists() {
        return match oci::file_kind(path)? {
            FileKind::Other => {
                let bytes = rundir::read_limited(path, manifests::RELEASE_LIMIT)?;
                Ok(Subject::Release(Release { bytes, artifact: None }))
            }
            _ => Ok(Subject::File(path.to_path_buf())),
        };
    }
    if names_file(what) {
        return Err(Error::new(Cause::Usage, format!("there is no file {what}")));
    }
    let reference = oci::parse(what)?;
    match oci::pull_artifact(client, &reference, ARTIFACT_TYPE_RELEASE).await {
        Ok((bytes, artifact)) => Ok(Subject::Release(Release { bytes, artifact: Some(artifact) })),
        // It is there, and something else.
        Err(error) if error.cause == Cause::Usage => {
            Ok(Subject::Images(vec![(what.to_owned(), Place::Registry(client.clone(), reference))]))
        }
        Err(error) => Err(error),
    }
}

/// All images of a layout; where there are several their names tell them apart.
fn layout(path: &Path, what: &str) -> Result<Vec<(String, Place)>> {
    let images = Layout::open(path)?.images()?;
    let several = images.len() > 1;
    let name = |(number, name): (usize, Option<String>)| match name {
        Some(name) if several => format!("{what}:{name}"),
        None if several => format!("{what}#{}", number + 1),
        _ => what.to_owned(),
    };
    Ok(images
        .into_iter()
        .enumerate()
        .map(|(number, (called, layout))| (name((number, called)), Place::Layout(layout)))
        .collect())
}

/// Whether a text can only mean a file: a registry should not be asked for what is just misspelt.
fn names_file(what: &str) -> bool {
    what.starts_with(['/', '.', '~']) || FILES.iter().any(|ending| what.ends_with(ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelt_files_are_no_images() {
        for file in ["release.yaml", "./x", "/x/y", "../layout", "~/x", "dist/tkn.tar.gz", "tkn.exe"] {
            assert!(names_file(file), "{file}");
        }
        for image in ["busybox", "ghcr.io/x/y", "ghcr.io/x/y.z:v1.9", "localhost:5000/x@sha256:0"] {
            assert!(!names_file(image), "{image}");
        }
    }
}
