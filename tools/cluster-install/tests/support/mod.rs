//! A lab, images made of this machine's own shell, and the real program.

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use kit::{Platform, digest};
use oci::spec::MediaType;
use serde_json::{Value, json};

const TOOL: &str = env!("CARGO_BIN_EXE_cluster-install");

/// A lab for these tests alone; one that they brought up goes when they end, also by a panic.
pub(crate) struct Lab {
    pub(crate) name: String,
    pub(crate) registry: String,
    ours: bool,
    folder: tempfile::TempDir,
}

impl Lab {
    pub(crate) fn new() -> Self {
        Self::open("install-test", &[])
    }

    /// One with a node of another architecture.
    pub(crate) fn with_node(platform: &Platform) -> Self {
        Self::open("install-nodes", &["--node", &platform.to_string()])
    }

    fn open(name: &str, options: &[&str]) -> Self {
        let named = std::env::var("OTHER_ARCH_TEST_LAB_NAME").ok().filter(|name| !name.is_empty());
        let ours = named.is_none();
        let name = named.unwrap_or_else(|| name.into());
        let mut lab = Self { name, registry: String::new(), ours, folder: tempfile::tempdir().unwrap() };
        if ours {
            lab.tool(&[&["up"], options].concat());
        }
        let status: Value = serde_json::from_str(&lab.tool(&["status", "--output", "json"])).unwrap();
        lab.registry = status["registry"].as_str().unwrap().to_owned();
        lab
    }

    /// The lab's own tool, built beside ours.
    pub(crate) fn tool(&self, args: &[&str]) -> String {
        let program = Path::new(TOOL).with_file_name("lab");
        assert!(program.is_file(), "{} is missing: cargo build --package lab", program.display());
        let output = Command::new(program).args(["--name", &self.name]).args(args).output().unwrap();
        assert!(output.status.success(), "lab {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Another tool, built beside ours: what it prints.
    pub(crate) fn beside(&self, tool: &str, args: &[&str]) -> String {
        let program = Path::new(TOOL).with_file_name(tool);
        assert!(program.is_file(), "{} is missing: cargo build --package {tool}", program.display());
        let output = Command::new(program).args(args).output().unwrap();
        assert!(output.status.success(), "{tool} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    pub(crate) fn kubectl(&self, args: &[&str]) -> String {
        self.tool(&[&["kubectl", "--"], args].concat())
    }

    /// Pushes an image and returns its reference by digest. `says` is what index and config say of it,
    /// `is` the machine that its programs are for.
    pub(crate) fn image(&self, says: &Platform, is: &Platform) -> String {
        self.image_starting(says, is, &["/bin/sh"])
    }

    /// The same, with this entrypoint.
    pub(crate) fn image_starting(&self, says: &Platform, is: &Platform, entrypoint: &[&str]) -> String {
        self.image_noted(says, is, entrypoint, "")
    }

    /// The same, with an annotation: another manifest of the same image.
    pub(crate) fn image_noted(&self, says: &Platform, is: &Platform, entrypoint: &[&str], note: &str) -> String {
        let layout = oci::Layout::create(self.folder.path().join(format!("{}-{}", says.dir(), is.dir()))).unwrap();
        let layer = if *is == Platform::host() { shell() } else { foreign(is) };
        let config = json!({
            "os": says.os, "architecture": says.arch, "config": {"Entrypoint": entrypoint},
            "rootfs": {"type": "layers", "diff_ids": [digest::sha256(&layer)]},
        });
        let layer = layout.write(MediaType::ImageLayer, &layer).unwrap();
        let config = layout.write(MediaType::ImageConfig, config.to_string().as_bytes()).unwrap();
        let manifest = json!({"schemaVersion": 2, "mediaType": MediaType::ImageManifest, "config": config,
            "layers": [layer], "annotations": {"note": note}});
        let manifest = layout.write(MediaType::ImageManifest, manifest.to_string().as_bytes()).unwrap();
        let mut entry = serde_json::to_value(&manifest).unwrap();
        entry["platform"] = json!({"os": says.os, "architecture": says.arch});
        let index = json!({"schemaVersion": 2, "mediaType": MediaType::ImageIndex, "manifests": [entry]});
        let index = layout.write(MediaType::ImageIndex, index.to_string().as_bytes()).unwrap();
        layout.finish(std::slice::from_ref(&index)).unwrap();
        let name = format!("{}/install-test/shell", self.registry);
        let target = oci::parse(&format!("{name}:{}-{}", says.arch, is.arch)).unwrap();
        let digest = oci::run(async { oci::copy(&oci::Client::new()?, &layout, &index, &target).await }).unwrap();
        format!("{name}@{digest}")
    }

    /// A registry that the nodes know, and that answers every request with this status.
    pub(crate) fn refusing_registry(&self, status: &'static str) -> String {
        // The lab's end of the network between it and this machine is the registry's address; the other one is ours.
        let (network, _) = self.registry.rsplit_once('.').unwrap();
        let listener = TcpListener::bind(format!("{network}.1:0")).unwrap();
        let registry = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = write!(
                    stream,
                    "HTTP/1.1 {status}\r\nwww-authenticate: Basic realm=\"here\"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                );
            }
        });
        let conf = kit::dirs::cache().unwrap().join("labs").join(&self.name).join("state/conf/certs.d").join(&registry);
        std::fs::create_dir_all(&conf).unwrap();
        let hosts = format!("[host.\"http://{registry}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
        std::fs::write(conf.join("hosts.toml"), hosts).unwrap();
        registry
    }

    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.path().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.ours {
            self.tool(&["down", "--purge"]);
        }
    }
}

/// A layer with this machine's shell and `sleep`, and the libraries that they need.
fn shell() -> Vec<u8> {
    let mut files = vec!["/bin/sh".to_owned(), "/bin/sleep".to_owned()];
    let needed = Command::new("ldd").args(&files).output().unwrap().stdout;
    let needed = String::from_utf8(needed).unwrap();
    files.extend(
        needed.split_whitespace().filter(|word| word.starts_with('/') && !word.ends_with(':')).map(String::from),
    );
    files.sort();
    files.dedup();
    let mut tar = tar::Builder::new(Vec::new());
    for file in files {
        add(&mut tar, &file, &std::fs::read(&file).unwrap());
    }
    tar.into_inner().unwrap()
}

/// A layer whose shell is nothing but the head of a program for `platform`.
fn foreign(platform: &Platform) -> Vec<u8> {
    let row = platform.row().unwrap();
    let big = row.byte_order == kit::arch::ByteOrder::Big;
    let mut head = vec![0x7f, b'E', b'L', b'F', row.elf_class / 32, if big { 2 } else { 1 }, 1];
    head.resize(16, 0);
    for value in [2, row.elf_machine] {
        head.extend(if big { u16::to_be_bytes(value) } else { u16::to_le_bytes(value) });
    }
    head.resize(64, 0);
    let mut tar = tar::Builder::new(Vec::new());
    add(&mut tar, "/bin/sh", &head);
    tar.into_inner().unwrap()
}

fn add(tar: &mut tar::Builder<Vec<u8>>, path: &str, bytes: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o755);
    tar.append_data(&mut header, path.trim_start_matches('/'), bytes).unwrap();
}

