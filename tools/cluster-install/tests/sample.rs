//! The sample of a host's side, `ci/hosts/other-arch-cluster`: by shellcheck, against a stand-in kubeadm, and over a real
//! sshd with our own side of the contract. Nothing of this machine is changed: its programs are not on the PATH.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

#[path = "support/api.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod api;
#[path = "support/sshd.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod sshd;

use std::{
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use api::Api;
use serde_json::{Value, json};
use sshd::{Ended, World, script};

/// Programs of the machine that the sample may really use.
const REAL: &str = "bash basename cat chmod date flock grep head mkdir mv rm sed sh sleep tail tee tr true";
/// Those that would change it.
const STAND_INS: &str = "apt-get apt-mark chcon curl dnf firewall-cmd gpg ip ip6tables-restore ip6tables-save \
                         iptables-restore iptables-save kubeadm kubectl modprobe swapoff sysctl systemctl uname";

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ci/hosts/other-arch-cluster")
}

/// A host that is a folder.
struct Host {
    folder: tempfile::TempDir,
}

impl Host {
    fn new(machine: &str, release: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["bin", "root/etc", "root/var/lib"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        std::fs::write(at("root/etc/os-release"), release).unwrap();
        std::fs::write(at("root/etc/fstab"), "/dev/a / ext4 defaults 0 1\n/dev/b none swap sw 0 0\n").unwrap();
        for name in REAL.split_whitespace() {
            let found =
                ["/usr/bin", "/bin"].iter().map(|folder| Path::new(folder).join(name)).find(|path| path.exists());
            symlink(found.unwrap_or_else(|| panic!("{name}")), at("bin").join(name)).unwrap();
        }
        let admin = at("root/etc/kubernetes/admin.conf");
        for name in STAND_INS.split_whitespace() {
            let own = match name {
                "uname" => format!("echo {machine}"),
                "kubeadm" => format!(
                    "case $1 in version) echo v1.34.9;;\n\
                     init) while read -r line; do echo \"$line\"; done < \"$3\" > '{conf}.given'\n\
                     if [ -e '{fail}' ]; then echo '[ERROR Swap]: running with swap on is not supported' >&2; exit 1; fi\n\
                     [ ! -e '{slow}' ] || sleep 3\n\
                     cat '{admin}.ready' > '{conf}';;\n\
                     reset) rm -f '{conf}';; esac",
                    conf = admin.display(),
                    admin = at("admin").display(),
                    fail = at("fail").display(),
                    slow = at("slow").display()
                ),
                "kubectl" => format!("[ -e '{}' ]", admin.display()),
                _ => String::new(),
            };
            let log = at("log");
            script(&at("bin").join(name), &format!("#!/bin/sh\necho \"{name} $*\" >> '{}'\n{own}\n", log.display()));
        }
        std::fs::create_dir_all(at("root/etc/kubernetes")).unwrap();
        std::fs::write(at("admin.ready"), "a: \"kube\\config\"\n\tb\n").unwrap();
        Self { folder }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command
            .arg(sample())
            .args(args)
            .env_clear()
            .env("PATH", self.at("bin"))
            .env("OTHER_ARCH_ROOT", self.at("root"));
        command
    }

    /// A call of the contract: its exit code and its answer.
    #[track_caller]
    fn call(&self, line: &str) -> (i32, Value) {
        let args: Vec<_> = line.split_whitespace().collect();
        let output = self.command(&args).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{line}: {error}: {text}\n{}", String::from_utf8_lossy(&output.stderr));
        });
        assert_eq!((&answer["contract"], &answer["version"]), (&json!("other-arch-cluster"), &json!(1)), "{line}");
        (output.status.code().unwrap(), answer)
    }
}

const UBUNTU: &str = "ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME=\"Ubuntu 24.04\"\n";
const RHEL: &str = "ID=\"rhel\"\nID_LIKE=\"fedora\"\nPRETTY_NAME=\"Red Hat Enterprise Linux 9.4\"\n";

