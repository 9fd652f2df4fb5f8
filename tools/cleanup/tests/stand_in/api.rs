//! A small API server that keeps what it is sent: few kinds, an answer after a while, and on request one that refuses,
//! fails, or says nothing.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

/// Group, version, plural, kind, whether its objects live in namespaces.
const KINDS: &[(&str, &str, &str, &str, bool)] = &[
    ("", "v1", "configmaps", "ConfigMap", true),
    ("", "v1", "namespaces", "Namespace", false),
    ("", "v1", "nodes", "Node", false),
    ("", "v1", "pods", "Pod", true),
    ("", "v1", "secrets", "Secret", true),
    ("admissionregistration.k8s.io", "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", false),
    ("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", false),
    ("coordination.k8s.io", "v1", "leases", "Lease", true),
    ("left.example.com", "v1", "things", "Thing", true),
];

/// A request: when it came, its method, its path.
pub(crate) type Asked = (Instant, String, String);

#[derive(Default)]
pub(crate) struct State {
    objects: BTreeMap<String, Value>,
    count: u64,
    pub(crate) log: Vec<Asked>,
    /// How long every answer takes.
    pub(crate) latency: Duration,
    /// Method and path: what it answers, so many times.
    pub(crate) faults: Vec<(&'static str, String, u16, usize)>,
    /// Method and path that get no answer.
    pub(crate) silent: Vec<(&'static str, String)>,
    /// Verb and plural that are not allowed; with one, not everything is.
    pub(crate) denied: Vec<(&'static str, &'static str)>,
}

#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { url: format!("http://{}", listener.local_addr().unwrap()), state: Arc::default() };
        for name in ["kube-system", "default"] {
            server.put(&format!("/api/v1/namespaces/{name}"), json!({}));
        }
        server.put("/api/v1/nodes/n1", json!({"spec": {"podCIDR": "10.0.0.0/24"}}));
        let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.left.example.com";
        server.put(definition, json!({"spec": {"group": "left.example.com", "names": {"kind": "Thing"}}}));
        let serving = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let server = serving.clone();
                std::thread::spawn(move || server.answer(stream));
            }
        });
        server
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Makes or changes an object: by its path, which says what it is.
    pub(crate) fn put(&self, path: &str, object: Value) {
        self.state().keep(path, object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state().objects.get(path).cloned()
    }

    /// What was asked since, by these methods, but for questions about rights.
    pub(crate) fn asked(&self, since: Instant, methods: &[&str]) -> Vec<Asked> {
        let state = self.state();
        let wanted = state.log.iter().filter(|(at, method, path)| {
            *at >= since && methods.contains(&method.as_str()) && !path.contains("accessreviews")
        });
        wanted.cloned().collect()
    }

    fn answer(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.is_empty() {
            return;
        }
        let (mut length, mut header) = (0, String::new());
        while reader.read_line(&mut header).is_ok() && header.trim() != "" {
            if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            header.clear();
        }
        let mut sent = vec![0; length];
        reader.read_exact(&mut sent).unwrap();
        let mut words = line.split(' ');
        let (method, target) = (words.next().unwrap().to_owned(), words.next().unwrap_or_default().to_owned());
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let latency = {
            let mut state = self.state();
            state.log.push((Instant::now(), method.clone(), path.to_owned()));
            state.latency
        };
        std::thread::sleep(latency);
        if self.state().silent.iter().any(|(silent, of)| *silent == method && of == path) {
            std::thread::sleep(Duration::from_secs(120));
            return;
        }
        let (code, body) = if query.contains("watch=true") {
            // Nothing happens any more; who watches asks again.
            std::thread::sleep(Duration::from_millis(300));
            (200, String::new())
        } else {
            let sent = serde_json::from_slice(&sent).unwrap_or_default();
            let (code, value) = self.state().respond(&method, path, sent);
            (code, value.to_string())
        };
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n"
        );
        let mut stream = reader.into_inner();
        // A client that has gone needs no answer.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
    }
}

