//! ko, the program that builds: finding it, its command line, what it says.

mod config;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::Duration,
};

use kit::{Cause, Context, Error, Platform, Process, Result, Stream, Ui, dirs, rundir, source};
use md5::Digest;
use regex::Regex;
use serde::{Deserialize, Serialize};

pub(crate) use config::{Config, DEFAULT_BASE, Entry, Flags, Settings};

use crate::manifests;

/// What is installed when there is none; versions that begin like it are taken as they are.
const VERSION: &str = "v0.19.1";
const LINE: &str = "v0.19.";
const BUILD_LIMIT: Duration = Duration::from_secs(3 * 3600);
const INSTALL_LIMIT: Duration = Duration::from_secs(1200);
/// Last lines of ko's standard error that are kept to say why it failed.
const KEPT: usize = 2000;

/// Finds ko: `flag`, then `OTHER_ARCH_KO`, then PATH if the version fits, then our own, which is installed
/// when it is missing.
///
/// # Errors
/// [`Cause::MissingProgram`] saying what to do.
pub(crate) fn find(flag: Option<&Path>, ui: &Ui) -> Result<PathBuf> {
    let variable = std::env::var_os("OTHER_ARCH_KO").filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(named) = flag.map(PathBuf::from).or(variable) {
        let what = || format!("ko was named as {}, which cannot be run", named.display());
        let found = which::which(&named).cause(Cause::MissingProgram, what)?;
        if let Some(version) = version(&found).filter(|version| too_old(version)) {
            let what = format!("{} is ko {version}, which is too old", found.display());
            return Err(Error::new(Cause::MissingProgram, what).next(format!("name a ko {LINE}x, or none")));
        }
        // ko runs in another folder, the sources'.
        return std::path::absolute(found).cause(Cause::MissingProgram, what);
    }
    if let Ok(found) = which::which("ko") {
        let version = version(&found).unwrap_or_default();
        if version.starts_with(LINE) {
            return Ok(found);
        }
        ui.note(format!("{} is version '{version}', not {LINE}x: another one is used", found.display()));
    }
    let folder = dirs::cache()?.join("bin/ko").join(VERSION);
    let own = folder.join("ko");
    if !own.is_file() {
        install(&folder, ui).map_err(|error| {
            let how = "or name a ko of that version with --ko or OTHER_ARCH_KO";
            error.within("ko is needed").next(format!("make `go install github.com/google/ko@{VERSION}` work, {how}"))
        })?;
    }
    Ok(own)
}

/// Of a version that is known: whether it is before the line that we build with.
fn too_old(version: &str) -> bool {
    let numbers = |text: &str| -> Option<(u32, u32)> {
        let mut parts = text.strip_prefix('v')?.split('.').map(str::parse);
        Some((parts.next()?.ok()?, parts.next()?.ok()?))
    };
    numbers(version).zip(numbers(LINE)).is_some_and(|(found, wanted)| found < wanted)
}

/// What a program says that it is.
pub(crate) fn version(program: &Path) -> Option<String> {
    let mut command = Command::new(program);
    command.arg("version");
    let said = Process::new("ko's version", command).limit(Duration::from_secs(20)).read().ok()?;
    let version = said.trim();
    Some(if version.starts_with('v') { version.into() } else { format!("v{version}") })
}

fn install(folder: &Path, ui: &Ui) -> Result<()> {
    let parent = folder.parent().unwrap_or(folder);
    fs::create_dir_all(parent).cause(Cause::HostDisk, || format!("cannot create {}", parent.display()))?;
    let temporary = tempfile::Builder::new().prefix(".new-").tempdir_in(parent);
    let temporary = temporary.cause(Cause::HostDisk, || format!("cannot write to {}", parent.display()))?;
    let mut command = source::go_command("installing ko", parent)?;
    command.args(["install", &format!("github.com/google/ko@{VERSION}")]).env("GOBIN", temporary.path());
    let step = ui.step(format!("ko {VERSION}"));
    let install = Process::new(format!("installation of ko {VERSION}"), command).cause(Cause::MissingProgram);
    install.limit(INSTALL_LIMIT).on_line(|_, line| step.set(line)).run()?;
    step.done("");
    match fs::rename(temporary.path(), folder) {
        // Somebody else was quicker.
        Err(_) if folder.join("ko").is_file() => Ok(()),
        renamed => renamed.cause(Cause::HostDisk, || format!("cannot create {}", folder.display())),
    }
}

