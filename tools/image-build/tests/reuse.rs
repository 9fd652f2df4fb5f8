//! `build --reuse` with a registry, a ko and a Go that stand in for real ones: what is taken from the registry, and
//! everything that makes an image be built again.

mod component;
#[path = "../../lib/oci/tests/support/mod.rs"]
mod support;

use std::{collections::BTreeMap, fs};

use component::{ALL, Ended, World, config, ko};
use oci::{Artifact, ArtifactFile, Client};
use serde_json::{Value, json};
use support::{Answer, Made, Trouble};

const TYPE: &str = "application/vnd.other-arch.inputs.v1+json";
const TAG: &str = "repo/e.com/x/cmd/x:inputs-";

/// Nothing of a test: see [`ko`].
#[test]
fn stand_in_ko() {
    ko::run();
}

/// What builds and pushes leave behind.
struct Seen {
    /// Import paths that ko was asked for, if it was.
    asked: Option<Vec<String>>,
    reused: Vec<String>,
    release: String,
}

/// A component with two commands, and a Go that says what stands in the file `packages`.
fn world() -> World {
    let world = World::new();
    world.write("x/config/b.yaml", config("ko://e.com/x/cmd/y"));
    world.build("y", ALL);
    packages(&world, &["dep 1", "x 1", "y 1"]);
    go(&world, "echo 0", "");
    world
}

fn go(world: &World, env: &str, list: &str) {
    let script = format!(
        "case \"$1\" in\nenv) {env}; echo go1.99 $GOOS $GOARCH $GOFLAGS;;\ntool) echo link version go1.99;;\n\
         list) {list}\n{{ printf %s \"$GOOS/$GOARCH $*\" | tr '\\n' ' '; echo; }} >> {0}/listed; cat {0}/packages;;\n*) exit 1;;\nesac",
        world.path("").display()
    );
    world.program("bin/go", &script);
}

/// `dep`, which only y needs, and the commands x and y, each with a number that is its build ID.
fn packages(world: &World, ids: &[&str]) {
    let mut text = "package\tunsafe\t\n".to_owned();
    for line in ids {
        let (name, id) = line.split_once(' ').unwrap();
        let path = if name == "dep" { "e.com/dep".into() } else { format!("e.com/x/cmd/{name}") };
        text += &format!("package\t{path}\t{id}\n");
        if name != "dep" {
            let needs = if name == "y" { "unsafe e.com/dep" } else { "unsafe" };
            text += &format!("command\t{path}\t{}\t{needs}\n", world.name(&format!("x/cmd/{name}")));
        }
    }
    world.write("packages", text);
}

fn run(world: &World, more: &[&str], env: &[(&str, &str)]) -> Ended {
    let _ = fs::remove_file(world.path("called"));
    let go = world.name("bin/go");
    world.build_with(more, &[&[("OTHER_ARCH_GO", go.as_str())], env].concat())
}

fn build(world: &World, more: &[&str], env: &[(&str, &str)]) -> Seen {
    let ended = run(world, more, env);
    assert_eq!(ended.code, 0, "{more:?} {env:?}: {}", ended.err);
    let asked = world.path("called").exists().then(|| {
        let asked: Value = serde_yaml_ng::from_str(&world.read("run/x/ko-images.yaml")).unwrap();
        asked["images"].as_object().unwrap().keys().map(|import| import.rsplit('/').next().unwrap().into()).collect()
    });
    let reused = world.record()["reused"].as_array().cloned().unwrap_or_default();
    let reused = reused.iter().map(|name| name.as_str().unwrap().rsplit('/').next().unwrap().to_owned()).collect();
    Seen { asked, reused, release: world.release().unwrap() }
}

fn reuse(world: &World) -> Seen {
    build(world, &["--reuse"], &[])
}

#[track_caller]
fn assert_built(seen: &Seen, names: &[&str], why: &str) {
    assert_eq!(seen.asked.as_deref().unwrap_or_default(), names, "{why}");
    assert_eq!(seen.reused.len(), 2 - names.len(), "{why}");
}

