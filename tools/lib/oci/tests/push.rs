//! Pushing from a layout, and artifacts.

mod support;

use kit::Cause;
use oci::{ARTIFACT_TYPE_RELEASE, Client, Layout, Place, canonical, spec::MediaType};
use serde_json::json;
use support::{File, Registry, elf, gzip, layer};

fn layout(folder: &std::path::Path) -> Layout {
    let layout = Layout::create(folder).unwrap();
    let layer = layout.write(MediaType::ImageLayerGzip, &gzip(&layer(&[("x", File::Content(&elf("arm64")))]))).unwrap();
    let config = json!({ "os": "linux", "architecture": "arm64", "config": { "Entrypoint": ["/x"] }, "rootfs": { "type": "layers", "diff_ids": [] } });
    let config = layout.write(MediaType::ImageConfig, &canonical(&config).unwrap()).unwrap();
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": [layer] });
    let manifest = layout.write(MediaType::ImageManifest, &canonical(&manifest).unwrap()).unwrap();
    let index = json!({ "schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": [manifest] });
    let index = layout.write(MediaType::ImageIndex, &canonical(&index).unwrap()).unwrap();
    layout.finish(&[index]).unwrap();
    layout
}

#[test]
fn a_layout_is_verified_and_pushed_and_sent_only_once() {
    let folder = tempfile::tempdir().unwrap();
    let layout = layout(folder.path());
    let registry = Registry::start();
    let target = oci::parse(&format!("{}/a/b:v1", registry.host)).unwrap();
    let image = layout.find(None).unwrap();
    oci::run(async {
        let checked = oci::verify(&Place::Layout(layout.clone()), &["linux/arm64".parse()?]).await;
        assert_eq!(checked.problems().count(), 0, "{checked:?}");
        let client = Client::new()?;
        let digest = oci::copy(&client, &layout, &image, &target).await?;
        assert_eq!(digest, image.digest().to_string());
        oci::copy(&client, &layout, &image, &target).await
    })
    .unwrap();
    assert_eq!(registry.requests("PUT /v2/a/b/manifests/"), 2);
    assert_eq!(registry.requests("PUT /upload"), 2);
    assert_eq!(registry.requests("PUT /v2/a/b/manifests/v1"), 1);
}

#[test]
fn a_blob_of_a_layout_that_was_changed_is_not_pushed() {
    let folder = tempfile::tempdir().unwrap();
    let layout = layout(folder.path());
    let image = layout.find(None).unwrap();
    std::fs::write(layout.path(&image), "{}").unwrap();
    let registry = Registry::start();
    let target = oci::parse(&format!("{}/a:v1", registry.host)).unwrap();
    let error = oci::run(async { oci::copy(&Client::new()?, &layout, &image, &target).await }).unwrap_err();
    assert_eq!(error.cause, Cause::Registry);
    assert_eq!(registry.requests("PUT"), 0);
}

#[test]
fn an_artifact_comes_back_as_it_was() {
    let registry = Registry::start();
    let target = oci::parse(&format!("{}/release/x:v1", registry.host)).unwrap();
    let (text, artifact) = oci::run(async {
        let client = Client::new()?;
        let pushed = oci::push_artifact(&client, &target, ARTIFACT_TYPE_RELEASE, "release.yaml", b"kind: A\n").await?;
        let (text, artifact) = oci::pull_artifact(&client, &target, ARTIFACT_TYPE_RELEASE).await?;
        assert_eq!(artifact, pushed);
        Ok((text, artifact))
    })
    .unwrap();
    assert_eq!(text, b"kind: A\n");
    assert!(artifact.digest().is_some() && registry.received(&kit::digest::sha256(b"kind: A\n")));
    let other = oci::run(async { oci::pull_artifact(&Client::new()?, &target, "application/x").await });
    assert_eq!(other.unwrap_err().cause, Cause::Usage);
}

#[test]
fn a_registry_that_refuses_is_named() {
    let target = oci::parse("127.0.0.1:1/x:v1").unwrap();
    let pushed =
        oci::run(async { oci::push_artifact(&Client::new()?, &target, ARTIFACT_TYPE_RELEASE, "r", b"x").await });
    let error = pushed.unwrap_err();
    assert_eq!(error.cause, Cause::Registry);
    assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
}
