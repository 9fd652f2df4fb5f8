//! An OCI image layout on disk (image-spec, image-layout.md).

use std::{
    fs,
    io::{BufWriter, IntoInnerError, Write},
    path::{Path, PathBuf},
};

use kit::{Cause, Context, Error, Result, Within, digest::Hashing, rundir};
use oci_spec::image::{Descriptor, ImageIndex, MediaType, OciLayout, Sha256Digest};

use crate::{
    Reference,
    body::{Body, file_chunks},
    canonical, descriptor,
    document::{Document, MANIFEST_LIMIT, is_image},
};

/// The annotation that names an image of a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A layout's folder, and which of its images is meant.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: PathBuf,
    chosen: Option<Chosen>,
}

#[derive(Debug, Clone)]
enum Chosen {
    Image(Box<Descriptor>),
    /// `index.json` itself.
    Index,
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
        Ok(Self { folder, chosen: None })
    }

    /// The layout in `folder`.
    ///
    /// # Errors
    /// [`Cause::Usage`] if there is none.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        let no_layout = || format!("{} is no OCI layout", folder.display());
        let marker = rundir::read_limited(&folder.join("oci-layout"), 4096).within(no_layout)?;
        serde_json::from_slice::<OciLayout>(&marker).cause(Cause::Usage, no_layout)?;
        Ok(Self { folder, chosen: None })
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

    /// Stores a blob that `work` writes piece by piece, of any size. Nothing is stored when the work fails.
    ///
    /// # Errors
    /// What the work returns, or [`Cause::HostDisk`] if it cannot be written.
    pub fn write_with(
        &self,
        media_type: MediaType,
        work: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<Descriptor> {
        let folder = self.folder.join("blobs/sha256");
        let failed = || format!("cannot write to {}", folder.display());
        // Not the layout's own folder: if that is gone, it is to stay so.
        for name in ["blobs", "blobs/sha256"] {
            match fs::create_dir(self.folder.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                    return Err(error).cause(Cause::HostDisk, failed);
                }
                _ => {}
            }
        }
        let file = tempfile::Builder::new().prefix(".new-").tempfile_in(&folder).cause(Cause::HostDisk, failed)?;
        let mut writer = Hashing::new(BufWriter::new(file));
        work(&mut writer)?;
        let (buffered, digits, size) = writer.finish();
        let file = buffered.into_inner().map_err(IntoInnerError::into_error).cause(Cause::HostDisk, failed)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(mode).cause(Cause::HostDisk, failed)?;
        file.persist(folder.join(&digits)).cause(Cause::HostDisk, failed)?;
        let digest: Sha256Digest = digits.parse().cause(Cause::Internal, || "a digest that is none")?;
        Ok(Descriptor::new(media_type, size, digest))
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
        let index = self.index()?.1;
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

    /// Each of the layout's images with its name, if it has one, and the layout with this one chosen. Plain images
    /// of several platforms that no name tells apart are one image, whose index is `index.json`.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it holds none, or cannot be read.
    pub fn images(&self) -> Result<Vec<(Option<String>, Self)>> {
        let index = self.index()?.1;
        let chosen = |chosen| Self { folder: self.folder.clone(), chosen: Some(chosen) };
        let name = |image: &Descriptor| image.annotations().as_ref().and_then(|all| all.get(REF_NAME).cloned());
        let images = index.manifests();
        let first = images
            .first()
            .ok_or_else(|| Error::new(Cause::Usage, format!("{} holds no image", self.folder.display())))?;
        let parts = images.iter().all(|image| {
            name(image) == name(first) && is_image(image.media_type().as_ref()) && image.platform().is_some()
        });
        if images.len() > 1 && parts {
            return Ok(vec![(name(first), chosen(Chosen::Index))]);
        }
        Ok(images.iter().map(|image| (name(image), self.choose(image))).collect())
    }

    /// The layout with this image of it chosen.
    #[must_use]
    pub fn choose(&self, image: &Descriptor) -> Self {
        Self { folder: self.folder.clone(), chosen: Some(Chosen::Image(Box::new(image.clone()))) }
    }

    /// The image that was chosen, or the only one.
    pub(crate) async fn top(&self) -> Result<Document> {
        match &self.chosen {
            Some(Chosen::Index) => Ok(Document::new(self.index()?.0, MediaType::ImageIndex.as_ref())),
            Some(Chosen::Image(image)) => self.manifest(image).await,
            None => self.manifest(&self.find(None)?).await,
        }
    }

    fn index(&self) -> Result<(Vec<u8>, ImageIndex)> {
        let path = self.folder.join("index.json");
        let bytes = rundir::read_limited(&path, MANIFEST_LIMIT)?;
        let index = serde_json::from_slice(&bytes).cause(Cause::Usage, || format!("{} is no index", path.display()))?;
        Ok((bytes, index))
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
