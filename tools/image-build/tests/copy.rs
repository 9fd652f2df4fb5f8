//! `image-build copy` between registries that stand in for real ones, and fail on request.

mod program;
#[path = "../../lib/oci/tests/support/mod.rs"]
mod support;

use std::{collections::BTreeMap, process::Command, time::Duration};

use kit::Process;
use oci::{Client, spec::Descriptor};
use program::{ALL, Ended, Folder, image, signature};
use serde_json::json;
use support::{Answer, Registry, Trouble};

/// A release of two images, signed in both ways, in one registry; and another registry.
struct World {
    folder: Folder,
    source: Registry,
    other: Registry,
    /// Digests of the images and of the signature of the first.
    a: String,
    b: String,
    signature: String,
}

impl World {
    fn new() -> Self {
        let (folder, source, other) = (Folder::workspace(), Registry::start(), Registry::start());
        source.able(|writes| writes.lists_referrers = true);
        let (a, entries) = image(&source, "repo/e.com/x/cmd/a", ALL);
        let (b, _) = image(&source, "repo/e.com/x/cmd/b", &ALL[..2]);
        // cosign's way for the index, the referrers' way for one of its images.
        let digest = |name: &str| name.split_once('@').unwrap().1.to_owned();
        let signature = signature(&source, "repo/e.com/x/cmd/a", &format!("{}.sig", digest(&a).replace(':', "-")));
        let child: Descriptor = serde_json::from_value(entries[2].clone()).unwrap();
        oci::run(async {
            let client = Client::new()?;
            let subject = oci::parse(&format!("{}@{}", a.split('@').next().unwrap(), child.digest()))?;
            oci::push_referrer(&client, (&subject, &child), "application/x-attestation", &BTreeMap::new(), &[]).await
        })
        .unwrap();
        folder.write(
            "release.yaml",
            format!(
                "kind: D\nmetadata: {{labels: {{app.kubernetes.io/version: v1}}}}\nimage: {}\nargs: ['{b}', '-sh=cgr.dev/c/sh@{}']\n",
                a.replace("@", ":v1@"),
                digest(&a),
            ),
        );
        let (a, b) = (digest(&a), digest(&b));
        folder.write("ci/images.toml", format!("[[image]]\nnames = ['cgr.dev/c/sh@{a}']\nunused = 'a test'\n"));
        Self { folder, source, other, a, b, signature }
    }

    fn copy(&self, more: &[&str]) -> Ended {
        let (one, two) = (format!("{}/one", self.source.host), format!("{}/two", self.other.host));
        let args = ["copy", "release.yaml", "--component", "x", "--to", &one, "--to", &two, "--tag", "latest"];
        self.folder.run(&[&args[..], more].concat())
    }

    /// The digest under a tag of an image in the second registry.
    fn tag(&self, image: &str, tag: &str) -> Option<String> {
        Some(self.other.tag(&format!("two/e.com/x/cmd/{image}"), tag)?.0)
    }
}

#[test]
fn everything_arrives_in_all_places_and_the_release_names_it() {
    let world = World::new();
    let ended = world.copy(&["--output", "json", "--out", "new"]).says(0, &["cgr.dev/c/sh@", "stays where it is"]);
    let report = ended.json();
    assert_eq!((&report["notes"], report["left"].as_array().unwrap().len()), (&json!(2), 1));
    assert!(report["mixtureMilliseconds"].as_f64().unwrap() > 0.0);
    assert_eq!(report["targets"][1]["images"][0]["manifests"], json!(5));
    let tags = |image: &str| ["latest", "v1"].map(|tag| world.tag(image, tag));
    assert_eq!(tags("a"), [Some(world.a.clone()), Some(world.a.clone())]);
    // The release names the second image without a tag.
    assert_eq!(tags("b"), [Some(world.b.clone()), None]);
    let signed = world.tag("a", &format!("{}.sig", world.a.replace(':', "-")));
    assert_eq!(signed.as_ref(), Some(&world.signature));
    // The other registry lists no referrers by itself: there is a tag that does.
    let lists = world.other.tags().iter().filter(|tag| tag.contains(":sha256-") && !tag.ends_with(".sig")).count();
    assert_eq!(lists, 1);
    // In the registry of the source nothing had to be sent but the release.
    assert!(world.source.mounts() > 0);
    let release = report["targets"][1]["release"].as_str().unwrap();
    let new = format!("{}/two/e.com/x/cmd/a:v1@{}", world.other.host, world.a);
    let file =
        world.folder.read(format!("new/{}/release.yaml", kit::rundir::slug(&format!("{}/two", world.other.host))));
    assert!(file.contains(&new) && !file.contains("/repo/"), "{file}");
    let verified = world.folder.run(&["verify", release, "--platform", "linux/amd64", "--output", "json"]);
    assert!(verified.out.contains(&new), "{}", verified.err);
    // Again it finds everything as it is.
    let before = world.other.requests("PUT");
    let again = world.copy(&["--output", "json"]).says(0, &[]).json();
    assert_eq!((&again["blobs"]["sent"], &again["mixtureMilliseconds"]), (&json!(0), &json!(0.0)));
    // Only what refers to something is said again.
    assert!(world.other.requests("PUT") - before <= 2);
}

