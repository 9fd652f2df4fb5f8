//! Suites that set something of their component: rounds, and that everything is put back whatever happens. The
//! cluster is a stand-in; greeter's alpha tests do the same on a lab.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for what they do")]

#[path = "support/api.rs"]
mod api;
#[path = "support/cluster.rs"]
mod cluster;
mod support;

use cluster::{Cluster, signal};
use kit::{Cause, Platform, record::Status};
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

/// A component with settings, and what they are.
fn cluster(skips: &str) -> (Cluster, Value) {
    let cluster = Cluster::new(World::new("settings", SUITES, skips));
    let flags = json!({"metadata": {"annotations": {"a": "b"}}, "data": {"mode": "stable", "kept": "yes"}});
    cluster.api.put(FLAGS, flags);
    let before = cluster.api.get(FLAGS);
    (cluster, before)
}

/// Starts it, and waits until the settings of the round are in force.
fn start_hanging(cluster: &Cluster, run: &str) -> std::process::Child {
    let words = ["--suite", "full", "--env", "PROVOKE=hang"];
    cluster.start(run, &words, |api| api.get(FLAGS)["data"]["mode"] == "alpha")
}

#[test]
fn tests_that_skip_themselves_run_again_with_the_settings_of_a_round() {
    let (cluster, before) = cluster("");
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
    assert_eq!(cluster.api.get(FLAGS), before, "as it was, whatever a test left there");
    let results = cluster.results("good", None);
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
    let (cluster, before) = cluster("");
    let ended = cluster.run("bad", &["--suite", "full", "--env", "PROVOKE=fail"]);
    ended.says(
        1,
        &["FAIL TestAlpha [product]", "once more: TestAlpha", "run --component own --suite full --tests TestAlpha"],
    );
    assert_eq!(cluster.api.get(FLAGS), before);
    let results = cluster.results("bad", None);
    let alpha = results.tests.iter().find(|test| test.name == "TestAlpha").unwrap();
    assert_eq!((alpha.attempts, alpha.cause), (3, Some(Cause::Product)), "skipped, failed, failed");
    let ended = cluster.run("again", &["--suite", "full", "--tests", "TestAlpha", "--env", "PROVOKE=fail"]);
    ended.says(1, &["told to fail"]);
    let ended = cluster.run("first", &["--suite", "full", "--fail-fast", "--tests", "TestStable,TestAlpha"]);
    ended.says(0, &["2 passed"]);
}

#[test]
fn a_signal_puts_everything_back() {
    let (cluster, before) = cluster("");
    let child = start_hanging(&cluster, "stopped");
    signal(&child, "-INT");
    Ended::of(child.wait_with_output().unwrap()).says(130, &["NOT RUN [interrupted]", "stopped by signal 2"]);
    assert_eq!(cluster.api.get(FLAGS), before);
    let results = cluster.results("stopped", None);
    assert_eq!(
        (results.head.cause, results.counts.passed),
        (Some(Cause::Interrupted), 1),
        "of the first round, what did not run again"
    );
    assert_eq!(results.conditions.rounds.len(), 2);
}

#[test]
fn what_a_killed_run_has_set_the_next_one_puts_back() {
    let (cluster, before) = cluster(SKIPS);
    let mut child = start_hanging(&cluster, "killed");
    signal(&child, "-KILL");
    child.wait().unwrap();
    assert_eq!(cluster.api.get(FLAGS)["data"]["mode"], "alpha");
    // The killed run holds the cluster until its lease ends.
    cluster.run("early", &[]).says(3, &["error[lease-held]"]);
    cluster.expire_lease();
    let ended = cluster.run("next", &["--tests", "TestAlpha,TestPartly,TestNever"]);
    ended.says(
        0,
        &[
            "put back as it was before a run that was killed: ConfigMap own-system/flags",
            "1 passed, 1 skipped themselves, 1 left out (ci/skips.toml)",
        ],
    );
    assert_eq!(cluster.api.get(FLAGS), before);
}

#[test]
fn a_round_that_cannot_begin_costs_no_results() {
    let (cluster, before) = cluster("");
    cluster.api.refuse(|method, path, body| method == "PATCH" && path == FLAGS && body["data"]["mode"] == "alpha");
    let said = ["[auth]", "round alpha: cannot set ConfigMap own-system/flags", "NOT RUN [auth] 3 tests", "1 passed"];
    cluster.run("refused", &["--suite", "full"]).says(3, &said);
    assert_eq!(cluster.api.get(FLAGS), before);
    let results = cluster.results("refused", None);
    let of = |name: &str| results.tests.iter().find(|test| test.name == name).unwrap();
    assert_eq!((of("TestStable").status, of("TestAlpha").status), (Status::Passed, Status::NotRun));
    assert_eq!((results.head.cause, results.conditions.rounds.len()), (Some(Cause::Auth), 1));
}

#[test]
fn a_second_attempt_that_cannot_be_kept_costs_no_results() {
    let cluster = Cluster::new(World::new("parts", "[own.suites.all]\ndefault = true\nall = true\n", ""));
    let logs = cluster.world.path("run").join("own").join(Platform::host().dir()).join("c/logs");
    let (logs, mark) = (format!("LOGS={}", logs.display()), format!("MARK={}", cluster.world.path("mark").display()));
    let ended = cluster.run("run", &["--env", "PROVOKE=disk", "--env", &logs, "--env", &mark]);
    ended
        .says(1, &["FAIL TestProvoked [product]", "[host-disk]", "second attempt: cannot create a log in", "5 passed"]);
    let results = cluster.results("run", None);
    assert_eq!((results.counts.passed, results.counts.failed, results.head.cause), (5, 1, Some(Cause::Product)));
}

#[test]
fn failures_count_through_all_rounds() {
    let (cluster, _) = cluster("");
    let ended = cluster.run("many", &["--suite", "full", "--env", "PROVOKE=both", "--max-failures", "2"]);
    ended.says(1, &["once more: TestStable", "FAIL TestStable [product]", "FAIL TestAlpha [product]"]);
    assert!(!ended.err.contains("once more: TestAlpha"), "it was the second: {}", ended.err);
}

#[test]
fn nothing_is_tried_again_when_a_second_attempt_has_ended_the_program() {
    let cluster = Cluster::new(World::new("parts", "[own.suites.all]\ndefault = true\nall = true\n", ""));
    let mark = format!("MARK={}", cluster.world.path("mark").display());
    let ended = cluster.run("run", &["--env", "PROVOKE=pull", "--env", &mark]);
    ended.says(1, &["FAIL TestProvoked [product]", "panic: told to panic the second time", "once more: TestProvoked"]);
    assert_eq!(ended.err.matches("once more").count(), 1, "{}", ended.err);
}

#[test]
fn what_is_left_out_is_looked_at_with_the_settings_that_it_is_left_out_with() {
    let (cluster, before) = cluster(&SKIPS.replace("TestNever", "TestStable").replace("unless = 'lab'\n", ""));
    let ended = cluster.run("shadow", &["--suite", "full", "--shadow"]);
    ended.says(0, &["left out by ci/skips.toml, and would pass by now: TestStable"]);
    assert_eq!(cluster.api.get(FLAGS), before);
}

#[test]
fn a_config_map_that_is_not_there_is_named() {
    let (cluster, _) = cluster("");
    let ended = cluster.run("gone", &["--suite", "gone"]);
    ended.says(2, &["error[usage]", "ConfigMap own-system/nosuch does not exist", "see 'settings'"]);
}
