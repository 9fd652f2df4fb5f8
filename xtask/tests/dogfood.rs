//! A cluster that drives another: two labs, Tekton in the first, everything that may come of a night.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

mod support;

use std::process::{Command, Output};

use serde_json::Value;
use support::{program, root};

/// Two labs that go with the test.
struct Labs(String);

impl Labs {
    fn new() -> Self {
        Self(format!("t{}-dog", std::process::id()))
    }

    fn dogfood(&self, arguments: &[&str]) -> (i32, Vec<Value>) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.current_dir(root()).args(["dogfood", "--keep", "--output", "json", "--labs", &self.0]).args(arguments);
        let Output { status, stdout, stderr } = command.output().unwrap();
        println!("--- {arguments:?}: {status}\n{}", String::from_utf8_lossy(&stderr));
        let runs = serde_json::from_slice(&stdout).unwrap_or_default();
        (status.code().unwrap_or(-1), runs)
    }

    fn target(&self, arguments: &[&str]) -> String {
        let lab = format!("{}-target", self.0);
        let output = Command::new(program("lab")).args(["--name", &lab, "kubectl"]).args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    fn lease(&self) -> Value {
        let lab = format!("{}-target", self.0);
        let mut command = Command::new(program("cluster-install"));
        let output = command.args(["lease", "show", "--lab", &lab, "--output", "json"]).output().unwrap();
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn has_greeter(&self) -> bool {
        !self.target(&["get", "namespace", "greeter-system", "--ignore-not-found"]).is_empty()
    }

    fn is_as_it_was(&self) {
        assert!(!self.has_greeter());
        assert!(self.lease()["holder"].is_null());
    }

    /// As if its holder had been gone for long. A pod that is being ended may renew it once more.
    fn expire_lease(&self) {
        std::thread::sleep(std::time::Duration::from_secs(60));
        let old = r#"{"spec":{"renewTime":"2026-01-01T00:00:00.000000Z"}}"#;
        self.target(&["patch", "lease", "run", "--namespace", "other-arch", "--type=merge", "--patch", old]);
    }
}

impl Drop for Labs {
    fn drop(&mut self) {
        for lab in ["driver", "target"] {
            let name = format!("{}-{lab}", self.0);
            let _ = Command::new(program("lab")).args(["down", "--name", &name, "--purge"]).status();
        }
    }
}

/// How a task of a run ended, in Tekton's word.
fn ended<'a>(run: &'a Value, task: &str) -> Option<&'a str> {
    let tasks = run["tasks"].as_array()?;
    tasks.iter().find(|one| one[0] == task).and_then(|one| one[1].as_str())
}

#[test]
#[ignore = "needs two labs, and half an hour: cargo xtask test --tekton runs it"]
fn one_lab_drives_another_through_tekton() {
    let labs = Labs::new();
    let (code, runs) = labs.dogfood(&[]);
    assert_eq!((code, runs.len()), (0, 2), "{runs:?}");
    assert!(runs.iter().all(|run| run["outcome"] == "passed" && run["evidence"].is_string()), "{runs:?}");
    // The Dashboard shows annotations of a run as well.
    for run in &runs {
        let said = &run["annotations"];
        assert_eq!((&said["outcome"], &said["evidence"]), (&run["outcome"], &run["evidence"]), "{run}");
        assert_eq!((&said["cause"], &said["test-on"]), (&Value::Null, &runs[0]["annotations"]["test-on"]), "{run}");
    }
    assert!(runs[0]["release"].as_str().unwrap().contains("@sha256:"), "{runs:?}");

    let (code, runs) = labs.dogfood(&["--env", "GREETER_TEST=fail", "--no-compare"]);
    assert_eq!((code, &runs[1]["outcome"], &runs[1]["cause"]), (1, &"failed".into(), &"product".into()), "{runs:?}");
    assert_eq!(
        (&runs[1]["annotations"]["outcome"], &runs[1]["annotations"]["cause"]),
        (&"failed".into(), &"product".into())
    );
    labs.is_as_it_was();

    // In parts it comes to the same.
    let (code, runs) = labs.dogfood(&["--shards", "2"]);
    let parts = runs[1]["tasks"].as_array().unwrap().iter().filter(|task| task[0] == "e2e").count();
    assert_eq!((code, parts, &runs[1]["outcome"]), (0, 2, &"passed".into()), "{runs:?}");
    labs.is_as_it_was();

    // Also where most of a run is skipped something fails for what was found, and says what.
    for asked in [["--component", "nosuch"], ["--release", "no/such/release.yaml"]] {
        let (code, runs) = labs.dogfood(&[&asked[..], &["--no-compare"]].concat());
        let said = (code, runs.len(), &runs[0]["reason"], &runs[0]["outcome"], &runs[0]["cause"]);
        assert_eq!(said, (2, 1, &"Failed".into(), &"failed".into(), &"usage".into()), "{runs:?}");
        assert_eq!((ended(&runs[0], "gate"), ended(&runs[0], "lease")), (Some("Failed"), None), "{runs:?}");
    }

    // What is wrong with the target is said, and nothing of it is the product's.
    for (how, code, cause) in
        [("unreachable", 3, "cluster-unreachable"), ("no-secret", 2, "usage"), ("bad-secret", 2, "usage")]
    {
        let (ended_with, runs) = labs.dogfood(&["--target", how]);
        assert_eq!((ended_with, &runs[1]["cause"]), (code, &cause.into()), "{how}: {runs:?}");
        assert_eq!(ended(&runs[1], "finish"), Some("Succeeded"), "{how}: {runs:?}");
    }

    let (code, runs) = labs.dogfood(&["--env", "GREETER_TEST=hang", "--cancel", "finally"]);
    assert_eq!((code, &runs[1]["reason"]), (3, &"Cancelled".into()), "{runs:?}");
    assert!(runs[1]["evidence"].is_string(), "{runs:?}");
    labs.is_as_it_was();

    // Ended hard it leaves what it did and a lease that expires; the next run adopts both.
    for how in ["now", "delete"] {
        let (code, runs) = labs.dogfood(&["--env", "GREETER_TEST=hang", "--cancel", how]);
        assert_eq!((code, &runs[1]["cause"]), (3, &"interrupted".into()), "{how}: {runs:?}");
        assert!(labs.lease()["holder"].is_string(), "{how}");
        assert!(labs.has_greeter(), "{how}");
        labs.expire_lease();
        let (code, runs) = labs.dogfood(&["--no-compare"]);
        assert_eq!((code, &runs[1]["outcome"]), (0, &"passed".into()), "{how}: {runs:?}");
        labs.is_as_it_was();
        assert!(labs.lease()["dirty"].is_null(), "{how}");
    }
}
