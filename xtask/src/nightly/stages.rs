//! Running one stage: a tool as a process, its progress passed on, its end recorded.

use std::{
    collections::VecDeque,
    path::PathBuf,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use kit::{
    Cause, Context, Outcome, Platform, Process, Result, RunDir, Stream, Ui,
    process::quote,
    record::Stage,
    ui::{duration, printable},
};

use super::{
    estimate::Estimates,
    request::{From, Request},
};
use crate::tools::{self, undated};

/// The stage that compiles tests for nodes that are known to be slow.
pub(crate) const PREPARE_SLOW: &str = "prepare-slow";
/// How much of what a failed stage said is shown.
const LAST_LINES: usize = 30;

/// A tool's call, as a stage of a run.
#[derive(Clone)]
pub(crate) struct Work {
    name: String,
    tool: &'static str,
    component: Option<String>,
    platform: Option<Platform>,
    args: Vec<String>,
    show: bool,
    recorded: bool,
}

impl Work {
    pub(crate) fn new(name: &str, tool: &'static str, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { name: name.into(), tool, component: None, platform: None, args, show: false, recorded: true }
    }

    pub(crate) fn component(mut self, name: &str) -> Self {
        self.args.extend(["--component".into(), name.into()]);
        self.component = Some(name.into());
        self
    }

    pub(crate) fn platform(mut self, platform: &Platform) -> Self {
        self.args.extend(["--platform".into(), platform.to_string()]);
        self.platform = Some(platform.clone());
        self
    }

    pub(crate) fn run_dir(mut self, run: &RunDir) -> Self {
        self.args.extend(["--run-dir".into(), run.path().display().to_string()]);
        self
    }

    pub(crate) fn args(mut self, args: &[String]) -> Self {
        self.args.extend(args.iter().cloned());
        self
    }

    /// Its result is for people to see.
    pub(crate) fn show(mut self) -> Self {
        self.show = true;
        self
    }

    /// It is no stage of the run's record.
    pub(crate) fn unrecorded(mut self) -> Self {
        self.recorded = false;
        self
    }

    fn title(&self) -> String {
        let platform = self.platform.as_ref().map(ToString::to_string);
        [Some(self.name.clone()), self.component.clone(), platform].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// The command as a person can give it again.
    pub(super) fn command(&self) -> String {
        let args: Vec<_> = self.args.iter().map(|arg| quote(arg)).collect();
        format!("cargo xtask {} {}", self.tool, args.join(" "))
    }
}

/// How a stage ended.
pub(crate) struct Ended {
    pub(crate) cause: Option<Cause>,
    pub(crate) stdout: String,
}

impl Ended {
    pub(crate) fn good(&self) -> bool {
        self.cause.is_none_or(|cause| cause.class() == kit::Class::Flaky)
    }

    pub(crate) fn not_begun() -> Self {
        Self { cause: Some(Cause::Interrupted), stdout: String::new() }
    }
}

/// Runs stages, several at a time, and remembers how they ended.
pub(crate) struct Runner<'a> {
    ui: &'a Ui,
    logs: PathBuf,
    sealed: Mutex<bool>,
    stages: Mutex<Vec<Stage>>,
    estimates: Estimates,
}

impl<'a> Runner<'a> {
    pub(crate) fn new(run: &RunDir, ui: &'a Ui) -> Result<Self> {
        let (sealed, stages) = (Mutex::new(false), Mutex::default());
        Ok(Self { ui, logs: run.path().join("logs"), sealed, stages, estimates: Estimates::load()? })
    }

    /// The stages that have ended, in that order.
    pub(crate) fn stages(&self) -> Vec<Stage> {
        self.stages.lock().map(|stages| stages.clone()).unwrap_or_default()
    }

    /// From now on nothing is written into the run directory.
    pub(crate) fn close(&self) {
        self.estimates.save();
        if let Ok(mut sealed) = self.sealed.lock() {
            *sealed = true;
        }
    }

    /// How many times slower the nodes of a platform were when they were last measured, if it is worth a word.
    pub(crate) fn slowdown(&self, platform: &Platform) -> Option<f64> {
        let seconds = self.estimates.get(&format!("slowdown {platform}"))?;
        // As slow as `--slowdown` takes it.
        Some(seconds.as_secs_f64().min(64.0)).filter(|slowdown| *slowdown >= 1.5)
    }

    /// Keeps that in mind.
    pub(crate) fn note_slowdown(&self, platform: &Platform, slowdown: f64) {
        if let Ok(seconds) = Duration::try_from_secs_f64(slowdown) {
            self.estimates.put(&format!("slowdown {platform}"), seconds);
        }
    }

    /// How long the whole takes by what its stages took here the last time, if all of them ran here before.
    pub(crate) fn expected(&self, request: &Request) -> Option<Duration> {
        let get = |name: &str| self.estimates.get(name);
        let mut built = Duration::ZERO;
        if request.from == From::Build {
            built += get("images").filter(|_| request.lab.is_some()).unwrap_or_default();
            for component in &request.builds {
                built += get(&format!("build {component}"))?;
            }
        }
        let lab = get("lab").unwrap_or_default();
        let mut total = built.max(lab);
        for component in request.components.iter().filter(|_| request.from <= From::Test) {
            let prepare = |name: &str| get(&format!("{name} {component}"));
            total = total.max(prepare("prepare").max(prepare(PREPARE_SLOW))?);
        }
        let stages: &[&str] = match request.from {
            From::Build | From::Install => &["preflight", "snapshot", "install", "test", "cleanup"],
            From::Test => &["test", "cleanup"],
            From::Cleanup => &["cleanup"],
        };
        for component in &request.components {
            for platform in &request.test_on {
                for stage in stages {
                    let all = ["preflight", "install"].contains(stage);
                    let itself = std::slice::from_ref(component).iter().filter(|_| !all);
                    let installed = request.with_needs(component).filter(|_| all);
                    for component in itself.chain(installed) {
                        total += get(&format!("{stage} {component} {platform}"))?;
                    }
                }
            }
        }
        Some(total)
    }

    /// Runs one stage to its end.
    pub(crate) fn run(&self, work: Work) -> Ended {
        let started = jiff::Timestamp::now();
        let (ended, exit) = self.call(&work).unwrap_or_else(|error| {
            self.ui.warn(format!("{}: {error}", work.title()));
            (Ended { cause: Some(error.cause), stdout: String::new() }, i32::from(error.exit().0))
        });
        if work.recorded {
            let stage = Stage {
                command: work.command(),
                name: work.name,
                component: work.component,
                platform: work.platform,
                part: None,
                started,
                finished: jiff::Timestamp::now(),
                outcome: if ended.good() { Outcome::Passed } else { Outcome::Failed },
                cause: ended.cause,
                exit,
            };
            if let Ok(mut stages) = self.stages.lock() {
                stages.push(stage);
            }
        }
        ended
    }

    fn call(&self, work: &Work) -> Result<(Ended, i32)> {
        let title = work.title();
        let results = tempfile::tempdir().cause(Cause::HostDisk, || "cannot create a temporary folder")?;
        let mut command = Command::new(tools::path(work.tool)?);
        command.args(&work.args).arg("--results-dir").arg(results.path());
        let expected = self.estimates.get(&title);
        let step = self.ui.step(match expected {
            Some(expected) => format!("{title} (last time {})", duration(expected)),
            None => title.clone(),
        });
        let began = Instant::now();
        let (mut stdout, mut last) = (String::new(), VecDeque::new());
        let mut process =
            Process::new(&title, command).grace(Duration::from_secs(60)).on_line(|stream, line| match stream {
                Stream::Out => stdout.push_str(&format!("{line}\n")),
                Stream::Err => {
                    let line = undated(line);
                    step.set(printable(line));
                    if last.len() == LAST_LINES {
                        last.pop_front();
                    }
                    last.push_back(printable(line));
                }
            });
        if !self.sealed.lock().is_ok_and(|sealed| *sealed) {
            process = process.log(self.logs.join(format!("{}.log", kit::rundir::slug(&title.replace(' ', "-")))));
        }
        let finished = process.finish()?;
        let exit = finished.code();
        // With exit code 0 a tool may still have something to say: that a test was flaky.
        let cause = tools::cause_of(results.path(), exit);
        if let Some(cause) = cause.filter(|cause| cause.exit() != kit::Exit::GOOD) {
            step.failed(format!("{cause} (exit code {exit})"));
            if !work.show && !stdout.trim().is_empty() {
                self.ui.note(printable(stdout.trim_end()));
            }
            self.ui.note(Vec::from(last).join("\n"));
        } else {
            step.done("");
            self.estimates.put(&title, began.elapsed());
        }
        if work.show && !stdout.trim().is_empty() {
            self.ui.note(printable(stdout.trim_end()));
        }
        if exit != 0 {
            self.ui.note(format!("  again: {}", work.command()));
        }
        Ok((Ended { cause, stdout }, exit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_is_a_command_that_can_be_given_again() {
        let work =
            Work::new("test", "e2e-runner", &["run"]).component("greeter").args(&["--env".into(), "A=b c".into()]);
        assert_eq!(work.title(), "test greeter");
        assert_eq!(work.command(), "cargo xtask e2e-runner run --component greeter --env 'A=b c'");
    }

    #[test]
    fn a_line_is_dated_once() {
        assert_eq!(undated("09:40:30 ko builds"), "ko builds");
        assert_eq!(undated("ko builds"), "ko builds");
    }
}
