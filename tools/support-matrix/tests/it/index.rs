//! The index is only an index: without it, with a copied, damaged or newer one, and with two who write at once.

use std::fs;

use kit::{Cause, Exit};

use crate::world::{World, passing};

fn world() -> World {
    let world = World::new();
    world.record(&world.run(10, "a").good("p", "v1", passing(5))).unwrap();
    world.record(&world.run(11, "b").full("q", "v1", "linux/s390x", passing(5))).unwrap();
    world
}

fn matrix(world: &World) -> String {
    world.render(12, &["--format", "json"]).unwrap();
    world.output("matrix.json")
}

#[test]
fn it_can_be_deleted_at_any_time() {
    let world = world();
    let before = matrix(&world);
    fs::remove_file(world.path("index")).unwrap();
    assert_eq!(matrix(&world), before);
}

#[test]
fn a_copy_damage_and_an_old_version_are_built_again() {
    let world = world();
    let before = matrix(&world);
    let index = world.path("index");
    // A copy, as a sync tool makes it, while the bundles here are others.
    let copy = world.path("copy");
    fs::copy(&index, &copy).unwrap();
    world.record(&world.run(12, "c").good("r", "v1", passing(2))).unwrap();
    fs::rename(&copy, &index).unwrap();
    let after = matrix(&world);
    assert!(after.len() > before.len() && after.contains("\"component\": \"r\""));
    let mut bytes = fs::read(&index).unwrap();
    let half = bytes.len() / 2;
    bytes[64..half].fill(0xa5);
    fs::write(&index, &bytes).unwrap();
    assert_eq!(matrix(&world), after);
    bytes.truncate(1_000);
    fs::write(&index, &bytes).unwrap();
    assert_eq!(matrix(&world), after);
}

#[test]
fn a_newer_one_and_somebody_s_file_are_refused_and_stay() {
    let world = world();
    let index = world.path("index");
    let bundles = world.bundles();
    // What a later version of this program would leave.
    {
        let database = redb::Database::create(&index).unwrap();
        let write = database.begin_write().unwrap();
        write
            .open_table(redb::TableDefinition::<&str, &[u8]>::new("meta"))
            .unwrap()
            .insert("version", &b"99"[..])
            .unwrap();
        write.commit().unwrap();
    }
    let run = world.run(12, "c").good("r", "v1", passing(2));
    // The last of them finds it as the first did.
    for error in
        [world.record(&run).unwrap_err(), world.render(12, &[]).unwrap_err(), world.render(12, &[]).unwrap_err()]
    {
        assert!(error.cause == Cause::Usage && error.exit() == Exit::USAGE, "{error}");
        assert!(error.to_string().contains("version 99, newer than ours"), "{error}");
    }
    assert_eq!(world.bundles(), bundles, "the history is as it was");
    fs::write(&index, "my thesis").unwrap();
    let error = world.render(12, &[]).unwrap_err();
    assert!(error.cause == Cause::Usage && error.to_string().contains("no index of ours"), "{error}");
    assert_eq!(fs::read_to_string(&index).unwrap(), "my thesis");
}

#[test]
fn bundles_that_come_and_go_are_noticed() {
    let world = world();
    let before = matrix(&world);
    let other = World::new();
    let digest = other.digest(&other.run(9, "far").good("far", "v1", passing(2)));
    let name = digest.replace(':', "-");
    // As a sync tool brings it.
    fs::rename(other.path("history").join(&name), world.path("history").join(&name)).unwrap();
    assert!(matrix(&world).contains("\"component\": \"far\""));
    fs::remove_dir_all(world.path("history").join(&name)).unwrap();
    assert_eq!(matrix(&world), before);
}

#[test]
fn two_who_record_at_once_both_succeed() {
    let world = World::new();
    fs::create_dir(world.path("history")).unwrap();
    let runs: Vec<_> = (1..=6).map(|day| world.run(day, "many").good(&format!("c{day}"), "v1", passing(50))).collect();
    let script = r#"for run in runs/*; do
        "$TOOL" record "$run" --history history --index index >/dev/null 2>"$run.err" || echo "$run" >> failed &
    done; wait"#;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).env("TOOL", env!("CARGO_BIN_EXE_support-matrix")).current_dir(world.path(""));
    assert!(kit::Process::new("the script", command).finish().unwrap().good());
    assert!(!world.path("failed").exists());
    assert_eq!(world.matrix(12).runs, runs.len());
}

/// Whoever has the index open keeps it from everybody else.
fn held(world: &World) -> redb::Database {
    redb::Database::create(world.path("index")).unwrap()
}

#[test]
fn a_run_is_kept_while_somebody_else_has_the_index() {
    let world = world();
    let reader = held(&world);
    let began = std::time::Instant::now();
    let done = world.record(&world.run(12, "c").good("r", "v1", passing(2))).unwrap();
    assert_eq!((done.exit(), world.bundles().len()), (Exit::GOOD, 3));
    assert!(began.elapsed() < std::time::Duration::from_secs(30), "it does not wait as long as a reader does");
    drop(reader);
    // The next reader adds it.
    assert!(matrix(&world).contains("\"component\": \"r\""));
}

#[test]
fn what_the_index_garbles_of_one_run_is_read_again() {
    let world = world();
    let before = matrix(&world);
    {
        let database = held(&world);
        let write = database.begin_write().unwrap();
        let mut briefs = write.open_table(redb::TableDefinition::<&str, &[u8]>::new("briefs")).unwrap();
        let digest = redb::ReadableTable::first(&briefs).unwrap().unwrap().0.value().to_owned();
        briefs.insert(digest.as_str(), &b"{}"[..]).unwrap();
        drop(briefs);
        write.commit().unwrap();
    }
    assert_eq!(matrix(&world), before);
}

#[test]
fn a_kill_while_it_is_written_costs_nothing() {
    let world = world();
    let before = matrix(&world);
    for milliseconds in [2, 8, 15, 30] {
        fs::remove_file(world.path("index")).unwrap();
        let seconds = format!("0.{milliseconds:03}");
        let mut command = std::process::Command::new("timeout");
        command.args(["-s", "KILL", &seconds, env!("CARGO_BIN_EXE_support-matrix"), "render", "--as-of", "2026-01-12"]);
        command.arg("--history").arg(world.path("history")).arg("--index").arg(world.path("index"));
        command.arg("--ci").arg(world.path("ci"));
        let _ = kit::Process::new("a render that is killed", command).finish().unwrap();
        if !world.path("index").exists() {
            fs::write(world.path("index"), b"").unwrap();
        }
        assert_eq!(matrix(&world), before, "killed after {milliseconds} ms");
    }
}
