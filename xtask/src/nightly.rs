//! `cargo xtask nightly`: the wiring of the tools, from source to a support matrix.
//!
//! Everything here is about order: what a stage does is the tool's business, and the tools meet in the
//! run directory. A failed stage still runs cleanup, and every run is recorded.

mod estimate;
mod recreate;
mod request;
mod stages;

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicI32, Ordering},
    time::Instant,
};

use kit::{
    Cause, Context, Done, Exit, Platform, Result, RunDir, Ui,
    record::{Head, Install, RunRecord, Stages},
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
    match runner.expected(&request) {
        Some(expected) => {
            ui.note(format!("expected: about {}, by what its stages took here before", duration(expected)))
        }
        None => ui.note("a first run compiles Kubernetes, the component and its tests: half an hour on two cores"),
    }
    let (interrupted, lab_is_ours) = (AtomicI32::new(0), AtomicBool::new(false));
    let nightly = Nightly { request: &request, run: &run, runner, ui, interrupted, lab_is_ours };
    nightly.work();
    nightly.note_signal();
    let sealed = nightly.seal(head);
    // One that came while the run was recorded must not keep the lab up.
    nightly.note_signal();
    // Also when the disk is full or nobody reads what we say.
    let put_away = nightly.put_away();
    nightly.show_times(began);
    let (cause, exit) = sealed?;
    let (cause, exit) = match put_away {
        Some(late) if exit == Exit::GOOD => (Some(late), late.exit()),
        _ => (cause, exit),
    };
    let exit = nightly.interrupted().map_or(exit, |number| Exit(u8::try_from(128 + number).unwrap_or(255)));
    ui.note(format!("{}: {}", run.id(), cause.map_or_else(|| "good".to_owned(), |cause| cause.to_string())));
    Ok(Done { cause, exit: Some(exit), ..Done::default() })
}

struct Nightly<'a> {
    request: &'a Request,
    run: &'a RunDir,
    runner: Runner<'a>,
    ui: &'a Ui,
    /// The signal that came, also after it was forgotten so that the cluster can be cleaned.
    interrupted: AtomicI32,
    /// Whether this run started the lab.
    lab_is_ours: AtomicBool,
}

