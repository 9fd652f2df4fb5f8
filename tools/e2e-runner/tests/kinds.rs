//! Kinds of tests beside the end-to-end ones, parts of a suite, and what is kept of failures, on the stand-in for a
//! cluster.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for what they do")]

#[allow(dead_code, reason = "these tests need less of it than others")]
#[path = "support/api.rs"]
mod api;
#[allow(dead_code, reason = "these tests need less of it than others")]
#[path = "support/cluster.rs"]
mod cluster;
mod support;

use cluster::Cluster;
use kit::{
    Cause, Outcome, Platform,
    record::{Results, Status},
    rundir,
};
use serde_json::json;
use support::{Ended, World};

const SUITES: &str = "passes = [[]]
namespace = 'own-system'
[own.examples]
package = './parts'
args = ['-kubeconfig={kubeconfig}']
[own.suites.all]
default = true
all = true
time_limit = '1m'
[own.scripts.tap]
command = ['sh', '-c', 'echo 1..3; echo ok 1 - a; echo \"not ok 2 - $WHAT on $PLATFORM\"; echo \"ok 3 # SKIP no\"; exit 1']
output = 'tap'
env = { WHAT = 'b' }
[own.scripts.go]
command = ['sh', '-c', 'printf \"=== RUN   TestX\\\\n--- PASS: TestX (0.10s)\\\\nPASS\\\\n\"']
output = 'go'
[own.scripts.none]
command = ['sh', '-c', 'echo x: no space left on device >&2; exit 9']
output = 'go-json'
[own.scripts.xml]
command = ['cp', '-v', 'OUT/made.xml', 'OUT/junit.xml']
output = 'junit'
report = 'OUT/junit.xml'
[own.scripts.cut]
command = ['sh', '-c', 'printf \"\\173\\\"Action\\\":\\\"start\\\",\\\"Package\\\":\\\"p\\\"\\175\\n\"; echo x: no space left on device; exit 9']
output = 'go-json'
[own.scripts.hangs]
command = ['sh', '-c', 'echo ok 1 - a; echo not ok 2 - b; sleep 60']
output = 'tap'
time_limit = '1s'
[own.scripts.late]
command = ['sleep', '60']
output = 'tap'
time_limit = '1s'
[own.scripts.waits]
command = ['sh', '-c', 'touch OUT/began; sleep 9; echo not ok 1 - it answers; exit 1']
output = 'tap'
[own.scripts.held]
command = ['go', 'test', '-json', './held', '-args', '-kubeconfig={kubeconfig}']
output = 'go-json'
";

const SKIPS: &str = "[[skip]]
component = 'own'
tests = ['TestLeftOut', 'TestInner/one']
reason = 'to see'
owner = 'us'
until = '2999-01-01'
";

/// Where records of a kind lie.
fn results(cluster: &Cluster, run: &str, file: &str) -> Results {
    let cell = kit::RunDir::open(cluster.world.path(run)).unwrap().cell("own", &Platform::host(), "c");
    rundir::read_json(&cell.join(file)).unwrap().0
}

fn script(cluster: &Cluster, name: &str, more: &[&str]) -> (Ended, Results) {
    let run = format!("script-{name}");
    let ended = cluster.run(&run, &[&["--kind", "script", "--script", name], more].concat());
    let results = results(cluster, &run, "script/results.json");
    (ended, results)
}

#[test]
fn scripts_of_every_form_become_results() {
    let out = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(World::new("parts", &SUITES.replace("OUT", out.path().to_str().unwrap()), ""));
    let (ended, found) = script(&cluster, "tap", &["--env", "WHAT=it answers"]);
    ended.says(1, &["FAIL it answers on linux_", "3 tests: 1 passed, 1 failed, 1 skipped themselves"]);
    assert_eq!((found.kind.as_str(), found.suite.as_str(), found.counts.failed), ("script", "tap", 1));
    let again = found.tests.iter().find_map(|test| test.reproduce.as_ref()).unwrap();
    assert!(again.contains("--kind script --script tap") && !again.contains("--tests"), "{again}");

    let (ended, found) = script(&cluster, "go", &[]);
    ended.says(0, &["1 tests: 1 passed"]);
    assert_eq!(found.tests[0].name, "TestX");

    let (ended, found) = script(&cluster, "none", &[]);
    ended.says(3, &["exit code 9: x: no space left on device"]);
    assert_eq!(found.head.cause, Some(Cause::HostDisk));

    let made = out.path().join("made.xml");
    let suite =
        "<testsuite name='s'><testcase name='a'/><testcase name='b'><failure message='no'/></testcase></testsuite>";
    std::fs::write(&made, suite).unwrap();
    let (ended, _) = script(&cluster, "xml", &[]);
    ended.says(1, &["FAIL b [product]", "2 tests: 1 passed, 1 failed"]);
    std::fs::remove_file(&made).unwrap();
    let (ended, _) = script(&cluster, "xml", &[]);
    ended.says(2, &["cannot read"]);

    let (ended, found) = script(&cluster, "late", &[]);
    ended.says(1, &["the script did not end within 1.0 s"]);
    assert_eq!(found.head.cause, Some(Cause::TestTimeout));

    let (ended, _) = script(&cluster, "cut", &[]);
    ended.says(3, &["FAIL p [host-disk]", "exit code 9: x: no space left on device"]);

    let (ended, found) = script(&cluster, "hangs", &[]);
    ended.says(1, &["2 tests: 1 passed, 1 failed", "FAIL b [product]", "FAIL script hangs [test-timeout]"]);
    assert_eq!(found.tests.len(), 3, "{:?}", found.tests);

    cluster
        .run("which", &["--kind", "script"])
        .says(2, &["say with --script which: cut, go, hangs, held, late, none, tap, waits, xml"]);
    cluster.run("part", &["--kind", "script", "--script", "go", "--tests", "TestX"]).says(2, &["runs as a whole"]);
}