/// How images are called, by ko's options of that name (`pkg/commands/options/publish.go`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Naming {
    /// The repository and the import path.
    Preserve,
    /// The repository and the import path's last part.
    Base,
    /// The repository alone.
    Bare,
    /// The repository, the import path's last part and the MD5 of all of it, as ko does without an option.
    Hash,
}

impl Naming {
    fn option(self) -> Option<&'static str> {
        match self {
            Self::Preserve => Some("--preserve-import-paths"),
            Self::Base => Some("--base-import-paths"),
            Self::Bare => Some("--bare"),
            Self::Hash => None,
        }
    }

    /// Where the image of an import path lies below `repo`.
    pub(crate) fn repository(self, repo: &str, import: &str) -> String {
        // go-containerregistry#212: repositories have no capitals.
        let import = import.to_lowercase();
        let last = import.rsplit('/').next().unwrap_or_default();
        match self {
            Self::Preserve => format!("{repo}/{import}"),
            Self::Base => format!("{repo}/{last}"),
            Self::Bare => repo.to_owned(),
            Self::Hash => {
                let hash: String = md5::Md5::digest(&import).iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{repo}/{last}-{hash}")
            }
        }
    }
}

/// Arguments of ko's that cannot be given to it here, and what is instead.
const REFUSED: &[(&[&str], &str)] = &[
    (&["--push", "--local", "-L"], "what is built is pushed to --repo when it is verified, and never before"),
    (&["--tag-only"], "releases name images by digest"),
    (&["--oci-layout-path", "--tarball"], "`image-build verify` and `copy` read the registry"),
    (&["--platform"], "--platform of image-build, in front of the --"),
    (&["--tags", "-t"], "--tag"),
    (&["--filename", "-f", "--recursive", "-R", "--selector", "-l"], "config in ci/components.toml"),
    (
        &["--bare", "--base-import-paths", "-B", "--preserve-import-paths", "-P"],
        "those of image-build, in front of the --",
    ),
    (&["--sbom", "--jobs", "-j"], "those of image-build, in front of the --"),
];

/// Refuses arguments for ko that would do something else than what is done here.
///
/// # Errors
/// [`Cause::Usage`] saying what there is instead.
pub(crate) fn refuse(others: &[String]) -> Result<()> {
    for word in others {
        let name = word.split('=').next().unwrap_or(word);
        if let Some((_, instead)) = REFUSED.iter().find(|(names, _)| names.contains(&name)) {
            return Err(
                Error::new(Cause::Usage, format!("ko cannot get {word} here")).next(format!("instead: {instead}"))
            );
        }
    }
    Ok(())
}

/// `GOFLAGS` for whatever calls Go: nothing of the checkout's state goes into programs.
pub(crate) fn go_flags(more: Option<&str>) -> String {
    more.map_or_else(|| "-buildvcs=false".to_owned(), |flags| format!("-buildvcs=false {flags}"))
}

/// What a ko program is made of: two of the same version that another Go compiled may well compress otherwise. A
/// program that Go did not make is its own bytes.
///
/// # Errors
/// [`Cause::MissingProgram`] without Go; [`Cause::Interrupted`].
pub(crate) fn identity(program: &Path) -> Result<String> {
    let said = version(program).unwrap_or_default();
    let mut command = source::go_command("ko's build", Path::new("/"))?;
    command.args(["version", "-m"]).arg(program);
    let modules = Process::new("what ko is made of", command).limit(Duration::from_secs(20)).read();
    let made = match modules {
        // `PATH: VERSION`, then the modules.
        Ok(text) if text.contains("\tpath\t") => text.split_once(": ").map_or(text.clone(), |(_, rest)| rest.into()),
        Err(error) if error.signal.is_some() => return Err(error),
        _ => kit::digest::sha256_file(program)?,
    };
    Ok(format!("{said} {}", kit::digest::sha256(made.as_bytes())))
}

