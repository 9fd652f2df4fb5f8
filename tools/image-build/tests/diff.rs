//! `image-build diff` of releases in registries that stand in for real ones.

mod program;
#[path = "../../lib/oci/tests/support/mod.rs"]
mod support;

use program::{ALL, Ended, Folder, image};
use serde_json::{Value, json};
use support::{Answer, Made, OCI_MANIFEST, Registry, index};

/// An old and a new release file, each of images in a registry.
struct World {
    folder: Folder,
    registry: Registry,
}

impl World {
    fn new() -> Self {
        Self { folder: Folder::workspace(), registry: Registry::start() }
    }

    fn release(&self, name: &str, images: &[&str]) {
        let images: Vec<_> = images.iter().map(|image| format!("- image: {image}\n")).collect();
        self.folder.write(name, format!("kind: D\nspec:\n{}", images.concat()));
    }

    /// The old one has all platforms, the new one has lost two and has a new image.
    fn lossy(&self) {
        let (old, _) = image(&self.registry, "old/e.com/x", ALL);
        let (new, _) = image(&self.registry, "new/e.com/x", &ALL[..2]);
        let (more, _) = image(&self.registry, "new/e.com/more", &["amd64"]);
        self.release("old.yaml", &[&old]);
        self.release("new.yaml", &[&new, &more]);
    }

    fn diff(&self, more: &[&str]) -> Ended {
        self.folder.run(&[&["diff", "old.yaml", "new.yaml"], more].concat())
    }
}

#[test]
fn a_lost_platform_is_exit_1_unless_it_is_allowed() {
    let world = World::new();
    world.lossy();
    let ended = world.diff(&[]).says(1, &["error[image-missing-platform]", "e.com/x has no linux/ppc64le any more"]);
    assert!(ended.out.contains("LOST") && ended.out.contains("e.com/more  linux/amd64"), "{}", ended.out);
    let report = world.diff(&["--output", "json"]).says(1, &[]).json();
    assert_eq!((&report["losses"], &report["images"][1]["lost"][0]["allowed"]), (&json!(2), &Value::Null));
    assert_eq!(report["images"][0]["change"], "added");
    world.diff(&["--platform", "linux/arm64,linux/amd64"]).says(0, &[]);
    let allow = |platforms: &str, until: &str| {
        let text = format!(
            "[[allow]]\nimage = 'e.com/x'\nplatforms = [{platforms}]\nreason = 'its base has none'\nowner = 'us'\nuntil = '{until}'\n"
        );
        world.folder.write("ci/allow.toml", &text);
    };
    allow("'linux/s390x', 'linux/ppc64le'", "2999-01-01");
    world.diff(&[]).says(0, &["lost, allowed: its base has none"]);
    allow("'linux/s390x'", "2999-01-01");
    world.diff(&[]).says(1, &["linux/ppc64le"]);
    allow("", "2020-01-01");
    world.diff(&[]).says(1, &["e.com/x was allowed until 2020-01-01 (owner: us)"]);
    world.folder.write("ci/allow.toml", "[[allow]]\nimage = 'x'\ncolour = 1\n");
    world.diff(&[]).says(2, &["allow.toml:3:1: unknown field `colour`"]);
}

#[test]
fn an_image_that_is_gone_is_lost_with_all_its_platforms() {
    let world = World::new();
    let (keep, _) = image(&world.registry, "r/e.com/keep", ALL);
    let (gone, _) = image(&world.registry, "r/e.com/gone", &["s390x"]);
    world.release("old.yaml", &[&keep, &gone]);
    world.release("new.yaml", &[&keep]);
    world.diff(&[]).says(1, &["e.com/gone is no longer there, it had linux/s390x", "LOST with the image"]);
}

#[test]
fn users_bases_and_sizes_are_compared() {
    let world = World::new();
    let push = |repository: &str, user: &str, base: &str, layer: Vec<u8>| {
        let mut made = Made::new("s390x", "s390x");
        made.settings["User"] = json!(user);
        made.layers.push(layer);
        let descriptor = made.push(&world.registry, repository);
        // The same manifest with a base.
        let (_, bytes) = world.registry.tag(repository, "plain").unwrap();
        let mut manifest: Value = serde_json::from_slice(&bytes).unwrap();
        manifest["annotations"] = json!({ "org.opencontainers.image.base.name": base });
        let mut entry = world.registry.document(repository, "plain", OCI_MANIFEST, &manifest);
        entry["platform"] = descriptor["platform"].clone();
        let digest = index(&world.registry, repository, "v1", &[entry])["digest"].as_str().unwrap().to_owned();
        format!("{}/{repository}@{digest}", world.registry.host)
    };
    let old = push("old/e.com/x", "65532", "cgr.dev/static:1", vec![0; 100]);
    let new = push("new/e.com/x", "", "alpine:3\u{202e}", vec![0; 100_000]);
    world.release("old.yaml", &[&old]);
    world.release("new.yaml", &[&new]);
    let ended = world.diff(&[]).says(0, &["65532", "root", "cgr.dev/static:1", "0.1 MB"]);
    assert!(ended.out.contains("alpine:3\\u{202e}") && !ended.out.contains('\u{202e}'), "{}", ended.out);
    let report = world.diff(&["--output", "json"]).says(0, &[]).json();
    let platform = &report["images"][0]["platforms"][0];
    assert_eq!((&platform["old"]["user"], &platform["new"]["user"]), (&json!("65532"), &json!("")));
}

