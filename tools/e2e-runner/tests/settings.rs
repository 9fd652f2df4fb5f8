//! Suites that set something of their component: rounds, and that everything is put back whatever happens. The
//! cluster is a stand-in; greeter's alpha tests do the same on a lab.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for what they do")]

#[path = "support/api.rs"]
mod api;
mod support;

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use api::Api;
use kit::{
    Cause,
    record::{Results, Status},
};
use serde_json::{Value, json};
use support::{Ended, World};

const FLAGS: &str = "/api/v1/namespaces/own-system/configmaps/flags";
const SUITES: &str = "namespace = 'own-system'
[own.suites.plain]
default = true
all = true
[own.suites.full]
all = true
[[own.suites.full.rounds]]
name = 'alpha'
settings = { flags = { mode = 'alpha', more = '1' } }
[own.suites.gone]
all = true
settings = { nosuch = { a = 'b' } }
";
const SKIPS: &str = "[[skip]]
component = 'own'
tests = ['TestNever']
unless = 'lab'
reason = 'only a lab has it'
owner = 'us'
until = '2999-01-01'
";

struct Cluster {
    world: World,
    api: Api,
    before: Value,
}

impl Cluster {
    fn new(skips: &str) -> Self {
        let api = Api::start();
        let flags = json!({"metadata": {"annotations": {"a": "b"}}, "data": {"mode": "stable", "kept": "yes"}});
        api.put(FLAGS, flags);
        let before = api.get(FLAGS);
        Self { world: World::new("settings", SUITES, skips), api, before }
    }

    fn command(&self, run: &str, words: &[&str]) -> Command {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.api.address}}], "users": [{"name": "u", "user": {}}],
        });
        let path = self.world.path("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        let run = self.world.path(run).display().to_string();
        let mut command = self.world.command(&[&["run", "--run-dir", &run], words].concat());
        command.arg("--kubeconfig").arg(&path).env("NO_PROXY", "127.0.0.1");
        command
    }

    fn run(&self, run: &str, words: &[&str]) -> Ended {
        Ended::of(self.command(run, words).output().unwrap())
    }

    /// Starts it, and waits until the settings of the round are in force.
    fn start_hanging(&self, run: &str) -> Child {
        let words = ["--suite", "full", "--env", "PROVOKE=hang"];
        let mut command = self.command(run, &words);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.api.get(FLAGS)["data"]["mode"] != "alpha" {
            assert!(Instant::now() < deadline, "the settings were never set");
            std::thread::sleep(Duration::from_millis(100));
        }
        // The test itself begins a moment later.
        std::thread::sleep(Duration::from_secs(1));
        child
    }

    fn results(&self, run: &str) -> Results {
        let cell = kit::RunDir::open(self.world.path(run)).unwrap().cell("own", &kit::Platform::host(), "c");
        kit::rundir::read_record(&cell).unwrap().0
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

#[test]
fn tests_that_skip_themselves_run_again_with_the_settings_of_a_round() {
    let cluster = Cluster::new("");
    let ended = cluster.run("good", &["--suite", "full"]);
    ended.says(
        0,
        &[
            "set for the tests: mode in own-system/flags to 'alpha' (was: stable)",
            "4 tests: 3 passed, 1 skipped themselves",
            "round first: 4 tests: 2 passed, 2 skipped themselves",
            "round alpha (mode=alpha, more=1): 3 tests: 2 passed, 1 skipped themselves",
        ],
    );
    assert_eq!(cluster.api.get(FLAGS), cluster.before, "as it was, whatever a test left there");
    let results = cluster.results("good");
    let of = |name: &str| results.tests.iter().find(|test| test.name == name).unwrap();
    let (alpha, stable) = (of("TestAlpha"), of("TestStable"));
    assert_eq!((alpha.status, alpha.round.as_deref(), alpha.attempts), (Status::Passed, Some("alpha"), 2));
    assert_eq!((stable.status, stable.round.as_deref(), stable.attempts), (Status::Passed, None, 1));
    assert_eq!((of("TestPartly/alpha").status, of("TestPartly").status), (Status::Passed, Status::Passed));
    assert_eq!(of("TestNever").status, Status::Skipped);
    let set = &results.conditions.rounds[1].settings;
    let told: Vec<_> = set.iter().map(|set| (set.key.as_str(), set.value.as_str(), set.before.as_deref())).collect();
    assert_eq!(told, [("mode", "alpha", Some("stable")), ("more", "1", None)]);
}

#[test]
fn a_failure_is_repeated_with_its_settings_and_everything_is_put_back() {
    let cluster = Cluster::new("");
    let ended = cluster.run("bad", &["--suite", "full", "--env", "PROVOKE=fail"]);
    ended.says(
        1,
        &["FAIL TestAlpha [product]", "once more: TestAlpha", "run --component own --suite full --tests TestAlpha"],
    );
    assert_eq!(cluster.api.get(FLAGS), cluster.before);
    let results = cluster.results("bad");
    let alpha = results.tests.iter().find(|test| test.name == "TestAlpha").unwrap();
    assert_eq!((alpha.attempts, alpha.cause), (3, Some(Cause::Product)), "skipped, failed, failed");
    let ended = cluster.run("again", &["--suite", "full", "--tests", "TestAlpha", "--env", "PROVOKE=fail"]);
    ended.says(1, &["told to fail"]);
    let ended = cluster.run("first", &["--suite", "full", "--fail-fast", "--tests", "TestStable,TestAlpha"]);
    ended.says(0, &["2 passed"]);
}

#[test]
fn a_signal_puts_everything_back() {
    let cluster = Cluster::new("");
    let child = cluster.start_hanging("stopped");
    signal(&child, "-INT");
    Ended::of(child.wait_with_output().unwrap()).says(130, &["NOT RUN [interrupted]", "stopped by signal 2"]);
    assert_eq!(cluster.api.get(FLAGS), cluster.before);
    let results = cluster.results("stopped");
    assert_eq!(
        (results.head.cause, results.counts.passed),
        (Some(Cause::Interrupted), 1),
        "of the first round, what did not run again"
    );
    assert_eq!(results.conditions.rounds.len(), 2);
}

#[test]
fn what_a_killed_run_has_set_the_next_one_puts_back() {
    let cluster = Cluster::new(SKIPS);
    let mut child = cluster.start_hanging("killed");
    signal(&child, "-KILL");
    child.wait().unwrap();
    assert_eq!(cluster.api.get(FLAGS)["data"]["mode"], "alpha");
    // The killed run holds the cluster until its lease ends.
    cluster.run("early", &[]).says(3, &["error[lease-held]"]);
    let lease = "/apis/coordination.k8s.io/v1/namespaces/other-arch/leases/run";
    let mut expired = cluster.api.get(lease);
    expired["spec"]["renewTime"] = "2026-01-01T00:00:00.000000Z".into();
    cluster.api.put(lease, expired);
    let ended = cluster.run("next", &["--tests", "TestAlpha,TestPartly,TestNever"]);
    ended.says(
        0,
        &[
            "put back as it was before a run that was killed: ConfigMap own-system/flags",
            "1 passed, 1 skipped themselves, 1 left out (ci/skips.toml)",
        ],
    );
    assert_eq!(cluster.api.get(FLAGS), cluster.before);
}

#[test]
fn a_config_map_that_is_not_there_is_named() {
    let cluster = Cluster::new("");
    let ended = cluster.run("gone", &["--suite", "gone"]);
    ended.says(2, &["error[usage]", "ConfigMap own-system/nosuch does not exist", "see 'settings'"]);
}
