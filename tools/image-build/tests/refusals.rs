//! What a build refuses, and that then nothing of it is in the registry.

#[path = "../../lib/oci/tests/support/mod.rs"]
mod support;

mod component;

use component::{Ended, World, ko};
use serde_json::json;
use support::{Made, Trouble, index};

/// Nothing of a test: see [`ko`].
#[test]
fn stand_in_ko() {
    ko::run();
}

impl World {
    /// What it wrote to the registry, as it is counted there.
    fn writes(&self) -> usize {
        ["PUT", "POST", "PATCH"].map(|method| self.registry.requests(method)).iter().sum()
    }

    #[track_caller]
    fn refuses(&self, more: &[&str], code: i32, words: &[&str]) -> Ended {
        let ended = self.build_with(more, &[]).says(code, words);
        assert_eq!((self.release(), self.writes()), (None, 0), "{}", ended.err);
        ended
    }
}

#[test]
fn help_says_the_exit_codes() {
    let world = World::new();
    for verb in [&["build"][..], &["base"], &["bases"], &["verify"]] {
        let help = world.run(&[verb, &["--help"]].concat(), &[]);
        assert!(help.code == 0 && help.out.contains("Exit code"), "{verb:?} {}", help.out);
    }
}

#[test]
fn an_image_without_a_program_is_not_published() {
    let world = World::new();
    ko::built(&world.path(""), "e.com/x/cmd/x", &[("amd64", "amd64"), ("s390x", "nothing")]);
    world.refuses(
        &["--platform", "linux/amd64,linux/s390x"],
        1,
        &["error[product]", "e.com/x/cmd/x linux/s390x: there is no program that it starts"],
    );
}

#[test]
fn a_base_in_one_manifest_is_refused_where_several_platforms_are_asked_for() {
    let world = World::new();
    Made::new("amd64", "amd64").push(&world.registry, "plain");
    let base = format!("--base={}/plain:plain", world.registry.host);
    world.refuses(&[&base], 1, &["/plain:plain (for default) has no linux/arm64, linux/s390x, linux/ppc64le"]);
    assert!(!world.path("called").exists());
}

#[test]
fn only_bases_that_something_is_built_on_count() {
    let world = World::new();
    let own = format!("--base=e.com/x/cmd/x={}/base:v1", world.registry.host);
    let ended = world.build_with(&["--base=default=127.0.0.1:1/away:v1", &own, "--base=e.com/y=127.0.0.1:1/z"], &[]);
    ended.says(0, &["ok"]);
}

#[test]
fn ko_failing_on_one_of_several_packages_publishes_none() {
    let world = World::new();
    world.write("x/config/b.yaml", "kind: A\nx: ko://e.com/x/cmd/y\n");
    let failing = "echo 'Error: failed to publish images: error building \"ko://e.com/x/cmd/y\": build: go build: exit \
                   status 1: # e.com/x/cmd/y' >&2; echo 'cmd/y/main.go:3:2: undefined: z' >&2; exit 1";
    world.program("bin/ko", &format!("{}{failing}", ko::script(&world.path(""), "")));
    world.refuses(&[], 1, &["error[build-failure]", "# e.com/x/cmd/y", "cmd/y/main.go:3:2: undefined: z"]);
}

#[test]
fn a_ko_on_the_path_that_is_too_old_is_left_alone() {
    let world = World::new();
    world.program("path/ko", "echo 0.15.2");
    let path = world.name("path");
    let ended = world.build_with(&[], &[("OTHER_ARCH_KO", ""), ("PATH", &path)]);
    // Ours would be installed, which needs Go.
    ended.says(5, &["is version 'v0.15.2', not v0.19.x: another one is used", "ko is needed"]);
}

