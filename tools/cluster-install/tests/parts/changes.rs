//! What an installation changes of a release, and of what an earlier one left; and what is in its way.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    Part, deployment, other, own_image,
    support::{Ended, Run},
    until,
};

pub(crate) const PARTS: &[(&str, Part)] = &[
    ("prune", what_a_new_version_lacks_is_removed),
    ("flags", flags_are_set_before_anything_starts_and_put_back),
    ("extras", files_registries_logins_and_certificates),
    ("needs", what_it_needs_comes_first),
    ("race", of_two_runs_one_gets_the_cluster),
    ("noarch", no_node_of_its_architecture_ends_the_wait),
    ("stored", a_stored_version_that_is_gone),
    ("applying", the_api_server_restarts_while_we_apply),
];

fn map(name: &str, value: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: NAMESPACE}}\ndata: {{value: '{value}'}}\n"
    )
}

fn what_a_new_version_lacks_is_removed(run: &Run<'_>) {
    let base = deployment(&own_image(run.lab), "sleep 1000", "");
    let (old, new) = (base.clone() + &map("kept", "1") + &map("old", "1"), base + &map("kept", "2") + &map("new", "1"));
    run.install(&old, &[]).says(0, &["4 created"]);
    let file = run.folder.join("new.yaml");
    std::fs::write(&file, new.replace("NAMESPACE", &run.namespace)).unwrap();
    let plan = ["plan", "--component", "try", "--release", file.to_str().unwrap()];
    let words = [
        "- ConfigMap.v1",
        "/old",
        "-  value: '1'\n+  value: '2'",
        "1 new, 1 changed, 2 unchanged, 1 removed",
        "/web/main",
    ];
    run.tool(&plan).says(0, &words);
    run.install(&new, &[]).says(0, &["1 created, 1 changed, 2 as they were, 1 of an earlier version removed"]);
    let record = run.record();
    assert_eq!(record["pruned"][0]["name"], "old");
    let applied: Vec<_> =
        record["applied"].as_array().unwrap().iter().map(|object| (&object["name"], &object["change"])).collect();
    assert_eq!(applied.len(), 2);
    assert!(
        applied.contains(&(&json!("new"), &json!("created"))) && applied.contains(&(&json!("kept"), &json!("changed")))
    );
    let names = run.lab.kubectl(&["get", "configmaps", "-n", &run.namespace, "-o", "name"]);
    assert!(!names.contains("/old") && names.contains("/new"), "{names}");
    // The record is in the cluster as well, beside the inventory.
    let kept = run.lab.kubectl(&[
        "get",
        "configmap",
        "inventory-try",
        "-n",
        "other-arch",
        "-o",
        "jsonpath={.data.install\\.json}",
    ]);
    let kept: Value = serde_json::from_str(&kept).unwrap();
    assert_eq!((&kept["release"], &kept["running"]), (&record["release"], &record["running"]));
    run.install(&new, &[]).says(0, &["0 created, 0 changed, 4 as they were"]);
}

/// The component was there before, with other flags: the baseline has them, and cleanup puts them back.
fn flags_are_set_before_anything_starts_and_put_back(run: &Run<'_>) {
    let ci = run.folder.join("ci");
    std::fs::create_dir_all(&ci).unwrap();
    let component = "[try]\npath = 'x'\nconfig = []\nsettings = { flags = { always = 'yes' } }\n\
                     [try.flags.alpha.flags]\napi = 'alpha'\n";
    std::fs::write(ci.join("components.toml"), component).unwrap();
    let ci = ci.to_str().unwrap();
    let release = deployment(&own_image(run.lab), "test $API = alpha && test $ALWAYS = yes && sleep 1000", "")
        .replace("containers: [{name: main,", "containers: [{name: main, env: [{name: API, valueFrom: {configMapKeyRef: {name: flags, key: api}}}, {name: ALWAYS, valueFrom: {configMapKeyRef: {name: flags, key: always}}}],")
        + "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: flags, namespace: NAMESPACE}\ndata: {api: stable}\n";
    let before = format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {0}}}}}\n---\n\
         {{apiVersion: v1, kind: ConfigMap, metadata: {{name: flags, namespace: {0}}}, data: {{api: beta}}}}\n",
        run.namespace
    );
    let file = run.folder.join("before.yaml");
    std::fs::write(&file, before).unwrap();
    run.lab.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    let place = ["--component", "try", "--run-dir", run.folder.to_str().unwrap(), "--lab", &run.lab.name];
    run.lab.beside("cleanup", &[&["snapshot"], &place[..]].concat());

    run.install(&release, &["--flags", "gamma", "--ci", ci]).says(2, &["no set of flags 'gamma'", "alpha"]);
    run.install(&release, &["--set", "other.a=b", "--ci", ci])
        .says(2, &["no ConfigMap 'other'", "its ConfigMaps: flags"]);
    let flags = ["--flags", "alpha", "--set", "flags.own=1", "--ci", ci, "--force-conflicts"];
    run.install(&release, &flags).says(0, &["flags: alpha", "flags api=alpha", "flags own=1"]);
    let record = run.record();
    assert_eq!(record["flags"], "alpha");
    let set: Vec<_> =
        record["settings"].as_array().unwrap().iter().map(|set| (&set["key"], &set["value"], &set["before"])).collect();
    assert_eq!(
        set,
        [
            (&json!("always"), &json!("yes"), &Value::Null),
            (&json!("api"), &json!("alpha"), &json!("stable")),
            (&json!("own"), &json!("1"), &Value::Null)
        ]
    );
    run.lab.beside("cleanup", &[&["run"], &place[..]].concat());
    let data = run.lab.kubectl(&["get", "configmap", "flags", "-n", &run.namespace, "-o", "jsonpath={.data}"]);
    assert_eq!(serde_json::from_str::<Value>(&data).unwrap(), json!({"api": "beta"}));
}

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";

