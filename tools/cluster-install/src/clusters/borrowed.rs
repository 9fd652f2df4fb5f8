//! `kubeconfig`: a cluster that is there and lent to us. Nothing is made and nothing removed; the context is named, and
//! the copy that tools get holds no other.

use std::path::PathBuf;

use kit::{
    Cause, Context, Result, Ui,
    ci::{Borrowed, Ci},
};

use super::{
    Access, Phase, Provider, Seen,
    access::{Fetched, rename},
};

pub(super) struct Lender {
    name: String,
    borrowed: Borrowed,
    /// What relative paths begin at.
    base: PathBuf,
}

impl Lender {
    pub(super) fn new(name: &str, borrowed: &Borrowed, ci: &Ci) -> Self {
        Self { name: name.into(), borrowed: borrowed.clone(), base: ci.resolve("") }
    }
}

/// A path of the file: `~/` is the user's home, what is relative begins at `base`.
///
/// # Errors
/// [`Cause::Usage`] for `~/` without a home.
pub(super) fn path(text: &str, base: &std::path::Path) -> Result<PathBuf> {
    match text.strip_prefix("~/") {
        Some(rest) => {
            let home = std::env::var("HOME").cause(Cause::Usage, || format!("'{text}', but HOME is not set"))?;
            Ok(PathBuf::from(home).join(rest))
        }
        None => Ok(base.join(text)),
    }
}

impl Provider for Lender {
    fn create(&self, _run: &str, _ui: &Ui) -> Result<bool> {
        Ok(false)
    }

    fn delete(&self, _run: Option<&str>, ui: &Ui) -> Result<bool> {
        ui.note(format!("cluster {} is borrowed and stays as it is", self.name));
        Ok(false)
    }

    /// Whether it is there is for the cluster itself to say.
    fn look(&self, seen: &mut Seen, _ui: &Ui) -> Result<()> {
        seen.phase = Phase::Ready;
        Ok(())
    }

    fn access(&self, _ui: &Ui) -> Result<Access> {
        let (config, shown) = if self.borrowed.path == "env" {
            cluster::kubeconfig::read_env()?
        } else {
            let path = path(&self.borrowed.path, &self.base)?;
            (cluster::kubeconfig::read(&path)?, path.display().to_string())
        };
        let context = cluster::kubeconfig::choose(&config, &shown, Some(&self.borrowed.context), true)?;
        let kubeconfig = rename(&cluster::kubeconfig::narrow(&config, &context), &self.name);
        Ok(Access::Files(Box::new(Fetched { kubeconfig, certificate: None, login: None })))
    }
}
