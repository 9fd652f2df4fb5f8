//! A used cluster back at its baseline, proven by a diff.
//!
//! `snapshot` writes what a cluster holds, `diff` compares, `run` goes back, `explain` says why something
//! is still there. Pure parts: `rules` (what is compared), `view` (of one object), `compare` (of all),
//! `order` (what goes when), `blockers`. The rest talks to the API server.

mod access;
mod api;
mod back;
mod blockers;
mod compare;
mod diff;
mod explain;
mod gone;
mod hmac;
mod list;
mod order;
mod passes;
mod remove;
mod report;
mod restore;
mod rules;
mod scene;
mod snapshot;
mod state;
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

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write what the cluster holds: the baseline of the run
    Snapshot(scene::Place),
    /// Show where the cluster differs from the baseline
    Diff(scene::Place),
    /// Remove what was added since the baseline, put back what was changed
    Run(back::RunArgs),
    /// Say why objects that were added are still there
    Explain(scene::Place),
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
        Verb::Snapshot(place) => snapshot::run(&place, ui),
        Verb::Diff(place) => diff::run(&place, ui),
        Verb::Run(args) => back::run(&args, ui),
        Verb::Explain(place) => explain::run(&place, ui),
    }
}
