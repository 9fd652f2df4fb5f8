//! What one run says: kinds of tests, parts of suites, missing records, who built what, and what is too much.

use std::{fs, path::PathBuf};

use kit::{
    Cause, Error, Outcome,
    record::{Install, Origin, Release, Results, Source, Stage, Stages, Status, Test, Unseen, Whole},
};
use support_matrix::model::{Cell, OriginKind, PlatformRow, State, Verdict};

use crate::world::{Run, World, passing, platform, test};

const AMD64: &str = "linux/amd64";

fn cells(world: &World, day: u8, component: &str, on: &str) -> Vec<Cell> {
    let found = world.matrix(day).cells.into_iter();
    found.filter(|cell| cell.component == component && cell.platform == platform(on)).collect()
}

fn cell(world: &World, day: u8, component: &str, on: &str) -> Cell {
    let mut found = cells(world, day, component, on);
    assert_eq!(found.len(), 1, "{found:#?}");
    found.remove(0)
}

fn row(world: &World, day: u8, on: &str) -> PlatformRow {
    world.matrix(day).platforms.into_iter().find(|row| row.platform == platform(on)).unwrap()
}

/// Moves what was tested last into a folder of its own, as another cluster's or as that of a kind.
fn moved(run: Run, component: &str, to: &str, name: &str) -> Run {
    let from = run.cell(component, AMD64);
    let to: PathBuf = from.parent().unwrap().join(to);
    fs::create_dir_all(&to).unwrap();
    fs::rename(from.join("results.json"), to.join(name)).unwrap();
    if from.join("install.json").exists() && !to.starts_with(&from) {
        fs::copy(from.join("install.json"), to.join("install.json")).unwrap();
    }
    run
}

fn tested(run: Run, tests: Vec<Test>, change: impl FnOnce(&mut Results)) -> Run {
    run.tested("p", "v1", AMD64, tests, change)
}

fn installed(world: &World, day: u8, name: &str) -> Run {
    world.run(day, name).built("p", "v1", |_| ()).installed("p", "v1", AMD64, |_| ())
}

#[test]
fn other_kinds_of_tests_lie_in_folders_of_their_names() {
    let world = World::new();
    let policy =
        "reference = 'linux/amd64'\n[[level]]\nname = 'supported'\nevidence = ['unit', 'examples']\nnative = true\n";
    world.config("policy.toml", policy);
    let kind = |name: &'static str| move |results: &mut Results| results.kind = name.into();
    let mut bad = passing(2);
    let log = Some("logs/TestBad.log".into());
    bad.push(Test { log, ..test("TestBad", Status::Failed, Some(Cause::Product)) });
    let run = moved(tested(installed(&world, 10, "kinds"), bad, kind("unit")), "p", "lab-default/unit", "results.json");
    let run = tested(run, passing(3), kind("examples"));
    let run = moved(run, "p", "lab-default/examples", "results.json");
    let folder = run.cell("p", AMD64);
    kit::rundir::write(&folder.join("unit/logs/TestBad.log"), b"the unit's log").unwrap();
    // What a test writes there is no record.
    for kind in ["logs", "evidence"] {
        kit::rundir::write(&folder.join(kind).join("results.json"), b"{\"anything\": 1}").unwrap();
    }
    world.record(&run).unwrap();
    let found = cell(&world, 11, "p", AMD64);
    assert_eq!((found.levels.unit.verdict, found.levels.examples.verdict), (Verdict::Failed, Verdict::Shown));
    assert_eq!(found.levels.e2e.verdict, Verdict::NotTried);
    assert_eq!(found.supported.reasons, ["unit: not good"]);
    let tails: Vec<_> =
        found.runs[0].results.iter().flat_map(|result| &result.tests).map(|test| &test.log_tail).collect();
    assert_eq!(tails, [&Some("the unit's log".to_owned())]);
    let good =
        moved(tested(installed(&world, 12, "good"), passing(3), kind("unit")), "p", "lab-default/unit", "results.json");
    world.record(&good.ended()).unwrap();
    assert!(cell(&world, 12, "p", AMD64).supported.met);
    // In the folder of another kind nobody knows what it is.
    let lie =
        moved(tested(installed(&world, 13, "lie"), passing(3), kind("e2e")), "p", "lab-default/unit", "results.json");
    let error = world.record(&lie).unwrap_err();
    assert!(error.cause == Cause::Usage && error.to_string().contains("unit/results.json"), "{error}");
}

