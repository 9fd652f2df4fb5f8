//! How much is asked of the API server.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::json;

use super::{World, api::Api};

const COUNT: usize = 60;

fn release(count: usize) -> String {
    let map = |number| {
        format!(
            "---\n{{apiVersion: v1, kind: ConfigMap, metadata: {{name: m{number}, namespace: n}}, data: {{a: '1'}}}}\n"
        )
    };
    "{apiVersion: v1, kind: Namespace, metadata: {name: n}}\n".to_owned() + &(0..count).map(map).collect::<String>()
}

fn of_release(requests: &[String]) -> Vec<&String> {
    requests.iter().filter(|request| request.contains("/namespaces/n/configmaps")).collect()
}

#[test]
fn an_object_needs_two_requests_at_most_and_none_that_nobody_touched() {
    let world = World::new(Api::start("s390x", |_, _| Ok(Vec::new())));
    world.write("release.yaml", &release(COUNT));
    world.install(&[]).says(0, &["61 created"]);
    let first = world.api.requests();
    assert_eq!(of_release(&first).len(), COUNT + 1, "one list, and a request for each");
    // Discovery, identity, lease, inventory, the record: that is not more for more objects.
    let connecting = first.iter().filter(|request| *request == "GET /version").count();
    assert!(first.len() - connecting <= COUNT + 30, "{} requests: {first:#?}", first.len());
    assert!(connecting <= COUNT + 8, "each connection is opened once: {connecting}");
    for path in ["GET /api", "GET /apis"] {
        assert_eq!(first.iter().filter(|request| *request == path).count(), 1, "discovery once: {path}");
    }

    world.install(&[]).says(0, &["0 created, 0 changed, 61 as they were"]);
    let second = &world.api.requests()[first.len()..];
    assert_eq!(of_release(second).len(), 1, "only the list: {second:#?}");

    // A controller writes its status: nothing of ours has changed.
    let path = "/api/v1/namespaces/n/configmaps/m6";
    let mut seen = world.api.get(path);
    seen["status"] = json!({"seen": true});
    world.api.put(path, seen);
    let before = world.api.writes().len();
    world.install(&[]).says(0, &["0 created, 0 changed, 61 as they were"]);
    let wrote = &world.api.writes()[before..];
    assert_eq!(of_release(wrote), Vec::<&String>::new());

    // Somebody writes one of them: that one, and no other, is put right.
    world.api.put("/api/v1/namespaces/n/configmaps/m7", json!({"data": {"a": "2"}}));
    let before = world.api.requests().len();
    world.install(&[]).says(0, &["0 created, 1 changed, 60 as they were"]);
    let third = &world.api.requests()[before..];
    let wrote: Vec<_> = of_release(third).into_iter().filter(|request| !request.starts_with("GET")).collect();
    assert_eq!(wrote, ["PATCH /api/v1/namespaces/n/configmaps/m7"]);

    // One that is gone is made again, and one that becomes another is sent.
    world.api.delete("/api/v1/namespaces/n/configmaps/m8");
    world.write(
        "release.yaml",
        &release(COUNT).replace("name: m9, namespace: n}, data: {a: '1'}", "name: m9, namespace: n}, data: {a: '3'}"),
    );
    world.install(&[]).says(0, &["1 created, 1 changed, 59 as they were"]);
}

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/other-arch/leases/run";
const HOOK: &str = "---\n{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: w}, webhooks: []}\n";

