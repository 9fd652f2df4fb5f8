//! buildah, the program that builds Dockerfiles: started with storage and configuration of its own, so that
//! the machine's are neither used nor changed, and everything is gone afterwards.

use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kit::{Arch, Cause, Context, Error, Platform, Process, Result, Ui, process, rundir};
use oci::Layout;

/// Linux' table of interpreters for programs that it cannot run itself.
pub(crate) const BINFMT: &str = "/proc/sys/fs/binfmt_misc";
const LIMIT: Duration = Duration::from_secs(3 * 3600);
/// The last lines of what it says, which are kept to find out why it failed.
const KEPT: usize = 2000;
/// Nobody else sees this name: the storage is ours alone.
const NAME: &str = "localhost/base";

/// What is built.
pub(crate) struct Build<'a> {
    pub(crate) file: &'a Path,
    pub(crate) context: &'a Path,
    pub(crate) arguments: &'a BTreeMap<String, String>,
}

/// What it writes for root beside its storage, whatever it is told: which blobs it has seen where.
const CACHE: &str = "/var/lib/containers/cache/blob-info-cache-v1.boltdb";

/// The program with a folder for all that it writes.
pub(crate) struct Buildah {
    program: PathBuf,
    folder: tempfile::TempDir,
    /// What of [`CACHE`] was not there before, the innermost first.
    cache: Vec<&'static Path>,
}