#[test]
fn a_run_that_says_more_than_any_run_is_refused() {
    let world = World::new();
    let refused = |run: &Run, said: &str| {
        let error = world.record(run).unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{said}: {error}");
        assert!(world.bundles().is_empty());
    };
    for (number, (part, of)) in [(0, 1), (1, 0), (3, 2), (1, 1_001), (1, u32::MAX)].into_iter().enumerate() {
        let run = installed(&world, 10, &format!("part{number}"));
        refused(&tested(run, passing(1), |results| results.shard = (part, of)), &format!("no shard {part} of {of}"));
    }
    let run = installed(&world, 11, "asked").asked("p", &[AMD64]);
    let path = run.dir.path().join("run.json");
    let mut asked: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    asked["components"] = (0..100).map(|number| format!("c{number}")).collect();
    asked["testOn"] = (0..100).map(|number| format!("linux/a{number}")).collect();
    fs::write(&path, asked.to_string()).unwrap();
    refused(&run, "statements, more than");
    let run = world.run(12, "platforms").built("p", "v1", |images| {
        images.platforms = (0..1_000).map(|number| platform(&format!("windows/amd64:10.0.{number}"))).collect();
    });
    refused(&run, "1000 platforms, more than");
}

fn part(run: Run, number: u32, cluster: &str, tests: Vec<Test>, whole: &str) -> Run {
    let whole = Some(Whole { asked: 7, digest: whole.into() });
    let run = tested(run, tests, |results| (results.shard, results.whole) = ((number, 2), whole));
    moved(run, "p", cluster, &format!("results.{number}-of-2.json"))
}

#[test]
fn the_parts_of_a_suite_may_lie_on_several_clusters() {
    let world = World::new();
    let run = part(installed(&world, 10, "two").asked("p", &[AMD64]), 1, "lab-a", passing(3), "sha256:1");
    world.record(&part(run, 2, "lab-b", passing(4), "sha256:1").ended()).unwrap();
    let found = cell(&world, 11, "p", AMD64);
    assert_eq!((found.state, found.lost_runs), (State::TestedNatively, 0), "{}", found.reason);
    assert_eq!(found.tested.counts.unwrap().passed, 7);
    assert_eq!(row(&world, 11, AMD64).lost, 0);
    let results = &found.runs[0].results;
    assert_eq!(results.iter().filter(|result| result.name == "e2e smoke").count(), 1, "{results:#?}");
}

#[test]
fn a_bad_part_on_another_cluster_makes_the_suite_bad() {
    let world = World::new();
    let bad = vec![test("TestBad", Status::Failed, Some(Cause::Product))];
    let run = part(installed(&world, 10, "two"), 1, "lab-a", bad, "sha256:1");
    world.record(&part(run, 2, "lab-b", passing(4), "sha256:1").ended()).unwrap();
    let found = cell(&world, 11, "p", AMD64);
    assert_eq!((found.state, found.tested.counts.unwrap().asked), (State::Failing, 5));
}

#[test]
fn parts_of_two_wholes_are_no_suite() {
    let world = World::new();
    let run = part(installed(&world, 10, "two"), 1, "lab-a", passing(3), "sha256:1");
    world.record(&part(run, 2, "lab-b", passing(4), "sha256:2").ended()).unwrap();
    let found = cell(&world, 11, "p", AMD64);
    assert_eq!((found.state, found.tested.passed, found.lost_runs), (State::Installed, false, 0));
    assert_eq!(found.levels.e2e.words, "its parts are not of one whole");
}

#[test]
fn merged_parts_are_not_counted_again() {
    let world = World::new();
    let run = part(installed(&world, 10, "merged"), 1, "lab-default", passing(3), "sha256:1");
    let run = part(run, 2, "lab-b", passing(4), "sha256:1");
    let mut all = passing(6);
    all.push(test("TestBad", Status::Failed, Some(Cause::Product)));
    world.record(&tested(run, all, |_| ()).ended()).unwrap();
    let found = cell(&world, 11, "p", AMD64);
    assert_eq!((found.state, found.tested.counts.unwrap().asked), (State::Failing, 7));
    assert_eq!(found.runs[0].results.iter().filter(|result| result.name == "e2e smoke").count(), 1);
}