#[test]
fn unit_tests_that_do_not_compile_are_tests_all_the_same() {
    let over = SKIPS.replace("2999", "2020").replace("'TestLeftOut', 'TestInner/one'", "'TestBroken'");
    let unit = "[own.unit]\npackages = ['./broken']\n";
    let world = World::new("parts", &format!("{SUITES}{unit}"), &format!("{SKIPS}{over}"));
    let cluster = Cluster::new(world);
    let words = ["--kind", "unit", "--repo", "registry.invalid/x"];
    let said = [
        "FAIL own/broken [build-failure]",
        "NOT RUN [build-failure] 1 tests",
        "2 tests: 1 left out (ci/skips.toml), 1 not run",
    ];
    cluster.run("unit", &words).says(1, &said);
    let found = results(&cluster, "unit", "unit/results.json");
    assert_eq!((found.counts.asked, found.counts.not_run, found.counts.excluded), (2, 1, 1));
    let again = |package: &str| {
        let mut of = found.tests.iter().filter(|test| test.package == package);
        of.find_map(|test| test.reproduce.clone()).unwrap()
    };
    assert!(again("own/broken").contains("--kind unit --package own/broken"), "{}", again("own/broken"));
    assert!(!again("ci/skips.toml").contains("--package"), "{}", again("ci/skips.toml"));
    let place = cluster.world.path("unit").display().to_string();
    let again = ["--kind", "unit", "--dry-run", "--only-failed", &place];
    cluster.run("again", &again).says(0, &["# 1 tests of own/broken:", "^(TestBroken)$"]);
}

#[test]
fn a_script_s_failures_are_looked_into_as_well() {
    let out = tempfile::tempdir().unwrap();
    let cluster = Cluster::new(World::new("parts", &SUITES.replace("OUT", out.path().to_str().unwrap()), ""));
    // The API server is away meanwhile, and the script only knows that it got no answer.
    let began = out.path().join("began");
    let child = cluster.start("away", &["--kind", "script", "--script", "waits"], |_| began.exists());
    cluster.api.away(true);
    std::thread::sleep(std::time::Duration::from_secs(4));
    cluster.api.away(false);
    let ended = Ended::of(child.wait_with_output().unwrap());
    ended.says(3, &["FAIL it answers [cluster-unreachable]", "was away 1 times while the tests ran"]);
    // The state of the pods decides, and is kept.
    let (ended, found) = script(&cluster, "held", &[]);
    ended.says(1, &["FAIL TestFails [product]", "FAIL TestPulls [image-pull]", "evidence: "]);
    let of = |name: &str| found.tests.iter().find(|test| test.name == name).unwrap();
    let cell = kit::RunDir::open(cluster.world.path("script-held")).unwrap().cell("own", &Platform::host(), "c");
    let folder = cell.join("script").join(of("TestFails").evidence.as_ref().unwrap());
    assert!(std::fs::read_to_string(folder.join("test-fails/events.txt")).unwrap().contains("seen in test-fails"));
}

#[test]
fn examples_have_a_record_of_their_own() {
    let cluster = Cluster::new(World::new("settings", SUITES, ""));
    let words = ["--kind", "examples", "--env", "PROVOKE=fail", "--no-second-attempt"];
    cluster.run("run", &words).says(1, &["FAIL TestProvoked", "--component own --kind examples --tests TestProvoked"]);
    let found = results(&cluster, "run", "examples/results.json");
    assert_eq!((found.kind.as_str(), found.suite.as_str(), found.counts.asked), ("examples", "examples", 6));
    assert!(cluster.world.path("run").join("own").join(Platform::host().dir()).join("c/examples/logs").is_dir());
}

