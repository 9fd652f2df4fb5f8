//! A call of a tool as a stage of a run that somebody else wires (`--stage FILE`), and what the stages of a run come
//! to. Every wiring uses the same two: `nightly`, a Tekton Pipeline, a script.

use std::{
    ffi::OsString,
    io::Write,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    Cause, Class, Exit, Outcome, Result, Ui, combine,
    process::quote,
    record::{SCHEMA_VERSION, Stage},
    rundir, secrets,
};

/// Folder of a run directory with a file for each stage that a wiring ran, named by the stage, and by the part if it ran
/// in parts.
pub const FOLDER: &str = "stages";
/// Stages that run a component's own tests: a run in which none of them ran anything has shown nothing.
const TESTS: &[&str] = &["test", "unit", "e2e", "examples", "upgrade"];
/// Stages that only save time; whatever is wrong with them is said again by the one that needs their work.
const EARLY: &str = "prepare";

/// The option that makes a call a part of its stage.
const PART: &str = "--shard";
/// Options that only a wiring wants.
const WIRING: [&str; 2] = ["stage", "results-dir"];

/// A stage's file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File<'a> {
    schema_version: &'static str,
    #[serde(flatten)]
    stage: &'a Stage,
}

/// How a call ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) cause: Option<Cause>,
    pub(crate) exit: Exit,
}

impl Ended {
    /// Whether the work was done, whatever it found, or never can be as it was asked for: it is not done better by doing
    /// it again.
    fn done(self) -> bool {
        let found = |cause: Cause| matches!(cause.class(), Class::Product | Class::Flaky | Class::Unknown);
        let asked = |cause: Cause| matches!(cause, Cause::NothingRan | Cause::Usage);
        self.exit == Exit::GOOD || (self.exit.0 < 128 && self.cause.is_some_and(|cause| found(cause) || asked(cause)))
    }
}

/// A part of a stage, of several that run at the same time: its number, from 1, and how many there are. Only one is none.
#[must_use]
pub fn part(text: &str) -> Option<(u32, u32)> {
    let (number, of) = text.split_once('/')?;
    let (number, of) = (number.parse().ok()?, of.parse().ok()?);
    (of > 1 && (1..=of).contains(&number)).then_some((number, of))
}

/// The file of a call: parts of a stage are told one file, and each has its own, as their records have.
fn own(file: &Path, words: &[OsString]) -> PathBuf {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    match value(&words, PART).as_deref().and_then(part) {
        Some((number, of)) => file.with_extension(format!("{number}-of-{of}.json")),
        None => file.to_path_buf(),
    }
}

/// Writes the stage's file, says at the end of the log what was found and how to see it again, and returns the exit
/// code of the call.
pub(crate) fn end(file: &Path, tool: &str, words: &[OsString], started: Timestamp, ended: Ended, ui: &Ui) -> Exit {
    let stage = record(file, tool, words, started, ended);
    if let Err(error) = rundir::write_json(&own(file, words), &File { schema_version: SCHEMA_VERSION, stage: &stage }) {
        crate::cli::report(ui, &error);
        return error.exit();
    }
    if let Some(cause) = stage.cause {
        // Without a date: they are looked for at the end of a log. Nobody may be reading it.
        let meaning = cause.meaning().trim_end_matches('.');
        let _ =
            writeln!(std::io::stderr(), "cause: {cause} ({meaning})\nagain: {}", crate::ui::printable(&stage.command));
    }
    if ended.done() { Exit::GOOD } else { ended.exit }
}

/// The words of a call. In a stage an option that is written with nothing (`--suite=`) was not given: a wiring such as
/// a Tekton Task cannot leave one out.
#[must_use]
pub fn words(words: Vec<OsString>) -> Vec<OsString> {
    let named = |word: &OsString| word == "--stage" || word.to_string_lossy().starts_with("--stage=");
    if !words.iter().any(named) {
        return words;
    }
    let nothing = |word: &OsString| {
        let word = word.to_string_lossy();
        word.starts_with("--") && word.ends_with('=') && word.matches('=').count() == 1
    };
    words.into_iter().filter(|word| !nothing(word)).collect()
}

fn record(file: &Path, tool: &str, words: &[OsString], started: Timestamp, ended: Ended) -> Stage {
    let words: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let name = file.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let good = ended.cause.is_none_or(|cause| cause.class() == Class::Flaky) && ended.exit == Exit::GOOD;
    // A call that ended for no cause of its own was stopped.
    let cause = ended.cause.or((!good).then_some(Cause::Interrupted));
    Stage {
        name,
        component: value(&words, "--component"),
        platform: value(&words, "--platform").and_then(|platform| platform.parse().ok()),
        part: value(&words, PART).filter(|text| part(text).is_some()),
        started,
        finished: Timestamp::now(),
        outcome: if good { Outcome::Passed } else { Outcome::Failed },
        cause,
        exit: i32::from(ended.exit.0),
        command: command(tool, &words),
    }
}

