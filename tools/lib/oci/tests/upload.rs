//! Uploads that break, are refused or come to a blob that is there; referrers with and without an API for them.

mod support;

use std::collections::BTreeMap;

use kit::Cause;
use oci::{ArtifactFile, Client, Layout, Reference, canonical, spec::Descriptor, spec::MediaType};
use serde_json::json;
use support::{Answer, Made, Registry, Trouble, index};

/// Larger than what goes in one request.
const SIZE: usize = 3 << 20;

/// A layout of one image with one layer of this size.
fn layout(folder: &std::path::Path, size: usize) -> (Layout, Descriptor, String) {
    let layout = Layout::create(folder).unwrap();
    let bytes: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
    let layer = layout.write(MediaType::ImageLayer, &bytes).unwrap();
    let config = layout.write(MediaType::ImageConfig, b"{}").unwrap();
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config, "layers": [layer] });
    let manifest = layout.write(MediaType::ImageManifest, &canonical(&manifest).unwrap()).unwrap();
    layout.finish(std::slice::from_ref(&manifest)).unwrap();
    (layout, manifest, layer.digest().to_string())
}

fn push(registry: &Registry, size: usize) -> kit::Result<String> {
    let folder = tempfile::tempdir().unwrap();
    let (layout, image, layer) = layout(folder.path(), size);
    let target = oci::parse(&format!("{}/a/b:v1", registry.host)).unwrap();
    oci::run(async { oci::copy(&Client::new()?, &layout, &image, &target).await })?;
    assert!(registry.received(&layer));
    Ok(layer)
}

#[test]
fn a_broken_upload_goes_on_where_it_broke() {
    let registry = Registry::start();
    registry.trouble("PATCH", 1, Trouble::Cut(2 << 20));
    push(&registry, SIZE).unwrap();
    // One for the config; the layer's was not opened again.
    assert_eq!((registry.requests("POST"), registry.requests("PATCH"), registry.requests("GET /upload")), (2, 2, 1));
}

#[test]
fn an_upload_that_the_registry_forgot_begins_again() {
    let registry = Registry::start();
    registry.able(|writes| writes.simple = true);
    registry.trouble("PATCH", 1, Trouble::Cut(2 << 20));
    push(&registry, SIZE).unwrap();
    assert_eq!((registry.requests("POST"), registry.requests("PATCH")), (3, 2));
}

#[test]
fn an_answer_that_got_lost_is_not_asked_for_again() {
    let registry = Registry::start();
    registry.trouble("PUT /upload", 2, Trouble::Silent);
    push(&registry, 100).unwrap();
    assert_eq!(registry.requests("PUT /upload"), 2);
}

#[test]
fn a_registry_that_is_busy_gets_time() {
    for (request, status, headers) in [
        ("POST", 429, "Retry-After: 0\r\n"),
        ("PATCH", 429, "Retry-After: 0\r\n"),
        ("PATCH", 500, ""),
        ("PUT /upload", 503, ""),
        ("PUT /v2/a/b/manifests/v1", 502, ""),
    ] {
        let registry = Registry::start();
        registry.trouble(request, 2, Trouble::Status(status, headers));
        push(&registry, SIZE).unwrap();
        assert!(registry.requests(request) >= 3, "{request} {status}");
    }
}

#[test]
fn a_registry_that_stays_out_of_order_is_given_up() {
    for request in ["POST", "PATCH", "PUT /upload"] {
        let registry = Registry::start();
        registry.trouble(request, 1000, Trouble::Status(500, ""));
        let error = push(&registry, SIZE).unwrap_err();
        assert_eq!(error.cause, Cause::Registry);
        assert!(error.to_string().contains(&registry.host) && error.to_string().contains("500"), "{error}");
        assert!(registry.requests(request) <= 12, "{request}: {}", registry.requests(request));
        assert_eq!(registry.tag("a/b", "v1"), None);
    }
}

#[test]
fn who_may_not_push_is_told() {
    for status in [401, 403] {
        for request in ["POST", "PATCH", "PUT /v2/a/b/manifests/"] {
            let registry = Registry::start();
            registry.trouble(request, 1000, Trouble::Status(status, ""));
            let error = push(&registry, SIZE).unwrap_err();
            assert_eq!(error.cause, Cause::Auth, "{request} {status}: {error}");
        }
    }
}

