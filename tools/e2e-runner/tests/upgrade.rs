//! What an upgrade has to keep, on the stand-in for a cluster: objects are made under one release and looked at under
//! another. Somebody else plays the controller of their kinds.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs and wait for what they do")]

#[path = "support/api.rs"]
mod api;
#[allow(dead_code, reason = "these tests need less of it than others")]
#[path = "support/cluster.rs"]
mod cluster;
mod support;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use api::Api;
use cluster::Cluster;
use kit::{
    Cause, Platform,
    record::{Results, Status, Test, Upgrade},
    rundir,
};
use serde_json::{Value, json};
use support::{Ended, World};

const SUITES: &str = "namespace = 'own-system'
[own.suites.quick]
default = true
tests = ['TestQuick']
[own.suites.other]
tests = ['TestQuick', 'TestProvoked']
[own.upgrade]
manifests = ['//made']
reach = { Run = 'Succeeded' }
suite = 'other'
time_limit = '90s'
";
const MADE: &str = "apiVersion: v1
kind: ConfigMap
metadata: {name: words}
data: {hello: world}
---
apiVersion: example.dev/v1
kind: Recipe
metadata: {name: soup}
spec: {steps: [{image: a}, {image: b}]}
---
apiVersion: example.dev/v1
kind: Run
metadata: {name: dinner}
spec: {recipe: soup}
";
const PREPARE: [&str; 4] = ["--kind", "upgrade", "--phase", "prepare"];
const CHECK: [&str; 4] = ["--kind", "upgrade", "--phase", "check"];

/// A cluster on which runs come to an end by themselves.
struct Kitchen {
    cluster: Cluster,
    /// What their condition Succeeded becomes.
    succeeded: Arc<Mutex<&'static str>>,
    over: Arc<AtomicBool>,
}

impl Drop for Kitchen {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

impl Kitchen {
    fn new(suites: &str) -> Self {
        let world = World::new("parts", suites, "");
        std::fs::create_dir(world.path("made")).unwrap();
        std::fs::write(world.path("made/all.yaml"), MADE).unwrap();
        let cluster = Cluster::new(world);
        cluster.api.kind("example.dev/v1", "Recipe", "recipes");
        cluster.api.kind("example.dev/v1", "Run", "runs");
        let (succeeded, over) = (Arc::new(Mutex::new("True")), Arc::new(AtomicBool::new(false)));
        let (api, how, until) = (cluster.api.clone(), Arc::clone(&succeeded), Arc::clone(&over));
        std::thread::spawn(move || {
            while !until.load(Ordering::SeqCst) {
                cook(&api, *how.lock().unwrap());
                std::thread::sleep(Duration::from_millis(50));
            }
        });
        Self { cluster, succeeded, over }
    }

    /// Says that a release is installed, on the cluster with that UID.
    fn install(&self, run: &str, release: char, uid: &str) {
        let install = json!({
            "schemaVersion": "1.0", "tool": "t", "toolVersion": "0", "run": "r", "started": "2026-01-01T00:00:00Z",
            "finished": "2026-01-01T00:00:00Z", "outcome": "passed", "component": "own", "version": format!("v{release}"),
            "release": digest(release), "platform": Platform::host(), "nature": "native",
            "cluster": {"uid": uid, "name": "c", "kubernetes": "v1", "nodes": []},
            "objects": 0, "changed": 0, "namespaces": [], "running": []
        });
        rundir::write_json(&self.cell(run).join("install.json"), &install).unwrap();
    }

    fn run(&self, run: &str, phase: &[&str], more: &[&str]) -> Ended {
        self.cluster.run(run, &[phase, more].concat())
    }

    fn cell(&self, run: &str) -> std::path::PathBuf {
        kit::RunDir::create(self.cluster.world.path(run)).unwrap().cell("own", &Platform::host(), "c")
    }

    fn remembered(&self, run: &str) -> Upgrade {
        rundir::read_record(&self.cell(run)).unwrap().0
    }

    fn results(&self, run: &str) -> Results {
        rundir::read_record(&self.cell(run).join("upgrade")).unwrap().0
    }

