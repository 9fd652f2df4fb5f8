//! An image with one static program in it, as an OCI layout in a tar: the same bytes for the same program.

use std::{collections::BTreeMap, fs, path::Path};

use kit::{Arch, Cause, Context, Result};
use serde_json::{Value, json};

/// Makes the image `name` (with tag) of `program` for `arch`, as `lab load` takes it.
///
/// # Errors
/// If the program cannot be read.
pub fn archive(name: &str, program: &Path, arch: &Arch) -> Result<Vec<u8>> {
    let bytes = fs::read(program).cause(Cause::HostDisk, || format!("cannot read {}", program.display()))?;
    let file = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    build(name, &file, &bytes, arch).cause(Cause::Internal, || format!("cannot make image {name}"))
}

fn build(name: &str, file: &str, program: &[u8], arch: &Arch) -> std::io::Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    append(&mut layer, file, program, 0o755)?;
    let layer = layer.into_inner()?;
    let config = serde_json::to_vec(&json!({
        "architecture": arch.go,
        "os": "linux",
        "config": {"Entrypoint": [format!("/{file}")], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [kit::digest::sha256(&layer)]},
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    // containerd reads the name from the first, everybody else the tag from the second.
    let tag = name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    entry["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
    entry["platform"] = json!({"os": "linux", "architecture": arch.go});
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;
    let mut files = BTreeMap::from([
        ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".to_owned(), index),
    ]);
    for blob in [layer, config, manifest] {
        files.insert(format!("blobs/sha256/{}", kit::digest::hex(&blob)), blob);
    }
    let mut archive = tar::Builder::new(Vec::new());
    for (path, bytes) in files {
        append(&mut archive, &path, &bytes, 0o644)?;
    }
    archive.into_inner()
}

fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": kind, "digest": kit::digest::sha256(bytes), "size": bytes.len()})
}

/// Owner, times and order are fixed: nothing of this machine gets into the image.
fn append(archive: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_same_each_time_and_names_its_architecture() {
        let arch = Arch::find("s390x").unwrap();
        let image = build("x.lab/p:1", "p", b"program", arch).unwrap();
        assert_eq!(image, build("x.lab/p:1", "p", b"program", arch).unwrap());
        let text = String::from_utf8_lossy(&image);
        assert!(text.contains(r#""architecture":"s390x""#));
        assert!(text.contains(r#""io.containerd.image.name":"x.lab/p:1""#));
    }
}
