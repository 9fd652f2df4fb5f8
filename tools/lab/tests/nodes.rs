//! Nodes of other architectures, really booted. `cargo xtask test --nodes` runs these: each boots virtual machines
//! under emulation, and the first run compiles their programs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kit::{Arch, Error, Process};
use serde_json::Value;
use support::{Lab, kill, machine};

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

/// The lab's guest program as an image of the lab's registry, for one architecture.
fn push_guest(lab: &Lab, arch: &Arch) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("guest");
    let mut command = kit::source::go_command("the guest", &sources).unwrap();
    command.env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOARCH", arch.go);
    command.arg("build").arg("-o").arg(&program).arg(".");
    Process::new("build of the guest", command).run().unwrap();
    let name = format!("{}/guest-{}:1", lab.status()["registry"].as_str().unwrap(), arch.go);
    let archive = lab::image::archive(&name, &program, arch).unwrap();
    tar::Archive::new(&archive[..]).unpack(folder.path()).unwrap();
    oci::run(async {
        let layout = oci::Layout::open(folder.path())?;
        oci::copy(&oci::Client::new()?, &layout, &layout.find(None)?, &oci::parse(&name)?).await
    })
    .unwrap();
}

fn pods(registry: &str, arch: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: guest-{arch}}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Mi}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: guest-{arch}, labels: {{app: guest-{arch}}}}}
spec:
  nodeSelector: {{kubernetes.io/arch: {arch}}}
  terminationGracePeriodSeconds: 1
  containers:
  - name: guest
    image: {registry}/guest-{arch}:1
    args: [serve, ":8080"]
    readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}
    securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
    volumeMounts: [{{name: data, mountPath: /data}}]
  volumes: [{{name: data, persistentVolumeClaim: {{claimName: guest-{arch}}}}}]
---
apiVersion: v1
kind: Service
metadata: {{name: service-{arch}}}
spec: {{selector: {{app: guest-{arch}}}, ports: [{{port: 80, targetPort: 8080}}]}}
"#
    )
}

fn guest(lab: &Lab, arch: &str, verb: &str, what: &str) -> String {
    let pod = format!("guest-{arch}");
    let mut said = String::new();
    let run = lab.command(&["kubectl", "exec", &pod, "--", "/guest", verb, what]);
    run.on_line(|_, line| said.push_str(line)).finish().unwrap();
    said
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

fn is_a_worker(arch: &str, letter: char) {
    let (lab, before) = (Lab::new(letter), machine());
    let platform = format!("linux/{arch}");
    let foreign = Arch::find(arch).unwrap();
    let status = lab.up(&["--node", &platform]);
    assert_eq!(status["nodes"][1]["nature"], "emulated");
    assert_eq!(status["nodes"][1]["platform"], platform.as_str());
    let found = node(&lab, arch);
    assert_eq!(found["metadata"]["labels"]["other-arch.dev/nature"], "emulated");
    assert!(found["status"]["nodeInfo"]["osImage"].as_str().unwrap().contains("Debian"), "{found}");
    // Again: it is there already.
    assert_eq!(lab.up(&["--node", &platform])["nodes"].as_array().unwrap().len(), 2);

    let registry = lab.status()["registry"].as_str().unwrap().to_owned();
    let folder = tempfile::tempdir().unwrap();
    for arch in [Arch::host(), foreign] {
        push_guest(&lab, arch);
        let file: PathBuf = folder.path().join(arch.go);
        fs::write(&file, pods(&registry, arch.go)).unwrap();
        lab.run(&["kubectl", "apply", "--filename", &file.display().to_string()]);
    }
    let host = Arch::host().go;
    let both = [format!("pod/guest-{host}"), format!("pod/guest-{arch}")];
    lab.run(&["kubectl", "wait", "--for=condition=Ready", "--timeout=120s", &both[0], &both[1]]);
    for (from, to) in [(host, arch), (arch, host), (arch, arch)] {
        let way = format!("service-{to}:80");
        let mut said = String::new();
        let late = || Error::new(kit::Cause::Node, format!("no way from {from} to {to}"));
        let connected = kit::retry::until(Duration::from_secs(60), late, || {
            said = guest(&lab, from, "connect", &way);
            Ok(said.starts_with("connected").then_some(()))
        });
        assert!(connected.is_ok(), "from {from} to {to}: {said}");
    }
    assert!(guest(&lab, arch, "connect", &registry).starts_with("connected"));
    assert!(guest(&lab, arch, "resolve", "kubernetes.default").starts_with("10.96.0.1 "));
    assert!(guest(&lab, arch, "write", "/data/file").starts_with("written"));
    assert!(lab.run(&["logs", &format!("{}-{arch}", lab.name)]).contains("node: "));

    // The whole machine is taken away: Kubernetes sees it, and it comes back with what it had.
    let name = format!("{}-{arch}", lab.name);
    lab.run(&["kill", &name, "--hold"]);
    until(120, "nobody sees that the node has gone", || !ready(&lab, &name));
    assert_eq!(lab.fails(&["status"]).code(), 3);
    lab.run(&["start", &name]);
    until(180, "the node does not come back", || ready(&lab, &name));
    lab.run(&["kill", &name]);
    lab.run(&["up", "--node", &platform]);
    // And its pod.
    let way = format!("service-{arch}:80");
    until(120, "no pod comes back", || guest(&lab, host, "connect", &way).starts_with("connected"));

    kill(lab.supervisor());
    lab.run(&["down", "--purge"]);
    lab.expect_nothing_left(&before);
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
    lab.run(&["down", "--purge"]);
    lab.expect_nothing_left(&before);
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
    fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1 << 20).unwrap();
    let lab = Lab::open(&name, cache.path());
    let up = lab.command(&["up", "--node", "linux/s390x"]);
    let mut said = String::new();
    assert!(up.on_line(|_, line| said.push_str(line)).finish().unwrap().good(), "{said}");
    assert!(said.contains("is damaged") && said.contains("made anew"), "{said}");
    assert_eq!(kit::digest::sha256_file(&file).unwrap(), good);
    assert!(ready(&lab, &format!("{name}-s390x")));
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
}
