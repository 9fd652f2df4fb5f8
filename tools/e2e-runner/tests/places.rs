//! Slow nodes and clusters of several architectures, on the stand-in for a cluster: limits are stretched, nodes of
//! other platforms take no pods meanwhile, and a pod that ran elsewhere makes the tests say nothing.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for what they do")]

#[path = "support/api.rs"]
mod api;
#[path = "support/cluster.rs"]
mod cluster;
mod support;

use std::collections::BTreeMap;

use cluster::{Cluster, signal};
use kit::{Cause, Outcome, Platform};
use serde_json::json;
use support::{Ended, World};

const SUITES: &str = "namespace = 'own-system'
[[own.tests.overlay]]
file = 'pods/pods_test.go'
find = 'patience = 1 * time.Second'
replace = 'patience = {1s} * time.Second'
[own.suites.all]
default = true
all = true
time_limit = '1m'
[own.scripts.waits]
command = ['sh', '-c', 'sleep 1; echo ok 1 - a']
output = 'tap'
[own.suites.patience]
default_emulated = true
tests = ['TestPatience']
";
/// An architecture that this machine has not.
const OTHER: &str = "/api/v1/nodes/other";

fn foreign() -> &'static str {
    if Platform::host().arch == "s390x" { "arm64" } else { "s390x" }
}

fn cluster() -> Cluster {
    Cluster::new(World::new("pods", SUITES, ""))
}

/// The same with a node of another architecture.
fn mixed() -> Cluster {
    let cluster = cluster();
    cluster.api.node("other", foreign());
    cluster
}

#[test]
fn on_slow_nodes_limits_are_stretched_and_that_is_recorded() {
    let cluster = cluster();
    let patient = ["--suite", "patience", "--no-second-attempt"];
    cluster.run("fast", &patient).says(1, &["FAIL TestPatience [product]", "it was not there in 1s"]);
    assert_eq!(cluster.results("fast", None).conditions.stretch, None);
    let ended = cluster.run("slow", &[&patient[..], &["--slowdown", "3.5"]].concat());
    ended.says(0, &["limits times 4, for the nodes are 3.5 times slower (--slowdown); 1 lengths of time changed"]);
    let stretch = cluster.results("slow", None).conditions.stretch.unwrap();
    assert_eq!((stretch.factor, stretch.changes[0].replace.as_str()), (4, "patience = 4 * time.Second"));
    let command = std::fs::read_to_string(
        kit::RunDir::open(cluster.world.path("slow"))
            .unwrap()
            .cell("own", &Platform::host(), "c")
            .join("logs/_command.txt"),
    );
    assert!(command.unwrap().contains("TestPatience"));
    cluster.run("wrong", &["--slowdown", "0.1"]).says(2, &["'0.1' is no slowdown"]);
}

/// Notes in that run that the component is installed on a cluster of that name.
fn install(cluster: &Cluster, run: &str, name: &str, uid: &str) {
    let install = json!({
        "schemaVersion": "1.0", "tool": "t", "toolVersion": "0", "run": "r", "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:00:00Z", "outcome": "passed", "component": "own", "version": "devel",
        "release": release(), "platform": Platform::host(), "nature": "emulated",
        "cluster": {"uid": uid, "name": name, "kubernetes": "v1", "nodes": []},
        "objects": 0, "changed": 0, "namespaces": [], "running": [], "slowdown": 11.5
    });
    let cell = kit::RunDir::create(cluster.world.path(run)).unwrap().cell("own", &Platform::host(), name);
    kit::rundir::write_json(&cell.join("install.json"), &install).unwrap();
}

fn release() -> String {
    "sha256:".to_owned() + &"0".repeat(64)
}

