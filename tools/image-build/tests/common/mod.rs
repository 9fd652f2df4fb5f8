//! A folder, a registry and images for tests of bases, and the real program run in them.

#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../folder/mod.rs"]
mod folder;

use std::ops::Deref;

use serde_json::{Value, json};

pub(crate) use folder::Ended;
use folder::Folder;

use crate::support::{
    DOCKER_LIST, DOCKER_MANIFEST, File, OCI_INDEX, OCI_MANIFEST, Registry, elf, gzip, layer as archive,
};

pub(crate) struct World {
    folder: Folder,
    pub(crate) registry: Registry,
}

impl Deref for World {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self { folder: Folder::new(), registry: Registry::start() }
    }

    pub(crate) fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Ended {
        self.folder.run_with(args, env)
    }
}

/// An image of the registry, by default one that is right.
pub(crate) struct Image<'a> {
    /// As an index has it.
    pub(crate) platform: Value,
    /// The config's settings.
    pub(crate) settings: Value,
    pub(crate) created: &'a str,
    pub(crate) os_release: &'a str,
    pub(crate) docker: bool,
}

impl Image<'_> {
    pub(crate) fn new(arch: &str) -> Self {
        Self {
            platform: json!({ "os": "linux", "architecture": arch }),
            settings: json!({ "Entrypoint": ["/app/x"], "User": "65532:65532" }),
            created: "2026-11-01T00:00:00Z",
            os_release: "ID=debian\nVERSION_ID=\"12\"\n",
            docker: false,
        }
    }

    /// Pushes it as `tag` too; returns its descriptor, with its platform.
    pub(crate) fn push(&self, registry: &Registry, repository: &str, tag: &str) -> Value {
        let arch = self.platform["architecture"].as_str().unwrap();
        let files = [
            ("app/x", File::Content(&elf(arch))),
            ("etc/os-release", File::Link("../usr/lib/os-release")),
            ("usr/lib/os-release", File::Content(self.os_release.as_bytes())),
        ];
        let mut config = self.platform.clone();
        config["created"] = json!(self.created);
        config["config"] = self.settings.clone();
        config["rootfs"] = json!({ "type": "layers", "diff_ids": [] });
        let mut config = registry.blob(repository, &serde_json::to_vec(&config).unwrap());
        let mut layer = registry.blob(repository, &gzip(&archive(&files)));
        let (manifest, names) = match self.docker {
            true => (
                DOCKER_MANIFEST,
                ["application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"],
            ),
            false => (
                OCI_MANIFEST,
                ["application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"],
            ),
        };
        (config["mediaType"], layer["mediaType"]) = (json!(names[0]), json!(names[1]));
        let document = json!({ "schemaVersion": 2, "mediaType": manifest, "config": config, "layers": [layer] });
        let mut descriptor = registry.document(repository, tag, manifest, &document);
        descriptor["platform"] = self.platform.clone();
        descriptor
    }
}

/// Pushes an index of these images and returns its digest.
pub(crate) fn push_index(registry: &Registry, repository: &str, tag: &str, images: &[Image<'_>]) -> String {
    let docker = images.iter().all(|image| image.docker);
    let manifests: Vec<_> = images.iter().map(|image| image.push(registry, repository, "part")).collect();
    let media_type = if docker { DOCKER_LIST } else { OCI_INDEX };
    let value = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
    registry.document(repository, tag, media_type, &value)["digest"].as_str().unwrap().to_owned()
}

/// Pushes an index of images that are right.
pub(crate) fn push(registry: &Registry, repository: &str, tag: &str, arches: &[&str]) -> String {
    let images: Vec<_> = arches.iter().map(|arch| Image::new(arch)).collect();
    push_index(registry, repository, tag, &images)
}