    /// The path of an object that was made.
    fn path(&self, run: &str, of: &str) -> String {
        let (prefix, rest) = if of.starts_with("configmaps") { ("/api/v1", of) } else { ("/apis/example.dev/v1", of) };
        format!("{prefix}/namespaces/{}/{rest}", self.remembered(run).namespace)
    }
}

fn digest(release: char) -> String {
    "sha256:".to_owned() + &release.to_string().repeat(64)
}

/// Does what controllers do: runs end, and namespaces get their service account.
fn cook(api: &Api, succeeded: &str) {
    for path in api.paths() {
        let mut object = api.get(&path);
        if path.contains("/runs/") && object["metadata"]["uid"].is_string() && object["status"].is_null() {
            object["status"] = json!({"conditions": [{"type": "Succeeded", "status": succeeded, "reason": "Cooked"}]});
            api.put(&path, object);
        } else if path.starts_with("/api/v1/namespaces/upgrade-") && path.matches('/').count() == 4 {
            let account = format!("{path}/serviceaccounts/default");
            if api.get(&account).is_null() {
                api.put(&account, json!({"kind": "ServiceAccount", "metadata": {}}));
            }
        }
    }
}

fn of<'r>(results: &'r Results, name: &str) -> &'r Test {
    results.tests.iter().find(|test| test.name == name).unwrap_or_else(|| panic!("no {name}: {:?}", results.tests))
}

#[test]
fn what_was_made_is_kept_and_tested_again() {
    let kitchen = Kitchen::new(SUITES);
    kitchen.run("r", &PREPARE, &[]).says(2, &["there is no install.json"]);
    kitchen.install("r", 'a', "uid-1");
    kitchen.run("r", &CHECK, &[]).says(2, &["nothing was prepared"]);
    let said = kitchen.run("r", &PREPARE, &[]);
    said.says(
        0,
        &["remembered of own va in namespace upgrade-", "3 objects", "now install the newer release --run-dir"],
    );
    let record = kitchen.remembered("r");
    assert_eq!((record.release, record.version.as_str(), record.cluster.as_str()), (digest('a'), "va", "uid-1"));
    let labels = kitchen.cluster.api.get(&format!("/api/v1/namespaces/{}", record.namespace));
    assert_eq!(labels["metadata"]["labels"]["tekton.dev/test-e2e"], "true");
    assert_eq!(record.objects[1].body, json!({"spec": {"steps": [{"image": "a"}, {"image": "b"}]}}));
    assert_eq!(record.objects[2].reached.as_ref().unwrap().conditions[0].reason.as_deref(), Some("Cooked"));

    let ended = kitchen.run("r", &PREPARE, &["--output", "json"]);
    ended.says(0, &["made already, and still there"]);
    assert_eq!(serde_json::from_str::<Upgrade>(&ended.out).unwrap(), kitchen.remembered("r"));
    kitchen.run("r", &CHECK, &[]).says(2, &["nothing was upgraded: install.json still says release sha256:aaa"]);

    kitchen.install("r", 'b', "uid-1");
    let added = kitchen.path("r", "recipes/soup");
    let mut recipe = kitchen.cluster.api.get(&added);
    recipe["spec"]["steps"][0]["new"] = "a default of the newer release".into();
    kitchen.cluster.api.put(&added, recipe);
    let ended = kitchen.run("r", &CHECK, &[]);
    ended.says(0, &["upgraded from va (sha256:aaa", "3 tests: 3 passed", "with subtests: 6 tests: 6 passed"]);
    let results = kitchen.results("r");
    assert_eq!(
        (results.kind.as_str(), results.suite.as_str(), results.release.clone()),
        ("upgrade", "other", Some(digest('b')))
    );
    assert!(results.head.inputs.iter().any(|input| input.name == "upgrade.json"));
    let log = std::fs::read_to_string(
        kitchen.cell("r").join("upgrade").join(of(&results, "Upgrade/Run/dinner").log.as_ref().unwrap()),
    );
    let log = log.unwrap();
    assert!(log.contains("one like it, dinner-") && log.contains("reached Succeeded\n"), "{log}");
    assert!(
        std::fs::read_to_string(kitchen.cell("r").join("upgrade/junit.xml")).unwrap().contains("Upgrade/Recipe/soup")
    );
    assert!(kitchen.cluster.api.get(&format!("/api/v1/namespaces/{}", record.namespace)).is_null(), "it has gone");
    kitchen.run("r", &CHECK, &[]).says(2, &["what was prepared is gone, with its namespace upgrade-"]);
}

