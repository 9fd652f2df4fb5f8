//! A cluster and a release to an installation that is ready, proven and recorded.
//!
//! What an installation is lies in `install`; each step of it in a file of its own.

mod annotate;
mod apply;
mod clusters;
mod diff;
mod extras;
mod images;
mod install;
mod lease;
mod machines;
mod plan;
mod platform;
mod pods;
mod preflight;
mod probe;
mod prune;
mod ready;
mod record;
mod release;
mod running;
mod status;
mod steps;
mod wait;
mod waves;
mod webhooks;

use clap::{Parser, Subcommand};
use install::Extent;
use kit::{Common, Done, Result, Tool, Ui};

/// Install a release on a cluster, wait until it is ready, and record what runs
#[derive(Debug, Parser)]
#[command(name = "cluster-install", version)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Install a component's release, wait until it is ready, and record what runs
    Install(install::Args),
    /// Only send a component's objects, and record nothing; only objects of custom kinds wait until the rest is ready
    Apply(install::Args),
    /// Only wait until what was applied is ready, and record what runs
    Wait(install::Args),
    /// Say whether a cluster can do the job, before anything is installed
    Preflight(preflight::Args),
    /// Say what an installation would create, change and leave as it is; change nothing
    Plan(plan::Args),
    /// Say what the nodes are: native, emulated or unknown, which processors, how fast
    Probe(machines::Args),
    /// Say which cluster it is, what is installed there and who holds it
    Status(status::Args),
    /// Clusters by name: create, delete, status, kubeconfig
    Cluster(clusters::Args),
    /// The cluster that a run works on, borrowed or made, by a Secret: take, release
    Target(clusters::target::Args),
    /// Show, take or release the lease that keeps two runs apart
    Lease(lease::Args),
    /// Say on a PipelineRun of Tekton what its run came to, as annotations
    Annotate(annotate::Args),
}

impl Tool for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

/// Does what the arguments say.
///
/// # Errors
/// What the verb says.
pub fn run(args: Args, ui: &Ui) -> Result<Done> {
    match args.verb {
        Verb::Install(args) => install::run(&args, Extent::Install, ui),
        Verb::Apply(args) => install::run(&args, Extent::Apply, ui),
        Verb::Wait(args) => install::run(&args, Extent::Wait, ui),
        Verb::Preflight(args) => preflight::run(&args, ui),
        Verb::Plan(args) => plan::run(&args, ui),
        Verb::Probe(args) => machines::run(&args, ui),
        Verb::Status(args) => status::run(&args, ui),
        Verb::Cluster(args) => clusters::run(&args, ui),
        Verb::Target(args) => clusters::target::run(&args, ui),
        Verb::Lease(args) => lease::run(&args, ui),
        Verb::Annotate(args) => annotate::run(&args, ui),
    }
}
