//! What is known of an image beyond its entrypoint: all programs, its user, its base.

mod support;

use kit::{Cause, Platform, digest::sha256};
use oci::{Checked, Client, Memory, Place};
use serde_json::{Value, json};
use support::{Answer, File, Made, Registry, elf, gzip, index, layer};

fn look(registry: &Registry, name: &str, platforms: &[&str], memory: Option<&Memory>) -> Checked {
    let reference = oci::parse(&format!("{}/{name}", registry.host)).unwrap();
    let platforms: Vec<Platform> = platforms.iter().map(|platform| platform.parse().unwrap()).collect();
    let work = async {
        let place = Place::Registry(Client::new()?, reference);
        Ok(match memory {
            Some(memory) => oci::verify_deep(&place, &platforms, memory).await,
            None => oci::verify(&place, &platforms).await,
        })
    };
    oci::run(work).unwrap()
}

fn problem(checked: &Checked) -> &str {
    checked.rows[0].problem.as_deref().unwrap_or_default()
}

/// The first bytes of a program for Windows.
fn pe(machine: u16) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x80;
    bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
    bytes[0x84..0x86].copy_from_slice(&machine.to_le_bytes());
    bytes[0x94..0x96].copy_from_slice(&240_u16.to_le_bytes());
    bytes[0x98..0x9a].copy_from_slice(&0x20b_u16.to_le_bytes());
    bytes
}

#[test]
fn a_foreign_program_below_is_found_when_all_are_looked_at() {
    let registry = Registry::start();
    let bottom = gzip(&layer(&[
        ("usr/bin/busybox", File::Content(&elf("arm"))),
        ("usr/lib/libc.so", File::Content(&elf("arm64"))),
        ("usr/bin/other", File::Content(&elf("amd64"))),
    ]));
    let top = gzip(&layer(&[("app/x", File::Content(&elf("arm64")))]));
    Made { layers: vec![bottom, top], ..Made::new("arm64", "arm64") }.push(&registry, "mixed");
    assert_eq!(look(&registry, "mixed:plain", &["linux/arm64"], None).rows[0].cause, None);
    let checked = look(&registry, "mixed:plain", &["linux/arm64"], Some(&Memory::default()));
    let deep = checked.rows[0].deep.clone().unwrap();
    assert_eq!((deep.layers, deep.programs, deep.foreign, deep.wrong.len()), (2, 4, 2, 2));
    assert_eq!(checked.rows[0].cause, Some(Cause::ImageWrongArch));
    assert!(problem(&checked).starts_with("/usr/bin/busybox is a program for arm (elf, 32 bit, little-endian)"));
    assert!(problem(&checked).ends_with("and 1 more are foreign"), "{checked:?}");
    assert_eq!(checked.rows[0].program.as_ref().unwrap().path, "/app/x");
}

#[test]
fn a_layer_is_read_once_whoever_has_it() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let shared = gzip(&layer(&[("bin/a", File::Content(&elf("s390x")))]));
    let path = format!("GET /v2/shared/blobs/{}", sha256(&shared));
    for tag in ["one", "two"] {
        let top = gzip(&layer(&[("app/x", File::Content(&elf("s390x"))), (tag, File::Content(b"text"))]));
        let made = Made { layers: vec![shared.clone(), top], ..Made::new("s390x", "s390x") };
        let image = made.push(&registry, "shared");
        index(&registry, "shared", tag, &[image]);
    }
    for (tag, before) in [("one", 0), ("two", 1), ("one", 1)] {
        assert_eq!(registry.requests(&path), before);
        // Each time as another process would.
        let memory = Memory::in_folder(folder.path().into());
        let checked = look(&registry, &format!("shared:{tag}"), &["linux/s390x"], Some(&memory));
        assert_eq!((problem(&checked), checked.rows[0].deep.as_ref().unwrap().programs), ("", 2));
    }
    assert_eq!(registry.requests(&path), 1);
}

