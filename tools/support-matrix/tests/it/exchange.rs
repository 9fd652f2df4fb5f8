//! Evidence that travels: two machines that never met, a registry between them, and what must not come in.

use std::{collections::BTreeMap, fs};

use kit::{Cause, Exit};
use oci::{ARTIFACT_TYPE_RELEASE, ArtifactFile, Client, Reference};

use crate::{
    support::Registry,
    world::{Run, World, passing},
};

const TYPE: &str = "application/vnd.other-arch.evidence.v1";

/// A registry with the release of component p in version v1.
struct Published {
    registry: Registry,
    release: Reference,
}

impl Published {
    fn new(lists_referrers: bool) -> Self {
        let registry = Registry::start();
        registry.able(|writes| writes.lists_referrers = lists_referrers);
        let target = oci::parse(&format!("{}/tekton/p:v1", registry.host)).unwrap();
        // The digest of its file is what the made records name.
        let push = async {
            oci::push_artifact(&Client::new()?, &target, ARTIFACT_TYPE_RELEASE, "release.yaml", b"p v1").await
        };
        let release = oci::run(push).unwrap();
        Self { registry, release }
    }

    fn tag(&self) -> String {
        format!("{}/tekton/p:v1", self.registry.host)
    }

    fn referrers(&self) -> Vec<oci::spec::Descriptor> {
        oci::run(async { oci::referrers(&Client::new()?, &self.release, None).await }).unwrap()
    }
}

fn run(world: &World, day: u8, name: &str, on: &str) -> Run {
    let run = world.run(day, name).full("p", "v1", on, passing(4));
    run.log("p", on, "TestGood01.log", b"a log")
}

fn pull(world: &World, from: &str, more: &[&str]) -> kit::Result<kit::Done> {
    let [history, index] = ["history", "index"].map(|name| world.path(name).display().to_string());
    world.call(&[&["pull", from, "--history", &history, "--index", &index], more].concat())
}

#[test]
fn two_machines_that_never_met_share_their_evidence() {
    for lists_referrers in [true, false] {
        let published = Published::new(lists_referrers);
        let (here, there) = (World::new(), World::new());
        here.record(&run(&here, 10, "here", "linux/amd64")).unwrap();
        here.record(&here.run(10, "other").good("q", "v7", passing(2))).unwrap();
        there.record(&run(&there, 11, "there", "linux/s390x")).unwrap();
        for world in [&here, &there] {
            assert_eq!(world.ask(&["push", "--release", &published.tag()]).unwrap().exit(), Exit::GOOD);
        }
        assert_eq!(published.referrers().len(), 2, "only what is about this release");
        // A third machine that has nothing, and the two for each other.
        let third = World::new();
        for world in [&third, &here, &there] {
            assert_eq!(pull(world, &published.tag(), &[]).unwrap().exit(), Exit::GOOD);
        }
        let cells = |world: &World| {
            let matrix = world.matrix(12);
            let p = matrix.cells.into_iter().filter(|cell| cell.component == "p");
            p.map(|cell| (cell.id, cell.state, cell.reason, cell.tested)).collect::<Vec<_>>()
        };
        assert_eq!(cells(&third), cells(&here));
        assert_eq!(cells(&third), cells(&there));
        assert_eq!(cells(&third).iter().filter(|(.., tested)| tested.passed).count(), 2);
        let before = third.bundles();
        let objects = published.referrers().len();
        assert_eq!(pull(&third, &published.tag(), &[]).unwrap().exit(), Exit::GOOD);
        here.ask(&["push", "--release", &published.tag()]).unwrap();
        assert_eq!((third.bundles(), published.referrers().len()), (before, objects), "twice changes nothing");
    }
}

#[test]
fn logs_can_stay_at_home() {
    let published = Published::new(true);
    let (here, there) = (World::new(), World::new());
    here.record(&run(&here, 10, "here", "linux/amd64")).unwrap();
    here.ask(&["push", "--release", &published.tag(), "--no-logs"]).unwrap();
    pull(&there, &published.tag(), &[]).unwrap();
    assert_eq!(there.matrix(12).runs, 1);
    assert_eq!(there.render(12, &["--strict"]).unwrap().exit(), Exit::GOOD);
    assert!(!there.bundles()[0].join("p/linux-amd64/lab-default/logs/TestGood01.log").exists());
}

