//! `image-build bases` against a registry that stands in for a real one.

#[path = "../../lib/oci/tests/support/mod.rs"]
mod support;

mod common;

use common::{Ended, Image, World, push, push_index};
use serde_json::{Value, json};

const PLATFORMS: &str = "linux/amd64,linux/s390x";
const LIVES: &str = "[[distribution]]\nid = 'debian'\nversion = '12'\nend = '2090-01-01'\nsource = 'x'\n\
                     [[distribution]]\nid = 'debian'\nversion = '9'\nend = '2020-07-18'\nsource = 'x'\n";

impl World {
    /// With `.ko.yaml` of this text and a table of distributions.
    fn with(config: impl FnOnce(&World) -> String) -> World {
        let world = World::new();
        let text = config(&world);
        world.write(".ko.yaml", text);
        world.write("ci/components.toml", "");
        world.write("ci/images.toml", "");
        world.write("ci/distributions.toml", LIVES);
        world
    }

    fn bases(&self, more: &[&str]) -> Ended {
        let args = ["bases", "--config", ".ko.yaml", "--ci", "ci", "--platform", PLATFORMS];
        self.run(&[&args[..], more].concat(), &[])
    }
}

fn base<'a>(bases: &'a Value, end: &str) -> &'a Value {
    let bases = bases.as_array().unwrap();
    bases.iter().find(|base| base["reference"].as_str().unwrap().ends_with(end)).unwrap()
}

#[test]
fn every_base_and_every_platform_that_is_missing_is_named_at_once() {
    let world = World::with(|world| {
        let (registry, host) = (&world.registry, &world.registry.host);
        push(registry, "good", "v1", &["amd64", "s390x", "arm64"]);
        push(registry, "lacks", "v1", &["amd64", "arm64"]);
        Image { docker: true, ..Image::new("arm64") }.push(registry, "plain", "v1");
        format!(
            "defaultBaseImage: {host}/lacks:v1\nbaseImageOverrides:\n  e.com/a: {host}/plain:v1\n  e.com/b: {host}/good:v1\n  e.com/c: {host}/lacks:v1\n"
        )
    });
    let ended = world.bases(&["--output", "json"]);
    ended.said(
        1,
        &[
            "error[image-missing-platform]",
            "/lacks:v1 (for default, e.com/c) has no linux/s390x; it offers linux/amd64, linux/arm64",
            "/plain:v1 (for e.com/a) has no linux/amd64, linux/s390x; it offers linux/arm64",
            "next: choose a base that has them",
        ],
    );
    let bases = ended.answered(1);
    assert_eq!(bases.as_array().unwrap().len(), 3);
    let good = base(&bases, "good:v1");
    assert_eq!((&good["missing"], &good["plain"], &good["newer"]), (&json!([]), &json!(false), &Value::Null));
    assert_eq!(good["offers"], json!(["linux/amd64", "linux/s390x", "linux/arm64"]));
    let row = &good["platforms"][1];
    assert_eq!(
        (&row["platform"], &row["user"], &row["nonroot"]),
        (&json!("linux/s390x"), &json!("65532:65532"), &json!(true))
    );
    assert_eq!(row["distribution"]["id"], "debian");
    assert_eq!(
        (&row["distribution"]["end"], &row["distribution"]["life"]),
        (&json!("2090-01-01"), &json!("supported"))
    );
    assert!(row["ageDays"].as_i64().is_some() && row["created"] == "2026-11-01T00:00:00Z", "{row}");
    let plain = base(&bases, "plain:v1");
    assert_eq!((&plain["plain"], &plain["missing"]), (&json!(true), &json!(["linux/amd64", "linux/s390x"])));
    let text = world.bases(&[]);
    let line = |words: [&str; 2]| {
        let found = text.out.lines().find(|line| words.iter().all(|word| line.contains(word)));
        found.unwrap_or_else(|| panic!("{words:?}: {}", text.out))
    };
    let good = line(["/good:v1 ", "linux/s390x"]);
    assert!(good.contains("debian 12     2090-01-01   65532:65532 (nonroot)  ok"), "{}", text.out);
    assert!(line(["/lacks:v1 ", "linux/s390x"]).contains("MISSING"));
    line(["/plain:v1: one image", "without an index"]);
}

