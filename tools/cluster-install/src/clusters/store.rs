//! The folder with what was fetched for a cluster: for this user's eyes only, and gone with the cluster.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
};

use cluster::Options;
use kit::{Cause, Context, Result, digest, dirs, rundir};
use serde::{Deserialize, Serialize};

use super::access::{Access, Fetched};

/// Which run made it, for those who make clusters and do not remember themselves.
const MADE: &str = "made.json";
pub(super) const KUBECONFIG: &str = "kubeconfig";
const CERTIFICATE: &str = "registry.pem";
/// In a folder of its own, which `DOCKER_CONFIG` can name.
const LOGIN: &str = "docker/config.json";

/// A cluster's folder; it comes into being with the first file.
pub(super) struct Store {
    name: String,
    folder: PathBuf,
    /// Set if it goes with this value.
    _temporary: Option<tempfile::TempDir>,
}

/// Where the files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Kept {
    pub(super) kubeconfig: PathBuf,
    pub(super) certificate: Option<PathBuf>,
    pub(super) login: Option<PathBuf>,
    context: Option<String>,
    lab: Option<String>,
}

impl Kept {
    /// The cluster, as tools open it.
    pub(super) fn options(&self) -> Options {
        let file = || self.kubeconfig.display().to_string();
        match &self.lab {
            Some(lab) => Options { lab: Some(lab.clone()), ..Options::default() },
            None => Options { kubeconfig: Some(file()), context: self.context.clone(), lab: None },
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Made {
    run: String,
    /// Of what identifies the cluster that came of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
}

impl Store {
    pub(super) fn new(name: &str) -> Result<Self> {
        Ok(Self::at(name, dirs::cluster(name)?))
    }

    /// One in a folder of somebody's choice.
    pub(super) fn at(name: &str, folder: PathBuf) -> Self {
        Self { name: name.into(), folder, _temporary: None }
    }

    /// One that goes when it is dropped.
    pub(super) fn temporary(name: &str) -> Result<Self> {
        let temporary = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
        Ok(Self { name: name.into(), folder: temporary.path().join("cluster"), _temporary: Some(temporary) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    /// Writes down what was fetched; what an earlier time brought and this one did not goes.
    pub(super) fn keep(&self, access: &Access) -> Result<Kept> {
        let fetched = match access {
            Access::Lab { name, kubeconfig } => {
                let (kubeconfig, lab) = (kubeconfig.clone(), Some(name.clone()));
                return Ok(Kept { kubeconfig, certificate: None, login: None, context: None, lab });
            }
            Access::Files(fetched) => fetched,
        };
        self.remove_secrets()?;
        let Fetched { kubeconfig, certificate, login } = &**fetched;
        let text = serde_json::to_vec(kubeconfig).cause(Cause::Internal, || "cannot write a kubeconfig")?;
        let optional =
            |file: &str, text: &Option<String>| text.as_ref().map(|text| self.write(file, text.as_bytes())).transpose();
        Ok(Kept {
            kubeconfig: self.write(KUBECONFIG, &text)?,
            certificate: optional(CERTIFICATE, certificate)?,
            login: optional(LOGIN, login)?,
            context: Some(self.name.clone()),
            lab: None,
        })
    }

    /// Writes a private file, at once or not at all.
    pub(super) fn write(&self, file: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.folder.join(file);
        let write = || -> std::io::Result<()> {
            let folder = path.parent().unwrap_or(&self.folder);
            self.make(folder)?;
            // tempfile's files are private.
            let mut new = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
            new.write_all(bytes)?;
            new.persist(&path).map_err(|error| error.error)?;
            Ok(())
        };
        write().cause(Cause::HostDisk, || format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    fn make(&self, folder: &Path) -> std::io::Result<()> {
        fs::create_dir_all(self.folder.parent().unwrap_or(&self.folder))?;
        for folder in [self.folder.as_path(), folder] {
            match fs::DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
                // It may be older than this rule.
                _ => fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?,
            }
        }
        Ok(())
    }

    /// Remembers that a run is about to make the cluster: before it does, so that its end finds it also after a kill.
    pub(super) fn remember(&self, run: &str) -> Result<()> {
        self.note(&Made { run: run.into(), digest: None })
    }

    /// Remembers by what the cluster that the run has made is known again.
    pub(super) fn identify(&self, run: &str, by: &str) -> Result<()> {
        self.note(&Made { run: run.into(), digest: Some(digest::sha256(by.as_bytes())) })
    }

    fn note(&self, made: &Made) -> Result<()> {
        let made = serde_json::to_vec(made).cause(Cause::Internal, || "cannot write a run's id")?;
        self.write(MADE, &made).map(drop)
    }

    fn made(&self) -> Option<Made> {
        let bytes = rundir::read_limited(&self.folder.join(MADE), 4096).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// The run that made it, as far as it is known here.
    pub(super) fn made_by(&self) -> Option<String> {
        self.made().map(|made| made.run)
    }

    /// Whether what was made last is this one; nothing if it was never looked at.
    pub(super) fn is_made(&self, by: &str) -> Option<bool> {
        self.made()?.digest.map(|known| known == digest::sha256(by.as_bytes()))
    }

    /// Whether a deletion for `run` is none of its business.
    pub(super) fn is_of_another(&self, run: Option<&str>) -> bool {
        run.is_some_and(|run| self.made_by().as_deref() != Some(run))
    }

    /// Removes everything.
    pub(super) fn remove(&self) -> Result<()> {
        match fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).cause(Cause::HostDisk, || format!("cannot remove {}", self.folder.display()))
            }
            _ => Ok(()),
        }
    }

    /// Removes everything but whose cluster it is.
    pub(super) fn remove_secrets(&self) -> Result<()> {
        let made = self.made();
        self.remove()?;
        made.map_or(Ok(()), |made| self.note(&made))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clusters::access::tests::kubeconfig;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn what_was_fetched_is_private_and_goes() {
        let parent = tempfile::tempdir().unwrap();
        let store = Store::at("z", parent.path().join("z"));
        store.remember("r1").unwrap();
        // A folder that somebody else may look into does not stay so.
        fs::set_permissions(parent.path().join("z"), fs::Permissions::from_mode(0o755)).unwrap();
        let login = Some("{\"auths\":{}}".to_owned());
        let access =
            Access::Files(Box::new(Fetched { kubeconfig: kubeconfig(), certificate: Some("pem".into()), login }));
        let kept = store.keep(&access).unwrap();
        for file in [&kept.kubeconfig, kept.certificate.as_ref().unwrap(), kept.login.as_ref().unwrap()] {
            assert_eq!(mode(file), 0o600, "{}", file.display());
            assert_eq!(mode(file.parent().unwrap()), 0o700);
        }
        assert_eq!(kept.options().arguments()[2..], ["--context", "z"]);
        let access = Access::Files(Box::new(Fetched { kubeconfig: kubeconfig(), certificate: None, login: None }));
        assert_eq!(store.keep(&access).unwrap().login, None);
        assert!(!store.path(LOGIN).exists() && !store.path(CERTIFICATE).exists());
        assert!(store.made_by().as_deref() == Some("r1") && store.is_of_another(Some("r2")));
        assert!(!store.is_of_another(None) && !store.is_of_another(Some("r1")));
        store.remove().unwrap();
        store.remove().unwrap();
        assert!(!parent.path().join("z").exists());
    }
}
