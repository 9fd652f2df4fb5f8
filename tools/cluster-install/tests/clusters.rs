//! Clusters that cannot be opened: what each says, and with which exit code. No cluster is needed.

#![allow(clippy::disallowed_methods, reason = "tests start the real program")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// A kubeconfig for a server and a user.
    fn kubeconfig(&self, server: &str, user: Value) -> PathBuf {
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": user}]});
        self.file("kubeconfig", config.to_string())
    }

    #[track_caller]
    fn fails(&self, args: &[&str], code: i32, words: &[&str]) {
        self.fails_with(&mut self.command(args), code, words);
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cluster-install"));
        command.args(args).env("OTHER_ARCH_CACHE", self.0.path()).env_remove("KUBECONFIG");
        command.env_remove("KUBERNETES_SERVICE_HOST").current_dir(self.0.path());
        command
    }

    #[track_caller]
    fn fails_with(&self, command: &mut Command, code: i32, words: &[&str]) {
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{text}");
        for word in words {
            assert!(text.contains(word), "'{word}' is not in\n{text}");
        }
        assert!(!text.contains("panicked") && !text.contains("hunter2"), "{text}");
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A server that answers every request with this.
fn server(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(
                stream,
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
                body.len()
            );
        }
    });
    format!("http://{address}")
}

#[test]
fn nothing_named_and_nothing_there() {
    let home = Home::new();
    home.fails(&["status"], 3, &["error[cluster-unreachable]", "the lab 'default' is not up", "cargo xtask lab up"]);
    home.fails(&["status", "--lab", "two"], 3, &["the lab 'two' is not up", "lab up --name two"]);
    home.fails(&["status", "--lab", "../x"], 2, &["is not the name of a lab"]);
    home.fails_with(home.command(&["status"]).env("KUBERNETES_SERVICE_HOST", "10.0.0.1"), 2, &["must be named"]);
    home.fails(&["status", "--kubeconfig", "in-cluster"], 2, &["this is no pod"]);
    home.fails(&["status", "--kubeconfig", "env"], 2, &["$KUBECONFIG is not set"]);
}

#[test]
fn files_that_are_no_kubeconfig() {
    let home = Home::new();
    home.fails(&["status", "--kubeconfig", "nowhere"], 2, &["error[usage]", "nowhere"]);
    let foreign = home.file("values.yaml", "replicas: 3\n");
    home.fails(&["status", "--kubeconfig", path(&foreign)], 2, &["values.yaml is not a kubeconfig"]);
    let garbage = home.file("garbage", [0xff, 0xfe, 0x00]);
    home.fails(&["status", "--kubeconfig", path(&garbage)], 2, &["garbage is not a kubeconfig"]);
    let config = home.kubeconfig("https://127.0.0.1:1", json!({}));
    home.fails(&["status", "--kubeconfig", path(&config), "--context", "d"], 2, &["no context 'd'", "its contexts: c"]);
}

#[test]
fn servers_that_do_not_answer_as_they_should() {
    let home = Home::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let opened = |server: &str, code, words: &[&str]| {
        let config = home.kubeconfig(server, json!({"token": "hunter2"}));
        home.fails(&["status", "--kubeconfig", path(&config)], code, words);
    };
    opened(&format!("http://{closed}"), 3, &["error[cluster-unreachable]", "refused", "is the cluster up?"]);
    opened(
        &server("200 OK", "<html>hello</html>"),
        3,
        &["error[apiserver]", "does not answer as a Kubernetes API server"],
    );
    opened(&server("404 Not Found", "nothing here"), 3, &["error[apiserver]"]);
    let refused = r#"{"kind":"Status","apiVersion":"v1","status":"Failure","message":"Unauthorized","reason":"Unauthorized","code":401}"#;
    opened(
        &server("401 Unauthorized", refused),
        3,
        &["error[auth]", "refuses us: Unauthorized", "check the credentials"],
    );
}

/// A certificate for 127.0.0.1 by an authority, valid until that year, and its key.
fn certificate(authority: &Issuer<'_, KeyPair>, until: i32) -> (rcgen::Certificate, KeyPair) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(until, 1, 1));
    (params.signed_by(&key, authority).unwrap(), key)
}

/// A server that shows this certificate and wants one of the same authority; what it would answer nobody comes to see.
fn tls_server(authority: &rcgen::Certificate, shown: &(rcgen::Certificate, KeyPair)) -> String {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = rustls::server::WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let key = PrivatePkcs8KeyDer::from(shown.1.serialize_der()).into();
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients.build().unwrap())
        .with_single_cert(vec![shown.0.der().clone()], key)
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(config.clone().into()).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.flush();
        }
    });
    format!("https://{address}")
}

