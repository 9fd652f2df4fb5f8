//! The script of the README: the tools put together by a shell.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

mod support;

use std::process::Command;

use kit::record::Stages;
use support::{World, root};

/// The README's block of shell.
fn script() -> String {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```sh\n").expect("the README has a script");
    rest.split_once("```").unwrap().0.to_owned()
}

#[test]
fn the_script_is_one_that_a_shell_reads() {
    let mut command = Command::new("sh");
    command.args(["-n", "-c", &script()]);
    assert!(command.status().unwrap().success());
}

/// With a cargo that only says what it was called with.
#[test]
fn a_target_that_was_taken_is_given_back_also_where_nothing_was_done_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let cargo = folder.path().join("cargo");
    let stand_in = r#"#!/bin/sh
all="$*" outcome=passed code=0
echo "$all" >>"$CALLS"
case "$all" in *"cleanup snapshot"*) outcome=failed code=3 ;; esac
while [ $# -gt 1 ]; do
  if [ "$1" = --stage ]; then
    mkdir -p "${2%/*}"
    echo "  \"outcome\": \"$outcome\"," >"$2"
  fi
  shift
done
exit $code
"#;
    std::fs::write(&cargo, stand_in).unwrap();
    std::fs::set_permissions(&cargo, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let calls = folder.path().join("calls");
    let mut command = Command::new("sh");
    command.args(["-c", &script()]).env("PATH", path).env("CALLS", &calls).env("RUN", folder.path().join("run"));
    command.env("REPO", "r").env("COMPONENT", "greeter").env("PLATFORM", "linux/amd64").env("CLUSTER", "--lab x");
    assert!(command.status().unwrap().success());
    let calls = std::fs::read_to_string(calls).unwrap();
    let called = |words: &str| calls.lines().any(|line| line.contains(words));
    assert!(called("lease take") && called("cleanup snapshot") && called("lease release"), "{calls}");
    assert!(!called("install install") && !called("cleanup run"), "{calls}");
}

#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn the_script_builds_installs_tests_and_cleans_up() {
    let world = World::new("script");
    let up = world.tool("lab", &["up", "--name", &world.lab, "--output", "json"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let up: serde_json::Value = serde_json::from_slice(&up.stdout).unwrap();
    let (run, history) = (world.folder.path().join("run"), world.folder.path().join("history"));
    let mut command = Command::new("sh");
    command.args(["-c", &script()]).current_dir(root()).env("REPO", up["registry"].as_str().unwrap());
    command.env("COMPONENT", "greeter").env("PLATFORM", kit::Platform::host().to_string());
    command.env("CLUSTER", format!("--lab {}", world.lab)).env("RUN", &run).env("HISTORY", &history);
    let ran = world.finish("run", command.output().unwrap());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let (stages, _) = kit::rundir::read_record::<Stages>(&run).unwrap();
    let names: Vec<_> = stages.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(names, ["build", "lease", "snapshot", "install", "e2e", "cleanup", "lease-release"]);
    assert!(stages.head.cause.is_none() && history.is_dir());
}
