//! What is wrong, missing or hostile: a clear error or a warning, and the history stays as it was.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use kit::{Cause, Exit, Outcome, Platform, Process, record::Counts};

use crate::world::{Run, World, passing};

fn good(world: &World) -> Run {
    world.run(10, "good").good("p", "v1", passing(3))
}

fn refused(world: &World, run: &Run, named: &str) {
    let before = world.bundles();
    let error = world.record(run).unwrap_err();
    assert_eq!(error.cause, Cause::Usage, "{error}");
    assert!(error.to_string().contains(named), "{error}");
    assert_eq!(world.bundles(), before);
}

#[test]
fn the_same_run_twice_changes_nothing() {
    let world = World::new();
    let run = good(&world);
    let first = world.record(&run).unwrap();
    let before = world.bundles();
    let second = world.record(&run).unwrap();
    assert_eq!((first.digest, world.bundles()), (second.digest, before));
    assert_eq!(world.matrix(11).runs, 1);
}

#[test]
fn what_is_no_run_is_refused() {
    let world = World::new();
    let run = world.run(10, "empty");
    refused(&world, &run, "holds no record");
    symlink("/etc/passwd", run.dir.path().join("images.json")).unwrap();
    refused(&world, &run, "images.json");
    let missing = world.call(&["record", &world.path("nowhere").display().to_string(), "--index", "x"]).unwrap_err();
    assert_eq!(missing.cause, Cause::Usage);
}

#[test]
fn a_newer_schema_and_a_broken_record_are_refused() {
    let world = World::new();
    let run = good(&world);
    let path = run.dir.path().join("p/images.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"schemaVersion\": \"1.0\"", "\"schemaVersion\": \"2.0\"")).unwrap();
    refused(&world, &run, "newer");
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    refused(&world, &run, "images.json");
}

#[test]
fn totals_that_do_not_add_up_are_refused() {
    let world = World::new();
    let run = world.run(10, "liar").built("p", "v1", |_| ());
    let run = run.tested("p", "v1", "linux/amd64", passing(3), |results| {
        results.counts = Counts { asked: 3, passed: usize::MAX, failed: 4, ..Counts::default() };
    });
    refused(&world, &run, "do not add up");
}

/// Platforms stand in every rendering as they are, and in names of files: in each record where one comes in.
#[test]
fn platforms_that_are_no_plain_words_are_refused() {
    let of = |arch: &str| Platform { os: "linux".into(), arch: arch.into(), variant: None, os_version: None };
    let version = Platform { os_version: Some("10\u{202e}".into()), ..of("amd64") };
    let mut hostile: Vec<_> = ["\u{1b}]0;x\u{7}", "\u{202e}46dma", "<b>", "arm-v7", "", "a b"].map(of).to_vec();
    hostile.extend([Platform { variant: Some("../x".into()), ..of("arm") }, version]);
    for (number, platform) in hostile.iter().enumerate() {
        let world = World::new();
        let run = |name: &str| world.run(10, &format!("{name}{number}"));
        let build = |name: &str| run(name).built("p", "v1", |_| ());
        let asked = run("asked").asked("p", &["linux/amd64"]);
        let path = asked.dir.path().join("run.json");
        let text = fs::read_to_string(&path).unwrap();
        let name = serde_json::to_string(platform).unwrap();
        fs::write(&path, text.replacen("\"testOn\": [\n    \"linux/amd64\"", &format!("\"testOn\": [\n    {name}"), 1))
            .unwrap();
        assert_ne!(fs::read_to_string(&path).unwrap(), text);
        let built = run("built").built("p", "v1", |images| images.platforms.push(platform.clone()));
        let installed = build("i").installed("p", "v1", "linux/amd64", |install| install.platform = platform.clone());
        let tested = build("t").tested("p", "v1", "linux/amd64", passing(2), |tests| tests.platform = platform.clone());
        let mut staged = build("s");
        staged = staged.stage("test", "p", Some("linux/amd64"), (1, 2), Outcome::Passed, None);
        staged.stages.last_mut().unwrap().platform = Some(platform.clone());
        for run in [asked, built, installed, tested, staged.ended()] {
            refused(&world, &run, "no platform");
        }
    }
}

#[test]
fn evidence_from_the_future_is_refused_and_where_it_lies_already_left_out() {
    let world = World::new();
    let run = good(&world);
    let path = run.dir.path().join("stages.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"finished\": \"2026-01-10T01:15:00Z\"", "\"finished\": \"2999-01-01T00:00:00Z\""))
        .unwrap();
    refused(&world, &run, "in the future");
    world.keep(&run);
    let matrix = world.matrix(12);
    assert!(matrix.cells.is_empty());
    assert!(matrix.left_out[0].fault && matrix.left_out[0].reason.contains("future"), "{:?}", matrix.left_out);
}

/// A question about last year does not list every run since, and no question takes for known what nobody can know.
#[test]
fn later_runs_are_a_number_and_the_future_counts_at_no_date() {
    let world = World::new();
    for day in [5, 10, 11] {
        world.record(&world.run(day, "r").good("p", "v1", passing(2))).unwrap();
    }
    let early = world.matrix(6);
    assert_eq!((early.runs, early.later, early.left_out.len()), (1, 2, 0));
    world.render(6, &[]).unwrap();
    assert!(
        world.output("matrix.md").contains("from 1 run; 2 later ones do not count"),
        "{}",
        world.output("matrix.md")
    );
    assert_eq!(world.render(1, &[]).unwrap().exit(), Exit::GOOD, "the history is not empty");
    world.keep(&world.run_on("2999-01-01", "future").good("p", "v1", passing(2)));
    let (_, late) = world.json(&["render", "--format", "json", "--as-of", "3000-01-01"]);
    assert_eq!((&late["runs"], &late["leftOut"][0]["fault"]), (&3.into(), &true.into()));
}

