//! ko, the program that builds: finding it, its configuration, its command line, what it says.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::Duration,
};

use kit::{Cause, Context, Error, Platform, Process, Result, Stream, Ui, dirs, rundir, source};
use regex::Regex;
use serde_yaml_ng::{Mapping, Value};

/// What is installed when there is none; versions that begin like it are taken as they are.
const VERSION: &str = "v0.19.1";
const LINE: &str = "v0.19.";
/// The base that ko takes when nothing says another (`pkg/commands/options/build.go`).
pub(crate) const DEFAULT_BASE: &str = "cgr.dev/chainguard/static:latest";
const BUILD_LIMIT: Duration = Duration::from_secs(3 * 3600);
const INSTALL_LIMIT: Duration = Duration::from_secs(1200);
/// Lines of ko's standard error that are kept to say why it failed.
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

fn version(program: &Path) -> Option<String> {
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

/// A component's own `.ko.yaml`, empty if it has none.
pub(crate) struct Config(Mapping);

impl Config {
    /// Reads it from the sources' root.
    pub(crate) fn load(root: &Path) -> Result<Self> {
        let path = root.join(".ko.yaml");
        if !path.is_file() {
            return Ok(Self(Mapping::new()));
        }
        let bytes = rundir::read_limited(&path, 1 << 20)?;
        let config =
            serde_yaml_ng::from_slice(&bytes).cause(Cause::Usage, || format!("cannot read {}", path.display()))?;
        Ok(Self(config))
    }

    /// Its bases: `default`, and import paths that have another one.
    pub(crate) fn bases(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().map(String::from);
        let overrides = self.0.get("baseImageOverrides").and_then(Value::as_mapping).cloned().unwrap_or_default();
        let mut bases: BTreeMap<_, _> =
            overrides.iter().filter_map(|(path, base)| Some((text(path)?, text(base)?))).collect();
        let default = self.0.get("defaultBaseImage").and_then(text).unwrap_or_else(|| DEFAULT_BASE.into());
        bases.insert("default".into(), default);
        bases
    }

    /// The configuration that ko gets: these bases, the linker's flags added, all else as the component has it.
    pub(crate) fn with(&self, bases: &BTreeMap<String, String>, ldflags: &[String]) -> Result<String> {
        let mut config = self.0.clone();
        let mut overrides = Mapping::new();
        for (path, base) in bases {
            match path.as_str() {
                "default" => drop(config.insert("defaultBaseImage".into(), base.as_str().into())),
                path => drop(overrides.insert(path.into(), base.as_str().into())),
            }
        }
        config.insert("baseImageOverrides".into(), overrides.into());
        if !ldflags.is_empty() {
            add_flags(&mut config, "defaultLdflags", ldflags, true);
            let builds = config.get_mut("builds").and_then(Value::as_sequence_mut);
            for build in builds.into_iter().flatten().filter_map(Value::as_mapping_mut) {
                add_flags(build, "ldflags", ldflags, false);
            }
        }
        serde_yaml_ng::to_string(&config).cause(Cause::Internal, || "cannot write ko's configuration")
    }
}

/// Adds to a list of flags; makes the list if asked to.
fn add_flags(map: &mut Mapping, key: &str, flags: &[String], make: bool) {
    if make && !map.contains_key(key) {
        map.insert(key.into(), Value::Sequence(Vec::new()));
    }
    if let Some(list) = map.get_mut(key).and_then(Value::as_sequence_mut) {
        list.extend(flags.iter().map(|flag| Value::from(flag.as_str())));
    }
}

/// What ko is asked to do.
pub(crate) struct Resolve<'a> {
    pub(crate) program: &'a Path,
    /// The sources' root.
    pub(crate) root: &'a Path,
    /// Folder for its configuration and log.
    pub(crate) folder: &'a Path,
    pub(crate) repo: &'a str,
    pub(crate) tag: &'a str,
    pub(crate) platforms: &'a [Platform],
    pub(crate) config: &'a [String],
    pub(crate) sbom: &'a str,
    pub(crate) jobs: Option<u32>,
    /// Added to GOFLAGS.
    pub(crate) go_flags: Option<&'a str>,
    /// Given to ko as they are.
    pub(crate) others: &'a [String],
}

