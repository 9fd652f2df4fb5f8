//! Tests run on a real cluster: what they get, what is recorded, whose fault a failure is.
//!
//! These tests have a lab of their own, or the one that `OTHER_ARCH_TEST_LAB_NAME` names.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for what they do")]

mod support;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kit::{
    Cause, Outcome,
    record::{Results, Status},
    rundir,
};
use serde_json::json;
use support::{Ended, TOOL, World};

const SUITES: &str = "passes = [['-category=serial'], ['-category=parallel']]
[own.suites.smoke]
default = true
tests = ['TestSerial', 'TestParallel', 'TestEnvironment']
[own.suites.long]
tests = ['TestWaits', 'TestConnects', 'TestParallel']
";

/// A lab for these tests alone; one that they brought up goes when they end, also by a panic.
struct Lab {
    name: String,
    ours: bool,
}

impl Lab {
    /// One with nodes of another architecture, under emulation.
    fn with_node(platform: &str) -> Self {
        let lab = Self { ours: true, name: "e2e-nodes".into() };
        lab.tool(&["up", "--node", platform]);
        lab
    }

    fn new() -> Self {
        let named = std::env::var("OTHER_ARCH_TEST_LAB_NAME").ok().filter(|name| !name.is_empty());
        let lab = Self { ours: named.is_none(), name: named.unwrap_or_else(|| "e2e-test".into()) };
        if lab.ours {
            lab.tool(&["up"]);
        }
        lab
    }

