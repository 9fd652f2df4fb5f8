//! Runs a component's own tests and says, of each that is not good, who has to act.
//!
//! `parse` reads the stream of `go test -json`; `prepare` compiles a component's test program; `run` runs
//! it against a cluster. What lines of output mean is data in `cause::rules`.

pub mod arrange;
pub mod attempts;
mod builds;
mod cache;
pub mod cause;
pub mod compare;
pub mod cut_off;
pub mod diagnose;
pub mod environment;
pub mod evidence;
pub mod filter;
pub mod health;
pub mod home;
pub mod hung;
mod input;
pub mod junit;
pub mod leaves;
mod ledger;
pub mod live;
pub mod merge;
pub mod options;
pub mod overlay;
pub mod pace;
pub mod parse;
pub mod passes;
pub mod pattern;
pub mod place;
mod plan;
pub mod pods;
pub mod program;
pub mod report;
pub mod rounds;
pub mod runs;
mod script;
pub mod select;
pub mod session;
pub mod settings;
mod settle;
pub mod shard;
pub mod spool;
pub mod turns;
pub mod unit;
mod upgrade;

use clap::{Parser, Subcommand};
use kit::{Common, Done, Result, Tool, Ui};

/// The tool's name in records.
pub const TOOL: &str = "e2e-runner";
/// The tool's version in records.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Run a component's own tests; each failure gets a cause
#[derive(Debug, Parser)]
#[command(name = TOOL, version)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a component's tests against a cluster
    Run(Box<options::RunArgs>),
    /// Compile a component's tests, so that a later run finds them
    Prepare(options::PrepareArgs),
    /// Read a stream of `go test -json` and say what it means
    Parse(filter::ParseArgs),
    /// Hold two runs of the same tests against each other
    Compare(compare::CompareArgs),
    /// Make one record of all parts of a suite
    Merge(merge::MergeArgs),
    /// Run a program in a pod and pass on what it prints: what `run --kind unit` does for each package
    #[command(hide = true)]
    InPod(Box<unit::InPodArgs>),
}

impl Tool for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

/// Runs the tool.
///
/// # Errors
/// What went wrong, with its cause.
pub fn run(args: Args, ui: &Ui) -> Result<Done> {
    match args.verb {
        Verb::Run(args) => session::run(&args, ui),
        Verb::Prepare(args) => session::prepare(&args, ui),
        Verb::Parse(args) => filter::run(&args, ui),
        Verb::Compare(args) => compare::run(&args, ui),
        Verb::Merge(args) => merge::run(&args, ui),
        Verb::InPod(args) => unit::in_pod(&args, ui),
    }
}
