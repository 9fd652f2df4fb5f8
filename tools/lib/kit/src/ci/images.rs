//! `ci/images.toml`: public images that are replaced, and how the stand-ins are made.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Platform;

/// `ci/images.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageMap {
    /// Public names that are replaced.
    #[serde(default)]
    pub image: Vec<ReplacedImage>,
    /// How images are built.
    #[serde(default)]
    pub build: BTreeMap<String, Build>,
}

/// Names that one build stands in for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplacedImage {
    /// Full references.
    pub names: Vec<String>,
    /// Whether a lab's nodes get it into their store, for what a digest names no mirror can serve.
    #[serde(default)]
    pub preload: bool,
    /// Only there anything runs it; anywhere if empty.
    #[serde(default)]
    pub platforms: Vec<Platform>,
    /// The build, or
    pub build: Option<String>,
    /// why none is needed. Without both it is what it is, on its platforms.
    pub unused: Option<String>,
}

/// A root file system from Debian's packages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// Start from another build.
    pub extends: Option<String>,
    /// Packages, unpacked exactly as listed.
    #[serde(default)]
    pub packages: Vec<String>,
    /// Target, and the paths that link to it.
    #[serde(default)]
    pub links: BTreeMap<String, Vec<String>>,
    /// Whether the bundle of certificates is put together.
    #[serde(default)]
    pub certificates: bool,
    /// Paths removed after unpacking.
    #[serde(default)]
    pub drop: Vec<String>,
    /// Files with their content.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// `UID:GID`.
    pub user: Option<String>,
    /// Working directory.
    pub workdir: Option<String>,
    /// Environment beside PATH.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// As in an OCI image's configuration.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// As in an OCI image's configuration.
    #[serde(default)]
    pub cmd: Vec<String>,
}
