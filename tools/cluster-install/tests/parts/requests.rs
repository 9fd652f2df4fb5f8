//! How much is asked of the API server, and how soon it is seen that all is ready.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use kit::digest::sha256;
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
    // Connecting, discovery, identity, lease, inventory, the record: that is not more for more objects.
    assert!(first.len() <= COUNT + 30, "{} requests: {first:#?}", first.len());
    for path in ["GET /api", "GET /apis"] {
        assert_eq!(first.iter().filter(|request| *request == path).count(), 1, "discovery once: {path}");
    }

    world.install(&[]).says(0, &["0 created, 0 changed, 61 as they were"]);
    let second = &world.api.requests()[first.len()..];
    assert_eq!(of_release(second).len(), 1, "only the list: {second:#?}");

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

#[test]
fn ready_is_seen_when_it_is() {
    let ready = Mutex::new(None::<Instant>);
    let ready: &'static Mutex<Option<Instant>> = Box::leak(Box::new(ready));
    let image = format!("127.0.0.1:1/web@{}", sha256(b"web"));
    let world = World::new(Api::start("s390x", |_, _| Ok(Vec::new())));
    world.write("release.yaml", &super::RELEASE.replace("IMAGE", &image));
    let api = world.api.clone();
    std::thread::spawn(move || {
        let path = "/apis/apps/v1/namespaces/n/deployments/web";
        while !api.requests().iter().any(|request| request.ends_with(path)) {
            std::thread::sleep(Duration::from_millis(20));
        }
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
        *ready.lock().unwrap() = Some(Instant::now());
        api.put(path, deployment);
    });
    world.install(&["--no-image-check"]).says(0, &["n/web/web"]);
    let took = ready.lock().unwrap().unwrap().elapsed();
    eprintln!("seen, read back, recorded and ended {took:?} after the last condition");
    // Without watching it would be the five seconds after which it looks anyway.
    assert!(took < Duration::from_secs(2), "{took:?}");
}
