//! `image-build audit` of made sources, with registries that stand in for real ones.

mod program;
#[path = "../../lib/oci/tests/support/mod.rs"]
mod support;

use program::{ALL, Ended, Folder, image};
use serde_json::{Value, json};
use support::{Answer, Registry, Trouble};

const WANTED: &str = "linux/amd64,linux/s390x";

struct World {
    folder: Folder,
    registry: Registry,
}

impl World {
    /// Sources that name a good image, one without s390x, and one platform's image by digest.
    fn new() -> Self {
        let world = Self { folder: Folder::workspace(), registry: Registry::start() };
        image(&world.registry, "good", ALL);
        let (_, entries) = image(&world.registry, "poor", &["amd64"]);
        let host = &world.registry.host;
        let digest = entries[0]["digest"].as_str().unwrap();
        world.folder.write("x/good.yaml", format!("\nimage: {host}/good:v1\n"));
        world.folder.write("x/test/a_test.go", format!("// {host}/no:1\nvar x = \"{host}/poor:v1\"\n"));
        world.folder.write("x/one.sh", format!("echo x\ncrane ls {host}/poor@{digest}\n"));
        world
    }

    fn audit(&self, more: &[&str]) -> Ended {
        self.folder.run(&[&["audit", "x", "--platform", WANTED], more].concat())
    }

    fn rows(&self, more: &[&str], code: i32) -> Vec<Value> {
        let report = self.audit(&[&["--output", "json"], more].concat()).says(code, &[]).json();
        report["rows"].as_array().unwrap().clone()
    }

    fn map(&self, name: &str, what: &str) -> String {
        format!("[[image]]\nnames = ['{}/{name}']\n{what}\n", self.registry.host)
    }
}

#[test]
fn what_lacks_a_platform_is_named_with_its_place() {
    let world = World::new();
    let said = format!("x/test/a_test.go:2: {}/poor:v1 has no linux/s390x", world.registry.host);
    let ended = world.audit(&[]).says(1, &["error[image-missing-platform]", "one.sh:2: ", &said[2..]]);
    assert!(!ended.err.contains("good"), "{}", ended.err);
    let rows = world.rows(&[], 1);
    let seen: Vec<_> = rows.iter().map(|row| (&row["file"], &row["line"], &row["verdict"])).collect();
    assert_eq!(
        json!(seen),
        json!([
            ["good.yaml", 2, "ok"],
            ["one.sh", 2, "single-platform-digest"],
            ["test/a_test.go", 2, "lacks-platform"]
        ])
    );
    assert_eq!((&rows[2]["missing"], &rows[2]["platforms"]), (&json!(["linux/s390x"]), &json!(["linux/amd64"])));
    // For the one platform that it is for, it is good.
    world.folder.run(&["audit", "x", "--platform", "linux/amd64"]).says(0, &[]);
}

#[test]
fn what_has_something_in_its_place_is_good() {
    let world = World::new();
    let digest = world.rows(&[], 1)[1]["name"].as_str().unwrap().split_once("/poor@").unwrap().1.to_owned();
    let map = world.map("poor:v1", "build = 'shell'") + &world.map(&format!("poor@{digest}"), "unused = 'only here'");
    world.folder.write("ci/images.toml", map + "[build.shell]\nfiles = { '/etc/x' = 'y' }\n");
    let rows = world.rows(&[], 0);
    assert_eq!(rows[1]["replacement"], json!({ "unused": "only here" }));
    assert_eq!((&rows[2]["replacement"], &rows[2]["verdict"]), (&json!({ "build": "shell" }), &json!("replaced")));
}

#[test]
fn what_was_found_is_an_image_map_that_is_gone_by() {
    let world = World::new();
    world.audit(&["--image-map", "map/images.toml"]).says(1, &[]);
    let map = kit::ci::Ci::new(world.folder.path("map")).images().unwrap();
    let [one, two] = &map.image[..] else { panic!("{map:?}") };
    assert!(one.names[0].contains("/poor:v1") && two.names[0].contains("/poor@sha256:"), "{map:?}");
    for image in [one, two] {
        assert_eq!((&image.build, &image.unused, image.platforms.len()), (&None, &None, 1));
        assert_eq!(image.platforms[0].to_string(), "linux/amd64");
    }
    assert!(world.folder.read("map/images.toml").contains("# test/a_test.go:2\n[[image]]"));
    // As a workspace's map it says where these images run; and what stands in for one stays.
    let map = world.folder.read("map/images.toml").replacen("platforms = [\"linux/amd64\"]", "build = \"shell\"", 1);
    world.folder.write("ci/images.toml", map + "[build.shell]\nfiles = { '/etc/x' = 'y' }\n");
    world.audit(&["--image-map", "map/images.toml"]).says(0, &[]);
    let map = kit::ci::Ci::new(world.folder.path("map")).images().unwrap();
    assert_eq!((map.image.len(), map.image[0].build.as_deref()), (1, Some("shell")), "{map:?}");
}

