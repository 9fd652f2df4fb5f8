//! Images that are not what they say, and registries that do not do what they should.

mod support;

use kit::{Cause, Platform, record::Unseen};
use oci::{Checked, Client, Place};
use serde_json::json;
use support::{Answer, DOCKER_LIST, DOCKER_MANIFEST, File, Made, OCI_MANIFEST, Registry, elf, gzip, index, layer, pe};

const ALL: &[&str] = &["amd64", "arm64", "s390x", "ppc64le"];

fn platforms(arches: &[&str]) -> Vec<Platform> {
    arches.iter().map(|arch| format!("linux/{arch}").parse().unwrap()).collect()
}

fn verify(registry: &Registry, name: &str, arches: &[&str]) -> Checked {
    let reference = oci::parse(&format!("{}/{name}", registry.host)).unwrap();
    oci::run(async { Ok(oci::verify(&Place::Registry(Client::new()?, reference), &platforms(arches)).await) }).unwrap()
}

/// The causes, `None` where all is good.
fn causes(checked: &Checked) -> Vec<Option<Cause>> {
    checked.rows.iter().map(|row| row.cause).collect()
}

#[test]
fn a_good_image_is_good_and_attestations_do_not_count() {
    let registry = Registry::start();
    let mut manifests: Vec<_> = ALL.iter().map(|arch| Made::new(arch, arch).push(&registry, "good")).collect();
    manifests[1]["platform"]["variant"] = json!("v8");
    let mut attestation = manifests[0].clone();
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({ "vnd.docker.reference.type": "attestation-manifest" });
    manifests.insert(0, attestation);
    let digest = index(&registry, "good", "v1", &manifests)["digest"].clone();
    let checked = verify(&registry, "good:v1", ALL);
    assert_eq!(causes(&checked), [None; 4], "{checked:?}");
    assert_eq!(json!(checked.digest.unwrap()), digest);
    let row = &checked.rows[2];
    assert_eq!((row.program.as_ref().unwrap().machine.as_str(), row.user.as_deref()), ("s390x", Some("65532")));
    assert!(row.size > 100 && row.manifest.is_some());
}

#[test]
fn a_hole_and_a_lying_index_are_named() {
    let registry = Registry::start();
    let amd64 = Made::new("amd64", "amd64").push(&registry, "hole");
    let mut gone = amd64.clone();
    gone["platform"]["architecture"] = json!("arm64");
    gone["digest"] = json!(kit::digest::sha256(b"gone"));
    let mut lying = amd64.clone();
    lying["platform"]["architecture"] = json!("s390x");
    index(&registry, "hole", "v1", &[amd64, gone, lying]);
    let checked = verify(&registry, "hole:v1", ALL);
    let wanted =
        [None, Some(Cause::ImageMissingPlatform), Some(Cause::ImageWrongArch), Some(Cause::ImageMissingPlatform)];
    assert_eq!(causes(&checked), wanted, "{checked:?}");
    let said = checked.rows[3].problem.clone().unwrap();
    assert!(said.contains("no linux/ppc64le; it offers linux/amd64, linux/arm64, linux/s390x"), "{said}");
}

#[test]
fn programs_are_read_and_not_believed() {
    let registry = Registry::start();
    let manifests = [
        Made::new("arm64", "amd64").push(&registry, "lie"),
        // The same machine in the other byte order.
        Made::new("ppc64le", "ppc64").push(&registry, "lie"),
    ];
    index(&registry, "lie", "v1", &manifests);
    let checked = verify(&registry, "lie:v1", &["arm64", "ppc64le"]);
    assert_eq!(causes(&checked), [Some(Cause::ImageWrongArch); 2], "{checked:?}");
    assert!(checked.rows[0].problem.clone().unwrap().contains("/app/x is a program for amd64"));
    assert!(checked.rows[1].problem.clone().unwrap().contains("ppc64 (elf, 64 bit, big-endian)"));
}

