//! Installations on a real cluster: what they do, what they say while they wait, how they fail.
//!
//! These tests have a lab of their own, or the one that `OTHER_ARCH_TEST_LAB_NAME` names.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for what they do")]

#[path = "parts/changes.rs"]
mod changes;
#[path = "parts/preflight.rs"]
mod preflight;
mod support;

use std::{
    net::TcpListener,
    panic::AssertUnwindSafe,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use kit::{Platform, arch::ARCHES};
use serde_json::{Value, json};
use support::{Ended, Lab, Run};

/// Everything in one test: one lab, and each part in a namespace of its own.
#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn installs_explains_and_records() {
    let lab = Lab::new();
    let all = PARTS.iter().chain(changes::PARTS).chain(preflight::PARTS);
    // One that fails does not keep the others from saying what they find.
    let mut failed = Vec::new();
    for (name, part) in all.filter(|(name, _)| is_wanted(name)) {
        let began = Instant::now();
        let ran = std::panic::catch_unwind(AssertUnwindSafe(|| part(&Run::new(&lab, name))));
        eprintln!("{name}: {:.1} s{}", began.elapsed().as_secs_f64(), if ran.is_ok() { "" } else { ", failed" });
        failed.extend(ran.err().map(|_| *name));
    }
    assert!(failed.is_empty(), "failed, see above: {}", failed.join(", "));
}

/// `OTHER_ARCH_TEST_PARTS=prune,flags` runs only these.
fn is_wanted(name: &str) -> bool {
    let wanted = std::env::var("OTHER_ARCH_TEST_PARTS").unwrap_or_default();
    wanted.is_empty() || wanted.split(',').any(|part| part == name)
}

/// The same where it counts: a node of another architecture, with another byte order, gets this machine's program.
#[test]
#[ignore = "boots a node: cargo xtask test --nodes runs it"]
fn nodes_refuse_or_find_out_an_image_that_lies() {
    let s390x: Platform = "linux/s390x".parse().unwrap();
    let lab = Lab::with_node(&s390x);
    let run = Run::on(&lab, "lying", s390x.clone());
    let image = lab.image(&s390x, &Platform::host());
    let release = deployment(&image, "sleep 1000", "");
    let install = |more: &[&str]| run.install(&release, &[&["--platform", "linux/s390x"], more].concat());

    let node = format!("node {}-s390x (linux/s390x)", lab.name);
    install(&[]).says(1, &["error[image-wrong-arch]", &image, "is a program for", "cannot run on", &node]);
    let namespaces = lab.kubectl(&["get", "namespaces", "-o", "name"]);
    assert!(!namespaces.contains(&run.namespace), "{namespaces}");
    assert_eq!((&run.record()["cause"], &run.record()["unchecked"]), (&json!("image-wrong-arch"), &Value::Null));

    let began = Instant::now();
    let ended = install(&["--no-image-check", "--timeout", "10m"]);
    eprintln!("found out after {:.1} s", began.elapsed().as_secs_f64());
    ended.says(1, &["error[image-wrong-arch]", "exec format error", &image, "linux/s390x node"]);
    assert!(began.elapsed() < Duration::from_secs(300), "it waited for the deadline");
    let record = run.record();
    assert_eq!((&record["cause"], &record["unchecked"]), (&json!("image-wrong-arch"), &json!(true)));
    let path = "jsonpath={.items[*].spec.nodeName}";
    let nodes = lab.kubectl(&["get", "pods", "-n", &run.namespace, "-o", path]);
    assert_eq!(nodes.trim(), format!("{}-s390x", lab.name));
}

