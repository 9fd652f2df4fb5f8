//! Layouts on disk: which images they hold, and what is wrong with them.

use kit::{Cause, Platform};
use oci::{Checked, Layout, Place, spec::MediaType};
use serde_json::{Value, json};

mod support;

use support::{File, elf, gzip, layer};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// A layout with plain images for these architectures, each with this name.
fn layout(folder: &std::path::Path, images: &[(&str, Option<&str>)]) -> Layout {
    let images: Vec<_> = images
        .iter()
        .map(|(arch, name)| (*arch, *name, gzip(&layer(&[("app/x", File::Content(&elf(arch)))]))))
        .collect();
    layout_of(folder, &images)
}

/// The same with these layers.
fn layout_of(folder: &std::path::Path, images: &[(&str, Option<&str>, Vec<u8>)]) -> Layout {
    let layout = Layout::create(folder).unwrap();
    let descriptors: Vec<_> = images
        .iter()
        .map(|(arch, name, layer)| {
            let layer = layout.write(MediaType::ImageLayerGzip, layer).unwrap();
            let settings = json!({ "Entrypoint": ["/app/x"] });
            let config = json!({ "os": "linux", "architecture": arch, "config": settings, "rootfs": { "type": "layers", "diff_ids": [] } });
            let config = layout.write(MediaType::ImageConfig, &serde_json::to_vec(&config).unwrap()).unwrap();
            let manifest = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": [layer] });
            let manifest = layout.write(MediaType::ImageManifest, &serde_json::to_vec(&manifest).unwrap()).unwrap();
            let mut value = serde_json::to_value(manifest).unwrap();
            value["platform"] = json!({ "os": "linux", "architecture": arch });
            if let Some(name) = name {
                value["annotations"] = json!({ REF_NAME: name });
            }
            serde_json::from_value(value).unwrap()
        })
        .collect();
    layout.finish(&descriptors).unwrap();
    layout
}

fn verify(layout: &Layout, arches: &[&str]) -> Checked {
    let platforms: Vec<Platform> = arches.iter().map(|arch| format!("linux/{arch}").parse().unwrap()).collect();
    oci::run(async { Ok(oci::verify(&Place::Layout(layout.clone()), &platforms).await) }).unwrap()
}

fn good(checked: &Checked) -> bool {
    checked.rows.iter().all(|row| row.problem.is_none())
}

#[test]
fn large_layers_of_a_layout_are_read_to_their_end() {
    let mut state = 1_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    // What does not get smaller, with the program's header before it a whole number of blocks.
    let noise: Vec<u8> = std::iter::repeat_with(&mut next).take((5 << 20) - 64).collect();
    let entry = |arch| {
        let program = [elf(arch), noise.clone()].concat();
        layer(&[("app/x", File::Content(&program))])[..512 + (5 << 20)].to_vec()
    };
    // Two streams of gzip are one archive; at the end stands the size of the second.
    let streams = [gzip(&entry("s390x")), gzip(&[entry("amd64"), vec![0; 1024]].concat())].concat();
    let folder = tempfile::tempdir().unwrap();
    let twice = layout_of(folder.path(), &[("s390x", None, streams)]);
    let checked = verify(&twice.images().unwrap()[0].1, &["s390x"]);
    assert!(checked.rows[0].problem.as_ref().unwrap().contains("/app/x is a program for amd64"), "{checked:?}");
}

#[test]
fn images_with_names_are_told_apart_and_platforms_without_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let named = layout(&folder.path().join("named"), &[("amd64", Some("a")), ("s390x", Some("b"))]);
    let images = named.images().unwrap();
    assert_eq!(images.iter().map(|(name, _)| name.as_deref().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    assert!(good(&verify(&images[0].1, &["amd64"])) && good(&verify(&images[1].1, &["s390x"])));
    assert!(!good(&verify(&images[0].1, &["s390x"])));
    // Without a choice it cannot be told which is meant.
    assert_eq!(verify(&named, &["amd64"]).rows[0].cause, Some(Cause::Usage));
    let platforms = layout(&folder.path().join("platforms"), &[("amd64", None), ("s390x", None)]);
    let images = platforms.images().unwrap();
    let [(None, one)] = &images[..] else { panic!("{images:?}") };
    assert!(good(&verify(one, &["amd64", "s390x"])));
    let only = layout(&folder.path().join("only"), &[("arm64", None)]);
    assert!(good(&verify(&only.images().unwrap()[0].1, &["arm64"])) && good(&verify(&only, &["arm64"])));
}

#[test]
fn damage_is_found_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let made = layout(path, &[("amd64", None)]);
    let index: Value = serde_json::from_slice(&std::fs::read(path.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap().to_owned();
    let manifest = path.join("blobs/sha256").join(digest);
    let bytes = std::fs::read(&manifest).unwrap();
    let layer = serde_json::from_slice::<Value>(&bytes).unwrap()["layers"][0]["digest"].as_str().unwrap().to_owned();
    let layer = path.join("blobs").join(layer.replace(':', "/"));
    let whole = std::fs::read(&layer).unwrap();
    for (file, content, said) in [
        (&layer, &whole[..20], "bytes instead of"),
        (&manifest, &b"{}"[..], "bytes instead of"),
        (&manifest, &bytes, ""),
    ] {
        std::fs::write(file, content).unwrap();
        let problem = verify(&made, &["amd64"]).rows[0].problem.clone().unwrap_or_default();
        assert!(problem.contains(said) && !problem.is_empty(), "{problem}");
    }
    std::fs::remove_file(&layer).unwrap();
    let row = verify(&made, &["amd64"]).rows.remove(0);
    assert!(row.problem.unwrap().contains(layer.to_str().unwrap()), "the layer is named");
    std::fs::remove_file(&manifest).unwrap();
    let row = verify(&made, &["amd64"]).rows.remove(0);
    assert!(row.problem.unwrap().contains(manifest.to_str().unwrap()), "the manifest is named");
}

#[test]
fn what_is_no_layout_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |what: &str| Layout::open(folder.path()).and_then(|layout| layout.images()).expect_err(what);
    let marker = folder.path().join("oci-layout");
    assert!(open("an empty folder").to_string().contains("is no OCI layout"));
    std::fs::create_dir(&marker).unwrap();
    assert!(open("a folder for a file").to_string().contains("is no OCI layout"));
    std::fs::remove_dir(&marker).unwrap();
    std::fs::write(&marker, vec![b' '; 1 << 20]).unwrap();
    assert!(open("a large file").to_string().contains("larger than"));
    std::fs::write(&marker, "{\"imageLayoutVersion\":\"1.0.0\"}").unwrap();
    assert!(open("no index").to_string().contains("index.json"));
    for (index, said) in [("{", "is no index"), ("{\"schemaVersion\":2,\"manifests\":[]}", "holds no image")] {
        std::fs::write(folder.path().join("index.json"), index).unwrap();
        let error = open(said);
        assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{error}");
    }
}
