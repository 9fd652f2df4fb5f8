//! A lab, a run directory on it, and the real program.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::{Value, json};

pub(crate) mod objects;

const CLEANUP: &str = env!("CARGO_BIN_EXE_cleanup");

/// A lab for these tests alone; one that they brought up goes when they end, also by a panic.
pub(crate) struct Lab {
    name: String,
    ours: bool,
    folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let named = std::env::var("OTHER_ARCH_TEST_LAB_NAME").ok().filter(|name| !name.is_empty());
        let ours = named.is_none();
        let lab =
            Self { name: named.unwrap_or_else(|| "cleanup-test".into()), ours, folder: tempfile::tempdir().unwrap() };
        if ours {
            lab.tool(&["up"]);
        }
        lab
    }

    /// The lab's own tool, built beside ours.
    pub(crate) fn tool(&self, args: &[&str]) -> String {
        let output = self.try_tool(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "lab {args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn try_tool(&self, args: &[&str]) -> Output {
        let program = Path::new(CLEANUP).with_file_name("lab");
        assert!(program.is_file(), "{} is missing: cargo build --package lab", program.display());
        Command::new(program).args(["--name", &self.name]).args(args).output().unwrap()
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        self.tool(&[&["kubectl", "--"], args].concat())
    }

    pub(crate) fn file(&self, name: &str, content: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Where its files lie.
    pub(crate) fn folder(&self) -> PathBuf {
        let kubeconfig = self.tool(&["kubeconfig"]);
        Path::new(kubeconfig.trim()).parent().unwrap().to_owned()
    }

    /// Waits until the API server answers again.
    pub(crate) fn ready(&self) {
        let began = std::time::Instant::now();
        while !self.try_tool(&["kubectl", "--", "get", "--raw", "/readyz"]).status.success() {
            assert!(began.elapsed().as_secs() < 60, "the API server does not come back");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    /// A kubeconfig that may read everything, keep our own state, and nothing else.
    pub(crate) fn reader(&self) -> PathBuf {
        self.kubectl(&["create", "serviceaccount", "kept-reader", "-n", "kube-public"]);
        self.kubectl(&["create", "clusterrole", "kept-reader", "--verb=get,list,watch", "--resource=*.*"]);
        self.kubectl(&[
            "create",
            "clusterrolebinding",
            "kept-reader",
            "--clusterrole=kept-reader",
            "--serviceaccount=kube-public:kept-reader",
        ]);
        self.kubectl(&[
            "create",
            "rolebinding",
            "kept-reader",
            "-n",
            "other-arch",
            "--clusterrole=cluster-admin",
            "--serviceaccount=kube-public:kept-reader",
        ]);
        self.account("kept-reader", "kube-public")
    }

    /// A kubeconfig with a service account's token.
    pub(crate) fn account(&self, name: &str, namespace: &str) -> PathBuf {
        let token = self.kubectl(&["create", "token", name, "-n", namespace]);
        let config = self.kubectl(&["config", "view", "--raw", "-o", "json"]);
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["users"][0]["user"] = json!({"token": token.trim()});
        self.file(&format!("{name}.json"), &config.to_string())
    }

    /// Whether kubectl succeeds with these arguments, and what it says if it does not.
    pub(crate) fn may(&self, args: &[&str]) -> Result<(), String> {
        let output = self.try_tool(&[&["kubectl", "--"], args].concat());
        if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
    }

    /// UID of the cluster.
    pub(crate) fn uid(&self) -> String {
        self.kubectl(&["get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}"])
    }

    /// The tool, without a run.
    pub(crate) fn cleanup(&self, args: &[&str]) -> Ended {
        Ended::of(Command::new(CLEANUP).args(args).output().unwrap())
    }

    /// Options that name this lab.
    pub(crate) fn options(&self) -> [&str; 2] {
        ["--lab", &self.name]
    }

    /// Waits until our own namespace is gone: cleanup does not.
    pub(crate) fn forgotten(&self) {
        self.kubectl(&["wait", "--for=delete", "namespace/other-arch", "--timeout=30s"]);
    }

    pub(crate) fn remove_reader(&self) {
        self.kubectl(&["delete", "clusterrolebinding,clusterrole", "kept-reader"]);
        self.kubectl(&["delete", "serviceaccount", "kept-reader", "-n", "kube-public"]);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.ours {
            self.tool(&["down"]);
        }
    }
}

/// What a program said.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    pub(crate) fn everything(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A run on a lab.
pub(crate) struct Run<'a> {
    pub(crate) lab: &'a Lab,
    folder: PathBuf,
    cluster: Vec<String>,
    count: RefCell<usize>,
}

impl<'a> Run<'a> {
    pub(crate) fn new(lab: &'a Lab, name: &str) -> Self {
        let folder = lab.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        Self { lab, folder, cluster: vec!["--lab".into(), lab.name.clone()], count: RefCell::default() }
    }

    /// The same run, its cluster named in another way.
    pub(crate) fn with_cluster(&self, options: &[&str]) -> Self {
        let cluster = options.iter().map(|option| (*option).to_owned()).collect();
        Self { lab: self.lab, folder: self.folder.clone(), cluster, count: RefCell::default() }
    }

    pub(crate) fn cell(&self) -> PathBuf {
        let cluster = if self.cluster[0] == "--lab" { format!("lab-{}", self.lab.name) } else { self.context() };
        self.folder.join("greeter/linux-amd64").join(cluster)
    }

    fn context(&self) -> String {
        let config: Value = serde_json::from_str(&std::fs::read_to_string(&self.cluster[1]).unwrap()).unwrap();
        config["current-context"].as_str().unwrap().to_owned()
    }

    fn command(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = Command::new(CLEANUP);
        command.args([verb, "--component", "greeter", "--platform", "linux/amd64", "--run-dir"]).arg(&self.folder);
        command.args(&self.cluster).args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn tool(&self, verb: &str, args: &[&str]) -> Ended {
        Ended::of(self.command(verb, args).output().unwrap())
    }

    pub(crate) fn start(&self, verb: &str, args: &[&str]) -> Child {
        self.command(verb, args).spawn().unwrap()
    }

    /// As Ctrl-C does.
    pub(crate) fn interrupt(&self, working: &Child) {
        let pid = working.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    }

    /// Cleans up; the record that it leaves.
    pub(crate) fn back(&self, args: &[&str], code: i32) -> Value {
        let ended = self.tool("run", args);
        assert_eq!(ended.code, code, "{}", ended.everything());
        self.record()
    }

    pub(crate) fn record(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.cell().join("cleanup.json")).unwrap()).unwrap()
    }

    pub(crate) fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        *self.count.borrow_mut() += 1;
        let file = self.lab.file(&format!("apply-{}.json", self.count.borrow()), &list.to_string());
        // Also what cleanup has put back, and is the manager of since.
        self.lab.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", file.to_str().unwrap()]);
    }

    /// Waits until a definition's objects can be made.
    pub(crate) fn served(&self, plural: &str) {
        let definition = format!("customresourcedefinition/{plural}.left.example.com");
        self.lab.kubectl(&["wait", "--for=condition=Established", &definition, "--timeout=30s"]);
    }

    /// Namespaces full of things.
    pub(crate) fn leave_much(&self, name: &str, namespaces: usize) {
        let mut objects = Vec::new();
        for index in 0..namespaces {
            let namespace = format!("{name}-{index}");
            objects.push(objects::namespace(&namespace));
            objects.extend((0..20).map(|index| objects::config_map(&namespace, &format!("c{index}"), "x")));
            objects.push(objects::deployment(&namespace, "server", 1));
        }
        objects.extend((0..20).map(|index| objects::config_map("default", &format!("{name}-{index}"), "x")));
        self.apply(&objects);
    }
}