type Part = fn(&Run<'_>);

const PARTS: &[(&str, Part)] = &[
    ("again", twice_is_once_and_drift_is_repaired),
    ("leftover", what_is_just_being_deleted_is_made_anew),
    ("arch", an_image_for_others_is_refused_before_anything),
    ("mixed", pods_stay_off_other_architectures),
    ("lying", an_image_that_lies_is_found_out_at_once),
    ("unchecked", an_image_that_lies_is_refused_or_found_out),
    ("probe", a_probe_is_believed_more_than_the_lab),
    ("twin", an_image_under_another_name_is_the_same),
    ("crash", a_crash_says_its_last_line),
    ("login", a_registry_that_refuses_the_node),
    ("scheduler", no_node_that_fits),
    ("webhook", a_webhook_that_nobody_answers),
    ("conflict", fields_of_another_manager),
    ("lease", one_run_at_a_time),
    ("restart", the_api_server_restarts_while_we_wait),
    ("signal", a_signal_leaves_a_record),
    ("others", no_other_cluster_is_touched),
];

/// An architecture that this machine is not.
fn other() -> Platform {
    let host = Platform::host();
    let row = ARCHES.iter().find(|row| row.go != host.arch && row.elf_class == 64).unwrap();
    format!("linux/{}", row.go).parse().unwrap()
}

fn own_image(lab: &Lab) -> String {
    lab.image(&Platform::host(), &Platform::host())
}

fn deployment(image: &str, script: &str, more: &str) -> String {
    format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: NAMESPACE}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web, namespace: NAMESPACE}}
spec:
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      {more}
      containers: [{{name: main, image: '{image}', args: [-c, '{script}']}}]
"
    )
}

const SETTINGS: &str = "---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: tries.install-test.example.com}
spec:
  group: install-test.example.com
  scope: Namespaced
  names: {kind: Try, plural: tries}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}]
---
apiVersion: install-test.example.com/v1
kind: Try
metadata: {name: one, namespace: NAMESPACE}
spec: {colour: red}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: NAMESPACE}
data: {colour: red}
";

fn twice_is_once_and_drift_is_repaired(run: &Run<'_>) {
    let release = deployment(&own_image(run.lab), "sleep 1000", "") + SETTINGS;
    run.install(&release, &[]).says(0, &["5 objects: 5 created, 0 changed", "/web/main"]);
    let record = run.record();
    assert_eq!(
        (&record["outcome"], &record["nature"], &record["changed"]),
        (&json!("passed"), &json!("native"), &json!(5))
    );
    let wanted = record["running"][0]["image"].as_str().unwrap();
    assert!(wanted.ends_with(record["running"][0]["digest"].as_str().unwrap()));

    run.install(&release, &[]).says(0, &["0 created, 0 changed, 5 as they were"]);
    assert_eq!(run.record()["changed"], 0);

    let patch = "{\"data\": {\"colour\": \"blue\"}}";
    run.lab.kubectl(&["patch", "configmap", "settings", "-n", &run.namespace, "-p", patch]);
    let planned =
        ["plan", "--component", "try", "--release", run.folder.join("given.yaml").to_str().unwrap()].map(String::from);
    let planned: Vec<_> = planned.iter().map(String::as_str).collect();
    run.tool(&planned).says(
        0,
        &["! ConfigMap.v1", "conflict with", "-  colour: blue\n+  colour: red", "0 new, 1 changed, 4 unchanged"],
    );
    run.install(&release, &["--force-conflicts"]).says(0, &["0 created, 1 changed, 4 as they were"]);
    let colour =
        run.lab.kubectl(&["get", "configmap", "settings", "-n", &run.namespace, "-o", "jsonpath={.data.colour}"]);
    assert_eq!(colour.trim(), "red");
    ways_of_drifting(run, &release);

    let status: Value = serde_json::from_str(&run.tool(&["status", "--output", "json"]).stdout).unwrap();
    let installed = status["installed"].as_array().unwrap().iter().find(|found| found["component"] == "try").unwrap();
    assert_eq!(installed["objects"].as_array().unwrap().len(), 5);
    assert_eq!(status["lease"]["holder"], record["run"]);
    assert_eq!(status["cluster"]["uid"], record["cluster"]["uid"]);
    run.lab.kubectl(&["delete", "crd", "tries.install-test.example.com"]);
}

