//! `cargo xtask`: the one entry point of the workspace. Almost no logic: tools do the work.

mod check;
mod dogfood;
mod generate;
mod images;
mod nightly;
mod tekton;
mod test;
mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use kit::{Cause, Common, Done, Error, Result, Ui};

/// Build, install, test and prove ko-built Kubernetes components on other architectures
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = EXAMPLES)]
struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    task: Task,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask nightly                        Tekton Pipelines from source to a support matrix
  cargo xtask nightly --component greeter    the same, quickly, with a tiny component
  cargo xtask test                           this project's own tests
  cargo xtask dogfood                        the tools as Tekton steps: one lab drives another
  cargo xtask lab up                         a Kubernetes on this machine, to look around in
  cargo xtask image-build arch aarch64       any tool, with its own arguments

Exit codes: 0 good, 1 the product is not good, 2 wrong call, 3 infrastructure or a fault of ours,
4 nothing ran, 5 a program is missing, 128+n ended by signal n.";

#[derive(Subcommand)]
enum Task {
    /// Build, verify, install, test and clean up; then say what is supported
    Nightly(Box<nightly::Args>),
    /// Run this project's own tests
    Test(test::Args),
    /// Formatting, clippy, tidy and generated files
    Check(check::Args),
    /// Build the step images for all platforms, look into them, start them, push them
    Images(images::Args),
    /// Print the Tasks, Pipelines and Triggers for a cluster, or check them
    Tekton(tekton::Args),
    /// Two labs: Tekton in the first builds, installs and tests on the second
    Dogfood(Box<dogfood::Args>),
    /// Write what is generated: schemas from the code; CronJobs and a workflow from ci/
    Generate,
    #[command(flatten)]
    Tool(tools::Passthrough),
}

impl kit::Tool for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

fn run(args: Args, ui: &Ui) -> Result<Done> {
    match args.task {
        Task::Nightly(task) => nightly::run(*task, ui),
        Task::Test(task) => test::run(&task, ui),
        Task::Check(task) => check::run(&task, ui),
        Task::Images(task) => images::run(&task, ui),
        Task::Tekton(task) => tekton::run(&task, ui),
        Task::Dogfood(task) => dogfood::run(&task, ui),
        Task::Generate => generate::run(ui),
        Task::Tool(_) => Err(Error::new(Cause::Usage, "a tool's name comes right after `cargo xtask`")),
    }
}

fn main() -> ExitCode {
    // A tool gets every word after its name, also those that we have a meaning for.
    match tools::called() {
        Some((tool, arguments)) => tools::become_tool(tool, arguments),
        None => kit::cli::main(run),
    }
}
