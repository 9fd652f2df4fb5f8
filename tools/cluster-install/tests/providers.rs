//! Clusters that are real: a host, reached over a real sshd, whose side drives a lab; that lab as a lab; and borrowed.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

#[path = "support/night.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod night;
#[path = "support/sshd.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod sshd;

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use night::Night;
use serde_json::{Value, json};
use sshd::{Ended, World};

/// The host's side: the contract in terms of a lab. Standard output is the answer's alone.
const BY_LAB: &str = r#"
exec 3>&1 >&2
export OTHER_ARCH_CACHE='CACHE' PATH='SEARCH'
c='"contract":"other-arch-cluster","version":1'
lab() { 'LAB' --name 'NAME' "$@"; }
verb=$2; [ $# -gt 3 ] && run=$5 || run=
state() { if lab status; then echo ready; else echo absent; fi; }
case $verb in
  host) echo "{$c,\"machine\":\"$(uname -m)\",\"implementation\":\"lab\"}" >&3;;
  status) echo "{$c,\"state\":\"$(state 2>/dev/null | tail -n 1)\",\"run\":\"$(cat "$STATE/run")\"}" >&3;;
  create) [ -e "$STATE/run" ] || printf %s "$run" > "$STATE/run"
    if lab up; then echo "{$c,\"state\":\"ready\",\"run\":\"$(cat "$STATE/run")\"}" >&3
    else echo "{$c,\"error\":{\"cause\":\"node\",\"message\":\"the lab does not start\"}}" >&3; exit 1; fi;;
  delete) lab down --purge; rm -f "$STATE/run"; echo "{$c,\"state\":\"absent\",\"deleted\":true}" >&3;;
  kubeconfig) text=$(cat "$(lab kubeconfig)" | sed 's/\\/\\\\/g; s/"/\\"/g' | awk '{printf "%s\\n", $0}')
    printf '%s\n' "{$c,\"kubeconfig\":\"$text\"}" >&3;;
esac
"#;

/// A host whose side drives the lab of that name, and the program that takes it down.
fn host_of_a_lab(name: &str) -> (World, PathBuf) {
    let lab = Path::new(env!("CARGO_BIN_EXE_cluster-install")).with_file_name("lab");
    assert!(lab.is_file(), "{} is missing: cargo build --package lab", lab.display());
    let cache = kit::dirs::cache().unwrap();
    let script = BY_LAB.replace("'CACHE'", &format!("'{}'", cache.display())).replace("'NAME'", name);
    let script =
        script.replace("'LAB'", &format!("'{}'", lab.display())).replace("SEARCH", &std::env::var("PATH").unwrap());
    let world = World::new(&script);
    world.describe("limits = { create = '20m', answer = '1m' }");
    (world, lab)
}

/// What the guide tells the owner of a host to type.
#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn bring_your_machine_that_is_a_host() {
    let name = "install-by-guide";
    let (world, lab) = host_of_a_lab(name);
    let _down = Down(&lab, name);
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/bring-your-machine.md");
    let guide = std::fs::read_to_string(guide).unwrap();
    let mut seen = Vec::new();
    for line in guide.lines().filter_map(|line| line.strip_prefix("$ cargo xtask cluster-install cluster ")) {
        let (line, file) = line.split_once(" > ").map_or((line, None), |(line, file)| (line, Some(file)));
        let words: Vec<_> = ["cluster"].into_iter().chain(line.split(' ')).chain(["--ci", "ci"]).collect();
        let ended = Ended::of(&mut world.command(&words));
        ended.says(0, &[]);
        if let Some(file) = file {
            // What it prints is a way in.
            world.write(file, &ended.stdout);
            let status = ["status", "--kubeconfig", file, "--output", "json"];
            let status = Ended::of(&mut world.command(&status)).says(0, &[]).json();
            assert!(status["cluster"]["uid"].is_string() || status["uid"].is_string(), "{status}");
        }
        seen.push(words[1].to_owned());
    }
    assert_eq!(seen, ["create", "status", "kubeconfig", "delete"]);
    Ended::of(&mut world.command(&["cluster", "status", "z-1", "--ci", "ci"])).says(3, &["error[cluster-unreachable]"]);
}

