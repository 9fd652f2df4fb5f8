//! Questions and their answers, by the program itself: exit code, text and JSON.

use std::fs;

use kit::{
    Cause,
    record::{Nature, Status},
};

use crate::world::{World, passing, test};

/// v1.9.0 is supported on amd64 until the 17th; on s390x it ran emulated; v1.10.0 fails.
fn world() -> World {
    let world = World::new();
    world.config("components.toml", "[pipeline]\nconfig = []\npath = 'x'\nbases = { default = 'static' }\n");
    world.config("images.toml", "[[image]]\nnames = ['a.b/c:1']\nbuild = 'static'\n[build.static]\n");
    world.record(&world.run(10, "a").full("pipeline", "v1.9.0", "linux/amd64", passing(9))).unwrap();
    let run = world.run(11, "z").asked("pipeline", &["linux/s390x"]).built("pipeline", "v1.9.0", |_| ());
    let run = run.installed("pipeline", "v1.9.0", "linux/s390x", |install| install.nature = Nature::Emulated);
    let emulated = |results: &mut kit::record::Results| results.nature = Nature::Emulated;
    world.record(&run.tested("pipeline", "v1.9.0", "linux/s390x", passing(9), emulated).ended()).unwrap();
    let mut tests = passing(8);
    tests.push(test("TestBad", Status::Failed, Some(Cause::Product)));
    world.record(&world.run(12, "new").full("pipeline", "v1.10.0", "linux/amd64", tests)).unwrap();
    world
}

