//! What a cell is, in each situation that the words are for.

use kit::{
    Cause, Error,
    record::{Counts, ImageKind, Nature, Origin, Results, Status},
};
use support_matrix::model::{Cell, State, Verdict};

use crate::world::{FOUR, World, passing, platform, test};

fn cell(world: &World, day: u8, component: &str, on: &str) -> Cell {
    let matrix = world.matrix(day);
    let found = matrix.cells.iter().find(|cell| cell.component == component && cell.platform == platform(on));
    found.cloned().unwrap_or_else(|| panic!("no cell of {component} on {on}: {matrix:#?}"))
}

#[test]
fn built_here_and_tested_on_one_platform() {
    let world = World::new();
    world.record(&world.run(10, "a").good("pipeline", "v1.9.0", passing(50))).unwrap();
    let amd64 = cell(&world, 11, "pipeline", "linux/amd64");
    assert_eq!(amd64.state, State::TestedNatively);
    assert_eq!(amd64.tested.counts.unwrap().passed, 50);
    assert_eq!(amd64.tested.release.as_deref(), Some(crate::world::release("pipeline", "v1.9.0").as_str()));
    assert_eq!(amd64.kubernetes.as_deref(), Some("v1.37.2"));
    assert_eq!(amd64.levels.installs.verdict, Verdict::Shown);
    assert!(!amd64.available.available && amd64.available.words == "built, verified");
    assert_eq!(amd64.claim.as_deref(), Some("tested"));
    assert!(!amd64.supported.met && amd64.supported.reasons == ["e2e full: never tried"], "{:?}", amd64.supported);
    for on in &FOUR[1..] {
        let other = cell(&world, 11, "pipeline", on);
        assert_eq!((other.state, other.kubernetes), (State::Built, None));
        assert_eq!(other.levels.e2e.verdict, Verdict::NotTried);
        assert_eq!(other.claim.as_deref(), Some("built"));
    }
}

#[test]
fn supported_is_computed_and_decays() {
    let world = World::new();
    let run = world.run(10, "full").asked("p", &["linux/amd64"]).built("p", "v1", |_| ());
    let run = run.installed("p", "v1", "linux/amd64", |_| ());
    let full = |results: &mut Results| results.suite = "full".into();
    world.record(&run.tested("p", "v1", "linux/amd64", passing(9), full).ended()).unwrap();
    let fresh = cell(&world, 12, "p", "linux/amd64");
    assert!(fresh.supported.met, "{:?}", fresh.supported);
    assert_eq!(fresh.supported.until.unwrap().to_string(), "2026-01-17T01:05:00Z");
    let old = cell(&world, 20, "p", "linux/amd64");
    assert_eq!((old.state, old.supported.met), (State::Stale, false));
    assert!(old.supported.reasons.iter().any(|reason| reason.contains("more than 7 days ago")), "{:?}", old.supported);
    assert!(world.matrix(9).cells.is_empty(), "before it, nothing was known");
}

#[test]
fn infrastructure_only_ages() {
    let world = World::new();
    let lost = |day, name: &str| {
        let run = world.run(day, name).asked("p", &["linux/amd64"]).built("p", "v1", |_| ());
        let run = run.installed("p", "v1", "linux/amd64", |_| ());
        run.tested("p", "v1", "linux/amd64", Vec::new(), |results| {
            results.head = results.head.clone().failed(&Error::new(Cause::Apiserver, "it went away"));
            results.counts = Counts { asked: 5, not_run: 5, ..Counts::default() };
        })
        .ended()
    };
    world.record(&lost(9, "one")).unwrap();
    let only = cell(&world, 10, "p", "linux/amd64");
    assert_eq!((only.state, only.lost_runs), (State::Installed, 1), "what was shown stands");
    let said = "e2e smoke: the only try was lost to the infrastructure: apiserver";
    assert!(only.reason.contains(said), "{}", only.reason);
    world.record(&world.run(10, "good").good("p", "v1", passing(5))).unwrap();
    world.record(&lost(11, "two")).unwrap();
    let after = cell(&world, 12, "p", "linux/amd64");
    assert_eq!(after.state, State::TestedNatively);
    assert_eq!(after.levels.e2e.lost_since, 1);
    assert_eq!(cell(&world, 25, "p", "linux/amd64").state, State::Stale);
}

