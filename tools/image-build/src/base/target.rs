//! Where a base goes: a repository, a folder, or both; and what is said of it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kit::{Cause, Context, Done, Error, Output, Platform, Result, Ui, rundir};
use oci::{
    Client, Layout, Place, Reference,
    spec::{Descriptor, ImageIndex, ImageManifest},
};
use serde::Serialize;
use serde_json::Value;

use crate::{bases, show, verify};

/// Configs and manifests in a layout of ours.
const DOCUMENT_LIMIT: u64 = 8 << 20;

/// Where a base is written.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = true)]
pub(crate) struct Target {
    /// Push it to this repository; without a tag it gets one that names its content
    #[arg(long, value_name = "REPO[:TAG]")]
    to: Option<String>,
    /// Write it into this folder as an OCI layout; a layout that is there is replaced
    #[arg(long, value_name = "DIR")]
    layout: Option<PathBuf>,
}

/// A base on one platform.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Row {
    pub(crate) platform: Platform,
    pub(crate) manifest: String,
    /// The config's `User`; root if there is none.
    pub(crate) user: Option<String>,
    /// What it was made from.
    pub(crate) from: String,
    /// Whether it is there only because the others lack the platform.
    pub(crate) fallback: bool,
    /// The manifest that this one was derived from, to run as a user without rights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) derived_from: Option<String>,
}

/// A base that was made, as it is printed.
#[derive(Debug, Serialize)]
struct Base {
    digest: String,
    reference: Option<String>,
    layout: Option<PathBuf>,
    platforms: Vec<Row>,
}

impl Row {
    pub(crate) fn new(platform: &Platform, from: impl Into<String>) -> Self {
        Self {
            platform: platform.clone(),
            manifest: String::new(),
            user: None,
            from: from.into(),
            fallback: false,
            derived_from: None,
        }
    }
}

impl Target {
    /// Refuses a target that cannot be one, before anything is made.
    pub(crate) fn check(&self) -> Result<()> {
        if let Some(folder) = &self.layout {
            check_folder(folder)?;
        }
        self.reference("sha256:0").map(drop)
    }

    /// The reference to push to.
    fn reference(&self, digest: &str) -> Result<Option<Reference>> {
        let Some(to) = &self.to else { return Ok(None) };
        let wrong = |what: &str| {
            let next = "write --to REGISTRY/PATH or REGISTRY/PATH:TAG, for instance 10.1.2.3:5000/base/static";
            Err(Error::new(Cause::Usage, format!("'{to}' {what}")).next(next))
        };
        let host = to.split('/').next().unwrap_or_default();
        if !to.contains('/') || !(host.contains(['.', ':']) || host == "localhost") {
            return wrong("does not begin with a registry");
        }
        if to.contains('@') {
            return wrong("has a digest, which only follows from what is pushed");
        }
        let tagged = to.rsplit('/').next().is_some_and(|last| last.contains(':'));
        let tag: String = digest.trim_start_matches("sha256:").chars().take(16).collect();
        oci::parse(&if tagged { to.clone() } else { format!("{}:{tag}", to.trim_end_matches('/')) }).map(Some)
    }

    /// Verifies an index of a layout, writes it where it is to go, and says so. `rows` says of each platform
    /// what it was made from.
    ///
    /// # Errors
    /// What is wrong with the image, [`Cause::Auth`], [`Cause::Registry`] or [`Cause::HostDisk`].
    pub(crate) fn deliver(&self, layout: &Layout, index: &Descriptor, mut rows: Vec<Row>, ui: &Ui) -> Result<Done> {
        complete(layout, index, &mut rows)?;
        // Of Windows neither names of paths nor layers are as elsewhere; its configs were compared above.
        let linux: Vec<_> =
            rows.iter().map(|row| &row.platform).filter(|platform| platform.os == "linux").cloned().collect();
        let image = oci::run(async {
            let name = self.to.clone().unwrap_or_else(|| "the base".into());
            Ok(verify::check(&Place::Layout(layout.clone()), &name, &linux).await)
        })?;
        if let Some(error) = show::problems(&[image]) {
            return Err(error);
        }
        let root = rows.iter().filter(|row| bases::nonroot(&row.platform, row.user.as_deref()) == Some(false));
        let root: Vec<_> = root.map(|row| row.platform.to_string()).collect();
        if !root.is_empty() {
            ui.warn(format!("it runs as root on {}", root.join(", ")));
        }
        let digest = index.digest().to_string();
        if let Some(folder) = &self.layout {
            export(layout, folder)?;
        }
        let reference = match self.reference(&digest)? {
            None => None,
            Some(target) => {
                let step = ui.step(format!("pushing to {target}"));
                oci::run(async { oci::copy(&Client::new()?, layout, index, &target).await })?;
                step.done("");
                Some(oci::pinned(&target, &digest).whole())
            }
        };
        let base = Base { digest: digest.clone(), reference, layout: self.layout.clone(), platforms: rows };
        match (ui.output, &base.reference, &base.layout) {
            (Output::Json, ..) => ui.json(&base)?,
            (Output::Text, Some(reference), _) => ui.result(reference)?,
            (Output::Text, None, folder) => {
                ui.result(&folder.as_ref().map_or_else(String::new, |folder| folder.display().to_string()))?;
            }
        }
        Ok(Done::good().digest(digest).reference(base.reference))
    }
}

