//! One history with a bit of everything, and the very text that comes of it. UPDATE_GOLDEN=1 rewrites the files.

use std::path::Path;

use kit::{
    Cause, Error, Outcome,
    record::{Counts, Nature, Origin, Replacement, SkipSource, Status, Test},
};

use crate::world::{World, cluster, passing, test};

/// Runs of January 2026: good, failing, lost, emulated, published, old and hostile ones.
pub(crate) fn everything() -> World {
    let world = World::new();
    let mut tests = passing(50);
    let mut flaky = test("TestFlaky", Status::Flaky, Some(Cause::Flaky));
    flaky.attempts = 2;
    let excluded = Test {
        line: Some("needs the internet".into()),
        skipped_by: Some(SkipSource::Ledger),
        ..test("TestHub", Status::Skipped, None)
    };
    tests.extend([flaky, excluded]);
    let runs = [
        world.run(10, "good").good("pipeline", "v1.9.0", tests),
        lost(&world),
        failing(&world),
        published(&world),
        world.run(1, "old").good("old", "v0.1.0", passing(3)),
        hostile(&world),
    ];
    for run in &runs {
        world.record(run).unwrap();
    }
    world
}

fn lost(world: &World) -> crate::world::Run {
    let run = world.run(11, "lost").asked("pipeline", &["linux/amd64"]).built("pipeline", "v1.9.0", |images| {
        images.replacements = vec![Replacement { from: "cgr.dev/x@sha256:1".into(), to: "10.0.0.2:5000/shell".into() }];
    });
    let run = run.installed("pipeline", "v1.9.0", "linux/amd64", |_| ());
    let run = run.tested("pipeline", "v1.9.0", "linux/amd64", Vec::new(), |results| {
        let error = Error::new(Cause::Apiserver, "the API server went away").line("connection refused");
        results.head = results.head.clone().failed(&error);
        results.counts = Counts { asked: 52, not_run: 52, ..Counts::default() };
    });
    run.ended()
}

fn failing(world: &World) -> crate::world::Run {
    let mut tests = passing(3);
    tests.push(Test {
        line: Some("greeting_test.go:42: got \"\", want \"hello\"".into()),
        log: Some("logs/TestGreeting.log".into()),
        reproduce: Some("cargo xtask e2e-runner run --component greeter --test TestGreeting".into()),
        ..test("TestGreeting", Status::Failed, Some(Cause::Product))
    });
    let run = world.run(11, "bad").asked("greeter", &["linux/amd64"]).built("greeter", "devel", |_| ());
    let run = run.installed("greeter", "devel", "linux/amd64", |_| ());
    let run = run.log("greeter", "linux/amd64", "TestGreeting.log", b"=== RUN\n\x1b[31mgot <nothing> & more\x1b[0m\n");
    run.tested("greeter", "devel", "linux/amd64", tests, |_| ()).cleaned("greeter", "linux/amd64").ended()
}

/// A published release: amd64's cluster could not be reached, and s390x was emulated.
fn published(world: &World) -> crate::world::Run {
    let run = world.run(9, "released").asked("triggers", &["linux/amd64", "linux/s390x"]);
    let run = run.built("triggers", "v0.32.0", |images| {
        images.origin = Origin::Published;
        let row = &mut images.images[0].platforms[3];
        (row.manifest, row.config, row.program) = (None, None, None);
        (row.problem, row.cause) = (Some("the index lacks it".into()), Some(Cause::ImageMissingPlatform));
        let error = Error::new(Cause::ImageMissingPlatform, "controller lacks linux/ppc64le");
        images.head = images.head.clone().failed(&error);
    });
    let run = run.installed("triggers", "v0.32.0", "linux/amd64", |install| {
        install.nature = Nature::Unknown;
        let error = Error::new(Cause::ClusterUnreachable, "no answer from 10.0.0.1");
        install.head = install.head.clone().failed(&error);
    });
    let run = run.installed("triggers", "v0.32.0", "linux/s390x", |install| {
        install.nature = Nature::Emulated;
        install.cluster = cluster("linux/s390x", Nature::Emulated);
    });
    let emulated = |results: &mut kit::record::Results| results.nature = Nature::Emulated;
    run.tested("triggers", "v0.32.0", "linux/s390x", passing(4), emulated).ended()
}

fn hostile(world: &World) -> crate::world::Run {
    let name = "<script>alert(1)</script>|\u{202e}evil\u{1b}[2J";
    let bad = Test {
        line: Some("`</pre><img src=x onerror=alert(2)>` [x](http://evil.example) @all".into()),
        ..test("Test\"><script>", Status::Failed, Some(Cause::Unclassified))
    };
    let run = world.run(8, "hostile").built("x", "v1", |images| {
        images.component = format!("../../{name}");
        images.version = "v1\n\nv2".into();
    });
    run.tested("x", "v1", "linux/amd64", vec![bad], |results| {
        results.component = format!("../../{name}");
        results.version = "v1\n\nv2".into();
    })
    .stage("test", "", None, (6, 7), Outcome::Passed, None)
}

fn compare(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        kit::rundir::write(&path, found.as_bytes()).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == found, "{} differs; look at the difference after UPDATE_GOLDEN=1:\n{found}", path.display());
}

#[test]
fn every_rendering_is_as_it_was() {
    let world = everything();
    world.render(12, &["--format", "all"]).unwrap();
    for name in ["matrix.txt", "matrix.md", "matrix.json"] {
        compare(name, &world.output(name));
    }
    assert!(world.output("matrix.txt").lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn the_json_fits_its_own_schema() {
    let schema = serde_json::to_value(support_matrix::schema()).unwrap();
    let json: serde_json::Value = serde_json::from_str(&everything_json()).unwrap();
    assert_eq!(json["schemaVersion"], "2.0");
    let known = schema["properties"].as_object().unwrap();
    assert!(json.as_object().unwrap().keys().all(|key| known.contains_key(key)));
    let cell = schema["$defs"]["Cell"]["properties"].as_object().unwrap();
    for found in json["cells"].as_array().unwrap() {
        assert!(found.as_object().unwrap().keys().all(|key| cell.contains_key(key)));
    }
}

fn everything_json() -> String {
    let world = everything();
    world.render(12, &["--format", "json"]).unwrap();
    world.output("matrix.json")
}
