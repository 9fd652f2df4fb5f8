//! What is found out of nodes before an installation, and what becomes of images that cannot run there: the
//! real program against an API server that stands in for a real one.

#![allow(clippy::disallowed_methods, reason = "tests start the real program and wait for what it does")]

#[path = "support/api.rs"]
mod api;
#[path = "parts/requests.rs"]
mod requests;
#[path = "parts/waits.rs"]
mod waits;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use api::Api;
use kit::digest::sha256;
use serde_json::{Value, json};

/// A namespace and a configuration: nothing that has to become ready.
const PLAIN: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: n}}\n---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: n}}\n";

/// A folder with a release, a kubeconfig and `ci/`.
struct World {
    folder: tempfile::TempDir,
    api: Api,
}

struct Ended {
    code: i32,
    text: String,
    took: Duration,
}

impl Ended {
    #[track_caller]
    fn says(&self, code: i32, words: &[&str]) -> &Self {
        assert_eq!(self.code, code, "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "'{word}' is not in\n{}", self.text);
        }
        self
    }
}

impl World {
    fn new(api: Api) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap(), api };
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c"}}],
            "clusters": [{"name": "c", "cluster": {"server": world.api.address}}]});
        world.write("config.json", &config.to_string());
        world.write("release.yaml", PLAIN);
        world.declare("");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn declare(&self, text: &str) {
        self.write("ci/architectures.toml", text);
    }

    fn install(&self, args: &[&str]) -> Ended {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster-install"));
        let path = |name: &str| self.path(name).display().to_string();
        command.args(["install", "--component", "x", "--run-dir", &path("run"), "--kubeconfig", &path("config.json")]);
        command.args(["--ci", &path("ci")]).args(args).current_dir(self.folder.path());
        if !args.contains(&"--platform") {
            command.args(["--release", &path("release.yaml")]);
        }
        command.env("OTHER_ARCH_CACHE", path("cache")).env_remove("KUBERNETES_SERVICE_HOST");
        let began = Instant::now();
        let output = command.output().unwrap();
        let text = [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).join("\n");
        assert!(!text.contains("panicked"), "{text}");
        Ended { code: output.status.code().unwrap(), text, took: began.elapsed() }
    }

    /// Another verb: its exit code, and what it prints as JSON.
    fn ask(&self, args: &[&str]) -> (i32, Value) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster-install"));
        let path = |name: &str| self.path(name).display().to_string();
        command.args(args).args(["--kubeconfig", &path("config.json"), "--ci", &path("ci"), "--output", "json"]);
        let output =
            command.env("OTHER_ARCH_CACHE", path("cache")).env_remove("KUBERNETES_SERVICE_HOST").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code().unwrap(), serde_json::from_slice(&output.stdout).expect(&said))
    }

    fn record(&self) -> Value {
        read(&self.path("run/x/linux-s390x/c/install.json"))
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A reference that no registry answers for: the node pulls it, and here it cannot be had.
fn probe() -> String {
    format!("127.0.0.1:1/other-arch/probe@{}", sha256(b"probe"))
}

/// What the probe says on a machine whose `/proc/sysinfo` names this maker.
fn answer(maker: &str) -> String {
    let files = json!({"/proc/sysinfo": format!("Manufacturer: {maker}\nType: 8561\nModel: T01")});
    let facts = json!({"schemaVersion": "1.0", "goarch": "s390x", "machine": "s390x", "kernelArch": "s390x",
        "pageSize": 4096, "bigEndian": true, "platform": "z15", "files": files, "workNanoseconds": [15_000_000, 9_000_000, 9_500_000]});
    facts.to_string()
}

const POD: &str = "/api/v1/namespaces/other-arch/pods/probe-1";

/// A cluster whose kubelet lets the probe's pod come to this.
fn cluster(status: Value, log: &str) -> Api {
    let api = Api::start("s390x", move |path, object| {
        if path == POD {
            object["status"] = status.clone();
        }
        Ok(Vec::new())
    });
    api.log(POD, log);
    api
}

fn ended_well() -> Value {
    json!({"phase": "Succeeded"})
}

#[test]
fn a_probe_says_what_a_node_is() {
    for (maker, nature) in [("QEMU", "emulated"), ("IBM", "native")] {
        let world = World::new(cluster(ended_well(), &answer(maker)));
        world.install(&["--probe", &probe()]).says(0, &[&format!("linux/s390x, {nature})"), "was not measured"]);
        let record = world.record();
        assert_eq!(record["nature"], nature);
        let node = &record["cluster"]["nodes"][0];
        assert_eq!(node["nature"], nature);
        assert!(node["evidence"].as_str().unwrap().contains(&format!("Manufacturer: {maker}")), "{node}");
        let machine =
            json!({"model": format!("{maker} 8561 T01"), "processor": "z15", "pageSize": 4096, "workMicros": 9000});
        assert_eq!(node["machine"], machine);
        assert_eq!(record.get("slowdown"), None, "this machine could not do the same");
        assert!(world.api.writes().contains(&format!("DELETE {POD}")), "{:?}", world.api.writes());
    }
}

#[test]
fn without_a_probe_nobody_knows() {
    let world = World::new(cluster(ended_well(), ""));
    world.install(&[]).says(0, &["linux/s390x, unknown)"]);
    assert_eq!(world.record()["nature"], "unknown");
    assert!(!world.api.writes().iter().any(|request| request.contains("pods")));
    world.declare("[[cluster]]\nname = 'c'\nnature = 'native'\nowner = 'the z team'\n");
    world.install(&[]).says(0, &["linux/s390x, native)"]);
    assert!(world.record()["cluster"]["nodes"][0]["evidence"].as_str().unwrap().contains("declared by the z team"));
}

#[test]
fn an_owner_cannot_contradict_the_probe() {
    let world = World::new(cluster(ended_well(), &answer("QEMU")));
    world.declare("[[cluster]]\nuid = 'uid-of-kube-system'\nnature = 'native'\nowner = 'the z team'\n");
    let words = ["error[usage]", "the z team declares c native, and node n1 is emulated", "Manufacturer: QEMU"];
    world.install(&["--probe", &probe()]).says(2, &words);
    let record = world.record();
    assert_eq!((&record["cause"], &record["nature"]), (&json!("usage"), &json!("emulated")));
    assert!(!world.api.writes().iter().any(|request| request.contains("configmaps/a")), "nothing was installed");
    world.declare("[[cluster]]\nname = 'c'\nnature = 'unknown'\nowner = 'me'\n");
    world.install(&[]).says(2, &["who does not know says nothing"]);
}

#[test]
fn a_probe_that_cannot_run_has_its_cause() {
    let container = |state: Value| {
        json!({"phase": "Pending", "containerStatuses": [{"name": "probe", "image": "", "imageID": "", "ready": false,
            "restartCount": 0, "state": state}]})
    };
    let waits = |reason: &str, message: &str| container(json!({"waiting": {"reason": reason, "message": message}}));
    let mut crashed = container(json!({"terminated": {"exitCode": 255, "reason": "Error"}}));
    crashed["phase"] = json!("Failed");
    let back = "Back-off pulling image: ErrImagePull: dial tcp 10.0.0.9:5000: connect: connection refused";
    let alien = "Back-off: ErrImagePull: no match for platform in manifest: not found";
    for (status, log, code, words) in [
        (
            waits("ImagePullBackOff", back),
            "",
            3,
            &["error[image-pull]", "not ended after 3.0 s", "connection refused"][..],
        ),
        (waits("ImagePullBackOff", alien), "", 1, &["error[image-missing-platform]", "no match for platform"]),
        (crashed.clone(), "exec /ko-app/probe: exec format error", 1, &["error[image-wrong-arch]", "linux/s390x node"]),
        (crashed, "panic: no", 1, &["error[product]", "exit code 255", "panic: no"]),
        (
            json!({"phase": "Failed", "reason": "OutOfpods", "message": "full"}),
            "",
            3,
            &["error[node]", "OutOfpods: full"],
        ),
        (ended_well(), "hello", 2, &["error[usage]", "no answer of the probe"]),
        (
            ended_well(),
            &answer("IBM").replace("\"s390x\"", "\"amd64\""),
            1,
            &["error[image-wrong-arch]", "a program for amd64"],
        ),
    ] {
        let world = World::new(cluster(status, log));
        let ended = world.install(&["--probe", &probe(), "--timeout", "3s"]);
        ended.says(code, words).says(code, &["cannot probe node n1"]);
        assert!(ended.took < Duration::from_secs(20), "{:?}", ended.took);
        assert!(world.record()["cause"].is_string());
    }
}

#[test]
fn a_policy_may_forbid_to_look_at_the_firmware() {
    let tries = Mutex::new(0);
    let api = Api::start("s390x", move |path, object| {
        if path != POD {
            return Ok(Vec::new());
        }
        let mut tries = tries.lock().unwrap();
        *tries += 1;
        match *tries {
            1 => {
                return Err((
                    403,
                    "error looking up service account other-arch/default: serviceaccount \"default\" not found".into(),
                ));
            }
            _ if object["spec"]["volumes"][0]["hostPath"].is_object() => {
                return Err((403, "pods \"probe-1\" is forbidden: violates PodSecurity \"baseline:latest\"".into()));
            }
            _ => object["status"] = json!({"phase": "Succeeded"}),
        }
        Ok(Vec::new())
    });
    api.log(POD, &answer("IBM"));
    World::new(api).install(&["--probe", &probe()]).says(0, &["linux/s390x, native)"]);
}

#[test]
fn the_probe_must_be_the_one_that_was_built() {
    let world = World::new(cluster(ended_well(), ""));
    world.install(&["--probe", "127.0.0.1:1/probe:latest"]).says(2, &["not named by its digest", "image-build probe"]);
    assert!(world.api.writes().is_empty());
}

/// A deployment whose image holds a program for another architecture.
fn wrong_arch() -> Api {
    let image = format!("127.0.0.1:1/web@{}", sha256(b"web"));
    let image_of_pod = image.clone();
    Api::start("s390x", move |path, object| {
        if !path.ends_with("/deployments/web") {
            return Ok(Vec::new());
        }
        object["status"] =
            json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "unavailableReplicas": 1});
        let last = json!({"terminated": {"exitCode": 255, "reason": "Error"}});
        let state =
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}});
        let status = json!({"phase": "Running", "containerStatuses": [{"name": "web", "image": "", "imageID": "",
            "ready": false, "started": false, "restartCount": 1, "state": state, "lastState": last}]});
        let pod = json!({"metadata": {"labels": {"app": "web"}}, "status": status,
            "spec": {"nodeName": "n1", "containers": [{"name": "web", "image": image_of_pod}]}});
        Ok(vec![("/api/v1/namespaces/n/pods/web-1".to_owned(), pod)])
    })
}