#[test]
fn media_types_of_docker_and_single_images_are_bases_too() {
    let world = World::with(|world| {
        let (registry, host) = (&world.registry, &world.registry.host);
        let docker = |arch| Image { docker: true, ..Image::new(arch) };
        push_index(registry, "docker", "v1", &[docker("amd64"), docker("s390x")]);
        format!("defaultBaseImage: {host}/docker:v1\n")
    });
    let bases = world.bases(&["--output", "json"]).answered(0);
    let media_type = "application/vnd.docker.distribution.manifest.v2+json";
    assert_eq!((&bases[0]["plain"], &bases[0]["platforms"][1]["mediaType"]), (&json!(false), &json!(media_type)));
    assert_eq!(bases[0]["platforms"][1]["distribution"]["version"], "12");
    Image::new("s390x").push(&world.registry, "docker", "v1");
    std::fs::remove_dir_all(world.path("ci")).unwrap();
    let args = ["bases", "--config", ".ko.yaml", "--platform", "linux/s390x", "--output", "json"];
    let bases = world.run(&args, &[]).answered(0);
    assert_eq!((&bases[0]["plain"], &bases[0]["platforms"][0]["nonroot"]), (&json!(true), &json!(true)));
    // Without ci/ nothing is known of distributions, and it is said so.
    assert_eq!(bases[0]["platforms"][0]["distribution"]["life"], Value::Null);
}

#[test]
fn age_end_of_life_and_root_are_warnings() {
    let world = World::with(|world| {
        let (registry, host) = (&world.registry, &world.registry.host);
        let old = |arch| Image { os_release: "ID=debian\nVERSION_ID=9\n", ..Image::new(arch) };
        let root = Image { settings: json!({ "Entrypoint": ["/app/x"] }), ..old("s390x") };
        push_index(registry, "old", "v1", &[old("amd64"), root]);
        let odd = |arch| Image {
            os_release: "ID=plan9\n",
            created: "1970-01-01T00:00:00Z",
            settings: json!({ "Entrypoint": ["/app/x"], "User": "nonroot" }),
            ..Image::new(arch)
        };
        push_index(registry, "odd", "v1", &[odd("amd64"), odd("s390x")]);
        format!("defaultBaseImage: {host}/old:v1\nbaseImageOverrides: {{ e.com/a: '{host}/odd:v1' }}\n")
    });
    let ended = world.bases(&[]);
    ended.said(
        0,
        &[
            "/old:v1: debian 9 gets no updates any more (linux/amd64, linux/s390x)",
            "/old:v1: runs as root on linux/s390x",
        ],
    );
    assert!(ended.out.contains("ended 2020-07-18") && !ended.err.contains("odd"), "{}{}", ended.out, ended.err);
    let odd = ended.out.lines().find(|line| line.contains("/odd:v1")).unwrap();
    let cells: Vec<_> = odd.split("  ").map(str::trim).filter(|cell| !cell.is_empty()).collect();
    assert_eq!(cells[1..], ["linux/amd64", "unknown", "plan9", "unknown", "nonroot (a name)", "ok"]);
}

#[test]
fn a_newer_digest_that_would_lose_a_platform_is_said_before_it_is_taken() {
    let world = World::with(|world| {
        let (registry, host) = (&world.registry, &world.registry.host);
        let old = push(registry, "moved", "v1", &["amd64", "s390x", "arm64"]);
        push(registry, "moved", "v1", &["amd64", "ppc64le"]);
        let same = push(registry, "same", "v1", &["amd64", "s390x"]);
        let gone = push(registry, "gone", "v1", &["amd64", "s390x"]);
        format!(
            "defaultBaseImage: {host}/moved:v1@{old}\nbaseImageOverrides:\n  e.com/a: {host}/moved@{old} # v1\n  \
             e.com/b: {host}/same:v1@{same}\n  e.com/c: {host}/gone:v2@{gone}\n  e.com/d: {host}/gone@{gone}\n"
        )
    });
    let ended = world.bases(&["--output", "json"]);
    ended.said(0, &["what the tag v1 names now has no linux/s390x, linux/arm64"]);
    let bases = ended.answered(0);
    for base in bases.as_array().unwrap() {
        let reference = base["reference"].as_str().unwrap();
        let newer = &base["newer"];
        match reference {
            moved if moved.contains("/moved") => {
                assert_eq!((&newer["tag"], &newer["loses"]), (&json!("v1"), &json!(["linux/s390x", "linux/arm64"])));
                assert_eq!(newer["gains"], json!(["linux/ppc64le"]));
            }
            same if same.contains("/same") => {
                assert_eq!((&newer["digest"], &newer["loses"]), (&base["digest"], &json!([])))
            }
            gone if gone.contains("v2") => {
                assert!(newer["problem"].as_str().unwrap().contains("no such image"), "{newer}")
            }
            _ => assert_eq!(newer, &Value::Null),
        }
        assert_eq!(base["missing"], json!([]));
    }
    let text = world.bases(&[]).out;
    assert!(text.contains("without linux/s390x, linux/arm64, also for linux/ppc64le"), "{text}");
    assert!(text.contains("the tag v1 names the same") && text.contains("the tag v2 names now is not known"), "{text}");
    assert!(text.contains("its tag is not known, nor whether a newer one would lose a platform"), "{text}");
}