/// A part alone may be one of several in other runs; only if its own run was stopped is anything lost.
#[test]
fn a_part_alone_is_lost_only_with_its_run() {
    let world = World::new();
    world.record(&part(installed(&world, 10, "alone"), 1, "lab-a", passing(3), "sha256:1").ended()).unwrap();
    let found = cell(&world, 11, "p", AMD64);
    assert_eq!((found.state, found.lost_runs), (State::Installed, 0));
    assert_eq!(found.levels.e2e.words, "1 of 2 shards have no results");
    let killed = installed(&world, 12, "killed").asked("p", &[AMD64]);
    world.record(&part(killed, 1, "lab-a", passing(3), "sha256:1")).unwrap();
    let found = cell(&world, 12, "p", AMD64);
    assert_eq!((found.state, found.lost_runs), (State::Installed, 1));
    assert_eq!((row(&world, 12, AMD64).runs, row(&world, 12, AMD64).lost), (2, 1));
}

/// A stage's file as a tool leaves it with `--stage`, and no `run.json` as in a Pipeline.
fn stage(run: &Run, name: &str, on: Option<&str>, cause: Option<Cause>) {
    let at: jiff::Timestamp = "2026-01-10T01:05:00Z".parse().unwrap();
    let stage = Stage {
        name: name.into(),
        component: on.map(|_| "p".into()),
        platform: on.map(platform),
        part: None,
        started: at,
        finished: at,
        outcome: if cause.is_some() { Outcome::Failed } else { Outcome::Passed },
        cause,
        exit: cause.map_or(0, |cause| i32::from(cause.exit().0)),
        command: format!("cargo xtask {name}"),
    };
    let mut json = serde_json::to_value(&stage).unwrap();
    json["schemaVersion"] = "1.0".into();
    kit::rundir::write(&run.dir.path().join(format!("stages/{name}.json")), json.to_string().as_bytes()).unwrap();
}

fn concluded(world: &World, run: &Run, statuses: &[&str]) {
    let folder = run.dir.path().display().to_string();
    world.call(&[&["conclude", &folder, "--status"], statuses].concat()).unwrap();
    let (mut stages, _) = kit::rundir::read_record::<Stages>(run.dir.path()).unwrap();
    stages.head.finished = stages.head.started;
    kit::rundir::write_record(run.dir.path(), &stages).unwrap();
}

#[test]
fn what_a_pipeline_lost_is_counted_without_a_run_json() {
    let world = World::new();
    let only = |images: &mut kit::record::Images| images.platforms = vec![platform("linux/s390x")];
    // Only the release says what the lease was for.
    let run = world.run(10, "lease").built("p", "v1", only);
    stage(&run, "lease", None, Some(Cause::ClusterUnreachable));
    concluded(&world, &run, &["lease=Failed", "install=None", "e2e=None"]);
    world.record(&run).unwrap();
    let found = cell(&world, 11, "p", "linux/s390x");
    assert_eq!((found.state, found.lost_runs), (State::Built, 1));
    assert!(found.reason.contains("stage 'lease' ended with cluster-unreachable"), "{}", found.reason);
    assert!(found.runs[0].complete);
    let counted = row(&world, 11, "linux/s390x");
    assert_eq!((counted.runs, counted.lost, counted.share), (1, 1, 1.0));
    // What has a record speaks for itself, and tests that a component does not have are no try.
    let run = world.run(12, "tests").built("p", "v1", only).installed("p", "v1", "linux/s390x", |_| ());
    stage(&run, "install", Some("linux/s390x"), None);
    stage(&run, "unit", Some("linux/s390x"), Some(Cause::NothingRan));
    stage(&run, "e2e", Some("linux/s390x"), Some(Cause::Node));
    concluded(&world, &run, &["install=Succeeded", "e2e=Failed"]);
    world.record(&run).unwrap();
    let found = cell(&world, 12, "p", "linux/s390x");
    assert_eq!((found.levels.e2e.verdict, found.levels.unit.verdict), (Verdict::Infrastructure, Verdict::NotTried));
    assert_eq!((found.levels.installs.verdict, found.lost_runs), (Verdict::Shown, 2));
}

