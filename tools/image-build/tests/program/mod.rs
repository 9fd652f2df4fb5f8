//! Releases in registries that stand in for real ones, and the program to run on them.

#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../folder/mod.rs"]
mod folder;

use serde_json::{Value, json};

pub(crate) use folder::{Ended, Folder};

use crate::support::{Made, OCI_MANIFEST, Registry, index};

pub(crate) const ALL: &[&str] = &["amd64", "arm64", "s390x", "ppc64le"];

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
