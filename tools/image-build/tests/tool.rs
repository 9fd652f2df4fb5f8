//! The real program against a registry and a ko that stand in for real ones.

#[path = "../../lib/oci/tests/support/mod.rs"]
mod support;

mod component;

use std::{fs, path::Path, process::Command};

use component::{ALL, PLATFORMS, SHELL, WINDOWS, World, ko};
use kit::Process;
use serde_json::{Value, json};

/// Nothing of a test: see [`ko`].
#[test]
fn stand_in_ko() {
    ko::run();
}

#[test]
fn a_component_becomes_a_release() {
    let world = World::new();
    let ended = world.build_with(
        &["--jobs", "2", "--", "--image-label=a=b"],
        &[("GOOS", "plan9"), ("GOFLAGS", "-mod=x"), ("KO_DEFAULTPLATFORMS", "all")],
    );
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert!(ended.out.contains("e.com/x/cmd/x") && ended.out.contains("elf s390x 64BE"), "{}", ended.out);
    let called = fs::read_to_string(world.path("called")).unwrap();
    assert!(
        called.contains(&format!("--platform={PLATFORMS}"))
            && called.contains("--jobs=2")
            && called.contains("--image-label=a=b"),
        "{called}"
    );
    let env = fs::read_to_string(world.path("env")).unwrap();
    assert!(
        !env.contains("plan9") && !env.contains("KO_DEFAULTPLATFORMS") && env.contains("GOFLAGS=-buildvcs=false\n"),
        "{env}"
    );
    let (record, release) = (world.record(), world.release().unwrap());
    assert_eq!((&record["outcome"], &record["images"][0]["kind"]), (&json!("passed"), &json!("built")));
    assert_eq!(record["images"][0]["platforms"].as_array().unwrap().len(), 4);
    let stand_in = record["replacements"][0]["to"].as_str().unwrap();
    assert!(stand_in.starts_with(&format!("{}/mirror/cgr.dev/x/busybox@sha256:", world.registry.host)));
    assert!(release.contains(stand_in) && !release.contains(SHELL) && release.contains(WINDOWS), "{release}");
    assert!(!release.contains("127.0.0.1:1/") && !world.path("run/x/layout").exists());
    assert!(release.starts_with("# A comment") && release.contains("version: \"devel\""), "{release}");
    assert_eq!(record["unused"][0]["reason"], "only Windows");
    assert!(release.contains(":devel@sha256:") && record["release"]["objects"] == 1);
    let bare = fs::read_to_string(world.path("run/x/release.notags.yaml")).unwrap();
    assert_eq!(bare, release.replace(":devel@", "@").replace(":win@", "@"));
    // It can be checked again by its artifact and by its file.
    let (artifact, file, ci) =
        (record["release"]["artifact"].as_str().unwrap(), world.path("run/x/release.yaml"), world.path("ci"));
    for what in [artifact, file.to_str().unwrap()] {
        let again = world.run(&["verify", what, "--platform", "linux/s390x", "--ci", ci.to_str().unwrap()], &[]);
        assert_eq!((again.code, again.out.lines().count()), (0, 3), "{}{}", again.out, again.err);
    }
}

#[test]
fn a_release_that_exists_becomes_part_of_a_run() {
    let world = World::new();
    let digest = world.push("published/x", ALL);
    let image = format!("{}/published/x@{digest}", world.registry.host);
    let text = format!("kind: A\nmetadata:\n  labels:\n    app.kubernetes.io/version: v7\nimage: {image}\n");
    world.write("there.yaml", &text);
    let (file, run, ci) = (world.path("there.yaml"), world.path("run"), world.path("ci"));
    let verify = |what: &str, platform: &str| {
        let run = run.to_str().unwrap();
        let args = [
            "verify",
            what,
            "--component",
            "x",
            "--run-dir",
            run,
            "--platform",
            platform,
            "--ci",
            ci.to_str().unwrap(),
        ];
        world.run(&args, &[])
    };
    let ended = verify(file.to_str().unwrap(), PLATFORMS);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(world.release().unwrap(), text);
    let record = world.record();
    assert_eq!((&record["version"], &record["images"][0]["digest"]), (&json!("v7"), &json!(digest)));
    assert_eq!(record["release"]["digest"], json!(kit::digest::sha256(text.as_bytes())));
    fs::remove_file(world.path("run/x/release.yaml")).unwrap();
    let ended = verify(file.to_str().unwrap(), "linux/riscv64");
    assert_eq!((ended.code, &world.record()["cause"]), (1, &json!("image-missing-platform")), "{}", ended.err);
    assert!(world.release().is_none());
    let ended = verify(&image, "linux/amd64");
    assert!(ended.code == 2 && ended.err.contains("is no release"), "{}", ended.err);
    assert_eq!(world.record()["outcome"], "failed");
}

