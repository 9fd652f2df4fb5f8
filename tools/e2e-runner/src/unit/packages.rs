//! The packages of a component's sources that have tests for a platform, and their test programs.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::Duration,
};

use kit::{
    Cause, Context, Error, Platform, Process, Result, Ui, digest, dirs, rundir,
    source::{self, Checkout},
};
use regex::Regex;

use crate::{cache, cause::Judge, program};

/// Go answers at once, unless it fetches modules first.
const ASK_LIMIT: Duration = Duration::from_secs(300);
/// Of one program: everything that it is made of may have to be compiled for the first time.
const COMPILE_LIMIT: Duration = Duration::from_mins(45);
/// How long the name of a program's folder is.
const KEY: usize = 16;
/// No source file of a test is larger.
const FILE_LIMIT: u64 = 16 << 20;

/// A package with tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    /// Its import path.
    pub(super) path: String,
    /// Its folder, relative to the sources.
    pub(super) folder: PathBuf,
    /// Its tests, fuzz tests and examples that are checked, in the order of the files.
    pub(super) tests: Vec<String>,
}

/// A compiled test program.
pub(super) struct Compiled {
    pub(super) file: PathBuf,
    pub(super) test2json: PathBuf,
}

/// `go` for that platform, without C: the nodes' C library is nobody's affair here.
fn go(dir: &Path, platform: &Platform) -> Result<Command> {
    let mut command = source::go_command("compiling unit tests", dir)?;
    command.env("GOOS", &platform.os).env("GOARCH", &platform.arch).env("CGO_ENABLED", "0");
    if let (Some(variant), "arm") = (&platform.variant, platform.arch.as_str()) {
        command.env("GOARM", variant.trim_start_matches('v'));
    }
    Ok(command)
}

/// The packages of these patterns that have tests on the platform.
///
/// # Errors
/// [`Cause::Usage`] with Go's words if a pattern names none, [`Cause::BuildFailure`] if Go cannot say.
pub(super) fn list(
    checkout: &Checkout,
    patterns: &[String],
    tags: &[String],
    platform: &Platform,
) -> Result<Vec<Package>> {
    let mut command = go(&checkout.dir, platform)?;
    let format = "{{.ImportPath}}\t{{.Dir}}\t{{range .TestGoFiles}}{{.}}\t{{end}}{{range .XTestGoFiles}}{{.}}\t{{end}}";
    command.args(["list", &format!("-tags={}", tags.join(",")), "-f", format, "--"]).args(patterns);
    let process = Process::new("the list of packages", command).limit(ASK_LIMIT).cause(Cause::Usage);
    let said = process.read().map_err(|error| error.next("see the packages of the component's [NAME.unit]"))?;
    let root = checkout.dir.canonicalize().cause(Cause::Usage, || format!("cannot read {}", checkout.dir.display()))?;
    let mut packages = Vec::new();
    for line in said.lines() {
        let mut fields = line.split('\t').filter(|field| !field.is_empty());
        let (Some(path), Some(dir)) = (fields.next(), fields.next()) else { continue };
        let folder = Path::new(dir).strip_prefix(&root).or_else(|_| Path::new(dir).strip_prefix(&checkout.dir));
        let Ok(folder) = folder.map(Path::to_path_buf) else {
            return Err(Error::new(Cause::Usage, format!("the package {path} does not lie in {}", root.display())));
        };
        let mut tests = Vec::new();
        for file in fields {
            let file = Path::new(dir).join(file);
            let text = rundir::read_limited(&file, FILE_LIMIT)?;
            tests.extend(names(&String::from_utf8_lossy(&text)));
        }
        if !tests.is_empty() {
            packages.push(Package { path: path.to_owned(), folder, tests });
        }
    }
    Ok(packages)
}

/// A test's function, or an example's with its body up to the end: `go vet` holds them to this form.
static FUNCTION: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?m)^func ((?:Test|Fuzz)\w*)\(\w+ \*\w+\.?\w*\)|^func (Example\w*)\(\) \{((?s:.*?))^\}")
        .expect("it is constant")
});
/// What an example needs to be run (go doc testing, "Examples").
static OUTPUT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"(?mi)^\s*//\s*(unordered )?output:").expect("it is constant"));

/// The names of tests in a file, as the program of its package lists them.
fn names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    for found in FUNCTION.captures_iter(text) {
        let example = found.get(3).is_none_or(|body| OUTPUT.is_match(body.as_str()));
        if let Some(name) = found.get(1).or(found.get(2)).filter(|_| example) {
            let kind = ["Test", "Fuzz", "Example"].iter().find(|kind| name.as_str().starts_with(*kind));
            let rest = kind.and_then(|kind| name.as_str().strip_prefix(kind)).unwrap_or_default();
            // `Testing` is no test (cmd/go, isTest), and TestMain is none either.
            let is_test = rest.chars().next().is_none_or(|first| !first.is_lowercase());
            if is_test && name.as_str() != "TestMain" {
                names.push(name.as_str().to_owned());
            }
        }
    }
    names
}

