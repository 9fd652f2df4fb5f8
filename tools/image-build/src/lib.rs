//! Sources to verified multi-platform images and `release.yaml`.
//!
//! ko builds; this tool sees to it that what was asked for is what came out: that the bases have every
//! platform, that every image has them too, that each program is for the machine that its image is for.
//! Images that a configuration only names are found and checked or replaced, and the bases and stand-ins
//! are made from Debian's packages, so that no architecture runs out of them.

mod arch;
mod attach;
mod audit;
mod base;
mod bases;
mod build;
mod copy;
mod diff;
mod images;
mod ko;
mod manifests;
mod options;
mod probe;
mod release;
mod show;
mod verify;

use clap::{Parser, Subcommand};
use kit::{Common, Done, Result, Tool, Ui};

/// Build multi-platform images, and prove that they are what they say.
#[derive(Debug, Parser)]
#[command(name = "image-build", version)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build a component's images with ko, verify them, write images.json and release.yaml
    Build(Box<build::Args>),
    /// Build the stand-ins of ci/images.toml and push them to the registry's mirrors
    Images(images::Args),
    /// Look at the bases of a configuration before anything is built: platforms, age, end of life, user
    Bases(bases::Args),
    /// Make a base image for all platforms: from packages, root file systems, other bases or a Dockerfile
    Base(base::Args),
    /// Build the probe that looks what nodes are, and push it; prints its reference
    Probe(probe::Args),
    /// Compare images, releases, OCI layouts, programs and archives with the platforms asked for
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::Args),
    /// Attach a file to an image, as an artifact that refers to it: an SBOM, a provenance
    #[command(after_help = attach::EXAMPLES)]
    Attach(attach::Args),
    /// Copy a release with its signatures to other repositories, as one change
    Copy(copy::Args),
    /// Find every image that a component's sources name, and those that lack a platform
    Audit(audit::Args),
    /// Compare two releases: platforms gained and lost, users, bases, sizes
    Diff(diff::Args),
    /// Show an architecture under all its names
    Arch(arch::Args),
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
        Verb::Build(args) => build::run(&args, ui),
        Verb::Images(args) => images::run(&args, ui),
        Verb::Bases(args) => bases::run(&args, ui),
        Verb::Base(args) => base::run(&args, ui),
        Verb::Probe(args) => probe::run(&args, ui),
        Verb::Verify(args) => verify::run(&args, ui),
        Verb::Attach(args) => attach::run(&args, ui),
        Verb::Copy(args) => copy::run(&args, ui),
        Verb::Audit(args) => audit::run(&args, ui),
        Verb::Diff(args) => diff::run(&args, ui),
        Verb::Arch(args) => arch::run(&args, ui),
    }
}
