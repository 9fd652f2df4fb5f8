//! `ci/allow.toml`: what a release may lose against the one before it.

use serde::Deserialize;

use crate::Platform;

/// `ci/allow.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowed {
    /// All entries.
    #[serde(default)]
    pub allow: Vec<Allow>,
}

/// A loss that is known and meant.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allow {
    /// The image as `image-build diff` names it.
    pub image: String,
    /// The platforms that it may lose; all of them, and the image with them, if empty.
    #[serde(default)]
    pub platforms: Vec<Platform>,
    /// Why.
    pub reason: String,
    /// More about it.
    pub link: Option<String>,
    /// Who removes the entry.
    pub owner: String,
    /// Last day on which it counts.
    pub until: jiff::civil::Date,
}