#[test]
fn windows_is_offered_by_its_version() {
    let world = World::with(|world| {
        let (registry, host) = (&world.registry, &world.registry.host);
        let windows = Image {
            platform: json!({ "os": "windows", "architecture": "amd64", "os.version": "10.0.17763.5" }),
            ..Image::new("amd64")
        };
        push_index(registry, "w", "v1", &[Image::new("amd64"), windows]);
        format!("defaultBaseImage: {host}/w:v1\n")
    });
    let asked = |platforms: &str| {
        world.run(&["bases", "--config", ".ko.yaml", "--platform", platforms, "--output", "json"], &[])
    };
    let bases = asked("linux/amd64,windows/amd64:10.0.17763").answered(0);
    assert_eq!(bases[0]["offers"], json!(["linux/amd64", "windows/amd64:10.0.17763.5"]));
    assert_eq!(bases[0]["platforms"][1]["distribution"]["version"], "10.0.17763.5");
    assert_eq!(asked("windows/amd64:10.0.20348").answered(1)[0]["missing"], json!(["windows/amd64:10.0.20348"]));
}

#[test]
fn bases_made_here_are_looked_at_as_they_would_be() {
    let world = World::with(|_| String::new());
    world.write("x/config/a.yaml", "kind: A\n");
    world.write(
        "ci/components.toml",
        "[x]\npath = 'x'\nconfig = ['config']\n[x.bases]\ndefault = 'small'\n'e.com/a' = 'small'\n",
    );
    world.write("ci/images.toml", "[build.small]\nfiles = { '/etc/x' = 'y' }\nuser = '65532:65532'\n");
    let args = ["bases", "--component", "x", "--ci", "ci", "--platform", PLATFORMS];
    let bases = world.run(&[&args[..], &["--output", "json"]].concat(), &[]).answered(0);
    assert_eq!((&bases[0]["madeHere"], &bases[0]["usedBy"]), (&json!(true), &json!(["default", "e.com/a"])));
    let row = &bases[0]["platforms"][1];
    assert_eq!((&row["distribution"]["id"], &row["distribution"]["version"]), (&json!("debian"), &json!("12")));
    assert_eq!((&row["nonroot"], &row["created"]), (&json!(true), &Value::Null));
    assert!(world.run(&args, &[]).out.contains("made here"));
}

/// An apt that finds packages for amd64 and arm64 only.
fn apt(world: &World) -> String {
    let script = "case $APT_CONFIG in */s390x/*|*/ppc64el/*) lacks=yes;; esac\n\
                  [ \"$1\" = update ] && exit 0\n\
                  for name; do case $name in download|--*) continue;; esac\n\
                  if [ \"$lacks\" ]; then echo \"E: Unable to locate package $name\" >&2; bad=yes\n\
                  else echo \"'http://x/${name}_1_x.deb' ${name}_1_x.deb 1 SHA256:00\"; fi; done\n\
                  [ -z \"$bad\" ] || exit 100";
    world.program("apt-get", script)
}