#[test]
fn a_host_that_makes_no_cluster_is_a_loss_and_so_is_a_cluster_that_is_not_fit() {
    for (name, cause) in [("target", Cause::Ssh), ("preflight", Cause::Dns)] {
        let world = World::new();
        let only = |images: &mut kit::record::Images| images.platforms = vec![platform("linux/s390x")];
        let run = world.run(10, name).built("p", "v1", only);
        stage(&run, name, Some("linux/s390x"), Some(cause));
        concluded(&world, &run, &[&format!("{name}=Failed"), "install=None"]);
        world.record(&run).unwrap();
        let found = cell(&world, 11, "p", "linux/s390x");
        assert_eq!((found.state, found.lost_runs), (State::Built, 1), "{name}");
        assert!(found.reason.contains(&format!("stage '{name}' ended with {cause}")), "{}", found.reason);
    }
}

#[test]
fn a_pipeline_that_was_killed_before_its_end_is_not_complete() {
    let world = World::new();
    let run = installed(&world, 10, "killed");
    stage(&run, "install", Some(AMD64), None);
    stage(&run, "e2e", Some(AMD64), Some(Cause::Interrupted));
    let done = world.record(&run);
    assert!(done.is_ok());
    let found = cell(&world, 11, "p", AMD64);
    assert!(!found.runs[0].complete);
    assert_eq!((found.levels.e2e.verdict, found.lost_runs), (Verdict::Infrastructure, 1));
}

#[test]
fn our_own_faults_are_not_the_infrastructure_s() {
    let world = World::new();
    for (day, cause) in [(8, Cause::Usage), (9, Cause::NothingRan), (10, Cause::Internal)] {
        let run = installed(&world, day, cause.name()).asked("p", &[AMD64]);
        let run = tested(run, Vec::new(), |results| {
            results.head = results.head.clone().failed(&Error::new(cause, "no such suite"));
        });
        world.record(&run.ended()).unwrap();
    }
    // Nothing ran, and the record calls it good.
    world.record(&tested(installed(&world, 11, "none"), Vec::new(), |_| ()).ended()).unwrap();
    let found = cell(&world, 12, "p", AMD64);
    assert_eq!((found.state, found.run_count, found.lost_runs), (State::Installed, 4, 0));
    assert_eq!(found.levels.e2e.words, "no test ran");
    assert_eq!((row(&world, 12, AMD64).runs, row(&world, 12, AMD64).lost), (4, 0));
    let reasons = found.claims.iter().find(|claim| claim.name == "tested").unwrap().reasons.clone();
    assert_eq!(reasons, ["e2e smoke or full: nothing was learnt"]);
}

#[test]
fn a_run_that_taught_something_is_not_lost() {
    let world = World::new();
    let lost = |results: &mut Results| {
        results.suite = "full".into();
        results.head = results.head.clone().failed(&Error::new(Cause::Apiserver, "it went away"));
        results.counts.not_run = 3;
        results.counts.asked = 3;
    };
    let run = moved(tested(installed(&world, 10, "half"), Vec::new(), lost), "p", "lab-b", "results.json");
    world.record(&tested(run, passing(3), |_| ()).ended()).unwrap();
    assert_eq!((row(&world, 11, AMD64).runs, row(&world, 11, AMD64).lost), (1, 0));
    world.record(&tested(installed(&world, 11, "all"), Vec::new(), lost).ended()).unwrap();
    assert_eq!((row(&world, 11, AMD64).runs, row(&world, 11, AMD64).lost), (2, 1));
}

/// The product fails before there is a record: where that was, the installation knows.
#[test]
fn a_native_failure_without_a_record_is_native() {
    let world = World::new();
    world.record(&tested(installed(&world, 9, "good"), passing(3), |_| ()).ended()).unwrap();
    for (day, asked) in [(10, true), (12, false)] {
        let run = world.run(day, "timeout");
        let run = if asked { run.asked("p", &[AMD64]) } else { run };
        let run = run.built("p", "v1", |_| ()).installed("p", "v1", AMD64, |_| ());
        let late = run.stage("test", "p", Some(AMD64), (6, 14), Outcome::Failed, Some(Cause::TestTimeout)).ended();
        world.record(&late).unwrap();
        let found = cell(&world, day, "p", AMD64);
        assert_eq!((found.state, found.levels.e2e.verdict), (State::Failing, Verdict::Failed), "{}", found.reason);
        world.record(&tested(installed(&world, day + 1, "mended"), passing(3), |_| ()).ended()).unwrap();
    }
    let slow = world.run(14, "slow").asked("p", &[AMD64]).built("p", "v2", |_| ());
    let slow = slow.installed("p", "v2", AMD64, |install| install.nature = kit::record::Nature::Emulated);
    let slow = slow.stage("test", "p", Some(AMD64), (6, 14), Outcome::Failed, Some(Cause::TestTimeout));
    world.record(&slow.ended()).unwrap();
    let found = world.matrix(14).cells.into_iter().find(|cell| cell.version == "v2" && cell.kubernetes.is_some());
    assert_eq!(found.unwrap().levels.e2e.verdict, Verdict::FailedNotNative);
}