/// `images.json` for this release file.
fn record(text: &str, images: &Value, replacements: &Value) -> String {
    json!({
        "schemaVersion": "1.0", "tool": "image-build", "toolVersion": "0.1.0", "run": "r",
        "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:01Z", "outcome": "passed",
        "component": "x", "version": "v2", "source": { "release": { "reference": "r" } }, "origin": "built-here",
        "platforms": ["linux/s390x"], "images": images, "replacements": replacements,
        "release": { "digest": kit::digest::sha256(text.as_bytes()), "objects": 1 },
    })
    .to_string()
}

#[test]
fn what_stands_in_for_an_image_is_shown_as_that() {
    let world = World::new();
    let (old, _) = image(&world.registry, "public/shell", ALL);
    let (new, _) = image(&world.registry, "mirror/cgr.dev/c/shell", ALL);
    world.release("old.yaml", &[&old]);
    world.release("run/x/release.yaml", &[&new]);
    let text = world.folder.read("run/x/release.yaml");
    world.folder.write("run/x/images.json", record(&text, &json!([]), &json!([{ "from": old, "to": new }])));
    // The folder of the run holds one component.
    let ended = world.folder.run(&["diff", "old.yaml", "run", "--output", "json"]).says(0, &[]);
    let report = ended.json();
    assert_eq!((&report["images"][0]["replaced"], &report["images"][0]["moved"]), (&json!(true), &json!(true)));
    assert_eq!(report["replacements"]["new"][0]["from"], json!(old));
    world.folder.run(&["diff", "old.yaml", "run"]).says(0, &["replaced"]);
    world.release("run/y/release.yaml", &[&new]);
    world.folder.run(&["diff", "old.yaml", "run"]).says(2, &["run holds several releases", "name one of run/x, run/y"]);
}

#[test]
fn a_record_speaks_for_a_registry_that_is_gone() {
    let world = World::new();
    let digest = format!("sha256:{}", "a".repeat(64));
    world.release("run/release.yaml", &[&format!("127.0.0.1:1/r/e.com/x@{digest}")]);
    let text = world.folder.read("run/release.yaml");
    let row = json!({ "platform": "linux/s390x", "manifest": digest, "user": "65532", "size": 7 });
    let images =
        json!([{ "name": "e.com/x", "kind": "built", "reference": "r", "digest": digest, "platforms": [row] }]);
    world.folder.write("run/images.json", record(&text, &images, &json!([])));
    let (old, _) = image(&world.registry, "r/e.com/x", &["s390x", "amd64"]);
    world.release("old.yaml", &[&old]);
    world.folder.run(&["diff", "old.yaml", "run"]).says(1, &["as images.json says it", "has no linux/amd64 any more"]);
    world.folder.write("run/images.json", "{}");
    world.folder.run(&["diff", "old.yaml", "run"]).says(2, &["images.json"]);
}

#[test]
fn a_record_hides_nothing_that_a_registry_does_not_have() {
    let world = World::new();
    let (old, _) = image(&world.registry, "old/e.com/x", ALL);
    let (new, entries) = image(&world.registry, "new/e.com/x", ALL);
    world.release("old.yaml", &[&old]);
    world.release("run/release.yaml", &[&new]);
    let row = |platform: &str, entry: &Value| json!({ "platform": platform, "manifest": entry["digest"], "user": "65532", "size": 7 });
    let rows: Vec<_> = ALL.iter().zip(&entries).map(|(arch, entry)| row(&format!("linux/{arch}"), entry)).collect();
    let digest = new.split_once('@').unwrap().1;
    let images = json!([{ "name": "e.com/x", "kind": "built", "reference": "r", "digest": digest, "platforms": rows }]);
    let text = world.folder.read("run/release.yaml");
    world.folder.write("run/images.json", record(&text, &images, &json!([])));
    let diff = || world.folder.run(&["diff", "old.yaml", "run"]);
    diff().says(0, &["1 images, 1 of them the same"]);
    let gone = |digest: &str| {
        world.registry.set(&format!("/v2/new/e.com/x/manifests/{digest}"), Answer::Status(404, ""));
    };
    // A manifest that the index names.
    gone(entries[2]["digest"].as_str().unwrap());
    diff().says(1, &["e.com/x has no linux/s390x any more", "a manifest that is not there, for linux/s390x"]);
    // The whole image.
    gone(digest);
    diff().says(3, &["the registry has no such image"]);
}

#[test]
fn wrong_calls_and_registries_out_of_order_are_told_apart() {
    let world = World::new();
    world.lossy();
    let diff = |old: &str| world.folder.run(&["diff", old, "new.yaml"]);
    diff("127.0.0.1:1/r/release/x:v1").says(3, &["error[registry]"]);
    world.release("nowhere.yaml", &["127.0.0.1:1/r/x:v1"]);
    diff("nowhere.yaml").says(3, &["nowhere.yaml: 127.0.0.1:1/r/x:v1"]);
    world.folder.write("none.yaml", "a: [\n");
    diff("none.yaml").says(2, &["none.yaml: this is no YAML"]);
    world.folder.write("large.yaml", "# large\n".repeat((65 << 20) / 8));
    diff("large.yaml").says(2, &["large.yaml is larger than"]);
    world.folder.run(&["diff", "old.yaml"]).says(2, &["<NEW>"]);
    world.folder.run(&["diff", "--help"]).says(0, &["Examples:", "Exit codes:"]);
}