/// What was installed, published or built stays that when the next step is lost, and nobody calls that a demotion.
#[test]
fn a_lost_try_takes_nothing_from_what_was_shown() {
    let world = World::new();
    let published = |images: &mut kit::record::Images| images.origin = Origin::Published;
    world.record(&world.run(8, "a").built("built", "v1", |_| ())).unwrap();
    world.record(&world.run(8, "b").built("published", "v1", published)).unwrap();
    for component in ["built", "published"] {
        let run = world.run(10, component).asked(component, &["linux/amd64"]);
        let run = run.built(component, "v1", |images| {
            if component == "published" {
                published(images)
            }
        });
        let run = run.installed(component, "v1", "linux/amd64", |install| {
            install.head = install.head.clone().failed(&Error::new(Cause::ClusterUnreachable, "no answer"));
            install.cluster.kubernetes = String::new();
        });
        world.record(&run.ended()).unwrap();
    }
    for (component, state) in [("built", State::Built), ("published", State::Available)] {
        let found = cell(&world, 11, component, "linux/amd64");
        assert_eq!(found.state, state);
        assert!(found.reason.contains("installs: the only try was lost to the infrastructure"), "{}", found.reason);
        let (_, log) = world.listed(&["log", &format!("{component}@v1/linux-amd64"), "--as-of", "2026-01-11"]);
        let said: Vec<_> = log.as_array().unwrap().iter().map(|entry| entry["direction"].as_str().unwrap()).collect();
        assert_eq!(said, ["promotion"], "{log:#}");
    }
    assert_eq!(world.program(&["diff", "2026-01-09", "2026-01-11"]), (0, "no difference\n".into()));
}

#[test]
fn a_failure_colours_until_something_newer_shows_it_good() {
    let world = World::new();
    let mut tests = passing(2);
    tests.push(test("TestBad", Status::Failed, Some(Cause::TestTimeout)));
    world.record(&world.run(10, "bad").good("p", "v1", tests)).unwrap();
    let bad = cell(&world, 11, "p", "linux/amd64");
    assert_eq!(bad.state, State::Failing);
    assert!(bad.reason.contains("TestBad (test-timeout)") && bad.reason.contains("2 of 3 passed"), "{}", bad.reason);
    assert!(!bad.tested.passed && bad.tested.at.is_some());
    world.record(&world.run(12, "good").good("p", "v1", passing(3))).unwrap();
    assert_eq!(cell(&world, 12, "p", "linux/amd64").state, State::TestedNatively);
    assert_eq!(cell(&world, 11, "p", "linux/amd64").state, State::Failing, "at that date it was");
}

#[test]
fn a_small_suite_does_not_hide_a_large_one_that_fails() {
    let world = World::new();
    let bad = vec![test("TestBad", Status::Failed, Some(Cause::Product))];
    let run = world.run(10, "full").built("p", "v1", |_| ());
    let run = run.installed("p", "v1", "linux/amd64", |_| ());
    world.record(&run.tested("p", "v1", "linux/amd64", bad, |results| results.suite = "full".into())).unwrap();
    world.record(&world.run(11, "smoke").good("p", "v1", passing(5))).unwrap();
    assert_eq!(cell(&world, 12, "p", "linux/amd64").state, State::Failing);
}

/// Neither time nor a smaller suite mends what failed: state and claims say the same of it.
#[test]
fn a_suite_that_failed_stays_failing_until_it_is_seen_to_be_good() {
    let world = World::new();
    let full = |day, tests| {
        let run = world.run(day, "full").built("p", "v1", |_| ()).installed("p", "v1", "linux/amd64", |_| ());
        world.record(&run.tested("p", "v1", "linux/amd64", tests, |results| results.suite = "full".into())).unwrap();
    };
    full(1, vec![test("TestBad", Status::Failed, Some(Cause::Product))]);
    for day in [2, 9, 16] {
        world.record(&world.run(day, "smoke").good("p", "v1", passing(5))).unwrap();
    }
    for day in [3, 9, 17] {
        let found = cell(&world, day, "p", "linux/amd64");
        let tested = found.claims.iter().find(|claim| claim.name == "tested").unwrap();
        assert_eq!((found.state, tested.met), (State::Failing, false), "day {day}: {tested:?}");
        assert_eq!(tested.reasons, ["e2e smoke or full: not good"]);
    }
    let (_, log) = world.listed(&["log", "p@v1/linux-amd64", "--as-of", "2026-01-17"]);
    assert!(log.as_array().unwrap().iter().all(|entry| entry["to"] != "tested-natively"), "{log:#}");
    full(18, passing(9));
    assert_eq!(cell(&world, 18, "p", "linux/amd64").state, State::TestedNatively);
}

