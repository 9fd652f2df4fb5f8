//! Test programs, some side by side: for much of their time they wait. A test that is ignored by itself is a process of
//! its own.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use kit::{Cause, Process, Result, Ui, process::Stream, ui::duration};
use serde::Deserialize;

use super::totals;
use crate::tools;

/// None takes longer.
const LIMIT: Duration = Duration::from_secs(5400);
/// Words in the names of tests that compare what is on the machine before and after: what others mount meanwhile would
/// count. They run alone, after all others.
const ALONE: &[&str] = &["nothing_is_left", "its_lab_goes"];
/// Words in the names of tests that leave what those compare as it is: they have no lab, and run beside them.
const BESIDE: &[&str] = &["a_program_that_hangs", "bases_of_packages"];
/// Words in the names of those that take longest: begun first, none of them is still running when all others have ended.
const LONGEST: &[&str] = &["installs_explains_and_records", "a_used_cluster_is", "a_release_that_exists"];

/// What runs as one process.
struct Job {
    name: String,
    command: Command,
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

/// Runs all tests that are not ignored and whose names contain `filter`, `jobs` test programs at a time; passed and
/// failed. What each says comes when it has ended, by `print`.
pub(super) fn plain(jobs: usize, filter: Option<&str>, print: impl Fn(&str) + Sync, ui: &Ui) -> Result<(usize, usize)> {
    let programs = programs()?.into_iter().map(|(program, folder)| {
        let name = program.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let mut command = Command::new(&program);
        command.args(filter).current_dir(folder);
        Job { name, command }
    });
    let arguments = ["test", "--workspace", "--quiet", "--doc", "--"];
    let examples = tools::cargo(&arguments.into_iter().chain(filter).collect::<Vec<_>>())?;
    let examples = Job { name: "examples of the documentation".into(), command: examples };
    work(programs.chain([examples]).collect(), jobs, &print, ui)
}

/// Runs all ignored tests of the workspace whose names `wanted` takes, `jobs` at a time; passed and failed. What each
/// says comes when it has ended, by `print`.
pub(super) fn ignored(
    jobs: usize,
    wanted: impl Fn(&str) -> bool,
    print: impl Fn(&str) + Sync,
    ui: &Ui,
) -> Result<(usize, usize)> {
    let mut tests = Vec::new();
    for (program, folder) in programs()? {
        let mut command = Command::new(&program);
        command.args(["--list", "--ignored", "--format", "terse"]).current_dir(&folder);
        let listed = Process::new("list of the tests", command).limit(Duration::from_secs(60)).read()?;
        tests.extend(names(&listed).filter(|name| wanted(name)).map(|name| {
            let mut command = Command::new(&program);
            command.args(["--ignored", "--exact", &name, "--nocapture"]).current_dir(&folder);
            Job { name, command }
        }));
    }
    let (alone, others): (Vec<_>, Vec<_>) = tests.into_iter().partition(|test| has(&test.name, ALONE));
    let (beside, mut others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|test| !alone.is_empty() && has(&test.name, BESIDE));
    others.sort_by_key(|test| place(&test.name));
    let first = work(others.into(), jobs, &print, ui)?;
    let (alone, beside) = std::thread::scope(|threads| {
        let beside = threads.spawn(|| work(beside.into(), 1, &print, ui));
        let alone = work(alone.into(), 1, &print, ui);
        (alone, beside.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    Ok([first, alone?, beside?].into_iter().fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1)))
}

fn has(name: &str, words: &[&str]) -> bool {
    words.iter().any(|word| name.contains(word))
}

/// When it begins: the longest first.
fn place(name: &str) -> usize {
    LONGEST.iter().position(|word| name.contains(word)).unwrap_or(LONGEST.len())
}

fn work(jobs: VecDeque<Job>, at_a_time: usize, print: &(impl Fn(&str) + Sync), ui: &Ui) -> Result<(usize, usize)> {
    let waiting = Mutex::new(jobs);
    let done = Mutex::new((0, 0));
    let worker = || -> Result<()> {
        loop {
            let Some(job) = lock(&waiting).pop_front() else { return Ok(()) };
            let (began, name) = (Instant::now(), job.name.clone());
            let step = ui.step(&name);
            let (passed, failed, said) = one(job, LIMIT)?;
            step.done(match (passed, failed) {
                (_, 1..) => "failed",
                (0, 0) => "nothing to do",
                _ => "passed",
            });
            let mut done = lock(&done);
            *done = (done.0 + passed, done.1 + failed);
            if passed + failed > 0 {
                let took = duration(began.elapsed());
                print(&format!("{said}{name}: {passed} passed, {failed} failed in {took}\n"));
            }
        }
    };
    std::thread::scope(|threads| {
        let workers: Vec<_> = (0..at_a_time).map(|_| threads.spawn(worker)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How many passed and failed, and what they said. A program that does not end well has failed, whatever it counted.
fn one(job: Job, limit: Duration) -> Result<(usize, usize, String)> {
    let (mut passed, mut failed, mut said) = (0, 0, String::new());
    let finished = Process::new(&job.name, job.command)
        .limit(limit)
        .on_line(|_, line| {
            said += &format!("{line}\n");
            if let Some((good, bad)) = totals(line) {
                passed += good;
                failed += bad;
            }
        })
        .finish()?;
    if finished.timed_out {
        said += &format!("ended by us after {}\n", duration(finished.took));
    }
    if !finished.good() || finished.timed_out {
        failed = failed.max(1);
    }
    Ok((passed, failed, said))
}

/// All test programs of the workspace, in cargo's order, and the folders that they run in.
fn programs() -> Result<Vec<(PathBuf, PathBuf)>> {
    let mut found = Vec::new();
    let arguments = ["test", "--workspace", "--tests", "--no-run", "--message-format=json-render-diagnostics"];
    Process::new("build of the tests", tools::cargo(&arguments)?)
        .cause(Cause::BuildFailure)
        .limit(Duration::from_secs(1800))
        .on_line(|stream, line| {
            if stream == Stream::Out {
                found.extend(program(line));
            }
        })
        .run()?;
    Ok(found)
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

    fn job(script: &str) -> Job {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Job { name: "job".into(), command }
    }

    fn run(script: &str, times: usize, at_a_time: usize) -> (usize, usize, String) {
        let jobs = (0..times).map(|_| job(script));
        let said = Mutex::new(String::new());
        let counts = work(jobs.collect(), at_a_time, &|text| lock(&said).push_str(text), &Ui::silent()).unwrap();
        (counts.0, counts.1, said.into_inner().unwrap())
    }

    #[test]
    fn what_test_programs_say_is_counted_and_printed_as_a_whole() {
        let good = "echo one; echo 'test result: ok. 3 passed; 0 failed; 0 ignored'";
        let (passed, failed, said) = run(good, 3, 2);
        assert_eq!((passed, failed, said.matches("one\ntest result").count()), (9, 0, 3), "{said}");
        assert_eq!(run("echo 'test result: ok. 0 passed; 0 failed; 9 ignored'", 1, 1), (0, 0, String::new()));
        let bad = run("echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored'; exit 101", 1, 1);
        assert_eq!((bad.0, bad.1), (1, 2), "{}", bad.2);
        let died = run("echo 'test a ... ok'; kill -SEGV $$", 1, 1);
        assert_eq!((died.0, died.1), (0, 1), "{}", died.2);
    }

    #[test]
    fn a_program_that_its_limit_ended_has_failed_whatever_it_had_counted() {
        let hangs = job("echo 'test result: ok. 3 passed; 0 failed; 0 ignored'; exec sleep 60");
        let (passed, failed, said) = one(hangs, Duration::from_secs(1)).unwrap();
        assert!((passed, failed) == (3, 1) && said.contains("ended by us after"), "{said}");
    }

    #[test]
    fn the_words_in_names_are_in_names_of_tests() {
        let files = [
            "tools/cluster-install/tests/lab.rs",
            "tools/cluster-install/tests/clusters.rs",
            "tools/cleanup/tests/lab/main.rs",
            "xtask/tests/greeter.rs",
            "xtask/tests/images.rs",
        ];
        let text = files.map(|file| std::fs::read_to_string(tools::root().join(file)).unwrap()).concat();
        for word in LONGEST.iter().chain(BESIDE) {
            assert!(text.contains(&format!("fn {word}")), "{word}");
        }
    }

    #[test]
    fn tests_that_count_what_is_on_the_machine_run_alone() {
        let source = std::fs::read_to_string(tools::root().join("xtask/tests/greeter.rs")).unwrap();
        let names = source.lines().filter_map(|line| line.strip_prefix("fn ")?.strip_suffix("() {"));
        let alone: Vec<_> = names.filter(|name| has(name, ALONE)).collect();
        assert_eq!(alone.len(), source.matches("let before = leftovers(").count(), "{alone:?}");
        assert!(!has("labs_are_side_by_side", ALONE));
    }

    #[test]
    fn a_list_has_tests_and_benchmarks() {
        assert_eq!(names("a::b: test\nc: benchmark\nd: test\n").collect::<Vec<_>>(), ["a::b", "d"]);
    }
}
