//! The image that a test program runs in: a base if the component wants one, the sources where they lie on this
//! machine, and the program. The same parts make the same digest.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use flate2::{Compression, write::GzEncoder};
use kit::{Cause, Context, Error, Platform, Result, Ui, digest::Hashing, rundir};
use oci::{
    Client, Layout, Place, canonical, platform_json,
    spec::{Descriptor, MediaType},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{PROGRAM, START, USER};

/// Files of a component's sources; more are a mistake.
const FILES: usize = 200_000;
/// A config that is larger is none.
const CONFIG: u64 = 8 << 20;

/// A layer: what manifests and what configs call it.
struct Layer {
    descriptor: Descriptor,
    diff_id: String,
}

/// Makes the images of one component's packages.
pub(super) struct Images {
    layout: Layout,
    _folder: TempDir,
    sources: Layer,
    platform: Platform,
    target: String,
}

impl Images {
    /// Packs what all images share: the sources, and what starts the programs.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] or [`Cause::Usage`] naming the file.
    pub(super) fn new(
        sources: &Path,
        starter: &Path,
        platform: &Platform,
        repo: &str,
        component: &str,
    ) -> Result<Self> {
        let folder = tempfile::tempdir().cause(Cause::HostDisk, || "cannot create a temporary folder")?;
        let layout = Layout::create(folder.path().join("layout"))?;
        let sources = layer(&layout, |tar| {
            let mut files = Vec::new();
            collect(sources, &mut files).cause(Cause::Usage, || format!("cannot read {}", sources.display()))?;
            files.sort();
            if files.len() > FILES {
                return Err(Error::new(Cause::Usage, format!("{} holds more than {FILES} files", sources.display())));
            }
            for folder in sources.ancestors().collect::<Vec<_>>().into_iter().rev() {
                tar.folder(folder, if folder == sources { USER } else { 0 })?;
            }
            files.iter().try_for_each(|file| tar.add(file, file, None))?;
            tar.add(starter, Path::new(START), Some(0o755))
        })?;
        let target = format!("{}/unit-{component}", repo.trim_end_matches('/'));
        Ok(Self { layout, _folder: folder, sources, platform: platform.clone(), target })
    }

    /// Makes the image of a program and pushes it; returns its reference by digest.
    ///
    /// # Errors
    /// [`Cause::Registry`] and its like, naming what could not be pushed or pulled.
    pub(super) fn push(&self, program: &Path, base: Option<&str>, name: &str, ui: &Ui) -> Result<String> {
        let step = ui.step(format!("push the tests of {name}"));
        let program = layer(&self.layout, |tar| tar.add(program, Path::new(PROGRAM), Some(0o755)))?;
        let tag = rundir::slug(&name.replace('/', "-"));
        let target = oci::parse(&format!("{}:{}", self.target, tag.trim_start_matches(['-', '.'])))?;
        let digest = oci::run(async {
            let client = Client::new()?;
            let (config, layers) = match base {
                Some(base) => self.base(&client, base).await?,
                None => (platform_json(&self.platform), Vec::new()),
            };
            let image = self.manifest(config, layers, &program)?;
            oci::copy(&client, &self.layout, &image, &target).await
        })?;
        step.done("");
        Ok(oci::pinned(&target, &digest).whole())
    }

    /// Brings the base into the layout: its config and its layers.
    async fn base(&self, client: &Client, base: &str) -> Result<(Value, Vec<Value>)> {
        let place = Place::Registry(client.clone(), oci::parse(base)?);
        let (_, parts) = oci::parts(&place).await?;
        let serves = |part: &&oci::Part| {
            let (there, wanted) = (&part.platform, &self.platform);
            (&there.os, &there.arch) == (&wanted.os, &wanted.arch)
                && (wanted.variant.is_none() || there.variant == wanted.variant)
        };
        let part = parts.iter().find(serves).ok_or_else(|| {
            Error::new(
                Cause::ImageMissingPlatform,
                format!("{base} has no {}, and unit tests are to run in it", self.platform),
            )
        })?;
        let document = oci::pull(&place, &part.manifest, &self.layout).await?;
        let manifest: Value = document.parse()?;
        let digest = manifest["config"]["digest"].as_str().unwrap_or_default();
        let file = self.layout.folder().join("blobs").join(digest.replace(':', "/"));
        let config = rundir::read_limited(&file, CONFIG)?;
        let config =
            serde_json::from_slice(&config).cause(Cause::Registry, || format!("the config of {base} is no JSON"))?;
        Ok((config, manifest["layers"].as_array().cloned().unwrap_or_default()))
    }

    fn manifest(&self, mut config: Value, mut layers: Vec<Value>, program: &Layer) -> Result<Descriptor> {
        let mut diff_ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
        for layer in [&self.sources, program] {
            layers.push(serde_json::to_value(&layer.descriptor).cause(Cause::Internal, || "cannot write JSON")?);
            diff_ids.push(json!(layer.diff_id));
        }
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        // A history that does not fit the layers any more is worse than none.
        config.as_object_mut().map(|config| config.remove("history"));
        let config = self.layout.write(MediaType::ImageConfig, &canonical(&config)?)?;
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": layers,
        });
        self.layout.write(MediaType::ImageManifest, &canonical(&manifest)?)
    }
}

/// An archive under way.
struct Archive<W: Write>(tar::Builder<W>);