#[test]
fn a_failed_test_is_not_hidden_by_skips() {
    let world = World::new();
    let mut tests = passing(1);
    tests.extend((0..400).map(|number| test(&format!("TestGood01/sub{number}"), Status::Skipped, None)));
    tests.extend((0..30).map(|number| test(&format!("TestFlaky{number}"), Status::Flaky, Some(Cause::Flaky))));
    let log = Some("logs/TestBad.log".into());
    tests.push(Test { log, ..test("TestBad", Status::Failed, Some(Cause::Product)) });
    for test in tests.iter_mut().filter(|test| test.status == Status::Flaky) {
        test.log = Some("logs/flaky.log".into());
    }
    let run = tested(installed(&world, 10, "skips"), tests, |_| ());
    world.record(&run.log("p", AMD64, "TestBad.log", b"what went wrong").ended()).unwrap();
    let found = cell(&world, 11, "p", AMD64);
    assert!(found.reason.contains("TestBad (product)"), "{}", found.reason);
    let listed = &found.runs[0].results.iter().find(|result| result.name == "e2e smoke").unwrap().tests;
    assert_eq!((listed[0].name.as_str(), listed[0].log_tail.as_deref()), ("TestBad", Some("what went wrong")));
    let statuses: Vec<_> = listed.iter().map(|test| test.status).collect();
    assert_eq!((statuses[1], statuses[30], statuses[31]), (Status::Flaky, Status::Flaky, Status::Skipped));
    assert_eq!(statuses.len(), 131);
}

#[test]
fn what_we_built_is_not_published_by_looking_at_it() {
    let world = World::new();
    world.record(&world.run(8, "build").built("p", "v1", |_| ())).unwrap();
    let look = |images: &mut kit::record::Images| images.origin = Origin::Published;
    let run = world.run(10, "look").asked("p", &[AMD64]).built("p", "v1", look).installed("p", "v1", AMD64, |_| ());
    world.record(&tested(run, passing(3), |_| ()).cleaned("p", AMD64).ended()).unwrap();
    // A run that only tests it: whoever built it is asked, not who looked last.
    let run = world.run(11, "test").installed("p", "v1", AMD64, |_| ());
    world.record(&tested(run, passing(3), |_| ())).unwrap();
    let found = cell(&world, 12, "p", AMD64);
    assert_eq!((found.origin.kind, found.available.available), (OriginKind::BuiltHere, false));
    assert_eq!((found.run_count, found.state), (3, State::TestedNatively));
    let all = world.matrix(12).cells;
    assert!(all.iter().all(|cell| !cell.available.available && cell.origin.kind == OriginKind::BuiltHere), "{all:#?}");
    // Before anybody knew, it was what it said.
    let other = World::new();
    other.record(&other.run(10, "look").built("p", "v1", look)).unwrap();
    assert!(cell(&other, 11, "p", AMD64).available.available);
}

#[test]
fn who_built_a_release_knows_what_was_replaced_and_not_who_looked_at_it_later() {
    let world = World::new();
    let replaced = kit::record::Replacement { from: "busybox".into(), to: "example.com/mirror/busybox".into() };
    let release = |digest: &str| Some(Release { digest: digest.into(), objects: 7, artifact: None });
    let digest = kit::digest::sha256(b"release");
    let build = |images: &mut kit::record::Images| {
        let commit = Some("0123456789abcdef0123456789abcdef01234567".into());
        images.source = Source::Folder { path: "p".into(), digest: kit::digest::sha256(b"p"), commit };
        (images.replacements, images.release) = (vec![replaced], release(&digest));
    };
    world.record(&world.run(8, "build").built("p", "devel", build)).unwrap();
    let look = |images: &mut kit::record::Images| {
        images.source = Source::Release { reference: format!("example.com/release@{digest}") };
        images.release = release(&digest);
    };
    let run = world.run(10, "look").built("p", "devel", look);
    world.record(&run.installed("p", "devel", AMD64, |install| install.release = digest.clone())).unwrap();
    let found = cell(&world, 12, "p", AMD64);
    assert_eq!((found.run_count, found.origin.replacements.len()), (2, 1), "{:?}", found.origin);
}

