//! Cleanup against a real cluster: whatever a run leaves, the cluster is where it was afterwards.
//!
//! A comparison is about the whole cluster, so these tests have a lab of their own, or the one that
//! `OTHER_ARCH_TEST_LAB_NAME` names, which must be nobody else's.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for what they do")]

mod support;

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{Lab, Run};

/// Everything in one test: one lab, and each part starts where the one before it left the cluster.
#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn whatever_a_run_leaves_the_cluster_is_where_it_was() {
    let lab = Lab::new();
    for (name, part) in PARTS {
        let began = Instant::now();
        let run = Run::new(&lab, name);
        assert_eq!(run.tool("snapshot", &[]).code, 0, "{name}: snapshot");
        part(&run);
        let left = lab.kubectl(&["get", "namespaces", "-o", "name"]);
        assert!(!left.contains("other-arch") && !left.contains("left-"), "{name} left {left}");
        eprintln!("{name}: {:.1} s", began.elapsed().as_secs_f64());
    }
}

type Part = fn(&Run<'_>);

const PARTS: &[(&str, Part)] = &[
    ("nothing", nothing_to_do),
    ("dry-run", a_dry_run_changes_nothing),
    ("workloads", workloads_go_quickly),
    ("finalizer", a_finalizer_without_its_controller),
    ("webhook", a_webhook_without_its_server),
    ("namespace", a_namespace_that_is_stuck),
    ("definition", a_definition_deleted_before_its_objects),
    ("conversion", a_conversion_without_its_server),
    ("put-back", what_was_changed_is_put_back),
    ("secret", a_changed_secret_is_reported_and_never_shown),
    ("volume", a_volume_with_data),
    ("restart", the_api_server_restarts_in_the_middle),
    ("killed", killed_and_started_again),
    ("unreachable", an_unreachable_cluster),
    ("permissions", missing_permissions_are_named_first),
    ("refusals", clusters_that_are_not_ours_are_refused),
];

fn nothing_to_do(run: &Run<'_>) {
    assert_eq!(run.tool("diff", &[]).code, 0);
    let record = run.back(&[], 0);
    assert_eq!(record["stage"], "none");
    assert_eq!(record["outcome"], "passed");
    // Once more, now that the cluster has forgotten the baseline.
    assert_eq!(run.back(&[], 0)["stage"], "none");
}

fn a_dry_run_changes_nothing(run: &Run<'_>) {
    run.apply(&[namespace("left-dry"), config_map("left-dry", "a", "1"), config_map("default", "left-dry", "1")]);
    let shown = run.tool("run", &["--dry-run"]);
    assert_eq!(shown.code, 0);
    for line in [
        "Namespace.v1 left-dry  (delete: custom resources and test namespaces)",
        "ConfigMap.v1 left-dry/a  (goes with its namespace)",
        "ConfigMap.v1 default/left-dry  (delete: roles, definitions, configuration)",
    ] {
        assert!(shown.stdout.contains(line), "{line} is not in\n{}", shown.stdout);
    }
    assert!(run.lab.kubectl(&["get", "configmap", "-n", "left-dry", "a", "-o", "name"]).contains("configmap/a"));
    let diff = run.tool("diff", &["--output", "json"]);
    assert_eq!(diff.code, 1);
    let diff: Value = serde_json::from_str(&diff.stdout).unwrap();
    assert!(
        diff["added"].as_array().unwrap().iter().any(|key| key["name"] == "left-dry" && key["kind"] == "Namespace")
    );
    assert_eq!(run.back(&[], 0)["stage"], "objects");
}

fn workloads_go_quickly(run: &Run<'_>) {
    run.apply(&[
        namespace("left-home"),
        namespace("left-test"),
        deployment("left-home", "controller", 2),
        deployment("left-test", "server", 2),
        deployment("default", "left-workload", 1),
        cluster_role_binding("left-controller", "left-home"),
    ]);
    for namespace in ["left-home", "left-test", "default"] {
        run.lab.kubectl(&[
            "wait",
            "-n",
            namespace,
            "--for=condition=Available",
            "deployment",
            "--all",
            "--timeout=60s",
        ]);
    }
    let began = Instant::now();
    let record = run.back(&[], 0);
    assert_eq!(record["deleted"]["Pod"], 5);
    // The namespace controller alone waits 5 s before it begins; the pods' own grace would be 30 s.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
}

fn a_finalizer_without_its_controller(run: &Run<'_>) {
    run.apply(&[definition("things", "Thing"), namespace("left-finalizer")]);
    run.served("things");
    run.apply(&[thing("left-finalizer", "held", &["left.example.com/wait"]), thing("left-finalizer", "free", &[])]);
    let record = run.back(&["--budget", "2"], 1);
    assert_eq!((&record["stage"], &record["cause"]), (&json!("needs-recreate"), &json!("not-at-baseline")));
    assert!(record["reproduce"].as_str().unwrap().starts_with("cargo xtask cleanup run"));
    let left = names(&record["difference"]["added"]);
    assert!(left.contains(&"held".to_owned()) && !left.contains(&"free".to_owned()), "{left:?}");
    let explained = run.tool("explain", &[]).stdout;
    assert!(explained.contains("the controller of left.example.com has to remove it"), "{explained}");
    assert!(explained.contains("NamespaceContentRemaining"), "{explained}");

    let record = run.back(&["--budget", "2", "--force-finalizers"], 0);
    assert_eq!(record["stage"], "force");
    assert_eq!(names(&record["forced"]), ["held"]);
}

fn a_webhook_without_its_server(run: &Run<'_>) {
    run.apply(&[
        namespace("left-webhook"),
        config_map("left-webhook", "a", "1"),
        config_map("default", "left-webhook", "1"),
    ]);
    run.apply(&[webhook("left-webhook", &["configmaps", "namespaces", "pods"])]);
    let record = run.back(&[], 0);
    assert_eq!(record["deleted"]["ValidatingWebhookConfiguration"], 1);
}

fn a_namespace_that_is_stuck(run: &Run<'_>) {
    run.apply(&[definition("things", "Thing"), namespace("left-stuck"), api_service("left-stuck")]);
    run.served("things");
    run.apply(&[thing("left-stuck", "held", &["left.example.com/wait"])]);
    run.lab.kubectl(&["delete", "namespace", "left-stuck", "--wait=false"]);
    let record = run.back(&["--budget", "3", "--force-finalizers"], 0);
    assert_eq!(record["stage"], "force");
    assert_eq!(record["deleted"]["APIService"], 1);
}

fn a_definition_deleted_before_its_objects(run: &Run<'_>) {
    run.apply(&[definition("things", "Thing")]);
    run.served("things");
    run.apply(&[thing("default", "held", &["left.example.com/wait"])]);
    run.lab.kubectl(&["delete", "customresourcedefinition", "things.left.example.com", "--wait=false"]);
    assert_eq!(run.back(&["--budget", "3", "--force-finalizers"], 0)["stage"], "force");
}

fn a_conversion_without_its_server(run: &Run<'_>) {
    run.apply(&[definition("things", "Thing")]);
    run.served("things");
    run.apply(&[thing("default", "old", &[])]);
    // A newer version is preferred, and nobody converts to it.
    let mut newer = definition("things", "Thing");
    let mut version = newer["spec"]["versions"][0].clone();
    version["name"] = json!("v2");
    version["storage"] = json!(false);
    newer["spec"]["versions"].as_array_mut().unwrap().push(version);
    let service = json!({"namespace": "default", "name": "left-nobody", "path": "/"});
    newer["spec"]["conversion"] = json!({"strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"], "clientConfig": {"service": service}}});
    run.apply(&[newer]);
    run.served("things");
    let ended = run.tool("run", &[]);
    assert_eq!(ended.code, 0, "{}", ended.everything());
    assert!(ended.stderr.contains("is in the way: its service default/left-nobody is gone"), "{}", ended.stderr);
    let deleted = &run.record()["deleted"];
    assert_eq!((&deleted["CustomResourceDefinition"], &deleted["Thing"]), (&json!(1), &json!(1)));
}