#[test]
fn an_example_that_failed_runs_again_by_itself() {
    let cluster = Cluster::new(World::new("parts", SUITES, ""));
    let words = ["--kind", "examples", "--env", "PROVOKE=leaf"];
    let alone = "--tests 'TestProvoked/^a$/^b$'";
    let ended = cluster.run("run", &words);
    ended.says(1, &["1 failed; once more: TestProvoked/a/b", "FAIL TestProvoked/a/b [product]", alone]);
    let attempts = |run: &str| {
        let found = results(&cluster, run, "examples/results.json");
        let its = found.tests.into_iter().filter(|test| test.name.starts_with("TestProvoked/"));
        its.map(|test| (test.name, test.attempts)).collect::<Vec<_>>()
    };
    assert_eq!(attempts("run"), [("TestProvoked/good".to_owned(), 1), ("TestProvoked/a/b".to_owned(), 2)]);
    let place = cluster.world.path("run").display().to_string();
    let again = [&words[..], &["--no-second-attempt", "--only-failed", &place]].concat();
    cluster.run("again", &again).says(1, &["FAIL TestProvoked/a/b [product]", alone]);
    assert_eq!(attempts("again"), [("TestProvoked/a/b".to_owned(), 1)]);
}

#[test]
fn all_parts_are_the_whole_and_a_missing_one_is_said() {
    let cluster = Cluster::new(World::new("parts", SUITES, SKIPS));
    let whole = cluster.run("whole", &["--env", "PROVOKE=fail", "--no-second-attempt"]);
    let expected = results(&cluster, "whole", "results.json");
    let earlier = cluster.world.path("whole").display().to_string();
    let mut places = Vec::new();
    for part in ["1/2", "2/2"] {
        let run = format!("part-{}", part.replace('/', "-"));
        let words = ["--env", "PROVOKE=fail", "--no-second-attempt", "--shard", part, "--durations", &earlier];
        cluster.run(&run, &words);
        places.push(cluster.world.path(&run).display().to_string());
    }
    let out = cluster.world.path("merged").display().to_string();
    let merge = |places: &[String]| {
        let mut command = std::process::Command::new(support::TOOL);
        Ended::of(command.arg("merge").args(places).args(["--out", &out]).output().unwrap())
    };
    let ended = merge(&places);
    assert_eq!(ended.code, whole.code, "{}{}", ended.out, ended.err);
    let merged: Results = rundir::read_record(&cluster.world.path("merged")).unwrap().0;
    assert_eq!((merged.counts, merged.all_counts), (expected.counts, expected.all_counts));
    let said = |results: &Results| {
        let mut all: Vec<_> =
            results.tests.iter().map(|test| (test.name.clone(), test.status, test.cause, test.skipped_by)).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        format!("{all:?}")
    };
    assert_eq!(said(&merged), said(&expected));
    assert_eq!((merged.shard, merged.head.cause), ((1, 1), expected.head.cause));

    // Of a suite whose tests pass: what is missing is all that is wrong.
    let good = ["--shard", "2/2", "--durations", &earlier];
    cluster.run("good-half", &good).says(0, &["good"]);
    let half = merge(&[cluster.world.path("good-half").display().to_string()]);
    assert_eq!(half.code, 4, "{}{}", half.out, half.err);
    assert!(half.out.contains("there are no results of part 1 of 2"), "{}", half.out);
    merge(&[&places[..], &places[..1]].concat()).says(2, &["is there twice"]);
    merge(&["/nowhere".into()]).says(2, &["cannot read /nowhere"]);
}

