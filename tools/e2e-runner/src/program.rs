//! A component's test program: compiled once, kept in the cache, asked for its tests.
//!
//! Its authors run `go test -v -tags=e2e ./test -args`. That compiles the program and starts it in the
//! package's folder with `-test.paniconexit0`; so do we, but compile it only when its sources have changed,
//! and ahead of time while a cluster is being made ready.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kit::{
    Cause, Context, Error, Process, Result, Step, Stream, Ui,
    ci::{Ci, Component, Suite, Tests},
    digest, dirs,
    record::{Source, SourceChange},
    retry,
    source::{self, Checkout},
};

use crate::{cache, cause::Judge, environment, options::Kind, overlay, overlay::Overlaid, pace::Pace};

/// Tekton's takes five minutes on two cores when nothing is compiled yet.
const COMPILE_LIMIT: Duration = Duration::from_mins(45);
/// Asking Go, or a test program for its list, is quick.
const ASK_LIMIT: Duration = Duration::from_secs(120);

/// A compiled test program.
#[derive(Debug, Clone)]
pub struct Program {
    /// The program.
    pub path: PathBuf,
    /// Where it runs: the package's folder, with its sources and testdata.
    pub folder: PathBuf,
    /// The package's import path.
    pub package: String,
    /// Go's own folder of programs, which `go test` puts on PATH.
    pub go_bin: PathBuf,
    /// `go tool test2json`.
    pub test2json: PathBuf,
    /// Whether it had to be compiled.
    pub compiled: bool,
    /// What was changed in its sources for slow nodes.
    pub changes: Vec<SourceChange>,
    /// A digest that tells its sources from others.
    pub sources: String,
}

/// The tests' section of a component.
///
/// # Errors
/// [`Cause::NothingRan`] if it has none.
pub fn section<'a>(ci: &Ci, name: &str, kind: Kind, component: &'a Component) -> Result<&'a Tests> {
    component.tests.as_ref().ok_or_else(|| {
        let (tests, section) = match kind {
            Kind::E2e | Kind::Upgrade => ("tests".to_owned(), "tests"),
            kind => (format!("tests of kind {}", kind.name()), kind.name()),
        };
        Error::new(Cause::NothingRan, format!("component '{name}' has no {tests}"))
            .next(format!("add [{name}.{section}] to {}", ci.folder().join("components.toml").display()))
    })
}

/// Compiles the test program of a component's suite for nodes of that pace, unless the cache has it.
///
/// # Errors
/// [`Cause::MissingProgram`] without Go, [`Cause::BuildFailure`] with the compiler's words,
/// [`Cause::NothingRan`] for a package without tests.
pub fn prepare(
    ci: &Ci,
    name: &str,
    kind: Kind,
    component: &Component,
    suite: &Suite,
    pace: &Pace,
    ui: &Ui,
) -> Result<Program> {
    let tests = &section(ci, name, kind, component)?.of_suite(suite);
    source::go("compiling the tests")?;
    let checkout = source::checkout(ci, component, ui)?;
    let folder = checkout.dir.join(&tests.package);
    if !folder.is_dir() {
        return Err(Error::new(Cause::Usage, format!("{} has no package {}", checkout.dir.display(), tests.package))
            .next(format!("see package of [{name}.tests] and of its suites")));
    }
    let overlaid = overlay::apply(&tests.overlay, &checkout.dir, pace)?;
    let go = ask_go(&checkout, tests)?;
    let key = key(&checkout, tests, &go, &overlaid);
    let cache = dirs::cache()?.join("tests");
    let path = cache.join(format!("{name}-{key}")).join("x.test");
    let mut compiled = !path.is_file();
    if compiled {
        let _turn = take_turn(&format!("{name}'s tests"), &path, ui)?;
        // Somebody else may have compiled it meanwhile.
        compiled = !path.is_file();
        if compiled {
            compile(name, &checkout, tests, &overlaid, &path, ui)?;
            cache::forget_older(&cache, &path, |folder| is_of(name, folder));
        }
    }
    cache::used(&path);
    let folder = folder.canonicalize().cause(Cause::Usage, || format!("cannot read {}", folder.display()))?;
    let (go_bin, changes) = (go.root.join("bin"), overlaid.changes);
    let sources = sources(&checkout.source);
    Ok(Program { path, folder, package: go.package, go_bin, test2json: go.test2json, compiled, changes, sources })
}

