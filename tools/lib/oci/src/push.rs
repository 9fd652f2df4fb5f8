//! Putting images with all that they contain into registries, from a layout or from another registry.

use std::collections::{BTreeMap, HashSet};

use futures::{StreamExt, TryStreamExt, stream};
use kit::{Cause, Error, Result, Within};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest};

use crate::{
    Client, Document, Layout, Place, Reference, Sent,
    body::file_chunks,
    client::{Chunks, skip},
    document::is_foreign,
    is_image, is_index, pinned,
    referrers::{refers, store_referrer},
};

/// Requests about one image at the same time. How many transfers there are over all is the client's affair.
const PARALLEL: usize = 8;
/// Indexes inside indexes, at most so deep.
const DEPTH: usize = 4;
/// Manifests of an index and those inside it.
const ENTRIES: usize = 1000;
/// All of them together are at most this large.
const TREE_LIMIT: usize = 64 << 20;

/// An index or a manifest with everything that it contains.
pub struct Tree {
    /// Itself.
    pub top: Document,
    /// What indexes name, by digest.
    children: BTreeMap<String, Document>,
    /// Indexes inside the index, each after those that name it.
    indexes: Vec<String>,
}

/// What is believed of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// What a manifest names that is there is there as well.
    Manifests,
    Nothing,
}

/// What a push came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Pushed {
    /// Blobs that were sent.
    pub sent: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Blobs that the registry took from another of its repositories.
    pub mounted: u64,
    /// Blobs that were there.
    pub there: u64,
}

impl std::ops::AddAssign for Pushed {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.bytes += other.bytes;
        self.mounted += other.mounted;
        self.there += other.there;
    }
}

impl Tree {
    /// Reads all manifests of an image.
    ///
    /// # Errors
    /// [`Cause::ImageMissingPlatform`] if an index names what is not there; [`Cause::Auth`] or [`Cause::Registry`].
    pub async fn read(place: &Place, top: Document) -> Result<Self> {
        let mut tree = Self { top, children: BTreeMap::new(), indexes: vec![] };
        let (mut level, mut size) = (below(&tree.top)?, 0);
        for _ in 0..DEPTH {
            level.retain(|entry| !tree.children.contains_key(&entry.digest().to_string()));
            if tree.children.len() + level.len() > ENTRIES {
                break;
            }
            let reads = stream::iter(&level).map(|entry| async move {
                let hole = || {
                    let what = format!("{place}: its index names {}, which is not there", entry.digest());
                    Error::new(Cause::ImageMissingPlatform, what)
                };
                place.child(entry).await?.ok_or_else(hole)
            });
            let documents: Vec<Document> = reads.buffered(PARALLEL).try_collect().await?;
            level.clear();
            for document in documents {
                level.extend(below(&document)?);
                size += document.bytes.len();
                if is_index(&document.media_type) {
                    tree.indexes.push(document.digest.clone());
                }
                tree.children.insert(document.digest.clone(), document);
            }
            if level.is_empty() {
                return Ok(tree);
            }
            if size > TREE_LIMIT {
                break;
            }
        }
        Err(Error::new(Cause::Registry, format!("{place}: its index is too large or too deep")))
    }

    /// Itself, and all manifests and indexes in it.
    pub fn documents(&self) -> impl Iterator<Item = &Document> {
        std::iter::once(&self.top).chain(self.children.values())
    }

    /// Configs and layers, each once, but those that no registry holds: layers that may not be distributed.
    ///
    /// # Errors
    /// [`Cause::Registry`] for a manifest that is none.
    pub fn blobs(&self) -> Result<Vec<Descriptor>> {
        blobs_of(self.documents())
    }

    /// Looks whether a repository has all its configs and layers, each with its size.
    ///
    /// # Errors
    /// [`Cause::Registry`] naming the one that is not there; [`Cause::Auth`].
    pub async fn check_blobs(&self, client: &Client, at: &Reference) -> Result<()> {
        let gone = |blob: &Descriptor, how: &str| Error::new(Cause::Registry, format!("{at}: {} {how}", blob.digest()));
        let blobs = self.blobs()?;
        let looks = stream::iter(&blobs).map(|blob| async move {
            match client.blob_size(at, blob.digest().as_ref()).await? {
                Some(size) if size == blob.size() => Ok(()),
                Some(size) => Err(gone(blob, &format!("has {size} bytes of {}", blob.size()))),
                None => Err(gone(blob, "is not there")),
            }
        });
        looks.buffer_unordered(PARALLEL).try_collect().await
    }

    /// Copies it from where it was read into a repository, but for the top.
    async fn push_below(&self, client: &Client, from: &Place, target: &Reference, trust: Trust) -> Result<Pushed> {
        let manifests = self.children.values().filter(|document| is_image(&document.media_type));
        let missing = stream::iter(manifests).map(|document| async move {
            let there =
                trust == Trust::Manifests && client.find_written(&pinned(target, &document.digest)).await?.is_some();
            Ok::<_, Error>((!there).then_some(document))
        });
        // A registry takes a manifest only when it has what the manifest names.
        let missing: Vec<_> = missing.buffered(PARALLEL).try_collect::<Vec<_>>().await?;
        let missing: Vec<&Document> = missing.into_iter().flatten().collect();
        let pushed = push_blobs(client, from, target, missing.iter().copied().chain([&self.top])).await?;
        let stores = stream::iter(missing).map(|document| store(client, target, document));
        stores.buffer_unordered(PARALLEL).try_collect::<()>().await?;
        for digest in self.indexes.iter().rev() {
            if let Some(index) = self.children.get(digest) {
                store(client, target, index).await?;
            }
        }
        Ok(pushed)
    }

