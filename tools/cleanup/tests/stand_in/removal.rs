//! What is asked of an API server, in which order, and what becomes of it when it refuses, fails or says nothing.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::api::{Asked, Server};

struct World {
    server: Server,
    folder: tempfile::TempDir,
}

impl World {
    /// With so many contexts in its kubeconfig, all of the same cluster; the first is current.
    fn new(contexts: usize) -> Self {
        let world = Self { server: Server::new(), folder: tempfile::tempdir().unwrap() };
        let context = |index| json!({"name": format!("c{index}"), "context": {"cluster": "c", "user": "u"}});
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c0",
            "contexts": (0..contexts).map(context).collect::<Vec<_>>(),
            "clusters": [{"name": "c", "cluster": {"server": world.server.url}}],
            "users": [{"name": "u", "user": {"token": "t"}}]});
        std::fs::write(world.folder.path().join("kubeconfig"), config.to_string()).unwrap();
        world
    }

    /// One of which the baseline was taken.
    fn with_baseline() -> Self {
        let world = Self::new(1);
        world.runs(&["snapshot"], 0);
        world
    }

    fn cell(&self) -> PathBuf {
        self.folder.path().join("run/x/linux-amd64/c0")
    }

    #[track_caller]
    fn runs(&self, args: &[&str], code: i32) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cleanup"));
        command.args(args).arg("--kubeconfig").arg(self.folder.path().join("kubeconfig"));
        command
            .args(["--component", "x", "--platform", "linux/amd64", "--run-dir"])
            .arg(self.folder.path().join("run"));
        let ended = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{args:?}: {text}");
        assert!(!text.contains("panicked"), "{text}");
        text
    }

    /// Another run takes the cluster; all runs lie side by side.
    #[track_caller]
    fn adopts(&self, code: i32) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cleanup"));
        command.args(["adopt", "--wait-for-lease", "1s", "--kubeconfig"]).arg(self.folder.path().join("kubeconfig"));
        command.arg("--runs").arg(self.folder.path()).arg("--run-dir").arg(self.folder.path().join("next/run"));
        let ended = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8([ended.stdout, ended.stderr].concat()).unwrap();
        assert_eq!(ended.status.code(), Some(code), "{text}");
        text
    }

    /// The lease, as it is when a run that held it was killed a while ago.
    fn expired(&self, holder: &Value) {
        let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": 900,
            "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": "2026-01-01T00:00:00.000000Z"});
        self.put(LEASE, json!({ "spec": spec }));
    }

    fn record(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.cell().join("cleanup.json")).unwrap()).unwrap()
    }

    fn put(&self, path: &str, object: Value) {
        self.server.put(path, object);
    }

    fn nothing_was_changed(&self, since: Instant) {
        assert_eq!(self.server.asked(since, &["DELETE", "PATCH", "PUT", "POST"]), []);
    }
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/other-arch/leases/run";

fn map(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{name}")
}

fn thing(name: &str) -> String {
    format!("/apis/left.example.com/v1/namespaces/left/things/{name}")
}

/// How often somebody waited for an answer before he asked again: what is asked together comes together, however long the
/// machine takes for the rest.
fn rounds(asked: &[Asked], latency: Duration) -> usize {
    asked.windows(2).filter(|pair| pair[1].0 - pair[0].0 > latency / 2).count()
}

#[test]
fn a_far_api_server_is_asked_few_times_before_the_first_object_goes() {
    let world = World::new(1);
    for index in 0..20 {
        world.put(&map("default", &format!("kept-{index}")), json!({"data": {"flag": "stable"}}));
    }
    world.runs(&["snapshot"], 0);
    for index in 0..20 {
        world.put(&map("default", &format!("kept-{index}")), json!({"data": {"flag": "alpha"}}));
    }
    world.put("/api/v1/namespaces/left", json!({}));
    for index in 0..5 {
        world.put(&thing(&format!("t{index}")), json!({}));
    }
    world.put("/api/v1/namespaces/left/pods/p", json!({}));
    // Long beside what a busy machine adds.
    let latency = Duration::from_millis(800);
    world.server.state().latency = latency;
    let began = Instant::now();
    world.runs(&["run"], 0);
    let all = world.server.asked(began, &["GET", "POST", "PUT", "DELETE", "PATCH"]);
    let deleted = world.server.asked(began, &["DELETE"]);
    // The version; everything that can be asked without knowing anything; the lists: and one more for a busy machine.
    let first = all.iter().position(|(_, method, _)| method == "DELETE").unwrap();
    let waits = rounds(&all[..=first], latency);
    assert!((3..=4).contains(&waits), "{waits} round trips before the first DELETE: {all:?}");
    // From then on nobody makes anything new in it.
    assert_eq!(deleted[0].2, "/api/v1/namespaces/left");
    // All of what is put back at the same time: each is read, and written.
    let patched = world.server.asked(began, &["PATCH"]);
    assert_eq!(patched.len(), 20);
    assert!(rounds(&patched, latency) <= 1, "{patched:?}");
    // Our own state goes as a whole; the lease at once, for whoever comes next would take it for held.
    let last: Vec<_> = deleted[deleted.len() - 2..].iter().map(|(_, _, path)| path.as_str()).collect();
    assert_eq!(last, ["/api/v1/namespaces/other-arch", LEASE]);
    assert!(deleted.iter().all(|(_, _, path)| !path.contains("secrets")), "{deleted:?}");
    assert_eq!(world.record()["restored"].as_array().unwrap().len(), 20);
}

