//! `image-build base` against a registry and a buildah that stand in for real ones.

#[path = "../../lib/oci/tests/support/mod.rs"]
mod support;

mod common;

use std::{fs, path::Path};

use common::{Image, World, push, push_index};
use oci::{Layout, spec::Descriptor};
use serde_json::{Value, json};
use support::{File, elf, gzip, layer};

const PLATFORMS: &str = "linux/amd64,linux/s390x";

/// A document of a layout, by its descriptor.
fn document(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
    serde_json::from_slice(&fs::read(layout.join("blobs").join(digest)).unwrap()).unwrap()
}

/// The index of a layout.
fn index(layout: &Path) -> Value {
    let top: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    document(layout, &top["manifests"][0])
}

fn root(arch: &str) -> Vec<u8> {
    layer(&[("./usr/bin/tini", File::Content(&elf(arch))), ("./sbin", File::Link("usr/bin"))])
}

#[test]
fn roots_of_several_platforms_become_one_base_that_is_the_same_again() {
    let world = World::new();
    let (amd64, s390x) = (world.write("a.tar.gz", gzip(&root("amd64"))), world.write("s.tar", root("s390x")));
    let to = format!("{}/base/tini", world.registry.host);
    let make = |roots: [&str; 2]| {
        let (one, two) = (format!("--root={}", roots[0]), format!("--root={}", roots[1]));
        let args = [
            "base",
            "rootfs",
            &one,
            &two,
            "--entrypoint=/usr/bin/tini",
            "--entrypoint=--",
            "--env=A=b",
            "--to",
            &to,
            "--layout",
            "out",
        ];
        world.run(&[&args[..], &["--output", "json"]].concat(), &[]).answered(0)
    };
    let (amd64, s390x) = (format!("linux/amd64={amd64}"), format!("linux/s390x={s390x}"));
    let base = make([&amd64, &s390x]);
    assert_eq!(make([&s390x, &amd64]), base);
    let digest = base["digest"].as_str().unwrap();
    assert_eq!(base["reference"], format!("{to}@{digest}"));
    let row = &base["platforms"][1];
    assert_eq!(
        (&row["platform"], &row["user"], &row["fallback"]),
        (&json!("linux/s390x"), &json!("65532:65532"), &json!(false))
    );
    let index = index(&world.path("out"));
    let manifest = document(&world.path("out"), &index["manifests"][1]);
    let config = document(&world.path("out"), &manifest["config"]);
    assert_eq!((&config["architecture"], &config["created"]), (&json!("s390x"), &json!("1970-01-01T00:00:00Z")));
    assert_eq!(config["config"]["Entrypoint"], json!(["/usr/bin/tini", "--"]));
    assert!(config["config"]["Env"].as_array().unwrap().contains(&json!("A=b")));
    // By the tag that names its content, and from the folder.
    let tagged = format!("{to}:{}", &digest["sha256:".len()..][..16]);
    for what in [tagged.as_str(), "out"] {
        world.run(&["verify", what, "--platform", PLATFORMS], &[]).said(0, &[]);
    }
}

#[test]
fn roots_that_cannot_be_are_refused() {
    let world = World::new();
    let (good, wrong) = (world.write("good.tar", root("s390x")), world.write("wrong.tar", root("amd64")));
    let file = layer(&[("a", File::Link("b")), ("a/c", File::Content(b""))]);
    let below = world.write("below.tar", file);
    let refused = |root: &str, code: i32, said: &[&str]| {
        world.run(&["base", "rootfs", "--root", root, "--layout", "out"], &[]).said(code, said);
        assert!(!world.path("out").exists());
    };
    let named =
        ["error[image-wrong-arch]", "wrong.tar", "not for linux/s390x but for amd64 (for instance /usr/bin/tini)"];
    refused(&format!("linux/s390x={wrong}"), 1, &named);
    refused(&format!("linux/s390x={below}"), 2, &["below.tar", "a/c lies below a, which is no folder"]);
    refused("linux/s390x=/nonexistent", 2, &["cannot read /nonexistent"]);
    refused("windows/amd64=.", 2, &["windows/amd64: a root of windows is no set of files"]);
    refused("s390x", 2, &["is not PLATFORM=DIR|TAR"]);
    refused("linux/vax=x", 2, &["unknown architecture 'vax'"]);
    let twice = [format!("--root=linux/arm64={good}"), format!("--root=linux/arm64/v8={wrong}")];
    let ended = world.run(&["base", "rootfs", &twice[0], &twice[1], "--layout", "out"], &[]);
    ended.said(2, &["linux/arm64 has two roots", "good.tar and ", "wrong.tar"]);
    world
        .run(&["base", "rootfs", "--root", &format!("linux/s390x={good}")], &[])
        .said(2, &["--to <REPO[:TAG]>|--layout <DIR>"]);
    world.write("full/file", "");
    let args = ["base", "rootfs", "--root", &format!("linux/s390x={good}"), "--layout", "full"];
    world.run(&args, &[]).said(2, &["full holds something else than an OCI layout"]);
    assert!(world.path("full/file").exists());
    let args = ["base", "rootfs", "--root", &format!("linux/s390x={good}"), "--to", "127.0.0.1:1/x"];
    world.run(&args, &[]).said(3, &["error[registry]"]);
}

