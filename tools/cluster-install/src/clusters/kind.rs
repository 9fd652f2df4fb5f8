//! `kind`: a cluster in containers of this machine. kind gets a kubeconfig of ours, so that the user's own stays as it
//! is.

use std::{path::PathBuf, process::Command, time::Duration};

use kit::{
    Cause, Process, Result, Ui,
    ci::{Ci, Kind},
    process,
};

use super::{
    Access, Phase, Provider, Seen, Store,
    access::{Fetched, adopt},
    borrowed,
};

/// How long kind itself waits for the control plane.
const WAIT: &str = "5m";
/// Images have to come from somewhere.
const CREATE: Duration = Duration::from_secs(20 * 60);
const ANSWER: Duration = Duration::from_secs(120);
/// The file that kind writes, which is of no further use: see [`InKind::access`].
const SCRATCH: &str = "kind-kubeconfig";

pub(super) struct InKind {
    name: String,
    kind: Kind,
    base: PathBuf,
    store: Store,
    program: PathBuf,
}

impl InKind {
    pub(super) fn new(name: &str, kind: &Kind, ci: &Ci, store: &Store) -> Result<Self> {
        let hint = "install it (https://kind.sigs.k8s.io)";
        let program = process::find_program("kind", "OTHER_ARCH_KIND", &format!("cluster {name}"), hint)?;
        let store = Store::new(store.name())?;
        Ok(Self { name: name.into(), kind: kind.clone(), base: ci.resolve(""), store, program })
    }

    fn process(&self, arguments: &[String], limit: Duration) -> Process<'static> {
        let mut command = Command::new(&self.program);
        command.args(arguments).env_remove("KUBECONFIG");
        Process::new(format!("kind {}", arguments[0]), command).cause(Cause::ClusterUnreachable).limit(limit)
    }

    fn scratch(&self) -> String {
        self.store.path(SCRATCH).display().to_string()
    }

    fn exists(&self) -> Result<bool> {
        let listed = self.process(&words(&["get", "clusters"]), ANSWER).read()?;
        Ok(listed.lines().any(|line| line.trim() == self.name))
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// How kind is called to make a cluster.
fn create(name: &str, kubeconfig: &str, image: Option<&str>, config: Option<&str>) -> Vec<String> {
    let mut arguments = words(&["create", "cluster", "--name", name, "--kubeconfig", kubeconfig, "--wait", WAIT]);
    for (option, value) in [("--image", image), ("--config", config)] {
        arguments.extend(value.into_iter().flat_map(|value| words(&[option, value])));
    }
    arguments
}

/// How kind is called to remove one.
fn delete(name: &str, kubeconfig: &str) -> Vec<String> {
    words(&["delete", "cluster", "--name", name, "--kubeconfig", kubeconfig])
}

impl Provider for InKind {
    fn create(&self, run: &str, ui: &Ui) -> Result<bool> {
        if self.exists()? {
            return Ok(self.store.made_by().as_deref() == Some(run));
        }
        self.store.remember(run)?;
        let config = self.kind.config.as_ref().map(|config| borrowed::path(config, &self.base)).transpose()?;
        let config = config.map(|config| config.display().to_string());
        let arguments = create(&self.name, &self.scratch(), self.kind.image.as_deref(), config.as_deref());
        let step = ui.step(format!("kind makes {}", self.name));
        self.process(&arguments, CREATE).on_line(|_, line| step.set(kit::ui::printable(line))).run()?;
        step.done("");
        Ok(true)
    }

    fn delete(&self, run: Option<&str>, _ui: &Ui) -> Result<bool> {
        if self.store.is_of_another(run) || !self.exists()? {
            return Ok(false);
        }
        self.process(&delete(&self.name, &self.scratch()), ANSWER).run()?;
        Ok(true)
    }

    fn look(&self, seen: &mut Seen, _ui: &Ui) -> Result<()> {
        seen.phase = if self.exists()? { Phase::Ready } else { Phase::Absent };
        seen.run = self.store.made_by().filter(|_| seen.phase == Phase::Ready);
        Ok(())
    }

    fn access(&self, _ui: &Ui) -> Result<Access> {
        let text = self.process(&words(&["get", "kubeconfig", "--name", &self.name]), ANSWER).read()?;
        let kubeconfig = adopt(&text, &self.name, None, Cause::ClusterUnreachable)?;
        Ok(Access::Files(Box::new(Fetched { kubeconfig, certificate: None, login: None })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kind_is_called_with() {
        let line = |arguments: Vec<String>| arguments.join(" ");
        for (image, config, more) in [
            (None, None, ""),
            (Some("kindest/node@sha256:0"), None, " --image kindest/node@sha256:0"),
            (None, Some("/w/ci/kind.yaml"), " --config /w/ci/kind.yaml"),
            (Some("i"), Some("c"), " --image i --config c"),
        ] {
            let wanted = format!("create cluster --name k --kubeconfig /c/f --wait 5m{more}");
            assert_eq!(line(create("k", "/c/f", image, config)), wanted);
        }
        assert_eq!(line(delete("k", "/c/f")), "delete cluster --name k --kubeconfig /c/f");
    }
}
