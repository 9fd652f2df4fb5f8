//! A stand-in for an API server: objects by their paths, listed, watched and written as the API does it. What
//! controllers and kubelets would do with them is the test's own story.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// What happens to an object that was written: objects to store as well, or a refusal by code and message.
type Story = dyn Fn(&str, &mut Value) -> Result<Vec<(String, Value)>, (u16, String)> + Send + Sync;

#[derive(Default)]
struct Store {
    objects: BTreeMap<String, Value>,
    /// Every change: its kind, path and object.
    changes: Vec<(&'static str, String, Value)>,
    logs: BTreeMap<String, String>,
    requests: Vec<(Instant, String)>,
    /// Paths that nobody may read.
    forbidden: Vec<String>,
    /// How long each answer takes.
    latency: Duration,
}

/// The server; its threads end with the test's process.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) address: String,
    store: Arc<(Mutex<Store>, Condvar)>,
    story: Arc<Story>,
}

impl Api {
    /// A cluster with one ready node of this architecture, where `story` happens.
    pub(crate) fn start(
        arch: &str,
        story: impl Fn(&str, &mut Value) -> Result<Vec<(String, Value)>, (u16, String)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let api = Self { address, store: Arc::default(), story: Arc::new(story) };
        let served = api.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || served.serve(stream));
            }
        });
        api.put("/api/v1/namespaces/kube-system", json!({"metadata": {"uid": "uid-1"}}));
        let text = ["bootID", "containerRuntimeVersion", "kubeProxyVersion", "machineID", "osImage", "systemUUID"];
        let mut info: serde_json::Map<_, _> = text.into_iter().map(|field| (field.to_owned(), json!(""))).collect();
        info.extend([
            ("architecture".to_owned(), json!(arch)),
            ("operatingSystem".to_owned(), json!("linux")),
            ("kubeletVersion".to_owned(), json!("v1.37.2")),
            ("kernelVersion".to_owned(), json!("6.1")),
        ]);
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": info});
        api.put("/api/v1/nodes/n1", json!({"spec": {}, "status": status}));
        api
    }

    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let (store, changed) = &*self.store;
        let mut store = store.lock().unwrap();
        let kind = if store.objects.contains_key(path) { "MODIFIED" } else { "ADDED" };
        let parts: Vec<_> = path.split('/').collect();
        object["metadata"]["name"] = json!(parts[parts.len() - 1]);
        if let Some(at) = parts.iter().position(|part| *part == "namespaces").filter(|at| parts.len() > at + 2) {
            object["metadata"]["namespace"] = json!(parts[at + 1]);
        }
        object["metadata"]["uid"] = json!(format!("uid-of-{}", parts[parts.len() - 1]));
        object["metadata"]["resourceVersion"] = json!((store.changes.len() + 1).to_string());
        store.changes.push((kind, path.to_owned(), object.clone()));
        store.objects.insert(path.to_owned(), object.clone());
        changed.notify_all();
        object
    }

    /// An object as it is stored.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.store.0.lock().unwrap().objects[path].clone()
    }

    /// Somebody removes an object.
    pub(crate) fn delete(&self, path: &str) {
        self.remove(|key| key == path);
    }

    /// Method and path of every request so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.store.0.lock().unwrap().requests.iter().map(|(_, request)| request.clone()).collect()
    }

    /// When the last request of this method and path came.
    pub(crate) fn asked(&self, request: &str) -> Instant {
        let store = self.store.0.lock().unwrap();
        store.requests.iter().rev().find(|(_, known)| known == request).expect(request).0
    }

    /// From now on each answer takes that long.
    pub(crate) fn delay(&self, latency: Duration) {
        self.store.0.lock().unwrap().latency = latency;
    }

    /// How many round trips the requests since that one took, one after the other.
    pub(crate) fn trips(&self, since: usize) -> usize {
        let store = self.store.0.lock().unwrap();
        let times: Vec<_> = store.requests[since..].iter().map(|(at, _)| *at).collect();
        1 + times.windows(2).filter(|pair| pair[1] - pair[0] > store.latency / 2).count()
    }

    /// Nobody may read this path.
    pub(crate) fn forbid(&self, path: &str) {
        self.store.0.lock().unwrap().forbidden.push(path.to_owned());
    }

    /// What a pod's container wrote.
    pub(crate) fn log(&self, pod: &str, text: &str) {
        self.store.0.lock().unwrap().logs.insert(format!("{pod}/log"), text.to_owned());
    }

    /// Method and path of every request that would change something.
    pub(crate) fn writes(&self) -> Vec<String> {
        let store = self.store.0.lock().unwrap();
        let all = store.requests.iter().map(|(_, request)| request);
        all.filter(|request| !request.starts_with("GET")).cloned().collect()
    }

    fn serve(&self, stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut stream = stream;
        let (method, target, body) = request(&mut reader)?;
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let latency = {
            let mut store = self.store.0.lock().unwrap();
            store.requests.push((Instant::now(), format!("{method} {path}")));
            store.latency
        };
        std::thread::sleep(latency);
        if query.contains("watch=true") {
            return self.watch(&mut stream, path, query);
        }
        let log = self.store.0.lock().unwrap().logs.get(path).cloned();
        let (code, kind, text) = match log {
            Some(log) => (200, "text/plain", log),
            None => {
                let (code, answer) = self.answer(&method, path, body);
                (code, "application/json", answer.to_string())
            }
        };
        let head = format!("HTTP/1.1 {code} x\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n", text.len());
        stream.write_all(format!("{head}Connection: close\r\n\r\n{text}").as_bytes()).ok()
    }

    fn answer(&self, method: &str, path: &str, mut body: Value) -> (u16, Value) {
        match path {
            "/version" => {
                let names = "major minor gitVersion gitCommit gitTreeState buildDate goVersion compiler platform";
                return (200, names.split(' ').map(|name| (name.to_owned(), json!("v1.37.2"))).collect());
            }
            "/api" | "/apis" => return (200, discovery(path)),
            _ => {}
        }
        if method == "GET" && self.store.0.lock().unwrap().forbidden.iter().any(|known| known == path) {
            return (403, refusal(403, &format!("{path} is forbidden")));
        }
        let found = self.store.0.lock().unwrap().objects.get(path).cloned();
        match (method, found) {
            ("GET", Some(object)) => (200, object),
            ("GET", None) if is_collection(path) => (200, self.list(path)),
            ("DELETE", found) => {
                let of = |key: &String| if found.is_some() { key == path } else { is_in(key, path) };
                self.remove(of);
                (200, json!({"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            }
            ("PATCH", _) => {
                // All of it is owned by whoever applies it. Who replaces it without saying so takes that away.
                body["metadata"]["managedFields"] = json!([{
                    "manager": "other-arch", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:all": {}},
                }]);
                self.write(path, body)
            }
            ("PUT", Some(found))
                if body["metadata"]["resourceVersion"].is_string()
                    && body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"] =>
            {
                (409, refusal(409, "the object has been modified"))
            }
            ("PUT", _) => self.write(path, body),
            ("POST", None) => {
                let generated = body["metadata"]["generateName"].as_str().map(|prefix| format!("{prefix}1"));
                let name = generated.or_else(|| body["metadata"]["name"].as_str().map(String::from));
                // A question (a review) has no name.
                let name = name.unwrap_or_else(|| "x".into());
                body["metadata"]["name"] = json!(name);
                self.write(&format!("{path}/{name}"), body)
            }
            _ => (404, refusal(404, &format!("{method} {path}: not found"))),
        }
    }

    fn write(&self, path: &str, mut body: Value) -> (u16, Value) {
        if path.starts_with("/api/v1/namespaces/") && path.matches('/').count() == 4 {
            body["status"] = json!({"phase": "Active"});
        }
        match (self.story)(path, &mut body) {
            Ok(more) => {
                let stored = self.put(path, body);
                for (path, object) in more {
                    self.put(&path, object);
                }
                (200, stored)
            }
            Err((code, message)) => (code, refusal(code, &message)),
        }
    }

    fn remove(&self, of: impl Fn(&String) -> bool) {
        let (store, changed) = &*self.store;
        let mut store = store.lock().unwrap();
        let keys: Vec<_> = store.objects.keys().filter(|key| of(key)).cloned().collect();
        for key in keys {
            let object = store.objects.remove(&key).unwrap();
            store.changes.push(("DELETED", key, object));
        }
        changed.notify_all();
    }

    fn list(&self, path: &str) -> Value {
        let store = self.store.0.lock().unwrap();
        let items: Vec<_> =
            store.objects.iter().filter(|(key, _)| is_in(key, path)).map(|(_, object)| object.clone()).collect();
        let metadata = json!({"resourceVersion": store.changes.len().to_string()});
        json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items})
    }

    /// Sends the changes after a version as they come, until the client has gone.
    fn watch(&self, stream: &mut TcpStream, path: &str, query: &str) -> Option<()> {
        let version = query.split('&').find_map(|pair| pair.strip_prefix("resourceVersion="));
        let mut next: usize = version.and_then(|version| version.parse().ok()).unwrap_or(0);
        stream.write_all(b"HTTP/1.1 200 x\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n").ok()?;
        let (store, changed) = &*self.store;
        loop {
            let changes = {
                let store = changed.wait_while(store.lock().unwrap(), |store| store.changes.len() <= next).unwrap();
                let new = store.changes[next..].to_vec();
                next = store.changes.len();
                new
            };
            for (kind, _, object) in changes.iter().filter(|(_, key, _)| is_in(key, path)) {
                stream.write_all(format!("{}\n", json!({"type": kind, "object": object})).as_bytes()).ok()?;
            }
        }
    }
}

/// Whether an object lies in a collection, of one namespace or of all.
fn is_in(key: &str, collection: &str) -> bool {
    let (folder, _) = key.rsplit_once('/').unwrap();
    let (group, plural) = collection.rsplit_once('/').unwrap();
    folder == collection
        || (folder.starts_with(&format!("{group}/namespaces/")) && folder.ends_with(&format!("/{plural}")))
}

fn is_collection(path: &str) -> bool {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    let rest = if parts[0] == "api" { 2 } else { 3 };
    parts.len() > rest && (parts.len() - rest) % 2 == 1
}

fn refusal(code: u16, message: &str) -> Value {
    let reason = if code == 404 { "NotFound" } else { "Forbidden" };
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": reason})
}

/// The kinds that it serves, as aggregated discovery tells them.
fn discovery(path: &str) -> Value {
    let kinds: &[(&str, &str, &str, &str, bool)] = &[
        ("", "v1", "Namespace", "namespaces", false),
        ("", "v1", "Pod", "pods", true),
        ("", "v1", "Event", "events", true),
        ("", "v1", "ConfigMap", "configmaps", true),
        ("apps", "v1", "Deployment", "deployments", true),
        ("batch", "v1", "Job", "jobs", true),
        ("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true),
        (
            "admissionregistration.k8s.io",
            "v1",
            "ValidatingWebhookConfiguration",
            "validatingwebhookconfigurations",
            false,
        ),
    ];
    let resource = |kind: &str, group: &str, version: &str, plural: &str, namespaced: bool| {
        json!({
            "resource": plural, "singularResource": kind.to_lowercase(), "verbs": ["get", "list", "watch", "create"],
            "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "responseKind": {"group": group, "version": version, "kind": kind},
        })
    };
    let group = |name: &str| {
        let of = kinds.iter().filter(|(group, ..)| *group == name);
        let resources: Vec<_> = of.map(|(g, v, k, p, n)| resource(k, g, v, p, *n)).collect();
        let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
        json!({"metadata": metadata, "versions": [{"version": "v1", "resources": resources, "freshness": "Current"}]})
    };
    let groups =
        if path == "/api" { &[""][..] } else { &["apps", "batch", "discovery.k8s.io", "admissionregistration.k8s.io"] };
    let groups: Vec<_> = groups.iter().map(|name| group(name)).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": groups})
}

/// Method, target and body of a connection's request.
fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, String, Value)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split(' ').map(String::from);
    let (method, target) = (words.next()?, words.next()?);
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
    Some((method, target, serde_json::from_slice(&body).unwrap_or_default()))
}
