//! What goes and what stays.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use kit::{
    Cause,
    record::{Images, Release, Status},
};

use crate::world::{World, passing, test};

fn world() -> World {
    let world = World::new();
    let policy = fs::read_to_string(world.path("ci/policy.toml")).unwrap();
    world.config("policy.toml", &format!("{policy}\n[retention]\nlogs = 5\nruns = 20\n"));
    for day in [1, 2, 15, 25] {
        let run = world.run(day, "r").good("p", "v1", passing(3));
        world.record(&run.log("p", "linux/amd64", "TestGood01.log", &[b'x'; 5_000])).unwrap();
    }
    // Old, and the only evidence of its cell.
    world.record(&world.run(1, "only").good("q", "v1", passing(3)).log("q", "linux/amd64", "x.log", b"x")).unwrap();
    world
}

#[test]
fn logs_go_first_then_runs_and_what_a_cell_rests_on_stays() {
    let world = world();
    let before = world.matrix(30);
    let (code, dry) = world.json(&["prune", "--dry-run", "--as-of", "2026-01-30"]);
    assert_eq!((code, dry["runs"].as_array().unwrap().len(), dry["logs"].as_array().unwrap().len()), (0, 2, 1));
    assert_eq!(world.bundles().len(), 5);
    let (code, done) = world.json(&["prune", "--as-of", "2026-01-30"]);
    assert_eq!((code, &done["runs"], &done["logs"]), (0, &dry["runs"], &dry["logs"]));
    assert_eq!(world.bundles().len(), 3);
    let after = world.matrix(30);
    let words = |matrix: &support_matrix::model::Matrix| {
        matrix.cells.iter().map(|cell| (cell.id.clone(), cell.state, cell.reason.clone())).collect::<Vec<_>>()
    };
    assert_eq!(words(&before), words(&after));
    // Logs that went on purpose are no damage, and the same run recorded again changes nothing.
    world.render(30, &["--strict"]).unwrap();
    assert_eq!(world.render(30, &["--strict"]).unwrap().exit(), kit::Exit::GOOD);
    let (_, again) = world.json(&["prune", "--as-of", "2026-01-30"]);
    assert!(again["runs"].as_array().unwrap().is_empty() && again["logs"].as_array().unwrap().is_empty());
}

#[test]
fn without_a_rule_nothing_goes_and_damage_stops_it() {
    let world = World::new();
    world.record(&world.run(1, "a").good("p", "v1", passing(3))).unwrap();
    assert_eq!(world.program(&["prune"]).0, 2);
    let world = self::world();
    let bundle = world.bundles().into_iter().find(|bundle| bundle.join("q/images.json").exists()).unwrap();
    fs::remove_file(bundle.join("q/images.json")).unwrap();
    assert_eq!(world.program(&["prune", "--as-of", "2026-01-30"]).0, 2);
    assert_eq!(world.bundles().len(), 5);
}

#[test]
fn the_folders_of_recorded_runs_go_from_a_volume_and_others_stay() {
    let world = World::new();
    let hours_ago = |file: std::path::PathBuf, hours: u64| {
        let file = fs::File::options().write(true).open(file).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_hours(hours)).unwrap();
    };
    let names = ["last", "just-now", "unclean", "killed", "forgotten"];
    let made = names.map(|name| world.run(1, name).good("p", name, passing(1)));
    // The baseline of a cluster that it never went back to; `good` has cleaned up.
    let baseline = |run: &crate::world::Run| {
        let cluster = crate::world::cluster("linux/amd64", kit::record::Nature::Native);
        let (head, bodies) = (kit::record::Head::new("cleanup", "0", "r", jiff::Timestamp::now()), None);
        let record = kit::record::Baseline { head, cluster, objects: vec![], unlisted: vec![], bodies, nodes: vec![] };
        run.write(&run.cell("p", "linux/amd64"), &record);
    };
    made.iter().for_each(baseline);
    fs::remove_file(made[2].cell("p", "linux/amd64").join("cleanup.json")).unwrap();
    for run in &made[..3] {
        world.record(run).unwrap();
    }
    for run in [&made[0], &made[2]] {
        hours_ago(run.dir.path().join("bundle.json"), 2);
    }
    hours_ago(made[4].dir.path().join("run-id"), 31 * 24);
    let own = world.run(2, "own").good("p", "own", passing(1));
    hours_ago(own.dir.path().join("run-id"), 31 * 24);
    let [folder, runs, history, index] =
        [own.dir.path().to_path_buf(), world.path("runs"), world.path("history"), world.path("index")]
            .map(|path| path.display().to_string());
    world.call(&["record", &folder, "--history", &history, "--index", &index, "--tidy", &runs]).unwrap();
    let left: Vec<_> = made.iter().map(|run| run.dir.path().exists()).collect();
    assert_eq!((left, own.dir.path().exists()), (vec![false, true, true, true, false], true));
}