/// A digest of sources, for records: the same wherever they lie.
#[must_use]
pub fn sources(source: &Source) -> String {
    match source {
        Source::Module { sum, .. } => sum.clone(),
        Source::Folder { digest, .. } => digest.clone(),
        Source::Release { reference } => reference.clone(),
    }
}

/// What Go says of itself and of the package.
struct Go {
    version: String,
    root: PathBuf,
    package: String,
    test2json: PathBuf,
}

fn ask_go(checkout: &Checkout, tests: &Tests) -> Result<Go> {
    let ask = |arguments: &[&str]| ask(checkout, arguments);
    let said = ask(&["env", "GOVERSION", "GOROOT"])?;
    let (version, root) = said.split_once('\n').unwrap_or((&said, ""));
    let tags = format!("-tags={}", tests.tags.join(","));
    Ok(Go {
        version: version.to_owned(),
        root: root.into(),
        package: ask(&["list", "-e", &tags, "-f", "{{.ImportPath}}", &tests.package])?,
        // The program itself, so that a signal reaches it and not the `go` before it.
        test2json: ask(&["tool", "-n", "test2json"])?.into(),
    })
}

/// What Go says of these sources.
pub(crate) fn ask(checkout: &Checkout, arguments: &[&str]) -> Result<String> {
    let mut command = go_command(&checkout.dir)?;
    command.args(arguments);
    let process = Process::new(format!("go {}", arguments[0]), command).limit(ASK_LIMIT);
    Ok(process.cause(Cause::BuildFailure).read()?.trim().to_owned())
}

/// `go` as ko calls it: what both compile is compiled once (Go's cache tells cgo and -trimpath apart).
pub(crate) fn go_command(dir: &Path) -> Result<Command> {
    let mut command = source::go_command("compiling the tests", dir)?;
    command.env("CGO_ENABLED", "0");
    Ok(command)
}

/// Changes with everything that the program is made of.
fn key(checkout: &Checkout, tests: &Tests, go: &Go, overlaid: &Overlaid) -> String {
    let (source, dir) = (&checkout.source, place_in(checkout, tests));
    let text = format!("{source:?}\n{}\n{:?}\n{}\n{}{dir}", tests.package, tests.tags, go.version, overlaid.key());
    digest::hex(text.as_bytes())[..16].to_owned()
}

/// Waits while another process compiles the same: two at once take twice as long.
pub(crate) fn take_turn(what: &str, path: &Path, ui: &Ui) -> Result<fs::File> {
    let folder = path.parent().unwrap_or(path);
    let lock = folder.join(".lock");
    let failed = || format!("cannot use {}", lock.display());
    fs::create_dir_all(folder).cause(Cause::HostDisk, failed)?;
    let file = fs::File::create(&lock).cause(Cause::HostDisk, failed)?;
    let mut waiting = None;
    let late = || Error::new(Cause::Internal, format!("{what}: another process has been compiling for too long"));
    retry::until(COMPILE_LIMIT, late, || match file.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(fs::TryLockError::WouldBlock) => {
            waiting.get_or_insert_with(|| ui.step(format!("{what}: another process compiles")));
            Ok(None)
        }
        Err(fs::TryLockError::Error(error)) => Err(error).cause(Cause::HostDisk, failed),
    })?;
    if let Some(waiting) = waiting {
        waiting.done("");
    }
    Ok(file)
}

fn compile(name: &str, checkout: &Checkout, tests: &Tests, overlaid: &Overlaid, path: &Path, ui: &Ui) -> Result<()> {
    let new = folder_beside(path)?;
    let file = new.path().join("x.test");
    let mut command = go_command(&checkout.dir)?;
    command.args(["test", "-c"]).args(trimpath(tests)).arg(format!("-tags={}", tests.tags.join(",")));
    if !overlaid.is_empty() {
        // Go knows its sources by where they really lie.
        let root =
            checkout.dir.canonicalize().cause(Cause::Usage, || format!("cannot read {}", checkout.dir.display()))?;
        command.arg("-overlay").arg(overlaid.write(&root, new.path())?);
    }
    command.arg("-o").arg(&file).arg(&tests.package);
    let step = ui.step(format!("{name}: compile the tests"));
    let words = match run_compiler(&format!("{name}'s tests"), "do not compile", command, &step) {
        Ok(words) => words,
        Err(error) => {
            step.failed("");
            return Err(error);
        }
    };
    if !file.is_file() {
        step.failed("");
        return Err(
            Error::new(Cause::NothingRan, format!("{name}: the package {} has no tests", tests.package)).line(words)
        );
    }
    step.done(format!("{} MB", keep(&file, path)? / 1_000_000));
    Ok(())
}

