//! An OCI image layout on disk (image-spec, image-layout.md).

use std::path::{Path, PathBuf};

use kit::{Cause, Context, Error, Result, rundir};
use oci_spec::image::{Descriptor, ImageIndex, MediaType, OciLayout};

use crate::{
    Reference,
    body::{Body, file_chunks},
    canonical, descriptor,
    document::{Document, MANIFEST_LIMIT},
};

/// The annotation that names an image of a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A layout's folder.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: PathBuf,
}

impl Layout {
    /// An empty layout in `folder`, which is created.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if it cannot be written.
    pub fn create(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let marker = serde_json::json!({ "imageLayoutVersion": "1.0.0" });
        rundir::write(&folder.join("oci-layout"), &canonical(&marker)?)?;
        Ok(Self { folder })
    }

    /// The layout in `folder`.
    ///
    /// # Errors
    /// [`Cause::Usage`] if there is none.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        OciLayout::from_file(folder.join("oci-layout"))
            .cause(Cause::Usage, || format!("{} is no OCI layout", folder.display()))?;
        Ok(Self { folder })
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Stores a blob.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if it cannot be written.
    pub fn write(&self, media_type: MediaType, bytes: &[u8]) -> Result<Descriptor> {
        let descriptor = descriptor(media_type, bytes)?;
        rundir::write(&self.path(&descriptor), bytes)?;
        Ok(descriptor)
    }

    /// Writes `index.json`, which makes these images the layout's.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if it cannot be written.
    pub fn finish(&self, images: &[Descriptor]) -> Result<()> {
        let index = serde_json::json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageIndex,
            "manifests": images,
        });
        rundir::write(&self.folder.join("index.json"), &canonical(&index)?).map(drop)
    }

    /// The descriptor of the only image, or of the one called as the reference's tag or digest.
    ///
    /// # Errors
    /// [`Cause::Usage`] if there is no such image.
    pub fn find(&self, reference: Option<&Reference>) -> Result<Descriptor> {
        let path = self.folder.join("index.json");
        let bytes = rundir::read_limited(&path, MANIFEST_LIMIT)?;
        let index: ImageIndex =
            serde_json::from_slice(&bytes).cause(Cause::Usage, || format!("{} is no index", path.display()))?;
        let named = |descriptor: &&Descriptor| {
            let name = descriptor.annotations().as_ref().and_then(|all| all.get(REF_NAME));
            reference.is_some_and(|wanted| {
                Some(descriptor.digest().to_string().as_str()) == wanted.digest()
                    || name.map(String::as_str) == wanted.tag()
            })
        };
        let found = match index.manifests().as_slice() {
            [only] => Some(only),
            several => several.iter().find(named),
        };
        found.cloned().ok_or_else(|| {
            Error::new(Cause::Usage, format!("{} does not say which of its images is meant", self.folder.display()))
        })
    }

    /// A manifest or an index, at most 4 MiB, its digest checked.
    pub(crate) async fn manifest(&self, descriptor: &Descriptor) -> Result<Document> {
        let bytes = self.blob(descriptor).await?.bytes(MANIFEST_LIMIT).await?;
        Ok(Document::new(bytes, descriptor.media_type().as_ref()))
    }

    pub(crate) async fn blob(&self, descriptor: &Descriptor) -> Result<Body> {
        let path = self.path(descriptor);
        let chunks = file_chunks(&path).await?;
        Ok(Body::new(format!("{}", path.display()), descriptor, chunks))
    }

    /// Where a blob lies.
    #[must_use]
    pub fn path(&self, descriptor: &Descriptor) -> PathBuf {
        // Both parts were checked when the descriptor was read: names of algorithms and hexadecimal digits.
        let digest = descriptor.digest();
        self.folder.join("blobs").join(digest.algorithm().as_ref()).join(digest.digest())
    }
}
