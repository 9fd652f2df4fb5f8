//! The lab's programs, built by Go from the pinned modules under `parts/` and kept in the cache.
//!
//! A part's folder in the cache is named by a key over everything that decides what is built, so it is
//! complete or absent, and never out of date.

use std::{
    fs::{self, File, TryLockError},
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    time::Duration,
};

use kit::{Arch, Cause, Context, Error, Process, Result, Step, Stream, Ui};

use crate::layout::Layout;

/// What is built together: one Go module.
pub(crate) struct Part {
    /// Its folder under `parts/`.
    pub(crate) name: &'static str,
    /// The programs that come out.
    pub(crate) programs: &'static [&'static str],
    /// What Go is asked to build, and under which name a single program is to be stored.
    target: Target,
    /// A module of Kubernetes whose version the programs must tell to clients.
    stamp: Option<&'static str>,
    files: &'static [(&'static str, &'static str)],
}

enum Target {
    /// The programs that the module's `tool` lines name.
    Tools,
    /// One package, and the name of its program.
    Package(&'static str),
    /// Several packages.
    Packages(&'static [&'static str]),
}

macro_rules! files {
    ($part:literal: $($file:literal),+) => {
        &[$(($file, include_str!(concat!("../parts/", $part, "/", $file)))),+]
    };
}

/// All parts, what `up` needs first in front.
pub(crate) const PARTS: &[Part] = &[
    Part {
        name: "registry",
        programs: &["registry"],
        target: Target::Package("."),
        stamp: None,
        files: files!("registry": "go.mod", "go.sum", "main.go"),
    },
    Part {
        name: "etcd",
        programs: &["etcd"],
        target: Target::Package("go.etcd.io/etcd/server/v3"),
        stamp: None,
        files: files!("etcd": "go.mod", "go.sum"),
    },
    Part {
        name: "containerd",
        programs: &["containerd", "containerd-shim-runc-v2", "ctr"],
        target: Target::Tools,
        stamp: None,
        files: files!("containerd": "go.mod", "go.sum"),
    },
    Part {
        name: "cni",
        programs: &["bridge", "host-local", "loopback", "portmap"],
        target: Target::Tools,
        stamp: None,
        files: files!("cni": "go.mod", "go.sum"),
    },
    Part {
        name: "pause",
        programs: &["pause"],
        target: Target::Package("."),
        stamp: None,
        files: files!("pause": "go.mod", "main.go"),
    },
    Part {
        name: "kubernetes",
        programs: &["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"],
        target: Target::Tools,
        stamp: Some("k8s.io/kubernetes"),
        files: files!("kubernetes": "go.mod", "go.sum"),
    },
    Part {
        name: "dns",
        programs: &["dns"],
        target: Target::Package("."),
        stamp: None,
        files: files!("dns": "go.mod", "go.sum", "main.go"),
    },
    Part {
        name: "storage",
        programs: &["storage"],
        target: Target::Package("."),
        stamp: None,
        files: files!("storage": "go.mod", "go.sum", "main.go", "folders.go"),
    },
];

/// What a node of another architecture runs of Kubernetes, from the same sources.
pub(crate) const NODE: Part = Part {
    name: "node",
    programs: &["kubelet", "kube-proxy"],
    target: Target::Packages(&["k8s.io/kubernetes/cmd/kubelet", "k8s.io/kubernetes/cmd/kube-proxy"]),
    stamp: Some("k8s.io/kubernetes"),
    files: files!("kubernetes": "go.mod", "go.sum"),
};

/// The part of that name.
pub(crate) fn part(name: &str) -> Result<&'static Part> {
    PARTS
        .iter()
        .chain([&NODE])
        .find(|part| part.name == name)
        .ok_or_else(|| Error::new(Cause::Internal, format!("no part '{name}'")))
}

/// Settings that a user can keep with `go env -w`, where no variable shows them, and that change what is built.
const SETTINGS: [&str; 6] = ["GOAMD64", "GOARM64", "GOPPC64", "GORISCV64", "GOEXPERIMENT", "GOFIPS140"];
/// How long the build of one part may take, its downloads included.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Everything about the Go of this machine that decides what comes out.
pub(crate) struct Go {
    version: String,
}

impl Go {
    /// The Go of this machine. It is asked in the cache: a `go.mod` of where we happen to be has no say.
    pub(crate) fn find(layout: &Layout) -> Result<Self> {
        let folder = layout.cache();
        fs::create_dir_all(folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
        let ask = |arguments: &[&str]| {
            let mut command = kit::source::go_command("building the lab's programs", folder)?;
            command.arg("env").args(arguments);
            Process::new("version of Go", command).cause(Cause::MissingProgram).limit(Duration::from_secs(60)).read()
        };
        let changed: Vec<_> = ["-changed"].into_iter().chain(SETTINGS).collect();
        Ok(Self { version: format!("{}{}", ask(&["GOVERSION"])?.trim(), ask(&changed)?.trim()) })
    }
}

impl Part {
    /// The key of this part for `arch`: over sources, flags, Go and architecture.
    pub(crate) fn key(&self, go: &Go, arch: &Arch) -> String {
        let mut all = format!("{}\0{}\0{}\0", go.version, arch.go, self.flags().join("\0"));
        for (name, text) in self.files {
            all.push_str(&format!("\0{name}\0{}\0{text}", text.len()));
        }
        kit::digest::hex(all.as_bytes())[..16].to_owned()
    }