/// The value of an option, however it was written.
pub(crate) fn value(words: &[String], option: &str) -> Option<String> {
    words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(option)? {
        "" => words.get(at + 1).cloned(),
        rest => rest.strip_prefix('=').map(String::from),
    })
}

/// The call as a person gives it again: what only a wiring wants is left out, and what lay in a Tekton workspace, which
/// goes with its run, has the name of its option.
fn command(tool: &str, words: &[String]) -> String {
    let mut said = format!("cargo xtask {tool}");
    let mut option = "run-dir";
    for word in words {
        let (name, value) = match word.strip_prefix("--") {
            Some(long) => long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value))),
            None => (option, Some(word.as_str())),
        };
        option = if value.is_none() { name } else { "run-dir" };
        let whole = word.strip_prefix("--shard=").is_some_and(|text| part(text).is_none());
        if WIRING.contains(&name) || whole {
            continue;
        }
        let word = match value {
            Some(path) if path.starts_with("/workspace/") => word.replace(path, &name.replace('-', "_").to_uppercase()),
            Some(pair) if name == "env" => match pair.split_once('=') {
                Some((key, value)) => quote(&word.replace(pair, &format!("{key}={}", secrets::shown(key, value)))),
                None => quote(word),
            },
            _ => quote(word),
        };
        said.push_str(&format!(" {word}"));
    }
    said
}

/// What the stages of a run come to: one cause and one exit code. `also` are causes that stand in no stage;
/// `must_test` says that a run without a test that ran has shown nothing.
#[must_use]
pub fn conclude(stages: &[Stage], also: &[Cause], must_test: bool) -> (Option<Cause>, Exit) {
    let tested = |stage: &&Stage| TESTS.contains(&stage.name.as_str()) && stage.cause != Some(Cause::NothingRan);
    let ran = if must_test { stages.iter().filter(tested).count() } else { 1 };
    // A kind of tests that a component does not have is no fault where it has others.
    let same = |a: &Stage, b: &Stage| a.component == b.component && a.platform == b.platform;
    let idle = |stage: &Stage| {
        stage.cause == Some(Cause::NothingRan) && stages.iter().filter(tested).any(|other| same(stage, other))
    };
    let causes = stages.iter().filter(|stage| stage.name != EARLY && !idle(stage)).filter_map(|stage| stage.cause);
    let causes: Vec<_> = causes.chain(also.iter().copied()).collect();
    let exit = combine(causes.iter().copied(), ran);
    let cause = causes.into_iter().find(|cause| cause.exit() == exit && exit != Exit::GOOD);
    (cause.or_else(|| (exit == Exit::NOTHING_RAN).then_some(Cause::NothingRan)), exit)
}

