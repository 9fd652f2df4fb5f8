//! Taking the program out of an image, to run it here.

use std::sync::{Arc, Mutex, PoisonError};

use kit::{Cause, Error, Platform, Result};

use crate::{
    Place,
    index::{config_of, entries},
    layer::{self, Kind},
    root::clean,
};

/// The program that an image starts on `platform`: at most `limit` bytes, from a layer whose digest was
/// compared to its end. Only for images whose entrypoint is a plain file, as ko makes them.
///
/// # Errors
/// [`Cause::ImageMissingPlatform`] without the platform, [`Cause::Product`] for another kind of image, or
/// [`Cause::Auth`] or [`Cause::Registry`] as it is read.
pub async fn program(place: &Place, platform: &Platform, limit: usize) -> Result<Vec<u8>> {
    let no = |cause, what: &str| Error::new(cause, format!("{place}: {what}"));
    let top = place.top().await?;
    let entry = entries(place, &top).await?.into_iter().find(|entry| entry.platform == *platform);
    let missing = || no(Cause::ImageMissingPlatform, &format!("it has no {platform}"));
    let document = place.child(&entry.ok_or_else(missing)?.descriptor).await?.ok_or_else(missing)?;
    let (manifest, config) = config_of(place, &document).await?;
    let entrypoint = config.config().as_ref().and_then(|config| config.entrypoint().clone()?.into_iter().next());
    let path = entrypoint.filter(|path| path.starts_with('/'));
    let path = path.ok_or_else(|| no(Cause::Product, "it starts no program by an absolute path"))?;
    for descriptor in manifest.layers().iter().rev() {
        let (found, path) = (Arc::new(Mutex::new(None)), clean(&path));
        let mine = Arc::clone(&found);
        let scan = place.blob(descriptor).await?.scan(move |reader| {
            let wanted = |entry: &str| if clean(entry) == path { limit + 1 } else { 0 };
            layer::entries(reader, wanted, |entry| {
                if entry.kind == Kind::File && clean(&entry.path) == path {
                    *mine.lock().unwrap_or_else(PoisonError::into_inner) = Some(entry.head);
                }
                Ok(true)
            })
        });
        scan.await?;
        let found = found.lock().unwrap_or_else(PoisonError::into_inner).take();
        match found {
            Some(bytes) if bytes.len() > limit => return Err(no(Cause::Product, "its program is too large")),
            Some(bytes) => return Ok(bytes),
            None => {}
        }
    }
    Err(no(Cause::Product, &format!("its program {path} is a file of none of its layers")))
}