#[test]
fn a_layer_that_was_changed_is_neither_believed_nor_remembered() {
    let registry = Registry::start();
    let folder = tempfile::tempdir().unwrap();
    let made = Made::new("s390x", "s390x");
    let path = format!("/v2/bad/blobs/{}", sha256(&made.layers[0]));
    made.push(&registry, "bad");
    // As long as the right one, with the same program, and something else behind the archive's end.
    let mut other = made.layers[0].clone();
    *other.last_mut().unwrap() ^= 1;
    registry.set(&path, Answer::Content { media_type: String::new(), bytes: other });
    let memory = Memory::in_folder(folder.path().into());
    let checked = look(&registry, "bad:plain", &["linux/s390x"], Some(&memory));
    assert_eq!(checked.rows[0].cause, Some(Cause::Registry), "{checked:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn the_user_is_known_by_number_and_by_the_image_s_own_file() {
    let registry = Registry::start();
    let passwd: &[u8] = b"root:x:0:0::/:\ngit:x:1000:1001::/:\n";
    let bottom = gzip(&layer(&[("etc/passwd", File::Content(passwd))]));
    let program = ("app/x", File::Content(&elf("s390x")[..]));
    let top = gzip(&layer(&[program]));
    let with = |user: &str, layers: &[&Vec<u8>], deep: bool| {
        let layers = layers.iter().map(|layer| layer.to_vec()).collect();
        let settings = json!({ "Entrypoint": ["/app/x"], "User": user });
        Made { settings, layers, ..Made::new("s390x", "s390x") }.push(&registry, "user");
        let memory = Memory::default();
        let row = look(&registry, "user:plain", &["linux/s390x"], deep.then_some(&memory)).rows.remove(0);
        assert_eq!(row.problem, None);
        (row.uid, row.gid, row.nonroot)
    };
    assert_eq!(with("", &[&bottom, &top], false), (Some(0), Some(0), Some(false)));
    assert_eq!(with("65532:65532", &[&bottom, &top], false), (Some(65532), Some(65532), Some(true)));
    // The file lies in a layer that need not be read.
    assert_eq!(with("git", &[&bottom, &top], false), (None, None, None));
    assert_eq!(with("git", &[&bottom, &top], true), (Some(1000), Some(1001), Some(true)));
    let both = gzip(&layer(&[("etc/passwd", File::Content(passwd)), ("app/x", File::Content(&elf("s390x")))]));
    assert_eq!(with("git", &[&both], false), (Some(1000), Some(1001), Some(true)));
    let upper = gzip(&layer(&[("etc/passwd", File::Content(b"git:x:0:0::/:\n"))]));
    assert_eq!(with("git", &[&both, &upper], true), (Some(0), Some(0), Some(false)));
}

#[test]
fn the_base_is_what_the_manifest_says_or_the_index() {
    let registry = Registry::start();
    let says = |digest: &str| json!({ "org.opencontainers.image.base.name": "e.com/static:v1", "org.opencontainers.image.base.digest": digest });
    let manifests: Vec<Value> = vec![
        Made { annotations: says("sha256:aa"), ..Made::new("s390x", "s390x") }.push(&registry, "base"),
        Made::new("arm64", "arm64").push(&registry, "base"),
    ];
    let index = json!({
        "schemaVersion": 2, "mediaType": support::OCI_INDEX, "manifests": manifests, "annotations": says("sha256:bb"),
    });
    registry.document("base", "v1", support::OCI_INDEX, &index);
    let checked = look(&registry, "base:v1", &["linux/s390x", "linux/arm64"], None);
    let bases: Vec<_> = checked.rows.iter().map(|row| row.base.as_deref().unwrap()).collect();
    assert_eq!(bases, ["e.com/static:v1@sha256:aa", "e.com/static:v1@sha256:bb"]);
    assert_eq!(checked.base.as_deref(), Some("e.com/static:v1@sha256:bb"));
    assert_eq!(checked.rows[0].entry, Some("linux/s390x".parse().unwrap()));
    let plain = look(&registry, "base:plain", &["linux/arm64"], None);
    assert_eq!((plain.base.as_deref(), &plain.rows[0].entry), (None, &None));
}

#[test]
fn windows_has_programs_and_versions_of_its_own() {
    let registry = Registry::start();
    let push = |version: &str, says: &str, files: &[(&str, File<'_>)]| {
        let settings = json!({ "Entrypoint": ["C:\\app\\x.exe"] });
        let mut made = Made { settings, layers: vec![gzip(&layer(files))], ..Made::new("amd64", "amd64") };
        made.os = "windows";
        made.os_version = Some(says);
        let mut image = made.push(&registry, "win");
        image["platform"] = json!({ "os": "windows", "architecture": "amd64", "os.version": version });
        image
    };
    let (amd64, x86, arm64) = (pe(0x8664), pe(0x014c), pe(0xaa64));
    let elf = elf("arm64");
    let good: &[_] = &[
        ("Files/app/x.exe", File::Content(&amd64)),
        ("Files/Windows/SysWOW64/y.dll", File::Content(&x86)),
        ("Files/tools/for-linux", File::Content(&elf)),
    ];
    let first = push("10.0.17763.1", "10.0.17763.1", good);
    index(&registry, "win", "v1", std::slice::from_ref(&first));
    let memory = Memory::default();
    for asked in ["windows/amd64", "windows/amd64:10.0.17763"] {
        let checked = look(&registry, "win:v1", &[asked], Some(&memory));
        assert_eq!(
            (problem(&checked), checked.rows[0].deep.as_ref().map(|deep| deep.programs)),
            ("", Some(2)),
            "{asked}"
        );
        assert_eq!(checked.rows[0].nonroot, None);
    }
    assert_eq!(look(&registry, "win:v1", &["linux/amd64"], None).rows[0].cause, Some(Cause::ImageMissingPlatform));
    // All versions serve who asks for none, and each has to be right.
    let second = push("10.0.20348.1", "10.0.20348.1", &[("Files/app/x.exe", File::Content(&arm64))]);
    index(&registry, "win", "v2", &[first.clone(), second]);
    let checked = look(&registry, "win:v2", &["windows/amd64"], None);
    assert!(problem(&checked).contains("/Files/app/x.exe is a program for arm64 (pe"), "{checked:?}");
    assert_eq!(look(&registry, "win:v2", &["windows/amd64:10.0.17763"], None).rows[0].cause, None);
    let lying = push("10.0.99999.1", "10.0.20348.1", good);
    index(&registry, "win", "v3", &[lying]);
    let checked = look(&registry, "win:v3", &["windows/amd64"], None);
    assert!(problem(&checked).starts_with("its index says windows/amd64:10.0.99999.1, its config"), "{checked:?}");
}

#[test]
fn two_images_for_one_platform_have_both_to_be_right() {
    let registry = Registry::start();
    let images = [Made::new("s390x", "s390x"), Made::new("s390x", "amd64")].map(|made| made.push(&registry, "two"));
    index(&registry, "two", "v1", &images);
    let checked = look(&registry, "two:v1", &["linux/s390x"], None);
    assert_eq!(checked.rows[0].cause, Some(Cause::ImageWrongArch), "{checked:?}");
}

#[test]
fn an_artifact_is_no_image() {
    let registry = Registry::start();
    let mut config = registry.blob("chart", b"{}");
    config["mediaType"] = json!("application/vnd.cncf.helm.config.v1+json");
    let manifest = json!({ "schemaVersion": 2, "mediaType": support::OCI_MANIFEST, "config": config, "layers": [] });
    registry.document("chart", "v1", support::OCI_MANIFEST, &manifest);
    let checked = look(&registry, "chart:v1", &["linux/s390x"], None);
    assert_eq!(checked.rows[0].cause, Some(Cause::Usage));
    assert!(problem(&checked).contains("it is no image but 'application/vnd.cncf.helm.config.v1+json'"), "{checked:?}");
}
