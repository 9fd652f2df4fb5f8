//! Labs that really come up: each test has its own, and leaves nothing.
//!
//! They need root, the built programs (or minutes to build them) and a machine that may be used for it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kit::{Error, Process};
use support::{Lab, kill, machine};

mod support;

const GUEST: &str = "other-arch.lab/guest:1";

/// Builds the guest and makes an image archive of it.
fn guest_archive(folder: &Path) -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest");
    let program = folder.join("guest");
    let mut command = kit::source::go_command("the guest", &sources).unwrap();
    command.env("CGO_ENABLED", "0").env("GOWORK", "off");
    command.arg("build").arg("-o").arg(&program).arg(".");
    Process::new("build of the guest", command).run().unwrap_or_else(|error| panic!("{error}"));
    let archive = folder.join("guest.tar");
    std::fs::write(&archive, lab::image::archive(GUEST, &program, kit::Arch::host()).unwrap()).unwrap();
    archive
}

const GUEST_POD: &str = r#"
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: guest}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: guest}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: guest
    image: other-arch.lab/guest:1
    imagePullPolicy: Never
    securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
    volumeMounts: [{name: data, mountPath: /data}]
  volumes: [{name: data, persistentVolumeClaim: {claimName: guest}}]
---
apiVersion: v1
kind: Pod
metadata: {name: server, labels: {app: server}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: guest
    image: other-arch.lab/guest:1
    imagePullPolicy: Never
    args: [serve, ":8080"]
    readinessProbe: {tcpSocket: {port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: server}
spec: {selector: {app: server}, ports: [{port: 80, targetPort: 8080}]}
"#;

#[test]
#[ignore = "brings a lab up: `cargo xtask test` runs it"]
fn a_lab_has_what_a_cluster_has_and_leaves_nothing() {
    let lab = Lab::new('a');
    let before = machine();
    lab.run(&["up", "--mirror-host", "mirror.example"]);
    let status = lab.status();
    assert_eq!(status["phase"], "ready");
    assert_eq!(status["nodes"][0]["nature"], "native");
    assert!(status["mirrors"].as_array().unwrap().contains(&"mirror.example".into()), "{status}");
    // Again: nothing happens, and that is good.
    assert_eq!(lab.up(&[])["fresh"], false);
    assert_eq!(
        lab.run(&["kubectl", "--output", "name", "get", "nodes"]).trim(),
        format!("node/{}-{}", lab.name, kit::Arch::host().go)
    );

    let folder = tempfile::tempdir().unwrap();
    lab.run(&["load", &guest_archive(folder.path()).display().to_string()]);
    let pod = folder.path().join("pod.yaml");
    std::fs::write(&pod, GUEST_POD).unwrap();
    lab.run(&["kubectl", "apply", "--filename", &pod.display().to_string()]);
    lab.run(&["kubectl", "wait", "--for=condition=Ready", "pod/guest", "pod/server", "--timeout=60s"]);
    names_and_ways(&lab, status["registry"].as_str().unwrap());
    assert!(lab.leftovers().len() > 5);
    volumes(&lab);

    lab.run(&["down"]);
    assert!(!lab.folder().join("state").exists());
    assert!(!lab.folder().join("kubeconfig").exists());
    assert_eq!(lab.fails(&["status"]).code(), 3);
    // Again: already down.
    lab.run(&["down", "--purge"]);
    assert!(!lab.folder().exists());
    lab.expect_nothing_left(&before);
}

/// What a pod reaches, and that it hears at once of what it does not reach.
fn names_and_ways(lab: &Lab, registry: &str) {
    let quick = |said: &str| {
        let time = said.rsplit(' ').nth(1).and_then(|ms| ms.parse::<u64>().ok());
        assert!(time.is_some_and(|ms| ms < 2000), "{said}");
    };
    assert!(lab.guest("resolve", "kubernetes.default.svc.cluster.local").starts_with("10.96.0.1 "));
    assert!(lab.guest("resolve", "kubernetes.default").starts_with("10.96.0.1 "));
    let unknown = lab.guest("resolve", "no-such-name.example");
    assert!(unknown.contains("no such host"), "{unknown}");
    quick(&unknown);
    // The service of a pod on the same node needs the bridge's packets to be translated on their way back.
    for address in ["10.96.0.1:443", registry, "server:80"] {
        let late = || Error::new(kit::Cause::Node, format!("no way to {address}: {}", lab.guest("connect", address)));
        let way = || Ok(lab.guest("connect", address).starts_with("connected").then_some(()));
        kit::retry::until(Duration::from_secs(20), late, way).unwrap();
    }
    let outside = lab.guest("connect", "192.0.2.77:80");
    assert!(!outside.contains("connected"), "{outside}");
    quick(&outside);
}

/// A volume's data is a folder of the node, and is deleted with the claim.
fn volumes(lab: &Lab) {
    let volumes = lab.folder().join("state/var/lib/other-arch/volumes");
    let count = || std::fs::read_dir(&volumes).unwrap().count();
    assert!(lab.guest("write", "/data/file").starts_with("written"));
    assert_eq!(count(), 1);
    lab.run(&["kubectl", "delete", "pod/guest", "pvc/guest", "--timeout=60s"]);
    let late = || Error::new(kit::Cause::Storage, "the data is still there");
    kit::retry::until(Duration::from_secs(30), late, || Ok((count() == 0).then_some(()))).unwrap();
}

#[test]
#[ignore = "brings labs up: `cargo xtask test` runs it"]
fn labs_are_side_by_side() {
    let (one, two) = (Lab::new('b'), Lab::new('c'));
    std::thread::scope(|scope| {
        scope.spawn(|| one.run(&["up"]));
        scope.spawn(|| two.run(&["up"]));
    });
    let (first, second) = (one.status(), two.status());
    assert_ne!(first["subnet"], second["subnet"]);
    assert_ne!(first["registry"], second["registry"]);
    // The subnet of one is in use for the other.
    let taken = Lab::new('d');
    assert_eq!(taken.fails(&["up", "--subnet", first["subnet"].as_str().unwrap()]).code(), 2);
    one.run(&["down"]);
    assert_eq!(two.status()["phase"], "ready");
    two.run(&["kubectl", "get", "nodes"]);
}

#[test]
#[ignore = "brings a lab up: `cargo xtask test` runs it"]
fn a_killed_lab_can_be_taken_down_and_a_killed_up_repeated() {
    let lab = Lab::new('e');
    let before = machine();
    lab.run(&["up", "--until", "registry"]);
    assert_eq!(lab.status()["phase"], "registry");
    kill(lab.supervisor());
    assert_eq!(lab.fails(&["status"]).code(), 3);
    lab.run(&["up"]);
    assert_eq!(lab.status()["phase"], "ready");
    assert!(lab.leftovers().len() > 5);
    kill(lab.supervisor());
    lab.run(&["down", "--purge"]);
    lab.expect_nothing_left(&before);

    // Killed at several moments of its life, `up` gets to the same end when it is called again.
    for wait in [50, 300, 1500] {
        let killed = lab.command(&["up"]).limit(Duration::from_millis(wait)).grace(Duration::ZERO).finish().unwrap();
        assert!(killed.timed_out, "{killed:?}");
        lab.run(&["up"]);
        assert_eq!(lab.status()["phase"], "ready");
        lab.run(&["down"]);
    }
    lab.run(&["up"]);
    assert!(lab.leftovers().len() > 5);
    lab.run(&["down", "--purge"]);
    lab.expect_nothing_left(&before);
}

#[test]
#[ignore = "brings a lab up: `cargo xtask test` runs it"]
fn a_killed_program_comes_back_unless_it_is_held() {
    let lab = Lab::new('f');
    lab.run(&["up"]);
    lab.run(&["kill", "kube-apiserver"]);
    let late = || Error::new(kit::Cause::Apiserver, "it does not come back");
    let back = || Ok((lab.fails(&["kubectl", "get", "--raw", "/readyz"]).code() == 0).then_some(()));
    kit::retry::until(Duration::from_secs(60), late, back).unwrap();
    lab.run(&["kill", "kube-apiserver", "--hold"]);
    assert_eq!(lab.fails(&["status"]).code(), 3);
    // Not 'up already': it says which program is to blame, and what to do. The registry is as good as ever.
    let up = lab.fails(&["up"]);
    assert_eq!(up.code(), 3);
    assert!(up.last.concat().contains("lab start kube-apiserver"), "{:?}", up.last);
    assert_eq!(lab.up(&["--until", "registry"])["fresh"], false);
    lab.run(&["start", "kube-apiserver"]);
    // It waits until the API server is back.
    lab.run(&["up"]);
    assert_eq!(back().unwrap(), Some(()));
    assert_eq!(lab.fails(&["kill", "no-such-program"]).code(), 2);
    assert!(lab.run(&["logs", "kube-apiserver"]).lines().count() > 10);
    let mut head = Command::new("bash");
    let line = format!("'{}' --name {} logs | head -1", env!("CARGO_BIN_EXE_lab"), lab.name);
    head.args(["-o", "pipefail", "-c", &line]);
    Process::new("head of the logs", head).run().unwrap();
}
