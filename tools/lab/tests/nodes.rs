//! Nodes of other architectures, really booted. `cargo xtask test --nodes` runs these: each boots virtual machines
//! under emulation, and the first run compiles their programs.

use std::{
    fs,
    process::Command,
    time::{Duration, Instant},
};

use guests::{PUBLIC, apply, guest, pod_of_node, pods, push_guest, reaches, registry, said_in};
use kit::{Arch, Error, Process};
use serde_json::Value;
use support::{Lab, kill, machine};

#[path = "support/guests.rs"]
mod guests;
mod support;

/// A cache of its own, with everything in it that is built already; `own` is a copy.
fn cache(own: &str) -> tempfile::TempDir {
    let shared = kit::dirs::cache().unwrap();
    let cache = tempfile::Builder::new().prefix("other-arch-").tempdir_in(shared).unwrap();
    let (from, to) = (kit::dirs::cache().unwrap().join("bin"), cache.path().join("bin"));
    fs::create_dir(&to).unwrap();
    for part in fs::read_dir(&from).unwrap().map(|entry| entry.unwrap().file_name()) {
        if part == own {
            let mut copy = Command::new("cp");
            copy.arg("-a").arg(from.join(&part)).arg(&to);
            Process::new("copy of a part", copy).run().unwrap();
        } else {
            // By hard links: the lab sees the cache at another place, where links to outside lead nowhere.
            let mut link = Command::new("cp");
            link.arg("-al").arg(from.join(&part)).arg(&to);
            Process::new("links to a part", link).run().unwrap();
        }
    }
    for folder in ["debs", "apt"] {
        std::os::unix::fs::symlink(kit::dirs::cache().unwrap().join(folder), cache.path().join(folder)).unwrap();
    }
    cache
}

fn ready(lab: &Lab, node: &str) -> bool {
    lab.fails(&["kubectl", "wait", "--timeout=5s", "--for=condition=Ready", &format!("node/{node}")]).good()
}

fn until(limit: u64, what: &str, good: impl Fn() -> bool) {
    let late = || Error::new(kit::Cause::Node, what.to_owned());
    kit::retry::until(Duration::from_secs(limit), late, || Ok(good().then_some(()))).unwrap();
}

/// The node of an architecture as Kubernetes has it.
fn node(lab: &Lab, arch: &str) -> Value {
    let said = lab.run(&["kubectl", "get", "nodes", "-l", &format!("kubernetes.io/arch={arch}"), "-o", "json"]);
    serde_json::from_str::<Value>(&said).unwrap()["items"][0].clone()
}

/// What `up` says of a lab whose nodes come up in the time that they may take, once their programs are built.
fn up_in_time(lab: &Lab, arguments: &[&str], limit: u64) -> Value {
    let (mut said, mut began, called) = (String::new(), None, Instant::now());
    let up = lab.command(&[&["up", "--output", "json"], arguments].concat()).on_line(|stream, line| {
        if stream == kit::Stream::Out {
            said += &format!("{line}\n");
        } else if line.contains("Kubernetes of lab") {
            began.get_or_insert_with(Instant::now);
        }
    });
    let ended = up.finish().unwrap();
    assert!(ended.good(), "{ended:?}");
    let (took, all) = (began.unwrap().elapsed(), called.elapsed());
    eprintln!("up {}: ready in {:.1} s, {:.1} s in all", arguments.join(" "), took.as_secs_f64(), all.as_secs_f64());
    assert!(took < Duration::from_secs(limit), "{took:?}");
    serde_json::from_str(&said).unwrap()
}