/// What ko is asked to do.
pub(crate) struct Resolve<'a> {
    pub(crate) program: &'a Path,
    /// The sources' root.
    pub(crate) root: &'a Path,
    /// Folder for its configuration and log.
    pub(crate) folder: &'a Path,
    pub(crate) repo: &'a str,
    pub(crate) naming: Naming,
    pub(crate) tags: &'a [String],
    pub(crate) platforms: &'a [Platform],
    /// Import paths.
    pub(crate) images: &'a BTreeSet<String>,
    pub(crate) sbom: &'a str,
    pub(crate) jobs: Option<u32>,
    /// Added to GOFLAGS.
    pub(crate) go_flags: Option<&'a str>,
    /// Given to ko as they are.
    pub(crate) others: &'a [String],
}

/// What ko gets to resolve, and gives back with references: one document that names every image once.
#[derive(Serialize, Deserialize)]
struct Asked {
    kind: String,
    images: BTreeMap<String, String>,
}

impl Resolve<'_> {
    /// The command with a clean environment: nothing of the caller's changes what is built.
    fn command(&self, asked: &Path) -> Command {
        let mut command = Command::new(self.program);
        let platforms: Vec<_> = self.platforms.iter().map(ToString::to_string).collect();
        command.arg("resolve").args(self.naming.option());
        command.arg(format!("--platform={}", platforms.join(",")));
        command.arg(format!("--tags={}", self.tags.join(","))).arg(format!("--sbom={}", self.sbom));
        if let Some(jobs) = self.jobs {
            command.arg(format!("--jobs={jobs}"));
        }
        command.arg("--filename").arg(asked);
        command.args(self.others);
        command.current_dir(self.root);
        // ko reads every option of its configuration from KO_… as well.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KO_")) {
            command.env_remove(name);
        }
        source::clean_environment(&mut command);
        command.env("GOFLAGS", go_flags(self.go_flags));
        // The Go that everything else here means; ko itself says it when there is none.
        if let Ok(go) = source::go("ko") {
            command.env("KO_GO_PATH", go);
        }
        command.env("KO_DOCKER_REPO", self.repo).env("KO_CONFIG_PATH", self.folder.join("ko.yaml"));
        command
    }

    /// Builds and pushes everything; returns the references by import path, as ko wrote them.
    ///
    /// # Errors
    /// [`Cause::BuildFailure`] with the compiler's lines or the image that ko left out, [`Cause::Registry`] or
    /// [`Cause::Auth`].
    pub(crate) fn run(&self, ui: &Ui) -> Result<BTreeMap<String, String>> {
        let images = self.images.iter().map(|import| (import.clone(), format!("{}{import}", manifests::KO))).collect();
        let asked = serde_yaml_ng::to_string(&Asked { kind: "Images".into(), images });
        let asked = asked.cause(Cause::Internal, || "cannot write what ko is asked for")?;
        let path = self.folder.join("ko-images.yaml");
        rundir::write(&path, asked.as_bytes())?;
        let text = self.build(&path, ui)?;
        let mut answers = serde_yaml_ng::Deserializer::from_str(&text).map(Asked::deserialize);
        let answer = answers.next().and_then(Result::ok).map(|answer| answer.images).unwrap_or_default();
        for import in self.images {
            if answer.get(import).is_none_or(|reference| reference.starts_with(manifests::KO)) {
                return Err(Error::new(Cause::BuildFailure, format!("ko built no image for ko://{import}")));
            }
        }
        Ok(answer)
    }

    fn build(&self, asked: &Path, ui: &Ui) -> Result<String> {
        let step = ui.step(format!("ko builds {} images for {} platforms", self.images.len(), self.platforms.len()));
        let path = self.folder.join("ko.log");
        let log = fs::OpenOptions::new().create(true).append(true).open(&path);
        let mut log = log.cause(Cause::HostDisk, || format!("cannot write {}", path.display()))?;
        let mut lines = VecDeque::new();
        let mut built = 0;
        let total = self.images.len() * self.platforms.len();
        let process = Process::new("build by ko", self.command(asked)).cause(Cause::BuildFailure);
        let result = process.limit(BUILD_LIMIT).on_line(|stream, line| {
            if stream != Stream::Err {
                return;
            }
            // Only for people to look at; what matters of it is kept below.
            let _ = writeln!(log, "{line}");
            if let Some((_, what)) = line.split_once(" Building ") {
                built += 1;
                step.set(format!("{built} of {total}: {what}"));
            }
            if lines.len() == KEPT {
                lines.pop_front();
            }
            lines.push_back(line.to_owned());
        });
        match result.read() {
            Ok(text) => {
                step.done("");
                Ok(text)
            }
            Err(error) if error.cause == Cause::BuildFailure => {
                step.failed("");
                Err(explain(lines.make_contiguous(), error))
            }
            Err(error) => Err(error),
        }
    }
}