impl State {
    fn keep(&mut self, path: &str, mut object: Value) -> Value {
        self.count += 1;
        let parts: Vec<&str> = path.split('/').collect();
        let place = parts.iter().rposition(|part| *part == "namespaces");
        if let Some(place) = place.filter(|place| parts.len() > place + 2) {
            object["metadata"]["namespace"] = json!(parts[place + 1]);
        }
        object["metadata"]["name"] = json!(parts[parts.len() - 1]);
        let before = self.objects.get(path);
        let uid =
            before.map_or_else(|| json!(format!("uid-{}", self.count)), |before| before["metadata"]["uid"].clone());
        object["metadata"]["uid"] = if path.ends_with("/kube-system") { json!("the-cluster") } else { uid };
        object["metadata"]["resourceVersion"] = json!(self.count.to_string());
        object["metadata"]["creationTimestamp"] = json!("2026-01-01T00:00:00Z");
        // The API server keeps texts as bytes.
        if let Some(texts) = object.as_object_mut().and_then(|object| object.remove("stringData")) {
            let texts = texts.as_object().unwrap().iter();
            object["data"] = texts.map(|(name, text)| (name.clone(), json!(base64(text.as_str().unwrap())))).collect();
        }
        let kind = KINDS.iter().find(|(_, _, plural, ..)| parts[parts.len() - 2] == *plural);
        let (group, version, _, kind, _) = kind.unwrap_or_else(|| panic!("{path}"));
        object["apiVersion"] = json!(if group.is_empty() { (*version).into() } else { format!("{group}/{version}") });
        object["kind"] = json!(kind);
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn respond(&mut self, method: &str, path: &str, sent: Value) -> (u16, Value) {
        if let Some(fault) = self.faults.iter_mut().find(|(of, at, _, left)| *of == method && at == path && *left > 0) {
            fault.3 -= 1;
            return (fault.2, status(fault.2, "a fault of the test"));
        }
        match (method, path) {
            (_, "/version") => {
                let version = json!({"major": "1", "minor": "37", "gitVersion": "v1.37.2", "gitCommit": "", "platform": "",
                    "goVersion": "", "gitTreeState": "", "buildDate": "", "compiler": ""});
                return (200, version);
            }
            (_, "/readyz") => return (200, json!("ok")),
            (_, "/api") => return (200, discovery(&[""])),
            (_, "/apis") => {
                let groups =
                    ["admissionregistration.k8s.io", "apiextensions.k8s.io", "coordination.k8s.io", "left.example.com"];
                return (200, discovery(&groups));
            }
            (_, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews") => {
                let asked = &sent["spec"]["resourceAttributes"];
                let (verb, plural) = (asked["verb"].as_str().unwrap(), asked["resource"].as_str().unwrap());
                let denied = self.denied.iter().any(|(no, of)| *no == verb && *of == plural);
                let allowed = if verb == "*" { self.denied.is_empty() } else { !denied };
                return (201, json!({"spec": sent["spec"], "status": {"allowed": allowed}}));
            }
            _ => {}
        }
        let last = path.rsplit('/').next().unwrap_or_default();
        if let Some((_, _, _, kind, _)) = KINDS.iter().find(|(_, _, plural, ..)| *plural == last) {
            return self.of_kind(method, path, last, kind, sent);
        }
        let Some(now) = self.objects.get(path).cloned() else { return (404, status(404, "not found")) };
        let uid = now["metadata"]["uid"].clone();
        match method {
            "GET" => (200, now),
            "PUT" => (200, self.keep(path, sent)),
            "PATCH" if sent["metadata"].get("uid").is_some_and(|wanted| *wanted != uid) => (409, status(409, "uid")),
            "PATCH" => {
                let mut object = now;
                merge(&mut object, &sent);
                let going = object["metadata"]["deletionTimestamp"].is_string();
                if going && object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty) {
                    self.objects.remove(path);
                    return (200, object);
                }
                (200, self.keep(path, object))
            }
            _ if sent["preconditions"]["uid"].as_str().is_some_and(|wanted| json!(wanted) != uid) => {
                (409, status(409, "uid"))
            }
            _ => self.delete(path, now),
        }
    }

