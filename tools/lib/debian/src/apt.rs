//! Debian's packages for any architecture, by an apt with folders of its own: neither the machine's package
//! lists nor its packages are touched, and no rights are needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use kit::{Cause, Context, Error, Platform, Process, Result, Ui, digest, dirs, process, rundir};
use serde::{Deserialize, Serialize};

/// The release that package names are those of.
pub const RELEASE: &str = "bookworm";
/// Its number, as `VERSION_ID` of os-release(5) has it.
pub const VERSION: &str = "12";
/// Package lists are asked for again after this long.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// The same when not all of them could be fetched.
const FRESH_IN_PART: Duration = Duration::from_secs(3600);
/// Folder for what apt said of packages.
const ANSWERS: &str = "answers";
const LIMIT: Duration = Duration::from_secs(600);

/// A package as apt would fetch it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// The archive's name: package, version and architecture.
    pub file: String,
    /// Digits of the SHA-256 that Debian's signed lists have for it.
    pub sha256: String,
}

impl Package {
    /// The package's own name.
    pub fn name(&self) -> &str {
        self.file.split('_').next().unwrap_or_default()
    }

    /// `name=version`; apt writes `:` of the version as `%3a`.
    fn pinned(&self) -> String {
        let version = self.file.split('_').nth(1).unwrap_or_default();
        format!("{}={}", self.name(), version.replace("%3a", ":"))
    }
}

/// Fetches those that are the same for all architectures, and returns them.
pub fn fetch_shared(platform: &Platform, packages: &[Package]) -> Result<Vec<Package>> {
    let shared: Vec<_> = packages.iter().filter(|package| package.file.ends_with("_all.deb")).cloned().collect();
    fetch(platform, &shared)?;
    Ok(shared)
}

/// Finds packages for a platform.
pub fn resolve(platform: &Platform, names: &std::collections::BTreeSet<String>, ui: &Ui) -> Result<Vec<Package>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let apt = Apt::open(platform)?;
    // One at a time: others may want the same lists.
    let lock = fs::File::create(apt.root.join("lock")).and_then(|file| file.lock().map(|()| file));
    let _lock = lock.cause(Cause::HostDisk, || format!("cannot lock {}", apt.root.display()))?;
    apt.refresh(ui)?;
    // The answer stays the same as long as the lists do.
    let kept = apt.root.join(ANSWERS).join(digest::hex(format!("{names:?}").as_bytes()));
    if let Some(packages) = fs::read(&kept).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        return Ok(packages);
    }
    let mut command = apt.command();
    command.args(["download", "--print-uris"]).args(names);
    let said =
        apt.process(format!("search for packages for {platform}"), command).cause(Cause::ImageMissingPlatform).read();
    let said = said.map_err(|error| error.within(format!("Debian {RELEASE} lacks a package for {platform}")))?;
    let mut packages = said.lines().map(parse).collect::<Result<Vec<_>>>()?;
    packages.sort_by(|a: &Package, b| a.file.cmp(&b.file));
    rundir::write_json(&kept, &packages)?;
    Ok(packages)
}

/// A line of `apt-get download --print-uris`: 'URI' FILE SIZE SHA256:DIGITS.
fn parse(line: &str) -> Result<Package> {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        [_, file, _, hash] if hash.starts_with("SHA256:") && !file.contains('/') => {
            Ok(Package { file: file.into(), sha256: hash["SHA256:".len()..].into() })
        }
        _ => Err(Error::new(Cause::Registry, "apt does not say what it would fetch").line(line)),
    }
}