    /// The lab's own tool, built beside ours.
    fn tool(&self, args: &[&str]) -> String {
        let program = Path::new(TOOL).with_file_name("lab");
        assert!(program.is_file(), "{} is missing: cargo build --package lab", program.display());
        let output = Command::new(program).args(["--name", &self.name]).args(args).output().unwrap();
        assert!(output.status.success(), "lab {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// The component's tests here, in the run directory `run` of `world`.
    fn command(&self, world: &World, run: &str, more: &[&str]) -> Command {
        let mut command = world.command(&["run", "--lab", &self.name]);
        command.arg("--run-dir").arg(world.path(run)).args(more);
        command
    }

    fn cell(&self, world: &World, run: &str) -> PathBuf {
        let platform = kit::Platform::host().dir();
        world.path(run).join("own").join(platform).join(format!("lab-{}", self.name))
    }

    fn uid(&self) -> String {
        self.tool(&["kubectl", "--", "get", "ns", "kube-system", "-o", "jsonpath={.metadata.uid}"]).trim().to_owned()
    }

    /// Says that a release is installed on the cluster with that UID; returns the record's digest.
    fn install(&self, world: &World, run: &str, release: &str, uid: &str) -> String {
        let install = json!({
            "schemaVersion": "1.0", "tool": "t", "toolVersion": "0", "run": "r", "started": "2026-01-01T00:00:00Z",
            "finished": "2026-01-01T00:00:00Z", "outcome": "passed", "component": "own", "version": "devel",
            "release": release, "platform": kit::Platform::host(), "nature": "native",
            "cluster": {"uid": uid, "name": "other", "kubernetes": "v1", "nodes": []},
            "objects": 0, "changed": 0, "namespaces": [], "running": []
        });
        rundir::write_json(&self.cell(world, run).join("install.json"), &install).unwrap()
    }

    fn results(&self, world: &World, run: &str) -> Results {
        rundir::read_record(&self.cell(world, run)).unwrap().0
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.ours && !std::thread::panicking() {
            self.tool(&["down", "--purge"]);
        } else if self.ours {
            let program = Path::new(TOOL).with_file_name("lab");
            let _ = Command::new(program).args(["--name", &self.name, "down", "--purge"]).output();
        }
    }
}

/// Everything in one test: one lab.
#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn runs_records_and_blames() {
    let lab = Lab::new();
    type Part = (&'static str, fn(&Lab));
    let parts: [Part; 7] = [
        ("good", what_the_tests_get_and_what_is_recorded),
        ("unit", unit_tests_run_as_pods),
        ("upgrade", an_upgrade_keeps_what_was_made),
        ("refused", another_cluster_or_another_run_is_refused),
        ("interrupted", a_signal_leaves_a_record_and_gives_the_cluster_back),
        ("away", an_api_server_that_goes_away_is_never_a_test_s_failure),
        ("unreachable", a_cluster_that_does_not_answer),
    ];
    for (name, part) in parts {
        let began = Instant::now();
        part(&lab);
        eprintln!("{name}: {:.1} s", began.elapsed().as_secs_f64());
    }
}

#[test]
#[ignore = "boots a node: cargo xtask test --nodes runs it"]
fn nodes_run_unit_tests_of_their_own_architecture() {
    let lab = Lab::with_node("linux/s390x");
    let unit = "[own.unit]\npackages = ['./unit']\nenv = { OWN = 'for {goarch}' }\n";
    let world = World::new("test", &format!("{SUITES}{unit}"), "").with_labs();
    let words = ["--kind", "unit", "--platform", "linux/s390x"];
    Ended::of(lab.command(&world, "far", &words).output().unwrap()).says(0, &["4 tests: 4 passed"]);
    let cell = world.path("far").join("own/linux-s390x").join(format!("lab-{}", lab.name));
    let found: Results = rundir::read_record(&cell.join("unit")).unwrap().0;
    assert_eq!((found.platform.to_string(), found.nature), ("linux/s390x".into(), kit::record::Nature::Emulated));
}

fn what_the_tests_get_and_what_is_recorded(lab: &Lab) {
    let world = World::new("test", SUITES, "").with_labs();
    // Somebody else's cluster, in the environment: nobody may even knock there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || listener.incoming().for_each(|_| _ = counter.fetch_add(1, Ordering::SeqCst)));
    let kubeconfig = world.path("production.yaml");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: p\nclusters: [{{name: p, cluster: {{server: 'https://{address}'}}}}]\n\
         contexts: [{{name: p, context: {{cluster: p, user: p}}}}]\nusers: [{{name: p, user: {{token: x}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let output = lab.command(&world, "good", &[]).env("KUBECONFIG", &kubeconfig).output().unwrap();
    Ended::of(output).says(0, &["3 tests: 3 passed", "good"]);
    assert_eq!(connections.load(Ordering::SeqCst), 0, "somebody connected to the cluster in KUBECONFIG");

    let results = lab.results(&world, "good");
    assert_eq!((results.head.outcome, results.head.cause, results.suite.as_str()), (Outcome::Passed, None, "smoke"));
    assert_eq!((results.counts.asked, results.counts.passed), (3, 3));
    assert!(!results.cluster.is_empty() && results.nature == kit::record::Nature::Native);
    let cell = lab.cell(&world, "good");
    assert!(results.tests.iter().all(|test| cell.join(test.log.as_ref().unwrap()).is_file()));
    assert!(std::fs::read_to_string(cell.join("junit.xml")).unwrap().contains("TestEnvironment"));

    let provoked = ["--tests", "TestProvoked", "--env", "PROVOKE=fail", "--output", "json"];
    let ended = Ended::of(lab.command(&world, "fails", &provoked).output().unwrap());
    ended.says(1, &["\"cause\": \"product\"", "told to fail", "once more: TestProvoked"]);
    let results: Results = serde_json::from_str(&ended.out).unwrap();
    let reproduce = results.head.reproduce.unwrap();
    assert!(reproduce.contains("--component own --tests TestProvoked --lab"), "{reproduce}");
    assert!(reproduce.ends_with("--env PROVOKE=fail"), "{reproduce}");
}

fn unit_tests_run_as_pods(lab: &Lab) {
    let unit = "[own.unit]\npackages = ['./unit', './parts']\nenv = { OWN = 'for {goarch}' }\n";
    let world = World::new("test", &format!("{SUITES}{unit}"), "").with_labs();
    let results = |run: &str| -> Results { rundir::read_record(&lab.cell(&world, run).join("unit")).unwrap().0 };
    let command = |run: &str, more: &[&str]| lab.command(&world, run, &[&["--kind", "unit"], more].concat());
    let run = |run: &str, more: &[&str]| Ended::of(command(run, more).output().unwrap());

    // While a test prints, the API server goes away: the pod goes on, and nothing is lost or there twice.
    let child = command("unit", &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pods = ["kubectl", "--", "get", "pods", "-n", "other-arch", "-o", "jsonpath={.items[*].status.phase}"];
    let deadline = Instant::now() + Duration::from_secs(120);
    while !lab.tool(&pods).contains("Running") {
        assert!(Instant::now() < deadline, "no pod of unit tests runs");
        std::thread::sleep(Duration::from_millis(200));
    }
    std::thread::sleep(Duration::from_secs(2));
    lab.tool(&["kill", "kube-apiserver", "--hold"]);
    std::thread::sleep(Duration::from_secs(2));
    lab.tool(&["start", "kube-apiserver"]);
    Ended::of(child.wait_with_output().unwrap()).says(0, &["10 tests: 10 passed"]);
    let found = results("unit");
    assert_eq!((found.kind.as_str(), found.counts.passed, found.nature), ("unit", 10, kit::record::Nature::Native));
    let printed = |test: &str, prefix: &str| -> Vec<String> {
        let log = found.tests.iter().find(|row| row.name == test).unwrap().log.as_ref().unwrap();
        let log = std::fs::read_to_string(lab.cell(&world, "unit").join("unit").join(log)).unwrap();
        log.lines().filter(|line| line.starts_with(prefix)).map(String::from).collect()
    };
    assert_eq!(printed("TestTicks", "tick "), (0..80).map(|n| format!("tick {n}")).collect::<Vec<_>>());
    // Two outputs, one order: else a crash's words come before the test that crashed.
    assert_eq!(printed("TestBothOutputs", "both "), (0..200).map(|n| format!("both {n}")).collect::<Vec<_>>());

    let bad = ["--package", "./unit", "--tests", "TestProvoked,TestPlace", "--env", "PROVOKE=fail"];
    let words =
        ["FAIL TestProvoked [product]", "told to fail", "once more: TestProvoked", "--kind unit --package own/unit"];
    run("bad", &bad).says(1, &words);
    let panic = ["--package", "./unit", "--tests", "TestProvoked", "--env", "PROVOKE=panic"];
    run("panic", &panic).says(1, &["FAIL TestProvoked [product]", "panic: told to panic"]);
    let left = ["kubectl", "--", "get", "pods", "-n", "other-arch", "-o", "name"];
    assert_eq!(lab.tool(&left).trim(), "", "pods of unit tests are left");
}

/// With kinds that every cluster has, and no image: what has no replicas is available at once.
fn an_upgrade_keeps_what_was_made(lab: &Lab) {
    let upgrade = "[own.upgrade]\nmanifests = ['//made']\nreach = { Deployment = 'Available' }\n";
    let world = World::new("test", &format!("{SUITES}{upgrade}"), "").with_labs();
    std::fs::create_dir(world.path("made")).unwrap();
    let made = "{apiVersion: v1, kind: ConfigMap, metadata: {name: words}, data: {hello: world}}\n---\n\
        {apiVersion: apps/v1, kind: Deployment, metadata: {name: idle}, spec: {replicas: 0, \
        selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, \
        spec: {containers: [{name: c, image: r.invalid/x}]}}}}\n";
    std::fs::write(world.path("made/all.yaml"), made).unwrap();
    let run = |phase: &str| {
        let words = ["--kind", "upgrade", "--phase", phase];
        Ended::of(lab.command(&world, "up", &words).output().unwrap())
    };
    let (older, newer, uid) =
        ("sha256:".to_owned() + &"a".repeat(64), "sha256:".to_owned() + &"b".repeat(64), lab.uid());
    lab.install(&world, "up", &older, &uid);
    run("prepare").says(0, &["2 objects"]);
    run("prepare").says(0, &["made already, and still there"]);
    run("check").says(2, &["nothing was upgraded"]);
    lab.install(&world, "up", &newer, &uid);
    let namespace = rundir::read_record::<kit::record::Upgrade>(&lab.cell(&world, "up")).unwrap().0.namespace;
    lab.tool(&["kubectl", "--", "delete", "configmap", "words", "-n", &namespace]);
    run("check").says(1, &["FAIL Upgrade/ConfigMap/words [product]", "because: it is gone"]);
    lab.install(&world, "up", &older, &uid);
    run("prepare").says(0, &["2 objects"]);
    lab.install(&world, "up", &newer, &uid);
    run("check").says(0, &["4 tests: 4 passed", "with subtests: 6 tests: 6 passed"]);
    let deadline = Instant::now() + Duration::from_secs(60);
    while lab.tool(&["kubectl", "--", "get", "namespaces", "-o", "name"]).contains("/upgrade-") {
        assert!(Instant::now() < deadline, "a namespace is left");
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn another_cluster_or_another_run_is_refused(lab: &Lab) {
    let world = World::new("test", SUITES, "").with_labs();
    let release = "sha256:".to_owned() + &"0".repeat(64);
    let write = |uid: &str| lab.install(&world, "held", &release, uid);
    write("another-uid");
    let run = |run: &str| Ended::of(lab.command(&world, run, &[]).output().unwrap());
    run("held").says(2, &["error[usage]", "is of cluster other (uid another-uid)"]);

    let digest = write(&lab.uid());
    run("held").says(0, &[&release]);
    let results = lab.results(&world, "held");
    assert_eq!(
        (results.release.as_deref(), results.head.inputs[0].digest.as_str()),
        (Some(release.as_str()), digest.as_str())
    );

    let install = Path::new(TOOL).with_file_name("cluster-install");
    let lease =
        |words: &[&str]| Command::new(&install).arg("lease").args(words).args(["--lab", &lab.name]).output().unwrap();
    assert!(lease(&["take", "--run", "somebody"]).status.success());
    run("late").says(3, &["error[lease-held]", "run somebody holds the cluster"]);
    assert!(lease(&["release", "--force"]).status.success());
}

fn a_signal_leaves_a_record_and_gives_the_cluster_back(lab: &Lab) {
    let world = World::new("test", SUITES, "").with_labs();
    let mut command = lab.command(&world, "stopped", &["--tests", "TestProvoked,TestSerial", "--env", "PROVOKE=hang"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(4));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    Ended::of(child.wait_with_output().unwrap()).says(130, &["NOT RUN [interrupted] 1 tests", "stopped by signal 2"]);
    let results = lab.results(&world, "stopped");
    assert_eq!(results.head.cause, Some(Cause::Interrupted));
    assert_eq!((results.counts.passed, results.counts.not_run), (1, 1));
    // Nobody holds the cluster any more.
    Ended::of(lab.command(&world, "next", &[]).output().unwrap()).says(0, &["3 passed"]);
}

fn an_api_server_that_goes_away_is_never_a_test_s_failure(lab: &Lab) {
    let world = World::new("test", SUITES, "").with_labs();
    let mut command = lab.command(&world, "away", &["--suite", "long"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    lab.tool(&["kill", "kube-apiserver", "--hold"]);
    std::thread::sleep(Duration::from_secs(10));
    lab.tool(&["start", "kube-apiserver"]);
    let ended = Ended::of(child.wait_with_output().unwrap());
    ended.says(
        3,
        &["FAIL TestConnects [cluster-unreachable]", "FAIL TestWaits [cluster-unreachable]", "the API server"],
    );
    let results = lab.results(&world, "away");
    assert_eq!((results.head.outcome, results.head.cause), (Outcome::Failed, Some(Cause::ClusterUnreachable)));
    let of = |name: &str| results.tests.iter().find(|test| test.name == name).unwrap();
    // Its own words are an assertion's; the cluster was away meanwhile.
    assert!(of("TestWaits").line.as_ref().unwrap().contains("the API server did not answer between"));
    assert_eq!(of("TestParallel").status, Status::Passed);
    // Now that it answers, the same failure is the component's.
    let ended =
        Ended::of(lab.command(&world, "back", &["--tests", "TestWaits", "--no-second-attempt"]).output().unwrap());
    ended.says(1, &["FAIL TestWaits [product]", "wanted 2, got 1"]);
}

fn a_cluster_that_does_not_answer(lab: &Lab) {
    let world = World::new("test", SUITES, "").with_labs();
    lab.tool(&["kill", "kube-apiserver", "--hold"]);
    let ended = Ended::of(lab.command(&world, "down", &[]).output().unwrap());
    lab.tool(&["start", "kube-apiserver"]);
    ended.says(3, &["error[cluster-unreachable]"]);
    assert_eq!(lab.results(&world, "down").head.cause, Some(Cause::ClusterUnreachable));
}

#[test]
#[ignore = "needs a lab for minutes: cargo xtask test --faults runs it"]
fn faults_of_the_store_are_the_api_server_s() {
    let lab = Lab { ours: true, name: "e2e-faults".into() };
    lab.tool(&["up"]);
    let world = World::new("test", SUITES, "").with_labs();
    let mut command = lab.command(&world, "deaf", &["--suite", "long", "--no-second-attempt"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    lab.tool(&["kill", "etcd", "--hold"]);
    // It listens, and cannot do what it is asked: that has to be seen twice.
    std::thread::sleep(Duration::from_secs(16));
    lab.tool(&["start", "etcd"]);
    let ended = Ended::of(child.wait_with_output().unwrap());
    ended.says(3, &["FAIL TestWaits [apiserver]"]);
    assert_eq!(lab.results(&world, "deaf").head.cause, Some(Cause::Apiserver));
}