#[test]
fn what_nobody_looked_into_is_not_verified() {
    let world = World::new();
    let run = world.run(10, "unseen").built("p", "v1", |images| {
        images.images[1].platforms[0].program = None;
        images.images[1].platforms[0].unseen = Some(Unseen::Program);
        images.images[0].platforms[1].unseen = Some(Unseen::LayerEnd);
        images.origin = Origin::Published;
    });
    world.record(&run).unwrap();
    let unseen = cell(&world, 11, "p", AMD64);
    assert!(!unseen.available.available && unseen.claim.is_none(), "{unseen:#?}");
    assert_eq!(unseen.levels.contents.verdict, Verdict::NotTried);
    let said = "program not looked at in 1 of 2 images: example.com/p/cmd/webhook";
    assert_eq!(unseen.levels.contents.words, said);
    let end = cell(&world, 11, "p", "linux/arm64");
    assert!(end.available.available);
    let said = "2 images verified: config and program; of 1 not to the end of the layer with the program";
    assert_eq!(end.levels.contents.words, said);
}

#[test]
fn what_got_nowhere_belongs_to_the_version_before_it() {
    let world = World::new();
    let nowhere = |day, name: &str| {
        let run = world.run(day, name).asked("p", &[AMD64]);
        run.stage("lab", "", None, (1, 2), Outcome::Failed, Some(Cause::Node)).ended()
    };
    world.record(&nowhere(2, "first")).unwrap();
    world.record(&world.run(5, "old").full("p", "v1.0.0", AMD64, passing(3))).unwrap();
    world.record(&nowhere(7, "second")).unwrap();
    world.record(&world.run(20, "new").full("p", "v1.1.0", AMD64, passing(3))).unwrap();
    let lost = |version: &str| cells(&world, 21, "p", AMD64).iter().find(|c| c.version == version).unwrap().lost_runs;
    assert_eq!((lost("unknown"), lost("v1.0.0"), lost("v1.1.0")), (1, 1, 0));
}

/// Sources in a folder, at a commit.
fn nightly(world: &World, day: u8, on: &str, commit: Option<&str>, tests: Vec<Test>) -> Run {
    let name = format!("n{day}");
    let digest = kit::digest::sha256(name.as_bytes());
    let run = world.run(day, &name).asked("p", &[on]).built("p", "devel", |images| {
        let source = kit::digest::sha256(commit.unwrap_or(&name).as_bytes());
        images.source = Source::Folder { path: "p".into(), digest: source, commit: commit.map(Into::into) };
        images.release = Some(Release { digest: digest.clone(), objects: 7, artifact: None });
    });
    let run = run.installed("p", "devel", on, |install: &mut Install| install.release = digest.clone());
    run.tested("p", "devel", on, tests, |results| {
        results.suite = "full".into();
        results.release = Some(digest.clone());
    })
    .ended()
}