/// Whoever writes one of our fields, by whatever kind of request, is seen; who writes others is left alone.
fn ways_of_drifting(run: &Run<'_>, release: &str) {
    let web = format!("deployment/web -n {}", run.namespace);
    let file = |name: &str, text: &str| {
        let file = run.folder.join(name);
        std::fs::write(&file, text.replace("NAMESPACE", &run.namespace)).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let kubectl = |command: &str| run.lab.kubectl(&command.split(' ').collect::<Vec<_>>());
    kubectl(&format!("annotate {web} somebody=was-here"));
    kubectl(&format!("scale {web} --replicas=1"));
    run.install(release, &[]).says(0, &["0 created, 0 changed, 5 as they were"]);
    let theirs = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "NAMESPACE"},
        "spec": {"template": {"spec": {"containers": [{"name": "main", "args": ["-c", "sleep 999"]}]}}}});
    let applied = file("applied.json", &theirs.to_string());
    kubectl(&format!("apply --server-side --force-conflicts --field-manager=somebody -f {applied}"));
    run.install(release, &["--force-conflicts"]).says(0, &["0 created, 1 changed, 4 as they were"]);
    // In our own name, then all of it.
    let applied = file("ours.yaml", &release.replace("sleep 1000", "sleep 998"));
    kubectl(&format!("apply --server-side --force-conflicts --field-manager=other-arch -f {applied}"));
    run.install(release, &["--force-conflicts"]).says(0, &["0 created, 1 changed, 4 as they were"]);
    let mut live: Value = serde_json::from_str(&kubectl(&format!("get {web} -o json"))).unwrap();
    live["spec"]["template"]["spec"]["containers"][0]["args"][1] = json!("sleep 997");
    live["metadata"]["resourceVersion"] = Value::Null;
    let replaced = file("replaced.json", &live.to_string());
    kubectl(&format!("replace -f {replaced}"));
    run.install(release, &["--force-conflicts"]).says(0, &["0 created, 1 changed, 4 as they were"]);
    kubectl(&format!("delete {web}"));
    run.install(release, &[]).says(0, &["1 created, 0 changed, 4 as they were"]);
    run.install(release, &[]).says(0, &["0 created, 0 changed, 5 as they were"]);
}

fn what_is_just_being_deleted_is_made_anew(run: &Run<'_>) {
    let release = deployment(&own_image(run.lab), "sleep 1000", "");
    run.install(&release, &[]).says(0, &["2 created"]);
    run.lab.kubectl(&["delete", "namespace", &run.namespace, "other-arch", "--wait=false"]);
    run.install(&release, &[]).says(0, &["objects of an earlier installation", "2 created"]);
}

fn an_image_for_others_is_refused_before_anything(run: &Run<'_>) {
    let image = run.lab.image(&other(), &other());
    let platform = Platform::host().to_string();
    let ended = run.install(&deployment(&image, "sleep 1000", ""), &["--platform", &platform]);
    ended.says(1, &["error[image-missing-platform]", &image, &platform, "cannot run on node"]);
    assert_eq!(run.record()["cause"], "image-missing-platform");
    let namespaces = run.lab.kubectl(&["get", "namespaces", "-o", "name"]);
    assert!(!namespaces.contains(&run.namespace), "{namespaces}");
    run.tool(&["status"]).says(0, &["nobody holds the cluster", "nothing of ours is installed"]);
}

/// The other node is only a name, but that is what a scheduler and we go by.
fn pods_stay_off_other_architectures(run: &Run<'_>) {
    let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "elsewhere"}});
    let file = run.folder.join("node.json");
    std::fs::write(&file, node.to_string()).unwrap();
    run.lab.kubectl(&["create", "-f", file.to_str().unwrap()]);
    let text = [
        "machineID",
        "systemUUID",
        "bootID",
        "kernelVersion",
        "osImage",
        "containerRuntimeVersion",
        "kubeletVersion",
        "kubeProxyVersion",
    ];
    let mut info: serde_json::Map<_, _> = text.into_iter().map(|field| (field.to_owned(), json!(""))).collect();
    info.extend([("operatingSystem".to_owned(), json!("linux")), ("architecture".to_owned(), json!(other().arch))]);
    let status = json!({"status": {"nodeInfo": info}}).to_string();
    run.lab.kubectl(&["patch", "node", "elsewhere", "--subresource=status", "--type=merge", "-p", &status]);

    let release = deployment(&own_image(run.lab), "sleep 1000", "");
    let wrong = run.install(&release, &["--platform", &other().to_string()]);
    let right = run.install(&release, &[]);
    run.lab.kubectl(&["delete", "node", "elsewhere"]);
    wrong.says(3, &["error[node]", "ready and takes pods", "elsewhere"]);
    right.says(0, &["2 created"]);
    let wanted = json!({"kubernetes.io/arch": Platform::host().arch});
    assert_eq!(run.record()["nodeSelector"], wanted);
    let path = "jsonpath={.spec.template.spec.nodeSelector}";
    let live = run.lab.kubectl(&["get", "deployment", "web", "-n", &run.namespace, "-o", path]);
    assert_eq!(serde_json::from_str::<Value>(&live).unwrap(), wanted);
}