#[test]
fn a_copied_release_is_one_that_can_be_copied_and_compared() {
    let world = World::new();
    world.copy(&[]).says(0, &["From the first changed tag to the last:"]);
    let release = format!("{}/two/release/x:v1", world.other.host);
    let to = format!("{}/three", world.source.host);
    world.folder.run(&["copy", &release, "--to", &to]).says(0, &["three/release/x@sha256:"]);
    let third = format!("{to}/release/x:v1");
    world.folder.run(&["diff", &release, &third]).says(0, &["2 images, 2 of them the same"]);
}

#[test]
fn tags_are_put_back_when_the_second_repository_fails() {
    for deletes in [true, false] {
        let world = World::new();
        world.other.able(|writes| writes.deletes = deletes);
        world.source.able(|writes| writes.deletes = true);
        // One tag is there with something else, the others are not.
        let (old, _) = image(&world.other, "two/e.com/x/cmd/a", &["s390x"]);
        world.other.trouble("PUT /v2/two/release/x/manifests/latest", 100, Trouble::Status(500, ""));
        let ended = world.copy(&["--output", "json"]).says(3, &["error[registry]"]);
        assert_eq!(world.tag("a", "v1").unwrap(), old.split_once('@').unwrap().1, "{}", ended.err);
        assert_eq!(world.tag("b", "latest").is_none(), deletes, "{}", ended.err);
        let first: Vec<_> = world.source.tags().into_iter().filter(|tag| tag.starts_with("one/")).collect();
        assert_eq!(first, Vec::<String>::new());
        let stay = ended.err.contains("could not be put back (see above)");
        assert_eq!(stay, !deletes, "{}", ended.err);
        let back = ended.json()["putBack"].as_array().unwrap().clone();
        assert_eq!(back.iter().all(|tag| tag["restored"] == json!(true)), deletes, "{back:?}");
        if !deletes {
            assert!(ended.err.contains("the registry lets no tag be removed"), "{}", ended.err);
        }
    }
}

#[test]
fn what_somebody_else_set_meanwhile_stays() {
    let world = World::new();
    world.other.able(|writes| writes.deletes = true);
    // The answer to setting this tag is another manifest's turn: the tag is not ours when it is put back.
    world.other.trouble("PUT /v2/two/e.com/x/cmd/b/manifests/latest", 1, Trouble::Status(201, ""));
    world.other.trouble("PUT /v2/two/release/x/manifests/v1", 100, Trouble::Status(403, ""));
    image(&world.other, "two/e.com/x/cmd/b", &["amd64"]);
    let ended = world.copy(&[]).says(3, &["error[auth]"]);
    let others = format!("{}/two/e.com/x/cmd/b:latest", world.other.host);
    assert!(!ended.err.contains(&others) && ended.err.contains("a:latest is removed"), "{}", ended.err);
}

#[test]
fn a_signal_in_the_middle_puts_tags_back() {
    // Nobody answers any more, or the registry sets the tag after all, when others are put back already.
    for trouble in [Trouble::Hang, Trouble::Late(1500)] {
        interrupted(trouble);
    }
}

fn interrupted(trouble: Trouble) {
    let world = World::new();
    for registry in [&world.source, &world.other] {
        registry.able(|writes| writes.deletes = true);
    }
    world.other.trouble("PUT /v2/two/e.com/x/cmd/b/manifests/latest", 1, trouble);
    let (one, two) = (format!("{}/one", world.source.host), format!("{}/two", world.other.host));
    let args = ["copy", "release.yaml", "--component", "x", "--to", &one, "--to", &two, "--tag", "latest"];
    let log = world.folder.path("log");
    let mut child = Process::new("image-build", world.folder.command(&args)).spawn(&log).unwrap();
    let late = || kit::Error::new(kit::Cause::Internal, "no tag was set");
    let there = || {
        let hanging = world.other.requests("PUT /v2/two/e.com/x/cmd/b/manifests/latest") > 0;
        Ok((hanging && world.tag("a", "latest").is_some()).then_some(()))
    };
    kit::retry::until(Duration::from_secs(60), late, there).unwrap();
    let mut kill = Command::new("kill");
    kill.args(["-INT", &child.id().to_string()]);
    Process::new("kill", kill).run().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{}", world.folder.read("log"));
    assert_eq!(["latest", "v1"].map(|tag| world.tag("a", tag)), [None, None], "{}", world.folder.read("log"));
    assert!(!world.source.tags().iter().any(|tag| tag.starts_with("one/")));
    // What was under way has come to its end by then.
    #[allow(clippy::disallowed_methods, reason = "nothing tells that nothing more happens")]
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.other.tag("two/e.com/x/cmd/b", "latest"), None);
}

#[test]
fn nothing_is_published_where_pushing_is_refused() {
    let world = World::new();
    world.other.trouble("POST", 1000, Trouble::Status(403, ""));
    world.copy(&[]).says(3, &["error[auth]"]);
    assert!(!world.source.tags().iter().chain(&world.other.tags()).any(|tag| tag.ends_with(":latest")));
}