#[test]
fn without_a_baseline_an_age_alone_selects_nothing_and_a_label_needs_the_cluster_to_be_named() {
    let world = World::new(1);
    world.put("/api/v1/namespaces/kube-system/pods/dns", json!({"metadata": {"labels": {"app": "dns"}}}));
    world.put("/api/v1/namespaces/team", json!({"metadata": {"labels": {"app": "dns"}}}));
    // Something of ours is installed, which once was enough.
    world.put("/api/v1/namespaces/other-arch", json!({}));
    let inventory = json!({"schemaVersion": "1.0", "component": "x", "version": "", "release": "", "run": "r",
        "platform": "linux/amd64", "installed": "2026-01-01T00:00:00Z", "objects": []});
    let labels = json!({"other-arch/inventory": "inventory-x"});
    let data = json!({"inventory.json": inventory.to_string()});
    world.put(&map("other-arch", "inventory-x"), json!({"metadata": {"labels": labels}, "data": data}));
    let began = Instant::now();
    for more in [&[][..], &["--dry-run"], &["--cluster-uid", "the-cluster"]] {
        let text = world.runs(&[&["run", "--older-than", "1s"], more].concat(), 2);
        assert!(text.contains("--older-than alone would select whatever is older"), "{text}");
    }
    let text = world.runs(&["run", "--label", "app=dns"], 2);
    assert!(text.contains("--cluster-uid the-cluster"), "{text}");
    world.nothing_was_changed(began);
    let text = world.runs(&["run", "--label", "app=dns", "--older-than", "1s", "--cluster-uid", "the-cluster"], 0);
    assert!(world.server.get("/api/v1/namespaces/team").is_none(), "{text}");
    assert!(world.server.get("/api/v1/namespaces/kube-system/pods/dns").is_some(), "{text}");
}

#[test]
fn one_object_that_is_refused_keeps_no_other_from_going() {
    let world = World::with_baseline();
    world.put("/api/v1/namespaces/left", json!({}));
    // A namespace of the stand-in takes everything with it.
    let thing = |name: &str| thing(name).replace("/left/", "/default/");
    for name in ["refused", "freed"] {
        world.put(&thing(name), json!({"metadata": {"finalizers": ["left.example.com/wait"]}}));
    }
    let service = json!({"service": {"namespace": "left", "name": "nobody"}});
    let hook = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/hook";
    world.put(hook, json!({"webhooks": [{"name": "h", "clientConfig": service}]}));
    world.server.state().faults = vec![
        ("PATCH", thing("refused"), 403, 99),
        // First when it is in the way, then when it is its turn.
        ("DELETE", hook.into(), 403, 1),
    ];
    let text = world.runs(&["run", "--budget", "finalizers=1,force=5", "--force-finalizers=Thing"], 1);
    assert!(text.contains("hook was not deleted"), "{text}");
    assert!(text.contains("cannot take the finalizers off Thing.left.example.com/v1 default/refused"), "{text}");
    let record = world.record();
    assert_eq!(
        record["forced"],
        json!([{"apiVersion": "left.example.com/v1", "kind": "Thing", "namespace": "default", "name": "freed"}])
    );
    assert_eq!(record["stage"], "needs-recreate");
    assert!(world.server.get(hook).is_none() && world.server.get(&thing("freed")).is_none());
}

#[test]
fn a_request_that_is_never_answered_takes_no_longer_than_its_stage() {
    let world = World::with_baseline();
    world.put(&map("default", "stuck"), json!({}));
    world.put(&map("default", "left"), json!({}));
    world.server.state().silent = vec![("DELETE", map("default", "stuck"))];
    let began = Instant::now();
    let text = world.runs(&["run", "--budget", "objects=3"], 1);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    assert!(text.contains("1 objects were not asked to go: the time of the stage is over"), "{text}");
    assert!(world.server.get(&map("default", "left")).is_none(), "{text}");
}