/// image-build has verified another image than the registry has now: the cluster still finds out.
fn an_image_that_lies_is_found_out_at_once(run: &Run<'_>) {
    let image = run.lab.image(&Platform::host(), &other());
    let release = deployment(&image, "sleep 1000", "").replace("NAMESPACE", &run.namespace);
    let folder = run.folder.join("try");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("release.yaml"), &release).unwrap();
    let now = "2026-01-01T00:00:00Z";
    let images = json!({
        "schemaVersion": "1.0", "tool": "image-build", "toolVersion": "0", "run": "lying", "started": now, "finished": now,
        "outcome": "passed", "component": "try", "version": "1", "source": {"folder": {"path": ".", "digest": "x"}},
        "origin": "built-here", "platforms": [Platform::host()], "replacements": [], "unused": [],
        "images": [{"name": "sh", "kind": "built", "reference": image,
                    "platforms": [{"platform": Platform::host(), "manifest": "sha256:0"}]}],
        "release": {"digest": kit::digest::sha256(release.as_bytes()), "objects": 2},
    });
    std::fs::write(folder.join("images.json"), images.to_string()).unwrap();
    let began = Instant::now();
    let ended = run.tool(&["install", "--component", "try", "--run-dir", run.folder.to_str().unwrap()]);
    ended.says(1, &["error[image-wrong-arch]", "exec format error", &image, "on node"]);
    assert!(began.elapsed() < Duration::from_secs(60), "it waited for the deadline");
    let record = run.record();
    assert_eq!(record["cause"], "image-wrong-arch");
    assert!(record["reproduce"].as_str().unwrap().starts_with("cargo xtask cluster-install install --component try"));
}

/// An index whose entry holds a program for another machine: refused where it is looked at, and otherwise known
/// by what the container runtime says.
fn an_image_that_lies_is_refused_or_found_out(run: &Run<'_>) {
    let image = run.lab.image(&Platform::host(), &other());
    let release = deployment(&image, "sleep 1000", "");
    let words = ["error[image-wrong-arch]", &image, "is a program for", "cannot run on node"];
    run.install(&release, &[]).says(1, &words);
    let namespaces = run.lab.kubectl(&["get", "namespaces", "-o", "name"]);
    assert!(!namespaces.contains(&run.namespace), "{namespaces}");
    let began = Instant::now();
    let ended = run.install(&release, &["--no-image-check"]);
    ended.says(1, &["error[image-wrong-arch]", "exec format error", &image, "on node"]);
    assert!(began.elapsed() < Duration::from_secs(60), "it waited for the deadline");
    let record = run.record();
    assert_eq!((&record["cause"], &record["unchecked"]), (&json!("image-wrong-arch"), &json!(true)));
}