/// What a program said.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    #[track_caller]
    pub(crate) fn says(&self, code: i32, words: &[&str]) -> &Self {
        let all = format!("{}\n{}", self.stdout, self.stderr);
        assert_eq!(self.code, code, "{all}");
        for word in words {
            assert!(all.contains(word), "'{word}' is not in\n{all}");
        }
        self
    }
}

/// A run on a lab: a namespace of its own, gone when it ends.
pub(crate) struct Run<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) namespace: String,
    pub(crate) folder: PathBuf,
    platform: Platform,
}

impl<'a> Run<'a> {
    pub(crate) fn new(lab: &'a Lab, name: &str) -> Self {
        Self::on(lab, name, Platform::host())
    }

    /// One whose record is of that platform.
    pub(crate) fn on(lab: &'a Lab, name: &str, platform: Platform) -> Self {
        Self { lab, namespace: format!("install-test-{name}"), folder: lab.folder(name), platform }
    }

    /// The command without its cluster.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(TOOL);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn tool(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).args(["--lab", &self.lab.name]).output().unwrap())
    }

    fn install_command(&self, release: &str, args: &[&str]) -> Command {
        let file = self.folder.join("given.yaml");
        std::fs::write(&file, release.replace("NAMESPACE", &self.namespace)).unwrap();
        let mut command = self.command(&["install", "--component", "try", "--lab", &self.lab.name]);
        command.args(["--run-dir", self.folder.to_str().unwrap(), "--release", file.to_str().unwrap()]).args(args);
        command
    }

    pub(crate) fn install(&self, release: &str, args: &[&str]) -> Ended {
        Ended::of(self.install_command(release, args).output().unwrap())
    }

    pub(crate) fn start(&self, release: &str, args: &[&str]) -> Child {
        self.install_command(release, args).spawn().unwrap()
    }

    pub(crate) fn record(&self) -> Value {
        let cell = format!("try/{}/lab-{}/install.json", self.platform.dir(), self.lab.name);
        serde_json::from_slice(&std::fs::read(self.folder.join(cell)).unwrap()).unwrap()
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.lab.kubectl(&["delete", "namespace", &self.namespace, "--ignore-not-found", "--force", "--wait=false"]);
        self.lab.kubectl(&["delete", "configmaps,leases", "--all", "-n", "other-arch"]);
    }
}