#[test]
fn the_runs_of_a_pass_rate_stay() {
    let world = World::new();
    let policy = fs::read_to_string(world.path("ci/policy.toml")).unwrap();
    let rate = "pass_rate = { least = 0.8, last = 4 }\n[retention]\nruns = 2\n";
    world.config("policy.toml", &format!("{}{rate}", policy.replace("max_age = 7", "max_age = 60")));
    let bad = || vec![test("TestBad", Status::Failed, Some(Cause::Product))];
    for (day, tests) in [(1, passing(3)), (3, bad()), (4, passing(3)), (5, bad()), (6, passing(3)), (20, passing(3))] {
        world.record(&world.run(day, &format!("r{day}")).full("p", "v1", "linux/amd64", tests)).unwrap();
    }
    let ask = || world.json(&["can", "p@v1", "linux/amd64", "--as-of", "2026-01-30"]);
    let before = ask();
    assert_eq!(before.0, 1, "three of the last four: {before:?}");
    let (code, pruned) = world.json(&["prune", "--as-of", "2026-01-30"]);
    assert_eq!((code, pruned["runs"].as_array().unwrap().len()), (0, 2), "{pruned}");
    assert_eq!(ask(), before, "what failed decides as before");
}

#[test]
fn runs_that_make_a_cell_failing_stay() {
    let world = World::new();
    let policy = fs::read_to_string(world.path("ci/policy.toml")).unwrap();
    world.config("policy.toml", &format!("{policy}[states]\nfailing = 3\nstale = 90\n[retention]\nruns = 2\n"));
    let bad = || vec![test("TestBad", Status::Failed, Some(Cause::Product))];
    for (day, tests) in [(1, passing(3)), (3, bad()), (4, bad()), (5, bad())] {
        world.record(&world.run(day, &format!("r{day}")).full("p", "v1", "linux/amd64", tests)).unwrap();
    }
    let state = || world.matrix(20).cells[0].state;
    assert_eq!(state(), support_matrix::model::State::Failing);
    assert_eq!(world.ask(&["prune", "--as-of", "2026-01-20"]).unwrap().exit(), kit::Exit::GOOD);
    assert_eq!((state(), world.bundles().len()), (support_matrix::model::State::Failing, 3));
}

#[test]
fn who_built_what_was_tested_stays() {
    let world = World::new();
    let policy = fs::read_to_string(world.path("ci/policy.toml")).unwrap();
    world.config("policy.toml", &format!("{policy}[retention]\nruns = 2\n"));
    let other = |images: &mut Images| {
        images.release = Some(Release { digest: kit::digest::sha256(b"other"), objects: 7, artifact: None });
    };
    world.record(&world.run(1, "build").built("p", "v1", |_| ())).unwrap();
    let run = world.run(2, "test").installed("p", "v1", "linux/amd64", |_| ());
    world.record(&run.tested("p", "v1", "linux/amd64", passing(3), |_| ())).unwrap();
    // The same version, built again: the evidence of its images is newer than what was tested.
    world.record(&world.run(5, "again").built("p", "v1", other)).unwrap();
    let origins = || {
        let cells = world.matrix(20).cells;
        cells.into_iter().map(|cell| (cell.id, cell.state, cell.run_count)).collect::<Vec<_>>()
    };
    let before = origins();
    world.ask(&["prune", "--as-of", "2026-01-20"]).unwrap();
    assert_eq!(origins(), before);
    assert!(before.iter().all(|(id, ..)| id.ends_with("/built-here")), "{before:?}");
}