fn what_was_changed_is_put_back(run: &Run<'_>) {
    run.back(&[], 0);
    run.apply(&[
        namespace("kept"),
        config_map("kept", "flags", "stable"),
        config_map("kept", "gone", "here"),
        deployment("kept", "server", 1),
    ]);
    run.lab.kubectl(&["wait", "-n", "kept", "--for=condition=Available", "deployment", "--all", "--timeout=60s"]);
    let inner = Run::new(run.lab, "put-back-inner");
    assert_eq!(inner.tool("snapshot", &[]).code, 0);
    inner.lab.kubectl(&[
        "patch",
        "configmap",
        "-n",
        "kept",
        "flags",
        "--type=merge",
        "-p",
        r#"{"data":{"value":"alpha","new":"x"}}"#,
    ]);
    inner.lab.kubectl(&["label", "configmap", "-n", "kept", "flags", "added=label"]);
    inner.lab.kubectl(&["delete", "configmap", "-n", "kept", "gone"]);
    inner.lab.kubectl(&["scale", "deployment", "-n", "kept", "server", "--replicas=2"]);
    let diff = inner.tool("diff", &[]);
    assert!(
        diff.stdout.contains("~ ConfigMap.v1 kept/flags") && diff.stdout.contains("- ConfigMap.v1 kept/gone"),
        "{}",
        diff.stdout
    );
    let record = inner.back(&[], 0);
    let mut restored = names(&record["restored"]);
    restored.sort();
    assert_eq!(restored, ["flags", "gone", "server"]);
    let flags =
        inner.lab.kubectl(&["get", "configmap", "-n", "kept", "flags", "-o", "jsonpath={.data}{.metadata.labels}"]);
    assert_eq!(flags.trim(), r#"{"value":"stable"}"#);
    inner.lab.kubectl(&["delete", "namespace", "kept"]);
}

fn a_changed_secret_is_reported_and_never_shown(run: &Run<'_>) {
    run.back(&[], 0);
    run.lab.kubectl(&["create", "secret", "generic", "kept-secret", "--from-literal=password=before-zxcv"]);
    let inner = Run::new(run.lab, "secret-inner");
    assert_eq!(inner.tool("snapshot", &[]).code, 0);
    inner.lab.kubectl(&[
        "patch",
        "secret",
        "kept-secret",
        "--type=merge",
        "-p",
        r#"{"stringData":{"password":"after-zxcv"}}"#,
    ]);
    let record = inner.back(&[], 1);
    assert_eq!(names(&record["difference"]["changed"]), ["kept-secret"]);
    let files = ["baseline.json", "cleanup.json"].map(|name| std::fs::read_to_string(inner.cell().join(name)).unwrap());
    for text in files.iter().chain([&inner.tool("diff", &[]).everything()]) {
        // As it is, and in the base64 of the API.
        for hidden in ["zxcv", "YmVmb3Jl", "YWZ0ZXIt"] {
            assert!(!text.contains(hidden), "the content of a Secret is shown");
        }
    }
    inner.lab.kubectl(&["delete", "secret", "kept-secret"]);
    let record = inner.back(&[], 1);
    assert_eq!(names(&record["difference"]["missing"]), ["kept-secret"]);
    inner.lab.kubectl(&["delete", "namespace", "other-arch"]);
}

fn a_volume_with_data(run: &Run<'_>) {
    run.apply(&[
        namespace("left-volume"),
        claim("left-volume", "data"),
        pod_with_claim("left-volume", "writer", "data"),
    ]);
    run.lab.kubectl(&["wait", "-n", "left-volume", "--for=condition=Ready", "pod/writer", "--timeout=60s"]);
    let record = run.back(&[], 0);
    assert_eq!(record["deleted"]["PersistentVolume"], 1);
    assert_eq!(record["deleted"]["PersistentVolumeClaim"], 1);
}

fn the_api_server_restarts_in_the_middle(run: &Run<'_>) {
    run.leave_much("left-restart", 6);
    let working = run.start("run", &[]);
    std::thread::sleep(Duration::from_millis(700));
    run.lab.tool(&["kill", "kube-apiserver"]);
    let ended = working.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(run.record()["difference"]["added"].as_array().unwrap().len(), 0);
}

fn killed_and_started_again(run: &Run<'_>) {
    run.leave_much("left-killed", 6);
    for after in [60, 150, 300, 500, 800, 1200, 2000, 3000] {
        let mut working = run.start("run", &[]);
        std::thread::sleep(Duration::from_millis(after));
        working.kill().unwrap();
        working.wait_with_output().unwrap();
    }
    let working = run.start("run", &[]);
    std::thread::sleep(Duration::from_millis(400));
    run.interrupt(&working);
    assert_eq!(working.wait_with_output().unwrap().status.code(), Some(130));
    let record = run.record();
    assert_eq!((&record["outcome"], &record["cause"]), (&json!("failed"), &json!("interrupted")));
    run.back(&[], 0);
}

fn an_unreachable_cluster(run: &Run<'_>) {
    run.lab.tool(&["kill", "kube-apiserver", "--hold"]);
    let ended = run.tool("run", &[]);
    run.lab.tool(&["start", "kube-apiserver"]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let record = run.record();
    assert_eq!((&record["cause"], &record["stage"]), (&json!("cluster-unreachable"), &json!("none")));
    run.lab.ready();
    run.back(&[], 0);
}

fn missing_permissions_are_named_first(run: &Run<'_>) {
    run.apply(&[config_map("default", "left-permissions", "1")]);
    let kubeconfig = run.lab.reader();
    let refused = run.with_cluster(&["--kubeconfig", kubeconfig.to_str().unwrap()]);
    std::fs::create_dir_all(refused.cell().parent().unwrap()).unwrap();
    std::fs::rename(run.cell(), refused.cell()).unwrap();
    let ended = refused.tool("run", &[]);
    std::fs::rename(refused.cell(), run.cell()).unwrap();
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("may not ") && ended.stderr.contains("delete configmaps"), "{}", ended.stderr);
    assert!(run.lab.kubectl(&["get", "configmap", "left-permissions", "-o", "name"]).contains("left-permissions"));
    run.lab.remove_reader();
    run.back(&[], 0);
}

fn clusters_that_are_not_ours_are_refused(run: &Run<'_>) {
    run.apply(&[config_map("default", "left-refused", "1")]);
    let file = run.cell().join("baseline.json");
    let good = std::fs::read_to_string(&file).unwrap();
    let uid = serde_json::from_str::<Value>(&good).unwrap()["cluster"]["uid"].as_str().unwrap().to_owned();

    std::fs::write(&file, good.replace(&uid, "00000000-other")).unwrap();
    let ended = run.tool("run", &[]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains(&uid) && ended.stderr.contains("00000000-other"), "{}", ended.stderr);

    std::fs::write(&file, format!("{good} ")).unwrap();
    let ended = run.tool("run", &[]);
    assert_eq!(ended.code, 2, "{}", ended.stderr);
    assert!(ended.stderr.contains(&format!("--cluster-uid {uid}")), "{}", ended.stderr);
    assert_eq!(run.tool("run", &["--cluster-uid", "another"]).code, 2);

    std::fs::write(&file, &good[..good.len() / 2]).unwrap();
    let ended = run.tool("run", &[]);
    assert_eq!(ended.code, 2);
    assert!(ended.stderr.contains("baseline.json"), "{}", ended.stderr);

    std::fs::write(&file, &good).unwrap();
    let other = Run::new(run.lab, "refusals-other");
    let ended = other.tool("snapshot", &[]);
    assert_eq!(ended.code, 3);
    assert!(ended.stderr.contains("holds the cluster"), "{}", ended.stderr);
    assert_eq!(other.tool("run", &[]).code, 2, "there is no baseline");
    run.back(&["--cluster-uid", &uid], 0);
}

fn names(keys: &Value) -> Vec<String> {
    keys.as_array().unwrap().iter().map(|key| key["name"].as_str().unwrap().to_owned()).collect()
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

fn config_map(namespace: &str, name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": namespace, "name": name}, "data": {"value": value}})
}

fn pod_spec() -> Value {
    // The image that every node of a lab has, for the sandboxes of its pods.
    json!({"terminationGracePeriodSeconds": 30, "containers": [
        {"name": "main", "image": "other-arch.lab/pause:1", "imagePullPolicy": "Never"}]})
}

fn deployment(namespace: &str, name: &str, replicas: u32) -> Value {
    let labels = json!({"app": name});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": namespace, "name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod_spec()}}})
}

fn claim(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"namespace": namespace, "name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}})
}

fn pod_with_claim(namespace: &str, name: &str, claim: &str) -> Value {
    let mut spec = pod_spec();
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    spec["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/data"}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": namespace, "name": name}, "spec": spec})
}

fn cluster_role_binding(name: &str, namespace: &str) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": namespace}]})
}

fn definition(plural: &str, kind: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.left.example.com")},
        "spec": {"group": "left.example.com", "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}})
}

fn thing(namespace: &str, name: &str, finalizers: &[&str]) -> Value {
    json!({"apiVersion": "left.example.com/v1", "kind": "Thing",
        "metadata": {"namespace": namespace, "name": name, "finalizers": finalizers}})
}

fn webhook(name: &str, resources: &[&str]) -> Value {
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{"name": "left.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "failurePolicy": "Fail", "timeoutSeconds": 10,
            "clientConfig": {"service": {"namespace": "left-nowhere", "name": "nobody"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["DELETE", "CREATE", "UPDATE"],
                "resources": resources}]}]})
}

fn api_service(namespace: &str) -> Value {
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": "v1.dead.example.com"},
        "spec": {"group": "dead.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"namespace": namespace, "name": "nobody"}}})
}
