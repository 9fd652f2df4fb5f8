//! A made history of a year with every state, and what the log says of how cells came from one to another.

use std::collections::BTreeSet;

use kit::{
    Cause,
    record::{Nature, Origin, Status, Test},
};

use crate::world::{World, passing, test};

/// What one run does: for component, platform, on a date of 2025.
const STORY: &[(&str, &str, &str, &str)] = &[
    // A component that grows up, is neglected, breaks, and is mended.
    ("2025-01-05", "climber", "linux/s390x", "unbuilt"),
    ("2025-01-10", "climber", "linux/s390x", "build"),
    ("2025-01-20", "climber", "linux/s390x", "install"),
    ("2025-02-01", "climber", "linux/s390x", "emulated"),
    ("2025-02-05", "climber", "linux/s390x", "good"),
    ("2025-02-06", "climber", "linux/s390x", "lost"),
    ("2025-03-01", "climber", "linux/s390x", "good"),
    ("2025-03-02", "climber", "linux/s390x", "bad"),
    ("2025-03-09", "climber", "linux/s390x", "good"),
    ("2025-03-10", "climber", "linux/s390x", "flaky"),
    // Lost from its first day on, for weeks, then found.
    ("2025-04-01", "unlucky", "linux/s390x", "lost"),
    ("2025-04-02", "unlucky", "linux/s390x", "lost"),
    ("2025-04-20", "unlucky", "linux/s390x", "emulated"),
    ("2025-05-20", "unlucky", "linux/s390x", "bad-emulated"),
    ("2025-05-25", "unlucky", "linux/s390x", "good"),
    ("2025-12-01", "unlucky", "linux/s390x", "good"),
    // Its project publishes it; somebody else tests it.
    ("2025-06-01", "public", "linux/arm64", "publish"),
    ("2025-06-10", "public", "linux/arm64", "lost"),
    ("2025-06-15", "public", "linux/arm64", "good"),
    ("2025-06-16", "public", "linux/arm64", "bad"),
    ("2025-08-01", "public", "linux/arm64", "lie"),
    // Installed and not tested for a while.
    ("2025-07-01", "idle", "linux/s390x", "build"),
    ("2025-07-05", "idle", "linux/s390x", "install"),
    ("2025-07-10", "idle", "linux/s390x", "good"),
    // The reference, tested every month.
    ("2025-01-15", "climber", "linux/amd64", "good"),
    ("2025-02-15", "climber", "linux/amd64", "good"),
    ("2025-03-05", "climber", "linux/amd64", "good"),
];

/// Every way from one state to another that the story goes; from a state to itself where only a claim ended.
const STEPS: &[&str] = &[
    " -> available: promotion",
    " -> built: promotion",
    " -> infrastructure: change",
    "available -> stale: demotion",
    "available -> tested-natively: promotion",
    "built -> installed: promotion",
    "built -> stale: demotion",
    "built -> tested-natively: promotion",
    "built -> tested-not-natively: promotion",
    "failing -> failing: demotion",
    "failing -> tested-natively: promotion",
    "failing -> unknown: change",
    "infrastructure -> built: promotion",
    "installed -> stale: demotion",
    "installed -> tested-natively: promotion",
    "stale -> available: promotion",
    "stale -> built: promotion",
    "stale -> stale: demotion",
    "stale -> tested-natively: promotion",
    "stale -> tested-not-natively: promotion",
    "stale -> unknown: change",
    "tested-natively -> failing: demotion",
    "tested-natively -> stale: demotion",
    "tested-natively -> tested-natively: demotion",
    "tested-not-natively -> stale: demotion",
    "tested-not-natively -> tested-natively: promotion",
    "unknown -> built: promotion",
    "unknown -> tested-natively: promotion",
];

fn tests(kind: &str) -> Vec<Test> {
    let mut tests = passing(6);
    match kind {
        "bad" | "bad-emulated" => tests.push(Test {
            line: Some("endian_test.go:42: got 0x0100, want 0x0001".into()),
            log: Some("logs/TestEndian.log".into()),
            reproduce: Some("cargo xtask e2e-runner run --test TestEndian".into()),
            ..test("TestEndian", Status::Failed, Some(Cause::Product))
        }),
        "flaky" => tests.push(Test { attempts: 2, ..test("TestEndian", Status::Flaky, Some(Cause::Flaky)) }),
        _ => tests.push(test("TestEndian", Status::Passed, None)),
    }
    tests
}