/// Linux and Windows, as Tekton combines them.
fn windows(version: &str) -> Image<'static> {
    Image {
        platform: json!({ "os": "windows", "architecture": "amd64", "os.version": version, "os.features": ["win32k"] }),
        settings: json!({ "User": "ContainerUser" }),
        docker: true,
        ..Image::new("amd64")
    }
}

#[test]
fn linux_and_windows_become_one_index_with_their_manifests_as_they_are() {
    let world = World::new();
    let host = &world.registry.host;
    push(&world.registry, "linux", "v1", &["s390x", "amd64"]);
    push_index(&world.registry, "windows", "v1", &[windows("10.0.17763.5"), windows("10.0.20348.7")]);
    let (linux, win) = (format!("{host}/linux:v1"), format!("{host}/windows:v1"));
    let to = format!("{host}/base/combined:v1");
    let combine = |bases: [&str; 2]| {
        let args = ["base", "combine", bases[0], bases[1], "--to", &to, "--layout", "out", "--output", "json"];
        world.run(&args, &[]).answered(0)
    };
    let base = combine([&linux, &win]);
    assert_eq!(combine([&win, &linux]), base);
    let index = index(&world.path("out"));
    let platforms: Vec<_> =
        index["manifests"].as_array().unwrap().iter().map(|entry| entry["platform"].clone()).collect();
    assert_eq!(
        platforms[3],
        json!({ "os": "windows", "architecture": "amd64", "os.version": "10.0.20348.7", "os.features": ["win32k"] })
    );
    assert_eq!(platforms[1], json!({ "os": "linux", "architecture": "s390x" }));
    let pushed = windows("10.0.20348.7").push(&world.registry, "windows", "again");
    assert_eq!(index["manifests"][3]["digest"], pushed["digest"]);
    assert_eq!(base["platforms"][3]["from"], json!(win));
    // A layout may be combined again, and what is asked for may be named.
    let args = ["base", "combine", "out", "--platform", "windows/amd64:10.0.17763,linux/s390x", "--layout", "part"];
    world.run(&args, &[]).said(0, &[]);
    let part = self::index(&world.path("part"));
    assert_eq!(part["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(part["manifests"][1]["platform"]["os.version"], "10.0.17763.5");
    let args = ["bases", "--config", ".ko.yaml", "--platform", "windows/amd64:10.0.20348,linux/amd64"];
    world.write(".ko.yaml", format!("defaultBaseImage: {to}\n"));
    world.run(&args, &[]).said(0, &[]);
}

#[test]
fn layers_that_may_not_be_handed_on_stay_where_they_are() {
    let world = World::new();
    let config = json!({ "os": "windows", "architecture": "amd64", "os.version": "10.0.17763.5", "rootfs": { "type": "layers", "diff_ids": [] } });
    let mut config = world.registry.blob("w", &serde_json::to_vec(&config).unwrap());
    config["mediaType"] = json!("application/vnd.docker.container.image.v1+json");
    let layer = |media_type: &str| json!({ "mediaType": media_type, "size": 9, "digest": kit::digest::sha256(b"elsewhere"), "urls": ["https://e.com/x"] });
    for (media_type, code) in [
        ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", 0),
        ("application/vnd.docker.image.rootfs.diff.tar.gzip", 3),
    ] {
        let manifest = json!({ "schemaVersion": 2, "mediaType": support::DOCKER_MANIFEST, "config": config, "layers": [layer(media_type)] });
        world.registry.document("w", "v1", support::DOCKER_MANIFEST, &manifest);
        let name = format!("{}/w:v1", world.registry.host);
        world.run(&["base", "combine", &name, "--layout", "out"], &[]).said(code, &[]);
    }
    assert_eq!(index(&world.path("out"))["manifests"][0]["platform"]["os.version"], "10.0.17763.5");
}

#[test]
fn duplicates_and_holes_are_refused_with_every_reference() {
    let world = World::new();
    let host = &world.registry.host;
    push(&world.registry, "one", "v1", &["amd64", "s390x"]);
    Image { created: "2020-01-01T00:00:00Z", ..Image::new("s390x") }.push(&world.registry, "two", "v1");
    let (one, two) = (format!("{host}/one:v1"), format!("{host}/two:v1"));
    let combine = |more: &[&str]| {
        let ended = world.run(&[&["base", "combine", &one, &two, "--layout", "out"], more].concat(), &[]);
        assert!(!world.path("out").exists());
        ended
    };
    combine(&[])
        .said(2, &["error[usage]: linux/s390x is in", &format!("{one} (sha256:"), &format!("and in {two} (sha256:")]);
    let named = [
        &*format!("none of {one}, {two} has linux/ppc64le, linux/arm64"),
        "next: name a base that has it with --fallback",
    ];
    combine(&["--platform", "linux/amd64,linux/ppc64le,linux/arm64"]).said(1, &named);
    combine(&["--fallback", &two]).said(2, &["--platform <P>"]);
    let away = ["base", "combine", "127.0.0.1:1/x:v1", "--layout", "out"];
    world.run(&away, &[]).said(3, &["base 127.0.0.1:1/x:v1"]);
    world.run(&["base", "combine", "tmp", "--layout", "out"], &[]).said(2, &["tmp is no OCI layout"]);
}

#[test]
fn a_fallback_keeps_the_user_without_rights() {
    let world = World::new();
    let host = &world.registry.host;
    push(&world.registry, "distroless", "v1", &["amd64"]);
    for docker in [false, true] {
        // Docker's and OCI's media types, an index and a single image: alpine runs as root everywhere.
        let root = |arch| Image { settings: json!({ "Entrypoint": ["/app/x"] }), docker, ..Image::new(arch) };
        push_index(&world.registry, "alpine", "v1", &[root("amd64"), root("s390x")]);
        let single = Image { settings: Value::Null, ..root("arm64") };
        let single = single.push(&world.registry, "single", "v1");
        let (base, alpine) = (format!("{host}/distroless:v1"), format!("{host}/alpine:v1"));
        let single_name = format!("{host}/single:v1");
        let args = ["base", "combine", &base, "--fallback", &alpine, "--fallback", &single_name];
        let args =
            [&args[..], &["--platform", "linux/amd64,linux/s390x,linux/arm64", "--layout", "out", "--output", "json"]]
                .concat();
        let ended = world.run(&args, &[]);
        ended.said(0, &[&format!("linux/s390x: the others lack it, {alpine} steps in, as user 65532:65532")]);
        let made = ended.answered(0);
        assert_eq!(world.run(&args, &[]).answered(0), made);
        let rows = made["platforms"].as_array().unwrap();
        let said: Vec<_> = rows
            .iter()
            .map(|row| (row["platform"].as_str().unwrap(), row["fallback"] == true, row["derivedFrom"].is_string()))
            .collect();
        assert_eq!(said, [("linux/amd64", false, false), ("linux/arm64", true, true), ("linux/s390x", true, true)]);
        assert_eq!((&rows[1]["derivedFrom"], &rows[2]["user"]), (&single["digest"], &json!("65532:65532")));
        let index = index(&world.path("out"));
        let entry = &index["manifests"][2];
        assert_eq!(entry["annotations"]["org.opencontainers.image.base.name"], json!(alpine));
        let manifest = document(&world.path("out"), entry);
        let config = document(&world.path("out"), &manifest["config"]);
        assert_eq!(
            (&config["config"]["User"], &config["config"]["Entrypoint"]),
            (&json!("65532:65532"), &json!(["/app/x"]))
        );
        assert_eq!(config["history"][0]["empty_layer"], true);
        assert_eq!(manifest["mediaType"], entry["mediaType"]);
        assert_eq!(manifest["mediaType"].as_str().unwrap().contains("docker"), docker);
        world.run(&["verify", "out", "--platform", "linux/amd64,linux/s390x"], &[]).said(0, &[]);
    }
    // One that has the user already is taken as it is.
    push(&world.registry, "good", "v1", &["s390x"]);
    let (base, good) = (format!("{host}/distroless:v1"), format!("{host}/good:v1"));
    let args =
        ["base", "combine", &base, "--fallback", &good, "--platform", PLATFORMS, "--layout", "out", "--output", "json"];
    let made = world.run(&args, &[]).answered(0);
    assert_eq!((&made["platforms"][1]["fallback"], &made["platforms"][1]["derivedFrom"]), (&json!(true), &Value::Null));
}

#[test]
fn a_blob_that_is_another_one_gets_into_no_base() {
    let world = World::new();
    let image = Image::new("s390x").push(&world.registry, "x", "v1");
    let path = format!("/v2/x/manifests/{}", image["digest"].as_str().unwrap());
    let manifest = world.registry.get(&path);
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let layer = format!("/v2/x/blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap());
    let mut bytes = world.registry.get(&layer);
    bytes[20] ^= 1;
    let answer = support::Answer::Content { media_type: "x/y".into(), bytes };
    world.registry.set(&layer, answer);
    let reference = format!("{}/x:v1", world.registry.host);
    world
        .run(&["base", "combine", &reference, "--layout", "out"], &[])
        .said(3, &["error[registry]", "has the digest sha256:"]);
    assert!(!world.path("out").exists());
}

/// What buildah would have built for a platform.
fn built(world: &World, arch: &str, program: &str) {
    let layout = Layout::create(world.path(&format!("built/linux-{arch}"))).unwrap();
    let archive = layer(&[("app/x", File::Content(&elf(program)))]);
    let blob = layout.write("application/vnd.oci.image.layer.v1.tar+gzip".into(), &gzip(&archive)).unwrap();
    let config = json!({
        "os": "linux", "architecture": arch, "config": { "Entrypoint": ["/app/x"], "User": "65532" },
        "rootfs": { "type": "layers", "diff_ids": [kit::digest::sha256(&archive)] },
    });
    let config =
        layout.write("application/vnd.oci.image.config.v1+json".into(), &serde_json::to_vec(&config).unwrap()).unwrap();
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": support::OCI_MANIFEST, "config": config, "layers": [blob] });
    let manifest: Descriptor =
        layout.write(support::OCI_MANIFEST.into(), &serde_json::to_vec(&manifest).unwrap()).unwrap();
    layout.finish(&[manifest]).unwrap();
}

/// A buildah that gives out what was prepared.
fn buildah(world: &World) -> String {
    let here = world.name("");
    world.program(
        "buildah",
        &format!(
            "root=$2; shift 6; echo \"$@\" >> {here}/called; cat $CONTAINERS_REGISTRIES_CONF > {here}/registries\n\
             cat $CONTAINERS_STORAGE_CONF > {here}/storage; echo \"$BUILDAH_FORMAT\" > {here}/env\n\
             case $1 in\n\
             build) [ ! -e {here}/fail ] || {{ cat {here}/fail >&2; exit 125; }}\n\
             while [ $# -gt 0 ]; do [ \"$1\" = --platform ] && echo $2 > $root/platform; shift; done;;\n\
             push) for last; do :; done; cp -r {here}/built/$(tr / - < $root/platform) ${{last#oci:}};;\n\
             esac"
        ),
    )
}

#[test]
fn a_dockerfile_is_built_for_every_platform_and_nothing_is_left() {
    let world = World::new();
    let host = &world.registry.host;
    push(&world.registry, "from", "v2", &["amd64", "s390x"]);
    let (program, file) = (
        buildah(&world),
        world.write("images/Dockerfile", format!("ARG TAG=v1\nFROM {host}/from:$TAG\nCOPY x /app/x\n")),
    );
    for arch in ["amd64", "s390x"] {
        built(&world, arch, arch);
    }
    let env = [("OTHER_ARCH_BUILDAH", program.as_str()), ("BUILDAH_FORMAT", "docker")];
    let to = format!("{host}/base/docker:v1");
    let args = ["base", "dockerfile", &file, "--platform", PLATFORMS, "--build-arg", "TAG=v2", "--to", &to];
    let ended = world.run(&args, &env);
    ended.said(0, &[]);
    assert_eq!(world.run(&args, &env).out, ended.out);
    assert!(ended.out.starts_with(&format!("{host}/base/docker@sha256:")), "{}", ended.out);
    world.run(&["verify", &to, "--platform", PLATFORMS], &[]).said(0, &[]);
    let called = fs::read_to_string(world.path("called")).unwrap();
    let first = called.lines().next().unwrap();
    for word in ["--isolation chroot", "--timestamp 0", "--platform linux/amd64", "--build-arg TAG=v2", "--file"] {
        assert!(first.contains(word), "{first}");
    }
    assert!(first.ends_with(&format!("images/Dockerfile {}", world.name("images"))), "{first}");
    assert!(
        fs::read_to_string(world.path("registries"))
            .unwrap()
            .contains(&format!("location = \"{host}\"\ninsecure = true"))
    );
    assert_eq!(fs::read_to_string(world.path("env")).unwrap(), "\n", "the caller's settings change nothing");
    // What it calls s390x has to be that.
    built(&world, "s390x", "amd64");
    world.run(&args, &env).said(1, &["error[image-wrong-arch]", "/app/x is a program for amd64"]);
}

#[test]
fn a_dockerfile_that_cannot_be_built_says_why() {
    let world = World::new();
    let host = &world.registry.host;
    push(&world.registry, "lacks", "v1", &["amd64"]);
    let program = buildah(&world);
    let env = [("OTHER_ARCH_BUILDAH", program.as_str())];
    let dockerfile = |text: &str, env: &[(&str, &str)]| {
        let file = world.write("Dockerfile", text);
        world.run(&["base", "dockerfile", &file, "--platform", PLATFORMS, "--layout", "out"], env)
    };
    let lacks = format!("FROM {host}/lacks:v1\nFROM {host}/lacks:v1 AS x\nFROM x\n");
    dockerfile(&lacks, &env).said(1, &["error[image-missing-platform]", "lacks:v1 has no linux/s390x"]);
    assert!(!world.path("called").exists());
    let nothing = world.name("nothing");
    for missing in
        [[("OTHER_ARCH_BUILDAH", ""), ("PATH", nothing.as_str())], [("OTHER_ARCH_BUILDAH", "/nonexistent"), ("X", "")]]
    {
        dockerfile("FROM scratch\n", &missing).said(5, &["error[missing-program]", "OTHER_ARCH_BUILDAH"]);
    }
    dockerfile("FROM scratch\n", &[("OTHER_ARCH_BUILDAH", ""), ("PATH", &nothing)])
        .said(5, &["apt-get install buildah"]);
    for (said, code, cause) in [
        ("Error: building at STEP \"COPY x /\": no such file", 1, "error[build-failure]"),
        ("Error: initializing source: pinging container registry x: connection refused", 3, "error[registry]"),
    ] {
        world.write("fail", said);
        dockerfile("FROM scratch\nCOPY x /\n", &env).said(code, &[cause, said]);
    }
    world
        .run(&["base", "dockerfile", "none", "--platform", "linux/amd64", "--layout", "out"], &env)
        .said(2, &["cannot read none"]);
    assert!(!world.path("out").exists());
}

#[test]
fn the_static_base_has_a_short_name() {
    let world = World::new();
    world.write("ci/images.toml", "[build.static]\nfiles = { '/etc/x' = 'y' }\nuser = '65532:65532'\n");
    let make = |verb: &[&str], out: &str| {
        let args = ["--ci", "ci", "--platform", PLATFORMS, "--layout", out, "--output", "json"];
        world.run(&[verb, &args].concat(), &[]).answered(0)
    };
    let one = make(&["base", "static"], "one");
    let two = make(&["base", "build", "static"], "two");
    assert_eq!(one["digest"], two["digest"]);
    for row in one["platforms"].as_array().unwrap() {
        assert_eq!((&row["user"], &row["from"]), (&json!("65532:65532"), &json!("[build.static]")));
    }
    let ended = world.run(&["base", "build", "other", "--ci", "ci", "--platform", PLATFORMS, "--layout", "x"], &[]);
    ended.said(2, &["there is no [build.other]", "builds there: static"]);
}

#[test]
fn what_is_added_is_a_layer_of_its_own_that_belongs_to_root() {
    let world = World::new();
    world.write("ci/images.toml", "[build.static]\nfiles = { '/etc/x' = 'y' }\nuser = '65532:65532'\n");
    for arch in ["amd64", "s390x"] {
        let program = world.write(&format!("{arch}/usr/local/bin/tool"), elf(arch));
        fs::set_permissions(program, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
    }
    let make = |added: &[&str], out: &str| {
        let args = ["base", "static", "--ci", "ci", "--platform", PLATFORMS, "--layout", out];
        world.run(&[&args, added].concat(), &[])
    };
    let added = ["--add", "linux/amd64=amd64", "--add", "linux/s390x=s390x"];
    make(&[], "bare").said(0, &[]);
    make(&added, "one").said(0, &[]);
    make(&added, "two").said(0, &[]);
    assert_eq!(index(&world.path("one")), index(&world.path("two")));
    let layers = |layout: &str, at: usize| {
        let manifest = document(&world.path(layout), &index(&world.path(layout))["manifests"][at]);
        let config = document(&world.path(layout), &manifest["config"]);
        let layers = manifest["layers"].as_array().unwrap().clone();
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), layers.len());
        layers
    };
    for at in [0, 1] {
        let (bare, two) = (layers("bare", at), layers("one", at));
        assert!(two.len() == bare.len() + 1 && two.starts_with(&bare), "{two:?}");
    }
    let layer = world.path("one/blobs").join(layers("one", 1)[1]["digest"].as_str().unwrap().replace(':', "/"));
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(layer).unwrap()));
    let entry = archive.entries().unwrap().map(Result::unwrap).last().unwrap();
    let header = entry.header();
    assert_eq!((header.mode().unwrap(), header.uid().unwrap(), header.gid().unwrap()), (0o755, 0, 0));
    world.run(&["verify", "one", "--platform", PLATFORMS, "--deep", "--nonroot"], &[]).said(0, &[]);

    make(&["--add", "linux/s390x=amd64"], "wrong").said(1, &["not for linux/s390x but for amd64"]);
    make(&["--add", "linux/arm64=amd64"], "wrong").said(2, &["that platform is not built", "--platform linux/arm64"]);
    make(&["--add", "linux/amd64=nowhere"], "wrong").said(2, &["cannot read", "nowhere"]);
    assert!(!world.path("wrong").exists());
}

