//! A stand-in for an API server: objects by their paths, read, listed, written and patched as the API does it, and
//! nothing behind them.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::{Value, json};

/// Objects by path, as in `/api/v1/namespaces/x/configmaps/y`.
#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    version: u64,
    /// Which requests are refused, by method, path and body.
    refused: Option<fn(&str, &str, &Value) -> bool>,
    /// Custom kinds: API version, kind, plural.
    kinds: Vec<[String; 3]>,
}

/// The server; its threads end with the test's process.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: String,
    store: Arc<Mutex<Store>>,
    away: Arc<AtomicBool>,
}

impl Api {
    /// A cluster with a ready node of this machine's platform.
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let api = Self { address, store: Arc::default(), away: Arc::default() };
        let served = api.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || served.serve(stream));
            }
        });
        api.put("/api/v1/namespaces/kube-system", json!({"kind": "Namespace", "metadata": {"uid": "uid-1"}}));
        api.node("n1", &kit::Platform::host().arch);
        api
    }

    pub(crate) fn node(&self, name: &str, architecture: &str) {
        let info = json!({
            "architecture": architecture, "operatingSystem": "linux", "kubeletVersion": "v1.37.2", "kernelVersion": "6.1",
            "bootID": "", "containerRuntimeVersion": "", "kubeProxyVersion": "", "machineID": "", "osImage": "",
            "systemUUID": ""
        });
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": info});
        self.put(
            &format!("/api/v1/nodes/{name}"),
            json!({"kind": "Node", "metadata": {}, "spec": {}, "status": status}),
        );
    }

    /// Refuses such requests from now on, as an API server does that does not let somebody do that.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn refuse(&self, which: fn(&str, &str, &Value) -> bool) {
        self.store.lock().unwrap().refused = Some(which);
    }

    /// From now on nobody gets an answer, or everybody does again.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn is_away(&self) -> bool {
        self.away.load(Ordering::SeqCst)
    }

    /// Stores an object under its name.
    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let mut store = self.store.lock().unwrap();
        store.version += 1;
        object["metadata"]["name"] = path.rsplit('/').next().into();
        object["metadata"]["resourceVersion"] = store.version.to_string().into();
        store.objects.insert(path.to_owned(), object);
    }

    /// An object without its version, which changes with each write, and without what is empty.
    pub(crate) fn get(&self, path: &str) -> Value {
        let mut object = self.store.lock().unwrap().objects.get(path).cloned().unwrap_or_default();
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
            metadata.retain(|_, value| *value != json!({}));
        }
        object
    }

    /// From now on a kind is served, in this version alone.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn kind(&self, api_version: &str, kind: &str, plural: &str) {
        let mut store = self.store.lock().unwrap();
        store.kinds.retain(|known| known[1] != kind);
        store.kinds.push([api_version, kind, plural].map(String::from));
    }

    /// The paths of all objects.
    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn paths(&self) -> Vec<String> {
        self.store.lock().unwrap().objects.keys().cloned().collect()
    }

    /// Removes an object; a namespace with all that is in it.
    pub(crate) fn remove(&self, path: &str) {
        let inside = path.rsplit_once("/namespaces/").map(|(_, name)| format!("/namespaces/{name}/"));
        let mut store = self.store.lock().unwrap();
        store.objects.retain(|key, _| key != path && inside.as_ref().is_none_or(|inside| !key.contains(inside)));
    }

    /// What is served, as the API lists it (apidiscovery.k8s.io/v2).
    fn discovery(&self, core: bool) -> Value {
        let own = [["v1", "ConfigMap", "configmaps"].map(String::from)];
        let store = self.store.lock().unwrap();
        let kinds = if core { &own[..] } else { &store.kinds[..] };
        let groups = kinds.iter().map(|[version, kind, plural]| {
            let (group, version) = version.split_once('/').unwrap_or(("", version));
            let of = json!({"group": group, "version": version, "kind": kind});
            let resource = json!({"resource": plural, "scope": "Namespaced", "verbs": [], "responseKind": of});
            json!({"metadata": {"name": group}, "versions": [{"version": version, "resources": [resource]}]})
        });
        json!({"kind": "APIGroupDiscoveryList", "items": groups.collect::<Vec<_>>()})
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        while let Some((method, path, body)) = request(&mut reader) {
            if self.is_away() {
                return;
            }
            if path.contains("watch=true") {
                return self.watch(stream, path.split('?').next().unwrap_or_default());
            }
            let (code, answer) = match self.log(&method, &path) {
                Some(text) => (200, text),
                None => {
                    let (code, answer) = self.answer(&method, &path, body);
                    (code, answer.to_string())
                }
            };
            let head = format!(
                "HTTP/1.1 {code} x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            if stream.write_all(format!("{head}{answer}").as_bytes()).is_err() {
                return;
            }
        }
    }

    /// What a container of a pod that is there has printed: the pod's own path.
    fn log(&self, method: &str, path: &str) -> Option<String> {
        let pod = path.split('?').next()?.strip_suffix("/log").filter(|_| method == "GET")?;
        let there = self.store.lock().unwrap().objects.contains_key(pod);
        there.then(|| format!("2026-01-01T00:00:00Z printed by {pod}\n"))
    }

    /// Every object of a collection as soon as it is stored, until nobody listens.
    fn watch(&self, mut stream: TcpStream, path: &str) {
        let head = "HTTP/1.1 200 x\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
        let (mut sent, mut good) = (std::collections::BTreeSet::new(), stream.write_all(head.as_bytes()).is_ok());
        while good && !self.is_away() {
            for object in self.list(path)["items"].as_array().unwrap() {
                if sent.insert(object["metadata"]["resourceVersion"].to_string()) {
                    let event = json!({"type": "ADDED", "object": object});
                    good = good && stream.write_all(format!("{event}\n").as_bytes()).is_ok();
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
    }

    fn answer(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let refused = self.store.lock().unwrap().refused;
        if refused.is_some_and(|refused| refused(method, path, &body)) {
            return (403, status(403, "not allowed"));
        }
        if ["/api", "/apis"].contains(&path) {
            return (200, self.discovery(path == "/api"));
        }
        if path == "/version" {
            let names = [
                "major",
                "minor",
                "gitVersion",
                "gitCommit",
                "gitTreeState",
                "buildDate",
                "goVersion",
                "compiler",
                "platform",
            ];
            return (200, names.iter().map(|name| ((*name).to_owned(), json!("v1.37.2"))).collect());
        }
        let found = self.store.lock().unwrap().objects.get(path).cloned();
        let version = body["metadata"]["resourceVersion"].as_str().map(String::from);
        match (method, found) {
            ("GET", Some(object)) => (200, object),
            ("GET", None) if is_collection(path) => (200, self.list(path)),
            ("PUT" | "PATCH", Some(now))
                if version.as_deref().is_some_and(|v| now["metadata"]["resourceVersion"] != v) =>
            {
                (409, status(409, "the object has been modified"))
            }
            ("PUT", Some(_)) => self.store_at(path, body),
            ("PATCH", Some(mut now)) => {
                merge(&mut now, &body);
                if query.contains("dryRun=All") { (200, now) } else { self.store_at(path, now) }
            }
            // An apply makes what is not there.
            ("PATCH", None) if query.contains("force=true") => self.create(path, body),
            ("DELETE", Some(object)) => {
                self.remove(path);
                (200, object)
            }
            ("DELETE", None) if is_collection(path) => {
                let held = format!("{path}/");
                self.store.lock().unwrap().objects.retain(|key, _| !key.starts_with(&held));
                (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
            }
            ("POST", None) => {
                let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                self.create(&format!("{path}/{name}"), body)
            }
            _ => (404, status(404, &format!("{method} {path}: not found"))),
        }
    }

    fn create(&self, path: &str, mut object: Value) -> (u16, Value) {
        object["metadata"]["uid"] = format!("uid of {path}, the {}th", self.store.lock().unwrap().version).into();
        self.store_at(path, object)
    }

    fn store_at(&self, path: &str, object: Value) -> (u16, Value) {
        self.put(path, object);
        (200, self.store.lock().unwrap().objects[path].clone())
    }

    /// What lies right below a collection; of all namespaces, if it names none.
    fn list(&self, path: &str) -> Value {
        let store = self.store.lock().unwrap();
        let plural = path.rsplit('/').next().unwrap_or_default();
        let namespaced = path.contains("/namespaces/") || ["nodes", "namespaces"].contains(&plural);
        let of = |key: &&String| {
            let (folder, _) = key.rsplit_once('/').unwrap_or_default();
            folder == path || (!namespaced && folder.ends_with(&format!("/{plural}")))
        };
        let items: Vec<_> = store.objects.keys().filter(of).map(|key| store.objects[key].clone()).collect();
        json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": store.version.to_string()}, "items": items})
    }
}

/// Whether a path ends in the name of a kind, as in `/api/v1/nodes` or `…/namespaces/x/pods`.
fn is_collection(path: &str) -> bool {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let rest = if parts[0] == "api" { &parts[2..] } else { &parts[3.min(parts.len())..] };
    rest.len() % 2 == 1
}

fn status(code: u16, message: &str) -> Value {
    let reason = if code == 404 { "NotFound" } else { "Conflict" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": reason})
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().map(|object| object.remove(key));
        } else {
            merge(&mut target[key], value);
        }
    }
}

/// Method, path and body of the next request of a connection.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, String, Value)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ').map(String::from);
    let (method, path) = (words.next()?, words.next()?);
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok().filter(|read| *read > 0)?;
        let lower = header.trim().to_ascii_lowercase();
        if lower.is_empty() {
            break;
        }
        length = lower.strip_prefix("content-length:").map_or(length, |value| value.trim().parse().unwrap_or(0));
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method, path, serde_json::from_slice(&body).unwrap_or_default()))
}
