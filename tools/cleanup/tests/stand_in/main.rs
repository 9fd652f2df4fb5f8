//! The real program against a stand-in for an API server: a cluster larger than a lab makes in a short time, and
//! calls that are refused before anything is changed. `removal` has one that can be changed, and that misbehaves.

#![allow(clippy::disallowed_methods, reason = "tests start the real program and look at it while it works")]

mod api;
mod removal;

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

const PAGE: usize = 500;
/// In KiB.
const MEMORY: u64 = 100 * 1000;

/// A kubeconfig of a stand-in with so many ConfigMaps, and a folder for runs.
struct World(tempfile::TempDir);

impl World {
    fn new(objects: usize) -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": serve(objects)}}],
            "users": [{"name": "u", "user": {"token": "t"}}]});
        std::fs::write(world.path("kubeconfig"), config.to_string()).unwrap();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn cell(&self) -> PathBuf {
        self.path("run/x/linux-amd64/c")
    }

    fn start(&self, args: &[&str]) -> Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cleanup"));
        command
            .args(args)
            .arg("--kubeconfig")
            .arg(self.path("kubeconfig"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if args[0] != "sweep" {
            command
                .args(["--component", "x", "--platform", "linux/amd64", "--quiet", "--run-dir"])
                .arg(self.path("run"));
        }
        command.spawn().unwrap()
    }

    /// Exit code, and everything that was said.
    fn tool(&self, args: &[&str]) -> (i32, String) {
        let ended = self.start(args).wait_with_output().unwrap();
        let text = [ended.stdout, ended.stderr].concat();
        (ended.status.code().unwrap(), String::from_utf8(text).unwrap())
    }

    #[track_caller]
    fn refuses(&self, args: &[&str], words: &[&str]) {
        let (code, text) = self.tool(args);
        assert_eq!(code, 2, "{args:?}: {text}");
        for word in words {
            assert!(text.contains(word), "{args:?}: '{word}' is not in\n{text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[test]
fn a_snapshot_of_fifty_thousand_objects_needs_less_than_100_mb() {
    let objects = 50_000;
    let world = World::new(objects);
    let mut working = world.start(&["snapshot"]);
    let most = watch(&mut working);
    let ended = working.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    let baseline: Value = serde_json::from_slice(&std::fs::read(world.cell().join("baseline.json")).unwrap()).unwrap();
    assert_eq!(baseline["objects"].as_array().unwrap().len(), objects + 1);
    assert_eq!(lines(&world.cell().join("baseline.bodies.jsonl")), objects + 1);
    eprintln!("snapshot of {objects} objects: {} MB", most / 1000);
    assert!(most < MEMORY, "{most} KiB");
}

#[test]
fn what_may_not_be_gone_back_to_is_refused() {
    let world = World::new(PAGE);
    world.refuses(&["run"], &["there is no run directory"]);
    let (code, text) = world.tool(&["snapshot"]);
    assert_eq!(code, 0, "{text}");
    let file = world.cell().join("baseline.json");
    let good = std::fs::read_to_string(&file).unwrap();
    let wrong = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        std::fs::write(&file, good.replace(from, to)).unwrap();
    };
    wrong("v1.37.2", "v1.36.9");
    world.refuses(&["run"], &["of Kubernetes v1.36.9", "the cluster has v1.37.2", "take a new snapshot"]);
    world.refuses(&["run", "--dry-run"], &["of Kubernetes v1.36.9"]);
    wrong("the-cluster", "another-cluster");
    world.refuses(&["run"], &["another-cluster", "the-cluster"]);
    wrong("\"schemaVersion\": \"1.", "\"schemaVersion\": \"2.");
    world.refuses(&["diff"], &["newer than ours"]);
    for cut in [0, 1, good.len() / 2, good.len() - 3] {
        std::fs::write(&file, &good[..cut]).unwrap();
        world.refuses(&["run"], &["baseline.json"]);
    }
    std::fs::write(&file, good.replace(r#""kind": "Namespace","#, r#""kind": "Nothing","#)).unwrap();
    world.refuses(&["run"], &["damaged"]);
    std::fs::remove_file(&file).unwrap();
    world.refuses(&["run"], &["cleanup snapshot"]);
}

#[test]
fn selections_and_budgets_that_say_nothing_are_refused() {
    let world = World::new(PAGE);
    let release = world.path("release.yaml");
    let named = release.to_str().unwrap();
    world.refuses(&["run", "--release", named], &["release.yaml"]);
    for (text, why) in [
        ("", "names no object"),
        ("kind: ConfigMap\n", "apiVersion"),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: ../../x}\n", "cannot be"),
        ("{{{", "not YAML"),
    ] {
        std::fs::write(&release, text).unwrap();
        world.refuses(&["run", "--release", named], &["release.yaml", why]);
    }
    std::fs::write(&release, b"\xff\xfe").unwrap();
    world.refuses(&["run", "--release", named], &["not UTF-8"]);
    let there = "{name: some-name-as-long-as-usual-7, namespace: namespace-7}";
    std::fs::write(&release, format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {there}\n")).unwrap();
    world.refuses(&["run", "--release", named], &["holds no inventory of ours", "--cluster-uid the-cluster"]);
    world.refuses(&["run", "--release", named, "--cluster-uid", "another"], &["another", "the-cluster"]);
    world.refuses(&["run", "--inventory"], &["no inventory of 'x'"]);
    world.refuses(&["run", "--older-than", "2"], &["90s, 30m, 2h, 3d"]);
    world.refuses(&["run", "--label", "a b"], &["KEY=VALUE"]);
    world.refuses(&["run", "--budget", "objects=0"], &["objects=SECONDS"]);
    world.refuses(&["run", "--budget", "60"], &["objects=SECONDS"]);
    world.refuses(&["run", "--force-finalizers=a b"], &["pipelineruns.tekton.dev"]);
}

#[test]
fn a_cluster_that_others_use_is_only_swept_when_it_is_named() {
    let world = World::new(PAGE);
    world.refuses(&["sweep"], &["--label"]);
    world.refuses(&["sweep", "--label", "a=b"], &["cluster the-cluster (c) is not named", "--cluster-uid the-cluster"]);
    world.refuses(&["sweep", "--label", "a=b", "--cluster-uid", "another"], &["another", "the-cluster"]);
    let (code, text) = world.tool(&["sweep", "--label", "a=b", "--cluster-uid", "the-cluster"]);
    // The stand-in says of every namespace that it has the label; its only one is the cluster's own.
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("nothing to sweep"), "{text}");
}

fn lines(path: &Path) -> usize {
    BufReader::new(std::fs::File::open(path).unwrap()).lines().count()
}

/// The most memory that a program ever had, in KiB, until it ends.
fn watch(working: &mut Child) -> u64 {
    let status = format!("/proc/{}/status", working.id());
    let mut most = 0;
    while working.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let now = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        most = most.max(now.unwrap_or(0));
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(most > 0, "{status} said nothing");
    most
}

/// An API server with namespaces, and many ConfigMaps.
fn serve(objects: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, objects));
        }
    });
    format!("http://{address}")
}