#[test]
fn what_is_lost_or_changed_is_the_product_s_and_stays_to_be_looked_at() {
    let kitchen = Kitchen::new(SUITES);
    kitchen.install("r", 'a', "uid-1");
    kitchen.run("r", &PREPARE, &[]).says(0, &[]);
    kitchen.install("r", 'b', "uid-1");
    let api = &kitchen.cluster.api;
    let change = |path: &str, change: fn(&mut Value)| {
        let mut object = api.get(path);
        change(&mut object);
        api.put(path, object);
    };
    api.remove(&kitchen.path("r", "configmaps/words"));
    change(&kitchen.path("r", "recipes/soup"), |recipe| recipe["spec"]["steps"][1]["image"] = "c".into());
    *kitchen.succeeded.lock().unwrap() = "False";
    let ended = kitchen.run("r", &CHECK, &[]);
    let words = [
        "FAIL Upgrade/ConfigMap/words [product]",
        "because: it is gone",
        r#"because: spec.steps[1].image: was "b", and is "c""#,
        "did not reach Succeeded: Succeeded is False: Cooked",
        "again: cargo xtask e2e-runner run --component own --kind upgrade --phase check --run-dir",
        "kept to be looked at, until cleanup or another --phase prepare: namespace upgrade-",
    ];
    ended.says(1, &words);
    let results = kitchen.results("r");
    assert_eq!((of(&results, "Upgrade").status, of(&results, "Upgrade").cause), (Status::Failed, Some(Cause::Product)));
    assert_eq!(of(&results, "TestQuick").status, Status::Passed, "tested all the same");
    let evidence = kitchen.cell("r").join("upgrade").join(of(&results, "Upgrade").evidence.as_ref().unwrap());
    assert!(std::fs::read_to_string(evidence.join("summary.txt")).unwrap().contains("namespace upgrade-"));

    // A run that has ended well says something else, or is another one.
    change(&kitchen.path("r", "runs/dinner"), |run| run["status"]["conditions"][0]["status"] = "False".into());
    kitchen.run("r", &CHECK, &[]).says(1, &["because: had reached Succeeded, and now: Succeeded is False: Cooked"]);
    change(&kitchen.path("r", "runs/dinner"), |run| run["metadata"]["uid"] = "another".into());
    kitchen.run("r", &CHECK, &[]).says(1, &["it is another one: its uid was uid of"]);

    let began = std::time::Instant::now();
    api.remove(&kitchen.path("r", "runs/dinner"));
    kitchen.run("r", &CHECK, &[]).says(1, &["FAIL Upgrade/Run/dinner [product]"]);
    assert!(began.elapsed() < Duration::from_secs(60), "nobody waits for what is gone");

    // The version is served no more, and then the kind.
    let old = kitchen.path("r", "recipes/soup");
    api.put(&old.replace("/v1/", "/v2/"), api.get(&old));
    api.kind("example.dev/v2", "Recipe", "recipes");
    let log = |name: &str| {
        let results = kitchen.results("r");
        std::fs::read_to_string(kitchen.cell("r").join("upgrade").join(of(&results, name).log.as_ref().unwrap()))
            .unwrap()
    };
    kitchen.run("r", &CHECK, &[]).says(1, &[]);
    assert!(log("Upgrade/Recipe/soup").contains("there, read as example.dev/v2"), "{}", log("Upgrade/Recipe/soup"));
    assert_eq!(of(&kitchen.results("r"), "Upgrade/Recipe/soup").status, Status::Passed);
    api.kind("example.org/v1", "Recipe", "recipes");
    kitchen.run("r", &CHECK, &[]).says(1, &["no Recipe of example.dev is served any more"]);

    // Another look begins with other objects.
    let before = kitchen.remembered("r").namespace;
    api.kind("example.dev/v1", "Recipe", "recipes");
    *kitchen.succeeded.lock().unwrap() = "True";
    kitchen.run("r", &PREPARE, &[]).says(0, &["remembered of own vb"]);
    assert_ne!(kitchen.remembered("r").namespace, before);
    assert!(api.get(&format!("/api/v1/namespaces/{before}")).is_null());
}

