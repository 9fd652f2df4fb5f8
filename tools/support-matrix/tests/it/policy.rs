//! What ci/policy.toml can ask for beside that tests passed.

use kit::{
    Cause,
    record::{SkipSource, Status, Test},
};
use support_matrix::model::{Cell, State};

use crate::world::{World, passing, platform, test};

const BASIS: &str = "reference = 'linux/amd64'\n[[level]]\nname = 'tested'\nevidence = ['install', 'e2e']\nmax_age = 7\nnative = true\n";

fn world(more: &str) -> World {
    let world = World::new();
    let supported =
        "[[level]]\nname = 'supported'\nevidence = ['install', 'e2e']\nsuites = ['full']\nnative = true\nmax_age = 7\n";
    world.config("policy.toml", &format!("{BASIS}{supported}{more}"));
    world
}

fn cell(world: &World, day: u8, on: &str) -> Cell {
    let matrix = world.matrix(day);
    matrix.cells.iter().find(|cell| cell.platform == platform(on)).cloned().unwrap()
}

/// Two fields of each entry of a log.
fn fields<'j>(log: &'j serde_json::Value, names: [&str; 2]) -> Vec<[&'j str; 2]> {
    log.as_array().unwrap().iter().map(|entry| names.map(|name| entry[name].as_str().unwrap())).collect()
}

fn bad() -> Vec<Test> {
    let mut tests = passing(3);
    tests.push(test("TestBad", Status::Failed, Some(Cause::Product)));
    tests
}

#[test]
fn a_share_of_the_last_valid_runs_must_have_passed() {
    let world = world("pass_rate = { least = 0.7, last = 4 }\n");
    for (day, tests) in [(1, passing(4)), (2, bad()), (3, bad()), (4, passing(4))] {
        world.record(&world.run(day, &format!("r{day}")).full("p", "v1", "linux/amd64", tests)).unwrap();
        if day == 3 {
            // What the infrastructure lost is no valid run.
            world.record(&world.run(3, "lost").lost("p", "v1", "linux/amd64")).unwrap();
        }
    }
    let found = cell(&world, 4, "linux/amd64");
    assert!(!found.supported.met);
    let said = "e2e full: 2 of the last 4 valid runs passed, fewer than 70 %";
    assert_eq!(found.supported.reasons, [said]);
    assert_eq!(found.state, State::TestedNatively);
    let rate = found.pass_rate.unwrap();
    assert_eq!((rate.passed, rate.valid), (2, 4));
    world.record(&world.run(5, "r5").full("p", "v1", "linux/amd64", passing(4))).unwrap();
    assert!(!cell(&world, 5, "linux/amd64").supported.met, "two of three newest and one bad");
    world.record(&world.run(6, "r6").full("p", "v1", "linux/amd64", passing(4))).unwrap();
    assert!(cell(&world, 6, "linux/amd64").supported.met, "three of the last four");
}

/// However good the suites are that a level names: what is failing is not supported.
#[test]
fn nothing_is_said_of_a_cell_that_fails() {
    let world = world("");
    world.record(&world.run(1, "full").full("p", "v1", "linux/amd64", passing(4))).unwrap();
    world.record(&world.run(2, "smoke").good("p", "v1", bad())).unwrap();
    let found = cell(&world, 2, "linux/amd64");
    assert_eq!((found.state, found.claim.as_deref()), (State::Failing, None));
    assert_eq!(found.supported.reasons, ["e2e smoke: not good"]);
    let (code, said) = world.program(&["can", "p@v1", "linux/amd64", "--as-of", "2026-01-02"]);
    assert!(code == 1 && said.contains("e2e smoke: not good"), "{said}");
    // An image that lies, which this policy does not ask about.
    let run = world.run(3, "lie").built("p", "v2", |images| {
        images.images[0].platforms[0].program.as_mut().unwrap().machine = "arm64".into();
    });
    let run = run.installed("p", "v2", "linux/amd64", |_| ());
    let full = |results: &mut kit::record::Results| results.suite = "full".into();
    world.record(&run.tested("p", "v2", "linux/amd64", passing(4), full)).unwrap();
    assert_eq!(world.program(&["can", "p@v2", "linux/amd64", "--as-of", "2026-01-03"]).0, 1);
    world.record(&world.run(4, "again").good("p", "v1", passing(2))).unwrap();
    assert_eq!(world.program(&["can", "p@v1", "linux/amd64", "--as-of", "2026-01-04"]).0, 0);
}

