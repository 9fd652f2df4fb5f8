//! A used cluster back at its baseline, proven by a diff.
//!
//! `snapshot` writes what a cluster holds, `diff` compares, `run` goes back, `explain` says why something
//! is still there, `adopt` takes a cluster that a killed run may have left, `sweep` removes what tests left on a
//! cluster that is shared. Pure parts: `rules` (what is
//! compared), `view` (of one object), `compare` (of all), `select` (a part), `order` (what goes when), `budget`,
//! `blockers`, `reasons`, `finalizers`, `page`. The rest talks to the API server, or to the run directory
//! (`bodies`, `health`).

mod access;
mod adopt;
mod api;
mod back;
mod begin;
mod blockers;
mod bodies;
mod budget;
mod compare;
mod controllers;
mod diff;
mod explain;
mod finalizers;
mod gone;
mod health;
mod list;
mod nodes;
mod order;
mod page;
mod passes;
mod reasons;
mod remove;
mod report;
mod restore;
mod rules;
mod scene;
mod secret;
mod select;
mod snapshot;
mod state;
mod sweep;
mod view;

use clap::{Parser, Subcommand};
use kit::{Common, Done, Result, Tool, Ui};

/// The tool's name in records.
pub const TOOL: &str = "cleanup";
/// The tool's version in records.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Bring a used cluster back to where it was, and prove it
#[derive(Debug, Parser)]
#[command(name = TOOL, version)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    verb: Verb,
}

const RUN_EXAMPLES: &str = "\
Examples:
  cleanup run --run-dir target/runs/R --component pipeline --dry-run
  cleanup run --run-dir target/runs/R --component pipeline --force-finalizers=PipelineRun,TaskRun
  cleanup run --run-dir /tmp/x --component pipeline --release release.yaml --cluster-uid UID
  cleanup run --run-dir target/runs/R --component pipeline --label tekton.dev/test-e2e=true --older-than 2h

Exit codes: 0 at the baseline; 1 not, the record says what is left (stage needs-recreate: make the cluster anew);
2 a baseline of another cluster, or of another Kubernetes, or none; 3 the cluster, its lease or our rights.";

const SWEEP_EXAMPLES: &str = "\
Examples:
  cleanup sweep --kubeconfig in-cluster --label tekton.dev/test-e2e=true --older-than 6h
  cleanup sweep --kubeconfig FILE --cluster-uid UID --label tekton.dev/test-e2e=true --dry-run

Exit codes: 0 all gone, or nothing to sweep; 1 some are still there, each with why; 2 a cluster that is not named;
3 the cluster or our rights. ci/sweep.yaml runs it every hour with a role that can do this and no more.";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write what the cluster holds: the baseline of the run
    Snapshot(snapshot::SnapshotArgs),
    /// Show where the cluster differs from the baseline
    Diff(scene::Place),
    /// Remove what was added since the baseline, put back what was changed
    #[command(after_help = RUN_EXAMPLES)]
    Run(back::RunArgs),
    /// Say why objects that were added are still there, who has to act, and what to do
    Explain(scene::Place),
    /// Take a cluster for a run, and clean first what a run has left that was killed there
    Adopt(adopt::AdoptArgs),
    /// Remove namespaces that tests left on a cluster that others use as well
    #[command(after_help = SWEEP_EXAMPLES)]
    Sweep(sweep::SweepArgs),
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
        Verb::Snapshot(args) => snapshot::run(&args, ui),
        Verb::Diff(place) => diff::run(&place, ui),
        Verb::Run(args) => back::run(&args, ui),
        Verb::Explain(place) => explain::run(&place, ui),
        Verb::Adopt(args) => adopt::run(&args, ui),
        Verb::Sweep(args) => sweep::run(&args, ui),
    }
}