/// Everything is asked at first, then the lease is taken while what is there is listed; the inventory; four waves; the
/// inventory with what was sent.
#[test]
fn a_new_installation_takes_eight_round_trips_and_the_same_again_two() {
    let world = World::new(Api::start("s390x", |_, _| Ok(Vec::new())));
    let web = super::RELEASE.replace("IMAGE", "r.example/web:1");
    let (_, web) = web.split_once("---\n").unwrap();
    world.write("release.yaml", &format!("{}---\n{web}{HOOK}", release(8)));
    let (file, run) = (world.path("release.yaml"), world.path("run"));
    let (file, run) = (file.to_str().unwrap(), run.to_str().unwrap());
    let apply = ["apply", "--component", "x", "--release", file, "--run-dir", run, "--no-image-check"];
    world.api.delay(Duration::from_millis(300));
    for trips in [8, 2] {
        let before = world.api.requests().len();
        let (code, said) = world.ask(&apply);
        assert_eq!(code, 0, "{said}");
        assert_eq!(world.api.trips(before), trips, "{:#?}", &world.api.requests()[before..]);
    }

    // Whoever held the lease until just now may have changed what was read before it was.
    let mut lease = world.api.get(LEASE);
    lease["spec"]["holderIdentity"] = json!(null);
    world.api.put(LEASE, lease);
    let released = world.api.requests().len();
    world.ask(&apply);
    assert_eq!(world.api.trips(released), 3, "{:#?}", &world.api.requests()[released..]);
}

/// The lease and its namespace are created at the same time.
#[test]
fn a_lease_that_comes_before_its_namespace_is_created_again() {
    let early = AtomicBool::new(true);
    let world = World::new(Api::start("s390x", move |path, _| {
        let lease = path.ends_with("/leases/run");
        match lease && early.swap(false, Ordering::SeqCst) {
            true => Err((404, "namespaces \"other-arch\" not found".into())),
            false => Ok(Vec::new()),
        }
    }));
    world.install(&[]).says(0, &["2 created"]);
    let of_lease = |request: &&String| request.starts_with("POST") && request.ends_with("/leases");
    assert_eq!(world.api.requests().iter().filter(of_lease).count(), 2);
}

/// In a lab every registry answers; here the kubelet says that it reaches one of two.
#[test]
fn a_registry_that_no_node_reaches() {
    let waits = |name: &str, message: &str| {
        json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
               "state": {"waiting": {"reason": "ImagePullBackOff", "message": message}}})
    };
    let away = "Back-off: ErrImagePull: dial tcp 10.0.0.9:5000: connect: connection refused";
    let statuses = [waits("i0", away), waits("i1", "Back-off: ErrImagePull: 401 Unauthorized")];
    let world = World::new(Api::start("s390x", move |path, object| {
        if path == "/api/v1/namespaces/other-arch/pods/pulls-1" {
            object["status"] = json!({"phase": "Pending", "containerStatuses": statuses});
        }
        Ok(Vec::new())
    }));
    let release = super::RELEASE.replace("IMAGE", "away.example:5000/web:1");
    let more = release.replace("name: web", "name: more").replace("away.example:5000", "there.example");
    world.write("release.yaml", &format!("{release}---\n{}", more.split_once("---\n").unwrap().1));
    let file = world.path("release.yaml");
    let (code, report) = world.ask(&["preflight", "--component", "x", "--release", file.to_str().unwrap()]);
    assert_eq!(code, 3, "{report}");
    let row = |check: &str| report["rows"].as_array().unwrap().iter().find(|row| row["check"] == check).unwrap();
    let (registries, images) = (row("registries"), row("images"));
    assert_eq!((&registries["answer"], &registries["cause"]), (&json!("unfit"), &json!("registry")), "{report}");
    let line = registries["line"].as_str().unwrap();
    assert!(line.contains("away.example:5000 from node n1") && !line.contains("there.example"), "{line}");
    assert_eq!(images["cause"], "auth", "{images}");
    assert_eq!(row("storage")["cause"], "storage", "there is no class");
    assert!(world.api.writes().contains(&"DELETE /api/v1/namespaces/other-arch/pods/pulls-1".to_owned()));
}

#[test]
fn a_kind_that_nobody_knows_ends_it_before_anything_is_written() {
    let world = World::new(Api::start("s390x", |_, _| Ok(Vec::new())));
    world
        .write("release.yaml", &(release(1) + "---\n{apiVersion: example.com/v1, kind: Thing, metadata: {name: a}}\n"));
    world.install(&[]).says(2, &["error[usage]", "the cluster knows no Thing of example.com/v1"]);
    assert!(world.api.writes().is_empty(), "{:?}", world.api.writes());
}