#[test]
fn skips_are_counted() {
    let world = world("max_skips = 1\n");
    let skipped = |name: &str, by| Test { skipped_by: Some(by), ..test(name, Status::Skipped, None) };
    let mut tests = passing(2);
    tests.push(skipped("TestA", SkipSource::Ledger));
    world.record(&world.run(1, "one").full("p", "v1", "linux/amd64", tests.clone())).unwrap();
    assert!(cell(&world, 1, "linux/amd64").supported.met);
    tests.push(skipped("TestB", SkipSource::Test));
    world.record(&world.run(2, "two").full("p", "v1", "linux/amd64", tests)).unwrap();
    let reasons = cell(&world, 2, "linux/amd64").supported.reasons;
    assert_eq!(reasons, ["e2e full: 2 tests skipped or excluded, more than 1"]);
}

#[test]
fn what_passes_on_the_reference_must_pass_here_in_the_same_version() {
    let world = world("unlike_reference = 0\n");
    world.record(&world.run(1, "z").full("p", "v1", "linux/s390x", passing(3))).unwrap();
    let alone = cell(&world, 1, "linux/s390x").supported.reasons;
    assert!(alone[0].contains("never tested on linux/amd64 in this version"), "{alone:?}");
    // Another version of the reference says nothing of this one.
    world.record(&world.run(2, "other").full("p", "v2", "linux/amd64", passing(9))).unwrap();
    let matrix = world.matrix(2);
    let z = matrix.cells.iter().find(|cell| cell.platform == platform("linux/s390x") && cell.version == "v1").unwrap();
    assert!(!z.supported.met && z.compared.is_none());
    world.record(&world.run(3, "x").full("p", "v1", "linux/amd64", passing(5))).unwrap();
    let matrix = world.matrix(3);
    let z = matrix.cells.iter().find(|cell| cell.platform == platform("linux/s390x") && cell.version == "v1").unwrap();
    let said = "e2e full: 2 tests pass on linux/amd64 and not here: TestGood04, TestGood05";
    assert_eq!(z.supported.reasons, [said]);
    let compared = z.compared.as_ref().unwrap();
    assert!(compared.same_release && compared.count == 2 && compared.tests[0].here.is_none());
    world.record(&world.run(4, "z5").full("p", "v1", "linux/s390x", passing(5))).unwrap();
    let matrix = world.matrix(4);
    let z = matrix.cells.iter().find(|cell| cell.platform == platform("linux/s390x") && cell.version == "v1").unwrap();
    assert!(z.supported.met, "{:?}", z.supported);
    // The reference itself is compared with nothing.
    let amd64 = matrix.cells.iter().find(|cell| cell.platform == platform("linux/amd64") && cell.version == "v1");
    assert!(amd64.unwrap().supported.met);
}