    /// Go's arguments after `build`, without where to.
    fn flags(&self) -> Vec<String> {
        let mut flags = "-s -w".to_owned();
        if let Some(version) = self.stamp.and_then(|module| self.version(module)) {
            let mut numbers = version.trim_start_matches('v').split('.');
            let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
            // Without these clients see v0.0.0.
            for (name, value) in [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)] {
                flags.push_str(&format!(" -X k8s.io/component-base/version.{name}={value}"));
            }
        }
        // What debuggers read is not even compiled: the linker would drop it.
        let flags = ["-trimpath", "-gcflags=all=-dwarf=false", "-ldflags", &flags];
        flags.into_iter().chain(self.targets().iter().copied()).map(String::from).collect()
    }

    /// What Go is asked to build.
    const fn targets(&self) -> &[&'static str] {
        match &self.target {
            Target::Tools => &["tool"],
            Target::Package(package) => std::slice::from_ref(package),
            Target::Packages(packages) => packages,
        }
    }

    /// The version that the part's `go.mod` requires of a module.
    fn version(&self, module: &str) -> Option<&'static str> {
        let (_, text) = self.files.iter().find(|(name, _)| *name == "go.mod")?;
        text.lines().filter(|line| !line.contains("=>")).find_map(|line| {
            let mut words = line.trim().trim_start_matches("require ").split_whitespace();
            (words.next()? == module).then(|| words.next())?
        })
    }

    /// Builds it unless the cache has it; returns the key.
    pub(crate) fn build(&self, layout: &Layout, go: &Go, arch: &Arch, ui: &Ui) -> Result<String> {
        let key = self.key(go, arch);
        let folder = layout.bin().join(self.name);
        if self.complete(&folder.join(&key)) {
            return Ok(key);
        }
        fs::create_dir_all(&folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
        let _lock = lock(&folder.join(".lock"), &format!("another build of {}", self.name), ui)?;
        sweep(&folder);
        if !self.complete(&folder.join(&key)) {
            let foreign = if arch == Arch::host() { String::new() } else { format!(" for {}", arch.go) };
            let step = ui.step(format!("build of {}{foreign}", self.name));
            self.compile(&folder, &key, arch, &step)?;
            step.done("");
        }
        Ok(key)
    }

    fn complete(&self, folder: &Path) -> bool {
        self.programs.iter().all(|program| folder.join(program).is_file())
    }

    fn compile(&self, folder: &Path, key: &str, arch: &Arch, step: &Step) -> Result<()> {
        let disk = |what: &str| format!("cannot {what} under {}", folder.display());
        let work = tempfile::Builder::new().prefix(NEW).tempdir_in(folder);
        let work = work.cause(Cause::HostDisk, || disk("create a folder"))?;
        let (sources, output) = (work.path().join("sources"), work.path().join("programs"));
        for (name, text) in self.files {
            kit::rundir::write(&sources.join(name), text.as_bytes())?;
        }
        fs::create_dir_all(&output).cause(Cause::HostDisk, || disk("create a folder"))?;
        let out = match (&self.target, self.programs) {
            (Target::Package(_), [program]) => output.join(program).into_os_string(),
            _ => {
                // The slash tells Go that it is a folder.
                let mut folder = output.clone().into_os_string();
                folder.push("/");
                folder
            }
        };
        let most = self.packages(arch, &sources)?;
        let mut command = go(arch, &sources)?;
        command.args(["build", "-v", "-o"]).arg(out).args(self.flags());
        self.follow(command, most, step)?;
        if !self.complete(&output) {
            let programs = self.programs.join(", ");
            return Err(Error::new(Cause::Internal, format!("the build of {} did not make {programs}", self.name)));
        }
        let target = folder.join(key);
        // An incomplete one can only be what somebody deleted from.
        let _ = fs::remove_dir_all(&target);
        fs::rename(&output, &target).cause(Cause::HostDisk, || disk("store the programs"))
    }

    /// How many packages there are to compile if none is in Go's cache; nothing if that cannot be told.
    fn packages(&self, arch: &Arch, sources: &Path) -> Result<Option<usize>> {
        let mut command = go(arch, sources)?;
        command.args(["list", "-deps", "-f", "{{.ImportPath}}"]).args(self.targets());
        match Process::new(format!("packages of {}", self.name), command).limit(LIMIT).read() {
            Ok(packages) => Ok(Some(packages.lines().count())),
            Err(error) if error.cause == Cause::Interrupted => Err(error),
            // What is wrong the build says better.
            Err(_) => Ok(None),
        }
    }

    /// Runs the build, showing which package it is at.
    fn follow(&self, command: Command, most: Option<usize>, step: &Step) -> Result<()> {
        let most = most.map_or_else(String::new, |most| format!(" of at most {most}"));
        let mut packages = 0;
        let mut failure = None;
        Process::new(format!("build of {}", self.name), command)
            .limit(LIMIT)
            .on_line(|stream, line| {
                if stream == Stream::Err && !line.starts_with("go: ") {
                    packages += 1;
                    step.set(format!("{packages}{most} packages, at {line}"));
                }
                if line.contains("no space left on device") {
                    failure = Some(Cause::HostDisk);
                }
            })
            .run()
            .map_err(|mut error| {
                error.cause = failure.unwrap_or(error.cause);
                error
            })
    }
}

