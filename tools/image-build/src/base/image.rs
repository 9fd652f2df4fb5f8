//! Images of a layout: config, manifest and index of what a base is made of.

use std::collections::BTreeMap;

use debian::tree::{Tree, gzip};
use kit::{Platform, Result, digest};
use oci::{
    Layout, canonical, platform_json,
    spec::{Descriptor, MediaType},
};
use serde_json::{Value, json};

/// No time of ours: the same content has the same digest on every day.
pub(crate) const CREATED: &str = "1970-01-01T00:00:00Z";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What an image's config says beside its content.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    pub(crate) user: Option<String>,
    pub(crate) workdir: Option<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    /// The command that made it, for the history.
    pub(crate) made_by: String,
}

/// A manifest as an index names it.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    pub(crate) platform: Platform,
    pub(crate) manifest: Descriptor,
    /// The platform in OCI's form, with all that is known of it.
    pub(crate) json: Value,
    pub(crate) annotations: BTreeMap<String, String>,
}

impl Listed {
    pub(crate) fn new(platform: &Platform, manifest: Descriptor) -> Self {
        let json = platform_json(platform);
        Self { platform: platform.clone(), manifest, json, annotations: BTreeMap::new() }
    }
}

/// Writes layer, config and manifest of a root file system.
pub(crate) fn write(layout: &Layout, settings: &Settings, platform: &Platform, tree: &Tree) -> Result<Listed> {
    let archive = tree.archive()?;
    let layer = layout.write(MediaType::ImageLayerGzip, &gzip(&archive)?)?;
    write_manifest(layout, settings, platform, &layer, &digest::sha256(&archive))
}

/// Writes config and manifest around a layer that is there.
pub(crate) fn write_manifest(
    layout: &Layout,
    settings: &Settings,
    platform: &Platform,
    layer: &Descriptor,
    diff_id: &str,
) -> Result<Listed> {
    let config = canonical(&config(settings, platform, diff_id))?;
    let config = layout.write(MediaType::ImageConfig, &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest,
        "config": config,
        "layers": [layer],
    });
    Ok(Listed::new(platform, layout.write(MediaType::ImageManifest, &canonical(&manifest)?)?))
}

/// Writes the index of all platforms, in the order of their names, which is then the layout's only image.
pub(crate) fn write_index(layout: &Layout, mut manifests: Vec<Listed>) -> Result<Descriptor> {
    manifests.sort_by_key(|listed| listed.platform.to_string());
    let manifests = manifests.iter().map(|listed| {
        let mut entry = serde_json::to_value(&listed.manifest).unwrap_or_default();
        entry["platform"] = listed.json.clone();
        if !listed.annotations.is_empty() {
            entry["annotations"] = json!(listed.annotations);
        }
        entry
    });
    let index = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageIndex,
        "manifests": manifests.collect::<Vec<_>>(),
    });
    let index = layout.write(MediaType::ImageIndex, &canonical(&index)?)?;
    layout.finish(std::slice::from_ref(&index))?;
    Ok(index)
}

fn config(settings: &Settings, platform: &Platform, diff_id: &str) -> Value {
    let path = (!settings.env.contains_key("PATH")).then(|| PATH.to_owned());
    let env: Vec<_> =
        path.into_iter().chain(settings.env.iter().map(|(name, value)| format!("{name}={value}"))).collect();
    let mut said = json!({ "Env": env, "WorkingDir": settings.workdir.as_deref().unwrap_or("/") });
    if let Some(user) = &settings.user {
        said["User"] = json!(user);
    }
    for (name, words) in [("Entrypoint", &settings.entrypoint), ("Cmd", &settings.cmd)] {
        if !words.is_empty() {
            said[name] = json!(words);
        }
    }
    let mut config = platform_json(platform);
    config["created"] = json!(CREATED);
    config["config"] = said;
    config["rootfs"] = json!({ "type": "layers", "diff_ids": [diff_id] });
    config["history"] = json!([{ "created": CREATED, "created_by": settings.made_by }]);
    config
}
