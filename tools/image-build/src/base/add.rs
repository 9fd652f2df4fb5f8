//! Files of one's own on top of a base that was made: a layer of them for each folder, beside the layer of packages,
//! which stays the same and is not moved again when only they change.

use std::fs;

use kit::{Cause, Context, Error, Platform, Result, Within};
use oci::{
    Layout, canonical,
    spec::{Descriptor, ImageIndex, ImageManifest},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    folder,
    image::{CREATED, Listed, write_index},
    rootfs::Root,
    spool::Spool,
    target::read,
};

/// The image with what is added to each platform, in a layout of its own that goes with the folder.
///
/// # Errors
/// [`Cause::Usage`] for a platform that is not built and for what cannot be in an image, [`Cause::ImageWrongArch`]
/// for programs of another machine, [`Cause::HostDisk`].
pub(super) fn add(from: &Layout, index: &Descriptor, added: &[Root]) -> Result<(TempDir, Layout, Descriptor)> {
    let temporary = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
    let layout = Layout::create(temporary.path())?;
    let index: ImageIndex = read(from, index)?;
    let mut manifests = Vec::new();
    for descriptor in index.manifests() {
        let json = descriptor.platform().as_ref().and_then(|platform| serde_json::to_value(platform).ok());
        let text = |name: &str| json.as_ref().and_then(|json| json[name].as_str()).map(String::from);
        let (os, arch) = (text("os").unwrap_or_default(), text("architecture").unwrap_or_default());
        let platform = Platform::from_parts(&os, &arch, text("variant").as_deref(), None);
        let of = added.iter().filter(|root| root.platform == platform);
        manifests.push((platform.clone(), on_top(from, &layout, descriptor, &platform, of)?));
    }
    let built = |root: &&Root| !manifests.iter().any(|(platform, _)| *platform == root.platform);
    if let Some(root) = added.iter().find(built) {
        let what = format!("--add {}={}: that platform is not built", root.platform, root.path.display());
        return Err(Error::new(Cause::Usage, what).next(format!("add --platform {}", root.platform)));
    }
    let listed = manifests.into_iter().map(|(platform, manifest)| Listed::new(&platform, manifest)).collect();
    let index = write_index(&layout, listed)?;
    Ok((temporary, layout, index))
}

fn on_top<'a>(
    from: &Layout,
    to: &Layout,
    descriptor: &Descriptor,
    platform: &Platform,
    added: impl Iterator<Item = &'a Root>,
) -> Result<Descriptor> {
    let parsed: ImageManifest = read(from, descriptor)?;
    let (mut manifest, mut config): (Value, Value) = (read(from, descriptor)?, read(from, parsed.config())?);
    for layer in parsed.layers() {
        copy(from, to, layer)?;
    }
    let mut layers: Vec<_> = parsed.layers().iter().map(|layer| json!(layer)).collect();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (mut diff_ids, mut history) = (list(&config["rootfs"]["diff_ids"]), list(&config["history"]));
    for root in added {
        let mut spool = Spool::new(&[])?;
        folder::read(&root.path, &mut spool)?;
        // Whoever unpacked them, on whatever machine, with whatever mask.
        spool.belongs_to_root();
        spool.check(platform).within(|| root.path.display().to_string())?;
        let (layer, diff_id) = spool.write(to)?;
        layers.push(json!(layer));
        diff_ids.push(json!(diff_id));
        history.push(json!({ "created": CREATED, "created_by": "image-build base build --add" }));
    }
    config["rootfs"]["diff_ids"] = json!(diff_ids);
    config["history"] = json!(history);
    let config = to.write(parsed.config().media_type().clone(), &canonical(&config)?)?;
    manifest["config"] = json!(config);
    manifest["layers"] = json!(layers);
    to.write(descriptor.media_type().clone(), &canonical(&manifest)?)
}

fn copy(from: &Layout, to: &Layout, blob: &Descriptor) -> Result<()> {
    let (source, target) = (from.path(blob), to.path(blob));
    let parent = target.parent().unwrap_or(&target).to_path_buf();
    let copied = fs::create_dir_all(parent).and_then(|()| fs::copy(&source, &target));
    copied.cause(Cause::HostDisk, || format!("cannot copy {}", source.display())).map(drop)
}