impl Resolve<'_> {
    /// The command with a clean environment: nothing of the caller's changes what is built.
    fn command(&self, cache: &Path) -> Command {
        let mut command = Command::new(self.program);
        let platforms: Vec<_> = self.platforms.iter().map(ToString::to_string).collect();
        command.args(["resolve", "--recursive", "--preserve-import-paths"]);
        command.arg(format!("--platform={}", platforms.join(",")));
        command.arg(format!("--tags={}", self.tag)).arg(format!("--sbom={}", self.sbom));
        if let Some(jobs) = self.jobs {
            command.arg(format!("--jobs={jobs}"));
        }
        for path in self.config {
            command.arg("--filename").arg(path);
        }
        command.args(self.others);
        command.current_dir(self.root);
        // ko reads every option of its configuration from KO_… as well.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KO_")) {
            command.env_remove(name);
        }
        source::clean_environment(&mut command);
        if let Some(flags) = self.go_flags {
            command.env("GOFLAGS", format!("-buildvcs=false {flags}"));
        }
        command.env("KO_DOCKER_REPO", self.repo).env("KO_CONFIG_PATH", self.folder.join("ko.yaml"));
        // With it Go finds its earlier programs and links only what changed.
        command.env("KOCACHE", cache);
        command
    }

    /// Builds and pushes everything; returns the configuration with references by tag and digest.
    ///
    /// # Errors
    /// [`Cause::BuildFailure`] with the compiler's lines, [`Cause::Registry`] or [`Cause::Auth`].
    pub(crate) fn run(&self, images: usize, ui: &Ui) -> Result<String> {
        let cache = Cache::take(self.root)?;
        let step = ui.step(format!("ko builds {images} images for {} platforms", self.platforms.len()));
        let path = self.folder.join("ko.log");
        let mut log = fs::File::create(&path).cause(Cause::HostDisk, || format!("cannot write {}", path.display()))?;
        let mut lines = Vec::new();
        let mut built = 0;
        let total = images * self.platforms.len();
        let process = Process::new("build by ko", self.command(&cache.folder)).cause(Cause::BuildFailure);
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
            if lines.len() < KEPT {
                lines.push(line.to_owned());
            }
        });
        match result.read() {
            Ok(text) => {
                step.done("");
                Ok(text)
            }
            Err(error) if error.cause == Cause::BuildFailure => {
                step.failed("");
                Err(explain(&lines, error))
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

/// The folder where ko keeps programs between builds; only one build may use it at a time.
struct Cache {
    folder: PathBuf,
    _lock: Option<fs::File>,
    _temporary: Option<tempfile::TempDir>,
}

impl Cache {
    fn take(root: &Path) -> Result<Self> {
        let name = rundir::slug(&root.to_string_lossy().replace('/', "-"));
        let folder = dirs::cache()?.join("ko").join(name.trim_matches('-'));
        fs::create_dir_all(&folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
        let lock = fs::File::create(folder.join("lock"))
            .cause(Cause::HostDisk, || format!("cannot lock {}", folder.display()))?;
        if lock.try_lock().is_ok() {
            return Ok(Self { folder, _lock: Some(lock), _temporary: None });
        }
        // Another build of the same sources is running: this one links everything itself.
        let temporary = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
        Ok(Self { folder: temporary.path().into(), _lock: None, _temporary: Some(temporary) })
    }
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
    fn a_component_s_configuration_keeps_all_but_its_bases() {
        let folder = tempfile::tempdir().unwrap();
        let text = "defaultBaseImage: old\nbaseImageOverrides:\n  e.com/A: older\nbuilds:\n- id: a\n  ldflags: [-s]\n- id: b\ndefaultEnv: [X=1]\n";
        fs::write(folder.path().join(".ko.yaml"), text).unwrap();
        let config = Config::load(folder.path()).unwrap();
        assert_eq!(config.bases()["default"], "old");
        assert_eq!(config.bases()["e.com/A"], "older");
        let bases =
            BTreeMap::from([("default".to_owned(), "new".to_owned()), ("e.com/b".to_owned(), "git".to_owned())]);
        let text = config.with(&bases, &["-X a=b".into()]).unwrap();
        let made: Value = serde_yaml_ng::from_str(&text).unwrap();
        assert_eq!(made["defaultBaseImage"], "new");
        assert_eq!(made["baseImageOverrides"], serde_yaml_ng::from_str::<Value>("{e.com/b: git}").unwrap());
        assert_eq!(made["builds"][0]["ldflags"][1], "-X a=b");
        assert_eq!(made["builds"][1].get("ldflags"), None);
        assert_eq!((&made["defaultLdflags"][0], &made["defaultEnv"][0]), (&"-X a=b".into(), &"X=1".into()));
        assert_eq!(Config::load(Path::new("/nonexistent")).unwrap().bases()["default"], DEFAULT_BASE);
    }
}
