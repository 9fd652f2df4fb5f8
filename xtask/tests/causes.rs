//! Each cause of a failed test, provoked for real in a lab: what is at fault is named, and not somebody else.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

mod support;

use std::path::{Path, PathBuf};

use serde_json::Value;
use support::{World, cell};

/// A lab on which greeter is installed, until its world goes.
struct Greeter {
    world: World,
    /// Of ten seconds' patience: what is waited for never comes.
    ci: PathBuf,
}

impl Greeter {
    fn new() -> Self {
        let world = World::new("causes");
        assert!(world.tool("lab", &["up", "--name", &world.lab]).status.success());
        let amd64 = ["--component", "greeter", "--platform", "linux/amd64"];
        assert_eq!(world.nightly("kept", &[&amd64[..], &["--keep"]].concat()).code, 0);
        let args = |more| format!("args = [\"-kubeconfig={{kubeconfig}}\"{more}]\npasses = [[]]");
        let ci = world.ci("short", "components.toml", &args(""), &args(", \"-wait=10s\""));
        Self { world, ci }
    }

    fn lab(&self, words: &[&str]) {
        let done = self.world.tool("lab", &[words, &["--name", &self.world.lab]].concat());
        assert!(done.status.success(), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// A deployment is another size, and its pods are gone or there.
    fn scale(&self, replicas: u32) {
        let of = ["--namespace", "greeter-system"];
        let size = format!("--replicas={replicas}");
        self.world.kubectl(&[&["scale", "deployment/greeter-controller", &size], &of[..]].concat());
        self.world.kubectl(&[&["rollout", "status", "deployment/greeter-controller"], &of[..]].concat());
    }

    /// Tests in a run of their own: the exit code, the cause in their record, and the record.
    fn tests(&self, name: &str, ci: &Path, more: &[&str]) -> (i32, String, Value) {
        let run = self.world.folder.path().join(format!("run-{name}"));
        let (ci, folder) = (ci.to_str().unwrap(), run.to_str().unwrap());
        let of = ["run", "--component", "greeter", "--lab", &self.world.lab, "--ci", ci, "--run-dir", folder];
        let output = self.world.tool("e2e-runner", &[&of[..], &["--no-second-attempt"], more].concat());
        println!("--- {name}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        let file = if more.contains(&"unit") { "unit/results.json" } else { "results.json" };
        let record = cell(&run, "greeter", file);
        let cause = record["cause"].as_str().unwrap_or("none").to_owned();
        (output.status.code().unwrap_or(-1), cause, record)
    }
}

#[test]
#[ignore = "needs a lab for minutes: cargo xtask test --faults runs it"]
fn faults_of_each_kind_are_named_when_they_are_provoked() {
    let greeter = Greeter::new();
    let mut wrong = Vec::new();
    let mut is = |name: &str, (code, cause, words): (i32, &str, &str), said: (i32, String, Value)| {
        let line = said.2["line"].as_str().or(said.2["message"].as_str()).unwrap_or_default();
        if (said.0, said.1.as_str()) != (code, cause) || !line.contains(words) {
            wrong.push(format!("{name}: wanted {code} {cause} ({words}), got {} {} ({line})", said.0, said.1));
        }
    };
    // What a test meets.
    for (how, wanted) in [
        ("fail", (1, "product", "wanted 2 greetings, got 1")),
        ("panic", (1, "product", "told to panic")),
        ("quota", (3, "quota", "exceeded quota: none")),
        ("storage", (3, "storage", "PersistentVolumeClaim")),
        ("image-pull", (3, "image-pull", "greeter.invalid")),
        ("webhook", (3, "webhook", "failed calling webhook")),
        ("auth", (3, "auth", "Unauthorized")),
        ("dns", (3, "dns", "lookup greeter.invalid")),
        ("unreachable", (3, "cluster-unreachable", "127.0.0.1:1")),
        ("hang", (1, "test-timeout", "longer than one test may")),
        ("mute", (1, "unclassified", "FAIL: TestProvoked")),
    ] {
        let env = format!("GREETER_TEST={how}");
        let more = ["--tests", "TestProvoked", "--test-timeout", "40s", "--env", &env];
        is(how, wanted, greeter.tests(how, &greeter.ci, &more));
    }
    // What is wrong before a test begins.
    let unit = ["--kind", "unit", "--package", "./cmd/greet"];
    let broken = [&unit[..], &["--tags", "greeter_broken"]].concat();
    is("broken", (1, "build-failure", ""), greeter.tests("broken", &greeter.ci, &broken));
    let skip = "[[skip]]\ncomponent = \"pipeline\"\ntests = [\"TestHubResolver\"";
    let over = "[[skip]]\ncomponent = \"greeter\"\ntests = [\"TestProvoked\"]\nreason = \"x\"\nowner = \"us\"\n";
    let over = format!("{over}until = \"2020-01-01\"\n\n{skip}");
    let expired = greeter.world.ci("expired", "skips.toml", skip, &over);
    is("expired", (1, "policy-refused", ""), greeter.tests("expired", &expired, &["--tests", "TestProvoked"]));
    greeter.lab(&["kill", "registry", "--hold"]);
    is("registry", (3, "registry", ""), greeter.tests("registry", &greeter.ci, &unit));
    greeter.lab(&["start", "registry"]);
    // What is wrong with the component: nobody answers the tests.
    greeter.scale(0);
    is("controller", (1, "product", ""), greeter.tests("controller", &greeter.ci, &["--tests", "TestGreeting"]));
    greeter.scale(1);
    is("again", (0, "none", ""), greeter.tests("again", &greeter.ci, &["--tests", "TestGreeting"]));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