#[test]
fn what_a_registry_has_elsewhere_is_mounted() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let (layout, image, _) = layout(folder.path(), SIZE);
    oci::run(async {
        let client = Client::new()?;
        for repository in ["a", "b", "b"] {
            let target = oci::parse(&format!("{}/{repository}:v1", registry.host))?;
            oci::copy(&client, &layout, &image, &target).await?;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!((registry.mounts(), registry.requests("PATCH"), registry.requests("PUT /upload")), (2, 1, 2));
}

#[test]
fn a_mount_that_is_refused_is_an_upload() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let (layout, image, layer) = layout(folder.path(), SIZE);
    for (repository, status) in [("b", 401), ("c", 403), ("d", 404)] {
        registry.trouble(&format!("POST /v2/{repository}/"), 1, Trouble::Status(status, ""));
    }
    oci::run(async {
        let client = Client::new()?;
        for repository in ["a", "b", "c", "d"] {
            let target = oci::parse(&format!("{}/{repository}:v1", registry.host))?;
            oci::copy(&client, &layout, &image, &target).await?;
        }
        Ok(())
    })
    .unwrap();
    // Of two blobs each repository has one mounted.
    assert_eq!((registry.mounts(), registry.received(&layer)), (3, true));
}

#[test]
fn an_upload_that_was_spoilt_when_it_went_on_begins_again() {
    let registry = Registry::start();
    registry.able(|writes| writes.spoils = true);
    registry.trouble("PATCH", 1, Trouble::Cut(2 << 20));
    push(&registry, SIZE).unwrap();
    assert_eq!((registry.requests("POST"), registry.requests("PATCH")), (3, 3));
}

#[test]
fn a_layer_of_a_layout_that_was_changed_is_not_pushed() {
    for size in [100, SIZE] {
        let (registry, folder) = (Registry::start(), tempfile::tempdir().unwrap());
        let (layout, image, layer) = layout(folder.path(), size);
        std::fs::write(folder.path().join("blobs/sha256").join(&layer[7..]), vec![1; size]).unwrap();
        let target = oci::parse(&format!("{}/a:v1", registry.host)).unwrap();
        let error = oci::run(async { oci::copy(&Client::new()?, &layout, &image, &target).await }).unwrap_err();
        assert!(error.to_string().contains("has the digest"), "{error}");
        assert!(!registry.received(&layer) && registry.tag("a", "v1").is_none());
    }
}

#[test]
fn a_registry_that_stores_something_else_is_found_out() {
    let registry = Registry::start();
    let other = "Docker-Content-Digest: sha256:0000\r\n";
    registry.trouble("PUT /v2/a/b/manifests/v1", 1, Trouble::Status(201, other));
    let error = push(&registry, 100).unwrap_err();
    assert!(error.to_string().contains("stored sha256:0000 instead of"), "{error}");
}

#[test]
fn an_index_with_a_hole_is_not_copied() {
    let registry = Registry::start();
    let image = Made::new("arm64", "arm64").push(&registry, "x");
    index(&registry, "x", "v1", std::slice::from_ref(&image));
    registry.set(&format!("/v2/x/manifests/{}", image["digest"].as_str().unwrap()), Answer::Status(404, ""));
    let read = oci::run(async {
        let client = Client::new()?;
        let place = oci::Place::Registry(client, oci::parse(&format!("{}/x:v1", registry.host))?);
        oci::Tree::read(&place, place.top().await?).await.map(drop)
    });
    assert_eq!(read.unwrap_err().cause, Cause::ImageMissingPlatform);
}

#[test]
fn what_refers_to_an_image_is_found_with_and_without_an_api() {
    for api in [true, false] {
        let registry = Registry::start();
        registry.able(|writes| writes.lists_referrers = api);
        let image = Made::new("arm64", "arm64").push(&registry, "x");
        let subject = oci::parse(&format!("{}/x@{}", registry.host, image["digest"].as_str().unwrap())).unwrap();
        let descriptor: Descriptor = serde_json::from_value(image).unwrap();
        let file = ArtifactFile { media_type: "text/plain".into(), title: Some("key".into()), content: b"k1".to_vec() };
        let annotations = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        oci::run(async {
            let client = Client::new()?;
            assert_eq!(oci::referrers(&client, &subject, None).await?, []);
            let mut pushed = Vec::new();
            for kind in ["application/x", "application/y", "application/x"] {
                let files = std::slice::from_ref(&file);
                pushed.push(oci::push_referrer(&client, (&subject, &descriptor), kind, &annotations, files).await?);
            }
            assert_eq!(pushed[0], pushed[2], "api: {api}");
            assert_eq!(oci::referrers(&client, &subject, None).await?.len(), 2, "api: {api}");
            let found = oci::referrers(&client, &subject, Some("application/x")).await?;
            assert_eq!(
                found.iter().map(|one| one.digest().to_string()).collect::<Vec<_>>(),
                [pushed[0].digest().unwrap().to_owned()]
            );
            assert_eq!(found[0].annotations().as_ref().unwrap()["a"], "b");
            let (artifact, by_digest) = oci::find_artifact(&client, &pushed[1], "application/y").await?.unwrap();
            assert_eq!((by_digest, &artifact.files), (pushed[1].clone(), &vec![file.clone()]));
            assert_eq!(artifact.subject.unwrap().digest(), descriptor.digest());
            // One with a tag is found by its subject as well.
            let tagged = oci::parse(&format!("{}/x:key", registry.host))?;
            let z =
                oci::Artifact { subject: Some(descriptor.clone()), ..oci::Artifact::file("application/z", "k", b"z") };
            let stored = oci::store_artifact(&client, &tagged, &z).await?;
            assert_eq!(oci::find_artifact(&client, &tagged, "application/z").await?.unwrap().1, stored);
            assert_eq!(oci::referrers(&client, &subject, Some("application/z")).await?.len(), 1, "api: {api}");
            let nothing = oci::parse(&format!("{}/x:nothing", registry.host))?;
            assert!(oci::find_artifact(&client, &nothing, "application/y").await?.is_none());
            Ok(())
        })
        .unwrap();
        assert_eq!(registry.tags().iter().any(|tag| tag.starts_with("x:sha256-")), !api);
    }
}

#[test]
fn a_list_of_referrers_without_end_is_refused() {
    let registry = Registry::start();
    let subject = oci::parse(&format!("{}/x@sha256:{}", registry.host, "0".repeat(64))).unwrap();
    let next = "Link: <?n=1>; rel=\"next\"\r\nContent-Type: application/json\r\n";
    let page = format!("/v2/x/referrers/sha256:{}", "0".repeat(64));
    registry.set(&page, Answer::Headed(next, br#"{"schemaVersion":2,"manifests":[]}"#.to_vec()));
    let found = oci::run(async { oci::referrers(&Client::new()?, &subject, None).await });
    assert!(found.unwrap_err().to_string().contains("has no end"));
    let by_tag: Reference = oci::parse(&format!("{}/x:v1", registry.host)).unwrap();
    let found = oci::run(async { oci::referrers(&Client::new()?, &by_tag, None).await });
    assert_eq!(found.unwrap_err().cause, Cause::Usage);
}

#[test]
fn a_tag_goes_where_the_registry_allows_it() {
    let registry = Registry::start();
    Made::new("arm64", "arm64").push(&registry, "x");
    let reference = |tag: &str| oci::parse(&format!("{}/x{tag}", registry.host)).unwrap();
    let delete = |reference| oci::run(async { Client::new()?.delete_tag(&reference).await });
    assert!(!delete(reference(":plain")).unwrap());
    registry.able(|writes| writes.deletes = true);
    assert!(delete(reference(":plain")).unwrap() && registry.tag("x", "plain").is_none());
    assert!(delete(reference(":plain")).unwrap());
    // By digest all tags would go.
    assert_eq!(delete(reference(&format!("@sha256:{}", "0".repeat(64)))).unwrap_err().cause, Cause::Internal);
    registry.trouble("DELETE", 10, Trouble::Status(500, ""));
    assert_eq!(delete(reference(":plain")).unwrap_err().cause, Cause::Registry);
}