/// A probe of the test's own, which says that this node is emulated: on a real kubelet, from a real log.
fn a_probe_is_believed_more_than_the_lab(run: &Run<'_>) {
    let facts = json!({"schemaVersion": "1.0", "goarch": Platform::host().arch, "pageSize": 4096,
        "marks": ["other-arch.nature=emulated"], "files": {}, "workNanoseconds": [5_000_000]});
    // It reads what the node has there: a folder alone may be an empty one.
    let script = format!(
        "for file in /host-firmware/* /host-firmware/*/* /host-firmware/*/*/*; do \
         test -r $file && test ! -d $file && {{ read -r line < $file; found=$found$line; }}; done; \
         test -n \"$found\" && test ! -w / && echo '{facts}'"
    );
    let host = Platform::host();
    let probe = run.lab.image_starting(&host, &host, &["/bin/sh", "-c", &script]);
    let release = deployment(&own_image(run.lab), "sleep 1000", "");
    run.install(&release, &["--probe", &probe]).says(0, &["emulated)", "was not measured"]);
    let record = run.record();
    let node = &record["cluster"]["nodes"][0];
    assert_eq!((&record["nature"], &node["nature"]), (&json!("emulated"), &json!("emulated")));
    assert_eq!(node["machine"]["workMicros"], 5000);
    let pods = run.lab.kubectl(&["get", "pods", "-n", "other-arch", "-o", "name"]);
    assert_eq!(pods.trim(), "", "the probe goes when it has done its work");
    let crashing = run.lab.image_starting(&host, &host, &["/bin/sh", "-c", "echo no such thing; exit 7"]);
    let words = ["error[product]", "cannot probe node", "exit code 7", "no such thing"];
    run.install(&release, &["--probe", &crashing]).says(1, &words);
}

/// A node has an image by one manifest already, and the release names it by another: it reports the first.
fn an_image_under_another_name_is_the_same(run: &Run<'_>) {
    let host = Platform::host();
    for note in ["first", "second"] {
        let image = run.lab.image_noted(&host, &host, &["/bin/sh", "-e"], note);
        run.install(&deployment(&image, "sleep 1000", ""), &[]).says(0, &["/web/main"]);
    }
}

fn a_crash_says_its_last_line(run: &Run<'_>) {
    let release = deployment(&own_image(run.lab), "echo no config; exit 3", "");
    run.install(&release, &["--timeout", "8s"]).says(1, &["error[product]", "exit code 3", "no config"]);
    assert_eq!(run.record()["cause"], "product");
}

/// The node asks the registry, not we.
fn a_registry_that_refuses_the_node(run: &Run<'_>) {
    for (status, said) in [("401 Unauthorized", "image pull: 401 from"), ("403 Forbidden", "image pull: 403 from")] {
        let image = format!("{}/web:1", run.lab.refusing_registry(status));
        let release = deployment(&image, "sleep 1000", "");
        let began = Instant::now();
        run.install(&release, &["--no-image-check"]).says(3, &["error[auth]", said, &image]);
        assert!(began.elapsed() < Duration::from_secs(60), "it waited for the deadline");
    }
}

fn no_node_that_fits(run: &Run<'_>) {
    let release = deployment(&own_image(run.lab), "sleep 1000", "nodeSelector: {disk: gold}");
    run.install(&release, &["--timeout", "3s"]).says(3, &["error[node]", "unschedulable: 0/1 nodes are available"]);
}

fn a_webhook_that_nobody_answers(run: &Run<'_>) {
    let webhook = "---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: NAMESPACE}
spec: {selector: {app: web}, ports: [{port: 443}]}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: install-test}
webhooks:
- name: install-test.example.com
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  timeoutSeconds: 1
  objectSelector: {matchLabels: {install-test: seen}}
  rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  clientConfig: {service: {name: web, namespace: NAMESPACE}}
";
    let release = deployment(&own_image(run.lab), "sleep 1000", "") + webhook;
    let ended = run.install(&release, &["--timeout", "8s"]);
    run.lab.kubectl(&["delete", "validatingwebhookconfiguration", "install-test"]);
    ended.says(3, &["error[webhook]", "webhook install-test.example.com", "failed calling webhook"]);
}

fn fields_of_another_manager(run: &Run<'_>) {
    let release = deployment(&own_image(run.lab), "sleep 1000", "");
    run.install(&release, &[]).says(0, &[]);
    let image = "{\"spec\": {\"template\": {\"spec\": {\"containers\": [{\"name\": \"main\", \"args\": [\"-c\", \"sleep 999\"]}]}}}}";
    run.lab.kubectl(&["patch", "deployment", "web", "-n", &run.namespace, "--field-manager=somebody", "-p", image]);
    run.install(&release, &[]).says(2, &["error[usage]", "Deployment.apps/v1", "somebody", "--force-conflicts"]);
    run.install(&release, &["--force-conflicts"]).says(0, &["1 changed"]);
}

