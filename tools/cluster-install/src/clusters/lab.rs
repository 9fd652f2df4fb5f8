//! `lab`: a cluster that the lab makes on this machine. To us the lab is a program, as kind is.

use std::{path::PathBuf, process::Command, time::Duration};

use kit::{Cause, Context, Error, Process, Result, Ui, ci::LabCluster, process};
use serde_json::Value;

use super::{Access, Phase, Provider, Seen, Store};

/// The first one compiles Kubernetes, and nodes of other architectures boot under emulation.
const UP: Duration = Duration::from_secs(2 * 3600);
const ANSWER: Duration = Duration::from_secs(300);

pub(super) struct InLab {
    name: String,
    lab: LabCluster,
    store: Store,
    program: PathBuf,
}

impl InLab {
    pub(super) fn new(name: &str, lab: &LabCluster, store: &Store) -> Result<Self> {
        let beside = std::env::current_exe().ok().map(|own| own.with_file_name("lab")).filter(|path| path.is_file());
        let beside = beside.filter(|_| std::env::var_os("OTHER_ARCH_LAB").is_none_or(|value| value.is_empty()));
        let program = match beside {
            Some(program) => program,
            None => process::find_program(
                "lab",
                "OTHER_ARCH_LAB",
                &format!("lab '{name}'"),
                "build it: cargo build --package lab",
            )?,
        };
        Ok(Self { name: name.into(), lab: lab.clone(), store: Store::new(store.name())?, program })
    }

    /// Calls the lab's tool; its cause is ours.
    fn call(&self, arguments: &[String], limit: Duration, ui: &Ui) -> Result<Value> {
        let results = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
        let mut command = Command::new(&self.program);
        command.args(["--name", &self.name, "--output", "json", "--results-dir"]).arg(results.path()).args(arguments);
        let step = ui.step(format!("lab {}", arguments[0]));
        let ran = Process::new(format!("lab '{}'", self.name), command)
            .limit(limit)
            .on_line(|stream, line| {
                if stream == kit::Stream::Err {
                    step.set(kit::ui::printable(line));
                }
            })
            .read();
        let text = ran.map_err(|mut error| {
            let said = std::fs::read_to_string(results.path().join("cause")).unwrap_or_default();
            let known = Cause::ALL.iter().copied().find(|cause| cause.name() == said.trim());
            error.cause = known.unwrap_or(error.cause);
            error
        })?;
        step.done("");
        if text.trim().is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).cause(Cause::Internal, || format!("lab '{}' says no JSON", self.name))
    }
}

fn up(nodes: &[kit::Platform]) -> Vec<String> {
    let nodes = nodes.iter().flat_map(|node| ["--node".to_owned(), node.to_string()]);
    std::iter::once("up".to_owned()).chain(nodes).collect()
}

impl Provider for InLab {
    fn create(&self, run: &str, ui: &Ui) -> Result<bool> {
        // Whoever finds no record here is about to make one.
        if !kit::dirs::cache()?.join("labs").join(&self.name).join("lab.json").exists() {
            self.store.remember(run)?;
        }
        let status = self.call(&up(&self.lab.nodes), UP, ui)?;
        let fresh = status["fresh"].as_bool().unwrap_or(false);
        if fresh {
            self.store.remember(run)?;
        }
        Ok(fresh || self.store.made_by().as_deref() == Some(run))
    }

    fn delete(&self, run: Option<&str>, ui: &Ui) -> Result<bool> {
        if self.store.is_of_another(run) {
            return Ok(false);
        }
        let there = kit::dirs::cache()?.join("labs").join(&self.name).join("lab.json").exists();
        self.call(&["down".to_owned()], ANSWER, ui)?;
        Ok(there)
    }

    fn look(&self, seen: &mut Seen, ui: &Ui) -> Result<()> {
        let status = self.call(&["status".to_owned()], ANSWER, ui);
        match status {
            Ok(status) => seen.phase = if status["phase"] == "ready" { Phase::Ready } else { Phase::Creating },
            Err(error) if error.cause == Cause::ClusterUnreachable => seen.phase = Phase::Absent,
            // Then it is up, and the cluster itself says more.
            Err(error) if matches!(error.cause, Cause::Apiserver | Cause::Node) => seen.phase = Phase::Ready,
            Err(error) => return Err(error),
        }
        seen.run = self.store.made_by().filter(|_| seen.phase == Phase::Ready);
        Ok(())
    }

    fn access(&self, ui: &Ui) -> Result<Access> {
        let said = self.call(&["kubeconfig".to_owned()], ANSWER, ui)?;
        let path = said["kubeconfig"].as_str();
        let path =
            path.ok_or_else(|| Error::new(Cause::Internal, format!("lab '{}' names no kubeconfig", self.name)))?;
        Ok(Access::Lab { name: self.name.clone(), kubeconfig: path.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_lab_is_called_with() {
        assert_eq!(up(&[]), ["up"]);
        let nodes = ["linux/s390x".parse().unwrap(), "linux/arm64".parse().unwrap()];
        assert_eq!(up(&nodes).join(" "), "up --node linux/s390x --node linux/arm64");
    }
}
