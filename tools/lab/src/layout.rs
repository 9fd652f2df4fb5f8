//! Where a lab's files lie: on the host, and as the lab's own programs see them.
//!
//! Inside its mount namespace every lab looks the same (`/run/lab`, `/run/bin`, an own `/var` and
//! `/tmp`), wherever the cache is: configurations have fixed paths and sockets have short ones.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kit::{Cause, Error, Result};

/// The lab's folder as its programs see it.
pub(crate) const LAB: &str = "/run/lab";
/// The built programs as the lab sees them: `<part>/<key>/<program>` below.
pub(crate) const BIN: &str = "/run/bin";
/// The supervisor's control socket.
pub(crate) const CONTROL: &str = "/run/supervisor.sock";
/// containerd's socket.
pub(crate) const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// A cgroup of a lab is called this and its id.
pub(crate) const CGROUP: &str = "other-arch-";
/// The alias of a lab's interface is this and its id.
pub(crate) const ALIAS: &str = "other-arch:";

/// One lab's folder in the cache.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    /// Its name.
    pub(crate) name: String,
    cache: PathBuf,
}

impl Layout {
    /// The lab of that name in the cache of this user.
    pub(crate) fn new(name: &str) -> Result<Self> {
        Self::at(name, kit::dirs::cache()?)
    }

    /// The lab of that name in a cache.
    pub(crate) fn at(name: &str, cache: PathBuf) -> Result<Self> {
        check_name(name)?;
        // The supervisor is told by its arguments: they must be the same for whoever looks for it.
        Ok(Self { name: name.to_owned(), cache: real(&cache) })
    }

    /// The cache that it is in.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The folder of all labs.
    pub(crate) fn labs(&self) -> PathBuf {
        self.cache.join("labs")
    }

    /// This lab's folder.
    pub(crate) fn root(&self) -> PathBuf {
        self.labs().join(&self.name)
    }

    /// The folder of the built programs.
    pub(crate) fn bin(&self) -> PathBuf {
        self.cache.join("bin")
    }

    /// What the lab is: read by everyone who uses it.
    pub(crate) fn record(&self) -> PathBuf {
        self.root().join("lab.json")
    }

    /// The administrator's way in.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.root().join("kubeconfig")
    }

    /// Held by whoever changes the lab.
    pub(crate) fn lock(&self) -> PathBuf {
        self.labs().join(format!("{}.lock", self.name))
    }

    /// One file per program. Kept by `down` until the next `up`: a failure may want explaining.
    pub(crate) fn logs(&self) -> PathBuf {
        self.root().join("log")
    }

    /// The registry's storage. Kept by `down`, so that images need not be built again.
    pub(crate) fn registry(&self) -> PathBuf {
        self.root().join("registry")
    }

    /// Everything that lives as long as the lab.
    pub(crate) fn state(&self) -> PathBuf {
        self.root().join("state")
    }

    /// A folder or file of the state, as the host sees it; the lab sees it under [`LAB`].
    pub(crate) fn state_of(&self, what: &str) -> PathBuf {
        self.state().join(what)
    }

    /// What it is called where all caches of the machine meet: labs of one name in two caches are two labs.
    pub(crate) fn id(&self) -> String {
        format!("{}-{}", self.name, self.digest())
    }

    /// The first digits of the digest of the cache's path.
    pub(crate) fn digest(&self) -> String {
        kit::digest::hex(self.cache.as_os_str().as_encoded_bytes())[..6].to_owned()
    }

    /// The cgroup below which the lab's pods are, in every hierarchy.
    pub(crate) fn cgroup(&self) -> String {
        format!("{CGROUP}{}", self.id())
    }

    /// What the host's interface of the lab says whose it is.
    pub(crate) fn alias(&self) -> String {
        format!("{ALIAS}{}", self.id())
    }

    /// The node that this machine is in the lab.
    pub(crate) fn node(&self) -> String {
        format!("{}-{}", self.name, kit::Arch::host().go)
    }
}

/// `path` of the lab's mount namespace, reached from the host through its first process.
pub(crate) fn through(pid: u32, path: &str) -> PathBuf {
    Path::new("/proc").join(pid.to_string()).join("root").join(path.trim_start_matches('/'))
}

/// The path without symbolic links, also while its last folders are not there yet: it is the same before and after.
fn real(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let known = path.ancestors().find_map(|folder| Some((folder, fs::canonicalize(folder).ok()?)));
    let Some((folder, mut real)) = known else { return path };
    real.extend(path.strip_prefix(folder).into_iter().flat_map(Path::components));
    real
}

/// A name that is good as a folder, a cgroup and the first part of a node's name.
fn check_name(name: &str) -> Result<()> {
    let good = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.len() <= 20
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
    if good {
        return Ok(());
    }
    Err(Error::new(Cause::Usage, format!("'{name}' cannot be a lab's name"))
        .next("use at most 20 lower-case letters, digits and hyphens, a letter first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_the_cache() {
        for name in ["default", "a", "ci-2"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "../x", "A", "-a", "a-", "1a", "a_b", "abcdefghijklmnopqrstu"] {
            assert_eq!(check_name(name).unwrap_err().cause, Cause::Usage, "{name}");
        }
    }

    #[test]
    fn labs_of_one_name_in_two_caches_are_two_and_a_link_to_a_cache_is_that_cache() {
        let folder = tempfile::tempdir().unwrap();
        let (cache, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::create_dir(&cache).unwrap();
        std::os::unix::fs::symlink(&cache, &link).unwrap();
        let id = |path: &Path| Layout::at("x", path.to_path_buf()).unwrap().id();
        assert_eq!(id(&cache), id(&link));
        assert_ne!(id(&cache), id(folder.path()));
        let (before, later) = (id(&link.join("a/b")), cache.join("a/b"));
        fs::create_dir_all(&later).unwrap();
        assert_eq!(before, id(&later));
    }

    #[test]
    fn the_namespace_is_reached_through_its_first_process() {
        assert_eq!(through(7, CONTROL), Path::new("/proc/7/root/run/supervisor.sock"));
    }
}