#[test]
fn what_we_may_not_do_is_named_before_anything_is_written() {
    let world = World::with_baseline();
    world.put(&map("default", "left"), json!({}));
    world.put("/api/v1/namespaces/left", json!({}));
    world.server.state().denied =
        vec![("delete", "configmaps"), ("update", "leases"), ("delete", "secrets"), ("delete", "namespaces")];
    let began = Instant::now();
    let text = world.runs(&["run"], 3);
    let named = "may not delete configmaps, delete configmaps in other-arch, delete namespaces, \
                 delete namespaces in other-arch, delete secrets in other-arch, update leases in other-arch";
    assert!(text.contains(named), "{text}");
    world.nothing_was_changed(began);
    // Also when another run left nodes without pods, and when the lease has to be taken first.
    let holder = world.server.get(LEASE).unwrap()["spec"]["holderIdentity"].clone();
    world.expired(&holder);
    let began = Instant::now();
    world.runs(&["run"], 3);
    world.nothing_was_changed(began);
    world.server.state().denied.clear();
    world.runs(&["run"], 0);
}

#[test]
fn of_several_contexts_one_has_to_be_named_before_anything_is_written() {
    let world = World::new(2);
    let began = Instant::now();
    let text = world.runs(&["snapshot"], 2);
    assert!(text.contains("several contexts") && text.contains("--context NAME"), "{text}");
    world.nothing_was_changed(began);
    world.runs(&["snapshot", "--context", "c0"], 0);
    world.put(&map("default", "left"), json!({}));
    let began = Instant::now();
    world.runs(&["run"], 2);
    world.nothing_was_changed(began);
    world.runs(&["run", "--dry-run"], 0);
    world.runs(&["run", "--cluster-uid", "the-cluster"], 0);
}

#[test]
fn a_kind_whose_server_fails_for_a_moment_is_in_the_baseline_and_one_that_is_not_is_named() {
    let world = World::new(1);
    let things = "/apis/left.example.com/v1/things".to_owned();
    world.server.state().faults =
        vec![("GET", "/api/v1/configmaps".into(), 503, 2), ("GET", things.clone(), 500, usize::MAX)];
    world.runs(&["snapshot"], 0);
    let baseline = std::fs::read(world.cell().join("baseline.json")).unwrap();
    let baseline: Value = serde_json::from_slice(&baseline).unwrap();
    assert_eq!(baseline["unlisted"], json!(["Thing.left.example.com"]));
    world.server.state().faults.clear();
    // A node that is unwell is no difference.
    let taints = json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]);
    world.put("/api/v1/nodes/n1", json!({"spec": {"podCIDR": "10.0.0.0/24", "taints": taints}}));
    let blind = "not compared, because the baseline could not see it: Thing.left.example.com";
    for verb in ["diff", "run"] {
        let text = world.runs(&[verb], 0);
        assert!(text.contains(blind), "{verb}: {text}");
    }
    assert_eq!(world.record()["difference"]["unseen"], json!(["Thing.left.example.com"]));
}

#[test]
fn what_a_killed_run_left_is_cleaned_by_whoever_comes_next() {
    let world = World::with_baseline();
    world.put(&map("default", "left"), json!({}));
    let holder = world.server.get(LEASE).unwrap()["spec"]["holderIdentity"].clone();
    world.expired(&holder);
    let text = world.adopts(0);
    assert!(text.contains(&format!("cleaning what run {} left", holder.as_str().unwrap())), "{text}");
    assert!(world.server.get(&map("default", "left")).is_none(), "{text}");
    assert!(world.server.get(LEASE).is_none(), "{text}");
    // Now there is nothing, and the lease is its own.
    let text = world.adopts(0);
    assert!(text.contains("no run has left anything"), "{text}");
    let next = std::fs::read_to_string(world.folder.path().join("next/run/run-id")).unwrap();
    assert_eq!(world.server.get(LEASE).unwrap()["spec"]["holderIdentity"], json!(next));
}

#[test]
fn a_run_that_was_killed_early_has_left_nothing_and_one_that_nobody_knows_is_no_fault_of_the_next() {
    let world = World::new(1);
    std::fs::create_dir(world.folder.path().join("early")).unwrap();
    std::fs::write(world.folder.path().join("early/run-id"), "gone").unwrap();
    world.expired(&json!("gone"));
    let text = world.adopts(0);
    assert!(text.contains("run gone was killed before it had done anything"), "{text}");
    assert!(world.server.get(LEASE).unwrap()["metadata"]["annotations"]["other-arch/dirty"].is_null(), "{text}");
    world.expired(&json!("unheard"));
    for text in [world.adopts(3), world.runs(&["snapshot"], 3)] {
        assert!(text.contains("error[lease-held]: run unheard left the cluster without cleaning it"), "{text}");
    }
}