const RELEASE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: n}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: n, generation: 1}
spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: 'IMAGE'}]}}}
";

#[test]
fn an_image_for_another_architecture_is_refused_before_it_is_applied() {
    let world = World::new(wrong_arch());
    let image = format!("127.0.0.1:1/web@{}", sha256(b"web"));
    let release = RELEASE.replace("IMAGE", &image);
    let now = "2026-01-01T00:00:00Z";
    let row = json!({"platform": "linux/s390x", "manifest": sha256(b"m"), "cause": "image-wrong-arch",
        "problem": "/ko-app/web is a program for amd64 (elf, 64 bit, little-endian)"});
    // A release that somebody verified for another platform is good there, and says here what it is.
    let images = json!({
        "schemaVersion": "1.0", "tool": "image-build", "toolVersion": "0", "run": "r", "started": now, "finished": now,
        "outcome": "passed", "component": "x", "version": "1", "source": {"folder": {"path": ".", "digest": "d"}},
        "origin": "built-here", "platforms": ["linux/s390x"], "replacements": [], "unused": [],
        "images": [{"name": "cmd/web", "kind": "built", "reference": image, "platforms": [row]}],
        "release": {"digest": sha256(release.as_bytes()), "objects": 2},
    });
    world.write("run/x/release.yaml", &release);
    world.write("run/x/images.json", &images.to_string());
    let words = ["error[image-wrong-arch]", "cmd/web", "a program for amd64", "node n1 (linux/s390x)"];
    world.install(&["--platform", "linux/s390x"]).says(1, &words);
    assert!(world.api.writes().is_empty(), "{:?}", world.api.writes());

    // And with the check turned off the cluster finds out, at once.
    world.api.log("/api/v1/namespaces/n/pods/web-1", "exec /ko-app/web: exec format error");
    let ended = world.install(&["--platform", "linux/s390x", "--no-image-check"]);
    ended.says(1, &["error[image-wrong-arch]", "exec format error", &image, "linux/s390x node", "--no-image-check"]);
    assert!(ended.took < Duration::from_secs(20), "it waited: {:?}", ended.took);
    let record = world.record();
    assert_eq!((&record["cause"], &record["unchecked"]), (&json!("image-wrong-arch"), &json!(true)));
}