#[test]
fn a_base_without_a_platform_is_named_before_anything_is_built() {
    let world = World::new();
    world.push("base", &["amd64", "arm64", "ppc64le"]);
    let ended = world.build_with(&[], &[]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(
        ended.err.contains("image-missing-platform") && ended.err.contains("/base:v1 (for default) has no linux/s390x"),
        "{}",
        ended.err
    );
    assert!(!world.path("called").exists() && world.release().is_none());
    let record = world.record();
    assert_eq!((&record["outcome"], &record["cause"]), (&json!("failed"), &json!("image-missing-platform")));
    assert!(record["reproduce"].as_str().unwrap().starts_with("image-build build --component=x"));
}

#[test]
fn a_hole_that_ko_calls_success_is_not_released() {
    let world = World::new();
    assert_eq!(world.build_with(&[], &[]).code, 0);
    world.build("x", &["amd64", "arm64", "ppc64le"]);
    let before = world.registry.requests("PUT /v2/repo/e.com/x");
    let ended = world.build_with(&[], &[]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert_eq!(world.registry.requests("PUT /v2/repo/e.com/x"), before, "it was published");
    assert!(ended.err.contains("e.com/x/cmd/x linux/s390x: it has no linux/s390x"), "{}", ended.err);
    assert!(world.release().is_none(), "an earlier release must not be taken for this one");
    assert_eq!(world.record()["images"][0]["platforms"][2]["cause"], "image-missing-platform");
}

#[test]
fn a_program_for_another_machine_is_not_published() {
    let world = World::new();
    let platforms = [("amd64", "amd64"), ("arm64", "amd64"), ("s390x", "s390x"), ("ppc64le", "ppc64le")];
    ko::built(&world.path(""), "e.com/x/cmd/x", &platforms);
    let ended = world.build_with(&[], &[]);
    assert_eq!((ended.code, world.release()), (1, None), "{}", ended.err);
    assert!(ended.err.contains("e.com/x/cmd/x linux/arm64: /app/x is a program for amd64"), "{}", ended.err);
    assert_eq!(world.record()["cause"], "image-wrong-arch");
    // Neither it nor a stand-in, which is good.
    assert_eq!((world.registry.requests("PUT"), world.registry.requests("POST")), (0, 0));
}

#[test]
fn images_have_the_names_and_tags_that_were_asked_for() {
    let world = World::new();
    let result = world.path("IMAGES");
    for (more, name) in [(&[][..], "repo/e.com/x/cmd/x"), (&["--base-import-paths"], "repo/x"), (&["--bare"], "repo")] {
        let file = format!("--images-result={}", result.display());
        let ended = world.build_with(&[&["--tag=v1", "--tag=latest", &file], more].concat(), &[]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        let digest = world.record()["images"][0]["digest"].as_str().unwrap().to_owned();
        let reference = format!("{}/{name}", world.registry.host);
        assert!(world.release().unwrap().contains(&format!("{reference}:v1@{digest}")));
        assert_eq!(fs::read_to_string(&result).unwrap(), format!("{reference}@{digest}"));
        let bare = fs::read_to_string(world.path("run/x/release.notags.yaml")).unwrap();
        assert!(bare.contains(&format!("{reference}@{digest}")), "{bare}");
        for tag in ["v1", "latest"] {
            let verified = world.run(&["verify", &format!("{reference}:{tag}"), "--platform", PLATFORMS], &[]);
            assert_eq!(verified.code, 0, "{}", verified.err);
            let release = format!("{}/repo/release/x:{tag}", world.registry.host);
            let verified = world.run(&["verify", &release, "--platform", PLATFORMS, "--ci", &world.name("ci")], &[]);
            assert_eq!(verified.code, 0, "{}", verified.err);
        }
    }
    let file = format!("--images-result={}", result.display());
    let ended = world.build_with(&[&file, "--images-result-limit=100"], &[]);
    assert!(ended.code == 2 && ended.err.contains("the result IMAGES would have"), "{}", ended.err);
    assert!(world.release().is_none() && !result.exists(), "an earlier one must not be taken for this one's");
}

#[test]
fn names_that_would_be_the_same_are_refused() {
    let world = World::new();
    world.write("x/config/b.yaml", "kind: A\nx: ko://e.com/x/cmd/y\n");
    let ended = world.build_with(&["--bare"], &[]);
    assert!(ended.code == 2 && ended.err.contains("would both be called"), "{}", ended.err);
    assert!(!world.path("called").exists());
}

#[test]
fn all_platforms_are_those_of_the_default_base() {
    let world = World::new();
    let host = world.registry.host.clone();
    let ended = world.build_with(&["--platform", "all"], &[]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let called = fs::read_to_string(world.path("called")).unwrap();
    assert!(called.contains(&format!("--platform={PLATFORMS}\n")), "{called}");
    assert_eq!(world.record()["platforms"].as_array().unwrap().len(), 4);
    // As ko has it: an operating system alone is all that the base has of it.
    assert_eq!(world.build_with(&["--platform", "linux"], &[]).code, 0);
    assert!(fs::read_to_string(world.path("called")).unwrap().contains(&format!("--platform={PLATFORMS}\n")));
    assert!(world.record()["reproduce"].as_str().unwrap().contains("--platform=linux "));
    let ended = world.build_with(&["--platform", "windows"], &[]);
    assert!(ended.code == 1 && ended.err.contains("offers nothing for 'windows'"), "{}", ended.err);
    // With a base that lacks one the others are asked for what the default has.
    world.push("small", &["amd64"]);
    let ended = world.build_with(&["--platform", "all", &format!("--base=e.com/x/cmd/x={host}/small:v1")], &[]);
    assert!(ended.code == 1 && ended.err.contains("/small:v1 (for e.com/x/cmd/x) has no"), "{}", ended.err);
    // Unless the component says so of an image.
    world.write(
        "ci/components.toml",
        "[x]\npath = 'x'\nconfig = ['config']\nplatforms = { 'e.com/x/cmd/x' = ['linux/amd64'] }\n",
    );
    let ended = world.build_with(&["--platform", "all", &format!("--base=e.com/x/cmd/x={host}/small:v1")], &[]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    assert_eq!(world.record()["images"][0]["platforms"].as_array().unwrap().len(), 1);
}

#[test]
fn an_old_ko_is_exit_5() {
    let world = World::new();
    world.write("bin/ko", "#!/bin/sh\necho 0.18.1\n");
    let ended = world.build_with(&[], &[]);
    assert!(ended.code == 5 && ended.err.contains("is ko v0.18.1, which is too old"), "{}", ended.err);
}

#[test]
fn an_image_of_the_config_without_a_platform_is_named() {
    let world = World::new();
    world.push("other", &["amd64"]);
    let other = format!("{}/other:v1", world.registry.host);
    world.write("x/config/b.yaml", format!("kind: A\nimage: {other}\n"));
    let ended = world.build_with(&[], &[]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains(&format!("{other} linux/arm64: it has no linux/arm64")), "{}", ended.err);
    assert!(!world.path("called").exists());
}

#[test]
fn what_ko_forgets_is_missed() {
    let world = World::new();
    world.write("x/config/b.yaml", "kind: A\nx: ko://e.com/x/cmd/forgotten\n");
    let ended = world.build_with(&[], &[]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(ended.err.contains("ko built no image for ko://e.com/x/cmd/forgotten"), "{}", ended.err);
}

#[test]
fn sources_that_do_not_compile_are_the_product_s_fault() {
    let world = World::new();
    world.ko("echo '# e.com/x/cmd/x' >&2; echo 'cmd/x/main.go:7:2: undefined: y' >&2; exit 1");
    let ended = world.build_with(&[], &[]);
    assert_eq!(ended.code, 1, "{}", ended.err);
    assert!(
        ended.err.contains("error[build-failure]") && ended.err.contains("> cmd/x/main.go:7:2: undefined: y"),
        "{}",
        ended.err
    );
    assert_eq!(world.record()["line"], "# e.com/x/cmd/x\ncmd/x/main.go:7:2: undefined: y");
}

#[test]
fn a_missing_ko_is_exit_5_and_says_what_to_do() {
    let world = World::new();
    let nothing = world.path("empty");
    fs::create_dir(&nothing).unwrap();
    for variables in [
        [("OTHER_ARCH_KO", ""), ("PATH", nothing.to_str().unwrap())],
        [("OTHER_ARCH_KO", "/nonexistent/ko"), ("X", "")],
    ] {
        let ended = world.build_with(&[], &variables);
        assert_eq!(ended.code, 5, "{}", ended.err);
        assert_eq!(world.record()["cause"], "missing-program");
    }
    let ended = world.build_with(&[], &[("OTHER_ARCH_KO", ""), ("PATH", nothing.to_str().unwrap())]);
    assert!(ended.err.contains("go install github.com/google/ko@") && ended.err.contains("--ko"), "{}", ended.err);
}

#[test]
fn wrong_calls_are_exit_2() {
    let world = World::new();
    for (more, said) in [
        (&["--component", "y"][..], "the argument '--component <NAME>' cannot be used multiple times"),
        (&["--platform", "linux/vax"], "unknown architecture 'vax'"),
        (&["--platform", "plan9/amd64"], "unknown operating system 'plan9'"),
    ] {
        let ended = world.build_with(more, &[]);
        assert_eq!((ended.code, ended.err.contains(said)), (2, true), "{}", ended.err);
    }
    let ci = world.path("ci");
    let args = [
        "build",
        "--component",
        "y",
        "--ci",
        ci.to_str().unwrap(),
        "--repo",
        "localhost:1/x",
        "--platform",
        "linux/amd64",
        "--run-dir",
        "/nonexistent",
    ];
    let ended = world.run(&args, &[]);
    assert!(ended.code == 2 && ended.err.contains("unknown component 'y'"), "{}", ended.err);
    world.write("ci/images.toml", "colour = 1\n");
    let ended = world.build_with(&[], &[]);
    assert!(ended.code == 2 && ended.err.contains("images.toml:1:1: unknown field `colour`"), "{}", ended.err);
}

#[test]
fn an_unreachable_registry_is_exit_3() {
    let world = World::new();
    let ended = world.build_with(&["--base", "127.0.0.1:1/base:v1"], &[]);
    assert_eq!(ended.code, 3, "{}", ended.err);
    assert!(ended.err.contains("error[registry]") && ended.err.contains("127.0.0.1:1"), "{}", ended.err);
    assert_eq!(world.record()["cause"], "registry");
}

#[test]
fn an_image_is_verified_by_reference() {
    let world = World::new();
    let good = format!("{}/base:v1", world.registry.host);
    let ended = world.run(&["verify", &good, "--platform", PLATFORMS], &[]);
    assert_eq!((ended.code, ended.out.lines().count()), (0, 5), "{}", ended.err);
    let ended = world.run(&["verify", &good, "--platform", "linux/riscv64,linux/amd64"], &[]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("WRONG: it has no linux/riscv64"), "{}", ended.out);
    let ended = world.run(&["verify", "127.0.0.1:1/x:y", "--platform", "linux/amd64"], &[]);
    assert_eq!(ended.code, 3, "{}", ended.err);
}

#[test]
fn the_same_definition_gives_the_same_image_anywhere() {
    let reference = |world: &World| {
        let (ci, repo) = (world.path("ci"), format!("{}/repo", world.registry.host));
        let args = ["base", "build", "shell", "--ci", ci.to_str().unwrap(), "--to", &repo, "--platform", PLATFORMS];
        let ended = world.run(&args, &[]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        let digest = ended.out.trim().rsplit_once('@').unwrap().1.to_owned();
        let layout = fs::read_dir(world.path("cache/images")).unwrap().next().unwrap().unwrap().path();
        assert!(Path::new(&layout).join("index.json").is_file());
        let verified = world.run(&["verify", layout.to_str().unwrap(), "--platform", PLATFORMS], &[]);
        assert_eq!(verified.code, 0, "{}", verified.err);
        digest
    };
    assert_eq!(reference(&World::new()), reference(&World::new()));
}

#[test]
fn credentials_are_used_and_not_shown() {
    let world = World::new();
    let name = format!("{}/base:v1", world.registry.host);
    // "user:secret-word"
    let config = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"dXNlcjpzZWNyZXQtd29yZA==\"}}}}}}", world.registry.host);
    world.write("docker/config.json", &config);
    let docker = world.path("docker");
    let verify =
        |folder: &str| world.run(&["verify", &name, "--platform", "linux/arm64"], &[("DOCKER_CONFIG", folder)]);
    world.registry.guard("Basic dXNlcjpzZWNyZXQtd29yZA==", "WWW-Authenticate: Basic realm=\"x\"\r\n");
    let ended = verify(docker.to_str().unwrap());
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    for folder in ["/nonexistent", world.path("docker/other").to_str().unwrap()] {
        world.write("docker/other/config.json", config.replace("dXNlcjpzZWNyZXQtd29yZA==", "dXNlcjpzZWNyZXQ="));
        let ended = verify(folder);
        assert!(ended.code == 3 && ended.err.contains("error[auth]"), "{}{}", ended.out, ended.err);
        assert!(!ended.err.contains("secret") && !ended.err.contains("dXNl"), "{}", ended.err);
    }
    world.write("docker/other/config.json", config.replace("}}}", "secret"));
    let ended = verify(world.path("docker/other").to_str().unwrap());
    assert!(ended.code == 3 && !ended.err.contains("secret"), "{}", ended.err);
}

#[test]
fn a_token_is_asked_for_where_the_registry_says() {
    let world = World::new();
    let name = format!("{}/base:v1", world.registry.host);
    let challenge =
        format!("WWW-Authenticate: Bearer realm=\"http://{}/token\",service=\"x\"\r\n", world.registry.host);
    world.registry.guard("Bearer T", challenge.leak());
    let token = support::Answer::Content { media_type: "application/json".into(), bytes: br#"{"token":"T"}"#.to_vec() };
    world.registry.set("/token", token);
    let ended = world.run(&["verify", &name, "--platform", "linux/arm64"], &[]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
}

#[test]
fn a_mirror_keeps_the_platforms_that_others_asked_for() {
    let world = World::new();
    world.write(
        "ci/images.toml",
        "[[image]]\nnames = ['docker.io/library/x:1']\nbuild = 'shell'\n[build.shell]\nfiles = { '/etc/x' = 'y' }\n",
    );
    let (ci, repo) = (world.path("ci"), format!("{}/repo", world.registry.host));
    let mirror = format!("{}/mirror/docker.io/library/x:1", world.registry.host);
    for platforms in [PLATFORMS, "linux/arm64"] {
        let ended = world.run(&["images", "--ci", ci.to_str().unwrap(), "--repo", &repo, "--platform", platforms], &[]);
        assert_eq!(ended.code, 0, "{}", ended.err);
        let verified = world.run(&["verify", &mirror, "--platform", PLATFORMS], &[]);
        assert_eq!(verified.code, 0, "{}", verified.out);
    }
}

#[test]
fn what_no_mirror_can_serve_becomes_an_archive() {
    let world = World::new();
    let name = format!("docker.io/library/x@sha256:{}", "0".repeat(64));
    world.write(
        "ci/images.toml",
        format!(
            "[[image]]\nnames = ['{name}']\npreload = true\nbuild = 'shell'\n[[image]]\nnames = ['x.y/z:1']\n\
             build = 'other'\n[build.shell]\nfiles = {{ '/etc/x' = 'y' }}\n[build.other]\nextends = 'shell'\n"
        ),
    );
    let (ci, repo, out) = (world.path("ci"), format!("{}/repo", world.registry.host), world.path("out"));
    let args = ["images", "--ci", ci.to_str().unwrap(), "--repo", &repo, "--platform", PLATFORMS, "--preload"];
    let ended = world.run(&[&args[..], &[out.to_str().unwrap()]].concat(), &[]);
    assert_eq!(ended.code, 0, "{}", ended.err);
    let files: Vec<_> = fs::read_dir(out).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [file] = &files[..] else { panic!("{files:?}") };
    assert_eq!(file.extension().unwrap(), "tar");
    assert!(
        String::from_utf8_lossy(&fs::read(file).unwrap()).contains(&format!("\"io.containerd.image.name\":\"{name}\""))
    );
}

#[test]
fn the_probe_is_named_by_its_digest_and_is_for_every_platform_asked_for() {
    let world = World::new();
    world.write("ci/images.toml", "[build.static]\nfiles = { '/etc/x' = 'y' }\n");
    let (ci, repo) = (world.path("ci"), format!("{}/repo", world.registry.host));
    for (arches, code) in [(ALL, 0), (&ALL[..2], 1)] {
        let platforms: Vec<_> = arches.iter().map(|arch| (*arch, *arch)).collect();
        ko::built(&world.path(""), "other-arch/probe", &platforms);
        let args = ["probe", "--ci", ci.to_str().unwrap(), "--repo", &repo, "--platform", PLATFORMS];
        let ended = world.run(&args, &[]);
        assert_eq!(ended.code, code, "{}", ended.err);
        match code {
            0 => assert!(ended.out.starts_with(&format!("{repo}/other-arch/probe:v-")), "{}", ended.out),
            _ => assert!(ended.err.contains("error[image-missing-platform]"), "{}", ended.err),
        }
        // Once, when it was good.
        assert_eq!(world.registry.requests("PUT /v2/repo/other-arch/probe/manifests/v-"), 1);
    }
    assert!(fs::read_to_string(world.path("called")).unwrap().contains(&format!("--platform={PLATFORMS}")));
}

#[test]
fn a_signal_leaves_a_record() {
    let world = World::new();
    world.ko(&format!("touch {0}/called; exec sleep 60", world.path("").display()));
    let args = world.build_args(&[]);
    let mut command = world.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
    command.env("RUST_BACKTRACE", "0");
    let mut child = Process::new("image-build", command).spawn(&world.path("log")).unwrap();
    let late = || kit::Error::new(kit::Cause::Internal, "ko was not called");
    kit::retry::until(std::time::Duration::from_secs(60), late, || Ok(world.path("called").exists().then_some(())))
        .unwrap();
    let mut kill = Command::new("kill");
    kill.args(["-INT", &child.id().to_string()]);
    Process::new("kill", kill).run().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(world.record()["cause"], "interrupted");
    assert!(world.release().is_none());
}

#[test]
fn an_architecture_is_known_by_all_its_names() {
    let world = World::new();
    let ended = world.run(&["arch", "powerpc64le-unknown-linux-gnu", "--output", "json"], &[]);
    assert_eq!(serde_json::from_str::<Value>(&ended.out).unwrap()[0]["debian"], "ppc64el");
    assert_eq!(world.run(&["arch", "vax"], &[]).code, 2);
}