    fn of_kind(&mut self, method: &str, path: &str, plural: &str, kind: &str, sent: Value) -> (u16, Value) {
        if method == "POST" {
            let path = format!("{path}/{}", sent["metadata"]["name"].as_str().unwrap());
            if self.objects.contains_key(&path) {
                return (409, status(409, "already exists"));
            }
            return (201, self.keep(&path, sent));
        }
        // In one namespace, or in all.
        let base = path.trim_end_matches(plural);
        let inside = |at: &&String| {
            let parts: Vec<&str> = at.rsplitn(3, '/').collect();
            parts[1] == plural && at.starts_with(base)
        };
        let paths: Vec<String> = self.objects.keys().filter(inside).cloned().collect();
        if method == "DELETE" {
            for path in &paths {
                let now = self.objects[path].clone();
                self.delete(path, now);
            }
            return (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}));
        }
        let items: Vec<&Value> = paths.iter().map(|path| &self.objects[path]).collect();
        let metadata = json!({"resourceVersion": self.count.to_string()});
        (200, json!({"kind": format!("{kind}List"), "apiVersion": "v1", "metadata": metadata, "items": items}))
    }

    /// What has finalizers waits for them; a namespace goes with everything in it.
    fn delete(&mut self, path: &str, mut now: Value) -> (u16, Value) {
        if now["metadata"]["finalizers"].as_array().is_some_and(|finalizers| !finalizers.is_empty()) {
            now["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
            return (200, self.keep(path, now));
        }
        self.objects.remove(path);
        if now["kind"] == "Namespace" {
            let inside = format!("/namespaces/{}/", now["metadata"]["name"].as_str().unwrap());
            self.objects.retain(|path, _| !path.contains(&inside));
            now["metadata"]["deletionTimestamp"] = json!("2026-01-02T00:00:00Z");
            return (200, now);
        }
        (200, json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
    }
}

fn discovery(groups: &[&str]) -> Value {
    let group = |group: &&str| {
        let kinds = KINDS.iter().filter(|(of, ..)| of == group);
        let resources: Vec<Value> = kinds
            .map(|(group, version, plural, kind, namespaced)| {
                json!({"resource": plural, "scope": if *namespaced { "Namespaced" } else { "Cluster" },
                    "verbs": ["list", "delete", "watch"],
                    "responseKind": {"group": group, "version": version, "kind": kind}})
            })
            .collect();
        json!({"metadata": {"name": group}, "versions": [{"version": "v1", "resources": resources}]})
    };
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {},
        "items": groups.iter().map(group).collect::<Vec<_>>()})
}

fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": message})
}

/// RFC 7386.
fn merge(object: &mut Value, patch: &Value) {
    let Some(fields) = patch.as_object() else { return object.clone_from(patch) };
    if !object.is_object() {
        *object = json!({});
    }
    for (name, value) in fields {
        if value.is_null() {
            object.as_object_mut().unwrap().remove(name);
        } else {
            merge(&mut object[name], value);
        }
    }
}

fn base64(text: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let one = |chunk: &[u8]| {
        let bits = chunk.iter().enumerate().fold(0u32, |bits, (at, byte)| bits | (u32::from(*byte) << (16 - 8 * at)));
        let digit = |at: usize| match at <= chunk.len() {
            true => DIGITS[(bits >> (18 - 6 * at)) as usize & 63] as char,
            false => '=',
        };
        (0..4).map(digit).collect::<String>()
    };
    text.as_bytes().chunks(3).map(one).collect()
}
