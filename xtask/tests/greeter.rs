//! The whole chain with greeter on a real lab: from source to a support matrix, and everything that can go wrong
//! on the way with its cause and its exit code.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for what they do")]

mod support;

use std::{
    collections::BTreeSet,
    net::TcpListener,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use support::{Killed, World, cell, read_json};

/// What the machine shows, one thing a line: processes, namespaces, mounts, interfaces, rules, cgroups. Those of other
/// labs, which say whose they are, come and go.
fn leftovers(world: &World) -> BTreeSet<String> {
    let output = world.tool("lab", &["leftovers"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let ours = |line: &&str| line.split(' ').nth(1).is_some_and(|lab| lab == "-" || lab == world.lab);
    text.lines().filter(ours).map(str::to_owned).collect()
}

/// Only what is new counts: a dying process no longer says whose it is, so one of another lab may be there before.
/// One that has been killed is seen until its parent has asked for it: not for long.
fn assert_nothing_left(world: &World, before: &BTreeSet<String>, when: &str) {
    let began = Instant::now();
    loop {
        let new: Vec<_> = leftovers(world).difference(before).cloned().collect();
        if new.is_empty() {
            return;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "left {when}: {new:#?}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn from_source_to_a_matrix_and_nothing_is_left() {
    let world = World::new("whole");
    let before = leftovers(&world);

    // Somebody else's cluster, in the environment: nobody may even knock there.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&connections);
    std::thread::spawn(move || listener.incoming().for_each(|_| _ = counter.fetch_add(1, Ordering::SeqCst)));
    let kubeconfig = world.folder.path().join("production.yaml");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: p\nclusters: [{{name: p, cluster: {{server: 'https://{address}'}}}}]\n\
         contexts: [{{name: p, context: {{cluster: p, user: p}}}}]\nusers: [{{name: p, user: {{token: x}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();

    let output = world.command("first", &["--component", "greeter"]).env("KUBECONFIG", &kubeconfig).output().unwrap();
    let first = world.finish("first", output);
    assert_eq!(first.code, 0);
    assert_eq!(connections.load(Ordering::SeqCst), 0, "somebody connected to the cluster in KUBECONFIG");

    let images = read_json(&first.run.join("greeter/images.json"));
    assert_eq!(images["outcome"], "passed");
    assert!(images["platforms"].as_array().unwrap().len() >= 4);
    let install = cell(&first.run, "greeter", "install.json");
    let node = &install["cluster"]["nodes"][0];
    assert!(node["evidence"].is_string() && node["machine"]["pageSize"].as_u64() >= Some(4096), "nobody probed {node}");
    assert!(install["slowdown"].as_f64() >= Some(1.0), "{install}");
    let results = cell(&first.run, "greeter", "results.json");
    assert!(results["counts"]["passed"].as_u64().unwrap() >= 5, "{}", results["counts"]);
    assert_eq!(results["counts"]["failed"], 0);
    let round = &results["conditions"]["rounds"][1];
    assert_eq!((&round["name"], &round["settings"][0]["value"]), (&"alpha".into(), &"alpha".into()), "{round}");
    assert!(round["counts"]["passed"].as_u64().unwrap() >= 1, "{round}");
    let cleanup = cell(&first.run, "greeter", "cleanup.json");
    for kind in ["added", "missing", "changed"] {
        assert_eq!(cleanup["difference"][kind].as_array().unwrap().len(), 0, "{kind}");
    }
    world.assert_matrix("greeter", "linux/amd64", &["linux/arm64", "linux/s390x", "linux/ppc64le"]);
    assert_eq!(world.left(), "");
    assert_nothing_left(&world, &before, "after the run");
}

#[test]
#[ignore = "needs a lab for minutes: cargo xtask test --faults runs it"]
fn faults_of_runs_have_their_cause_and_their_exit_code() {
    let world = World::new("wrong");
    let up = world.tool("lab", &["up", "--name", &world.lab]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let amd64 = ["--component", "greeter", "--platform", "linux/amd64"];
    let first = world.nightly("first", &amd64);
    assert_eq!(first.code, 0);
    let earlier = first.run.to_str().unwrap();

    // Every further run takes the images of the first.
    let again = |run: &str, more: &[&str]| {
        let from =
            [&["--component", "greeter", "--platform", "linux/amd64", "--from", "install", "--run-dir", earlier], more];
        let ran = world.nightly(run, &from.concat());
        let folder = ran.folder();
        (ran, folder)
    };

    let (failed, run) = again("fails", &["--env", "GREETER_TEST=fail"]);
    assert_eq!(failed.code, 1);
    let results = cell(&run, "greeter", "results.json");
    assert_eq!(results["cause"], "product", "{results}");
    let own_words = "wanted 2 greetings, got 1";
    assert!(results["reproduce"].is_string() && results.to_string().contains(own_words), "{results}");
    assert!(failed.stderr.contains("TestProvoked") && failed.stderr.contains(own_words), "{}", failed.stderr);
    assert_eq!(cell(&run, "greeter", "cleanup.json")["outcome"], "passed");
    std::fs::remove_dir_all(run).unwrap();

    let (crashed, run) = again("crashes", &["--env", "GREETER_TEST=crash"]);
    assert_eq!(crashed.code, 1);
    let results = cell(&run, "greeter", "results.json");
    assert_eq!(results["cause"], "product", "{results}");
    assert!(results.to_string().contains("nil pointer dereference"), "{results}");
    std::fs::remove_dir_all(run).unwrap();

    let (flaky, run) = again("flakes", &["--env", "GREETER_TEST=flake"]);
    assert_eq!(flaky.code, 0);
    assert_eq!(cell(&run, "greeter", "results.json")["counts"]["flaky"], 1);
    std::fs::remove_dir_all(run).unwrap();

    let empty = world.ci(
        "empty",
        "components.toml",
        "[greeter.suites.smoke]\ndefault = true\nall = true",
        "[greeter.suites.smoke]\ndefault = true",
    );
    let (nothing, run) = again("nothing", &["--ci", empty.to_str().unwrap()]);
    assert_eq!(nothing.code, 4);
    std::fs::remove_dir_all(run).unwrap();

    let command = world.command(
        "unused",
        &[
            "--component",
            "greeter",
            "--platform",
            "linux/amd64",
            "--from",
            "install",
            "--run-dir",
            earlier,
            "--env",
            "GREETER_TEST=hang",
        ],
    );
    let dead = with_dead_apiserver(&world, command);
    assert_eq!(dead.0, 3, "{}", dead.1);
    assert!(!dead.1.contains("tests failed"), "{}", dead.1);
}

#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn a_release_that_exists_is_tested_and_a_kept_run_is_gone_on_from() {
    let world = World::new("kept");
    let amd64 = ["--component", "greeter", "--platform", "linux/amd64"];
    let up = world.tool("lab", &["up", "--name", &world.lab]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    world.kubectl(&["create", "configmap", "theirs", "--from-literal=whose=theirs"]);
    let kept = world.nightly("kept", &[&amd64[..], &["--keep"]].concat());
    assert_eq!(kept.code, 0);
    let folder = kept.run.to_str().unwrap();
    // Of the baseline, and changed: it is put back as well.
    world.kubectl(&["patch", "configmap", "theirs", "--patch", r#"{"data":{"whose":"changed"}}"#]);
    let cleaned = world.nightly("unused", &["--from", "cleanup", "--run-dir", folder]);
    assert_eq!(cleaned.code, 0);
    assert_eq!(world.kubectl(&["get", "configmap", "theirs", "--output", "jsonpath={.data.whose}"]), "theirs");
    std::fs::remove_dir_all(cleaned.folder()).unwrap();

    let release = kept.run.join("greeter/release.yaml");
    let release = world.nightly("release", &[&amd64[..], &["--release", release.to_str().unwrap()]].concat());
    assert_eq!(release.code, 0);
    for said in ["expected: about", "where the time went"] {
        assert!(release.stderr.contains(said), "a second run does not say '{said}'");
    }
    let digest = |run: &std::path::Path| read_json(&run.join("greeter/images.json"))["release"]["digest"].clone();
    assert_eq!(digest(&release.run), digest(&kept.run));
    assert_eq!(cell(&release.run, "greeter", "results.json")["release"], digest(&kept.run));
    // What the kept run had installed was gone: all of it had to be made again.
    assert_eq!(
        cell(&release.run, "greeter", "install.json")["changed"],
        cell(&kept.run, "greeter", "install.json")["changed"]
    );
}

/// Runs a nightly, and takes the API server away when its tests have begun.
fn with_dead_apiserver(world: &World, mut command: Command) -> (i32, String) {
    use std::io::{BufRead, BufReader};
    let mut child = Killed(command.spawn().unwrap());
    let lines = BufReader::new(child.0.stderr.take().unwrap()).lines();
    let (mut said, mut killed, began) = (String::new(), false, Instant::now());
    for line in lines.map_while(Result::ok) {
        // The first progress: the others wait for the one that hangs.
        if !killed && line.contains("test greeter") && line.contains("running Test") {
            let kill = world.tool("lab", &["kill", "kube-apiserver", "--hold", "--name", &world.lab]);
            assert!(kill.status.success(), "{}", String::from_utf8_lossy(&kill.stderr));
            killed = true;
        }
        said += &format!("{line}\n");
        assert!(began.elapsed() < Duration::from_secs(600), "{said}");
    }
    assert!(killed, "the tests never began:\n{said}");
    (child.0.wait().unwrap().code().unwrap_or(-1), said)
}

#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn an_interrupted_run_can_be_read_and_its_lab_goes() {
    let world = World::new("interrupt");
    let before = leftovers(&world);
    for stage in ["registry", "lab", "install greeter", "test greeter", "matrix"] {
        let run = format!("at-{}", stage.replace(' ', "-"));
        let mut command = world.command(&run, &["--component", "greeter", "--platform", "linux/amd64"]);
        let mut child = Killed(command.spawn().unwrap());
        let mut said = String::new();
        {
            use std::io::{BufRead, BufReader};
            for line in BufReader::new(child.0.stderr.take().unwrap()).lines().map_while(Result::ok) {
                let begins =
                    line.split_once(' ').is_some_and(|(_, line)| line.starts_with(stage) && line.ends_with(" ..."));
                said += &format!("{line}\n");
                if begins {
                    let pid = i32::try_from(child.0.id()).unwrap();
                    assert!(Command::new("kill").args(["-INT", &pid.to_string()]).status().unwrap().success());
                }
            }
        }
        assert_eq!(child.0.wait().unwrap().code(), Some(130), "{stage}:\n{said}");
        let stages = read_json(&world.folder.path().join(&run).join("stages.json"));
        if stage == "matrix" {
            // The run itself had come to its end by then.
            assert_eq!(stages["outcome"], "passed", "{stages}");
            assert_eq!(world.left(), "", "its lab is still up:\n{said}");
        } else {
            assert_eq!(stages["cause"], "interrupted", "{stage}: {stages}");
        }
        let down = world.tool("lab", &["down", "--name", &world.lab]);
        assert!(down.status.success(), "{}", String::from_utf8_lossy(&down.stderr));
        assert_nothing_left(&world, &before, &format!("after Ctrl-C at {stage}"));
    }
}

#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn without_ko_and_without_a_way_to_get_it_there_is_exit_code_5() {
    let world = World::new("no-ko");
    let mut command = world.command("run", &["--component", "greeter", "--platform", "linux/amd64"]);
    command.env("OTHER_ARCH_KO", "/no/such/ko");
    let ran = world.finish("run", command.output().unwrap());
    assert_eq!(ran.code, 5);
    assert!(ran.stderr.contains("/no/such/ko"));
}