#[test]
fn images_of_windows_are_asked_for_windows_only_and_stand_ins_for_linux_only() {
    let world = World::new();
    let windows = || Made { os: "windows", ..Made::new("amd64", "amd64") };
    let win = {
        let mut image = windows();
        image.settings = json!({});
        let image = image.push(&world.registry, "win");
        let digest = index(&world.registry, "win", "v1", &[image])["digest"].as_str().unwrap().to_owned();
        format!("{}/win@{digest}", world.registry.host)
    };
    let shell = "r.io/x/shell:1";
    world.write(
        "ci/images.toml",
        format!(
            "[[image]]\nnames = ['{shell}']\nbuild = 'shell'\n[[image]]\nnames = ['{win}']\nunused = 'only Windows'\n\
             [build.shell]\nfiles = {{ '/etc/x' = 'y' }}\n"
        ),
    );
    let text = format!("kind: A\nimage: ko://e.com/x/cmd/x\nargs: ['-shell', '{shell}', '-win', '{win}']\n");
    world.write("x/config/a.yaml", text);
    let bases = [Made::new("s390x", "s390x").push(&world.registry, "both"), windows().push(&world.registry, "both")];
    index(&world.registry, "both", "v1", &bases);
    ko::built(&world.path(""), "e.com/x/cmd/x", &[("s390x", "s390x"), ("windows/amd64", "amd64")]);
    let base = format!("--base={}/both:v1", world.registry.host);
    let ended = world.build_with(&["--platform", "linux/s390x,windows/amd64", &base], &[]);
    assert_eq!(ended.code, 0, "{}{}", ended.out, ended.err);
    let record = world.record();
    let of = |number: usize| {
        let rows = record["images"][number]["platforms"].as_array().unwrap();
        rows.iter().map(|row| row["platform"].as_str().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(
        (of(0), of(1), of(2)),
        (vec!["linux/s390x", "windows/amd64"], vec!["linux/s390x"], vec!["windows/amd64"])
    );
    let release = world.name("run/x/release.yaml");
    let args = ["verify", &release, "--platform", "linux/s390x,windows/amd64", "--ci", &world.name("ci")];
    // There the stand-in stands now, and still runs on Linux only.
    let ended = world.run(&args, &[]).says(0, &["linux/s390x", "windows/amd64"]);
    assert_eq!(ended.out.lines().count(), 1 + 2 + 1 + 1, "{}", ended.out);
}

#[test]
fn what_is_asked_for_in_a_comment_is_not_asked_for() {
    let world = World::new();
    let text = component::config("ko://e.com/x/cmd/x # not ko://e.com/x/cmd/old");
    world.write("x/config/a.yaml", format!("# instead of ko://e.com/x/cmd/y\n{text}"));
    world.build_with(&[], &[]).says(0, &[]);
    world.write("x/config/b.yaml", "kind: A\ntext: |\n  and ko://e.com/x/cmd/z\n");
    world.build_with(&[], &[]).says(2, &["cannot be replaced", "> and ko://e.com/x/cmd/z"]);
}

#[test]
fn a_version_is_put_in_its_place_or_refused() {
    let world = World::new();
    world.build_with(&["--version=v1.2.3+z"], &[]).says(0, &[]);
    let (release, record) = (world.release().unwrap(), world.record());
    assert!(release.contains("version: \"v1.2.3+z\"") && release.contains(":v1.2.3-z@sha256:"), "{release}");
    assert_eq!(record["version"], "v1.2.3+z");
    assert!(record["reproduce"].as_str().unwrap().contains("--version=v1.2.3+z"));
    let world = World::new();
    for wrong in ["", "a\nb", "\"x", "-v"] {
        world.refuses(&[&format!("--version={wrong}")], 2, &["a version has letters"]);
    }
    world.write("x/config/a.yaml", "kind: A\nimage: ko://e.com/x/cmd/x\n");
    world.refuses(&["--version=v1"], 2, &["nothing in the configuration of x has the version 'devel' to replace"]);
}

#[test]
fn a_release_takes_nothing_from_the_registry() {
    let world = World::new();
    for release in ["--version=v1.2.3", "--tag=v1.2.3", "--tag=1.2"] {
        world.refuses(&["--reuse", release], 2, &["is a release, which --reuse is not for"]);
    }
}

#[test]
fn a_registry_that_breaks_gets_no_release() {
    let image = "/v2/repo/e.com/x/cmd/x";
    for (request, tagged) in [
        (format!("POST {image}/blobs/uploads"), false),
        (format!("PUT {image}/manifests/sha256:"), false),
        (format!("PUT {image}/manifests/devel"), false),
        ("POST /v2/repo/release/x/blobs/uploads".into(), true),
        ("PUT /v2/repo/release/x/manifests/devel".into(), true),
    ] {
        let world = World::new();
        world.registry.trouble(&request, 1000, Trouble::Status(500, ""));
        world.build_with(&[], &[]).says(3, &["error[registry]", "500"]);
        assert_eq!(world.release(), None, "{request}");
        let tags = world.registry.tags();
        assert_eq!(tags.contains(&"repo/e.com/x/cmd/x:devel".into()), tagged, "{request}: {tags:?}");
        assert!(!tags.iter().any(|tag| tag.starts_with("repo/release/")), "{request}: {tags:?}");
    }
}