/// A new folder beside that of a program.
pub(crate) fn folder_beside(path: &Path) -> Result<tempfile::TempDir> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).cause(Cause::HostDisk, || format!("cannot create {}", parent.display()))?;
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(parent);
    new.cause(Cause::HostDisk, || format!("cannot write to {}", parent.display()))
}

/// Gives a program its name; returns its size.
pub(crate) fn keep(file: &Path, path: &Path) -> Result<u64> {
    fs::rename(file, path).cause(Cause::HostDisk, || format!("cannot write {}", path.display()))?;
    Ok(fs::metadata(path).map_or(0, |file| file.len()))
}

/// Where the sources lie, if programs are to know it.
pub(crate) fn place_in(checkout: &Checkout, tests: &Tests) -> String {
    if tests.source_paths { checkout.dir.display().to_string() } else { String::new() }
}

/// Whether the paths of sources stay out of programs, as ko has it.
pub(crate) fn trimpath(tests: &Tests) -> Option<&'static str> {
    (!tests.source_paths).then_some("-trimpath")
}

/// Runs Go until `what` is compiled; returns what it said. In words, `failed` follows `what`.
///
/// # Errors
/// [`Cause::BuildFailure`] with the compiler's words, or what is wrong with this machine.
pub(crate) fn run_compiler(what: &str, failed: &str, command: Command, step: &Step) -> Result<String> {
    let mut words = Vec::new();
    let process = Process::new(format!("compilation of {what}"), command).limit(COMPILE_LIMIT);
    let shown = process.display();
    let finished = process
        .on_line(|stream, line| {
            if stream == Stream::Err && line.starts_with("go: downloading") {
                step.set(line);
            } else if words.len() < 60 {
                words.push(line.to_owned());
            }
        })
        .finish()?;
    let words = words.join("\n");
    if finished.good() {
        return Ok(words);
    }
    // A full disk or a proxy that is away says nothing of the component.
    let judged = Judge::default().package(&words);
    let infrastructure = judged.cause.class() == kit::Class::Infrastructure;
    let cause = if infrastructure { judged.cause } else { Cause::BuildFailure };
    Err(Error::new(cause, format!("{what} {failed}: {shown}")).line(words))
}

/// Whether a folder of the cache is that of a program of this component.
pub(crate) fn is_of(name: &str, folder: &str) -> bool {
    folder.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')).is_some_and(|key| key.len() == 16)
}

impl Program {
    /// The names of its tests, fuzz tests and examples, in its own order.
    ///
    /// # Errors
    /// [`Cause::BuildFailure`] if it does not say.
    pub fn list(&self) -> Result<Vec<String>> {
        let mut command = Command::new(&self.path);
        // A TestMain may want to look at a cluster: here it must not find any, nor anything else of the caller's that the
        // tests do not get.
        command.current_dir(&self.folder).env_clear().envs(environment::of_caller());
        command.envs(std::env::var_os("PATH").map(|path| ("PATH", path))).env("PWD", &self.folder);
        command.env("KUBECONFIG", "/dev/null").args(["-test.list", "."]);
        let process = Process::new("the list of tests", command).limit(ASK_LIMIT).cause(Cause::BuildFailure);
        let mut names: Vec<String> = Vec::new();
        let said = process.read()?;
        let test = |name: &&str| {
            ["Test", "Example", "Fuzz"].iter().any(|kind| name.starts_with(kind)) && !name.contains(char::is_whitespace)
        };
        for name in said.lines().filter(test) {
            // A TestMain that runs its tests in several rounds lists them in each.
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_other_components_are_not_this_one_s() {
        assert!(is_of("own", "own-0000000000000000"));
        assert!(!is_of("own", "owner-0000000000000000") && !is_of("own", "own-more-0000000000000000"));
    }

    #[test]
    fn a_program_is_asked_for_its_tests_without_what_is_the_caller_s() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.test");
        // Cargo says where the sources are.
        let script =
            "#!/bin/sh\necho \"TestHome${HOME:+There}\" \"TestLeaks${CARGO_MANIFEST_DIR:+All}\" | tr ' ' '\\n'\n";
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let program = Program {
            path,
            folder: folder.path().into(),
            package: String::new(),
            go_bin: PathBuf::new(),
            test2json: PathBuf::new(),
            compiled: true,
            changes: Vec::new(),
            sources: String::new(),
        };
        assert_eq!(program.list().unwrap(), ["TestHomeThere", "TestLeaks"]);
    }
}
