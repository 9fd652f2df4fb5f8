//! A component's own programs, built for its tests; suites that are packages; and a tool that is not installed itself, on
//! the stand-in for a cluster.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

#[path = "support/api.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod api;
#[path = "support/cluster.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod cluster;
mod support;

use cluster::Cluster;
use kit::{Cause, Platform, record::Nature};
use serde_json::json;
use support::World;

const SUITES: &str = "tags = ['calls']
passes = [['-tool={tool}']]
source_paths = true
[own.suites.calls]
default = true
all = true
package = './tool'
[own.suites.plain]
all = true
[own.suites.gone]
all = true
package = './gone'
[own.scripts.says]
command = ['sh', '-c', 'test \"$({tool})\" = \"tool devel\" && echo ok 1 - says']
output = 'tap'
";

/// The component as a tool that needs another one, with these lines more.
fn world(more: &str) -> World {
    let world = World::new("test", SUITES, "");
    let path = world.path("ci/components.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, tail) = text.split_once("config = []\n").unwrap();
    let base = head.replace("[own]", "[base]");
    let text = format!("{base}config = ['c']\n{head}needs = ['base']\n{more}{tail}");
    std::fs::write(&path, text).unwrap();
    world
}

const TOOL: &str = "ldflags = ['-X main.version={version}']\n[own.builds]\ntool = './cmd/tool'\n";

fn release() -> String {
    "sha256:".to_owned() + &"0".repeat(64)
}

/// Notes in the cluster that what the tool needs is installed there, or is about to be.
fn keep(cluster: &Cluster, sent: serde_json::Value) {
    let inventory = json!({
        "schemaVersion": "1.0", "component": "base", "version": "v2", "release": release(), "run": "r",
        "platform": Platform::host(), "installed": "2026-01-01T00:00:00Z", "objects": []
    });
    cluster.api.put(
        "/api/v1/namespaces/other-arch/configmaps/inventory-base",
        json!({"metadata": {"labels": {"other-arch/inventory": "inventory-base"}},
            "data": {"inventory.json": inventory.to_string(), "sent.json": sent.to_string()}}),
    );
}

/// Notes the same in that run, of the cluster with that UID.
fn install(cluster: &Cluster, run: &str, uid: &str) {
    let install = json!({
        "schemaVersion": "1.0", "tool": "t", "toolVersion": "0", "run": "r", "started": "2026-01-01T00:00:00Z",
        "finished": "2026-01-01T00:00:00Z", "outcome": "passed", "component": "base", "version": "v3",
        "release": release(), "platform": Platform::host(), "nature": "emulated",
        "cluster": {"uid": uid, "name": "c", "kubernetes": "v1", "nodes": []},
        "objects": 0, "changed": 0, "namespaces": [], "running": [], "slowdown": 11.5
    });
    let cell = kit::RunDir::create(cluster.world.path(run)).unwrap().cell("base", &Platform::host(), "c");
    kit::rundir::write_json(&cell.join("install.json"), &install).unwrap();
}

#[test]
fn what_would_be_built_is_said_and_suites_are_packages() {
    let world = world(TOOL);
    let plan = |more: &[&str]| world.run(&[&["run", "--dry-run"], more].concat());
    let said = plan(&[]);
    said.says(
        0,
        &["# 2 tests of calls:", "# {tool} is built before: go build -buildvcs=false", "main.version=devel", "-tool=/"],
    );
    assert!(!world.path("cache/builds").exists(), "only said");
    plan(&["--output", "json"]).says(0, &["\"builds\": {", "/tool\""]);
    plan(&["--suite", "plain"]).says(0, &["tests of plain:", "#   TestSerial"]);
    plan(&["--suite", "gone"]).says(2, &["has no package ./gone", "and of its suites"]);
    plan(&["--tests", "TestFinds"]).says(0, &["# 1 tests of selection:"]);
    plan(&["--kind", "script"]).says(0, &["# {tool} is built before", "sh -c"]);
    world.run(&["prepare", "--output", "json"]).says(0, &["own: build tool done", "\"TestCalls\"", "/tool\""]);
    world.run(&["prepare", "--suite", "plain", "--output", "json"]).says(0, &["\"package\": \"own/test\""]);
    world.run(&["prepare", "--suite", "none"]).says(2, &["there is no suite 'none'"]);
}

#[test]
fn what_cannot_be_built_is_the_component_s_fault() {
    let cluster = Cluster::new(world("ldflags = ['-nosuchflag']\n[own.builds]\ntool = './cmd/tool'\n"));
    keep(&cluster, json!({"x": ["a", "b"]}));
    cluster.run("run", &[]).says(1, &["error[build-failure]: own's tool does not compile", "nosuchflag"]);
    assert_eq!(cluster.results("run", None).head.cause, Some(Cause::BuildFailure));
    let none = world("[own.builds]\ntool = './none'\n");
    none.run(&["prepare"]).says(1, &["error[build-failure]", "./none of own is no program"]);
    let unknown = world("[own.builds]\nother = './cmd/tool'\n");
    unknown.run(&["prepare"]).says(2, &["tests: '-tool={tool}': {tool} is no placeholder", "namespace, other"]);
}

#[test]
fn a_tool_is_tested_where_what_it_needs_is_installed() {
    let cluster = Cluster::new(world(TOOL));
    let missing = ["error[usage]: own needs base, and we have not installed it on c", "install --component base"];
    cluster.run("none", &[]).says(2, &missing);
    keep(&cluster, json!({}));
    cluster.run("half", &[]).says(2, &missing);

    keep(&cluster, json!({"x": ["a", "b"]}));
    cluster.run("kept", &[]).says(0, &["2 passed", &format!("release: none, tested with base v2 ({})", release())]);
    let results = cluster.results("kept", None);
    assert_eq!((results.release, results.version.as_str(), results.suite.as_str()), (None, "devel", "calls"));
    let inputs: Vec<_> = results.head.inputs.iter().map(|input| input.name.as_str()).collect();
    assert_eq!(inputs, ["release.yaml of base", "sources of the tests"]);
    assert_eq!(results.head.inputs[0].digest, release());

    install(&cluster, "run", "uid-1");
    cluster.run("run", &["--slowdown", "1"]).says(0, &["tested with base v3"]);
    let results = cluster.results("run", None);
    assert_eq!((results.head.inputs[0].name.as_str(), results.nature), ("install.json of base", Nature::Emulated));
    install(&cluster, "other", "uid-of-another");
    cluster.run("other", &[]).says(2, &["(uid uid-of-another), and this is c (uid uid-1)"]);

    cluster.run("script", &["--kind", "script"]).says(0, &["1 passed"]);
    cluster.run("bad", &["--env", "PROVOKE=fail", "--no-second-attempt"]).says(1, &["FAIL TestCalls"]);
    let again = cluster.results("bad", None).tests.into_iter().find_map(|test| test.reproduce).unwrap();
    assert!(again.contains("--component own --suite calls --tests TestCalls"), "{again}");
}
