//! Tests that are ignored by themselves, each as a process of its own, some side by side: for most of their time they
//! wait.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use kit::{Cause, Process, Result, Ui, process::Stream, ui::duration};
use serde::Deserialize;

use crate::tools;

/// None takes longer.
const LIMIT: Duration = Duration::from_secs(5400);
/// Words in the names of tests that compare what is on the machine before and after: what others mount meanwhile would
/// count. They run alone, after all others.
const ALONE: &[&str] = &["nothing_is_left", "its_lab_goes"];

/// One test of one test program.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Test {
    program: PathBuf,
    /// Where cargo would run it.
    folder: PathBuf,
    name: String,
}

/// What cargo says of a program that it built, as far as we read it.
#[derive(Deserialize)]
struct Artifact {
    manifest_path: PathBuf,
    executable: Option<PathBuf>,
    #[serde(default)]
    profile: Profile,
}

#[derive(Default, Deserialize)]
struct Profile {
    test: bool,
}

/// Runs all ignored tests of the workspace whose names `wanted` takes, `jobs` at a time; passed and failed. Each test's
/// output comes when it has ended, by `print`.
pub(super) fn run(
    jobs: usize,
    wanted: impl Fn(&str) -> bool,
    print: impl Fn(&str) + Sync,
    ui: &Ui,
) -> Result<(usize, usize)> {
    let tests = all()?.into_iter().filter(|test| wanted(&test.name));
    let (alone, others) = tests.partition(|test| runs_alone(&test.name));
    let (first, then) = (work(others, jobs, &print, ui)?, work(alone, 1, &print, ui)?);
    Ok((first.0 + then.0, first.1 + then.1))
}

fn runs_alone(name: &str) -> bool {
    ALONE.iter().any(|word| name.contains(word))
}

fn work(tests: VecDeque<Test>, jobs: usize, print: &(impl Fn(&str) + Sync), ui: &Ui) -> Result<(usize, usize)> {
    let waiting = Mutex::new(tests);
    let done = Mutex::new((0, 0));
    let worker = || -> Result<()> {
        while let Some(test) = next(&waiting) {
            let step = ui.step(format!("test {}", test.name));
            let began = Instant::now();
            let (good, said) = one(&test)?;
            let took = duration(began.elapsed());
            step.done(if good { "passed" } else { "failed" });
            let mut done = done.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            *if good { &mut done.0 } else { &mut done.1 } += 1;
            print(&format!("{said}test {} ... {} in {took}\n", test.name, if good { "ok" } else { "FAILED" }));
        }
        Ok(())
    };
    std::thread::scope(|threads| {
        let workers: Vec<_> = (0..jobs).map(|_| threads.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

fn next(waiting: &Mutex<VecDeque<Test>>) -> Option<Test> {
    waiting.lock().unwrap_or_else(std::sync::PoisonError::into_inner).pop_front()
}

/// Whether a test passed, and what it said.
fn one(test: &Test) -> Result<(bool, String)> {
    let mut command = Command::new(&test.program);
    command.args(["--ignored", "--exact", &test.name, "--nocapture"]).current_dir(&test.folder);
    let mut said = String::new();
    let process = Process::new(&test.name, command).limit(LIMIT);
    let finished = process.on_line(|_, line| said += &format!("{line}\n")).finish()?;
    if finished.timed_out {
        said += &format!("ended by us after {}\n", duration(finished.took));
    }
    Ok((finished.good() && !finished.timed_out, said))
}

/// All ignored tests of the workspace, in cargo's order.
fn all() -> Result<Vec<Test>> {
    let mut artifacts = Vec::new();
    let arguments = ["test", "--workspace", "--tests", "--no-run", "--message-format=json-render-diagnostics"];
    Process::new("build of the tests", tools::cargo(&arguments)?)
        .cause(Cause::BuildFailure)
        .limit(Duration::from_secs(1800))
        .on_line(|stream, line| {
            if stream == Stream::Out {
                artifacts.extend(program(line));
            }
        })
        .run()?;
    let mut tests = Vec::new();
    for (program, folder) in artifacts {
        let mut command = Command::new(&program);
        command.args(["--list", "--ignored", "--format", "terse"]).current_dir(&folder);
        let listed = Process::new("list of the tests", command).limit(Duration::from_secs(60)).read()?;
        tests.extend(names(&listed).map(|name| Test { program: program.clone(), folder: folder.clone(), name }));
    }
    Ok(tests)
}

/// A test program and its package's folder, if that is what cargo says in this line.
fn program(line: &str) -> Option<(PathBuf, PathBuf)> {
    let artifact: Artifact = serde_json::from_str(line).ok()?;
    let folder = artifact.manifest_path.parent().map(Path::to_path_buf)?;
    artifact.executable.filter(|_| artifact.profile.test).map(|program| (program, folder))
}

/// The names in a test program's terse list.
fn names(listed: &str) -> impl Iterator<Item = String> {
    listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs_are_taken_from_what_cargo_says() {
        let line = |test: bool, path: &str| {
            format!(
                r#"{{"reason":"compiler-artifact","manifest_path":"/w/tool/Cargo.toml","profile":{{"test":{test}}},"executable":{path}}}"#
            )
        };
        assert_eq!(program(&line(true, r#""/w/target/lab-1""#)), Some(("/w/target/lab-1".into(), "/w/tool".into())));
        assert_eq!(program(&line(true, "null")), None);
        assert_eq!(program(&line(false, r#""/w/target/tool""#)), None);
        assert_eq!(program(r#"{"reason":"build-finished","success":true}"#), None);
    }

    #[test]
    fn tests_that_count_what_is_on_the_machine_run_alone() {
        let source = std::fs::read_to_string(tools::root().join("xtask/tests/greeter.rs")).unwrap();
        let names = source.lines().filter_map(|line| line.strip_prefix("fn ")?.strip_suffix("() {"));
        let alone: Vec<_> = names.filter(|name| runs_alone(name)).collect();
        assert_eq!(alone.len(), source.matches("let before = leftovers(").count(), "{alone:?}");
        assert!(!runs_alone("labs_are_side_by_side"));
    }

    #[test]
    fn a_list_has_tests_and_benchmarks() {
        assert_eq!(names("a::b: test\nc: benchmark\nd: test\n").collect::<Vec<_>>(), ["a::b", "d"]);
    }
}
