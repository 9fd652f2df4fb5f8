//! Where an image is read from: a registry's repository, or a layout on disk.

use kit::{Result, Within};
use oci_spec::image::Descriptor;

use crate::{Client, Document, Layout, Reference, body::Body, fetch::Want, pinned};

/// A repository or a layout.
#[derive(Clone)]
pub enum Place {
    /// A repository of a registry.
    Registry(Client, Reference),
    /// A folder.
    Layout(Layout),
}

impl Place {
    /// The image itself: of a registry the one that the reference names, of a layout the only one, or the one
    /// that [`Layout::images`] chose.
    ///
    /// # Errors
    /// [`kit::Cause::Auth`] or [`kit::Cause::Registry`] with the reference.
    pub async fn top(&self) -> Result<Document> {
        match self {
            Self::Registry(client, reference) => client.manifest(reference).await,
            Self::Layout(layout) => layout.top().await,
        }
    }

    /// A manifest that an index names; nothing if the registry does not have it.
    pub(crate) async fn child(&self, descriptor: &Descriptor) -> Result<Option<Document>> {
        match self {
            Self::Registry(client, reference) => {
                client.find_manifest(&pinned(reference, descriptor.digest().as_ref())).await
            }
            Self::Layout(layout) if !layout.path(descriptor).is_file() => Ok(None),
            Self::Layout(layout) => layout.manifest(descriptor).await.map(Some),
        }
    }

    pub(crate) async fn blob(&self, descriptor: &Descriptor) -> Result<Body> {
        self.lazy_blob(descriptor, Want::All).await
    }

    /// The last bytes of a blob, unchecked; nothing where they cannot be had without the others.
    pub(crate) async fn tail(&self, descriptor: &Descriptor, count: u64) -> Result<Option<Vec<u8>>> {
        let Some(first) = descriptor.size().checked_sub(count) else { return Ok(None) };
        match self {
            Self::Registry(client, reference) => {
                client.blob_part(reference, descriptor.digest().as_ref(), first, count).await
            }
            Self::Layout(layout) => {
                use std::io::{Read, Seek, SeekFrom};
                let mut bytes = Vec::new();
                let read = std::fs::File::open(layout.path(descriptor)).and_then(|mut file| {
                    file.seek(SeekFrom::Start(first))?;
                    file.take(count).read_to_end(&mut bytes)
                });
                Ok(read.is_ok_and(|read| read as u64 == count).then_some(bytes))
            }
        }
        .within(|| self.to_string())
    }

    /// A blob of which the beginning may be enough.
    pub(crate) async fn lazy_blob(&self, descriptor: &Descriptor, want: Want) -> Result<Body> {
        match self {
            Self::Registry(client, reference) => Ok(client.lazy_blob(reference, descriptor, want)),
            Self::Layout(layout) => layout.blob(descriptor).await,
        }
        .within(|| self.to_string())
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(_, reference) => reference.fmt(f),
            Self::Layout(layout) => layout.folder().display().fmt(f),
        }
    }
}
