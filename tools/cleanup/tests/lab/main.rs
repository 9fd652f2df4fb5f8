//! Cleanup against a real cluster: whatever a run leaves, the cluster is where it was afterwards.
//!
//! A comparison is about the whole cluster, so these tests have a lab of their own, or the one that
//! `OTHER_ARCH_TEST_LAB_NAME` names, which must be nobody else's.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for what they do")]

mod interrupted;
mod support;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use interrupted::{an_unreachable_cluster, killed_and_started_again, the_api_server_restarts_in_the_middle};
use serde_json::{Value, json};
use support::{Lab, Run, objects::*};

/// What a cluster is used for every night.
#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn a_used_cluster_is_where_it_was() {
    each(PARTS);
}

/// What keeps a cluster from getting back.
#[test]
#[ignore = "needs a lab for minutes: cargo xtask test --faults runs it"]
fn faults_of_any_kind_leave_the_cluster_where_it_was() {
    each(FAULTS);
}

/// All of them in one lab: each part starts where the one before it left the cluster.
fn each(parts: &[(&str, Part)]) {
    let lab = Lab::new();
    for (name, part) in parts {
        let began = Instant::now();
        let run = Run::new(&lab, name);
        assert_eq!(run.tool("snapshot", &[]).code, 0, "{name}: snapshot");
        part(&run);
        let diff = run.tool("diff", &[]);
        assert_eq!(diff.code, 0, "{name} left {}", diff.everything());
        lab.forgotten();
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
    ("selection", a_part_goes_and_the_rest_stays),
    ("put-back", what_was_changed_is_put_back),
    ("feature-flags", a_components_feature_flags_are_put_back),
    ("secret", a_changed_secret_is_reported_and_never_shown),
    ("volume", a_volume_with_data),
    ("permissions", missing_permissions_are_named_first),
    ("refusals", clusters_that_are_not_ours_are_refused),
];

const FAULTS: &[(&str, Part)] = &[
    ("finalizer", a_finalizer_without_its_controller),
    ("controllers", controllers_deleted_first),
    ("reappears", what_somebody_makes_again_is_named),
    ("expired", a_cluster_whose_holder_expired_is_adopted),
    ("sweep", a_shared_cluster_is_swept_with_few_rights),
    ("webhook", a_webhook_without_its_server),
    ("namespace", a_namespace_that_is_stuck),
    ("definition", a_definition_deleted_before_its_objects),
    ("conversion", a_conversion_without_its_server),
    ("restart", the_api_server_restarts_in_the_middle),
    ("killed", killed_and_started_again),
    ("unreachable", an_unreachable_cluster),
];

fn nothing_to_do(run: &Run<'_>) {
    assert_eq!(run.tool("diff", &[]).code, 0);
    let nodes = Run::new(run.lab, "nothing-inner");
    run.back(&[], 0);
    run.lab.forgotten();
    assert_eq!(nodes.tool("snapshot", &["--nodes"]).code, 0);
    let baseline: Value = serde_json::from_slice(&std::fs::read(nodes.cell().join("baseline.json")).unwrap()).unwrap();
    assert!(!baseline["nodes"][0]["images"].as_array().unwrap().is_empty(), "{}", baseline["nodes"]);
    assert!(baseline["nodes"][0].get("unasked").is_none(), "{}", baseline["nodes"]);
    assert_eq!(nodes.tool("diff", &[]).code, 0);
    nodes.back(&[], 0);
    run.lab.forgotten();
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
    let rows: Value = serde_json::from_str(&run.tool("run", &["--dry-run", "--output", "json"]).stdout).unwrap();
    let mut would: BTreeMap<String, usize> = BTreeMap::new();
    for row in rows.as_array().unwrap() {
        *would.entry(row["object"]["kind"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    assert!(run.lab.kubectl(&["get", "configmap", "-n", "left-dry", "a", "-o", "name"]).contains("configmap/a"));
    let diff = run.tool("diff", &["--output", "json"]);
    assert_eq!(diff.code, 1);
    let diff: Value = serde_json::from_str(&diff.stdout).unwrap();
    assert!(
        diff["added"].as_array().unwrap().iter().any(|key| key["name"] == "left-dry" && key["kind"] == "Namespace")
    );
    let record = run.back(&[], 0);
    assert_eq!(record["stage"], "objects");
    assert_eq!(record["deleted"], json!(would), "what went is what was shown");
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
    // Its kind is not among those that may be forced.
    let record = run.back(&["--budget", "finalizers=2", "--force-finalizers=Other,Pod"], 1);
    assert_eq!(record["forced"], json!([]));
    assert_eq!((&record["stage"], &record["cause"]), (&json!("needs-recreate"), &json!("not-at-baseline")));
    assert!(record["reproduce"].as_str().unwrap().starts_with("cargo xtask cleanup run"));
    let left = names(&record["difference"]["added"]);
    assert!(left.contains(&"held".to_owned()) && !left.contains(&"free".to_owned()), "{left:?}");
    let explained = run.tool("explain", &[]).stdout;
    for line in [
        "finalizer left.example.com/wait: set by 'kubectl'; no workload of this cluster may remove it",
        "--force-finalizers=things.left.example.com",
        "NamespaceContentRemaining",
    ] {
        assert!(explained.contains(line), "{line} is not in\n{explained}");
    }

    let record = run.back(&["--budget", "finalizers=2", "--force-finalizers=things.left.example.com"], 0);
    assert_eq!(record["stage"], "force");
    assert_eq!(names(&record["forced"]), ["held"]);
}

/// What remains of an operator when somebody deleted its Deployment before what it manages.
fn controllers_deleted_first(run: &Run<'_>) {
    run.apply(&[
        definition("things", "Thing"),
        namespace("left-home"),
        account("left-home", "wait"),
        role_to_update("left-wait", "things"),
        binding("left-wait", "left-home", "wait"),
        deployment_as("left-home", "example-wait", 1, "wait"),
        namespace("left-user"),
    ]);
    run.served("things");
    run.apply(&[thing("left-user", "held", &["left.example.com/wait"])]);
    run.lab.kubectl(&["delete", "thing", "-n", "left-user", "held", "--wait=false"]);
    let explained = || run.tool("explain", &["--output", "json"]).stdout;
    let reason = |text: &str| -> Value {
        let all: Value = serde_json::from_str(text).unwrap();
        let held = all.as_array().unwrap().iter().find(|one| one["object"]["name"] == "held").cloned().unwrap();
        held["reasons"].as_array().unwrap().iter().find(|one| one["what"] == "finalizer").cloned().unwrap()
    };
    run.lab.kubectl(&["wait", "-n", "left-home", "--for=condition=Available", "deployment", "--all", "--timeout=60s"]);
    let alive = reason(&explained());
    assert!(
        alive["controller"].as_str().unwrap().contains("Deployment left-home/example-wait (1 of 1 ready)"),
        "{alive}"
    );
    assert_eq!((&alive["alive"], &alive["allowed"]), (&json!(true), &json!(true)), "{alive}");
    run.lab.kubectl(&["delete", "clusterrolebinding", "left-wait"]);
    run.lab.kubectl(&["scale", "deployment", "-n", "left-home", "example-wait", "--replicas=0"]);
    run.lab.kubectl(&["delete", "deployment", "-n", "left-home", "example-wait"]);
    let gone = reason(&explained());
    assert_eq!((&gone["alive"], &gone["controller"]), (&json!(false), &Value::Null), "{gone}");
    let record = run.back(&["--budget", "finalizers=3", "--force-finalizers=Thing"], 0);
    assert_eq!(names(&record["forced"]), ["held"]);
}

fn what_somebody_makes_again_is_named(run: &Run<'_>) {
    run.back(&[], 0);
    run.lab.forgotten();
    // The controller manager makes it again at once.
    let account = account("default", "default");
    let release = run.lab.file("account.json", &account.to_string());
    let elsewhere = Run::new(run.lab, "reappears-elsewhere");
    let began = Instant::now();
    let ended = elsewhere.tool("run", &["--release", release.to_str().unwrap(), "--cluster-uid", &run.lab.uid()]);
    assert_eq!(ended.code, 1, "{}", ended.everything());
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let line = "ServiceAccount.v1 default/default was deleted 3 times and made again each time";
    assert!(ended.stdout.contains(line), "{}", ended.everything());
    run.lab.kubectl(&["delete", "namespace", "other-arch"]);
}

fn a_part_goes_and_the_rest_stays(run: &Run<'_>) {
    let labelled = |name: &str| {
        let mut namespace = namespace(name);
        namespace["metadata"]["labels"] = json!({"tekton.dev/test-e2e": "true"});
        namespace
    };
    run.apply(&[
        labelled("left-old"),
        config_map("left-old", "a", "1"),
        namespace("left-other"),
        config_map("default", "left-release", "1"),
        config_map("default", "left-stays", "1"),
    ]);
    let part = ["--label", "tekton.dev/test-e2e=true", "--older-than", "1s"];
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(run.tool("run", &["--label", "tekton.dev/test-e2e=true", "--older-than", "1h"]).code, 0);
    let shown = run.tool("run", &[&part[..], &["--dry-run", "--output", "json"]].concat()).stdout;
    let rows: Value = serde_json::from_str(&shown).unwrap();
    let would: Vec<String> = rows
        .as_array()
        .unwrap()
        .iter()
        .map(|row| format!("{}/{}", row["object"]["kind"].as_str().unwrap(), row["object"]["name"].as_str().unwrap()))
        .collect();
    assert_eq!(would, ["Namespace/left-old", "ConfigMap/a", "ServiceAccount/default"], "{shown}");
    let ended = run.tool("run", &[&part[..], &["--output", "json"]].concat());
    assert_eq!(ended.code, 0, "{}", ended.everything());
    let record: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(record["deleted"], json!({"Namespace": 1, "ConfigMap": 1, "ServiceAccount": 1}));
    assert!(!run.cell().join("cleanup.json").exists(), "a part is no proof of the whole");
    assert!(run.cell().join("cleanup-part.json").exists());

    // A release file, where no baseline is: only when the cluster is named.
    let release = run.lab.file(
        "release.json",
        &json!({"apiVersion": "v1", "kind": "List", "items": [
        config_map("default", "left-release", "2"), namespace("kube-system")]})
        .to_string(),
    );
    let elsewhere = Run::new(run.lab, "selection-elsewhere");
    let release = ["--release", release.to_str().unwrap()];
    let held = elsewhere.tool("run", &[&release[..], &["--cluster-uid", &run.lab.uid()]].concat());
    assert_eq!(held.code, 3, "another run holds the cluster: {}", held.everything());
    let ended = run.tool("run", &release);
    assert_eq!(ended.code, 0, "{}", ended.everything());
    let left = run.lab.kubectl(&["get", "configmaps,namespaces", "-n", "default", "-o", "name"]);
    assert!(!left.contains("left-release") && left.contains("left-stays") && left.contains("left-other"), "{left}");
    run.back(&[], 0);
    run.lab.forgotten();

    run.apply(&[config_map("default", "left-release", "1")]);
    let refused = elsewhere.tool("run", &release);
    assert_eq!(refused.code, 2, "{}", refused.everything());
    assert!(refused.stderr.contains("holds no inventory of ours"), "{}", refused.stderr);
    let ended = elsewhere.tool("run", &[&release[..], &["--cluster-uid", &run.lab.uid()]].concat());
    // The namespace kube-system is named as well, and protected, with all that is in it.
    assert_eq!(ended.code, 0, "{}", ended.everything());
    let left = run.lab.kubectl(&["get", "configmaps,namespaces", "-n", "default", "-o", "name"]);
    assert!(!left.contains("left-release") && left.contains("kube-system"), "{left}");
    run.lab.kubectl(&["delete", "namespace", "other-arch", "--ignore-not-found"]);
}

fn a_cluster_whose_holder_expired_is_adopted(run: &Run<'_>) {
    run.apply(&[namespace("left-expired")]);
    let lease =
        |patch: &str| run.lab.kubectl(&["patch", "lease", "run", "-n", "other-arch", "--type=merge", "-p", patch]);
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.000000Z").to_string();
    lease(&format!(r#"{{"spec":{{"holderIdentity":"r-other","renewTime":"{now}"}}}}"#));
    let refused = run.tool("run", &[]);
    assert_eq!(refused.code, 3, "{}", refused.everything());
    assert!(refused.stderr.contains("run r-other holds the cluster"), "{}", refused.stderr);
    assert!(run.lab.kubectl(&["get", "namespaces"]).contains("left-expired"), "nothing is deleted while it lives");
    lease(r#"{"spec":{"renewTime":"2026-01-01T00:00:00.000000Z"}}"#);
    let ended = run.tool("run", &[]);
    assert_eq!(ended.code, 0, "{}", ended.everything());
    assert!(ended.stderr.contains("this also cleans what run r-other left"), "{}", ended.stderr);
}

fn a_shared_cluster_is_swept_with_few_rights(run: &Run<'_>) {
    let lab = run.lab;
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../ci/sweep.yaml");
    lab.kubectl(&["apply", "--server-side", "-f", file]);
    let labelled = |name: &str| {
        let mut namespace = namespace(name);
        namespace["metadata"]["labels"] = json!({"tekton.dev/test-e2e": "true"});
        namespace
    };
    run.apply(&[
        labelled("left-swept"),
        config_map("left-swept", "a", "1"),
        deployment("left-swept", "server", 1),
        namespace("left-not-swept"),
        deployment("left-not-swept", "server", 1),
    ]);
    let kubeconfig = lab.account("sweep", "other-arch-sweep");
    let config = kubeconfig.to_str().unwrap();
    // It can do this and no more: the policy counts as soon as the API server has seen it.
    let refused = |args: &[&str]| lab.may(&[&["--kubeconfig", config], args].concat()).unwrap_err();
    let began = Instant::now();
    while lab.may(&["--kubeconfig", config, "delete", "namespace", "left-not-swept", "--dry-run=server"]).is_ok() {
        assert!(began.elapsed() < Duration::from_secs(30), "the policy never counts");
    }
    for beyond in [
        &["delete", "namespace", "left-not-swept"][..],
        &["delete", "--raw", "/api/v1/namespaces/left-not-swept/pods"],
        &["delete", "deployment", "-n", "left-swept", "server"],
        &["get", "secrets", "-n", "left-swept"],
        &["create", "namespace", "left-made"],
        &["label", "namespace", "left-not-swept", "tekton.dev/test-e2e=true"],
    ] {
        assert!(refused(beyond).to_lowercase().contains("forbidden"), "{beyond:?}");
    }
    let label = ["sweep", "--label", "tekton.dev/test-e2e=true", "--older-than", "1s"];
    let sweep = |more: &[&str]| lab.cleanup(&[&label[..], &["--kubeconfig", config], more].concat());
    let unnamed = sweep(&[]);
    assert_eq!(unnamed.code, 2, "{}", unnamed.everything());
    assert!(unnamed.stderr.contains(&format!("--cluster-uid {}", lab.uid())), "{}", unnamed.stderr);
    let uid = lab.uid();
    // A run that holds the cluster since before they were made keeps them.
    let dry = sweep(&["--cluster-uid", &uid, "--dry-run", "--output", "json"]);
    let dry: Value = serde_json::from_str(&dry.stdout).unwrap();
    assert_eq!((&dry["swept"], &dry["spared"]), (&json!([]), &json!(["left-swept"])));
    lab.kubectl(&[
        "patch",
        "lease",
        "run",
        "-n",
        "other-arch",
        "--type=merge",
        "-p",
        r#"{"spec":{"holderIdentity":""}}"#,
    ]);
    let began = Instant::now();
    let swept = sweep(&["--cluster-uid", &uid]);
    assert_eq!(swept.code, 0, "{}", swept.everything());
    assert!(swept.stdout.contains("left-swept  (gone)"), "{}", swept.stdout);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let left = lab.kubectl(&["get", "namespaces", "-o", "name"]);
    assert!(!left.contains("left-swept") && left.contains("left-not-swept"), "{left}");
    assert_eq!(lab.cleanup(&[&label[..], &lab.options()].concat()).stdout.trim(), "nothing to sweep");
    lab.kubectl(&["delete", "--wait=false", "-f", file]);
    run.back(&[], 0);
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
    let record = run.back(&["--budget", "finalizers=3", "--force-finalizers"], 0);
    assert_eq!(record["stage"], "force");
    assert_eq!(record["deleted"]["APIService"], 1);
}

fn a_definition_deleted_before_its_objects(run: &Run<'_>) {
    run.apply(&[definition("things", "Thing")]);
    run.served("things");
    run.apply(&[thing("default", "held", &["left.example.com/wait"])]);
    run.lab.kubectl(&["delete", "customresourcedefinition", "things.left.example.com", "--wait=false"]);
    assert_eq!(run.back(&["--budget", "finalizers=3", "--force-finalizers"], 0)["stage"], "force");
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
    for line in [
        "~ ConfigMap.v1 kept/flags  (data.new, data.value, metadata.labels.added)",
        "- ConfigMap.v1 kept/gone",
        "(spec.replicas)",
    ] {
        assert!(diff.stdout.contains(line), "{line} is not in\n{}", diff.stdout);
    }
    let record = inner.back(&[], 0);
    let mut restored = names(&record["restored"]);
    restored.sort();
    assert_eq!(restored, ["flags", "gone", "server"]);
    let flags =
        inner.lab.kubectl(&["get", "configmap", "-n", "kept", "flags", "-o", "jsonpath={.data}{.metadata.labels}"]);
    assert_eq!(flags.trim(), r#"{"value":"stable"}"#);
    run.back(&["--cluster-uid", &run.lab.uid()], 0);
}

/// As tests of alpha features leave a component that stays: its ConfigMap by the name that Tekton uses, written by whoever
/// applied it, and patched by another.
fn a_components_feature_flags_are_put_back(run: &Run<'_>) {
    run.back(&[], 0);
    let mut flags = config_map("tekton-pipelines", "feature-flags", "");
    flags["metadata"]["labels"] = json!({"app.kubernetes.io/part-of": "tekton-pipelines"});
    flags["data"] = json!({"enable-api-fields": "beta", "results-from": "termination-message"});
    run.apply(&[namespace("tekton-pipelines"), flags]);
    let inner = Run::new(run.lab, "feature-flags-inner");
    assert_eq!(inner.tool("snapshot", &[]).code, 0);
    let patch = r#"{"data":{"enable-api-fields":"alpha","results-from":"sidecar-logs","max-result-size":"8192"}}"#;
    let of = ["configmap", "-n", "tekton-pipelines", "feature-flags"];
    inner.lab.kubectl(&[&["patch"], &of[..], &["--type=merge", "-p", patch]].concat());
    let diff = inner.tool("diff", &[]).stdout;
    let line = "feature-flags  (data.enable-api-fields, data.max-result-size, data.results-from)";
    assert!(diff.contains(line), "{diff}");
    assert_eq!(names(&inner.back(&[], 0)["restored"]), ["feature-flags"]);
    let now = inner.lab.kubectl(&[&["get"], &of[..], &["-o", "jsonpath={.data}"]].concat());
    assert_eq!(now.trim(), r#"{"enable-api-fields":"beta","results-from":"termination-message"}"#);
    run.back(&["--cluster-uid", &run.lab.uid()], 0);
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
    // Its data is a folder of the node, whose files lie with the lab's own.
    let path = r#"jsonpath={.items[?(@.spec.claimRef.namespace=="left-volume")].spec.hostPath.path}"#;
    let path = run.lab.kubectl(&["get", "persistentvolumes", "-o", path]);
    let folder = run.lab.folder().join("state").join(path.trim().trim_start_matches('/'));
    std::fs::write(folder.join("data"), "of a test").unwrap();
    let record = run.back(&[], 0);
    assert!(!folder.exists(), "the data is still there: {}", folder.display());
    assert_eq!(record["deleted"]["PersistentVolume"], 1);
    assert_eq!(record["deleted"]["PersistentVolumeClaim"], 1);
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