fn one_run_at_a_time(run: &Run<'_>) {
    run.tool(&["lease", "take", "--run", "another"]).says(0, &["run another holds the cluster since"]);
    let release = deployment(&own_image(run.lab), "sleep 1000", "");
    run.install(&release, &[]).says(3, &["error[lease-held]", "run another holds the cluster since"]);
    run.tool(&["lease", "release", "--run-dir", run.folder.to_str().unwrap()]).says(3, &["run another holds"]);
    run.tool(&["lease", "release", "--run", "another"]).says(0, &["nobody holds the cluster"]);
    run.install(&release, &[]).says(0, &[]);
    let holder = format!("run {} holds the cluster since", run.record()["run"].as_str().unwrap());
    run.tool(&["lease", "show"]).says(0, &[&holder]);
    run.tool(&["lease", "release", "--run-dir", run.folder.to_str().unwrap()]).says(0, &["nobody holds"]);
}

fn the_api_server_restarts_while_we_wait(run: &Run<'_>) {
    let probe = "initContainers: [{name: first, image: IMAGE, args: [-c, \"sleep 6\"]}]";
    let image = own_image(run.lab);
    let child = run.start(&deployment(&image, "sleep 1000", &probe.replace("IMAGE", &image)), &[]);
    until(|| {
        run.lab.kubectl(&["get", "pods", "-n", &run.namespace, "-o", "name", "--ignore-not-found"]).contains("pod/web")
    });
    run.lab.tool(&["kill", "kube-apiserver"]);
    Ended::of(child.wait_with_output().unwrap()).says(0, &["2 objects: 2 created"]);
}

fn a_signal_leaves_a_record(run: &Run<'_>) {
    let child = run.start(&deployment(&own_image(run.lab), "sleep 1000", "nodeSelector: {disk: gold}"), &[]);
    until(|| {
        run.lab.kubectl(&["get", "pods", "-n", &run.namespace, "-o", "name", "--ignore-not-found"]).contains("pod/web")
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    Ended::of(child.wait_with_output().unwrap()).says(130, &["error[interrupted]"]);
    assert_eq!(run.record()["cause"], "interrupted");
    // And what a killed installation left can be installed again.
    let release = deployment(&own_image(run.lab), "sleep 1000", "nodeSelector: {}");
    run.install(&release, &[]).says(0, &["1 changed"]);
}

/// Somebody's current cluster is another one: nobody ever speaks to it.
fn no_other_cluster_is_touched(run: &Run<'_>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let seen: &AtomicUsize = Box::leak(Box::default());
    std::thread::spawn(move || {
        listener.incoming().for_each(|_| {
            seen.fetch_add(1, Ordering::SeqCst);
        })
    });
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "theirs",
        "contexts": [{"name": "theirs", "context": {"cluster": "theirs"}}],
        "clusters": [{"name": "theirs", "cluster": {"server": server}}]});
    let file = run.folder.join("theirs.json");
    std::fs::write(&file, config.to_string()).unwrap();
    let with = |args: &[&str]| {
        Ended::of(run.command(args).env("KUBECONFIG", &file).env("OTHER_ARCH_CACHE", &run.folder).output().unwrap())
    };
    let lab = |args: &[&str]| {
        Ended::of(run.command(args).args(["--lab", &run.lab.name]).env("KUBECONFIG", &file).output().unwrap())
    };
    lab(&["status"]).says(0, &["ready"]);
    lab(&["lease", "take", "--run", "others"]).says(0, &[]);
    lab(&["lease", "release", "--force"]).says(0, &[]);
    // Where there is no lab the default lab is missed, not replaced.
    with(&["status"]).says(3, &["the lab 'default' is not up"]);
    assert_eq!(seen.load(Ordering::SeqCst), 0);
    with(&["status", "--kubeconfig", "env"]);
    assert!(seen.load(Ordering::SeqCst) > 0, "the listener counts");
}

#[track_caller]
fn until(good: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !good() {
        assert!(Instant::now() < deadline, "it did not happen");
        std::thread::sleep(Duration::from_millis(200));
    }
}