/// Fills in what the layout says: manifests and users; compares index and configs.
fn complete(layout: &Layout, index: &Descriptor, rows: &mut [Row]) -> Result<()> {
    let index: ImageIndex = read(layout, index)?;
    debug_assert_eq!(index.manifests().len(), rows.len());
    rows.sort_by_key(|row| row.platform.to_string());
    for (row, descriptor) in rows.iter_mut().zip(index.manifests()) {
        let manifest: ImageManifest = read(layout, descriptor)?;
        let config: Value = read(layout, manifest.config())?;
        let said = |name: &str| config[name].as_str().unwrap_or_default();
        let declared = Platform::from_parts(said("os"), said("architecture"), None, None);
        if (&declared.os, &declared.arch) != (&row.platform.os, &row.platform.arch) {
            let what = format!("{}: its config says {declared}", row.platform);
            return Err(Error::new(Cause::ImageWrongArch, what).within(row.from.clone()));
        }
        row.manifest = descriptor.digest().to_string();
        row.user = config["config"]["User"].as_str().filter(|user| !user.is_empty()).map(String::from);
    }
    Ok(())
}

/// A document of a layout that was made here, its digest checked when it was written.
pub(crate) fn read<T: serde::de::DeserializeOwned>(layout: &Layout, descriptor: &Descriptor) -> Result<T> {
    let path = layout.path(descriptor);
    let bytes = rundir::read_limited(&path, DOCUMENT_LIMIT)?;
    serde_json::from_slice(&bytes).cause(Cause::Registry, || format!("{} cannot be read", descriptor.digest()))
}

/// Refuses a folder that must not be replaced; returns its whole path, without links and dots where it is there.
fn check_folder(folder: &Path) -> Result<PathBuf> {
    let wrong = |what: &str| {
        Error::new(Cause::Usage, format!("{} {what}", folder.display()))
            .next("name a folder that is missing, empty or a layout")
    };
    let full = match folder.canonicalize() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => std::path::absolute(folder),
        found => found,
    };
    let full = full.cause(Cause::Usage, || format!("{} cannot be a folder", folder.display()))?;
    // The root, or `..` behind a folder that is missing.
    if full.file_name().is_none() {
        return Err(wrong("has no name of its own"));
    }
    let is_layout = full.join("oci-layout").is_file();
    let empty = fs::read_dir(&full).map_or(!full.exists(), |mut entries| entries.next().is_none());
    if is_layout || empty { Ok(full) } else { Err(wrong("holds something else than an OCI layout")) }
}

/// Copies a layout; what was there before is replaced when all is written.
fn export(layout: &Layout, folder: &Path) -> Result<()> {
    let failed = || format!("cannot write {}", folder.display());
    if let Some(parent) = check_folder(folder)?.parent() {
        fs::create_dir_all(parent).cause(Cause::HostDisk, failed)?;
    }
    // Where `..` and links lead is certain only when the folders above are there.
    let full = check_folder(folder)?;
    let parent = full.parent().unwrap_or(Path::new("/"));
    let temporary = tempfile::Builder::new().prefix(".new-").tempdir_in(parent).cause(Cause::HostDisk, failed)?;
    let (new, old) = (temporary.path().join("new"), temporary.path().join("old"));
    let copy = || -> std::io::Result<()> {
        let blobs = Path::new("blobs/sha256");
        fs::create_dir_all(new.join(blobs))?;
        for entry in fs::read_dir(layout.folder().join(blobs))? {
            let entry = entry?;
            fs::copy(entry.path(), new.join(blobs).join(entry.file_name()))?;
        }
        for name in ["index.json", "oci-layout"] {
            fs::copy(layout.folder().join(name), new.join(name))?;
        }
        fs::set_permissions(&new, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let replaces = full.exists();
        if replaces {
            fs::rename(&full, &old)?;
        }
        fs::rename(&new, &full).inspect_err(|_| {
            if replaces {
                let _ = fs::rename(&old, &full);
            }
        })
    };
    copy().cause(Cause::HostDisk, failed)?;
    // With what was there before.
    temporary.close().cause(Cause::HostDisk, || format!("cannot remove what {} held before", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_gets_a_tag_that_names_the_content() {
        let reference = |to: &str| {
            let target = Target { to: Some(to.into()), layout: None };
            target.reference("sha256:0123456789abcdef0123").map(|reference| reference.unwrap().whole())
        };
        assert_eq!(reference("10.1.2.3:5000/x/y").unwrap(), "10.1.2.3:5000/x/y:0123456789abcdef");
        assert_eq!(reference("r.io/x/y:v1").unwrap(), "r.io/x/y:v1");
        for wrong in ["x/y", "r.io", "localhost:5000", "r.io/x@sha256:00"] {
            assert_eq!(reference(wrong).unwrap_err().cause, Cause::Usage, "{wrong}");
        }
    }

    #[test]
    fn only_a_layout_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path().join("from")).unwrap();
        layout.write("x/y".into(), b"blob").unwrap();
        layout.finish(&[]).unwrap();
        let to = folder.path().join("deep/to");
        // From inside, as `--layout .` says it, it is the same folder.
        for path in [to.clone(), to.clone(), to.join("blobs/.."), folder.path().join("deep/missing/../to")] {
            export(&layout, &path).unwrap();
            assert!(to.join("index.json").is_file() && !to.join("old").exists());
            fs::write(to.join("old"), "").unwrap();
        }
        fs::remove_dir(folder.path().join("deep/missing")).unwrap();
        assert_eq!(fs::read_dir(folder.path().join("deep")).unwrap().count(), 1, "no temporary folder is left");
        fs::write(folder.path().join("file"), "").unwrap();
        for other in ["", "file", "gone/..", "away/../file"] {
            let error = export(&layout, &folder.path().join(other)).unwrap_err();
            assert_eq!(error.cause, Cause::Usage, "{other}: {error}");
        }
        assert!(folder.path().join("file").is_file() && !folder.path().join("gone").exists());
    }
}