#[test]
fn of_two_entries_with_the_same_path_the_last_one_counts() {
    let registry = Registry::start();
    let padding = vec![7; 100_000];
    let (program, other) = (elf("s390x"), elf("amd64"));
    let files = [("app/x", File::Content(&program)), ("b", File::Content(&padding)), ("app/x", File::Content(&other))];
    let archive = layer(&files);
    // Two streams of gzip one behind the other are one, and only the second one says its size at the end: here the first
    // one's. Blocks of zeros end an archive.
    let entry = |program: &[u8]| layer(&[("app/x", File::Content(program))])[..1024].to_vec();
    let streams = [gzip(&entry(&program)), gzip(&[entry(&other), vec![0; 1024]].concat())].concat();
    let layers = [archive.clone(), gzip(&archive), zstd::encode_all(&archive[..], 1).unwrap(), streams];
    for (number, bytes) in layers.into_iter().enumerate() {
        let name = format!("twice{number}");
        let made = Made { layers: vec![bytes], ..Made::new("s390x", "s390x") }.push(&registry, &name);
        index(&registry, &name, "v1", &[made]);
        let checked = verify(&registry, &format!("{name}:v1"), &["s390x"]);
        assert_eq!(causes(&checked), [Some(Cause::ImageWrongArch)], "{checked:?}");
        assert!(checked.rows[0].problem.clone().unwrap().contains("/app/x is a program for amd64"));
    }
    // A script in the place of a program, and the other way round.
    for (files, cause) in [
        ([("app/x", File::Content(&program)), ("app/x", File::Content(b"#!/app/y\n"))], Some(Cause::Product)),
        ([("app/x", File::Content(b"#!/app/y\n")), ("app/x", File::Content(&program))], None),
    ] {
        let made = Made { layers: vec![gzip(&layer(&files))], ..Made::new("s390x", "s390x") }.push(&registry, "script");
        index(&registry, "script", "v1", &[made]);
        assert_eq!(causes(&verify(&registry, "script:v1", &["s390x"])), [cause]);
    }
}

#[test]
fn an_index_is_read_in_bounded_memory() {
    let registry = Registry::start();
    let padding = "x".repeat(3_900_000);
    // Their platforms are in their configs only, so that all of them have to be read.
    let manifests: Vec<_> = (0..18)
        .map(|number| {
            let annotations = json!({ "number": number.to_string(), "padding": padding });
            let mut made = Made { annotations, ..Made::new("s390x", "s390x") }.push(&registry, "large");
            made.as_object_mut().unwrap().remove("platform");
            made
        })
        .collect();
    index(&registry, "large", "v1", &manifests);
    let checked = verify(&registry, "large:v1", &["s390x"]);
    assert_eq!(causes(&checked), [Some(Cause::Registry)], "{checked:?}");
    assert!(checked.rows[0].problem.clone().unwrap().contains("more than 64 MiB"));
}

#[test]
fn media_types_compressions_and_nesting_do_not_matter() {
    let registry = Registry::start();
    let plain = layer(&[("app/x", File::Content(&elf("s390x")))]);
    let zstd = layer(&[("app/x", File::Content(&elf("arm64")))]);
    let docker = Made { media_type: DOCKER_MANIFEST, ..Made::new("amd64", "amd64") }.push(&registry, "mixed");
    let list = json!({ "schemaVersion": 2, "mediaType": DOCKER_LIST, "manifests": [docker] });
    let inner = registry.document("mixed", "inner", DOCKER_LIST, &list);
    let manifests = [
        Made { layers: vec![plain], ..Made::new("s390x", "s390x") }.push(&registry, "mixed"),
        Made { layers: vec![zstd::encode_all(&zstd[..], 1).unwrap()], ..Made::new("arm64", "arm64") }
            .push(&registry, "mixed"),
        inner,
    ];
    index(&registry, "mixed", "v1", &manifests);
    assert_eq!(causes(&verify(&registry, "mixed:v1", &["amd64", "arm64", "s390x"])), [None; 3]);
    // A plain image has the platform of its config.
    assert_eq!(
        causes(&verify(&registry, "mixed:plain", &["arm64", "amd64"])),
        [None, Some(Cause::ImageMissingPlatform)]
    );
}