#[test]
fn shellcheck_finds_nothing() {
    let (program, libraries) = sshd::program("shellcheck", "shellcheck", &[]);
    let mut command = Command::new(program);
    let ended =
        Ended::of(command.args(["--severity=style", "--shell=bash"]).arg(sample()).env("LD_LIBRARY_PATH", libraries));
    ended.says(0, &[]);
}

#[test]
fn its_head_says_that_it_has_not_run_on_hardware() {
    let text = std::fs::read_to_string(sample()).unwrap();
    assert!(text.lines().take(5).any(|line| line.contains("HAS NOT RUN ON HARDWARE")));
}

#[test]
fn a_cluster_comes_and_goes() {
    for (machine, release) in [("s390x", UBUNTU), ("ppc64le", RHEL), ("aarch64", UBUNTU), ("s390x", RHEL)] {
        let host = Host::new(machine, release);
        let (code, answer) = host.call("v1 host");
        assert_eq!((code, &answer["machine"], &answer["kubernetes"]), (0, &json!(machine), &json!("v1.34.9")));
        assert_eq!(host.call("v1 status z-1"), (0, with(&[("state", "absent")])));
        assert_eq!(host.call("v1 kubeconfig z-1").0, 3);

        std::fs::create_dir_all(host.at("root/etc/other-arch-cluster")).unwrap();
        let settings = "ADDRESS=10.0.0.7\nNAMES=z.example.org,z2.example.org\nVOLUMES=2\nPOD_CIDR=10.9.0.0/16";
        std::fs::write(host.at("root/etc/other-arch-cluster/config"), settings).unwrap();
        std::fs::write(host.at("root/etc/other-arch-cluster/registry.pem"), "pem\n").unwrap();
        let (code, answer) = host.call("v1 create z-1 --run r1");
        assert_eq!(
            (code, &answer["state"], &answer["run"]),
            (0, &json!("ready"), &json!("r1")),
            "{}",
            host.read("log")
        );
        let given = host.read("root/etc/kubernetes/admin.conf.given");
        for line in [
            "clusterName: z-1",
            "advertiseAddress: 10.0.0.7",
            "- z2.example.org",
            "podSubnet: 10.9.0.0/16",
            "taints: []",
        ] {
            assert!(given.contains(line), "'{line}' is not in\n{given}");
        }
        let network: Value = serde_json::from_str(&host.read("root/etc/cni/net.d/10-other-arch.conflist")).unwrap();
        assert_eq!(network["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.9.0.0/16");
        let log = host.read("log");
        for call in [
            "kubeadm init --config",
            "kubectl --kubeconfig",
            "wait --for=condition=Ready node --all",
            "deployment/coredns",
        ] {
            assert!(log.contains(call), "'{call}' is not in\n{log}");
        }
        let state = host.call("v1 status z-1").1;
        assert!(state["state"] == "ready" && state["since"].as_str().unwrap().ends_with('Z'), "{state}");

        // Once more it is there, whoever asks; and another one has no room.
        assert_eq!(host.call("v1 create z-1 --run r2").1["run"], "r1");
        let (code, answer) = host.call("v1 create z-2");
        assert!(code == 5 && answer["error"]["message"].as_str().unwrap().contains("z-1 is there"), "{answer}");
        assert_eq!(host.read("log").matches("kubeadm init").count(), 1);
        let answer = host.call("v1 kubeconfig z-1").1;
        assert_eq!(
            (&answer["kubeconfig"], &answer["registryCertificate"]),
            (&json!("a: \"kube\\config\"\n\tb"), &json!("pem"))
        );

        assert_eq!(host.call("v1 delete z-1 --run r2").1["deleted"], false);
        assert_eq!(host.call("v1 delete z-1 --run r1"), (0, deleted(true)));
        assert_eq!(host.call("v1 delete z-1"), (0, deleted(false)));
        assert!(
            !host.at("root/etc/kubernetes/admin.conf").exists()
                && !host.at("root/var/lib/other-arch-cluster/z-1").exists()
        );
        assert!(host.read("log").contains("kubeadm reset --force"));
    }
}

fn with(fields: &[(&str, &str)]) -> Value {
    let mut answer = json!({"contract": "other-arch-cluster", "version": 1});
    for (name, value) in fields {
        answer[name] = json!(value);
    }
    answer
}

fn deleted(is: bool) -> Value {
    json!({"contract": "other-arch-cluster", "version": 1, "state": "absent", "deleted": is})
}

#[test]
fn what_fails_is_broken_and_is_made_anew() {
    let host = Host::new("s390x", UBUNTU);
    std::fs::write(host.at("fail"), "").unwrap();
    let (code, answer) = host.call("v1 create z-1 --run r1");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(code == 1 && message.contains("[ERROR Swap]") && answer["error"]["cause"] == "node", "{answer}");
    let state = host.call("v1 status z-1").1;
    assert_eq!((&state["state"], &state["message"]), (&json!("broken"), &json!("making the control plane failed")));
    assert_eq!(host.call("v1 kubeconfig z-1").0, 3);
    std::fs::remove_file(host.at("fail")).unwrap();
    assert_eq!(host.call("v1 create z-1 --run r2").1["run"], "r2");
    assert!(host.read("log").contains("kubeadm reset"), "what was left goes first");
}

#[test]
fn one_works_at_a_time_and_a_second_call_waits_or_is_told() {
    let host = Host::new("s390x", UBUNTU);
    std::fs::write(host.at("slow"), "").unwrap();
    let mut first = host.command(&["v1", "create", "z-1", "--run", "r1"]);
    let mut first = first.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while !host.read("log").contains("kubeadm init") {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    assert_eq!(host.call("v1 status z-1").1["state"], "creating");
    let (code, answer) = host.call("v1 delete z-1");
    assert!(code == 5 && answer["error"]["message"].as_str().unwrap().contains("create z-1 for run r1"), "{answer}");
    assert_eq!(host.call("v1 create z-1 --run r1 --wait 30").1["run"], "r1");
    assert!(first.wait().unwrap().success());
    assert_eq!(host.read("log").matches("kubeadm init").count(), 1);

    // One that was killed left something half made.
    let (code, _) = host.call("v1 delete z-1");
    assert_eq!(code, 0);
    let mut killed = host.command(&["v1", "create", "z-1"]);
    let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while host.read("log").matches("kubeadm init").count() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    let (code, answer) = host.call("v1 delete z-1 --wait 30");
    assert_eq!((code, &answer["deleted"]), (0, &json!(true)));
}

#[test]
fn calls_that_are_not_understood() {
    let host = Host::new("s390x", UBUNTU);
    for line in [
        "",
        "v1",
        "v1 destroy z-1",
        "v1 create",
        "v1 create ../x",
        "v1 create -x",
        "v1 create .x",
        "v1 create z-1 --run",
        "v1 create z-1 --run a/b",
        "v1 create z-1 --wait soon",
        "v1 create z-1 --workers 3",
        "v1 status z-1 --run r1",
        "v1 host now",
        "status z-1",
    ] {
        assert_eq!(host.call(line).0, 2, "{line}");
    }
    let (code, answer) = host.call("v2 status z-1");
    assert_eq!((code, &answer["versions"]), (4, &json!([1])));
    // A forced command gets the words in a variable, and never runs them.
    for (words, wanted) in [
        ("other-arch-cluster v1 status z-1", 0),
        ("v1 host", 0),
        ("/usr/bin/x v1 host", 0),
        ("other-arch-cluster v1 status $(touch${IFS}x)", 2),
        ("other-arch-cluster v1 status z-1; reboot", 2),
        ("setup", 2),
        ("other-arch-cluster setup", 2),
        ("bash", 2),
        (" ", 2),
    ] {
        let output = host.command(&[]).env("SSH_ORIGINAL_COMMAND", words).output().unwrap();
        assert_eq!(output.status.code(), Some(wanted), "{words}: {}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn a_host_is_set_up_with_packages_of_its_distribution() {
    for (machine, release, calls, file) in [
        (
            "s390x",
            UBUNTU,
            &["apt-get install -y cri-o kubelet kubeadm kubectl", "apt-mark hold"][..],
            "etc/apt/sources.list.d/cri-o.list",
        ),
        (
            "ppc64le",
            RHEL,
            &["dnf install -y container-selinux", "firewall-cmd --permanent --add-port=6443/tcp"],
            "etc/yum.repos.d/cri-o.repo",
        ),
    ] {
        let host = Host::new(machine, release);
        Ended::of(&mut host.command(&["setup"])).says(0, &["ready; try"]);
        let log = host.read("log");
        for call in calls.iter().chain(&[
            "modprobe br_netfilter",
            "sysctl --system",
            "swapoff -a",
            "systemctl enable --now crio kubelet",
        ]) {
            assert!(log.contains(call), "'{call}' is not in\n{log}");
        }
        assert!(host.read(&format!("root/{file}")).contains("isv:/cri-o:/stable:/v1.34"));
        assert_eq!(host.read("root/etc/fstab"), "/dev/a / ext4 defaults 0 1\n#/dev/b none swap sw 0 0\n");
    }
    Ended::of(&mut Host::new("s390x", "ID=plan9\nPRETTY_NAME=Plan9\n").command(&["setup"]))
        .says(1, &["neither Ubuntu nor RHEL: Plan9"]);
    Ended::of(&mut Host::new("riscv64", UBUNTU).command(&["setup"])).says(1, &["no packages are known for riscv64"]);
}

#[test]
fn both_sides_of_the_contract_fit() {
    for (machine, platform, arch) in [("s390x", "linux/s390x", "s390x"), ("aarch64", "linux/arm64", "arm64")] {
        let host = Host::new(machine, UBUNTU);
        let wrapper = format!(
            "export OTHER_ARCH_ROOT='{}' PATH='{}'; exec bash '{}' \"$@\"",
            host.at("root").display(),
            host.at("bin").display(),
            sample().display()
        );
        let world = World::new(&wrapper);
        let api = Api::start(arch, |_, _| Ok(Vec::new()));
        let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "a@k",
            "contexts": [{"name": "a@k", "context": {"cluster": "k", "user": "a"}}],
            "clusters": [{"name": "k", "cluster": {"server": api.address}}],
            "users": [{"name": "a", "user": {"token": "hunter2"}}]});
        std::fs::write(host.at("admin.ready"), kubeconfig.to_string()).unwrap();
        world.describe("");
        let text = world.read("ci/architectures.toml");
        world.write("ci/architectures.toml", &text.replace(&kit::Platform::host().to_string(), platform));
        // The key may do nothing else.
        let key = world.public("key");
        let command = world.at("bin/other-arch-cluster");
        world.write("authorized_keys", &format!("restrict,command=\"{}\" {key}\n", command.display()));
        world.cluster("status", &[]).says(3, &["error[cluster-unreachable]", machine, "kubeadm sample"]);
        let state = world.cluster("create", &["--run", "r1", "--output", "json"]).says(0, &[]).json();
        assert_eq!((&state["created"], &state["cluster"]["nodes"][0]["platform"]), (&json!(true), &json!(platform)));
        world.cluster("status", &[]).says(0, &["made by run r1", "since 2"]);
        world.cluster("delete", &["--run", "r1"]).says(0, &[]);
        world.cluster("status", &[]).says(3, &["not there"]);
        assert!(!host.at("root/etc/kubernetes/admin.conf").exists());
    }
}