fn answer(stream: TcpStream, objects: usize) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let mut length = 0;
    let mut header = String::new();
    while reader.read_line(&mut header).is_ok() && header.trim() != "" {
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        header.clear();
    }
    let mut sent = vec![0; length];
    reader.read_exact(&mut sent).unwrap();
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().to_owned());
    let (code, body) = respond(method, &target, &sent, objects);
    let head = format!(
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = reader.into_inner();
    // A client that has gone needs no answer.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

fn respond(method: &str, target: &str, sent: &[u8], objects: usize) -> (u16, String) {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let value = match (method, path) {
        ("POST", _) => return (201, String::from_utf8(sent.to_vec()).unwrap()),
        (_, "/version") => {
            json!({"major": "1", "minor": "37", "gitVersion": "v1.37.2", "gitCommit": "", "goVersion": "",
            "gitTreeState": "", "buildDate": "", "compiler": "", "platform": ""})
        }
        (_, "/api") => {
            let resource = |plural: &str, kind: &str, scope: &str| {
                json!({"resource": plural, "scope": scope, "verbs": ["list", "delete"],
                    "responseKind": {"group": "", "version": "v1", "kind": kind}})
            };
            let resources =
                [resource("configmaps", "ConfigMap", "Namespaced"), resource("namespaces", "Namespace", "Cluster")];
            json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
                "items": [{"metadata": {}, "versions": [{"version": "v1", "resources": resources}]}]})
        }
        (_, "/apis") => {
            json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": []})
        }
        (_, "/api/v1/namespaces/kube-system") => namespace(),
        (_, "/api/v1/nodes") => json!({"kind": "NodeList", "apiVersion": "v1", "metadata": {}, "items": []}),
        (_, "/api/v1/namespaces") => {
            json!({"kind": "NamespaceList", "apiVersion": "v1", "metadata": {}, "items": [namespace()]})
        }
        (_, "/api/v1/namespaces/other-arch/configmaps") => {
            json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {}, "items": []})
        }
        (_, "/api/v1/configmaps") => return (200, page(query, objects)),
        _ => {
            return (
                404,
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
            "message": format!("{path} not found")})
                .to_string(),
            );
        }
    };
    (200, value.to_string())
}

fn namespace() -> Value {
    json!({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": "kube-system", "uid": "the-cluster",
        "creationTimestamp": "2026-01-01T00:00:00Z"}})
}

fn page(query: &str, objects: usize) -> String {
    let value =
        |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('=')).map(String::from);
    assert_eq!(value("limit").as_deref(), Some("500"), "{query}");
    let from: usize = value("continue").map_or(0, |next| next.parse().unwrap());
    let items: Vec<Value> = (from..from + PAGE)
        .map(|index| {
            json!({"metadata": {"name": format!("some-name-as-long-as-usual-{index}"), "namespace": format!("namespace-{}", index % 200),
                    "uid": format!("00000000-0000-4000-8000-{index:012}"), "resourceVersion": "123456",
                    "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app.kubernetes.io/part-of": "tekton-pipelines"}},
                "data": {"a": "x".repeat(600), "index": index.to_string()}})
        })
        .collect();
    let next = if from + PAGE < objects { (from + PAGE).to_string() } else { String::new() };
    json!({"kind": "ConfigMapList", "apiVersion": "v1", "metadata": {"continue": next}, "items": items}).to_string()
}