fn is_a_worker(arch: &str, letter: char) {
    let (lab, before) = (Lab::new(letter), machine());
    let platform = format!("linux/{arch}");
    let foreign = Arch::find(arch).unwrap();
    let status = up_in_time(&lab, &["--node", &platform], 120);
    assert_eq!(status["nodes"][1]["nature"], "emulated");
    assert_eq!(status["nodes"][1]["platform"], platform.as_str());
    let found = node(&lab, arch);
    assert_eq!(found["metadata"]["labels"]["other-arch.dev/nature"], "emulated");
    assert!(found["status"]["nodeInfo"]["osImage"].as_str().unwrap().contains("Debian"), "{found}");
    // Again: it is there already.
    assert_eq!(lab.up(&["--node", &platform])["nodes"].as_array().unwrap().len(), 2);

    let (registry, host) = (registry(&lab), Arch::host().go);
    push_guest(&lab, Arch::host(), &[&format!("guest-{host}:1")]);
    push_guest(&lab, foreign, &[&format!("guest-{arch}:1"), &format!("mirror/{PUBLIC}")]);
    for objects in [pods(&registry, host), pods(&registry, arch), pod_of_node(arch)] {
        apply(&lab, &objects);
    }
    let all = [format!("pod/guest-{host}"), format!("pod/guest-{arch}"), format!("pod/node-{arch}")];
    lab.run(&["kubectl", "wait", "--for=condition=Ready", "--timeout=120s", &all[0], &all[1], &all[2]]);
    for (from, to) in [(host, arch), (arch, host), (arch, arch)] {
        reaches(&lab, from, to);
    }
    assert!(guest(&lab, arch, "connect", &registry).starts_with("connected"));
    assert!(guest(&lab, arch, "resolve", "kubernetes.default").starts_with("10.96.0.1 "));
    assert!(guest(&lab, arch, "write", "/data/file").starts_with("written"));
    let logs = lab.run(&["logs", &format!("{}-{arch}", lab.name)]);
    // Its own start, and the kubelet on it.
    assert!(logs.contains("node: ") && logs.contains("\"Kubelet version\""), "{logs}");
    knows_time_name_and_lab(&lab, arch);
    dies_and_comes_back(&lab, arch);

    kill(lab.supervisor());
    lab.run(&["down", "--purge"]);
    lab.expect_nothing_left(&before);
}

/// The guest's clock, name, resolver and authority are the lab's, and it gets public images from the lab.
fn knows_time_name_and_lab(lab: &Lab, arch: &str) {
    let node = format!("node-{arch}");
    let ask = |verb: &str, what: &str| said_in(lab, &node, verb, what);
    let now = || jiff::Timestamp::now().as_millisecond();
    let before = now();
    let clock = ask("clock", "now");
    let (after, there) = (now(), clock.split(' ').next().and_then(|ms| ms.parse::<i64>().ok()).unwrap());
    eprintln!("{arch}: the clock says {} ms after we asked and {} ms before we heard", there - before, after - there);
    assert!((before - 2000..=after + 2000).contains(&there), "{before} {clock} {after}");

    assert!(ask("hostname", "own").starts_with(&format!("{}-{arch} after", lab.name)), "{}", ask("hostname", "own"));
    assert!(ask("resolve", "kubernetes.default.svc.cluster.local").starts_with("10.96.0.1 "));
    for said in [ask("resolve", "no-such-name.example"), guest(lab, arch, "resolve", "no-such-name.example")] {
        assert!(said.contains("no such host"), "{said}");
    }
    let api_server = lab.status()["apiServer"].as_str().unwrap().trim_start_matches("https://").to_owned();
    let trusted = ask("trust", &format!("/pki/ca.crt={api_server}"));
    assert!(trusted.starts_with("trusted"), "{trusted}");
    let own = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt=kubernetes.default:443";
    assert!(guest(lab, arch, "trust", own).starts_with("trusted"), "{}", guest(lab, arch, "trust", own));
    let pulls = format!("--field-selector=involvedObject.name={node},reason=Pulled");
    let pulled = lab.run(&["kubectl", "get", "events", &pulls, "-o", "jsonpath={.items[*].message}"]);
    assert!(pulled.contains(&format!("Successfully pulled image \"{PUBLIC}\"")), "{pulled}");
}

/// The whole machine is taken away: Kubernetes sees it, and it comes back with what it had.
fn dies_and_comes_back(lab: &Lab, arch: &str) {
    let (platform, host) = (format!("linux/{arch}"), Arch::host().go);
    let name = format!("{}-{arch}", lab.name);
    lab.run(&["kill", &name, "--hold"]);
    until(120, "nobody sees that the node has gone", || !ready(lab, &name));
    assert_eq!(lab.fails(&["status"]).code(), 3);
    lab.run(&["start", &name]);
    until(180, "the node does not come back", || ready(lab, &name));
    // Where it is killed and comes back by itself Kubernetes sees nothing; we do.
    until(60, "the node is not what it says", || lab.fails(&["status"]).good());
    let boot = || node(lab, arch)["status"]["nodeInfo"]["bootID"].clone();
    let first = boot();
    lab.run(&["kill", &name]);
    assert_eq!(lab.fails(&["status"]).code(), 3);
    lab.run(&["up", "--node", &platform]);
    assert_ne!(boot(), first);
    lab.run(&["status"]);
    // And its pod.
    let way = format!("service-{arch}:80");
    until(120, "no pod comes back", || guest(lab, host, "connect", &way).starts_with("connected"));
}