fn files_registries_logins_and_certificates(run: &Run<'_>) {
    let image = own_image(run.lab);
    let elsewhere = image.replace(&run.lab.registry, "registry.invalid/there");
    let release = deployment(&elsewhere, "test -s /etc/other-arch-ca/ca.crt && sleep 1000", "");
    let write = |name: &str, text: &str| {
        let file = run.folder.join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let extra = write("extra.yaml", &map("interceptor", "1").replace("NAMESPACE", &run.namespace));
    let logins =
        write("config.json", &json!({"auths": {"registry.invalid": {"auth": "aHVudGVyMjpodW50ZXIy"}}}).to_string());
    let bundle = write("ca.pem", CERTIFICATE);
    let registry = format!("registry.invalid/there={}", run.lab.registry);
    let args = ["--extra", &extra, "--registry", &registry, "--pull-secret", &logins, "--ca-bundle", &bundle];
    let ended = run.install(&release, &args);
    ended.says(0, &["5 objects: 5 created", "/web/main"]);
    assert!(!ended.stderr.contains("aHVudGVy") && !ended.stdout.contains("aHVudGVy"));
    let record = run.record();
    assert!(!record.to_string().contains("aHVudGVy"));
    assert_eq!(record["registries"]["registry.invalid/there"], run.lab.registry.as_str());
    assert_eq!(record["running"][0]["image"], image.as_str());
    let secrets = "jsonpath={.spec.template.spec.imagePullSecrets[0].name}";
    let secrets = run.lab.kubectl(&["get", "deployment", "web", "-n", &run.namespace, "-o", secrets]);
    assert_eq!(secrets.trim(), "other-arch-pull");
    run.install(&release, &args).says(0, &["0 created, 0 changed, 5 as they were"]);
    // Without them the pods are what they were, and what was for them goes.
    run.install(&deployment(&image, "sleep 1000", ""), &[]).says(0, &["3 of an earlier version removed"]);
    run.install(&release, &["--registry", "other.invalid=a"]).says(2, &["names no image of other.invalid"]);
    let twice =
        write("twice.yaml", &format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {}}}}}", run.namespace));
    run.install(&release, &["--extra", &twice]).says(2, &["is in", "already"]);
}

fn what_it_needs_comes_first(run: &Run<'_>) {
    let ci = run.folder.join("ci");
    std::fs::create_dir_all(&ci).unwrap();
    let components = "[base]\npath = 'x'\nconfig = []\n[try]\npath = 'x'\nconfig = []\nneeds = ['base']\n";
    std::fs::write(ci.join("components.toml"), components).unwrap();
    let ci = ci.to_str().unwrap();
    let release = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {}}}}}\n", run.namespace);
    run.install(&release, &["--ci", ci]).says(2, &["try needs base, and we have not installed it", "--component base"]);
    run.install(&release, &["--ci", ci, "--no-needs-check"]).says(0, &["1 created"]);
    let file = run.folder.join("base.yaml");
    std::fs::write(&file, release).unwrap();
    let folder = run.folder.to_str().unwrap();
    run.tool(&["install", "--component", "base", "--run-dir", folder, "--release", file.to_str().unwrap()])
        .says(0, &[]);
    run.install(&map("own", "1"), &["--ci", ci]).says(0, &["1 created"]);
}