#[test]
fn each_nightly_commit_is_a_version_of_its_own() {
    let world = World::new();
    let policy = fs::read_to_string(world.path("ci/policy.toml")).unwrap();
    world.config("policy.toml", &format!("{policy}unlike_reference = 0\n"));
    let (a, b) = ("a".repeat(40), "b".repeat(40));
    world.config(
        "architectures.toml",
        "[[architecture]]\nplatform = 'linux/amd64'\nowners = ['A']\n[[architecture]]\nplatform = 'linux/s390x'\nowners = ['Z']\n",
    );
    world.record(&nightly(&world, 8, AMD64, Some(&a), passing(3))).unwrap();
    world.record(&nightly(&world, 9, "linux/s390x", Some(&b), passing(3))).unwrap();
    let z = |day| {
        let cells = cells(&world, day, "p", "linux/s390x").into_iter();
        cells.rev().find(|cell| cell.kubernetes.is_some()).unwrap()
    };
    assert_eq!((z(10).version.as_str(), z(10).line.as_str()), ("devel@bbbbbbbbbbbb", "main"));
    assert!(z(10).compared.is_none(), "amd64 was tested at another commit");
    let said = "e2e full: never tested on linux/amd64 in this version, with which it is compared";
    assert_eq!(z(10).supported.reasons, [said]);
    // The same commit, built again: another release, and still the same sources.
    world.record(&nightly(&world, 10, AMD64, Some(&b), passing(4))).unwrap();
    assert_eq!(z(10).compared.unwrap().count, 1);
    // A run that only tests a release names no commit: whoever built it does.
    let digest = kit::digest::sha256(b"n9");
    let run = world.run(11, "again").installed("p", "devel", "linux/s390x", |install| install.release = digest.clone());
    let run = run.tested("p", "devel", "linux/s390x", passing(4), |results| {
        results.suite = "full".into();
        results.release = Some(digest.clone());
    });
    world.record(&run).unwrap();
    assert_eq!((z(11).version.as_str(), z(11).run_count), ("devel@bbbbbbbbbbbb", 3));
    assert!(z(11).supported.met, "{:?}", z(11).supported);
    // Of a name for many the newest counts, and with changes it is its content.
    assert_eq!(world.program(&["can", "p@devel", "linux/s390x", "--as-of", "2026-01-12"]).0, 0);
    assert_eq!(world.program(&["can", "p@main", "linux/s390x", "--as-of", "2026-01-12"]).0, 0);
    assert_eq!(world.program(&["can", "p@devel@bbbbbbbbbbbb", "linux/s390x", "--as-of", "2026-01-12"]).0, 0);
    let dirty = format!("{b}-dirty");
    world.record(&nightly(&world, 12, "linux/s390x", Some(&dirty), passing(3))).unwrap();
    let content = &kit::digest::sha256(dirty.as_bytes())[7..19];
    assert!(cells(&world, 12, "p", "linux/s390x").iter().any(|cell| cell.version == format!("devel@{content}")));
}

/// Each night is a version of its own, and only all nights together have a pass rate and a history.
#[test]
fn nightly_commits_have_a_pass_rate_together() {
    let world = World::new();
    let policy = fs::read_to_string(world.path("ci/policy.toml")).unwrap();
    world.config("policy.toml", &format!("{policy}pass_rate = {{ least = 0.8, last = 4 }}\n"));
    let night = |day, letter: &str, tests| {
        world.record(&nightly(&world, day, AMD64, Some(&letter.repeat(40)), tests)).unwrap();
    };
    let of = |letter: &str| {
        let found = cells(&world, 8, "p", AMD64).into_iter().find(|cell| cell.version.ends_with(&letter.repeat(12)));
        let found = found.unwrap();
        let rate = found.pass_rate.unwrap();
        (rate.passed, rate.valid, found.supported)
    };
    night(2, "a", passing(3));
    night(3, "b", vec![test("TestBad", Status::Failed, Some(Cause::Product))]);
    night(4, "c", passing(3));
    night(5, "d", passing(3));
    let (passed, valid, supported) = of("d");
    assert_eq!((passed, valid), (3, 4));
    assert_eq!(supported.reasons, ["e2e full: 3 of the last 4 valid runs passed, fewer than 80 %"]);
    let (passed, valid, supported) = of("a");
    assert!((passed, valid, supported.met) == (1, 1, true), "what comes after a commit says nothing of it");
    night(6, "e", passing(3));
    night(7, "f", passing(3));
    assert!(of("f").2.met && of("f").2.evidence.len() >= 4, "of all that it rests on something is kept");
    let site = world.path("site").display().to_string();
    world.ask(&["site", "--out", &site, "--as-of", "2026-01-08"]).unwrap();
    let pages = fs::read_dir(world.path("site/cells")).unwrap().map(|page| page.unwrap().path());
    let newest = pages
        .map(|page| fs::read_to_string(page).unwrap())
        .find(|page| page.contains("ffffffffffff on linux&#x2f;amd64"));
    assert!(newest.unwrap().contains("all passed in 5 of 6 valid runs, 0 were lost"));
}

#[test]
fn a_version_that_is_something_else_each_day_is_compared_with_the_same_release_only() {
    let world = World::new();
    let build = |day: u8, on: &str| {
        let digest = kit::digest::sha256(&[day]);
        let run = world.run(day, "r").built("p", "devel", |images| {
            images.release = Some(Release { digest: digest.clone(), objects: 7, artifact: None });
        });
        let run = run.installed("p", "devel", on, |install| install.release = digest.clone());
        run.tested("p", "devel", on, passing(3), |results| results.release = Some(digest.clone()))
    };
    world.record(&build(8, AMD64)).unwrap();
    world.record(&build(9, "linux/s390x")).unwrap();
    assert!(cell(&world, 10, "p", "linux/s390x").compared.is_none());
}
