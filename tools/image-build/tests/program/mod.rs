//! The program itself, in a folder of its own, and releases for it in registries that stand in for real ones.

#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../ended/mod.rs"]
mod ended;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};

pub(crate) use ended::Ended;

use crate::support::{Made, OCI_MANIFEST, Registry, index};

pub(crate) const ALL: &[&str] = &["amd64", "arm64", "s390x", "ppc64le"];

impl Ended {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }

    /// This exit code, and these words among what it said.
    #[track_caller]
    pub(crate) fn says(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        for word in words {
            assert!(self.out.contains(word) || self.err.contains(word), "no '{word}' in\n{}{}", self.out, self.err);
        }
        self
    }
}

/// A folder to run it in, which is a workspace.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("ci/components.toml", "");
        folder.write("ci/images.toml", "");
        folder
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn read(&self, name: impl AsRef<Path>) -> String {
        fs::read_to_string(self.0.path().join(name)).unwrap()
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_image-build"));
        command.args(args).current_dir(self.0.path());
        command.env("OTHER_ARCH_CACHE", self.path("cache")).env("DOCKER_CONFIG", self.path("none"));
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        ended::run(self.command(args))
    }
}

/// An index for these architectures; returns `repository@digest` with the registry, and the entries.
pub(crate) fn image(registry: &Registry, repository: &str, arches: &[&str]) -> (String, Vec<Value>) {
    let manifests: Vec<_> = arches.iter().map(|arch| Made::new(arch, arch).push(registry, repository)).collect();
    let digest = index(registry, repository, "v1", &manifests)["digest"].as_str().unwrap().to_owned();
    (format!("{}/{repository}@{digest}", registry.host), manifests)
}

/// A manifest that cosign would put under this tag.
pub(crate) fn signature(registry: &Registry, repository: &str, tag: &str) -> String {
    let mut config = registry.blob(repository, b"{}");
    config["mediaType"] = json!("application/vnd.oci.image.config.v1+json");
    let mut layer = registry.blob(repository, tag.as_bytes());
    layer["mediaType"] = json!("application/vnd.dev.cosign.simplesigning.v1+json");
    let value = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [layer] });
    registry.document(repository, tag, OCI_MANIFEST, &value)["digest"].as_str().unwrap().to_owned()
}