#[test]
fn what_the_cluster_held_is_kept_of_failures_and_decides() {
    let cluster = Cluster::new(World::new("held", SUITES, ""));
    cluster.api.put(
        "/api/v1/namespaces/own-system/pods/controller",
        json!({"kind": "Pod", "metadata": {"namespace": "own-system"}, "spec": {"containers": []},
            "status": {"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": true, "restartCount": 0}]}}),
    );
    cluster.api.put("/api/v1/namespaces/own-system", json!({"kind": "Namespace", "metadata": {}}));
    let ended = cluster.run("held", &["--no-second-attempt"]);
    ended.says(
        1,
        &[
            "FAIL TestFails [product]",
            "FAIL TestPulls [image-pull]",
            "because: pod test-pulls/p on node n1: container c: image pull of r.example/x:1: connection refused",
            "more than a fifth failed; the cluster:",
            "evidence: ",
        ],
    );
    let found = results(&cluster, "held", "results.json");
    let cell = kit::RunDir::open(cluster.world.path("held")).unwrap().cell("own", &Platform::host(), "c");
    let of = |name: &str| found.tests.iter().find(|test| test.name == name).unwrap();
    assert_eq!(of("TestPasses").evidence, None);
    let folder = cell.join(of("TestFails").evidence.as_ref().unwrap());
    let read =
        |path: &str| std::fs::read_to_string(folder.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let summary = read("summary.txt");
    assert!(
        summary.contains("namespace test-fails (its log names it)") && !summary.contains("test-pulls"),
        "{summary}"
    );
    // The pod was gone before the test had failed.
    assert!(read("test-fails/logs/p_c.log").contains("printed by /api/v1/namespaces/test-fails/pods/p"));
    assert!(read("test-fails/events.txt").contains("Warning Odd Pod/p: seen in test-fails"));
    assert!(read("test-fails/objects.json").contains("\"exitCode\": 1"));
    let collected = found.evidence.unwrap();
    assert!(collected.files >= 7 && collected.cut.is_empty(), "{collected:?}");
    assert!(!found.conditions.diagnosis.is_empty());
}

#[test]
fn what_is_left_out_can_be_looked_at() {
    let cluster = Cluster::new(World::new("parts", SUITES, SKIPS));
    let ended = cluster.run("shadow", &["--shadow"]);
    ended.says(
        0,
        &[
            "6 tests: 5 passed, 1 left out",
            "left out by ci/skips.toml, and would pass by now: TestLeftOut, TestInner/one",
        ],
    );
    let found = results(&cluster, "shadow", "results.json");
    let of = |name: &str| found.tests.iter().find(|test| test.name == name).unwrap();
    assert_eq!((of("TestLeftOut").status, of("TestLeftOut").shadow), (Status::Skipped, Some(Status::Passed)));
    assert_eq!((of("TestInner").status, of("TestInner").attempts, of("TestInner").shadow), (Status::Passed, 1, None));
}

#[test]
fn a_subtest_that_the_ledger_made_up_is_found_by_a_look_at_what_is_left_out() {
    let skips = SKIPS.replace("'TestInner/one'", "'TestInner/o*', 'TestInner/made_up', 'TestLeft*'");
    let cluster = Cluster::new(World::new("parts", SUITES, &skips));
    let ended = cluster.run("shadow", &["--shadow"]);
    ended.says(
        0,
        &["ci/skips.toml: there is no test TestInner/made_up", "would pass by now: TestLeftOut, TestInner/o*"],
    );
    let found = results(&cluster, "shadow", "results.json");
    assert_eq!(found.counts.excluded, 1, "however many entries name it");
}

#[test]
fn an_expired_skip_and_one_that_fits_nothing() {
    let skips = SKIPS.replace("2999", "2020").replace("'TestInner/one'", "'TestGone'");
    let cluster = Cluster::new(World::new("parts", SUITES, &skips));
    let ended = cluster.run("expired", &[]);
    ended.says(
        1,
        &[
            "6 tests: 6 passed",
            "TestLeftOut: left out until 2020-01-01 (owner: us)",
            "has no test TestGone",
            "policy-refused",
        ],
    );
}

#[test]
fn what_failed_before_runs_again_and_two_runs_are_compared() {
    let cluster = Cluster::new(World::new("parts", SUITES, SKIPS));
    cluster.run("bad", &["--env", "PROVOKE=fail", "--no-second-attempt"]);
    let bad = results(&cluster, "bad", "results.json");
    let failed: Vec<_> = bad.tests.iter().filter(|test| test.status == Status::Failed).map(|test| &test.name).collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    let place = cluster.world.path("bad").display().to_string();
    let ended = cluster.run("again", &["--only-failed", &place]);
    ended.says(0, &["1 tests: 1 passed"]);
    let good = results(&cluster, "again", "results.json");
    assert_eq!((&good.tests[0].name, good.head.outcome), (failed[0], Outcome::Passed));
    let all_good = cluster.world.path("again").display().to_string();
    cluster.run("none", &["--only-failed", &all_good]).says(4, &["nothing of own failed in"]);

    let compare = |here: &str, there: &str| {
        let mut command = std::process::Command::new(support::TOOL);
        Ended::of(command.arg("compare").args([here, there]).output().unwrap())
    };
    compare(&place, &all_good).says(1, &["failed on linux/", " only: 1", failed[0]]);
    compare(&place, &place).says(0, &["failed on both, so not by the architecture: 1"]);
    compare(&place, "/nowhere").says(2, &["cannot read /nowhere"]);
}