fn writes(world: &World) -> usize {
    ["PUT ", "POST ", "PATCH "].map(|method| world.registry.requests(method)).iter().sum()
}

#[test]
fn nothing_changed_means_nothing_done_and_the_same_release() {
    for lists in [true, false] {
        let world = world();
        world.registry.able(|writes| writes.lists_referrers = lists);
        let first = reuse(&world);
        assert_built(&first, &["x", "y"], "nothing is there yet");
        let before = writes(&world);
        let again = reuse(&world);
        assert_built(&again, &[], "nothing changed");
        assert_eq!(writes(&world), before, "something was pushed");
        assert_eq!(again.release, first.release);
        // What was taken was looked at, and stands in the record as if it had been built.
        let image = world.record()["images"][0].clone();
        assert_eq!((&image["kind"], &image["platforms"][2]["program"]["machine"]), (&json!("built"), &json!("s390x")));
        assert_eq!(world.record()["reproduce"].as_str().unwrap().matches("--reuse").count(), 1);
        // Both ways the digests are the same, and a release is not built this way.
        let release = build(&world, &[], &[]);
        assert_built(&Seen { reused: vec![], ..release }, &["x", "y"], "a release reuses nothing");
        assert_eq!(world.release().unwrap(), first.release);
        // Nothing of it is in the image: the note refers to it.
        let tag = world.registry.tags().into_iter().find_map(|tag| tag.strip_prefix(TAG).map(String::from)).unwrap();
        let (_, note) = world.registry.tag("repo/e.com/x/cmd/x", &format!("inputs-{tag}")).unwrap();
        let note: Value = serde_json::from_slice(&note).unwrap();
        assert_eq!((&note["artifactType"], &note["subject"]["digest"]), (&json!(TYPE), &image["digest"]));
    }
}

#[test]
fn only_what_changed_is_built() {
    let world = world();
    let first = reuse(&world);
    packages(&world, &["dep 2", "x 1", "y 1"]);
    assert_built(&reuse(&world), &["y"], "what y needs changed");
    // Go is asked once for each platform, about all commands.
    let listed = world.read("listed");
    assert_eq!(
        listed.lines().filter(|line| line.contains("linux/s390x") && line.ends_with("x/cmd/x e.com/x/cmd/y")).count(),
        3
    );
    assert!(listed.contains("list -deps -export -trimpath -f "), "{listed}");
    packages(&world, &["dep 1", "x 1", "y 1"]);
    let back = reuse(&world);
    assert_built(&back, &[], "what was built before is there");
    assert_eq!(back.release, first.release);
    // Another tag for what is there.
    let tagged = build(&world, &["--reuse", "--tag=v7", "--tag=latest"], &[]);
    assert_built(&tagged, &[], "a tag is no input");
    let digest = world.record()["images"][1]["digest"].clone();
    assert_eq!(json!(world.registry.tag("repo/e.com/x/cmd/y", "latest").unwrap().0), digest);
    assert!(tagged.release.contains("cmd/y:v7@"));
}