#[test]
fn another_cluster_and_an_older_release_that_does_not_work() {
    let kitchen = Kitchen::new(SUITES);
    // Without tests there is only the look.
    let file = kitchen.cluster.world.path("ci/components.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let upgrade = SUITES.split_once("[own.upgrade]").unwrap().1.replace("suite = 'other'", "").replace("90s", "3s");
    std::fs::write(&file, format!("{}[own.upgrade]{upgrade}", text.split_once("[own.tests]").unwrap().0)).unwrap();
    *kitchen.succeeded.lock().unwrap() = "Unknown";
    kitchen.install("r", 'a', "uid-1");
    let ended = kitchen.run("r", &PREPARE, &[]);
    ended.says(
        1,
        &[
            "FAIL Upgrade/Run/dinner [product]",
            "did not reach Succeeded: Succeeded is Unknown: Cooked, and the time is over",
        ],
    );
    assert!(!kitchen.cell("r").join("upgrade.json").exists());
    *kitchen.succeeded.lock().unwrap() = "True";
    kitchen.run("r", &PREPARE, &[]).says(0, &["remembered of own va"]);
    let left = kitchen.cluster.api.paths().into_iter().filter(|path| path.ends_with("/runs/dinner")).count();
    assert_eq!(left, 1, "what did not work is gone");

    kitchen.install("r", 'b', "uid-1");
    kitchen.run("r", &CHECK, &[]).says(0, &["1 tests: 1 passed", "with subtests: 4 tests: 4 passed"]);
    assert_eq!(kitchen.results("r").suite, "upgrade");

    let system = "/api/v1/namespaces/kube-system";
    kitchen.cluster.api.put(system, json!({"kind": "Namespace", "metadata": {"uid": "uid-2"}}));
    kitchen.run("r", &CHECK, &[]).says(2, &["is of cluster c (uid uid-1), and this is c (uid uid-2)"]);
    kitchen.install("r", 'b', "uid-2");
    kitchen.run("r", &CHECK, &[]).says(2, &["is of the cluster with uid uid-1, and this is c (uid uid-2)"]);
}

#[test]
fn what_would_be_made_is_shown_and_what_cannot_be_is_refused() {
    let kitchen = Kitchen::new(SUITES);
    let dry = |more: &[&str]| kitchen.run("r", &PREPARE, &[&["--dry-run"], more].concat());
    dry(&[]).says(0, &["#   Run.example.dev/v1 dinner, which reaches Succeeded", "# tested again: other"]);
    let said: Value = serde_json::from_str(&dry(&["--output", "json"]).out).unwrap();
    assert_eq!((&said["objects"][1]["object"]["name"], &said["phase"]), (&json!("soup"), &json!("prepare")));
    for (options, why) in [
        (&["--kind", "upgrade"][..], "--phase"),
        (&["--phase", "check"][..], "--kind upgrade and --phase belong together"),
        (&["--kind", "upgrade", "--phase", "prepare", "--suite", "other"][..], "--suite is not for --phase prepare"),
        (
            &["--kind", "upgrade", "--phase", "check", "--shard", "1/2"][..],
            "--shard is for --kind e2e or examples, and this",
        ),
    ] {
        kitchen.run("r", options, &[]).says(2, &[why]);
    }
    let made = kitchen.cluster.world.path("made/all.yaml");
    for (find, replace, why) in [
        ("kind: ConfigMap", "kind: Secret", "what Secrets hold is not remembered"),
        ("{name: words}", "{name: words, namespace: x}", "it must not name one"),
        ("kind: Run", "kind: Walk", "no manifest of the upgrade has a Run"),
        ("kind: Recipe", "kind: Meal", "the cluster knows no Meal of example.dev/v1"),
    ] {
        std::fs::write(&made, MADE.replace(find, replace)).unwrap();
        kitchen.install("r", 'a', "uid-1");
        kitchen.run("r", &PREPARE, &[]).says(2, &["made/all.yaml", why][usize::from(why.starts_with("no "))..]);
    }
}
