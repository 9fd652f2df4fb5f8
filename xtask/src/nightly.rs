//! `cargo xtask nightly`: the wiring of the tools, from source to a support matrix.
//!
//! Everything here is about order: what a stage does is the tool's business, and the tools meet in the
//! run directory. A failed stage still runs cleanup, and every run is recorded.

mod estimate;
mod request;
mod stages;

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use kit::{
    Cause, Context, Done, Exit, Platform, Result, RunDir, Ui, combine,
    record::{Head, RunRecord, Stages},
    rundir, signal,
    ui::{duration, table},
};

pub(crate) use request::Args;
use request::{From, Request};
use stages::{Ended, Runner, Work};

use crate::tools;

/// Who writes the records of a run as a whole.
const TOOL: &str = "nightly";

pub(crate) fn run(args: Args, ui: &Ui) -> Result<Done> {
    let began = Instant::now();
    let request = Request::check(args)?;
    tools::build(tools::TOOLS, ui)?;
    let run = request.create_run_dir()?;
    let head = Head::new(TOOL, env!("CARGO_PKG_VERSION"), &run.id(), jiff::Timestamp::now());
    rundir::write_record(run.path(), &request.record(head.clone()))?;
    let runner = Runner::new(&run, ui)?;
    ui.note(format!("run {} in {}", run.id(), run.path().display()));
    if let Some(expected) = runner.expected(&request) {
        ui.note(format!("the last such run took {}", duration(expected)));
    } else {
        ui.note("nothing is known yet of how long this takes here: a first run compiles Kubernetes, ko and the tests");
    }
    let mut nightly = Nightly { request: &request, run: &run, runner, ui, lab_is_ours: false };
    nightly.work();
    let interrupted = signal::received();
    signal::forget();
    let cause = nightly.seal(head)?;
    nightly.put_away();
    nightly.show_times(began);
    let exit = interrupted.map_or(cause.1, |number| Exit(u8::try_from(128 + number).unwrap_or(255)));
    ui.note(format!("{}: {}", run.id(), cause.0.map_or_else(|| "good".to_owned(), |cause| format!("{cause}"))));
    Ok(Done { cause: cause.0, exit: Some(exit), digest: None })
}

struct Nightly<'a> {
    request: &'a Request,
    run: &'a RunDir,
    runner: Runner<'a>,
    ui: &'a Ui,
    lab_is_ours: bool,
}

