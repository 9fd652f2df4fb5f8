//! The whole chain on nodes of another architecture, under emulation: what can be shown without the hardware, and that
//! it is never taken for more.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for what they do")]

mod support;

use std::{
    io::{BufRead, BufReader},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use support::{Killed, World, cell, program, read_json, root};

const S390X: [&str; 4] = ["--platform", "linux/s390x", "--test-on", "linux/s390x"];

/// Prints the machine, and a number whose bytes tell their order.
const WHERE: &str = r#"
apiVersion: tekton.dev/v1
kind: TaskRun
metadata: {name: where}
spec:
  taskSpec:
    results: [{name: machine}, {name: order}]
    steps:
    - name: look
      image: mirror.gcr.io/busybox
      script: |
        #!/bin/sh
        printf %s "$(uname -m)" > $(results.machine.path)
        printf '\001\000' | od -An -td2 | tr -d ' \n' > $(results.order.path)
"#;

#[test]
#[ignore = "boots nodes, up to an hour: cargo xtask test --nodes runs it"]
fn nodes_run_tekton_of_their_own_architecture() {
    let world = World::new("s390x");
    let began = Instant::now();
    let ran = world.nightly("run", &[&S390X[..], &["--keep"]].concat());
    let took = began.elapsed();
    assert_eq!(ran.code, 0);
    let results = cell(&ran.run, "pipeline", "results.json");
    assert!(results["counts"]["passed"].as_u64().unwrap() >= 15, "{}", results["counts"]);
    assert_eq!((&results["counts"]["failed"], &results["nature"]), (&0.into(), &"emulated".into()));
    let shown = world.matrix_cell("pipeline", "linux/s390x");
    assert_eq!(shown["stateWords"], "tested, emulated", "{shown}");
    // And for what reason: were emulated nodes native ones, it would still lack other things.
    assert_eq!(shown["supported"]["met"], false, "{shown}");
    assert!(shown["supported"].to_string().contains("not on native nodes"), "{shown}");
    assert_eq!(shown["tested"]["words"], "never natively", "{shown}");
    let install = cell(&ran.run, "pipeline", "install.json");
    let (slowdown, stretch) = (install["slowdown"].as_f64().unwrap(), &results["conditions"]["stretch"]);
    assert!(slowdown > 1.5 && stretch["factor"].as_f64().unwrap() >= slowdown, "{slowdown} {stretch}");
    // Its containers start too slowly for the probes of the release.
    assert!(install["patientProbes"].as_u64().unwrap() >= 2, "{install}");
    println!(
        "{} s, {slowdown:.1} times slower, limits times {}: {}",
        took.as_secs(),
        stretch["factor"],
        results["counts"]
    );
    // Where all its stages ran here before, nothing was compiled for the first time.
    let stages = read_json(&ran.run.join("stages.json"));
    let counted = if ran.stderr.contains("expected: about") { took } else { on_the_node(&stages) };
    assert!(counted < Duration::from_secs(45 * 60), "{counted:?} {stages:#}");
    let nodes = install["cluster"]["nodes"].as_array().unwrap();
    let node = nodes.iter().find(|node| node["platform"] == "linux/s390x").unwrap();
    assert!(node["nature"] == "emulated" && node["machine"]["processor"].is_string(), "{node}");

    let file = world.folder.path().join("where.yaml");
    std::fs::write(&file, WHERE).unwrap();
    let kubectl = |arguments: &[&str]| world.kubectl(arguments);
    // The other node would run it as well.
    let host = format!("{}-{}", world.lab, kit::Arch::host().go);
    kubectl(&["cordon", &host]);
    kubectl(&["create", "--filename", file.to_str().unwrap()]);
    kubectl(&["wait", "--for=condition=Succeeded", "--timeout=600s", "taskrun/where"]);
    kubectl(&["uncordon", &host]);
    let said = kubectl(&["get", "taskrun", "where", "-o", "jsonpath={.status.results[*].value}"]);
    // One, written with the small end first, is 256 to those who begin with the big one.
    assert_eq!(said, "s390x 256");
    kubectl(&["delete", "taskrun", "where"]);

    let mut slowdown = Command::new(root().join("tools/cluster-install/benches/slowdown.sh"));
    slowdown.arg("1").env("LAB", &world.lab).env("BIN", program("lab").parent().unwrap());
    let slowdown = slowdown.output().unwrap();
    let said = String::from_utf8_lossy(&slowdown.stdout);
    assert!(slowdown.status.success(), "{said}{}", String::from_utf8_lossy(&slowdown.stderr));
    println!("{said}");
    let line = said.lines().find(|line| line.contains("(linux/s390x, emulated)")).unwrap();
    let words: Vec<_> = line.split(' ').collect();
    let times = words.windows(2).find(|words| words[1] == "times").unwrap()[0].parse::<f64>().unwrap();
    assert!(times > 1.5, "{said}");

    let cleaned = world.nightly("unused", &["--from", "cleanup", "--run-dir", ran.run.to_str().unwrap()]);
    assert_eq!(cleaned.code, 0);
    std::fs::remove_dir_all(cleaned.folder()).unwrap();
}

/// How long the stages took whose work no cache has: those before them compile, where nobody has before.
fn on_the_node(stages: &Value) -> Duration {
    let time = |stage: &Value, end: &str| stage[end].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let counted = ["snapshot", "install", "test", "cleanup"];
    let stages = stages["stages"].as_array().unwrap().iter();
    let stages = stages.filter(|stage| counted.contains(&stage["name"].as_str().unwrap()));
    stages.map(|stage| time(stage, "finished").duration_since(time(stage, "started")).unsigned_abs()).sum()
}

#[test]
#[ignore = "boots nodes: cargo xtask test --nodes runs it"]
fn nodes_that_die_in_the_middle_are_not_the_components_fault() {
    let world = World::new("dies");
    let mut command =
        world.command("run", &[&["--component", "greeter", "--env", "GREETER_TEST=hang"], &S390X[..]].concat());
    let mut child = Killed(command.spawn().unwrap());
    let (mut said, mut killed) = (String::new(), false);
    for line in BufReader::new(child.0.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if !killed && line.contains("test greeter") && line.contains("running Test") {
            let node = format!("{}-s390x", world.lab);
            let kill = world.tool("lab", &["kill", &node, "--hold", "--name", &world.lab]);
            assert!(kill.status.success(), "{}", String::from_utf8_lossy(&kill.stderr));
            killed = true;
        }
        said += &format!("{line}\n");
    }
    assert!(killed, "the tests never began:\n{said}");
    assert_eq!(child.0.wait().unwrap().code(), Some(3), "{said}");
    let results = cell(&world.folder.path().join("run"), "greeter", "results.json");
    assert_eq!(results["cause"], "node", "{said}");
    let stages = read_json(&world.folder.path().join("run/stages.json"));
    assert_eq!(stages["cause"], "node", "{stages}");
    assert_eq!(world.left(), "", "the lab is still there");
}
