//! A real sshd on a loopback port, with keys, settings and files of its own. Debian's package is unpacked and not
//! installed, so that no ssh of this machine is touched and none begins to listen.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use kit::{Platform, Ui};
use serde_json::Value;

const TOOL: &str = env!("CARGO_BIN_EXE_cluster-install");

/// A program of the machine, or the one of Debian's `package` with what it needs that is not everywhere.
pub(crate) fn program(name: &str, package: &str, also: &[&str]) -> (PathBuf, PathBuf) {
    static ONE: Mutex<()> = Mutex::new(());
    for folder in ["/usr/sbin", "/usr/bin"] {
        let path = Path::new(folder).join(name);
        if path.is_file() {
            return (path, PathBuf::from("/nonexistent"));
        }
    }
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let names: BTreeSet<String> = [&[package][..], also].concat().into_iter().map(String::from).collect();
    let (host, ui) = (Platform::host(), Ui::silent());
    let found = debian::apt::resolve(&host, &names, &ui).and_then(|packages| {
        let digests: String = packages.iter().map(|package| package.sha256.as_str()).collect();
        Ok((debian::apt::fetch(&host, &packages)?, digests))
    });
    let (archives, digests) =
        found.unwrap_or_else(|error| panic!("'{name}' is needed: install {package}, or let apt fetch it: {error}"));
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&kit::digest::hex(digests.as_bytes())[..16]);
    if !root.exists() {
        let new = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        for archive in archives {
            let status = Command::new("dpkg-deb").arg("-x").arg(archive).arg(new.path()).status().unwrap();
            assert!(status.success(), "dpkg-deb");
        }
        // Another process may have been quicker.
        let _ = std::fs::rename(new.keep(), &root);
    }
    let path =
        ["usr/sbin", "usr/bin"].into_iter().map(|folder| root.join(folder).join(name)).find(|path| path.is_file());
    let libraries = std::fs::read_dir(root.join("usr/lib")).into_iter().flatten().flatten().map(|entry| entry.path());
    let libraries = libraries.filter(|path| path.to_string_lossy().ends_with("-linux-gnu")).last();
    (path.unwrap_or_else(|| panic!("{package} has no {name}")), libraries.unwrap_or_default())
}

/// What a program said.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Ended {
    pub(crate) fn of(command: &mut Command) -> Self {
        let began = Instant::now();
        let output = command.output().unwrap();
        Self::from(output, began)
    }

    fn from(output: Output, began: Instant) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let took = began.elapsed();
        let code = output.status.code().unwrap_or(-1);
        Self { code, stdout: text(output.stdout), stderr: text(output.stderr), took }
    }

    #[track_caller]
    pub(crate) fn says(&self, code: i32, words: &[&str]) -> &Self {
        let all = format!("{}\n{}", self.stdout, self.stderr);
        let short: String = all.chars().take(6000).collect();
        assert_eq!(self.code, code, "{short}");
        for word in words {
            assert!(all.contains(word), "'{word}' is not in\n{short}");
        }
        assert!(!all.contains("hunter2") && !all.contains("panicked"), "{short}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("no JSON: {}\n{}", self.stdout, self.stderr))
    }
}

/// A host with its sshd, and a user who knows it.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) port: u16,
    pub(crate) user: String,
    sshd: Child,
}

impl World {
    /// With `command` as what the host has for `other-arch-cluster`: a script for a shell.
    pub(crate) fn new(command: &str) -> Self {
        Self::with(&[("other-arch-cluster", command)])
    }

