//! A run of `ci/tekton` on a host of this machine: the steps that call our program, with the very arguments of the Tasks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use kit::Platform;
use serde_json::Value;

use crate::sshd::{Ended, World};

/// A run's workspace.
pub(crate) struct Night<'a> {
    world: &'a World,
    run: String,
}

impl<'a> Night<'a> {
    /// The run `run`, which has the files of this world's `ci/`, and a Secret with these.
    pub(crate) fn new(world: &'a World, run: &str, secret: &[(&str, &str)]) -> Self {
        let night = Self { world, run: run.into() };
        for folder in ["run", "given/src/ci", "secret"] {
            fs::create_dir_all(night.at(folder)).unwrap();
        }
        fs::write(night.at("run/run-id"), run).unwrap();
        for (name, text) in secret {
            fs::write(night.at("secret").join(name), text).unwrap();
            // As Kubernetes mounts them.
            fs::set_permissions(night.at("secret").join(name), std::os::unix::fs::PermissionsExt::from_mode(0o440))
                .unwrap();
        }
        night.sources();
        night
    }

    /// The Task `sources`: what this world describes now, as a cluster of this machine's architecture.
    pub(crate) fn sources(&self) {
        let architecture = format!("[[architecture]]\nplatform = '{}'\nclusters = ['lab', 'z-1']\n", Platform::host());
        fs::write(self.at("given/src/ci/architectures.toml"), self.world.read("ci/architectures.toml") + &architecture)
            .unwrap();
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.world.at(&self.run).join(name)
    }

    /// A step of a Task; `change` may shorten how long it waits.
    pub(crate) fn command(&self, task: &str, step: &str, change: impl Fn(String) -> String) -> Command {
        let words: Vec<_> = arguments(task, step).into_iter().map(|word| change(self.fill(&word))).collect();
        self.world.command(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub(crate) fn step(&self, task: &str, step: &str) -> Ended {
        Ended::of(&mut self.command(task, step, |word| word))
    }

    /// The cause in a stage's file.
    pub(crate) fn cause(&self, stage: &str) -> Value {
        let text = fs::read_to_string(self.at("run/stages").join(stage).with_extension("json")).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["cause"].clone()
    }

    fn fill(&self, word: &str) -> String {
        let path = |name: &str| self.at(name).display().to_string();
        let word = word.replace("$(workspaces.run.path)", &self.world.at(&self.run).display().to_string());
        let word = word.replace("$(workspaces.target.path)", &path("secret"));
        let word =
            word.replace("$(workspaces.host.path)", &path("secret")).replace("/tekton/results", &path("results"));
        let word = word.replace("$(params.platform)", &Platform::host().to_string());
        assert!(!word.contains("$("), "{word}");
        word
    }
}

fn arguments(task: &str, step: &str) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ci/tekton/tasks");
    let text = fs::read_to_string(folder.join(task).with_extension("yaml")).unwrap();
    let task: Value = serde_yaml_ng::from_str(&text).unwrap();
    let steps = task["spec"]["steps"].as_array().unwrap();
    let step = steps.iter().find(|one| one["name"] == step).unwrap();
    assert_eq!(step["command"][0], "/usr/local/bin/cluster-install");
    step["args"].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
}
