//! Tekton Pipelines from one version to the next, and Triggers upon it, on a real cluster.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

mod support;

use std::{fs, path::Path, process::Output};

use serde_json::Value;
use support::{World, read_json};

/// What [pipeline] says now, and an older version in its place: it has the kind ClusterTask, which later ones lack.
const NOW: &str = "version = \"v1.9.0\"\ncommit = \"0cc798780b36936047e90d3e5a9af8cdc61f3947\"";
const BEFORE: &str = "version = \"v0.68.0\"\ncommit = \"c6d38c9d267c4776bbe8ee68af59f47dba5f7a07\"";
const GONE: &str = "clustertasks.tekton.dev";

/// A lab, and where its registry keeps what is built.
struct Installed {
    world: World,
    repo: String,
}

impl Installed {
    fn new() -> Self {
        let world = World::new("upgrade");
        let up = world.tool("lab", &["up", "--name", &world.lab, "--output", "json"]);
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        let status: Value = serde_json::from_slice(&up.stdout).unwrap();
        Self { repo: format!("{}/releases", status["registry"].as_str().unwrap()), world }
    }

    fn folder(&self, run: &str) -> String {
        self.world.folder.path().join(run).display().to_string()
    }

    fn build(&self, component: &str, run: &str, ci: &Path) {
        let (run, ci) = (self.folder(run), ci.display().to_string());
        let built = self.world.tool(
            "image-build",
            &[
                "build",
                "--component",
                component,
                "--ci",
                &ci,
                "--repo",
                &self.repo,
                "--platform",
                "linux/amd64",
                "--run-dir",
                &run,
            ],
        );
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }

    fn try_install(&self, component: &str, run: &str) -> Output {
        let run = self.folder(run);
        self.world.tool(
            "cluster-install",
            &["install", "--component", component, "--run-dir", &run, "--lab", &self.world.lab],
        )
    }

    /// Its record.
    fn install(&self, component: &str, run: &str) -> Value {
        let output = self.try_install(component, run);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("--- {component} of {run}\n{out}{err}");
        assert!(output.status.success(), "{err}");
        // The next run does not wait until this one's lease is over.
        let release = ["lease", "release", "--run-dir", &self.folder(run), "--lab", &self.world.lab];
        assert!(self.world.tool("cluster-install", &release).status.success());
        let cell = self.world.folder.path().join(run).join(component).join("linux-amd64");
        read_json(&cell.join(format!("lab-{}", self.world.lab)).join("install.json"))
    }

    fn apply(&self, name: &str, object: &Value) {
        let file = self.world.folder.path().join(name);
        fs::write(&file, object.to_string()).unwrap();
        self.world.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    }
}

#[test]
#[ignore = "needs a lab and half an hour: cargo xtask test --tekton runs it"]
fn tekton_pipelines_are_upgraded_with_pruning_and_triggers_follow() {
    let old = "old";
    let installed = Installed::new();
    let world = &installed.world;
    let ci = support::root().join("ci");
    installed.build("pipeline", old, &world.ci("ci-old", "components.toml", NOW, BEFORE));
    installed.build("pipeline", "new", &ci);
    installed.build("triggers", "new", &ci);

    let early = installed.try_install("triggers", "new");
    let said = String::from_utf8_lossy(&early.stderr);
    assert_eq!(early.status.code(), Some(2), "{said}");
    assert!(said.contains("triggers needs pipeline") && said.contains("--component pipeline"), "{said}");

    let first = installed.install("pipeline", old);
    assert_eq!((&first["version"], first["changed"].as_u64()), (&"v0.68.0".into(), first["objects"].as_u64()));
    world.kubectl(&["get", "crd", GONE]);
    // What somebody made with the old version is there after the upgrade.
    let task = serde_json::json!({
        "apiVersion": "tekton.dev/v1", "kind": "Task", "metadata": { "name": "kept" },
        "spec": { "steps": [{ "name": "one", "image": "mirror.gcr.io/busybox", "script": "true" }] },
    });
    installed.apply("task.json", &task);

    let second = installed.install("pipeline", "new");
    assert_eq!(second["version"], "v1.9.0");
    let pruned: Vec<_> = second["pruned"].as_array().unwrap().iter().map(|key| &key["name"]).collect();
    assert_eq!(pruned, [GONE], "{second}");
    assert!(!world.kubectl(&["get", "crd", "-o", "name"]).contains(GONE));
    world.kubectl(&["get", "task", "kept"]);

    let third = installed.install("pipeline", "new");
    assert_eq!((third["changed"].as_u64(), third.get("pruned")), (Some(0), None), "{third}");

    let triggers = installed.install("triggers", "new");
    assert_eq!((&triggers["version"], triggers.get("pruned")), (&"v0.32.0".into(), None), "{triggers}");
    // Its webhook takes what is right and refuses what is not.
    let template = serde_json::json!({
        "apiVersion": "triggers.tekton.dev/v1beta1", "kind": "TriggerTemplate", "metadata": { "name": "starts" },
        "spec": { "resourcetemplates": [{
            "apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": { "generateName": "kept-" },
            "spec": { "taskRef": { "name": "kept" } },
        }] },
    });
    installed.apply("template.json", &template);
    // Installed once more beside the other, neither takes anything away from it.
    assert_eq!(installed.install("pipeline", "new")["changed"], 0);
    assert_eq!(installed.install("triggers", "new")["changed"], 0);
}