/// Fetches packages that the cache does not have as Debian's lists have them; returns the archives in the packages'
/// order.
pub fn fetch(platform: &Platform, packages: &[Package]) -> Result<Vec<PathBuf>> {
    let folder = dirs::cache()?.join("debs");
    fs::create_dir_all(&folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
    let path = |package: &Package| folder.join(format!("{}.deb", package.sha256));
    let missing: Vec<_> = packages.iter().filter(|package| !is_sound(&path(package), package)).collect();
    if !missing.is_empty() {
        let temporary = tempfile::Builder::new().prefix(".new-").tempdir_in(&folder);
        let temporary = temporary.cause(Cause::HostDisk, || format!("cannot write to {}", folder.display()))?;
        let apt = Apt::open(platform)?;
        let mut command = apt.command();
        command.current_dir(temporary.path()).arg("download").args(missing.iter().map(|package| package.pinned()));
        let download = apt.process(format!("download of packages for {platform}"), command).cause(Cause::Registry);
        download.run().or_else(|error| {
            // Mirrors drop a version when there is a newer one.
            apt.forget()?;
            Err(error.next("try again: the package lists may have been too old, and are fetched anew"))
        })?;
        for package in missing {
            let file = temporary.path().join(&package.file);
            if !is_sound(&file, package) {
                let found = digest::sha256_file(&file)?;
                return Err(Error::new(Cause::Registry, format!("{} came with the digest {found}", package.file)));
            }
            fs::rename(&file, path(package)).cause(Cause::HostDisk, || format!("cannot keep {}", package.file))?;
        }
    }
    Ok(packages.iter().map(path).collect())
}

/// Whether an archive is what Debian's signed lists say: one in the cache has its digest for a name, but may have been
/// damaged since.
fn is_sound(path: &Path, package: &Package) -> bool {
    digest::sha256_file(path).is_ok_and(|found| found.strip_prefix("sha256:") == Some(package.sha256.as_str()))
}

/// apt for one architecture.
struct Apt {
    root: PathBuf,
    program: PathBuf,
}

impl Apt {
    fn open(platform: &Platform) -> Result<Self> {
        if platform.os != "linux" {
            return Err(Error::new(Cause::ImageMissingPlatform, format!("Debian {RELEASE} has no {platform}")));
        }
        let hint = "run on Debian or Ubuntu, or install apt";
        let program = process::find_program("apt-get", "OTHER_ARCH_APT_GET", "making base images", hint)?;
        let debian = platform.row()?.debian;
        let root = dirs::cache()?.join("apt").join(debian);
        for folder in ["state", "lists/partial", "archives/partial", "sources", "parts"] {
            let folder = root.join(folder);
            fs::create_dir_all(&folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
        }
        let apt = Self { root, program };
        apt.configure(debian)?;
        Ok(apt)
    }

    /// Written each time, so that the machine's proxies and mirrors are followed when they change.
    fn configure(&self, debian: &str) -> Result<()> {
        let root = self.root.display();
        let configuration = format!(
            "Dir::Etc::main \"{root}/none\";\nDir::Etc::parts \"{root}/parts\";\nDir::Etc::sourcelist \"/dev/null\";\n\
             Dir::Etc::sourceparts \"{root}/sources\";\nDir::State \"{root}/state\";\nDir::State::lists \"{root}/lists\";\n\
             Dir::State::status \"{root}/status\";\nDir::Cache \"{root}\";\nDir::Cache::archives \"{root}/archives\";\n\
             Dir::Log \"{root}\";\nAPT::Architecture \"{debian}\";\nAPT::Architectures {{ \"{debian}\"; }};\n\
             APT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\nAcquire::Retries \"3\";\n{}",
            proxies(Path::new("/etc/apt"))
        );
        keep(&self.root.join("status"), "")?;
        keep(&self.root.join("sources/debian.sources"), &sources(Path::new("/etc/apt"))?)?;
        keep(&self.root.join("apt.conf"), &configuration)
    }

    /// Fetches the package lists if they are missing or old. With a mirror that is being updated or without
    /// a network, those that are there have to do; it is tried again the next time.
    fn refresh(&self, ui: &Ui) -> Result<()> {
        let sources = fs::read_to_string(self.root.join("sources/debian.sources")).unwrap_or_default();
        let (all, part) = (self.root.join("refreshed"), self.root.join("refreshed-in-part"));
        if fresh(&all, &sources, FRESH) || (fresh(&part, &sources, FRESH_IN_PART) && self.has_lists()) {
            return Ok(());
        }
        self.forget()?;
        let mut command = self.command();
        command.args(["update", "-q", "--error-on=any"]);
        match self.process("update of Debian's package lists".into(), command).cause(Cause::Registry).run() {
            Ok(()) => rundir::write(&all, sources.as_bytes()).map(drop),
            Err(error) if error.cause == Cause::Registry && self.has_lists() => {
                let said = error.line.as_deref().and_then(|line| line.lines().next()).unwrap_or_default();
                ui.warn(format!("some of Debian's package lists could not be fetched, others are used: {said}"));
                rundir::write(&part, sources.as_bytes()).map(drop)
            }
            Err(error) => Err(error),
        }
    }

    /// The lists are asked for again the next time, and so is what follows from them.
    fn forget(&self) -> Result<()> {
        for name in ["refreshed", "refreshed-in-part", ANSWERS] {
            let path = self.root.join(name);
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).cause(Cause::HostDisk, || format!("cannot remove {}", path.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn has_lists(&self) -> bool {
        let entries = fs::read_dir(self.root.join("lists")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name().to_string_lossy().contains("_Packages")).count() > 0
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.env("APT_CONFIG", self.root.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    fn process<'a>(&self, what: String, command: Command) -> Process<'a> {
        Process::new(what, command).limit(LIMIT)
    }
}

/// Whether a stamp is there for these sources and young enough.
fn fresh(stamp: &Path, sources: &str, limit: Duration) -> bool {
    let age = fs::metadata(stamp).and_then(|metadata| metadata.modified()).ok();
    let age = age.and_then(|modified| SystemTime::now().duration_since(modified).ok());
    age.is_some_and(|age| age < limit) && fs::read_to_string(stamp).is_ok_and(|before| before == sources)
}

/// Writes a file unless it is so already.
fn keep(path: &Path, text: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|there| there == text) {
        return Ok(());
    }
    rundir::write(path, text.as_bytes()).map(drop)
}

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    files.sort();
    files
}

fn read(path: &Path) -> String {
    rundir::read_limited(path, 1 << 20).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// How this machine reaches the network, by apt's own configuration.
fn proxies(etc: &Path) -> String {
    let parts = fs::read_dir(etc.join("apt.conf.d")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = parts.chain([etc.join("apt.conf")]).collect();
    paths.sort();
    let lines = paths.iter().flat_map(|path| read(path).lines().map(String::from).collect::<Vec<_>>());
    lines.filter(|line| line.trim().starts_with("Acquire::http")).map(|line| format!("{line}\n")).collect()
}

/// The machine's own sources of the release, for any architecture.
///
/// # Errors
/// [`Cause::Usage`] if it has none.
fn sources(etc: &Path) -> Result<String> {
    let mut stanzas = Vec::new();
    for file in files(&etc.join("sources.list.d"), "sources") {
        stanzas.extend(read(&file).split("\n\n").filter_map(stanza));
    }
    let lists = files(&etc.join("sources.list.d"), "list").into_iter().chain([etc.join("sources.list")]);
    stanzas.extend(lists.flat_map(|file| read(&file).lines().filter_map(one_line).collect::<Vec<_>>()));
    if stanzas.is_empty() {
        let what = format!("{} names no source of Debian {RELEASE}, whose packages are needed", etc.display());
        return Err(Error::new(Cause::Usage, what).next("add one, with its keyring (sources.list(5))"));
    }
    Ok(stanzas.join("\n"))
}

/// A stanza of our release (sources.list(5), deb822), without its restriction to architectures.
fn stanza(text: &str) -> Option<String> {
    let field = |line: &str, name: &str| line.to_ascii_lowercase().starts_with(name);
    let suites = text.lines().find(|line| field(line, "suites:"))?;
    let ours = suites.split_whitespace().skip(1).all(|suite| suite.starts_with(RELEASE));
    let binary = text.lines().any(|line| field(line, "types:") && line.split_whitespace().any(|word| word == "deb"));
    let disabled = text.lines().any(|line| field(line, "enabled:") && line.contains("no"));
    let kept =
        text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty() && !field(line, "architectures:"));
    let kept = kept.map(|line| if field(line, "types:") { "Types: deb" } else { line });
    (ours && binary && !disabled).then(|| kept.map(|line| format!("{line}\n")).collect())
}

/// The same of a line such as `deb [signed-by=FILE] URI SUITE COMPONENT…`.
fn one_line(line: &str) -> Option<String> {
    let rest = line.trim().strip_prefix("deb ")?.trim();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?, words.next()?);
    let components: Vec<_> = words.collect();
    let signed = options.split_whitespace().find_map(|option| option.strip_prefix("signed-by="));
    let signed = signed.map_or_else(String::new, |file| format!("Signed-By: {file}\n"));
    suite
        .starts_with(RELEASE)
        .then(|| format!("Types: deb\nURIs: {uri}\nSuites: {suite}\nComponents: {}\n{signed}", components.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apt_prints_is_read() {
        let line = "'http://x/git_2.39.5-0%2bdeb12u3_s390x.deb' git_1%3a2.39.5-0+deb12u3_s390x.deb 6801104 SHA256:28ab";
        let package = parse(line).unwrap();
        assert_eq!((package.file.as_str(), package.sha256.as_str()), ("git_1%3a2.39.5-0+deb12u3_s390x.deb", "28ab"));
        assert_eq!((package.name(), package.pinned().as_str()), ("git", "git=1:2.39.5-0+deb12u3"));
        assert!(parse("'http://x' ../x.deb 1 SHA256:00").is_err());
        assert!(parse("E: nonsense").is_err());
    }

    #[test]
    fn an_archive_is_known_by_its_content_and_not_by_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let sha256 = digest::hex(b"package");
        let path = folder.path().join(format!("{sha256}.deb"));
        let package = Package { file: "x_1_all.deb".into(), sha256 };
        assert!(!is_sound(&path, &package), "it is not there");
        for (content, sound) in [("package", true), ("packagE", false), ("pack", false), ("package.", false)] {
            fs::write(&path, content).unwrap();
            assert_eq!(is_sound(&path, &package), sound, "{content}");
        }
    }

    #[test]
    fn only_sources_of_the_release_are_taken() {
        let etc = tempfile::tempdir().unwrap();
        let folder = etc.path().join("sources.list.d");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("a.sources"), "Types: deb deb-src\n# note\nURIs: http://a/debian\nSuites: bookworm bookworm-updates\nArchitectures: amd64\nComponents: main\n\nTypes: deb\nURIs: http://other\nSuites: nodistro\n").unwrap();
        fs::write(folder.join("b.list"), "deb [arch=amd64 signed-by=/k.gpg] http://b/debian bookworm-security main contrib\ndeb http://c/x stable y\n").unwrap();
        let text = sources(etc.path()).unwrap();
        assert_eq!(
            text,
            "Types: deb\nURIs: http://a/debian\nSuites: bookworm bookworm-updates\nComponents: main\n\n\
             Types: deb\nURIs: http://b/debian\nSuites: bookworm-security\nComponents: main contrib\nSigned-By: /k.gpg\n"
        );
        assert_eq!(sources(Path::new("/nonexistent")).unwrap_err().cause, Cause::Usage);
    }
}
