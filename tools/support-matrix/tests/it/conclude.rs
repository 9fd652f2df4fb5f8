//! What the stages of a run come to, as a Tekton Pipeline or a script asks it.

use std::fs;

use kit::{Cause, Exit, Outcome, record::Stages, rundir};

use crate::world::{Run, World};

/// A stage's file as a tool leaves it with `--stage`.
fn stage(run: &Run, name: &str, cause: Option<Cause>) {
    let (outcome, exit) = cause.map_or(("passed", 0), |cause| ("failed", cause.exit().0));
    let stage = serde_json::json!({
        "schemaVersion": "1.0", "name": name, "component": "greeter", "platform": "linux/s390x", "outcome": outcome,
        "started": "2026-01-10T01:00:00Z", "finished": "2026-01-10T01:02:00Z", "cause": cause, "exit": exit,
        "command": format!("cargo xtask {name}"),
    });
    let file = run.dir.path().join(format!("stages/{name}.json"));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, stage.to_string()).unwrap();
}

fn conclude(world: &World, run: &Run, options: &[&str]) -> (Option<Cause>, Exit) {
    let folder = run.dir.path().display().to_string();
    let done = world.call(&[&["conclude", &folder], options].concat()).unwrap();
    (done.cause, done.exit())
}

impl World {
    /// The names of the stages in a run's record.
    fn stages(&self, run: &Run) -> Vec<String> {
        let (stages, _) = rundir::read_record::<Stages>(run.dir.path()).unwrap();
        stages.stages.into_iter().map(|stage| stage.name).collect()
    }
}

#[test]
fn a_product_failure_and_an_unreachable_target_are_two_results() {
    let world = World::new();
    let run = world.run(10, "red");
    stage(&run, "install", None);
    stage(&run, "e2e", Some(Cause::Product));
    stage(&run, "cleanup", None);
    assert_eq!(conclude(&world, &run, &[]), (Some(Cause::Product), Exit::NOT_GOOD));
    let (stages, _) = rundir::read_record::<Stages>(run.dir.path()).unwrap();
    assert_eq!(
        (stages.head.outcome, stages.head.cause, stages.stages.len()),
        (Outcome::Failed, Some(Cause::Product), 3)
    );
    assert_eq!(stages.head.reproduce.as_deref(), Some("cargo xtask e2e"));

    let run = world.run(11, "away");
    stage(&run, "lease", Some(Cause::ClusterUnreachable));
    // There was nothing to go back to, and nobody to ask.
    stage(&run, "cleanup", Some(Cause::Usage));
    let statuses = ["--status", "lease=Failed", "snapshot=None", "e2e=None"];
    let ended = conclude(&world, &run, &statuses);
    assert_eq!(ended, (Some(Cause::ClusterUnreachable), Exit::INFRASTRUCTURE));
    // The wiring has seen that a stage failed: the task that closes the run has done its work.
    let closing = conclude(&world, &run, &[&statuses[..], &["--unless-failed"]].concat());
    assert_eq!(closing, (None, Exit::GOOD));
}

#[test]
fn a_good_run_whose_cleanup_is_not_good_is_not_good() {
    let world = World::new();
    let run = world.run(10, "left");
    stage(&run, "e2e", None);
    stage(&run, "cleanup", Some(Cause::NotAtBaseline));
    let ended = conclude(&world, &run, &["--status", "e2e=Succeeded", "--unless-failed"]);
    assert_eq!(ended, (Some(Cause::NotAtBaseline), Exit::NOT_GOOD));
}

#[test]
fn what_failed_and_left_nothing_was_interrupted() {
    let world = World::new();
    let run = world.run(10, "killed");
    stage(&run, "snapshot", None);
    let ended = conclude(&world, &run, &["--status", "snapshot=Succeeded", "--status", "install=Failed"]);
    assert_eq!(ended, (Some(Cause::Interrupted), Exit::INFRASTRUCTURE));
    let run = world.run(11, "nothing");
    assert_eq!(conclude(&world, &run, &[]), (Some(Cause::NothingRan), Exit::NOTHING_RAN));
    assert_eq!(conclude(&world, &run, &["--tests", "none"]), (None, Exit::GOOD));
}

#[test]
fn parts_of_a_stage_speak_each_for_itself() {
    let world = World::new();
    let run = world.run(10, "parts");
    let part = |number: u32, cause: Option<Cause>| {
        stage(&run, "e2e", cause);
        let file = run.dir.path().join("stages/e2e.json");
        let (mut stage, _) = rundir::read_json::<serde_json::Value>(&file).unwrap();
        stage["part"] = format!("{number}/3").into();
        fs::write(file.with_extension(format!("{number}-of-3.json")), stage.to_string()).unwrap();
        fs::remove_file(file).unwrap();
    };
    part(1, None);
    part(3, Some(Cause::Flaky));
    let of = |status: &str| conclude(&world, &run, &["--status", status]);
    assert_eq!(of("e2e=Succeeded").1, Exit::GOOD, "nobody says that the second has failed");
    // What another part found does not explain it.
    assert_eq!(of("e2e=Failed"), (Some(Cause::Interrupted), Exit::INFRASTRUCTURE));
    let (stages, _) = rundir::read_record::<Stages>(run.dir.path()).unwrap();
    let parts: std::collections::BTreeSet<_> = stages.stages.iter().filter_map(|stage| stage.part.as_deref()).collect();
    assert_eq!(parts, ["1/3", "2/3", "3/3"].into());
    part(2, Some(Cause::Dns));
    assert_eq!(of("e2e=Failed"), (Some(Cause::Dns), Exit::INFRASTRUCTURE));
    part(1, Some(Cause::Product));
    assert_eq!(of("e2e=Failed"), (Some(Cause::Product), Exit::NOT_GOOD));
    assert_eq!(world.stages(&run).len(), 3);
}

