//! A root file system as an image of a layout.

use debian::tree::{Tree, gzip};
use kit::{Platform, Result, digest};
use oci::{
    Layout, canonical,
    spec::{Descriptor, MediaType},
};
use serde_json::json;

use super::definition::Definition;

/// No time of ours: the same content has the same digest on every day.
const CREATED: &str = "1970-01-01T00:00:00Z";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Writes layer, config and manifest; returns the manifest's descriptor with its platform.
pub(crate) fn write(layout: &Layout, definition: &Definition, platform: &Platform, tree: &Tree) -> Result<Descriptor> {
    let archive = tree.archive()?;
    let layer = layout.write(MediaType::ImageLayerGzip, &gzip(&archive)?)?;
    let config = canonical(&config(definition, platform, &digest::sha256(&archive)))?;
    let config = layout.write(MediaType::ImageConfig, &config)?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MediaType::ImageManifest,
        "config": config,
        "layers": [layer],
    });
    let mut descriptor = layout.write(MediaType::ImageManifest, &canonical(&manifest)?)?;
    let mut spec = oci::spec::Platform::default();
    spec.set_os(platform.os.as_str().into());
    spec.set_architecture(platform.arch.as_str().into());
    spec.set_variant(platform.variant.clone());
    descriptor.set_platform(Some(spec));
    Ok(descriptor)
}

/// Writes the index of all platforms, which is then the layout's only image.
pub(crate) fn write_index(layout: &Layout, manifests: &[Descriptor]) -> Result<()> {
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": manifests });
    let index = layout.write(MediaType::ImageIndex, &canonical(&index)?)?;
    layout.finish(&[index])
}

fn config(definition: &Definition, platform: &Platform, diff_id: &str) -> serde_json::Value {
    let env = definition.env.iter().map(|(name, value)| format!("{name}={value}"));
    let env: Vec<_> = std::iter::once(PATH.to_owned()).chain(env).collect();
    let mut settings = json!({ "Env": env, "WorkingDir": definition.workdir.as_deref().unwrap_or("/") });
    if let Some(user) = &definition.user {
        settings["User"] = json!(user);
    }
    if !definition.entrypoint.is_empty() {
        settings["Entrypoint"] = json!(definition.entrypoint);
    }
    if !definition.cmd.is_empty() {
        settings["Cmd"] = json!(definition.cmd);
    }
    let mut config = json!({
        "created": CREATED,
        "os": platform.os,
        "architecture": platform.arch,
        "config": settings,
        "rootfs": { "type": "layers", "diff_ids": [diff_id] },
        "history": [{ "created": CREATED, "created_by": format!("image-build base {}", definition.name) }],
    });
    if let Some(variant) = &platform.variant {
        config["variant"] = json!(variant);
    }
    config
}
