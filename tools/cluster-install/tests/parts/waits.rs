//! What is waited for, for how long, and how soon its end is seen.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use kit::digest::sha256;
use serde_json::{Value, json};

use super::{World, api::Api};

/// How soon after the last condition it is seen that all is ready.
const SOON: Duration = Duration::from_millis(200);
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/other-arch/leases/run";

/// What a busy machine does to a program counts only if it does it five times.
#[track_caller]
fn soon(measure: impl Fn() -> Duration) {
    let measures: Vec<_> = (0..5).map(|_| measure()).take_while(|took| *took >= SOON).collect();
    assert!(measures.len() < 5, "{measures:?}");
}

fn until(good: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !good() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn quiet(arch: &str) -> Api {
    Api::start(arch, |_, _| Ok(Vec::new()))
}

#[test]
fn ready_is_seen_when_it_is() {
    soon(|| {
        let image = format!("127.0.0.1:1/web@{}", sha256(b"web"));
        let world = World::new(quiet("s390x"));
        world.write("release.yaml", &super::RELEASE.replace("IMAGE", &image));
        let api = world.api.clone();
        let ready = std::thread::spawn(move || {
            let path = "/apis/apps/v1/namespaces/n/deployments/web";
            until(|| api.requests().iter().any(|request| request.ends_with(path)));
            std::thread::sleep(Duration::from_secs(2));
            let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{"name": "web", "image": "", "imageID": image, "ready": true, "started": true, "restartCount": 0,
                                       "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]});
            let pod = json!({"metadata": {"labels": {"app": "web"}}, "status": status,
                "spec": {"nodeName": "n1", "containers": [{"name": "web", "image": image, "readinessProbe": {}}]}});
            api.put("/api/v1/namespaces/n/pods/web-1", pod);
            let mut deployment = api.get(path);
            deployment["status"] =
                json!({"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1});
            let ready = Instant::now();
            api.put(path, deployment);
            ready
        });
        world.install(&["--no-image-check"]).says(0, &["n/web/web"]);
        // What it does next is to read what runs.
        world.api.asked("GET /api/v1/namespaces/n/pods").duration_since(ready.join().unwrap())
    });
}

/// A webhook of the release, with a service that has an endpoint; the API server says of it what `answer` says to the
/// so manieth trial.
fn with_webhook(answer: impl Fn(usize) -> Result<(), (u16, String)> + Send + Sync + 'static) -> World {
    let trials = AtomicUsize::new(0);
    let world = World::new(Api::start("s390x", move |path, _| match path.ends_with("/configmaps/other-arch-probe") {
        true => answer(trials.fetch_add(1, Ordering::SeqCst)).map(|()| Vec::new()),
        false => Ok(Vec::new()),
    }));
    let slice = json!({"metadata": {"labels": {"kubernetes.io/service-name": "hook"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}}]});
    world.api.put("/apis/discovery.k8s.io/v1/namespaces/n/endpointslices/hook-1", slice);
    world.write(
        "release.yaml",
        "{apiVersion: v1, kind: Namespace, metadata: {name: n}}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: hooks}
webhooks:
- name: w.example.com
  rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  clientConfig: {service: {name: hook, namespace: n}}
",
    );
    world
}

fn refused() -> (u16, String) {
    (500, "Internal error occurred: failed calling webhook \"w.example.com\": connection refused".into())
}

/// Nothing tells that a webhook begins to answer, not even after a while.
#[test]
fn a_webhook_is_ready_when_it_answers() {
    soon(|| {
        let since = Arc::new(Mutex::new((None::<Instant>, None::<Instant>)));
        let seen = Arc::clone(&since);
        let world = with_webhook(move |_| {
            let mut seen = seen.lock().unwrap();
            let answers = *seen.0.get_or_insert_with(|| Instant::now() + Duration::from_secs(5));
            if Instant::now() < answers {
                return Err(refused());
            }
            seen.1.get_or_insert_with(Instant::now);
            Ok(())
        });
        world.install(&[]).says(0, &["1 webhooks answered a trial"]);
        let (answers, asked) = *since.lock().unwrap();
        asked.unwrap().duration_since(answers.unwrap())
    });
}

#[test]
fn a_webhook_that_was_not_asked_has_not_answered() {
    let world = with_webhook(|_| Err((422, "ConfigMap is invalid: data: Required value".into())));
    let ended = world.install(&[]);
    ended.says(0, &["nobody knows whether webhook w.example.com answers", "data: Required"]);
    assert!(!ended.text.contains("answered a trial"), "{}", ended.text);
    let world = with_webhook(|_| Err((400, "admission webhook \"w.example.com\" denied the request: no".into())));
    world.install(&[]).says(0, &["1 webhooks answered a trial"]);
    let world = with_webhook(|_| Err(refused()));
    world.install(&["--timeout", "2s"]).says(3, &["error[webhook]", "failed calling webhook"]);
}

#[test]
fn who_may_not_watch_is_told_at_once() {
    let world = World::new(quiet("s390x"));
    world.write("release.yaml", &super::RELEASE.replace("IMAGE", "127.0.0.1:1/web:1"));
    world.api.forbid("/api/v1/namespaces/n/events");
    let ended = world.install(&["--no-image-check"]);
    ended.says(3, &["error[auth]", "it cannot become ready", "cannot watch Event", "n/events is forbidden"]);
    assert!(ended.took < Duration::from_secs(60), "{:?}", ended.took);
}

#[test]
fn a_job_may_be_gone_once_it_is_done() {
    let world = World::new(quiet("s390x"));
    let job =
        "{apiVersion: batch/v1, kind: Job, metadata: {name: once, namespace: n}, spec: {ttlSecondsAfterFinished: 0}}";
    world.write("release.yaml", &format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: n}}}}\n---\n{job}\n"));
    let api = world.api.clone();
    std::thread::spawn(move || {
        let jobs = "/apis/batch/v1/namespaces/n/jobs";
        // It is listed before it is applied, listed again, and watched from there.
        let listed = format!("GET {jobs}");
        until(|| api.requests().iter().filter(|request| **request == listed).count() > 2);
        let path = format!("{jobs}/once");
        let mut job = api.get(&path);
        job["status"] = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        api.put(&path, job);
        api.delete(&path);
    });
    world.install(&["--timeout", "20s"]).says(0, &["2 created"]);
}