impl Nightly<'_> {
    /// All stages; what went wrong stands in their records.
    fn work(&self) {
        let request = self.request;
        let Some(repo) = self.reach_registry() else { return };
        let (lab, built, probe) = std::thread::scope(|scope| {
            let lab = scope.spawn(|| self.cluster());
            let tests = scope.spawn(|| self.prepare_tests());
            let built = self.build_all(&repo);
            let probe = self.probe(&repo);
            // A panic in a thread is a bug of ours; what it did not do is as good as failed.
            let (lab, _tests) = (lab.join().unwrap_or(false), tests.join().is_ok());
            (lab, built, probe)
        });
        let lab = lab && self.preload();
        for component in request.components.iter().filter(|_| lab) {
            let ready = request.with_needs(component).all(|component| built.contains(component));
            for platform in request.test_on.iter().filter(|_| ready) {
                self.cell(component, platform, &repo, probe.as_deref());
            }
        }
    }

    /// Keeps a signal in mind, and lets processes run again.
    fn note_signal(&self) {
        if let Some(number) = signal::received() {
            self.interrupted.store(number, Ordering::SeqCst);
            signal::forget();
        }
    }

    fn interrupted(&self) -> Option<i32> {
        signal::received().or_else(|| Some(self.interrupted.load(Ordering::SeqCst)).filter(|number| *number != 0))
    }

    /// The registry that images go to: the lab's, which is up long before the rest of the lab.
    fn reach_registry(&self) -> Option<String> {
        let request = self.request;
        if request.named.is_some() {
            // It takes its time, and nothing is built for it alone.
            return request.repo.clone();
        }
        let Some(lab) = &request.lab else {
            let status = self.stage(Work::new("cluster", "cluster-install", &["status"]).args(&request.cluster));
            return status.good().then(|| request.repo.clone().unwrap_or_default());
        };
        let images = self.request.ci.folder().join("images.toml").display().to_string();
        let up = ["up", "--name", lab, "--until", "registry", "--images", &images, "--output", "json"];
        let up = self.stage(Work::new("registry", "lab", &up).args(&request.node_args));
        let status: serde_json::Value = serde_json::from_str(&up.stdout).unwrap_or_default();
        let registry = status["registry"].as_str().unwrap_or_default().to_owned();
        self.lab_is_ours.store(status["fresh"].as_bool().unwrap_or(false), Ordering::SeqCst);
        up.good().then(|| request.repo.clone().unwrap_or(registry))
    }

    fn cluster(&self) -> bool {
        if let Some(name) = &self.request.named {
            let create = ["cluster", "create", name, "--run", &self.run.id()];
            return self.stage(Work::new("cluster", "cluster-install", &create).args(&self.request.ci_args())).good();
        }
        let Some(lab) = &self.request.lab else { return true };
        let images = self.request.ci.folder().join("images.toml").display().to_string();
        let up = Work::new("lab", "lab", &["up", "--name", lab, "--images", &images]);
        self.stage(up.args(&self.request.node_args)).good()
    }

    /// Compiles the tests ahead: those of slow nodes are others, with the lengths of time that they need.
    fn prepare_tests(&self) {
        let request = self.request;
        let slow: Vec<_> = request.test_on.iter().map(|platform| self.runner.slowdown(platform)).collect();
        for component in request.components.iter().filter(|_| request.from <= From::Test) {
            let prepare = |name, more: &[String]| {
                let work = Work::new(name, "e2e-runner", &["prepare"]).component(component);
                let suite = request.suite.iter().flat_map(|suite| ["--suite".into(), suite.clone()]);
                let work = work.args(&suite.collect::<Vec<_>>());
                // Whatever is wrong here is said again, and recorded, by the stage that runs the tests.
                self.stage(work.args(&request.ci_args()).args(more));
            };
            if slow.contains(&None) {
                prepare("prepare", &[]);
            }
            for slowdown in slow.iter().flatten() {
                prepare(stages::PREPARE_SLOW, &["--slowdown".into(), slowdown.to_string()]);
            }
        }
    }

    /// The components whose release is in the run directory, verified.
    fn build_all(&self, repo: &str) -> Vec<String> {
        let request = self.request;
        if request.from > From::Build {
            return request.builds.clone();
        }
        let images = Work::new("images", "image-build", &["images", "--repo", repo]);
        let images = images.args(&options("--platform", &request.test_on)).args(&request.ci_args());
        for earlier in request.preload.iter().filter(|folder| folder.exists()) {
            // What an earlier run made there may not be wanted any more.
            if let Err(error) = std::fs::remove_dir_all(earlier) {
                self.ui.warn(format!("cannot remove {}: {error}", earlier.display()));
            }
        }
        let preload = request.preload.iter().flat_map(|folder| ["--preload".into(), folder.display().to_string()]);
        let images = images.args(&preload.collect::<Vec<_>>());
        if request.lab.is_some() && !self.stage(images).good() {
            return Vec::new();
        }
        request.builds.iter().filter(|component| self.build(component, repo)).cloned().collect()
    }

    /// The image that looks what nodes are, for them and for this machine, which they are compared with. Without
    /// it they are what the lab or their owners say.
    fn probe(&self, repo: &str) -> Option<String> {
        let request = self.request;
        if request.from > From::Install {
            return None;
        }
        let platforms: Vec<_> = request.test_on.iter().cloned().chain([Platform::host()]).collect();
        let probe =
            Work::new("probe", "image-build", &["probe", "--repo", repo]).args(&options("--platform", &platforms));
        let probe = self.stage(probe.args(&request.ci_args()));
        probe.good().then(|| probe.stdout.trim().to_owned())
    }

    /// Puts what no mirror can serve into the store of the lab's own node.
    fn preload(&self) -> bool {
        let (Some(lab), Some(folder)) = (&self.request.lab, &self.request.preload) else { return true };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "tar")).collect();
        files.sort();
        let load = |file: &PathBuf| {
            let file = file.display().to_string();
            self.stage(Work::new("load", "lab", &["load", "--name", lab, &file])).good()
        };
        files.iter().all(load)
    }

    fn build(&self, component: &str, repo: &str) -> bool {
        let request = self.request;
        let target = format!("{repo}/{component}");
        let work = match &request.release {
            None if request.rebuild => Work::new("build", "image-build", &["build", "--repo", &target]),
            None => Work::new("build", "image-build", &["build", "--reuse", "--repo", &target]),
            Some(release) => Work::new("verify", "image-build", &["verify", release]),
        };
        let work = work.component(component).args(&options("--platform", &request.platforms));
        self.stage(work.args(&request.ci_args()).run_dir(self.run).show()).good()
    }

    /// A component on a platform: what was there is kept in mind, and is what is left at the end.
    fn cell(&self, component: &str, platform: &Platform, repo: &str, probe: Option<&str>) {
        let request = self.request;
        let work = |stage, tool, verb| {
            let work = Work::new(stage, tool, &[verb]).component(component).platform(platform).run_dir(self.run);
            work.args(&request.cluster)
        };
        if request.from <= From::Install {
            let of_release = |verb, component: &String| of_release(request, self.run, verb, component, platform, probe);
            // Takes the lease as well, and gives it back unless the cluster is fit.
            let good = |work| {
                let ended = self.stage(work);
                ended.good() || self.leave(ended.cause)
            };
            if !request.with_needs(component).all(|component| good(of_release("preflight", component)))
                || !good(work("snapshot", "cleanup", "snapshot"))
            {
                return;
            }
            let install = |component: &String| {
                let good = self.stage(of_release("install", component).show()).good();
                self.note_slowdown(component, platform);
                good
            };
            if !request.with_needs(component).all(install) {
                self.clean(work("cleanup", "cleanup", "run"));
                self.recreate(component, platform);
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
        self.recreate(component, platform);
    }

    /// Keeps in mind how slow the lab's nodes were found to be, for the next run's [`Self::prepare_tests`].
    fn note_slowdown(&self, component: &str, platform: &Platform) {
        let Some(lab) = &self.request.lab else { return };
        let cell = self.run.cell(component, platform, &format!("lab-{lab}"));
        if let Some(slowdown) = rundir::read_record::<Install>(&cell).ok().and_then(|(record, _)| record.slowdown) {
            self.runner.note_slowdown(platform, slowdown);
        }
    }

    /// Makes the cluster anew if cleanup could not bring it back. One that goes at the end of this run anyway is only made
    /// again for what comes after in this run; a lab would lose the images that this run has put there.
    fn recreate(&self, component: &str, platform: &Platform) {
        let request = self.request;
        let last =
            request.components.last().is_some_and(|last| last == component) && request.test_on.last() == Some(platform);
        let goes = if request.named.is_some() { last } else { self.lab_is_ours.load(Ordering::SeqCst) };
        if goes || self.interrupted().is_some() {
            return;
        }
        let Some((cluster, [remove, make])) = recreate::works(request, self.run, component, platform) else { return };
        self.ui.note(format!("{cluster} does not get back to its baseline: it is made anew"));
        if self.runner.run(remove).good() {
            self.runner.run(make);
        }
    }

    /// Gives back the lease of a cluster on which nothing was changed, whatever the reason; says that it is not good.
    fn leave(&self, cause: Option<Cause>) -> bool {
        // What another run holds was never ours, and the lease of a whole lab that goes is of no use.
        if cause != Some(Cause::LeaseHeld) && !self.lab_is_ours.load(Ordering::SeqCst) {
            if self.interrupted().is_some() {
                self.note_signal();
            }
            let release = Work::new("lease", "cluster-install", &["lease", "release", "--if-clean"]).unrecorded();
            self.runner.run(release.run_dir(self.run).args(&self.request.cluster));
        }
        false
    }

    fn clean(&self, work: Work) {
        if self.request.keep {
            self.ui.note("the cluster stays as it is (--keep); later: cargo xtask cleanup run");
            let release = Work::new("lease", "cluster-install", &["lease", "release"]).unrecorded();
            self.runner.run(release.run_dir(self.run).args(&self.request.cluster));
            return;
        }
        if self.interrupted().is_some() {
            if self.lab_is_ours.load(Ordering::SeqCst) {
                // The whole lab goes.
                return;
            }
            self.ui.note("giving the cluster back clean; Ctrl-C ends this as well");
            self.note_signal();
        }
        let work = if self.request.lab.is_some() { work.args(&["--force-finalizers".into()]) } else { work };
        self.runner.run(work.show());
    }

    fn stage(&self, work: Work) -> Ended {
        if self.interrupted().is_some() {
            return Ended::not_begun();
        }
        self.runner.run(work)
    }

    /// Writes how the stages ended, seals the run and renders the matrix.
    fn seal(&self, head: Head) -> Result<(Option<Cause>, Exit)> {
        let stages = self.runner.stages();
        // A signal also counts when it came between two stages. A run that was asked to do nothing but clean up has
        // done what it was asked.
        let also: Vec<_> = self.interrupted().map(|_| Cause::Interrupted).into_iter().collect();
        let (cause, exit) = kit::stage::conclude(&stages, &also, self.request.from <= From::Test);
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
        if rendered.good() {
            self.ui.note(format!("matrix.md, matrix.html and matrix.json are in {out}"));
        }
        let late = [recorded.cause, rendered.cause].into_iter().flatten().next();
        Ok(match (late, exit) {
            (Some(late), Exit::GOOD) => (Some(late), late.exit()),
            _ => (cause, exit),
        })
    }

    /// Takes the lab down or removes the cluster if this run made it; the cause if that fails.
    fn put_away(&self) -> Option<Cause> {
        if let Some(name) = &self.request.named {
            if self.request.keep {
                self.ui.note(format!(
                    "cluster {name} stays; `cargo xtask cluster-install cluster delete {name}` removes it"
                ));
                return None;
            }
            // Whoever made it says so itself, also when this run was killed in between.
            let delete = ["cluster", "delete", name, "--run", &self.run.id()];
            let delete = Work::new("cluster removal", "cluster-install", &delete).args(&self.request.ci_args());
            return self.runner.run(delete.unrecorded()).cause;
        }
        let lab = self.request.lab.as_ref()?;
        if self.request.keep || !self.lab_is_ours.load(Ordering::SeqCst) {
            if self.runner.stages().iter().any(|stage| stage.name == "registry" && stage.cause.is_none()) {
                self.ui.note(format!("lab '{lab}' stays up; `cargo xtask lab down --name {lab}` takes it down"));
            }
            return None;
        }
        self.runner.run(Work::new("lab down", "lab", &["down", "--name", lab]).unrecorded()).cause
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

/// What cluster-install does with a release on a cluster.
fn of_release(
    request: &Request,
    run: &RunDir,
    verb: &'static str,
    component: &str,
    platform: &Platform,
    probe: Option<&str>,
) -> Work {
    let work = Work::new(verb, "cluster-install", &[verb]).component(component).platform(platform);
    let probe: Vec<_> = probe.into_iter().flat_map(|image| ["--probe".into(), image.into()]).collect();
    work.run_dir(run).args(&request.cluster).args(&request.ci_args()).args(&probe)
}

fn options(name: &str, values: &[Platform]) -> Vec<String> {
    values.iter().flat_map(|value| [name.to_owned(), value.to_string()]).collect()
}

/// Copies the records that stages before `from` left in an earlier run.
fn copy_records(earlier: &Path, run: &RunDir, from: From) -> Result<()> {
    let mut folders: Vec<PathBuf> = vec![earlier.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).cause(Cause::Usage, || format!("cannot read {}", folder.display()))?;
        for entry in entries.flatten() {
            let (path, kind) = (entry.path(), entry.file_type());
            if kind.as_ref().is_ok_and(std::fs::FileType::is_dir) {
                folders.push(path);
            } else if kind.is_ok_and(|kind| kind.is_file()) && from.needs(&entry.file_name().to_string_lossy()) {
                let target = run.path().join(path.strip_prefix(earlier).unwrap_or(&path));
                let mut file =
                    std::fs::File::open(&path).cause(Cause::Usage, || format!("cannot read {}", path.display()))?;
                // A cluster's bodies may be larger than memory.
                rundir::write_with(&target, |out| {
                    let copied = std::io::copy(&mut file, out).map(drop);
                    copied.cause(Cause::HostDisk, || format!("cannot copy {}", path.display()))
                })?;
                let mode = file.metadata().map(|data| data.permissions());
                let kept = mode.and_then(|mode| std::fs::set_permissions(&target, mode));
                kept.cause(Cause::HostDisk, || format!("cannot make {} what it was", target.display()))?;
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
            cluster: match (&self.lab, &self.named) {
                (Some(lab), _) => format!("lab-{lab}"),
                (None, Some(name)) => name.clone(),
                (None, None) => self.cluster.join(" "),
            },
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn both_wirings_ask_the_same_of_a_cluster() {
        let task = std::fs::read_to_string(tools::root().join("ci/tekton/tasks/preflight.yaml")).unwrap();
        let options = |text: &str| -> std::collections::BTreeSet<String> {
            let words = text.split_whitespace().filter(|word| word.starts_with("--"));
            let names = words.map(|word| word.split('=').next().unwrap().to_owned());
            // Which cluster, and what only that wiring wants to know.
            names
                .filter(|name| !["--kubeconfig", "--lab", "--results-dir", "--stage"].contains(&name.as_str()))
                .collect()
        };
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let request = Request::of("--lab two");
        let work = of_release(&request, &run, "preflight", "greeter", &Platform::host(), Some("image"));
        assert_eq!(options(&work.command()), options(&task));
    }

    #[test]
    fn bodies_that_cleanup_puts_back_go_along_and_stay_private() {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let cell = Path::new("greeter/linux-amd64/lab-x");
        let earlier = folders[0].path();
        std::fs::create_dir_all(earlier.join(cell)).unwrap();
        for name in ["baseline.json", "baseline.bodies.jsonl", "results.json"] {
            std::fs::write(earlier.join(cell).join(name), name).unwrap();
        }
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(earlier.join(cell).join("baseline.bodies.jsonl"), private).unwrap();
        let run = RunDir::create(folders[1].path()).unwrap();
        copy_records(earlier, &run, From::Cleanup).unwrap();
        let cell = run.path().join(cell);
        let bodies = cell.join("baseline.bodies.jsonl");
        assert_eq!(std::fs::read_to_string(&bodies).unwrap(), "baseline.bodies.jsonl");
        assert_eq!(std::fs::metadata(&bodies).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(cell.join("baseline.json").exists() && !cell.join("results.json").exists());
    }
}