    /// Copies it from where it was read into a repository, by digest.
    ///
    /// # Errors
    /// [`Cause::Auth`] or [`Cause::Registry`] naming what could not be pushed.
    pub async fn push(&self, client: &Client, from: &Place, target: &Reference) -> Result<Pushed> {
        let there = client.find_written(&pinned(target, &self.top.digest)).await?.is_some();
        // What is about another image may be there and not be listed.
        if there && !refers(&self.top)? {
            return Ok(Pushed::default());
        }
        let pushed = self.push_below(client, from, target, Trust::Manifests).await?;
        store(client, target, &self.top).await?;
        Ok(pushed)
    }
}

/// Copies an image of a layout with all that it contains to `target`: what is there already is not sent
/// again, and the tag is set last. Returns the digest.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] naming what could not be pushed.
pub async fn copy(client: &Client, layout: &Layout, image: &Descriptor, target: &Reference) -> Result<String> {
    let top = layout.manifest(image).await?;
    if client.find_written(target).await?.is_some_and(|there| there.digest == top.digest) {
        return Ok(top.digest);
    }
    write(client, layout, top, target, Trust::Manifests).await
}

/// As [`copy`], where something of the image is gone: each blob is looked at, and each manifest sent again.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] naming what could not be pushed.
pub async fn restore(client: &Client, layout: &Layout, image: &Descriptor, target: &Reference) -> Result<String> {
    write(client, layout, layout.manifest(image).await?, target, Trust::Nothing).await
}

async fn write(client: &Client, layout: &Layout, top: Document, target: &Reference, trust: Trust) -> Result<String> {
    let from = Place::Layout(layout.clone());
    let tree = Tree::read(&from, top).await?;
    tree.push_below(client, &from, target, trust).await?;
    client.push_manifest(target, &tree.top).await?;
    Ok(tree.top.digest)
}

/// What a document names that is a document as well.
fn below(document: &Document) -> Result<Vec<Descriptor>> {
    match document.media_type.as_str() {
        index if is_index(index) => Ok(document.parse::<ImageIndex>()?.manifests().clone()),
        image if is_image(image) => Ok(vec![]),
        other => Err(Error::new(Cause::Registry, format!("{} is a '{other}', which is no image", document.digest))),
    }
}

fn blobs_of<'a>(documents: impl Iterator<Item = &'a Document>) -> Result<Vec<Descriptor>> {
    let (mut seen, mut blobs) = (HashSet::new(), Vec::new());
    for document in documents.filter(|document| is_image(&document.media_type)) {
        let manifest: ImageManifest = document.parse()?;
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            if !is_foreign(blob) && seen.insert(blob.digest().to_string()) {
                blobs.push(blob.clone());
            }
        }
    }
    Ok(blobs)
}

async fn push_blobs<'a>(
    client: &Client,
    from: &Place,
    target: &Reference,
    documents: impl Iterator<Item = &'a Document>,
) -> Result<Pushed> {
    let blobs = blobs_of(documents)?;
    if let Place::Registry(_, source) = from {
        blobs.iter().for_each(|blob| client.know(source, blob.digest().as_ref()));
    }
    let pushes = stream::iter(&blobs).map(|blob| async move {
        let sent = client.push_blob(target, blob, async |offset| chunks(from, blob, offset).await).await?;
        let (sent, bytes, mounted, there) = match sent {
            Sent::Uploaded => (1, blob.size(), 0, 0),
            Sent::Mounted => (0, 0, 1, 0),
            Sent::There => (0, 0, 0, 1),
        };
        Ok::<_, Error>(Pushed { sent, bytes, mounted, there })
    });
    let add = |mut sum: Pushed, pushed: Pushed| {
        sum += pushed;
        futures::future::ready(Ok(sum))
    };
    pushes.buffer_unordered(PARALLEL).try_fold(Pushed::default(), add).await
}

async fn chunks(from: &Place, blob: &Descriptor, offset: u64) -> Result<Chunks> {
    let chunks = match from {
        Place::Registry(client, reference) => client.blob_from(reference, blob, offset).await,
        Place::Layout(layout) => file_chunks(&layout.path(blob)).await.map(|all| skip(all.boxed(), offset)),
    };
    chunks.within(|| from.to_string())
}

/// Stores a manifest by its digest; one that is about another so that it is found by that.
async fn store(client: &Client, target: &Reference, document: &Document) -> Result<()> {
    store_referrer(client, &pinned(target, &document.digest), document).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_image_nor_index_is_refused() {
        let other = Document::new(b"{}".to_vec(), "text/html");
        assert!(below(&other).unwrap_err().to_string().contains("'text/html'"));
    }
}