impl Nightly<'_> {
    /// All stages; what went wrong stands in their records.
    fn work(&mut self) {
        let request = self.request;
        let Some(repo) = self.reach_registry() else { return };
        let ready = std::thread::scope(|scope| {
            let this = &*self;
            let lab = scope.spawn(|| this.cluster());
            let tests = scope.spawn(|| this.prepare_tests());
            let built: Vec<_> = request.components.iter().map(|component| this.build(component, &repo)).collect();
            let (lab, _tests) = (lab.join().unwrap_or(false), tests.join().is_ok());
            lab.then_some(built).unwrap_or_default()
        });
        for (component, good) in request.components.iter().zip(ready) {
            for platform in request.test_on.iter().filter(|_| good) {
                self.cell(component, platform, &repo);
            }
        }
    }

    /// The registry that images go to: the lab's, which is up long before the rest of the lab.
    fn reach_registry(&mut self) -> Option<String> {
        let request = self.request;
        let Some(lab) = &request.lab else {
            let status = self.stage(Work::new("cluster", "cluster-install", &["status"]).args(&request.cluster));
            return status.good().then(|| request.repo.clone().unwrap_or_default());
        };
        self.lab_is_ours = ask("lab", &["status", "--name", lab]).is_none();
        let images = self.request.ci.folder().join("images.toml").display().to_string();
        let up = ["up", "--name", lab, "--until", "registry", "--images", &images, "--output", "json"];
        let up = self.stage(Work::new("registry", "lab", &up));
        let status: serde_json::Value = serde_json::from_str(&up.stdout).unwrap_or_default();
        let registry = status["registry"].as_str().unwrap_or_default().to_owned();
        up.good().then(|| request.repo.clone().unwrap_or(registry))
    }

    fn cluster(&self) -> bool {
        let Some(lab) = &self.request.lab else { return true };
        let images = self.request.ci.folder().join("images.toml").display().to_string();
        self.stage(Work::new("lab", "lab", &["up", "--name", lab, "--images", &images])).good()
    }

    fn prepare_tests(&self) {
        for component in self.request.components.iter().filter(|_| self.request.from <= From::Test) {
            // Whatever is wrong here is said again, and recorded, by the stage that runs the tests.
            self.stage(
                Work::new("prepare", "e2e-runner", &["prepare"]).component(component).args(&self.request.ci_args()),
            );
        }
    }

    /// Whether the component's release is in the run directory, verified.
    fn build(&self, component: &str, repo: &str) -> bool {
        let request = self.request;
        if request.from > From::Build {
            return true;
        }
        let platforms = options("--platform", &request.platforms);
        let images = Work::new("images", "image-build", &["images", "--repo", repo]);
        let test_on = options("--platform", &request.test_on);
        if request.lab.is_some() && !self.stage(images.args(&test_on).args(&request.ci_args())).good() {
            return false;
        }
        let target = format!("{repo}/{component}");
        let work = match &request.release {
            None => Work::new("build", "image-build", &["build", "--repo", &target]),
            Some(release) => Work::new("verify", "image-build", &["import", release]),
        };
        let work = work.component(component).args(&platforms).args(&request.ci_args()).run_dir(self.run);
        self.stage(work.show()).good()
    }

    /// A component on a platform: what was there is kept in mind, and is what is left at the end.
    fn cell(&self, component: &str, platform: &Platform, repo: &str) {
        let request = self.request;
        let work = |stage, tool, verb| {
            let work = Work::new(stage, tool, &[verb]).component(component).platform(platform).run_dir(self.run);
            work.args(&request.cluster)
        };
        if request.from <= From::Install {
            if !self.stage(work("snapshot", "cleanup", "snapshot")).good() {
                return;
            }
            if !self.stage(work("install", "cluster-install", "install").args(&request.ci_args()).show()).good() {
                self.clean(work("cleanup", "cleanup", "run"));
                return;
            }
        }
        if request.from <= From::Test {
            let mut tests =
                work("test", "e2e-runner", "run").args(&request.ci_args()).args(&["--repo".into(), repo.into()]);
            if let Some(suite) = &request.suite {
                tests = tests.args(&["--suite".into(), suite.clone()]);
            }
            for pair in &request.env {
                tests = tests.args(&["--env".into(), pair.clone()]);
            }
            self.stage(tests.show());
        }
        self.clean(work("cleanup", "cleanup", "run"));
    }

    fn clean(&self, work: Work) {
        if self.request.keep {
            self.ui.note("the cluster stays as it is (--keep); later: cargo xtask cleanup run");
            let release = Work::new("lease", "cluster-install", &["lease", "release"]).unrecorded();
            self.runner.run(release.run_dir(self.run).args(&self.request.cluster));
            return;
        }
        if signal::received().is_some() && self.lab_is_ours {
            // The whole lab goes.
            return;
        }
        // After an interrupt a borrowed cluster is given back clean all the same; a second Ctrl-C ends this too.
        signal::forget();
        let work = if self.request.lab.is_some() { work.args(&["--force-finalizers".into()]) } else { work };
        self.stage(work.show());
    }

    fn stage(&self, work: Work) -> Ended {
        if signal::received().is_some() && work.name() != "cleanup" {
            return Ended::not_begun();
        }
        self.runner.run(work)
    }

    /// Writes how the stages ended, seals the run and renders the matrix.
    fn seal(&self, head: Head) -> Result<(Option<Cause>, Exit)> {
        let stages = self.runner.stages();
        let ran = stages.iter().filter(|stage| stage.name == "test" && stage.cause != Some(Cause::NothingRan)).count();
        let causes: Vec<_> =
            stages.iter().filter(|stage| stage.name != "prepare").filter_map(|stage| stage.cause).collect();
        // A run that was asked to do nothing but clean up has done what it was asked.
        let ran = if self.request.from > From::Test { 1 } else { ran };
        let exit = combine(causes.iter().copied(), ran);
        let cause = causes.into_iter().find(|cause| cause.exit() == exit && exit != Exit::GOOD);
        let cause = cause.or_else(|| (exit == Exit::NOTHING_RAN).then_some(Cause::NothingRan));
        let mut head = Head { finished: jiff::Timestamp::now(), ..head };
        if let Some(cause) = cause {
            head.outcome = kit::Outcome::Failed;
            head.cause = Some(cause);
            head.reproduce = stages.iter().find(|stage| stage.cause == Some(cause)).map(|stage| stage.command.clone());
        }
        rundir::write_record(self.run.path(), &Stages { head, stages })?;
        self.runner.close();
        let history = self.request.history.display().to_string();
        let run = self.run.path().display().to_string();
        let record = Work::new("record", "support-matrix", &["record", &run, "--history", &history]).unrecorded();
        let recorded = self.runner.run(record);
        let out = self.request.out.display().to_string();
        let render = ["render", "--history", &history, "--format", "all", "--out", &out];
        let render = Work::new("matrix", "support-matrix", &render).args(&self.request.ci_args()).unrecorded();
        let rendered = self.runner.run(render);
        match self.ui.output {
            kit::Output::Text => self.ui.result(&rendered.stdout)?,
            kit::Output::Json => self.ui.json(&rundir::read_record::<Stages>(self.run.path())?.0)?,
        }
        self.ui.note(format!("matrix.md, matrix.html and matrix.json are in {out}"));
        let late = [recorded.cause, rendered.cause].into_iter().flatten().next();
        Ok(match (late, exit) {
            (Some(late), Exit::GOOD) => (Some(late), late.exit()),
            _ => (cause, exit),
        })
    }

    fn put_away(&self) {
        let Some(lab) = &self.request.lab else { return };
        if self.request.keep || !self.lab_is_ours {
            self.ui.note(format!("lab '{lab}' stays up; `cargo xtask lab down --name {lab}` takes it down"));
            return;
        }
        self.runner.run(Work::new("lab down", "lab", &["down", "--name", lab]).unrecorded());
    }

    fn show_times(&self, began: Instant) {
        let mut rows = vec![["stage", "component", "platform", "took", "outcome"].map(String::from).to_vec()];
        for stage in self.runner.stages() {
            let took = stage.finished.duration_since(stage.started).unsigned_abs();
            let platform = stage.platform.map(|platform| platform.to_string()).unwrap_or_default();
            let how = stage.cause.map_or_else(|| "good".into(), |cause| cause.to_string());
            rows.push(vec![stage.name, stage.component.unwrap_or_default(), platform, duration(took), how]);
        }
        self.ui.note(format!("where the time went, {} in all:\n{}", duration(began.elapsed()), table(&rows)));
    }
}