#[test]
fn tests_that_somebody_picked_are_no_suite() {
    let world = World::new();
    let picked = |day, tests: Vec<kit::record::Test>| {
        let run = world.run(day, "picked").built("p", "v1", |_| ()).installed("p", "v1", "linux/amd64", |_| ());
        let selection = |results: &mut Results| results.suite = "selection".into();
        world.record(&run.tested("p", "v1", "linux/amd64", tests, selection)).unwrap();
    };
    picked(10, passing(1));
    let one = cell(&world, 10, "p", "linux/amd64");
    assert_eq!((one.state, one.tested.passed), (State::Installed, false));
    assert_eq!(one.levels.e2e.verdict, Verdict::NotTried);
    assert!(one.runs[0].results.iter().any(|result| result.name == "e2e selection"), "what it was is said");
    world.config("components.toml", "[p]\nconfig = []\npath = 'x'\nbases = { default = 'static' }\n");
    world.config("images.toml", "[build.static]\n");
    let (_, onboard) = world.json(&["onboard", "linux/amd64", "--as-of", "2026-01-11"]);
    let tests = onboard["needs"].as_array().unwrap().iter().find(|need| need["name"] == "tests").unwrap();
    assert_eq!(tests["met"], false);
    world.record(&world.run(11, "good").good("p", "v1", passing(5))).unwrap();
    picked(12, vec![test("TestBad", Status::Failed, Some(Cause::Product))]);
    assert_eq!(cell(&world, 12, "p", "linux/amd64").state, State::TestedNatively);
}

#[test]
fn a_suite_that_nobody_names_is_no_evidence() {
    let world = World::new();
    let run = world.run(10, "mine").built("p", "v1", |_| ()).installed("p", "v1", "linux/amd64", |_| ());
    let mine = |results: &mut Results| results.suite = "mine".into();
    world.record(&run.tested("p", "v1", "linux/amd64", passing(2), mine)).unwrap();
    assert_eq!(cell(&world, 10, "p", "linux/amd64").state, State::Installed);
    let component = "config = []\npath = 'x'\nbases = { default = 'static' }\n";
    world.config("components.toml", &format!("[q]\n{component}[q.suites.mine]\nall = true\n[p]\n{component}"));
    assert_eq!(cell(&world, 10, "p", "linux/amd64").state, State::Installed, "it is another component's");
    world.config("components.toml", &format!("[p]\n{component}[p.suites.mine]\nall = true\n"));
    assert_eq!(cell(&world, 10, "p", "linux/amd64").state, State::TestedNatively);
}

/// Of each state that rests on something shown: it is believed for its time, and then it is stale.
#[test]
fn whatever_was_shown_decays() {
    let world = World::new();
    let bad = || vec![test("TestBad", Status::Failed, Some(Cause::Product))];
    let product = |install: &mut kit::record::Install| {
        install.nature = Nature::Emulated;
        install.head = install.head.clone().failed(&Error::new(Cause::Product, "it does not start"));
    };
    let emulated = |install: &mut kit::record::Install| install.nature = Nature::Emulated;
    let (on, slow) = ("linux/amd64", |results: &mut Results| results.nature = Nature::Emulated);
    let run = |name: &str| world.run(1, name).built(name, "v1", |_| ());
    let published = world.run(1, "published").built("published", "v1", |images| images.origin = Origin::Published);
    let cases = [
        (
            run("tested").installed("tested", "v1", on, |_| ()).tested("tested", "v1", on, passing(2), |_| ()),
            "tested",
            State::TestedNatively,
        ),
        (
            run("slow").installed("slow", "v1", on, emulated).tested("slow", "v1", on, passing(2), slow),
            "slow",
            State::TestedNotNatively,
        ),
        (
            run("slow-bad").installed("slow-bad", "v1", on, emulated).tested("slow-bad", "v1", on, bad(), slow),
            "slow-bad",
            State::Built,
        ),
        (run("installed").installed("installed", "v1", on, |_| ()), "installed", State::Installed),
        (run("slow-installed").installed("slow-installed", "v1", on, emulated), "slow-installed", State::Built),
        (run("slow-broken").installed("slow-broken", "v1", on, product), "slow-broken", State::Built),
        (run("built"), "built", State::Built),
        (published, "published", State::Available),
    ];
    for (run, name, state) in cases {
        world.record(&run).unwrap();
        assert_eq!(cell(&world, 3, name, on).state, state, "{name}");
        let (_, later) = world.json(&["why", &format!("{name}@v1/linux-amd64"), "--as-of", "2026-03-20"]);
        assert_eq!(later[0]["state"], "stale", "{name}");
    }
}