#[test]
fn a_namespace_that_nobody_makes_is_not_waited_for() {
    let world = World::new(Api::start("s390x", |path, _| match path.contains("/namespaces/gone/") {
        true => Err((404, "namespaces \"gone\" not found".into())),
        false => Ok(Vec::new()),
    }));
    world.write("release.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: gone}}");
    let ended = world.install(&[]);
    ended.says(1, &["error[product]", "ConfigMap.v1 gone/a", "there is no namespace gone, and the release makes none"]);
    assert!(ended.took < Duration::from_secs(40), "{:?}", ended.took);
}

#[test]
fn an_object_is_there_twice_once_its_namespace_is_known() {
    let world = World::new(quiet("s390x"));
    let map = |namespace: &str| format!("---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a{namespace}}}}}\n");
    world.write("release.yaml", &(map("") + &map(", namespace: default")));
    world.install(&[]).says(2, &["error[usage]", "ConfigMap.v1 default/a is there twice"]);
    assert!(world.api.writes().is_empty(), "{:?}", world.api.writes());
}

#[test]
fn too_many_requests_are_sent_again() {
    let refused = AtomicUsize::new(0);
    let world = World::new(Api::start("s390x", move |path, _| match path.ends_with("/configmaps/a") {
        true if refused.fetch_add(1, Ordering::SeqCst) < 3 => Err((429, "too many requests, please try again".into())),
        _ => Ok(Vec::new()),
    }));
    world.install(&[]).says(0, &["2 created"]);
}

fn lease(holder: Option<&str>, renewed: &str) -> Value {
    json!({"spec": {"holderIdentity": holder, "leaseDurationSeconds": 900, "acquireTime": renewed, "renewTime": renewed}})
}