/// Compiles the test program of a package for the platform. Go's own cache makes the second time quick.
///
/// # Errors
/// [`Cause::BuildFailure`] with the compiler's words.
pub(super) fn compile(
    checkout: &Checkout,
    package: &Package,
    tags: &[String],
    platform: &Platform,
    ui: &Ui,
) -> Result<Compiled> {
    let key = format!("{}\n{tags:?}\n{platform}\n{}", package.path, program::sources(&checkout.source));
    let cache = dirs::cache()?.join("unit");
    let folder = cache.join(&digest::hex(key.as_bytes())[..KEY]);
    std::fs::create_dir_all(&folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
    let file = folder.join("unit.test");
    // Nobody else takes it for old while it is compiled.
    cache::used(&file);
    // Another runner may be packing it: it is whole or not there.
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(&folder);
    let new = new.cause(Cause::HostDisk, || format!("cannot write to {}", folder.display()))?;
    let compiled = new.path().join("unit.test");
    let mut command = go(&checkout.dir, platform)?;
    // Not -trimpath: tests look for their files beside their sources, and those lie at the same place in the pod.
    command.args(["test", "-c", &format!("-tags={}", tags.join(",")), "-o"]).arg(&compiled).arg(&package.path);
    let step = ui.step(format!("compile {} for {platform}", package.path));
    let mut words = Vec::new();
    let process = Process::new(format!("compilation of {}", package.path), command).limit(COMPILE_LIMIT);
    let shown = process.display();
    let finished = process
        .on_line(|_, line| {
            if line.starts_with("go: downloading") {
                step.set(line);
            } else if words.len() < 60 {
                words.push(line.to_owned());
            }
        })
        .finish()?;
    if !finished.good() || !compiled.is_file() {
        step.failed("");
        // A full disk or a proxy that is away says nothing of the component.
        let judged = Judge::default().package(&words.join("\n"));
        let infrastructure = judged.cause.class() == kit::Class::Infrastructure;
        let cause = if infrastructure { judged.cause } else { Cause::BuildFailure };
        let what = format!("the tests of {} do not compile for {platform}: {shown}", package.path);
        return Err(Error::new(cause, what).line(words.join("\n")));
    }
    std::fs::rename(&compiled, &file).cause(Cause::HostDisk, || format!("cannot store {}", file.display()))?;
    cache::used(&file);
    cache::forget_older(&cache, &file, |name| name.len() == KEY);
    step.done("");
    let mut ask = source::go_command("reading what tests print", &checkout.dir)?;
    ask.args(["tool", "-n", "test2json"]);
    let test2json = Process::new("go tool", ask).limit(ASK_LIMIT).cause(Cause::BuildFailure).read()?;
    Ok(Compiled { file, test2json: test2json.trim().into() })
}

/// What starts test programs in their pods, compiled for the platform.
///
/// # Errors
/// [`Cause::Internal`] with the compiler's words: it is ours, and no fault of the component.
pub(super) fn starter(platform: &Platform) -> Result<PathBuf> {
    const SOURCE: &str = include_str!("start.go");
    let key = digest::hex(format!("{platform}\n{SOURCE}").as_bytes());
    let folder = dirs::cache()?.join("unit").join(format!("start-{}", &key[..16]));
    let (source, file) = (folder.join("start.go"), folder.join("start"));
    // Another runner may be packing it: it is whole or not there.
    let new = folder.join(format!("start-{}", std::process::id()));
    rundir::write(&source, SOURCE.as_bytes())?;
    let mut command = go(&folder, platform)?;
    command.args(["build", "-trimpath", "-ldflags=-s -w", "-o"]).arg(&new).arg("start.go").env("GOWORK", "off");
    Process::new("build of what starts tests", command).limit(COMPILE_LIMIT).cause(Cause::Internal).run()?;
    std::fs::rename(&new, &file).cause(Cause::HostDisk, || format!("cannot store {}", file.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_a_program_lists() {
        let text = "package x\nfunc TestMain(m *testing.M) {}\nfunc TestA(t *testing.T) {\n}\nfunc Testing(t *testing.T) {}\n\
            func Test(t *testing.T) {}\nfunc Test_b(t *testing.T) {}\nfunc FuzzC(f *testing.F) {}\nfunc helper(t *testing.T) {}\n\
            func (s *S) TestD(t *testing.T) {}\nfunc ExampleE() {\n\tf()\n\t// Output: 1\n}\nfunc ExampleF() {\n\tf()\n}\n\
            func TestG(t *T) {}\n\tfunc TestIndented(t *testing.T) {}\n";
        assert_eq!(names(text), ["TestA", "Test", "Test_b", "FuzzC", "ExampleE", "TestG"]);
    }
}