#[test]
fn no_tag_is_changed_if_the_new_files_cannot_be_written() {
    let world = World::new();
    world.folder.write("file", "");
    world.copy(&["--out", "file/new"]).says(3, &["error[host-disk]", "cannot write file/new/"]);
    let slug = kit::rundir::slug(&format!("{}/two", world.other.host));
    world.folder.write(&format!("new/{slug}/release.yaml/x"), "");
    world.copy(&["--out", "new"]).says(3, &["error[host-disk]", "cannot write new/"]);
    assert!(!world.source.tags().iter().chain(&world.other.tags()).any(|tag| tag.ends_with(":latest")));
    // Nor is there a file of a release that was not copied.
    world.other.trouble("PUT /v2/two/release/x/manifests/latest", 100, Trouble::Status(403, ""));
    world.copy(&["--out", "none"]).says(3, &["error[auth]"]);
    let left = std::fs::read_dir(world.folder.path(&format!("none/{slug}"))).unwrap().count();
    assert_eq!(left, 0);
}

#[test]
fn what_did_not_arrive_is_noticed_before_a_tag_is_set() {
    let world = World::new();
    // The registry says that it took the index, and did not.
    let at = format!("PUT /v2/two/e.com/x/cmd/a/manifests/{}", world.a);
    world.other.trouble(&at, 1, Trouble::Status(201, ""));
    world.copy(&[]).says(3, &["error[registry]", "no such image"]);
    assert!(!world.other.tags().iter().any(|tag| tag.ends_with(":latest")));
}

#[test]
fn a_broken_source_does_not_break_the_copy() {
    let world = World::new();
    let path = format!("/v2/repo/e.com/x/cmd/a/manifests/{}", world.a);
    world.source.trouble(&format!("GET {path}"), 2, Trouble::Status(429, "Retry-After: 0\r\n"));
    world.other.trouble("PUT /upload", 1, Trouble::Cut(10));
    world.copy(&[]).says(0, &[]);
    assert_eq!(world.tag("a", "v1"), Some(world.a.clone()));
}

#[test]
fn an_index_with_a_hole_is_the_release_s_fault() {
    let world = World::new();
    let (_, entries) = image(&world.source, "hole", ALL);
    let gone = entries[1]["digest"].as_str().unwrap();
    world.source.set(&format!("/v2/repo/e.com/x/cmd/a/manifests/{gone}"), Answer::Status(404, ""));
    world.copy(&[]).says(1, &["error[image-missing-platform]", "its index names sha256:"]);
    assert_eq!(world.other.requests("PUT"), 0);
}

#[test]
fn hostile_and_wrong_calls_are_named() {
    let world = World::new();
    let to = format!("{}/two", world.other.host);
    let copy = |what: &str, more: &[&str]| {
        let args = ["copy", what, "--component", "x", "--to", &to];
        world.folder.run(&[&args[..], more].concat())
    };
    world.folder.write("large.yaml", "# large\n".repeat((65 << 20) / 8));
    copy("large.yaml", &[]).says(2, &["large.yaml is larger than"]);
    world.folder.write("none.yaml", "a: [\n");
    copy("none.yaml", &[]).says(2, &["none.yaml: this is no YAML"]);
    world.folder.write("text.yaml", "only words\n");
    copy("text.yaml", &[]).says(2, &["text.yaml", "no kind"]);
    world.folder.write("nothing.yaml", "kind: A\n");
    copy("nothing.yaml", &[]).says(2, &["does not tell which of its images belong to it"]);
    copy("127.0.0.1:1/release/x:v1", &[]).says(3, &["error[registry]", "127.0.0.1:1"]);
    copy("No Reference", &[]).says(2, &["'No Reference' is no image reference", "name a release.yaml"]);
    let image = format!("{}/repo/e.com/x/cmd/a:v1", world.source.host);
    copy(&image, &[]).says(2, &["is no artifact of type"]);
    copy("release.yaml", &["--tag", "a b"]).says(2, &["'a b' is no tag"]);
    copy("release.yaml", &["--from", "other.io/x"]).says(2, &["names no image under other.io/x"]);
    world.folder.run(&["copy", "release.yaml", "--to", "plain"]).says(2, &["--component NAME"]);
    world
        .folder
        .run(&["copy", "release.yaml", "--component", "x", "--to", "plain"])
        .says(2, &["begin with a registry"]);
    world.folder.run(&["copy", "release.yaml"]).says(2, &["--to <REPO>"]);
    let nowhere = format!("kind: D\nimage: 127.0.0.1:1/r/e.com/x@{}\n", world.a);
    world.folder.write("nowhere.yaml", &nowhere);
    copy("nowhere.yaml", &[]).says(3, &["error[registry]", "127.0.0.1:1/r/e.com/x"]);
    assert_eq!(world.other.requests("PUT"), 0);
    world.folder.run(&["copy", "--help"]).says(0, &["Examples:", "Exit codes:", "--tag latest"]);
}