#[test]
#[ignore = "boots nodes: `cargo xtask test --nodes` runs it"]
fn nodes_of_s390x_are_workers() {
    is_a_worker("s390x", 'a');
}

#[test]
#[ignore = "boots nodes: `cargo xtask test --nodes` runs it"]
fn nodes_of_arm64_are_workers() {
    is_a_worker("arm64", 'b');
}

#[test]
#[ignore = "boots nodes: `cargo xtask test --nodes` runs it"]
fn nodes_of_ppc64le_are_workers() {
    is_a_worker("ppc64le", 'c');
}

#[test]
#[ignore = "boots nodes: `cargo xtask test --nodes` runs it"]
fn nodes_join_a_lab_that_is_up_already_several_and_mixed() {
    let (lab, before) = (Lab::new('d'), machine());
    assert_eq!(lab.up(&[])["nodes"].as_array().unwrap().len(), 1);
    let asked = ["--node", "linux/s390x", "--node", "linux/arm64", "--node", "linux/s390x", "--node-memory", "2048"];
    assert_eq!(lab.up(&asked)["nodes"].as_array().unwrap().len(), 4);
    let said = lab.run(&["kubectl", "get", "nodes", "-o", "jsonpath={.items[*].status.nodeInfo.architecture}"]);
    let mut found: Vec<_> = said.split_whitespace().collect();
    found.sort_unstable();
    let mut wanted = ["arm64", "s390x", "s390x", Arch::host().go];
    wanted.sort_unstable();
    assert_eq!(found, wanted);

    // Also from one emulated node to another.
    let registry = registry(&lab);
    for arch in ["s390x", "arm64"] {
        push_guest(&lab, Arch::find(arch).unwrap(), &[&format!("guest-{arch}:1")]);
        apply(&lab, &pods(&registry, arch));
    }
    lab.run(&["kubectl", "wait", "--for=condition=Ready", "--timeout=300s", "pod/guest-s390x", "pod/guest-arm64"]);
    reaches(&lab, "s390x", "arm64");
    reaches(&lab, "arm64", "s390x");
    lab.run(&["down", "--purge"]);
    lab.expect_nothing_left(&before);
}

#[test]
#[ignore = "boots nodes: `cargo xtask test --nodes` runs it"]
fn nodes_get_ready_though_up_was_killed() {
    let (lab, before) = (Lab::new('j'), machine());
    let up = ["up", "--node", "linux/s390x", "--node-memory", "2048"];
    // Before there is anything, before the machine is there, and while it boots.
    for wait in [300, 2500, 6000] {
        let killed = lab.command(&up).limit(Duration::from_millis(wait)).grace(Duration::ZERO).finish().unwrap();
        assert!(killed.timed_out, "{killed:?}");
    }
    lab.run(&up);
    assert!(ready(&lab, &format!("{}-s390x", lab.name)));
    lab.run(&["status"]);
    // And in the middle again, of which nothing may be left.
    lab.run(&["down"]);
    let killed = lab.command(&up).limit(Duration::from_secs(6)).grace(Duration::ZERO).finish().unwrap();
    assert!(killed.timed_out && lab.leftovers().len() > 5, "{killed:?}");
    lab.run(&["down", "--purge"]);
    lab.expect_nothing_left(&before);
}