    /// With these commands.
    pub(crate) fn with(commands: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["bin", "state", "ci", "cache"] {
            std::fs::create_dir(at(name)).unwrap();
        }
        for (name, text) in commands {
            script(&at("bin").join(name), &format!("#!/bin/sh\nSTATE='{}'\n{text}", at("state").display()));
        }
        keygen(&at("host"));
        keygen(&at("key"));
        std::fs::copy(at("key.pub"), at("authorized_keys")).unwrap();
        let user = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap().trim().to_owned();
        let (sshd, port) = start(folder.path());
        Self { folder, port, user, sshd }
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap_or_default()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    /// `TYPE BASE64` of a key of this world.
    pub(crate) fn public(&self, name: &str) -> String {
        self.read(&format!("{name}.pub")).split(' ').take(2).collect::<Vec<_>>().join(" ")
    }

    /// As `ssh-keygen -l` shows it.
    pub(crate) fn fingerprint(&self, name: &str) -> String {
        let output = Command::new("ssh-keygen").arg("-lf").arg(self.at(&format!("{name}.pub"))).output().unwrap();
        String::from_utf8(output.stdout).unwrap().split(' ').nth(1).unwrap().to_owned()
    }

    /// Describes the cluster `z-1` of this host; `ssh` has more lines of its table, and wins.
    pub(crate) fn describe(&self, ssh: &str) {
        self.describe_at(self.port, ssh);
    }

    pub(crate) fn describe_at(&self, port: u16, ssh: &str) {
        let table: Vec<_> = [
            ("host", "'127.0.0.1'".to_owned()),
            ("port", port.to_string()),
            ("user", format!("'{}'", self.user)),
            ("host_keys", format!("['{}']", self.public("host"))),
            ("key", format!("'{}'", self.at("key").display())),
            ("limits", "{ connect = '20s', retry = '1s', answer = '60s' }".to_owned()),
        ]
        .into_iter()
        .filter(|(name, _)| !ssh.lines().any(|line| line.starts_with(&format!("{name} = "))))
        .map(|(name, value)| format!("{name} = {value}"))
        .collect();
        let host = Platform::host();
        let head = format!("[[cluster]]\nname = 'z-1'\nplatform = '{host}'\nowner = 'team-z'\n[cluster.ssh]\n");
        self.write("ci/architectures.toml", &format!("{head}{}\n{ssh}\n", table.join("\n")));
    }

    /// The tool on this world's files.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(TOOL);
        command.args(args).env("OTHER_ARCH_CACHE", self.at("cache")).current_dir(self.folder.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        for variable in ["KUBECONFIG", "SSH_AUTH_SOCK", "OTHER_ARCH_SSH_KEY", "KUBERNETES_SERVICE_HOST"] {
            command.env_remove(variable);
        }
        command
    }

    /// `cluster VERB z-1 …`.
    pub(crate) fn cluster(&self, verb: &str, more: &[&str]) -> Ended {
        Ended::of(&mut self.command(&[&["cluster", verb, "z-1", "--ci", "ci"], more].concat()))
    }

    /// How often the host's command was called, and with what.
    pub(crate) fn calls(&self) -> Vec<String> {
        self.read("state/calls").lines().map(String::from).collect()
    }

    /// What is kept of clusters.
    pub(crate) fn kept(&self) -> bool {
        self.at("cache/clusters/z-1").exists()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.sshd.kill();
        let _ = self.sshd.wait();
        if std::thread::panicking() {
            eprintln!("sshd said:\n{}", self.read("sshd.log"));
        }
    }
}

pub(crate) fn script(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

pub(crate) fn keygen(path: &Path) {
    let output = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).output();
    assert!(output.expect("ssh-keygen is needed: install openssh-client").status.success());
}

/// Starts it. root's sshd wants a user and a folder of its own, which it gets in a mount namespace.
fn start(folder: &Path) -> (Child, u16) {
    let (sshd, libraries) = program("sshd", "openssh-server", &["libwrap0"]);
    let at = |name: &str| folder.join(name).display().to_string();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "ListenAddress 127.0.0.1\nPort {port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
         PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nLogLevel VERBOSE\nKexAlgorithms curve25519-sha256\n\
         SetEnv \"PATH={}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin\"\n",
        at("host"),
        at("authorized_keys"),
        at("bin")
    );
    std::fs::write(at("sshd_config"), config).unwrap();
    let run = format!("exec '{}' -D -e -f '{}'", sshd.display(), at("sshd_config"));
    let mut command = if rustix::process::geteuid().is_root() {
        let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
        let sshd = "sshd:x:65533:65534::/run/sshd:/usr/sbin/nologin\n";
        let lines = passwd.lines().filter(|line| !line.starts_with("sshd:")).map(|line| format!("{line}\n"));
        std::fs::write(at("passwd"), lines.collect::<String>() + sshd).unwrap();
        let mounts = format!(
            "mount --bind '{}' /etc/passwd && mount -t tmpfs tmpfs /run && mkdir -m 755 /run/sshd && {run}",
            at("passwd")
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c", &mounts]);
        command
    } else {
        let mut command = Command::new("sh");
        command.args(["-c", &run]);
        command
    };
    let log = std::fs::File::create(at("sshd.log")).unwrap();
    command.env("LD_LIBRARY_PATH", libraries).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    let mut child = command.spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while !speaks(port) {
        let ended = child.try_wait().unwrap();
        let log = std::fs::read_to_string(at("sshd.log")).unwrap_or_default();
        assert!(ended.is_none() && Instant::now() < until, "sshd does not start: {log}");
        std::thread::sleep(Duration::from_millis(50));
    }
    (child, port)
}

fn speaks(port: u16) -> bool {
    let mut banner = [0; 4];
    TcpStream::connect(("127.0.0.1", port))
        .is_ok_and(|mut stream| stream.read_exact(&mut banner).is_ok() && &banner == b"SSH-")
}

/// A port in front of another: the first `refused` connections are closed at once; all others that are open when the file
/// `cut` comes into being are cut then, once.
pub(crate) fn proxy(to: u16, refused: usize, cut: Option<PathBuf>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().flatten().enumerate() {
            if number < refused {
                continue;
            }
            let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            for (mut from, mut into) in [
                (stream.try_clone().unwrap(), server.try_clone().unwrap()),
                (server.try_clone().unwrap(), stream.try_clone().unwrap()),
            ] {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut into);
                    let _ = into.shutdown(std::net::Shutdown::Write);
                });
            }
            let Some(cut) = cut.clone().filter(|cut| !cut.exists()) else { continue };
            std::thread::spawn(move || {
                while !cut.exists() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                let _ = stream.shutdown(std::net::Shutdown::Both);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    port
}

/// A port that is listened at and never answered.
pub(crate) fn silent() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let all: Vec<_> = listener.incoming().collect();
        drop(all);
    });
    port
}

/// An agent with a key; it ends with this value.
pub(crate) struct Agent(Child, pub(crate) PathBuf);

impl Agent {
    pub(crate) fn with(key: &Path, folder: &Path) -> Self {
        let socket = folder.join("agent");
        let mut child =
            Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::piped()).spawn().unwrap();
        // It says where it listens.
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let added = Command::new("ssh-add").arg("-q").arg(key).env("SSH_AUTH_SOCK", &socket).output().unwrap();
        assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
        let _ = std::io::stderr().flush();
        Self(child, socket)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