/// The story, recorded.
pub(crate) fn year() -> World {
    let world = World::new();
    world.config(
        "architectures.toml",
        "[[architecture]]\nplatform = 'linux/amd64'\nowners = ['The amd64 team']\nmachines = 3\nprovider = 'here'\n\
         [[architecture]]\nplatform = 'linux/s390x'\nowners = ['Z <team>']\nhardware = ['two LPARs']\nmachines = 2\nprovider = 'IBM'\n\
         [[architecture]]\nplatform = 'linux/arm64'\nowners = ['Arm']\nmachines = 1\n",
    );
    let policy = include_str!("policy.toml");
    world.config("policy.toml", &format!("{policy}unlike_reference = 0\n[states]\nunknown = 120\n"));
    world.config(
        "skips.toml",
        "[[skip]]\ncomponent = 'climber'\ntests = ['TestHub', 'TestGit/<b>']\nreason = 'needs the <internet>'\nowner = 'Z <team>'\nuntil = '2025-02-01'\nlink = 'javascript:alert(1)'\n\
         [[skip]]\ncomponent = 'climber'\ntests = ['TestX']\nreason = 'see there'\nowner = 'us'\nuntil = '2027-02-01'\nlink = 'https://example.com/1'\n",
    );
    for (date, component, on, kind) in STORY {
        let (component, version) = (*component, "v1.0.0");
        let run = world.run_on(date, kind).asked(component, &[on]);
        let run = run.built(component, version, |images| {
            if component == "public" {
                images.origin = Origin::Published;
            }
            let error = match *kind {
                "unbuilt" => kit::Error::new(Cause::Registry, "the registry does not answer"),
                "lie" => {
                    images.images[0].platforms[1].program.as_mut().unwrap().machine = "amd64".into();
                    return;
                }
                _ => return,
            };
            images.head = images.head.clone().failed(&error);
            images.images.clear();
        });
        let emulated = kind.ends_with("emulated");
        let nature = if emulated { Nature::Emulated } else { Nature::Native };
        let run = match *kind {
            "unbuilt" | "build" | "publish" | "lie" => run,
            "lost" => run.installed(component, version, on, |install| {
                let error = kit::Error::new(Cause::ClusterUnreachable, "no answer from 10.0.0.7");
                install.head = install.head.clone().failed(&error);
            }),
            _ => run.installed(component, version, on, |install| install.nature = nature),
        };
        let run = match *kind {
            "good" | "bad" | "flaky" | "emulated" | "bad-emulated" => {
                let log =
                    b"=== RUN   TestEndian\n    endian_test.go:42: got 0x0100, want 0x0001\n--- FAIL: TestEndian <b>\n";
                let run = run.log(component, on, "TestEndian.log", log);
                run.tested(component, version, on, tests(kind), |results| {
                    results.suite = "full".into();
                    results.nature = nature;
                })
            }
            _ => run,
        };
        world.record(&run.ended()).unwrap();
    }
    world
}

#[test]
fn every_state_comes_and_goes_and_the_log_says_why() {
    let world = year();
    let (code, json) = world.listed(&["log", "--as-of", "2025-12-31"]);
    assert_eq!(code, 0);
    let text = |entry: &serde_json::Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let entries = json.as_array().unwrap();
    let reached: BTreeSet<_> = entries.iter().map(|entry| text(entry, "to")).collect();
    let left: BTreeSet<_> = entries.iter().map(|entry| text(entry, "from")).collect();
    let all = [
        "available",
        "built",
        "failing",
        "infrastructure",
        "installed",
        "stale",
        "tested-natively",
        "tested-not-natively",
        "unknown",
    ];
    assert_eq!(reached.iter().map(String::as_str).collect::<Vec<_>>(), all);
    for state in all {
        assert!(left.contains(state), "nothing ever leaves '{state}'");
    }
    let steps: BTreeSet<_> = entries
        .iter()
        .map(|entry| format!("{} -> {}: {}", text(entry, "from"), text(entry, "to"), text(entry, "direction")))
        .collect();
    assert_eq!(steps.iter().map(String::as_str).collect::<Vec<_>>(), STEPS);
    for entry in entries {
        assert!(!text(entry, "rule").is_empty() && !text(entry, "reason").is_empty(), "{entry}");
    }
}

#[test]
fn the_date_of_each_change_is_the_date_of_the_change() {
    let world = year();
    for date in ["2025-01-12", "2025-02-10", "2025-03-20", "2025-06-20", "2025-09-01"] {
        let (_, now) = world.json(&["render", "--format", "json", "--as-of", date]);
        for cell in now["cells"].as_array().unwrap() {
            let Some(at) = cell["changes"]["at"].as_str() else { continue };
            let after = (at.parse::<jiff::Timestamp>().unwrap() + jiff::SignedDuration::from_secs(1)).to_string();
            // What comes after that date is not known yet: a world in which nothing new comes.
            let later = world.json(&["render", "--format", "json", "--as-of", at]).1;
            let find = |matrix: &serde_json::Value| {
                matrix["cells"].as_array().unwrap().iter().find(|other| other["id"] == cell["id"]).cloned().unwrap()
            };
            if later["runs"] == now["runs"] {
                assert_eq!(find(&later)["state"], cell["state"], "{} at {at}", cell["id"]);
                let after = world.json(&["render", "--format", "json", "--as-of", &after]).1;
                assert_eq!(find(&after)["state"], cell["changes"]["state"], "{} after {at}", cell["id"]);
            }
        }
    }
}