#[test]
fn the_entrypoint_is_found_through_layers_links_and_scripts() {
    let registry = Registry::start();
    let program = elf("s390x");
    let bottom = layer(&[
        ("usr/bin/busybox", File::Content(&program)),
        ("bin", File::Link("usr/bin")),
        ("app/old", File::Content(b"x")),
    ]);
    let top = layer(&[
        ("usr/bin/sh", File::Link("busybox")),
        ("app/start", File::Content(b"#!/bin/sh\necho")),
        ("app/.wh.old", File::Content(b"")),
        ("app/text", File::Content(b"no program")),
    ]);
    let image = |name: &str, settings| {
        let layers = vec![gzip(&bottom), gzip(&top)];
        Made { settings, layers, ..Made::new("s390x", "s390x") }.push(&registry, name);
        causes(&verify(&registry, &format!("{name}:plain"), &["s390x"]))[0]
    };
    assert_eq!(image("script", json!({ "Entrypoint": ["/app/start"] })), None);
    assert_eq!(image("command", json!({ "Cmd": ["sh"], "Env": ["PATH=/nowhere:/bin"] })), None);
    assert_eq!(image("relative", json!({ "Cmd": ["./start"], "WorkingDir": "/app" })), None);
    assert_eq!(image("nothing", json!({})), None);
    assert_eq!(image("deleted", json!({ "Entrypoint": ["/app/old"] })), Some(Cause::Product));
    assert_eq!(image("text", json!({ "Entrypoint": ["/app/text"] })), Some(Cause::ImageWrongArch));
}

#[test]
fn only_as_much_of_a_layer_is_read_as_is_needed() {
    let registry = Registry::start();
    let unread = gzip(&layer(&[("big", File::Content(&[7; 100]))]));
    let top = gzip(&layer(&[("app/x", File::Content(&elf("amd64")))]));
    Made { layers: vec![unread.clone(), top], ..Made::new("amd64", "amd64") }.push(&registry, "lazy");
    assert_eq!(causes(&verify(&registry, "lazy:plain", &["amd64"])), [None]);
    assert_eq!(registry.requests(&format!("GET /v2/lazy/blobs/{}", kit::digest::sha256(&unread))), 0);
}

#[test]
fn a_registry_out_of_order_is_not_the_image_s_fault() {
    let registry = Registry::start();
    let image = Made::new("amd64", "amd64").push(&registry, "ok");
    let path = format!("/v2/ok/manifests/{}", image["digest"].as_str().unwrap());
    index(&registry, "ok", "v1", &[image]);
    for (answer, cause) in [
        (Answer::Status(401, ""), Cause::Auth),
        (Answer::Status(403, ""), Cause::Auth),
        (Answer::Status(500, ""), Cause::Registry),
        (Answer::Cut(vec![b' '; 100]), Cause::Registry),
        (Answer::Content { media_type: String::new(), bytes: b"{}".to_vec() }, Cause::Registry),
        (Answer::Content { media_type: String::new(), bytes: vec![b' '; 5 << 20] }, Cause::Registry),
    ] {
        registry.set(&path, answer);
        assert_eq!(causes(&verify(&registry, "ok:v1", &["amd64"])), [Some(cause)]);
    }
    assert_eq!(causes(&verify(&registry, "ok:v2", &["amd64"])), [Some(Cause::Registry)]);
    let nobody = Registry::nobody();
    assert_eq!(causes(&verify(&nobody, "ok:v1", &["amd64"])), [Some(Cause::Registry)]);
}

#[test]
fn a_registry_that_says_later_is_asked_again() {
    let registry = Registry::start();
    let image = Made::new("amd64", "amd64").push(&registry, "busy");
    let bytes =
        serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": support::OCI_INDEX, "manifests": [image] }))
            .unwrap();
    let content = Answer::Content { media_type: support::OCI_INDEX.into(), bytes };
    registry.set("/v2/busy/manifests/v1", Answer::Once(429, "Retry-After: 1\r\n", Box::new(content)));
    assert_eq!(causes(&verify(&registry, "busy:v1", &["amd64"])), [None]);
    assert_eq!(registry.requests("GET /v2/busy/manifests/v1"), 2);
}