/// What a run on the reference platform makes of another platform's claim is a change like any other.
#[test]
fn the_log_knows_what_the_reference_changed() {
    let world = world("unlike_reference = 0\n");
    world.record(&world.run(1, "first").full("p", "v1", "linux/amd64", passing(1))).unwrap();
    let none = world.digest(&world.run(2, "z").full("p", "v1", "linux/s390x", passing(3)));
    // What is built speaks of every platform: these only test it.
    let reference = |day, count: usize| {
        let run = world.run(day, &format!("r{day}")).installed("p", "v1", "linux/amd64", |_| ());
        let full = |results: &mut kit::record::Results| results.suite = "full".into();
        world.digest(&run.tested("p", "v1", "linux/amd64", passing(count), full))
    };
    let (same, more) = (reference(3, 3), reference(4, 5));
    let (_, log) = world.listed(&["log", "p@v1/linux-s390x", "--as-of", "2026-01-05"]);
    // Nothing that passes there and not here: so it is supported from the first day on.
    let said = fields(&log, ["direction", "evidence"]);
    assert_eq!(said[1..], [["promotion", none.as_str()], ["demotion", more.as_str()]], "{log:#}");
    assert!(log[2]["rule"].as_str().unwrap().contains("2 tests pass on linux/amd64 and not here"), "{log:#}");
    assert!(log[2]["run"].is_string(), "not by time alone");
    for (date, supported) in [("2026-01-03", true), ("2026-01-04", false)] {
        let (_, json) = world.json(&["why", "p@v1/linux-s390x", "--as-of", date]);
        assert_eq!(json[0]["supported"]["met"], supported, "{date}, {same}");
    }
    let (_, notices) = world.json(&["notices", "--since", "2026-01-03", "--as-of", "2026-01-05"]);
    assert!(notices.to_string().contains("and not here"), "{notices:#}");
}

#[test]
fn owners_and_machines_are_counted() {
    let world = world("owners = 2\nmachines = 3\n");
    world.config(
        "architectures.toml",
        "[[architecture]]\nplatform = 'linux/amd64'\nowners = ['A']\nmachines = 2\nprovider = 'OSU'\n",
    );
    world.record(&world.run(1, "a").full("p", "v1", "linux/amd64", passing(2))).unwrap();
    let found = cell(&world, 1, "linux/amd64");
    assert_eq!(found.supported.reasons, ["1 owner of at least 2", "2 machines of at least 3"]);
    assert_eq!((found.owned.machines, found.owned.provider.as_deref()), (2, Some("OSU")));
}

#[test]
fn a_single_failure_can_be_a_doubt_and_two_are_failing() {
    let world = world("[states]\nfailing = 2\n");
    world.record(&world.run(1, "a").full("p", "v1", "linux/amd64", passing(4))).unwrap();
    world.record(&world.run(2, "b").full("p", "v1", "linux/amd64", bad())).unwrap();
    let doubt = cell(&world, 2, "linux/amd64");
    assert_eq!((doubt.state, doubt.supported.met), (State::TestedNatively, true));
    assert!(doubt.reason.ends_with("1 run in a row not good, of 2 that make it failing"), "{}", doubt.reason);
    world.record(&world.run(3, "c").full("p", "v1", "linux/amd64", bad())).unwrap();
    assert_eq!(cell(&world, 3, "linux/amd64").state, State::Failing);
}

/// A good run of one suite takes no doubt from another, and a failing cell is beyond doubt.
#[test]
fn doubts_are_of_a_suite() {
    let world = world("[states]\nfailing = 3\n");
    world.record(&world.run(1, "a").full("p", "v1", "linux/amd64", passing(4))).unwrap();
    world.record(&world.run(2, "b").full("p", "v1", "linux/amd64", bad())).unwrap();
    world.record(&world.run(3, "c").full("p", "v1", "linux/amd64", bad())).unwrap();
    world.record(&world.run(4, "smoke").good("p", "v1", passing(2))).unwrap();
    let doubt = cell(&world, 4, "linux/amd64").reason;
    assert!(doubt.ends_with("2 runs in a row not good, of 3 that make it failing"), "{doubt}");
    world.record(&world.run(5, "d").full("p", "v1", "linux/amd64", bad())).unwrap();
    let failing = cell(&world, 5, "linux/amd64");
    assert!(failing.state == State::Failing && !failing.reason.contains("in a row"), "{}", failing.reason);
}