#[test]
fn emulation_never_counts_as_native() {
    let world = World::new();
    for (day, name, nature) in [(9, "e", Nature::Emulated), (10, "u", Nature::Unknown)] {
        let run = world.run(day, name).asked(name, &["linux/s390x"]).built(name, "v1", |_| ());
        let run = run.installed(name, "v1", "linux/s390x", |install| install.nature = nature);
        world.record(&run.tested(name, "v1", "linux/s390x", passing(5), |r| r.nature = nature).ended()).unwrap();
        let cell = cell(&world, 11, name, "linux/s390x");
        assert_eq!(cell.state, State::TestedNotNatively);
        let words = if nature == Nature::Emulated { "tested, emulated" } else { "tested, nodes of unknown nature" };
        assert_eq!(cell.state_words, words);
        assert_eq!(cell.levels.e2e.nature, Some(nature));
        assert!(!cell.tested.passed && cell.tested.words == "never natively");
        assert_eq!(cell.claim.as_deref(), Some("built"));
        assert!(cell.reason.contains("never counts as native"), "{}", cell.reason);
    }
}

/// The test's own record knows nothing of the nodes of somebody's cluster; the installation has probed them.
#[test]
fn what_the_installation_found_out_of_the_nodes_is_true_of_the_tests() {
    let world = World::new();
    let cases = [
        ("native", Nature::Native, Nature::Unknown, "uid-1", State::TestedNatively),
        ("emulated", Nature::Emulated, Nature::Unknown, "uid-1", State::TestedNotNatively),
        ("differ", Nature::Emulated, Nature::Native, "uid-1", State::TestedNotNatively),
        ("neither", Nature::Unknown, Nature::Unknown, "uid-1", State::TestedNotNatively),
        ("own", Nature::Unknown, Nature::Native, "uid-1", State::TestedNatively),
        ("elsewhere", Nature::Native, Nature::Unknown, "uid-2", State::TestedNotNatively),
    ];
    for (name, installed, tested, uid, _) in cases {
        let run = world.run(10, name).built(name, "v1", |_| ());
        let run = run.installed(name, "v1", "linux/s390x", |install| install.nature = installed);
        let run = run.tested(name, "v1", "linux/s390x", passing(2), |results| {
            results.nature = tested;
            results.cluster = uid.into();
        });
        world.record(&run).unwrap();
    }
    for (name, .., state) in cases {
        assert_eq!(cell(&world, 11, name, "linux/s390x").state, state, "{name}");
    }
}

#[test]
fn an_installation_on_emulated_nodes_is_said_and_is_no_claim() {
    let world = World::new();
    let emulated = |install: &mut kit::record::Install| install.nature = Nature::Emulated;
    let run = world.run(10, "a").built("a", "v1", |_| ()).installed("a", "v1", "linux/s390x", emulated);
    world.record(&run).unwrap();
    let found = cell(&world, 11, "a", "linux/s390x");
    assert_eq!(found.state, State::Built);
    assert!(
        found.reason.contains("good on emulated nodes") && found.reason.contains("no test ran"),
        "{}",
        found.reason
    );
}

#[test]
fn what_was_tested_emulated_gets_old_as_well() {
    let world = World::new();
    let run = world.run(1, "a").built("a", "v1", |_| ());
    let run = run.installed("a", "v1", "linux/s390x", |install| install.nature = Nature::Emulated);
    world.record(&run.tested("a", "v1", "linux/s390x", passing(2), |r| r.nature = Nature::Emulated)).unwrap();
    assert_eq!(cell(&world, 3, "a", "linux/s390x").state, State::TestedNotNatively);
    assert_eq!(cell(&world, 25, "a", "linux/s390x").state, State::Stale);
}