impl<W: Write> Archive<W> {
    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_mtime(0);
        // As where they are compiled, tests may write beside their sources.
        header.set_uid(USER);
        header.set_gid(USER);
        header
    }

    /// A path as archives have it: from the root, which is not named.
    fn inside(path: &Path) -> &Path {
        path.strip_prefix("/").unwrap_or(path)
    }

    fn folder(&mut self, path: &Path, owner: u64) -> Result<()> {
        let inside = Self::inside(path);
        if inside.as_os_str().is_empty() {
            return Ok(());
        }
        let mut header = Self::header(tar::EntryType::Directory, 0o755, 0);
        header.set_uid(owner);
        header.set_gid(owner);
        let added = self.0.append_data(&mut header, inside, std::io::empty());
        added.cause(Cause::HostDisk, || format!("cannot pack {}", path.display()))
    }

    /// A file, a folder or a symbolic link, under another path maybe.
    fn add(&mut self, file: &Path, path: &Path, mode: Option<u32>) -> Result<()> {
        let failed = || format!("cannot pack {}", file.display());
        let data = std::fs::symlink_metadata(file).cause(Cause::Usage, failed)?;
        if data.is_dir() {
            return self.folder(path, USER);
        }
        if data.is_symlink() {
            let target = std::fs::read_link(file).cause(Cause::Usage, failed)?;
            let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
            return self.0.append_link(&mut header, Self::inside(path), target).cause(Cause::HostDisk, failed);
        }
        let runs = std::os::unix::fs::PermissionsExt::mode(&data.permissions()) & 0o100 != 0;
        let mode = mode.unwrap_or(if runs { 0o755 } else { 0o644 });
        let mut header = Self::header(tar::EntryType::Regular, mode, data.len());
        let opened = std::fs::File::open(file).cause(Cause::Usage, failed)?;
        self.0.append_data(&mut header, Self::inside(path), opened).cause(Cause::HostDisk, failed)
    }
}

type Packed<'w> = Archive<Hashing<GzEncoder<&'w mut dyn Write>>>;

fn layer(layout: &Layout, pack: impl FnOnce(&mut Packed<'_>) -> Result<()>) -> Result<Layer> {
    let mut diff_id = String::new();
    let descriptor = layout.write_with(MediaType::ImageLayerGzip, |out| {
        let mut archive = Archive(tar::Builder::new(Hashing::new(GzEncoder::new(out, Compression::fast()))));
        pack(&mut archive)?;
        let failed = || "cannot pack a layer";
        let (gzip, digits, _) = archive.0.into_inner().cause(Cause::HostDisk, failed)?.finish();
        gzip.finish().cause(Cause::HostDisk, failed)?;
        diff_id = format!("sha256:{digits}");
        Ok(())
    })?;
    Ok(Layer { descriptor, diff_id })
}

/// All that lies below a folder, but for hidden folders: those hold what no test needs and what changes each time.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            files.push(entry.path());
            collect(&entry.path(), files)?;
        } else if (kind.is_file() || kind.is_symlink()) && files.len() <= FILES {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_parts_make_the_same_image_with_the_sources_where_they_lie() {
        let sources = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(sources.path().join("pkg/testdata")).unwrap();
        std::fs::create_dir_all(sources.path().join(".git")).unwrap();
        std::fs::write(sources.path().join("pkg/testdata/x.yaml"), "a: 1").unwrap();
        std::fs::write(sources.path().join(".git/HEAD"), "x").unwrap();
        std::os::unix::fs::symlink("x.yaml", sources.path().join("pkg/testdata/y.yaml")).unwrap();
        let platform = "linux/s390x".parse().unwrap();
        let make = || {
            let starter = sources.path().join("pkg/testdata/x.yaml");
            let images = Images::new(sources.path(), &starter, &platform, "r.example/x/", "own").unwrap();
            assert_eq!(images.target, "r.example/x/unit-own");
            let program = layer(&images.layout, |tar| {
                tar.add(&sources.path().join("pkg/testdata/x.yaml"), Path::new(PROGRAM), Some(0o755))
            });
            let image = images.manifest(platform_json(&platform), Vec::new(), &program.unwrap()).unwrap();
            let blob = |digest: &str| {
                std::fs::read(images.layout.folder().join("blobs").join(digest.replace(':', "/"))).unwrap()
            };
            let layer = blob(images.sources.descriptor.digest().as_ref());
            let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(&layer[..]));
            let entries = archive.entries().unwrap().map(Result::unwrap);
            let entries = entries.map(|entry| (entry.path().unwrap().into_owned(), entry.header().uid().unwrap()));
            let (names, owners): (Vec<_>, Vec<_>) = entries.unzip();
            // What leads to the sources is not the tests'.
            for (name, owner) in names.iter().zip(owners) {
                let within = Path::new("/").join(name).starts_with(sources.path()) || name.ends_with(&START[1..]);
                assert_eq!(owner, if within { USER } else { 0 }, "{}", name.display());
            }
            let manifest: Value = serde_json::from_slice(&blob(image.digest().as_ref())).unwrap();
            let config: Value = serde_json::from_slice(&blob(manifest["config"]["digest"].as_str().unwrap())).unwrap();
            assert!(names.contains(&PathBuf::from(START.trim_start_matches('/'))), "{names:?}");
            (image.digest().to_string(), names, config)
        };
        let ((digest, names, config), again) = (make(), make());
        assert_eq!(digest, again.0);
        let inside = sources.path().strip_prefix("/").unwrap();
        assert!(
            names.contains(&inside.join("pkg/testdata/x.yaml")) && names.contains(&inside.join("pkg/testdata/y.yaml"))
        );
        assert!(!names.iter().any(|name| name.to_string_lossy().contains(".git")), "{names:?}");
        assert_eq!(
            (config["architecture"].as_str(), config["rootfs"]["diff_ids"].as_array().unwrap().len()),
            (Some("s390x"), 2)
        );
    }
}