/// By real handshakes: the server's certificate has expired, and then ours.
#[test]
fn certificates_that_have_expired() {
    let home = Home::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    let issuer = Issuer::new(params, key);
    for (server_s, ours, words) in
        [(2020, 2049, ["error[auth]", "certificate expired"]), (2049, 2020, ["error[auth]", "CertificateExpired"])]
    {
        let server = tls_server(&authority, &certificate(&issuer, server_s));
        let (shown, key) = certificate(&issuer, ours);
        let data = |pem: String| BASE64.encode(pem);
        let user = json!({"client-certificate-data": data(shown.pem()), "client-key-data": data(key.serialize_pem())});
        let config = home.kubeconfig(&server, user);
        let mut text: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
        text["clusters"][0]["cluster"]["certificate-authority-data"] = data(authority.pem()).into();
        std::fs::write(&config, text.to_string()).unwrap();
        home.fails(&["status", "--kubeconfig", path(&config)], 3, &words);
    }
}

#[test]
fn a_cluster_that_does_not_answer_is_not_fit() {
    let home = Home::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = home.kubeconfig(&format!("http://{closed}"), json!({}));
    let output = home.command(&["preflight", "--kubeconfig", path(&config), "--output", "json"]).output().unwrap();
    assert_eq!(output.status.code(), Some(3));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["rows"].as_array().unwrap();
    assert_eq!((&rows[0]["check"], &rows[0]["cause"]), (&json!("api"), &json!("cluster-unreachable")));
    assert!(rows[1..].iter().all(|row| row["answer"] == "not-tried"), "{report}");
    home.fails(&["preflight", "--kubeconfig", "nowhere"], 2, &["error[usage]"]);
    home.fails(&["preflight", "--kubernetes", "new"], 2, &["names no versions"]);
    home.fails(&["preflight", "--disk", "much"], 2, &["no number of bytes"]);
}

#[test]
fn programs_of_a_kubeconfig() {
    let home = Home::new();
    let failing = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh",
        "args": ["-c", "echo hunter2; echo the login has expired >&2; exit 1"]}});
    let config = home.kubeconfig("https://127.0.0.1:1", failing);
    home.fails(
        &["status", "--kubeconfig", path(&config)],
        3,
        &["error[auth]", "exec plugin failed", "the login has expired"],
    );
    let garbage = json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", "echo '{hunter2'"]}});
    let config = home.kubeconfig("https://127.0.0.1:1", garbage);
    home.fails(&["status", "--kubeconfig", path(&config)], 3, &["error[auth]", "no credentials that can be read"]);
}

#[test]
#[ignore = "takes half a minute: cargo xtask test runs it"]
fn a_program_that_hangs_is_ended() {
    let home = Home::new();
    let hanging =
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sleep", "args": ["600"]}});
    let config = home.kubeconfig("https://127.0.0.1:1", hanging);
    std::fs::create_dir(home.0.path().join("ci")).unwrap();
    let cluster = "[[cluster]]\nname = 'z'\nowner = 'me'\nkubeconfig = { path = 'kubeconfig', context = 'c' }\n";
    home.file("ci/architectures.toml", cluster);
    let words = ["error[auth]", "no credentials within 30 s"];
    std::thread::scope(|scope| {
        scope.spawn(|| home.fails(&["status", "--kubeconfig", path(&config)], 3, &words));
        scope.spawn(|| home.fails(&["cluster", "create", "z", "--ci", "ci"], 3, &words));
    });
}

#[test]
fn a_failure_to_open_is_recorded_too() {
    let home = Home::new();
    let run = home.0.path().join("run");
    let release = home.file("r.yaml", "{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}");
    let args = [
        "install",
        "--component",
        "x",
        "--platform",
        "linux/s390x",
        "--run-dir",
        path(&run),
        "--release",
        path(&release),
    ];
    home.fails(&args, 3, &["is not up"]);
    let record = std::fs::read(run.join("x/linux-s390x/lab-default/install.json")).unwrap();
    let record: Value = serde_json::from_slice(&record).unwrap();
    assert_eq!((&record["outcome"], &record["cause"]), (&json!("failed"), &json!("cluster-unreachable")));
    assert_eq!(record["release"], kit::digest::sha256(&std::fs::read(&release).unwrap()));
}

#[test]
fn releases_that_cannot_be_read() {
    let home = Home::new();
    let run = home.0.path().join("run");
    let install = |text: &str, words: &[&str]| {
        let release = home.file("r.yaml", text);
        let args = ["install", "--component", "x", "--run-dir", path(&run), "--release", path(&release)];
        home.fails(&args, 2, words);
    };
    install("", &["r.yaml has no objects"]);
    install("{apiVersion: v1, kind: ConfigMap, metadata: {name: a", &["r.yaml: document 1: this is not YAML"]);
    install("{apiVersion: v1, kind: Pod, metadata: {}}", &["a Pod without metadata.name"]);
    let absent = ["install", "--component", "x", "--run-dir", "nowhere"];
    home.fails(&absent, 2, &["there is no run directory nowhere"]);
    assert!(!home.0.path().join("nowhere").exists());
}