/// A smoke test after it does not hide when everything was tested last.
#[test]
fn tested_is_the_last_full_run() {
    let world = world("");
    world.record(&world.run(1, "smoke").good("p", "v1", passing(2))).unwrap();
    let tested = |day| cell(&world, day, "linux/amd64").tested;
    assert_eq!(tested(1).suite.as_deref(), Some("smoke"), "as long as there is nothing else");
    world.record(&world.run(2, "full").full("p", "v1", "linux/amd64", passing(9))).unwrap();
    world.record(&world.run(3, "smoke").good("p", "v1", bad())).unwrap();
    let last = tested(3);
    assert!((last.suite.as_deref(), last.counts.unwrap().asked, last.passed) == (Some("full"), 9, true), "{last:?}");
    assert_eq!(cell(&world, 3, "linux/amd64").state, State::Failing);
}

#[test]
fn what_is_very_old_is_unknown() {
    let world = world("[states]\nstale = 5\nunknown = 20\n");
    world.record(&world.run(1, "a").full("p", "v1", "linux/amd64", passing(4))).unwrap();
    let states: Vec<_> = [5, 8, 25].iter().map(|day| cell(&world, *day, "linux/amd64").state).collect();
    assert_eq!(states, [State::TestedNatively, State::Stale, State::Unknown]);
    assert!(cell(&world, 25, "linux/amd64").reason.contains("nothing is known since more than 20 days"));
}

/// What was lost, not reached or not looked at is forgotten as well, and the day of that is said before.
#[test]
fn the_day_on_which_a_lost_try_is_forgotten_is_said() {
    let world = world("[states]\nunknown = 20\n");
    let unbuilt = |images: &mut kit::record::Images| {
        images.head = images.head.clone().failed(&kit::Error::new(Cause::Registry, "no answer"));
        images.images.clear();
    };
    world.record(&world.run(1, "lost").built("p", "v1", unbuilt)).unwrap();
    let lost = cell(&world, 2, "linux/amd64");
    assert_eq!(lost.state, State::Infrastructure);
    let change = lost.changes.unwrap();
    assert_eq!((change.at.to_string().as_str(), change.state), ("2026-01-21T01:05:00Z", State::Unknown));
    assert_eq!(cell(&world, 22, "linux/amd64").state, State::Unknown);
    let (_, log) = world.listed(&["log", "p@v1/linux-amd64", "--as-of", "2026-01-30"]);
    assert_eq!(fields(&log, ["to", "direction"]), [["infrastructure", "change"], ["unknown", "change"]]);
}

#[test]
fn the_date_of_the_next_change_is_said_and_true() {
    let world = world("");
    world.record(&world.run(1, "a").full("p", "v1", "linux/amd64", passing(4))).unwrap();
    let now = cell(&world, 2, "linux/amd64");
    let change = now.changes.clone().unwrap();
    // The installation is the older of the two.
    assert_eq!(change.at.to_string(), "2026-01-08T01:06:00Z");
    assert!(change.why.starts_with("supported: installs: shown on 2026-01-01"), "{}", change.why);
    let at = |moment: &str| {
        let (code, json) = world.json(&["why", "p@v1/linux-amd64", "--as-of", moment]);
        assert_eq!(code, 0);
        (json[0]["supported"]["met"].as_bool().unwrap(), json[0]["state"].as_str().unwrap().to_owned())
    };
    assert_eq!(at("2026-01-08T01:06:00Z"), (true, "tested-natively".into()));
    assert!(!at("2026-01-08T01:06:01Z").0);
    let (_, json) = world.json(&["why", "p@v1/linux-amd64", "--as-of", "2026-01-08T01:06:01Z"]);
    assert_eq!(json[0]["changes"]["at"], "2026-01-08T01:14:00Z");
    assert_eq!(json[0]["changes"]["state"], "stale");
    let (_, json) = world.json(&["why", "p@v1/linux-amd64", "--as-of", "2026-02-08"]);
    assert!(json[0]["changes"].is_null(), "time alone changes nothing any more");
}