#[test]
fn whatever_counts_makes_an_image_new() {
    let world = world();
    let all: &[&str] = &["x", "y"];
    reuse(&world);
    let arguments: &[(&[&str], &[&str])] = &[
        (&["--sbom=none"], all),
        (&["--image-label=a=b"], all),
        (&["--image-annotation=a=b"], all),
        (&["--go-flags=-tags=z"], all),
        (&["--platform", "linux/amd64,linux/s390x"], all),
        (&["--", "--image-user=7"], all),
    ];
    for (more, names) in arguments {
        assert_built(&build(&world, &[&["--reuse"], *more].concat(), &[]), names, &more.join(" "));
        assert_built(&build(&world, &[&["--reuse"], *more].concat(), &[]), &[], &more.join(" "));
    }
    let environment = [("GODEBUG", "x=1"), ("SOURCE_DATE_EPOCH", "1"), ("GONEWVARIABLE", "1")];
    for variable in environment {
        assert_built(&build(&world, &["--reuse"], &[variable]), all, variable.0);
    }
    // What is taken away from ko and Go, or says only where something is, does not count.
    for variable in [("GOARCH", "x"), ("GOFLAGS", "-x"), ("KO_DATA_DATE_EPOCH", "1"), ("GOMAXPROCS", "1")] {
        assert_built(&build(&world, &["--reuse"], &[variable]), &[], variable.0);
    }
    let file = |name: &str, text: &str, names: &[&str]| {
        world.write(name, text);
        assert_built(&reuse(&world), names, name);
        assert_built(&reuse(&world), &[], name);
    };
    file("x/cmd/x/kodata/a", "1", &["x"]);
    file("x/cmd/x/kodata/a", "2", &["x"]);
    file("x/.ko.yaml", "defaultLdflags: [-s]\n", all);
    file("x/.ko.yaml", "defaultEnv: [A=1]\n", all);
    file("x/.ko.yaml", "builds: [{main: ./cmd/x, flags: [-tags=q]}]\n", all);
    assert!(world.read("listed").lines().any(|line| line.contains("-tags=q") && line.ends_with("-- e.com/x/cmd/x")));
    // Another base under the same name, another ko, another linker.
    world.registry.set("/v2/base/manifests/v1", Answer::Status(404, ""));
    let one = Made { settings: json!({ "Entrypoint": ["/app/x"], "User": "7" }), ..Made::new("amd64", "amd64") };
    let manifests: Vec<_> = [one]
        .iter()
        .chain(&ALL[1..].iter().map(|arch| Made::new(arch, arch)).collect::<Vec<_>>())
        .map(|made| made.push(&world.registry, "base"))
        .collect();
    support::index(&world.registry, "base", "v1", &manifests);
    assert_built(&reuse(&world), all, "the base");
    world.ko("true another ko");
    assert_built(&reuse(&world), all, "ko");
    let script = world.read("bin/go").replace("link version go1.99", "link version go1.100");
    world.write("bin/go", script);
    assert_built(&reuse(&world), all, "Go");
    assert_built(&reuse(&world), &[], "nothing changed");
}

#[test]
fn what_cannot_be_known_is_built_and_it_is_said_why() {
    let world = world();
    let both = |said: &str, more: &[&str]| {
        for _ in 0..2 {
            let ended = run(&world, &[&["--reuse"], more].concat(), &[]);
            ended.said(0, &["not to be reused: e.com/x/cmd/x, e.com/x/cmd/y (", said]);
            assert!(world.path("called").exists());
        }
    };
    both("ko is given --image-refs=refs, which may do more than build", &["--", "--image-refs=refs"]);
    world.write("x/.ko.yaml", "defaultLdflags: ['-X main.date={{.Date}}']\n");
    both("has the template -X main.date={{.Date}}", &[]);
    world.write("x/.ko.yaml", "builds: [{dir: ../other}]\n");
    both("ko's configuration builds something in ../other", &[]);
    fs::remove_file(world.path("x/.ko.yaml")).unwrap();
    go(&world, "echo 1", "");
    both("it is built with cgo", &[]);
    go(&world, "echo 0", "echo 'x.go:1: undefined: y' >&2; exit 1");
    both("x.go:1: undefined: y", &[]);
    go(&world, "echo 0", "");
    packages(&world, &["dep ", "x 1", "y 1"]);
    let ended = run(&world, &["--reuse"], &[]);
    ended.said(0, &["not to be reused: e.com/x/cmd/y (Go gives the package e.com/dep no build ID)"]);
    assert_built(&reuse(&world), &["y"], "x is known");
}