#[test]
fn can() {
    let world = world();
    let ask = |args: &[&str]| world.program(&[&["can"], args, &["--as-of", "2026-01-13"]].concat());
    let (code, text) = ask(&["pipeline@v1.9.0", "linux/amd64"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.starts_with("yes: pipeline@v1.9.0 is supported on linux/amd64 until 2026-01-17"), "{text}");
    for (args, said) in [
        (&["pipeline@v1.9.0", "linux/s390x"][..], "never tried"),
        (&["pipeline@v1.9.0", "linux/riscv64"], "no run says anything of linux/riscv64"),
        (&["pipeline@v1.10.0", "linux/amd64"], "TestBad (product)"),
        // The newest version counts where none is named, and of a line the newest of that.
        (&["pipeline", "linux/amd64"], "pipeline@v1.10.0"),
        (&["pipeline@v1.10", "linux/amd64"], "pipeline@v1.10.0"),
        (&["pipeline@v7", "linux/amd64"], "there is evidence of pipeline@v1.10.0, pipeline@v1.9.0"),
        (&["nothing", "linux/amd64"], "no run says anything of nothing"),
    ] {
        let (code, text) = ask(args);
        assert!(code == 1 && text.starts_with("no: ") && text.contains(said), "{args:?}: {code} {text}");
    }
    assert_eq!(ask(&["pipeline@v1.9", "linux/amd64"]).0, 0);
    assert_eq!(ask(&["pipeline@v1.9.0", "linux/s390x", "--claim", "built"]).0, 0);
    assert_eq!(ask(&["pipeline@v1.9.0", "linux/amd64", "--kubernetes", "v1.0.0"]).0, 1);
    for wrong in [&["pipeline@", "linux/amd64"][..], &["pipeline", "vax"], &["pipeline", "linux/amd64", "--claim", "x"]]
    {
        assert_eq!(ask(wrong).0, 2, "{wrong:?}");
    }
    let (code, json) = world.json(&["can", "pipeline@v1.9.0", "linux/amd64", "--as-of", "2026-01-20"]);
    assert_eq!((code, &json["yes"], &json["state"]), (1, &false.into(), &"stale".into()));
    assert_eq!(json["schemaVersion"], support_matrix::model::SCHEMA_VERSION);
    let names = support_matrix::schemas().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert!(names.contains(&"matrix-can"), "{names:?}");
}

/// What we built says nothing of what the project published, unless somebody asks for it.
#[test]
fn can_tells_what_was_published_from_what_we_built() {
    let world = World::new();
    world.record(&world.run(10, "ours").full("p", "v1", "linux/amd64", passing(4))).unwrap();
    let ask = |more: &[&str]| world.json(&[&["can", "p@v1", "linux/amd64", "--as-of", "2026-01-12"], more].concat());
    let (code, json) = ask(&[]);
    assert_eq!((code, &json["origin"]), (0, &"built-here".into()), "nobody looked at another");
    let published = kit::digest::sha256(b"published");
    let run = world.run(11, "theirs").built("p", "v1", |images| {
        images.origin = kit::record::Origin::Published;
        images.release.as_mut().unwrap().digest = published.clone();
    });
    world.record(&run).unwrap();
    assert_eq!(ask(&[]).0, 1);
    assert_eq!((ask(&["--origin", "built-here"]).0, ask(&["--origin", "unknown"]).0), (0, 1));
    let (code, json) = ask(&["--claim", "available"]);
    assert_eq!((code, &json["origin"]), (0, &"published".into()));
    assert_eq!(world.program(&["can", "p@v1", "linux/amd64", "--origin", "mine"]).0, 2);
    let (_, badge) = world.program(&["badge", "p@v1", "linux/amd64", "--as-of", "2026-01-12"]);
    assert!(badge.contains(": available until"), "{badge}");
    // Where nobody looked at what was published, what we built answers still.
    world.record(&world.run(12, "there").full("p", "v1", "linux/riscv64", passing(4))).unwrap();
    let (_, json) = world.json(&["can", "p@v1", "linux/riscv64", "--as-of", "2026-01-13"]);
    assert_eq!(json["origin"], "built-here");
}

/// Good on one Kubernetes is not good on another.
#[test]
fn can_names_where_the_same_version_fails() {
    let world = World::new();
    world.record(&world.run(10, "good").full("p", "v1", "linux/amd64", passing(4))).unwrap();
    let run = world.run(11, "bad").built("p", "v1", |_| ());
    let run = run.installed("p", "v1", "linux/amd64", |install| install.cluster.kubernetes = "v1.40.0".into());
    let bad = vec![test("TestBad", Status::Failed, Some(Cause::Product))];
    world.record(&run.tested("p", "v1", "linux/amd64", bad, |results| results.suite = "full".into())).unwrap();
    let (code, json) = world.json(&["can", "p@v1", "linux/amd64", "--as-of", "2026-01-12"]);
    assert_eq!((code, &json["failing"][0]), (0, &"p@v1/linux-amd64/v1.40.0/built-here".into()));
    let (_, text) = world.program(&["can", "p@v1", "linux/amd64", "--as-of", "2026-01-12"]);
    assert!(text.starts_with("yes: ") && text.contains("v1.40.0/built-here is failing: e2e full"), "{text}");
    let only = ["can", "p@v1", "linux/amd64", "--as-of", "2026-01-12", "--kubernetes", "v1.37.2"];
    assert_eq!(world.json(&only).1["failing"], serde_json::json!([]));
}

#[test]
fn diff() {
    let world = world();
    let (code, text) = world.program(&["diff", "pipeline@v1.9.0", "pipeline@v1.10.0", "--as-of", "2026-01-13"]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("- linux/amd64: tested natively (supported) -> failing (built)"), "{text}");
    assert!(text.contains("- linux/s390x: tested, emulated"), "{text}");
    let (code, text) = world.program(&["diff", "2026-01-09", "2026-01-11"]);
    assert!(
        code == 0 && text.contains("+ pipeline@v1.9.0/linux-amd64/v1.37.2/built-here: nothing -> tested natively"),
        "{text}"
    );
    let (code, json) = world.listed(&["diff", "2026-01-11", "2026-01-30", "--all"]);
    assert_eq!(code, 1);
    let gone = json.as_array().unwrap().iter().find(|row| row["name"].as_str().unwrap().contains("v1.9.0/linux-amd64"));
    assert_eq!(gone.unwrap()["after"]["state"], "stale");
    assert_eq!(world.program(&["diff", "2026-01-09", "pipeline"]).0, 2);
    assert_eq!(world.program(&["diff", "pipeline@v8", "pipeline"]).0, 2);
    assert_eq!(world.program(&["diff", "2026-01-20", "2026-01-20"]), (0, "no difference\n".into()));
}

#[test]
fn log() {
    let world = world();
    let (code, json) = world.listed(&["log", "pipeline@v1.9.0/linux/amd64", "--as-of", "2026-01-30"]);
    assert_eq!(code, 0);
    let entries = json.as_array().unwrap();
    let short: Vec<_> = entries
        .iter()
        .map(|e| {
            (e["direction"].as_str().unwrap(), e["to"].as_str().unwrap(), e["claim"].as_str(), e["run"].is_string())
        })
        .collect();
    assert_eq!(short[0], ("promotion", "tested-natively", Some("supported"), true));
    assert!(entries[0]["rule"].as_str().unwrap().contains("supported: everything that it requires is shown"));
    // Then only time: what was built later is still young, what was tested is not.
    assert!(short[1..].iter().all(|(direction, .., run)| *direction != "promotion" && !run), "{short:?}");
    assert!(short.iter().any(|(_, state, claim, _)| *state == "stale" && *claim == Some("built")), "{short:?}");
    assert!(entries.iter().all(|entry| entry["evidence"].is_string()));
    let (_, since) =
        world.listed(&["log", "pipeline@v1.9.0/linux/amd64", "--as-of", "2026-01-30", "--since", "2026-01-11"]);
    assert_eq!(since.as_array().unwrap().len(), entries.len() - 1);
    let quiet = world.program(&["log", "pipeline@v1.9.0", "--since", "2026-01-25", "--as-of", "2026-01-30"]);
    assert_eq!(quiet, (0, "nothing changed\n".into()));
    assert_eq!(world.program(&["log", "nowhere"]).0, 2, "that is no cell");
    assert_eq!(world.program(&["log", "pipeline@v1.9.0/linux/arm"]).0, 2, "nor is the beginning of linux/arm64 one");
    assert!(world.program(&["log", "--as-of", "2026-01-30"]).1.contains("by time alone"));
}

/// A log that is asked for alone believes no bundle that it has not looked at.
#[test]
fn the_log_does_not_rest_on_damaged_evidence() {
    let world = world();
    let last =
        |bundle: &std::path::Path| fs::read_to_string(bundle.join("bundle.json")).unwrap().contains("20260112-010000");
    let path = world.bundles().into_iter().find(|bundle| last(bundle)).unwrap();
    let path = path.join("pipeline/linux-amd64/lab-default/results.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, text.replacen("TestBad", "TestMad", 1)).unwrap();
    let (code, json) = world.listed(&["log", "pipeline@v1.9.0", "--as-of", "2026-01-13"]);
    assert!(code == 0 && !json.as_array().unwrap().is_empty());
    let (code, _) = world.program(&["log", "pipeline@v1.10.0", "--as-of", "2026-01-13"]);
    assert_eq!(code, 0, "what is damaged changed nothing");
    let (_, all) = world.listed(&["log", "--as-of", "2026-01-13"]);
    assert!(!all.to_string().contains("v1.10.0"), "{all:#}");
}

#[test]
fn claims() {
    let world = world();
    let file = |name: &str, text: &str| {
        fs::create_dir_all(world.path("docs/deep")).unwrap();
        fs::write(world.path("docs").join(name), text).unwrap();
    };
    file("README.md", "# Pipeline\n\nSupported on amd64.\nIt is not supported on ppc64le.\nImages for s390x.\n");
    file("deep/task.yaml", "annotations:\n  tekton.dev/platforms: 'linux/amd64,linux/s390x'\n");
    file("deep/notes.txt", "Runs on \u{1b}[2J riscv64 <script>\n");
    file("deep/strange.yaml", "annotations:\n  tekton.dev/platforms: 'linux/amd64,linux/mips'\n");
    file("ignored.rs", "// s390x\n");
    let docs = world.path("docs").display().to_string();
    let (code, json) = world.listed(&["claims", &docs, "--component", "pipeline@v1.9.0", "--as-of", "2026-01-13"]);
    assert_eq!(code, 1);
    let rows: Vec<_> = json
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            let file = text("file").rsplit('/').next().unwrap().to_owned();
            (file, row["line"].as_u64().unwrap(), text("platform"), text("requires"), row["shown"].as_bool().unwrap())
        })
        .collect();
    let row = |file: &str, line, platform: &str, requires: &str, shown| {
        (file.to_owned(), line, platform.to_owned(), requires.to_owned(), shown)
    };
    assert_eq!(
        rows,
        [
            row("README.md", 3, "linux/amd64", "supported", true),
            row("README.md", 5, "linux/s390x", "available", false),
            row("notes.txt", 1, "linux/riscv64", "available", false),
            row("strange.yaml", 2, "linux/amd64", "tested", true),
            row("strange.yaml", 2, "linux/mips", "tested", false),
            row("task.yaml", 2, "linux/amd64", "tested", true),
            row("task.yaml", 2, "linux/s390x", "tested", false),
        ]
    );
    let (_, text) = world.program(&["claims", &docs, "--as-of", "2026-01-13"]);
    assert!(!text.contains('\u{1b}') && text.ends_with("7 claims in 4 files, 5 without evidence\n"), "{text}");
    // By its heading this document is about the newest version, which fails.
    assert!(text.contains("README.md:3: NO EVIDENCE linux/amd64 of pipeline: supported"), "{text}");
    let readme = world.path("docs/README.md").display().to_string();
    let (code, text) = world.program(&[
        "claims",
        &readme,
        "--component",
        "pipeline@v1.9.0",
        "--requires",
        "built",
        "--as-of",
        "2026-01-13",
    ]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(world.program(&["claims", "/nowhere"]).0, 2);
    assert_eq!(world.program(&["claims", &readme, "--requires", "x"]).0, 2);
}

#[test]
fn stale() {
    let world = world();
    let kinds = |date: &str| {
        let (code, json) = world.listed(&["stale", "--as-of", date]);
        let mut kinds: Vec<_> =
            json.as_array().unwrap().iter().map(|row| row["kind"].as_str().unwrap().to_owned()).collect();
        kinds.dedup();
        (code, kinds)
    };
    assert_eq!(kinds("2026-01-12T12:00:00Z"), (0, vec![]));
    assert_eq!(kinds("2026-01-13T01:10:00Z"), (0, vec![]), "three days without a run are allowed");
    assert_eq!(kinds("2026-01-13T01:20:00Z"), (1, vec!["silent".to_owned()]));
    assert_eq!(kinds("2026-01-13T04:00:00Z").1[0], "night");
    let (code, later) = kinds("2026-01-16");
    assert!(
        code == 1 && ["night", "silent", "expiring"].iter().all(|kind| later.iter().any(|found| found == kind)),
        "{later:?}"
    );
    let (_, text) = world.program(&["stale", "--as-of", "2026-01-16"]);
    assert!(text.contains("'supported' ends on 2026-01-17 if nothing new comes [The amd64 team]"), "{text}");
    assert!(text.contains("nothing ran at all for more than 26 h"), "{text}");
    let empty = World::new();
    fs::create_dir(empty.path("history")).unwrap();
    assert_eq!(empty.program(&["stale"]).0, 1, "a night in which nothing ran, ever");
}

/// What ended is not forgotten, what is lost each night teaches nothing, and what never began is missed.
#[test]
fn alarms_do_not_go_quiet() {
    let world = World::new();
    world.config(
        "architectures.toml",
        "[[architecture]]\nplatform = 'linux/amd64'\nowners = ['A']\nschedule = '5 1 * * *'\n\
         [[architecture]]\nplatform = 'linux/s390x'\nowners = ['Z']\nschedule = '5 2 * * *'\n\
         [[architecture]]\nplatform = 'linux/arm64'\nowners = ['Arm']\n",
    );
    world.record(&world.run(1, "good").full("p", "v1", "linux/amd64", passing(4))).unwrap();
    for day in 2..=9 {
        world.record(&world.run(day, &format!("lost{day}")).lost("p", "v1", "linux/amd64")).unwrap();
    }
    let alarms = |date: &str| {
        let (code, json) = world.listed(&["stale", "--as-of", date]);
        assert_eq!(code, 1);
        let row = |row: &serde_json::Value| {
            (row["kind"].as_str().unwrap().to_owned(), row["words"].as_str().unwrap().to_owned())
        };
        json.as_array().unwrap().iter().map(row).collect::<Vec<_>>()
    };
    let kinds = |date: &str| alarms(date).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
    assert_eq!(kinds("2026-01-03T02:00:00Z"), ["never"]);
    assert!(alarms("2026-01-03T02:00:00Z")[0].1.starts_with("linux/s390x: "));
    let silent = alarms("2026-01-05T02:00:00Z");
    assert_eq!(silent[1].0, "silent");
    assert!(silent[1].1.contains("nothing was learnt since 2026-01-01, for more than 3 days"), "{silent:?}");
    assert_eq!(kinds("2026-01-07T02:00:00Z"), ["never", "silent", "expiring"]);
    let late = alarms("2026-01-09T02:00:00Z");
    assert_eq!(late.iter().map(|(kind, _)| kind.as_str()).collect::<Vec<_>>(), ["never", "silent", "expired"]);
    assert!(late[2].1.ends_with("'supported' ended on 2026-01-08"), "{late:?}");
}

/// Only what has really taken a cell's place keeps it from being missed.
#[test]
fn a_cell_is_superseded_by_a_newer_version_on_the_same_kubernetes() {
    let world = World::new();
    let run = |day: u8, component: &str, version: &str, kubernetes: &str| {
        let name = format!("{component}-{version}-{kubernetes}").replace(['.', '@'], "-");
        let run = world.run(day, &name).built(component, version, |_| ());
        let on = |install: &mut kit::record::Install| install.cluster.kubernetes = kubernetes.to_owned();
        let run = run.installed(component, version, "linux/amd64", on);
        let full = |results: &mut kit::record::Results| results.suite = "full".into();
        world.record(&run.tested(component, version, "linux/amd64", passing(2), full)).unwrap();
    };
    let alarms = |date: &str, kind: &str| -> Vec<String> {
        let (_, json) = world.listed(&["stale", "--as-of", date]);
        let rows = json.as_array().unwrap().iter().filter(|row| row["kind"] == kind);
        rows.map(|row| row["cell"].as_str().unwrap().replace("/linux-amd64/", " ").replace("/built-here", "")).collect()
    };
    run(1, "p", "v1.9.0", "v1.36.4");
    run(2, "p", "v1.9.1", "v1.37.2");
    run(8, "p", "v1.9.0", "v1.37.2");
    assert_eq!(
        alarms("2026-01-08", "silent"),
        ["p@v1.9.0 v1.36.4", "p@v1.9.1 v1.37.2"],
        "neither another Kubernetes nor an older version"
    );
    assert_eq!(alarms("2026-01-08", "expiring"), ["p@v1.9.1 v1.37.2"]);
    run(14, "p", "v1.9.2", "v1.37.3");
    assert_eq!(alarms("2026-01-14", "silent"), ["p@v1.9.0 v1.36.4"], "the same clusters, brought to their next patch");
    assert_eq!(
        alarms("2026-01-14", "expiring"),
        ["p@v1.9.0 v1.37.2"],
        "what is said of a release may end all the same"
    );
    // What is no release has no order but that of time, and only among its own.
    run(1, "q", "devel@0123456", "v1.37.2");
    run(2, "q", "some-branch", "v1.37.2");
    run(12, "q", "devel@89abcde", "v1.37.2");
    let mut silent = alarms("2026-01-13", "silent");
    silent.retain(|cell| cell.starts_with("q@"));
    assert_eq!(silent, ["q@some-branch v1.37.2"]);
}

#[test]
fn notices() {
    let world = world();
    let mark = world.path("mark").display().to_string();
    let report = |date: &str| world.program(&["notices", "--mark", &mark, "--as-of", date]);
    let (code, first) = report("2026-01-11");
    assert_eq!(code, 0);
    assert!(
        first.contains("## The amd64 team (linux/amd64)") && first.contains("**Promoted** on 2026-01-10"),
        "{first}"
    );
    assert!(first.contains("**Coming** on 2026-01-17"), "{first}");
    let (_, second) = report("2026-01-12T20:00:00Z");
    assert!(second.contains("v1.10.0") && !second.contains("**Promoted** on 2026-01-10"), "{second}");
    let (_, none) = report("2026-01-12T20:00:00Z");
    assert!(!none.contains("Promoted") && !none.contains("Demoted"), "{none}");
    assert_eq!(report("2026-01-11").0, 2, "an earlier report than the last");
    let until = || serde_json::from_slice::<serde_json::Value>(&fs::read(&mark).unwrap()).unwrap()["until"].clone();
    assert_eq!(until(), "2026-01-12T20:00:00Z", "which is left as it was");
    // What ended before that report and came after it.
    let bad = vec![test("TestLate", Status::Failed, Some(Cause::Product))];
    world.record(&world.run(12, "late").full("pipeline", "v1.9.0", "linux/amd64", bad)).unwrap();
    let (_, late) = report("2026-01-12T21:00:00Z");
    let said =
        "**Demoted** on 2026-01-12: pipeline&#64;v1.9.0/linux-amd64/v1.37.2/built-here from tested natively to failing";
    assert!(late.contains(said), "{late}");
    let (_, again) = report("2026-01-12T21:00:00Z");
    assert!(!again.contains("Demoted"), "{again}");
    // A mark is of all owners: a report for one of them would take it from the others.
    let (code, _) = world.program(&["notices", "--mark", &mark, "--owner", "The amd64 team"]);
    assert_eq!((code, until()), (2, "2026-01-12T21:00:00Z".into()));
    fs::write(&mark, "soon").unwrap();
    assert_eq!(report("2026-01-13").0, 2);
    let (code, json) =
        world.json(&["notices", "--since", "2026-01-11", "--as-of", "2026-01-20", "--owner", "The amd64 team"]);
    assert_eq!((code, json["notices"].as_array().unwrap().len()), (0, 1));
    assert!(json["notices"][0]["changes"].as_array().unwrap().iter().all(|change| change["platform"] == "linux/amd64"));
}

#[test]
fn onboard() {
    let world = world();
    let ask = |on: &str| world.json(&["onboard", on, "--as-of", "2026-01-13"]);
    let met = |json: &serde_json::Value| {
        let needs = json["needs"].as_array().unwrap().iter();
        needs
            .filter(|need| need["met"] == true)
            .map(|need| need["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let (code, json) = ask("linux/riscv64");
    assert_eq!((code, met(&json)), (1, vec!["name".to_owned()]));
    let names: Vec<_> = json["needs"].as_array().unwrap().iter().map(|need| need["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["name", "entry", "base", "test images", "cluster", "hardware", "owner", "installs", "tests"]);
    assert!(json["needs"].as_array().unwrap().iter().skip(1).all(|need| need["next"].is_string()));
    let (_, z) = ask("linux/s390x");
    assert_eq!(met(&z), ["name", "entry", "base", "test images"]);
    let (code, amd64) = ask("linux/amd64");
    assert_eq!((code, &amd64["ready"]), (0, &true.into()), "{amd64}");
    let (_, text) = world.program(&["onboard", "windows/arm64"]);
    assert!(text.contains("[ ] name: no tool of ours knows this architecture"), "{text}");
    assert_eq!(world.program(&["onboard", "linux/mips"]).0, 2);
}

#[test]
fn badge() {
    let world = world();
    let (code, svg) = world.program(&["badge", "pipeline@v1.9.0", "linux/amd64", "--as-of", "2026-01-13"]);
    assert!(
        code == 0
            && svg.starts_with("<svg ")
            && svg.contains("<title>pipeline v1.9.0 linux/amd64: supported until 2026-01-17</title>"),
        "{svg}"
    );
    let (_, svg) = world.program(&["badge", "pipeline", "linux/amd64", "--as-of", "2026-01-13"]);
    assert!(svg.contains("linux/amd64: failing"), "{svg}");
    assert_eq!(world.program(&["badge", "pipeline", "linux/riscv64"]).0, 2);
}