/// As step images are put together: what differs between two machines is in no byte of it.
#[test]
fn the_same_programs_make_the_same_image_whoever_laid_them_out_where_and_when() {
    let world = World::new();
    world.write("ci/images.toml", "[build.tool]\nfiles = { '/etc/x' = 'y' }\nuser = '65532:65532'\n");
    let digest = |machine: &str, mask: u32, days: u64, backwards: bool| {
        // Two layers for each platform, as of Go and of what is compiled here.
        let mut files: Vec<_> = ["amd64", "s390x"]
            .iter()
            .flat_map(|arch| ["go/bin/go", "go/bin/gofmt", "usr/local/bin/tool"].map(|file| (*arch, file)))
            .collect();
        if backwards {
            files.reverse();
        }
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(days * 86400);
        let layer = |arch: &str, file: &str| format!("{machine}/{arch}-{}", file.split('/').next().unwrap());
        for (arch, file) in files {
            let layer = layer(arch, file);
            let path = world.write(&format!("{layer}/{file}"), elf(arch));
            let within = world.path(&layer);
            for path in Path::new(&path).ancestors().take_while(|path| path.starts_with(&within)) {
                fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777 & !mask)).unwrap();
                fs::File::open(path).unwrap().set_modified(time).unwrap();
            }
        }
        let added = ["amd64", "s390x"]
            .map(|arch| ["go", "usr"].map(|file| format!("--add=linux/{arch}={}", world.name(&layer(arch, file)))));
        let layout = format!("{machine}/image");
        let args = ["base", "build", "tool", "--ci", "ci", "--platform", PLATFORMS, "--layout", &layout];
        let args = args.into_iter().chain(["--output", "json"]).chain(added.iter().flatten().map(String::as_str));
        let cache = world.name(&format!("{machine}/cache"));
        let env = [("OTHER_ARCH_CACHE", cache.as_str()), ("TZ", if backwards { "Asia/Tokyo" } else { "UTC" })];
        let made = world.run(&args.collect::<Vec<_>>(), &env).answered(0);
        let manifest = document(&world.path(&layout), &index(&world.path(&layout))["manifests"][1]);
        assert_eq!(manifest["layers"].as_array().unwrap().len(), 3, "{manifest}");
        made["digest"].clone()
    };
    let first = digest("here", 0o022, 1, false);
    assert_eq!(digest("there", 0o077, 20_000, true), first);
}