#[test]
fn a_cluster_that_nothing_was_installed_on_is_refused_whatever_its_name() {
    let cluster = cluster();
    let patient = ["--suite", "patience"];
    install(&cluster, "other", "z1", "uid-of-z1");
    let said = ["error[usage]", "is of cluster z1 (uid uid-of-z1), and this is c (uid uid-1)", "name the cluster"];
    cluster.run("other", &patient).says(2, &said);
    // The same cluster by another name.
    install(&cluster, "same", "z1", "uid-of-z1");
    install(&cluster, "same", "z2", "uid-1");
    cluster.run("same", &patient).says(0, &["11.5 times slower (install.json)"]);
    assert_eq!(cluster.results("same", None).release, Some(release()));
    // Its own record counts before all others.
    install(&cluster, "own", "z2", "uid-1");
    install(&cluster, "own", "c", "uid-of-before");
    cluster.run("own", &patient).says(2, &["is of cluster c (uid uid-of-before)"]);
}

#[test]
fn a_failure_is_repeated_as_it_was() {
    let cluster = Cluster::new(World::new("parts", "[own.suites.all]\ndefault = true\nall = true\n", ""));
    install(&cluster, "run", "c", "uid-1");
    cluster.run("run", &["--env", "PROVOKE=fail", "--no-second-attempt"]).says(1, &["FAIL TestProvoked [product]"]);
    let results = cluster.results("run", None);
    let command = results.tests.iter().find_map(|test| test.reproduce.clone()).unwrap();
    let ci = cluster.world.path("ci").display().to_string();
    for words in ["--tests TestProvoked --kubeconfig", &release(), "--slowdown 11.5", &format!("--ci {ci}")] {
        assert!(command.contains(words), "'{words}' is not in {command}");
    }
    // Another release is another matter, and so is one that nobody knows of.
    let about = |run: &str, release: &str| cluster.run(run, &["--tests", "TestQuick", "--release", release]);
    about("run", &release()).says(0, &["1 passed"]);
    about("run", "sha256:1").says(2, &["holds sha256:0", "of own, and the tests are to be about sha256:1"]);
    about("new", &release()).says(2, &["c holds no release that anybody has noted of own"]);
    let inventory = json!({
        "schemaVersion": "1.0", "component": "own", "version": "devel", "release": release(), "run": "r",
        "platform": Platform::host(), "installed": "2026-01-01T00:00:00Z", "objects": []
    });
    cluster.api.put(
        "/api/v1/namespaces/other-arch/configmaps/inventory-own",
        json!({"metadata": {"labels": {"other-arch/inventory": "inventory-own"}},
            "data": {"inventory.json": inventory.to_string()}}),
    );
    about("kept", &release()).says(0, &["1 passed"]);
    about("other", "sha256:1").says(2, &["holds sha256:0"]);
}

#[test]
fn what_was_measured_at_the_install_counts() {
    let cluster = cluster();
    install(&cluster, "run", "c", "uid-1");
    cluster.run("run", &[]).says(0, &["1 tests: 1 passed", "limits times 12", "11.5 times slower (install.json)"]);
    let results = cluster.results("run", None);
    assert_eq!((results.suite.as_str(), results.nature), ("patience", kit::record::Nature::Emulated));
}

#[test]
fn a_rule_that_fits_nothing_is_said_on_fast_nodes_too() {
    let gone = SUITES.replace("patience = 1 *", "patience = 9 *");
    let world = World::new("pods", &gone, "");
    let said = ["error[build-failure]", "overlay of pods/pods_test.go: the text is there 0 times, and the rule says 1"];
    world.run(&["prepare"]).says(1, &said);
    // And whoever runs them finds it in the record.
    let cluster = Cluster::new(world);
    cluster.run("gone", &[]).says(1, &said);
    let head = cluster.results("gone", None).head;
    assert_eq!((head.outcome, head.cause), (Outcome::Failed, Some(Cause::BuildFailure)));
    assert_eq!(head.line.as_deref(), Some("patience = 9 * time.Second"));
}