#[test]
fn damaged_evidence_is_named_left_out_and_an_error_only_when_strict() {
    let world = World::new();
    world.record(&good(&world)).unwrap();
    let other = world.run(11, "other").good("q", "v1", passing(3)).log("q", "linux/amd64", "x.log", b"a log");
    world.record(&other).unwrap();
    let damage = |name: &str| {
        let of = |bundle: &Path| bundle.join(name).exists();
        let path = world.bundles().into_iter().find(|bundle| of(bundle)).unwrap().join(name);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "{}").unwrap();
    };
    damage("p/images.json");
    let matrix = world.matrix(12);
    assert!(matrix.cells.iter().all(|cell| cell.component == "q"));
    let left_out = &matrix.left_out[0];
    assert!(
        left_out.fault && left_out.reason.contains("damaged") && left_out.reason.contains("p/images.json"),
        "{left_out:?}"
    );
    assert_eq!(world.render(12, &[]).unwrap().exit(), Exit::GOOD);
    assert_eq!(world.render(12, &["--strict"]).unwrap().exit(), Exit::NOT_GOOD);
    // Nothing rests on a log: only a strict look finds it.
    damage("q/linux-amd64/lab-default/logs/x.log");
    assert_eq!(world.matrix(12).left_out.len(), 1);
    world.render(12, &["--strict", "--format", "json"]).unwrap();
    assert_eq!(world.output("matrix.json").matches("\"fault\": true").count(), 2);
}

#[test]
fn a_policy_that_asks_for_what_does_not_exist_is_an_error() {
    let world = World::new();
    world.record(&good(&world)).unwrap();
    world.config("policy.toml", "reference = 'linux/amd64'\n[[level]]\nname = 'x'\nevidence = ['vibes']\n");
    let error = world.render(12, &[]).unwrap_err();
    assert!(error.cause == Cause::Usage && error.to_string().contains("'vibes'"), "{error}");
}

#[test]
fn an_empty_history_is_nothing_and_a_missing_one_a_mistake() {
    let world = World::new();
    assert_eq!(world.render(12, &[]).unwrap_err().cause, Cause::Usage);
    fs::create_dir(world.path("history")).unwrap();
    assert_eq!(world.render(12, &[]).unwrap().exit(), Exit::NOTHING_RAN);
}

fn shell(world: &World, script: &str) -> kit::process::Finished {
    let mut command = Command::new("sh");
    command.args(["-c", script]).env("TOOL", env!("CARGO_BIN_EXE_support-matrix")).current_dir(world.path(""));
    Process::new("the script", command).finish().unwrap()
}

#[test]
fn a_full_disk_leaves_nothing_half_done() {
    let world = World::new();
    let run = good(&world).log("p", "linux/amd64", "large.log", &[b'x'; 200_000]);
    fs::create_dir(world.path("history")).unwrap();
    assert_eq!(world.render(12, &[]).unwrap().exit(), Exit::NOTHING_RAN);
    // No file may grow beyond 64 blocks of 512 bytes: writing then fails as on a full disk.
    // Neither with an index that is there nor with one that has yet to be made.
    for index in ["index", "new"] {
        let script =
            format!("trap '' XFSZ; ulimit -f 64; exec \"$TOOL\" record runs/* --history history --index {index}");
        let finished = shell(&world, &script);
        assert_eq!(finished.code(), i32::from(Exit::INFRASTRUCTURE.0), "{index}: {:?}", finished.last);
        assert!(finished.last.join(" ").contains("host-disk"), "{index}: {:?}", finished.last);
        assert!(world.bundles().is_empty() && !world.path("new").exists());
    }
    world.record(&run).unwrap();
    assert_eq!(world.bundles().len(), 1);
}

#[test]
fn a_kill_in_the_middle_leaves_no_half_bundle() {
    let world = World::new();
    let run = good(&world).log("p", "linux/amd64", "large.log", &[b'x'; 200_000]);
    fs::create_dir(world.path("history")).unwrap();
    // The index is there already: it is not what is killed here.
    assert_eq!(world.render(12, &[]).unwrap().exit(), Exit::NOTHING_RAN);
    // Without the trap, the write that goes beyond the limit kills the process.
    let finished =
        shell(&world, "ulimit -c 0; ulimit -f 64; exec \"$TOOL\" record runs/* --history history --index index");
    assert!(finished.code() > 128, "{}: {:?}", finished.code(), finished.last);
    assert_eq!(world.bundles().len(), 1, "what it left behind");
    assert_eq!(world.render(12, &[]).unwrap().exit(), Exit::NOTHING_RAN, "no reader takes it for a bundle");
    world.record(&run).unwrap();
    assert_eq!(world.matrix(12).runs, 1);
}

#[test]
fn the_program_itself_composes() {
    let world = World::new();
    good(&world);
    let script = r#"set -e
        digest=$("$TOOL" record runs/* --history history --index index --results-dir results 2>/dev/null)
        test "$digest" = "$(cat results/digest)"
        test -d "history/$(echo "$digest" | tr : -)"
        "$TOOL" render --history history --index index --ci ci --as-of 2026-01-12 | grep -q 'linux/amd64 .*tested natively'
        "$TOOL" render --history history --index index --ci ci --as-of 2026-01-12 --format json | grep -q '"state": "tested-natively"'
        "$TOOL" why p@v1/linux/s390x --history history --index index --ci ci --as-of 2026-01-12 | grep -q 'built and verified'
    "#;
    let finished = shell(&world, script);
    assert!(finished.good(), "{:?}", finished.last);
}