#[test]
fn damaged_layers_are_found() {
    let registry = Registry::start();
    let good = Made { settings: json!({ "Cmd": ["x"], "Env": ["PATH=/a:/app"] }), ..Made::new("amd64", "amd64") };
    let path = format!("/v2/bad/blobs/{}", kit::digest::sha256(&good.layers[0]));
    let image = good.push(&registry, "bad");
    index(&registry, "bad", "v1", &[image]);
    assert_eq!(causes(&verify(&registry, "bad:v1", &["amd64"])), [None]);
    let mut other = good.layers[0].clone();
    let last = other.len() - 1;
    other[last] ^= 1;
    for answer in [
        Answer::Cut(good.layers[0].clone()),
        Answer::Content { media_type: String::new(), bytes: other },
        Answer::Status(404, ""),
    ] {
        registry.set(&path, answer);
        assert_eq!(causes(&verify(&registry, "bad:v1", &["amd64"])), [Some(Cause::Registry)]);
    }
}

#[test]
fn artifacts_in_an_index_are_no_images() {
    let registry = Registry::start();
    let mut manifests = vec![Made::new("amd64", "amd64").push(&registry, "sbom")];
    for (artifact, config) in [
        (json!("application/x"), "application/vnd.oci.image.config.v1+json"),
        (json!(null), "application/spdx+json"),
        (json!("application/spdx+json"), "application/vnd.oci.empty.v1+json"),
    ] {
        let blob = registry.blob("sbom", b"{}");
        let config = json!({ "mediaType": config, "digest": blob["digest"], "size": blob["size"] });
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config, "layers": [] });
        if !artifact.is_null() {
            manifest["artifactType"] = artifact;
        }
        manifests.push(registry.document("sbom", "artifact", OCI_MANIFEST, &manifest));
    }
    index(&registry, "sbom", "v1", &manifests);
    let checked = verify(&registry, "sbom:v1", &["amd64", "s390x"]);
    assert_eq!(causes(&checked), [None, Some(Cause::ImageMissingPlatform)], "{checked:?}");
    // By itself it is no image.
    assert_eq!(causes(&verify(&registry, "sbom:artifact", &["amd64"])), [Some(Cause::Usage)]);
}

#[test]
fn windows_finds_its_program_whatever_the_capitals_and_in_its_path() {
    let registry = Registry::start();
    let program = pe();
    let files = gzip(&layer(&[("Files/Program Files/App/Tool.EXE", File::Content(&program))]));
    let look = |name: &str, settings, foreign: bool| {
        let mut made = Made::new("amd64", "amd64");
        (made.os, made.settings, made.layers) = ("windows", settings, vec![files.clone()]);
        let mut image = made.push(&registry, name);
        if foreign {
            let path = format!("/v2/{name}/manifests/{}", image["digest"].as_str().unwrap());
            let mut manifest: serde_json::Value = serde_json::from_slice(&registry.get(&path)).unwrap();
            let media_type = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
            let layer = json!({ "mediaType": media_type, "digest": kit::digest::sha256(b"base"), "size": 9 });
            manifest["layers"].as_array_mut().unwrap().insert(0, layer);
            image = registry.document(name, "plain", OCI_MANIFEST, &manifest);
            image["platform"] = json!({ "os": "windows", "architecture": "amd64" });
        }
        index(&registry, name, "v1", &[image]);
        let reference = oci::parse(&format!("{}/{name}:v1", registry.host)).unwrap();
        let platform = ["windows/amd64".parse().unwrap()];
        let place = Place::Registry(Client::new().unwrap(), reference);
        oci::run(async { Ok(oci::verify(&place, &platform).await) }).unwrap().rows.remove(0)
    };
    for (name, settings) in [
        ("capitals", json!({ "Entrypoint": ["c:\\program files\\APP\\tool.exe"] })),
        ("path", json!({ "Cmd": ["TOOL"], "Env": ["Path=C:\\Windows;C:\\Program Files\\app\\"] })),
        ("start", json!({ "Cmd": ["app/tool.exe"], "WorkingDir": "C:\\Program Files" })),
    ] {
        let row = look(name, settings, false);
        assert_eq!((row.cause, row.unseen), (None, None), "{row:?}");
        assert_eq!(row.program.unwrap().path, "/Files/Program Files/App/Tool.EXE");
    }
    let elsewhere = || json!({ "Cmd": ["powershell"] });
    assert_eq!(look("elsewhere", elsewhere(), false).cause, Some(Cause::Product));
    // Where Windows' own layers cannot be fetched it may be in one of them.
    let row = look("foreign", elsewhere(), true);
    assert_eq!((row.cause, row.unseen, row.program), (None, Some(Unseen::Program), None));
}
