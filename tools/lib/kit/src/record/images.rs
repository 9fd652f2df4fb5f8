//! `images.json`: what image-build built or found, and what was verified of it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Head, Record};
use crate::{
    Cause,
    arch::{ByteOrder, Platform},
};

/// What was built of a component, verified platform by platform.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Images {
    /// Tool, times, outcome.
    #[serde(flatten)]
    pub head: Head,
    /// The component's name in `ci/components.toml`.
    pub component: String,
    /// Its version, as released.
    pub version: String,
    /// Where its sources came from.
    pub source: Source,
    /// Who built the images.
    pub origin: Origin,
    /// The platforms that were asked for.
    pub platforms: Vec<Platform>,
    /// Every image of the release, one each.
    pub images: Vec<Image>,
    /// Names of images that were not built in this run: the registry had ones of the same inputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reused: Vec<String>,
    /// What the configuration named and we replaced.
    pub replacements: Vec<Replacement>,
    /// What the configuration names and nothing runs on the platforms asked for, so that it was not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unused: Vec<Unused>,
    /// The release file, once everything was verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<Release>,
}

impl Record for Images {
    const FILE: &'static str = "images.json";
    fn head(&self) -> &Head {
        &self.head
    }
}

/// Sources of a component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A Go module at a version; `sum` is Go's own hash of it (`h1:…`).
    Module {
        /// Module path.
        path: String,
        /// Module version.
        version: String,
        /// Go's checksum of the module, empty if Go did not say it.
        sum: String,
    },
    /// A folder, with a digest over its files.
    Folder {
        /// Relative to the workspace where it lies inside.
        path: String,
        /// `sha256:…` over names and contents.
        digest: String,
        /// The commit that is checked out there, with `-dirty` where files differ; nothing outside of git.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        commit: Option<String>,
    },
    /// A release that existed before.
    Release {
        /// The file or reference that was given.
        reference: String,
    },
}

/// Who built the images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The component's own project published them.
    Published,
    /// Built by us, with our bases.
    BuiltHere,
}

/// How an image came into the release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ImageKind {
    /// Named `ko://…` in the configuration.
    Built,
    /// Named by reference in the configuration.
    Referenced,
}

/// One image.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Image {
    /// Go import path, or the reference as the configuration had it.
    pub name: String,
    /// Built by ko, or only named.
    pub kind: ImageKind,
    /// `registry/repository@sha256:…`, or as far as it is known.
    pub reference: String,
    /// Digest of the index (of the manifest where it is a plain image).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// The base that it was built on, by reference with digest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// One row for every platform asked for; for a file, one for each program in it.
    pub platforms: Vec<PlatformRow>,
}

/// One image on one platform: what it says and what it is.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlatformRow {
    /// The platform asked for.
    pub platform: Platform,
    /// Digest of its manifest, if the index has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<String>,
    /// The platform that the index says of it; nothing for a plain image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<Platform>,
    /// The platform that its config declares (OCI image-spec, config.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<Platform>,
    /// The entrypoint's program, from its header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<Program>,
    /// What of it was not looked at; nothing if all that decides which program it starts was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<Unseen>,
    /// The config's `User`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// That user's number, where the config or an `/etc/passwd` that was read says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Number of its group, likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Whether that user is another one than root; nothing where only a name is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonroot: Option<bool>,
    /// The base that it says it is built on, by reference with digest (OCI image-spec, annotations.md).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// All programs of all layers, where they were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deep: Option<Deep>,
    /// Bytes of config and layers as stored; of a program in a file, its own.
    #[serde(default)]
    pub size: u64,
    /// What is wrong with it; nothing if it is what it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// The cause of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Cause>,
}

impl PlatformRow {
    /// A row of which nothing but the platform is known yet.
    #[must_use]
    pub fn new(platform: Platform) -> Self {
        Self {
            platform,
            manifest: None,
            entry: None,
            config: None,
            program: None,
            unseen: None,
            user: None,
            uid: None,
            gid: None,
            nonroot: None,
            base: None,
            deep: None,
            size: 0,
            problem: None,
            cause: None,
        }
    }
}

/// What of an image was not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Unseen {
    /// The end of the layer with its program, where another of the same path could be: it is large, and only its
    /// beginning was fetched.
    LayerEnd,
    /// The program: it is in none of the layers that can be fetched, and others only their maker distributes.
    Program,
}

/// What was found of all programs in all layers: ELF programs and libraries for Linux, PE for Windows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Deep {
    /// Layers that were read, now or when they were first seen.
    pub layers: usize,
    /// Programs in them.
    pub programs: usize,
    /// How many of those are for another machine.
    pub foreign: usize,
    /// The first hundred of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wrong: Vec<Program>,
}

/// A program's header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Program {
    /// Its path in the image.
    pub path: String,
    /// `elf` or `pe`.
    pub format: String,
    /// The header's machine, by Go's name where the table has it, otherwise as a number.
    pub machine: String,
    /// 32 or 64.
    pub class: u8,
    /// From the header.
    pub byte_order: ByteOrder,
}

/// An image reference of the configuration that we replaced by another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Replacement {
    /// As the configuration had it.
    pub from: String,
    /// As the release has it.
    pub to: String,
}

/// An image that is named but that nothing runs, by `ci/images.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Unused {
    /// As the configuration has it.
    pub reference: String,
    /// Why it is not needed.
    pub reason: String,
}

/// The release file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    /// `sha256:…` of `release.yaml`: the release's identity.
    pub digest: String,
    /// Number of Kubernetes objects in it.
    pub objects: usize,
    /// Where it was pushed as an OCI artifact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<String>,
}
