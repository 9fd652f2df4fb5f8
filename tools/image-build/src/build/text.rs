//! The release file: the configuration with references, stand-ins and the version in their places.
//!
//! Nothing else of the text changes, so that comments stay and equal images give equal files, whoever built
//! them.

use std::path::PathBuf;

use kit::{
    Cause, Error, Result,
    record::{Image, Images, Source},
};

use super::{Build, named};
use crate::manifests;

/// Puts everything in its place; an error if something has none.
pub(super) fn release(build: &Build<'_>, files: &[PathBuf], built: &[Image], record: &Images) -> Result<String> {
    let mut text = manifests::join(files)?;
    let tags = build.tags();
    for image in built {
        let reference = format!(
            "{}:{}@{}",
            build.repository(&image.name),
            tags.first().map_or("latest", String::as_str),
            image.digest.as_deref().unwrap_or_default()
        );
        text = manifests::replace(&text, &format!("{}{}", manifests::KO, image.name), &reference);
    }
    let text = named::replace(&text, &record.replacements);
    if let Some(line) = text.lines().find(|line| manifests::uncommented(line).contains(manifests::KO)) {
        let what = "an image of ko:// is named in a way that cannot be replaced";
        return Err(Error::new(Cause::Usage, what).line(line.trim()));
    }
    let (text, count) = manifests::set_version(&text, build.version());
    // A folder has a version only if the call says so.
    let has_version = build.args.version.is_some() || matches!(record.source, Source::Module { .. });
    if count == 0 && has_version {
        let component = &build.args.component;
        let what = format!("nothing in the configuration of {component} has the version 'devel' to replace");
        return Err(Error::new(Cause::Usage, what).next("see set_version in image-build's manifests.rs"));
    }
    Ok(text)
}