#[test]
fn who_judges_what_others_found_has_no_cause_of_its_own() {
    let world = World::new();
    let run = world.run(10, "judged");
    stage(&run, "release", Some(Cause::Usage));
    let failed = ["--judge=gate", "--status", "gate=Failed", "release=Succeeded"];
    assert_eq!(conclude(&world, &run, &failed), (Some(Cause::Usage), Exit::USAGE));
    assert_eq!(world.stages(&run), ["release"]);
    // It was killed, and nobody else has found anything.
    stage(&run, "release", None);
    stage(&run, "e2e", None);
    assert_eq!(conclude(&world, &run, &failed), (Some(Cause::Interrupted), Exit::INFRASTRUCTURE));
    // It is heard last, whatever the order.
    let both = ["--judge=gate", "--otherwise=install=registry", "--status", "gate=Failed", "install=Failed"];
    assert_eq!(conclude(&world, &run, &both), (Some(Cause::Registry), Exit::INFRASTRUCTURE));
    assert!(!world.stages(&run).contains(&"gate".to_owned()));
}

#[test]
fn a_step_that_was_killed_or_could_not_keep_the_evidence_is_no_good_end() {
    let world = World::new();
    let run = world.run(10, "steps");
    stage(&run, "e2e", None);
    let codes = run.dir.path().join("codes");
    fs::create_dir_all(&codes).unwrap();
    let step = |name: &str, code: &str| {
        fs::write(codes.join(name), code).unwrap();
        format!("--step={name}={}", codes.join(name).display())
    };
    let (good, killed, full) = (step("lease", "0"), step("cleanup", "137"), step("record", "3\n"));
    let seen = |options: &[&str]| conclude(&world, &run, &[&["--status", "e2e=Succeeded"], options].concat());
    assert_eq!(seen(&[&good]), (None, Exit::GOOD));
    assert_eq!(seen(&[&good, &killed]).0, Some(Cause::Interrupted));
    let asked = ["--unless-failed", "--otherwise=record=host-disk", &full];
    assert_eq!(seen(&asked), (Some(Cause::HostDisk), Exit::INFRASTRUCTURE));
    let missing = format!("--step=push={}", codes.join("push").display());
    assert_eq!(seen(&[&missing]).0, Some(Cause::Interrupted), "it never came to its end");
    // What it says itself is better.
    stage(&run, "cleanup", Some(Cause::NotAtBaseline));
    assert_eq!(seen(&[&killed]).0, Some(Cause::NotAtBaseline));
}

#[test]
fn a_stage_of_the_wiring_s_own_has_the_cause_that_the_wiring_says() {
    let world = World::new();
    let run = world.run(10, "git");
    let statuses = ["--otherwise=sources=registry", "--otherwise", "start=apiserver", "--status", "sources=Failed"];
    assert_eq!(conclude(&world, &run, &statuses), (Some(Cause::Registry), Exit::INFRASTRUCTURE));
    let ended = conclude(&world, &run, &[&statuses[..], &["build=Failed"]].concat());
    assert_eq!(ended, (Some(Cause::Registry), Exit::INFRASTRUCTURE), "the first of them");
}

#[test]
fn a_wiring_at_its_end_once_more_says_what_is_true_then_and_the_run_counts_once() {
    let world = World::new();
    let run = world.run(10, "abc123").built("greeter", "v1", |_| ());
    stage(&run, "e2e", None);
    stage(&run, "cleanup", Some(Cause::Apiserver));
    assert_eq!(conclude(&world, &run, &["--status", "e2e=Succeeded"]).0, Some(Cause::Apiserver));
    world.record(&run).unwrap();
    stage(&run, "cleanup", None);
    // Who only asks changes nothing of what was sealed.
    assert_eq!(conclude(&world, &run, &["--status", "e2e=Succeeded", "--unless-failed"]).0, None);
    let said = || rundir::read_record::<Stages>(run.dir.path()).unwrap().0.head.cause;
    assert_eq!(said(), Some(Cause::Apiserver));
    assert_eq!(conclude(&world, &run, &["--status", "e2e=Succeeded"]).0, None);
    assert_eq!(said(), None);
    world.record(&run).unwrap();
    assert_eq!(world.bundles().len(), 2);
    let (code, matrix) = world.json(&["render"]);
    assert_eq!((code, &matrix["runs"]), (0, &1.into()));
}

#[test]
fn a_wrong_call_is_named() {
    let world = World::new();
    let run = world.run(10, "wrong");
    let folder = run.dir.path().display().to_string();
    stage(&run, "e2e", None);
    fs::write(run.dir.path().join("stages/x.json"), "[]").unwrap();
    let error = world.call(&["conclude", &folder]).unwrap_err();
    assert!(error.cause == Cause::Usage && error.to_string().contains("stages/x.json"), "{error}");
    assert_eq!(world.call(&["conclude", "/no/such/run"]).unwrap_err().cause, Cause::Usage);
}