#[test]
fn nodes_of_other_platforms_take_no_pods_meanwhile() {
    let cluster = mixed();
    let before = cluster.api.get(OTHER);
    cluster.run("which", &[]).says(2, &["has nodes of", "say with --platform"]);
    let host = Platform::host().to_string();
    let words = ["--platform", &host, "--env", "NODE=n1", "--slowdown", "4", "--env", "PROVOKE=hang"];
    let aside = |api: &api::Api| api.get(OTHER)["spec"]["unschedulable"] == true;
    let child = cluster.start("stopped", &words, aside);
    assert_eq!(cluster.api.get("/api/v1/nodes/n1")["spec"]["unschedulable"], serde_json::Value::Null);
    std::thread::sleep(std::time::Duration::from_secs(2));
    signal(&child, "-INT");
    Ended::of(child.wait_with_output().unwrap()).says(130, &["set aside while the tests of", "NOT RUN [interrupted]"]);
    assert_eq!(cluster.api.get(OTHER), before);
    let conditions = cluster.results("stopped", None).conditions;
    assert_eq!(conditions.set_aside, ["other"]);
    assert_eq!(conditions.pods, BTreeMap::from([(host, 1)]));
}

#[test]
fn nodes_of_other_platforms_take_no_pods_of_a_script_s_either() {
    let cluster = mixed();
    let before = cluster.api.get(OTHER);
    let words = ["--kind", "script", "--platform", &Platform::host().to_string()];
    cluster.run("script", &words).says(0, &["set aside while the tests of", "1 tests: 1 passed"]);
    assert_eq!(cluster.api.get(OTHER), before);
    let cell = kit::RunDir::open(cluster.world.path("script")).unwrap().cell("own", &Platform::host(), "c");
    let results: kit::record::Results = kit::rundir::read_record(&cell.join("script")).unwrap().0;
    assert_eq!(results.conditions.set_aside, ["other"]);
}

#[test]
fn a_node_that_a_killed_run_has_set_aside_is_given_back() {
    let cluster = mixed();
    let before = cluster.api.get(OTHER);
    let host = Platform::host().to_string();
    let words = ["--platform", &host, "--env", "NODE=n1", "--env", "PROVOKE=hang"];
    let aside = |api: &api::Api| api.get(OTHER)["spec"]["unschedulable"] == true;
    let mut child = cluster.start("killed", &words, aside);
    signal(&child, "-KILL");
    child.wait().unwrap();
    // It may still be at work, for all that others know.
    cluster.run("early", &words).says(3, &["error[lease-held]"]);
    assert!(aside(&cluster.api));
    cluster.expire_lease();
    // Now the node is wanted that the killed run did not want.
    let other = format!("linux/{}", foreign());
    let patient = ["--suite", "patience", "--slowdown", "4", "--platform", &other];
    cluster.run("next", &patient).says(0, &["takes pods again, as before a run that was killed: node other"]);
    assert_eq!(cluster.api.get(OTHER), before);
    assert_eq!(cluster.results("next", Some(&other)).conditions.set_aside, ["n1"]);
    assert_eq!(cluster.api.get("/api/v1/nodes/n1")["spec"], json!({}));
}

#[test]
fn a_pod_on_another_platform_s_node_means_that_nothing_was_tested() {
    let cluster = mixed();
    let host = Platform::host().to_string();
    let ended = cluster.run("stray", &["--platform", &host, "--env", "NODE=other", "--slowdown", "4"]);
    let other = format!("linux/{}", foreign());
    let said = format!("1 pods of tests ran on {other} (test-1/p on other): that says nothing of {host}");
    ended.says(3, &["2 passed", &said, "node: infrastructure, nothing is said of the component"]);
    let results = cluster.results("stray", None);
    assert_eq!((results.head.outcome, results.head.cause), (Outcome::Failed, Some(Cause::Node)));
    assert_eq!(results.conditions.pods, BTreeMap::from([(other, 1)]));
}

#[test]
fn a_node_that_came_while_tests_ran_is_none_of_another_platform() {
    let cluster = cluster();
    let held = |api: &api::Api| !api.get("/apis/coordination.k8s.io/v1/namespaces/other-arch/leases/run").is_null();
    let child = cluster.start("late", &["--env", "NODE=late", "--slowdown", "4"], held);
    cluster.api.node("late", &Platform::host().arch);
    Ended::of(child.wait_with_output().unwrap()).says(0, &["2 passed", "good"]);
    let pods = cluster.results("late", None).conditions.pods;
    assert_eq!(pods, BTreeMap::from([(Platform::host().to_string(), 1)]));
}