#[test]
#[ignore = "boots nodes: `cargo xtask test --nodes` runs it"]
fn nodes_of_two_labs_are_side_by_side() {
    let (one, two) = (Lab::new('h'), Lab::new('i'));
    std::thread::scope(|scope| {
        for lab in [&one, &two] {
            scope.spawn(|| lab.run(&["up", "--node", "linux/s390x", "--node-memory", "2048"]));
        }
    });
    let names = |lab: &Lab| {
        let said = lab.run(&["kubectl", "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"]);
        said.split_whitespace().map(String::from).collect::<Vec<_>>()
    };
    for lab in [&one, &two] {
        assert_eq!(names(lab), [format!("{}-{}", lab.name, Arch::host().go), format!("{}-s390x", lab.name)]);
        lab.run(&["status"]);
    }
    let address = |lab: &Lab| lab.status()["nodes"][1]["machine"]["address"].clone();
    assert_ne!(address(&one), address(&two));
    // What becomes of one is nothing to the other.
    one.run(&["down", "--purge"]);
    assert_eq!(one.leftovers(), Vec::<String>::new());
    two.run(&["status"]);
}

#[test]
#[ignore = "boots nodes: `cargo xtask test --nodes` runs it"]
fn nodes_get_a_damaged_disk_made_anew_with_the_same_bytes() {
    let name = format!("t{}e", std::process::id());
    let machine = "node-s390x";
    // The shared one is made if nobody has needed it yet.
    let first = Lab::new('f');
    let disk = first.up(&["--node", "linux/s390x"])["nodes"][1]["machine"]["disk"].as_str().unwrap().to_owned();
    first.run(&["down", "--purge"]);
    let cache = cache(machine);
    let file = cache.path().join("bin").join(&disk).join("disk");
    let good = kit::digest::sha256_file(&file).unwrap();
    let manifest = || fs::read_to_string(cache.path().join("bin").join(&disk).join("manifest.json")).unwrap();
    let made_of = manifest();
    let damage = || fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1 << 20).unwrap();
    let lab = Lab::open(&name, cache.path());
    let mends = |arguments: &[&str]| {
        let (mut said, mut began, mut made) = (String::new(), Instant::now(), Duration::MAX);
        let mends = lab.command(arguments).on_line(|_, line| {
            said.push_str(line);
            if line.contains("disk of linux/s390x nodes") {
                made = began.elapsed();
                began = Instant::now();
            }
        });
        assert!(mends.finish().unwrap().good(), "{said}");
        assert!(said.contains("is damaged") && said.contains("made anew"), "{said}");
        // Its packages are there: between the line that it begins and the line that it is done.
        eprintln!("disk made in {:.1} s", made.as_secs_f64());
        assert!(made < Duration::from_secs(90), "{said}");
        assert_eq!(kit::digest::sha256_file(&file).unwrap(), good);
        assert_eq!(manifest(), made_of, "packages, programs or another file are not the same");
    };
    let node = format!("{name}-s390x");
    damage();
    mends(&["up", "--node", "linux/s390x"]);
    assert!(ready(&lab, &node));
    // Also where the node is recorded and its machine starts again: by itself, or because it is told to.
    lab.run(&["kill", &node]);
    damage();
    mends(&["up"]);
    lab.run(&["status"]);
    lab.run(&["kill", &node, "--hold"]);
    damage();
    mends(&["start", &node]);
}

#[test]
#[ignore = "boots nodes: `cargo xtask test --nodes` runs it"]
fn nodes_that_cannot_be_are_refused_before_anything_is_done() {
    let (lab, before) = (Lab::new('g'), machine());
    for (arguments, code, word) in [
        (&["--node", "linux/riscv64"][..], 2, "linux/riscv64"),
        (&["--node", "linux/s390x", "--node-memory", "262144"], 3, "are asked for"),
        (&["--node", "linux/s390x", "--node-cpus", "99"], 2, "99"),
    ] {
        let finished = lab.fails(&[&["up"], arguments].concat());
        assert_eq!(finished.code(), code, "{finished:?}");
        assert!(finished.last.concat().contains(word), "{finished:?}");
        lab.expect_nothing_left(&before);
    }
    // Room for a lab, and not for its nodes.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display().to_string();
    let run = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments);
        Process::new(program, command).run().unwrap();
    };
    run("mount", &["-t", "tmpfs", "-o", "size=5g", "tmpfs", &path]);
    let small = Lab::open(&lab.name, folder.path());
    let full = small.fails(&["up", "--node", "linux/s390x", "--until", "registry"]);
    run("umount", &[&path]);
    assert_eq!(full.code(), 3, "{full:?}");
    assert!(full.last.concat().contains("host-disk") && full.last.concat().contains("needs 6144"), "{full:?}");
}
