//! What a lab must not harm: a lab that lives, other labs, the machine; and what an `up` that fails leaves.
//!
//! They need root and the built programs; none waits for a whole cluster.

use std::{fs, path::Path, process::Command, time::Duration};

use kit::Process;
use rustix::process::Signal;
use support::{Lab, kill, machine, signal};

mod support;

const REGISTRY: [&str; 3] = ["up", "--until", "registry"];

fn ip(arguments: &[&str]) -> Process<'static> {
    let mut command = Command::new("ip");
    command.args(arguments);
    Process::new("ip", command)
}

#[test]
#[ignore = "brings a lab up: `cargo xtask test` runs it"]
fn a_lab_that_lives_is_never_removed_by_up() {
    let lab = Lab::new('g');
    assert_eq!(lab.up(&["--until", "registry"])["fresh"], true);
    let (first, record) = (lab.supervisor(), lab.folder().join("lab.json"));
    let good = fs::read_to_string(&record).unwrap();

    fs::write(&record, good.replace(r#""schemaVersion": "1.0""#, r#""schemaVersion": "9.0""#)).unwrap();
    let newer = lab.fails(&REGISTRY);
    assert_eq!(newer.code(), 2, "{newer:?}");
    assert!(newer.last.concat().contains("lab down"), "{newer:?}");
    fs::write(&record, &good).unwrap();

    signal(first, Signal::STOP);
    let silent = lab.fails(&REGISTRY);
    signal(first, Signal::CONT);
    assert_eq!(silent.code(), 3, "{silent:?}");
    assert!(silent.last.concat().contains("cluster-unreachable"), "{silent:?}");

    assert_eq!(lab.up(&["--until", "registry"])["fresh"], false);
    assert_eq!(lab.supervisor(), first);

    // One over which an `up` was killed before it was anything is no lab yet.
    fs::write(&record, good.replace(r#""phase": "registry""#, r#""phase": "starting""#)).unwrap();
    assert_eq!(lab.up(&["--until", "registry"])["fresh"], true);
    assert_ne!(lab.supervisor(), first);
}

#[test]
#[ignore = "brings a lab up: `cargo xtask test` runs it"]
fn a_new_lab_that_does_not_get_there_is_removed_unless_it_is_to_be_kept() {
    let (lab, before) = (Lab::new('h'), machine());
    let short = Duration::from_millis(1200);
    let ended = lab.command(&["up"]).limit(short).finish().unwrap();
    assert!(ended.timed_out, "{ended:?}");
    assert_eq!(ended.code(), 128 + 15, "{ended:?}");
    lab.expect_nothing_left(&before);
    assert!(lab.folder().join("log").is_dir());

    assert!(lab.command(&["up", "--keep"]).limit(short).finish().unwrap().timed_out);
    assert!(!lab.leftovers().is_empty());
    // What was begun is gone on with.
    assert_eq!(lab.up(&["--until", "registry"])["fresh"], false);
    lab.run(&["down", "--purge"]);
    lab.expect_nothing_left(&before);
}

#[test]
#[ignore = "brings labs up: `cargo xtask test` runs it"]
fn labs_of_one_name_in_two_caches_are_two() {
    let caches = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let name = format!("t{}i", std::process::id());
    let [one, two] = [0, 1].map(|number| Lab::in_cache(&name, caches[number].path()));
    one.run(&REGISTRY);
    two.run(&REGISTRY);
    let interfaces = |lab: &Lab| lab.leftovers().iter().filter(|line| line.starts_with("interface")).count();
    assert_eq!((interfaces(&one), interfaces(&two)), (1, 1));
    one.run(&["down"]);
    assert_eq!((interfaces(&one), interfaces(&two)), (0, 1));
    assert_eq!(two.status()["phase"], "registry");
}

#[test]
#[ignore = "brings a lab up: `cargo xtask test` runs it"]
fn an_interface_of_somebody_else_stays_whatever_it_is_called() {
    let lab = Lab::new('j');
    lab.run(&REGISTRY);
    let interface = lab.status()["interface"].as_str().unwrap().to_owned();
    kill(lab.supervisor());
    let path = Path::new("/sys/class/net").join(&interface);
    let late = || kit::Error::new(kit::Cause::Internal, "it stays");
    kit::retry::until(Duration::from_secs(20), late, || Ok((!path.exists()).then_some(()))).unwrap();
    ip(&["link", "add", &interface, "type", "bridge"]).run().unwrap();
    lab.run(&["down"]);
    let stays = path.exists();
    ip(&["link", "del", &interface]).run().unwrap();
    assert!(stays);
}

#[test]
#[ignore = "brings a lab up: `cargo xtask test` runs it"]
fn a_lab_holds_nothing_that_its_caller_has_open() {
    let lab = Lab::new('k');
    let folder = tempfile::tempdir().unwrap();
    let held = folder.path().join("held");
    // As under flock(1), and as a shell's own numbers above nine.
    let mut command = Command::new("bash");
    command.args(["-c", r#"exec 7>"$0" 12>"$0" && "$@""#]).arg(&held).arg(env!("CARGO_BIN_EXE_lab"));
    command.args(["--name", &lab.name]).args(REGISTRY);
    Process::new("lab of a caller that holds a file", command).limit(Duration::from_secs(900)).run().unwrap();
    assert_eq!(lab.status()["phase"], "registry");
    let holds = |process: &fs::DirEntry| {
        let open = fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        open.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|file| file == held)
    };
    let holders: Vec<_> = fs::read_dir("/proc").unwrap().flatten().filter(holds).collect();
    assert!(holders.is_empty(), "{holders:?}");
}

#[test]
#[ignore = "needs root: `cargo xtask test` runs it"]
fn the_supervisor_runs_nowhere_but_in_namespaces_of_its_own() {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    for kinds in [&["--pid", "--fork"][..], &["--pid", "--fork", "--mount", "--net", "--uts", "--ipc"]] {
        let mut command = Command::new("unshare");
        command.args(kinds).args([env!("CARGO_BIN_EXE_lab"), "--name", "none", "supervise", "/no/such/cache"]);
        assert_eq!(Process::new("supervisor", command).finish().unwrap().code(), 2);
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/hostname").unwrap(), name);
}

#[test]
#[ignore = "needs root: `cargo xtask test` runs it"]
fn a_full_disk_is_named_before_anything_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.env("OTHER_ARCH_CACHE", &path).args(arguments);
        Process::new(program, command).finish().unwrap()
    };
    assert!(run("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs", &path]).good());
    let full = run(env!("CARGO_BIN_EXE_lab"), &["up"]);
    assert!(run("umount", &[&path]).good());
    assert_eq!(full.code(), 3, "{full:?}");
    assert!(full.last.concat().contains("host-disk") && full.last.concat().contains(&path), "{full:?}");
}

#[test]
#[ignore = "brings a lab up: `cargo xtask test` runs it"]
fn a_lab_that_is_up_needs_no_more_room() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).arg(&path);
        Process::new(program, command).run().unwrap();
    };
    run("mount", &["-t", "tmpfs", "-o", "size=5g", "tmpfs"]);
    let lab = Lab::in_cache(&format!("t{}l", std::process::id()), folder.path());
    let first = lab.fails(&REGISTRY);
    run("mount", &["-o", "remount,size=1g"]);
    let (again, more) = (lab.fails(&REGISTRY), lab.fails(&["up"]));
    lab.run(&["down", "--purge"]);
    run("umount", &[]);
    assert!(first.good() && again.good(), "{first:?} {again:?}");
    assert!(more.code() == 3 && more.last.concat().contains("host-disk"), "{more:?}");
}