#[test]
fn every_platform_that_debian_lacks_is_named_with_its_packages() {
    let world = World::with(|_| String::new());
    let apt = apt(&world);
    world.write("x/config/a.yaml", "kind: A\n");
    world.write("ci/components.toml", "[x]\npath = 'x'\nconfig = ['config']\n[x.bases]\ndefault = 'rare'\n");
    world.write("ci/images.toml", "[build.rare]\npackages = ['rare', 'rarer']\n");
    let all = "linux/amd64,linux/s390x,linux/arm64,linux/ppc64le";
    let env = [("OTHER_ARCH_APT_GET", apt.as_str())];
    let args = ["base", "build", "rare", "--ci", "ci", "--layout", "out", "--platform", all];
    let named = [
        "error[image-missing-platform]: image rare: Debian bookworm lacks a package for linux/s390x, linux/ppc64le",
        "> linux/s390x: rare, rarer\n",
        "> linux/ppc64le: rare, rarer\n",
    ];
    world.run(&args, &env).said(1, &named);
    assert!(!world.path("out").exists());
    let args =
        ["bases", "--component", "x", "--ci", "ci", "--platform", "linux/s390x,linux/ppc64le", "--output", "json"];
    let ended = world.run(&args, &env);
    ended.said(
        1,
        &["base rare (for default): image rare: Debian bookworm lacks a package for linux/s390x, linux/ppc64le: linux/s390x: rare, rarer; linux/ppc64le"],
    );
    assert_eq!(ended.answered(1)[0]["missing"], json!(["linux/s390x", "linux/ppc64le"]));
    // Older machines than Debian's port is for get no programs of it.
    let args = ["base", "build", "rare", "--ci", "ci", "--layout", "out", "--platform", "linux/arm/v6"];
    let named = ["Debian bookworm lacks a package for linux/arm/v6", "> linux/arm/v6: only for v7: rare, rarer\n"];
    world.run(&args, &env).said(1, &named);
}

#[test]
fn what_cannot_be_looked_at_is_named_beside_what_can() {
    let world = World::with(|world| {
        let host = &world.registry.host;
        push(&world.registry, "lacks", "v1", &["amd64"]);
        format!("defaultBaseImage: 127.0.0.1:1/away:v1\nbaseImageOverrides: {{ e.com/a: '{host}/lacks:v1' }}\n")
    });
    let ended = world.bases(&["--output", "json"]);
    ended.said(
        1,
        &[
            "error[image-missing-platform]",
            "127.0.0.1:1/away:v1 (for default):",
            "/lacks:v1 (for e.com/a) has no linux/s390x",
        ],
    );
    assert_eq!(base(&ended.answered(1), "away:v1")["cause"], "registry");
    world.write(".ko.yaml", "defaultBaseImage: 127.0.0.1:1/away:v1\n");
    world.bases(&[]).said(3, &["error[registry]", "127.0.0.1:1/away:v1 (for default)"]);
    // An entry of the index without its manifest.
    let mut hole = Image::new("s390x").push(&world.registry, "elsewhere", "v1");
    hole["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    let there = Image::new("amd64").push(&world.registry, "hole", "part");
    support::index(&world.registry, "hole", "v1", &[there, hole]);
    world.write(".ko.yaml", format!("defaultBaseImage: {}/hole:v1\n", world.registry.host));
    world.bases(&[]).said(1, &["error[image-missing-platform]", "linux/s390x: its index names sha256:"]);
}

#[test]
fn wrong_calls_are_exit_2() {
    let world = World::with(|_| "defaultBaseImage: [".into());
    world.bases(&[]).said(2, &["error[usage]", ".ko.yaml"]);
    world.write(".ko.yaml", "defaultBaseImage: 'r.io/A b'\n");
    world.bases(&[]).said(2, &["'r.io/A b' is no image reference"]);
    world.write("ci/distributions.toml", "[[distribution]]\nid = 'x'\nsource = 'y'\n");
    world.bases(&[]).said(2, &["distributions.toml: x (any version) needs either end or rolling"]);
    world.run(&["bases", "--platform", "linux/amd64"], &[]).said(2, &["--config <FILE>|--component <NAME>"]);
    world
        .run(&["bases", "--component", "y", "--ci", "ci", "--platform", "linux/amd64"], &[])
        .said(2, &["unknown component 'y'"]);
    world.run(&["bases", "--config", "none", "--platform", "linux/amd64"], &[]).said(2, &["cannot read none"]);
}
