//! The layout of an image as it was made: which layers and which config each platform has.

use std::path::{Path, PathBuf};

use kit::{Cause, Context, Error, Platform, Result, rundir};
use serde::{Deserialize, de::DeserializeOwned};

/// A descriptor, as far as it is looked at here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Blob {
    pub(super) digest: String,
    pub(super) size: u64,
    platform: Option<Named>,
}

#[derive(Debug, Clone, Deserialize)]
struct Named {
    os: String,
    architecture: String,
    variant: Option<String>,
}

#[derive(Deserialize)]
struct Index {
    manifests: Vec<Blob>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Blob,
    layers: Vec<Blob>,
}

/// An image of a layout.
pub(super) struct Shape {
    /// The digest of its index.
    pub(super) digest: String,
    parts: Vec<(Platform, Part)>,
}

/// The image on one platform.
#[derive(Clone)]
pub(super) struct Part {
    pub(super) layers: Vec<Layer>,
    config: u64,
}

/// A layer as it is stored.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) path: PathBuf,
    pub(super) size: u64,
}

impl Shape {
    /// What there is for a platform.
    pub(super) fn part(&self, platform: &Platform) -> Result<Part> {
        let found = self.parts.iter().find(|(of, _)| of == platform);
        let missing = || Error::new(Cause::ImageMissingPlatform, format!("the image has nothing for {platform}"));
        found.map(|(_, part)| part.clone()).ok_or_else(missing)
    }
}

impl Shape {
    /// The first layer of each platform.
    pub(super) fn first_layers(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().filter_map(|(_, part)| Some(part.layers.first()?.path.as_path()))
    }

    /// Its platforms.
    pub(super) fn platforms(&self) -> Vec<String> {
        self.parts.iter().map(|(platform, _)| platform.to_string()).collect()
    }
}

impl Part {
    /// Bytes that a node fetches.
    pub(super) fn packed(&self) -> u64 {
        self.config + self.layers.iter().map(|layer| layer.size).sum::<u64>()
    }
}

/// Reads the only image of a layout.
pub(super) fn read(folder: &Path) -> Result<Shape> {
    let top: Index = parse(&folder.join("index.json"))?;
    let only = top.manifests.first().ok_or_else(|| Error::new(Cause::Internal, "a layout without an image"))?;
    let index: Index = parse(&path(folder, only))?;
    let mut parts = Vec::new();
    for entry in &index.manifests {
        let Some(of) = &entry.platform else { continue };
        let platform = Platform::from_parts(&of.os, &of.architecture, of.variant.as_deref(), None);
        let manifest: Manifest = parse(&path(folder, entry))?;
        let layer = |blob: &Blob| Layer { path: path(folder, blob), size: blob.size };
        parts.push((
            platform,
            Part { layers: manifest.layers.iter().map(layer).collect(), config: manifest.config.size },
        ));
    }
    Ok(Shape { digest: only.digest.clone(), parts })
}

fn path(folder: &Path, blob: &Blob) -> PathBuf {
    folder.join("blobs").join(blob.digest.replace(':', "/"))
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = rundir::read_limited(path, 4 << 20)?;
    serde_json::from_slice(&bytes).cause(Cause::Internal, || format!("{} is not what we wrote", path.display()))
}
