//! Pods of the lab's guest program on nodes of several architectures, and the ways between them.

use std::{fs, path::Path, time::Duration};

use kit::{Arch, Error, Process};

use crate::support::Lab;

/// The lab's guest program as images of the lab's registry, for one architecture.
pub(crate) fn push_guest(lab: &Lab, arch: &Arch, names: &[&str]) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/guest");
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("guest");
    let mut command = kit::source::go_command("the guest", &sources).unwrap();
    command.env("CGO_ENABLED", "0").env("GOWORK", "off").env("GOARCH", arch.go);
    command.arg("build").arg("-o").arg(&program).arg(".");
    Process::new("build of the guest", command).run().unwrap();
    let archive = lab::image::archive("guest:1", &program, arch).unwrap();
    tar::Archive::new(&archive[..]).unpack(folder.path()).unwrap();
    let registry = registry(lab);
    oci::run(async {
        let layout = oci::Layout::open(folder.path())?;
        for name in names {
            let target = oci::parse(&format!("{registry}/{name}"))?;
            oci::copy(&oci::Client::new()?, &layout, &layout.find(None)?, &target).await?;
        }
        Ok(())
    })
    .unwrap();
}

pub(crate) fn registry(lab: &Lab) -> String {
    lab.status()["registry"].as_str().unwrap().to_owned()
}

pub(crate) fn pods(registry: &str, arch: &str) -> String {
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

/// A pod that sees the node's name, network, resolver and authority as the node's own programs do. Its image has a
/// public name, which the node's containerd gets from the lab.
pub(crate) fn pod_of_node(arch: &str) -> String {
    format!(
        r#"
apiVersion: v1
kind: Pod
metadata: {{name: node-{arch}}}
spec:
  nodeSelector: {{kubernetes.io/arch: {arch}}}
  hostNetwork: true
  dnsPolicy: Default
  terminationGracePeriodSeconds: 1
  containers:
  - name: guest
    image: {PUBLIC}
    imagePullPolicy: Always
    securityContext: {{runAsNonRoot: true, seccompProfile: {{type: RuntimeDefault}}}}
    volumeMounts: [{{name: pki, mountPath: /pki, readOnly: true}}]
  volumes: [{{name: pki, hostPath: {{path: /run/lab/pki}}}}]
"#
    )
}

/// A name of another registry, which the lab stands in for.
pub(crate) const PUBLIC: &str = "docker.io/library/busybox:latest";

pub(crate) fn guest(lab: &Lab, arch: &str, verb: &str, what: &str) -> String {
    said_in(lab, &format!("guest-{arch}"), verb, what)
}

pub(crate) fn said_in(lab: &Lab, pod: &str, verb: &str, what: &str) -> String {
    let mut said = String::new();
    let run = lab.command(&["kubectl", "exec", pod, "--", "/guest", verb, what]);
    run.on_line(|_, line| said.push_str(line)).finish().unwrap();
    said
}

/// Applies objects.
pub(crate) fn apply(lab: &Lab, objects: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), objects).unwrap();
    lab.run(&["kubectl", "apply", "--filename", &file.path().display().to_string()]);
}

/// The pod of one architecture reaches that of another, as itself and as a service.
pub(crate) fn reaches(lab: &Lab, from: &str, to: &str) {
    let ip = ["kubectl", "get", "pod", &format!("guest-{to}"), "-o", "jsonpath={.status.podIP}"];
    for way in [format!("{}:8080", lab.run(&ip).trim()), format!("service-{to}:80")] {
        let mut said = String::new();
        let late = || Error::new(kit::Cause::Node, format!("no way from {from} to {to}"));
        let connected = kit::retry::until(Duration::from_secs(60), late, || {
            said = guest(lab, from, "connect", &way);
            Ok(said.starts_with("connected").then_some(()))
        });
        assert!(connected.is_ok(), "from {from} to {way} of {to}: {said}");
    }
}
