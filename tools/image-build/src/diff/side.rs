//! One of the two releases that are compared: its images, and what each is on every platform.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use kit::{
    Cause, Error, Platform, Result,
    ci::ImageMap,
    record::{Image, Images, Replacement},
};
use oci::{Client, Reference};
use serde::Serialize;

use crate::{
    images::{self, Known},
    release::{self, Release},
};

/// Images read at the same time.
const PARALLEL: usize = 8;

/// A release, as far as it is compared.
#[derive(Debug, Default)]
pub(super) struct Side {
    pub(super) images: BTreeMap<String, Entry>,
    pub(super) replacements: Vec<Replacement>,
    /// What was not looked at, or not where it lies, and why.
    pub(super) remarks: Vec<String>,
}

/// An image.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// As the release names it.
    pub(super) reference: String,
    /// `registry/repository`.
    pub(super) repository: String,
    /// By their [`slot`].
    pub(super) platforms: BTreeMap<String, Row>,
}

/// An image on one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    #[serde(skip)]
    pub(super) platform: Platform,
    pub(super) manifest: Option<String>,
    /// Empty is root.
    pub(super) user: String,
    pub(super) base: Option<String>,
    pub(super) size: u64,
}

/// Reads all images of a release. Where a registry does not answer, what the release's record says of the image has
/// to do; what a registry says that it does not have is not there, whatever the record says.
pub(super) async fn read(client: &Client, release: &Release, map: &ImageMap) -> Result<Side> {
    let mut side = Side::default();
    let record = release.record.as_ref();
    let mut names = Vec::new();
    for name in release.images()? {
        let noted = record.and_then(|record| record.unused.iter().find(|unused| unused.reference == name));
        let reason = match (noted, images::lookup(map, &name, &[])?.0) {
            (Some(unused), _) => Some(unused.reason.clone()),
            (None, Known::Unused(reason)) => Some(reason.to_owned()),
            _ => None,
        };
        match reason {
            Some(reason) => side.remarks.push(format!("{name} is not compared: {reason}")),
            None => names.push(name),
        }
    }
    let reads = stream::iter(&names).map(|name| read_one(client, name, record));
    let read: Vec<Result<(Entry, Option<String>)>> = reads.buffered(PARALLEL).collect().await;
    for entry in read {
        let (entry, remark) = entry?;
        side.remarks.extend(remark);
        let mut key = key(&oci::parse(&entry.reference)?);
        if side.images.contains_key(&key) {
            // As with --bare, where all images are in one repository.
            key = entry.reference.split('@').next().unwrap_or(&entry.reference).to_owned();
        }
        side.images.insert(key, entry);
    }
    side.replacements = record.map(|record| record.replacements.clone()).unwrap_or_default();
    Ok(side)
}

async fn read_one(client: &Client, name: &str, record: Option<&Images>) -> Result<(Entry, Option<String>)> {
    let reference = oci::parse(name)?;
    let repository = repository(&reference);
    let error = match oci::details(client, &reference).await {
        Ok(details) => {
            let gone: Vec<_> = details.gone.iter().map(ToString::to_string).collect();
            let gone = (!gone.is_empty()).then(|| gone.join(", "));
            let remark = gone.map(|gone| format!("{name}: its index names a manifest that is not there, for {gone}"));
            let rows = details.platforms.into_iter().map(|found| Row {
                platform: found.platform,
                manifest: Some(found.manifest),
                user: found.user,
                base: found.base,
                size: found.size,
            });
            let platforms = rows.map(|row| (slot(&row.platform), row)).collect();
            return Ok((Entry { reference: name.into(), repository, platforms }, remark));
        }
        Err(error) => error,
    };
    let Some(image) = record.and_then(|record| recorded(record, &reference)) else { return Err(error) };
    if error.cause != Cause::Registry || oci::answers(client, &reference).await {
        return Err(error);
    }
    let remark = format!("{name}: as images.json says it, for {}", error.summary());
    Ok((Entry { reference: name.into(), repository, platforms: rows(image) }, Some(remark)))
}

fn recorded<'a>(record: &'a Images, reference: &Reference) -> Option<&'a Image> {
    record.images.iter().find(|image| image.digest.is_some() && image.digest.as_deref() == reference.digest())
}

fn rows(image: &Image) -> BTreeMap<String, Row> {
    let there = image.platforms.iter().filter(|row| row.manifest.is_some());
    let rows = there.map(|row| Row {
        platform: row.platform.clone(),
        manifest: row.manifest.clone(),
        user: row.user.clone().unwrap_or_default(),
        base: image.base.clone(),
        size: row.size,
    });
    rows.map(|row| (slot(&row.platform), row)).collect()
}

/// What a platform is called in both releases: Windows' revisions, the fourth number of its version, come each
/// month and are the same platform.
pub(super) fn slot(platform: &Platform) -> String {
    let build = |version: &String| version.split('.').take(3).collect::<Vec<_>>().join(".");
    Platform { os_version: platform.os_version.as_ref().map(build), ..platform.clone() }.to_string()
}

fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

/// What an image is called in both releases, wherever they lie: its import path, or its name without the registry
/// of a private network.
pub(super) fn key(reference: &Reference) -> String {
    let repository = repository(reference);
    if let Some((_, path)) = release::import_path(&repository) {
        return path.to_owned();
    }
    let whole = if oci::insecure(reference.registry()) { reference.repository() } else { &repository };
    release::without_hash(whole).to_owned()
}

/// An error about one of the two sides.
pub(super) fn about(error: Error, what: &str) -> Error {
    error.within(what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_one_name_wherever_it_lies() {
        for (reference, expected) in [
            ("ghcr.io/t/p/github.com/t/p/cmd/x-10a3e32792f33651396d02b6855a6e36:v1", "github.com/t/p/cmd/x"),
            ("10.0.0.1:5000/other/github.com/t/p/cmd/x:v2", "github.com/t/p/cmd/x"),
            ("cgr.dev/chainguard/busybox", "cgr.dev/chainguard/busybox"),
            ("10.0.0.1:5000/mirror/cgr.dev/chainguard/busybox:key", "cgr.dev/chainguard/busybox"),
            ("10.0.0.1:5000/published/x", "published/x"),
            ("busybox", "docker.io/library/busybox"),
        ] {
            assert_eq!(key(&oci::parse(reference).unwrap()), expected);
        }
    }
}