/// The cause of ko's failure, by what it said.
fn explain(lines: &[String], error: Error) -> Error {
    static COMPILER: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"(?:^|: )(# \S+)$|^(\S+\.go:\d+(?::\d+)?: .+)$").expect("it is constant"));
    let matched = |line: &'_ String| {
        let found = COMPILER.captures(line)?;
        found.get(1).or(found.get(2)).map(|part| part.as_str().to_owned())
    };
    let compiler: Vec<_> = lines.iter().filter_map(matched).collect();
    if compiler.iter().any(|line| !line.starts_with('#')) {
        let shown = &compiler[..compiler.len().min(20)];
        return Error::new(Cause::BuildFailure, "the sources do not compile").line(shown.join("\n"));
    }
    let rules: &[(Cause, &[&str])] = &[
        (Cause::HostDisk, &["no space left on device"]),
        (Cause::Auth, &["UNAUTHORIZED", "DENIED", "401 Unauthorized", "403 Forbidden"]),
        (
            Cause::Registry,
            &[
                "connection refused",
                "no such host",
                "i/o timeout",
                "connection reset",
                "unexpected status code",
                "TLS handshake",
                "MANIFEST_UNKNOWN",
                "NAME_UNKNOWN",
                "error copying",
                "unexpected EOF",
            ],
        ),
    ];
    for (cause, texts) in rules {
        if let Some(line) = lines.iter().rev().find(|line| texts.iter().any(|text| line.contains(text))) {
            return Error::new(*cause, error.what.join(": ")).line(line.clone());
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(String::from).collect()
    }

    #[test]
    fn failures_have_their_cause() {
        let general = || Error::new(Cause::BuildFailure, "build by ko ended with exit code 1");
        let compile = "2026/01/01 Building x for linux/s390x\n# example.com/x\ncmd/x/a.go:3:5: undefined: y\nError: failed: # example.com/x";
        let error = explain(&lines(compile), general());
        assert_eq!(
            (error.cause, error.line.unwrap().as_str()),
            (Cause::BuildFailure, "# example.com/x\ncmd/x/a.go:3:5: undefined: y\n# example.com/x")
        );
        for (text, cause) in [
            ("Error: POST http://r/v2/: UNAUTHORIZED: no", Cause::Auth),
            ("Error: Get \"http://r/v2/\": dial tcp 127.0.0.1:1: connect: connection refused", Cause::Registry),
            ("write /x: no space left on device", Cause::HostDisk),
            ("Error: something else", Cause::BuildFailure),
        ] {
            assert_eq!(explain(&lines(text), general()).cause, cause, "{text}");
        }
    }

    #[test]
    fn images_are_called_as_ko_calls_them() {
        let name = |naming: Naming| naming.repository("r.io/a", "e.com/B/cmd/Ctl");
        assert_eq!(name(Naming::Preserve), "r.io/a/e.com/b/cmd/ctl");
        assert_eq!((name(Naming::Base), name(Naming::Bare)), ("r.io/a/ctl".into(), "r.io/a".into()));
        // As Tekton's releases have it.
        let hashed =
            Naming::Hash.repository("ghcr.io/tektoncd/pipeline", "github.com/tektoncd/pipeline/cmd/controller");
        assert_eq!(hashed, "ghcr.io/tektoncd/pipeline/controller-10a3e32792f33651396d02b6855a6e36");
    }

    #[test]
    fn what_would_undo_what_is_done_here_is_not_for_ko() {
        let refused = |word: &str| refuse(&["--image-label=a=b".into(), word.into()]).err().map(|error| error.cause);
        for word in ["--push=false", "--local", "-L", "--tag-only", "--platform=all", "-f", "--sbom=none"] {
            assert_eq!(refused(word), Some(Cause::Usage), "{word}");
        }
        for word in ["--image-user=65532", "--disable-optimizations", "--debug"] {
            assert_eq!(refused(word), None, "{word}");
        }
    }

    #[test]
    fn only_an_older_ko_is_too_old() {
        for (version, old) in [("v0.18.0", true), ("v0.19.1", false), ("v1.0.0", false), ("(devel)", false)] {
            assert_eq!(too_old(version), old, "{version}");
        }
    }
}
