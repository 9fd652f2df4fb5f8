//! A layout in one file, as container engines import it: for names that only a node's own store can answer.

use std::{fs, path::Path};

use kit::{Cause, Context, Error, Result, rundir};
use oci_spec::image::{Descriptor, MediaType};

use crate::{Layout, canonical};

/// What containerd calls an imported image by.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// Writes the layout's only image into `file`, to be imported under `name`. A name with another digest than the
/// image's is possible: whoever imports it says with that what the image stands in for.
///
/// # Errors
/// [`Cause::Usage`] if the layout holds several images, [`Cause::HostDisk`] if it cannot be read or the file not
/// be written.
pub fn archive(layout: &Layout, name: &str, file: &Path) -> Result<()> {
    let mut image: Descriptor = layout.find(None)?;
    image.set_annotations(Some([(IMAGE_NAME.to_owned(), name.to_owned())].into()));
    let index = serde_json::json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": [image] });
    let mut archive = tar::Builder::new(Vec::new());
    let marker = layout.folder().join("oci-layout");
    append(&mut archive, "oci-layout", &read(&marker)?)?;
    append(&mut archive, "index.json", &canonical(&index)?)?;
    let blobs = layout.folder().join("blobs/sha256");
    let entries = fs::read_dir(&blobs).cause(Cause::HostDisk, || format!("cannot read {}", blobs.display()))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    // The same file for the same image.
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        append(&mut archive, &format!("blobs/sha256/{name}"), &read(&path)?)?;
    }
    let bytes = archive.into_inner().cause(Cause::Internal, || "cannot make an archive")?;
    rundir::write(file, &bytes).map(drop)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path)
        .map_err(|error| Error::from_source(Cause::HostDisk, format!("cannot read {}", path.display()), error))
}

fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, path, bytes).cause(Cause::Internal, || format!("cannot add {path} to an archive"))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use super::*;

    #[test]
    fn an_archive_holds_the_image_under_the_name_that_it_is_to_have() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path().join("layout")).unwrap();
        let image = layout.write(MediaType::ImageManifest, b"{}").unwrap();
        layout.finish(std::slice::from_ref(&image)).unwrap();
        let (name, file) = ("x.y/a@sha256:0", folder.path().join("out/a.tar"));
        archive(&layout, name, &file).unwrap();
        let first = fs::read(&file).unwrap();
        archive(&layout, name, &file).unwrap();
        assert_eq!(first, fs::read(&file).unwrap());
        let mut found = BTreeMap::new();
        for entry in tar::Archive::new(&first[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let (path, mut text) = (entry.path().unwrap().display().to_string(), String::new());
            entry.read_to_string(&mut text).unwrap();
            found.insert(path, text);
        }
        let index: serde_json::Value = serde_json::from_str(&found["index.json"]).unwrap();
        assert_eq!(index["manifests"][0]["annotations"][IMAGE_NAME], name);
        assert_eq!(index["manifests"][0]["digest"], image.digest().to_string());
        assert_eq!(found[&format!("blobs/sha256/{}", image.digest().digest())], "{}");
        assert!(found.contains_key("oci-layout"));
        layout.finish(&[image.clone(), image]).unwrap();
        assert_eq!(archive(&layout, name, &file).unwrap_err().cause, Cause::Usage);
    }
}