/// What a tool says, if it is good; for questions whose answer is no stage.
fn ask(tool: &str, args: &[&str]) -> Option<String> {
    let mut command = std::process::Command::new(tools::path(tool).ok()?);
    command.args(args);
    kit::Process::new(tool, command).limit(Duration::from_secs(30)).read().ok()
}

fn options(name: &str, values: &[Platform]) -> Vec<String> {
    values.iter().flat_map(|value| [name.to_owned(), value.to_string()]).collect()
}

/// Copies the records that stages before `from` left in an earlier run.
fn copy_records(earlier: &Path, run: &RunDir, from: From) -> Result<()> {
    let wanted: &[&str] = match from {
        From::Build => &[],
        From::Install => &["images.json", "release.yaml", "release.notags.yaml"],
        From::Test => &["images.json", "release.yaml", "release.notags.yaml", "install.json", "baseline.json"],
        From::Cleanup => &[
            "images.json",
            "release.yaml",
            "release.notags.yaml",
            "install.json",
            "baseline.json",
            "results.json",
            "junit.xml",
        ],
    };
    let mut folders: Vec<PathBuf> = vec![earlier.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).cause(Cause::Usage, || format!("cannot read {}", folder.display()))?;
        for entry in entries.flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if wanted.contains(&entry.file_name().to_string_lossy().as_ref()) {
                let bytes =
                    std::fs::read(&path).cause(Cause::HostDisk, || format!("cannot read {}", path.display()))?;
                rundir::write(&run.path().join(path.strip_prefix(earlier).unwrap_or(&path)), &bytes)?;
            }
        }
    }
    Ok(())
}

impl Request {
    fn record(&self, head: Head) -> RunRecord {
        RunRecord {
            head,
            components: self.components.clone(),
            platforms: self.platforms.clone(),
            test_on: self.test_on.clone(),
            suite: self.suite.clone(),
            cluster: self.lab.as_ref().map_or_else(|| self.cluster.join(" "), |lab| format!("lab-{lab}")),
            continues: self.earlier.as_ref().and_then(|earlier| RunDir::open(earlier).ok()).map(|earlier| earlier.id()),
        }
    }

    fn create_run_dir(&self) -> Result<RunDir> {
        let run = RunDir::create(&self.run_dir)?;
        if let Some(earlier) = &self.earlier {
            copy_records(earlier, &run, self.from)?;
        }
        Ok(run)
    }
}