/// What it needs is installed while it waits.
#[test]
fn what_was_there_before_the_other_run_ended_does_not_count() {
    let world = World::new(quiet("s390x"));
    let now = format!("{:.6}", jiff::Timestamp::now());
    world.api.put(LEASE, lease(Some("other"), &now));
    world.write(
        "ci/components.toml",
        "[base]\npath = 'x'\nconfig = []\n[x]\npath = 'x'\nconfig = []\nneeds = ['base']\n",
    );
    let api = world.api.clone();
    std::thread::spawn(move || {
        until(|| api.requests().iter().filter(|request| request.ends_with("/leases")).count() > 0);
        std::thread::sleep(Duration::from_secs(1));
        let inventory = json!({"schemaVersion": "1.0", "component": "base", "version": "1", "release": "r", "run": "other",
            "platform": "linux/s390x", "installed": "2026-01-01T00:00:00Z", "objects": []});
        let map = json!({"metadata": {"labels": {"other-arch/inventory": "inventory-base"}}, "data": {"inventory.json": inventory.to_string()}});
        api.put("/api/v1/namespaces/other-arch/configmaps/inventory-base", map);
        api.put(LEASE, json!({"spec": {}}));
    });
    world.install(&["--wait-for-lease", "50s"]).says(0, &["waiting: run other holds the cluster", "2 created"]);
}

#[test]
fn a_dirty_cluster_is_refused_and_given_back() {
    let world = World::new(quiet("s390x"));
    world.api.put(LEASE, lease(Some("gone"), "2026-01-01T00:00:00.000000Z"));
    world.install(&[]).says(3, &["error[lease-held]", "is dirty: run gone used it and never cleaned it"]);
    assert_eq!(world.api.get(LEASE)["spec"]["holderIdentity"], Value::Null);
    world.install(&[]).says(3, &["is dirty: run gone used it"]);
}

/// Its lease then expires, and that tells whoever comes next what to do first.
#[test]
fn a_cluster_that_is_not_back_at_its_baseline_is_not_given_back() {
    let world = World::new(quiet("s390x"));
    let run = kit::RunDir::create(world.path("run")).unwrap();
    let cell = run.cell("x", &"linux/s390x".parse().unwrap(), "c");
    let holder = || world.api.get(LEASE)["spec"]["holderIdentity"].clone();
    let release = |more: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cluster-install"));
        command.args(["lease", "release", "--run-dir"]).arg(run.path()).args(more);
        let ended = command.arg("--kubeconfig").arg(world.path("config.json")).output().unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        String::from_utf8(ended.stderr).unwrap()
    };
    let now = format!("{:.6}", jiff::Timestamp::now());
    world.api.put(LEASE, lease(Some(&run.id()), &now));
    let head = kit::record::Head::new("cleanup", "0", &run.id(), jiff::Timestamp::now());
    let cluster = kit::record::ClusterId { uid: "u".into(), name: "c".into(), kubernetes: "v1".into(), nodes: vec![] };
    let (objects, unlisted, bodies, nodes) = (vec![], vec![], None, vec![]);
    let baseline =
        kit::record::Baseline { head: head.clone(), cluster: cluster.clone(), objects, unlisted, bodies, nodes };
    kit::rundir::write_record(&cell, &baseline).unwrap();
    assert!(release(&["--if-clean"]).contains("not given back: the run has a baseline"));
    assert_eq!(holder(), run.id());
    let cleanup = json!({"schemaVersion": "1.0", "tool": "cleanup", "toolVersion": "0", "run": run.id(), "outcome": "passed",
        "started": now, "finished": now, "cluster": cluster, "stage": "objects", "deleted": {}, "restored": [],
        "forced": [], "difference": {"added": [], "missing": [], "changed": []}});
    let cleanup: kit::record::Cleanup = serde_json::from_value(cleanup).unwrap();
    kit::rundir::write_record(&cell, &cleanup).unwrap();
    release(&["--if-clean"]);
    assert_eq!(holder(), Value::Null);
    // Without the question it is given back as it is.
    std::fs::remove_file(cell.join("cleanup.json")).unwrap();
    world.api.put(LEASE, lease(Some(&run.id()), &now));
    release(&[]);
    assert_eq!(holder(), Value::Null);
}