#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn a_host_whose_side_drives_the_lab() {
    let name = "install-by-ssh";
    let (world, lab) = host_of_a_lab(name);
    let cache = kit::dirs::cache().unwrap();
    let own = world.at("own");
    let _down = Down(&lab, name);
    let ours = |args: &[&str]| Ended::of(world.command(args).env("OTHER_ARCH_CACHE", &own));
    let cluster = |verb: &str, more: &[&str]| ours(&[&["cluster", verb, "z-1", "--ci", "ci"], more].concat());

    let began = Instant::now();
    let state = cluster("create", &["--run", "r1", "--output", "json"]).says(0, &[]).json();
    eprintln!("made in {:.1} s", began.elapsed().as_secs_f64());
    assert_eq!((&state["created"], &state["cluster"]["name"]), (&json!(true), &json!("z-1")));
    let uid = state["cluster"]["uid"].clone();
    assert!(uid.as_str().is_some_and(|uid| uid.len() == 36), "{state}");
    cluster("status", &[]).says(0, &["is there", "made by run r1", uid.as_str().unwrap()]);

    // Another tool's verb, with the options that were printed, on the real cluster.
    let options = cluster("kubeconfig", &["--options"]).says(0, &[]).stdout.clone();
    let words: Vec<_> = ["lease", "take", "--run", "r1"].into_iter().chain(options.split_whitespace()).collect();
    ours(&words).says(0, &["run r1 holds the cluster"]);

    // The same cluster as a lab, and as somebody's kubeconfig.
    let file = cache.join("labs").join(name).join("lab.json");
    let record: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    let theirs = std::fs::read_to_string(record["kubeconfig"].as_str().unwrap()).unwrap();
    world.write("theirs", &theirs);
    let context = serde_json::from_str::<Value>(&theirs).unwrap()["current-context"].clone();
    let text = format!(
        "[[cluster]]\nname = 'lab-{name}'\nowner = 'me'\nlab = {{}}\n\
         [[cluster]]\nname = 'theirs'\nowner = 'me'\nkubeconfig = {{ path = 'theirs', context = {context} }}\n"
    );
    std::fs::create_dir(world.at("two")).unwrap();
    world.write("two/architectures.toml", &text);
    for cluster in [format!("lab-{name}"), "theirs".into()] {
        let mut command = world.command(&["cluster", "create", &cluster, "--ci", "two", "--output", "json"]);
        command.env("OTHER_ARCH_CACHE", &cache);
        let state = Ended::of(&mut command).says(0, &[]).json();
        assert_eq!((&state["created"], &state["cluster"]["uid"]), (&json!(false), &uid), "{cluster}");
        assert_eq!(state["cluster"]["name"], json!(cluster));
        let mut command =
            world.command(&["cluster", "delete", &cluster, "--ci", "two", "--run", "r9", "--output", "json"]);
        let state = Ended::of(command.env("OTHER_ARCH_CACHE", &cache)).says(0, &[]).json();
        assert_eq!(state["deleted"], false, "it is not that run's");
    }
    cluster("status", &[]).says(0, &[]);

    let state = cluster("delete", &["--run", "r1", "--output", "json"]).says(0, &[]).json();
    assert_eq!(state["deleted"], true);
    cluster("status", &[]).says(3, &["error[cluster-unreachable]", "is there"]);
    assert!(!own.join("clusters/z-1").exists());
}

/// What a run of `ci/tekton` does whose Secret holds a key: each step with the arguments of its Task.
#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn the_tasks_of_a_run_on_a_host_whose_side_drives_the_lab() {
    let name = "install-by-tasks";
    let (world, lab) = host_of_a_lab(name);
    let _down = Down(&lab, name);
    let key = world.read("key");
    let night = Night::new(&world, "r1", &[("ssh-privatekey", &key)]);
    night.step("target", "target").says(0, &["z-1 is there for this run"]);
    night.step("lease", "lease").says(0, &["run r1 holds the cluster"]);
    let kubeconfig = night.at("given/target/kubeconfig").display().to_string();
    let status = ["status", "--kubeconfig", &kubeconfig];
    Ended::of(&mut world.command(&status)).says(0, &["z-1 at", "run r1 holds the cluster"]);

    // It is ours as long as we hold it.
    let other = Night::new(&world, "r2", &[("ssh-privatekey", &key)]);
    let short = |word: String| word.replace("--wait-for-lease=2h", "--wait-for-lease=1s");
    Ended::of(&mut other.command("target", "target", short)).says(3, &["error[lease-held]", "run r1 holds"]);

    night.step("finish", "target").says(0, &[]);
    assert!(!night.at("given/target").exists());
    Ended::of(&mut world.command(&["cluster", "status", "z-1", "--ci", "ci"])).says(3, &["error[cluster-unreachable]"]);
}

/// Takes the lab down, also after a panic.
struct Down<'a>(&'a Path, &'a str);

impl Drop for Down<'_> {
    fn drop(&mut self) {
        let _ = Command::new(self.0).args(["--name", self.1, "down", "--purge"]).output();
    }
}
