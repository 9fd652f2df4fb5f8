//! `cargo xtask dogfood`: a cluster that drives another, as TEP-0019 describes it, with two labs on this machine.
//!
//! The first gets Tekton Pipelines and Triggers, by our own tools, and what lies in `ci/tekton`; the second is the
//! target. A Job posts what a CronJob would post, and everything after that happens in the first cluster: a build, and
//! a run for each platform that is tested. Here they are only watched, and their matrix is compared with the one that
//! `cargo xtask nightly` computes on the same input.

mod driver;
mod follow;
mod labs;
mod matrix;
mod relay;

use std::path::PathBuf;

use kit::{Cause, Context, Done, Error, Output, Platform, Result, Ui, combine, rundir, ui::table};

use crate::tools;
use driver::Driver;
use follow::Followed;
use labs::Labs;

const EXAMPLES: &str = "\
Examples:
  cargo xtask dogfood                                        greeter on this machine's architecture
  cargo xtask dogfood --env GREETER_TEST=fail                a test that fails: exit code 1, cause product
  cargo xtask dogfood --target unreachable                   a target that does not answer: exit code 3
  cargo xtask dogfood --test-on linux/s390x                  an emulated node in the target
  cargo xtask dogfood --component pipeline --keep            Tekton itself; both labs stay up
  cargo xtask dogfood --release REFERENCE                    no build: only the run that tests a release
  cargo xtask dogfood --shards 2                             the end-to-end tests in two parts at the same time

The exit code is that of the runs together, as for `cargo xtask nightly`.";

/// Two labs: Tekton in the first builds, installs and tests on the second
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Component of ci/components.toml
    #[arg(long, value_name = "NAME", default_value = "greeter")]
    component: String,
    /// Platform that is tested; a lab emulates nodes of those that are not native here [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    test_on: Option<Platform>,
    /// Test this release of the component, as a build names it by digest, and build nothing
    #[arg(long, value_name = "REFERENCE", conflicts_with = "cancel")]
    release: Option<String>,
    /// A variable for the tests, such as GREETER_TEST=fail
    #[arg(long, value_name = "KEY=VALUE", default_value = "")]
    env: String,
    /// Parts in which the end-to-end tests run at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=4))]
    shards: u8,
    /// Spoil the way to the target before it is tested
    #[arg(long, value_enum, value_name = "HOW")]
    target: Option<Spoilt>,
    /// End the test's PipelineRun while its tests run
    #[arg(long, value_enum, value_name = "HOW")]
    cancel: Option<Cancel>,
    /// Do not run `cargo xtask nightly` on the same input to compare the matrices
    #[arg(long)]
    no_compare: bool,
    /// Leave both labs up; the next dogfood takes them as they are
    #[arg(long)]
    keep: bool,
    /// What the labs' names begin with
    #[arg(long, value_name = "NAME", default_value = "dogfood")]
    labs: String,
}

/// What is wrong with a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Spoilt {
    /// It does not answer
    Unreachable,
    /// Nobody has given the driver its Secret
    NoSecret,
    /// The Secret's kubeconfig is none
    BadSecret,
}

/// How a run is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Cancel {
    /// As CancelledRunFinally: its `finally` still runs
    Finally,
    /// As Cancelled: nothing more runs
    Now,
    /// The PipelineRun is deleted
    Delete,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    tools::build(tools::TOOLS, ui)?;
    let test_on = args.test_on.clone().unwrap_or_else(Platform::host);
    let mut platforms = vec![Platform::host()];
    platforms.extend(Some(test_on.clone()).filter(|platform| *platform != Platform::host()));
    let folder = tools::root().join("target/dogfood").join(rundir::new_run_id());
    std::fs::create_dir_all(&folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
    let request = Request { args, platforms, test_on, folder };
    let labs = Labs::up(&args.labs, &request.test_on, ui)?;
    let ran = request.work(&labs, ui);
    if !args.keep {
        labs.down(ui);
    }
    let (followed, cause) = ran?;
    let causes: Vec<_> = followed.iter().filter_map(|run| run.cause).chain(cause).collect();
    let exit = combine(causes.iter().copied(), followed.len());
    let cause = causes.into_iter().find(|cause| cause.exit() == exit);
    Ok(Done { cause, exit: Some(exit), ..Done::default() })
}

/// What was asked, checked.
struct Request<'a> {
    args: &'a Args,
    platforms: Vec<Platform>,
    test_on: Platform,
    folder: PathBuf,
}

impl Request<'_> {
    /// All of it; what the runs came to, and a cause of ours if the matrices differ.
    fn work(&self, labs: &Labs, ui: &Ui) -> Result<(Vec<Followed>, Option<Cause>)> {
        let driver = Driver::prepare(labs, &self.platforms, &self.folder, ui)?;
        if let Some(how) = self.args.target {
            driver.spoil(how, &self.test_on.dir())?;
        }
        let (component, since) = (&self.args.component, jiff::Timestamp::now());
        let fired = driver.fire(self, ui)?;
        let mut runs = vec![follow::to_the_end(labs, &fired, None, ui)?];
        if runs[0].cause.is_none() && self.args.release.is_none() {
            let test = follow::next(labs, component, &self.test_on.dir(), since, ui)?;
            runs.push(follow::to_the_end(labs, &test, self.args.cancel, ui)?);
        }
        for run in &runs {
            follow::keep(labs, &run.name, &self.folder)?;
        }
        self.show(&runs, ui)?;
        let ours = matrix::collect(labs, &self.folder)?;
        let other = self.args.target.is_some() || self.args.cancel.is_some() || self.args.release.is_some();
        if self.args.no_compare || other {
            return Ok((runs, None));
        }
        let differences = matrix::compare(self, labs, &ours, ui)?;
        if differences.is_empty() {
            ui.note("the matrix is the one that `cargo xtask nightly` computes");
            return Ok((runs, None));
        }
        ui.warn(format!("the matrices differ:\n{}", differences.join("\n")));
        Ok((runs, Some(Cause::Internal)))
    }

    fn show(&self, runs: &[Followed], ui: &Ui) -> Result<()> {
        if ui.output == Output::Json {
            return ui.json(&runs);
        }
        let mut rows =
            vec![["pipelinerun", "pipeline", "status", "outcome", "cause", "took"].map(String::from).to_vec()];
        for run in runs {
            let cause = run.cause.map_or_else(|| "good".into(), |cause| cause.to_string());
            let row = [&run.name, &run.pipeline, &run.reason, &run.outcome, &cause, &run.took];
            rows.push(row.into_iter().cloned().collect());
        }
        ui.result(table(&rows).trim_end())?;
        ui.note(format!("what was seen of them is in {}", self.folder.display()));
        Ok(())
    }
}

/// An error for something that a cluster did not do.
fn not_done(what: impl Into<String>) -> Error {
    Error::new(Cause::Apiserver, what)
}