/// Reads what stages left in `<run>/stages`, in the order in which they ended.
///
/// # Errors
/// [`Cause::Usage`], naming the file, if one is none.
pub fn read(run: &Path) -> Result<Vec<Stage>> {
    let folder = run.join(FOLDER);
    let mut stages: Vec<Stage> = Vec::new();
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "json")).take(1000) {
        let bytes = rundir::read_limited(&path, 1 << 20)?;
        stages.push(rundir::parse(&bytes, &path.display().to_string())?);
    }
    stages.sort_by_key(|stage| stage.finished);
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, cause: Option<Cause>) -> Stage {
        let ended = Ended { cause, exit: cause.map_or(Exit::GOOD, Cause::exit) };
        record(Path::new(&format!("stages/{name}.json")), "x", &[], Timestamp::UNIX_EPOCH, ended)
    }

    #[test]
    fn work_that_is_done_is_not_done_again() {
        for (cause, done) in [
            (Cause::Product, true),
            (Cause::Unclassified, true),
            (Cause::NotAtBaseline, true),
            (Cause::NothingRan, true),
            (Cause::Flaky, true),
            (Cause::ClusterUnreachable, false),
            (Cause::Usage, true),
            (Cause::MissingProgram, false),
            (Cause::Internal, false),
        ] {
            assert_eq!(Ended { cause: Some(cause), exit: cause.exit() }.done(), done, "{cause}");
        }
        assert!(!Ended { cause: Some(Cause::Product), exit: Exit(143) }.done());
        assert!(!Ended { cause: None, exit: Exit(130) }.done());
    }

    #[test]
    fn what_lay_in_a_workspace_is_named_for_what_it_was() {
        for (words, again) in [
            (
                "run --run-dir=/workspace/run/run --kubeconfig /workspace/t/k x",
                "run --run-dir=RUN_DIR --kubeconfig KUBECONFIG x",
            ),
            ("conclude /workspace/run/run --env=A=/workspace", "conclude RUN_DIR --env=A=/workspace"),
            ("run --env=MY_TOKEN=x --env PASSWORD=y", "run '--env=MY_TOKEN=***' --env 'PASSWORD=***'"),
            ("run --stage /workspace/run/x.json --results-dir=/r --quiet", "run --quiet"),
            ("run --shard=1/1 --quiet", "run --quiet"),
            ("run --shard=2/3 --quiet", "run --shard=2/3 --quiet"),
        ] {
            let words: Vec<_> = words.split(' ').map(String::from).collect();
            assert_eq!(command("x", &words), format!("cargo xtask x {again}"));
        }
    }

    #[test]
    fn a_stage_s_file_says_what_of_and_how_to_do_it_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stages/install.json");
        let words = "install --component=greeter --platform linux/s390x --results-dir /r --stage x.json --run-dir a";
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let ended = Ended { cause: Some(Cause::ImagePull), exit: Exit(3) };
        assert_eq!(end(&file, "cluster-install", &words, Timestamp::now(), ended, &Ui::silent()), Exit(3));
        let stages = read(folder.path()).unwrap();
        assert_eq!((stages[0].name.as_str(), stages[0].component.as_deref()), ("install", Some("greeter")));
        assert_eq!(stages[0].platform, Some("linux/s390x".parse().unwrap()));
        let again = "cargo xtask cluster-install install --component=greeter --platform linux/s390x --run-dir a";
        assert_eq!(stages[0].command, again);
        let ended = Ended { cause: Some(Cause::Product), exit: Exit(1) };
        assert_eq!(end(&file, "cluster-install", &words, Timestamp::now(), ended, &Ui::silent()), Exit(0));
        assert_eq!(read(folder.path()).unwrap()[0].exit, 1);
    }

    #[test]
    fn parts_of_a_stage_that_are_told_one_file_have_one_each() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("stages/e2e.json");
        let ended = |cause: Option<Cause>| Ended { cause, exit: cause.map_or(Exit::GOOD, Cause::exit) };
        for (number, cause) in [(1, None), (2, Some(Cause::Product))] {
            let words: [OsString; 2] = ["run".into(), format!("--shard={number}/3").into()];
            end(&file, "e2e-runner", &words, Timestamp::now(), ended(cause), &Ui::silent());
        }
        assert!(!file.exists() && folder.path().join("stages/e2e.2-of-3.json").exists());
        let stages = read(folder.path()).unwrap();
        let said: Vec<_> = stages.iter().map(|stage| (stage.name.as_str(), stage.part.as_deref())).collect();
        assert_eq!(said, [("e2e", Some("1/3")), ("e2e", Some("2/3"))]);
        assert_eq!(stages[1].command, "cargo xtask e2e-runner run --shard=2/3");
        assert_eq!(conclude(&stages, &[], true), (Some(Cause::Product), Exit::NOT_GOOD));
        end(&file, "e2e-runner", &["run".into(), "--shard=1/1".into()], Timestamp::now(), ended(None), &Ui::silent());
        assert!(file.exists() && read(folder.path()).unwrap()[2].part.is_none());
        for text in ["", "1", "1/1", "0/3", "4/3", "../3", "2/3/4"] {
            assert_eq!(part(text), None, "{text}");
        }
    }

    #[test]
    fn an_option_with_nothing_is_not_given_in_a_stage() {
        let of = |line: &str| words(line.split(' ').map(OsString::from).collect()).len();
        assert_eq!(of("run --suite= --env=A= --stage=x -- --y"), 5);
        assert_eq!(of("run --suite= --stage x"), 3);
        assert_eq!(of("run --suite= --env=A="), 3);
    }

    #[test]
    fn a_run_has_one_cause() {
        let good = [stage("install", None), stage("e2e", None), stage("examples", Some(Cause::NothingRan))];
        assert_eq!(conclude(&good, &[], true), (None, Exit::GOOD));
        let product = [stage("e2e", Some(Cause::Product)), stage("cleanup", Some(Cause::Apiserver))];
        assert_eq!(conclude(&product, &[], true), (Some(Cause::Product), Exit::NOT_GOOD));
        let unreachable = [stage("lease", Some(Cause::ClusterUnreachable))];
        assert_eq!(conclude(&unreachable, &[], true), (Some(Cause::ClusterUnreachable), Exit::INFRASTRUCTURE));
        assert_eq!(conclude(&[stage("install", None)], &[], true), (Some(Cause::NothingRan), Exit::NOTHING_RAN));
        assert_eq!(conclude(&[stage("prepare", Some(Cause::BuildFailure))], &[], false), (None, Exit::GOOD));
        let stopped = conclude(&good, &[Cause::Interrupted], true);
        assert_eq!(stopped, (Some(Cause::Interrupted), Exit::INFRASTRUCTURE));
    }

    #[test]
    fn a_file_that_is_no_stage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read(folder.path()).unwrap().is_empty());
        std::fs::create_dir(folder.path().join(FOLDER)).unwrap();
        std::fs::write(folder.path().join("stages/x.json"), "{}").unwrap();
        let error = read(folder.path()).unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains("stages/x.json"), "{error}");
    }
}