#[test]
fn the_infrastructure_s_share_is_said_per_platform_and_owner() {
    let world = world("");
    let text = "[[architecture]]\nplatform = 'linux/amd64'\nowners = ['A']\n[[architecture]]\nplatform = 'linux/s390x'\nowners = ['A', 'B']\n";
    world.config("architectures.toml", text);
    for day in 1..=3 {
        world.record(&world.run(day, "x").full("p", "v1", "linux/amd64", passing(2))).unwrap();
    }
    world.record(&world.run(4, "z").lost("p", "v1", "linux/s390x")).unwrap();
    let matrix = world.matrix(4);
    let platform_row = |on: &str| matrix.platforms.iter().find(|row| row.platform == platform(on)).unwrap().clone();
    assert_eq!((platform_row("linux/s390x").lost, platform_row("linux/s390x").share), (1, 1.0));
    assert_eq!(platform_row("linux/amd64").share, 0.0);
    let owner = |name: &str| matrix.owners.iter().find(|row| row.owner == name).unwrap().clone();
    assert_eq!((owner("A").runs, owner("A").lost, owner("A").share), (4, 1, 0.25));
    assert_eq!((owner("B").runs, owner("B").share), (1, 1.0));
    assert!(matrix.owners.iter().any(|row| row.owner == "nobody"));
    world.render(4, &["--format", "all"]).unwrap();
    for file in ["matrix.txt", "matrix.md"] {
        assert!(world.output(file).contains("1 of 1 run lost to the infrastructure (100.0 %)"), "{file}");
    }
    let page = world.output("matrix.html");
    assert!(page.contains("<th scope=\"row\">A</th>") && page.contains("<td>1 (25.0 %)</td>"), "per owner as well");
}

#[test]
fn what_a_yes_rests_on_is_checked() {
    let damage = |world: &World, day: u8| {
        let of_day = |bundle: &std::path::Path| {
            let text = std::fs::read_to_string(bundle.join("bundle.json")).unwrap();
            text.contains(&format!("202601{day:02}-010000"))
        };
        let path = world.bundles().into_iter().find(|bundle| of_day(bundle)).unwrap();
        let path = path.join("p/linux-amd64/lab-default/results.json");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, text.replacen("TestGood01", "TestGood77", 1)).unwrap();
    };
    let ask = |world: &World| world.program(&["can", "p@v1", "linux/amd64", "--as-of", "2026-01-05"]).0;
    // Smoke is newer, and it is full that 'supported' asks for.
    let world = world("");
    world.record(&world.run(2, "full").full("p", "v1", "linux/amd64", passing(4))).unwrap();
    world.record(&world.run(3, "smoke").good("p", "v1", passing(2))).unwrap();
    assert_eq!(ask(&world), 0);
    let met = cell(&world, 5, "linux/amd64").supported;
    assert_eq!(met.evidence.len(), 2, "{met:?}");
    damage(&world, 2);
    assert_eq!(ask(&world), 1);
    // Of a pass rate every run counts, not only the last.
    let world = self::world("pass_rate = { least = 0.6, last = 3 }\n");
    for (day, tests) in [(1, bad()), (2, passing(4)), (3, passing(4))] {
        world.record(&world.run(day, &format!("r{day}")).full("p", "v1", "linux/amd64", tests)).unwrap();
    }
    assert_eq!(ask(&world), 0);
    damage(&world, 2);
    assert_eq!(ask(&world), 1, "one of two");
}

#[test]
fn policies_that_cannot_be_are_refused() {
    for (more, said) in [
        ("pass_rate = { least = 1.5, last = 4 }\n", "pass_rate needs a share"),
        ("pass_rate = { least = 0.5, last = 0 }\n", "pass_rate needs a share"),
        ("[states]\nfailing = 0\n", "at least one run"),
        ("colour = 1\n", "unknown field `colour`"),
        ("[alarms]\nnight = -1\n", "policy.toml"),
        (
            "[[level]]\nname = 'x'\nevidence = ['e2e']\npass_rate = { least = 0.5, last = 2 }\n",
            "it needs native = true",
        ),
        ("[[level]]\nname = 'x'\nevidence = ['index']\nmax_skips = 1\n", "it needs evidence 'e2e'"),
    ] {
        let world = world(more);
        world.record(&world.run(1, "a").full("p", "v1", "linux/amd64", passing(2))).unwrap();
        let error = world.render(2, &[]).unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{said}: {error}");
    }
}