fn of_two_runs_one_gets_the_cluster(run: &Run<'_>) {
    for round in 0..3 {
        let take = |name: &str| run.command(&["lease", "take", "--run", name, "--lab", &run.lab.name]).spawn().unwrap();
        let both = [take("one"), take("two")].map(|child| Ended::of(child.wait_with_output().unwrap()));
        let mut codes = both.each_ref().map(|ended| ended.code);
        codes.sort_unstable();
        assert_eq!(codes, [0, 3], "round {round}: {} {}", both[0].stderr, both[1].stderr);
        let winner = if both[0].code == 0 { "one" } else { "two" };
        both.iter()
            .find(|ended| ended.code == 3)
            .unwrap()
            .says(3, &["lease-held", &format!("run {winner} holds the cluster since")]);
        run.tool(&["lease", "release", "--run", winner]).says(0, &["nobody holds"]);
    }
    // Who waits gets it as soon as it is free, and has said for whom it waits.
    run.tool(&["lease", "take", "--run", "one"]).says(0, &[]);
    run.tool(&["lease", "take", "--run", "two", "--wait", "1s"]).says(3, &["waiting: run one holds", "lease-held"]);
    let waiting =
        run.command(&["lease", "take", "--run", "two", "--wait", "60s", "--lab", &run.lab.name]).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(1));
    run.tool(&["lease", "release", "--run", "one"]).says(0, &[]);
    let began = Instant::now();
    Ended::of(waiting.wait_with_output().unwrap()).says(0, &["run two holds the cluster since"]);
    assert!(began.elapsed() < Duration::from_secs(5), "it did not see that the lease was free");
    // An expired holder leaves a dirty cluster, which no installation takes.
    let patch = json!({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}}).to_string();
    run.lab.kubectl(&["patch", "lease", "run", "-n", "other-arch", "--type=merge", "-p", &patch]);
    let release = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {}}}}}\n", run.namespace);
    run.install(&release, &[]).says(3, &["lease-held", "is dirty: run two used it and never cleaned it"]);
    run.tool(&["lease", "show"]).says(0, &["the cluster is dirty: run two never cleaned it"]);
    run.tool(&["lease", "release", "--force"]).says(0, &["nobody holds the cluster"]);
}

fn no_node_of_its_architecture_ends_the_wait(run: &Run<'_>) {
    let selector = format!("nodeSelector: {{kubernetes.io/arch: {}}}", other().arch);
    let began = Instant::now();
    let ended = run.install(&deployment(&own_image(run.lab), "sleep 1000", &selector), &["--timeout", "5m"]);
    let words = format!("unschedulable: no node with arch {}", other().arch);
    ended.says(3, &["error[node]", "it cannot become ready", &words, "2 objects were applied: Namespace.v1"]);
    assert!(began.elapsed() < Duration::from_secs(60), "it waited for the deadline");
    // No registry has it: the wait ends as well.
    let none = format!("{}/install-test/none:1", run.lab.registry);
    let began = Instant::now();
    let ended = run.install(&deployment(&none, "sleep 1000", ""), &["--timeout", "5m", "--no-image-check"]);
    ended.says(3, &["error[image-pull]", "it cannot become ready", "the registry has no", &none]);
    assert!(began.elapsed() < Duration::from_secs(60), "it waited for the deadline");
}

fn a_stored_version_that_is_gone(run: &Run<'_>) {
    let version = |name: &str, storage: bool| {
        format!("{{name: {name}, served: true, storage: {storage}, schema: {{openAPIV3Schema: {{type: object}}}}}}")
    };
    let definition = |versions: &[String]| {
        format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: NAMESPACE, labels: {{round: r{}}}}}}}\n---\n\
             apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: olds.install-test.example.com}}\n\
             spec: {{group: install-test.example.com, scope: Namespaced, names: {{kind: Old, plural: olds}}, versions: [{}]}}\n",
            versions.len(),
            versions.join(", ")
        )
    };
    let both = definition(&[version("v1alpha1", true), version("v1", false)]);
    run.install(&both, &[]).says(0, &["2 created"]);
    let ended = run.install(&definition(&[version("v1", true)]), &[]);
    run.lab.kubectl(&["delete", "crd", "olds.install-test.example.com"]);
    ended.says(
        1,
        &[
            "error[product]",
            "CustomResourceDefinition",
            "olds",
            "storedVersions",
            "v1alpha1",
            "1 objects were applied: Namespace.v1",
        ],
    );
    let record = run.record();
    assert_eq!((&record["outcome"], &record["applied"][0]["kind"]), (&json!("failed"), &json!("Namespace")));
}

fn the_api_server_restarts_while_we_apply(run: &Run<'_>) {
    let maps: String = (0..600).map(|number| map(&format!("m{number}"), "1")).collect();
    let release = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: NAMESPACE}}}}\n{maps}");
    let child = run.start(&release, &[]);
    until(|| {
        let names = run.lab.kubectl(&["get", "configmaps", "-n", &run.namespace, "-o", "name", "--ignore-not-found"]);
        names.lines().count() > 10
    });
    run.lab.tool(&["kill", "kube-apiserver"]);
    Ended::of(child.wait_with_output().unwrap()).says(0, &["601 objects:"]);
    let names = run.lab.kubectl(&["get", "configmaps", "-n", &run.namespace, "-o", "name"]);
    assert_eq!(names.lines().filter(|name| name.starts_with("configmap/m")).count(), 600);
}