#[test]
fn the_machines_are_in_every_rendering() {
    let world = World::new();
    let run = world.run(10, "a").asked("a", &["linux/s390x"]).built("a", "v1", |_| ());
    let run = run.installed("a", "v1", "linux/s390x", |install| {
        install.nature = Nature::Emulated;
        let node = &mut install.cluster.nodes[0];
        node.nature = Nature::Emulated;
        node.evidence = Some("probe: /proc/sysinfo says <b>Manufacturer: QEMU".into());
        node.machine = Some(kit::record::Machine {
            model: Some("QEMU 8561\u{1b}[2J".into()),
            processor: Some("z15".into()),
            page_size: 4096,
            work_micros: None,
        });
        let again = node.clone();
        install.cluster.nodes.push(again);
    });
    world.record(&run.tested("a", "v1", "linux/s390x", passing(4), |r| r.nature = Nature::Emulated).ended()).unwrap();
    world.render(11, &["--format", "all"]).unwrap();
    for (file, state) in [
        ("matrix.txt", "tested, emulated"),
        ("matrix.md", "tested, emulated"),
        ("matrix.html", "tested, emulated</span>"),
        ("matrix.json", "\"stateWords\": \"tested, emulated\""),
    ] {
        let text = world.output(file);
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(text.contains(state), "{file}: {text}");
        assert!(!text.contains('\u{1b}') && (file != "matrix.html" || !text.contains("<b>Man")), "{file}");
        for words in ["QEMU 8561", "z15"] {
            assert!(line.contains(words), "'{words}' is not in {file}: {text}");
        }
        if file != "matrix.json" {
            assert!(line.contains("2 emulated nodes") && line.contains("4 KiB pages"), "{file}: {text}");
        }
    }
    let matrix = world.matrix(11);
    let row = matrix.cells.iter().find(|cell| cell.platform == platform("linux/s390x")).unwrap();
    assert_eq!((row.nodes[0].count, row.nodes[0].page_size), (2, Some(4096)));
    assert!(!row.supported.met);
}

#[test]
fn available_is_only_said_of_what_was_published() {
    let world = World::new();
    let run = world.run(10, "p").built("p", "v1", |images| images.origin = Origin::Published);
    world.record(&run).unwrap();
    let cell = cell(&world, 11, "p", "linux/arm64");
    assert_eq!((cell.state, cell.available.available), (State::Available, true));
    assert_eq!(cell.claim.as_deref(), Some("available"));
}

#[test]
fn an_image_that_lies_is_failing_however_good_its_index_is() {
    let world = World::new();
    let run = world.run(10, "p").built("p", "v1", |images| {
        // The record calls it good: what it lists says otherwise.
        images.images[0].platforms[1].program.as_mut().unwrap().machine = "amd64".into();
    });
    world.record(&run).unwrap();
    let arm64 = cell(&world, 11, "p", "linux/arm64");
    assert_eq!((arm64.state, arm64.levels.index.verdict), (State::Failing, Verdict::Shown));
    assert_eq!(cell(&world, 11, "p", "linux/amd64").state, State::Built);
}

#[test]
fn a_run_that_did_not_come_to_its_end_is_recorded_as_that() {
    let world = World::new();
    let run = world.run(10, "killed").asked("p", &["linux/amd64"]).built("p", "v1", |_| ());
    world.record(&run).unwrap();
    let amd64 = cell(&world, 11, "p", "linux/amd64");
    assert_eq!(amd64.state, State::Built);
    assert!(amd64.reason.contains("the run ended before it"), "{}", amd64.reason);
    assert!(!amd64.runs[0].complete);
    assert_eq!(cell(&world, 11, "p", "linux/arm64").state, State::Built);
    // It goes on, and is recorded again: the same run, which now has an end.
    let run = run.installed("p", "v1", "linux/amd64", |_| ());
    world.record(&run.tested("p", "v1", "linux/amd64", passing(2), |_| ()).ended()).unwrap();
    let amd64 = cell(&world, 11, "p", "linux/amd64");
    assert_eq!((amd64.state, amd64.run_count), (State::TestedNatively, 1));
}

