//! What goes and what stays.

use std::fs;

use crate::world::{World, passing};

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
