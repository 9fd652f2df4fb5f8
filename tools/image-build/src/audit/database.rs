//! What was seen of images before: a file, so that an audit needs no network.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use kit::{Cause, Context, Error, Platform, Result, rundir};
use serde::{Deserialize, Serialize};

/// The file under the cache.
const FILE: &str = "images-seen.json";
const LIMIT: u64 = 64 << 20;
const VERSION: u32 = 1;
/// After this time a tag is looked at again. What a digest names does not change.
const FRESH: SignedDuration = SignedDuration::from_hours(24);

/// All images that were seen, by their whole reference.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Content {
    version: u32,
    images: BTreeMap<String, Seen>,
}

/// An image as it was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    pub(super) looked: Timestamp,
    pub(super) digest: String,
    /// Whether it is an index and no single image.
    pub(super) index: bool,
    pub(super) platforms: Vec<String>,
}

impl Seen {
    pub(super) fn platforms(&self) -> Vec<Platform> {
        // What no table of ours knows serves none of the platforms that can be asked for.
        self.platforms.iter().filter_map(|platform| platform.parse().ok()).collect()
    }
}

/// The database, and whether it has changed.
pub(super) struct Database {
    path: PathBuf,
    images: BTreeMap<String, Seen>,
    changed: bool,
}

impl Database {
    /// The file named, or the one in the cache. A file that is not there is an empty database; one in the cache
    /// that is damaged as well, and `remark` says so.
    ///
    /// # Errors
    /// [`Cause::Usage`] if the file that was named is no database, or one of a newer version.
    pub(super) fn open(named: Option<&Path>) -> Result<(Self, Option<String>)> {
        let path = match named {
            Some(path) => path.to_owned(),
            None => kit::dirs::cache()?.join(FILE),
        };
        let empty = |path| Self { path, images: BTreeMap::new(), changed: false };
        if !path.exists() {
            return Ok((empty(path), None));
        }
        match (read(&path), named) {
            (Ok(images), _) => Ok((Self { images, ..empty(path) }, None)),
            (Err(error), Some(_)) => Err(error),
            (Err(error), None) => Ok((empty(path), Some(format!("{}: it is made anew", error.summary())))),
        }
    }

    pub(super) fn get(&self, reference: &str) -> Option<&Seen> {
        self.images.get(reference)
    }

    /// What need not be looked at again.
    pub(super) fn fresh(&self, reference: &str, now: Timestamp) -> Option<&Seen> {
        let by_digest = reference.contains('@');
        self.get(reference).filter(|seen| by_digest || now.duration_since(seen.looked) < FRESH)
    }

    pub(super) fn insert(&mut self, reference: String, seen: Seen) {
        self.images.insert(reference, seen);
        self.changed = true;
    }

    /// Writes it if something is new.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the file.
    pub(super) fn save(self) -> Result<()> {
        if self.changed {
            rundir::write_json(&self.path, &Content { version: VERSION, images: self.images })?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<BTreeMap<String, Seen>> {
    let bytes = rundir::read_limited(path, LIMIT)?;
    let what = || format!("{} is no database of images", path.display());
    let content: Content = serde_json::from_slice(&bytes).cause(Cause::Usage, what)?;
    if content.version > VERSION {
        let what = format!("{} is a database of version {}, newer than {VERSION}", path.display(), content.version);
        return Err(Error::new(Cause::Usage, what));
    }
    Ok(content.images)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_is_kept_and_tags_grow_old() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d/x.json");
        let (mut database, _) = Database::open(Some(&path)).unwrap();
        let then: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let platforms = vec!["linux/s390x".to_owned(), "plan9/vax".to_owned()];
        let seen = Seen { looked: then, digest: "sha256:0".into(), index: true, platforms };
        for reference in ["r.io/x:1", "r.io/x@sha256:0"] {
            database.insert(reference.into(), seen.clone());
        }
        database.save().unwrap();
        let (database, _) = Database::open(Some(&path)).unwrap();
        assert_eq!((database.get("r.io/x:1"), seen.platforms().len()), (Some(&seen), 1));
        let later = then + SignedDuration::from_hours(25);
        assert!(database.fresh("r.io/x:1", then).is_some() && database.fresh("r.io/x:1", later).is_none());
        assert!(database.fresh("r.io/x@sha256:0", later).is_some());
    }

    #[test]
    fn a_file_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        for text in ["{", "{}", "{\"version\":2,\"images\":{}}"] {
            std::fs::write(&path, text).unwrap();
            let error = Database::open(Some(&path)).err().unwrap();
            assert!(error.cause == Cause::Usage && error.to_string().contains("x.json"), "{error}");
        }
    }
}