impl Buildah {
    /// Finds it. `insecure` are registries that are spoken to by plain HTTP.
    ///
    /// # Errors
    /// [`Cause::MissingProgram`] saying what to do.
    pub(crate) fn open(insecure: &[String]) -> Result<Self> {
        let hint = "install it (on Debian: apt-get install buildah)";
        let program = process::find_program("buildah", "OTHER_ARCH_BUILDAH", "building a Dockerfile", hint)?;
        let folder = tempfile::Builder::new().prefix("other-arch-buildah-").tempdir();
        let folder = folder.cause(Cause::HostDisk, || "cannot make a temporary folder")?;
        let cache = Path::new(CACHE).ancestors().take_while(|path| !path.exists()).collect();
        let buildah = Self { program, folder, cache };
        // As Docker does: a name without a registry is Docker Hub's.
        let mut registries = "unqualified-search-registries = [\"docker.io\"]\n".to_owned();
        for host in insecure {
            registries.push_str(&format!("[[registry]]\nlocation = {host:?}\ninsecure = true\n"));
        }
        let policy = r#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#;
        for (name, text) in [("registries.conf", registries.as_str()), ("policy.json", policy), ("containers.conf", "")]
        {
            rundir::write(&buildah.path(name), text.as_bytes())?;
        }
        Ok(buildah)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its command line up to the verb. Each platform has a storage of its own: an image that was fetched for
    /// one must not be taken for another.
    fn command(&self, platform: &Platform) -> Result<Command> {
        let own = self.path(&platform.dir());
        for name in ["root", "run", "tmp"] {
            let folder = own.join(name);
            fs::create_dir_all(&folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
        }
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            own.join("root").display().to_string(),
            own.join("run").display().to_string()
        );
        rundir::write(&own.join("storage.conf"), storage.as_bytes())?;
        let mut command = Command::new(&self.program);
        for (variable, _) in std::env::vars_os() {
            let name = variable.to_string_lossy();
            // They change what is built, or where it is kept.
            if name.starts_with("BUILDAH_") || name.starts_with("STORAGE_") || name.starts_with("CONTAINERS_") {
                command.env_remove(&variable);
            }
        }
        command.env("CONTAINERS_STORAGE_CONF", own.join("storage.conf"));
        command.env("CONTAINERS_REGISTRIES_CONF", self.path("registries.conf"));
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        command.env("TMPDIR", own.join("tmp")).env("XDG_DATA_HOME", own.join("tmp"));
        command.arg("--root").arg(own.join("root")).arg("--runroot").arg(own.join("run"));
        command.args(["--storage-driver", "vfs"]);
        Ok(command)
    }

    /// Builds for one platform and returns the layout with the image.
    ///
    /// # Errors
    /// [`Cause::BuildFailure`] with what it said, [`Cause::ImageMissingPlatform`], [`Cause::Registry`] or
    /// [`Cause::Auth`] if a base could not be fetched.
    pub(crate) fn build(&self, build: &Build<'_>, platform: &Platform, ui: &Ui) -> Result<Layout> {
        let out = self.path(&platform.dir()).join("out");
        let mut command = self.command(platform)?;
        command.args(build_arguments(build, platform)).arg("--signature-policy").arg(self.path("policy.json"));
        command.arg("--file").arg(build.file).arg(build.context);
        run(format!("build for {platform} by buildah"), command, ui)?;
        let mut command = self.command(platform)?;
        command.args(["push", "--quiet", "--format", "oci"]).arg("--signature-policy").arg(self.path("policy.json"));
        command.arg(NAME).arg(format!("oci:{}", out.display()));
        run(format!("writing the image for {platform} by buildah"), command, ui)?;
        Layout::open(out)
    }

    /// Removes everything that it wrote.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the folder and what to do.
    pub(crate) fn close(self) -> Result<()> {
        for path in &self.cache {
            // A folder that another buildah uses by now is not empty, and stays.
            let _ = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
        let shown = self.folder.path().display().to_string();
        // Without root its files belong to users that only exist inside.
        let next = format!("remove it with `buildah unshare rm -rf {shown}`");
        self.folder
            .close()
            .cause(Cause::HostDisk, || format!("cannot remove {shown}"))
            .map_err(|error| error.next(next))
    }
}

/// The verb with what makes the same sources the same image: no time but the beginning of it, no layers of
/// earlier builds, no version of buildah in the config.
fn build_arguments(build: &Build<'_>, platform: &Platform) -> Vec<String> {
    let mut words: Vec<String> =
        ["build", "--isolation", "chroot", "--timestamp", "0", "--format", "oci"].map(String::from).into();
    words.extend(["--layers=false", "--no-cache", "--identity-label=false"].map(String::from));
    words.extend(["--platform".into(), platform.to_string(), "--tag".into(), NAME.into()]);
    for (name, value) in build.arguments {
        words.extend(["--build-arg".into(), format!("{name}={value}")]);
    }
    words
}

fn run(what: String, command: Command, ui: &Ui) -> Result<()> {
    let step = ui.step(&what);
    let mut lines = VecDeque::new();
    let process = Process::new(what, command).cause(Cause::BuildFailure).limit(LIMIT);
    let ended = process.on_line(|_, line| {
        step.set(line);
        keep(&mut lines, line);
    });
    match ended.run() {
        Ok(()) => {
            step.done("");
            Ok(())
        }
        Err(error) => {
            step.failed("");
            Err(explain(lines.make_contiguous(), error))
        }
    }
}

fn keep(lines: &mut VecDeque<String>, line: &str) {
    if lines.len() == KEPT {
        lines.pop_front();
    }
    lines.push_back(line.to_owned());
}

/// The cause of its failure, by what it said.
fn explain(lines: &[String], mut error: Error) -> Error {
    const RULES: &[(Cause, &[&str])] = &[
        (Cause::HostDisk, &["no space left on device"]),
        (Cause::ImageMissingPlatform, &["no image found in image index", "no image found in manifest list"]),
        (Cause::Auth, &["unauthorized:", "authentication required", "denied:"]),
        (
            Cause::Registry,
            &[
                "connection refused",
                "no such host",
                "i/o timeout",
                "connection reset",
                "manifest unknown",
                "pinging container registry",
                "TLS handshake",
            ],
        ),
    ];
    if error.cause != Cause::BuildFailure {
        return error;
    }
    if lines.iter().any(|line| line.to_lowercase().contains("exec format error")) {
        return error.next("RUN starts programs of the other architecture: see `image-build base dockerfile --help`");
    }
    for (cause, texts) in RULES {
        if let Some(line) = lines.iter().rev().find(|line| texts.iter().any(|text| line.contains(text))) {
            error.cause = *cause;
            return error.line(line.clone());
        }
    }
    error
}

/// Whether programs for `platform` run on `host`, by themselves or by an interpreter that Linux finds in
/// `folder` and that also works inside another root (flag F).
pub(crate) fn runs_here(platform: &Platform, host: &Platform, folder: &Path) -> bool {
    if platform.arch == host.arch || (&*platform.arch, &*host.arch) == ("386", "amd64") {
        return true;
    }
    let Ok(Arch { qemu, .. }) = platform.row() else { return false };
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|text| {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim();
        let interpreter = field("interpreter ").rsplit('/').next().unwrap_or_default();
        let names = [format!("qemu-{qemu}"), format!("qemu-{qemu}-static")];
        text.starts_with("enabled") && field("flags:").contains('F') && names.iter().any(|name| name == interpreter)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_programs_run_only_with_an_interpreter_that_works_in_another_root() {
        let folder = tempfile::tempdir().unwrap();
        let platform = |text: &str| text.parse::<Platform>().unwrap();
        let runs = |text: &str| runs_here(&platform(text), &platform("linux/amd64"), folder.path());
        assert!(runs("linux/amd64") && runs("linux/386") && !runs("linux/s390x"));
        let entry = |state: &str, name: &str, flags: &str| {
            let text = format!("{state}\ninterpreter /usr/libexec/{name}\nflags: {flags}\noffset 0\nmagic 7f454c46\n");
            fs::write(folder.path().join("any-name"), text).unwrap();
        };
        for (state, name, flags, good) in [
            ("enabled", "qemu-s390x-static", "POCF", true),
            ("enabled", "qemu-s390x", "F", true),
            ("disabled", "qemu-s390x-static", "F", false),
            ("enabled", "qemu-s390x-static", "OC", false),
            ("enabled", "qemu-aarch64-static", "F", false),
        ] {
            entry(state, name, flags);
            assert_eq!(runs("linux/s390x"), good, "{state} {name} {flags}");
        }
        assert!(runs("linux/arm64") && !runs("linux/arm"));
    }

    #[test]
    fn failures_have_their_cause() {
        let cause = |line: &str| {
            let error = Error::new(Cause::BuildFailure, "build ended with exit code 125");
            explain(&["STEP 1/2: FROM x".into(), line.into()], error).cause
        };
        for (line, wanted) in [
            ("Error: copying: no image found in image index for architecture s390x", Cause::ImageMissingPlatform),
            ("Error: initializing source: pinging container registry r.io: connection refused", Cause::Registry),
            ("Error: reading manifest: unauthorized: no", Cause::Auth),
            ("write /x: no space left on device", Cause::HostDisk),
            ("Error: building at STEP \"RUN false\": exit status 1", Cause::BuildFailure),
            ("exec /bin/sh: Exec format error", Cause::BuildFailure),
        ] {
            assert_eq!(cause(line), wanted, "{line}");
        }
    }

    #[test]
    fn the_reason_stands_last_and_is_kept_however_much_was_said_before() {
        let mut lines = VecDeque::new();
        (0..2 * KEPT).for_each(|at| keep(&mut lines, &at.to_string()));
        keep(&mut lines, "Error: reading manifest: unauthorized: no");
        assert_eq!(lines.len(), KEPT);
        let error = Error::new(Cause::BuildFailure, "build ended with exit code 125");
        assert_eq!(explain(lines.make_contiguous(), error).cause, Cause::Auth);
    }
}