#[test]
fn an_image_of_which_anything_is_gone_or_wrong_is_built_again() {
    let world = world();
    reuse(&world);
    let record = world.record();
    let (digest, manifest) = (&record["images"][0]["digest"], &record["images"][0]["platforms"][2]["manifest"]);
    let repository = "/v2/repo/e.com/x/cmd/x";
    let document = world.registry.get(&format!("{repository}/manifests/{}", manifest.as_str().unwrap()));
    let document: Value = serde_json::from_slice(&document).unwrap();
    let tag = world.registry.tags().into_iter().find_map(|tag| tag.strip_prefix(TAG).map(String::from)).unwrap();
    let gone = [
        format!("manifests/{}", digest.as_str().unwrap()),
        format!("manifests/{}", manifest.as_str().unwrap()),
        format!("blobs/{}", document["layers"][0]["digest"].as_str().unwrap()),
        format!("blobs/{}", document["config"]["digest"].as_str().unwrap()),
    ];
    for path in gone {
        world.registry.set(&format!("{repository}/{path}"), Answer::Status(404, ""));
        let ended = run(&world, &["--reuse"], &[]);
        ended.said(0, &["e.com/x/cmd/x is built again: "]);
        assert!(world.path("called").exists(), "{path}");
        assert_built(&reuse(&world), &[], &path);
    }
    // Notes that are not ours, or about an image that is not what it should be.
    let place = oci::parse(&format!("{}/repo/e.com/x/cmd/x:inputs-{tag}", world.registry.host)).unwrap();
    let lie = Made::new("arm64", "amd64").push(&world.registry, "repo/e.com/x/cmd/x");
    let lie = support::index(&world.registry, "repo/e.com/x/cmd/x", "lie", &[lie]);
    let note = json!({ "key": tag, "import": "e.com/x/cmd/x", "about": [] });
    for (kind, content, said) in [
        (TYPE, note.to_string(), "it has no linux/amd64"),
        (TYPE, note.to_string().replace(&tag, &"0".repeat(64)), "is not ours"),
        (TYPE, note.to_string().replace("cmd/x", "cmd/y"), "is not ours"),
        (TYPE, "{".into(), "the note cannot be read"),
        ("application/x", note.to_string(), "is no artifact of type"),
    ] {
        let files = vec![ArtifactFile { media_type: kind.into(), title: None, content: content.into_bytes() }];
        let subject = Some(serde_json::from_value(lie.clone()).unwrap());
        let artifact = Artifact { artifact_type: kind.into(), annotations: BTreeMap::new(), files, subject };
        oci::run(async { oci::store_artifact(&Client::new()?, &place, &artifact).await }).unwrap();
        let ended = run(&world, &["--reuse"], &[]);
        ended.said(0, &["e.com/x/cmd/x is built again: ", said]);
        assert_eq!(world.record()["images"][0]["digest"], *digest, "{said}");
        assert_built(&reuse(&world), &[], "it was noted anew");
    }
}

#[test]
fn inputs_that_change_while_ko_builds_are_not_kept() {
    let world = world();
    let change = world.read("packages").replace("cmd/x\t1", "cmd/x\t2");
    world.write("changed", change);
    world.ko(&format!("cp {0}/changed {0}/packages", world.path("").display()));
    let ended = run(&world, &["--reuse"], &[]);
    ended.said(0, &["e.com/x/cmd/x: its inputs changed while it was built"]);
    assert_built(&reuse(&world), &["x"], "it is not known what x was made of");
    assert_built(&reuse(&world), &[], "now it is");
}

#[test]
fn a_registry_that_keeps_no_notes_only_costs_time() {
    let world = world();
    for name in ["x", "y"] {
        world.registry.trouble(
            &format!("PUT /v2/repo/e.com/x/cmd/{name}/manifests/inputs-"),
            5,
            Trouble::Status(400, ""),
        );
    }
    let ended = run(&world, &["--reuse"], &[]);
    ended.said(0, &["warning:", "e.com/x/cmd/x will be built again: "]);
    assert!(world.release().is_some());
    assert_built(&reuse(&world), &["x", "y"], "nothing was kept");
}
