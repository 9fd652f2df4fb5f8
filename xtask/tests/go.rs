//! The Go code of this repository: greeter, the probe and the lab's own programs are vetted and tested like everything
//! else.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

use std::{path::Path, process::Command};

fn go(folder: &str, arguments: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut command = Command::new("go");
    // As the lab is built, so that each compiles for the other.
    command.current_dir(root.join(folder)).args(arguments).env("CGO_ENABLED", "0").env("GOFLAGS", "-buildvcs=false");
    let output = command.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "go {} in {folder}:\n{}", arguments.join(" "), String::from_utf8_lossy(&said));
}

#[test]
fn greeter_s_own_unit_tests_pass() {
    go("fixtures/greeter", &["vet", "./..."]);
    go("fixtures/greeter", &["test", "./..."]);
}

#[test]
fn the_lab_s_own_programs_are_vetted() {
    for part in ["dns", "pause", "storage"] {
        go(&format!("tools/lab/parts/{part}"), &["vet", "-trimpath", "./..."]);
    }
}

#[test]
fn the_probe_s_own_unit_tests_pass() {
    go("tools/image-build/probe", &["vet", "./..."]);
    go("tools/image-build/probe", &["test", "./..."]);
}