/// Go, building static programs for `arch` from the module in `sources`.
fn go(arch: &Arch, sources: &Path) -> Result<Command> {
    let mut command = kit::source::go_command("building the lab's programs", sources)?;
    command.env("CGO_ENABLED", "0").env("GOOS", "linux").env("GOARCH", arch.go).env("GOWORK", "off");
    Ok(command)
}

/// What the folders of builds that are not done begin with.
pub(crate) const NEW: &str = ".new-";

/// Removes what killed builds have left. Whoever calls has the lock: nobody is building.
pub(crate) fn sweep(folder: &Path) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(NEW)) {
        // What cannot be removed only takes room.
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// Takes a file lock, saying so if somebody else has it. It is given back when the file is dropped.
pub(crate) fn lock(path: &Path, holder: &str, ui: &Ui) -> Result<File> {
    let cannot = || format!("cannot lock {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).cause(Cause::HostDisk, cannot)?;
    }
    let mut told = false;
    let late = || Error::new(Cause::LeaseHeld, format!("{holder} has not ended within an hour"));
    kit::retry::until(Duration::from_secs(3600), late, || {
        let file = File::options().create(true).append(true).open(path).cause(Cause::HostDisk, cannot)?;
        match file.try_lock() {
            // `down --purge` removes the file while it holds it: then this is the lock of nothing.
            Ok(()) if same(&file, path) => Ok(Some(file)),
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => {
                if !told {
                    ui.note(format!("waiting for {holder} to end"));
                    told = true;
                }
                Ok(None)
            }
            Err(TryLockError::Error(error)) => Err(Error::from_source(Cause::HostDisk, cannot(), error)),
        }
    })
}

fn same(file: &File, path: &Path) -> bool {
    let key = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(file), Ok(path)) if key(&file) == key(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(version: &str) -> Go {
        Go { version: version.into() }
    }

    #[test]
    fn the_key_changes_with_everything_that_matters() {
        let (amd64, s390x) = (Arch::find("amd64").unwrap(), Arch::find("s390x").unwrap());
        let dns = part("dns").unwrap();
        let key = dns.key(&go("go1.26.6"), amd64);
        assert_eq!(key, dns.key(&go("go1.26.6"), amd64));
        assert_ne!(key, dns.key(&go("go1.26.7"), amd64));
        assert_ne!(key, dns.key(&go("go1.26.6"), s390x));
        assert_ne!(key, part("storage").unwrap().key(&go("go1.26.6"), amd64));
    }

    #[test]
    fn what_a_killed_build_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".new-abc/sources", "0123456789abcdef"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        sweep(folder.path());
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["0123456789abcdef"]);
    }

    #[test]
    fn kubernetes_tells_the_version_of_its_go_mod() {
        let linker_s = |name: &str| {
            let flags = part(name).unwrap().flags();
            let at = flags.iter().position(|flag| flag == "-ldflags").unwrap();
            (flags[at + 1].clone(), flags[at + 2..].concat())
        };
        let version = part("kubernetes").unwrap().version("k8s.io/kubernetes").unwrap();
        assert!(version.starts_with("v1."), "{version}");
        let (flags, targets) = linker_s("kubernetes");
        assert!(flags.contains(&format!("version.gitVersion={version} ")) && targets == "tool", "{flags} {targets}");
        assert_eq!(linker_s("dns"), ("-s -w".to_owned(), ".".to_owned()));
    }

    #[test]
    fn every_module_in_the_folder_is_a_part() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("parts");
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let part = part(&entry.file_name().to_string_lossy()).unwrap();
            let files = fs::read_dir(entry.path()).unwrap().map(|file| file.unwrap().file_name());
            let mut files: Vec<_> = files.map(|file| file.to_string_lossy().into_owned()).collect();
            files.sort();
            let mut known: Vec<_> = part.files.iter().map(|(name, _)| (*name).to_owned()).collect();
            known.sort();
            assert_eq!(files, known, "{}", part.name);
        }
    }
}