/// Pushes something that claims to be evidence.
fn forge(published: &Published, content: &[u8], annotation: Option<&str>) {
    let file = ArtifactFile { media_type: "application/x".into(), title: None, content: content.to_vec() };
    let annotations: BTreeMap<_, _> =
        annotation.into_iter().map(|digest| ("dev.other-arch.bundle".to_owned(), digest.to_owned())).collect();
    oci::run(async {
        let client = Client::new()?;
        let document = client.manifest(&published.release).await?;
        let subject = (&published.release, &oci::subject(&document)?);
        oci::push_referrer(&client, subject, TYPE, &annotations, &[file]).await
    })
    .unwrap();
}

fn archive(folder: &std::path::Path, change: impl Fn(&str, Vec<u8>) -> Vec<u8>) -> Vec<u8> {
    let mut paths = Vec::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { left.push(path) } else { paths.push(path) }
        }
    }
    paths.sort_by_key(|path| (!path.ends_with("bundle.json"), path.clone()));
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    for path in paths {
        let name = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        let bytes = change(&name, fs::read(&path).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, &name, bytes.as_slice()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// A list of files that no disk takes.
fn unwritable(paths: &[&str]) -> Vec<u8> {
    let row = |path: &&str| serde_json::json!({"path": path, "size": 1, "digest": kit::digest::sha256(b"x")});
    let list =
        serde_json::json!({"schemaVersion": "1.0", "run": "r", "files": paths.iter().map(row).collect::<Vec<_>>()});
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let list = list.to_string();
    for (path, bytes) in
        [("bundle.json", list.as_bytes())].into_iter().chain(paths.iter().map(|path| (*path, &b"x"[..])))
    {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, bytes).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

#[test]
fn evidence_that_is_not_what_it_says_does_not_come_in() {
    let world = World::new();
    world.record(&run(&world, 10, "here", "linux/amd64")).unwrap();
    let bundle = world.bundles().remove(0);
    let other = World::new();
    other.record(&other.run(10, "other").good("q", "v7", passing(2))).unwrap();
    let future = World::new();
    future.keep(&future.run_on("2999-01-01", "future").full("p", "v1", "linux/amd64", passing(2)));
    let same = |_: &str, bytes: Vec<u8>| bytes;
    let lie = |name: &str, bytes: Vec<u8>| match name {
        "p/linux-amd64/lab-default/results.json" => {
            String::from_utf8(bytes).unwrap().replacen("TestGood01", "TestGood99", 1).into_bytes()
        }
        _ => bytes,
    };
    let zeros = format!("sha256:{}", "0".repeat(64));
    // More shards than anybody can count, in a record of a few hundred bytes.
    let shards = World::new();
    let many = shards.run(10, "many").built("p", "v1", |_| ());
    let many = many.tested("p", "v1", "linux/amd64", passing(2), |results| results.shard = (1, u32::MAX));
    kit::bundle::seal(&many.dir).unwrap();
    for (content, annotation, said) in [
        (archive(many.dir.path(), same), None, "no shard"),
        (unwritable(&["a", "a/b/c"]), None, "below a file"),
        (unwritable(&[".logs-removed"]), None, "no path inside a run"),
        (unwritable(&[[&"x".repeat(250)[..]; 20].join("/").as_str()]), None, "no path inside a run"),
        (archive(&bundle, lie), None, "damaged"),
        (archive(&bundle, same), Some(zeros.as_str()), "says that it is another bundle"),
        (archive(&other.bundles()[0], same), None, "says nothing of this release"),
        (archive(&future.bundles()[0], same), None, "in the future"),
        (b"no archive".to_vec(), None, "archive"),
    ] {
        let published = Published::new(true);
        forge(&published, &content, annotation);
        let there = World::new();
        let error = pull(&there, &published.tag(), &[]).unwrap_err();
        assert_eq!(error.exit(), Exit::USAGE, "{said}: {error}");
        assert!(error.to_string().contains("1 of 1 piece of evidence refused"), "{error}");
        assert!(there.bundles().is_empty(), "{said}");
        // What is good beside it comes in all the same.
        world.ask(&["push", "--release", &published.tag()]).unwrap();
        assert_eq!(pull(&there, &published.tag(), &[]).unwrap_err().cause, Cause::Usage);
        assert_eq!(there.matrix(12).runs, 1, "{said}");
    }
}

#[test]
fn what_is_no_release_and_who_is_not_there() {
    let world = World::new();
    world.record(&run(&world, 10, "here", "linux/amd64")).unwrap();
    let published = Published::new(true);
    let missing = format!("{}/tekton/nothing:v1", published.registry.host);
    assert_eq!(pull(&world, &missing, &[]).unwrap_err().cause, Cause::Registry);
    let image = format!("{}/tekton/x:v1", published.registry.host);
    oci::run(async { oci::push_artifact(&Client::new()?, &oci::parse(&image)?, "application/x", "x", b"x").await })
        .unwrap();
    assert_eq!(pull(&world, &image, &[]).unwrap_err().cause, Cause::Usage);
    assert_eq!(pull(&world, &published.tag(), &[]).unwrap().exit(), Exit::NOTHING_RAN);
    let error = world.ask(&["push", "--release", &published.tag(), "nobody"]).unwrap_err();
    assert!(error.cause == Cause::Usage && error.to_string().contains("'nobody'"), "{error}");
    // Without --release each goes where its own build pushed its release: these were pushed nowhere.
    assert_eq!(world.ask(&["push"]).unwrap().exit(), Exit::NOTHING_RAN);
}

/// A release that somebody removed keeps nothing from the registry that is about others, and is said.
#[test]
fn an_old_release_that_is_gone_is_passed_over() {
    let world = World::new();
    let published = Published::new(true);
    let gone = format!("{}/tekton/gone@sha256:{}", published.registry.host, "0".repeat(64));
    for (day, at) in [(9, gone), (10, published.release.whole())] {
        let run = world.run(day, "built").built("p", "v1", |images| {
            images.release.as_mut().unwrap().artifact = Some(at);
        });
        world.record(&run.ended()).unwrap();
    }
    let error = world.ask(&["push"]).unwrap_err();
    assert_eq!(error.exit(), Exit::INFRASTRUCTURE, "{error}");
    assert!(error.to_string().contains("1 release passed over"), "{error}");
    assert_eq!(published.referrers().len(), 1, "the other one is there");
}

/// What the registry does not give is no bad evidence.
#[test]
fn what_cannot_be_fetched_is_not_refused() {
    let world = World::new();
    world.record(&run(&world, 10, "here", "linux/amd64")).unwrap();
    let published = Published::new(true);
    world.ask(&["push", "--release", &published.tag()]).unwrap();
    published.registry.trouble("GET /v2/tekton/p/blobs", 100, crate::support::Trouble::Status(403, ""));
    let there = World::new();
    let error = pull(&there, &published.tag(), &[]).unwrap_err();
    assert!(error.exit() == Exit::INFRASTRUCTURE && error.to_string().contains("not all evidence"), "{error}");
    assert!(there.bundles().is_empty());
}

/// Whoever may attach something to one release could speak of all others.
#[test]
fn unsigned_evidence_about_other_releases_is_pointed_out() {
    let world = World::new();
    let published = Published::new(true);
    let keys = keys(&world);
    let run =
        run(&world, 10, "both", "linux/amd64").built("q", "v7", |_| ()).installed("q", "v7", "linux/amd64", |_| ());
    world.record(&run.tested("q", "v7", "linux/amd64", passing(2), |_| ())).unwrap();
    world.ask(&["push", "--release", &published.tag(), "--key", &keys[0]]).unwrap();
    let warned = |more: &[&str]| {
        let there = World::new();
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_support-matrix"));
        command.args(["pull", &published.tag()]).args(more);
        command.arg("--history").arg(there.path("history")).arg("--index").arg(there.path("index"));
        let mut said = String::new();
        let process = kit::Process::new("support-matrix", command).on_line(|_, line| said.push_str(line));
        assert!(process.finish().unwrap().good());
        said.contains("also speaks of q@v7")
    };
    assert!(warned(&[]) && !warned(&["--key", &keys[1]]));
}

/// Two pairs of keys, made by openssl as a user would.
fn keys(world: &World) -> [String; 4] {
    let script = "for n in a b; do
        openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $n.key 2>/dev/null || exit 1
        openssl pkey -in $n.key -pubout -out $n.pub || exit 1
    done";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).current_dir(world.path(""));
    assert!(kit::Process::new("openssl", command).finish().unwrap().good());
    ["a.key", "a.pub", "b.key", "b.pub"].map(|name| world.path(name).display().to_string())
}

#[test]
fn signed_evidence_is_told_from_other_evidence() {
    let published = Published::new(true);
    let here = World::new();
    let [a_key, a_pub, b_key, b_pub] = keys(&here);
    here.record(&run(&here, 10, "here", "linux/amd64")).unwrap();
    here.ask(&["push", "--release", &published.tag()]).unwrap();
    let there = World::new();
    let error = pull(&there, &published.tag(), &["--key", &a_pub]).unwrap_err();
    assert!(error.cause == Cause::Usage && there.bundles().is_empty(), "{error}");
    here.ask(&["push", "--release", &published.tag(), "--key", &a_key]).unwrap();
    assert!(pull(&there, &published.tag(), &["--key", &b_pub]).is_err() && there.bundles().is_empty());
    // A second signature beside the first: each key finds its own.
    here.ask(&["push", "--release", &published.tag(), "--key", &b_key]).unwrap();
    for key in [&a_pub, &b_pub] {
        let there = World::new();
        assert_eq!(pull(&there, &published.tag(), &["--key", key]).unwrap().exit(), Exit::GOOD);
        assert_eq!(there.bundles().len(), 1);
    }
    // Every night all runs go there again: what is there and signed by this key stays as it is.
    let signatures = || {
        let digest = published.referrers()[0].digest().to_string();
        let (_, bytes) = published.registry.tag("tekton/p", &format!("{}.sig", digest.replacen(':', "-", 1))).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        manifest["layers"].as_array().unwrap().len()
    };
    assert_eq!(signatures(), 2);
    let uploads = published.registry.requests("PUT") + published.registry.requests("POST");
    for more in [&["--key", a_key.as_str()][..], &["--key", &b_key], &[]] {
        let (code, said) = here.json(&[&["push", "--release", &published.tag()], more].concat());
        assert_eq!((code, &said[0]["new"]), (0, &false.into()), "{said}");
    }
    assert_eq!(signatures(), 2);
    assert_eq!(published.registry.requests("PUT") + published.registry.requests("POST"), uploads);
    for wrong in [&a_pub, &published.tag()] {
        assert_eq!(here.ask(&["push", "--release", &published.tag(), "--key", wrong]).unwrap_err().cause, Cause::Usage);
    }
}

/// What somebody lists in our name is not signed: only what we packed ourselves is.
#[test]
fn what_claims_to_be_our_bundle_is_not_signed() {
    let published = Published::new(true);
    let here = World::new();
    let [a_key, a_pub, ..] = keys(&here);
    let digest = here.digest(&run(&here, 10, "here", "linux/amd64"));
    forge(&published, b"something else", Some(&digest));
    here.ask(&["push", "--release", &published.tag(), "--key", &a_key]).unwrap();
    let there = World::new();
    let error = pull(&there, &published.tag(), &["--key", &a_pub]).unwrap_err();
    assert!(error.to_string().contains("1 of 2 piece"), "{error}");
    assert_eq!(there.bundles().len(), 1);
    assert_eq!(published.registry.tags().iter().filter(|tag| tag.ends_with(".sig")).count(), 1);
}

#[test]
fn logs_that_stayed_at_home_can_follow() {
    let published = Published::new(true);
    let here = World::new();
    here.record(&run(&here, 10, "here", "linux/amd64")).unwrap();
    let push = |more: &[&str]| {
        let (_, said) = here.json(&[&["push", "--release", &published.tag()], more].concat());
        said[0]["new"].as_bool().unwrap()
    };
    let new: Vec<_> = [&["--no-logs"][..], &["--no-logs"], &[], &[], &["--no-logs"]].into_iter().map(push).collect();
    assert_eq!(new, [true, false, true, false, false]);
}

#[test]
fn nobody_has_the_index_while_the_network_takes_its_time() {
    let published = Published::new(true);
    let (here, there) = (World::new(), World::new());
    here.record(&run(&here, 10, "here", "linux/amd64")).unwrap();
    there.record(&there.run(10, "other").good("q", "v1", passing(2))).unwrap();
    let free = |world: &World, request: &str, act: &(dyn Fn() + Sync)| {
        published.registry.trouble(request, 1, crate::support::Trouble::Late(4_000));
        let before = published.registry.requests(request);
        std::thread::scope(|scope| {
            let acting = scope.spawn(act);
            let late = || kit::Error::new(Cause::Registry, "nobody asked the registry");
            let asked = || Ok((published.registry.requests(request) > before).then_some(()));
            kit::retry::until(std::time::Duration::from_secs(20), late, asked).unwrap();
            assert!(redb::Database::create(world.path("index")).is_ok(), "{request}");
            acting.join().unwrap();
        });
    };
    free(&here, "POST /v2/tekton/p/blobs/uploads", &|| {
        here.ask(&["push", "--release", &published.tag()]).unwrap();
    });
    free(&there, "GET /v2/tekton/p/blobs", &|| {
        pull(&there, &published.tag(), &[]).unwrap();
    });
    // And what comes in while somebody has it is kept: the next reader adds it.
    let third = World::new();
    third.record(&third.run(10, "other").good("q", "v1", passing(2))).unwrap();
    let held = redb::Database::create(third.path("index")).unwrap();
    pull(&third, &published.tag(), &[]).unwrap();
    drop(held);
    assert_eq!((third.bundles().len(), third.matrix(12).runs), (2, 2));
}