#[test]
fn what_was_seen_is_enough_without_a_network() {
    let world = World::new();
    let offline = |more: &[&str]| world.audit(&[&["--offline"], more].concat());
    offline(&[]).says(3, &["error[registry]", "not seen before"]);
    assert_eq!(world.registry.requests("GET"), 0);
    world.audit(&["--database", "seen.json"]).says(1, &[]);
    let asked = world.registry.requests("GET");
    offline(&["--database", "seen.json"]).says(1, &["has no linux/s390x"]);
    assert_eq!(world.registry.requests("GET"), asked);
    // Nor is asked again what is known well enough.
    world.audit(&["--database", "seen.json"]).says(1, &[]);
    assert_eq!(world.registry.requests("GET"), asked);
    // A tag that was seen long ago is looked at again; if that cannot be, what was seen counts, with its date.
    let old = world.folder.read("seen.json").replace(&jiff::Timestamp::now().strftime("%Y-").to_string(), "2020-");
    world.folder.write("seen.json", &old);
    world.registry.trouble("GET", 1000, Trouble::Status(500, ""));
    let rows = world.rows(&["--database", "seen.json"], 1);
    assert!(rows[0]["note"].as_str().unwrap().starts_with("as seen on 2020-"), "{rows:?}");
    world.audit(&["--database", "seen.json"]).says(1, &["as seen on 2020-"]);
}

#[test]
fn what_a_registry_no_longer_has_is_not_what_it_was() {
    let world = World::new();
    for file in ["x/test/a_test.go", "x/one.sh"] {
        world.folder.write(file, "");
    }
    world.audit(&["--database", "seen.json"]).says(0, &[]);
    let old = world.folder.read("seen.json").replace(&jiff::Timestamp::now().strftime("%Y-").to_string(), "2020-");
    world.folder.write("seen.json", &old);
    for (status, said) in [(404, "no such image"), (403, "error[auth]")] {
        world.registry.set("/v2/good/manifests/v1", Answer::Status(status, ""));
        world.audit(&["--database", "seen.json"]).says(3, &[said, "unreachable"]);
    }
}

#[test]
fn a_damaged_database_is_refused_by_name_or_made_anew() {
    let world = World::new();
    world.folder.write("seen.json", "{");
    world.audit(&["--database", "seen.json"]).says(2, &["seen.json is no database of images"]);
    world.folder.write("cache/images-seen.json", "{");
    world.audit(&[]).says(1, &["it is made anew"]);
    assert!(world.folder.read("cache/images-seen.json").contains("\"version\""));
}

#[test]
fn what_cannot_be_reached_is_no_verdict_about_the_component() {
    let world = World::new();
    world.folder.write("x/test/a_test.go", "var x = \"127.0.0.1:1/x/y:1\"\n");
    world.folder.write("x/one.sh", "");
    let rows = world.rows(&[], 3);
    assert_eq!((&rows[0]["verdict"], &rows[1]["verdict"]), (&json!("ok"), &json!("unreachable")));
    world.audit(&[]).says(3, &["error[registry]", "a_test.go:1: 127.0.0.1:1/x/y:1", "no answer"]);
    let host = &world.registry.host;
    world.folder.write("x/test/a_test.go", format!("var x = \"{host}/gone:1\"\n"));
    world.audit(&[]).says(3, &["no such image"]);
    world.registry.set("/v2/gone/manifests/1", Answer::Status(403, ""));
    world.audit(&[]).says(3, &["error[auth]"]);
    // It can still be known not to matter.
    world.folder.write("ci/images.toml", world.map("gone:1", "unused = 'a test'"));
    world.audit(&[]).says(0, &["nothing runs it"]);
}

#[test]
fn wrong_calls_are_named() {
    let world = World::new();
    world.folder.run(&["audit", "nothing", "--platform", WANTED]).says(2, &["cannot read nothing"]);
    world.folder.write("empty/a.yaml", "kind: A\n");
    world.folder.run(&["audit", "empty", "--platform", WANTED]).says(4, &["error[nothing-ran]", "names an image"]);
    world.folder.run(&["audit", "x"]).says(2, &["--platform <P>"]);
    world.folder.run(&["audit", "x", "--platform", "linux/vax"]).says(2, &["unknown architecture 'vax'"]);
    world.folder.run(&["audit", "--help"]).says(0, &["Examples:", "Exit codes:", "--offline"]);
}
