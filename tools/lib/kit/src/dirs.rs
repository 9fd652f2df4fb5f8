//! Where things lie on this machine: the cache, the workspace, its data.

use std::path::{Path, PathBuf};

use crate::{Cause, Error, Result};

/// The cache, shared by all checkouts: `$OTHER_ARCH_CACHE`, `$XDG_CACHE_HOME/other-arch` or
/// `~/.cache/other-arch`.
///
/// # Errors
/// [`Cause::Usage`] if none of these variables says where.
pub fn cache() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("OTHER_ARCH_CACHE")
        .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("other-arch")))
        .or_else(|| Some(variable("HOME")?.join(".cache/other-arch")))
        .ok_or_else(|| {
            Error::new(Cause::Usage, "no folder for the cache: HOME is not set")
                .next("set OTHER_ARCH_CACHE to a folder")
        })
}

/// What was fetched for the cluster `name` (`cluster-install cluster`): its kubeconfig, a registry's certificate and
/// login. Only the user may look into it, and it goes with `cluster delete`.
///
/// # Errors
/// As [`cache`].
pub fn cluster(name: &str) -> Result<PathBuf> {
    Ok(cache()?.join("clusters").join(name))
}

/// Says which run has made the cluster `name`, and is locked while one makes or removes it. It stays when the cluster goes:
/// a lock on a file that is gone keeps nobody out.
///
/// # Errors
/// As [`cache`].
pub fn maker(name: &str) -> Result<PathBuf> {
    Ok(cache()?.join("makers").join(name))
}

/// The nearest folder from here upwards that holds `ci/components.toml`: the workspace.
///
/// # Errors
/// [`Cause::Usage`] if there is none.
pub fn workspace() -> Result<PathBuf> {
    let here = std::env::current_dir().unwrap_or_default();
    let found = here.ancestors().find(|folder| folder.join("ci/components.toml").is_file());
    found.map(Path::to_path_buf).ok_or_else(|| {
        Error::new(Cause::Usage, format!("{} lies in no workspace of other-arch", here.display()))
            .next("go to a folder that holds ci/components.toml, or name the files with --ci DIR")
    })
}