#[test]
fn a_stage_that_failed_says_why_the_next_was_not_reached() {
    let world = World::new();
    let run = world.run(10, "node").asked("p", &["linux/amd64"]).built("p", "v1", |_| ());
    let run = run.stage("lab", "", None, (1, 2), kit::Outcome::Failed, Some(Cause::Node)).ended();
    world.record(&run).unwrap();
    let amd64 = cell(&world, 11, "p", "linux/amd64");
    assert_eq!(amd64.state, State::Built);
    assert!(amd64.reason.contains("stage 'lab' ended with node"), "{}", amd64.reason);
    let matrix = world.matrix(11);
    let row = matrix.platforms.iter().find(|row| row.platform == platform("linux/amd64")).unwrap();
    assert_eq!((row.runs, row.lost), (1, 1));
}

#[test]
fn all_shards_make_a_suite() {
    let world = World::new();
    let shard = |i: u32| {
        move |results: &mut Results| {
            results.shard = (i, 2);
        }
    };
    let run = world.run(10, "s").asked("p", &["linux/amd64"]).built("p", "v1", |_| ());
    let run = run.installed("p", "v1", "linux/amd64", |_| ());
    let run = run.tested("p", "v1", "linux/amd64", passing(3), shard(1));
    let folder = run.cell("p", "linux/amd64");
    std::fs::rename(folder.join("results.json"), folder.join("results.1-of-2.json")).unwrap();
    world.record(&run).unwrap();
    assert_eq!(cell(&world, 11, "p", "linux/amd64").state, State::Installed);
    let run = run.tested("p", "v1", "linux/amd64", passing(4), shard(2));
    std::fs::rename(folder.join("results.json"), folder.join("results.2-of-2.json")).unwrap();
    world.record(&run).unwrap();
    let both = world.matrix(11);
    let counts: Vec<_> = both.cells.iter().filter_map(|cell| cell.tested.counts).collect();
    assert_eq!(counts.iter().map(|counts| counts.passed).collect::<Vec<_>>(), [7]);
}

#[test]
fn a_build_that_was_ended_shows_nothing_however_good_its_first_images_are() {
    let world = World::new();
    let ended = |name: &str, error: Error, built: bool| {
        world.run(10, name).built(name, "v1", |images| {
            images.head = images.head.clone().failed(&error);
            images.release = None;
            if !built {
                images.images.truncate(1);
                images.images[0].kind = ImageKind::Referenced;
            }
        })
    };
    let lacking = "base x (for default) has no linux/s390x; it offers linux/amd64";
    world.record(&ended("int", Error::interrupted(2), true)).unwrap();
    world.record(&ended("compile", Error::new(Cause::BuildFailure, "main.go:1: syntax error"), false)).unwrap();
    world.record(&ended("base", Error::new(Cause::ImageMissingPlatform, lacking), false)).unwrap();
    assert_eq!(cell(&world, 11, "int", "linux/amd64").state, State::Infrastructure);
    assert_eq!(cell(&world, 11, "compile", "linux/amd64").state, State::Failing);
    assert_eq!(cell(&world, 11, "base", "linux/s390x").state, State::Failing);
    let other = cell(&world, 11, "base", "linux/amd64");
    assert_eq!(other.state, State::Unknown, "it is not its fault, and it is not built either");
    assert!(other.reason.contains("has no linux/s390x"), "{}", other.reason);
}

#[test]
fn two_runs_in_folders_of_one_name_are_two_runs() {
    let world = World::new();
    let workspace = |day, name: &str, version: &str| {
        let run = world.run(day, name).built("p", version, |_| ());
        let folder = world.path(&format!("machine-{name}")).join("workspace");
        std::fs::create_dir_all(folder.parent().unwrap()).unwrap();
        std::fs::rename(run.dir.path(), &folder).unwrap();
        let folder = folder.display().to_string();
        let [history, index] = ["history", "index"].map(|name| world.path(name).display().to_string());
        world.call(&["record", &folder, "--history", &history, "--index", &index]).unwrap();
    };
    workspace(9, "a", "v1");
    workspace(10, "b", "v2");
    assert_eq!(world.matrix(11).runs, 2);
    assert_eq!(cell(&world, 11, "p", "linux/amd64").version, "v1");
}