/// What the nodes report is compared with what the release names; of a tag that nobody was to check there is nothing to
/// compare.
#[test]
fn another_image_than_the_releases_runs() {
    let runs = format!("127.0.0.1:1/web@{}", sha256(b"other"));
    let world = World::new(Api::start("s390x", move |path, object| {
        if path != "/apis/apps/v1/namespaces/n/deployments/web" {
            return Ok(Vec::new());
        }
        object["status"] =
            json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "web", "image": "", "imageID": runs, "ready": true, "restartCount": 0}]});
        let pod = json!({"metadata": {"labels": {"app": "web"}}, "status": status,
            "spec": {"nodeName": "n1", "containers": [{"name": "web", "readinessProbe": {}}]}});
        Ok(vec![("/api/v1/namespaces/n/pods/web-1".into(), pod)])
    }));
    world.write("release.yaml", &RELEASE.replace("IMAGE", &format!("127.0.0.1:1/web@{}", sha256(b"web"))));
    let ended = world.install(&["--no-image-check"]);
    ended.says(1, &["error[product]", "1 of 1 containers run another image than the release's", "n/web/web: runs"]);
    world.write("release.yaml", &RELEASE.replace("IMAGE", "127.0.0.1:1/web:1"));
    world.install(&["--no-image-check"]).says(0, &["n/web/web"]);
    assert_eq!(world.record()["unchecked"], true);
}
